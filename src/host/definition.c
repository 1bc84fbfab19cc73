// A VM as text: the document of its settings, and the definition that an export carries (docs/formats/export.md). The text may
// have been anywhere, so that nothing of it is taken as it stands.
#include <jansson.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/num.h"
#include "host/internal.h"

#define MAX_NUMBER 65535 // of a disk

void rp_local_definition_clear(struct rp_local_definition *d)
{
    for (size_t i = 0; i < d->disk_count; i++)
        free(d->disks[i].file);
    free(d->name);
    free(d->extras);
    free(d->point_name);
    *d = (struct rp_local_definition){0};
}

struct rp_guid rp_local_definition_content(const char *rct_id)
{
    struct rp_rct_id id;
    if (!*rct_id || rp_rct_id_parse(rct_id, &id, NULL))
        return (struct rp_guid){{0}};
    // Neither a tracking GUID nor that of another epoch.
    rp_put_le32(id.tracking.bytes + 12, rp_get_le32(id.tracking.bytes + 12) ^ (id.epoch | 0x80000000u));
    return id.tracking;
}

static int broken(struct rp_error *err, const char *key)
{
    return rp_fail(err, RP_ERR_CORRUPT, "the definition of a VM: \"%s\" is missing or makes no sense", key);
}

static int text_of(json_t *object, const char *key, size_t most, const char **out, struct rp_error *err)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || json_string_length(value) > most)
        return broken(err, key);
    *out = json_string_value(value); // without a NUL inside: jansson refuses them
    return 0;
}

// Absent and null are "".
static int optional_text(json_t *object, const char *key, size_t most, const char **out, struct rp_error *err)
{
    json_t *value = json_object_get(object, key);
    *out = "";
    return !value || json_is_null(value) ? 0 : text_of(object, key, most, out, err);
}

static int number_of(json_t *object, const char *key, uint64_t most, uint64_t *out, struct rp_error *err)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > most)
        return broken(err, key);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int guid_of(json_t *object, const char *key, bool needed, struct rp_guid *out, struct rp_error *err)
{
    const char *text = "";
    *out = (struct rp_guid){{0}};
    if (needed ? text_of(object, key, RP_GUID_TEXT, &text, err) : optional_text(object, key, RP_GUID_TEXT, &text, err))
        return -1;
    return (*text || needed) && rp_guid_parse(text, out, NULL) ? broken(err, key) : 0;
}

static int time_of(json_t *object, const char *key, int64_t *out, struct rp_error *err)
{
    const char *text = "";
    return text_of(object, key, RP_TIME_TEXT, &text, err) ? -1 : rp_time_parse(text, out, NULL) ? broken(err, key) : 0;
}

// A name and nothing else: it is looked for in one folder, and leads nowhere else.
static bool is_bare(const char *file)
{
    return *file && strcmp(file, ".") && strcmp(file, "..") && !strpbrk(file, "/\\");
}

static int parse_export(json_t *from, struct rp_local_definition_disk *disk, struct rp_error *err)
{
    const char *file = "", *rct_id = "";
    struct rp_rct_id id;
    if (optional_text(from, "file", 255, &file, err) ||
        optional_text(from, "rct_id", RP_RCT_ID_TEXT - 1, &rct_id, err) ||
        guid_of(from, "data_write_guid", false, &disk->content, err))
        return -1;
    if (*file && !is_bare(file))
        return rp_fail(err, RP_ERR_CORRUPT, "the definition of a VM: file \"%.80s\" of disk%u is no bare name", file,
                       disk->number);
    if (*rct_id && rp_rct_id_parse(rct_id, &id, NULL))
        return broken(err, "rct_id");
    disk->file = *file ? rp_xstrdup(file) : NULL;
    disk->differencing = json_is_true(json_object_get(from, "differencing"));
    snprintf(disk->rct_id, sizeof disk->rct_id, "%s", rct_id);
    return 0;
}

static int parse_disk(json_t *from, struct rp_local_definition *d, struct rp_error *err)
{
    uint64_t number = 0, logical = 0, physical = 0, block = 0;
    struct rp_local_definition_disk *disk = &d->disks[d->disk_count++];
    *disk = (struct rp_local_definition_disk){0};
    if (number_of(from, "number", MAX_NUMBER, &number, err) || guid_of(from, "disk_id", true, &disk->disk_id, err) ||
        number_of(from, "size", RP_VHDX_MAX_SIZE, &disk->size, err) ||
        number_of(from, "logical_sector", 4096, &logical, err) ||
        number_of(from, "physical_sector", 4096, &physical, err) ||
        number_of(from, "block_size", 256 * RP_MIB, &block, err))
        return -1;
    disk->number = (uint32_t)number;
    disk->logical = (uint32_t)logical;
    disk->physical = (uint32_t)physical;
    disk->block = (uint32_t)block;
    for (size_t i = 0; i + 1 < d->disk_count; i++)
        if (d->disks[i].number == disk->number)
            return broken(err, "number");
    return d->exported ? parse_export(from, disk, err) : 0;
}

static int parse_root(json_t *root, struct rp_local_definition *d, struct rp_error *err)
{
    const char *format = "", *name = "", *extras = "", *point = "";
    struct rp_guid id, controller;
    uint64_t generation = 0;
    json_t *disks = json_object_get(root, "disks"), *snapshot = json_object_get(root, "snapshot"), *disk;
    if (text_of(root, "format", 64, &format, err))
        return -1;
    d->exported = !strcmp(format, "refpoint export 1");
    if (!d->exported && strcmp(format, "refpoint offline VM 1"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "the definition of a VM: format \"%.64s\" is none of this host",
                       format);
    if (guid_of(root, "id", true, &id, err) || guid_of(root, "controller", false, &controller, err) ||
        text_of(root, "name", 255, &name, err) || rp_local_name_check(name, err) ||
        optional_text(root, "extras", RP_LOCAL_EXTRAS_MAX, &extras, err) ||
        number_of(root, "generation", 2, &generation, err) || time_of(root, "created", &d->created, err))
        return -1;
    if (!generation)
        return broken(err, "generation");
    if (snapshot && (optional_text(snapshot, "name", 4096, &point, err) ||
                     time_of(snapshot, "time", &d->point_time, err)))
        return -1;
    rp_local_guid_text(&id, d->id);
    if (!rp_guid_is_zero(&controller))
        rp_local_guid_text(&controller, d->controller);
    d->name = rp_xstrdup(name);
    d->extras = rp_xstrdup(extras);
    d->point_name = rp_xstrdup(snapshot ? point : "");
    d->generation = (int64_t)generation;
    if (!json_is_array(disks) || json_array_size(disks) > RP_ENGINE_MAX_DISKS)
        return broken(err, "disks");
    size_t i;
    json_array_foreach(disks, i, disk)
        if (parse_disk(disk, d, err))
            return -1;
    return 0;
}

int rp_local_definition_parse(const char *text, size_t size, struct rp_local_definition *definition,
                              struct rp_error *err)
{
    *definition = (struct rp_local_definition){0};
    json_error_t why;
    if (size > RP_LOCAL_DEFINITION_MAX)
        return rp_fail(err, RP_ERR_CORRUPT, "the definition of a VM: %zu bytes", size);
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    int failed = !root ? rp_fail(err, RP_ERR_CORRUPT, "the definition of a VM: line %d: %s", why.line, why.text)
                       : parse_root(root, definition, err);
    json_decref(root);
    if (failed)
        rp_local_definition_clear(definition);
    return failed;
}

int rp_local_definition_read(struct rp_local *local, const char *path, struct rp_local_definition *definition,
                             struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (rp_fs_read_file(local->fs, path, RP_LOCAL_DEFINITION_MAX, &text, err))
        return -1;
    if (rp_local_definition_parse(text.data ? (const char *)text.data : "", text.size, definition, err))
        return rp_context(err, "%s", path);
    if (definition->exported)
        return 0;
    rp_local_definition_clear(definition);
    return rp_fail(err, RP_ERR_INVALID, "%s: not the definition of an export", path);
}
