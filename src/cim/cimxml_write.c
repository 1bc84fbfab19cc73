// Writing: the least that everybody reads (facts/wmi.md 2.6).
#include <string.h>

#include "cim/cimxml.h"
#include "cim/xml.h"

static void write_attribute(struct rp_buf *out, const char *name, const char *value)
{
    rp_buf_printf(out, " %s=\"", name);
    rp_xml_escape(out, value);
    rp_buf_append_u8(out, '"');
}

static void write_instance_name(const struct rp_cim_path *path, struct rp_buf *out)
{
    rp_buf_printf(out, "<INSTANCENAME");
    write_attribute(out, "CLASSNAME", path->class_name);
    rp_buf_printf(out, ">");
    for (size_t i = 0; i < path->key_count; i++) {
        rp_buf_printf(out, "<KEYBINDING");
        write_attribute(out, "NAME", path->keys[i].name);
        rp_buf_printf(out, "><KEYVALUE VALUETYPE=\"string\">");
        rp_xml_escape(out, path->keys[i].value);
        rp_buf_printf(out, "</KEYVALUE></KEYBINDING>");
    }
    rp_buf_printf(out, "</INSTANCENAME>");
}

static void write_reference(const struct rp_cim_path *path, struct rp_buf *out)
{
    const char *element = path->host ? "INSTANCEPATH" : "LOCALINSTANCEPATH";
    rp_buf_printf(out, "<VALUE.REFERENCE>");
    if (path->singleton || !path->name_space) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        rp_cim_path_format(path, &text);
        if (path->singleton) // INSTANCENAME has no form for it
            rp_xml_escape(out, rp_buf_text(&text));
        else
            write_instance_name(path, out);
        rp_buf_printf(out, "</VALUE.REFERENCE>");
        return;
    }
    rp_buf_printf(out, "<%s>", element);
    if (path->host) {
        rp_buf_printf(out, "<NAMESPACEPATH>");
        rp_xml_element(out, NULL, "HOST", path->host);
    }
    rp_buf_printf(out, "<LOCALNAMESPACEPATH>");
    RP_AUTO_FREE char *parts = rp_xstrdup(path->name_space);
    char *rest = NULL;
    for (char *part = strtok_r(parts, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
        rp_buf_printf(out, "<NAMESPACE");
        write_attribute(out, "NAME", part);
        rp_buf_printf(out, "/>");
    }
    rp_buf_printf(out, "</LOCALNAMESPACEPATH>%s", path->host ? "</NAMESPACEPATH>" : "");
    write_instance_name(path, out);
    rp_buf_printf(out, "</%s></VALUE.REFERENCE>", element);
}

static void write_scalar(const struct rp_cim_value *value, struct rp_buf *out)
{
    if (value->type == RP_CIM_REFERENCE) {
        write_reference(value->one.path, out);
        return;
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(value, &text);
    rp_buf_printf(out, "<VALUE>");
    rp_xml_escape(out, rp_buf_text(&text));
    rp_buf_printf(out, "</VALUE>");
}

static void write_property(const struct rp_cim_property *property, struct rp_buf *out)
{
    const struct rp_cim_value *value = &property->value;
    bool reference = value->type == RP_CIM_REFERENCE, object = value->type == RP_CIM_OBJECT;
    const char *element = reference && value->array ? "PROPERTY.REFARRAY" : reference ? "PROPERTY.REFERENCE"
                          : value->array ? "PROPERTY.ARRAY" : "PROPERTY";
    rp_buf_printf(out, "<%s", element);
    write_attribute(out, "NAME", property->name);
    if (!reference)
        write_attribute(out, "TYPE", object || value->type == RP_CIM_NONE ? "string" : rp_cim_type_name(value->type));
    rp_buf_printf(out, object ? " EmbeddedObject=\"instance\">" : ">");
    if (value->array)
        rp_buf_printf(out, reference ? "<VALUE.REFARRAY>" : "<VALUE.ARRAY>");
    for (size_t i = 0; i < (value->array ? value->count : 1); i++) {
        struct rp_cim_value scalar = rp_cim_value_at(value, i);
        write_scalar(&scalar, out);
    }
    if (value->array)
        rp_buf_printf(out, reference ? "</VALUE.REFARRAY>" : "</VALUE.ARRAY>");
    rp_buf_printf(out, "</%s>", element);
}

void rp_cimxml_write(const struct rp_cim_instance *instance, struct rp_buf *out)
{
    rp_buf_printf(out, "<INSTANCE");
    write_attribute(out, "CLASSNAME", instance->class_name);
    rp_buf_printf(out, ">");
    for (size_t i = 0; i < instance->count; i++)
        if (!instance->properties[i].value.null)
            write_property(&instance->properties[i], out);
    rp_buf_printf(out, "</INSTANCE>");
}
