// What a class says about its instances and the parameters of its methods.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/schema.h"

bool rp_cim_class_is(const struct rp_cim_class *class, const struct rp_cim_class *ancestor)
{
    if (!ancestor)
        return false;
    while (class && class != ancestor)
        class = class->super;
    return class;
}

bool rp_cim_class_is_named(const struct rp_cim_class *class, const char *ancestor)
{
    while (class && strcasecmp(class->name, ancestor))
        class = class->super;
    return class;
}

const struct rp_cim_declaration *rp_cim_class_property(const struct rp_cim_class *class, const char *name)
{
    size_t low = 0, high = class->property_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcasecmp(class->properties[middle].name, name);
        if (!order)
            return &class->properties[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct rp_cim_method *rp_cim_class_method(const struct rp_cim_class *class, const char *name)
{
    for (size_t i = 0; i < class->method_count; i++)
        if (!strcasecmp(class->methods[i].name, name))
            return &class->methods[i];
    return NULL;
}

struct rp_cim_instance *rp_cim_class_instance(const struct rp_cim_class *class)
{
    struct rp_cim_instance *instance = rp_cim_instance_new(rp_cim_schema_namespace(class->schema), class->name);
    for (size_t i = 0; i < class->property_count; i++)
        rp_cim_set(instance, class->properties[i].name, rp_cim_value_copy(&class->properties[i].value));
    return instance;
}

// An instance that stood for a reference may have had more in it than its keys.
static void keep_keys(const struct rp_cim_schema *schema, struct rp_cim_path *path)
{
    const struct rp_cim_class *class = rp_cim_schema_class(schema, path->class_name);
    size_t kept = 0;
    for (size_t i = 0; class && i < path->key_count; i++) {
        const struct rp_cim_declaration *declared = rp_cim_class_property(class, path->keys[i].name);
        if (declared && declared->key) {
            path->keys[kept++] = path->keys[i];
        } else {
            free(path->keys[i].name);
            free(path->keys[i].value);
        }
    }
    path->key_count = class ? kept : path->key_count;
}

static int type_value(const struct rp_cim_schema *schema, const struct rp_cim_declaration *declaration,
                      struct rp_cim_value *value, struct rp_error *err)
{
    bool reference = declaration->type == RP_CIM_REFERENCE && value->type == RP_CIM_OBJECT;
    if (rp_cim_value_convert(value, declaration->type, declaration->array, err))
        return -1;
    if ((declaration->type != RP_CIM_OBJECT && !reference) || value->null)
        return 0;
    for (size_t i = 0; i < (value->array ? value->count : 1); i++) {
        struct rp_cim_value object = rp_cim_value_at(value, i);
        if (reference) {
            keep_keys(schema, object.one.path);
            continue;
        }
        const struct rp_cim_class *class = rp_cim_schema_class(schema, object.one.object->class_name);
        if (class && rp_cim_class_type(class, object.one.object, err))
            return -1;
    }
    return 0;
}

int rp_cim_class_type(const struct rp_cim_class *class, struct rp_cim_instance *instance, struct rp_error *err)
{
    for (size_t i = 0; i < instance->count; i++) {
        struct rp_cim_property *property = &instance->properties[i];
        if (!strncmp(property->name, "__", 2))
            continue; // __CLASS and its like: what WMI adds, no property of the class
        const struct rp_cim_declaration *declaration = rp_cim_class_property(class, property->name);
        if (!declaration)
            return rp_fail(err, RP_ERR_INVALID, "class %s has no property %.100s", class->name, property->name);
        if (type_value(class->schema, declaration, &property->value, err))
            return rp_context(err, "property %s of class %s", declaration->name, class->name);
    }
    return 0;
}

int rp_cim_method_type(const struct rp_cim_method *method, bool out, struct rp_cim_instance *parameters,
                       struct rp_error *err)
{
    const struct rp_cim_declaration result = {.name = (char *)"ReturnValue", .type = method->type, .out = true};
    for (size_t i = 0; i < parameters->count; i++) {
        struct rp_cim_property *given = &parameters->properties[i];
        const struct rp_cim_declaration *declaration = out && !strcasecmp(given->name, result.name) ? &result : NULL;
        for (size_t j = 0; j < method->parameter_count && !declaration; j++)
            if (!strcasecmp(method->parameters[j].name, given->name))
                declaration = &method->parameters[j];
        if (!declaration || !(out ? declaration->out : declaration->in))
            return rp_fail(err, RP_ERR_INVALID, "method %s has no %s parameter %.100s", method->name,
                           out ? "out" : "in", given->name);
        if (type_value(method->schema, declaration, &given->value, err))
            return rp_context(err, "parameter %s of method %s", declaration->name, method->name);
    }
    return 0;
}

struct rp_cim_path *rp_cim_class_path(const struct rp_cim_class *class, const struct rp_cim_instance *instance)
{
    struct rp_cim_path *path = NULL;
    if (class->singleton) {
        path = rp_cim_path_new(rp_cim_schema_namespace(class->schema), class->name);
        path->singleton = true;
        return path;
    }
    for (size_t i = 0; i < class->property_count; i++) {
        if (!class->properties[i].key)
            continue;
        if (!path)
            path = rp_cim_path_new(rp_cim_schema_namespace(class->schema), class->name);
        const struct rp_cim_value *value = rp_cim_get(instance, class->properties[i].name);
        if (!value || value->null || value->array)
            continue;
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        rp_cim_value_text(value, &text);
        rp_cim_path_set(path, class->properties[i].name, rp_buf_text(&text));
    }
    return path;
}
