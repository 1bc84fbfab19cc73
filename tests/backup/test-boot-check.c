// A boot check on a host of ours whose VM has no guest, or a hypervisor of files: the outcome stands in the repository,
// and nothing of the check stays. A guest that boots: tests/guest/test-restore.py, test-boot-check.py.
#include "host-kit.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/backup.h"
#include "backup/boot_check.h"
#include "host/local.h"

#define DISK (4 * RP_MIB)

static struct rp_error err;

static void what_leads_out_of_a_vm_is_taken_out_of_either_kind_of_settings(void **state)
{
    (void)state;
    static const struct { const char *from, *to;
    } cases[] = {
        {"", ""},
        {"{\"format\": \"x\"}", "{\"format\": \"x\"}"},
        {"<INSTANCE CLASSNAME=\"A\"><P>EthernetPort</P></INSTANCE>\n<INSTANCE "
         "CLASSNAME=\"Msvm_SyntheticEthernetPortSettingData\">"
         "x</INSTANCE>\n<INSTANCE CLASSNAME=\"B\"></INSTANCE>\n",
         "<INSTANCE CLASSNAME=\"A\"><P>EthernetPort</P></INSTANCE>\n\n<INSTANCE CLASSNAME=\"B\"></INSTANCE>\n"},
        {"{\"extras\": \"<INSTANCE CLASSNAME=\\\"Msvm_EmulatedEthernetPortSettingData\\\"></INSTANCE>\\n\"}",
         "{\"extras\": \"\\n\"}"},
        {"<INSTANCE CLASSNAME=\"A\"></INSTANCE><INSTANCE CLASSNAME=\"Msvm_SyntheticFcPortSettingData\">y</INSTANCE>"
         "<INSTANCE CLASSNAME=\"Msvm_ResourceAllocationSettingData\">Microsoft:Hyper-V:Physical Disk Drive</INSTANCE>"
         "<INSTANCE CLASSNAME=\"Msvm_ResourceAllocationSettingData\">Microsoft:Hyper-V:Synthetic Disk Drive</INSTANCE>"
         "<INSTANCE CLASSNAME=\"Msvm_PciExpressSettingData\"></INSTANCE>",
         "<INSTANCE CLASSNAME=\"A\"></INSTANCE>"
         "<INSTANCE CLASSNAME=\"Msvm_ResourceAllocationSettingData\">Microsoft:Hyper-V:Synthetic Disk Drive</INSTANCE>"},
        {"<INSTANCE CLASSNAME=\"EthernetPort\"",
         "<INSTANCE CLASSNAME=\"EthernetPort\""}, // cut off: for others to refuse
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_AUTO_FREE char *left = rp_boot_check_isolate(cases[i].from);
        assert_string_equal(left, cases[i].to);
    }
}

static int keep_note(void *context, int64_t time_ns, const char *json)
{
    (void)time_ns;
    snprintf(context, 4096, "%s", json);
    return 0;
}

static size_t entries(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void take_remark(void *context, const char *text)
{
    fprintf(stderr, "%s\n", text);
    ++*(int *)context;
}

// A host of ours with a VM that has one restore point.
struct stage {
    char *folder, *out, *fake;
    struct rp_host_connection *host;
    struct rp_repo *repo;
    struct rp_point point;
    int remarks;
};

static void stage_open(struct stage *stage, const char *hypervisor)
{
    *stage = (struct stage){.folder = kit_folder(), .out = kit_folder()};
    RP_AUTO_FREE char *raw = kit_path("%s/a.raw", stage->folder), *repo_path = kit_path("%s/repo", stage->folder),
                      *cache = kit_path("%s/cache", stage->folder), *directory = kit_path("%s/host", stage->folder);
    char job[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    stage->fake = kit_path("%s/fake", stage->folder);
    mkdir(stage->fake, 0700);
    kit_raw(raw, DISK, 1);
    struct rp_host_connection *host = stage->host = rp_host_local_open(directory, &err);
    kit_ok(!host, err);
    host->paths = rp_xcalloc(1, sizeof *host->paths);
    kit_ok(rp_path_map_add(host->paths, stage->out, stage->out, &err), err);
    host->export_folder = kit_path("%s/exports", stage->folder);
    mkdir(host->export_folder, 0700);
    const char *disk = raw;
    kit_ok(host->ops->define_system(host, "web1", &disk, 1, NULL, NULL, job, id, &err), err);
    RP_AUTO_FREE char *uri = hypervisor ? kit_path("%s:%s", hypervisor, stage->fake) : NULL;
    kit_ok(rp_host_local_set_hypervisor(host, uri, NULL, "tcg", &err), err);
    struct rp_backend *backend = rp_backend_directory_open(repo_path, true, &err);
    const struct rp_repo_options how = {.passphrase = "secret", .scrypt_log_n = 10};
    kit_ok(!backend || rp_repo_init(backend, &how, &err), err);
    stage->repo = rp_repo_open(backend, "secret", cache, &err);
    kit_ok(!stage->repo, err);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(host->ops->find_vm(host, id, &vm, &err), err);
    const struct rp_backup_options options = {.merge_timeout_ms = 20000};
    RP_CLEANUP(rp_backup_result_clear) struct rp_backup_result result = {0};
    kit_ok(rp_backup_run(host, stage->repo, &vm, &options, &result, &err), err);
    kit_ok(rp_repo_point(stage->repo, result.point.id, &stage->point, &err), err);
}

static int stage_check(struct stage *stage, const struct rp_boot_check_how *how, struct rp_boot_outcome *outcome)
{
    const struct rp_restore_host_options restore = {.remark = take_remark, .context = &stage->remarks};
    return rp_boot_check_run(stage->host, stage->repo, &stage->point, &restore, how, outcome, &err);
}

// Only the VM that was there before, and no remark that something could not be removed.
static void nothing_stays(struct stage *stage)
{
    struct rp_host_connection *host = stage->host;
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0}, planned = {0};
    RP_AUTO_FREE char *folders = kit_path("%s/host/vms", stage->folder);
    assert_int_equal(stage->remarks, 0);
    kit_ok(host->ops->list_vms(host, &vms, &err), err);
    assert_int_equal(vms.count, 1);
    kit_ok(host->ops->list_planned(host, &planned, &err), err);
    assert_int_equal(planned.count, 0);
    assert_int_equal(entries(stage->out), 2); // "." and ".."
    assert_int_equal(entries(folders), 3);
}

static void noted(struct stage *stage, const char *what)
{
    char note[4096] = "";
    kit_ok(rp_repo_notes(stage->repo, stage->point.id, keep_note, note, &err), err);
    assert_non_null(strstr(note, "\"boot_check\""));
    if (!strstr(note, what))
        fail_msg("%s: not in %s", what, note);
}

static void stage_close(struct stage *stage)
{
    rp_point_clear(&stage->point);
    rp_repo_close(stage->repo);
    rp_host_close(stage->host);
    free(stage->fake);
    kit_remove_folder(stage->folder);
    kit_remove_folder(stage->out);
}

static void what_does_not_boot_is_noted_and_nothing_of_it_stays(void **state)
{
    (void)state;
    struct stage stage;
    struct rp_boot_outcome outcome;
    stage_open(&stage, NULL);
    kit_ok(stage_check(&stage, &(struct rp_boot_check_how){1, NULL}, &outcome), err);
    assert_false(outcome.booted);
    assert_true(*outcome.why);
    nothing_stays(&stage);
    noted(&stage, "\"booted\":false");
    noted(&stage, "\"marker\":\"agent\"");
    // It has no console either: that is no outcome, and nothing of the try stays.
    kit_fails(stage_check(&stage, &(struct rp_boot_check_how){1, "login:"}, &outcome), err, RP_ERR_UNSUPPORTED);
    nothing_stays(&stage);
    stage_close(&stage);
}

static void a_text_on_the_serial_port_decides(void **state)
{
    (void)state;
    struct stage stage;
    struct rp_boot_outcome outcome;
    stage_open(&stage, "fake");
    RP_AUTO_FREE char *words = kit_path("%s/console", stage.fake);
    // More than what is read at once, and the text where two reads meet.
    size_t size = 65536 + 4000;
    RP_AUTO_FREE char *said = rp_xcalloc(1, size + 1);
    memset(said, '.', size);
    memcpy(said + 65536 - 7, "web1 login: ", 12);
    kit_write_file(words, said, size);
    kit_ok(stage_check(&stage, &(struct rp_boot_check_how){20, "web1 login:"}, &outcome), err);
    assert_true(outcome.booted);
    assert_string_equal(outcome.why, "");
    nothing_stays(&stage);
    noted(&stage, "\"booted\":true");
    noted(&stage, "\"marker\":\"serial\",\"text\":\"web1 login:\"");
    stage_close(&stage);
}

static void without_the_text_it_has_not_booted(void **state)
{
    (void)state;
    struct stage stage;
    struct rp_boot_outcome outcome;
    stage_open(&stage, "fake");
    RP_AUTO_FREE char *words = kit_path("%s/console", stage.fake);
    kit_write_file(words, "Kernel panic", 12);
    kit_ok(stage_check(&stage, &(struct rp_boot_check_how){1, "web1 login:"}, &outcome), err);
    assert_false(outcome.booted);
    assert_string_equal(outcome.why, "\"web1 login:\" did not come on its serial port");
    nothing_stays(&stage);
    noted(&stage, "\"booted\":false");
    stage_close(&stage);
}

static struct rp_console_place place;

// Reads on, at most four bytes: what comes.
static void console_says(struct stage *stage, const char *text)
{
    char got_text[5] = "";
    size_t got = 0;
    kit_ok(stage->host->ops->console_read(stage->host, stage->point.vm_id, &place, got_text, 4, &got, &err), err);
    got_text[got] = 0;
    assert_string_equal(got_text, text);
}

// As virtlogd does it.
static void a_console_is_read_on_when_its_file_was_begun_anew(void **state)
{
    (void)state;
    struct stage stage;
    char text[8] = "";
    size_t got = 0;
    place = (struct rp_console_place){0};
    stage_open(&stage, NULL);
    const char *id = stage.point.vm_id;
    RP_AUTO_FREE char *now = kit_path("%s/host/vms/%s/console", stage.folder, id), *before = kit_path("%s.0", now);
    kit_fails(stage.host->ops->console_read(stage.host, id, &place, text, 4, &got, &err), err, RP_ERR_NOT_FOUND);
    kit_write_file(now, "abcdefg", 7);
    console_says(&stage, "abcd");
    assert_int_equal(rename(now, before), 0);
    console_says(&stage, "efg"); // and there is no new one yet
    console_says(&stage, "");
    kit_write_file(now, "hi", 2);
    console_says(&stage, "hi");
    console_says(&stage, "");
    // As long as what was read of the one before, and longer: it is another one all the same.
    kit_write_file(before, "", 0);
    assert_int_equal(rename(now, before), 0);
    kit_write_file(now, "jklmnop", 7);
    console_says(&stage, "jklm");
    assert_int_equal(rename(now, before), 0);
    kit_write_file(now, "qrstuvwxyz", 10);
    console_says(&stage, "nop");
    console_says(&stage, "qrst");
    // Two of them since the last look: nothing of what is there is left out.
    assert_int_equal(rename(now, before), 0);
    kit_write_file(now, "012345", 6);
    assert_int_equal(rename(now, before), 0);
    kit_write_file(now, "6789ABCDEF", 10);
    console_says(&stage, "0123");
    console_says(&stage, "45");
    console_says(&stage, "6789");
    // And before the first look.
    place = (struct rp_console_place){0};
    console_says(&stage, "0123");
    console_says(&stage, "45");
    console_says(&stage, "6789");
    // Nothing but files is read.
    assert_int_equal(unlink(now) | symlink("/etc/passwd", now), 0);
    kit_fails(stage.host->ops->console_read(stage.host, id, &place, text, 4, &got, &err), err, RP_ERR_IO);
    assert_int_equal(unlink(now) | mkfifo(now, 0600), 0);
    kit_fails(stage.host->ops->console_read(stage.host, id, &place, text, 4, &got, &err), err, RP_ERR_STATE);
    stage_close(&stage);
}

// ---- the serial port, as a host lets it be read ---------------------------------------------------------------------

static struct port {
    const char *said;   // NULL: dots without end
    size_t part;        // bytes of one read, at most
    unsigned reads, asks;
    unsigned off_after; // reads, after which the guest is off; 0: never
    int stopped, broken;
} port;

static int port_keep(struct rp_host_connection *host, const char *vm_id, struct rp_error *error)
{
    (void)host;
    (void)vm_id;
    (void)error;
    return 0;
}

static int port_read(struct rp_host_connection *host, const char *vm_id, struct rp_console_place *read, void *data,
                     size_t size, size_t *got, struct rp_error *error)
{
    (void)host;
    (void)vm_id;
    port.reads++;
    if (port.broken)
        return rp_fail(error, RP_ERR_IO, "no");
    size_t left = port.said ? strlen(port.said) - read->at : size;
    *got = left < size ? left : size;
    if (*got > port.part)
        *got = port.part;
    if (port.said)
        memcpy(data, port.said + read->at, *got);
    else
        memset(data, '.', *got);
    read->at += *got;
    return 0;
}

static int port_state(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                      struct rp_error *error)
{
    (void)host;
    (void)vm_id;
    (void)state;
    (void)job;
    (void)result;
    (void)error;
    return 0;
}

static int port_find(struct rp_host_connection *host, const char *vm, struct rp_vm *out, struct rp_error *error)
{
    (void)host;
    (void)vm;
    (void)error;
    port.asks++;
    out->state = port.off_after && port.reads >= port.off_after ? RP_VM_OFF : RP_VM_RUNNING;
    return 0;
}

static const struct rp_host_ops port_ops = {.console_keep = port_keep, .console_read = port_read,
                                            .request_state = port_state, .find_vm = port_find};
static char port_address[] = "hv";
static struct rp_host_connection port_host = {.ops = &port_ops, .address = port_address};

static int port_stop(void *context) { return ((struct port *)context)->stopped; }

static int listen_for(const char *text, struct port how, struct rp_boot_outcome *outcome)
{
    port = how;
    const struct rp_boot_wait wait = {
        .host = &port_host, .vm_id = "vm", .serial = text, .limit_s = 0, .stop = port_stop, .context = &port,
    };
    return rp_boot_wait(&wait, outcome, &err);
}

static void a_text_is_found_across_every_boundary_of_reads(void **state)
{
    (void)state;
    static const char said[] = "a\r\nlog login: ready\r\n", text[] = "login: ready";
    struct rp_boot_outcome outcome;
    for (size_t part = 1; part <= sizeof said; part++) {
        kit_ok(listen_for(text, (struct port){.said = said, .part = part}, &outcome), err);
        assert_true(outcome.booted);
        kit_ok(listen_for("login: readx", (struct port){.said = said, .part = part}, &outcome), err);
        assert_false(outcome.booted);
        kit_ok(listen_for("l", (struct port){.said = said, .part = part}, &outcome), err);
        assert_true(outcome.booted);
    }
}

static void a_guest_that_says_too_much_or_goes_off_has_not_booted(void **state)
{
    (void)state;
    struct rp_boot_outcome outcome;
    kit_ok(listen_for("login:", (struct port){.part = SIZE_MAX}, &outcome), err);
    assert_false(outcome.booted);
    assert_string_equal(outcome.why, "\"login:\" is not in the first 64.0 MiB that it said on its serial port");
    assert_int_equal(port.reads, RP_BOOT_CONSOLE_MAX / 65536);
    kit_ok(listen_for("login:", (struct port){.said = "panic", .part = 100, .off_after = 1}, &outcome), err);
    assert_false(outcome.booted);
    assert_non_null(strstr(outcome.why, "it was off again after"));
    // What it says last is heard: one who answers and turns himself off has booted.
    kit_ok(listen_for("login:", (struct port){.said = "login:", .part = 5, .off_after = 1}, &outcome), err);
    assert_true(outcome.booted);
}

// ---- the agent, as a host asks it -----------------------------------------------------------------------------------

// A host that says of a guest that is off what ours says: nobody writes, so the checkpoint is as good as one at rest.
static struct agent {
    unsigned answers_at; // the first checkpoint that the guest answers; 0: never
    unsigned off_from;   // the first look at its state that finds it off; 0: none
    unsigned off_at;     // the first checkpoint before which it goes off; 0: none
    unsigned checkpoints, looks, left;
} agent;

static bool agent_is_off(void)
{
    return (agent.off_from && agent.looks >= agent.off_from) || (agent.off_at && agent.checkpoints >= agent.off_at);
}

static int agent_create(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                        enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *error)
{
    (void)host, (void)vm_id, (void)type, (void)name, (void)error;
    assert_int_equal(consistency, RP_CONSISTENCY_APPLICATION);
    agent.checkpoints++;
    agent.left++;
    job[0] = 0;
    snprintf(result, RP_HOST_ID, "checkpoint");
    return 0;
}

static int agent_list(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *out,
                      struct rp_error *error)
{
    (void)host, (void)vm_id, (void)error;
    bool answered = agent_is_off() || (agent.answers_at && agent.checkpoints >= agent.answers_at);
    out->items = rp_xcalloc(1, sizeof *out->items);
    out->count = 1;
    snprintf(out->items[0].id, sizeof out->items[0].id, "checkpoint");
    out->items[0].consistency = answered ? RP_CONSISTENCY_APPLICATION : RP_CONSISTENCY_CRASH;
    return 0;
}

static int agent_destroy(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *error)
{
    (void)host, (void)id, (void)result, (void)error;
    job[0] = 0;
    agent.left--;
    return 0;
}

static int agent_find(struct rp_host_connection *host, const char *vm, struct rp_vm *out, struct rp_error *error)
{
    (void)host, (void)vm, (void)error;
    agent.looks++;
    out->state = agent_is_off() ? RP_VM_OFF : RP_VM_RUNNING;
    return 0;
}

static const struct rp_host_ops agent_ops = {
    .request_state = port_state, .find_vm = agent_find, .create_snapshot = agent_create,
    .list_snapshots = agent_list, .destroy_snapshot = agent_destroy,
};
static struct rp_host_connection agent_host = {.ops = &agent_ops, .address = port_address};

static void a_guest_that_is_off_again_has_not_answered(void **state)
{
    (void)state;
    static const struct {
        struct agent how;
        bool booted;
        unsigned asked;
    } cases[] = {
        {{.answers_at = 1}, true, 1},
        {{.off_from = 1}, false, 1},                  // found off after it did not answer
        {{.answers_at = 1, .off_from = 1}, false, 1}, // answered, and went off at once
        {{.off_at = 1}, false, 1},                    // off before it is asked
        {{.off_at = 2}, false, 2},                    // off before it is asked again
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_boot_outcome outcome;
        agent = cases[i].how;
        const struct rp_boot_wait wait = {.host = &agent_host, .vm_id = "vm", .limit_s = 60};
        kit_ok(rp_boot_wait(&wait, &outcome, &err), err);
        assert_int_equal(outcome.booted, cases[i].booted);
        assert_int_equal(strstr(outcome.why, "it was off again after") != NULL, !cases[i].booted);
        assert_int_equal(agent.checkpoints, cases[i].asked);
        assert_int_equal(agent.left, 0);
    }
}

static void a_port_that_cannot_be_read_and_a_person_who_stops_are_no_outcome(void **state)
{
    (void)state;
    struct rp_boot_outcome outcome;
    kit_fails(listen_for("x", (struct port){.said = "x", .part = 1, .broken = 1}, &outcome), err, RP_ERR_IO);
    kit_fails(listen_for("x", (struct port){.said = "", .part = 1, .stopped = 1}, &outcome), err, RP_ERR_CANCELLED);
    assert_false(outcome.booted);
}

static void a_text_that_cannot_come_is_refused_before_anything_is_made(void **state)
{
    (void)state;
    char longest[RP_BOOT_TEXT_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[RP_BOOT_TEXT_MAX + 1] = 0;
    kit_fails(rp_boot_serial_check(&port_host, longest, &err), err, RP_ERR_USAGE);
    longest[RP_BOOT_TEXT_MAX] = 0;
    kit_ok(rp_boot_serial_check(&port_host, longest, &err), err);
    kit_ok(rp_boot_serial_check(&port_host, "Anmeldung für web1:", &err), err);
    static const char *const bad[] = {"", "a\nb", "a\tb", "\x7f", "\xff", "\xc3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        kit_fails(rp_boot_serial_check(&port_host, bad[i], &err), err, RP_ERR_USAGE);
    static const struct rp_host_ops none = {0};
    const struct rp_host_connection far = {.ops = &none, .address = port_address};
    kit_fails(rp_boot_serial_check(&far, "login:", &err), err, RP_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_leads_out_of_a_vm_is_taken_out_of_either_kind_of_settings),
        cmocka_unit_test(what_does_not_boot_is_noted_and_nothing_of_it_stays),
        cmocka_unit_test(a_text_on_the_serial_port_decides),
        cmocka_unit_test(without_the_text_it_has_not_booted),
        cmocka_unit_test(a_console_is_read_on_when_its_file_was_begun_anew),
        cmocka_unit_test(a_text_is_found_across_every_boundary_of_reads),
        cmocka_unit_test(a_guest_that_says_too_much_or_goes_off_has_not_booted),
        cmocka_unit_test(a_guest_that_is_off_again_has_not_answered),
        cmocka_unit_test(a_port_that_cannot_be_read_and_a_person_who_stops_are_no_outcome),
        cmocka_unit_test(a_text_that_cannot_come_is_refused_before_anything_is_made),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
