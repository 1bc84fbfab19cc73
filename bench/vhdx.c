// vhdx read FILE THREADS: reads the whole disk through our library, in pieces of 1 MiB, THREADS at a time.
// vhdx plain FILE THREADS: reads the file itself in the same way, without us: what the machine makes of it.
// vhdx map FILE: asks for the state of every block.
// Prints one line of JSON.
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "disk/vhdx.h"

enum { PIECE = 1 << 20, THREADS_MAX = 16 };

static struct rp_vhdx *disk;
static struct rp_store *file; // instead of it
static uint64_t size;
static atomic_uint_fast64_t next_piece;

static _Noreturn void die(const struct rp_error *err)
{
    fprintf(stderr, "vhdx: %s\n", err->text);
    exit(2);
}

static int read_piece(void *data, uint64_t length, uint64_t offset, struct rp_error *err)
{
    return file ? rp_store_pread(file, data, length, offset, err) : rp_vhdx_read(disk, data, (uint32_t)length, offset, err);
}

static void *read_pieces(void *unused)
{
    (void)unused;
    struct rp_error err = {0};
    uint8_t *data = aligned_alloc(4096, PIECE);
    uint64_t offset;
    while (data && (offset = atomic_fetch_add(&next_piece, PIECE)) < size)
        if (read_piece(data, rp_min64(PIECE, size - offset), offset, &err))
            die(&err);
    free(data);
    return NULL;
}

static void open_file(const char *path, bool plain)
{
    struct rp_error err = {0};
    if (plain && (!(file = rp_fs_open(rp_fs_posix(), path, RP_OPEN_READ, &err)) || rp_store_size(file, &size, &err)))
        die(&err);
    if (!plain && !(disk = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ, NULL, &err)))
        die(&err);
    if (disk)
        size = rp_vhdx_info(disk)->size;
}

static int count_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    uint64_t *totals = context;
    totals[0]++;
    if (state == RP_VHDX_DATA)
        totals[1] += length;
    return 0;
}

int main(int argc, char **argv)
{
    bool map = argc == 3 && !strcmp(argv[1], "map"), plain = argc == 4 && !strcmp(argv[1], "plain");
    int threads = plain || (argc == 4 && !strcmp(argv[1], "read")) ? atoi(argv[3]) : 0;
    if (!map && (threads < 1 || threads > THREADS_MAX)) {
        fprintf(stderr, "usage: vhdx read FILE THREADS | vhdx plain FILE THREADS | vhdx map FILE\n");
        return 3;
    }
    struct rp_error err = {0};
    uint64_t start = rp_clock_monotonic_ns();
    open_file(argv[2], plain);
    uint64_t totals[2] = {0};
    if (map) {
        if (rp_vhdx_extents(disk, 0, size, count_extent, totals, &err))
            die(&err);
    } else {
        pthread_t ids[THREADS_MAX];
        for (int i = 0; i < threads; i++)
            if (pthread_create(&ids[i], NULL, read_pieces, NULL))
                return 2;
        for (int i = 0; i < threads; i++)
            pthread_join(ids[i], NULL);
    }
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 ", \"extents\": %" PRIu64 ", \"allocated\": %" PRIu64 "}\n",
           (double)(rp_clock_monotonic_ns() - start) / 1e9, size, totals[0], totals[1]);
    rp_vhdx_abandon(disk);
    rp_store_close(file);
    return 0;
}
