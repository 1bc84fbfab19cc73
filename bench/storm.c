// storm URI STRIDE COUNT DEPTH SEED SECONDS: COUNT writes of 4 KiB over NBD, each to another stretch of STRIDE bytes, in
// a shuffled order, DEPTH on their way at a time, for SECONDS at most; then a flush. Prints one line of JSON: seconds until
// the last was acknowledged, seconds with the flush, and how long the writes took in microseconds (median, 99 %, longest).
// With COUNT 0 it goes on over and over, without a flush, until SIGTERM.
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "load.h"

enum { BLOCK = 4096, DEPTH_MAX = 256, KEPT = 1 << 22 };

static uint8_t data[BLOCK];
static uint32_t *latencies;
static uint64_t completed;
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int done(void *issued, int *error)
{
    if (*error) {
        fprintf(stderr, "storm: a write failed: %s\n", strerror(*error));
        exit(1);
    }
    latencies[completed++ % KEPT] = (uint32_t)((now() - *(double *)issued) * 1e6);
    *(double *)issued = 0; // the slot is free
    return 1;
}

static int by_value(const void *a, const void *b)
{
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: storm URI STRIDE COUNT DEPTH SEED SECONDS\n");
        return 3;
    }
    uint64_t stride = strtoull(argv[2], NULL, 0), count = strtoull(argv[3], NULL, 0);
    uint64_t random = strtoull(argv[5], NULL, 0);
    int depth = atoi(argv[4]), seconds = atoi(argv[6]);
    struct nbd_handle *nbd = nbd_create();
    if (!nbd || nbd_connect_uri(nbd, argv[1]) < 0)
        die(argv[1]);
    uint64_t places = (uint64_t)nbd_get_size(nbd) / (stride ? stride : 1);
    bool forever = !count;
    if (forever)
        count = places;
    if (stride < BLOCK || !places || places > UINT32_MAX || count > places || depth < 1 || depth > DEPTH_MAX) {
        fprintf(stderr, "storm: the disk has %" PRIu64 " places of %" PRIu64 " bytes\n", places, stride);
        return 3;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);

    uint32_t *order = malloc(places * sizeof *order);
    latencies = calloc(KEPT, sizeof *latencies);
    if (!order || !latencies)
        die("memory");
    for (uint64_t i = 0; i < places; i++) {
        uint64_t j = next_random(&random) % (i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (size_t i = 0; i < BLOCK; i++)
        data[i] = (uint8_t)next_random(&random);

    static double issued[DEPTH_MAX];
    double start = now();
    for (uint64_t sent = 0; completed < count || forever;) {
        if (now() - start > seconds)
            stopped = 1;
        bool last = stopped || (!forever && sent == count);
        for (int slot = 0; slot < depth && !last; slot++) {
            if (issued[slot] != 0)
                continue;
            issued[slot] = now();
            nbd_completion_callback callback = {.callback = done, .user_data = &issued[slot]};
            if (nbd_aio_pwrite(nbd, data, BLOCK, (uint64_t)order[sent % count] * stride, callback, 0) < 0)
                die("write");
            last = ++sent == count && !forever;
        }
        if (stopped && completed == sent)
            break;
        if (nbd_poll(nbd, -1) < 0)
            die("poll");
    }
    double acknowledged = now() - start;
    if (!forever && nbd_flush(nbd, 0) < 0)
        die("flush");
    double durable = now() - start;
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);

    size_t kept = completed < KEPT ? completed : KEPT;
    qsort(latencies, kept, sizeof *latencies, by_value);
    printf("{\"writes\": %" PRIu64 ", \"seconds\": %.6f, \"durable_seconds\": %.6f, ", completed, acknowledged, durable);
    printf("\"median_us\": %u, \"p99_us\": %u, \"longest_us\": %u}\n", latencies[kept / 2], latencies[kept * 99 / 100],
           latencies[kept ? kept - 1 : 0]);
    return 0;
}
