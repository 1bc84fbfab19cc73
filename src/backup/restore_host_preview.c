// What a restore to a host would make, and what would keep it from that. Asks, and changes nothing.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/restore_host_impl.h"
#include "base/buf.h"

static void add_problem(struct rp_restore_host_preview *preview, const struct rp_error *what)
{
    preview->problems = rp_xrealloc(preview->problems, (preview->problem_count + 1) * sizeof *preview->problems);
    preview->problems[preview->problem_count++] = *what;
}

static void problem(struct rp_restore_host_preview *preview, enum rp_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void problem(struct rp_restore_host_preview *preview, enum rp_code code, const char *format, ...)
{
    struct rp_error text = {.code = code};
    va_list args;
    va_start(args, format);
    vsnprintf(text.text, sizeof text.text, format, args);
    va_end(args);
    add_problem(preview, &text);
}

// ---- the VM ---------------------------------------------------------------------------------------------------------

static bool has_definition(const struct rp_point *point)
{
    for (size_t i = 0; i < point->file_count; i++)
        if (rp_restore_host_is_definition(point->files[i].name))
            return true;
    return false;
}

// A VM or planned VM of that id is in the way; one of that name is only worth knowing.
static int check_vms(struct rp_host_connection *host, const struct rp_point *point,
                     const struct rp_restore_host_options *options, struct rp_restore_host_preview *preview,
                     struct rp_error *err)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0}, planned = {0};
    bool keep = options->identity == RP_IDENTITY_KEEP;
    if (host->ops->list_vms(host, &vms, err) ||
        (host->ops->list_planned && host->ops->list_planned(host, &planned, err)))
        return -1;
    for (size_t i = 0; i < vms.count; i++) {
        const struct rp_vm *vm = &vms.items[i];
        struct rp_error taken = {0};
        if (keep && !strcasecmp(vm->id, point->vm_id) && rp_restore_host_fail_taken(host, vm, &taken))
            add_problem(preview, &taken);
        else if (!strcmp(vm->name, preview->vm_name))
            preview->same_name = true;
    }
    for (size_t i = 0; keep && i < planned.count; i++)
        if (!strcasecmp(planned.items[i].id, point->vm_id))
            problem(preview, RP_ERR_EXISTS, "%s: somebody is importing a VM %s with the id %s", host->address,
                    planned.items[i].name, planned.items[i].id);
    return 0;
}

// ---- its files ------------------------------------------------------------------------------------------------------

// The folder itself, or the one that it will be made in: the nearest that has to be there.
static char *existing(const char *local, struct rp_restore_host_preview *preview)
{
    struct stat st;
    RP_AUTO_FREE char *parent = rp_path_directory(local);
    const char *path = stat(local, &st) ? parent : local;
    if (stat(path, &st))
        problem(preview, RP_ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        problem(preview, RP_ERR_INVALID, "%s: not a folder", path);
    else
        return rp_xstrdup(path);
    return NULL;
}

static void check_room(const char *folder, struct rp_restore_host_preview *preview)
{
    struct rp_error why = {0};
    uint64_t needed = 0;
    for (size_t i = 0; i < preview->files.count; i++)
        needed += rp_restore_room(preview->files.files[i].size, preview->files.files[i].data, RP_IMAGE_VHDX);
    if (rp_restore_check_room(folder, needed, &why))
        add_problem(preview, &why);
}

// Names and sizes. Whether the files are there already is one problem among others, so that a folder is asked for in
// which there is nothing.
static int list_files(struct rp_repo *repo, const struct rp_point *point, const char *local,
                      struct rp_restore_host_preview *preview, struct rp_error *err)
{
    RP_AUTO_FREE char *disks = local ? rp_path_join(local, RP_RESTORE_HOST_DISKS) : rp_xstrdup(RP_RESTORE_HOST_DISKS);
    RP_AUTO_FREE char *nowhere = rp_path_join(disks, "is made by the restore");
    struct rp_restore_options options = {.directory = nowhere, .format = RP_IMAGE_VHDX, .disk = -1};
    if (rp_restore_preview(repo, point, &options, &preview->files, err))
        return -1;
    for (size_t i = 0; i < preview->files.count; i++) {
        struct rp_restore_file *file = &preview->files.files[i];
        char *path = rp_path_join(disks, rp_path_name(file->path));
        free(file->path);
        file->path = path;
    }
    return 0;
}

static void check_files(const char *local, struct rp_restore_host_preview *preview)
{
    RP_AUTO_FREE char *folder = existing(local, preview);
    if (!folder)
        return;
    if (access(folder, W_OK | X_OK))
        problem(preview, rp_code_from_errno(errno), "%s: %s", folder, strerror(errno));
    for (size_t i = 0; i < preview->files.count; i++) {
        struct rp_error why = {0};
        if (rp_restore_check_free(preview->files.files[i].path, &why))
            add_problem(preview, &why);
    }
    check_room(folder, preview);
}

int rp_restore_host_preview(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                            const struct rp_restore_host_options *options, struct rp_restore_host_preview *preview,
                            struct rp_error *err)
{
    struct rp_error why = {0};
    *preview = (struct rp_restore_host_preview){0};
    const char *name = options->vm_name ? options->vm_name : point->vm_name;
    preview->vm_name = rp_xstrdup(name ? name : "");
    preview->imported = has_definition(point);
    preview->folder = rp_restore_host_folder(host, point, options, &why);
    RP_AUTO_FREE char *local = preview->folder ? rp_host_local_path(host, preview->folder, &why) : NULL;
    if (!local)
        add_problem(preview, &why);
    if (list_files(repo, point, local, preview, err) || check_vms(host, point, options, preview, err)) {
        rp_restore_host_preview_clear(preview);
        return -1;
    }
    if (!preview->imported && !point->settings)
        problem(preview, RP_ERR_UNSUPPORTED, RP_RESTORE_HOST_NO_SETTINGS);
    if (local)
        check_files(local, preview);
    return 0;
}

char *rp_restore_host_preview_disk(const struct rp_restore_host_preview *preview, size_t index)
{
    const char *name = rp_path_name(preview->files.files[index].path);
    RP_AUTO_FREE char *folder = preview->folder ? rp_path_map_join(preview->folder, RP_RESTORE_HOST_DISKS) : NULL;
    return folder ? rp_path_map_join(folder, name) : rp_xstrdup(name);
}

void rp_restore_host_preview_clear(struct rp_restore_host_preview *preview)
{
    rp_restore_result_clear(&preview->files);
    free(preview->folder);
    free(preview->vm_name);
    free(preview->problems);
    *preview = (struct rp_restore_host_preview){0};
}
