// The config file, who may do what, paths that clients name, the audit's lines.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "../host/host-kit.h"
#include "hostd/config.h"
#include "hostd/core.h"
#include "wsman/transport.h"

// What libcrypto and gss-ntlmssp keep (see tests/wsman/kdc.c).
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libcrypto.so\nleak:libkrb5.so\n"; }

// ---- config ---------------------------------------------------------------------------------------------------------

static void a_config_file_says_all_that_a_host_needs(void **state)
{
    (void)state;
    static const char text[] =
        "# a comment\n"
        "\n"
        "directory = /srv/host\n"
        "name=HV1\r\n"
        "  listen = http://127.0.0.1\n"
        "listen = http://*:8080 basic-in-clear\n"
        "listen = https://[::1]:9 /etc/a.pem /etc/a.key\n"
        "listen = unix:/run/a.sock\n"
        "keytab = /etc/a.keytab\n"
        "ntlm-users = /etc/users\n"
        "folder = /srv/a\n"
        "folder = /srv/b c\n"
        "audit = -\n"
        "hypervisor = qemu:///system\n"
        "hypervisor-network = user\n"
        "hypervisor-accelerator = tcg\n"
        "freeze-limit = 800 ms\n"
        "read = carol , @wheel\n"
        "administer = alice@EXAMPLE.ORG, LAB\\bob\n";
    RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config config;
    struct rp_error err = {0};
    kit_ok(rp_hostd_config_parse(text, "test", &config, &err), err);
    assert_string_equal(config.directory, "/srv/host");
    assert_string_equal(config.machine, "HV1");
    assert_int_equal(config.listener_count, 4);
    assert_string_equal(config.listeners[0].address, "127.0.0.1");
    assert_int_equal(config.listeners[0].port, 5985);
    assert_int_equal(config.listeners[0].flags, 0);
    assert_string_equal(config.listeners[1].address, "::");
    assert_int_equal(config.listeners[1].port, 8080);
    assert_int_equal(config.listeners[1].flags, RP_LISTEN_BASIC_IN_CLEAR);
    assert_string_equal(config.listeners[2].address, "::1");
    assert_int_equal(config.listeners[2].port, 9);
    assert_string_equal(config.listeners[2].key, "/etc/a.key");
    assert_string_equal(config.listeners[3].socket, "/run/a.sock");
    assert_int_equal(config.folder_count, 2);
    assert_string_equal(config.folders[1], "/srv/b c");
    assert_int_equal(config.access.count, 4);
    assert_true(config.access.rules[1].group);
    assert_string_equal(config.access.rules[3].name, "LAB\\bob");
    struct rp_hostd_options options = rp_hostd_config_options(&config);
    assert_string_equal(options.acceptor->keytab, "/etc/a.keytab");
    assert_string_equal(options.acceptor->ntlm_users, "/etc/users");
    assert_string_equal(options.audit, "-");
    assert_string_equal(options.hypervisor, "qemu:///system");
    assert_string_equal(options.network, "user");
    assert_string_equal(options.accelerator, "tcg");
    assert_int_equal(options.freeze_limit_ms, 800);
}

static void complains(const char *text, const char *about)
{
    struct rp_hostd_config config;
    struct rp_error err = {0};
    if (!rp_hostd_config_parse(text, "/etc/x.conf", &config, &err))
        fail_msg("\"%s\" was taken", text);
    assert_int_equal(err.code, RP_ERR_INVALID);
    if (strncmp(err.text, about, strlen(about)) || strchr(err.text, '\n'))
        fail_msg("\"%s\": %s", text, err.text);
}

static void the_limit_of_a_freeze_is_said_in_seconds_or_milliseconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned ms;
    } good[] = {{"1", 1000}, {"10s", 10000}, {"10 s", 10000}, {"100ms", 100}, {"3600", 3600000}, {"3600000ms", 3600000}};
    static const struct {
        const char *text, *about;
    } bad[] = {
        {"soon", "seconds are needed (10s), or milliseconds (800ms), not \"soon\""},
        {"-1", "seconds are needed"},
        {"10m", "seconds are needed"},
        {"1.5s", "seconds are needed"},
        {"10s10s", "seconds are needed"},
        {"0", "0 is not between 100ms and 3600s"},
        {"99ms", "99ms is not between"},
        {"3601", "3601 is not between"},
        {"99999999999999999999999", "99999999999999999999999 is not between"},
        {"18446744073709552s", "18446744073709552s is not between"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("listen = unix:/a\nfreeze-limit = %s\n", good[i].text);
        RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config config;
        struct rp_error err = {0};
        kit_ok(rp_hostd_config_parse(text, "test", &config, &err), err);
        assert_int_equal(config.freeze_limit_ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("freeze-limit = %s\n", bad[i].text);
        RP_AUTO_FREE char *about = rp_xasprintf("/etc/x.conf:1: freeze-limit: %s", bad[i].about);
        complains(text, about);
    }
    complains("freeze-limit = 1\nfreeze-limit = 2\n", "/etc/x.conf:2: freeze-limit is set twice");
}

// Whoever asks over WMI gets a connection that was lent.
static void the_limit_of_a_freeze_counts_for_all_that_clients_ask_for(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *directory = kit_path("%s/host", folder);
    for (unsigned limit_ms = 0; limit_ms <= 800; limit_ms += 800) {
        struct rp_error err = {0};
        const struct rp_hostd_options options = {.directory = directory, .machine = "HV1", .freeze_limit_ms = limit_ms};
        struct rp_hostd *hostd = rp_hostd_start(&options, &err);
        kit_ok(!hostd, err);
        for (int again = 0; again < 2; again++) { // the second one may have been lent before
            struct rp_host_connection *host = rp_hostd_hosts_borrow(hostd, &err);
            kit_ok(!host, err);
            assert_int_equal(host->frozen_ms, limit_ms);
            rp_hostd_hosts_return(hostd, host);
        }
        rp_hostd_stop(hostd);
    }
    kit_remove_folder(folder);
}

static void a_mistake_in_the_config_is_one_line_with_file_and_number(void **state)
{
    (void)state;
    complains("", "/etc/x.conf: no \"listen\"");
    complains("listen = unix:/a\nfoo = 1\n", "/etc/x.conf:2: there is no setting \"foo\"");
    complains("\n\nlisten\n", "/etc/x.conf:3: \"name = value\" is needed, not \"listen\"");
    complains("name =\n", "/etc/x.conf:1: name has no value");
    complains("name = a\nname = b\n", "/etc/x.conf:2: name is set twice");
    complains("directory = srv\n", "/etc/x.conf:1: directory: an absolute path is needed");
    complains("folder = srv\n", "/etc/x.conf:1: folder: an absolute path is needed");
    complains("listen = http://1.2.3.4:x\n", "/etc/x.conf:1: listen: \"x\" is no port");
    complains("listen = http://1.2.3.4:70000\n", "/etc/x.conf:1: listen: \"70000\" is no port");
    complains("listen = http://::1\n", "/etc/x.conf:1: listen: an address is needed; IPv6 in brackets");
    complains("listen = http://[::1\n", "/etc/x.conf:1: listen: \"[::1\" is no address");
    complains("listen = http://a nonsense\n", "/etc/x.conf:1: listen: only basic-in-clear may follow http://");
    complains("listen = https://a /etc/a.pem\n", "/etc/x.conf:1: listen: after https://");
    complains("listen = ftp://a\n", "/etc/x.conf:1: listen: \"ftp://a\" begins with none of");
    complains("listen = unix:sock\n", "/etc/x.conf:1: listen: unix: and an absolute path");
    complains("listen = http://hv1:5985\n", "/etc/x.conf:1: listen: \"hv1\" is no address");
    complains("listen = http://[127.0.0.1]\n", "/etc/x.conf:1: listen: \"127.0.0.1\" is no address");
    complains("listen = unix:/a\nlisten = http://*\n", "/etc/x.conf:2: listen: nobody can log in over the network");
    complains("listen = unix:/a\nread = a,,b\n", "/etc/x.conf:2: read: users and @groups");
    complains("listen = unix:/a\nread = @\n", "/etc/x.conf:2: read: users and @groups");
    complains("name = a\x01" "b\n", "/etc/x.conf:1: a control character");
}

static void a_config_file_that_is_none_is_refused(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *path = kit_path("%s/conf", folder);
    struct rp_hostd_config config;
    struct rp_error err = {0};
    kit_fails(rp_hostd_config_read(path, &config, &err), err, RP_ERR_NOT_FOUND);
    kit_write_file(path, "listen = unix:/a\0", 17);
    assert_int_equal(chmod(path, 0600), 0);
    kit_fails(rp_hostd_config_read(path, &config, &err), err, RP_ERR_INVALID);
    kit_write_file(path, "listen = unix:/a", 16);
    kit_ok(rp_hostd_config_read(path, &config, &err), err);
    rp_hostd_config_clear(&config);
    kit_fails(rp_hostd_config_read(folder, &config, &err), err, RP_ERR_INVALID);
    kit_remove_folder(folder);
}

static void files_that_say_who_may_do_what_are_nobody_elses(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *path = kit_path("%s/conf", folder), *key = kit_path("%s/key", folder);
    RP_AUTO_FREE char *certificate = kit_path("%s/certificate", folder), *fifo = kit_path("%s/fifo", folder);
    RP_AUTO_FREE char *text = rp_xasprintf("ntlm-users = %s\nlisten = https://* %s %s\n", key, certificate, key);
    struct rp_hostd_config config;
    struct rp_error err = {0};
    kit_write_file(path, text, strlen(text));
    for (mode_t mode = 0602; mode <= 0620; mode += 016) { // the world, the group
        assert_int_equal(chmod(path, mode), 0);
        kit_fails(rp_hostd_config_read(path, &config, &err), err, RP_ERR_PERMISSION);
    }
    assert_int_equal(mkfifo(fifo, 0600), 0);
    kit_fails(rp_hostd_config_read(fifo, &config, &err), err, RP_ERR_INVALID);
    assert_int_equal(chmod(path, 0644), 0);
    if (!geteuid()) {
        assert_int_equal(chown(path, 1, 1), 0);
        kit_fails(rp_hostd_config_read(path, &config, &err), err, RP_ERR_PERMISSION);
        assert_int_equal(chown(path, 0, 0), 0);
    }
    kit_ok(rp_hostd_config_read(path, &config, &err), err);
    kit_fails(rp_hostd_config_check(&config, &err), err, RP_ERR_NOT_FOUND);
    kit_write_file(key, "LAB:a:b\n", 8);
    assert_int_equal(chmod(key, 0604), 0);
    kit_fails(rp_hostd_config_check(&config, &err), err, RP_ERR_PERMISSION);
    assert_int_equal(chmod(key, 0600), 0);
    kit_fails(rp_hostd_config_check(&config, &err), err, RP_ERR_NOT_FOUND); // of the certificate
    kit_write_file(certificate, "", 0);
    kit_ok(rp_hostd_config_check(&config, &err), err);
    free(config.keytab);
    config.keytab = rp_xstrdup(key);
    assert_int_equal(chmod(key, 0604), 0);
    kit_fails(rp_hostd_config_check(&config, &err), err, RP_ERR_PERMISSION);
    rp_hostd_config_clear(&config);
    kit_remove_folder(folder);
}

static void what_a_new_config_says_beside_rights_is_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"read = a\n", NULL}, {"directory = /a\n", "directory"}, {"name = B\n", "name"}, {"audit = -\n", "audit"},
        {"keytab = /k\n", "keytab"}, {"ntlm-users = /u\n", "ntlm-users"}, {"folder = /f\n", "folder"},
        {"hypervisor = qemu:///system\n", "hypervisor"},
        {"freeze-limit = 5\n", "freeze-limit"},
        {"listen = unix:/b\n", "listen"},
    };
    struct rp_error err = {0};
    RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config one;
    kit_ok(rp_hostd_config_parse("listen = unix:/a\n", "x", &one, &err), err);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config other;
        RP_AUTO_FREE char *text = rp_xasprintf("listen = unix:/a\n%s", lines[i][0]);
        kit_ok(rp_hostd_config_parse(text, "x", &other, &err), err);
        const char *name = rp_hostd_config_difference(&one, &other), *back = rp_hostd_config_difference(&other, &one);
        assert_int_equal(!name, !lines[i][1]);
        assert_ptr_equal(name, back);
        if (name)
            assert_string_equal(name, lines[i][1]);
    }
}

// ---- access ---------------------------------------------------------------------------------------------------------

static enum rp_cim_access access_of(struct rp_hostd_access *rules, const char *user)
{
    enum rp_cim_access access = 9;
    struct rp_error err = {0};
    int rc = rp_hostd_access_authorize(rules, user, &access, &err);
    assert_int_equal(err.code, rc ? RP_ERR_PERMISSION : RP_OK);
    return rc ? 0 : access;
}

static void the_highest_rule_that_fits_a_user_counts(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hostd_access_clear) struct rp_hostd_access rules = {0};
    struct rp_error err = {0};
    kit_ok(rp_hostd_access_add(&rules, RP_CIM_READ, "alice@EXAMPLE.ORG, LAB\\bob", &err), err);
    kit_ok(rp_hostd_access_add(&rules, RP_CIM_ADMINISTER, "alice@EXAMPLE.ORG", &err), err);
    kit_ok(rp_hostd_access_add(&rules, RP_CIM_OPERATE, "lab\\BOB, carol", &err), err);
    assert_int_equal(access_of(&rules, "alice@EXAMPLE.ORG"), RP_CIM_ADMINISTER);
    assert_int_equal(access_of(&rules, "LAB\\bob"), RP_CIM_OPERATE);
    assert_int_equal(access_of(&rules, "Carol"), RP_CIM_OPERATE);
    // another realm, domain or spelling of a principal is somebody else
    assert_int_equal(access_of(&rules, "alice@EXAMPLE.COM"), 0);
    assert_int_equal(access_of(&rules, "Alice@EXAMPLE.ORG"), 0);
    assert_int_equal(access_of(&rules, "alice"), 0);
    assert_int_equal(access_of(&rules, "OTHER\\bob"), 0);
    assert_int_equal(access_of(&rules, "bob"), 0);
}

static void a_group_of_the_operating_system_gives_rights_to_its_members(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hostd_access_clear) struct rp_hostd_access rules = {0};
    struct rp_error err = {0};
    kit_ok(rp_hostd_access_add(&rules, RP_CIM_OPERATE, "@daemon, @no-such-group", &err), err);
    assert_int_equal(access_of(&rules, "daemon"), RP_CIM_OPERATE);
    assert_int_equal(access_of(&rules, "bin"), 0);
    assert_int_equal(access_of(&rules, "daemon@EXAMPLE.ORG"), 0);
    assert_int_equal(access_of(&rules, "LAB\\daemon"), 0);
}

static void by_the_unix_socket_root_and_we_ourselves_may_everything(void **state)
{
    (void)state;
    struct rp_hostd_access rules = {0};
    enum rp_cim_access access = 0;
    struct rp_error err = {0};
    char user[256];
    kit_ok(rp_hostd_access_peer(&rules, 0, 0, user, &access, &err), err);
    assert_int_equal(access, RP_CIM_ADMINISTER);
    assert_string_equal(user, "root");
    kit_ok(rp_hostd_access_peer(&rules, geteuid(), getegid(), user, &access, &err), err);
    assert_int_equal(access, RP_CIM_ADMINISTER);
    kit_fails(rp_hostd_access_peer(&rules, 1, 1, user, &access, &err), err, RP_ERR_PERMISSION);
    kit_fails(rp_hostd_access_peer(&rules, 987654, 1, user, &access, &err), err, RP_ERR_PERMISSION);
    assert_string_equal(user, "uid 987654");
}

static void basic_asks_for_the_password_of_an_ntlm_user(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *users = kit_path("%s/users", folder);
    static const char text[] = "LAB:bob:secret of bob\n";
    kit_write_file(users, text, sizeof text - 1);
    assert_int_equal(chmod(users, 0600), 0);
    struct rp_login_acceptor acceptor = {.ntlm_users = users};
    struct rp_hostd_access rules = {.acceptor = &acceptor};
    assert_true(rp_hostd_access_password(&rules, "LAB\\bob", "secret of bob"));
    assert_false(rp_hostd_access_password(&rules, "LAB\\bob", "secret of Bob"));
    assert_false(rp_hostd_access_password(&rules, "LAB\\bob", ""));
    assert_false(rp_hostd_access_password(&rules, "LAB\\eve", "secret of bob"));
    rules.acceptor = NULL;
    assert_false(rp_hostd_access_password(&rules, "LAB\\bob", "secret of bob"));
    kit_remove_folder(folder);
}

// One connection, one login; what it asks is Identify.
static int ask(struct rp_wsman_transport *transport, struct rp_error *err)
{
    static const char identify[] = "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope' xmlns:i="
                                   "'http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd'><s:Header/>"
                                   "<s:Body><i:Identify/></s:Body></s:Envelope>";
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    char charset[32];
    unsigned status;
    if (rp_wsman_transport_exchange(transport, identify, sizeof identify - 1, &answer, charset, &status, err))
        return -1;
    assert_int_equal(status, 200);
    return 0;
}

static void rights_that_change_count_for_who_is_connected_as_well(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *users = kit_path("%s/users", folder), *host = kit_path("%s/host", folder);
    static const char text[] = "LAB:bob:secret of bob\nLAB:eve:secret of eve\n";
    kit_write_file(users, text, sizeof text - 1);
    assert_int_equal(chmod(users, 0600), 0);
    const struct rp_login_acceptor acceptor = {.ntlm_users = users};
    RP_CLEANUP(rp_hostd_access_clear) struct rp_hostd_access rules = {0}, others = {0};
    struct rp_error err = {0};
    kit_ok(rp_hostd_access_add(&rules, RP_CIM_OPERATE, "LAB\\bob", &err), err);
    kit_ok(rp_hostd_access_add(&others, RP_CIM_OPERATE, "LAB\\eve", &err), err);
    const struct rp_wsman_listener listener = {.address = "127.0.0.1"};
    const struct rp_hostd_options options = {
        .directory = host, .machine = "HV1", .listeners = &listener, .listener_count = 1, .acceptor = &acceptor,
        .access = {.authorize = rp_hostd_access_authorize, .context = &rules}};
    struct rp_hostd *hostd = rp_hostd_start(&options, &err);
    if (!hostd)
        fail_msg("%s", err.text);
    RP_AUTO_FREE char *url = rp_xasprintf("http://127.0.0.1:%u/wsman", rp_hostd_port(hostd, 0));
    struct rp_wsman_options as = {.url = url, .auth = RP_AUTH_NTLM, .timeout_ms = 20000,
                                  .credentials = {.user = "LAB\\bob", .password = "secret of bob"}};
    {
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *bob = rp_wsman_transport_new(&as, NULL);
        as.credentials = (struct rp_login_credentials){.user = "LAB\\eve", .password = "secret of eve"};
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *eve = rp_wsman_transport_new(&as, NULL);
        kit_ok(ask(bob, &err), err);
        kit_fails(ask(eve, &err), err, RP_ERR_PERMISSION);
        rp_hostd_access_replace(&rules, &others);
        rp_wsman_server_recheck(hostd->server);
        kit_fails(ask(bob, &err), err, RP_ERR_PERMISSION);
        kit_ok(ask(eve, &err), err);
        rp_wsman_server_recheck(hostd->server); // nothing has changed: the same connection, the same login
        kit_ok(ask(eve, &err), err);
    }
    rp_hostd_stop(hostd);
    kit_remove_folder(folder);
}

// ---- folders --------------------------------------------------------------------------------------------------------

struct place {
    char *folder, *open, *outside, *list[1];
    struct rp_hostd hostd;
};

static void place_open(struct place *place)
{
    char *folder = kit_folder();
    place->folder = folder;
    RP_AUTO_FREE char *real = realpath(folder, NULL);
    place->open = kit_path("%s/open", real);
    place->outside = kit_path("%s/outside", real);
    assert_int_equal(mkdir(place->open, 0700) | mkdir(place->outside, 0700), 0);
    place->list[0] = place->open;
    place->hostd = (struct rp_hostd){.folders = place->list, .folder_count = 1};
}

static void place_close(struct place *place)
{
    free(place->open);
    free(place->outside);
    kit_remove_folder(place->folder);
}

static void is_fine(struct place *place, const char *path, const char *expected)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *real = rp_hostd_folders_check(&place->hostd, path, &err);
    if (!real)
        fail_msg("%s: %s", path, err.text);
    assert_string_equal(real, expected);
}

static void is_refused(struct place *place, const char *path, enum rp_code code)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *real = rp_hostd_folders_check(&place->hostd, path, &err);
    if (real)
        fail_msg("%s was taken for %s", path, real);
    if (err.code != code)
        fail_msg("%s: %s, %s", path, rp_code_name(err.code), err.text);
}

static void paths_inside_a_folder_are_taken_whether_they_are_there_or_not(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    RP_AUTO_FREE char *sub = kit_path("%s/sub", place.open), *file = kit_path("%s/sub/a", place.open);
    RP_AUTO_FREE char *fresh = kit_path("%s/sub/new", place.open), *odd = kit_path("%s//sub/../sub/./new/", place.open);
    RP_AUTO_FREE char *lost = kit_path("%s/none/new", place.open), *below = kit_path("%s/sub/a/b", place.open);
    assert_int_equal(mkdir(sub, 0700), 0);
    kit_write_file(file, "x", 1);
    is_fine(&place, place.open, place.open);
    is_fine(&place, sub, sub);
    is_fine(&place, file, file);
    is_fine(&place, fresh, fresh);
    is_fine(&place, odd, fresh);
    is_refused(&place, lost, RP_ERR_NOT_FOUND);
    is_refused(&place, below, RP_ERR_NOT_FOUND);
    place_close(&place);
}

static void paths_outside_are_refused_and_nothing_is_said_about_them(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    RP_AUTO_FREE char *beside = kit_path("%s-not", place.open), *up = kit_path("%s/../outside", place.open);
    RP_AUTO_FREE char *out = kit_path("%s/x", place.outside), *dots = kit_path("%s/..", place.open);
    is_refused(&place, place.outside, RP_ERR_PERMISSION);
    is_refused(&place, out, RP_ERR_PERMISSION);
    is_refused(&place, beside, RP_ERR_PERMISSION);
    is_refused(&place, up, RP_ERR_PERMISSION);
    is_refused(&place, dots, RP_ERR_PERMISSION);
    is_refused(&place, "/etc/passwd", RP_ERR_PERMISSION);
    is_refused(&place, "/etc/no-such-file/x", RP_ERR_PERMISSION);
    is_refused(&place, "/", RP_ERR_PERMISSION);
    is_refused(&place, "open/x", RP_ERR_INVALID);
    is_refused(&place, "", RP_ERR_INVALID);
    is_refused(&place, NULL, RP_ERR_INVALID);
    place.hostd.folder_count = 0;
    is_refused(&place, place.open, RP_ERR_PERMISSION);
    place_close(&place);
}

static void a_symlink_does_not_lead_out(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    RP_AUTO_FREE char *sub = kit_path("%s/sub", place.open), *in = kit_path("%s/in", place.open);
    RP_AUTO_FREE char *link = kit_path("%s/link", place.open), *inside = kit_path("%s/link/x", place.open);
    RP_AUTO_FREE char *dangling = kit_path("%s/dangling", place.open), *target = kit_path("%s/new", place.outside);
    RP_AUTO_FREE char *loop = kit_path("%s/loop", place.open), *proc = kit_path("%s/proc", place.open);
    RP_AUTO_FREE char *through = kit_path("%s/in/y", place.open), *real = kit_path("%s/sub/y", place.open);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(symlink(sub, in) | symlink(place.outside, link) | symlink(target, dangling) | symlink(loop, loop) |
                     symlink("/proc/self/root", proc), 0);
    is_fine(&place, in, sub); // one that stays inside
    is_fine(&place, through, real);
    is_refused(&place, link, RP_ERR_PERMISSION);
    is_refused(&place, inside, RP_ERR_PERMISSION);
    is_refused(&place, dangling, RP_ERR_PERMISSION);
    is_refused(&place, proc, RP_ERR_PERMISSION);
    is_refused(&place, loop, RP_ERR_IO);
    place_close(&place);
}

// The path is checked, and then somebody who may write there puts a link in its way.
static void a_link_that_comes_after_the_check_leads_nowhere(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    struct rp_error err = {0};
    struct rp_fs *fs = rp_fs_no_links(&place.hostd.files, "/");
    RP_AUTO_FREE char *sub = kit_path("%s/sub", place.open), *away = kit_path("%s/away", place.open);
    RP_AUTO_FREE char *file = kit_path("%s/sub/a", place.open), *fresh = kit_path("%s/sub/new", place.open);
    RP_AUTO_FREE char *theirs = kit_path("%s/a", place.outside), *made = kit_path("%s/new", place.outside);
    assert_int_equal(mkdir(sub, 0700), 0);
    kit_write_file(file, "ours", 4);
    kit_write_file(theirs, "theirs", 6);
    is_fine(&place, file, file);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    kit_ok(rp_fs_read_file(fs, file, 100, &text, &err), err);
    kit_ok(rp_fs_replace_file(fs, fresh, "x", 1, &err), err);
    kit_ok(rp_fs_unlink(fs, fresh, &err), err);

    for (int last = 0; last < 2; last++) { // a folder, then the file itself, is a link now
        const char *name;
        bool there;
        if (last) {
            assert_int_equal(unlink(sub) | rename(away, sub) | unlink(file) | symlink(theirs, file), 0);
        } else {
            assert_int_equal(rename(sub, away) | symlink(place.outside, sub), 0);
            kit_fails(rp_fs_replace_file(fs, fresh, "x", 1, &err), err, RP_ERR_PERMISSION);
            kit_fails(rp_fs_unlink(fs, file, &err), err, RP_ERR_PERMISSION);
            kit_fails(rp_fs_rename(fs, file, fresh, &err), err, RP_ERR_PERMISSION);
            kit_fails(rp_fs_sync_parent(fs, file, &err), err, RP_ERR_PERMISSION);
            kit_fails(rp_path_open_parent(file, &name, &err) < 0, err, RP_ERR_PERMISSION);
        }
        kit_fails(rp_fs_read_file(fs, file, 100, &text, &err), err, RP_ERR_PERMISSION);
        kit_fails(!rp_fs_open(fs, file, RP_OPEN_WRITE, &err), err, RP_ERR_PERMISSION);
        kit_fails(rp_fs_exists(fs, file, &there, &err), err, RP_ERR_PERMISSION);
        assert_null(rp_fs_open(fs, file, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
    }
    assert_int_equal(access(theirs, F_OK), 0);
    assert_int_equal(access(made, F_OK), -1);
    // Elsewhere it is the machine's file system.
    struct rp_fs_no_links part;
    rp_fs_no_links(&part, place.outside);
    rp_buf_reset(&text);
    kit_ok(rp_fs_read_file(&part.fs, file, 100, &text, &err), err);
    assert_string_equal(rp_buf_text(&text), "theirs");
    place_close(&place);
}

static void what_is_neither_file_nor_folder_is_refused(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    RP_AUTO_FREE char *fifo = kit_path("%s/fifo", place.open);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    is_refused(&place, fifo, RP_ERR_INVALID);
    place_close(&place);
}

// ---- audit ----------------------------------------------------------------------------------------------------------

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = rp_xcalloc(1, 65536);
    assert_true(fread(text, 1, 65535, file) < 65535);
    fclose(file);
    return text;
}

static void hostile_values_do_not_break_a_line_of_the_audit(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *path = kit_path("%s/audit", folder), *moved = kit_path("%s/audit.1", folder);
    struct rp_error err = {0};
    struct rp_hostd_audit *audit = rp_hostd_audit_open(path, &err);
    assert_non_null(audit);
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_hostd_audit_field(&line, "user", "LAB\\eve");
    rp_hostd_audit_field(&line, "name", "a\n2026-01-01T00:00:00.000Z user=root \"x\" \x7f");
    rp_hostd_audit_field(&line, "empty", "");
    rp_hostd_audit_field(&line, "plain", "a-b.c");
    rp_hostd_audit_field(&line, "turned", "\xc2\x9b" "2J \xe2\x80\xae x\xe2\x80\xa8y \xc3\xa4\xe2\x80\x99");
    rp_hostd_audit_write(audit, &line);
    assert_int_equal(rename(path, moved), 0);
    rp_hostd_audit_reopen(audit);
    rp_buf_reset(&line);
    RP_AUTO_FREE char *many = rp_xcalloc(1, 5001);
    memset(many, 'x', 5000);
    rp_hostd_audit_field(&line, "long", many);
    rp_hostd_audit_write(audit, &line);
    rp_hostd_audit_close(audit);
    RP_AUTO_FREE char *first = read_file(moved), *second = read_file(path);
    assert_non_null(strstr(first,
                           "Z user=\"LAB\\\\eve\" name=\"a\\x0a2026-01-01T00:00:00.000Z user=root \\\"x\\\" \\x7f\""
                           " empty=\"\" plain=a-b.c turned=\"\\xc2\\x9b2J \\xe2\\x80\\xae x\\xe2\\x80\\xa8y"
                           " \xc3\xa4\xe2\x80\x99\"\n"));
    assert_ptr_equal(strchr(first, '\n'), first + strlen(first) - 1); // one line
    assert_true(strlen(second) < 1100);
    assert_non_null(strstr(second, "xxx...\"\n"));
    kit_remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_file_says_all_that_a_host_needs),
        cmocka_unit_test(the_limit_of_a_freeze_is_said_in_seconds_or_milliseconds),
        cmocka_unit_test(the_limit_of_a_freeze_counts_for_all_that_clients_ask_for),
        cmocka_unit_test(a_mistake_in_the_config_is_one_line_with_file_and_number),
        cmocka_unit_test(a_config_file_that_is_none_is_refused),
        cmocka_unit_test(files_that_say_who_may_do_what_are_nobody_elses),
        cmocka_unit_test(what_a_new_config_says_beside_rights_is_named),
        cmocka_unit_test(the_highest_rule_that_fits_a_user_counts),
        cmocka_unit_test(a_group_of_the_operating_system_gives_rights_to_its_members),
        cmocka_unit_test(by_the_unix_socket_root_and_we_ourselves_may_everything),
        cmocka_unit_test(basic_asks_for_the_password_of_an_ntlm_user),
        cmocka_unit_test(rights_that_change_count_for_who_is_connected_as_well),
        cmocka_unit_test(paths_inside_a_folder_are_taken_whether_they_are_there_or_not),
        cmocka_unit_test(paths_outside_are_refused_and_nothing_is_said_about_them),
        cmocka_unit_test(a_symlink_does_not_lead_out),
        cmocka_unit_test(a_link_that_comes_after_the_check_leads_nowhere),
        cmocka_unit_test(what_is_neither_file_nor_folder_is_refused),
        cmocka_unit_test(hostile_values_do_not_break_a_line_of_the_audit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
