#include "repo/point.h"

#include <string.h>

#include "repo/json.h"
#include "repo/tree.h"

#define VERSION 1
#define MAX_DISKS 4096
#define MAX_SETTINGS (8u << 20)
#define MAX_FILES 64
#define MAX_FILE (6u << 20)

// The text fields, once: the name in the document, where it lives, its bound.
struct text_field {
    const char *name;
    size_t offset, limit;
    bool required;
};
static const struct text_field point_texts[] = {
    {"vm_id", offsetof(struct rp_point, vm_id), RP_JSON_TEXT, true},
    {"vm_name", offsetof(struct rp_point, vm_name), RP_JSON_TEXT, false},
    {"host", offsetof(struct rp_point, host), RP_JSON_TEXT, false},
    {"kind", offsetof(struct rp_point, kind), RP_JSON_TEXT, false},
    {"reason", offsetof(struct rp_point, reason), RP_JSON_TEXT, false},
    {"approach", offsetof(struct rp_point, approach), RP_JSON_TEXT, false},
    {"reader", offsetof(struct rp_point, reader), RP_JSON_TEXT, false},
    {"consistency_asked", offsetof(struct rp_point, consistency_asked), RP_JSON_TEXT, false},
    {"consistency_reached", offsetof(struct rp_point, consistency_reached), RP_JSON_TEXT, false},
    {"consistency_reason", offsetof(struct rp_point, consistency_reason), RP_JSON_TEXT, false},
    {"reference_point", offsetof(struct rp_point, reference_point), RP_JSON_TEXT, false},
    {"base_point", offsetof(struct rp_point, base_point), RP_JSON_TEXT, false},
    {"settings", offsetof(struct rp_point, settings), MAX_SETTINGS, false},
    {"software", offsetof(struct rp_point, software), RP_JSON_TEXT, false},
};
static const struct text_field disk_texts[] = {
    {"instance", offsetof(struct rp_point_disk, instance), RP_JSON_TEXT, false},
    {"rct_id", offsetof(struct rp_point_disk, rct_id), RP_JSON_TEXT, false},
    {"kind", offsetof(struct rp_point_disk, kind), RP_JSON_TEXT, false},
    {"reason", offsetof(struct rp_point_disk, reason), RP_JSON_TEXT, false},
};
static const struct text_field file_texts[] = {
    {"name", offsetof(struct rp_point_file, name), RP_JSON_TEXT, true},
    {"data", offsetof(struct rp_point_file, data), MAX_FILE, true},
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char **text_at(const void *structure, const struct text_field *field)
{
    return (char **)((char *)(uintptr_t)structure + field->offset);
}

void rp_point_clear_files(struct rp_point *point)
{
    for (size_t f = 0; f < point->file_count; f++)
        for (size_t i = 0; i < COUNT(file_texts); i++)
            free(*text_at(&point->files[f], &file_texts[i]));
    free(point->files);
    point->files = NULL;
    point->file_count = 0;
}

void rp_point_clear(struct rp_point *point)
{
    rp_point_clear_files(point);
    for (size_t d = 0; d < point->disk_count; d++)
        for (size_t i = 0; i < COUNT(disk_texts); i++)
            free(*text_at(&point->disks[d], &disk_texts[i]));
    for (size_t i = 0; i < COUNT(point_texts); i++)
        free(*text_at(point, &point_texts[i]));
    free(point->disks);
    *point = (struct rp_point){0};
}

// Texts come from hosts and guests: what is too long or not UTF-8 is refused when it is written, not when it is needed.
static int set_texts(json_t *object, const void *structure, const struct text_field *fields, size_t count,
                     struct rp_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const char *text = *text_at(structure, &fields[i]);
        if (!text && fields[i].required)
            return rp_fail(err, RP_ERR_INVALID, "restore point: \"%s\" is missing", fields[i].name);
        if (text && strlen(text) > fields[i].limit)
            return rp_fail(err, RP_ERR_INVALID, "restore point: \"%s\" is too long", fields[i].name);
        if (text && json_object_set_new(object, fields[i].name, json_string(text)))
            return rp_fail(err, RP_ERR_INVALID, "restore point: \"%s\" is not UTF-8", fields[i].name);
    }
    return 0;
}

int rp_point_encode(const struct rp_point *point, struct rp_buf *out, struct rp_error *err)
{
    char guid[RP_GUID_TEXT];
    RP_AUTO_JSON json_t *json = json_object();
    if (point->disk_count > MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "restore point: %zu disks", point->disk_count);
    rp_json_set_number(json, "version", VERSION);
    rp_json_set_number(json, "time_ns", (uint64_t)point->time_ns);
    if (set_texts(json, point, point_texts, COUNT(point_texts), err))
        return -1;
    if (point->sequence)
        rp_json_set_number(json, "sequence", point->sequence);
    rp_json_set_number(json, "started_ns", point->started_ns);
    rp_json_set_number(json, "checkpoint_ns", point->checkpoint_ns);
    rp_json_set_number(json, "read_ns", point->read_ns);
    rp_json_set_number(json, "convert_ns", point->convert_ns);
    rp_json_set_number(json, "bytes_read", point->bytes_read);
    rp_json_set_number(json, "bytes_stored", point->bytes_stored);
    rp_json_set_number(json, "new_blocks", point->new_blocks);
    json_t *disks = json_array();
    json_object_set_new(json, "disks", disks);
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *disk = &point->disks[i];
        json_t *entry = json_object();
        json_array_append_new(disks, entry);
        rp_json_set_number(entry, "number", disk->number);
        if (set_texts(entry, disk, disk_texts, COUNT(disk_texts), err))
            return -1;
        rp_json_set_text(entry, "disk_id", rp_guid_format(&disk->disk_id, guid));
        if (!rp_guid_is_zero(&disk->data_write_guid))
            rp_json_set_text(entry, "data_write_guid", rp_guid_format(&disk->data_write_guid, guid));
        rp_json_set_number(entry, "logical_sector", disk->logical_sector);
        rp_json_set_number(entry, "physical_sector", disk->physical_sector);
        rp_json_set_number(entry, "bytes_read", disk->bytes_read);
        rp_json_set_number(entry, "bytes_changed", disk->bytes_changed);
        rp_json_set_number(entry, "size", disk->root.size);
        rp_json_set_hex(entry, "root", disk->root.id, RP_REPO_ID_BYTES);
    }
    if (point->file_count > MAX_FILES)
        return rp_fail(err, RP_ERR_INVALID, "restore point: %zu files", point->file_count);
    json_t *files = json_array();
    if (point->file_count)
        json_object_set(json, "files", files);
    json_decref(files);
    for (size_t i = 0; i < point->file_count; i++) {
        json_t *entry = json_object();
        json_array_append_new(files, entry);
        if (set_texts(entry, &point->files[i], file_texts, COUNT(file_texts), err))
            return -1;
    }
    rp_json_write(json, out);
    return 0;
}

static void get_texts(struct rp_json *json, void *structure, const struct text_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        *text_at(structure, &fields[i]) = rp_json_text(json, fields[i].name, fields[i].limit, fields[i].required);
}

static bool decode_disk(struct rp_json *json, struct rp_point_disk *disk)
{
    get_texts(json, disk, disk_texts, COUNT(disk_texts));
    disk->number = (uint32_t)rp_json_number(json, "number", UINT32_MAX, true);
    rp_json_guid(json, "disk_id", &disk->disk_id);
    if (json_object_get(json->object, "data_write_guid"))
        rp_json_guid(json, "data_write_guid", &disk->data_write_guid);
    disk->logical_sector = (uint32_t)rp_json_number(json, "logical_sector", UINT32_MAX, false);
    disk->physical_sector = (uint32_t)rp_json_number(json, "physical_sector", UINT32_MAX, false);
    disk->bytes_read = rp_json_number(json, "bytes_read", INT64_MAX, false);
    disk->bytes_changed = rp_json_number(json, "bytes_changed", INT64_MAX, false);
    disk->root.size = rp_json_number(json, "size", RP_DISK_MAX_SIZE, true);
    rp_json_hex(json, "root", disk->root.id, RP_REPO_ID_BYTES);
    return !json->failed;
}

static bool decode_disks(struct rp_json *json, struct rp_point *point)
{
    const json_t *disks = json_object_get(json->object, "disks");
    size_t count = json_array_size(disks);
    if (!json_is_array(disks) || count > MAX_DISKS) {
        rp_json_fail(json, "disks", "is not a list of disks");
        return false;
    }
    point->disks = rp_xcalloc(count + 1, sizeof *point->disks);
    point->disk_count = count;
    for (size_t i = 0; i < count; i++) {
        struct rp_json entry = {json_array_get(disks, i), json->what, json->err, false};
        if (!json_is_object(entry.object))
            rp_json_fail(&entry, "disks", "holds something else than disks");
        if (entry.failed || !decode_disk(&entry, &point->disks[i]))
            return false;
    }
    return true;
}

static bool decode_files(struct rp_json *json, struct rp_point *point)
{
    const json_t *files = json_object_get(json->object, "files");
    size_t count = json_array_size(files);
    if (files && (!json_is_array(files) || count > MAX_FILES)) {
        rp_json_fail(json, "files", "is not a list of files");
        return false;
    }
    point->files = rp_xcalloc(count + 1, sizeof *point->files);
    point->file_count = count;
    for (size_t i = 0; i < count; i++) {
        struct rp_json entry = {json_array_get(files, i), json->what, json->err, false};
        if (!json_is_object(entry.object))
            rp_json_fail(&entry, "files", "holds something else than files");
        else
            get_texts(&entry, &point->files[i], file_texts, COUNT(file_texts));
        if (entry.failed)
            return false;
    }
    return true;
}

int rp_point_decode(const void *text, size_t size, struct rp_point *point, struct rp_error *err)
{
    *point = (struct rp_point){0};
    RP_AUTO_JSON json_t *root = rp_json_parse(text, size, "restore point", err);
    if (!root)
        return -1;
    struct rp_json json = {root, "restore point", err, false};
    uint64_t version = rp_json_number(&json, "version", INT64_MAX, true);
    if (!json.failed && version != VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "restore point: version %llu of the document",
                       (unsigned long long)version);
    point->time_ns = (int64_t)rp_json_number(&json, "time_ns", INT64_MAX, true);
    get_texts(&json, point, point_texts, COUNT(point_texts));
    point->sequence = rp_json_number(&json, "sequence", INT64_MAX, false);
    point->order_ns = point->time_ns;
    point->started_ns = rp_json_number(&json, "started_ns", INT64_MAX, false);
    point->checkpoint_ns = rp_json_number(&json, "checkpoint_ns", INT64_MAX, false);
    point->read_ns = rp_json_number(&json, "read_ns", INT64_MAX, false);
    point->convert_ns = rp_json_number(&json, "convert_ns", INT64_MAX, false);
    point->bytes_read = rp_json_number(&json, "bytes_read", INT64_MAX, false);
    point->bytes_stored = rp_json_number(&json, "bytes_stored", INT64_MAX, false);
    point->new_blocks = rp_json_number(&json, "new_blocks", INT64_MAX, false);
    if (!json.failed && decode_disks(&json, point) && decode_files(&json, point))
        return 0;
    rp_point_clear(point);
    return -1;
}
