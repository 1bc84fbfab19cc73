#include "diskservice/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

enum { MAGIC_SIZE = 8, CRC_AT = 8, SIZE_AT = 12, GENERATION_AT = 16, HEADER_CRC_AT = 80, HEADER_SIZE = 84, VERSION = 3, MAX_PATH = 4095 };
enum { SECTOR = 512 }; // what a disk writes whole or not at all
static const char magic[MAGIC_SIZE] = "RPCHAIN";

static int put_path(struct rp_buf *out, const char *path, struct rp_error *err)
{
    size_t size = path ? strlen(path) : 0;
    if (!size || path[0] != '/' || size > MAX_PATH)
        return rp_fail(err, RP_ERR_INVALID, "chain record: %s: not an absolute path below %d bytes", path ? path : "no path",
                       MAX_PATH + 1);
    rp_buf_append_le16(out, (uint16_t)size);
    rp_buf_append(out, path, size);
    return 0;
}

static uint32_t header_crc(const uint8_t *header) { return rp_crc32c(0, header + SIZE_AT, HEADER_CRC_AT - SIZE_AT); }

static void put_guid(struct rp_buf *out, const struct rp_guid *guid) { rp_buf_append(out, guid->bytes, sizeof guid->bytes); }

int rp_record_encode(const struct rp_record *record, struct rp_buf *out, struct rp_error *err)
{
    const struct rp_engine_checkpoint *last = &record->last;
    size_t start = out->size;
    rp_buf_append(out, magic, MAGIC_SIZE);
    rp_buf_append_le64(out, 0); // CRC and size, below
    rp_buf_append_le64(out, record->generation);
    put_guid(out, &record->vm_id);
    rp_buf_append_le32(out, VERSION);
    rp_buf_append_le32(out, (uint32_t)record->count);
    rp_buf_append_le32(out, (uint32_t)last->count);
    rp_buf_append_le32(out, (uint32_t)record->scratch_count);
    put_guid(out, &last->operation);
    rp_buf_append_le64(out, last->pause_ns);
    rp_buf_append_le32(out, 0); // CRC of the header, below
    for (size_t i = 0; i < record->count; i++) {
        rp_buf_append_le32(out, record->disks[i].number);
        put_guid(out, &record->disks[i].disk_id);
        if (put_path(out, record->disks[i].leaf_path, err))
            return -1;
    }
    for (size_t i = 0; i < last->count; i++) {
        const struct rp_engine_frozen *frozen = &last->disks[i];
        put_guid(out, &frozen->disk_id);
        if (put_path(out, frozen->path, err) || put_path(out, frozen->leaf_path, err))
            return -1;
        rp_buf_append_u8(out, frozen->tracked);
        put_guid(out, &frozen->id.tracking);
        rp_buf_append_le32(out, frozen->id.epoch);
    }
    for (size_t i = 0; i < record->scratch_count; i++)
        if (put_path(out, record->scratch[i], err))
            return -1;
    rp_buf_append_le32(out, (uint32_t)record->merging_count);
    for (size_t i = 0; i < record->merging_count; i++)
        if (put_path(out, record->merging[i], err))
            return -1;
    size_t size = out->size - start;
    if (size > RP_RECORD_SLOT)
        return rp_fail(err, RP_ERR_INVALID, "chain record: %zu bytes, at most %zu fit: shorten the paths of the disks", size,
                       RP_RECORD_SLOT);
    rp_put_le32(out->data + start + SIZE_AT, (uint32_t)size);
    rp_put_le32(out->data + start + HEADER_CRC_AT, header_crc(out->data + start));
    rp_put_le32(out->data + start + CRC_AT, rp_crc32c_skip(out->data + start, size, CRC_AT));
    return 0;
}

static char *get_path(struct rp_cursor *c)
{
    size_t size = rp_cursor_le16(c);
    const uint8_t *bytes = rp_cursor_bytes(c, size);
    if (!bytes || !size || size > MAX_PATH || bytes[0] != '/' || memchr(bytes, 0, size)) {
        c->failed = true;
        return NULL;
    }
    return rp_xasprintf("%.*s", (int)size, (const char *)bytes);
}

// The header's length field, or 0 when this cannot be a slot.
static size_t slot_size(const uint8_t *header)
{
    size_t size = rp_get_le32(header + SIZE_AT);
    bool whole = !memcmp(header, magic, MAGIC_SIZE) && rp_get_le32(header + HEADER_CRC_AT) == header_crc(header);
    return whole && size >= HEADER_SIZE && size <= RP_RECORD_SLOT ? size : 0;
}

static int decode_body(struct rp_cursor *c, struct rp_record *record)
{
    rp_cursor_bytes(c, MAGIC_SIZE + 8);
    record->generation = rp_cursor_le64(c);
    record->vm_id = rp_cursor_guid(c);
    uint32_t version = rp_cursor_le32(c);
    uint32_t disks = rp_cursor_le32(c), frozen = rp_cursor_le32(c), scratch = rp_cursor_le32(c);
    record->last.operation = rp_cursor_guid(c);
    record->last.pause_ns = rp_cursor_le64(c);
    rp_cursor_le32(c); // CRC of the header
    if (c->failed || version != VERSION || !record->generation || disks > RP_ENGINE_MAX_DISKS ||
        frozen > RP_ENGINE_MAX_DISKS || scratch > RP_RECORD_MAX_SCRATCH)
        return -1;
    for (uint32_t i = 0; i < disks && !c->failed; i++) {
        struct rp_record_disk *disk = &record->disks[record->count++];
        disk->number = rp_cursor_le32(c);
        disk->disk_id = rp_cursor_guid(c);
        disk->leaf_path = get_path(c);
        for (uint32_t j = 0; j < i; j++)
            if (record->disks[j].number == disk->number)
                return -1;
    }
    for (uint32_t i = 0; i < frozen && !c->failed; i++) {
        struct rp_engine_frozen *f = &record->last.disks[record->last.count++];
        f->disk_id = rp_cursor_guid(c);
        f->path = get_path(c);
        f->leaf_path = get_path(c);
        f->tracked = rp_cursor_u8(c) != 0;
        f->id.tracking = rp_cursor_guid(c);
        f->id.epoch = rp_cursor_le32(c);
    }
    for (uint32_t i = 0; i < scratch && !c->failed; i++)
        record->scratch[record->scratch_count++] = get_path(c);
    uint32_t merging = rp_cursor_le32(c);
    if (merging > RP_RECORD_MAX_MERGING)
        return -1;
    for (uint32_t i = 0; i < merging && !c->failed; i++)
        record->merging[record->merging_count++] = get_path(c);
    return c->failed || rp_cursor_left(c) ? -1 : 0;
}

int rp_record_decode(const void *data, size_t size, struct rp_record *record, struct rp_error *err)
{
    *record = (struct rp_record){0};
    if (size < HEADER_SIZE || slot_size(data) != size ||
        rp_get_le32((const uint8_t *)data + CRC_AT) != rp_crc32c_skip(data, size, CRC_AT))
        return rp_fail(err, RP_ERR_CORRUPT, "not a whole chain record");
    struct rp_cursor c = rp_cursor_of(data, size);
    if (!decode_body(&c, record))
        return 0;
    rp_record_clear(record);
    return rp_fail(err, RP_ERR_CORRUPT, "the chain record breaks its format");
}

// Generation g lives in slot (g + 1) % 2: the first one at the start of the file.
static uint64_t slot_offset(uint64_t generation) { return generation % 2 ? 0 : RP_RECORD_SLOT; }

static int read_slot(struct rp_store *store, uint64_t file_size, uint64_t offset, struct rp_record *record, struct rp_error *err)
{
    uint8_t header[HEADER_SIZE];
    *record = (struct rp_record){0};
    if (file_size < offset + HEADER_SIZE)
        return rp_fail(err, RP_ERR_CORRUPT, "empty slot");
    if (rp_store_pread(store, header, sizeof header, offset, err))
        return -1;
    size_t size = slot_size(header);
    if (!size || file_size - offset < size)
        return rp_fail(err, RP_ERR_CORRUPT, "not a whole chain record");
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(size);
    if (rp_store_pread(store, data, size, offset, err) || rp_record_decode(data, size, record, err))
        return -1;
    if (slot_offset(record->generation) == offset)
        return 0;
    rp_record_clear(record);
    return rp_fail(err, RP_ERR_CORRUPT, "a generation in the wrong slot");
}

// A slot is written from its second sector on, and then its first one. So while that still is of the generation before the one
// that counts, or empty, no later generation was ever whole here.
static int look_at_other(struct rp_store *store, uint64_t file_size, uint64_t counts, bool *later, struct rp_error *err)
{
    uint8_t header[HEADER_SIZE] = {0};
    static const uint8_t nothing[HEADER_SIZE];
    uint64_t offset = slot_offset(counts + 1);
    if (file_size > offset && rp_store_pread(store, header, (size_t)rp_min64(sizeof header, file_size - offset), offset, err))
        return -1;
    *later = counts == 1 ? memcmp(header, nothing, sizeof header) != 0
                         : !slot_size(header) || rp_get_le64(header + GENERATION_AT) != counts - 1;
    return 0;
}

int rp_record_read(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_RECORD_NAME);
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, err);
    *record = (struct rp_record){0};
    uint64_t size;
    if (!store || rp_store_size(store, &size, err))
        return -1;
    RP_AUTO_FREE struct rp_record *other = rp_xcalloc(1, sizeof *other);
    struct rp_error why = {0};
    for (int slot = 0; slot < 2; slot++) {
        struct rp_error slot_error = {0};
        if (read_slot(store, size, slot * (uint64_t)RP_RECORD_SLOT, other, &slot_error)) {
            // An unreadable slot is not a torn one: it may hold the newer generation, and the older would lose data.
            if (slot_error.code != RP_ERR_CORRUPT) {
                rp_record_clear(record);
                if (err && !err->code)
                    *err = slot_error;
                return rp_context(err, "chain record %s", path);
            }
            if (!why.code)
                why = slot_error;
            continue;
        }
        if (other->generation > record->generation) {
            rp_record_clear(record);
            *record = *other;
        } else {
            rp_record_clear(other);
        }
    }
    if (!record->generation)
        return rp_fail(err, RP_ERR_CORRUPT, "chain record %s: %s", path, why.text);
    if (!look_at_other(store, size, record->generation, &record->damaged, err))
        return 0;
    rp_record_clear(record);
    return rp_context(err, "chain record %s", path);
}

static int write_slot(struct rp_fs *fs, const char *path, const struct rp_buf *slot, uint64_t offset, struct rp_error *err)
{
    bool exists;
    if (rp_fs_exists(fs, path, &exists, err))
        return -1;
    if (!exists) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf file = {0};
        if (offset)
            memset(rp_buf_extend(&file, offset), 0, offset);
        rp_buf_append(&file, slot->data, slot->size);
        return rp_fs_replace_file(fs, path, file.data, file.size, err);
    }
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE, err);
    size_t head = rp_min64(slot->size, SECTOR);
    if (!store || (slot->size > head && (rp_store_pwrite(store, slot->data + head, slot->size - head, offset + head, err) ||
                                         rp_store_flush(store, err))))
        return -1;
    return rp_store_pwrite(store, slot->data, head, offset, err) || rp_store_flush(store, err) ? -1 : 0;
}

int rp_record_write(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_RECORD_NAME);
    RP_CLEANUP(rp_buf_clear) struct rp_buf slot = {0};
    record->generation++;
    if (!rp_record_encode(record, &slot, err) && !write_slot(fs, path, &slot, slot_offset(record->generation), err))
        return 0;
    record->generation--;
    return rp_context(err, "write the chain record");
}

bool rp_record_has_scratch(const struct rp_record *record, const char *path)
{
    for (size_t i = 0; i < record->scratch_count; i++)
        if (!strcmp(record->scratch[i], path))
            return true;
    return false;
}

int rp_record_add_scratch(struct rp_record *record, const char *path, struct rp_error *err)
{
    if (rp_record_has_scratch(record, path))
        return 0;
    if (record->scratch_count == RP_RECORD_MAX_SCRATCH)
        return rp_fail(err, RP_ERR_STATE, "chain record: too many files are waiting to be deleted");
    record->scratch[record->scratch_count++] = rp_xstrdup(path);
    return 0;
}

void rp_record_drop_scratch(struct rp_record *record, size_t index)
{
    free(record->scratch[index]);
    record->scratch[index] = record->scratch[--record->scratch_count];
}

int rp_record_add_merging(struct rp_record *record, const char *path, struct rp_error *err)
{
    for (size_t i = 0; i < record->merging_count; i++)
        if (!strcmp(record->merging[i], path))
            return 0;
    if (record->merging_count == RP_RECORD_MAX_MERGING)
        return rp_fail(err, RP_ERR_STATE, "chain record: too many files are being merged");
    record->merging[record->merging_count++] = rp_xstrdup(path);
    return 0;
}

void rp_record_drop_merging(struct rp_record *record, size_t index)
{
    free(record->merging[index]);
    record->merging[index] = record->merging[--record->merging_count];
}

int rp_record_copy(const struct rp_record *from, struct rp_record *to, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf slot = {0};
    if (rp_record_encode(from, &slot, err) || rp_record_decode(slot.data, slot.size, to, err))
        return -1;
    to->damaged = from->damaged;
    return 0;
}

void rp_record_clear(struct rp_record *record)
{
    for (size_t i = 0; i < record->count; i++)
        free(record->disks[i].leaf_path);
    rp_engine_checkpoint_clear(&record->last);
    while (record->scratch_count)
        rp_record_drop_scratch(record, record->scratch_count - 1);
    while (record->merging_count)
        rp_record_drop_merging(record, record->merging_count - 1);
    *record = (struct rp_record){0};
}

void rp_engine_checkpoint_clear(struct rp_engine_checkpoint *result)
{
    for (size_t i = 0; i < result->count; i++) {
        free(result->disks[i].path);
        free(result->disks[i].leaf_path);
    }
    *result = (struct rp_engine_checkpoint){0};
}
