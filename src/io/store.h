// A byte store: what a disk file, a tracking file or a pack lives in. One small vtable, so that the same code reads a
// local file, memory, a recording store or one that fails on purpose.
//
// All calls are thread safe for disjoint ranges. Reads and writes are complete or fail; a read past the end is
// RP_ERR_CORRUPT ("ends at"). Nothing is durable before rp_store_flush returns 0; a failed flush is final: the caller
// must treat the store as lost and never flush again hoping for better.
#ifndef RP_IO_STORE_H
#define RP_IO_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/ranges.h"

struct rp_store;

// What names one version of one file: a copy, a roll-back or a write by somebody else changes at least one field.
struct rp_store_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t size;
    int64_t mtime_ns;
    int64_t ctime_ns;
};

struct rp_store_ops {
    int (*pread)(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err);
    int (*pwrite)(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err);
    // NULL: pwrite.
    int (*pwrite_direct)(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err);
    bool (*direct)(struct rp_store *store); // NULL: no
    int (*flush)(struct rp_store *store, struct rp_error *err);
    int (*settle)(struct rp_store *store, struct rp_error *err); // NULL: flush does it
    int (*truncate)(struct rp_store *store, uint64_t size, struct rp_error *err);
    int (*size)(struct rp_store *store, uint64_t *size, struct rp_error *err);
    int (*extents)(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_ranges *data,
                   struct rp_error *err);
    int (*allocate)(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err);
    int (*punch)(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err);
    int (*clone_range)(struct rp_store *target, uint64_t target_offset, struct rp_store *source, uint64_t source_offset,
                       uint64_t length, struct rp_error *err);
    int (*copy_range)(struct rp_store *target, uint64_t target_offset, struct rp_store *source, uint64_t source_offset,
                      uint64_t length, struct rp_error *err);
    int (*identity)(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err);
    int (*lock)(struct rp_store *store, bool exclusive, struct rp_error *err);
    void (*drop_cache)(struct rp_store *store, uint64_t offset, uint64_t length);
    void (*close)(struct rp_store *store);
};

// Every implementation embeds this first.
struct rp_store {
    const struct rp_store_ops *ops;
    char *name; // for messages; owned
};

int rp_store_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err);
int rp_store_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err);
// As pwrite, past the page cache where the file system can and `data`, `size` and `offset` are multiples of
// RP_STORE_ALIGN (else it is a pwrite): for much new data that nobody reads soon. Not durable without a flush either.
// Do not mix it with other writes to the same RP_STORE_ALIGN bytes at the same time.
int rp_store_pwrite_direct(struct rp_store *store, const void *data, size_t size, uint64_t offset,
                           struct rp_error *err);
// Whether the above goes past the page cache. Then several threads write at once, each 1 or 2 MiB at a time; otherwise
// they only wait for each other.
bool rp_store_direct(struct rp_store *store);
enum { RP_STORE_ALIGN = 4096 };
// Makes content and size durable (fdatasync). A failure is final and always RP_ERR_IO, also for want of space.
int rp_store_flush(struct rp_store *store, struct rp_error *err);
// As flush, and the file's times too (fsync): the identity is then what it will still be after a power cut.
int rp_store_settle(struct rp_store *store, struct rp_error *err);
// Sets the size; new bytes read as zero.
int rp_store_truncate(struct rp_store *store, uint64_t size, struct rp_error *err);
int rp_store_size(struct rp_store *store, uint64_t *size, struct rp_error *err);
// Appends the parts of the range that may hold something other than zeros. A store that cannot tell reports all of it.
int rp_store_extents(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_ranges *data,
                     struct rp_error *err);
// Takes space for a range inside the file, so that later writes there do not fail for want of it; what it reads as
// stays the same. RP_ERR_NO_SPACE; RP_ERR_UNSUPPORTED where the file system cannot.
int rp_store_allocate(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err);
// Gives the space back; the range reads as zero afterwards. RP_ERR_UNSUPPORTED where the file system cannot.
int rp_store_punch(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err);
// Makes a range of `target`, inside its size, share the blocks of a range of `source` (FICLONERANGE); durable after a
// flush of `target`, as a write is. Offsets and length in multiples of RP_STORE_SHARE are always aligned enough.
// RP_ERR_UNSUPPORTED where the file systems cannot, nothing happened then: the caller copies instead. With length 0
// it only asks whether they can.
enum { RP_STORE_SHARE = 64 << 10 };
int rp_store_clone_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                         uint64_t source_offset, uint64_t length, struct rp_error *err);
// Copies a range of `source` into `target` within the page cache (copy_file_range): the bytes are moved once, not
// twice. For files that are in memory; a write in every other respect. RP_ERR_UNSUPPORTED where the kernel does not:
// the caller copies the whole range in another way.
int rp_store_copy_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                        uint64_t source_offset, uint64_t length, struct rp_error *err);
int rp_store_identity(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err);
// Takes, or changes to, a lock on the whole file, held until close and never waited for: RP_ERR_BUSY when another open
// of the file holds a conflicting one (in this process too: open file description locks).
int rp_store_lock(struct rp_store *store, bool exclusive, struct rp_error *err);
// Tells the page cache that the range will not be read again. Never fails.
void rp_store_drop_cache(struct rp_store *store, uint64_t offset, uint64_t length);
void rp_store_close(struct rp_store *store); // NULL is fine; does not flush
RP_DEFINE_CLEANUP(struct rp_store, rp_store_close)

#endif
