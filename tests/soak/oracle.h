// What must be true of a VM and its backups, from the notes in a log alone. Moments are indexes of the log.
#ifndef RP_TESTS_SOAK_ORACLE_H
#define RP_TESTS_SOAK_ORACLE_H

#include "content.h"
#include "notes.h"

#define MAX_DISKS 4
#define NEVER UINT64_MAX
#define UNIT 65536u              // of change tracking
#define REGION ((uint64_t)4 << 20) // of what a power cut adds to it

struct op {
    enum op_kind kind;
    bool fua;
    uint64_t offset, length;
    uint64_t issued, acked;
};
struct span { // a request or command from its beginning to its acknowledgement (NEVER)
    uint64_t begin, end;
};
struct point_map { // one disk of a restore point
    char rct_id[80];
    uint64_t size;
    const uint32_t *values; // in the log
};
struct point {
    char id[80];
    struct span span;
    struct point_map disks[MAX_DISKS];
};
struct checkpoint {
    char name[80];
    struct span made, deleted;
};
struct size {
    struct span span;
    uint64_t size;
};
struct history; // of the sectors of a disk
struct oracle_disk {
    struct op *ops; // by number; [0] is none
    size_t op_count;
    struct span *flushes;
    size_t flush_count;
    struct size sizes[64];
    size_t size_count;
    struct history *history;
};
struct oracle {
    const struct log *log;
    uint64_t vm;    // moment
    char vm_id[80];
    size_t disk_count;
    struct oracle_disk disks[MAX_DISKS];
    struct span *backups; // that came to nothing, too
    size_t backup_count;
    struct point *points;
    size_t point_count;
    struct checkpoint *checkpoints;
    size_t checkpoint_count;
    uint64_t *ends; // of sessions of the disk service that ended cleanly
    size_t end_count;
    uint64_t *cuts; // of the power, in a life that went on after them
    size_t cut_count;
};

struct oracle *oracle_new(const struct log *log);
void oracle_free(struct oracle *oracle);

// What a reader may find. Each returns NULL, or what is wrong (static).
//   after a power cut at `at`: what was durable, or anything newer that was sent by then
const char *oracle_check_cut(const struct oracle *o, uint32_t disk, const uint32_t *values, uint64_t size, uint64_t at);
//   at `at`, when nobody is writing: all that was acknowledged
const char *oracle_check_now(const struct oracle *o, uint32_t disk, const uint32_t *values, uint64_t size, uint64_t at);
//   of a moment somewhere in `span`: acknowledged before it, nothing sent after it; and all of it together, all disks
//   (`values[i]` NULL: not looked at), at one single moment
const char *oracle_check_moment(const struct oracle *o, const uint32_t *const *values, const uint64_t *sizes, struct span span);
bool oracle_size_possible(const struct oracle *o, uint32_t disk, uint64_t size, uint64_t at);

// Which units may be among the changes since a moment: those that anything was sent to since; and after a power cut the
// regions that anything was sent to in the session of the disk service that it ended; so do earlier cuts since then. A stream
// has regions set ahead of it: with n such regions in a row before one, n more behind it, 64 at most (docs/formats/mrt.md).
void oracle_may_tell(const struct oracle *o, uint32_t disk, uint64_t since, uint64_t at, bool cut, uint8_t *units, uint64_t count);

#endif
