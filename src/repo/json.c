#include "repo/json.h"

#include <string.h>

#include "repo/crypto.h"

json_t *rp_json_parse(const void *text, size_t size, const char *what, struct rp_error *err)
{
    json_error_t why;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (json && json_is_object(json))
        return json;
    rp_fail(err, RP_ERR_CORRUPT, "%s: %s", what, json ? "not a JSON object" : why.text);
    json_decref(json);
    return NULL;
}

static int append(const char *data, size_t size, void *out)
{
    rp_buf_append(out, data, size);
    return 0;
}

void rp_json_write(const json_t *object, struct rp_buf *out) { json_dump_callback(object, append, out, JSON_COMPACT); }

void rp_json_fail(struct rp_json *json, const char *field, const char *why)
{
    json->failed = true;
    rp_fail(json->err, RP_ERR_CORRUPT, "%s: \"%s\" %s", json->what, field, why);
}

static const json_t *field_of(struct rp_json *json, const char *field, bool required)
{
    const json_t *value = json_object_get(json->object, field);
    if (json_is_null(value))
        value = NULL;
    if (!value && required)
        rp_json_fail(json, field, "is missing");
    return value;
}

char *rp_json_text(struct rp_json *json, const char *field, size_t limit, bool required)
{
    const json_t *value = field_of(json, field, required);
    if (!value)
        return NULL;
    if (!json_is_string(value))
        rp_json_fail(json, field, "is not a text");
    else if (json_string_length(value) > limit)
        rp_json_fail(json, field, "is too long");
    else
        return rp_xstrdup(json_string_value(value)); // jansson refuses embedded NULs
    return NULL;
}

uint64_t rp_json_number(struct rp_json *json, const char *field, uint64_t limit, bool required)
{
    const json_t *value = field_of(json, field, required);
    if (!value)
        return 0;
    if (json_is_integer(value) && json_integer_value(value) >= 0 && (uint64_t)json_integer_value(value) <= limit)
        return (uint64_t)json_integer_value(value);
    rp_json_fail(json, field, "is not a number in its range");
    return 0;
}

bool rp_json_flag(struct rp_json *json, const char *field)
{
    const json_t *value = field_of(json, field, true);
    if (value && !json_is_boolean(value))
        rp_json_fail(json, field, "is neither true nor false");
    return json_is_true(value);
}

void rp_json_guid(struct rp_json *json, const char *field, struct rp_guid *guid)
{
    RP_AUTO_FREE char *text = rp_json_text(json, field, RP_GUID_TEXT, true);
    if (text && rp_guid_parse(text, guid, NULL))
        rp_json_fail(json, field, "is not a GUID");
}

void rp_json_hex(struct rp_json *json, const char *field, void *data, size_t size)
{
    RP_AUTO_FREE char *text = rp_json_text(json, field, 2 * size, true);
    if (text && (strlen(text) != 2 * size || !rp_unhex(text, data, size)))
        rp_json_fail(json, field, "is not hex of its length");
}

void rp_json_set_text(json_t *object, const char *field, const char *text)
{
    if (text)
        json_object_set_new(object, field, json_string(text));
}

void rp_json_set_number(json_t *object, const char *field, uint64_t value)
{
    json_object_set_new(object, field, json_integer((json_int_t)value));
}

void rp_json_set_hex(json_t *object, const char *field, const void *data, size_t size)
{
    RP_AUTO_FREE char *text = rp_xmalloc(RP_HEX(size));
    json_object_set_new(object, field, json_string(rp_hex(data, size, text)));
}
