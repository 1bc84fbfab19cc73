// A release that has been decided is carried through, by whoever comes: every step can be done again.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/adopt.h"
#include "host/domain.h"
#include "host/domain_define.h"
#include "rct/rct.h"

struct disk {
    char *vhdx, *part, *path, *format, *mark, *target, *source, *stamp;
    uint32_t number;
    bool lost;  // its image is under neither name
    bool named; // the domain's definition has it there
};
struct disks {
    size_t count;
    struct disk items[RP_ENGINE_MAX_DISKS];
};

static void clear(struct disks *disks)
{
    for (size_t i = 0; i < disks->count; i++) {
        free(disks->items[i].vhdx);
        free(disks->items[i].part);
        free(disks->items[i].path);
        free(disks->items[i].format);
        free(disks->items[i].mark);
        free(disks->items[i].target);
        free(disks->items[i].source);
        free(disks->items[i].stamp);
    }
}

static int load(const struct rp_local_vm *vm, struct disks *disks, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(
        vm->local->db, err,
        "SELECT r.number, d.path, r.part, r.path, r.format, r.mark, coalesce(m.target, ''), coalesce(m.source, ''), "
        "coalesce(m.stamp, '')"
        " FROM releasing_disk r JOIN disk d ON d.vm = r.vm AND d.number = r.number"
        " LEFT JOIN domain_disk m ON m.vm = r.vm AND m.number = r.number WHERE r.vm = ? ORDER BY r.number",
        "i", vm->row);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(vm->local->db, query, err)) == 1) {
        if (disks->count == RP_ENGINE_MAX_DISKS)
            return rp_fail(err, RP_ERR_CORRUPT,
                           "more than %d disks are released: somebody wrote to the host's database",
                           RP_ENGINE_MAX_DISKS);
        disks->items[disks->count++] = (struct disk){.number = (uint32_t)sqlite3_column_int64(query, 0),
                                                     .vhdx = rp_xstrdup(rp_db_text(query, 1)),
                                                     .part = rp_xstrdup(rp_db_text(query, 2)),
                                                     .path = rp_xstrdup(rp_db_text(query, 3)),
                                                     .format = rp_xstrdup(rp_db_text(query, 4)),
                                                     .mark = rp_xstrdup(rp_db_text(query, 5)),
                                                     .target = rp_xstrdup(rp_db_text(query, 6)),
                                                     .source = rp_xstrdup(rp_db_text(query, 7)),
                                                     .stamp = rp_xstrdup(rp_db_text(query, 8))};
    }
    return rc;
}

static bool replaces(const struct disk *disk)
{
    return !strcmp(disk->path, disk->source);
}

// 1: the image has its place, or is lost; 0: something is there that must not be replaced, *why; -1: not now.
static int put_image(const struct rp_local_vm *vm, struct disk *disk, struct rp_error *why, struct rp_error *err)
{
    struct rp_fs_no_links here;
    struct rp_fs *fs = rp_fs_no_links(&here, "/");
    int placed = rp_adopt_is_marked(disk->path, disk->mark, err),
        whole = rp_adopt_is_marked(disk->part, disk->mark, err);
    if (placed < 0 || whole < 0)
        return -1;
    if (placed) // it may have its other name still (rp_adopt_rename)
        return (whole && rp_fs_unlink_if_there(fs, disk->part, err)) || rp_fs_sync_parent(fs, disk->path, err) ? -1 : 1;
    disk->lost = !whole;
    if (disk->lost)
        return 1;
    RP_AUTO_FREE char *old = replaces(disk) ? rp_adopt_mark(disk->path) : rp_xstrdup("");
    if (*old && rp_release_check_image(disk->path, disk->stamp, vm->id, why))
        return 0;
    struct rp_error failed = {0};
    if (*old ? rp_fs_rename(fs, disk->part, disk->path, &failed) : rp_adopt_rename(disk->part, disk->path, &failed)) {
        if (failed.code != RP_ERR_EXISTS)
            return rp_fail_as(err, &failed);
        *why = failed;
        return 0;
    }
    return rp_fs_sync_parent(fs, disk->path, err) ? -1 : 1;
}

static int put_images(const struct rp_local_vm *vm, struct disks *disks, struct rp_error *why, struct rp_error *err)
{
    int rc = 1;
    for (size_t i = 0; rc == 1 && i < disks->count; i++) {
        if (*disks->items[i].part)
            rc = put_image(vm, &disks->items[i], why, err);
        if (rc < 1)
            rp_context(rc ? err : why, "disk%u", disks->items[i].number);
    }
    return rc;
}

// The definition that the domain had when it was adopted; empty: it was made here.
static int load_before(const struct rp_local_vm *vm, struct rp_domain_xml *before, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err, "SELECT domain_xml FROM vm WHERE row = ?", "i", vm->row);
    if (!query || rp_db_step(vm->local->db, query, err) < 0)
        return -1;
    const char *text = rp_db_text(query, 0);
    return *text ? rp_domain_xml_parse(text, before, err) : 0;
}

int rp_release_rewrite(const struct rp_local_vm *vm, const char *now, const struct rp_release_image *images,
                       size_t count, char **after, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0}, before = {0};
    RP_AUTO_FREE char *socket = rp_path_join(vm->directory, RP_NBD_SOCKET), *text = NULL;
    int64_t iothread; // that the domain got when it was adopted
    if (rp_domain_xml_parse(now, &xml, err) || load_before(vm, &before, err) ||
        rp_db_number(vm->local->db, err, &iothread, "SELECT iothread FROM vm WHERE row = ?", "i", vm->row))
        return -1;
    struct rp_domain_xml_image detached[RP_ENGINE_MAX_DISKS];
    for (size_t i = 0; i < count; i++) {
        struct rp_domain_disk *disk = &detached[i].attached;
        detached[i] = (struct rp_domain_xml_image){
            .attached.socket = socket,
            .path = images[i].path,
            .format = images[i].format,
            .untouched = !strcmp(vm->state, "creating")}; // its adoption is undone
        snprintf(disk->target, sizeof disk->target, "%s", images[i].target);
        snprintf(disk->export_name, sizeof disk->export_name, "disk%u", images[i].number);
    }
    if (rp_domain_xml_detach(&xml, before.text ? &before : NULL, detached, count, iothread != 0, &text, err))
        return -1;
    if (rp_local_domain_names_us(vm, text))
        return rp_fail(
            err, RP_ERR_STATE,
            "VM %s: its domain has a disk of it at a target that it did not have there: put the target back, or "
            "take the disk out of the domain (virsh edit), then release it",
            vm->id);
    *after = text;
    text = NULL;
    return 0;
}

static bool gives_up(const struct rp_error *why)
{
    return why->code != RP_ERR_BUSY && why->code != RP_ERR_IO && why->code != RP_ERR_CANCELLED;
}

// As the domain is now: its administrator may have changed it while the images were written, or since a kill.
static int define(const struct rp_local_vm *vm, const struct disks *disks, const char *now, struct rp_error *err)
{
    RP_AUTO_FREE char *after = NULL;
    struct rp_release_image images[RP_ENGINE_MAX_DISKS];
    for (size_t i = 0; i < disks->count; i++)
        images[i] = (struct rp_release_image){disks->items[i].number, disks->items[i].target, disks->items[i].path,
                                              disks->items[i].format};
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    return !hv || rp_release_rewrite(vm, now, images, disks->count, &after, err) ||
                   rp_hypervisor_ops()->define(hv, after, err)
               ? -1
               : 0;
}

static bool names(const struct rp_domain_xml *xml, const char *path)
{
    for (size_t i = 0; i < xml->disk_count; i++)
        if (!strcmp(xml->disks[i].path, path))
            return true;
    return false;
}

// Which images the domain would miss. One that has its old place may be named through a link, as it was.
static int find_named(const struct rp_local_vm *vm, struct disks *disks, const char *now, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0}, before = {0};
    if (rp_domain_xml_parse(now, &xml, err) || load_before(vm, &before, err))
        return -1;
    for (size_t i = 0; i < disks->count; i++) {
        struct disk *disk = &disks->items[i];
        const struct rp_domain_xml_disk *was = rp_domain_xml_disk(&before, disk->target);
        disk->named = names(&xml, disk->path) || (replaces(disk) && was && names(&xml, was->path));
    }
    return 0;
}

// A file system that is not mounted: the folder is there, and empty.
static int wait_for(const struct disk *disk, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_NOT_FOUND,
                   "disk%u: neither %s nor %s is the image that was made for the release: is its file system mounted?",
                   disk->number, disk->path, disk->part);
}

// 1: the domain has its definition, or is gone; 0: it will never take it, *why; -1: not now.
static int give_definition(const struct rp_local_vm *vm, struct disks *disks, struct rp_error *why,
                           struct rp_error *err)
{
    RP_AUTO_FREE char *now = NULL;
    struct rp_error failed = {0};
    bool running;
    int attached = rp_adopt_is_attached(vm, &running, &now, err);
    if (attached < 0)
        return -1;
    // All its disks are elsewhere, or there is no such domain: it has happened, or somebody has decided otherwise.
    if (!now || (!attached && !rp_local_domain_names_us(vm, now)))
        return now && find_named(vm, disks, now, err) ? -1 : 1;
    for (size_t i = 0; i < disks->count; i++)
        if (disks->items[i].lost)
            return wait_for(&disks->items[i], err);
    if (!define(vm, disks, now, &failed))
        return 1;
    rp_context(&failed, "VM %s: the definition that its domain would get back", vm->id);
    if (!gives_up(&failed))
        return rp_fail_as(err, &failed);
    *why = failed;
    return 0;
}

// An image that came beside gets its hidden name back. What has the other one by the time that it is removed could be
// somebody else's file.
static int hide(const struct disk *disk, struct rp_error *err)
{
    struct rp_fs_no_links here;
    struct rp_fs *fs = rp_fs_no_links(&here, "/");
    int whole = rp_adopt_is_marked(disk->part, disk->mark, err); // it may have both (rp_adopt_rename)
    if (whole < 0 ||
        (whole ? rp_fs_unlink_if_there(fs, disk->path, err) : rp_adopt_rename(disk->path, disk->part, err)) ||
        rp_fs_sync_parent(fs, disk->path, err))
        return -1;
    whole = rp_adopt_is_marked(disk->part, disk->mark, err);
    if (whole)
        return whole < 0 ? -1 : 0;
    // Exchanged in that very moment.
    return rp_adopt_rename(disk->part, disk->path, err)
               ? -1
               : rp_fail(err, RP_ERR_NOT_FOUND, "%s: somebody has moved it away", disk->path);
}

// The images first. A stamp is NULL where the image did not take the place of the one before.
static int take_back(const struct disks *disks, char **stamps, struct rp_error *err)
{
    for (size_t i = 0; i < disks->count; i++) {
        const struct disk *disk = &disks->items[i];
        int placed = *disk->part ? rp_adopt_is_marked(disk->path, disk->mark, err) : 0;
        if (placed < 0 || (placed && !replaces(disk) && hide(disk, err)))
            return -1;
        if (placed && replaces(disk))
            stamps[i] = rp_adopt_stamp(disk->path);
    }
    return 0;
}

// An image that took its place has what the disk has, and is known by its new stamp. The others are announced as what
// nobody wants any more (export_names.c): none goes before the VM is back for good.
static int make_ready(const struct rp_local_vm *vm, const struct disks *disks, char *const *stamps,
                      struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) || rp_db_run(db, err, "INSERT INTO export (definition) VALUES ('')", ""))
        return -1;
    int64_t row = rp_db_last_row(db);
    for (size_t i = 0; i < disks->count; i++) {
        const struct disk *disk = &disks->items[i];
        if (stamps[i] && rp_db_run(db, err, "UPDATE domain_disk SET stamp = ? WHERE vm = ? AND number = ?", "tii",
                                   stamps[i], vm->row, (int64_t)disk->number))
            return -1;
        if (*disk->part && !stamps[i] &&
            rp_db_run(db, err, "INSERT INTO export_name (export, folder, path) VALUES (?, 0, ?)", "it", row,
                      disk->part))
            return -1;
    }
    if (rp_db_run(db, err, "DELETE FROM releasing WHERE vm = ?", "i", vm->row) ||
        rp_db_run(db, err, "UPDATE vm SET state = 'ready' WHERE row = ?", "i", vm->row))
        return -1;
    return rp_transaction_commit(&t, err);
}

// Back to a VM like any other.
static int back_out(const struct rp_local_vm *vm, const struct disks *disks, struct rp_error *err)
{
    char *stamps[RP_ENGINE_MAX_DISKS] = {0};
    int failed = take_back(disks, stamps, err) || make_ready(vm, disks, stamps, err);
    for (size_t i = 0; i < disks->count; i++)
        free(stamps[i]);
    if (failed)
        return -1;
    rp_local_export_recover(vm->local, NULL); // or the next use of the host
    return 0;
}

static int remove_disk(const struct disk *disk, struct rp_error *err)
{
    struct rp_fs_no_links here;
    struct rp_fs *fs = rp_fs_no_links(&here, "/");
    RP_AUTO_FREE char *tracking = rp_rct_path(disk->vhdx), *coarse = rp_xasprintf("%s.mrt", disk->vhdx),
                      *folder = rp_path_directory(disk->vhdx);
    bool there = false; // else nothing can be in it, and it cannot be synced
    if (rp_fs_exists(fs, folder, &there, err))
        return -1;
    return there && (rp_fs_unlink_if_there(fs, tracking, err) || rp_fs_unlink_if_there(fs, coarse, err) ||
                     (*disk->part && rp_fs_unlink_if_there(fs, disk->vhdx, err)) ||
                     rp_fs_sync_parent(fs, disk->vhdx, err))
               ? -1
               : 0;
}

// The VHDX files whose content is elsewhere, and all tracking. No VHDX goes unless the file that has its content was
// just seen.
static int remove_files(const struct rp_local_vm *vm, const struct disks *disks, struct rp_error *err)
{
    if (rp_local_vm_running(vm))
        return rp_fail(err, RP_ERR_BUSY, "VM %s: its disk service runs, and has its disks", vm->id);
    for (size_t i = 0; i < disks->count; i++) {
        const struct disk *disk = &disks->items[i];
        bool there = false;
        if (disk->lost && rp_fs_exists(vm->local->fs, disk->vhdx, &there, err))
            return -1;
        // The domain has it there: not mounted yet. Else its administrator has put it elsewhere since, or does without.
        if (disk->lost && !there && disk->named)
            return wait_for(disk, err);
        if (disk->lost && !there) {
            rp_log(RP_LOG_INFO, "VM %s: disk%u: neither %s nor its disk file is there any more, nor is it missed",
                   vm->id, disk->number, disk->path);
            continue;
        }
        if (disk->lost) {
            rp_log(RP_LOG_WARNING,
                   "VM %s: disk%u: %s stays, because the image that was made of it is not at %s any more", vm->id,
                   disk->number, disk->vhdx, disk->path);
            continue;
        }
        int placed = *disk->part ? rp_adopt_is_marked(disk->path, disk->mark, err) : 1;
        if (placed < 0)
            return -1;
        if (!placed)
            return rp_fail(err, RP_ERR_STATE, "disk%u: %s is not the image that was made for the release: %s stays",
                           disk->number, disk->path, disk->vhdx);
        if (remove_disk(disk, err))
            return rp_context(err, "disk%u", disk->number);
    }
    return 0;
}

int rp_release_finish(const struct rp_local_vm *vm, struct rp_error *why, struct rp_error *err)
{
    RP_CLEANUP(clear) struct disks disks = {0};
    int64_t releasing = 0;
    rp_error_clear(why);
    if (rp_db_number(vm->local->db, err, &releasing, "SELECT count(*) FROM releasing WHERE vm = ?", "i", vm->row))
        return -1;
    if (!releasing)
        return 0;
    int given = load(vm, &disks, err) ? -1 : put_images(vm, &disks, why, err);
    if (given > 0)
        given = give_definition(vm, &disks, why, err);
    if (given < 0)
        return -1;
    if (!given)
        return back_out(vm, &disks, err) ? -1 : 0;
    // libvirt syncs a definition, and not its folder. Were the one of before back after a power cut, and the disk files
    // gone, the domain would have no disk. Nobody says which file system that folder is on: all of them, once in a
    // release.
    sync();
    return remove_files(vm, &disks, err) ? -1 : 1;
}
