#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wsman/base64.h"
#include "wsman/item.h"
#include "wsman/names.h"

// Objects in objects, references in selectors: what is nested becomes text, and each level escapes what is inside of
// it.
enum { MAX_PROPERTIES = 1024, MAX_OBJECTS = 8, MAX_REFERENCES = 4 };

static struct rp_cim_instance *read_object(const xmlNode *element, int depth, struct rp_error *err);
static struct rp_cim_path *path_of_parameters(const xmlNode *parameters, int depth, struct rp_error *err);

// Names of classes and properties become elements again when they are written.
static bool is_identifier(const char *name)
{
    if (!*name || (*name >= '0' && *name <= '9'))
        return false;
    for (; *name; name++)
        if (!(*name >= '0' && *name <= '9') && !((*name | 32) >= 'a' && (*name | 32) <= 'z') && *name != '_')
            return false;
    return true;
}

static const xmlNode *parameters_of(const xmlNode *element)
{
    const xmlNode *epr = rp_xml_child(element, RP_NS_ADDRESSING, "EndpointReference");
    return rp_xml_child(epr ? epr : element, RP_NS_ADDRESSING, "ReferenceParameters");
}

// The key's text; malloc'ed.
static char *selector_value(const xmlNode *selector, int depth, struct rp_error *err)
{
    const xmlNode *parameters = parameters_of(selector);
    if (!parameters)
        return rp_xml_is_nil(selector) ? rp_xstrdup("") : rp_xml_text_exact(selector);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = path_of_parameters(parameters, depth + 1, err);
    if (!path)
        return NULL;
    struct rp_buf text = {0};
    if (!path->host)
        path->host = rp_xstrdup("."); // otherwise the text would be without the namespace, too
    rp_cim_path_format(path, &text);
    return (char *)rp_buf_text(&text);
}

static int read_selectors(const xmlNode *set, struct rp_cim_path *path, char **name_space, int depth,
                          struct rp_error *err)
{
    *name_space = NULL;
    size_t count = 0;
    for (const xmlNode *selector = rp_xml_first(set); selector; selector = rp_xml_next(selector)) {
        if (!rp_xml_is(selector, RP_NS_WSMAN, "Selector"))
            return rp_fail(err, RP_ERR_INVALID, "a SelectorSet holds %.60s", (const char *)selector->name);
        RP_AUTO_FREE char *name = rp_xml_attribute(selector, NULL, "Name");
        if (!name || !*name)
            return rp_fail(err, RP_ERR_INVALID, "a selector has no name");
        if (count++ == RP_WSMAN_MAX_SELECTORS)
            return rp_fail(err, RP_ERR_NO_SPACE, "there are more than %d selectors", RP_WSMAN_MAX_SELECTORS);
        bool place = !strcasecmp(name, "__cimnamespace");
        if (place ? *name_space != NULL : rp_cim_path_get(path, name) != NULL)
            return rp_fail(err, RP_ERR_EXISTS, "the selector %.100s comes twice", name);
        RP_AUTO_FREE char *value = selector_value(selector, depth, err);
        if (!value)
            return rp_context(err, "selector %.100s", name);
        if (place) {
            *name_space = value;
            value = NULL;
        } else {
            rp_cim_path_set(path, name, value);
        }
    }
    return 0;
}

int rp_wsman_read_selectors(const xmlNode *set, struct rp_cim_path *path, char **name_space, struct rp_error *err)
{
    return read_selectors(set, path, name_space, 0, err);
}

static struct rp_cim_path *path_of_parameters(const xmlNode *parameters, int depth, struct rp_error *err)
{
    const xmlNode *uri = rp_xml_child(parameters, RP_NS_WSMAN, "ResourceURI");
    if (!uri || depth > MAX_REFERENCES) {
        rp_fail(err, RP_ERR_INVALID, uri ? "references are nested too deeply" : "a reference has no ResourceURI");
        return NULL;
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(NULL, "");
    RP_AUTO_FREE char *text = rp_xml_text(uri), *name_space = NULL, *place = NULL, *class_name = NULL;
    enum rp_uri_style style;
    if (read_selectors(rp_xml_child(parameters, RP_NS_WSMAN, "SelectorSet"), path, &name_space, depth, err) ||
        rp_wsman_uri_parse(text, name_space, &style, &place, &class_name, err))
        return NULL;
    struct rp_cim_path *result = path;
    free(result->class_name);
    result->class_name = class_name;
    result->name_space = place;
    class_name = place = NULL;
    path = NULL;
    return result;
}

struct rp_cim_path *rp_wsman_read_epr(const xmlNode *element, struct rp_error *err)
{
    const xmlNode *parameters = parameters_of(element);
    if (parameters)
        return path_of_parameters(parameters, 0, err);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_wsman_read_instance(element, err);
    if (!instance)
        return NULL;
    struct rp_cim_value value = rp_cim_object(instance);
    instance = NULL;
    struct rp_cim_path *path = NULL;
    if (!rp_cim_value_convert(&value, RP_CIM_REFERENCE, false, err)) {
        path = value.one.path;
        value.one.path = NULL;
        value.null = true;
    }
    rp_cim_value_clear(&value);
    return path;
}

// The local part of xsi:type, also with xsi bound to …/XMLSchema (OMI); "" when there is none.
static char *type_of(const xmlNode *element)
{
    char *text = rp_xml_attribute(element, RP_NS_XSI, "type");
    if (!text)
        text = rp_xml_attribute(element, "http://www.w3.org/2001/XMLSchema", "type");
    if (!text)
        return rp_xstrdup("");
    char *colon = strchr(text, ':');
    if (colon)
        memmove(text, colon + 1, strlen(colon));
    return text;
}

// Class and namespace of an object: xsi:type "q:Msvm_X_Type" says the class, or else the element's name, but inside a
// property (whose content is in another namespace than itself) the URI of that namespace.
static struct rp_cim_instance *new_instance(const xmlNode *element, struct rp_error *err)
{
    RP_AUTO_FREE char *type = type_of(element), *place = NULL, *from_uri = NULL;
    const xmlNode *inner = rp_xml_first(element);
    bool inside = inner && inner->ns && element->ns && strcmp((char *)inner->ns->href, (char *)element->ns->href) != 0;
    const xmlNs *ns = inside ? inner->ns : element->ns;
    enum rp_uri_style style = RP_URI_STYLE_DMTF;
    if (ns)
        rp_wsman_uri_parse((const char *)ns->href, NULL, &style, &place, &from_uri, NULL);
    size_t length = strlen(type);
    if (length > 5 && !strcmp(type + length - 5, "_Type"))
        type[length - 5] = 0;
    else
        *type = 0;
    const char *class_name = *type ? type : inside && from_uri ? from_uri : (const char *)element->name;
    if (!is_identifier(class_name)) {
        rp_fail(err, RP_ERR_INVALID, "\"%.100s\" is no name of a class", class_name);
        return NULL;
    }
    return rp_cim_instance_new(style == RP_URI_STYLE_WMI ? place : NULL, class_name);
}

static bool is_datetime(const xmlNode *node)
{
    static const char *const names[] = {"Datetime", "Interval", "CIM_DateTime", "Date", "Time"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (rp_xml_is(node, RP_NS_CIM, names[i]))
            return true;
    return false;
}

static int unpack_base64(const char *text, struct rp_cim_value *value)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf compact = {0}, octets = {0};
    for (; *text; text++)
        if (!strchr(" \t\r\n", *text))
            rp_buf_append_u8(&compact, (uint8_t)*text);
    if (rp_base64_decode(rp_buf_text(&compact), compact.size, &octets, NULL))
        return -1;
    struct rp_cim_value array = rp_cim_null(RP_CIM_UINT8, true);
    array.null = false;
    for (size_t i = 0; i < octets.size; i++) {
        struct rp_cim_value octet = rp_cim_unsigned(RP_CIM_UINT8, octets.data[i]);
        rp_cim_value_push(&array, &octet);
    }
    *value = array;
    return 0;
}

static int read_value(const xmlNode *element, struct rp_cim_value *value, int depth, struct rp_error *err)
{
    *value = rp_cim_null(RP_CIM_NONE, false);
    if (rp_xml_is_nil(element))
        return 0;
    const xmlNode *inner = rp_xml_first(element);
    if (parameters_of(element)) {
        struct rp_cim_path *path = rp_wsman_read_epr(element, err);
        if (path)
            *value = rp_cim_reference(path);
        return path ? 0 : -1;
    }
    if (is_datetime(inner)) {
        while (is_datetime(rp_xml_first(inner)))
            inner = rp_xml_first(inner);
        *value = (struct rp_cim_value){.type = RP_CIM_NONE, .one.text = rp_xml_text(inner)};
        return 0;
    }
    if (inner) {
        struct rp_cim_instance *object = read_object(element, depth + 1, err);
        if (object)
            *value = rp_cim_object(object);
        return object ? 0 : -1;
    }
    RP_AUTO_FREE char *type = type_of(element), *text = rp_xml_text_exact(element);
    if (!strcasecmp(type, "cimBase64Binary") || !strcasecmp(type, "base64Binary"))
        return unpack_base64(text, value) ? rp_fail(err, RP_ERR_INVALID, "what says that it is base64 is not") : 0;
    *value = (struct rp_cim_value){.type = RP_CIM_NONE, .one.text = text};
    text = NULL;
    return 0;
}

// An element that repeats makes an array of what was a scalar; nil among them adds nothing.
static int add_value(struct rp_cim_instance *instance, const char *name, struct rp_cim_value *value,
                     struct rp_error *err)
{
    struct rp_cim_value *old = (struct rp_cim_value *)rp_cim_get(instance, name);
    if (!old) {
        if (instance->count == MAX_PROPERTIES)
            return rp_fail(err, RP_ERR_INVALID, "an object has more than %d properties", MAX_PROPERTIES);
        rp_cim_set(instance, name, *value);
        *value = (struct rp_cim_value){0};
        return 0;
    }
    if (!old->array) {
        struct rp_cim_value array = rp_cim_null(old->type, true), first = *old;
        array.null = false;
        if (!rp_cim_value_is_null(&first))
            rp_cim_value_push(&array, &first);
        *old = array;
    }
    if (rp_cim_value_is_null(value))
        return 0;
    if (!old->count)
        old->type = value->type;
    if (value->array || old->type != value->type)
        return rp_fail(err, RP_ERR_INVALID, "the values of %.100s are of different kinds", name);
    rp_cim_value_push(old, value);
    return 0;
}

static struct rp_cim_instance *read_object(const xmlNode *element, int depth, struct rp_error *err)
{
    if (depth > MAX_OBJECTS) {
        rp_fail(err, RP_ERR_INVALID, "objects are nested too deeply");
        return NULL;
    }
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = new_instance(element, err);
    if (!instance)
        return NULL;
    for (const xmlNode *node = rp_xml_first(element); node; node = rp_xml_next(node)) {
        const char *name = (const char *)node->name;
        if (rp_xml_is(node, RP_NS_CIM, "Location") && !instance->path) {
            if (parameters_of(node) && !(instance->path = rp_wsman_read_epr(node, err)))
                return NULL;
            continue;
        }
        RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value value = {0};
        if (!is_identifier(name))
            rp_fail(err, RP_ERR_INVALID, "\"%.100s\" is no name of a property", name);
        else if (!read_value(node, &value, depth, err) && !add_value(instance, name, &value, err))
            continue;
        rp_context(err, "%.100s", instance->class_name);
        return NULL;
    }
    struct rp_cim_instance *result = instance;
    instance = NULL;
    return result;
}

struct rp_cim_instance *rp_wsman_read_instance(const xmlNode *element, struct rp_error *err)
{
    return read_object(element, 0, err);
}

void rp_wsman_unpack_octets(const struct rp_cim_declaration *declaration, struct rp_cim_value *value)
{
    if (declaration->type != RP_CIM_UINT8 || !declaration->array || value->type != RP_CIM_NONE || value->array ||
        rp_cim_value_is_null(value))
        return;
    struct rp_cim_value number = {0}, octets;
    if (!rp_cim_value_parse(RP_CIM_UINT8, value->one.text, &number, NULL) || unpack_base64(value->one.text, &octets))
        return;
    rp_cim_value_clear(value);
    *value = octets;
}
