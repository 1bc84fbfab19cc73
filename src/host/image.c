// A file that an administrator wants as a disk: what it is, and whether we may have it.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf16.h"
#include "disk/chain.h"
#include "host/internal.h"

void rp_local_image_clear(struct rp_local_image *image)
{
    free(image->path);
    for (size_t i = 0; i < image->parent_count; i++)
        free(image->parents[i]);
    *image = (struct rp_local_image){0};
}

static void take_facts(struct rp_local_image *image, const struct rp_vhdx_info *info)
{
    image->format = RP_IMAGE_VHDX;
    image->size = info->size;
    image->logical = info->logical_sector;
    image->physical = info->physical_sector;
    image->block = info->block_size;
    image->disk_id = info->disk_id;
}

int rp_local_image_facts(struct rp_fs *fs, const char *path, struct rp_local_image *image, struct rp_error *err)
{
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_look(fs, path, err);
    if (!vhdx)
        return -1;
    take_facts(image, rp_vhdx_info(vhdx));
    return 0;
}

bool rp_local_image_is_text(const char *path)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    return !rp_utf16_append(&utf16, path, NULL);
}

static int check_text(const char *path, struct rp_error *err)
{
    return rp_local_image_is_text(path) ? 0 : rp_fail(err, RP_ERR_INVALID, "%s: the path is not valid UTF-8; rename the file", path);
}

static int canonical(const char *path, char **out, struct rp_error *err)
{
    *out = realpath(path, NULL);
    return *out ? check_text(*out, err) : rp_fail_sys(err, errno, "%s", path);
}

char *rp_local_image_where(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *here = *path == '/' ? NULL : realpath(".", NULL);
    char *where = realpath(path, NULL);
    if (!where)
        where = here ? rp_path_join(here, path) : rp_xstrdup(path);
    if (!check_text(where, err))
        return where;
    free(where);
    return NULL;
}

static int judge(const struct rp_local *local, const char *path, struct rp_error *err)
{
    return local->judge ? local->judge(local->judge_context, path, err) : 0;
}

static int inspect_raw(struct rp_fs *fs, struct rp_local_image *image, struct rp_error *err)
{
    if (rp_image_check_raw(fs, image->path, err))
        return -1;
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, image->path, RP_OPEN_READ, err);
    if (!store || rp_store_size(store, &image->size, err))
        return -1;
    if (image->size == 0)
        return rp_fail(err, RP_ERR_INVALID, "%s: an empty file cannot be a disk", image->path);
    if (image->size > RP_VHDX_MAX_SIZE)
        return rp_fail(err, RP_ERR_INVALID, "%s: larger than the 64 TiB of a VHDX", image->path);
    return 0;
}

static int inspect_vhdx(struct rp_local *local, struct rp_fs *fs, const struct stat *st, struct rp_local_image *image,
                        struct rp_error *err)
{
    if (!S_ISREG(st->st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: a VHDX is used in place and must be a file", image->path);
    // The mode as well: to root every file is writable, and who takes the write bits off a golden image means it.
    if (!(st->st_mode & 0222) || access(image->path, W_OK))
        return rp_fail(err, RP_ERR_PERMISSION, "%s: read-only; a VHDX is used in place and must be writable", image->path);
    RP_AUTO_FREE char *directory = rp_path_directory(image->path);
    if (access(directory, W_OK | X_OK))
        return rp_fail_sys(err, errno, "%s: checkpoints are made beside it, but its folder", image->path);
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    if (rp_chain_open(fs, image->path, &chain, err))
        return -1;
    take_facts(image, rp_vhdx_info(chain.layers[0]));
    // The chain grows with every checkpoint.
    if (chain.depth > RP_CHAIN_MAX_DEPTH / 2)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: a chain of %zu differencing disks; merge some first (at most %d)",
                       image->path, chain.depth, RP_CHAIN_MAX_DEPTH / 2);
    for (size_t i = 1; i < chain.depth; i++) {
        char **parent = &image->parents[image->parent_count++];
        if (canonical(rp_vhdx_path(chain.layers[i]), parent, err) || judge(local, *parent, err))
            return -1;
    }
    return 0;
}

int rp_local_image_inspect(struct rp_local *local, const char *path, struct rp_local_image *image, struct rp_error *err)
{
    struct stat st;
    struct rp_fs_no_links here;
    if (canonical(path, &image->path, err))
        return -1;
    if (local->judge && strcmp(image->path, path))
        return rp_fail(err, RP_ERR_PERMISSION, "%s: a link is in the path now, and none is followed there", path);
    if (judge(local, image->path, err))
        return -1;
    if (stat(image->path, &st))
        return rp_fail_sys(err, errno, "%s", path);
    // Nothing is opened that an open could block on or change (a pipe, a tape).
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: neither a file nor a block device", path);
    struct rp_fs *fs = rp_fs_no_links(&here, image->path); // a link that comes in now is not followed
    if (rp_image_detect(fs, image->path, &image->format, err))
        return -1;
    return image->format == RP_IMAGE_RAW ? inspect_raw(fs, image, err) : inspect_vhdx(local, fs, &st, image, err);
}

// A file of the image's chain: the image, then its parents.
struct file {
    const char *path; // canonical
    struct stat st;
    bool there;
};

static struct file file_of(const char *path)
{
    struct file file = {.path = path};
    file.there = !stat(path, &file.st);
    return file;
}

static bool same_file(const struct file *a, const struct file *b)
{
    return !strcmp(a->path, b->path) ||
           (a->there && b->there && a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino);
}

// What some VM writes or reads: roots, files that checkpoints made above them, parents below them. With this path; or
// with this identity, which a file keeps under any other name (a hard link, another mount, a folder that was moved and
// linked to), and which all files of a chain share: so only they are looked at, however many VMs there are.
static const char uses[] =
    "SELECT u.path, v.id, v.name, u.written FROM ("
    "SELECT path, vm, 1 AS written FROM disk WHERE disk_id = ?1 OR path = ?2"
    " UNION ALL SELECT d.path, s.vm, 1 FROM snapshot_disk d JOIN snapshot s ON s.row = d.snapshot"
    " WHERE d.disk_id = ?1 OR d.path = ?2"
    " UNION ALL SELECT d.child, s.vm, 1 FROM snapshot_disk d JOIN snapshot s ON s.row = d.snapshot"
    " WHERE d.disk_id = ?1 OR d.child = ?2"
    " UNION ALL SELECT p.path, p.vm, 0 FROM disk d JOIN disk_parent p ON p.vm = d.vm AND p.number = d.number"
    " WHERE d.disk_id = ?1"
    " UNION ALL SELECT path, vm, 0 FROM disk_parent WHERE path = ?2"
    ") u JOIN vm v ON v.row = u.vm";

static int check_uses(struct rp_db *db, const struct file *files, size_t count, const char *disk_id, const char *path,
                      struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(db, err, uses, "tt", disk_id, path);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(db, query, err)) == 1) {
        const struct file used = file_of(rp_db_text(query, 0));
        const char *id = rp_db_text(query, 1), *name = rp_db_text(query, 2);
        bool written = sqlite3_column_int64(query, 3) != 0;
        if (same_file(&files[0], &used))
            return rp_fail(err, RP_ERR_EXISTS, "%s: %s VM %s (%s)", files[0].path,
                           written ? "is a disk already, of" : "is the parent of a disk of", id, name);
        for (size_t i = 1; i < count && written; i++)
            if (same_file(&files[i], &used))
                return rp_fail(err, RP_ERR_BUSY, "%s: its parent %s is a disk of VM %s (%s), which writes to it",
                               files[0].path, used.path, id, name);
    }
    return rc;
}

int rp_local_image_check_free(const struct rp_local_vm *vm, const struct rp_local_image *image, struct rp_error *err)
{
    if (image->format == RP_IMAGE_RAW)
        return 0; // it is copied
    struct rp_db *db = vm->local->db;
    char guid[RP_GUID_TEXT];
    rp_local_guid_text(&image->disk_id, guid);
    int64_t twin = -1;
    if (rp_db_number(db, err, &twin, "SELECT number FROM disk WHERE vm = ? AND disk_id = ?", "it", vm->row, guid))
        return -1;
    if (twin >= 0)
        return rp_fail(err, RP_ERR_EXISTS, "%s: has the identity of disk%lld of the same VM; is it a copy of it?", image->path,
                       (long long)twin);
    struct file files[1 + RP_ENGINE_MAX_DISKS];
    size_t count = 0;
    files[count++] = file_of(image->path);
    for (size_t i = 0; i < image->parent_count; i++)
        files[count++] = file_of(image->parents[i]);
    for (size_t i = 0; i < count; i++)
        if (check_uses(db, files, count, i ? "" : guid, files[i].path, err))
            return -1;
    return 0;
}
