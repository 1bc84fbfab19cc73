// What a disk must hold and what must have changed, kept in plain arrays beside the engine and without its code.
//
// Every operation gets a number; a sector's content tells which operation wrote it. A clock ticks before and after each
// checkpoint and flush: an operation that ended before the first tick was before the checkpoint, one that began after the
// second was after it, any other may be either.
#ifndef RP_TESTS_ORACLE_H
#define RP_TESTS_ORACLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "diskservice/engine.h"

enum { SECTOR = 512, ORACLE_UNIT = 64 << 10, ORACLE_BLOCK = 1 << 20, ORACLE_MAX = 20 << 20,
       SECTORS = ORACLE_MAX / SECTOR, UNITS = ORACLE_MAX / ORACLE_UNIT, CELL = 8 /* sectors that are claimed together */ };

struct op {
    uint32_t value; // what its sectors hold afterwards; 0: zeros
    uint32_t first, count; // sectors
    uint64_t begin, end;
};

// A checkpoint of one disk.
struct point {
    struct rp_rct_id id;
    uint64_t begin, end; // clock
    uint64_t size;
    uint32_t *image; // operation numbers
    uint64_t must[UNITS], may[UNITS]; // as in the disk, at that moment
    uint64_t era;
    bool resolved;
};

struct oracle_layer {
    char *path;
    int point; // the content of which point it holds; -1: the leaf
};

struct oracle {
    _Atomic uint64_t *clock;
    size_t index; // of the disk in the engine
    atomic_ulong size;
    pthread_mutex_t lock; // what follows
    pthread_cond_t released;
    bool claimed[SECTORS / CELL];
    uint32_t value[SECTORS];
    // The latest operation that certainly / perhaps changed the unit: when it began / ended.
    uint64_t must[UNITS], may[UNITS];
    uint32_t durable[SECTORS];
    uint64_t durable_at;
    struct op *log; // in the order of their ends; those that a crash may undo or a new point may lack
    size_t log_count, log_capacity;

    // Used by the main thread only.
    struct oracle_layer layers[16]; // base first
    size_t depth;
    struct point **points;
    size_t point_count;
    uint64_t era; // counts crashes
};

void oracle_new(struct oracle *o, _Atomic uint64_t *clock, size_t index, uint64_t size, const char *path);
void oracle_free(struct oracle *o);

// One random change through the engine; any thread. A failure of the engine counts as "perhaps done".
enum change { CHANGE_WRITE, CHANGE_ZERO, CHANGE_TRIM };
int oracle_change(struct oracle *o, struct rp_engine *engine, uint64_t *seed);
int oracle_flush(struct oracle *o, struct rp_engine *engine);
int oracle_grow(struct oracle *o, struct rp_engine *engine, uint64_t size);

// All disks of the VM, while changes go on.
int oracle_checkpoint(struct oracle *disks, size_t count, struct rp_engine *engine);
// A merge of layer `layer` is done.
void oracle_merged(struct oracle *o, size_t layer);

// With all changing threads at rest:
void oracle_settle(struct oracle *o, struct rp_fs *fs);         // reads the frozen files of new points
void oracle_check_content(struct oracle *o, struct rp_engine *engine);
void oracle_check_frozen(struct oracle *o, struct rp_fs *fs);   // all of them again
// Changes since point `since` seen through layer `layer`; with NULL for the engine at rest.
void oracle_check_changes(struct oracle *o, struct rp_engine *engine, struct rp_fs *fs, size_t since, size_t layer);
// After a crash, on the engine opened anew: takes over what it lost, if it could lose that.
void oracle_crashed(struct oracle *o, struct rp_engine *engine);
void oracle_closed(struct oracle *o); // everything is durable

#endif
