// Parent paths: written as Windows expects them, found again from the child's folder.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk/locator.h"
#include "io/memory.h"

static void round_trip(const char *child, const char *parent, const char *relative)
{
    RP_CLEANUP(rp_locator_clear) struct rp_locator locator = {0}, decoded = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf item = {0};
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_error err = {0};
    assert_int_equal(rp_locator_set_paths(&locator, child, parent, &err), 0);
    assert_string_equal(rp_locator_get(&locator, "relative_path"), relative);
    assert_int_equal(rp_locator_encode(&locator, &item, &err), 0);
    assert_int_equal(rp_locator_decode(item.data, item.size, &decoded, &err), 0);
    rp_store_close(rp_fs_open(fs, parent, RP_OPEN_WRITE | RP_OPEN_CREATE, &err));
    char *found = rp_locator_resolve(&decoded, fs, child, &err);
    assert_string_equal(found, parent);
    free(found);
    rp_fs_memory_free(fs);
}

static void parents_are_named_relative_to_the_child(void **state)
{
    (void)state;
    round_trip("c.vhdx", "p.vhdx", ".\\p.vhdx");
    round_trip("/vm/c.vhdx", "/vm/p.vhdx", ".\\p.vhdx");
    round_trip("/vm/snapshots/c.vhdx", "/vm/p.vhdx", "..\\p.vhdx");
    round_trip("/vm/a/b/c.vhdx", "/vm/x/y/p.vhdx", "..\\..\\x\\y\\p.vhdx");
    round_trip("/vm/c.vhdx", "/vm/base/p.vhdx", ".\\base\\p.vhdx");
    round_trip("vm/\303\244 b/c.vhdx", "vm/\303\266.vhdx", "..\\\303\266.vhdx");
}

static void a_moved_pair_is_found_before_the_old_place(void **state)
{
    (void)state;
    RP_CLEANUP(rp_locator_clear) struct rp_locator locator = {0};
    struct rp_fs *fs = rp_fs_memory_new();
    rp_locator_set(&locator, "relative_path", ".\\p.vhdx");
    rp_locator_set(&locator, "volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\p.vhdx");
    rp_locator_set(&locator, "absolute_win32_path", "\\\\?\\C:\\vm\\p.vhdx");
    char *found = rp_locator_resolve(&locator, fs, "/new/c.vhdx", NULL);
    assert_string_equal(found, "/new/p.vhdx"); // not there, but the only path that means something
    free(found);
    rp_locator_set(&locator, "absolute_win32_path", "\\old\\p.vhdx");
    rp_store_close(rp_fs_open(fs, "/old/p.vhdx", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
    found = rp_locator_resolve(&locator, fs, "/new/c.vhdx", NULL);
    assert_string_equal(found, "/old/p.vhdx");
    free(found);
    rp_store_close(rp_fs_open(fs, "/new/p.vhdx", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
    found = rp_locator_resolve(&locator, fs, "/new/c.vhdx", NULL);
    assert_string_equal(found, "/new/p.vhdx");
    free(found);
    rp_locator_set(&locator, "relative_path", NULL);
    rp_locator_set(&locator, "absolute_win32_path", "C:\\p.vhdx");
    rp_locator_set(&locator, "volume_path", NULL);
    found = rp_locator_resolve(&locator, fs, "/new/c.vhdx", NULL); // of another machine: beside the child, or nowhere
    assert_string_equal(found, "/new/p.vhdx");
    free(found);
    found = rp_locator_resolve(&locator, fs, "c.vhdx", NULL);
    assert_string_equal(found, "p.vhdx");
    free(found);
    rp_locator_set(&locator, "absolute_win32_path", "C:\\..");
    found = rp_locator_resolve(&locator, fs, "/new/c.vhdx", NULL);
    assert_null(found);
    struct rp_error err = {0};
    rp_locator_set(&locator, "absolute_win32_path", NULL);
    assert_null(rp_locator_resolve(&locator, fs, "/new/c.vhdx", &err));
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_fs_memory_free(fs);
}

static void names_that_windows_cannot_write_are_refused(void **state)
{
    (void)state;
    RP_CLEANUP(rp_locator_clear) struct rp_locator locator = {0};
    assert_int_equal(rp_locator_set_paths(&locator, "/vm/c", "/vm/back\\slash", NULL), -1);
    assert_int_equal(rp_locator_set_paths(&locator, "../c", "p", NULL), -1); // nobody knows the way back
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parents_are_named_relative_to_the_child),
        cmocka_unit_test(a_moved_pair_is_found_before_the_old_place),
        cmocka_unit_test(names_that_windows_cannot_write_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
