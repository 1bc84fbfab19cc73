#include "cim/instance.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct rp_cim_instance *rp_cim_instance_new(const char *name_space, const char *class_name)
{
    struct rp_cim_instance *instance = rp_xcalloc(1, sizeof *instance);
    instance->class_name = rp_xstrdup(class_name);
    instance->name_space = name_space ? rp_xstrdup(name_space) : NULL;
    return instance;
}

void rp_cim_instance_free(struct rp_cim_instance *instance)
{
    if (!instance)
        return;
    for (size_t i = 0; i < instance->count; i++) {
        free(instance->properties[i].name);
        rp_cim_value_clear(&instance->properties[i].value);
    }
    free(instance->properties);
    rp_cim_path_free(instance->path);
    free(instance->class_name);
    free(instance->name_space);
    free(instance);
}

struct rp_cim_instance *rp_cim_instance_copy(const struct rp_cim_instance *instance)
{
    struct rp_cim_instance *copy = rp_cim_instance_new(instance->name_space, instance->class_name);
    copy->path = instance->path ? rp_cim_path_copy(instance->path) : NULL;
    copy->count = copy->capacity = instance->count;
    copy->properties = rp_xmalloc(copy->count * sizeof *copy->properties);
    for (size_t i = 0; i < copy->count; i++) {
        copy->properties[i].name = rp_xstrdup(instance->properties[i].name);
        copy->properties[i].value = rp_cim_value_copy(&instance->properties[i].value);
    }
    return copy;
}

// Where a name stands or would stand.
static size_t place_of(const struct rp_cim_instance *instance, const char *name, bool *found)
{
    size_t low = 0, high = instance->count;
    // instances are mostly built in the order of their names
    if (high && strcasecmp(instance->properties[high - 1].name, name) < 0)
        low = high;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcasecmp(instance->properties[middle].name, name);
        *found |= !order;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void rp_cim_set(struct rp_cim_instance *instance, const char *name, struct rp_cim_value value)
{
    bool found;
    size_t i = place_of(instance, name, &found);
    value.null = rp_cim_value_is_null(&value);
    if (found) {
        rp_cim_value_clear(&instance->properties[i].value);
        instance->properties[i].value = value;
        return;
    }
    if (instance->count == instance->capacity) {
        instance->capacity = instance->capacity ? instance->capacity * 2 : 8;
        instance->properties = rp_xrealloc(instance->properties, instance->capacity * sizeof *instance->properties);
    }
    memmove(instance->properties + i + 1, instance->properties + i,
            (instance->count - i) * sizeof *instance->properties);
    instance->properties[i] = (struct rp_cim_property){rp_xstrdup(name), value};
    instance->count++;
}

const struct rp_cim_value *rp_cim_get(const struct rp_cim_instance *instance, const char *name)
{
    bool found;
    size_t i = place_of(instance, name, &found);
    return found ? &instance->properties[i].value : NULL;
}

static struct rp_cim_value element(const struct rp_cim_instance *instance, const char *name, size_t i)
{
    const struct rp_cim_value *value = rp_cim_get(instance, name);
    return value ? rp_cim_value_at(value, i) : rp_cim_null(RP_CIM_NONE, false);
}

static bool is_text(const struct rp_cim_value *value)
{
    return !value->null && (value->type == RP_CIM_STRING || value->type == RP_CIM_NONE);
}

const char *rp_cim_get_text_at(const struct rp_cim_instance *instance, const char *name, size_t i)
{
    struct rp_cim_value value = element(instance, name, i);
    return is_text(&value) ? value.one.text : NULL;
}

const char *rp_cim_get_text(const struct rp_cim_instance *instance, const char *name)
{
    return rp_cim_get_text_at(instance, name, 0);
}

uint64_t rp_cim_get_unsigned_at(const struct rp_cim_instance *instance, const char *name, size_t i, uint64_t otherwise)
{
    struct rp_cim_value value = element(instance, name, i), number;
    if (value.null)
        return otherwise;
    if (rp_cim_type_is_unsigned(value.type))
        return value.one.u;
    if (rp_cim_type_is_signed(value.type))
        return value.one.s >= 0 ? (uint64_t)value.one.s : otherwise;
    if (!is_text(&value) || rp_cim_value_parse(RP_CIM_UINT64, value.one.text, &number, NULL))
        return otherwise;
    return number.one.u;
}

uint64_t rp_cim_get_unsigned(const struct rp_cim_instance *instance, const char *name, uint64_t otherwise)
{
    return rp_cim_get_unsigned_at(instance, name, 0, otherwise);
}

bool rp_cim_get_boolean(const struct rp_cim_instance *instance, const char *name, bool otherwise)
{
    struct rp_cim_value value = element(instance, name, 0), parsed;
    if (value.null)
        return otherwise;
    if (value.type == RP_CIM_BOOLEAN)
        return value.one.boolean;
    if (!is_text(&value) || rp_cim_value_parse(RP_CIM_BOOLEAN, value.one.text, &parsed, NULL))
        return otherwise;
    return parsed.one.boolean;
}

bool rp_cim_get_datetime(const struct rp_cim_instance *instance, const char *name, struct rp_cim_datetime *t)
{
    struct rp_cim_value value = element(instance, name, 0), parsed;
    if (!value.null && value.type == RP_CIM_DATETIME) {
        *t = value.one.datetime;
        return true;
    }
    if (!is_text(&value) || rp_cim_value_parse(RP_CIM_DATETIME, value.one.text, &parsed, NULL))
        return false;
    *t = parsed.one.datetime;
    return true;
}

const struct rp_cim_path *rp_cim_get_path(const struct rp_cim_instance *instance, const char *name)
{
    return rp_cim_get_path_at(instance, name, 0);
}

const struct rp_cim_path *rp_cim_get_path_at(const struct rp_cim_instance *instance, const char *name, size_t i)
{
    struct rp_cim_value value = element(instance, name, i);
    return !value.null && value.type == RP_CIM_REFERENCE ? value.one.path : NULL;
}

size_t rp_cim_get_count(const struct rp_cim_instance *instance, const char *name)
{
    const struct rp_cim_value *value = rp_cim_get(instance, name);
    return !value || value->null ? 0 : value->array ? value->count : 1;
}

void rp_cim_instances_push(struct rp_cim_instances *list, struct rp_cim_instance *instance)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 8;
        list->items = rp_xrealloc(list->items, list->capacity * sizeof *list->items);
    }
    list->items[list->count++] = instance;
}

void rp_cim_instances_clear(struct rp_cim_instances *list)
{
    for (size_t i = 0; i < list->count; i++)
        rp_cim_instance_free(list->items[i]);
    free(list->items);
    *list = (struct rp_cim_instances){0};
}
