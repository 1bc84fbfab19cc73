// The in-process host connection: opening, closing, and which function is which verb.
#include "host/local.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/utf16.h"
#include "host/internal.h"

static int job_state(struct rp_host_connection *host, const char *job, struct rp_job_state *state, struct rp_error *err)
{
    (void)state;
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no job %s: here every method ends before it returns", host->address, job);
}

static int cancel_job(struct rp_host_connection *host, const char *job, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no job %s: here a method is stopped by its connection's progress", host->address, job);
}

static void close_connection(struct rp_host_connection *host)
{
    struct rp_local *local = rp_local_of(host);
    rp_db_close(local->db);
    if (local->lock_fd >= 0)
        close(local->lock_fd);
    free(local->directory);
    free(local->next_extras);
    free(local->host.address);
    free(local);
}

static const struct rp_host_ops ops = {
    .list_vms = rp_local_vm_list,
    .find_vm = rp_local_vm_find,
    .vm_settings = rp_local_settings_vm,
    .define_system = rp_local_system_define,
    .destroy_system = rp_local_system_destroy,
    .request_state = rp_local_system_state,
    .add_disk = rp_local_disk_add,
    .remove_disk = rp_local_disk_remove,
    .resize_disk = rp_local_disk_resize,
    .create_snapshot = rp_local_snapshot_create,
    .list_snapshots = rp_local_snapshot_list,
    .snapshot_settings = rp_local_settings_snapshot,
    .destroy_snapshot = rp_local_merge_destroy,
    .convert_to_reference_point = rp_local_merge_convert,
    .list_reference_points = rp_local_point_list,
    .destroy_reference_point = rp_local_point_destroy,
    .disk_changes = rp_local_point_changes,
    .inventory = rp_local_inventory,
    .rename = rp_local_name_change,
    .apply_snapshot = rp_local_apply_snapshot,
    .create_reference_point = rp_local_snapshot_create_point,
    .export_system = rp_local_export_system,
    .import_system = rp_local_planned_import,
    .plan_system = rp_local_planned_define,
    .modify_disk = rp_local_planned_modify_disk,
    .validate_planned = rp_local_planned_validate,
    .realize_planned = rp_local_planned_realize,
    .import_reference_point = rp_local_point_import,
    .list_planned = rp_local_planned_list,
    .console_keep = rp_local_console_keep,
    .console_read = rp_local_console_read,
    .job_state = job_state,
    .cancel_job = cancel_job,
    .close = close_connection,
};

void rp_host_local_next_id(struct rp_host_connection *host, const char *guid)
{
    struct rp_guid id;
    struct rp_local *local = rp_local_of(host);
    local->next_id[0] = '\0';
    if (!rp_guid_parse(guid, &id, NULL))
        rp_local_guid_text(&id, local->next_id);
}

void rp_host_local_set_judge(struct rp_host_connection *host, rp_host_local_judge_fn *judge, void *context)
{
    struct rp_local *local = rp_local_of(host);
    local->judge = judge;
    local->judge_context = context;
}

int rp_host_local_version(struct rp_host_connection *host, uint64_t *version, struct rp_error *err)
{
    return rp_db_version(rp_local_of(host)->db, version, err);
}

// mkdir -p: an absent /var/lib/refpoint is normal on the first day. Each new name is made durable.
static int make_directory(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    struct stat st;
    if (!stat(directory, &st))
        return S_ISDIR(st.st_mode) ? 0 : rp_fail(err, RP_ERR_INVALID, "%s: not a folder", directory);
    if (errno != ENOENT)
        return rp_fail_sys(err, errno, "%s", directory);
    RP_AUTO_FREE char *parent = rp_path_directory(directory);
    if (strcmp(parent, directory) && make_directory(fs, parent, err))
        return -1;
    if (mkdir(directory, 0700) && errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: create", directory);
    return rp_fs_sync_parent(fs, directory, err);
}

#define DATABASE "host.db"

bool rp_host_local_exists(const char *directory)
{
    RP_AUTO_FREE char *db = rp_path_join(directory, DATABASE);
    return !access(db, F_OK);
}

static int open_directory(struct rp_local *local, const char *directory, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (!*directory)
        return rp_fail(err, RP_ERR_INVALID, "local: names no folder; write local:DIR");
    if (make_directory(local->fs, directory, err))
        return -1;
    local->directory = realpath(directory, NULL);
    if (!local->directory)
        return rp_fail_sys(err, errno, "%s", directory);
    if (rp_utf16_append(&utf16, local->directory, NULL))
        return rp_fail(err, RP_ERR_INVALID, "%s: the path is not valid UTF-8", directory);
    // A unix socket's path has a fixed size (unix(7)), and sockets are in DIR/vms/<GUID>.
    struct sockaddr_un address;
    size_t most = sizeof address.sun_path - 1 - strlen("/vms//" RP_CONTROL_SOCKET) - (RP_GUID_TEXT - 1);
    if (strlen(local->directory) > most)
        return rp_fail(err, RP_ERR_INVALID, "%s: the path of the host's folder is too long for the sockets in it: at most %zu bytes",
                       local->directory, most);
    RP_AUTO_FREE char *vms = rp_path_join(local->directory, "vms");
    RP_AUTO_FREE char *lock = rp_path_join(local->directory, "lock");
    RP_AUTO_FREE char *db = rp_path_join(local->directory, DATABASE);
    if (make_directory(local->fs, vms, err) || (local->lock_fd = rp_lock_open(lock, err)) < 0 ||
        !(local->db = rp_db_open(db, err)))
        return -1;
    return rp_fs_sync_parent(local->fs, db, err);
}

static struct rp_host_connection *open_host(const char *directory, bool recover, bool merge, struct rp_error *err)
{
    struct rp_local *local = rp_xcalloc(1, sizeof *local);
    local->host.ops = &ops;
    local->host.address = rp_xasprintf("local:%s", directory);
    local->fs = rp_fs_posix();
    local->lock_fd = -1;
    if (open_directory(local, directory, err) || (recover && rp_local_recover_all(local, merge, err))) {
        rp_context(err, "open host %s", local->host.address);
        rp_host_close(&local->host);
        return NULL;
    }
    return &local->host;
}

struct rp_host_connection *rp_host_local_open(const char *directory, struct rp_error *err)
{
    return open_host(directory, true, true, err);
}

struct rp_host_connection *rp_host_local_open_resident(const char *directory, bool recover, struct rp_error *err)
{
    return open_host(directory, recover, false, err);
}
