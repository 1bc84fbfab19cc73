// A VM that gets a domain when it is made, and what its firmware keeps: in checkpoints, in documents, applied and restored. The
// hypervisor is one of files (fake-hypervisor.c).
#include "host-kit.h"

#include <dirent.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/db.h"
#include "host/domain_settings.h"
#include "host/domain_state.h"
#include "host/domain_xml.h"
#include "host/local.h"

#define DISK ((size_t)4 * 1024 * 1024)
#define GENERATION_2 "<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\"><PROPERTY NAME=\"InstanceID\" TYPE=\"string\"><VALUE></VALUE></PROPERTY>" \
    "<PROPERTY NAME=\"VirtualSystemSubType\" TYPE=\"string\"><VALUE>Microsoft:Hyper-V:SubType:2</VALUE></PROPERTY></INSTANCE>\n"
#define ADAPTER "<INSTANCE CLASSNAME=\"Msvm_SyntheticEthernetPortSettingData\"><PROPERTY NAME=\"InstanceID\" TYPE=\"string\"><VALUE>\\a</VALUE></PROPERTY>" \
    "<PROPERTY NAME=\"Address\" TYPE=\"string\"><VALUE>00155D010203</VALUE></PROPERTY></INSTANCE>\n"

struct world {
    char *host, *files, *hypervisor, *uri, *raw;
    struct rp_host_connection *c;
    struct rp_error err;
};

static char job[RP_HOST_ID], result[RP_HOST_ID];

static int setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = kit_folder();
    w->files = kit_folder();
    w->hypervisor = kit_folder();
    w->uri = kit_path("fake:%s", w->hypervisor);
    w->raw = kit_path("%s/web1.raw", w->files);
    kit_raw(w->raw, DISK, 1);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    rp_host_close(w->c);
    kit_remove_folder(w->host);
    kit_remove_folder(w->files);
    kit_remove_folder(w->hypervisor);
    free(w->uri);
    free(w->raw);
    free(w);
    return 0;
}

// The text of a file in the hypervisor's folder, of the VM; NULL: there is none.
static char *domain_file(const struct world *w, const char *id, const char *suffix)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    char uuid[RP_GUID_TEXT];
    struct rp_guid guid;
    assert_int_equal(rp_guid_parse(id, &guid, NULL), 0);
    RP_AUTO_FREE char *path = kit_path("%s/%s.%s", w->hypervisor, rp_guid_format(&guid, uuid), suffix);
    if (access(path, F_OK))
        return NULL;
    struct rp_error err = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, RP_MIB, &text, &err), err);
    return rp_xstrdup(rp_buf_text(&text));
}

static void write_domain(const struct world *w, const char *id, const char *xml)
{
    char uuid[RP_GUID_TEXT];
    struct rp_guid guid;
    assert_int_equal(rp_guid_parse(id, &guid, NULL), 0);
    RP_AUTO_FREE char *path = kit_path("%s/%s.xml", w->hypervisor, rp_guid_format(&guid, uuid));
    kit_write_file(path, xml, strlen(xml));
}

static void host_it(struct world *w)
{
    kit_ok(rp_host_local_set_hypervisor(w->c, w->uri, "default", "tcg", &w->err), w->err);
}

static void define(struct world *w, const char *name, const char *extras, char id[RP_HOST_ID])
{
    const char *disk = w->raw;
    rp_host_local_next_extras(w->c, extras);
    kit_ok(w->c->ops->define_system(w->c, name, &disk, 1, NULL, NULL, job, id, &w->err), w->err);
}

static int64_t count(struct world *w, const char *sql)
{
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    RP_CLEANUP(rp_db_close_p) struct rp_db *db = rp_db_open(path, &w->err);
    int64_t number = -1;
    kit_ok(!db, w->err);
    kit_ok(rp_db_number(db, &w->err, &number, sql, ""), w->err);
    return number;
}

// ---- packing and text -----------------------------------------------------------------------------------------------

static void fill(struct rp_domain_state_files *files, const char *const *names, const char *const *contents, size_t count)
{
    *files = (struct rp_domain_state_files){.count = count};
    for (size_t i = 0; i < count; i++) {
        files->items[i].tpm = *names[i] != '\0';
        snprintf(files->items[i].name, sizeof files->items[i].name, "%s", names[i]);
        rp_buf_append(&files->items[i].content, contents[i], strlen(contents[i]));
    }
}

static void firmware_state_goes_into_settings_and_comes_out_the_same(void **state)
{
    (void)state;
    struct rp_error err = {0};
    uint64_t random = kit_seed();
    for (unsigned round = 0; round < 50; round++) {
        RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {.count = 2}, again = {0};
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        RP_AUTO_FREE char *rest = NULL;
        files.items[1].tpm = true;
        snprintf(files.items[1].name, sizeof files.items[1].name, "tpm2-00.permall");
        for (size_t i = 0; i < 2; i++)
            for (unsigned part = 0; part < round % 7; part++) { // runs of equal bytes, and bytes as they come
                size_t length = kit_random(&random) % (part % 2 ? 100 : 70000);
                uint8_t *data = rp_buf_extend(&files.items[i].content, length), byte = (uint8_t)kit_random(&random);
                for (size_t b = 0; b < length; b++)
                    data[b] = part % 2 ? (uint8_t)kit_random(&random) : byte;
            }
        rp_buf_append(&text, GENERATION_2, strlen(GENERATION_2));
        kit_ok(rp_domain_state_to_text(&files, &text, &err), err);
        kit_ok(rp_domain_state_of_text(rp_buf_text(&text), &again, &rest, &err), err);
        assert_int_equal(again.count, 2);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(again.items[i].tpm, files.items[i].tpm);
            assert_string_equal(again.items[i].name, files.items[i].name);
            assert_int_equal(again.items[i].content.size, files.items[i].content.size);
            if (files.items[i].content.size)
                assert_memory_equal(again.items[i].content.data, files.items[i].content.data, files.items[i].content.size);
        }
        assert_non_null(strstr(rest, "SubType:2"));
        assert_null(strstr(rest, RP_DOMAIN_STATE_CLASS));
    }
}

// 540672 bytes as OVMF's store: mostly 0xFF.
static void the_store_of_a_firmware_takes_little_room(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {.count = 1};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    memset(rp_buf_extend(&files.items[0].content, 540672), 0xFF, 540672);
    kit_ok(rp_domain_state_to_text(&files, &text, &err), err);
    assert_true(text.size < 1024);
}

#define STATE(kind, name, size, content) "<INSTANCE CLASSNAME=\"Refpoint_FirmwareStateData\">"                             \
    "<PROPERTY NAME=\"Kind\" TYPE=\"string\"><VALUE>" kind "</VALUE></PROPERTY><PROPERTY NAME=\"Name\" TYPE=\"string\"><VALUE>" name \
    "</VALUE></PROPERTY><PROPERTY NAME=\"Size\" TYPE=\"uint64\"><VALUE>" size "</VALUE></PROPERTY>"                        \
    "<PROPERTY NAME=\"Content\" TYPE=\"string\"><VALUE>" content "</VALUE></PROPERTY></INSTANCE>"

static void firmware_state_of_strangers_is_refused_unless_it_is_right(void **state)
{
    (void)state;
    struct rp_error err = {0};
    static const char *const bad[] = {
        STATE("tpm", "../../../etc/shadow", "0", ""), STATE("tpm", ".lock", "0", ""), STATE("tpm", "", "0", ""),
        STATE("tpm", "a/b", "0", ""), STATE("disk", "x", "0", ""), STATE("nvram", "", "99999999999", ""),
        STATE("nvram", "", "18446744073709551615", ""), STATE("nvram", "", "1", ""), STATE("nvram", "", "4", "!!!!"),
        STATE("nvram", "", "4", "BAAAAGFhYWEAAAAAAA=="), // no: "aaaa" and no byte of a run, cut off below
        STATE("nvram", "", "16000000", "AAAAAP////8A"),  // a run of 4 GiB
        STATE("nvram", "", "0", "AAAAAAAAAAAAAAAAAAAAAAAA"), // nothing, over and over
        STATE("nvram", "", "0", "") STATE("nvram", "", "0", ""),
        "<INSTANCE CLASSNAME=\"Refpoint_FirmwareStateData\"></INSTANCE>",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_domain_state_files files;
        RP_AUTO_FREE char *rest = NULL;
        rp_error_clear(&err);
        int rc = rp_domain_state_of_text(bad[i], &files, &rest, &err);
        if (i == 9) { // that one is whole: 4 bytes and an empty run
            kit_ok(rc, err);
            rp_domain_state_clear(&files);
            continue;
        }
        if (!rc)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(files.count, 0);
    }
}

// ---- files ----------------------------------------------------------------------------------------------------------

// Linked instead of the real ones: where a file system does not say what a name is.
static bool kinds_are_unknown;
struct dirent *__real_readdir(DIR *folder);
struct dirent *__real_readdir64(DIR *folder);
struct dirent *__wrap_readdir(DIR *folder);
struct dirent *__wrap_readdir64(DIR *folder);

static struct dirent *as_told(struct dirent *entry)
{
    if (entry && kinds_are_unknown)
        entry->d_type = DT_UNKNOWN;
    return entry;
}
struct dirent *__wrap_readdir(DIR *folder) { return as_told(__real_readdir(folder)); }
struct dirent *__wrap_readdir64(DIR *folder) { return as_told(__real_readdir64(folder)); }

static void state_files_are_read_written_and_bounded(void **state)
{
    struct world *w = *state;
    struct rp_error err = {0};
    unsigned left_out = 0;
    RP_AUTO_FREE char *nvram = kit_path("%s/vars.fd", w->files), *tpm = kit_path("%s/swtpm/uuid/tpm2", w->files),
                      *stale = kit_path("%s/tpm2-00.volatilestate", tpm), *lock = kit_path("%s/.lock", tpm),
                      *permanent = kit_path("%s/tpm2-00.permall", tpm);
    const struct rp_domain_state_places places = {.nvram = nvram, .tpm = tpm, .conf = (char *)"/nonexistent"};
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {0}, again = {0}, none = {0};
    kit_ok(rp_domain_state_read(&places, &none, &err), err); // never started: nothing there
    assert_int_equal(none.count, 0);
    fill(&files, (const char *const[]){"", "tpm2-00.permall"}, (const char *const[]){"variables", "secrets"}, 2);
    kit_ok(rp_domain_state_write(&places, &files, &left_out, &err), err);
    kit_write_file(stale, "x", 1);
    kit_write_file(lock, "", 0);
    kit_ok(rp_domain_state_write(&places, &files, &left_out, &err), err); // again, over what swtpm has made meanwhile
    assert_int_equal(left_out, 0);
    assert_int_equal(access(stale, F_OK), -1);
    assert_int_equal(access(lock, F_OK), 0);
    kit_ok(rp_domain_state_read(&places, &again, &err), err);
    assert_int_equal(again.count, 2);
    assert_memory_equal(again.items[0].content.data, "variables", 9);
    assert_memory_equal(again.items[1].content.data, "secrets", 7);
    assert_string_equal(again.items[1].name, "tpm2-00.permall");
    rp_domain_state_clear(&again);
    struct stat st;
    assert_int_equal(stat(permanent, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(truncate(nvram, (off_t)RP_DOMAIN_STATE_MAX + 1), 0);
    kit_fails(rp_domain_state_read(&places, &again, &err), err, RP_ERR_UNSUPPORTED);
    const struct rp_domain_state_places nowhere = {0};
    kit_ok(rp_domain_state_write(&nowhere, &files, &left_out, &err), err);
    assert_int_equal(left_out, 2);
}

static void so_are_they_where_the_file_system_does_not_tell_files_from_folders(void **state)
{
    kinds_are_unknown = true;
    state_files_are_read_written_and_bounded(state);
    kinds_are_unknown = false;
}

static void places_are_those_of_libvirt(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    static const char text[] = "<domain type='kvm'><name>a</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory>1</memory>"
        "<os><type>hvm</type><loader type='pflash'>/x</loader><nvram>/v/a.fd</nvram></os><devices><tpm model='tpm-crb'>"
        "<backend type='emulator' version='2.0'/></tpm></devices></domain>";
    RP_CLEANUP(rp_domain_state_places_clear) struct rp_domain_state_places system = {0}, embedded = {0};
    kit_ok(rp_domain_xml_parse(text, &xml, &err), err);
    rp_domain_state_places("qemu:///system", &xml, &system);
    assert_string_equal(system.nvram, "/v/a.fd");
    assert_string_equal(system.tpm, "/var/lib/libvirt/swtpm/11111111-2222-3333-4444-555555555555/tpm2");
    assert_string_equal(system.conf, "/etc/libvirt/qemu.conf");
    rp_domain_state_places("qemu:///embed?root=/r", &xml, &embedded);
    assert_string_equal(embedded.tpm, "/r/lib/swtpm/11111111-2222-3333-4444-555555555555/tpm2");
    RP_AUTO_FREE char *nvram = rp_domain_state_nvram("qemu:///embed?root=/r", "1111AAAA-2222-3333-4444-555555555555");
    assert_string_equal(nvram, "/r/lib/qemu/nvram/1111aaaa-2222-3333-4444-555555555555_VARS.fd");
    assert_null(rp_domain_state_nvram("qemu:///session", "11111111-2222-3333-4444-555555555555"));
}

// ---- a VM is made, and has a domain ---------------------------------------------------------------------------------

static void a_host_that_names_a_hypervisor_gives_its_vms_a_domain(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], other[RP_HOST_ID];
    host_it(w);
    define(w, "web1", GENERATION_2 ADAPTER, id);
    RP_AUTO_FREE char *xml = domain_file(w, id, "xml");
    assert_non_null(xml);
    assert_non_null(strstr(xml, "<name>web1</name>"));
    assert_non_null(strstr(xml, "name='disk0'"));
    assert_non_null(strstr(xml, "00:15:5d:01:02:03"));
    assert_int_equal(count(w, "SELECT count(*) FROM domain_disk WHERE target = 'sda'"), 1);
    assert_int_equal(count(w, "SELECT count(*) FROM vm WHERE hypervisor <> '' AND domain = id AND domain_xml = ''"), 1);
    // another one of its name and its addresses gets others
    define(w, "web1", GENERATION_2 ADAPTER, other);
    RP_AUTO_FREE char *second = domain_file(w, other, "xml");
    assert_null(strstr(second, "<name>web1</name>"));
    assert_non_null(strstr(second, "<name>web1 ("));
    assert_null(strstr(second, "00:15:5d:01:02:03"));
    kit_ok(w->c->ops->destroy_system(w->c, id, true, job, result, &w->err), w->err);
    assert_null(domain_file(w, id, "xml"));
}

static void a_host_without_one_makes_vms_as_before(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    host_it(w);
    kit_ok(rp_host_local_set_hypervisor(w->c, NULL, NULL, NULL, &w->err), w->err);
    define(w, "web1", GENERATION_2, id);
    assert_null(domain_file(w, id, "xml"));
    assert_int_equal(count(w, "SELECT count(*) FROM vm WHERE hypervisor = '' AND domain = ''"), 1);
}

static void settings_of_the_host_that_make_no_sense_are_refused(void **state)
{
    struct world *w = *state;
    kit_fails(rp_host_local_set_hypervisor(w->c, "qemu", NULL, NULL, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(rp_host_local_set_hypervisor(w->c, "qemu:///system'/>", NULL, NULL, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(rp_host_local_set_hypervisor(w->c, "qemu:///system", "a b", NULL, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(rp_host_local_set_hypervisor(w->c, "qemu:///system", NULL, "xen", &w->err), w->err, RP_ERR_INVALID);
}

static void fail_once(const struct world *w, const char *call)
{
    RP_AUTO_FREE char *folder = kit_path("%s/fail", w->hypervisor), *file = kit_path("%s/%s", folder, call);
    mkdir(folder, 0700);
    kit_write_file(file, "invalid refused", 15);
}

static void a_domain_that_cannot_be_defined_leaves_no_vm(void **state)
{
    struct world *w = *state;
    const char *disk = w->raw;
    host_it(w);
    fail_once(w, "define");
    rp_host_local_next_extras(w->c, GENERATION_2);
    kit_fails(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, job, result, &w->err), w->err, RP_ERR_INVALID);
    assert_int_equal(count(w, "SELECT count(*) FROM vm"), 0);
    RP_AUTO_FREE char *vms = kit_path("ls '%s/vms' | grep -q .", w->host);
    assert_int_not_equal(system(vms), 0); // no folder either
}

static void a_domain_that_is_there_is_not_replaced(void **state)
{
    struct world *w = *state;
    static const char id[] = "1B2C3D4E-0000-4000-8000-00000000000A";
    const char *disk = w->raw;
    host_it(w);
    write_domain(w, id, "<domain><name>x</name><uuid>1b2c3d4e-0000-4000-8000-00000000000a</uuid></domain>");
    rp_host_local_next_id(w->c, id);
    kit_fails(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, job, result, &w->err), w->err, RP_ERR_EXISTS);
    RP_AUTO_FREE char *xml = domain_file(w, id, "xml");
    assert_non_null(strstr(xml, "<name>x</name>"));
}

#define BOOTS "<INSTANCE CLASSNAME=\"Refpoint_DomainSettingData\"><PROPERTY NAME=\"Kernel\" TYPE=\"string\"><VALUE>/boot/v</VALUE></PROPERTY></INSTANCE>"

static void a_kernel_of_this_host_is_for_vms_of_which_an_adopted_one_had_it(void **state)
{
    struct world *w = *state;
    char first[RP_HOST_ID], second[RP_HOST_ID];
    host_it(w);
    define(w, "web1", BOOTS, first);
    RP_AUTO_FREE char *without = domain_file(w, first, "xml");
    assert_null(strstr(without, "<kernel>"));
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    RP_CLEANUP(rp_db_close_p) struct rp_db *db = rp_db_open(path, &w->err);
    kit_ok(rp_db_run(db, &w->err, "UPDATE vm SET domain_xml = '<domain><os><kernel>/boot/v</kernel></os></domain>'", ""), w->err);
    define(w, "web2", BOOTS, second);
    RP_AUTO_FREE char *with = domain_file(w, second, "xml");
    assert_non_null(strstr(with, "<kernel>/boot/v</kernel>"));
}

// Killed while the hypervisor defines: the next use of the host undoes the VM, and the domain with it.
static void a_kill_while_the_domain_is_made_leaves_neither(void **state)
{
    struct world *w = *state;
    host_it(w);
    RP_AUTO_FREE char *slow = kit_path("%s/slow", w->hypervisor), *define = kit_path("%s/define", slow);
    mkdir(slow, 0700);
    kit_write_file(define, "60000", 5);
    rp_host_close(w->c);
    pid_t pid = fork();
    if (!pid) {
        struct rp_error err = {0};
        struct rp_host_connection *c = rp_host_local_open(w->host, &err);
        const char *disk = w->raw;
        if (c)
            c->ops->define_system(c, "web1", &disk, 1, NULL, NULL, job, result, &err);
        _exit(0);
    }
    int64_t creating = 0;
    for (unsigned i = 0; i < 3000 && !creating; i++) { // until its domain is about to be defined
        usleep(10000);
        creating = count(w, "SELECT count(*) FROM vm v JOIN domain_disk d ON d.vm = v.row WHERE v.state = 'creating'");
    }
    assert_int_equal(creating, 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    unlink(define);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    assert_int_equal(count(w, "SELECT count(*) FROM vm"), 0);
    RP_AUTO_FREE char *left = kit_path("ls '%s' | grep -q '[.]xml$'", w->hypervisor);
    assert_int_not_equal(system(left), 0);
}

// ---- in checkpoints and documents -----------------------------------------------------------------------------------

static void with_firmware(struct world *w, char id[RP_HOST_ID], const char *nvram)
{
    host_it(w);
    define(w, "web1", GENERATION_2, id);
    RP_AUTO_FREE char *xml = domain_file(w, id, "xml");
    char *tag = strstr(xml, "></nvram>");
    assert_non_null(tag);
    RP_AUTO_FREE char *with = kit_path("%.*s>%s%s", (int)(tag - xml), xml, nvram, tag + 1); // as libvirt fills it in
    write_domain(w, id, with);
}

static void checkpoint(struct world *w, const char *id, char snapshot[RP_HOST_ID])
{
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "c", job, snapshot, &w->err), w->err);
}

static void read_is(const char *path, const char *expected)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, RP_MIB, &text, &err), err);
    assert_string_equal(rp_buf_text(&text), expected);
}

static void a_checkpoint_has_the_firmware_of_its_moment_and_applying_puts_it_back(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snapshot[RP_HOST_ID];
    RP_AUTO_FREE char *nvram = kit_path("%s/vars.fd", w->files);
    with_firmware(w, id, nvram);
    kit_write_file(nvram, "first", 5);
    checkpoint(w, id, snapshot);
    assert_int_equal(count(w, "SELECT count(*) FROM snapshot_state WHERE kind = 'nvram' AND content = CAST('first' AS BLOB)"), 1);
    kit_write_file(nvram, "second!", 7);
    kit_ok(w->c->ops->apply_snapshot(w->c, snapshot, job, result, &w->err), w->err);
    read_is(nvram, "first");
}

static void the_settings_of_a_checkpoint_are_what_its_domain_was(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snapshot[RP_HOST_ID];
    RP_AUTO_FREE char *nvram = kit_path("%s/vars.fd", w->files);
    with_firmware(w, id, nvram);
    RP_AUTO_FREE char *xml = domain_file(w, id, "xml");
    char *memory = strstr(xml, "<memory unit='MiB'>1024<"), *current = strstr(xml, "<currentMemory unit='MiB'>1024<");
    memcpy(strstr(memory, "1024"), "3072", 4); // virsh setmaxmem
    memcpy(strstr(current, "1024"), "2048", 4);
    write_domain(w, id, xml);
    checkpoint(w, id, snapshot);
    RP_AUTO_FREE char *extras = NULL;
    kit_ok(rp_host_local_extras(w->c, snapshot, &extras, &w->err), w->err);
    struct rp_domain_settings settings;
    kit_ok(rp_domain_settings_of_extras(extras, &settings, NULL, &w->err), w->err);
    assert_int_equal(settings.memory_mib, 2048);
    assert_int_equal(settings.most_mib, 3072);
    assert_int_equal(settings.disk_count, 1);
    assert_int_equal(settings.disks[0].bus, RP_DOMAIN_SCSI);
}

static void the_document_of_a_checkpoint_makes_a_vm_with_its_firmware(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snapshot[RP_HOST_ID], planned[RP_HOST_ID], vm[RP_HOST_ID];
    RP_AUTO_FREE char *nvram = kit_path("%s/vars.fd", w->files), *vhdx = kit_path("%s/copy.vhdx", w->files);
    with_firmware(w, id, nvram);
    kit_write_file(nvram, "first", 5);
    checkpoint(w, id, snapshot);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(w->c->ops->snapshot_settings(w->c, snapshot, &settings, &w->err), w->err);
    assert_non_null(strstr(settings.document, RP_DOMAIN_STATE_CLASS));
    kit_vhdx(vhdx, DISK);
    const char *disk = vhdx;
    kit_ok(w->c->ops->plan_system(w->c, settings.document, &disk, 1, true, job, planned, &w->err), w->err);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, vm, &w->err), w->err);
    RP_AUTO_FREE char *xml = domain_file(w, vm, "xml");
    assert_non_null(xml); // it has a domain; this hypervisor names no place for variables, and what it has none for stays behind
    RP_AUTO_FREE char *extras = NULL;
    kit_ok(rp_host_local_extras(w->c, vm, &extras, &w->err), w->err);
    assert_null(strstr(extras, RP_DOMAIN_STATE_CLASS));
    // Without a hypervisor it is kept with its settings, and is in the next document.
    kit_ok(rp_host_local_set_hypervisor(w->c, NULL, NULL, NULL, &w->err), w->err);
    RP_AUTO_FREE char *second = kit_path("%s/second.vhdx", w->files);
    kit_vhdx(second, DISK);
    disk = second;
    kit_ok(w->c->ops->plan_system(w->c, settings.document, &disk, 1, true, job, planned, &w->err), w->err);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, vm, &w->err), w->err);
    RP_AUTO_FREE char *kept = NULL;
    kit_ok(rp_host_local_extras(w->c, vm, &kept, &w->err), w->err);
    assert_non_null(strstr(kept, RP_DOMAIN_STATE_CLASS));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(firmware_state_goes_into_settings_and_comes_out_the_same),
        cmocka_unit_test(the_store_of_a_firmware_takes_little_room),
        cmocka_unit_test(firmware_state_of_strangers_is_refused_unless_it_is_right),
        TEST(state_files_are_read_written_and_bounded),
        TEST(so_are_they_where_the_file_system_does_not_tell_files_from_folders),
        cmocka_unit_test(places_are_those_of_libvirt),
        TEST(a_host_that_names_a_hypervisor_gives_its_vms_a_domain),
        TEST(a_host_without_one_makes_vms_as_before),
        TEST(settings_of_the_host_that_make_no_sense_are_refused),
        TEST(a_domain_that_cannot_be_defined_leaves_no_vm),
        TEST(a_domain_that_is_there_is_not_replaced),
        TEST(a_kernel_of_this_host_is_for_vms_of_which_an_adopted_one_had_it),
        TEST(a_kill_while_the_domain_is_made_leaves_neither),
        TEST(a_checkpoint_has_the_firmware_of_its_moment_and_applying_puts_it_back),
        TEST(the_settings_of_a_checkpoint_are_what_its_domain_was),
        TEST(the_document_of_a_checkpoint_makes_a_vm_with_its_firmware),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
