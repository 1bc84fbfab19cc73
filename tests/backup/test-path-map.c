// Names of a host's files, and where they are here.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "hyperv/path_map.h"

struct place {
    char folder[64];
    struct rp_path_map map;
};

static void touch(struct place *place, const char *name)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", place->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}
static void folder(struct place *place, const char *name)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", place->folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
}
static void link_to(struct place *place, const char *target, const char *name)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", place->folder, name);
    assert_int_equal(symlink(target, path), 0);
}
static void map(struct place *place, const char *host, const char *name)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", place->folder, name);
    if (rp_path_map_add(&place->map, host, path, &err))
        fail_msg("%s", err.text);
}

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    strcpy(place->folder, "/tmp/refpoint-map-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    folder(place, "d");
    folder(place, "d/Web1");
    touch(place, "d/Web1/Disk.VHDX");
    folder(place, "secret");
    touch(place, "secret/key");
    *state = place;
    return 0;
}
static int teardown(void **state)
{
    struct place *place = *state;
    RP_AUTO_FREE char *command = rp_xasprintf("rm -rf %s", place->folder);
    rp_path_map_clear(&place->map);
    assert_int_equal(system(command), 0);
    free(place);
    return 0;
}

// `name` below the place's folder; NULL: refused with `code`.
static void expect(struct place *place, const char *host, const char *name, enum rp_code code)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *local = rp_path_map_to_local(&place->map, host, &err);
    RP_AUTO_FREE char *want = rp_xasprintf("%s/%s", place->folder, name ? name : "");
    if (!name && local)
        fail_msg("%s is %s", host, local);
    if (name && (!local || strcmp(local, want)))
        fail_msg("%s is %s: %s", host, local ? local : "refused", err.text);
    assert_int_equal(err.code, code);
}

static void windows_paths_are_found_without_regard_to_case(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "d");
    expect(place, "D:\\VMs\\Web1\\Disk.VHDX", "d/Web1/Disk.VHDX", RP_OK);
    expect(place, "d:\\vms\\WEB1\\disk.vhdx", "d/Web1/Disk.VHDX", RP_OK);
    expect(place, "D:/vms/web1//.\\disk.vhdx", "d/Web1/Disk.VHDX", RP_OK);
    expect(place, "\\\\?\\D:\\VMs\\Web1", "d/Web1", RP_OK);
    expect(place, "D:\\VMs\\Web1\\new\\x.vhdx", "d/Web1/new/x.vhdx", RP_OK);
    expect(place, "D:\\VMs", "d", RP_OK);
    expect(place, "D:\\VMs2\\x", NULL, RP_ERR_NOT_FOUND);
    expect(place, "D:\\", NULL, RP_ERR_NOT_FOUND);
    expect(place, "E:\\VMs\\x", NULL, RP_ERR_NOT_FOUND);
    expect(place, "/VMs/x", NULL, RP_ERR_NOT_FOUND);
}

static void names_beyond_ascii_compare_as_windows_does(void **state)
{
    struct place *place = *state;
    folder(place, "d/\303\234bung");
    map(place, "D:\\\303\204", "d");
    expect(place, "d:\\\303\244\\\303\274BUNG", "d/\303\234bung", RP_OK);
    expect(place, "d:\\\303\245\\x", NULL, RP_ERR_NOT_FOUND);
}

static void posix_paths_keep_their_case(void **state)
{
    struct place *place = *state;
    map(place, "/srv/vms", "d");
    expect(place, "/srv/vms/Web1/Disk.VHDX", "d/Web1/Disk.VHDX", RP_OK);
    expect(place, "/srv/vms/web1/Disk.VHDX", "d/web1/Disk.VHDX", RP_OK); // another file, not there
    expect(place, "/srv/VMs/Web1", NULL, RP_ERR_NOT_FOUND);
    expect(place, "/srv/vms/a\\b", "d/a\\b", RP_OK);
}

static void shares_and_volumes_have_paths_too(void **state)
{
    struct place *place = *state;
    map(place, "\\\\hv1\\VMs", "d");
    map(place, "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\VMs", "secret");
    expect(place, "\\\\HV1\\vms\\web1", "d/Web1", RP_OK);
    expect(place, "\\\\?\\UNC\\hv1\\VMs\\Web1", "d/Web1", RP_OK);
    expect(place, "\\\\.\\volume{26A21BDA-a627-11d7-9931-806e6f6e6963}\\vms\\key", "secret/key", RP_OK);
    expect(place, "\\\\hv2\\VMs\\web1", NULL, RP_ERR_NOT_FOUND);
    expect(place, "\\\\hv1", NULL, RP_ERR_INVALID);
    expect(place, "\\\\hv1\\..\\VMs", NULL, RP_ERR_INVALID);
    expect(place, "\\\\\\VMs", NULL, RP_ERR_INVALID);
}

static void the_innermost_mapping_is_taken(void **state)
{
    struct place *place = *state;
    map(place, "D:", "secret");
    map(place, "D:\\VMs\\", "d");
    expect(place, "D:\\VMs\\Web1", "d/Web1", RP_OK);
    expect(place, "D:\\key", "secret/key", RP_OK);
}

static void no_path_leaves_its_folder_by_its_text(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "d");
    map(place, "/srv/vms", "d");
    static const char *const paths[] = {"D:\\VMs\\..\\secret\\key", "/srv/vms/../secret/key", "D:\\VMs\\.. \\x",
                                        "D:\\VMs\\...\\x",
                                        "D:\\VMs\\a:stream", "D:VMs\\x", "VMs\\x", "", "D:\\VMs\\con?", "D:\\VMs\\a\nb",
                                        "\\VMs\\x", "D:\\VMs/../secret/key"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        expect(place, paths[i], NULL, RP_ERR_INVALID);
}

static void no_path_leaves_its_folder_by_a_link(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "d");
    link_to(place, "../../secret", "d/Web1/out");
    link_to(place, "../../secret/key", "d/Web1/key.vhdx");
    link_to(place, "/nowhere", "d/Web1/dangling");
    link_to(place, "Disk.VHDX", "d/Web1/inside.vhdx");
    expect(place, "D:\\VMs\\Web1\\out\\key", NULL, RP_ERR_PERMISSION);
    expect(place, "D:\\VMs\\Web1\\OUT\\new.vhdx", NULL, RP_ERR_PERMISSION);
    expect(place, "D:\\VMs\\Web1\\key.vhdx", NULL, RP_ERR_PERMISSION);
    expect(place, "D:\\VMs\\Web1\\dangling", NULL, RP_ERR_PERMISSION);
    expect(place, "D:\\VMs\\Web1\\inside.vhdx", "d/Web1/Disk.VHDX", RP_OK);
}

static void names_that_differ_in_case_only_are_not_guessed(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "d");
    touch(place, "d/Web1/disk.vhdx");
    expect(place, "D:\\VMs\\Web1\\disk.vhdx", "d/Web1/disk.vhdx", RP_OK);
    expect(place, "D:\\VMs\\Web1\\DISK.vhdx", NULL, RP_ERR_INVALID);
}

static void a_share_that_is_not_mounted_is_told(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "not-there");
    expect(place, "D:\\VMs\\Web1", NULL, RP_ERR_NOT_FOUND);
}

static void the_way_back_gives_what_the_host_calls_a_file(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    map(place, "D:\\VMs", "d");
    RP_AUTO_FREE char *file = rp_xasprintf("%s/d/Web1/new.vhdx", place->folder),
    *host = rp_path_map_to_host(&place->map, file, &err);
    assert_string_equal(host, "D:\\VMs\\Web1\\new.vhdx");
    RP_AUTO_FREE char *out = rp_xasprintf("%s/secret/key", place->folder);
    assert_null(rp_path_map_to_host(&place->map, out, &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    rp_error_clear(&err);
    RP_AUTO_FREE char *bad = rp_xasprintf("%s/d/Web1/a:b", place->folder);
    assert_null(rp_path_map_to_host(&place->map, bad, &err));
    assert_int_equal(err.code, RP_ERR_INVALID);
}

static int open_file(struct place *place, const char *name, enum rp_code code)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", place->folder, name);
    int fd = rp_path_map_open(&place->map, path, &err);
    assert_int_equal(err.code, code);
    return fd;
}

static void only_files_in_mapped_folders_are_opened(void **state)
{
    struct place *place = *state;
    map(place, "D:\\VMs", "d");
    link_to(place, "../../secret/key", "d/Web1/out");
    int fd = open_file(place, "d/Web1/Disk.VHDX", RP_OK);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(open_file(place, "secret/key", RP_ERR_PERMISSION), -1);
    assert_int_equal(open_file(place, "d/../secret/key", RP_ERR_PERMISSION), -1);
    assert_int_equal(open_file(place, "d/Web1/out", RP_ERR_PERMISSION), -1);
    assert_int_equal(open_file(place, "d/Web1/missing", RP_ERR_NOT_FOUND), -1);
}

static void lines_of_a_hosts_file_are_understood(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    assert_int_equal(rp_path_map_add_line(&place->map, " D:\\a = b\\ =  /mnt/x=y/ ", &err), 0);
    assert_string_equal(place->map.items[0].host, "D:\\a = b");
    assert_string_equal(place->map.items[0].local, "/mnt/x=y");
    static const char *const bad[] = {"", "D:\\VMs", "D:\\VMs = mnt", "= /mnt", "VMs = /mnt", "d:\\A = B = /mnt/z"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rp_error_clear(&err);
        if (!rp_path_map_add_line(&place->map, bad[i], &err))
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, RP_ERR_INVALID);
    }
    assert_true(rp_path_map_knows(&place->map, "d:\\A = b\\x"));
    assert_false(rp_path_map_knows(&place->map, "d:\\x"));
    assert_false(rp_path_map_knows(NULL, "d:\\x"));
}

static void names_are_joined_in_the_hosts_style(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"D:\\VMs", "D:\\VMs\\x"}, {"D:\\", "D:\\x"}, {"/srv", "/srv/x"},
                                           {"/", "/x"}, {"\\\\hv1\\s", "\\\\hv1\\s\\x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_AUTO_FREE char *joined = rp_path_map_join(cases[i][0], "x");
        assert_string_equal(joined, cases[i][1]);
        assert_string_equal(rp_path_map_name(joined), "x");
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(windows_paths_are_found_without_regard_to_case),
        TEST(names_beyond_ascii_compare_as_windows_does),
        TEST(posix_paths_keep_their_case),
        TEST(shares_and_volumes_have_paths_too),
        TEST(the_innermost_mapping_is_taken),
        TEST(no_path_leaves_its_folder_by_its_text),
        TEST(no_path_leaves_its_folder_by_a_link),
        TEST(names_that_differ_in_case_only_are_not_guessed),
        TEST(a_share_that_is_not_mounted_is_told),
        TEST(the_way_back_gives_what_the_host_calls_a_file),
        TEST(only_files_in_mapped_folders_are_opened),
        TEST(lines_of_a_hosts_file_are_understood),
        TEST(names_are_joined_in_the_hosts_style),
    };
    return cmocka_run_group_tests_name("path map", tests, NULL, NULL);
}
