// The lab's guests: one thread that writes to the disks of running VMs as their guests would, through NBD. What a disk
// holds follows from its key and the number of writes alone (docs/lab.md): a test can tell of a copy which moment it
// shows, and that it shows one.
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "hostd/lab.h"

enum { TICK_MS = 100, LOOK_MS = 1000, LOOK_SHARE = 20, MOST_AT_ONCE = 4096 };
#define MARK "refpoint lab disk, key "

struct disk {
    struct disk *next;
    char vm[RP_HOST_ID];       // id
    char *name;                // of the VM
    uint32_t number;
    struct nbd_handle *nbd;
    uint64_t key, blocks, writes;
    bool seen;                 // in the last inventory
};
struct rp_lab_guests {
    pthread_mutex_t mutex;     // everything; held while writing
    pthread_cond_t changed;    // monotonic clock
    pthread_t thread;
    struct rp_host_connection *host;
    struct disk *disks;
    uint64_t seed, rate;
    bool paused, stopping;
};

// ---- what is written -----------------------------------------------------------------------------------------------

// SplitMix64 (Steele, Lea, Flood 2014): its i-th value is a function of seed and i, which any language computes.
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t value(uint64_t seed, uint64_t i)
{
    return mix(seed + i * 0x9e3779b97f4a7c15ull);
}

// FNV-1a over "name/number", mixed with the seed.
uint64_t rp_lab_guests_key(uint64_t seed, const char *vm, uint32_t disk)
{
    RP_AUTO_FREE char *text = rp_xasprintf("%s/%u", vm, disk);
    uint64_t hash = 0xcbf29ce484222325ull;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        hash = (hash ^ *p) * 0x100000001b3ull;
    return mix(hash ^ seed);
}

uint64_t rp_lab_guests_block(uint64_t key, uint64_t number, uint64_t blocks)
{
    return 1 + value(key, number) % (blocks - 1);
}

void rp_lab_guests_fill(uint64_t key, uint64_t number, uint64_t block, uint8_t data[RP_LAB_BLOCK])
{
    memset(data, 0, 64);
    snprintf((char *)data, 64, "write %llu, block %llu\n", (unsigned long long)number, (unsigned long long)block);
    uint64_t seed = value(~key, number);
    for (size_t i = 64; i < RP_LAB_BLOCK; i += 8) {
        uint64_t v = value(seed, i / 8);
        for (unsigned k = 0; k < 8; k++)
            data[i + k] = (uint8_t)(v >> (8 * k));
    }
}

void rp_lab_guests_mark(uint64_t key, uint64_t number, uint8_t data[RP_LAB_BLOCK])
{
    memset(data, 0, RP_LAB_BLOCK);
    snprintf((char *)data, RP_LAB_BLOCK, MARK "%016llx, %llu writes\n", (unsigned long long)key,
             (unsigned long long)number);
}

// ---- disks ---------------------------------------------------------------------------------------------------------

static void disconnect(struct disk *disk)
{
    nbd_close(disk->nbd);
    disk->nbd = NULL;
}

static void drop_disk(struct disk **place)
{
    struct disk *disk = *place;
    *place = disk->next;
    if (disk->nbd)
        disconnect(disk);
    free(disk->name);
    free(disk);
}

static int fail_nbd(const struct disk *disk, const char *what, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_IO, "the guest of %s, disk%u: %s: %s", disk->name, disk->number, what, nbd_get_error());
}

// A disk that is known goes on where it was: the mark comes after what it counts, and repeating a write is harmless.
static int connect_disk(struct rp_lab_guests *guests, struct disk *disk, const char *uri, struct rp_error *err)
{
    char text[RP_LAB_BLOCK + 1] = "";
    unsigned long long key, writes;
    disk->nbd = nbd_create();
    if (!disk->nbd)
        return fail_nbd(disk, "connect", err);
    int64_t size = nbd_connect_uri(disk->nbd, uri) ? -1 : nbd_get_size(disk->nbd);
    if (size < 0 || (size >= 2 * RP_LAB_BLOCK && nbd_pread(disk->nbd, text, RP_LAB_BLOCK, 0, 0))) {
        fail_nbd(disk, "connect", err);
        disconnect(disk);
        return -1;
    }
    disk->blocks = (uint64_t)size / RP_LAB_BLOCK;
    if (sscanf(text, MARK "%llx, %llu", &key, &writes) == 2) {
        disk->key = key;
        disk->writes = writes > disk->writes ? writes : disk->writes;
    } else {
        disk->key = rp_lab_guests_key(guests->seed, disk->name, disk->number);
        disk->writes = 0;
    }
    return 0;
}

static struct disk *find_disk(struct rp_lab_guests *guests, const struct rp_vm *vm, uint32_t number)
{
    for (struct disk *disk = guests->disks; disk; disk = disk->next)
        if (disk->number == number && !strcmp(disk->vm, vm->id))
            return disk;
    struct disk *disk = rp_xcalloc(1, sizeof *disk);
    snprintf(disk->vm, sizeof disk->vm, "%s", vm->id);
    disk->name = rp_xstrdup(vm->name);
    disk->number = number;
    disk->next = guests->disks;
    guests->disks = disk;
    return disk;
}

// Which disks there are now, and a connection to each; those that are gone stay in the list, unseen. A service that just
// ends or starts is connected to at the next look: whoever needs that disk sees that it is not connected.
static int look(struct rp_lab_guests *guests, struct rp_error *err)
{
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    if (guests->host->ops->inventory(guests->host, &inventory, err))
        return -1;
    for (struct disk *disk = guests->disks; disk; disk = disk->next)
        disk->seen = false;
    for (size_t i = 0; i < inventory.count; i++) {
        const struct rp_inventory_vm *item = &inventory.items[i];
        for (size_t k = 0; k < item->settings.disk_count; k++) {
            const struct rp_vm_disk *found = &item->settings.disks[k];
            if (!found->nbd_uri)
                continue;
            struct rp_error why = {0};
            struct disk *disk = find_disk(guests, &item->vm, found->number);
            disk->seen = true;
            if (!disk->nbd && connect_disk(guests, disk, found->nbd_uri, &why))
                rp_log(RP_LOG_INFO, "lab: %s", why.text);
        }
    }
    return 0;
}

static void drop_unseen(struct rp_lab_guests *guests)
{
    for (struct disk **place = &guests->disks; *place;) {
        if ((*place)->seen)
            place = &(*place)->next;
        else
            drop_disk(place);
    }
}

static int write_disk(struct disk *disk, uint64_t count, struct rp_error *err)
{
    uint8_t data[RP_LAB_BLOCK];
    if (!disk->nbd || disk->blocks < 2)
        return 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t block = rp_lab_guests_block(disk->key, disk->writes + 1, disk->blocks);
        rp_lab_guests_fill(disk->key, disk->writes + 1, block, data);
        if (nbd_pwrite(disk->nbd, data, sizeof data, block * RP_LAB_BLOCK, 0))
            return fail_nbd(disk, "write", err);
        disk->writes++;
    }
    rp_lab_guests_mark(disk->key, disk->writes, data);
    if (nbd_pwrite(disk->nbd, data, sizeof data, 0, 0))
        return fail_nbd(disk, "write", err);
    return 0;
}

// ---- the thread ----------------------------------------------------------------------------------------------------

static void write_all(struct rp_lab_guests *guests, uint64_t count, bool flush)
{
    for (struct disk *disk = guests->disks; disk; disk = disk->next) {
        struct rp_error err = {0};
        if (!disk->nbd)
            continue;
        if (write_disk(disk, count, &err) || (flush && nbd_flush(disk->nbd, 0))) {
            rp_log(RP_LOG_INFO, "lab: %s", *err.text ? err.text : nbd_get_error());
            disconnect(disk); // its service has ended: looked at again soon
        }
    }
}

// A guest that has nothing to write lets go of its disks: a VM that is stopped need not hang up on it.
static void let_go(struct rp_lab_guests *guests)
{
    while ((guests->paused || !guests->rate) && guests->disks)
        drop_disk(&guests->disks);
}

static void sleep_until(struct rp_lab_guests *guests, uint64_t time)
{
    struct timespec end = {(time_t)(time / 1000000000), (long)(time % 1000000000)};
    while (!guests->stopping && !pthread_cond_timedwait(&guests->changed, &guests->mutex, &end))
        ;
}

// A host with many VMs is looked at less often, so that looking takes no more than a twentieth of the time.
static uint64_t look_again(struct rp_lab_guests *guests)
{
    struct rp_error err = {0};
    uint64_t start = rp_clock_monotonic_ns();
    if (look(guests, &err))
        rp_log(RP_LOG_INFO, "lab: %s", err.text);
    else
        drop_unseen(guests);
    uint64_t now = rp_clock_monotonic_ns(), pause = (now - start) * LOOK_SHARE;
    return now + (pause > LOOK_MS * 1000000ull ? pause : LOOK_MS * 1000000ull);
}

static void *run(void *argument)
{
    struct rp_lab_guests *guests = argument;
    pthread_mutex_lock(&guests->mutex);
    uint64_t last = rp_clock_monotonic_ns(), next_look = 0, owed = 0;
    while (!guests->stopping) {
        uint64_t now = rp_clock_monotonic_ns();
        if (guests->paused || !guests->rate) {
            owed = 0;
            next_look = 0;
            let_go(guests);
        } else {
            bool looks = now >= next_look;
            if (looks)
                next_look = look_again(guests);
            owed += (now - last) / 1000 * guests->rate / 1000000;
            uint64_t count = owed / RP_LAB_BLOCK < MOST_AT_ONCE ? owed / RP_LAB_BLOCK : MOST_AT_ONCE;
            owed %= RP_LAB_BLOCK;
            if (count)
                write_all(guests, count, looks); // a flush a second
        }
        last = now;
        sleep_until(guests, now + TICK_MS * 1000000ull);
    }
    pthread_mutex_unlock(&guests->mutex);
    return NULL;
}

struct rp_lab_guests *rp_lab_guests_start(const char *directory, uint64_t seed, uint64_t rate, struct rp_error *err)
{
    struct rp_host_connection *host = rp_host_local_open(directory, err);
    if (!host)
        return NULL;
    struct rp_lab_guests *guests = rp_xcalloc(1, sizeof *guests);
    guests->host = host;
    guests->seed = seed;
    guests->rate = rate;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&guests->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&guests->mutex, NULL);
    int sys = pthread_create(&guests->thread, NULL, run, guests);
    if (!sys)
        return guests;
    rp_fail_sys(err, sys, "start the guests' thread");
    guests->stopping = true;
    pthread_cond_destroy(&guests->changed);
    pthread_mutex_destroy(&guests->mutex);
    rp_host_close(host);
    free(guests);
    return NULL;
}

void rp_lab_guests_stop(struct rp_lab_guests *guests)
{
    if (!guests)
        return;
    pthread_mutex_lock(&guests->mutex);
    guests->stopping = true;
    pthread_cond_broadcast(&guests->changed);
    pthread_mutex_unlock(&guests->mutex);
    pthread_join(guests->thread, NULL);
    while (guests->disks)
        drop_disk(&guests->disks);
    rp_host_close(guests->host);
    pthread_cond_destroy(&guests->changed);
    pthread_mutex_destroy(&guests->mutex);
    free(guests);
}

void rp_lab_guests_pause(struct rp_lab_guests *guests, bool pause)
{
    pthread_mutex_lock(&guests->mutex);
    guests->paused = pause;
    pthread_mutex_unlock(&guests->mutex);
}

static int fail_unconnected(const struct disk *disk, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_IO, "the guest of %s, disk%u: not connected", disk->name, disk->number);
}

static int write_and_flush(struct disk *disk, unsigned count, struct rp_error *err)
{
    if (!disk->nbd)
        return fail_unconnected(disk, err);
    if (write_disk(disk, count, err) || (nbd_flush(disk->nbd, 0) && fail_nbd(disk, "flush", err))) {
        disconnect(disk);
        return -1;
    }
    return 0;
}

// A connection may be one to a service that has ended, which writing tells: then it is looked at once more. Nothing is
// dropped by that look: the loop stands on a disk that may be gone.
static int write_vm(struct rp_lab_guests *guests, const char *vm, unsigned count, struct rp_error *err)
{
    bool found = false;
    if (look(guests, err))
        return -1;
    drop_unseen(guests);
    for (struct disk *disk = guests->disks; disk; disk = disk->next) {
        if (*vm && strcasecmp(disk->vm, vm) && strcmp(disk->name, vm))
            continue;
        uint64_t before = disk->writes;
        found = true;
        if (!disk->nbd)
            return fail_unconnected(disk, err);
        if (!write_and_flush(disk, count, NULL))
            continue;
        if (look(guests, err) || write_and_flush(disk, (unsigned)(before + count - disk->writes), err))
            return -1;
    }
    return found ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "no VM%s%s runs and has disks", *vm ? " " : "", vm);
}

int rp_lab_guests_write(struct rp_lab_guests *guests, const char *vm, unsigned count, struct rp_error *err)
{
    pthread_mutex_lock(&guests->mutex);
    int result = write_vm(guests, vm, count, err);
    let_go(guests);
    pthread_mutex_unlock(&guests->mutex);
    return result;
}
