// What kind of image a file is.
#include <string.h>
#include <strings.h>

#include "disk/convert.h"

int rp_image_detect(struct rp_fs *fs, const char *path, enum rp_image_format *format, struct rp_error *err)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, err);
    uint64_t size;
    char signature[8] = "";
    if (!store || rp_store_size(store, &size, err) || (size >= 8 && rp_store_pread(store, signature, 8, 0, err)))
        return -1;
    *format = memcmp(signature, "vhdxfile", 8) ? RP_IMAGE_RAW : RP_IMAGE_VHDX;
    return 0;
}

int rp_image_check_raw(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    static const struct {
        const char *name, *magic;
        size_t size;
        uint64_t offset;
        bool from_end;
    } formats[] = {
        {"qcow2", "QFI\xfb", 4, 0, false},          {"VMDK", "KDMV", 4, 0, false},
        {"VMDK", "# Disk DescriptorFile", 21, 0, false}, {"VDI", "\x7f\x10\xda\xbe", 4, 64, false},
        {"VHD", "conectix", 8, 0, false},           {"VHD", "conectix", 8, 512, true},
    };
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, err);
    uint64_t size = 0;
    if (!store || rp_store_size(store, &size, err))
        return -1;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char found[32];
        if (size < 512 || (formats[i].from_end && size < formats[i].offset))
            continue;
        uint64_t at = formats[i].from_end ? size - formats[i].offset : formats[i].offset;
        if (rp_store_pread(store, found, formats[i].size, at, err))
            return -1;
        if (!memcmp(found, formats[i].magic, formats[i].size))
            return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: this is a %s image; make a VHDX of it first: qemu-img convert -O vhdx",
                           path, formats[i].name);
    }
    size_t length = strlen(path);
    if (length > 5 && !strcasecmp(path + length - 5, ".vhdx"))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: named .vhdx, but it is no VHDX file", path);
    return 0;
}
