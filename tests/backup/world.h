// A fake host, a repository in a fresh folder, and the memory of what every restore point must hold.
#ifndef TESTS_BACKUP_WORLD_H
#define TESTS_BACKUP_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake.h"

struct image { // one disk at one moment
    uint64_t size;
    uint8_t *data;
};
struct expected {
    char point[RP_POINT_ID];
    struct image disks[FAKE_MAX];
};
struct world {
    char folder[64];
    struct fake_host fake;
    struct fake_backend *backend; // of `repo`, borrowed
    struct rp_repo *repo;
    struct rp_backup_options options;
    struct expected *expected;
    size_t expected_count;
    unsigned remarks;
    char last_remark[1024];
    int stop;                     // what options.stop and options.progress answer
    unsigned stop_at;             // for a test: in which call of the host to set it
    struct rp_backup_result last;
    struct rp_error error;
    uint64_t random;
};

void world_init(struct world *world);
void world_clear(struct world *world);
// Opens (and makes, when missing) a repository FOLDER/NAME.
struct rp_repo *world_open_repo(struct world *world, const char *name, struct fake_backend **backend);
// Backs up into world->repo. 0 (then remembers what the point must hold), or -1 (world->error).
int world_backup(struct world *world);
int world_backup_to(struct world *world, struct rp_repo *repo);
// A backup that must succeed.
const struct rp_point *world_must_backup(struct world *world);
// Every remembered point reads back exactly, and there are no others.
void world_verify(struct world *world);
uint64_t world_random(struct world *world, uint64_t limit);
// Random bytes over the range of the disk.
void world_write(struct world *world, unsigned slot, uint64_t offset, uint64_t length);
uint64_t world_seed(void); // RP_TEST_SEED, printed

// What a command of the shell prints; malloc'ed.
char *world_output_of(const char *command);
unsigned world_files_below(struct world *world, const char *folder); // of the repository

// One disk: a tree, a scattered start.
void world_small_disk(struct world *world, uint64_t size);

#endif
