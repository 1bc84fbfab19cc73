// A hostile coarse bitmap, beside a tracking file of ours whose session did not end. The input: one byte of flags (1: make
// the checksums right, 2: give it the name that the tracking file asks for), then records {u32 offset, u16 length, bytes}
// that are written over an empty file.
#include <stdlib.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "io/memory.h"
#include "rct/mrt.h"
#include "rct/rct.h"
#include "patches.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = 64 << 10 };
#define SIZE (20 * RP_GIB) // two sectors in each area

static void repair(struct rp_buf *image, unsigned flags, const uint8_t *name)
{
    for (size_t at = 0; at + RP_MRT_SECTOR_SIZE <= image->size; at += RP_MRT_SECTOR_SIZE) {
        bool header = at < RP_MRT_AREAS_AT;
        uint8_t *sector = image->data + at;
        if (flags & 2)
            memcpy(sector + (header ? 24 : 16), name, 16);
        if (flags & 1)
            rp_put_le32(sector + (header ? 8 : 0), rp_crc32c_skip(sector, RP_MRT_SECTOR_SIZE, header ? 8 : 0));
    }
}

static struct rp_rct *open_disk(struct rp_fs *fs, struct rp_rct_disk *disk)
{
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_rct *rct = rp_rct_open_write(fs, "d", disk, &session, NULL, NULL);
    if (!rct)
        abort();
    disk->file_write_guid = session.file_write_guid;
    disk->data_write_guid = session.data_write_guid;
    return rct;
}

// What was flushed is answered, whatever the bitmap says.
static void check(struct rp_rct *rct, const struct rp_rct_id *id)
{
    struct rp_ranges changed = {0};
    if (rp_rct_query(&rct, 1, id, 0, SIZE, &changed, NULL) || !changed.count || changed.items[0].offset)
        abort();
    rp_ranges_clear(&changed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    rp_log_set_level(RP_LOG_ERROR);
    struct rp_buf image = {0}, ours = {0};
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_rct_disk disk = {.virtual_size = SIZE};
    struct rp_gate *gate = rp_gate_new();

    struct rp_rct *rct = open_disk(fs, &disk);
    struct rp_rct_id id = rp_rct_seal(rct);
    if (rp_rct_close(rct, &disk, NULL))
        abort();
    rct = open_disk(fs, &disk);
    rp_rct_mark(rct, 0, 1);
    if (rp_rct_flush(rct, gate, NULL))
        abort();
    rp_rct_abandon(rct);

    apply_patches(data + 1, size - 1, LIMIT, &image);
    if (rp_fs_read_file(fs, "d.mrt", LIMIT, &ours, NULL))
        abort();
    repair(&image, data[0], ours.data + 24);
    rp_fs_unlink(fs, "d.mrt", NULL);
    struct rp_store *store = rp_fs_open(fs, "d.mrt", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    rp_store_pwrite(store, image.data, image.size, 0, NULL);
    rp_store_close(store);

    rct = open_disk(fs, &disk);
    check(rct, &id);
    if (rp_rct_cover(rct, RP_GIB, 1, NULL) || !rp_rct_covered(rct, RP_GIB, 1))
        abort();
    rp_rct_mark(rct, RP_GIB, 1);
    if (rp_rct_flush(rct, gate, NULL))
        abort();
    rp_rct_abandon(rct);
    rct = open_disk(fs, &disk);
    check(rct, &id);
    if (rp_rct_close(rct, &disk, NULL) || rp_rct_remove(fs, "d", NULL))
        abort();

    rp_gate_free(gate);
    rp_fs_memory_free(fs);
    rp_buf_clear(&image);
    rp_buf_clear(&ours);
    return 0;
}
