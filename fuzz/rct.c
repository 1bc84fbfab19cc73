// A hostile tracking file. The input: one byte of flags (1: make the checksums right, so that what lies behind them is
// reached), then records {u32 offset, u16 length, bytes} that are written into an empty file.
#include <stdlib.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "io/memory.h"
#include "rct/file.h"
#include "patches.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = RP_RCT_PAGES_AT + 64 * RP_RCT_PAGE_SIZE };

static void repair(struct rp_buf *image)
{
    if (image->size < RP_RCT_PAGES_AT) {
        size_t missing = RP_RCT_PAGES_AT - image->size;
        memset(rp_buf_extend(image, missing), 0, missing);
    }
    for (size_t at = 0; at <= RP_RCT_SLOT_SIZE; at += RP_RCT_SLOT_SIZE) {
        uint8_t *slot = image->data + at;
        size_t lineage = rp_min64(rp_get_le32(slot + 288), RP_RCT_LINEAGE_MAX) * RP_RCT_SPAN_SIZE;
        size_t bitmap = rp_min64(rp_get_le32(slot + 296), RP_RCT_SLOT_SIZE - RP_RCT_BITMAP_AT);
        rp_put_le32(slot + 292, rp_crc32c(0, slot + RP_RCT_LINEAGE_AT, lineage));
        rp_put_le32(slot + 300, rp_crc32c(0, slot + RP_RCT_BITMAP_AT, bitmap));
        rp_put_le32(slot + 8, rp_crc32c_skip(slot, RP_RCT_HEAD_SIZE, 8));
    }
    for (size_t at = RP_RCT_PAGES_AT; at + RP_RCT_SECTOR_SIZE <= image->size; at += RP_RCT_SECTOR_SIZE)
        rp_put_le32(image->data + at, rp_crc32c_skip(image->data + at, RP_RCT_SECTOR_SIZE, 0));
}

// The disk that the newer slot says it is bound to, or none in particular.
static void bound_disk(const struct rp_buf *image, struct rp_rct_disk *disk, struct rp_rct_id *id)
{
    struct rp_rct_header *h = rp_xmalloc(sizeof *h);
    struct rp_rct_areas areas;
    uint64_t newest = 0;
    *disk = (struct rp_rct_disk){.virtual_size = RP_GIB};
    *id = (struct rp_rct_id){.epoch = 1};
    for (size_t at = 0; at + RP_RCT_HEAD_SIZE <= image->size && at <= RP_RCT_SLOT_SIZE; at += RP_RCT_SLOT_SIZE)
        if (!rp_rct_head_decode(image->data + at, h, &areas, NULL) && h->sequence >= newest) {
            newest = h->sequence;
            *disk = h->bound;
            disk->virtual_size = h->virtual_size;
            disk->disk_id = h->disk_id;
            *id = (struct rp_rct_id){h->tracking, h->first};
        }
    free(h);
}

static void query(struct rp_rct *rct, const struct rp_rct_id *id, uint64_t size, bool must_have_start)
{
    struct rp_ranges changed = {0};
    int failed = rp_rct_query(&rct, 1, id, 0, size, &changed, NULL);
    if (must_have_start && (failed || !changed.count || changed.items[0].offset))
        abort();
    rp_ranges_clear(&changed);
}

static void use(struct rp_fs *fs, struct rp_rct_disk *disk, const struct rp_rct_id *id)
{
    struct rp_rct *reader = rp_rct_open_read(fs, "d", disk, NULL);
    if (reader)
        query(reader, id, disk->virtual_size, false);
    rp_rct_abandon(reader);

    struct rp_vhdx_session session = {{{1}}, {{2}}};
    enum rp_rct_verdict verdict;
    struct rp_rct *rct = rp_rct_open_write(fs, "d", disk, &session, &verdict, NULL);
    if (!rct)
        return;
    query(rct, id, disk->virtual_size, false);
    struct rp_rct_disk child_disk = *disk;
    struct rp_rct *child = rp_rct_prepare_child(rct, "c", &child_disk, &session, NULL);
    struct rp_rct_id sealed = rp_rct_seal(rct);
    if (!child || !disk->virtual_size || rp_rct_freeze(rct, disk, NULL)) {
        rp_rct_abandon(child);
        rp_rct_abandon(rct);
        return;
    }
    rp_rct_mark(child, 0, 1);
    if (rp_rct_merge(child, rct, disk, &session, NULL))
        abort();
    rp_rct_merged(rct);
    if (rp_rct_thaw(rct, NULL))
        abort();
    rp_rct_abandon(child);
    query(rct, &sealed, disk->virtual_size, true);
    if (rp_rct_close(rct, disk, NULL))
        abort();
    rct = rp_rct_open_write(fs, "d", disk, &session, &verdict, NULL);
    if (!rct || verdict != RP_RCT_CLEAN)
        abort();
    query(rct, &sealed, disk->virtual_size, true);
    rp_rct_abandon(rct);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    rp_log_set_level(RP_LOG_ERROR);
    struct rp_buf text = {0}, image = {0};
    struct rp_rct_id id;
    rp_buf_append(&text, data, size);
    if (!rp_rct_id_parse(rp_buf_text(&text), &id, NULL)) {
        char again[RP_RCT_ID_TEXT];
        if (strcasecmp(rp_rct_id_format(&id, again), rp_buf_text(&text)))
            abort();
    }
    apply_patches(data + 1, size - 1, LIMIT, &image);
    if (data[0] & 1)
        repair(&image);
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_store *store = rp_fs_open(fs, "d.rct", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    rp_store_pwrite(store, image.data, image.size, 0, NULL);
    rp_store_close(store);
    struct rp_rct_disk disk;
    bound_disk(&image, &disk, &id);
    use(fs, &disk, &id);
    rp_fs_memory_free(fs);
    rp_buf_clear(&image);
    rp_buf_clear(&text);
    return 0;
}
