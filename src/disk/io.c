// Reading and writing the virtual disk. See impl.h for what runs under the lock and what does not.
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

int rp_payload_read(struct rp_vhdx *v, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    if (!v->overlay.file_size || offset + size <= v->file_size)
        return rp_store_pread(v->store, data, size, offset, err);
    if (!rp_range_ok(offset, size, v->overlay.file_size))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: ends before %llu", v->path, (unsigned long long)(offset + size));
    size_t inside = offset < v->file_size ? (size_t)(v->file_size - offset) : 0;
    memset((uint8_t *)data + inside, 0, size - inside);
    return inside ? rp_store_pread(v->store, data, inside, offset, err) : 0;
}

static int read_parent(struct rp_vhdx *v, uint8_t *data, uint64_t size, uint64_t offset, struct rp_error *err)
{
    if (!v->parent)
        return rp_fail(err, RP_ERR_STATE, "%s: the parent disk is not linked", v->path);
    uint64_t parent_size = atomic_load(&v->parent->size);
    uint64_t inside = offset < parent_size ? rp_min64(size, parent_size - offset) : 0;
    memset(data + inside, 0, size - inside);
    return inside ? rp_vhdx_read(v->parent, data, (uint32_t)inside, offset, err) : 0;
}

int rp_vhdx_read(struct rp_vhdx *v, void *buffer, uint32_t size, uint64_t offset, struct rp_error *err)
{
    if (rp_check_range(v, offset, size, err))
        return -1;
    for (uint8_t *data = buffer; size;) {
        struct rp_piece piece;
        unsigned token = rp_gate_enter(v->gate);
        int failed = rp_blocks_find(v, RP_UNLOCKED, offset, size, &piece, err);
        if (!failed && piece.state == RP_BLOCK_FULL)
            failed = rp_payload_read(v, data, piece.length, piece.file_offset, err);
        rp_gate_leave(v->gate, token);
        if (!failed && piece.state == RP_BLOCK_NOT_PRESENT && v->layout.has_parent)
            failed = read_parent(v, data, piece.length, offset, err);
        else if (!failed && piece.state != RP_BLOCK_FULL)
            memset(data, 0, piece.length);
        if (failed)
            return -1;
        data += piece.length;
        offset += piece.length;
        size -= (uint32_t)piece.length;
    }
    return 0;
}

// A write into one block whose state it changes.
struct change {
    uint64_t block, offset, length;
    bool whole;          // covers all of the block
    uint64_t entry;      // as it was
    uint64_t bitmap;     // a differencing disk's sector bitmap
    uint64_t space;      // where the block is, or will be
};

// Under lock: finds or takes the space. The table does not change yet, but for the sector bitmap.
static int prepare(struct rp_vhdx *v, struct change *c, struct rp_error *err)
{
    if (rp_block_get(v, c->block, &c->entry, err))
        return -1;
    if (rp_bat_state(c->entry) == RP_BLOCK_FULL)
        return 0;
    if (rp_block_back(v, c->block, err) || (v->layout.has_parent && rp_bitmap_need(v, c->block, &c->bitmap, err)))
        return -1;
    if (!rp_bat_present(c->entry))
        return rp_space_take(v, v->layout.block_size, &c->space, err);
    c->space = rp_bat_offset(c->entry);
    rp_block_let_share(v, c->block);
    return 0;
}

// Under lock, after the data is in the file: says so.
static int publish(struct rp_vhdx *v, struct change *c, struct rp_error *err)
{
    if (rp_bat_state(c->entry) == RP_BLOCK_PARTIAL && rp_block_get(v, c->block, &c->entry, err)) // another may share it
        return -1;
    unsigned state = rp_bat_state(c->entry), target = RP_BLOCK_FULL;
    bool transparent = v->layout.has_parent && (state == RP_BLOCK_NOT_PRESENT || state == RP_BLOCK_PARTIAL);
    if (transparent && !c->whole) {
        uint64_t start = c->block * v->layout.block_size, length = rp_block_end(v, c->block) - start, run;
        bool here;
        if (state == RP_BLOCK_NOT_PRESENT && // bits of an earlier life
            rp_bitmap_fill(v, c->bitmap, start, v->layout.block_size, false, err))
            return -1;
        if (rp_bitmap_fill(v, c->bitmap, c->offset, c->length, true, err) ||
            rp_bitmap_run(v, RP_LOCKED, c->bitmap, start, length, &here, &run, err))
            return -1;
        target = here && run == length ? RP_BLOCK_FULL : RP_BLOCK_PARTIAL;
    }
    // An anchor that an unmapped block still had is left behind; it is found free at the next open.
    v->barrier |= v->layout.has_parent;
    return rp_block_put(v, c->block, target, c->space, err);
}

// Writes `length` bytes inside one block that is not, or not wholly, present. `*again`: it became present meanwhile.
static int write_change(struct rp_vhdx *v, const struct rp_payload *payload, uint64_t length, uint64_t offset,
                        bool *again, struct rp_error *err)
{
    struct change c = {.block = rp_block_of(v, offset), .offset = offset, .length = length};
    uint64_t start = c.block * v->layout.block_size;
    size_t pages = rp_block_pages(v);
    rp_lock(v);
    if (rp_reserve(v, pages, err)) {
        rp_unlock(v);
        return -1;
    }
    rp_block_move(v, c.block);
    c.whole = offset == start && length == rp_block_end(v, c.block) - start;
    int failed = prepare(v, &c, err);
    *again = !failed && rp_bat_state(c.entry) == RP_BLOCK_FULL;
    if (!failed && !*again) {
        bool taken = !rp_bat_present(c.entry);
        rp_unlock(v);
        failed = payload->put(payload->context, v->store, c.space + (offset - start), offset, length, err);
        rp_lock(v);
        if (failed && taken)
            rp_space_return(v, c.space, v->layout.block_size);
        if (!failed)
            failed = publish(v, &c, err);
    }
    rp_block_moved(v, c.block);
    rp_unreserve(v, pages);
    rp_unlock(v);
    return failed;
}

// Overwrites what is present at `offset`, as far as it lies together: one lookup, one write. `*done` 0: nothing is.
static int overwrite(struct rp_vhdx *v, const struct rp_payload *payload, uint64_t length, uint64_t offset,
                     uint64_t *done, struct rp_error *err)
{
    struct rp_piece piece;
    *done = 0;
    unsigned token = rp_gate_enter(v->gate);
    int failed = rp_blocks_find(v, RP_UNLOCKED, offset, length, &piece, err);
    if (!failed && piece.state == RP_BLOCK_FULL) {
        failed = payload->put(payload->context, v->store, piece.file_offset, offset, piece.length, err);
        *done = piece.length;
    }
    rp_gate_leave(v->gate, token);
    return failed;
}

static int write_pieces(struct rp_vhdx *v, const struct rp_payload *payload, uint64_t size, uint64_t offset,
                        struct rp_error *err)
{
    while (size) {
        uint64_t done;
        if (overwrite(v, payload, size, offset, &done, err))
            return -1;
        if (!done) {
            bool again;
            done = rp_min64(size, (rp_block_of(v, offset) + 1) * v->layout.block_size - offset);
            if (write_change(v, payload, done, offset, &again, err))
                return -1;
            if (again)
                continue;
        }
        offset += done;
        size -= done;
    }
    return 0;
}

int rp_payload_write(struct rp_vhdx *v, uint64_t size, uint64_t offset, const struct rp_payload *payload,
                     struct rp_error *err)
{
    if (rp_check_range(v, offset, size, err) || rp_session_begin(v, RP_SESSION_DATA, err))
        return -1;
    int failed = write_pieces(v, payload, size, offset, err);
    if (!atomic_load(&v->written)) // only ever after the write: see sync_file in flush.c
        atomic_store(&v->written, true);
    return failed;
}

struct memory {
    const uint8_t *data;
    uint64_t offset; // of its first byte in the virtual disk
};

static int put_memory(void *context, struct rp_store *store, uint64_t file_offset, uint64_t offset, uint64_t length,
                      struct rp_error *err)
{
    const struct memory *m = context;
    return rp_store_pwrite(store, m->data + (offset - m->offset), length, file_offset, err);
}

int rp_vhdx_write(struct rp_vhdx *v, const void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    struct memory m = {data, offset};
    return rp_payload_write(v, size, offset, &(struct rp_payload){put_memory, &m}, err);
}
