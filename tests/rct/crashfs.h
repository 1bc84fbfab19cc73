// A file system that stops at a chosen call, like a machine that loses its power: the call it stops at is done in part,
// later ones fail. What was written since the last flush is then lost, kept, or torn, each write by chance.
#ifndef RP_TESTS_CRASHFS_H
#define RP_TESTS_CRASHFS_H

#include "io/memory.h"

struct rp_fs *crashfs_new(void);
void crashfs_free(struct rp_fs *fs);
// The n-th call that changes something fails, and all after it. 0: none.
void crashfs_arm(struct rp_fs *fs, unsigned long n);
// The n-th call that changes something fails, and only that one: RP_ERR_NO_SPACE, a full disk; RP_ERR_IO, a bad cable. A write
// is done in half. 0: none.
void crashfs_trip(struct rp_fs *fs, unsigned long n, enum rp_code code);
// What that call was, since the last n that was not 0, and of which file.
enum crashfs_call {
    CRASHFS_NONE,
    CRASHFS_WRITE, // or truncation, that makes the file longer
    CRASHFS_WRITE_IN_PLACE,
    CRASHFS_CUT,
    CRASHFS_NAME, // made, changed, removed
    CRASHFS_SYNC,
    CRASHFS_SYNC_DIRECTORY,
};
enum crashfs_call crashfs_tripped(struct rp_fs *fs, const char **path);
// No file gets longer, or is there no limit again.
void crashfs_full(struct rp_fs *fs, bool full);
// From the n-th changing call on no write finds space, not even one in place: the first of them is done in part. 0: there is
// room again.
void crashfs_fill(struct rp_fs *fs, unsigned long n);
bool crashfs_was_full(struct rp_fs *fs); // a write has found that, since the last call of crashfs_fill
// Writes, or syncs, of the files whose path contains `part` find no space; NULL: none.
void crashfs_refuse(struct rp_fs *fs, const char *part, bool syncs);
// Syncs of exactly this file fail, but for `pass` of them that come first; NULL: none.
void crashfs_lose(struct rp_fs *fs, const char *path, unsigned pass);
void crashfs_slow(struct rp_fs *fs, unsigned microseconds); // every flush takes that long
unsigned long crashfs_flushes(struct rp_fs *fs);
unsigned long crashfs_calls(struct rp_fs *fs); // changing calls since the last arm
bool crashfs_stopped(struct rp_fs *fs);        // it has happened
// Afterwards, all stores closed: only the process died (everything written is there), or the power failed.
void crashfs_restart(struct rp_fs *fs, bool power_cut, uint64_t *seed);

// xorshift64*, for tests that can be replayed.
uint64_t test_random(uint64_t *seed);
uint64_t test_seed(void); // RP_TEST_SEED, or a fixed one; printed

#endif
