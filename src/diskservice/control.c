#include "diskservice/control.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const verbs[] = {"info", "checkpoint", "merge", "changes", "flush", "grow"};
enum { VERBS = sizeof verbs / sizeof *verbs };
static const char *const verdicts[] = {"clean", "new", "unclean", "foreign"};
static const char *const phases[] = {"none", "running", "done", "failed"};
static const char *const steps[] = {"copying", "waiting", "slowing", "pausing"};

static void json_decref_p(json_t **json) { json_decref(*json); }
#define AUTO_JSON RP_CLEANUP(json_decref_p)

// Members of an object; each sets `*bad` when it is missing or of another type, and then returns something harmless.
static const char *text_of(json_t *object, const char *key, bool *bad)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) != json_string_length(json_object_get(object, key)))
        *bad = true;
    return text ? text : "";
}

static uint64_t number_of(json_t *object, const char *key, bool *bad)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        *bad = true;
    return (uint64_t)json_integer_value(value);
}

// One that is kept in an int.
static int small_number_of(json_t *object, const char *key, bool *bad)
{
    uint64_t number = number_of(object, key, bad);
    if (number > INT_MAX)
        *bad = true;
    return *bad ? 0 : (int)number;
}

static bool flag_of(json_t *object, const char *key, bool *bad)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value))
        *bad = true;
    return json_is_true(value);
}

static struct rp_guid guid_of(json_t *object, const char *key, bool *bad)
{
    struct rp_guid guid = {{0}};
    if (rp_guid_parse(text_of(object, key, bad), &guid, NULL))
        *bad = true;
    return guid;
}

static struct rp_rct_id id_of(json_t *object, const char *key, bool *bad)
{
    struct rp_rct_id id = {.epoch = 0};
    if (rp_rct_id_parse(text_of(object, key, bad), &id, NULL))
        *bad = true;
    return id;
}

static int name_of(json_t *object, const char *key, const char *const *names, int count, bool *bad)
{
    const char *name = text_of(object, key, bad);
    for (int i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return i;
    *bad = true;
    return 0;
}

static json_t *guid_json(const struct rp_guid *guid)
{
    char text[RP_GUID_TEXT];
    return json_string(rp_guid_format(guid, text));
}

static json_t *number_json(uint64_t value) { return json_integer((json_int_t)value); }

static json_t *parse_line(const char *line, size_t size, struct rp_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, size, JSON_REJECT_DUPLICATES, &why);
    if (root && json_is_object(root))
        return root;
    rp_fail(err, RP_ERR_INVALID, "control message: %s", root ? "not an object" : why.text);
    json_decref(root);
    return NULL;
}

static int check_version(json_t *root, struct rp_error *err)
{
    bool bad = false;
    uint64_t version = number_of(root, "refpoint", &bad);
    if (bad)
        return rp_fail(err, RP_ERR_INVALID, "control message: names no version of the protocol");
    if (version != RP_CONTROL_VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED,
                       "one side speaks version %llu of the control protocol, the other version %d: the disk service of a "
                       "running VM is of another version of refpoint; stop the VM and start it again, with the same version "
                       "everywhere",
                       (unsigned long long)version, RP_CONTROL_VERSION);
    return 0;
}

static int append_line(json_t *root, struct rp_buf *line)
{
    char *text = json_dumps(root, JSON_COMPACT);
    if (!text)
        return -1;
    rp_buf_append(line, text, strlen(text));
    rp_buf_append_u8(line, '\n');
    free(text);
    return 0;
}

// ---- requests

static int parse_paths(json_t *root, struct rp_control_request *request)
{
    json_t *paths = json_object_get(root, "paths");
    size_t count = json_array_size(paths);
    if (!json_is_array(paths) || count > RP_CONTROL_MAX_PATHS)
        return -1;
    request->paths = rp_xcalloc(count + 1, sizeof *request->paths);
    for (size_t i = 0; i < count; i++) {
        const char *path = json_string_value(json_array_get(paths, i));
        if (!path)
            return -1;
        request->paths[request->path_count++] = rp_xstrdup(path);
    }
    return 0;
}

static int parse_request(json_t *root, struct rp_control_request *request, struct rp_error *err)
{
    bool bad = false;
    if (check_version(root, err))
        return -1;
    request->operation = guid_of(root, "operation", &bad);
    request->verb = (enum rp_control_verb)name_of(root, "request", verbs, VERBS, &bad);
    if (bad)
        return rp_fail(err, RP_ERR_INVALID, "control message: no known request with an operation id");
    switch (request->verb) {
    case RP_CONTROL_CHECKPOINT:
        request->tell_switched = json_object_get(root, "tell_switched") && flag_of(root, "tell_switched", &bad);
        break;
    case RP_CONTROL_MERGE:
        bad = parse_paths(root, request);
        if ((request->has_rate = json_object_get(root, "rate")))
            request->rate = number_of(root, "rate", &bad);
        break;
    case RP_CONTROL_CHANGES:
        request->paths = rp_xcalloc(1, sizeof *request->paths);
        request->paths[request->path_count++] = rp_xstrdup(text_of(root, "path", &bad));
        request->id = id_of(root, "id", &bad);
        request->offset = number_of(root, "offset", &bad);
        request->length = number_of(root, "length", &bad);
        break;
    case RP_CONTROL_GROW:
        if ((size_t)snprintf(request->disk, sizeof request->disk, "%s", text_of(root, "disk", &bad)) >= sizeof request->disk)
            bad = true;
        request->size = number_of(root, "size", &bad);
        break;
    default:
        break;
    }
    return bad ? rp_fail(err, RP_ERR_INVALID, "control message: %s: wrong arguments", verbs[request->verb]) : 0;
}

int rp_control_parse_request(const char *line, size_t size, struct rp_control_request *request, struct rp_error *err)
{
    *request = (struct rp_control_request){0};
    AUTO_JSON json_t *root = parse_line(line, size, err);
    if (root && !parse_request(root, request, err))
        return 0;
    rp_control_request_clear(request);
    return -1;
}

int rp_control_format_request(const struct rp_control_request *request, struct rp_buf *line, struct rp_error *err)
{
    AUTO_JSON json_t *root = json_pack("{s:i, s:o, s:s}", "refpoint", RP_CONTROL_VERSION, "operation",
                                       guid_json(&request->operation), "request", verbs[request->verb]);
    int failed = 0;
    if (request->verb == RP_CONTROL_MERGE) {
        json_t *paths = json_array();
        for (size_t i = 0; i < request->path_count; i++)
            failed |= json_array_append_new(paths, json_string(request->paths[i]));
        failed |= json_object_set_new(root, "paths", paths);
        if (request->has_rate)
            failed |= json_object_set_new(root, "rate", number_json(request->rate));
    } else if (request->verb == RP_CONTROL_CHECKPOINT) {
        if (request->tell_switched)
            failed = json_object_set_new(root, "tell_switched", json_true());
    } else if (request->verb == RP_CONTROL_CHANGES) {
        char id[RP_RCT_ID_TEXT];
        failed |= json_object_set_new(root, "path", json_string(request->paths[0]));
        failed |= json_object_set_new(root, "id", json_string(rp_rct_id_format(&request->id, id)));
        failed |= json_object_set_new(root, "offset", number_json(request->offset));
        failed |= json_object_set_new(root, "length", number_json(request->length));
    } else if (request->verb == RP_CONTROL_GROW) {
        failed |= json_object_set_new(root, "disk", json_string(request->disk));
        failed |= json_object_set_new(root, "size", number_json(request->size));
    }
    if (failed || append_line(root, line))
        return rp_fail(err, RP_ERR_INVALID, "control message: %s: a path is not UTF-8", verbs[request->verb]);
    return 0;
}

void rp_control_request_clear(struct rp_control_request *request)
{
    for (size_t i = 0; i < request->path_count; i++)
        free(request->paths[i]);
    free(request->paths);
    *request = (struct rp_control_request){0};
}

// ---- replies

static json_t *error_json(const struct rp_error *error)
{
    json_t *json = json_pack("{s:s, s:i, s:s}", "code", rp_code_name(error->code), "errno", error->sys, "text", error->text);
    return json ? json : json_pack("{s:s, s:i, s:s}", "code", rp_code_name(error->code), "errno", error->sys, "text",
                                   "the message is not UTF-8");
}

static struct rp_error parse_error(json_t *json, bool *bad)
{
    struct rp_error error = {.code = rp_code_from_name(text_of(json, "code", bad))};
    error.sys = small_number_of(json, "errno", bad);
    snprintf(error.text, sizeof error.text, "%s", text_of(json, "text", bad));
    if (error.code == RP_OK)
        *bad = true;
    return error;
}

static json_t *merge_json(const struct rp_engine_merge *m)
{
    json_t *merge = json_pack("{s:s, s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "phase", phases[m->phase], "operation",
                              guid_json(&m->operation), "step", steps[m->step], "round", (int)m->round, "done",
                              number_json(m->done), "total", number_json(m->total), "rate", number_json(m->rate), "guest_rate",
                              number_json(m->guest_rate), "pause_ns", number_json(m->pause_ns), "longest_pause_ns",
                              number_json(m->longest_pause_ns));
    if (m->phase == RP_MERGE_RUNNING && m->waiting.code)
        json_object_set_new(merge, "waiting", error_json(&m->waiting));
    if (m->phase == RP_MERGE_FAILED)
        json_object_set_new(merge, "error", error_json(&m->error));
    return merge;
}

static void parse_merge(json_t *json, struct rp_engine_merge *m, bool *bad)
{
    m->phase = (enum rp_merge_phase)name_of(json, "phase", phases, 4, bad);
    m->operation = guid_of(json, "operation", bad);
    m->step = (enum rp_merge_step)name_of(json, "step", steps, 4, bad);
    m->round = (unsigned)small_number_of(json, "round", bad);
    m->done = number_of(json, "done", bad);
    m->total = number_of(json, "total", bad);
    m->rate = number_of(json, "rate", bad);
    m->guest_rate = number_of(json, "guest_rate", bad);
    m->pause_ns = number_of(json, "pause_ns", bad);
    m->longest_pause_ns = number_of(json, "longest_pause_ns", bad);
    if (m->phase == RP_MERGE_RUNNING && json_object_get(json, "waiting"))
        m->waiting = parse_error(json_object_get(json, "waiting"), bad);
    if (m->phase == RP_MERGE_FAILED)
        m->error = parse_error(json_object_get(json, "error"), bad);
}

static json_t *info_json(const struct rp_service_info *info)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < info->count; i++) {
        const struct rp_engine_disk *d = &info->disks[i];
        json_array_append_new(
            disks, json_pack("{s:s, s:o, s:o, s:i, s:i, s:i, s:s, s:s, s:b}", "name", d->name, "id", guid_json(&d->disk_id),
                             "size", number_json(d->size), "logical_sector", (int)d->logical_sector, "physical_sector",
                             (int)d->physical_sector, "block_size", (int)d->block_size, "leaf", d->leaf_path, "verdict",
                             verdicts[d->verdict], "tracked", d->tracked));
    }
    if (json_array_size(disks) != info->count) { // a path is not UTF-8
        json_decref(disks);
        return NULL;
    }
    return json_pack("{s:i, s:o, s:o, s:o}", "pid", (int)info->pid, "generation", number_json(info->generation), "disks", disks,
                     "merge", merge_json(&info->merge));
}

static void parse_info(json_t *json, struct rp_service_info *info, bool *bad)
{
    json_t *disks = json_object_get(json, "disks");
    info->pid = (pid_t)number_of(json, "pid", bad);
    info->generation = number_of(json, "generation", bad);
    if (!json_is_array(disks) || json_array_size(disks) > RP_ENGINE_MAX_DISKS) {
        *bad = true;
        return;
    }
    while (info->count < json_array_size(disks)) {
        json_t *from = json_array_get(disks, info->count);
        struct rp_engine_disk *d = &info->disks[info->count++];
        snprintf(d->name, sizeof d->name, "%s", text_of(from, "name", bad));
        d->disk_id = guid_of(from, "id", bad);
        d->size = number_of(from, "size", bad);
        d->logical_sector = (uint32_t)number_of(from, "logical_sector", bad);
        d->physical_sector = (uint32_t)number_of(from, "physical_sector", bad);
        d->block_size = (uint32_t)number_of(from, "block_size", bad);
        d->leaf_path = rp_xstrdup(text_of(from, "leaf", bad));
        d->verdict = (enum rp_rct_verdict)name_of(from, "verdict", verdicts, 4, bad);
        d->tracked = flag_of(from, "tracked", bad);
    }
    parse_merge(json_object_get(json, "merge"), &info->merge, bad);
}

static json_t *checkpoint_json(const struct rp_engine_checkpoint *checkpoint)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < checkpoint->count; i++) {
        const struct rp_engine_frozen *f = &checkpoint->disks[i];
        json_t *disk = json_pack("{s:o, s:s, s:s}", "id", guid_json(&f->disk_id), "path", f->path, "leaf", f->leaf_path);
        char id[RP_RCT_ID_TEXT];
        if (disk && f->tracked)
            json_object_set_new(disk, "rct_id", json_string(rp_rct_id_format(&f->id, id)));
        json_array_append_new(disks, disk);
    }
    if (json_array_size(disks) != checkpoint->count) {
        json_decref(disks);
        return NULL;
    }
    return json_pack("{s:o, s:o}", "disks", disks, "pause_ns", number_json(checkpoint->pause_ns));
}

static void parse_checkpoint(json_t *json, struct rp_engine_checkpoint *checkpoint, bool *bad)
{
    json_t *disks = json_object_get(json, "disks");
    checkpoint->pause_ns = number_of(json, "pause_ns", bad);
    if (!json_is_array(disks) || json_array_size(disks) > RP_ENGINE_MAX_DISKS) {
        *bad = true;
        return;
    }
    while (checkpoint->count < json_array_size(disks)) {
        json_t *from = json_array_get(disks, checkpoint->count);
        struct rp_engine_frozen *f = &checkpoint->disks[checkpoint->count++];
        f->disk_id = guid_of(from, "id", bad);
        f->path = rp_xstrdup(text_of(from, "path", bad));
        f->leaf_path = rp_xstrdup(text_of(from, "leaf", bad));
        f->tracked = json_object_get(from, "rct_id") != NULL;
        if (f->tracked)
            f->id = id_of(from, "rct_id", bad);
    }
}

static json_t *changes_json(const struct rp_control_reply *reply)
{
    json_t *ranges = json_array();
    for (size_t i = 0; i < reply->changed.count; i++)
        json_array_append_new(ranges, json_pack("[o, o]", number_json(reply->changed.items[i].offset),
                                                number_json(reply->changed.items[i].length)));
    return json_pack("{s:o, s:o}", "processed", number_json(reply->processed), "ranges", ranges);
}

// The ranges must be what was asked for: ascending, inside the part that was processed.
static void parse_changes(json_t *json, const struct rp_control_request *request, struct rp_control_reply *reply, bool *bad)
{
    json_t *ranges = json_object_get(json, "ranges");
    reply->processed = number_of(json, "processed", bad);
    if (!json_is_array(ranges) || json_array_size(ranges) > RP_CONTROL_MAX_RANGES || reply->processed > request->length ||
        (!reply->processed && request->length)) {
        *bad = true;
        return;
    }
    uint64_t position = request->offset, end = request->offset + reply->processed;
    for (size_t i = 0; i < json_array_size(ranges) && !*bad; i++) {
        json_t *range = json_array_get(ranges, i);
        json_int_t offset = json_integer_value(json_array_get(range, 0)), length = json_integer_value(json_array_get(range, 1));
        if (offset < 0 || length <= 0 || (uint64_t)offset < position || (uint64_t)offset > end ||
            (uint64_t)length > end - (uint64_t)offset) {
            *bad = true;
            return;
        }
        rp_ranges_add(&reply->changed, (uint64_t)offset, (uint64_t)length);
        position = (uint64_t)offset + (uint64_t)length;
    }
}

static void append_reply(const struct rp_guid *operation, const char *key, json_t *value, struct rp_buf *line)
{
    AUTO_JSON json_t *root = json_pack("{s:i, s:o, s:o}", "refpoint", RP_CONTROL_VERSION, "operation", guid_json(operation), key, value);
    append_line(root, line);
}

void rp_control_format_switched(const struct rp_control_request *request, struct rp_buf *line)
{
    append_reply(&request->operation, "interim", json_string("switched"), line);
}

bool rp_control_is_switched(const char *line, size_t size, const struct rp_control_request *request)
{
    if (request->verb != RP_CONTROL_CHECKPOINT || !request->tell_switched)
        return false;
    AUTO_JSON json_t *root = parse_line(line, size, NULL);
    bool bad = !root || check_version(root, NULL);
    struct rp_guid operation = guid_of(root, "operation", &bad);
    return !strcmp(text_of(root, "interim", &bad), "switched") && !bad && rp_guid_equal(&operation, &request->operation) &&
           !json_object_get(root, "result") && !json_object_get(root, "error");
}

void rp_control_format_refusal(const struct rp_error *why, struct rp_buf *line)
{
    struct rp_guid none = {{0}};
    append_reply(&none, "error", error_json(why), line);
}

void rp_control_format_reply(const struct rp_control_request *request, const struct rp_control_reply *reply, struct rp_buf *line)
{
    struct rp_error why = reply->error;
    json_t *result = NULL;
    if (!why.code) {
        switch (request->verb) {
        case RP_CONTROL_INFO: result = info_json(&reply->info); break;
        case RP_CONTROL_CHECKPOINT: result = checkpoint_json(&reply->checkpoint); break;
        case RP_CONTROL_CHANGES: result = changes_json(reply); break;
        default: result = json_object(); break;
        }
        if (!result)
            rp_fail(&why, RP_ERR_INVALID, "%s: a path is not UTF-8", verbs[request->verb]);
    }
    append_reply(&request->operation, result ? "result" : "error", result ? result : error_json(&why), line);
}

int rp_control_parse_reply(const char *line, size_t size, const struct rp_control_request *request,
                           struct rp_control_reply *reply, struct rp_error *err)
{
    *reply = (struct rp_control_reply){0};
    AUTO_JSON json_t *root = parse_line(line, size, err);
    if (!root || check_version(root, err))
        return -1;
    bool bad = false;
    json_t *error = json_object_get(root, "error"), *result = json_object_get(root, "result");
    struct rp_guid operation = guid_of(root, "operation", &bad);
    if (error)
        reply->error = parse_error(error, &bad); // a refusal names no operation
    else if (!json_is_object(result) || !rp_guid_equal(&operation, &request->operation))
        bad = true;
    else if (request->verb == RP_CONTROL_INFO)
        parse_info(result, &reply->info, &bad);
    else if (request->verb == RP_CONTROL_CHECKPOINT)
        parse_checkpoint(result, &reply->checkpoint, &bad);
    else if (request->verb == RP_CONTROL_CHANGES)
        parse_changes(result, request, reply, &bad);
    reply->checkpoint.operation = request->operation;
    if (!bad)
        return 0;
    rp_control_reply_clear(reply);
    return rp_fail(err, RP_ERR_INVALID, "control message: not a reply to \"%s\"", verbs[request->verb]);
}

void rp_control_reply_clear(struct rp_control_reply *reply)
{
    rp_service_info_clear(&reply->info);
    rp_engine_checkpoint_clear(&reply->checkpoint);
    rp_ranges_clear(&reply->changed);
    *reply = (struct rp_control_reply){0};
}

void rp_service_info_clear(struct rp_service_info *info)
{
    for (size_t i = 0; i < info->count; i++)
        free(info->disks[i].leaf_path);
    *info = (struct rp_service_info){0};
}
