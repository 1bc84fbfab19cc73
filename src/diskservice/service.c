#include "diskservice/service.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "diskservice/control.h"
#include "diskservice/record.h"
#include "diskservice/socket.h"

struct rp_service {
    struct rp_fs *fs;
    char *directory;
    int fd;             // connection to the running service, or -1
    unsigned limit_s;   // for each answer; 0: none
    struct rp_buf rest; // received beyond the last line
    struct rp_engine *engine; // opened when first needed, while none runs
};

struct rp_service *rp_service_open(struct rp_fs *fs, const char *vm_directory, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_CONTROL_SOCKET);
    struct rp_error why = {0};
    int fd = fs == rp_fs_posix() ? rp_socket_connect(path, &why) : -1;
    // INVALID: the folder's name is too long for a socket, so none runs there.
    if (fd < 0 && why.code && why.code != RP_ERR_NOT_FOUND && why.code != RP_ERR_INVALID) {
        if (err && !err->code)
            *err = why;
        return NULL;
    }
    struct rp_service *service = rp_xcalloc(1, sizeof *service);
    *service = (struct rp_service){.fs = fs, .directory = rp_xstrdup(vm_directory), .fd = fd};
    return service;
}

int rp_service_close(struct rp_service *service, struct rp_error *err)
{
    if (!service)
        return 0;
    if (service->fd >= 0)
        close(service->fd);
    struct rp_error why = {0};
    int failed = service->engine ? rp_engine_close(service->engine, &why) : 0;
    if (failed) {
        rp_log(RP_LOG_ERROR, "%s: not everything could be made durable: %s", service->directory, why.text);
        rp_fail(err, why.code, "%s: not everything could be made durable: %s", service->directory, why.text);
    }
    rp_buf_clear(&service->rest);
    free(service->directory);
    free(service);
    return failed;
}

int rp_service_limit(struct rp_service *service, unsigned seconds, struct rp_error *err)
{
    struct timeval limit = {.tv_sec = (time_t)seconds};
    service->limit_s = seconds;
    if (service->fd >= 0 && setsockopt(service->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit))
        return rp_fail_sys(err, errno, "disk service of %s", service->directory);
    return 0;
}

bool rp_service_is_running(const struct rp_service *service) { return service->fd >= 0; }

static int read_line(struct rp_service *service, struct rp_buf *line, struct rp_error *err)
{
    struct rp_error why = {0};
    int got = rp_socket_read_line(service->fd, RP_CONTROL_MAX_REPLY, &service->rest, line, &why);
    if (got < 0 && why.code == RP_ERR_BUSY)
        rp_fail(err, RP_ERR_IO, "it has not answered for %u s", service->limit_s);
    else if (got < 0)
        rp_fail_as(err, &why);
    else if (got == 0)
        rp_fail(err, RP_ERR_IO, "the service has ended");
    return got;
}

// One request, one reply; between them, if it was asked for, the line that says that the pause of a checkpoint is over. The
// request's own failure becomes this call's.
static int ask_told(struct rp_service *service, const struct rp_control_request *request, rp_engine_switched_fn *switched, void *context,
                    struct rp_control_reply *reply, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0}, line = {0};
    *reply = (struct rp_control_reply){0};
    if (rp_control_format_request(request, &out, err) || rp_socket_write(service->fd, out.data, out.size, err))
        return -1;
    int got = read_line(service, &line, err);
    bool told = got > 0 && rp_control_is_switched((const char *)line.data, line.size, request);
    if (told) {
        switched(context);
        got = read_line(service, &line, err);
    }
    if (got <= 0 || rp_control_parse_reply((const char *)line.data, line.size, request, reply, err))
        return rp_context(err, "disk service of %s", service->directory);
    if (!reply->error.code) {
        if (switched && !told)
            switched(context);
        return 0;
    }
    rp_fail_as(err, &reply->error);
    rp_control_reply_clear(reply);
    return -1;
}

static int ask(struct rp_service *service, const struct rp_control_request *request, struct rp_control_reply *reply, struct rp_error *err)
{
    return ask_told(service, request, NULL, NULL, reply, err);
}

static struct rp_engine *engine_of(struct rp_service *service, struct rp_error *err)
{
    if (!service->engine) {
        RP_AUTO_FREE char *shm = rp_engine_shm_directory(service->fs, service->directory);
        service->engine = rp_engine_open(service->fs, service->directory, shm, err);
    }
    return service->engine;
}

int rp_service_adopt(struct rp_service *service, struct rp_error *err)
{
    if (service->fd >= 0 || service->engine || !rp_engine_left_behind(service->fs, service->directory))
        return 0;
    return engine_of(service, err) ? 0 : -1;
}

static void engine_info(struct rp_engine *engine, struct rp_service_info *info)
{
    info->generation = rp_engine_generation(engine);
    info->count = rp_engine_disk_count(engine);
    for (size_t i = 0; i < info->count; i++)
        rp_engine_disk(engine, i, &info->disks[i]);
    rp_engine_merge_state(engine, &info->merge);
}

// The facts of files that nobody has open, without opening them for writing.
static int info_at_rest(struct rp_service *service, struct rp_service_info *info, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record;
    if (rp_record_read(service->fs, service->directory, &record, err))
        return -1;
    info->generation = record.generation;
    for (size_t i = 0; i < record.count; i++) {
        const char *path = record.disks[i].leaf_path;
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(service->fs, path, RP_VHDX_READ, NULL, err);
        struct rp_rct_disk state;
        if (!vhdx || rp_rct_disk_of(vhdx, &state, err))
            return -1;
        const struct rp_vhdx_info *from = rp_vhdx_info(vhdx);
        struct rp_error why = {0};
        RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *rct = rp_rct_open_read(service->fs, path, &state, &why);
        struct rp_engine_disk *disk = &info->disks[info->count++];
        *disk = (struct rp_engine_disk){
            .disk_id = from->disk_id,
            .size = from->size,
            .logical_sector = from->logical_sector,
            .physical_sector = from->physical_sector,
            .block_size = from->block_size,
            .leaf_path = rp_xstrdup(path),
            .verdict = rct ? RP_RCT_CLEAN : RP_RCT_UNCLEAN, // what the next open will really find, it will say
            .tracked = rct != NULL,
        };
        snprintf(disk->name, sizeof disk->name, "disk%" PRIu32, record.disks[i].number);
    }
    return 0;
}

int rp_service_info(struct rp_service *service, struct rp_service_info *info, struct rp_error *err)
{
    *info = (struct rp_service_info){0};
    if (service->fd >= 0) {
        struct rp_control_request request = {.verb = RP_CONTROL_INFO, .operation = rp_guid_new()};
        RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply);
        if (ask(service, &request, reply, err))
            return -1;
        *info = reply->info; // taken over
        return 0;
    }
    if (rp_service_adopt(service, err))
        return -1;
    if (service->engine) {
        engine_info(service->engine, info);
        return 0;
    }
    if (!info_at_rest(service, info, err))
        return 0;
    rp_service_info_clear(info);
    return -1;
}

int rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched, void *context,
                          struct rp_engine_checkpoint *result, struct rp_error *err)
{
    *result = (struct rp_engine_checkpoint){0};
    if (service->fd < 0) {
        struct rp_engine *engine = engine_of(service, err);
        return engine ? rp_engine_checkpoint_tell(engine, operation, switched, context, result, err) : -1;
    }
    struct rp_control_request request = {.verb = RP_CONTROL_CHECKPOINT, .operation = *operation, .tell_switched = switched != NULL};
    RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply);
    if (ask_told(service, &request, switched, context, reply, err))
        return -1;
    *result = reply->checkpoint; // taken over
    return 0;
}

int rp_service_merge(struct rp_service *service, const struct rp_guid *operation, const char *const *paths, size_t count,
                     const uint64_t *rate, struct rp_error *err)
{
    if (service->fd < 0) {
        struct rp_engine *engine = engine_of(service, err);
        struct rp_engine_merge_options options = {.rate = rate ? *rate : 0, .pause_ms = UINT_MAX, .reader_ms = 1};
        if (engine)
            rp_engine_set_merge_options(engine, &options); // nobody writes
        return engine && !rp_engine_merge_start(engine, operation, paths, count, err) ? rp_engine_merge_wait(engine, err) : -1;
    }
    struct rp_control_request request = {
        .verb = RP_CONTROL_MERGE, .operation = *operation, .paths = (char **)paths, .path_count = count,
        .has_rate = rate, .rate = rate ? *rate : 0};
    struct rp_control_reply reply;
    if (count > RP_CONTROL_MAX_PATHS)
        return rp_fail(err, RP_ERR_INVALID, "merge of %zu files: at most %d at once", count, RP_CONTROL_MAX_PATHS);
    return ask(service, &request, &reply, err);
}

static int ask_changes(struct rp_service *service, const char *path, const struct rp_rct_id *id, uint64_t offset,
                       uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    RP_AUTO_FREE char *own = rp_xstrdup(path);
    do {
        struct rp_control_request request = {.verb = RP_CONTROL_CHANGES,
                                             .operation = rp_guid_new(),
                                             .paths = &own,
                                             .path_count = 1,
                                             .id = *id,
                                             .offset = offset,
                                             .length = length};
        RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply);
        if (ask(service, &request, reply, err))
            return -1;
        for (size_t i = 0; i < reply->changed.count; i++)
            rp_ranges_add(changed, reply->changed.items[i].offset, reply->changed.items[i].length);
        offset += reply->processed;
        length -= reply->processed;
        rp_control_reply_clear(reply);
    } while (length);
    return 0;
}

int rp_service_changes(struct rp_service *service, const char *path, const struct rp_rct_id *id, uint64_t offset,
                       uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    if (service->fd >= 0)
        return ask_changes(service, path, id, offset, length, changed, err);
    if (rp_service_adopt(service, err))
        return -1;
    if (service->engine)
        return rp_engine_changes(service->engine, path, id, offset, length, changed, err);
    return rp_changes_at_rest(service->fs, path, id, offset, length, changed, err);
}

int rp_service_flush(struct rp_service *service, struct rp_error *err)
{
    if (service->fd >= 0) {
        struct rp_control_request request = {.verb = RP_CONTROL_FLUSH, .operation = rp_guid_new()};
        struct rp_control_reply reply;
        return ask(service, &request, &reply, err);
    }
    for (size_t i = 0; service->engine && i < rp_engine_disk_count(service->engine); i++)
        if (rp_engine_flush(service->engine, i, err))
            return -1;
    return 0;
}

int rp_service_grow(struct rp_service *service, const char *disk, uint64_t size, struct rp_error *err)
{
    if (service->fd >= 0) {
        struct rp_control_request request = {.verb = RP_CONTROL_GROW, .operation = rp_guid_new(), .size = size};
        struct rp_control_reply reply;
        if ((size_t)snprintf(request.disk, sizeof request.disk, "%s", disk) >= sizeof request.disk)
            return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no such disk", disk);
        return ask(service, &request, &reply, err);
    }
    struct rp_engine *engine = engine_of(service, err);
    if (!engine)
        return -1;
    int index = rp_engine_find_disk(engine, disk);
    return index < 0 ? rp_fail(err, RP_ERR_NOT_FOUND, "%s: no such disk", disk)
                     : rp_engine_grow(engine, (size_t)index, size, err);
}
