#include "backup/tag.h"

#include <stdio.h>
#include <string.h>

#include "backup/plan.h"
#include "base/log.h"

const char *rp_tag_format(const struct rp_guid *repository, const struct rp_guid *job, char out[RP_TAG_TEXT])
{
    char r[RP_GUID_TEXT], j[RP_GUID_TEXT];
    snprintf(out, RP_TAG_TEXT, RP_HOST_TAG "%s:%s", rp_guid_format(repository, r), rp_guid_format(job, j));
    return out;
}

bool rp_tag_is_of(const char *name, const struct rp_guid *repository)
{
    struct rp_guid job;
    char prefix[RP_TAG_TEXT], text[RP_GUID_TEXT];
    size_t length = (size_t)snprintf(prefix, sizeof prefix, RP_HOST_TAG "%s:", rp_guid_format(repository, text));
    // The whole form, so that an administrator's own checkpoint "refpoint:<id>: before the upgrade" is not ours.
    return name && !strncmp(name, prefix, length) && !rp_guid_parse(name + length, &job, NULL);
}

static int destroy_snapshot(struct rp_work *work, const char *id, struct rp_error *err)
{
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (work->host->ops->destroy_snapshot(work->host, id, job, result, err) || rp_work_finish(work, job, result, err))
        return rp_context(err, "remove our checkpoint %s", id);
    return 0;
}

static int destroy_reference_point(struct rp_work *work, const char *id, struct rp_error *err)
{
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (work->host->ops->destroy_reference_point(work->host, id, job, result, err) || rp_work_finish(work, job, result, err))
        return rp_context(err, "remove our reference point %s", id);
    return 0;
}

static bool is_named(const struct rp_points *points, const struct rp_reference_point *reference)
{
    for (size_t i = 0; i < points->count; i++)
        if (rp_plan_names(&points->items[i], reference))
            return true;
    return false;
}

int rp_tag_remove_orphans(struct rp_work *work, const char *vm_id, const struct rp_guid *repository,
                          const struct rp_points *points, unsigned *removed, struct rp_error *err)
{
    struct rp_host_connection *host = work->host;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points references = {0};
    if (host->ops->list_snapshots(host, vm_id, &snapshots, err) || host->ops->list_reference_points(host, vm_id, &references, err))
        return -1;
    unsigned count = 0;
    for (size_t i = 0; i < snapshots.count; i++) {
        const struct rp_snapshot *snapshot = &snapshots.items[i];
        if (snapshot->type != RP_SNAPSHOT_RECOVERY || snapshot->merging || !rp_tag_is_of(snapshot->name, repository))
            continue;
        rp_log(RP_LOG_INFO, "removing checkpoint %s, left by an interrupted backup", snapshot->id);
        if (destroy_snapshot(work, snapshot->id, err))
            return -1;
        count++;
    }
    for (size_t i = 0; i < references.count && !points->unreadable; i++) {
        const struct rp_reference_point *reference = &references.items[i];
        if (!rp_tag_is_of(reference->name, repository) || is_named(points, reference))
            continue;
        rp_log(RP_LOG_INFO, "removing reference point %s, left by an interrupted backup", reference->id);
        if (destroy_reference_point(work, reference->id, err))
            return -1;
        count++;
    }
    if (removed)
        *removed = count;
    return 0;
}

int rp_tag_remove_job(struct rp_work *work, const char *vm_id, const char *tag, const char *made,
                      unsigned *removed, struct rp_error *err)
{
    int result = 0;
    unsigned count = 0;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points references = {0};
    result |= work->host->ops->list_snapshots(work->host, vm_id, &snapshots, err);
    for (size_t i = 0; i < snapshots.count; i++) {
        const struct rp_snapshot *snapshot = &snapshots.items[i];
        if (!snapshot->name || strcmp(snapshot->name, tag) || snapshot->merging)
            continue;
        if (destroy_snapshot(work, snapshot->id, err))
            result = -1;
        else
            count++;
    }
    result |= work->host->ops->list_reference_points(work->host, vm_id, &references, err);
    for (size_t i = 0; i < references.count; i++) {
        const struct rp_reference_point *reference = &references.items[i];
        if ((!reference->name || strcmp(reference->name, tag)) && strcmp(reference->id, made))
            continue;
        if (destroy_reference_point(work, reference->id, err))
            result = -1;
        else
            count++;
    }
    if (removed)
        *removed = count;
    return result;
}

int rp_tag_remove_older(struct rp_work *work, const struct rp_reference_points *points,
                        const struct rp_guid *repository, const struct rp_points *earlier, const char *keep,
                        struct rp_error *err)
{
    int result = 0;
    for (size_t i = 0; i < points->count; i++)
        if ((rp_tag_is_of(points->items[i].name, repository) || is_named(earlier, &points->items[i])) &&
            strcmp(points->items[i].id, keep))
            result |= destroy_reference_point(work, points->items[i].id, err);
    return result;
}
