// Whether a domain has been adopted is what its definition says: so an adoption that was interrupted is finished or undone.
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "diskservice/record.h"
#include "host/adopt.h"
#include "host/domain_define.h"
#include "rct/rct.h"

// 1, 0; -1: it cannot be read.
static int names_us(const struct rp_local_vm *vm, const char *text, struct rp_error *err)
{
    RP_AUTO_FREE char *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    return rp_domain_xml_parse(text, &xml, err) ? -1 : rp_domain_xml_names(&xml, socket);
}

// One disk is enough: all of them came in one definition, and what was changed of the domain since was changed by its administrator.
int rp_adopt_is_attached(const struct rp_local_vm *vm, bool *running, char **xml, struct rp_error *err)
{
    RP_AUTO_FREE char *kept = NULL, *live = NULL;
    struct rp_error why = {0};
    char uuid[RP_GUID_TEXT];
    enum rp_domain_state state;
    if (xml)
        *xml = NULL;
    *running = false;
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv)
        return -1;
    const struct rp_hypervisor_ops *ops = rp_hypervisor_ops();
    if (ops->find(hv, vm->domain, uuid, &kept, &why) || ops->state(hv, vm->domain, &state, &why))
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    int attached = names_us(vm, kept, err), now = 1; // off: nothing runs on anything else
    if (rp_local_domain_is_live(state))
        now = ops->running_xml(hv, vm->domain, &live, err) ? -1 : names_us(vm, live, err);
    if (attached < 0 || now < 0)
        return -1;
    *running = now;
    if (xml) {
        *xml = kept;
        kept = NULL;
    }
    return attached;
}

// ---- it is not ------------------------------------------------------------------------------------------------------

struct image {
    uint32_t number;
    char *vhdx, *disk_id, *target, *source, *format, *stamp;
};
struct images {
    size_t count;
    struct image items[RP_ENGINE_MAX_DISKS];
};

static void clear(struct images *images)
{
    for (size_t i = 0; i < images->count; i++) {
        char *texts[] = {images->items[i].vhdx, images->items[i].disk_id, images->items[i].target, images->items[i].source,
                         images->items[i].format, images->items[i].stamp};
        for (size_t j = 0; j < sizeof texts / sizeof *texts; j++)
            free(texts[j]);
    }
}

static int load(const struct rp_local_vm *vm, struct images *images, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT d.number, d.path, d.disk_id, m.target, m.source, m.format, m.stamp FROM disk d JOIN domain_disk m ON m.vm = d.vm"
        " AND m.number = d.number WHERE d.vm = ? ORDER BY d.number", "i", vm->row);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(vm->local->db, query, err)) == 1) {
        if (images->count == RP_ENGINE_MAX_DISKS)
            return rp_fail(err, RP_ERR_CORRUPT, "more than %d disks are adopted: somebody wrote to the host's database", RP_ENGINE_MAX_DISKS);
        struct image *image = &images->items[images->count++];
        *image = (struct image){.number = (uint32_t)sqlite3_column_int64(query, 0), .vhdx = rp_xstrdup(rp_db_text(query, 1)),
                                .disk_id = rp_xstrdup(rp_db_text(query, 2)), .target = rp_xstrdup(rp_db_text(query, 3)),
                                .source = rp_xstrdup(rp_db_text(query, 4)), .format = rp_xstrdup(rp_db_text(query, 5)),
                                .stamp = rp_xstrdup(rp_db_text(query, 6))};
    }
    return rc;
}

// The domain's definition as it is, with the images of before. Where it has those already it is defined all the same: what a
// hypervisor has been asked for earlier is done before it, or is seen afterwards.
static int give_back(const struct rp_local_vm *vm, const struct images *images, const char *now, bool attached, struct rp_error *err)
{
    struct rp_release_image disks[RP_ENGINE_MAX_DISKS];
    RP_AUTO_FREE char *after = NULL;
    struct rp_error why = {0};
    bool running;
    for (size_t i = 0; i < images->count; i++)
        disks[i] = (struct rp_release_image){images->items[i].number, images->items[i].target, images->items[i].source,
                                             images->items[i].format};
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv || rp_release_rewrite(vm, now, disks, images->count, &after, err))
        return -1;
    if (rp_hypervisor_ops()->define(hv, after, &why) && (attached || rp_local_domain_may_come(&why)))
        return rp_fail_as(err, &why);
    int again = rp_adopt_is_attached(vm, &running, NULL, err);
    if (again > 0)
        rp_fail(err, RP_ERR_BUSY, "VM %s: its domain has been given the disks of the adoption just now", vm->id);
    return again ? -1 : 0;
}

static bool is_used_in_place(const struct image *image)
{
    return !strcmp(image->vhdx, image->source);
}

// Where the file system of an image is not mounted yet, what was made beside it cannot be seen either. Nobody waits for an image
// that the domain does without by now, or has exchanged.
static int check_mounted(const struct images *images, const char *now, bool attached, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    if (now && rp_domain_xml_parse(now, &xml, err))
        return -1;
    for (size_t i = 0; i < images->count; i++) {
        const struct image *image = &images->items[i];
        const struct rp_domain_xml_disk *disk = now ? rp_domain_xml_disk(&xml, image->target) : NULL;
        const char *missing = access(image->source, F_OK) ? image->source : attached && access(image->vhdx, F_OK) ? image->vhdx : NULL;
        if (disk && missing && (*disk->nbd_socket || (*disk->path == '/' && access(disk->path, F_OK))))
            return rp_fail(err, RP_ERR_NOT_FOUND, "disk%u: %s is not there; is its file system mounted? The domain's adoption is undone"
                           " when it is, or when the domain does without that disk", image->number, missing);
    }
    return 0;
}

// A guest has written to an image since it was read: the new disk lacks that.
static bool has_changed(const struct images *images)
{
    bool changed = false;
    for (size_t i = 0; i < images->count; i++) {
        RP_AUTO_FREE char *stamp = rp_adopt_stamp(images->items[i].source);
        changed |= !is_used_in_place(&images->items[i]) && *images->items[i].stamp && strcmp(stamp, images->items[i].stamp);
    }
    return changed;
}

// Be it a link: nobody but us chooses that name, and where it leads nothing is touched.
static int remove_part(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    struct rp_error why = {0};
    return rp_fs_unlink(fs, path, &why) && why.code != RP_ERR_NOT_FOUND ? rp_fail_as(err, &why) : 0;
}

// A file under the name of a new VHDX is ours when it is that disk; somebody else's stays.
static int remove_whole(struct rp_fs *fs, const struct image *image, struct rp_error *err)
{
    RP_CLEANUP(rp_local_image_clear) struct rp_local_image facts = {0};
    char id[RP_GUID_TEXT];
    struct stat st;
    struct rp_error why = {0};
    if (!lstat(image->vhdx, &st) && !S_ISREG(st.st_mode))
        return 0;
    if (rp_local_image_facts(fs, image->vhdx, &facts, &why))
        return why.code == RP_ERR_NOT_FOUND || why.code == RP_ERR_CORRUPT || why.code == RP_ERR_UNSUPPORTED ? 0 : rp_fail_as(err, &why);
    rp_local_guid_text(&facts.disk_id, id);
    return strcasecmp(id, image->disk_id) ? 0 : rp_fs_unlink_if_there(fs, image->vhdx, err);
}

// The new VHDX files: they are beside the images, not in the VM's folder.
static int remove_files(const struct images *images, struct rp_error *err)
{
    struct rp_fs_no_links here;
    struct rp_fs *fs = rp_fs_no_links(&here, "/");
    for (size_t i = 0; i < images->count; i++) {
        const struct image *image = &images->items[i];
        RP_AUTO_FREE char *folder = rp_path_directory(image->vhdx), *part = rp_adopt_part(image->vhdx, image->disk_id);
        bool there = false; // else nothing can be in it, and it cannot be synced
        if (is_used_in_place(image))
            continue;
        if (rp_fs_exists(fs, folder, &there, err) ||
            (there && (remove_part(fs, part, err) || remove_whole(fs, image, err) || rp_fs_sync_parent(fs, image->vhdx, err))))
            return -1;
    }
    return 0;
}

// A disk service has them, or had: a guest may have written to them, while the definition was one that names it (vm serve).
static int was_served(const struct rp_local_vm *vm, const struct images *images, bool *served, struct rp_error *err)
{
    *served = rp_local_vm_running(vm) || rp_engine_left_behind(vm->local->fs, vm->directory);
    for (size_t i = 0; !*served && i < images->count; i++) {
        RP_AUTO_FREE char *tracking = rp_rct_path(images->items[i].vhdx);
        if (!is_used_in_place(&images->items[i]) && rp_fs_exists(vm->local->fs, tracking, served, err))
            return -1;
    }
    return 0;
}

char *rp_adopt_part(const char *path, const char *disk_id)
{
    RP_AUTO_FREE char *folder = rp_path_directory(path);
    return rp_xasprintf("%s/.%.200s.%.8s.part", folder, rp_path_name(path), disk_id); // a name has 255 bytes at most
}

// ---- or it is -------------------------------------------------------------------------------------------------------

static int make_ready(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) || rp_db_run(db, err, "UPDATE disk SET state = 'ready' WHERE vm = ?", "i", vm->row) ||
        rp_db_run(db, err, "UPDATE vm SET state = 'ready' WHERE row = ?", "i", vm->row))
        return -1;
    return rp_transaction_commit(&t, err);
}

int rp_adopt_settle(const struct rp_local_vm *vm, bool left, struct rp_error *err)
{
    RP_CLEANUP(clear) struct images images = {0};
    RP_AUTO_FREE char *now = NULL, *record = rp_path_join(vm->directory, RP_RECORD_NAME);
    bool running, served, made = false; // the record comes last, before a definition is asked for
    int attached = rp_adopt_is_attached(vm, &running, &now, err);
    if (attached < 0)
        return -1;
    if (load(vm, &images, err) || rp_fs_exists(vm->local->fs, record, &made, err) || was_served(vm, &images, &served, err))
        return -1;
    // Served, and not attached: it was adopted, and its administrator has gone back by hand. No disk of his goes.
    if (made && served && (running || !attached))
        return make_ready(vm, err) ? -1 : 1;
    if (attached && running && !has_changed(&images))
        return make_ready(vm, err) ? -1 : 1;
    if (check_mounted(&images, now, attached, err))
        return -1;
    // Attached: started on its old disks between the last look and the new definition, it goes on with those, perhaps later on.
    if (now && (attached || (left && made)) && give_back(vm, &images, now, attached, err))
        return -1;
    return remove_files(&images, err) ? -1 : 0;
}
