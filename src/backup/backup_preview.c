// What a backup would do, as far as that can be known without a checkpoint.
#include <stdio.h>

#include "backup/backup.h"

int rp_backup_preview(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                      const struct rp_backup_options *options, struct rp_backup_preview *preview, struct rp_error *err)
{
    *preview = (struct rp_backup_preview){0};
    if (rp_repo_points_of(repo, vm->id, &preview->points, err) ||
        host->ops->list_reference_points(host, vm->id, &preview->references, err) ||
        host->ops->vm_settings(host, vm->id, &preview->settings, err))
        goto failed;
    rp_plan_choose_base(&preview->points, vm->id, &preview->references, &preview->base);
    if (options->full) {
        preview->base.point = NULL;
        snprintf(preview->base.reason, sizeof preview->base.reason, "asked for a full backup");
    }
    if (rp_plan_make(&preview->settings, &preview->base, &preview->plan, err) ||
        rp_plan_choose_reader(host, &preview->settings, options->open_reader ? RP_READER_VIRTUAL_DISK : options->reader,
                              options->export_folder ? options->export_folder : host->export_folder,
                              &preview->reader, err))
        goto failed;
    return 0;
failed:
    rp_backup_preview_clear(preview);
    return -1;
}

void rp_backup_preview_clear(struct rp_backup_preview *preview)
{
    rp_plan_clear(&preview->plan);
    rp_vm_settings_clear(&preview->settings);
    rp_reference_points_clear(&preview->references);
    rp_points_clear(&preview->points);
    *preview = (struct rp_backup_preview){0};
}
