#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cim/path.h"

static struct rp_cim_path *parse(const char *text)
{
    struct rp_error err = {0};
    struct rp_cim_path *path = rp_cim_path_parse(text, &err);
    if (!path)
        fail_msg("%s", err.text);
    return path;
}

static void prints(const char *text, const char *full)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = parse(text);
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_cim_path_format(path, &out);
    assert_string_equal(rp_buf_text(&out), full);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *again = parse(rp_buf_text(&out)), *copy = rp_cim_path_copy(path);
    assert_true(rp_cim_path_equal(path, again) && rp_cim_path_equal(path, copy));
}

static void a_path_is_taken_apart(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = parse(
        "\\\\HV1\\root\\virtualization\\v2:Msvm_StorageAllocationSettingData"
        ".InstanceID=\"Microsoft:A\\\\B\\\\0\\\\0\\\\L\"");
    assert_string_equal(path->host, "HV1");
    assert_string_equal(path->name_space, "root/virtualization/v2");
    assert_string_equal(path->class_name, "Msvm_StorageAllocationSettingData");
    assert_int_equal(path->key_count, 1);
    assert_string_equal(rp_cim_path_get(path, "instanceid"), "Microsoft:A\\B\\0\\0\\L");
    assert_null(rp_cim_path_get(path, "Name"));
}

static void every_spelling_that_clients_use_is_read(void **state)
{
    (void)state;
    prints("\\\\HV1\\root\\virtualization\\v2:Msvm_X.A=\"1\",B=\"x\\\\y\"",
        "\\\\HV1\\root\\virtualization\\v2:Msvm_X.A=\"1\",B=\"x\\\\y\"");
    prints("//HV1/root/cimv2:Win32_X.A='it\\'s \"q\"'", "\\\\HV1\\root\\cimv2:Win32_X.A=\"it's \\\"q\\\"\"");
    prints("\\\\.\\root\\cimv2:Win32_X", "\\\\.\\root\\cimv2:Win32_X");
    prints("\\\\host.example.org\\root\\cimv2\\:Win32_X=@", "\\\\host.example.org\\root\\cimv2:Win32_X=@");
    prints(" Win32_ComputerSystem.Name = 'H' ", "Win32_ComputerSystem.Name=\"H\"");
    prints("Msvm_X . A = 5 , B = TRUE , C=\"\"", "Msvm_X.A=\"5\",B=\"TRUE\",C=\"\"");
    prints("root/cimv2:Win32_LogicalDisk.DeviceID=\"C:\"", "Win32_LogicalDisk.DeviceID=\"C:\"");
    prints("__Class.\xC3\xBC=\"\xC3\xBC\"", "__Class.\xC3\xBC=\"\xC3\xBC\"");
    prints("Msvm_A.Antecedent=\"\\\\\\\\H\\\\root\\\\v2:X.N=\\\"1\\\"\"",
        "Msvm_A.Antecedent=\"\\\\\\\\H\\\\root\\\\v2:X.N=\\\"1\\\"\"");
}

static void what_is_no_path_is_refused_with_the_place(void **state)
{
    (void)state;
    static const struct { const char *text, *why; } rows[] = {
        {"", "character 1: expected the name of a class"}, {"X.", "character 3: expected the name of a key"},
        {"X.A", "character 4: expected \"=\""}, {"X.A=", "character 5: expected the value"},
        {"X.A=\"1", "expected the value of a key"}, {"X.A=\"1\" B", "character 9: expected \",\" or the end"},
        {"X.A='1',", "expected the name of a key"}, {"X.A='1',a='2'", "expected each key once"},
        {"X=1", "expected \"@\""}, {"X y", "character 3"}, {"5X.A=1", "the name of a class"},
        {"X.5A=1", "the name of a key"},
        {"\\\\H", "expected \\\\HOST\\namespace:"}, {"\\\\H\\:X", "expected \\\\HOST\\namespace:"},
        {"\\\\\\root:X", "HOST"},
        {"\\\\H\nA\\root:X", "HOST"}, {"\\\\\"H\"\\root:X", "HOST"}, {"root\\v\n2:X", "expected"},
        {"root\tv2:X", "expected"},
        {"\\X", "HOST"}, {":X", "HOST"}, {"root\\v2:", "the name of a class"}, {"X.A=\"1\\", "the value of a key"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rp_error err = {0};
        if (rp_cim_path_parse(rows[i].text, &err))
            fail_msg("%s was taken for a path", rows[i].text);
        assert_int_equal(err.code, RP_ERR_INVALID);
        if (!strstr(err.text, rows[i].why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].why);
    }
}

static void keys_are_bounded(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_buf_printf(&text, "X");
    for (int i = 0; i < 64; i++)
        rp_buf_printf(&text, "%cK%d=%d", i ? ',' : '.', i, i);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = parse(rp_buf_text(&text));
    assert_int_equal(path->key_count, 64);
    rp_buf_printf(&text, ",K64=1");
    assert_null(rp_cim_path_parse(rp_buf_text(&text), NULL));
}

static bool equal(const char *a, const char *b)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *left = parse(a), *right = parse(b);
    bool same = rp_cim_path_equal(left, right);
    assert_int_equal(same, rp_cim_path_equal(right, left));
    return same;
}

static void paths_of_one_object_are_equal_however_they_are_spelt(void **state)
{
    (void)state;
    assert_true(equal("\\\\A\\root\\v2:X.K=\"abc\",L=1", "//b/ROOT/V2:x.l=\"1\",k='ABC'"));
    assert_true(equal("\\\\A\\root\\v2:X.K=\"abc\"", "X.K=\"abc\""));
    assert_true(equal("X.R=\"\\\\\\\\A\\\\root\\\\v2:Y.K=\\\"1\\\"\"", "X.R=\"root/v2:y.k=1\""));
    assert_false(equal("X.R=\"\\\\\\\\A\\\\root\\\\v2:Y.K=\\\"1\\\"\"", "X.R=\"root/v3:y.k=1\""));
    assert_false(equal("root/a:X.K=1", "root/b:X.K=1"));
    assert_false(equal("X.K=1", "X.K=2"));
    assert_false(equal("X.K=1", "Y.K=1"));
    assert_false(equal("X.K=1", "X.K=1,L=1"));
    assert_false(equal("X.K=1", "X.L=1"));
    assert_false(equal("X=@", "X"));
}

static void a_key_is_replaced_whatever_the_case_of_its_name(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/v2", "X");
    rp_cim_path_set(path, "Name", "a");
    rp_cim_path_set(path, "NAME", rp_cim_path_get(path, "name"));
    rp_cim_path_set(path, "Other", "\"\\");
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_cim_path_format(path, &out);
    assert_string_equal(rp_buf_text(&out), "X.Name=\"a\",Other=\"\\\"\\\\\"");
    rp_buf_reset(&out);
    path->host = rp_xstrdup("H");
    rp_cim_path_format(path, &out);
    assert_string_equal(rp_buf_text(&out), "\\\\H\\root\\v2:X.Name=\"a\",Other=\"\\\"\\\\\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_is_taken_apart),
        cmocka_unit_test(every_spelling_that_clients_use_is_read),
        cmocka_unit_test(what_is_no_path_is_refused_with_the_place),
        cmocka_unit_test(keys_are_bounded),
        cmocka_unit_test(paths_of_one_object_are_equal_however_they_are_spelt),
        cmocka_unit_test(a_key_is_replaced_whatever_the_case_of_its_name),
    };
    return cmocka_run_group_tests_name("path", tests, NULL, NULL);
}
