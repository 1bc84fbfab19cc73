// Opening: is the disk as the tracking file left it? And new files: for a disk, for a child.
#include <string.h>

#include "base/log.h"
#include "rct/tracker.h"

static bool one_of(const struct rp_guid *guid, const struct rp_guid *a, const struct rp_guid *b)
{
    return rp_guid_equal(guid, a) || rp_guid_equal(guid, b);
}

// The device is left out: its number may differ after a reboot, and the rest tells a copy.
static bool same_identity(const struct rp_store_identity *a, const struct rp_store_identity *b)
{
    return a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

enum rp_rct_verdict rp_rct_judge(const struct rp_rct_header *h, const struct rp_rct_disk *disk)
{
    const struct rp_rct_disk *bound = &h->bound;
    if (h->clean)
        return rp_guid_equal(&disk->file_write_guid, &bound->file_write_guid) &&
                       rp_guid_equal(&disk->data_write_guid, &bound->data_write_guid) &&
                       disk->virtual_size == h->virtual_size && same_identity(&disk->identity, &bound->identity)
                   ? RP_RCT_CLEAN
                   : RP_RCT_FOREIGN;
    // The times of a session that did not end are not known. Its file is: a copy that was put back has another inode.
    return one_of(&disk->file_write_guid, &bound->file_write_guid, &h->session.file_write_guid) &&
                   one_of(&disk->data_write_guid, &bound->data_write_guid, &h->session.data_write_guid) &&
                   disk->identity.inode == bound->identity.inode && disk->virtual_size <= h->virtual_size
               ? RP_RCT_UNCLEAN
               : RP_RCT_FOREIGN;
}

// Whether what the file knows is about this disk and can be built on.
static bool can_continue(const struct rp_rct_header *h, const struct rp_rct_disk *disk, enum rp_rct_verdict verdict)
{
    if (!rp_guid_equal(&h->disk_id, &disk->disk_id) || h->epoch >= RP_RCT_EPOCH_LIMIT)
        return false;
    return verdict != RP_RCT_FOREIGN || disk->virtual_size >= h->virtual_size;
}

// Tracking starts now, no id is known.
static void start_anew(struct rp_rct *rct, const struct rp_rct_disk *disk)
{
    rct->header = (struct rp_rct_header){
        .virtual_size = disk->virtual_size,
        .unit_size = rp_rct_unit_size_for(disk->virtual_size),
        .disk_id = disk->disk_id,
        .tracking = rp_guid_new(),
        .first = 1,
        .epoch = 1,
    };
    rct->keep = rct->header.tracking;
    rp_rct_adopt_header(rct);
    rp_rct_forget_pages(rct);
}

// The file's tracking GUID joins the lineage, a new one takes over in the same epoch.
static void new_guid(struct rp_rct *rct, enum rp_rct_verdict verdict)
{
    struct rp_rct_header *h = &rct->header;
    if (h->epoch > h->first)
        rp_rct_lineage_add(h, &(struct rp_rct_span){h->tracking, h->first, h->epoch - 1});
    h->tracking = rp_guid_new();
    h->first = h->epoch;
    if (verdict == RP_RCT_FOREIGN)
        rct->keep = h->tracking;
}

static void bind(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct rp_vhdx_session *session)
{
    rct->header.bound = *disk;
    rct->header.session = *session;
}

int rp_rct_not_ours(struct rp_rct *rct, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_TRACKING_OFF, "%s: not a tracking file of ours, left alone: no change tracking",
                   rct->path);
}

int rp_rct_open_existing(struct rp_rct *rct, enum rp_rct_found *found, struct rp_error *err)
{
    bool exists;
    if (rp_fs_exists(rct->fs, rct->path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    rct->store = rp_fs_open(rct->fs, rct->path, RP_OPEN_WRITE, err);
    if (!rct->store || rp_store_lock(rct->store, true, err) || rp_rct_read_slots(rct, found, err))
        return -1;
    if (*found == RP_RCT_FOUND_NOT_OURS)
        return rp_rct_not_ours(rct, err);
    rct->writable = true;
    return rp_rct_take_file(rct, err);
}

int rp_rct_begin_coarse(struct rp_rct *rct, struct rp_rct_coarse *like, struct rp_error *err)
{
    bool begun;
    if (rp_rct_coarse_start(&rct->coarse, atomic_load(&rct->virtual_size), like, &begun, err))
        return -1;
    rct->header.coarse = rct->coarse.header.name;
    rct->header.doubt = begun ? RP_RCT_DOUBT_REGIONS : RP_RCT_DOUBT_ALL;
    return 0;
}

// What stands in a file of ours, brought to what is known about the disk as it is now. *usable false: nothing to go on with.
static int examine(struct rp_rct *rct, const struct rp_rct_disk *disk, bool *usable, enum rp_rct_verdict *verdict,
                   struct rp_error *err)
{
    enum rp_rct_found found;
    *usable = false;
    if (rp_rct_open_existing(rct, &found, err))
        return -1;
    *verdict = !rct->store ? RP_RCT_NEW : found == RP_RCT_FOUND ? rp_rct_judge(&rct->header, disk) : RP_RCT_FOREIGN;
    if (!rct->store || found != RP_RCT_FOUND)
        return 0;
    if (!can_continue(&rct->header, disk, *verdict)) {
        rp_log(RP_LOG_WARNING, "%s: is not of this disk as it is now: tracking starts anew", rct->path);
        *verdict = RP_RCT_FOREIGN;
        return 0;
    }
    if (*verdict == RP_RCT_FOREIGN)
        rp_log(RP_LOG_WARNING, "%s: the disk is not as it was left (changed by another program, put back or copied): all of it counts as "
                               "changed", rct->path);
    *usable = true;
    rct->keep = rct->header.stem;
    if (*verdict == RP_RCT_FOREIGN) {
        rp_rct_change_all(rct, disk->virtual_size);
        return 0;
    }
    return *verdict == RP_RCT_UNCLEAN ? rp_rct_recall(rct, disk, err) : 0;
}

// What was recalled is made durable under the old session's GUIDs before its .mrt goes.
static int keep_recalled(struct rp_rct *rct, struct rp_error *err)
{
    if (rct->header.doubt == RP_RCT_DOUBT_NONE)
        return 0;
    if (rp_rct_write_pages(rct, err))
        return -1;
    rct->header.doubt = RP_RCT_DOUBT_NONE;
    return rp_rct_write_header(rct, false, err);
}

static int begin(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct rp_vhdx_session *session,
                 enum rp_rct_verdict *verdict, struct rp_error *err)
{
    bool usable;
    if (examine(rct, disk, &usable, verdict, err))
        return -1;
    if (usable && !rp_guid_is_zero(&rct->header.merging)) {
        // Without the child that hides what has arrived.
        rp_rct_change_all(rct, disk->virtual_size);
        *verdict = *verdict == RP_RCT_CLEAN ? RP_RCT_UNCLEAN : *verdict;
    }
    if (usable && *verdict == RP_RCT_UNCLEAN && keep_recalled(rct, err))
        return -1;
    if (usable)
        new_guid(rct, *verdict);
    else
        start_anew(rct, disk);
    rct->live = true;
    bind(rct, disk, session);
    if (rp_rct_begin_coarse(rct, NULL, err))
        return -1;
    return usable ? rp_rct_write_header(rct, false, err) : rp_rct_create_file(rct, err);
}

struct rp_rct *rp_rct_open_write(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                                 const struct rp_vhdx_session *session, enum rp_rct_verdict *verdict,
                                 struct rp_error *err)
{
    struct rp_rct *rct = rp_rct_new(fs, disk_path);
    enum rp_rct_verdict ignored;
    if (!begin(rct, disk, session, verdict ? verdict : &ignored, err))
        return rct;
    rp_rct_abandon(rct);
    return NULL;
}

// No GUID is new, unless the disk is foreign: nobody will seal anything under it, and a child or parent may know it by that.
static int recover(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    bool usable;
    enum rp_rct_verdict verdict;
    if (examine(rct, disk, &usable, &verdict, err))
        return -1;
    if (!usable)
        return rp_fail(err, RP_ERR_TRACKING_OFF, "%s: %s", rct->path, !rct->store ? "no tracking file" : "of no use");
    if (verdict == RP_RCT_FOREIGN)
        new_guid(rct, verdict);
    if (verdict != RP_RCT_CLEAN) {
        rct->header.clean = false;
        if (rp_rct_settle(rct, disk, err))
            return -1;
    }
    return rp_store_lock(rct->store, false, err);
}

struct rp_rct *rp_rct_recover(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                              struct rp_error *err)
{
    struct rp_rct *rct = rp_rct_new(fs, disk_path);
    if (!recover(rct, disk, err))
        return rct;
    rp_rct_abandon(rct);
    return NULL;
}

struct rp_rct *rp_rct_open_read(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                                struct rp_error *err)
{
    RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *rct = rp_rct_new(fs, disk_path);
    enum rp_rct_found found;
    bool exists;
    if (rp_fs_exists(fs, rct->path, &exists, err))
        return NULL;
    if (!exists) {
        rp_fail(err, RP_ERR_TRACKING_OFF, "%s: no tracking file", rct->path);
        return NULL;
    }
    rct->store = rp_fs_open(fs, rct->path, RP_OPEN_READ, err);
    if (!rct->store || rp_store_lock(rct->store, false, err) || rp_rct_read_slots(rct, &found, err))
        return NULL;
    if (found == RP_RCT_FOUND_NOT_OURS)
        rp_rct_not_ours(rct, err);
    else if (found == RP_RCT_FOUND_DAMAGED)
        rp_fail(err, RP_ERR_TRACKING_OFF, "%s: damaged", rct->path);
    else if (!rct->header.clean)
        rp_fail(err, RP_ERR_TRACKING_OFF, "%s: in use, or its last session did not end", rct->path);
    else if (!rp_guid_equal(&rct->header.disk_id, &disk->disk_id) || rp_rct_judge(&rct->header, disk) != RP_RCT_CLEAN)
        rp_fail(err, RP_ERR_TRACKING_OFF, "%s: the disk was changed without its tracking", rct->path);
    else {
        struct rp_rct *opened = rct;
        opened->keep = opened->header.stem;
        rct = NULL;
        return opened;
    }
    return NULL;
}

// As a session that knows the id from its lineage, and ends before it marks anything.
static int begin_at(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct rp_rct_id *id, struct rp_error *err)
{
    const struct rp_vhdx_session unchanged = {disk->file_write_guid, disk->data_write_guid};
    bool exists;
    if (rp_fs_exists(rct->fs, rct->path, &exists, err))
        return -1;
    if (exists)
        return rp_fail(err, RP_ERR_EXISTS, "%s: is there already", rct->path);
    if (!id->epoch || id->epoch >= RP_RCT_EPOCH_LIMIT - 1)
        return rp_fail(err, RP_ERR_TRACKING_OFF, "%s: tracking cannot go on from epoch %u", rct->path, id->epoch);
    start_anew(rct, disk);
    rp_rct_lineage_add(&rct->header, &(struct rp_rct_span){id->tracking, id->epoch, id->epoch});
    rct->header.first = rct->header.epoch = id->epoch + 1;
    rp_rct_adopt_header(rct);
    rct->live = true;
    bind(rct, disk, &unchanged);
    return rp_rct_begin_coarse(rct, NULL, err) || rp_rct_create_file(rct, err) ? -1 : 0;
}

int rp_rct_begin_at(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk, const struct rp_rct_id *id,
                    struct rp_error *err)
{
    struct rp_rct *rct = rp_rct_new(fs, disk_path);
    if (!begin_at(rct, disk, id, err))
        return rp_rct_close(rct, disk, err);
    rp_rct_abandon(rct);
    return -1;
}

int rp_rct_remove(struct rp_fs *fs, const char *disk_path, struct rp_error *err)
{
    RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *rct = rp_rct_new(fs, disk_path);
    enum rp_rct_found found;
    bool exists;
    if (rp_rct_coarse_remove(&rct->coarse, err) || rp_fs_exists(fs, rct->path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    rct->store = rp_fs_open(fs, rct->path, RP_OPEN_READ, err);
    if (!rct->store || rp_rct_read_slots(rct, &found, err))
        return -1;
    return found == RP_RCT_FOUND_NOT_OURS ? 0 : rp_fs_unlink(fs, rct->path, err);
}

// The header of a child; the parent's lock is held.
static void inherit(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk)
{
    struct rp_rct_header *h = &child->header;
    uint32_t epoch = atomic_load(&parent->state->epoch);
    uint64_t parent_size = atomic_load(&parent->virtual_size);
    *h = parent->header;
    h->virtual_size = disk->virtual_size;
    h->floor_count = 0;
    h->base[0] = parent->keep;
    h->base[1] = parent->header.tracking;
    h->base[2] = h->base[3] = h->merging = (struct rp_guid){{0}};
    if (!parent->live) {
        // A second branch above a frozen file: it must not seal ids that the first one may have sealed.
        if (epoch > h->first)
            rp_rct_lineage_add(h, &(struct rp_rct_span){h->tracking, h->first, epoch - 1});
        h->tracking = rp_guid_new();
        h->first = epoch + 1;
    }
    h->epoch = epoch + 1;
    h->changed = disk->virtual_size > parent_size;
    if (h->changed)
        rp_rct_floors_add(h, parent_size / h->unit_size, h->epoch);
    child->keep = h->tracking;
    child->live = true;
    rp_rct_adopt_header(child);
    rp_rct_forget_pages(child);
}

static int create_child(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                        const struct rp_vhdx_session *session, struct rp_error *err)
{
    // A file of ours here belonged to an earlier disk of that name, or to an attempt that was given up.
    enum rp_rct_found found;
    if (rp_rct_open_existing(child, &found, err))
        return -1;
    rp_rct_enter(parent);
    inherit(child, parent, disk);
    rp_rct_leave(parent);
    if (child->header.epoch >= RP_RCT_EPOCH_LIMIT)
        return rp_fail(err, RP_ERR_TRACKING_OFF, "%s: out of epochs: close the disk and open it again", parent->path);
    bind(child, disk, session);
    if (rp_rct_begin_coarse(child, &parent->coarse, err))
        return -1;
    return rp_rct_create_file(child, err);
}

struct rp_rct *rp_rct_prepare_child(struct rp_rct *parent, const char *child_path, const struct rp_rct_disk *child_disk,
                                    const struct rp_vhdx_session *session, struct rp_error *err)
{
    struct rp_rct *child = rp_rct_new(parent->fs, child_path);
    if (!create_child(child, parent, child_disk, session, err))
        return child;
    rp_rct_abandon(child);
    return NULL;
}
