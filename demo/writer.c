// writer URI LOG WRITES_PER_SECOND: writes to a disk over NBD, one write at a time, until SIGTERM. A write goes into the log
// only when the server has acknowledged it. When the server dies, the writer connects again and repeats the one write that
// was not acknowledged, nothing else. Standard output gets a line with the counter four times a second.
#include <libnbd.h>

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "entry.h"

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

// Data writes cluster as those of real machines do: most fill one stretch of 8 MiB, then another, and one of sixteen goes
// anywhere. No unit comes twice (until all have been used).
static uint64_t unit_of(uint64_t step, uint64_t units)
{
    enum { GROUP = 16, STRETCH = 128, FILL = STRETCH / GROUP * (GROUP - 1) };
    uint64_t stretches = units / STRETCH, scattered = stretches * (STRETCH / GROUP);
    if (step % GROUP == GROUP - 1) // the last unit of each group, in an order that jumps about: 7919 is prime
        return step / GROUP * 7919 % scattered * GROUP + GROUP - 1;
    uint64_t k = (step - step / GROUP) % (stretches * FILL);
    uint64_t stretch = k / FILL * 97 % stretches, inside = k % FILL * 7 % FILL;
    return stretch * STRETCH + inside / (GROUP - 1) * GROUP + inside % (GROUP - 1);
}

static struct nbd_handle *connect_to(const char *uri)
{
    struct nbd_handle *nbd = nbd_create();
    if (nbd && nbd_connect_uri(nbd, uri) == 0)
        return nbd;
    nbd_close(nbd);
    return NULL;
}

static bool deliver(struct nbd_handle *nbd, const struct entry *entry, const uint8_t *data)
{
    return nbd_pwrite(nbd, data, entry->length, entry->offset, 0) == 0 &&
           (entry->number % ENTRY_FLUSH || nbd_flush(nbd, 0) == 0);
}

// Writes, and flushes when it is time. A server that has gone has half a minute to come back.
static bool persist(struct nbd_handle **nbd, const char *uri, const struct entry *entry, const uint8_t *data)
{
    if (deliver(*nbd, entry, data))
        return true;
    for (int64_t deadline = now() + 30000000000; now() < deadline && !stopped;) {
        struct nbd_handle *again = connect_to(uri);
        if (again) {
            nbd_close(*nbd);
            *nbd = again;
            if (deliver(again, entry, data))
                return true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return false;
}

static int format(const struct entry *entry, char line[ENTRY_LINE])
{
    return snprintf(line, ENTRY_LINE, ENTRY_PRINT, entry->number, entry->issued, entry->acknowledged, entry->offset, entry->length,
                    entry->seed);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: writer URI LOG WRITES_PER_SECOND\n");
        return 3;
    }
    int64_t pace = 1000000000LL / atoi(argv[3]);
    char next_path[PATH_MAX];
    char line[ENTRY_LINE];
    snprintf(next_path, sizeof next_path, "%s.next", argv[2]);
    int log = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_EXCL, 0666), on_its_way = open(next_path, O_WRONLY | O_CREAT, 0666);
    if (log < 0 || on_its_way < 0) {
        perror(argv[2]);
        return 2;
    }
    struct nbd_handle *nbd = connect_to(argv[1]);
    if (!nbd) {
        fprintf(stderr, "writer: %s: %s\n", argv[1], nbd_get_error());
        return 2;
    }
    int64_t size = nbd_get_size(nbd);
    uint64_t units = (uint64_t)size / ENTRY_UNIT - 1; // the last one holds the counter
    if (size < 64 << 20 || size % ENTRY_BLOCK) {
        fprintf(stderr, "writer: a disk of at least 64 MiB is needed\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    static uint8_t data[ENTRY_UNIT];
    uint64_t random = (uint64_t)now(), written = 0;
    int64_t next = now(), shown = 0, longest = 0;
    for (uint64_t number = 1; !stopped; number++) {
        struct entry entry = {.number = number, .seed = entry_random(&random)};
        if (number % 2) {
            uint64_t step = number / 2, first = entry_random(&random) % (ENTRY_UNIT / ENTRY_BLOCK);
            uint64_t count = 1 + entry_random(&random) % (ENTRY_UNIT / ENTRY_BLOCK - first);
            entry.offset = unit_of(step, units) * ENTRY_UNIT + first * ENTRY_BLOCK;
            entry.length = (uint32_t)(count * ENTRY_BLOCK);
        } else {
            entry.offset = entry_counter_offset((uint64_t)size);
            entry.length = ENTRY_BLOCK;
        }
        entry_content(&entry, data);
        entry.issued = now();
        entry.acknowledged = ENTRY_NEVER;
        int length = format(&entry, line);
        if (pwrite(on_its_way, line, (size_t)length, 0) != length) {
            perror(next_path);
            return 2;
        }
        if (!persist(&nbd, argv[1], &entry, data)) {
            fprintf(stderr, "writer: write %" PRIu64 " failed: %s\n", number, nbd_get_error());
            return 1;
        }
        entry.acknowledged = now();
        length = format(&entry, line);
        if (write(log, line, (size_t)length) != length) {
            perror(argv[2]);
            return 2;
        }
        written += entry.length;
        if (entry.acknowledged - entry.issued > longest)
            longest = entry.acknowledged - entry.issued;
        if (entry.acknowledged - shown > 250000000) {
            shown = entry.acknowledged;
            printf("%" PRIu64 " writes acknowledged, %" PRIu64 " MiB; the slowest took %.1f ms\n", number, written >> 20,
                   (double)longest / 1e6);
            fflush(stdout);
        }
        next += pace;
        struct timespec wait = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
        if (next < entry.acknowledged)
            next = entry.acknowledged; // late: no catching up
        else
            clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &wait, NULL);
    }
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);
    return 0;
}
