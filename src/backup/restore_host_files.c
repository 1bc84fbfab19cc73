// The files of a VM that is restored to a host: its disks, and its exported configuration.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/restore_host_impl.h"
#include "base/buf.h"
#include "wsman/base64.h"

#define MACHINES "Virtual Machines"

bool rp_restore_host_is_definition(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && !strcasecmp(dot, ".vmcx");
}

static int make_folder(struct rp_restore_host_job *job, const char *path, struct rp_error *err)
{
    struct stat st;
    if (!mkdir(path, 0770)) {
        job->made[job->made_count++] = rp_xstrdup(path);
        return rp_fs_sync_parent(rp_fs_posix(), path, err);
    }
    int sys = errno;
    if (sys == EEXIST && !lstat(path, &st) && S_ISDIR(st.st_mode))
        return 0;
    return rp_fail_sys(err, sys, "%s", path);
}

// In a folder that a group shares (setgid), the host's service may be of that group.
static void share(const struct rp_restore_host_job *job, const char *path)
{
    struct stat st;
    if (!stat(job->local, &st) && (st.st_mode & S_ISGID) && (st.st_mode & S_IWGRP))
        chmod(path, 0660);
}

int rp_restore_host_write_disks(struct rp_restore_host_job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *folder = rp_path_join(job->local, RP_RESTORE_HOST_DISKS);
    struct rp_restore_options options = {
        .directory = folder,
        .format = RP_IMAGE_VHDX,
        .disk = -1,
        .same_content = job->options->identity == RP_IDENTITY_KEEP,
        .threads = job->options->threads,
        .rate = job->options->rate,
        .progress = job->options->progress,
        .context = job->options->progress_context,
    };
    if (make_folder(job, job->local, err) || make_folder(job, folder, err) ||
        rp_restore_run(job->repo, job->point, &options, &job->result->files, err))
        return -1;
    RP_AUTO_FREE char *on_host = rp_path_map_join(job->result->folder, RP_RESTORE_HOST_DISKS);
    job->disks = rp_xcalloc(job->result->files.count + 1, sizeof *job->disks);
    for (size_t i = 0; i < job->result->files.count; i++) {
        share(job, job->result->files.files[i].path);
        job->disks[i] = rp_path_map_join(on_host, rp_path_name(job->result->files.files[i].path));
    }
    return 0;
}

// A repository is not trusted to name files anywhere.
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && strlen(name) < 128 && !strpbrk(name, "/\\:");
}

static int write_configuration(struct rp_restore_host_job *job, const struct rp_point_file *file, const char *folder,
                               struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0};
    if (!is_plain_name(file->name))
        return rp_fail(err, RP_ERR_CORRUPT, "the restore point has a configuration file of the name \"%.64s\"",
                       file->name);
    if (job->written_count == sizeof job->written / sizeof *job->written)
        return rp_fail(err, RP_ERR_CORRUPT, "the restore point has too many configuration files");
    if (rp_base64_decode(file->data, strlen(file->data), &content, err))
        return rp_context(err, "%s", file->name);
    char *path = rp_path_join(folder, file->name);
    struct rp_store *store = rp_fs_open(rp_fs_posix(), path, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store) {
        free(path);
        return -1;
    }
    job->written[job->written_count++] = path;
    int failed = rp_store_pwrite(store, content.data, content.size, 0, err) || rp_store_flush(store, err);
    rp_store_close(store);
    share(job, path);
    return failed ? -1 : 0;
}

int rp_restore_host_write_configurations(struct rp_restore_host_job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *folder = rp_path_join(job->local, MACHINES);
    RP_AUTO_FREE char *on_host = rp_path_map_join(job->result->folder, MACHINES);
    for (size_t i = 0; i < job->point->file_count; i++) {
        const struct rp_point_file *file = &job->point->files[i];
        if ((!i && make_folder(job, folder, err)) || write_configuration(job, file, folder, err))
            return -1;
        if (rp_restore_host_is_definition(file->name) && !job->definition)
            job->definition = rp_path_map_join(on_host, file->name);
    }
    return job->written_count ? rp_fs_sync_parent(rp_fs_posix(), job->written[0], err) : 0;
}

void rp_restore_host_remove_files(struct rp_restore_host_job *job)
{
    for (size_t i = 0; i < job->result->files.count; i++)
        unlink(job->result->files.files[i].path);
    for (size_t i = 0; i < job->written_count; i++)
        unlink(job->written[i]);
    for (size_t i = job->made_count; i-- > 0;)
        rmdir(job->made[i]);
}
