// A disk that is shared with whoever comes after a killed process, and a ledger of what was done to it, in memory that
// outlives the process: what was acknowledged must be there, and nothing else but what was under way.
#ifndef TESTS_DISK_LEDGER_H
#define TESTS_DISK_LEDGER_H

#include <stdatomic.h>

#include "disk/vhdx.h"

enum { SECTOR = 512, BLOCK = 1 << 20, BLOCKS = 16, DISK = BLOCKS * BLOCK, SECTORS = DISK / SECTOR, THREADS = 3 };

extern struct rp_error err;
extern char *shm_folder; // for shared memory
int ledger_make_folder(void **state); // cmocka's set-up and tear-down of it
int ledger_remove_folder(void **state);
void must(int failed); // fails the test with err's text

// What a worker is about to do, and what it has done; in memory that outlives it. A sector holds one stamp all over.
struct ledger {
    uint64_t stamps[SECTORS], flushed[SECTORS];
    struct {
        _Atomic uint32_t first, count; // sectors that are being changed
        _Atomic uint64_t stamp;
    } now[THREADS];
    atomic_uint ready;
};

struct worker {
    struct ledger *ledger;
    struct rp_vhdx *disk;
    uint64_t random;
    unsigned number, threads;
};

int ledger_change(struct worker *w, uint32_t first, uint32_t count, uint64_t stamp, bool trim, struct rp_error *e);
// Something at random. Worker k has the blocks whose number modulo the threads is k, so neighbours share pages of metadata.
int ledger_step(struct worker *w, struct rp_error *e);
// What is found counts as acknowledged from now on.
void ledger_verify(struct rp_vhdx *disk, struct ledger *l, uint64_t seed);
// The same for a file that was closed, or adopted.
void ledger_check_clean(struct rp_fs *fs, const char *path, struct rp_vhdx *parent, struct ledger *l, uint64_t seed);

// An empty disk `path`, or with `parent` one above a file that is filled by half and frozen, which is returned.
struct rp_vhdx *ledger_make(struct rp_fs *fs, const char *parent, const char *path, struct ledger *l);
struct rp_vhdx *ledger_open_shared(struct rp_fs *fs, const char *path, struct rp_vhdx *parent,
                                   const struct rp_vhdx_session *session);
int ledger_adopt(struct rp_fs *fs, const char *path, struct rp_error *e);

#endif
