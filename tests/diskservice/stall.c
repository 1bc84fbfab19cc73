// How long a checkpoint and a merge stop the guest: disks of a VM under random writes of 4 KiB from many threads, checkpoints
// meanwhile, each merged down again.
//   stall DIR [CHECKPOINTS [DISKS [DEPTH [MIB [RATE]]]]]
// Default: 50 checkpoints, 4 disks of 256 MiB, 32 threads writing to each, 20000 writes per second altogether. RATE 0: as many
// as go, which measures how long the checkpoint's thread waits for a processor among all those.
// Prints, in milliseconds, how long the gate was closed, what a checkpoint took altogether, and what the writes took: all of
// them, and for each checkpoint the slowest that was under way during it. DIR is emptied of the VM afterwards.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/num.h"
#include "diskservice/record.h"

enum { ROUND = 10, MAX_DEPTH = 128, BUCKETS = 4096 };

struct writer {
    struct rp_engine *engine;
    size_t disk;
    uint64_t blocks, seed, every_ns;
    pthread_t thread;
    atomic_uint counts[BUCKETS]; // of latencies, in steps of 10 µs, the last one for all above
    _Atomic uint64_t slowest_ns; // since it was last taken
    uint64_t slowest_ever_ns;
    uint64_t writes;
};

static atomic_bool stop;
static struct writer *writers;
static size_t writer_count;

static void *write_on(void *argument)
{
    struct writer *w = argument;
    uint8_t data[4096];
    memset(data, 0x5a, sizeof data);
    uint64_t next = rp_clock_monotonic_ns() + w->seed % (w->every_ns + 1);
    while (!atomic_load(&stop)) {
        w->seed ^= w->seed << 13, w->seed ^= w->seed >> 7, w->seed ^= w->seed << 17;
        memcpy(data, &w->seed, 8);
        struct rp_error err = {0};
        uint64_t start = rp_clock_monotonic_ns();
        if (rp_engine_write(w->engine, w->disk, data, sizeof data, w->seed % w->blocks * sizeof data, false, &err)) {
            fprintf(stderr, "stall: %s\n", err.text);
            exit(2);
        }
        uint64_t took = rp_clock_monotonic_ns() - start;
        atomic_fetch_add_explicit(&w->counts[rp_min64(took / 10000, BUCKETS - 1)], 1, memory_order_relaxed);
        if (took > atomic_load_explicit(&w->slowest_ns, memory_order_relaxed))
            atomic_store_explicit(&w->slowest_ns, took, memory_order_relaxed);
        w->slowest_ever_ns = rp_max64(w->slowest_ever_ns, took);
        w->writes++;
        next += w->every_ns;
        uint64_t now = rp_clock_monotonic_ns();
        if (next > now)
            usleep((useconds_t)((next - now) / 1000));
        else
            next = now; // what could not be written is not made up for
    }
    return NULL;
}

static uint64_t take_slowest(void)
{
    uint64_t slowest = 0;
    for (size_t i = 0; i < writer_count; i++)
        slowest = rp_max64(slowest, atomic_exchange(&writers[i].slowest_ns, 0));
    return slowest;
}

static int fail(const struct rp_error *err)
{
    fprintf(stderr, "stall: %s\n", err->text);
    exit(2);
}

static void create(const char *directory, size_t disks, uint64_t size)
{
    static struct rp_record record;
    struct rp_error err = {0};
    record.vm_id = rp_guid_new();
    for (size_t i = 0; i < disks; i++) {
        struct rp_vhdx_create c = {.size = size, .disk_id = rp_guid_new()};
        record.disks[record.count++] = (struct rp_record_disk){(uint32_t)i, c.disk_id, rp_xasprintf("%s/disk%zu.vhdx", directory, i)};
        if (rp_vhdx_create(rp_fs_posix(), record.disks[i].leaf_path, &c, &err))
            fail(&err);
    }
    if (rp_record_write(rp_fs_posix(), directory, &record, &err))
        fail(&err);
    rp_record_clear(&record);
}

static void empty(const char *directory)
{
    DIR *folder = opendir(directory);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        RP_AUTO_FREE char *path = rp_path_join(directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (folder)
        closedir(folder);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const char *what, uint64_t *ns, size_t count)
{
    qsort(ns, count, sizeof *ns, ascending);
    printf("%-44s p50 %8.3f  p99 %8.3f  max %8.3f ms\n", what, (double)ns[count / 2] / 1e6,
           (double)ns[(count * 99 + 99) / 100 - 1] / 1e6, (double)ns[count - 1] / 1e6);
}

// Merges the new leaves down again, under the guest; its longest pause.
static uint64_t merge(struct rp_engine *engine, const struct rp_engine_checkpoint *made)
{
    struct rp_error err = {0};
    struct rp_guid operation = rp_guid_new();
    struct rp_engine_merge state;
    const char *paths[RP_ENGINE_MAX_DISKS];
    for (size_t i = 0; i < made->count; i++)
        paths[i] = made->disks[i].leaf_path;
    if (rp_engine_merge_start(engine, &operation, paths, made->count, &err) || rp_engine_merge_wait(engine, &err))
        fail(&err);
    rp_engine_merge_state(engine, &state);
    return state.longest_pause_ns;
}

static double percentile(double share, uint64_t total)
{
    uint64_t seen = 0;
    for (size_t b = 0; b < BUCKETS; b++) {
        for (size_t i = 0; i < writer_count; i++)
            seen += writers[i].counts[b];
        if ((double)seen >= share * (double)total)
            return (double)(b + 1) / 100;
    }
    return 0;
}

int main(int argc, char **argv)
{
    size_t checkpoints = argc > 2 ? strtoul(argv[2], NULL, 10) : 50, disks = argc > 3 ? strtoul(argv[3], NULL, 10) : 4;
    size_t depth = argc > 4 ? strtoul(argv[4], NULL, 10) : 32;
    uint64_t size = (argc > 5 ? strtoull(argv[5], NULL, 10) : 256) * RP_MIB;
    uint64_t rate = argc > 6 ? strtoull(argv[6], NULL, 10) : 20000;
    if (argc < 2 || !checkpoints || !disks || disks > RP_ENGINE_MAX_DISKS || !depth || depth > MAX_DEPTH || !size) {
        fprintf(stderr, "usage: stall DIR [CHECKPOINTS [DISKS [DEPTH [MIB [RATE]]]]]\n");
        return 3;
    }
    RP_AUTO_FREE char *directory = rp_xasprintf("%s/stall-%ld", argv[1], (long)getpid());
    uint64_t *pauses = rp_xcalloc(checkpoints, 8), *whole = rp_xcalloc(checkpoints, 8), *around = rp_xcalloc(checkpoints, 8);
    uint64_t *merges = rp_xcalloc(checkpoints, 8);
    writer_count = disks * depth;
    writers = rp_xcalloc(writer_count, sizeof *writers);
    if (mkdir(directory, 0700)) {
        perror(directory);
        return 2;
    }
    double seconds = 0;
    struct rp_error err = {0};
    for (size_t done = 0; done < checkpoints;) {
        create(directory, disks, size);
        RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), directory);
        struct rp_engine *engine = rp_engine_open(rp_fs_posix(), directory, shm, &err);
        if (!engine)
            fail(&err);
        atomic_store(&stop, false);
        uint64_t start = rp_clock_monotonic_ns();
        for (size_t i = 0; i < writer_count; i++) {
            writers[i].engine = engine;
            writers[i].disk = i % disks;
            writers[i].every_ns = rate ? writer_count * 1000000000u / rate : 0;
            writers[i].blocks = size / 4096;
            writers[i].seed = i * 2654435761u + 88172645463325252u + done;
            if (pthread_create(&writers[i].thread, NULL, write_on, &writers[i]))
                return 2;
        }
        usleep(200000);
        for (size_t n = 0; n < ROUND && done < checkpoints; n++, done++) {
            usleep(50000);
            struct rp_guid operation = rp_guid_new();
            struct rp_engine_checkpoint result;
            take_slowest();
            uint64_t from = rp_clock_monotonic_ns();
            if (rp_engine_checkpoint(engine, &operation, &result, &err))
                fail(&err);
            whole[done] = rp_clock_monotonic_ns() - from;
            usleep(20000);
            around[done] = take_slowest();
            pauses[done] = result.pause_ns;
            merges[done] = merge(engine, &result);
            rp_engine_checkpoint_clear(&result);
        }
        atomic_store(&stop, true);
        for (size_t i = 0; i < writer_count; i++)
            pthread_join(writers[i].thread, NULL);
        seconds += (double)(rp_clock_monotonic_ns() - start) / 1e9;
        if (rp_engine_close(engine, &err))
            fail(&err);
        empty(directory);
    }
    uint64_t writes = 0, slowest = 0;
    for (size_t i = 0; i < writer_count; i++) {
        writes += writers[i].writes;
        slowest = rp_max64(slowest, writers[i].slowest_ever_ns);
    }
    printf("%zu checkpoints of %zu disks, %zu writes of 4 KiB in flight on each: %.0f writes per second\n", checkpoints, disks, depth, (double)writes / seconds);
    print("guest stopped (gate closed)", pauses, checkpoints);
    print("slowest write during a checkpoint", around, checkpoints);
    print("checkpoint, until it is durable", whole, checkpoints);
    print("longest pause of the merge after it", merges, checkpoints);
    printf("%-44s p50 %8.3f  p99 %8.3f  max %8.3f ms\n", "all writes", percentile(0.5, writes), percentile(0.99, writes), (double)slowest / 1e6);
    rmdir(directory);
    return 0;
}
