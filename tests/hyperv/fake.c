#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "hostd/schema/schema.h"

static struct fake *the_fake; // whose answers are changed on their way

// ---- the provider ---------------------------------------------------------------------------------------------------

static bool has_key(const struct rp_cim_instance *object, const struct rp_cim_key *key)
{
    const char *value = rp_cim_get_text(object, key->name);
    return value && !strcasecmp(value, key->value);
}

static size_t index_of(struct rp_cim_provider *p)
{
    return p != &the_fake->v2;
}

static int instances(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)caller, (void)query;
    if (the_fake->no_cimv2 && index_of(p))
        return rp_fail(err, RP_ERR_PERMISSION, "access denied");
    if (the_fake->busy && the_fake->busy--)
        return rp_fail(err, RP_ERR_BUSY, "over its quota");
    const struct rp_cim_instances *objects = &the_fake->objects[index_of(p)];
    for (size_t i = 0; i < objects->count; i++)
        if (!strcmp(objects->items[i]->class_name, class->name) &&
            sink.take(sink.context, rp_cim_instance_copy(objects->items[i]), err))
            return -1;
    return 0;
}

static struct rp_cim_instance *get(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err)
{
    (void)caller;
    const struct rp_cim_instances *objects = &the_fake->objects[index_of(p)];
    for (size_t i = 0; i < objects->count; i++) {
        bool same = !strcasecmp(objects->items[i]->class_name, path->class_name);
        for (size_t k = 0; same && k < path->key_count; k++)
            same = has_key(objects->items[i], &path->keys[k]);
        if (same)
            return rp_cim_instance_copy(objects->items[i]);
    }
    rp_fail(err, RP_ERR_NOT_FOUND, "there is no such %s", path->class_name);
    return NULL;
}

static int references(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association, const struct rp_cim_path *source, struct rp_cim_sink sink,
                      struct rp_error *err)
{
    (void)source;
    return instances(p, caller, association, NULL, sink, err);
}

static int invoke(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  const struct rp_cim_method *method, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                  uint32_t *status, struct rp_error *err)
{
    (void)p, (void)caller, (void)err;
    struct fake *fake = the_fake;
    rp_cim_instance_free(fake->in);
    fake->in = rp_cim_instance_copy(in);
    snprintf(fake->log + strlen(fake->log), sizeof fake->log - strlen(fake->log), "%s ", method->name);
    if (fake->drop_method && !strcmp(fake->drop_method, method->name)) {
        fake->drop_method = NULL;
        fake->drop++;
    }
    *status = 32770;
    for (const struct fake_answer *answer = fake->answers; answer && answer->method; answer++)
        if (!strcmp(answer->method, method->name)) {
            *status = answer->status;
            if (answer->call)
                answer->call(fake, path, in, out, status);
            break;
        }
    return 0;
}

static const struct rp_cim_provider_ops ops = {.instances = instances, .get = get, .references = references,
                                               .invoke = invoke};

// ---- answers on their way -------------------------------------------------------------------------------------------

static void replace(struct rp_buf *text, size_t from, const char *old, const char *new)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_buf_append(&out, text->data, from);
    const char *p = rp_buf_text(text) + from;
    for (const char *hit; (hit = strstr(p, old)); p = hit + strlen(old)) {
        rp_buf_append(&out, p, (size_t)(hit - p));
        rp_buf_append(&out, new, strlen(new));
    }
    rp_buf_append(&out, p, strlen(p));
    struct rp_buf old_text = *text;
    *text = out;
    out = old_text;
}

static void other_prefixes(struct rp_buf *text, size_t from)
{
    static const char *const prefixes[][2] = {{"s", "SOAP-ENV"}, {"a", "wsa5"}, {"w", "p2"}, {"n", "p3"}, {"p", "q1"},
                                              {"x", "p4"}, {"cim", "p5"}, {"xsi", "i"}};
    static const char *const before[] = {"<", "</", "xmlns:", " "}, *const after[] = {":", ":", "=", ":"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        for (size_t k = 0; k < sizeof before / sizeof *before; k++) {
            RP_AUTO_FREE char *old = rp_xasprintf("%s%s%s", before[k], prefixes[i][0], after[k]);
            RP_AUTO_FREE char *new = rp_xasprintf("%s%s%s", before[k], prefixes[i][1], after[k]);
            replace(text, from, old, new);
        }
    }
    replace(text, from, "=\"p:", "=\"q1:"); // xsi:type
}

// <cim:Datetime>2026-01-02T03:04:05Z</cim:Datetime> as 20260102030405.000000+000.
static void cim_dates(struct rp_buf *text, size_t from)
{
    static const char begin[] = "<cim:Datetime>", end[] = "</cim:Datetime>";
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_buf_append(&out, text->data, from);
    const char *p = rp_buf_text(text) + from;
    for (const char *hit; (hit = strstr(p, begin)) && strstr(hit, end);) {
        struct rp_cim_datetime t;
        const char *value = hit + sizeof begin - 1, *stop = strstr(value, end);
        RP_AUTO_FREE char *one = strndup(value, (size_t)(stop - value));
        char formatted[RP_CIM_DATETIME_TEXT];
        rp_buf_append(&out, p, (size_t)(hit - p));
        if (!rp_cim_datetime_parse(one, &t, NULL))
            rp_buf_printf(&out, "%s", rp_cim_datetime_format(&t, formatted));
        p = stop + sizeof end - 1;
    }
    rp_buf_append(&out, p, strlen(p));
    struct rp_buf old = *text;
    *text = out;
    out = old;
}

static char *element(const char *text, const char *name)
{
    RP_AUTO_FREE char *begin = rp_xasprintf("<%s", name);
    const char *at = strstr(text, begin), *value = at ? strchr(at, '>') : NULL;
    return value ? strndup(value + 1, strcspn(value + 1, "<")) : rp_xstrdup("");
}

// The parts of a request that say what is asked: everything but ids and where it goes.
static char *meaning(const char *text)
{
    RP_AUTO_FREE char *action = element(text, "a:Action"), *uri = element(text, "w:ResourceURI");
    const char *selectors = strstr(text, "<w:SelectorSet>"), *body = strstr(text, "<s:Body>");
    const char *end = selectors ? strstr(selectors, "</w:SelectorSet>") : NULL;
    return rp_xasprintf("%s|%s|%.*s|%s", action, uri, end ? (int)(end - selectors) : 0, end ? selectors : "",
                        body ? body : "");
}

static bool read_text(const char *path, struct rp_buf *out)
{
    FILE *file = fopen(path, "r");
    char piece[4096];
    for (size_t n; file && (n = fread(piece, 1, sizeof piece, file)) > 0;)
        rp_buf_append(out, piece, n);
    if (file)
        fclose(file);
    return file;
}

static unsigned replay(struct fake *fake, const char *request, struct rp_buf *out)
{
    RP_AUTO_FREE char *asked = meaning(request), *id = element(request, "a:MessageID");
    for (unsigned i = 1; i < 1000; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf sent = {0}, answer = {0};
        char path[160];
        snprintf(path, sizeof path, "%s/%03u-sent.xml", fake->replay, i);
        if (!read_text(path, &sent))
            break;
        RP_AUTO_FREE char *recorded = meaning(rp_buf_text(&sent)), *old = element(rp_buf_text(&sent), "a:MessageID");
        if (strcmp(recorded, asked) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%03u-received.xml", fake->replay, i);
        read_text(path, &answer);
        if (*old)
            replace(&answer, 0, old, id);
        rp_buf_append(out, answer.data, answer.size);
        return 200;
    }
    fprintf(stderr, "# nothing recorded answers %s\n", asked);
    return 500;
}

unsigned __real_rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                        const char *charset, const void *request, size_t size, struct rp_buf *out);
unsigned __wrap_rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                        const char *charset, const void *request, size_t size, struct rp_buf *out);
unsigned __wrap_rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                        const char *charset, const void *request, size_t size, struct rp_buf *out)
{
    struct fake *fake = the_fake;
    RP_AUTO_FREE char *text = strndup(request, size);
    size_t from = out->size;
    fake->enumerations += strstr(text, "enumeration/Enumerate<") != NULL;
    if (fake->replay)
        return replay(fake, text, out);
    if (fake->refuse)
        return 500;
    if (fake->no_references && strstr(text, "EnumerateObjectAndEPR")) {
        RP_AUTO_FREE char *id = element(text, "a:MessageID");
        rp_buf_printf(out, "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" "
                           "xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" "
                           "xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\"><s:Header><a:RelatesTo>%s</a:RelatesTo>"
                           "</s:Header><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>"
                           "w:UnsupportedFeature</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang=\"en\">no</s:Text>"
                           "</s:Reason></s:Fault></s:Body></s:Envelope>", id);
        return 500;
    }
    unsigned status = __real_rp_wsman_service_handle(service, caller, charset, request, size, out);
    if (fake->form & FAKE_NIL_ARRAYS) // of properties that these classes have and the fake leaves empty
        replace(out, from, "<p:Notes/>", ""),
            replace(out, from, "<p:ElementName",
                    "<p:BootOrder xsi:nil=\"true\"/><p:Connection xsi:nil=\"true\"/><p:ElementName");
    if (fake->form & FAKE_CIM_DATES)
        cim_dates(out, from);
    if (fake->form & FAKE_DMTF_ITEMS) {
        replace(out, from, "<w:Items", "<n:Items"), replace(out, from, "</w:Items", "</n:Items");
        replace(out, from, "<w:EndOfSequence", "<n:EndOfSequence");
    }
    if (fake->form & FAKE_OTHER_PREFIXES)
        other_prefixes(out, from);
    return status;
}

static bool drop(void *context)
{
    struct fake *fake = context;
    if (fake->refuse)
        return true;
    if (fake->drop <= 0)
        return false;
    fake->drop--;
    return true;
}

// ---- what is there --------------------------------------------------------------------------------------------------

void fake_set(struct rp_cim_instance *object, const struct fake *fake, const char *name, const char *value)
{
    for (size_t i = 0; i < 2; i++) {
        const struct rp_cim_class *class = rp_cim_schema_class(fake->schemas[i], object->class_name);
        const struct rp_cim_declaration *declared = class ? rp_cim_class_property(class, name) : NULL;
        struct rp_cim_value one = rp_cim_string(value);
        if (declared && !rp_cim_value_convert(&one, declared->type, declared->array, NULL)) {
            rp_cim_set(object, name, one);
            return;
        }
        rp_cim_value_clear(&one);
    }
    fprintf(stderr, "# %s.%s = %s cannot be\n", object->class_name, name, value);
    abort();
}

struct rp_cim_instance *fake_add(struct fake *fake, const char *class_name, const char *properties)
{
    size_t which = strncmp(class_name, "Win32_", 6) ? 0 : 1;
    struct rp_cim_instance *object = rp_cim_class_instance(rp_cim_schema_class(fake->schemas[which], class_name));
    RP_AUTO_FREE char *copy = rp_xstrdup(properties);
    char *rest = NULL;
    for (char *one = strtok_r(copy, ";", &rest); one; one = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(one, '=');
        *equals = 0;
        fake_set(object, fake, one, equals + 1);
    }
    rp_cim_instances_push(&fake->objects[which], object);
    return object;
}

struct rp_cim_instance *fake_find(struct fake *fake, const char *class_name, const char *instance_id)
{
    for (size_t i = 0; i < fake->objects[0].count; i++) {
        struct rp_cim_instance *object = fake->objects[0].items[i];
        const char *id = rp_cim_get_text(object, "InstanceID");
        if (!strcmp(object->class_name, class_name) && id && !strcmp(id, instance_id))
            return object;
    }
    return NULL;
}

void fake_remove(struct fake *fake, const char *class_name, const char *instance_id)
{
    struct rp_cim_instance *object = fake_find(fake, class_name, instance_id);
    for (size_t i = 0; object && i < fake->objects[0].count; i++)
        if (fake->objects[0].items[i] == object) {
            memmove(fake->objects[0].items + i, fake->objects[0].items + i + 1,
                    (--fake->objects[0].count - i) * sizeof object);
            rp_cim_instance_free(object);
            return;
        }
}

void fake_vm(struct fake *fake, const char *guid, const char *name)
{
    RP_AUTO_FREE char *system = rp_xasprintf("Name=%s;ElementName=%s;EnabledState=3;OperationalStatus=2", guid, name);
    RP_AUTO_FREE char *settings = rp_xasprintf("InstanceID=Microsoft:%s;ElementName=%s;VirtualSystemIdentifier=%s;"
        "VirtualSystemType=Microsoft:Hyper-V:System:Realized;Version=10.0", guid, name, guid);
    fake_add(fake, "Msvm_ComputerSystem", system);
    fake_add(fake, "Msvm_VirtualSystemSettingData", settings);
}

static void component(struct fake *fake, const char *guid, const char *class_name, const char *id)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(NULL, class_name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_set(path, "InstanceID", id);
    rp_cim_path_format(path, &text);
    RP_AUTO_FREE char *link = rp_xasprintf(
        "GroupComponent=" FAKE_PATH FAKE_SETTINGS("%s") ";PartComponent=" FAKE_PATH "%s", guid, rp_buf_text(&text));
    fake_add(fake, "Msvm_VirtualSystemSettingDataComponent", link);
}

void fake_part(struct fake *fake, const char *guid, const char *place, const char *class_name, const char *properties)
{
    RP_AUTO_FREE char *id = rp_xasprintf("Microsoft:%s\\%s", guid, place);
    RP_AUTO_FREE char *text = rp_xasprintf("InstanceID=%s;%s", id, properties);
    fake_add(fake, class_name, text);
    component(fake, guid, class_name, id);
}

void fake_disk(struct fake *fake, const char *guid, const char *place, const char *file)
{
    RP_AUTO_FREE char *drive = rp_xasprintf("%s\\L", place);
    RP_AUTO_FREE char *text = rp_xasprintf(
        "ResourceType=31;ResourceSubType=Microsoft:Hyper-V:Virtual Hard Disk;HostResource=%s", file);
    fake_part(fake, guid, drive, "Msvm_StorageAllocationSettingData", text);
}

void fake_snapshot(struct fake *fake, const char *vm, const char *guid, const char *name)
{
    RP_AUTO_FREE char *text = rp_xasprintf("InstanceID=Microsoft:%s;ElementName=%s;VirtualSystemIdentifier=%s;"
        "VirtualSystemType=Microsoft:Hyper-V:Snapshot:Recovery;CreationTime=20260102030405.000000+000", guid, name, vm);
    RP_AUTO_FREE char *link = rp_xasprintf("Antecedent=" FAKE_PATH FAKE_SYSTEM("%s") ";Dependent=" FAKE_PATH
        FAKE_SETTINGS("%s"), vm, guid);
    fake_add(fake, "Msvm_VirtualSystemSettingData", text);
    fake_add(fake, "Msvm_SnapshotOfVirtualSystem", link);
}

void fake_point(struct fake *fake, const char *vm, const char *id, const char *name)
{
    RP_AUTO_FREE char *text = rp_xasprintf("InstanceID=%s;ElementName=%s;VirtualSystemIdentifier=%s", id, name, vm);
    RP_AUTO_FREE char *link = rp_xasprintf("Antecedent=" FAKE_PATH FAKE_SYSTEM("%s") ";Dependent=" FAKE_PATH
        "Msvm_VirtualSystemReferencePoint.InstanceID=\"%s\",VirtualSystemIdentifier=\"%s\"", vm, id, vm);
    fake_add(fake, "Msvm_VirtualSystemReferencePoint", text);
    fake_add(fake, "Msvm_ReferencePointOfVirtualSystem", link);
}

void fake_job(struct fake *fake, unsigned state, const char *made)
{
    RP_AUTO_FREE char *text = rp_xasprintf("InstanceID=" FAKE_JOB ";JobState=%u;PercentComplete=60", state);
    RP_AUTO_FREE char *link = rp_xasprintf("AffectingElement=" FAKE_PATH "Msvm_ConcreteJob.InstanceID=\"" FAKE_JOB "\";"
        "AffectedElement=" FAKE_PATH "%s", made);
    fake_remove(fake, "Msvm_ConcreteJob", FAKE_JOB);
    fake_add(fake, "Msvm_ConcreteJob", text);
    if (made)
        fake_add(fake, "Msvm_AffectedJobElement", link);
}

void fake_start_job(struct fake *fake, struct rp_cim_instance *out, uint32_t *status)
{
    (void)fake;
    rp_cim_set(out, "Job",
               rp_cim_reference(rp_cim_path_parse(FAKE_PATH "Msvm_ConcreteJob.InstanceID=\"" FAKE_JOB "\"", NULL)));
    *status = 4096;
}

// ---- the whole ------------------------------------------------------------------------------------------------------

static int peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err)
{
    (void)context, (void)gid, (void)err;
    snprintf(user, 256, "uid %u", uid);
    *access = RP_CIM_ADMINISTER;
    return 0;
}

static void fill(struct fake *fake)
{
    static const char *const services[] = {"Msvm_VirtualSystemManagementService", "Msvm_VirtualSystemSnapshotService",
                                           "Msvm_VirtualSystemReferencePointService", "Msvm_ImageManagementService"};
    for (size_t i = 0; i < sizeof services / sizeof *services; i++)
        fake_add(fake, services[i], "SystemName=HV1");
    fake_add(fake, "Msvm_ComputerSystem", "Name=HV1;ElementName=HV1;Caption=Hosting Computer System");
    fake_add(fake, "Win32_OperatingSystem", "Name=Windows;Version=10.0.20348;CSName=HV1");
    fake_vm(fake, FAKE_A, "web1");
}

struct fake *fake_start(void)
{
    struct fake *fake = the_fake = rp_xcalloc(1, sizeof *fake);
    struct rp_error err = {0};
    fake->schemas[0] = rp_hostd_schema(RP_HOSTD_VIRTUALIZATION, &err);
    fake->schemas[1] = rp_hostd_schema(RP_HOSTD_CIMV2, &err);
    fake->v2 = (struct rp_cim_provider){&ops, fake->schemas[0], "HV1"};
    fake->cimv2 = (struct rp_cim_provider){&ops, fake->schemas[1], "HV1"};
    fill(fake);
    snprintf(fake->folder, sizeof fake->folder, "/tmp/wmi5-XXXXXX");
    if (!mkdtemp(fake->folder))
        abort();
    snprintf(fake->socket, sizeof fake->socket, "%s/socket", fake->folder);
    snprintf(fake->url, sizeof fake->url, "unix:%s", fake->socket);
    fake->service = rp_wsman_service_new("HV1", "Microsoft Corporation", "OS: 10.0.20348 SP: 0.0 Stack: 3.0", NULL);
    rp_wsman_service_add(fake->service, &fake->v2);
    rp_wsman_service_add(fake->service, &fake->cimv2);
    const struct rp_wsman_listener listener = {.socket = fake->socket};
    const struct rp_wsman_server_ops server_ops = {.peer = peer, .drop = drop, .context = fake};
    fake->server = rp_wsman_server_start(fake->service, &listener, 1, NULL, &server_ops, NULL, &err);
    if (!fake->server) {
        fprintf(stderr, "# %s\n", err.text);
        abort();
    }
    return fake;
}

void fake_stop(struct fake *fake)
{
    rp_wsman_server_stop(fake->server);
    rp_wsman_service_free(fake->service);
    for (size_t i = 0; i < 2; i++) {
        rp_cim_instances_clear(&fake->objects[i]);
        rp_cim_schema_free(fake->schemas[i]);
    }
    rp_cim_instance_free(fake->in);
    unlink(fake->socket);
    rmdir(fake->folder);
    free(fake);
    the_fake = NULL;
}

struct rp_host_connection *fake_connect_traced(struct fake *fake,
                                               void (*trace)(void *context, bool sent, const void *data, size_t size),
                                               void *context)
{
    const struct rp_wsman_options options = {.url = fake->url, .auth = RP_AUTH_PEER, .timeout_ms = 5000, .trace = trace,
                                             .trace_context = context};
    return rp_host_wmi_open(&options, NULL);
}

struct rp_host_connection *fake_connect(struct fake *fake) { return fake_connect_traced(fake, NULL, NULL); }
