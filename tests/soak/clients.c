#include "clients.h"

#include <errno.h>
#include <libnbd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LARGEST ((size_t)256 << 10)
#define ZONE ((uint64_t)1 << 20)
enum { ZONES = 3 };

struct client {
    struct clients *all;
    uint32_t disk;
    uint64_t random;
    struct nbd_handle *nbd;
    struct clients_counts counts;
    pthread_t thread;
    bool started;
};
struct clients {
    struct log *log;
    struct client_disk *disks;
    const char *socket;
    unsigned pace;
    atomic_bool stop;
    pthread_mutex_t lock;
    char wrong[256];
    uint64_t zones[16][ZONES]; // where most requests go
    struct client items[MAX_CLIENTS];
    size_t count;
};

static struct nbd_handle *connect_to(const char *socket, uint32_t disk)
{
    char name[16];
    struct nbd_handle *nbd = nbd_create();
    snprintf(name, sizeof name, "disk%u", disk);
    nbd_set_export_name(nbd, name);
    nbd_set_strict_mode(nbd, 0);
    if (!nbd_connect_unix(nbd, socket))
        return nbd;
    nbd_close(nbd);
    return NULL;
}

void client_disk_resize(struct client_disk *disk, uint64_t size)
{
    size_t before = disk->size / SECTOR, sectors = size / SECTOR;
    disk->now = realloc(disk->now, sectors * sizeof *disk->now);
    disk->busy = realloc(disk->busy, sectors);
    disk->used = realloc(disk->used, (size >> 20) + 1);
    memset(disk->used + (before ? (disk->size >> 20) + 1 : 0), 0, (size >> 20) + 1 - (before ? (disk->size >> 20) + 1 : 0));
    memset(disk->now + before, 0, (sectors - before) * sizeof *disk->now);
    memset(disk->busy, 0, sectors);
    disk->size = size;
    if (!disk->next)
        disk->next = 1;
}

// Marks the sectors as taken, unless one of them is.
static bool take(struct clients *all, struct client_disk *disk, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&all->lock);
    bool is_free = !memchr(disk->busy + offset / SECTOR, 1, length / SECTOR);
    if (is_free)
        memset(disk->busy + offset / SECTOR, 1, length / SECTOR);
    pthread_mutex_unlock(&all->lock);
    return is_free;
}

static void give_back(struct clients *all, struct client_disk *disk, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&all->lock);
    memset(disk->busy + offset / SECTOR, 0, length / SECTOR);
    pthread_mutex_unlock(&all->lock);
}

static void set_now(struct client_disk *disk, uint64_t offset, uint64_t length, uint32_t value)
{
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++)
        disk->now[s] = value;
}

// Where: nearly always in a few places, which are others each time. How much: each power of two as likely as the others.
static void choose_range(struct client *c, const struct client_disk *disk, uint64_t *offset, uint64_t *length, bool large)
{
    uint64_t most = large ? (uint64_t)4 << 20 : LARGEST, sectors = 1;
    unsigned power = (unsigned)(draw(&c->random) % 10);
    sectors = 1 + draw(&c->random) % ((uint64_t)1 << power);
    *length = sectors * SECTOR;
    if (large)
        *length <<= 3 + draw(&c->random) % 3;
    if (*length > most)
        *length = most;
    if (*length > disk->size)
        *length = disk->size;
    uint64_t room = disk->size - *length, at = draw(&c->random) % (room + 1);
    if (draw(&c->random) % 300)
        at = c->all->zones[c->disk][draw(&c->random) % ZONES] + draw(&c->random) % ZONE;
    at = at > room ? room : at;
    *offset = at / SECTOR * SECTOR;
    if (large && draw(&c->random) % 2) // whole blocks can be freed
        *offset = *offset >> 20 << 20;
    if (*offset + *length > disk->size)
        *length = disk->size - *offset;
}

static int change(struct client *c, enum op_kind kind)
{
    struct clients *all = c->all;
    struct client_disk *disk = &all->disks[c->disk];
    static _Thread_local uint8_t data[LARGEST];
    uint64_t offset, length;
    choose_range(c, disk, &offset, &length, kind != OP_WRITE);
    if (!take(all, disk, offset, length))
        return 0;
    uint32_t number = __atomic_fetch_add(&disk->next, 1, __ATOMIC_RELAXED);
    bool fua = kind != OP_TRIM && draw(&c->random) % 16 == 0;
    struct note note = {.disk = c->disk, .number = number, .what = kind, .ok = fua, .offset = offset, .length = length};
    int rc = 0;
    memset(disk->used + (offset >> 20), 1, ((offset + length - 1) >> 20) - (offset >> 20) + 1);
    log_note(all->log, NOTE_ISSUE, &note, sizeof note);
    switch (kind) {
    case OP_WRITE:
        content_fill(data, c->disk, number, offset, length);
        rc = nbd_pwrite(c->nbd, data, length, offset, fua ? LIBNBD_CMD_FLAG_FUA : 0);
        break;
    case OP_ZERO:
        rc = nbd_zero(c->nbd, length, offset, (fua ? LIBNBD_CMD_FLAG_FUA : 0) | (draw(&c->random) % 2 ? LIBNBD_CMD_FLAG_NO_HOLE : 0));
        break;
    case OP_TRIM:
        rc = nbd_trim(c->nbd, length, offset, 0);
    }
    if (rc) {
        set_now(disk, offset, length, ANY_VALUE);
        return -1; // and the sectors stay taken
    }
    log_note(all->log, NOTE_ACK, &note, sizeof note);
    set_now(disk, offset, length, kind == OP_WRITE ? number : kind == OP_ZERO ? VALUE_ZERO : ANY_VALUE);
    give_back(all, disk, offset, length);
    c->counts.requests++;
    c->counts.bytes += length;
    return 0;
}

static int flush(struct log *log, struct nbd_handle *nbd, uint32_t disk)
{
    struct note note = {.disk = disk};
    note.offset = log_note(log, NOTE_FLUSH_BEGIN, &note, sizeof note);
    if (nbd_flush(nbd, 0))
        return -1;
    log_note(log, NOTE_FLUSH, &note, sizeof note);
    return 0;
}

// What is read must be what was acknowledged.
static int look(struct client *c)
{
    struct clients *all = c->all;
    struct client_disk *disk = &all->disks[c->disk];
    static _Thread_local uint8_t data[LARGEST];
    uint64_t offset, length;
    choose_range(c, disk, &offset, &length, false);
    if (!take(all, disk, offset, length))
        return 0;
    if (nbd_pread(c->nbd, data, length, offset, 0))
        return -1;
    for (uint64_t i = 0; i < length; i += SECTOR) {
        uint64_t sector = (offset + i) / SECTOR;
        uint32_t value = content_value(data + i, c->disk, sector), expected = disk->now[sector];
        if (value == VALUE_DAMAGED || (expected != ANY_VALUE && value != expected)) {
            pthread_mutex_lock(&all->lock);
            snprintf(all->wrong, sizeof all->wrong, "disk%u sector %llu reads as %u, %u was acknowledged", c->disk,
                     (unsigned long long)sector, value, expected);
            pthread_mutex_unlock(&all->lock);
        }
    }
    give_back(all, disk, offset, length);
    c->counts.reads++;
    return 0;
}

static void *run(void *opaque)
{
    struct client *c = opaque;
    const struct log_header *log = c->all->log->header;
    int rc = 0;
    while (!rc && !atomic_load(&c->all->stop)) {
        unsigned dice = (unsigned)(draw(&c->random) % 100);
        if (atomic_load(&log->used) > log->bytes / 6 * 5)
            dice = 99; // the rest of the log is for the end of the step that is under way, which may take long on a busy machine
        rc = dice < 72 ? change(c, OP_WRITE) : dice < 79 ? change(c, OP_ZERO) : dice < 85 ? change(c, OP_TRIM)
             : dice < 93 ? flush(c->all->log, c->nbd, c->disk) : look(c);
        c->counts.flushes += dice >= 85 && dice < 93;
        struct timespec pause = {.tv_nsec = (long)(draw(&c->random) % (2 * c->all->pace + 1)) * 1000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

struct clients *clients_start(struct log *log, struct client_disk *disks, size_t disk_count, const char *socket, unsigned per_disk,
                              unsigned pace, uint64_t seed)
{
    struct clients *all = calloc(1, sizeof *all);
    all->log = log;
    all->disks = disks;
    all->socket = socket;
    all->pace = pace;
    pthread_mutex_init(&all->lock, NULL);
    for (uint32_t d = 0; d < disk_count; d++)
        for (size_t i = 0; i < ZONES; i++)
            all->zones[d][i] = draw(&seed) % (disks[d].size - ZONE) / SECTOR * SECTOR;
    for (uint32_t d = 0; d < disk_count; d++)
        for (unsigned i = 0; i < per_disk && all->count < MAX_CLIENTS; i++) {
            struct client *c = &all->items[all->count++];
            *c = (struct client){.all = all, .disk = d, .random = draw(&seed), .nbd = connect_to(socket, d)};
            if (c->nbd)
                c->started = !pthread_create(&c->thread, NULL, run, c);
        }
    return all;
}

const char *clients_stop(struct clients *all, struct clients_counts *counts)
{
    static char wrong[256];
    if (!all)
        return NULL;
    atomic_store(&all->stop, true);
    for (size_t i = 0; i < all->count; i++) {
        struct client *c = &all->items[i];
        if (c->started)
            pthread_join(c->thread, NULL);
        if (c->nbd) {
            nbd_shutdown(c->nbd, 0);
            nbd_close(c->nbd);
        }
        counts->requests += c->counts.requests;
        counts->bytes += c->counts.bytes;
        counts->flushes += c->counts.flushes;
        counts->reads += c->counts.reads;
    }
    snprintf(wrong, sizeof wrong, "%s", all->wrong);
    free(all);
    return *wrong ? wrong : NULL;
}

int clients_read_disk(const char *socket, uint32_t number, const struct client_disk *disk, bool whole, uint32_t *values)
{
    enum { PIECE = 1 << 20 };
    struct nbd_handle *nbd = connect_to(socket, number);
    uint8_t *data = malloc(PIECE);
    int rc = nbd && nbd_get_size(nbd) == (int64_t)disk->size ? 0 : -1;
    for (uint64_t at = 0; !rc && at < disk->size; at += PIECE) {
        size_t length = disk->size - at < PIECE ? (size_t)(disk->size - at) : PIECE;
        if (!whole && !disk->used[at / PIECE])
            continue;
        rc = nbd_pread(nbd, data, length, at, 0);
        if (!rc)
            content_values(data, number, at, length, values + at / SECTOR);
    }
    free(data);
    if (nbd)
        nbd_close(nbd);
    return rc;
}

int clients_flush(const char *socket, uint32_t number)
{
    struct nbd_handle *nbd = connect_to(socket, number);
    int rc = nbd ? nbd_flush(nbd, 0) : -1;
    if (nbd)
        nbd_close(nbd);
    return rc;
}

int clients_peek(const char *socket)
{
    uint8_t sector[SECTOR];
    struct nbd_handle *nbd = connect_to(socket, 0);
    int rc = nbd ? nbd_pread(nbd, sector, sizeof sector, 0, 0) : -1;
    if (nbd)
        nbd_close(nbd);
    return rc;
}
