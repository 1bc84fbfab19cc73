// Replaying a dirty log ([MS-VHDX] 2.3.3).
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/entry.h"
#include "disk/impl.h"

enum {
    MAX_ZERO_STEPS = 16384,   // in the replay of a reader
    CHECKSUM_BUDGET = 32,     // bytes checked per byte of log: entries that overlap in a hostile file
};

struct scan {
    uint8_t *bytes; // the log twice, so that no entry wraps
    uint32_t length, sectors;
    struct rp_entry *entries; // by sector; length 0: no valid entry starts here
};

static int load(struct rp_vhdx *v, struct scan *scan, struct rp_error *err)
{
    scan->length = v->header.log_length;
    scan->sectors = scan->length / RP_VHDX_PAGE;
    if (rp_log_check_length(v, err))
        return -1;
    scan->bytes = malloc(2 * (size_t)scan->length);
    scan->entries = calloc(scan->sectors, sizeof *scan->entries);
    if (!scan->bytes || !scan->entries)
        return rp_fail(err, RP_ERR_NO_MEMORY, "%s: a log of %u bytes", v->path, scan->length);
    if (rp_store_pread(v->store, scan->bytes, scan->length, v->header.log_offset, err))
        return -1;
    memcpy(scan->bytes + scan->length, scan->bytes, scan->length);
    uint64_t budget = (uint64_t)scan->length * CHECKSUM_BUDGET;
    for (uint32_t i = 0; i < scan->sectors; i++) {
        const uint8_t *sector = scan->bytes + (size_t)i * RP_VHDX_PAGE;
        struct rp_entry entry;
        if (!rp_entry_decode(sector, &v->header.log_guid, scan->length, &entry) || !rp_entry_check(&entry, sector))
            continue;
        if (entry.length > budget)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: the log's entries overlap", v->path);
        budget -= entry.length;
        if (rp_entry_checksum(&entry, sector))
            scan->entries[i] = entry;
    }
    return 0;
}

static uint32_t following(const struct scan *scan, uint32_t sector)
{
    return (sector + scan->entries[sector].length / RP_VHDX_PAGE) % scan->sectors;
}

static bool continues(const struct scan *scan, uint32_t sector)
{
    const struct rp_entry *next = &scan->entries[following(scan, sector)];
    return next->length && next->sequence == scan->entries[sector].sequence + 1;
}

// Whether every entry from the head's tail to the head is there.
static bool complete(const struct scan *scan, uint32_t head)
{
    uint32_t at = scan->entries[head].tail / RP_VHDX_PAGE, left = scan->sectors;
    for (; at != head; at = following(scan, at)) {
        uint32_t n = scan->entries[at].length / RP_VHDX_PAGE;
        if (!n || n > left || !continues(scan, at))
            return false;
        left -= n;
    }
    return scan->entries[head].length / RP_VHDX_PAGE <= left;
}

// The head of the active sequence, or -1.
static int64_t active_head(const struct scan *scan)
{
    int64_t best = -1;
    for (uint32_t i = 0; i < scan->sectors; i++) {
        const struct rp_entry *entry = &scan->entries[i];
        if (!entry->length || continues(scan, i) || (best >= 0 && entry->sequence <= scan->entries[best].sequence))
            continue;
        if (complete(scan, i))
            best = i;
    }
    return best;
}

static int check_step(struct rp_vhdx *v, const struct rp_entry_step *step, struct rp_error *err)
{
    uint64_t log = v->header.log_offset, log_end = log + v->header.log_length;
    if (step->offset < RP_VHDX_REGIONS_OFFSET(0) || (step->offset < log_end && log < step->offset + step->length))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the log would change the header or itself", v->path);
    return 0;
}

static int step_in_memory(struct rp_vhdx *v, const struct rp_entry_step *step, size_t *zero_steps, struct rp_error *err)
{
    if (step->zero) {
        if (++*zero_steps > MAX_ZERO_STEPS)
            return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: the log has too many steps for a reader", v->path);
        rp_cache_drop(v, step->offset, step->length);
        rp_ranges_push(&v->overlay.zeros, step->offset, step->length);
        return 0;
    }
    struct rp_page *page = rp_cache_blank(v, step->offset);
    memcpy(rp_page_bytes(page), step->bytes, RP_VHDX_PAGE);
    page->pending = true; // stays in the cache: the file has something older
    return 0;
}

static int step_in_file(struct rp_vhdx *v, const struct rp_entry_step *step, struct rp_error *err)
{
    static const uint8_t zeros[1 << 20];
    if (!step->zero)
        return rp_store_pwrite(v->store, step->bytes, RP_VHDX_PAGE, step->offset, err);
    uint64_t size;
    if (rp_store_size(v->store, &size, err))
        return -1;
    uint64_t end = rp_min64(step->offset + step->length, size); // beyond, growing the file makes zeros
    if (step->offset >= end || !rp_store_punch(v->store, step->offset, end - step->offset, NULL))
        return 0;
    for (uint64_t at = step->offset; at < end; at += sizeof zeros)
        if (rp_store_pwrite(v->store, zeros, (size_t)rp_min64(sizeof zeros, end - at), at, err))
            return -1;
    return 0;
}

static int run_entry(struct rp_vhdx *v, const struct rp_entry *entry, const uint8_t *bytes, bool in_memory,
                     size_t *zero_steps, struct rp_error *err)
{
    uint32_t data = 0;
    for (uint32_t i = 0; i < entry->descriptors; i++) {
        struct rp_entry_step step;
        rp_entry_step(bytes, entry, i, &data, &step);
        if (check_step(v, &step, err) ||
            (in_memory ? step_in_memory(v, &step, zero_steps, err) : step_in_file(v, &step, err)))
            return -1;
    }
    return 0;
}

static int run(struct rp_vhdx *v, const struct scan *scan, uint32_t head, bool in_memory, struct rp_error *err)
{
    size_t zero_steps = 0;
    for (uint32_t at = scan->entries[head].tail / RP_VHDX_PAGE;; at = following(scan, at)) {
        if (run_entry(v, &scan->entries[at], scan->bytes + (size_t)at * RP_VHDX_PAGE, in_memory, &zero_steps, err))
            return -1;
        if (at == head)
            return 0;
    }
}

static int into_memory(struct rp_vhdx *v, const struct scan *scan, uint32_t head, struct rp_error *err)
{
    if (run(v, scan, head, true, err))
        return -1;
    rp_ranges_normalize(&v->overlay.zeros);
    v->overlay.file_size = rp_max64(v->file_size, scan->entries[head].last_size);
    return 0;
}

// Durably.
static int run_in_file(struct rp_vhdx *v, const struct scan *scan, uint32_t head, struct rp_error *err)
{
    uint64_t size, last = scan->entries[head].last_size;
    if (run(v, scan, head, false, err) || rp_store_size(v->store, &size, err) ||
        (size < last && rp_store_truncate(v->store, last, err)))
        return -1;
    return rp_store_flush(v->store, err) || rp_store_size(v->store, &v->file_size, err) ? -1 : 0;
}

static int into_file(struct rp_vhdx *v, const struct scan *scan, uint32_t head, struct rp_error *err)
{
    v->header.file_write_guid = v->session.file_write_guid;
    if (rp_header_update(v, 2, err) || run_in_file(v, scan, head, err))
        return -1;
    v->header.log_guid = (struct rp_guid){0};
    // Who closes it without a change binds its tracking to the times that it has now.
    return rp_header_update(v, 2, err) || rp_store_settle(v->store, err) ? -1 : 0;
}

// What comes next may be as large as two batches, and half of it written must leave a valid log. But the last entry may need
// the one before it: so an empty one, which needs nothing, comes first, in the third of the log that is never in use. The
// rest of the log is free then.
static int resume(struct rp_vhdx *v, const struct scan *scan, uint32_t head, struct rp_error *err)
{
    v->log = (struct rp_log){
        .offset = v->header.log_offset,
        .length = v->header.log_length,
        .guid = v->header.log_guid,
        .sequence = scan->entries[head].sequence + 1,
        .head = following(scan, head) * RP_VHDX_PAGE,
        .last = head * RP_VHDX_PAGE,
        .batch = rp_entry_capacity(scan->sectors - 1),
    };
    if (run_in_file(v, scan, head, err))
        return -1;
    uint64_t size = rp_align_down(v->file_size, RP_VHDX_ALIGN);
    return rp_log_write(v, &(struct rp_batch){0}, size, size, err) || rp_store_flush(v->store, err) ? -1 : 0;
}

typedef int replay_fn(struct rp_vhdx *v, const struct scan *scan, uint32_t head, struct rp_error *err);

static int replay(struct rp_vhdx *v, struct scan *scan, const struct rp_shm *journal, replay_fn *how, struct rp_error *err)
{
    if (load(v, scan, err))
        return -1;
    int64_t head = active_head(scan);
    if (head < 0)
        return rp_fail(err, RP_ERR_CORRUPT,
                       "%s: the log must be replayed, but has no valid sequence of entries (after a killed QEMU: "
                       "qemu-img check -r all)", v->path);
    const struct rp_entry *entry = &scan->entries[head];
    if (v->file_size < entry->flushed_size)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the file was cut off: %llu bytes, the log knew of %llu", v->path,
                       (unsigned long long)v->file_size, (unsigned long long)entry->flushed_size);
    if (entry->last_size > RP_VHDX_MAX_FILE || !rp_is_aligned(entry->last_size, RP_VHDX_ALIGN))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the log wants a file of %llu bytes", v->path,
                       (unsigned long long)entry->last_size);
    if (journal && !rp_journal_fits(journal, &v->header.log_guid, entry->sequence))
        return rp_fail(err, RP_ERR_STATE, "%s: is older than what its killed process left", v->path);
    return how(v, scan, (uint32_t)head, err);
}

static int replay_log(struct rp_vhdx *v, const struct rp_shm *journal, replay_fn *how, struct rp_error *err)
{
    v->info.dirty_log = true;
    if (v->header.log_version)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: log version %u", v->path, v->header.log_version);
    struct scan scan = {0};
    int failed = replay(v, &scan, journal, how, err);
    free(scan.bytes);
    free(scan.entries);
    return failed;
}

int rp_log_replay(struct rp_vhdx *v, struct rp_error *err)
{
    if (rp_guid_is_zero(&v->header.log_guid))
        return 0;
    return replay_log(v, NULL, v->flags & RP_VHDX_WRITE ? into_file : into_memory, err);
}

int rp_log_resume(struct rp_vhdx *v, const struct rp_shm *journal, struct rp_error *err)
{
    return replay_log(v, journal, resume, err);
}
