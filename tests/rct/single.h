// A single disk with its tracker, on a file system in memory, for tests of one promise each.
#ifndef RP_TESTS_SINGLE_H
#define RP_TESTS_SINGLE_H

#include "rct/file.h"
#include "world.h"

#define SIZE (100 * RP_MIB)
#define UNIT ((uint64_t)WORLD_UNIT)
#define ALL ((int)(SIZE / UNIT))
#define REGION 64 // units of a region of the .mrt

struct disk { // a disk file, its tracking file and the tracker
    const char *path;
    struct rp_rct_disk facts;
    struct rp_rct *rct;
};

extern struct rp_fs *fs; // a fresh one for each test
int set_up(void **state);
int tear_down(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

struct disk new_disk(const char *path);
enum rp_rct_verdict open_disk(struct disk *d);
void close_disk(struct disk *d);
void crash_disk(struct disk *d);
// A checkpoint that is merged back at once: the disk keeps its one file, and an id is published.
struct rp_rct_id seal_disk(struct disk *d);
// Units changed since the id, or minus the error code.
int changed(struct rp_rct *rct, const struct rp_rct_id *id);
struct rp_buf read_file(const char *path);
void write_file(const char *path, const void *data, size_t size);

#endif
