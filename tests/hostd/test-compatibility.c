// docs/compatibility.md has one row for each class and method of the schema, and says of each what is the case: of a
// method whether it is in the tables, of a class whether a host that has everything has instances of it.
#include "method-kit.h"

#define RECOVERY 32768
#define SIZE (8 * RP_MIB)

static struct mk mk;
static char *document;

// ---- a host that has everything -------------------------------------------------------------------------------------

static void add(const char *id, const char *settings)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_settings(&mk, id);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "AddResourceSettings", NULL, "AffectedConfiguration", mk_ref(path),
                             "ResourceSettings", mk_texts(settings, NULL), NULL),
                     0);
}

static void populate(void)
{
    static const char *const kept[] = {"Msvm_SyntheticEthernetPortSettingData", "Msvm_EmulatedEthernetPortSettingData",
                                       "Msvm_EthernetPortAllocationSettingData", "Msvm_SerialPortSettingData",
                                       "Msvm_SyntheticDisplayControllerSettingData", "Msvm_ShutdownComponentSettingData",
                                       "Msvm_TimeSyncComponentSettingData", "Msvm_HeartbeatComponentSettingData",
                                       "Msvm_KvpExchangeComponentSettingData", "Msvm_VssComponentSettingData",
                                       "Msvm_GuestServiceInterfaceComponentSettingData", "Msvm_TPMSettingData",
                                       "Msvm_SecuritySettingData", "Refpoint_DomainSettingData",
                                       "Refpoint_FirmwareStateData"};
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "everything", 1, SIZE, id);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        RP_AUTO_FREE char *settings = mk_embed(kept[i], "ElementName", mk_text("one"), NULL);
        add(id, settings);
    }
    RP_AUTO_FREE char *planned = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("planned"), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", NULL, "SystemSettings", mk_text("%s", planned), NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *first = mk_snapshot(&mk, id, RECOVERY, "first");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point = mk_convert(&mk, first);
    mk_wait_merged(&mk, id);
    RP_AUTO_FREE char *folder = mk_file(&mk, "export"), *disk = mk_file(&mk, "everything-0.vhdx");
    uint32_t status = mk_call(&mk, POINTS, "ExportReferencePoint", &out, "ReferencePoint", mk_ref(point),
                              "ExportDirectory", mk_text("%s", folder), NULL);
    mk_made(&mk, status, &out, NULL);
    mk_wait_merged(&mk, id);
    status = mk_call(&mk, IMAGES, "ResizeVirtualHardDisk", &out, "Path", mk_text("%s", disk), "MaxInternalSize",
                     mk_number(2 * SIZE), NULL);
    mk_made(&mk, status, &out, NULL);
    rp_cim_path_free(mk_snapshot(&mk, id, 2, "a"));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *last = mk_snapshot(&mk, id, 2, "b");
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "ApplySnapshot", &out, "Snapshot", mk_ref(last), NULL), &out, NULL);
}

static int start(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    const char *path = getenv("RP_TEST_COMPATIBILITY");
    assert_non_null(path);
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, 1 << 20, &text, &err), err);
    document = rp_xstrdup(rp_buf_text(&text));
    mk_start(&mk);
    populate();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(document);
    mk_stop(&mk);
    return 0;
}

// ---- rows -----------------------------------------------------------------------------------------------------------

enum said { MISSING, TWICE, NO, YES, PARTLY, EMBEDDED, SUPERCLASS, UNKNOWN };

// "| `name` | word | …": what the row says.
static enum said said_of(const char *name)
{
    static const struct { const char *word; enum said said; } words[] = {
        {"no ", NO}, {"yes ", YES}, {"partly ", PARTLY}, {"embedded ", EMBEDDED}, {"superclass ", SUPERCLASS},
    };
    RP_AUTO_FREE char *begin = rp_xasprintf("\n| `%s` | ", name);
    const char *row = strstr(document, begin);
    if (!row)
        return MISSING;
    row += strlen(begin);
    if (strstr(row, begin))
        return TWICE;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncmp(row, words[i].word, strlen(words[i].word)))
            return words[i].said;
    return UNKNOWN;
}

static void check(const char *name, enum said expected, enum said or, size_t *wrong)
{
    static const char *const names[] = {"missing", "there twice", "no",         "yes",
                                        "partly",  "embedded",    "superclass", "in words unknown"};
    enum said said = said_of(name);
    if (said == expected || said == or)
        return;
    print_message("# `%s` is %s, should be %s\n", name, names[said], names[expected]);
    ++*wrong;
}

static bool is_offered(const char *class_name, const char *method)
{
    for (const struct rp_hostd_method *const *table = rp_hostd_method_tables; *table; table++)
        for (const struct rp_hostd_method *m = *table; m->class_name; m++)
            if (!strcmp(m->class_name, class_name) && !strcmp(m->name, method))
                return true;
    return false;
}

static int count(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instance_free(instance);
    ++*(size_t *)context;
    return 0;
}

static size_t instance_count(struct rp_cim_provider *p, const struct rp_cim_class *class)
{
    size_t all = 0;
    struct rp_error err = {0};
    kit_ok(p->ops->instances(p, &mk.caller, class, NULL, (struct rp_cim_sink){count, &all}, &err), err);
    return all;
}

static void the_first_rows_say_which_protocols_there_are(void **state)
{
    (void)state;
    const char *first = strstr(document, "\n| --- | --- | --- |\n");
    assert_non_null(first);
    first += strlen("\n| --- | --- | --- |\n");
    assert_int_equal(strncmp(first, "| WMI over DCOM | no |", 22), 0);
    const char *second = strchr(first, '\n') + 1;
    assert_int_equal(strncmp(second, "| WMI over WS-Management | yes |", 32), 0);
}

static void every_class_has_a_row_that_is_true(void **state)
{
    (void)state;
    struct rp_cim_provider *const providers[] = {&mk.hostd->virtualization, &mk.hostd->cimv2};
    size_t wrong = 0;
    for (size_t p = 0; p < 2; p++) {
        for (size_t i = 0; i < rp_cim_schema_count(providers[p]->schema); i++) {
            const struct rp_cim_class *class = rp_cim_schema_at(providers[p]->schema, i);
            // Superclasses that both namespaces have, have one row.
            if (class->abstract)
                check(class->name, SUPERCLASS, SUPERCLASS, &wrong);
            else if (instance_count(providers[p], class))
                check(class->name, YES, PARTLY, &wrong);
            else
                check(class->name, NO, EMBEDDED, &wrong);
        }
    }
    assert_int_equal(wrong, 0);
}

static void every_method_has_a_row_that_is_true(void **state)
{
    (void)state;
    size_t wrong = 0;
    const struct rp_cim_schema *schema = mk.provider->schema;
    for (size_t i = 0; i < rp_cim_schema_count(schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(schema, i);
        for (size_t m = 0; !class->abstract && m < class->method_count; m++) {
            RP_AUTO_FREE char *name = rp_xasprintf("%s.%s", class->name, class->methods[m].name);
            bool offered = is_offered(class->name, class->methods[m].name);
            check(name, offered ? YES : NO, offered ? PARTLY : NO, &wrong);
        }
    }
    assert_int_equal(wrong, 0);
}

static void every_method_that_is_offered_is_one_of_the_schema(void **state)
{
    (void)state;
    for (const struct rp_hostd_method *const *table = rp_hostd_method_tables; *table; table++)
        for (const struct rp_hostd_method *m = *table; m->class_name; m++) {
            const struct rp_cim_class *class = rp_cim_schema_class(mk.provider->schema, m->class_name);
            if (!class || !rp_cim_class_method(class, m->name))
                fail_msg("%s.%s", m->class_name, m->name);
        }
}

static void no_row_is_of_something_that_is_not_there(void **state)
{
    (void)state;
    for (const char *row = document; (row = strstr(row, "\n| `")); row++) {
        char name[200] = "";
        assert_int_equal(sscanf(row + 4, "%199[^`]", name), 1);
        char *dot = strchr(name, '.');
        if (dot)
            *dot = '\0';
        const struct rp_cim_class *class = rp_cim_schema_class(mk.provider->schema, name);
        class = class ? class : rp_cim_schema_class(mk.hostd->cimv2.schema, name);
        if (!class || strcmp(class->name, name) || (dot && !rp_cim_class_method(class, dot + 1)))
            fail_msg("%s %s", name, dot ? dot + 1 : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rows_say_which_protocols_there_are),
        cmocka_unit_test(every_class_has_a_row_that_is_true),
        cmocka_unit_test(every_method_has_a_row_that_is_true),
        cmocka_unit_test(every_method_that_is_offered_is_one_of_the_schema),
        cmocka_unit_test(no_row_is_of_something_that_is_not_there),
    };
    return cmocka_run_group_tests_name("hostd compatibility", tests, start, stop);
}
