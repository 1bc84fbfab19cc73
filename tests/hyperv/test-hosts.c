// The hosts file and the keyring: what people write there, what others put there, and what becomes of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyperv/hosts_file.h"
#include "hyperv/keyring.h"
#include "hyperv/private_file.h"

static char folder[64], hosts_path[128], keyring_path[128];
static struct rp_error err;

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/wmi5-hosts-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(hosts_path, sizeof hosts_path, "%s/new/folder/hosts", folder);
    snprintf(keyring_path, sizeof keyring_path, "%s/new/folder/keyring", folder);
    rp_error_clear(&err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    RP_AUTO_FREE char *command = rp_xasprintf("rm -rf '%s'", folder);
    return system(command);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    assert_int_equal(rp_private_file_replace(path, text, strlen(text), NULL), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void expect_bad(const char *text, const char *why)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    write_file(hosts_path, text, 0644);
    rp_error_clear(&err);
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, &err), -1);
    if (!strstr(err.text, why) || strchr(err.text, '\n'))
        fail_msg("'%s' is not in: %s", why, err.text);
    assert_int_equal(hosts.count, 0);
}

static void what_people_write_is_understood(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    write_file(
        hosts_path,
        "# cellar\r\n\r\n [hv1] \nurl=https://hv1\n  auth = KERBEROS\nuser = LAB\\backup\nmap = D:\\VMs = /mnt/a b\n"
        "map = \\\\nas\\vms = /mnt/nas\nexport = D:\\Export\n\n[here]\nurl = unix:/run/x.sock\n[clear]\nurl = "
        "http://x\n"
        "auth = basic\nbasic-in-clear = yes\nfingerprint = aa:bb\nca = /etc/ca.pem",
        0644);
    if (rp_hosts_file_read(hosts_path, &hosts, &err))
        fail_msg("%s", err.text);
    assert_int_equal(hosts.count, 3);
    assert_string_equal(hosts.items[0].url, "https://hv1");
    assert_int_equal(hosts.items[0].auth, RP_AUTH_KERBEROS);
    assert_string_equal(hosts.items[0].user, "LAB\\backup");
    assert_string_equal(hosts.items[0].export_folder, "D:\\Export");
    assert_int_equal(hosts.items[0].paths.count, 2);
    assert_string_equal(hosts.items[0].paths.items[0].host, "D:\\VMs");
    assert_string_equal(hosts.items[0].paths.items[0].local, "/mnt/a b");
    assert_int_equal(hosts.items[1].auth, RP_AUTH_PEER);
    assert_true(hosts.items[2].basic_in_clear);
    assert_ptr_equal(rp_hosts_find(&hosts, "HV1"), &hosts.items[0]);
    assert_null(rp_hosts_find(&hosts, "hv2"));
}

static void nonsense_is_one_line_with_its_place(void **state)
{
    (void)state;
    expect_bad("url = https://hv1\n", "line 1: \"url = https://hv1\" is neither");
    expect_bad("[hv1]\nurl = x\nusr = y\n", "line 3: what is \"usr\"");
    expect_bad("[hv1]\nurl = x\n[HV1]\nurl = y\n", "line 3: host HV1 is there twice");
    expect_bad("[hv1]\nuser = x\n", "has no url");
    expect_bad("[hv1]\nurl = x\nurl = y\n", "line 3: it says this twice");
    expect_bad("[hv1]\nurl = x\nauth = magic\n", "no way to log in");
    expect_bad("[hv1]\nurl = x\nbasic-in-clear = maybe\n", "yes or no");
    expect_bad("[hv1]\nurl = x\nmap = D:\\VMs\n", "line 3");
    expect_bad("[hv1]\nurl = x\nmap = VMs = mnt\n", "line 3");
    expect_bad("[hv1]\nurl =\n", "a value is missing");
    expect_bad("[../../etc]\nurl = x\n", "no name of a host");
    expect_bad("[local]\nurl = x\n", "no name of a host");
    expect_bad("[a/b]\nurl = x\n", "no name of a host");
    expect_bad("[hv1\nurl = x\n", "no name of a host");
    expect_bad("[hv1]\nurl = x\x1b[31m\n", "control character");
    RP_AUTO_FREE char *large = rp_xcalloc(1, (1 << 20) + 2);
    memset(large, '#', (1 << 20) + 1);
    expect_bad(large, "more than 1048576 bytes");
}

static void a_file_with_zero_bytes_is_no_text(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    assert_int_equal(rp_private_file_replace(hosts_path, "[hv1]\0\nurl = x\n", 15, &err), 0);
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, &err), -1);
    assert_non_null(strstr(err.text, "no text"));
}

static struct rp_hosts_entry entry(const char *name)
{
    return (struct rp_hosts_entry){
        .name = rp_xstrdup(name), .url = rp_xstrdup("https://x"), .user = rp_xstrdup("LAB\\a = b")};
}

static void what_is_added_and_removed_leaves_the_rest_as_it_was(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry one = entry("hv1"), two = entry("hv2");
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    assert_int_equal(rp_path_map_add(&one.paths, "D:\\VMs", "/mnt/x", &err), 0);
    assert_int_equal(rp_hosts_file_add(hosts_path, &one, &err), 0); // folders are made
    struct stat st;
    assert_int_equal(stat(hosts_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    write_file(hosts_path, "# mine\n[old]\nurl = http://old # as it was\n\n[hv1]\nurl = a\n# of hv1\n", 0600);
    assert_int_equal(rp_hosts_file_add(hosts_path, &two, &err), 0);
    assert_int_equal(rp_hosts_file_add(hosts_path, &two, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    rp_error_clear(&err);
    assert_int_equal(rp_hosts_file_remove(hosts_path, "HV1", &err), 0);
    assert_int_equal(rp_hosts_file_remove(hosts_path, "hv1", &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    rp_error_clear(&err);
    assert_int_equal(rp_private_file_read(hosts_path, false, &text, &err), 0);
    assert_string_equal(
        rp_buf_text(&text),
        "# mine\n[old]\nurl = http://old # as it was\n\n[hv2]\nurl = https://x\nauth = negotiate\nuser = LAB\\a = b\n");
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, &err), 0);
    assert_int_equal(hosts.count, 2);
    assert_string_equal(hosts.items[1].user, "LAB\\a = b");
}

static void a_value_cannot_smuggle_in_another_line(void **state)
{
    (void)state;
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry one = entry("hv1"), two = entry("a]\n[b");
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    free(one.user);
    one.user = rp_xstrdup("x\n[evil]\nurl = http://evil");
    assert_int_equal(rp_hosts_file_add(hosts_path, &one, &err), -1);
    rp_error_clear(&err);
    free(one.user);
    one.user = rp_xstrdup("x\nbasic-in-clear = yes");
    int added = rp_hosts_file_add(hosts_path, &one, &err);
    rp_error_clear(&err);
    assert_int_equal(rp_hosts_file_add(hosts_path, &two, &err), -1);
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, NULL), 0);
    assert_int_equal(added, -1);
    assert_int_equal(hosts.count, 0);
}

static void many_at_once_add_each_their_own(void **state)
{
    (void)state;
    enum { MANY = 12 };
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    for (int i = 0; i < MANY; i++)
        if (!fork()) {
            char name[16];
            snprintf(name, sizeof name, "hv%d", i);
            struct rp_hosts_entry one = entry(name);
            _exit(rp_hosts_file_add(hosts_path, &one, NULL) || rp_keyring_set(keyring_path, name, name, NULL));
        }
    for (int i = 0; i < MANY; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, NULL), 0);
    assert_int_equal(hosts.count, MANY);
    for (int i = 0; i < MANY; i++) {
        RP_CLEANUP(rp_keyring_wipe) char *password = rp_keyring_get(keyring_path, hosts.items[i].name, NULL);
        assert_string_equal(password, hosts.items[i].name);
    }
}

// ---- keyring --------------------------------------------------------------------------------------------------------

static void a_password_is_kept_replaced_and_removed(void **state)
{
    (void)state;
    static const char hard[] = "a:b c\\d\"' #=[x]\xc3\xa9 ";
    assert_null(rp_keyring_get(keyring_path, "hv1", &err));
    assert_int_equal(err.code, RP_OK);
    assert_int_equal(rp_keyring_set(keyring_path, "hv1", "first", &err), 0);
    assert_int_equal(rp_keyring_set(keyring_path, "hv10", "ten", &err), 0);
    assert_int_equal(rp_keyring_set(keyring_path, "HV1", hard, &err), 0);
    RP_CLEANUP(rp_keyring_wipe)
    char *one = rp_keyring_get(keyring_path, "hv1", &err),
         *ten = rp_keyring_get(keyring_path, "hv10", &err);
    assert_string_equal(one, hard);
    assert_string_equal(ten, "ten");
    struct stat st;
    assert_int_equal(stat(keyring_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(rp_keyring_set(keyring_path, "hv1", NULL, &err), 0);
    assert_null(rp_keyring_get(keyring_path, "hv1", &err));
    assert_int_equal(rp_keyring_set(keyring_path, "hv1", NULL, &err), 0); // twice is once
    assert_int_equal(err.code, RP_OK);
}

static void passwords_that_cannot_be_are_refused(void **state)
{
    (void)state;
    char large[1100];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = 0;
    const char *const passwords[] = {"", "a\nhv2:evil", "a\r", large};
    for (size_t i = 0; i < sizeof passwords / sizeof *passwords; i++) {
        assert_int_equal(rp_keyring_set(keyring_path, "hv1", passwords[i], &err), -1);
        assert_int_equal(err.code, RP_ERR_INVALID);
        rp_error_clear(&err);
    }
    assert_int_equal(rp_keyring_set(keyring_path, "hv1:x\nhv2", "p", &err), -1);
    assert_null(rp_keyring_get(keyring_path, "hv2", NULL));
}

static void expect_refused(const char *why)
{
    rp_error_clear(&err);
    assert_null(rp_keyring_get(keyring_path, "hv1", &err));
    if (err.code != RP_ERR_PERMISSION || !strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
    rp_error_clear(&err);
    assert_int_equal(rp_keyring_set(keyring_path, "hv1", "new", &err), -1);
    assert_int_equal(err.code, RP_ERR_PERMISSION);
}

static void a_folder_so_deep_that_no_file_in_it_has_a_name_is_refused(void **state)
{
    (void)state;
    for (unsigned depth = 255; depth < 258; depth++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf path = {0};
        RP_CLEANUP(rp_path_map_clear) struct rp_path_map map = {0};
        for (unsigned i = 0; i < depth; i++)
            rp_buf_printf(&path, "/a");
        int result = rp_path_map_add(&map, rp_buf_text(&path), "/mnt", NULL);
        assert_int_equal(result, depth == 255 ? 0 : -1);
        rp_buf_printf(&path, "/file");
        assert_int_equal(rp_path_map_knows(&map, rp_buf_text(&path)), depth == 255);
    }
}

static void a_hosts_file_that_others_may_write_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0620, 0602, 0666};
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        rp_error_clear(&err);
        write_file(hosts_path, "[hv1]\nurl = https://hv1\n", modes[i]);
        assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, &err), -1);
        assert_int_equal(err.code, RP_ERR_PERMISSION);
        assert_non_null(strstr(err.text, "chmod go-w"));
    }
    if (geteuid())
        return;
    rp_error_clear(&err);
    write_file(hosts_path, "[hv1]\nurl = https://hv1\n", 0644);
    assert_int_equal(chown(hosts_path, 12345, 0), 0);
    assert_int_equal(rp_hosts_file_read(hosts_path, &hosts, &err), -1);
    assert_int_equal(err.code, RP_ERR_PERMISSION);
}

static void a_keyring_that_others_may_read_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0604, 0640, 0620, 0601};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_file(keyring_path, "hv1:secret\n", modes[i]);
        expect_refused("chmod 600");
    }
}

static void a_keyring_that_is_something_else_is_refused(void **state)
{
    (void)state;
    write_file(hosts_path, "hv1:secret\n", 0600);
    assert_int_equal(symlink(hosts_path, keyring_path), 0);
    expect_refused("symbolic link");
    assert_int_equal(unlink(keyring_path), 0);
    assert_int_equal(mkfifo(keyring_path, 0600), 0); // it must not be waited for
    expect_refused("no plain file");
    assert_int_equal(unlink(keyring_path), 0);
    if (geteuid())
        return;
    write_file(keyring_path, "hv1:secret\n", 0600);
    assert_int_equal(chown(keyring_path, 12345, 0), 0);
    expect_refused("somebody else");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_people_write_is_understood),
        TEST(nonsense_is_one_line_with_its_place),
        TEST(a_file_with_zero_bytes_is_no_text),
        TEST(what_is_added_and_removed_leaves_the_rest_as_it_was),
        TEST(a_value_cannot_smuggle_in_another_line),
        TEST(many_at_once_add_each_their_own),
        TEST(a_password_is_kept_replaced_and_removed),
        TEST(passwords_that_cannot_be_are_refused),
        TEST(a_folder_so_deep_that_no_file_in_it_has_a_name_is_refused),
        TEST(a_hosts_file_that_others_may_write_is_refused),
        TEST(a_keyring_that_others_may_read_is_refused),
        TEST(a_keyring_that_is_something_else_is_refused),
    };
    return cmocka_run_group_tests_name("hosts", tests, NULL, NULL);
}
