#include "backup/disk.h"

#include "base/log.h"
#include "base/num.h"

#define DROP_CACHE_EVERY (128 * RP_MIB)

void rp_backup_align(const struct rp_ranges *ranges, uint64_t size, struct rp_ranges *blocks)
{
    for (size_t i = 0; i < ranges->count; i++) {
        uint64_t start = rp_align_down(ranges->items[i].offset, RP_REPO_BLOCK);
        uint64_t end = rp_min64(rp_align_up(ranges->items[i].offset + ranges->items[i].length, RP_REPO_BLOCK), size);
        rp_ranges_add(blocks, start, end - start);
    }
}

// True when the answer means "cannot be known", not "the host is in trouble".
static bool means_read_all(enum rp_code code)
{
    return code == RP_ERR_TRACKING_ID || code == RP_ERR_TRACKING_SYNTAX || code == RP_ERR_TRACKING_OFF || code == RP_ERR_CORRUPT;
}

// The changes as whole blocks. A failure that means "read everything" turns the plan into a full one.
static int find_changes(struct rp_backup_disk *disk, struct rp_ranges *blocks, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    struct rp_error why = {0};
    struct rp_reader *reader = disk->reader;
    if (reader->ops->changed(reader, disk->plan->rct_id, &changed, &why)) {
        if (!means_read_all(why.code)) {
            if (err && !err->code)
                *err = why;
            return rp_context(err, "changes of disk %u", disk->plan->disk->number);
        }
        rp_plan_disk_full(disk->plan, "changes are not known: %s", why.text);
        disk->fallback = true;
        return 0;
    }
    for (size_t i = 0; i < changed.count; i++) // a wrong reader must not make us write outside the tree
        if (!rp_range_ok(changed.items[i].offset, changed.items[i].length, reader->size))
            return rp_fail(err, RP_ERR_CORRUPT, "changes of disk %u lie outside it", disk->plan->disk->number);
    disk->changed = rp_ranges_total(&changed);
    uint64_t old_size = disk->plan->base->root.size;
    if (reader->size > old_size) { // what grew is new, and so is the rest of the block in which the old disk ended
        rp_ranges_push(&changed, rp_align_down(old_size, RP_REPO_BLOCK), reader->size - rp_align_down(old_size, RP_REPO_BLOCK));
        rp_ranges_normalize(&changed);
    }
    rp_backup_align(&changed, reader->size, blocks);
    return 0;
}

// The blocks of [offset, offset+length), itself whole blocks, that hold data.
static int find_data(struct rp_backup_disk *disk, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges allocated = {0};
    if (disk->reader->ops->allocated(disk->reader, offset, length, &allocated, err))
        return rp_context(err, "allocated space of disk %u", disk->plan->disk->number);
    for (size_t i = 0; i < allocated.count; i++)
        if (!rp_range_ok(allocated.items[i].offset, allocated.items[i].length, disk->reader->size))
            return rp_fail(err, RP_ERR_CORRUPT, "allocated space of disk %u lies outside it", disk->plan->disk->number);
    rp_backup_align(&allocated, disk->reader->size, data);
    return 0;
}

// Blocks that changed and are holes now: the tree forgets what they held.
static int zero_between(struct rp_backup_disk *disk, struct rp_range changed, const struct rp_ranges *data, struct rp_error *err)
{
    uint64_t at = changed.offset, end = changed.offset + changed.length;
    for (size_t i = 0; i < data->count && at < end; i++) {
        uint64_t start = data->items[i].offset;
        if (start > at && rp_disk_writer_zero(disk->writer, at, rp_min64(start, end) - at, err))
            return -1;
        at = rp_max64(at, start + data->items[i].length);
    }
    return at < end ? rp_disk_writer_zero(disk->writer, at, end - at, err) : 0;
}

static int plan_changes(struct rp_backup_disk *disk, const struct rp_ranges *blocks, struct rp_error *err)
{
    for (size_t i = 0; i < blocks->count; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
        struct rp_range changed = blocks->items[i];
        if (find_data(disk, changed.offset, changed.length, &data, err) || zero_between(disk, changed, &data, err))
            return -1;
        for (size_t j = 0; j < data.count; j++)
            rp_ranges_add(&disk->data, data.items[j].offset, data.items[j].length);
    }
    return 0;
}

// On the base; or from nothing when the repository has lost a part of the base.
static int new_writer(struct rp_backup_disk *disk, struct rp_repo_session *session, struct rp_error *err)
{
    struct rp_error why = {0};
    if (disk->plan->base) {
        disk->writer = rp_disk_writer_new(session, &disk->plan->base->root, disk->reader->size, &why);
        if (disk->writer)
            return 0;
        if (why.code != RP_ERR_CORRUPT && why.code != RP_ERR_AUTH) {
            if (err && !err->code)
                *err = why;
            return -1;
        }
        rp_plan_disk_full(disk->plan, "%s", why.text);
        disk->fallback = true;
    }
    disk->writer = rp_disk_writer_new(session, NULL, disk->reader->size, err);
    return disk->writer ? 0 : -1;
}

int rp_backup_disk_open(struct rp_backup_disk *disk, struct rp_reader *reader, struct rp_repo_session *session, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges blocks = {0};
    disk->reader = reader;
    disk->reader_name = reader->name;
    bool asked = disk->plan->base != NULL;
    if (asked && find_changes(disk, &blocks, err))
        return -1;
    if (new_writer(disk, session, err))
        return -1;
    if (disk->plan->base)
        return plan_changes(disk, &blocks, err);
    if (asked && reader->ops->whole && reader->ops->whole(reader, err))
        return -1;
    if (find_data(disk, 0, reader->size, &disk->data, err))
        return -1;
    disk->changed = rp_ranges_total(&disk->data);
    return 0;
}

int rp_backup_disk_read(void *context, uint64_t offset, uint32_t length, void *buffer, struct rp_error *err)
{
    struct rp_backup_disk *disk = context;
    if (disk->reader->ops->read(disk->reader, buffer, length, offset, err))
        return rp_context(err, "read disk %u", disk->plan->disk->number);
    return 0;
}

int rp_backup_disk_store(void *context, uint64_t offset, uint32_t length, const void *buffer, struct rp_error *err)
{
    struct rp_backup_disk *disk = context;
    struct rp_reader *reader = disk->reader;
    if (rp_disk_writer_put(disk->writer, offset, buffer, length, err))
        return rp_context(err, "store disk %u", disk->plan->disk->number);
    atomic_fetch_add(&disk->read, length);
    if (disk->plan->base || !reader->ops->drop_cache)
        return 0;
    // A whole disk read once must not push the VMs' own data out of the cache.
    uint64_t before = atomic_fetch_add(&disk->cached, length);
    if (before / DROP_CACHE_EVERY != (before + length) / DROP_CACHE_EVERY)
        reader->ops->drop_cache(reader);
    return 0;
}

void rp_backup_disk_close_reader(struct rp_backup_disk *disk)
{
    if (disk->reader && !disk->plan->base && disk->reader->ops->drop_cache && atomic_load(&disk->cached))
        disk->reader->ops->drop_cache(disk->reader);
    if (disk->reader)
        disk->data_write_guid = disk->reader->data_write_guid;
    rp_reader_close(disk->reader);
    disk->reader = NULL;
}

int rp_backup_disk_finish(struct rp_backup_disk *disk, struct rp_error *err)
{
    struct rp_disk_writer *writer = disk->writer;
    disk->writer = NULL; // freed, also on failure
    return rp_disk_writer_finish(writer, &disk->root, err);
}

void rp_backup_disk_clear(struct rp_backup_disk *disk)
{
    rp_disk_writer_abandon(disk->writer);
    disk->writer = NULL;
    rp_reader_close(disk->reader);
    disk->reader = NULL;
    rp_ranges_clear(&disk->data);
}
