#include "hyperv/host_connection.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"

const char *rp_vm_state_name(enum rp_vm_state state)
{
    switch (state) {
    case RP_VM_RUNNING: return "running";
    case RP_VM_OFF: return "off";
    case RP_VM_SAVED: return "saved";
    case RP_VM_PAUSED: return "paused";
    case RP_VM_SHUT_DOWN: return "shut down";
    case RP_VM_REBOOT: return "rebooted";
    case RP_VM_RESET: return "reset";
    }
    return "unknown";
}

void rp_vm_clear(struct rp_vm *vm)
{
    free(vm->name);
    free(vm->merge_problem);
    free(vm->remark);
    *vm = (struct rp_vm){0};
}

void rp_vms_clear(struct rp_vms *vms)
{
    for (size_t i = 0; i < vms->count; i++)
        rp_vm_clear(&vms->items[i]);
    free(vms->items);
    *vms = (struct rp_vms){0};
}

void rp_vm_settings_clear(struct rp_vm_settings *settings)
{
    for (size_t i = 0; i < settings->disk_count; i++) {
        free(settings->disks[i].path);
        free(settings->disks[i].nbd_uri);
    }
    for (size_t i = 0; i < settings->outside_count; i++)
        free(settings->outside[i]);
    free(settings->outside);
    free(settings->disks);
    free(settings->document);
    *settings = (struct rp_vm_settings){0};
}

void rp_snapshots_clear(struct rp_snapshots *snapshots)
{
    for (size_t i = 0; i < snapshots->count; i++) {
        free(snapshots->items[i].name);
        free(snapshots->items[i].consistency_reason);
    }
    free(snapshots->items);
    *snapshots = (struct rp_snapshots){0};
}

void rp_reference_point_clear(struct rp_reference_point *point)
{
    free(point->name);
    free(point->disks);
    *point = (struct rp_reference_point){0};
}

void rp_reference_points_clear(struct rp_reference_points *points)
{
    for (size_t i = 0; i < points->count; i++)
        rp_reference_point_clear(&points->items[i]);
    free(points->items);
    *points = (struct rp_reference_points){0};
}

void rp_inventory_clear(struct rp_inventory *inventory)
{
    for (size_t i = 0; i < inventory->count; i++) {
        rp_vm_clear(&inventory->items[i].vm);
        rp_vm_settings_clear(&inventory->items[i].settings);
        rp_snapshots_clear(&inventory->items[i].snapshots);
        rp_reference_points_clear(&inventory->items[i].points);
    }
    free(inventory->items);
    *inventory = (struct rp_inventory){0};
}

void rp_host_close(struct rp_host_connection *host)
{
    if (!host)
        return;
    rp_path_map_free(host->paths);
    free(host->export_folder);
    host->ops->close(host);
}

bool rp_host_is_local(const struct rp_host_connection *host) { return !strncmp(host->address, "local:", 6); }

char *rp_host_local_path(const struct rp_host_connection *host, const char *path, struct rp_error *err)
{
    if (rp_host_is_local(host) && !rp_path_map_knows(host->paths, path))
        return rp_xstrdup(path);
    return rp_path_map_to_local(host->paths, path, err);
}

// Short waits first, so that quick jobs cost nothing, and no job waits for its poll longer than a quarter of its time; then
// five times a second at most.
static void pause_before_poll(unsigned *milliseconds)
{
    struct timespec t = {.tv_sec = 0, .tv_nsec = (long)*milliseconds * 1000000};
    nanosleep(&t, NULL);
    *milliseconds = *milliseconds < 160 ? *milliseconds * 5 / 4 + 1 : 200;
}

int rp_host_wait(struct rp_host_connection *host, const char *job, char result[RP_HOST_ID],
                 int (*stop)(void *context), void *context, struct rp_error *err)
{
    if (!*job)
        return 0;
    unsigned wait_ms = 5;
    for (;;) {
        struct rp_job_state state = {0};
        if (host->ops->job_state(host, job, &state, err))
            return -1;
        if (state.phase == RP_JOB_COMPLETED) {
            memcpy(result, state.result, RP_HOST_ID);
            return 0;
        }
        if (state.phase != RP_JOB_RUNNING) {
            if (state.error.code == RP_OK)
                return rp_fail(err, RP_ERR_IO, "%s: job %s ended in state %d without a reason", host->address, job,
                               (int)state.phase);
            return rp_fail_as(err, &state.error);
        }
        if (stop && stop(context))
            return rp_fail(err, RP_ERR_CANCELLED, "%s: gave up waiting for job %s at %u %%", host->address, job, state.percent);
        pause_before_poll(&wait_ms);
    }
}

int rp_host_wait_merge(struct rp_host_connection *host, const char *vm_id, unsigned timeout_ms, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    unsigned wait_ms = 5;
    for (;;) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        if (host->ops->find_vm(host, vm_id, &vm, err))
            return -1;
        if (vm.activity != RP_VM_MERGING)
            return 0;
        if ((rp_clock_monotonic_ns() - start) / 1000000 >= timeout_ms)
            return 1;
        pause_before_poll(&wait_ms);
    }
}

int rp_host_all_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t size,
                        struct rp_ranges *changed, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges got = {0};
    for (uint64_t offset = 0; offset < size;) {
        uint64_t processed = 0;
        if (host->ops->disk_changes(host, path, limit_id, offset, size - offset, &got, &processed, err))
            return -1;
        // Going on after a wrong answer would leave a part of the disk out of the backup.
        if (processed == 0 || processed > size - offset)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: changes of %s: the host says that it covered %llu of %llu bytes",
                           host->address, path, (unsigned long long)processed, (unsigned long long)(size - offset));
        offset += processed;
    }
    for (size_t i = 0; i < got.count; i++) {
        struct rp_range r = got.items[i];
        if (!rp_range_ok(r.offset, r.length, size))
            return rp_fail(err, RP_ERR_CORRUPT, "%s: changes of %s: range %llu+%llu is outside the disk", host->address,
                           path, (unsigned long long)r.offset, (unsigned long long)r.length);
        if (r.length)
            rp_ranges_push(changed, r.offset, r.length);
    }
    rp_ranges_normalize(changed);
    return 0;
}
