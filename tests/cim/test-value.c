#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cim/instance.h"

static void reads(const char *text, bool interval, int64_t microseconds, int offset, const char *cim, const char *xml)
{
    struct rp_cim_datetime t;
    struct rp_error err = {0};
    char out[RP_CIM_DATETIME_TEXT];
    if (rp_cim_datetime_parse(text, &t, &err))
        fail_msg("%s", err.text);
    assert_int_equal(t.interval, interval);
    assert_int_equal(t.microseconds, microseconds);
    assert_int_equal(t.offset, offset);
    assert_string_equal(rp_cim_datetime_format(&t, out), cim);
    assert_int_equal(strlen(out), 25);
    assert_string_equal(rp_cim_datetime_format_xml(&t, out), xml);
}

static void times_are_read_in_all_forms_and_written_in_both(void **state)
{
    (void)state;
    const int64_t day = 86400000000, moment = 1767323045678000; // date -d 2026-01-02T03:04:05.678Z
    reads("2026-01-02T03:04:05.678Z", false, moment, 0, "20260102030405.678000+000", "2026-01-02T03:04:05.678Z");
    reads("2026-01-02T03:04:05.6780009", false, moment, 0, "20260102030405.678000+000", "2026-01-02T03:04:05.678Z");
    reads("20260102040405.678000+060", false, moment, 60, "20260102040405.678000+060", "2026-01-02T04:04:05.678+01:00");
    reads("2026-01-01T19:34:05.678-07:30", false, moment, -450, "20260101193405.678000-450",
          "2026-01-01T19:34:05.678-07:30");
    reads("20260102030405.******+***", false, moment - 678000, 0, "20260102030405.000000+000", "2026-01-02T03:04:05Z");
    reads("2026****000000.000000+000", false, 1767225600000000, 0, "20260101000000.000000+000", "2026-01-01T00:00:00Z");
    reads("1601-01-01T00:00:00Z", false, -11644473600000000, 0, "16010101000000.000000+000", "1601-01-01T00:00:00Z");
    reads("1969-12-31T23:59:59.999999Z", false, -1, 0, "19691231235959.999999+000", "1969-12-31T23:59:59.999999Z");
    reads("2024-02-29T24:00:00Z", false, 1709251200000000, 0, "20240301000000.000000+000", "2024-03-01T00:00:00Z");
    reads("9999-12-31T23:59:59Z", false, 253402300799000000, 0, "99991231235959.000000+000", "9999-12-31T23:59:59Z");
    reads("00000000000500.000000:000", true, 300000000, 0, "00000000000500.000000:000", "P0DT0H5M0S");
    reads("P0DT0H1M30.5S", true, 90500000, 0, "00000000000130.500000:000", "P0DT0H1M30.5S");
    reads("PT90.5S", true, 90500000, 0, "00000000000130.500000:000", "P0DT0H1M30.5S");
    reads("P1Y2M3DT4H", true, 428 * day + day / 6, 0, "00000428040000.000000:000", "P428DT4H0M0S");
    reads("99999999235959.999999:000", true, 100000000 * day - 1, 0, "99999999235959.999999:000",
          "P99999999DT23H59M59.999999S");
}

static void what_is_no_time_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "P", "PT", "P1DT", "P1", "PT1M2H", "P1S", "P1.5D", "-P1D", "P99999999999999999999D", "P100000000D", "PT1S ",
        "2026-01-02", "2026-13-02T00:00:00Z", "2026-02-29T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-02T24:00:01Z",
        "2026-01-02T03:60:00Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05+1:00", "2026-01-02T03:04:05+17:00",
        "2026-01-02T03:04:05Zx", "20260102030405.678000+06", "20260102030405.678000 060", "20261302030405.678000+000",
        "20260002030405.678000+000", "00000000000500.000000:001", "00000000000560.000000:000",
        "2026010203040x.678000+000",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_cim_datetime t;
        struct rp_error err = {0};
        if (!rp_cim_datetime_parse(bad[i], &t, &err))
            fail_msg("\"%s\" was taken for a datetime", bad[i]);
        assert_int_equal(err.code, RP_ERR_INVALID);
    }
}

static void times_out_of_range_are_written_as_the_nearest_that_fits(void **state)
{
    (void)state;
    char out[RP_CIM_DATETIME_TEXT];
    const struct { struct rp_cim_datetime t; const char *text; } rows[] = {
        {{false, 0, INT64_MAX}, "99991231235959.999999+000"}, {{false, 32767, INT64_MIN}, "00000101000000.000000+999"},
        {{true, 0, INT64_MAX}, "99999999235959.999999:000"}, {{true, 0, -1}, "00000000000000.000000:000"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(rp_cim_datetime_format(&rows[i].t, out), rows[i].text);
}

static struct rp_cim_value parsed(enum rp_cim_type type, const char *text)
{
    struct rp_cim_value value = {0};
    struct rp_error err = {0};
    if (rp_cim_value_parse(type, text, &value, &err))
        fail_msg("%s", err.text);
    return value;
}

static void prints(enum rp_cim_type type, const char *text, const char *again)
{
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value value = parsed(type, text);
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    assert_int_equal(value.type, type);
    rp_cim_value_text(&value, &out);
    assert_string_equal(rp_buf_text(&out), again);
}

static void scalars_are_read_from_text_and_written_as_cim_xml_has_them(void **state)
{
    (void)state;
    prints(RP_CIM_BOOLEAN, "tRue", "TRUE");
    prints(RP_CIM_BOOLEAN, " False\n", "FALSE");
    prints(RP_CIM_BOOLEAN, "0", "FALSE");
    prints(RP_CIM_UINT8, "255", "255");
    prints(RP_CIM_UINT16, "0xfFfF", "65535");
    prints(RP_CIM_UINT32, "1010b", "10");
    prints(RP_CIM_UINT64, "18446744073709551615", "18446744073709551615");
    prints(RP_CIM_UINT64, "-0", "0");
    prints(RP_CIM_SINT8, "-128", "-128");
    prints(RP_CIM_SINT64, "-9223372036854775808", "-9223372036854775808");
    prints(RP_CIM_SINT64, "+9223372036854775807", "9223372036854775807");
    prints(RP_CIM_REAL64, "-1.5e3", "-1500");
    prints(RP_CIM_REAL32, "-INF", "-INF");
    prints(RP_CIM_REAL64, "NaN", "NaN");
    prints(RP_CIM_STRING, " a\nb ", " a\nb ");
    prints(RP_CIM_DATETIME, " 2026-01-02T03:04:05Z ", "20260102030405.000000+000");
    prints(RP_CIM_REFERENCE, "root/cimv2:Win32_X.A=1", "Win32_X.A=\"1\"");
    prints(RP_CIM_OBJECT, "<INSTANCE CLASSNAME='A'/>", "<INSTANCE CLASSNAME=\"A\"></INSTANCE>");
}

static void a_text_that_does_not_fit_its_type_is_refused_by_the_name_of_the_type(void **state)
{
    (void)state;
    static const struct { enum rp_cim_type type; const char *text; } rows[] = {
        {RP_CIM_BOOLEAN, "yes"}, {RP_CIM_BOOLEAN, ""}, {RP_CIM_UINT8, "256"}, {RP_CIM_UINT8, "-1"},
        {RP_CIM_UINT16, "65536"},
        {RP_CIM_UINT32, "4294967296"}, {RP_CIM_UINT64, "18446744073709551616"}, {RP_CIM_UINT64, "0x"},
        {RP_CIM_UINT64, "b"},
        {RP_CIM_UINT64, "12b"}, {RP_CIM_UINT64, "1 2"}, {RP_CIM_UINT64, "1.0"}, {RP_CIM_UINT64, ""},
        {RP_CIM_UINT64, "--1"},
        {RP_CIM_SINT8, "128"}, {RP_CIM_SINT8, "-129"}, {RP_CIM_SINT64, "9223372036854775808"},
        {RP_CIM_SINT64, "-9223372036854775809"}, {RP_CIM_REAL64, "x"}, {RP_CIM_REAL64, ""}, {RP_CIM_REAL64, "0x1p3"},
        {RP_CIM_DATETIME, "now"}, {RP_CIM_REFERENCE, "no path"}, {RP_CIM_OBJECT, "no object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rp_cim_value value = {0};
        struct rp_error err = {0};
        if (!rp_cim_value_parse(rows[i].type, rows[i].text, &value, &err))
            fail_msg("\"%s\" was taken for a %s", rows[i].text, rp_cim_type_name(rows[i].type));
        assert_int_equal(err.code, RP_ERR_INVALID);
        assert_non_null(strstr(err.text, rp_cim_type_name(rows[i].type)));
        assert_true(rp_cim_value_is_null(&value) && value.type == RP_CIM_NONE);
    }
}

static struct rp_cim_value bare(const char *text)
{
    return parsed(RP_CIM_NONE, text);
}

static void bare_values_become_what_their_class_says(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value value = bare("7"), none = {0};
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value list = rp_cim_null(RP_CIM_NONE, true);
    assert_int_equal(rp_cim_value_convert(&value, RP_CIM_UINT16, false, NULL), 0);
    assert_true(value.type == RP_CIM_UINT16 && value.one.u == 7);
    assert_int_equal(rp_cim_value_convert(&value, RP_CIM_UINT8, true, NULL), 0);
    assert_true(value.array && value.count == 1 && value.type == RP_CIM_UINT8 && value.many[0].u == 7);
    assert_int_equal(rp_cim_value_convert(&value, RP_CIM_STRING, false, NULL), 0);
    assert_string_equal(value.one.text, "7");

    for (int i = 0; i < 100; i++) {
        struct rp_cim_value item = bare(i == 99 ? "300" : "200");
        rp_cim_value_push(&list, &item);
        assert_true(rp_cim_value_is_null(&item));
    }
    struct rp_error err = {0};
    assert_int_equal(rp_cim_value_convert(&list, RP_CIM_UINT8, true, &err), -1);
    assert_string_equal(err.text, "\"300\" is no uint8");
    assert_true(list.type == RP_CIM_NONE && list.count == 100);
    assert_int_equal(rp_cim_value_convert(&list, RP_CIM_UINT16, false, NULL), -1);
    assert_int_equal(rp_cim_value_convert(&list, RP_CIM_UINT16, true, NULL), 0);
    struct rp_cim_value last = rp_cim_value_at(&list, 99), after = rp_cim_value_at(&list, 100);
    assert_int_equal(last.one.u, 300);
    assert_true(after.null);

    for (int array = 0; array < 2; array++) {
        RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value number = bare(" \n"), text = bare(" ");
        assert_int_equal(rp_cim_value_convert(&number, RP_CIM_REFERENCE, array, NULL), 0);
        assert_true(number.null && number.type == RP_CIM_REFERENCE && number.array == (bool)array);
        assert_int_equal(rp_cim_value_convert(&text, RP_CIM_STRING, array, NULL), 0);
        assert_true(!text.null && text.array == (bool)array);
    }
    assert_true(rp_cim_value_is_null(&none));
    assert_int_equal(rp_cim_value_convert(&none, RP_CIM_UINT64, true, NULL), 0);
    assert_true(none.null && none.array && none.type == RP_CIM_UINT64);
}

static void an_object_in_place_of_a_reference_names_it_by_its_properties(void **state)
{
    (void)state;
    struct rp_cim_instance *object = rp_cim_instance_new("root/virtualization/v2", "Msvm_ComputerSystem");
    rp_cim_set(object, "Name", bare("G"));
    rp_cim_set(object, "CreationClassName", bare("Msvm_ComputerSystem"));
    rp_cim_set(object, "Caption", (struct rp_cim_value){0});
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value value = rp_cim_object(object);
    assert_int_equal(rp_cim_value_convert(&value, RP_CIM_REFERENCE, false, NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        rp_cim_path_parse("root\\virtualization\\v2:msvm_computersystem.NAME='g',"
                          "CreationClassName='Msvm_ComputerSystem'", NULL);
    assert_true(rp_cim_path_equal(value.one.path, path));
}

static void copies_are_equal_and_stand_on_their_own(void **state)
{
    (void)state;
    struct rp_cim_instance *inner = rp_cim_instance_new(NULL, "Inner");
    rp_cim_set(inner, "When", rp_cim_moment(-1));
    rp_cim_set(inner, "Who", rp_cim_reference(rp_cim_path_new("root", "X")));
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value list = rp_cim_null(RP_CIM_OBJECT, true);
    struct rp_cim_value item = rp_cim_object(inner);
    rp_cim_value_push(&list, &item);
    struct rp_cim_value copy = rp_cim_value_copy(&list);
    assert_true(rp_cim_value_equal(&list, &copy));
    assert_int_equal(rp_cim_get(copy.many[0].object, "when")->one.datetime.microseconds, -1);
    rp_cim_set(copy.many[0].object, "When", rp_cim_moment(0));
    assert_false(rp_cim_value_equal(&list, &copy));
    item = rp_cim_object(rp_cim_instance_new(NULL, "Inner"));
    rp_cim_value_push(&copy, &item);
    assert_int_equal(copy.count, 2);
    rp_cim_value_clear(&copy);

    struct rp_cim_value a = rp_cim_unsigned(RP_CIM_UINT16, 1), b = rp_cim_unsigned(RP_CIM_UINT32, 1);
    assert_false(rp_cim_value_equal(&a, &b));
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value lower = rp_cim_string("a"), upper = rp_cim_string("A");
    assert_false(rp_cim_value_equal(&lower, &upper));
}

static void properties_keep_the_order_of_their_names_and_are_found_in_any_case(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new(NULL, "X");
    static const char *const names[] = {"b", "A", "d", "C", "e"};
    for (uint64_t i = 0; i < 5; i++)
        rp_cim_set(instance, names[i], rp_cim_unsigned(RP_CIM_UINT32, i));
    rp_cim_set(instance, "B", rp_cim_string("again"));
    assert_int_equal(instance->count, 5);
    assert_string_equal(instance->properties[0].name, "A");
    assert_string_equal(instance->properties[1].name, "b");
    assert_string_equal(rp_cim_get_text(instance, "B"), "again");
    assert_int_equal(rp_cim_get_unsigned(instance, "c", 9), 3);
    assert_null(rp_cim_get(instance, "f"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *copy = rp_cim_instance_copy(instance);
    rp_cim_set(copy, "f", rp_cim_boolean(true));
    assert_true(copy->count == 6 && rp_cim_get_boolean(copy, "F", false));
}

static void a_client_gets_what_it_wants_from_typed_and_from_bare_values(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new(NULL, "X");
    struct rp_cim_value list = rp_cim_null(RP_CIM_NONE, true), ten = bare("10"), eleven = bare("0xb");
    rp_cim_value_push(&list, &ten);
    rp_cim_value_push(&list, &eleven);
    rp_cim_set(instance, "List", list);
    rp_cim_set(instance, "Negative", rp_cim_signed(RP_CIM_SINT8, -1));
    rp_cim_set(instance, "Bare", bare("true"));
    rp_cim_set(instance, "Time", bare("PT1S"));
    rp_cim_set(instance, "Typed", rp_cim_duration(2000000000));
    rp_cim_set(instance, "Null", (struct rp_cim_value){0});
    rp_cim_set(instance, "Path", rp_cim_reference(rp_cim_path_new(NULL, "Y")));
    struct rp_cim_datetime t;
    assert_int_equal(rp_cim_get_unsigned(instance, "list", 0), 10);
    assert_int_equal(rp_cim_get_unsigned_at(instance, "list", 1, 0), 11);
    assert_int_equal(rp_cim_get_unsigned_at(instance, "list", 2, 77), 77);
    assert_string_equal(rp_cim_get_text_at(instance, "list", 1), "0xb");
    assert_int_equal(rp_cim_get_count(instance, "list"), 2);
    assert_int_equal(rp_cim_get_count(instance, "bare"), 1);
    assert_int_equal(rp_cim_get_count(instance, "null"), 0);
    assert_int_equal(rp_cim_get_count(instance, "absent"), 0);
    assert_int_equal(rp_cim_get_unsigned(instance, "Negative", 5), 5);
    assert_int_equal(rp_cim_get_unsigned(instance, "Bare", 5), 5);
    assert_true(rp_cim_get_boolean(instance, "Bare", false));
    assert_true(rp_cim_get_boolean(instance, "List", true) && rp_cim_get_boolean(instance, "Null", true));
    assert_true(rp_cim_get_datetime(instance, "Time", &t) && t.interval && t.microseconds == 1000000);
    assert_true(rp_cim_get_datetime(instance, "Typed", &t) && t.microseconds == 2000000);
    assert_false(rp_cim_get_datetime(instance, "Bare", &t) || rp_cim_get_datetime(instance, "Null", &t));
    assert_string_equal(rp_cim_get_path(instance, "Path")->class_name, "Y");
    assert_null(rp_cim_get_path(instance, "Bare"));
    assert_null(rp_cim_get_text(instance, "Typed"));
    assert_true(rp_cim_get(instance, "Null")->null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read_in_all_forms_and_written_in_both),
        cmocka_unit_test(what_is_no_time_is_refused),
        cmocka_unit_test(times_out_of_range_are_written_as_the_nearest_that_fits),
        cmocka_unit_test(scalars_are_read_from_text_and_written_as_cim_xml_has_them),
        cmocka_unit_test(a_text_that_does_not_fit_its_type_is_refused_by_the_name_of_the_type),
        cmocka_unit_test(bare_values_become_what_their_class_says),
        cmocka_unit_test(an_object_in_place_of_a_reference_names_it_by_its_properties),
        cmocka_unit_test(copies_are_equal_and_stand_on_their_own),
        cmocka_unit_test(properties_keep_the_order_of_their_names_and_are_found_in_any_case),
        cmocka_unit_test(a_client_gets_what_it_wants_from_typed_and_from_bare_values),
    };
    return cmocka_run_group_tests_name("value", tests, NULL, NULL);
}
