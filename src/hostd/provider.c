// The provider of both namespaces: which class is served by which function, and what stands around every method:
// access, the lab's script, codes, the audit.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "hostd/core.h"
#include "hostd/schema/schema.h"

static struct rp_hostd *hostd_of(struct rp_cim_provider *p)
{
    bool windows = !strcmp(rp_cim_schema_namespace(p->schema), RP_HOSTD_CIMV2);
    return (struct rp_hostd *)((char *)p - (windows ? offsetof(struct rp_hostd, cimv2)
                                                    : offsetof(struct rp_hostd, virtualization)));
}

static const struct rp_hostd_objects *find_objects(const struct rp_cim_class *class)
{
    static const struct rp_hostd_objects *const tables[] = {
        rp_hostd_system_objects, rp_hostd_settings_objects, rp_hostd_disk_objects, rp_hostd_point_objects,
        rp_hostd_job_objects, rp_hostd_service_objects, rp_hostd_windows_objects,
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct rp_hostd_objects *o = tables[i]; o->class_name; o++)
            if (!strcmp(o->class_name, class->name))
                return o;
    return NULL;
}

// A guest's NVRAM and TPM may hold its keys.
#define SECRET "Content"

static bool is_secret(const struct rp_cim_instance *instance, const char *property)
{
    return !strcasecmp(instance->class_name, RP_HOSTD_FIRMWARE_STATE) && !strcasecmp(property, SECRET);
}

static int take_without_secrets(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    const struct rp_cim_sink *sink = context;
    if (is_secret(instance, SECRET))
        rp_cim_set(instance, SECRET, rp_cim_null(RP_CIM_STRING, false));
    return sink->take(sink->context, instance, err);
}

// `only` NULL: all. Classes that nothing here has instances of have none. Secrets are for those who get the disks, too,
// and gone before anybody compares with them.
static int each(struct rp_hostd *hostd, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                const char *only, struct rp_cim_sink all, struct rp_error *err)
{
    const struct rp_hostd_objects *objects = find_objects(class);
    const struct rp_cim_sink sink =
        caller->access >= RP_CIM_OPERATE ? all : (struct rp_cim_sink){take_without_secrets, &all};
    if (!objects)
        return 0;
    const struct rp_inventory *inventory = objects->inventory ? rp_hostd_hosts_inventory(hostd, err) : NULL;
    if (objects->inventory && !inventory)
        return -1;
    int rc = objects->each(hostd, inventory, class, only, sink, err);
    rp_hostd_hosts_release(hostd, inventory);
    return rc;
}

static int instances(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err)
{
    struct rp_hostd *hostd = hostd_of(p);
    if (class->association)
        return rp_hostd_links_each(hostd, class, NULL, sink, err);
    const struct rp_hostd_objects *objects = find_objects(class);
    const char *only = objects && query ? rp_wql_required(query, objects->key) : NULL;
    return each(hostd, caller, class, only, sink, err);
}

// ---- one ------------------------------------------------------------------------------------------------------------

struct search {
    const struct rp_cim_path *path;
    struct rp_cim_instance *found;
};

static bool has_key(const struct rp_cim_instance *instance, const struct rp_cim_key *key)
{
    const struct rp_cim_value *value = rp_cim_get(instance, key->name);
    if (!value || rp_cim_value_is_null(value) || value->array)
        return false;
    if (value->type == RP_CIM_REFERENCE) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_parse(key->value, NULL);
        return path && rp_cim_path_equal(path, value->one.path);
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(value, &text);
    return !strcasecmp(rp_buf_text(&text), key->value);
}

static int take_match(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    struct search *search = context;
    bool match = true;
    for (size_t i = 0; i < search->path->key_count && match; i++)
        match = has_key(instance, &search->path->keys[i]);
    if (match && !search->found) {
        search->found = instance;
        return 0;
    }
    rp_cim_instance_free(instance);
    return match ? rp_fail(err, RP_ERR_INVALID, "these keys do not tell one %s from others", search->path->class_name)
                 : 0;
}

static struct rp_cim_instance *get(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err)
{
    struct rp_hostd *hostd = hostd_of(p);
    const struct rp_cim_class *class = rp_cim_schema_class(p->schema, path->class_name);
    const struct rp_hostd_objects *objects = class ? find_objects(class) : NULL;
    struct search search = {.path = path};
    struct rp_cim_sink sink = {take_match, &search};
    int rc = !class ? 0 : class->association ? rp_hostd_links_each(hostd, class, NULL, sink, err)
                        : each(hostd, caller, class, objects ? rp_cim_path_get(path, objects->key) : NULL, sink, err);
    if (!rc && search.found)
        return search.found;
    rp_cim_instance_free(search.found);
    if (!rc)
        rp_fail(err, RP_ERR_NOT_FOUND, "there is no such %s", path->class_name);
    return NULL;
}

static int references(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association, const struct rp_cim_path *source, struct rp_cim_sink sink,
                      struct rp_error *err)
{
    (void)caller;
    return rp_hostd_links_each(hostd_of(p), association, source, sink, err);
}

// ---- methods --------------------------------------------------------------------------------------------------------

static const struct rp_hostd_method *find_method(const char *class_name, const char *name)
{
    for (const struct rp_hostd_method *const *table = rp_hostd_method_tables; *table; table++)
        for (const struct rp_hostd_method *m = *table; m->class_name; m++)
            if (!strcasecmp(m->class_name, class_name) && !strcasecmp(m->name, name))
                return m;
    return NULL;
}

// The family of codes of methods that are not there (facts 1.1).
static bool is_dmtf_style(const char *class_name)
{
    return !strcasecmp(class_name, "Msvm_CollectionSnapshotService");
}

#define MOST_ITEMS 64 // of an array in the audit

static size_t items_of(const struct rp_cim_value *value)
{
    return rp_cim_value_is_null(value) ? 0 : value->array ? value->count : 1;
}

// Settings are long, and mostly names without values: class, and each property that says something.
static void describe_settings(const char *text, struct rp_buf *out)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        strchr(text, '<') ? rp_cimxml_parse(text, strlen(text), NULL) : NULL;
    bool broken = !settings && strcasestr(text, RP_HOSTD_FIRMWARE_STATE);
    rp_buf_printf(out, "%s", settings ? settings->class_name : broken ? RP_HOSTD_FIRMWARE_STATE " (broken)" : text);
    for (size_t i = 0; settings && i < settings->count; i++) {
        const char *name = settings->properties[i].name;
        const struct rp_cim_value *value = &settings->properties[i].value;
        for (size_t j = 0; j < items_of(value) && j < MOST_ITEMS; j++) {
            struct rp_cim_value item = rp_cim_value_at(value, j);
            rp_buf_printf(out, " %s=", name);
            if (is_secret(settings, name))
                rp_buf_printf(out, "(not told)");
            else
                rp_cim_value_text(&item, out);
        }
    }
}

// User, address, method and what it was given; the objects first of all.
static void describe_call(struct rp_buf *line, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                          const char *method, const struct rp_cim_instance *in)
{
    RP_AUTO_FREE char *name = rp_xasprintf("%s.%s", path->class_name, method);
    rp_hostd_audit_field(line, "user", caller->user);
    rp_hostd_audit_field(line, "address", caller->address);
    rp_hostd_audit_field(line, "method", name);
    if (!rp_cim_path_get(path, "SystemCreationClassName")) { // a service says nothing
        RP_CLEANUP(rp_buf_clear) struct rp_buf object = {0};
        rp_cim_path_format_relative(path, &object);
        rp_hostd_audit_field(line, "object", rp_buf_text(&object));
    }
    for (size_t i = 0; i < in->count; i++) {
        const struct rp_cim_value *value = &in->properties[i].value;
        for (size_t j = 0; j < items_of(value) && j < MOST_ITEMS; j++) {
            RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
            struct rp_cim_value item = rp_cim_value_at(value, j);
            if (item.type == RP_CIM_REFERENCE)
                rp_cim_path_format_relative(item.one.path, &text);
            else if (item.type == RP_CIM_STRING)
                describe_settings(item.one.text, &text);
            else
                rp_cim_value_text(&item, &text);
            rp_hostd_audit_field(line, in->properties[i].name, rp_buf_text(&text));
        }
        if (items_of(value) > MOST_ITEMS) {
            RP_AUTO_FREE char *more = rp_xasprintf("%zu more", items_of(value) - MOST_ITEMS);
            rp_hostd_audit_field(line, in->properties[i].name, more);
        }
    }
}

static void audit(struct rp_hostd *hostd, struct rp_buf *line, const struct rp_cim_instance *out, uint32_t status,
                  const char *problem)
{
    char number[16];
    snprintf(number, sizeof number, "%u", status);
    rp_hostd_audit_field(line, "status", number);
    const struct rp_cim_path *job = status == 4096 ? rp_cim_get_path(out, "Job") : NULL;
    if (job && rp_cim_path_get(job, "InstanceID"))
        rp_hostd_audit_field(line, "job", rp_cim_path_get(job, "InstanceID"));
    if (*problem)
        rp_hostd_audit_field(line, "error", problem);
    rp_hostd_audit_write(hostd->audit, line);
}

static int call_method(const struct rp_hostd_method *m, const struct rp_hostd_call *call, uint32_t *status,
                       struct rp_error *why)
{
    if (call->caller->access < m->access)
        return rp_fail(why, RP_ERR_PERMISSION, "%s has no right to %s", call->caller->user, m->name);
    int rc = rp_hostd_script_before_method(call, m, status, why);
    return rc ? rc : m->call(call, status, why);
}

static int invoke(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  const struct rp_cim_method *method, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                  uint32_t *status, struct rp_error *err)
{
    (void)err; // what goes wrong is a code, as Hyper-V has it
    struct rp_hostd *hostd = hostd_of(p);
    const struct rp_hostd_method *m = find_method(path->class_name, method->name);
    if (!m) {
        *status = is_dmtf_style(path->class_name) ? 1 : 32770;
        return 0;
    }
    // The line is made first: a method may take its parameters apart.
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    bool changes = m->access > RP_CIM_READ;
    if (changes)
        describe_call(&line, caller, path, method->name, in);
    struct rp_hostd_call call = {.hostd = hostd, .caller = caller, .path = path, .in = in, .out = out};
    struct rp_error why = {0};
    *status = 0;
    if (call_method(m, &call, status, &why) < 0)
        *status = rp_hostd_jobs_code(&why, m->hyperv_style);
    if (!changes)
        return 0;
    rp_hostd_hosts_changed(hostd);
    audit(hostd, &line, out, *status, why.text);
    return 0;
}

// ---- WS-Transfer's Put and Delete -----------------------------------------------------------------------------------

static int put(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
               const struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)p, (void)caller, (void)instance;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: its service has methods that change it", path->class_name);
}

static int delete(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  struct rp_error *err)
{
    (void)p, (void)caller;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: its service has methods that remove it", path->class_name);
}

const struct rp_cim_provider_ops rp_hostd_provider_ops = {
    .instances = instances, .get = get, .references = references, .invoke = invoke, .put = put, .remove = delete,
};
