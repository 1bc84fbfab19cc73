// File space. Whatever is handed out reads as zeros, durably: new space behind the end of the file (the kernel's
// zeros), or freed space that went through the stages in struct rp_space. So an allocation needs no sync of its own,
// and a power cut can never show one block's old data in another.
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

enum { // MiB at a time
    EXTEND_MIN = 32, EXTEND_MAX = 1024, // a file that is closed is cut back to what is used
    CLEAR_STEP = 64,
};

struct scan {
    uint8_t *used; // a bit per MiB of the file
    uint64_t count, end;
};

static int scan_use(struct scan *scan, struct rp_vhdx *v, uint64_t offset, uint64_t size, const char *what,
                    struct rp_error *err)
{
    uint64_t first = offset / RP_VHDX_ALIGN, last = first + size / RP_VHDX_ALIGN;
    if (offset < RP_VHDX_ALIGN || !rp_is_aligned(offset, RP_VHDX_ALIGN) || last > scan->count)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: %s at %llu is outside the file", v->path, what,
                       (unsigned long long)offset);
    for (uint64_t i = first; i < last; i++) {
        if (scan->used[i / 8] >> i % 8 & 1)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: %s at %llu lies on something else", v->path, what,
                           (unsigned long long)offset);
        scan->used[i / 8] |= (uint8_t)(1u << i % 8);
    }
    scan->end = rp_max64(scan->end, last);
    return 0;
}

static int scan_entry(struct scan *scan, struct rp_vhdx *v, uint64_t index, uint64_t entry, struct rp_error *err)
{
    bool bitmap = index % (v->layout.chunk_ratio + 1) == v->layout.chunk_ratio;
    unsigned state = rp_bat_state(entry);
    bool known = bitmap ? state == 0 || (state == 6 && v->layout.has_parent)
                        : state < 4 || state == 6 || (state == 7 && v->layout.has_parent);
    if (!known)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: table entry %llu: %#llx makes no sense", v->path,
                       (unsigned long long)index, (unsigned long long)entry);
    if (!rp_bat_has_space(entry))
        return 0;
    return scan_use(scan, v, rp_bat_offset(entry), bitmap ? RP_VHDX_ALIGN : v->layout.block_size,
                    bitmap ? "a sector bitmap" : "a block", err);
}

// Walks the parts of the table that may hold something: a sparse one costs nothing.
static int scan_table(struct scan *scan, struct rp_vhdx *v, struct rp_error *err)
{
    uint64_t words[RP_PAGE_WORDS];
    for (uint64_t at = 0; (at = rp_table_skip(v, at, v->layout.entries)) < v->layout.entries; at += RP_PAGE_WORDS) {
        uint64_t n = rp_min64(RP_PAGE_WORDS, v->layout.entries - at);
        if (rp_store_pread(v->store, words, n * 8, v->table.offset + at * 8, err))
            return -1;
        for (size_t i = 0; i < n; i++)
            if (words[i] && scan_entry(scan, v, at + i, le64toh(words[i]), err))
                return -1;
    }
    return 0;
}

int rp_space_scan(struct rp_vhdx *v, struct rp_error *err)
{
    uint64_t size;
    if (rp_store_size(v->store, &size, err))
        return -1;
    if (size > RP_VHDX_MAX_FILE)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: the file is too large", v->path);
    struct scan scan = {.count = size / RP_VHDX_ALIGN, .end = 1};
    RP_AUTO_FREE uint8_t *used = scan.used = rp_xcalloc(scan.count / 8 + 1, 1);
    int failed = scan_use(&scan, v, v->header.log_offset, v->header.log_length, "the log", err);
    for (size_t i = 0; !failed && i < v->region_count; i++)
        failed = scan_use(&scan, v, v->regions[i].offset, v->regions[i].length, "a region", err);
    if (failed || scan_table(&scan, v, err))
        return -1;
    v->space = (struct rp_space){.end = scan.end * RP_VHDX_ALIGN, .extended = size, .flushed = 0};
    v->space.flushed = v->space.end;
    for (uint64_t i = 1; i < scan.end;) {
        uint64_t start = i;
        while (i < scan.end && !(used[i / 8] >> i % 8 & 1))
            i++;
        if (i > start)
            rp_ranges_push(&v->space.dirty, start * RP_VHDX_ALIGN, (i - start) * RP_VHDX_ALIGN);
        i += i == start;
    }
    return 0;
}

int rp_space_start(struct rp_vhdx *v, struct rp_error *err)
{
    // What a crashed session wrote behind the end and never named: off with it, so that new space there is zeros.
    if (v->space.extended != v->space.end && rp_store_truncate(v->store, v->space.end, err))
        return -1;
    v->space.extended = v->space.end;
    return 0;
}

// Takes the free space at the end out of the lists.
static void lower_end(struct rp_space *space)
{
    struct rp_ranges *lists[] = {&space->zeros, &space->dirty, &space->clearing};
    for (size_t i = 0; i < 3; i++)
        rp_ranges_normalize(lists[i]);
    for (size_t i = 0; i < 3; i++) {
        if (!lists[i]->count)
            continue;
        const struct rp_range *last = &lists[i]->items[lists[i]->count - 1];
        if (last->offset + last->length != space->end)
            continue;
        space->end = last->offset;
        lists[i]->count--;
        i = (size_t)-1; // what comes before may be in another list
    }
}

int rp_space_cut(struct rp_vhdx *v, struct rp_error *err)
{
    lower_end(&v->space);
    atomic_store(&v->file_end, v->space.end);
    return rp_space_start(v, err);
}

int rp_space_back(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct rp_error why = {0};
    if (!rp_store_allocate(v->store, offset, length, &why) || why.code == RP_ERR_UNSUPPORTED)
        return 0;
    if (err && err->code == RP_OK)
        *err = why;
    return -1;
}

static int extend(struct rp_vhdx *v, uint64_t size, struct rp_error *err)
{
    struct rp_space *space = &v->space;
    uint64_t step = rp_align_up(space->end / 4, RP_VHDX_ALIGN);
    step = rp_min64(rp_max64(step, EXTEND_MIN * RP_VHDX_ALIGN), EXTEND_MAX * RP_VHDX_ALIGN);
    uint64_t target = space->end + rp_max64(size, step);
    if (rp_store_truncate(v->store, target, NULL)) { // the largest file of this file system?
        target = space->end + size;
        if (rp_store_truncate(v->store, target, err))
            return -1;
    }
    space->extended = target;
    atomic_store(&v->file_end, target);
    return 0;
}

int rp_space_take(struct rp_vhdx *v, uint64_t size, uint64_t *offset, struct rp_error *err)
{
    struct rp_space *space = &v->space;
    for (size_t i = 0; i < space->zeros.count; i++) {
        struct rp_range *range = &space->zeros.items[i];
        if (range->length < size)
            continue;
        *offset = range->offset;
        range->offset += size;
        range->length -= size;
        if (!range->length)
            *range = space->zeros.items[--space->zeros.count];
        return 0;
    }
    if (space->end + size > RP_VHDX_MAX_FILE)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: the file is as large as it can be", v->path);
    if (space->end + size > space->extended && extend(v, size, err))
        return -1;
    *offset = space->end;
    space->end += size;
    return 0;
}

void rp_space_free(struct rp_vhdx *v, uint64_t offset, uint64_t size) { rp_ranges_push(&v->space.freed, offset, size); }

void rp_space_return(struct rp_vhdx *v, uint64_t offset, uint64_t size)
{
    rp_ranges_push(&v->space.dirty, offset, size);
}

static int write_zeros(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_error *err)
{
    static const uint8_t zeros[1 << 20];
    for (uint64_t done = 0; done < length; done += sizeof zeros)
        if (rp_store_pwrite(v->store, zeros, sizeof zeros, offset + done, err))
            return -1;
    return 0;
}

static int clear(struct rp_vhdx *v, uint64_t offset, uint64_t length)
{
    struct rp_error why = {0};
    if (!rp_store_punch(v->store, offset, length, &why))
        return 0;
    return why.code == RP_ERR_UNSUPPORTED ? write_zeros(v, offset, length, NULL) : -1;
}

void rp_space_clear(struct rp_vhdx *v)
{
    rp_lock(v);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges work = v->space.dirty;
    v->space.dirty = (struct rp_ranges){0};
    rp_unlock(v);
    if (!work.count)
        return;
    rp_gate_wait(v->gate); // reads and writes that found their block before it was freed are on their way to this space
    rp_ranges_normalize(&work);
    for (size_t i = 0; i < work.count; i++) {
        uint64_t at = work.items[i].offset, end = at + work.items[i].length;
        bool failed = false;
        while (at < end) { // in steps: a file system may stop writers of this file meanwhile
            uint64_t n = rp_min64(end - at, CLEAR_STEP * RP_VHDX_ALIGN);
            failed = failed || clear(v, at, n);
            rp_lock(v);
            rp_ranges_push(failed ? &v->space.dirty : &v->space.clearing, at, n);
            rp_unlock(v);
            at += n;
        }
    }
}

void rp_space_free_all(struct rp_vhdx *v)
{
    rp_ranges_clear(&v->space.freed);
    rp_ranges_clear(&v->space.leaving);
    rp_ranges_clear(&v->space.dirty);
    rp_ranges_clear(&v->space.clearing);
    rp_ranges_clear(&v->space.zeros);
}
