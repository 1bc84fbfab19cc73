// The virtual-disk reader: frozen files on this machine, changes from the host.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/reader_files.h"
#include "base/buf.h"
#include "disk/chain.h"

struct virtual_disk {
    struct rp_reader reader;
    struct rp_host_connection *host; // borrowed
    char *path;                      // as the host calls it
    struct rp_chain chain;
    void *own;
};

static struct virtual_disk *of(struct rp_reader *reader) { return (struct virtual_disk *)reader; }

static int add_data(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state == RP_VHDX_DATA)
        rp_ranges_add(context, offset, length);
    return 0;
}

static int allocated(struct rp_reader *reader, uint64_t offset, uint64_t length, struct rp_ranges *ranges, struct rp_error *err)
{
    return rp_vhdx_chain_extents(of(reader)->chain.layers[0], offset, length, add_data, ranges, err);
}

static int changed(struct rp_reader *reader, const char *rct_id, struct rp_ranges *ranges, struct rp_error *err)
{
    return rp_host_all_changes(of(reader)->host, of(reader)->path, rct_id, reader->size, ranges, err);
}

static int read_data(struct rp_reader *reader, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    return rp_vhdx_read(of(reader)->chain.layers[0], data, size, offset, err);
}

static void drop_cache(struct rp_reader *reader)
{
    for (size_t i = 0; i < of(reader)->chain.depth; i++) {
        RP_AUTO_FD int fd = open(rp_vhdx_path(of(reader)->chain.layers[i]), O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

static void close_disk(struct rp_reader *reader)
{
    rp_chain_close(&of(reader)->chain);
    free(of(reader)->own);
    free(of(reader)->path);
    free(reader);
}

// Everything that is stored is stored under what the host said; a file that says otherwise is another disk.
int rp_reader_check_file(const struct rp_vm_disk *disk, const char *path, const struct rp_vhdx_info *info, struct rp_error *err)
{
    if (info->size != disk->size)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the file holds %llu bytes, the host says %llu", path,
                       (unsigned long long)info->size, (unsigned long long)disk->size);
    if (!rp_guid_equal(&info->disk_id, &disk->disk_id)) {
        char a[RP_GUID_TEXT], b[RP_GUID_TEXT];
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the file is disk %s, the host says %s", path,
                       rp_guid_format(&info->disk_id, a), rp_guid_format(&disk->disk_id, b));
    }
    return 0;
}

struct rp_reader *rp_reader_virtual_disk_at(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_fs *fs,
                                            const char *path, const char *name, void *own, struct rp_error *err)
{
    static const struct rp_reader_ops ops = {
        .allocated = allocated,
        .changed = changed,
        .read = read_data,
        .drop_cache = drop_cache,
        .close = close_disk,
    };
    struct virtual_disk *vd = rp_xcalloc(1, sizeof *vd);
    vd->reader.ops = &ops;
    vd->reader.name = name;
    vd->host = host;
    vd->path = rp_xstrdup(disk->path);
    vd->own = own;
    if (rp_chain_open(fs, path, &vd->chain, err))
        goto failed;
    const struct rp_vhdx_info *info = rp_vhdx_info(vd->chain.layers[0]);
    if (rp_reader_check_file(disk, path, info, err))
        goto failed;
    vd->reader.size = info->size;
    vd->reader.logical_sector = info->logical_sector;
    vd->reader.physical_sector = info->physical_sector;
    return &vd->reader;
failed:
    close_disk(&vd->reader);
    return NULL;
}

struct rp_reader *rp_reader_virtual_disk(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err)
{
    return rp_reader_virtual_disk_at(host, disk, rp_fs_posix(), disk->path, rp_reader_name(RP_READER_VIRTUAL_DISK), NULL, err);
}

void rp_reader_close(struct rp_reader *reader)
{
    if (reader)
        reader->ops->close(reader);
}
