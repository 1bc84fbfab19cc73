// Reading: tolerant of everything that management clients produce (facts/wmi.md 2.6): DSP0201, and the elements that
// WMI's own DTD 2.0 adds for objects and arrays of references.
#include "cim/cimxml.h"

#include <string.h>

#include "cim/name.h"
#include "cim/xml.h"

#define MAX_SIZE (1 << 20)
#define MAX_DEPTH 32        // of instances and references in one another, in whatever text they stand
#define MAX_PROPERTIES 4096 // of one instance
// A path as a key of another one has its quotes and backslashes doubled: a few in one another are enough to fill all memory.
#define REFERENCE_DEPTH 7   // what one counts for, of MAX_DEPTH

static struct rp_cim_instance *read_document(const char *text, size_t size, unsigned depth, struct rp_error *err);
static struct rp_cim_path *read_reference(const xmlNode *node, unsigned depth, struct rp_error *err);

static int corrupt(const xmlNode *node, const char *what, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_CORRUPT, "CIM-XML: %.60s, line %ld: %s", (const char *)node->name,
                   xmlGetLineNo(node), what);
}

// A name is an identifier: it becomes the name of an element elsewhere.
static char *name_of(const xmlNode *node, const char *attribute, struct rp_error *err)
{
    char *name = rp_xml_attribute(node, NULL, attribute);
    if (name && rp_cim_is_name(name))
        return name;
    free(name);
    corrupt(node, attribute, err);
    rp_context(err, "a name is missing or none");
    return NULL;
}

static bool is_one_of(const xmlNode *node, const char *const *names)
{
    while (*names && !rp_xml_is(node, NULL, *names))
        names++;
    return *names;
}

// NAMESPACEPATH or LOCALNAMESPACEPATH.
static int read_namespace(const xmlNode *node, struct rp_cim_path *path, struct rp_error *err)
{
    const xmlNode *host = rp_xml_child(node, NULL, "HOST"), *local = rp_xml_child(node, NULL, "LOCALNAMESPACEPATH");
    if (host && !path->host)
        path->host = rp_xml_text(host);
    if (path->host && (!*path->host || strpbrk(path->host, RP_CIM_HOST_END)))
        return corrupt(host ? host : node, "the name of a host is needed here", err);
    RP_CLEANUP(rp_buf_clear) struct rp_buf name = {0};
    for (const xmlNode *part = rp_xml_first(local ? local : node); part; part = rp_xml_next(part)) {
        if (!rp_xml_is(part, NULL, "NAMESPACE"))
            continue;
        RP_AUTO_FREE char *text = rp_xml_attribute(part, NULL, "NAME");
        char *rest = NULL;
        if (!text || strpbrk(text, RP_CIM_NAMESPACE_END))
            return corrupt(part, "the name of a namespace is needed here", err);
        for (char *word = strtok_r(text, "/\\", &rest); word; word = strtok_r(NULL, "/\\", &rest))
            rp_buf_printf(&name, "%s%s", name.size ? "/" : "", word);
    }
    free(path->name_space);
    path->name_space = name.size ? rp_xstrdup(rp_buf_text(&name)) : NULL;
    return 0;
}

static int read_key(const xmlNode *node, const char *name, struct rp_cim_path *path, unsigned depth,
                    struct rp_error *err)
{
    if (rp_xml_is(node, NULL, "KEYVALUE")) {
        RP_AUTO_FREE char *value = rp_xml_text_exact(node);
        rp_cim_path_set(path, name, value);
        return 0;
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *value = read_reference(node, depth + REFERENCE_DEPTH, err);
    if (!value)
        return -1;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_format(value, &text);
    if (text.size > MAX_SIZE)
        return corrupt(node, "a path that is too long", err);
    rp_cim_path_set(path, name, rp_buf_text(&text));
    return 0;
}

static struct rp_cim_path *read_instance_name(const xmlNode *node, unsigned depth, struct rp_error *err)
{
    RP_AUTO_FREE char *class_name = name_of(node, "CLASSNAME", err);
    if (!class_name)
        return NULL;
    struct rp_cim_path *path = rp_cim_path_new(NULL, class_name);
    for (const xmlNode *binding = rp_xml_first(node); binding; binding = rp_xml_next(binding)) {
        const xmlNode *value = rp_xml_first(binding);
        RP_AUTO_FREE char *name = NULL;
        if (!rp_xml_is(binding, NULL, "KEYBINDING") || !value)
            corrupt(binding, "a KEYBINDING is needed here", err);
        else if (path->key_count == 64)
            corrupt(binding, "too many keys", err);
        else if ((name = name_of(binding, "NAME", err)) && !read_key(value, name, path, depth, err))
            continue;
        rp_cim_path_free(path);
        return NULL;
    }
    return path;
}

// INSTANCEPATH, LOCALINSTANCEPATH, INSTANCENAME, and the same of classes.
static struct rp_cim_path *read_path(const xmlNode *node, unsigned depth, struct rp_error *err)
{
    static const char *const names[] = {"INSTANCENAME", NULL}, *const classes[] = {"CLASSNAME", NULL};
    static const char *const paths[] = {"INSTANCEPATH", "LOCALINSTANCEPATH", "CLASSPATH", "LOCALCLASSPATH", NULL};
    if (is_one_of(node, names))
        return read_instance_name(node, depth, err);
    if (is_one_of(node, classes)) {
        RP_AUTO_FREE char *name = name_of(node, "NAME", err);
        return name ? rp_cim_path_new(NULL, name) : NULL;
    }
    const xmlNode *place = is_one_of(node, paths) ? rp_xml_first(node) : NULL, *object = rp_xml_next(place);
    if (!object || (!is_one_of(object, names) && !is_one_of(object, classes))) {
        corrupt(node, "a path is needed here", err);
        return NULL;
    }
    struct rp_cim_path *path = read_path(object, depth, err);
    if (path && read_namespace(place, path, err)) {
        rp_cim_path_free(path);
        return NULL;
    }
    return path;
}

// VALUE.REFERENCE, with elements or with the path as text, which may stand in a VALUE too.
static struct rp_cim_path *read_reference(const xmlNode *node, unsigned depth, struct rp_error *err)
{
    if (depth > MAX_DEPTH) {
        corrupt(node, "nested too deeply", err);
        return NULL;
    }
    if (rp_xml_first(node))
        return read_path(rp_xml_first(node), depth, err);
    RP_AUTO_FREE char *text = rp_xml_text(node);
    struct rp_cim_path *path = rp_cim_path_parse(text, NULL);
    if (!path)
        corrupt(node, "an object path is needed here", err);
    return path;
}

static struct rp_cim_instance *read_instance(const xmlNode *node, unsigned depth, struct rp_error *err);

// What a property is made of: its type, whether VALUE is an embedded instance.
struct kind {
    enum rp_cim_type type;
    bool embedded;
};

static int read_object(const xmlNode *node, unsigned depth, struct rp_cim_value *value, struct rp_error *err)
{
    struct rp_cim_instance *object;
    if (rp_xml_first(node)) { // WMI's VALUE.OBJECT
        const xmlNode *instance = rp_xml_child(node, NULL, "INSTANCE");
        object = instance ? read_instance(instance, depth + 1, err) : NULL;
        if (!instance)
            corrupt(node, "an INSTANCE is needed here", err);
    } else {
        RP_AUTO_FREE char *text = rp_xml_text(node);
        object = read_document(text, strlen(text), depth + 1, err);
    }
    *value = rp_cim_object(object);
    return object ? 0 : -1;
}

static int read_scalar(const xmlNode *node, struct kind kind, unsigned depth, struct rp_cim_value *value,
                       struct rp_error *err)
{
    if (kind.type == RP_CIM_REFERENCE) {
        *value = rp_cim_reference(read_reference(node, depth + 1, err));
        return value->null ? -1 : 0;
    }
    if (kind.embedded || kind.type == RP_CIM_OBJECT)
        return read_object(node, depth, value, err);
    struct rp_error why = {0};
    RP_AUTO_FREE char *text = rp_xml_text_exact(node);
    return rp_cim_value_parse(kind.type, text, value, &why) ? corrupt(node, why.text, err) : 0;
}

static int read_array(const xmlNode *node, struct kind kind, unsigned depth, struct rp_cim_value *value,
                      struct rp_error *err)
{
    value->null = false;
    for (const xmlNode *item = rp_xml_first(node); item; item = rp_xml_next(item)) {
        struct rp_cim_value element = {0};
        if (rp_xml_is(item, NULL, "VALUE.NULL"))
            return corrupt(item, "an array holds no NULL", err);
        if (read_scalar(item, kind, depth, &element, err))
            return -1;
        rp_cim_value_push(value, &element);
    }
    return 0;
}

// An absent VALUE is NULL, and so is an empty one that is no string.
static bool is_absent(const xmlNode *value, struct kind kind)
{
    if (!value || rp_xml_is(value, NULL, "VALUE.NULL"))
        return true;
    if (rp_xml_first(value) || (kind.type == RP_CIM_STRING && !kind.embedded) || kind.type == RP_CIM_NONE)
        return false;
    RP_AUTO_FREE char *text = rp_xml_text(value);
    return !*text;
}

static int kind_of(const xmlNode *node, struct kind *kind, struct rp_error *err)
{
    RP_AUTO_FREE char *type = rp_xml_attribute(node, NULL, "TYPE");
    RP_AUTO_FREE char *embedded = rp_xml_attribute(node, NULL, "EmbeddedObject");
    RP_AUTO_FREE char *upper = rp_xml_attribute(node, NULL, "EMBEDDEDOBJECT");
    static const char *const references[] = {"PROPERTY.REFERENCE", "PROPERTY.REFARRAY", NULL};
    static const char *const objects[] = {"PROPERTY.OBJECT", "PROPERTY.OBJECTARRAY", NULL};
    *kind = (struct kind){.type = type ? rp_cim_type_from_name(type) : RP_CIM_NONE, .embedded = embedded || upper};
    if (is_one_of(node, references))
        kind->type = RP_CIM_REFERENCE;
    else if (is_one_of(node, objects) || kind->embedded)
        kind->type = RP_CIM_OBJECT;
    else if (type && kind->type == RP_CIM_NONE)
        return corrupt(node, "an unknown TYPE", err);
    return 0;
}

static int read_property(const xmlNode *node, unsigned depth, struct rp_cim_instance *instance, struct rp_error *err)
{
    static const char *const arrays[] = {"PROPERTY.ARRAY", "PROPERTY.REFARRAY", "PROPERTY.OBJECTARRAY", NULL};
    struct kind kind;
    RP_AUTO_FREE char *name = name_of(node, "NAME", err);
    if (!name || kind_of(node, &kind, err))
        return -1;
    bool array = is_one_of(node, arrays);
    const xmlNode *value = rp_xml_first(node);
    while (value && rp_xml_is(value, NULL, "QUALIFIER"))
        value = rp_xml_next(value);
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value read = rp_cim_null(kind.type, array);
    if (array ? value && read_array(value, kind, depth, &read, err)
              : !is_absent(value, kind) && read_scalar(value, kind, depth, &read, err))
        return -1;
    if (instance->count == MAX_PROPERTIES)
        return corrupt(node, "too many properties", err);
    rp_cim_set(instance, name, read);
    read = (struct rp_cim_value){0};
    return 0;
}

static struct rp_cim_instance *read_instance(const xmlNode *node, unsigned depth, struct rp_error *err)
{
    static const char *const properties[] = {"PROPERTY", "PROPERTY.ARRAY", "PROPERTY.REFERENCE", "PROPERTY.REFARRAY",
                                             "PROPERTY.OBJECT", "PROPERTY.OBJECTARRAY", NULL};
    if (depth > MAX_DEPTH) {
        corrupt(node, "nested too deeply", err);
        return NULL;
    }
    RP_AUTO_FREE char *class_name = name_of(node, "CLASSNAME", err);
    if (!class_name)
        return NULL;
    struct rp_cim_instance *instance = rp_cim_instance_new(NULL, class_name);
    for (const xmlNode *child = rp_xml_first(node); child; child = rp_xml_next(child)) {
        if (rp_xml_is(child, NULL, "QUALIFIER"))
            continue;
        if (!is_one_of(child, properties))
            corrupt(child, "not expected in an INSTANCE", err);
        else if (!read_property(child, depth, instance, err))
            continue;
        rp_cim_instance_free(instance);
        return NULL;
    }
    return instance;
}

static struct rp_cim_instance *read_document(const char *text, size_t size, unsigned depth, struct rp_error *err)
{
    static const char *const wrappers[] = {"CIM", "DECLARATION", "DECLGROUP", "DECLGROUP.WITHNAME",
                                           "DECLGROUP.WITHPATH", "VALUE.OBJECT", "VALUE.NAMEDOBJECT",
                                           "VALUE.OBJECTWITHPATH", "VALUE.NAMEDINSTANCE",
                                           "VALUE.INSTANCEWITHPATH", NULL};
    static const char *const paths[] = {"INSTANCENAME", "INSTANCEPATH", NULL};
    while (size && strchr(" \t\r\n", *text) && *text)
        text++, size--; // XML allows nothing before its declaration, clients do
    while (size && !text[size - 1])
        size--;
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(text, size, MAX_SIZE, NULL, err);
    if (!document) {
        rp_context(err, "CIM-XML");
        return NULL;
    }
    const xmlNode *node = xmlDocGetRootElement(document), *named = NULL;
    while (is_one_of(node, wrappers) && rp_xml_first(node)) {
        node = rp_xml_first(node);
        while (rp_xml_next(node) && !rp_xml_is(node, NULL, "INSTANCE") && !is_one_of(node, wrappers)) {
            if (is_one_of(node, paths))
                named = node;
            node = rp_xml_next(node);
        }
    }
    if (!rp_xml_is(node, NULL, "INSTANCE")) {
        corrupt(node, "an INSTANCE is needed here", err);
        return NULL;
    }
    struct rp_cim_instance *instance = read_instance(node, depth, err);
    if (instance && named && !(instance->path = read_path(named, depth, err))) {
        rp_cim_instance_free(instance);
        return NULL;
    }
    return instance;
}

struct rp_cim_instance *rp_cimxml_parse(const char *text, size_t size, struct rp_error *err)
{
    return read_document(text, size, 1, err);
}
