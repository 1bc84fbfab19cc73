#include "cim/schema_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void rp_cim_declaration_clear(struct rp_cim_declaration *declaration)
{
    free(declaration->name);
    free(declaration->object_class);
    rp_cim_value_clear(&declaration->value);
    *declaration = (struct rp_cim_declaration){0};
}

void rp_cim_method_clear(struct rp_cim_method *method)
{
    for (size_t i = 0; i < method->parameter_count; i++)
        rp_cim_declaration_clear(&method->parameters[i]);
    free(method->parameters);
    free(method->name);
    *method = (struct rp_cim_method){0};
}

static struct rp_cim_declaration declaration_copy(const struct rp_cim_declaration *from)
{
    struct rp_cim_declaration copy = *from;
    copy.name = rp_xstrdup(from->name);
    copy.object_class = from->object_class ? rp_xstrdup(from->object_class) : NULL;
    copy.value = rp_cim_value_copy(&from->value);
    return copy;
}

struct rp_cim_class *rp_cim_class_new(const struct rp_cim_schema *schema, const char *name,
                                      const struct rp_cim_class *super)
{
    struct rp_cim_class *class = rp_xcalloc(1, sizeof *class);
    class->name = rp_xstrdup(name);
    class->schema = schema;
    class->super = super;
    if (!super)
        return class;
    class->association = super->association;
    class->singleton = super->singleton;
    class->properties = rp_xcalloc(super->property_count, sizeof *class->properties);
    for (; class->property_count < super->property_count; class->property_count++)
        class->properties[class->property_count] = declaration_copy(&super->properties[class->property_count]);
    class->methods = rp_xcalloc(super->method_count, sizeof *class->methods);
    for (; class->method_count < super->method_count; class->method_count++) {
        const struct rp_cim_method *from = &super->methods[class->method_count];
        struct rp_cim_method *to = &class->methods[class->method_count];
        *to = (struct rp_cim_method){.name = rp_xstrdup(from->name), .schema = schema, .type = from->type};
        to->parameters = rp_xcalloc(from->parameter_count, sizeof *to->parameters);
        for (; to->parameter_count < from->parameter_count; to->parameter_count++)
            to->parameters[to->parameter_count] = declaration_copy(&from->parameters[to->parameter_count]);
    }
    return class;
}

void rp_cim_class_free(struct rp_cim_class *class)
{
    if (!class)
        return;
    for (size_t i = 0; i < class->property_count; i++)
        rp_cim_declaration_clear(&class->properties[i]);
    for (size_t i = 0; i < class->method_count; i++)
        rp_cim_method_clear(&class->methods[i]);
    free(class->properties);
    free(class->methods);
    free(class->name);
    free(class);
}

void rp_cim_class_add_property(struct rp_cim_class *class, struct rp_cim_declaration *property)
{
    size_t i = 0;
    int order = -1;
    while (i < class->property_count && (order = strcasecmp(class->properties[i].name, property->name)) < 0)
        i++;
    struct rp_cim_declaration *place;
    if (i < class->property_count && !order) {
        place = &class->properties[i];
        property->key |= place->key;
        bool same = place->type == property->type && place->array == property->array;
        if (rp_cim_value_is_null(&property->value) && same) {
            rp_cim_value_clear(&property->value);
            property->value = rp_cim_value_copy(&place->value);
        }
        rp_cim_declaration_clear(place);
    } else {
        class->properties = rp_xrealloc(class->properties, (class->property_count + 1) * sizeof *class->properties);
        place = &class->properties[i];
        memmove(place + 1, place, (class->property_count++ - i) * sizeof *place);
    }
    *place = *property;
    *property = (struct rp_cim_declaration){0};
}

void rp_cim_class_add_method(struct rp_cim_class *class, struct rp_cim_method *method)
{
    struct rp_cim_method *place = (struct rp_cim_method *)rp_cim_class_method(class, method->name);
    if (place) {
        rp_cim_method_clear(place);
    } else {
        class->methods = rp_xrealloc(class->methods, (class->method_count + 1) * sizeof *class->methods);
        place = &class->methods[class->method_count++];
    }
    *place = *method;
    *method = (struct rp_cim_method){0};
}

struct rp_cim_schema *rp_cim_schema_new(const char *name_space)
{
    struct rp_cim_schema *schema = rp_xcalloc(1, sizeof *schema);
    schema->name_space = rp_xstrdup(name_space);
    return schema;
}

void rp_cim_schema_free(struct rp_cim_schema *schema)
{
    if (!schema)
        return;
    for (size_t i = 0; i < schema->count; i++)
        rp_cim_class_free(schema->classes[i]);
    free(schema->classes);
    free(schema->sorted);
    free(schema->name_space);
    free(schema);
}

static size_t place_of(const struct rp_cim_schema *schema, const char *name)
{
    size_t low = 0, high = schema->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcasecmp(schema->sorted[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void rp_cim_schema_add(struct rp_cim_schema *schema, struct rp_cim_class *class)
{
    if (schema->count == schema->capacity) {
        schema->capacity = schema->capacity ? schema->capacity * 2 : 64;
        schema->classes = rp_xrealloc(schema->classes, schema->capacity * sizeof *schema->classes);
        schema->sorted = rp_xrealloc(schema->sorted, schema->capacity * sizeof *schema->sorted);
    }
    size_t i = place_of(schema, class->name);
    memmove(schema->sorted + i + 1, schema->sorted + i, (schema->count - i) * sizeof *schema->sorted);
    schema->sorted[i] = class;
    schema->classes[schema->count++] = class;
}

int rp_cim_schema_load(struct rp_cim_schema *schema, const char *mof, size_t size, const char *origin,
                       struct rp_error *err)
{
    size_t before = schema->count;
    if (!rp_mof_read(schema, mof, size, origin, err))
        return 0;
    // all of it or nothing
    while (schema->count > before) {
        struct rp_cim_class *last = schema->classes[--schema->count];
        size_t i = 0;
        while (schema->sorted[i] != last)
            i++;
        memmove(schema->sorted + i, schema->sorted + i + 1, (schema->count - i) * sizeof *schema->sorted);
        rp_cim_class_free(last);
    }
    return -1;
}

const char *rp_cim_schema_namespace(const struct rp_cim_schema *schema)
{
    return schema->name_space;
}

const struct rp_cim_class *rp_cim_schema_class(const struct rp_cim_schema *schema, const char *name)
{
    size_t i = place_of(schema, name);
    return i < schema->count && !strcasecmp(schema->sorted[i]->name, name) ? schema->sorted[i] : NULL;
}

size_t rp_cim_schema_count(const struct rp_cim_schema *schema)
{
    return schema->count;
}

const struct rp_cim_class *rp_cim_schema_at(const struct rp_cim_schema *schema, size_t i)
{
    return schema->classes[i];
}
