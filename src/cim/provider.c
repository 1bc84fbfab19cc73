// Queries and enumerations: what all providers have in common.
#include "cim/provider.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "cim/wql_internal.h"

// An instance leaves a provider with its whole path.
static void complete(const struct rp_cim_provider *p, const struct rp_cim_class *class,
                     struct rp_cim_instance *instance)
{
    if (!instance->path)
        instance->path = rp_cim_class_path(class, instance);
    struct rp_cim_path *path = instance->path;
    if (path && !path->name_space)
        path->name_space = rp_xstrdup(rp_cim_schema_namespace(p->schema));
    if (path && !path->host && p->server)
        path->host = rp_xstrdup(p->server);
    if (!instance->name_space)
        instance->name_space = rp_xstrdup(rp_cim_schema_namespace(p->schema));
}

// One pass over the instances of a class, or over associations.
struct pass {
    struct rp_cim_provider *provider;
    const struct rp_cim_caller *caller;
    const struct rp_cim_class *class;   // whose instances come
    const struct rp_wql *query;         // NULL: all, whole
    struct rp_cim_sink sink;
    const struct rp_cim_path *source;   // where associations start
    const struct rp_cim_class *result_class;
    struct seen *seen;
};

static struct rp_cim_instance *cut_columns(const struct pass *pass, const struct rp_cim_instance *whole)
{
    struct rp_cim_instance *instance = rp_cim_instance_new(whole->name_space, whole->class_name);
    instance->path = whole->path ? rp_cim_path_copy(whole->path) : NULL;
    for (size_t i = 0; i < pass->query->column_count; i++) {
        const char *name = pass->query->columns[i];
        const struct rp_cim_declaration *declared = rp_cim_class_property(pass->class, name);
        const struct rp_cim_value *value = rp_cim_get(whole, name);
        struct rp_cim_value system;
        if (value && declared)
            rp_cim_set(instance, declared->name, rp_cim_value_copy(value));
        else if (rp_wql_system_property(name, pass->class, whole, pass->provider->server, &system))
            rp_cim_set(instance, name, system);
    }
    return instance;
}

static void keep_keys(const struct rp_cim_class *class, struct rp_cim_instance **instance)
{
    struct rp_cim_instance *whole = *instance, *keys = rp_cim_instance_new(whole->name_space, whole->class_name);
    keys->path = whole->path;
    whole->path = NULL;
    for (size_t i = 0; i < whole->count; i++) {
        const struct rp_cim_declaration *declared = rp_cim_class_property(class, whole->properties[i].name);
        if (declared && declared->key)
            rp_cim_set(keys, declared->name, rp_cim_value_copy(&whole->properties[i].value));
    }
    rp_cim_instance_free(whole);
    *instance = keys;
}

// Asked for everything that a provider gives: what does not match costs time too.
static int check_deadline(const struct rp_wql *query, struct rp_error *err)
{
    if (!query || !query->deadline_ns || rp_clock_monotonic_ns() <= query->deadline_ns)
        return 0;
    return rp_fail(err, RP_ERR_CANCELLED, "the query takes longer than it was given");
}

static int take_selected(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    const struct pass *pass = context;
    if (check_deadline(pass->query, err)) {
        rp_cim_instance_free(instance);
        return -1;
    }
    complete(pass->provider, pass->class, instance);
    if (pass->query && !rp_wql_match(pass->query, pass->class, instance, pass->provider->server)) {
        rp_cim_instance_free(instance);
        return 0;
    }
    if (pass->query && pass->query->column_count) {
        struct rp_cim_instance *cut = cut_columns(pass, instance);
        rp_cim_instance_free(instance);
        instance = cut;
    }
    return pass->sink.take(pass->sink.context, instance, err);
}

static int each_class(struct pass *pass, const struct rp_cim_class *ancestor, struct rp_error *err)
{
    const struct rp_cim_schema *schema = pass->provider->schema;
    for (size_t i = 0; i < rp_cim_schema_count(schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(schema, i);
        if (class->abstract || !rp_cim_class_is(class, ancestor))
            continue;
        pass->class = class;
        struct rp_cim_sink sink = {take_selected, pass};
        if (pass->provider->ops->instances(pass->provider, pass->caller, class, pass->query, sink, err))
            return -1;
    }
    return 0;
}

int rp_cim_enumerate(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     struct rp_cim_sink sink, struct rp_error *err)
{
    struct pass pass = {.provider = p, .caller = caller, .sink = sink};
    return each_class(&pass, class, err);
}

static const struct rp_cim_class *find_class(const struct rp_cim_provider *p, const char *name, struct rp_error *err)
{
    const struct rp_cim_class *class = rp_cim_schema_class(p->schema, name);
    if (!class)
        rp_fail(err, RP_ERR_NOT_FOUND, "namespace %s has no class %.100s", rp_cim_schema_namespace(p->schema), name);
    return class;
}

struct rp_cim_instance *rp_cim_find(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                    const struct rp_cim_path *path, struct rp_error *err)
{
    const struct rp_cim_class *ancestor = find_class(p, path->class_name, err);
    if (!ancestor)
        return NULL;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *exact = rp_cim_path_copy(path);
    for (size_t i = 0; i < rp_cim_schema_count(p->schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(p->schema, i);
        if (class->abstract || !rp_cim_class_is(class, ancestor))
            continue;
        struct rp_error why = {0};
        free(exact->class_name);
        exact->class_name = rp_xstrdup(class->name);
        struct rp_cim_instance *instance = p->ops->get(p, caller, exact, &why);
        if (instance) {
            complete(p, class, instance);
            return instance;
        }
        if (why.code != RP_ERR_NOT_FOUND) {
            rp_fail_as(err, &why);
            return NULL;
        }
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_format_relative(path, &text);
    rp_fail(err, RP_ERR_NOT_FOUND, "there is no %.300s", rp_buf_text(&text));
    return NULL;
}

// WHERE __PATH = '…' asks for one instance.
static int select_one(struct pass *pass, const struct rp_cim_class *class, const struct rp_cim_path *path,
                      struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_cim_instance *instance = rp_cim_find(pass->provider, pass->caller, path, &why);
    if (!instance)
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    pass->class = rp_cim_schema_class(pass->provider->schema, instance->class_name);
    if (rp_cim_class_is(pass->class, class))
        return take_selected(pass, instance, err);
    rp_cim_instance_free(instance);
    return 0;
}

static int select_instances(struct pass *pass, struct rp_error *err)
{
    static const char *const system[] = {"__CLASS", "__PATH", "__RELPATH", "__SERVER", "__NAMESPACE"};
    const struct rp_wql *query = pass->query;
    const struct rp_cim_class *class = find_class(pass->provider, query->class_name, err);
    if (!class)
        return -1;
    for (size_t i = 0; i < query->column_count; i++) {
        bool known = rp_cim_class_property(class, query->columns[i]);
        for (size_t j = 0; j < sizeof system / sizeof *system; j++)
            known |= !strcasecmp(system[j], query->columns[i]);
        if (!known)
            return rp_fail(err, RP_ERR_INVALID, "class %s has no property %.100s", class->name, query->columns[i]);
    }
    const char *required = rp_wql_required(query, "__PATH");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = required ? rp_cim_path_parse(required, NULL) : NULL;
    return path ? select_one(pass, class, path, err) : each_class(pass, class, err);
}

// Paths that a query has given already: a table of texts with open addressing.
struct seen {
    char **texts;
    size_t count, size; // a power of two
};

static uint64_t hash(const char *text)
{
    uint64_t h = 14695981039346656037u; // FNV-1a
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h ^ h >> 32;
}

static char **slot(const struct seen *seen, const char *text)
{
    size_t i = hash(text) & (seen->size - 1);
    while (seen->texts[i] && strcmp(seen->texts[i], text))
        i = (i + 1) & (seen->size - 1);
    return &seen->texts[i];
}

// Whether it is new; remembers it then.
static bool add_seen(struct seen *seen, const struct rp_cim_path *path)
{
    struct rp_buf text = {0};
    rp_cim_path_format_relative(path, &text);
    char *key = (char *)rp_buf_text(&text);
    for (char *c = key; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 32) : *c;
    if (seen->count * 2 >= seen->size) {
        struct seen larger = {.size = seen->size ? seen->size * 2 : 64, .count = seen->count};
        larger.texts = rp_xcalloc(larger.size, sizeof *larger.texts);
        for (size_t i = 0; i < seen->size; i++)
            if (seen->texts[i])
                *slot(&larger, seen->texts[i]) = seen->texts[i];
        free(seen->texts);
        *seen = larger;
    }
    char **place = slot(seen, key);
    if (*place) {
        rp_buf_clear(&text);
        return false;
    }
    *place = key;
    seen->count++;
    return true;
}

static void clear_seen(struct seen *seen)
{
    for (size_t i = 0; i < seen->size; i++)
        free(seen->texts[i]);
    free(seen->texts);
}

static bool is_role(const char *wanted, const struct rp_cim_declaration *end)
{
    return end->type == RP_CIM_REFERENCE && !end->array && (!wanted || !strcasecmp(wanted, end->name));
}

// Whether instances of one class can be of the other.
static bool related(const struct rp_cim_class *a, const struct rp_cim_class *b)
{
    return rp_cim_class_is(a, b) || rp_cim_class_is(b, a);
}

static bool end_admits(const struct pass *pass, const struct rp_cim_declaration *end, const struct rp_cim_class *class)
{
    const struct rp_cim_class *declared =
        end->object_class ? rp_cim_schema_class(pass->provider->schema, end->object_class) : NULL;
    return !declared || !class || related(declared, class);
}

// Whether an association can lead from `from` by way of the query's roles; saves asking the provider for the others.
static bool can_lead(const struct pass *pass, const struct rp_cim_class *association, const struct rp_cim_class *from)
{
    const struct rp_wql *query = pass->query;
    bool references = query->kind == RP_WQL_REFERENCES;
    for (size_t i = 0; i < association->property_count; i++) {
        const struct rp_cim_declaration *near = &association->properties[i];
        if (!is_role(query->role, near) || !end_admits(pass, near, from))
            continue;
        for (size_t j = 0; j < association->property_count && !references; j++) {
            const struct rp_cim_declaration *far = &association->properties[j];
            if (i != j && is_role(query->result_role, far) && end_admits(pass, far, pass->result_class))
                return true;
        }
        if (references)
            return true;
    }
    return false;
}

// The instance at the other end of an association.
static int give_associated(struct pass *pass, const struct rp_cim_path *path, struct rp_error *err)
{
    const struct rp_cim_class *class = rp_cim_schema_class(pass->provider->schema, path->class_name);
    if (!class || (pass->result_class && !related(class, pass->result_class)))
        return 0;
    struct rp_error why = {0};
    struct rp_cim_instance *instance = rp_cim_find(pass->provider, pass->caller, path, &why);
    if (!instance) // an end that has gone meanwhile is no associator
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    class = rp_cim_schema_class(pass->provider->schema, instance->class_name);
    if ((pass->result_class && !rp_cim_class_is(class, pass->result_class)) ||
        (instance->path && !add_seen(pass->seen, instance->path))) {
        rp_cim_instance_free(instance);
        return 0;
    }
    if (pass->query->keys_only)
        keep_keys(class, &instance);
    return pass->sink.take(pass->sink.context, instance, err);
}

static int take_association(void *context, struct rp_cim_instance *association, struct rp_error *err)
{
    struct pass *pass = context;
    const struct rp_wql *query = pass->query;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *owned = association;
    if (check_deadline(query, err))
        return -1;
    complete(pass->provider, pass->class, association);
    for (size_t i = 0; i < pass->class->property_count; i++) {
        const struct rp_cim_declaration *near = &pass->class->properties[i];
        const struct rp_cim_path *path = rp_cim_get_path(association, near->name);
        if (!is_role(query->role, near) || !path || !rp_cim_path_equal(path, pass->source))
            continue;
        if (query->kind == RP_WQL_REFERENCES) {
            owned = NULL;
            if (query->keys_only)
                keep_keys(pass->class, &association);
            return pass->sink.take(pass->sink.context, association, err);
        }
        for (size_t j = 0; j < pass->class->property_count; j++) {
            const struct rp_cim_declaration *far = &pass->class->properties[j];
            path = rp_cim_get_path(association, far->name);
            if (i != j && is_role(query->result_role, far) && path && give_associated(pass, path, err))
                return -1;
        }
    }
    return 0;
}

static int follow(struct pass *pass, struct rp_error *err)
{
    struct rp_cim_provider *p = pass->provider;
    const struct rp_wql *query = pass->query;
    bool references = query->kind == RP_WQL_REFERENCES;
    const char *via_name = references ? query->result_class : query->assoc_class;
    const char *result_name = references ? NULL : query->result_class;
    const struct rp_cim_class *via = via_name ? find_class(p, via_name, err) : NULL;
    if ((via_name && !via) || (result_name && !(pass->result_class = find_class(p, result_name, err))))
        return -1;
    if (query->class_defs_only)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "ClassDefsOnly is not supported");
    const char *own = rp_cim_schema_namespace(p->schema);
    if (query->source->name_space && strcasecmp(query->source->name_space, own))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "namespace %.100s is not %s", query->source->name_space, own);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *source =
        rp_cim_find(p, pass->caller, query->source, err);
    if (!source)
        return -1;
    pass->source = source->path;
    const struct rp_cim_class *from = rp_cim_schema_class(p->schema, source->class_name);
    for (size_t i = 0; i < rp_cim_schema_count(p->schema) && source->path; i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(p->schema, i);
        if (!class->association || class->abstract || (via && !rp_cim_class_is(class, via)) ||
            !can_lead(pass, class, from))
            continue;
        pass->class = class;
        struct rp_cim_sink sink = {take_association, pass};
        if (p->ops->references(p, pass->caller, class, source->path, sink, err))
            return -1;
    }
    return 0;
}

int rp_cim_query(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_wql *query,
                 struct rp_cim_sink sink, struct rp_error *err)
{
    struct seen seen = {0};
    struct pass pass = {.provider = p, .caller = caller, .query = query, .sink = sink, .seen = &seen};
    int result = query->kind == RP_WQL_SELECT ? select_instances(&pass, err) : follow(&pass, err);
    clear_seen(&seen);
    return result;
}
