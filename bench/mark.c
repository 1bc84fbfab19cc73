// mark FOLDER: what tracking costs in the data path, in nanoseconds, for writes of 4 KiB at random places of a 64 GiB
// disk: is the region covered, then the mark, with the array in shared memory, as in the disk service. When all of the
// array is there (steady: the median of seven rounds), and at the first touch of each page of it. FOLDER is any folder
// of ours. One line of JSON.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/num.h"
#include "io/memory.h"
#include "rct/rct.h"

enum { ROUNDS = 7, MARKS = 1 << 22 };

static _Noreturn void die(const struct rp_error *err)
{
    fprintf(stderr, "mark: %s\n", err->text);
    exit(2);
}

static uint64_t next_random(uint64_t *state) // xorshift: cheaper than what is measured
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

// CPU time: whoever else runs on the machine does not count.
static uint64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static double marks(struct rp_rct *rct, uint64_t size, uint64_t count, uint64_t *random)
{
    uint64_t start = cpu_ns(), uncovered = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = next_random(random) % (size / 4096) * 4096;
        uncovered += !rp_rct_covered(rct, offset, 4096);
        rp_rct_mark(rct, offset, 4096);
    }
    if (uncovered) {
        fprintf(stderr, "mark: %" PRIu64 " writes were not covered\n", uncovered);
        exit(2);
    }
    return (double)(cpu_ns() - start) / (double)count;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: mark FOLDER\n");
        return 3;
    }
    struct rp_error err = {0};
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_vhdx_create create = {.size = 64ull << 30};
    struct rp_vhdx_session session = {.file_write_guid = rp_guid_new(), .data_write_guid = rp_guid_new()};
    struct rp_rct_disk state;
    char *folder = rp_shm_directory(argv[1], &err);
    if (!folder || rp_shm_make(folder, argv[1], &err) || rp_vhdx_create(fs, "disk.vhdx", &create, &err))
        die(&err);
    struct rp_vhdx *disk = rp_vhdx_open(fs, "disk.vhdx", RP_VHDX_READ, NULL, &err);
    struct rp_shm *shm = disk ? rp_shm_create(folder, "mark", rp_rct_shm_size(), &err) : NULL;
    if (!shm || rp_rct_disk_of(disk, &state, &err))
        die(&err);
    struct rp_rct *rct = rp_rct_open_write(fs, "disk.vhdx", &state, &session, NULL, &err);
    if (!rct || rp_rct_share(rct, shm, &err) || rp_rct_cover(rct, 0, create.size, &err))
        die(&err);
    uint64_t random = 88172645463325252u;
    double first = marks(rct, create.size, 1 << 16, &random);
    double rounds[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        rounds[i] = marks(rct, create.size, MARKS, &random);
    qsort(rounds, ROUNDS, sizeof *rounds, compare);
    printf("{\"first_ns\": %.1f, \"steady_ns\": %.1f}\n", first, rounds[ROUNDS / 2]);
    rp_rct_abandon(rct);
    rp_vhdx_abandon(disk);
    rp_shm_clean(folder); // what the tracker left, as a killed service would
    free(folder);
    rp_fs_memory_free(fs);
    return 0;
}
