// The export reader: the host copies the frozen disks into a folder that both sides see, whole ones, or differencing
// disks that hold what changed since a reference point. Those are read together with what the repository has of the
// base.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backup/export.h"
#include "backup/reader_files.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/num.h"

struct made { // one export, of some of the disks
    bool changes;
    const struct rp_plan_disk **disks;
    size_t disk_count;
    struct rp_export_files files;
};
struct export_source {
    struct rp_source source;
    struct rp_source_job job;
    struct rp_export_folder folder; // of this backup, with a folder for each export in it
    struct rp_fs *fs;               // that they are read through
    struct rp_fs *own_fs;
    struct made *made;
    size_t made_count;
    struct rp_point kept;           // files: the configuration
    bool has_configuration;
};
struct export_reader {
    struct rp_reader reader;
    struct export_source *source;
    const struct rp_plan_disk *plan;
    struct rp_reader *whole;        // of the two, one
    struct rp_vhdx *difference;
    char *whole_path;               // when changes were asked for, and the host gave all of it
    struct rp_repo_root base;       // below the difference
};

static struct export_reader *of(struct rp_reader *reader) { return (struct export_reader *)reader; }

// ---- exports --------------------------------------------------------------------------------------------------------

static int on_progress(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return rp_work_stopped(context);
}

// A host that is at it must not go on writing into a folder that is about to be removed.
static int run(struct export_source *source, const struct rp_export *what, struct rp_error *err)
{
    struct rp_host_connection *host = source->job.host;
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    struct rp_error why = {0};
    int (*progress)(void *, uint64_t, uint64_t) = host->progress;
    void *context = host->progress_context;
    host->progress = on_progress;
    host->progress_context = source->job.work;
    int failed = host->ops->export_system(host, what, work, result, &why) ||
                 rp_work_make(source->job.work, "the export", work, result, &why);
    host->progress = progress;
    host->progress_context = context;
    return failed ? rp_fail(err, why.code, "export to %s: %s", what->folder, why.text) : 0;
}

static int prepare_folder(struct export_source *source, struct rp_error *err)
{
    const struct rp_source_job *job = &source->job;
    if (source->folder.local)
        return 0;
    if (rp_export_folder_make(job->host, job->export_folder, job->repository, job->vm->id, job->job, &source->folder,
                              err))
        return -1;
    // What is in a share is read like a share.
    bool mapped = rp_path_map_knows(job->host->paths, job->export_folder);
    source->own_fs = mapped ? rp_reader_share_fs(job->host) : NULL;
    source->fs = mapped ? source->own_fs : rp_fs_posix();
    return 0;
}

static void keep_configuration(struct export_source *source, const char *local)
{
    struct rp_error err = {0};
    if (source->has_configuration)
        return;
    source->has_configuration = true;
    int result = rp_export_configuration(local, source->fs, &source->kept, &err);
    if (result)
        rp_log(RP_LOG_WARNING, "the configuration in the export is not kept: %s",
               result > 0 ? "it is too large" : err.text);
}

static bool contains(const struct made *made, const struct rp_plan_disk *disk)
{
    for (size_t i = 0; i < made->disk_count; i++)
        if (made->disks[i] == disk)
            return true;
    return false;
}

static bool is_made(const struct export_source *source, bool changes, const struct rp_plan_disk *disk)
{
    for (size_t i = 0; i < source->made_count; i++)
        if (source->made[i].changes == changes && contains(&source->made[i], disk))
            return true;
    return false;
}

// Exports the disk, and with it all others that are to be read in the same way.
static int make(struct export_source *source, const struct rp_plan_disk *disk, bool changes, struct rp_error *err)
{
    const struct rp_plan *plan = source->job.plan;
    if (prepare_folder(source, err))
        return -1;
    RP_AUTO_FREE const char **excluded = rp_xcalloc(plan->count, sizeof *excluded);
    struct made made = {.changes = changes, .disks = rp_xcalloc(plan->count, sizeof *made.disks)};
    size_t excluded_count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_plan_disk *other = &plan->disks[i];
        if (other == disk || ((other->base != NULL) == changes && !is_made(source, changes, other)))
            made.disks[made.disk_count++] = other;
        else
            excluded[excluded_count++] = other->disk->instance;
    }
    RP_AUTO_FREE char *name = rp_xasprintf("%zu", source->made_count + 1);
    RP_AUTO_FREE char *host_folder = rp_path_map_join(source->folder.host, name);
    RP_AUTO_FREE char *local = rp_path_join(source->folder.local, name);
    struct rp_export what = {
        .vm_id = source->job.vm->id,
        .snapshot_id = source->job.snapshot_id,
        .base_point_id = changes ? source->job.reference->id : NULL,
        .folder = host_folder,
        .storage = true,
        .excluded = excluded_count ? excluded : NULL,
        .excluded_count = excluded_count,
    };
    // Another name for each try: a host may still be busy with the one before.
    source->made = rp_xrealloc(source->made, (source->made_count + 1) * sizeof *source->made);
    struct made *kept = &source->made[source->made_count++];
    *kept = (struct made){.changes = changes, .disks = made.disks};
    if (mkdir(local, 0770))
        return rp_fail_sys(err, errno, "%s", local);
    if (run(source, &what, err))
        return -1;
    keep_configuration(source, local);
    if (rp_export_list(local, source->fs, &kept->files, err))
        return rp_context(err, "what the host exported to %s", host_folder);
    kept->disk_count = made.disk_count;
    return 0;
}

// The exported file of the disk.
static int get_file(struct export_source *source, const struct rp_plan_disk *disk, bool changes,
                    const struct rp_export_files **files, const struct rp_export_file **file, struct rp_error *err)
{
    if (!is_made(source, changes, disk) && make(source, disk, changes, err))
        return -1;
    for (size_t i = 0; i < source->made_count; i++) {
        const struct made *made = &source->made[i];
        if (made->changes != changes || !contains(made, disk))
            continue;
        *files = &made->files;
        return rp_export_find(&made->files, disk->disk, file, err);
    }
    return rp_fail(err, RP_ERR_STATE, "disk %u was not exported", disk->disk->number);
}

// ---- a whole disk ---------------------------------------------------------------------------------------------------

static int open_whole(struct export_reader *reader, struct rp_error *err)
{
    const struct rp_export_files *files;
    const struct rp_export_file *file;
    struct export_source *source = reader->source;
    if (!reader->whole_path) {
        if (get_file(source, reader->plan, false, &files, &file, err))
            return -1;
        reader->whole_path = rp_xstrdup(file->path);
        reader->reader.data_write_guid = file->data_write_guid;
    }
    reader->whole = rp_reader_virtual_disk_at(source->job.host, reader->plan->disk, source->fs, reader->whole_path,
                                              rp_reader_name(RP_READER_EXPORT), NULL, err);
    return reader->whole ? 0 : rp_context(err, "exported disk");
}

static int whole(struct rp_reader *reader, struct rp_error *err)
{
    rp_vhdx_abandon(of(reader)->difference);
    of(reader)->difference = NULL;
    return of(reader)->whole ? 0 : open_whole(of(reader), err);
}

// ---- a differencing disk --------------------------------------------------------------------------------------------

static int open_difference(struct export_reader *reader, struct rp_error *err)
{
    const struct rp_export_files *files;
    const struct rp_export_file *file;
    struct export_source *source = reader->source;
    if (!source->job.reference)
        return rp_fail(err, RP_ERR_TRACKING_ID, "there is no reference point to export the changes since");
    if (get_file(source, reader->plan, true, &files, &file, err))
        return -1;
    if (!file->parent) {
        reader->whole_path = rp_xstrdup(file->path);
        reader->reader.data_write_guid = file->data_write_guid;
        return rp_fail(err, RP_ERR_TRACKING_ID, "the host exported the whole disk, not its changes");
    }
    for (size_t i = 0; i < files->count; i++)
        if (!strcmp(files->items[i].path, file->parent))
            return rp_fail(err, RP_ERR_UNSUPPORTED,
                           "the host exported a chain of differencing disks, not one with the changes");
    reader->difference = rp_vhdx_open(source->fs, file->path, RP_VHDX_READ, NULL, err);
    if (!reader->difference)
        return -1;
    reader->reader.data_write_guid = file->data_write_guid;
    return rp_reader_check_file(reader->plan->disk, file->path, rp_vhdx_info(reader->difference), err);
}

static int add_changed(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state != RP_VHDX_IN_PARENT)
        rp_ranges_add(context, offset, length);
    return 0;
}

static int changed(struct rp_reader *reader, const char *rct_id, struct rp_ranges *ranges, struct rp_error *err)
{
    struct rp_error why = {0};
    (void)rct_id; // the reference point's, which the host knows itself
    if (!open_difference(of(reader), &why) &&
        !rp_vhdx_extents(of(reader)->difference, 0, reader->size, add_changed, ranges, &why))
        return 0;
    // Whatever kept the host from exporting changes may not keep it from exporting all.
    bool final = why.code == RP_ERR_NO_SPACE || why.code == RP_ERR_CANCELLED || why.code == RP_ERR_PERMISSION;
    return rp_fail(err, final ? why.code : RP_ERR_TRACKING_ID, "%s", why.text);
}

// What is not in the difference may be in the base. Only the rest of a block that changed in part is ever asked for.
static int add_allocated(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state == RP_VHDX_DATA || state == RP_VHDX_IN_PARENT)
        rp_ranges_add(context, offset, length);
    return 0;
}

static int allocated(struct rp_reader *reader, uint64_t offset, uint64_t length, struct rp_ranges *ranges,
                     struct rp_error *err)
{
    if (of(reader)->whole)
        return of(reader)->whole->ops->allocated(of(reader)->whole, offset, length, ranges, err);
    return rp_vhdx_extents(of(reader)->difference, offset, length, add_allocated, ranges, err);
}

struct reading {
    struct export_reader *reader;
    uint8_t *data;
    uint64_t offset;
    struct rp_error *err;
};

static int read_piece(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    struct reading *reading = context;
    struct export_reader *reader = reading->reader;
    uint8_t *to = reading->data + (offset - reading->offset);
    if (state == RP_VHDX_DATA)
        return rp_vhdx_read(reader->difference, to, (uint32_t)length, offset, reading->err);
    uint64_t size = state == RP_VHDX_IN_PARENT ? reader->base.size : 0;
    uint64_t inside = offset < size ? rp_min64(length, size - offset) : 0;
    memset(to + inside, 0, length - inside);
    return inside ? rp_repo_read(reader->source->job.repo, &reader->base, offset, to, inside, reading->err) : 0;
}

static int read_data(struct rp_reader *reader, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    if (of(reader)->whole)
        return of(reader)->whole->ops->read(of(reader)->whole, data, size, offset, err);
    struct reading reading = {of(reader), data, offset, err};
    return rp_vhdx_extents(of(reader)->difference, offset, size, read_piece, &reading, err);
}

// ---- the reader and its source --------------------------------------------------------------------------------------

static void drop_cache(struct rp_reader *reader)
{
    if (of(reader)->whole)
        of(reader)->whole->ops->drop_cache(of(reader)->whole);
}

static void close_reader(struct rp_reader *reader)
{
    rp_reader_close(of(reader)->whole);
    rp_vhdx_abandon(of(reader)->difference);
    free(of(reader)->whole_path);
    free(reader);
}

static struct rp_reader *open_disk(struct rp_source *source, const struct rp_plan_disk *disk, struct rp_error *err)
{
    static const struct rp_reader_ops ops = {
        .allocated = allocated,
        .changed = changed,
        .whole = whole,
        .read = read_data,
        .drop_cache = drop_cache,
        .close = close_reader,
    };
    struct export_reader *reader = rp_xcalloc(1, sizeof *reader);
    *reader = (struct export_reader){
        .reader = {.ops = &ops, .name = rp_reader_name(RP_READER_EXPORT), .size = disk->disk->size,
                   .logical_sector = disk->disk->logical_sector, .physical_sector = disk->disk->physical_sector},
        .source = (struct export_source *)source,
        .plan = disk,
    };
    if (disk->base)
        reader->base = disk->base->root;
    else if (open_whole(reader, err)) {
        close_reader(&reader->reader);
        return NULL;
    }
    return &reader->reader;
}

static int describe(struct rp_source *base, struct rp_point *point, struct rp_error *err)
{
    struct export_source *source = (struct export_source *)base;
    (void)err;
    rp_point_clear_files(point);
    point->files = source->kept.files;
    point->file_count = source->kept.file_count;
    source->kept = (struct rp_point){0};
    return 0;
}

static int close_source(struct rp_source *base, struct rp_error *err)
{
    struct export_source *source = (struct export_source *)base;
    for (size_t i = 0; i < source->made_count; i++) {
        rp_export_files_clear(&source->made[i].files);
        free(source->made[i].disks);
    }
    free(source->made);
    rp_point_clear(&source->kept);
    int result = rp_export_folder_remove(&source->folder, err);
    rp_export_folder_clear(&source->folder);
    free(source->own_fs);
    free(source);
    return result;
}

struct rp_source *rp_source_export(const struct rp_source_job *job)
{
    static const struct rp_source_ops ops = {.open = open_disk, .describe = describe, .close = close_source};
    struct export_source *source = rp_xcalloc(1, sizeof *source);
    source->source.ops = &ops;
    source->job = *job;
    return &source->source;
}
