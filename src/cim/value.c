#include "cim/value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "cim/instance.h"
#include "cim/path.h"

static const char *const type_names[] = {
    [RP_CIM_NONE] = "", [RP_CIM_BOOLEAN] = "boolean", [RP_CIM_UINT8] = "uint8", [RP_CIM_SINT8] = "sint8",
    [RP_CIM_UINT16] = "uint16", [RP_CIM_SINT16] = "sint16", [RP_CIM_UINT32] = "uint32", [RP_CIM_SINT32] = "sint32",
    [RP_CIM_UINT64] = "uint64", [RP_CIM_SINT64] = "sint64", [RP_CIM_REAL32] = "real32", [RP_CIM_REAL64] = "real64",
    [RP_CIM_CHAR16] = "char16", [RP_CIM_STRING] = "string", [RP_CIM_DATETIME] = "datetime",
    [RP_CIM_REFERENCE] = "reference", [RP_CIM_OBJECT] = "object",
};
#define TYPES (sizeof type_names / sizeof *type_names)

const char *rp_cim_type_name(enum rp_cim_type type)
{
    return type_names[type];
}

enum rp_cim_type rp_cim_type_from_name(const char *name)
{
    for (size_t i = RP_CIM_NONE + 1; i < TYPES; i++)
        if (!strcasecmp(type_names[i], name))
            return (enum rp_cim_type)i;
    return RP_CIM_NONE;
}

bool rp_cim_type_is_unsigned(enum rp_cim_type type)
{
    return type == RP_CIM_UINT8 || type == RP_CIM_UINT16 || type == RP_CIM_UINT32 || type == RP_CIM_UINT64;
}

bool rp_cim_type_is_signed(enum rp_cim_type type)
{
    return type == RP_CIM_SINT8 || type == RP_CIM_SINT16 || type == RP_CIM_SINT32 || type == RP_CIM_SINT64;
}

static void free_scalar(enum rp_cim_type type, union rp_cim_scalar *scalar)
{
    if (type == RP_CIM_STRING || type == RP_CIM_NONE)
        free(scalar->text);
    else if (type == RP_CIM_REFERENCE)
        rp_cim_path_free(scalar->path);
    else if (type == RP_CIM_OBJECT)
        rp_cim_instance_free(scalar->object);
}

void rp_cim_value_clear(struct rp_cim_value *value)
{
    if (value->array) {
        for (uint32_t i = 0; i < value->count; i++)
            free_scalar(value->type, &value->many[i]);
        free(value->many);
    } else if (!value->null) {
        free_scalar(value->type, &value->one);
    }
    *value = (struct rp_cim_value){0};
}

static union rp_cim_scalar copy_scalar(enum rp_cim_type type, const union rp_cim_scalar *scalar)
{
    union rp_cim_scalar copy = *scalar;
    if (type == RP_CIM_STRING || type == RP_CIM_NONE)
        copy.text = scalar->text ? rp_xstrdup(scalar->text) : NULL;
    else if (type == RP_CIM_REFERENCE)
        copy.path = rp_cim_path_copy(scalar->path);
    else if (type == RP_CIM_OBJECT)
        copy.object = rp_cim_instance_copy(scalar->object);
    return copy;
}

struct rp_cim_value rp_cim_value_copy(const struct rp_cim_value *value)
{
    struct rp_cim_value copy = *value;
    if (value->array) {
        copy.many = value->count ? rp_xmalloc(value->count * sizeof *copy.many) : NULL;
        copy.capacity = value->count;
        for (uint32_t i = 0; i < value->count; i++)
            copy.many[i] = copy_scalar(value->type, &value->many[i]);
    } else if (!value->null) {
        copy.one = copy_scalar(value->type, &value->one);
    }
    return copy;
}

void rp_cim_value_push(struct rp_cim_value *array, struct rp_cim_value *item)
{
    if (array->count >= array->capacity) {
        array->capacity = array->count ? array->count * 2 : 4;
        array->many = rp_xrealloc(array->many, array->capacity * sizeof *array->many);
    }
    array->many[array->count++] = item->one;
    array->null = false;
    *item = (struct rp_cim_value){0};
}

struct rp_cim_value rp_cim_value_at(const struct rp_cim_value *value, size_t i)
{
    if (rp_cim_value_is_null(value) || i >= (value->array ? value->count : 1))
        return rp_cim_null(value->type, false);
    return (struct rp_cim_value){.type = value->type, .one = value->array ? value->many[i] : value->one};
}

struct rp_cim_value rp_cim_null(enum rp_cim_type type, bool array)
{
    return (struct rp_cim_value){.type = type, .array = array, .null = true};
}

struct rp_cim_value rp_cim_boolean(bool value)
{
    return (struct rp_cim_value){.type = RP_CIM_BOOLEAN, .one.boolean = value};
}

struct rp_cim_value rp_cim_unsigned(enum rp_cim_type type, uint64_t value)
{
    return (struct rp_cim_value){.type = type, .one.u = value};
}

struct rp_cim_value rp_cim_signed(enum rp_cim_type type, int64_t value)
{
    return (struct rp_cim_value){.type = type, .one.s = value};
}

struct rp_cim_value rp_cim_string(const char *text)
{
    return text ? (struct rp_cim_value){.type = RP_CIM_STRING, .one.text = rp_xstrdup(text)}
                : rp_cim_null(RP_CIM_STRING, false);
}

struct rp_cim_value rp_cim_reference(struct rp_cim_path *path)
{
    return path ? (struct rp_cim_value){.type = RP_CIM_REFERENCE, .one.path = path}
                : rp_cim_null(RP_CIM_REFERENCE, false);
}

struct rp_cim_value rp_cim_object(struct rp_cim_instance *object)
{
    return object ? (struct rp_cim_value){.type = RP_CIM_OBJECT, .one.object = object}
                  : rp_cim_null(RP_CIM_OBJECT, false);
}

struct rp_cim_value rp_cim_moment(int64_t ns)
{
    return (struct rp_cim_value){.type = RP_CIM_DATETIME, .one.datetime.microseconds = ns / 1000 - (ns % 1000 < 0)};
}

struct rp_cim_value rp_cim_duration(int64_t ns)
{
    const struct rp_cim_datetime t = {.interval = true, .microseconds = ns / 1000};
    return (struct rp_cim_value){.type = RP_CIM_DATETIME, .one.datetime = t};
}

void rp_cim_value_text(const struct rp_cim_value *value, struct rp_buf *out)
{
    char time[RP_CIM_DATETIME_TEXT];
    if (rp_cim_type_is_unsigned(value->type) || value->type == RP_CIM_CHAR16)
        rp_buf_printf(out, "%llu", (unsigned long long)value->one.u);
    else if (rp_cim_type_is_signed(value->type))
        rp_buf_printf(out, "%lld", (long long)value->one.s);
    else if (value->type == RP_CIM_BOOLEAN)
        rp_buf_printf(out, "%s", value->one.boolean ? "TRUE" : "FALSE");
    else if ((value->type == RP_CIM_REAL32 || value->type == RP_CIM_REAL64) && !isfinite(value->one.real))
        rp_buf_printf(out, "%s", isnan(value->one.real) ? "NaN" : value->one.real < 0 ? "-INF" : "INF");
    else if (value->type == RP_CIM_REAL32 || value->type == RP_CIM_REAL64)
        rp_buf_printf(out, "%.*g", value->type == RP_CIM_REAL32 ? 9 : 17, value->one.real);
    else if (value->type == RP_CIM_DATETIME)
        rp_buf_printf(out, "%s", rp_cim_datetime_format(&value->one.datetime, time));
    else if (value->type == RP_CIM_REFERENCE)
        rp_cim_path_format(value->one.path, out);
    else if (value->type == RP_CIM_OBJECT)
        rp_cimxml_write(value->one.object, out);
    else
        rp_buf_append(out, value->one.text, strlen(value->one.text));
}

// A number without its sign: decimal, 0x… or …b (DSP0004 annex A).
static bool parse_magnitude(const char *p, size_t length, uint64_t *out)
{
    unsigned base = 10;
    if (length > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
        base = 16, p += 2, length -= 2;
    else if (length > 1 && (p[length - 1] == 'b' || p[length - 1] == 'B'))
        base = 2, length--;
    *out = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = p[i] >= '0' && p[i] <= '9' ? (unsigned)(p[i] - '0')
                         : (p[i] | 32) >= 'a' && (p[i] | 32) <= 'f' ? (unsigned)((p[i] | 32) - 'a') + 10 : 16;
        if (digit >= base || __builtin_mul_overflow(*out, (uint64_t)base, out) ||
            __builtin_add_overflow(*out, (uint64_t)digit, out))
            return false;
    }
    return length > 0;
}

static bool parse_integer(enum rp_cim_type type, const char *p, size_t length, union rp_cim_scalar *out)
{
    static const uint64_t greatest[TYPES] = {
        [RP_CIM_UINT8] = UINT8_MAX, [RP_CIM_UINT16] = UINT16_MAX, [RP_CIM_CHAR16] = UINT16_MAX,
        [RP_CIM_UINT32] = UINT32_MAX, [RP_CIM_UINT64] = UINT64_MAX, [RP_CIM_SINT8] = INT8_MAX,
        [RP_CIM_SINT16] = INT16_MAX, [RP_CIM_SINT32] = INT32_MAX, [RP_CIM_SINT64] = INT64_MAX,
    };
    bool negative = length && *p == '-', sign = length && (negative || *p == '+');
    uint64_t magnitude;
    if (!parse_magnitude(p + sign, length - sign, &magnitude))
        return false;
    if (!rp_cim_type_is_signed(type)) {
        out->u = magnitude;
        return magnitude <= greatest[type] && (!negative || !magnitude);
    }
    out->s = negative ? (int64_t)-magnitude : (int64_t)magnitude;
    return magnitude <= greatest[type] + negative;
}

static bool parse_real(const char *p, size_t length, double *out)
{
    char text[64], *end;
    if (!length || length >= sizeof text)
        return false;
    memcpy(text, p, length);
    text[length] = 0;
    if (!strcmp(text, "INF") || !strcmp(text, "-INF") || !strcmp(text, "NaN")) { // XML Schema's spelling
        *out = *text == 'N' ? NAN : *text == '-' ? -INFINITY : INFINITY;
        return true;
    }
    *out = strtod(text, &end);
    return strspn(text, "0123456789+-.eE") == length && !*end;
}

static bool parse_boolean(const char *p, size_t length, bool *out)
{
    *out = (length == 4 && !strncasecmp(p, "true", 4)) || (length == 1 && *p == '1');
    return *out || (length == 5 && !strncasecmp(p, "false", 5)) || (length == 1 && *p == '0');
}

int rp_cim_value_parse(enum rp_cim_type type, const char *text, struct rp_cim_value *value, struct rp_error *err)
{
    static const char blanks[] = " \t\r\n";
    struct rp_cim_value parsed = {.type = type};
    if (type == RP_CIM_STRING || type == RP_CIM_NONE) {
        parsed.one.text = rp_xstrdup(text);
        *value = parsed;
        return 0;
    }
    const char *start = text + strspn(text, blanks);
    size_t length = strlen(start);
    while (length && strchr(blanks, start[length - 1]))
        length--;
    RP_AUTO_FREE char *trimmed = NULL;
    if (type == RP_CIM_DATETIME || type == RP_CIM_REFERENCE) {
        trimmed = rp_xmalloc(length + 1);
        memcpy(trimmed, start, length);
        trimmed[length] = 0;
    }
    bool good = false;
    if (type == RP_CIM_BOOLEAN)
        good = parse_boolean(start, length, &parsed.one.boolean);
    else if (type == RP_CIM_REAL32 || type == RP_CIM_REAL64)
        good = parse_real(start, length, &parsed.one.real);
    else if (type == RP_CIM_DATETIME)
        good = !rp_cim_datetime_parse(trimmed, &parsed.one.datetime, NULL);
    else if (type == RP_CIM_REFERENCE)
        good = (parsed.one.path = rp_cim_path_parse(trimmed, NULL));
    else if (type == RP_CIM_OBJECT)
        good = (parsed.one.object = rp_cimxml_parse(start, length, NULL));
    else
        good = parse_integer(type, start, length, &parsed.one);
    if (!good)
        return rp_fail(err, RP_ERR_INVALID, "\"%.60s\" is no %s", text, rp_cim_type_name(type));
    *value = parsed;
    return 0;
}

// An instance that stands where a reference belongs names its object by the key properties in it (facts 2.6, OMI).
static struct rp_cim_path *path_from(const struct rp_cim_instance *instance)
{
    struct rp_cim_path *path = rp_cim_path_new(instance->name_space, instance->class_name);
    for (size_t i = 0; i < instance->count; i++) {
        const struct rp_cim_value *key = &instance->properties[i].value;
        if (key->null || key->array || key->type == RP_CIM_OBJECT)
            continue;
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        rp_cim_value_text(key, &text);
        rp_cim_path_set(path, instance->properties[i].name, rp_buf_text(&text));
    }
    return path;
}

static int convert_scalar(const struct rp_cim_value *from, enum rp_cim_type type, struct rp_cim_value *to,
                          struct rp_error *err)
{
    if (from->type == type) {
        *to = rp_cim_value_copy(from);
        return 0;
    }
    if (from->type == RP_CIM_OBJECT && type == RP_CIM_REFERENCE) {
        *to = rp_cim_reference(path_from(from->one.object));
        return 0;
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(from, &text);
    return rp_cim_value_parse(type, rp_buf_text(&text), to, err);
}

// An element without text, where no text belongs.
static bool is_blank(const struct rp_cim_value *value, enum rp_cim_type type)
{
    return value->type == RP_CIM_NONE && !value->array && type != RP_CIM_STRING && type != RP_CIM_NONE &&
           !value->one.text[strspn(value->one.text, " \t\r\n")];
}

int rp_cim_value_convert(struct rp_cim_value *value, enum rp_cim_type type, bool array, struct rp_error *err)
{
    bool null = rp_cim_value_is_null(value) || is_blank(value, type);
    if (!null && value->type == type && value->array == array)
        return 0;
    size_t count = null ? 0 : value->array ? value->count : 1;
    if (!array && count > 1)
        return rp_fail(err, RP_ERR_INVALID, "%zu values where one %s belongs", count, rp_cim_type_name(type));
    struct rp_cim_value converted = rp_cim_null(type, array);
    converted.null = null || (!array && !count);
    for (size_t i = 0; i < count; i++) {
        struct rp_cim_value from = rp_cim_value_at(value, i), to = {0};
        if (convert_scalar(&from, type, &to, err)) {
            rp_cim_value_clear(&converted);
            return -1;
        }
        if (array)
            rp_cim_value_push(&converted, &to);
        else
            converted = to;
    }
    rp_cim_value_clear(value);
    *value = converted;
    return 0;
}

static bool instance_equal(const struct rp_cim_instance *a, const struct rp_cim_instance *b)
{
    if (strcasecmp(a->class_name, b->class_name) || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcasecmp(a->properties[i].name, b->properties[i].name) ||
            !rp_cim_value_equal(&a->properties[i].value, &b->properties[i].value))
            return false;
    return true;
}

static bool scalar_equal(enum rp_cim_type type, const union rp_cim_scalar *a, const union rp_cim_scalar *b)
{
    switch (type) {
    case RP_CIM_BOOLEAN:
        return a->boolean == b->boolean;
    case RP_CIM_REAL32:
    case RP_CIM_REAL64:
        return a->real == b->real;
    case RP_CIM_STRING:
    case RP_CIM_NONE:
        return !strcmp(a->text, b->text);
    case RP_CIM_DATETIME:
        return a->datetime.interval == b->datetime.interval && a->datetime.microseconds == b->datetime.microseconds;
    case RP_CIM_REFERENCE:
        return rp_cim_path_equal(a->path, b->path);
    case RP_CIM_OBJECT:
        return instance_equal(a->object, b->object);
    default:
        return a->u == b->u;
    }
}

bool rp_cim_value_equal(const struct rp_cim_value *a, const struct rp_cim_value *b)
{
    bool null = rp_cim_value_is_null(a);
    if (a->type != b->type || a->array != b->array || null != rp_cim_value_is_null(b))
        return false;
    if (null)
        return true;
    if (!a->array)
        return scalar_equal(a->type, &a->one, &b->one);
    bool equal = a->count == b->count;
    for (uint32_t i = 0; equal && i < a->count; i++)
        equal = scalar_equal(a->type, &a->many[i], &b->many[i]);
    return equal;
}
