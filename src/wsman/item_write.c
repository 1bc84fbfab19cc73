#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "wsman/item.h"
#include "wsman/names.h"

#define MAX_NAME 900 // of a namespace and a class that a resource URI can hold (names.c)
enum { MAX_OBJECTS = 8, MAX_REFERENCES = 4 }; // in one another: as deep as they are read (item_read.c)

struct writer {
    struct rp_buf *out;
    enum rp_uri_style style;
    const struct rp_cim_schema *schema; // to complete embedded objects; NULL: not known
};

static void put(struct rp_buf *out, const char *text)
{
    rp_buf_append(out, text, strlen(text));
}

static void put_uri(const struct writer *w, const char *name_space, const char *class_name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf uri = {0};
    rp_wsman_uri(&uri, w->style, name_space, class_name);
    rp_xml_escape(w->out, rp_buf_text(&uri));
}

static const char *or_of_schema(const struct writer *w, const char *name_space)
{
    return name_space || !w->schema ? name_space : rp_cim_schema_namespace(w->schema);
}

static void write_epr(const struct writer *w, const struct rp_cim_path *path, int depth);

static void write_selector(const struct writer *w, const char *name, const char *value, int depth)
{
    put(w->out, "<w:Selector Name=\"");
    rp_xml_escape(w->out, name);
    put(w->out, "\">");
    // no other kind of key begins like this and reads as a path
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        !strncmp(value, "\\\\", 2) && depth < MAX_REFERENCES ? rp_cim_path_parse(value, NULL) : NULL;
    bool sane = path && path->name_space && strlen(path->name_space) + strlen(path->class_name) < MAX_NAME;
    if (sane && (path->key_count || path->singleton)) {
        put(w->out, "<a:EndpointReference>");
        write_epr(w, path, depth + 1);
        put(w->out, "</a:EndpointReference>");
    } else {
        rp_xml_escape(w->out, value);
    }
    put(w->out, "</w:Selector>");
}

static void write_epr(const struct writer *w, const struct rp_cim_path *path, int depth)
{
    const char *name_space = or_of_schema(w, path->name_space);
    put(w->out, "<a:Address>" RP_ADDRESS_ANONYMOUS "</a:Address><a:ReferenceParameters><w:ResourceURI>");
    put_uri(w, name_space, path->class_name);
    put(w->out, "</w:ResourceURI><w:SelectorSet>");
    if (name_space)
        write_selector(w, "__cimnamespace", name_space, MAX_REFERENCES);
    for (size_t i = 0; i < path->key_count; i++)
        if (strcasecmp(path->keys[i].name, "__cimnamespace") != 0)
            write_selector(w, path->keys[i].name, path->keys[i].value, depth);
    put(w->out, "</w:SelectorSet></a:ReferenceParameters>");
}

void rp_wsman_write_epr(struct rp_buf *out, enum rp_uri_style style, const struct rp_cim_path *path)
{
    const struct writer w = {.out = out, .style = style};
    write_epr(&w, path, 0);
}

static void write_datetime(struct rp_buf *out, const struct rp_cim_datetime *t)
{
    char text[RP_CIM_DATETIME_TEXT];
    rp_xml_element(out, "cim", t->interval ? "Interval" : "Datetime", rp_cim_datetime_format_xml(t, text));
}

// Elements of an object inline have a prefix of their own, since it is of another class: p, q1, q2, …
static void prefix_of(int depth, char prefix[16])
{
    if (depth)
        snprintf(prefix, 16, "q%d", depth);
    else
        snprintf(prefix, 16, "p");
}

static void write_properties(const struct writer *w, const struct rp_cim_class *class,
                             const struct rp_cim_instance *instance, char *const *columns, size_t column_count,
                             int depth);

static void write_content(const struct writer *w, const struct rp_cim_value *scalar, int depth)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    switch (scalar->type) {
    case RP_CIM_STRING:
    case RP_CIM_NONE:
        rp_xml_escape(w->out, scalar->one.text);
        break;
    case RP_CIM_BOOLEAN:
        put(w->out, scalar->one.boolean ? "true" : "false");
        break;
    case RP_CIM_DATETIME:
        write_datetime(w->out, &scalar->one.datetime);
        break;
    case RP_CIM_REFERENCE:
        write_epr(w, scalar->one.path, 0);
        break;
    case RP_CIM_OBJECT: {
        const struct rp_cim_instance *object = scalar->one.object;
        const struct rp_cim_class *class = w->schema ? rp_cim_schema_class(w->schema, object->class_name) : NULL;
        if (depth < MAX_OBJECTS)
            write_properties(w, class, object, NULL, 0, depth + 1);
        break;
    }
    default:
        rp_cim_value_text(scalar, &text);
        rp_xml_escape(w->out, rp_buf_text(&text));
    }
}

static void write_element(const struct writer *w, const char *prefix, const char *name,
                          const struct rp_cim_value *scalar,
                          int depth)
{
    rp_buf_printf(w->out, "<%s:%s", prefix, name);
    if (scalar->type == RP_CIM_OBJECT) {
        const struct rp_cim_instance *object = scalar->one.object;
        char inner[16];
        prefix_of(depth + 1, inner);
        rp_buf_printf(w->out, " xmlns:%s=\"", inner);
        put_uri(w, or_of_schema(w, object->name_space), object->class_name);
        rp_buf_printf(w->out, "\" xsi:type=\"%s:%s_Type\"", inner, object->class_name);
    }
    put(w->out, ">");
    write_content(w, scalar, depth);
    rp_buf_printf(w->out, "</%s:%s>", prefix, name);
}

// Facts 2.6: every scalar is there, arrays only when they hold something.
static void write_value(const struct writer *w, const char *prefix, const char *name, const struct rp_cim_value *value,
                        int depth)
{
    if (!value->array && rp_cim_value_is_null(value)) {
        rp_buf_printf(w->out, "<%s:%s xsi:nil=\"true\"/>", prefix, name);
        return;
    }
    for (size_t i = 0; i < (value->array ? value->count : 1); i++) {
        struct rp_cim_value scalar = rp_cim_value_at(value, i);
        if (scalar.type == RP_CIM_STRING && !*scalar.one.text)
            rp_buf_printf(w->out, "<%s:%s/>", prefix, name);
        else
            write_element(w, prefix, name, &scalar, depth);
    }
}

static bool is_column(const char *name, char *const *columns, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(columns[i], name))
            return true;
    return !count;
}

// Both lists are sorted by name; what only one of them has is written in its place.
static void write_properties(const struct writer *w, const struct rp_cim_class *class,
                             const struct rp_cim_instance *instance, char *const *columns, size_t column_count,
                             int depth)
{
    char prefix[16];
    prefix_of(depth, prefix);
    size_t declared = class ? class->property_count : 0;
    for (size_t i = 0, j = 0; i < declared || j < instance->count;) {
        int order = i >= declared ? 1 : j >= instance->count ? -1
                    : strcasecmp(class->properties[i].name, instance->properties[j].name);
        const char *name = order <= 0 ? class->properties[i].name : instance->properties[j].name;
        struct rp_cim_value null = order < 0 ? rp_cim_null(class->properties[i].type, class->properties[i].array)
                                             : (struct rp_cim_value){0};
        if (is_column(name, columns, column_count))
            write_value(w, prefix, name, order < 0 ? &null : &instance->properties[j].value, depth);
        i += order <= 0;
        j += order >= 0;
    }
}

void rp_wsman_write_instance(struct rp_buf *out, enum rp_uri_style style, const struct rp_cim_class *class,
                             const struct rp_cim_instance *instance, char *const *columns, size_t column_count)
{
    const struct writer w = {.out = out, .style = style, .schema = class ? class->schema : NULL};
    rp_buf_printf(out, "<p:%s xmlns:p=\"", instance->class_name);
    put_uri(&w, or_of_schema(&w, instance->name_space), instance->class_name);
    rp_buf_printf(out, "\" xsi:type=\"p:%s_Type\">", instance->class_name);
    write_properties(&w, class, instance, columns, column_count, 0);
    rp_buf_printf(out, "</p:%s>", instance->class_name);
}

void rp_wsman_write_parameter(struct rp_buf *out, enum rp_uri_style style, const char *name,
                              const struct rp_cim_value *value)
{
    const struct writer w = {.out = out, .style = style};
    write_value(&w, "p", name, value, 0);
}
