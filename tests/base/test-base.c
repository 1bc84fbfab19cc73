// The foundation: what every other part takes for granted.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/guid.h"
#include "base/num.h"
#include "base/pool.h"
#include "base/ranges.h"
#include "base/utf16.h"

static void the_first_cause_is_kept_and_explained(void **state)
{
    (void)state;
    struct rp_error err = {0};
    assert_int_equal(rp_fail_sys(&err, ENOSPC, "%s: write", "disk"), -1);
    rp_fail(&err, RP_ERR_CORRUPT, "something later");
    rp_context(&err, "backup of %s", "web");
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    assert_int_equal(err.sys, ENOSPC);
    assert_string_equal(err.text, "backup of web: disk: write: No space left on device");
    assert_int_equal(rp_fail(NULL, RP_ERR_IO, "nobody asks"), -1);
    char longer[3 * RP_ERROR_TEXT];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    rp_context(&err, "%s", longer);
    assert_int_equal(strlen(err.text), RP_ERROR_TEXT - 1);
}

static void every_error_code_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < RP_CODE_COUNT; i++) {
        assert_non_null(rp_code_name((enum rp_code)i));
        assert_int_equal(rp_code_from_name(rp_code_name((enum rp_code)i)), i);
        assert_int_equal(rp_code_exit((enum rp_code)i), i == RP_OK ? 0 : i == RP_ERR_USAGE ? 3 : 2);
    }
    assert_int_equal(rp_code_from_name("no such name"), RP_ERR_IO);
    assert_int_equal(rp_code_win32(RP_ERR_TRACKING_ID), 0xC03A0030u);
}

static void a_buffer_can_be_extended_by_nothing(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    assert_non_null(rp_buf_extend(&buf, 0)); // a null pointer + 0 is undefined: UBSan sees it
    assert_int_equal(buf.size, 0);
    rp_buf_append(&buf, "x", 1);
    assert_string_equal(rp_buf_text(&buf), "x");
}

static void a_cursor_never_leaves_its_bytes(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    rp_buf_append_u8(&buf, 1);
    rp_buf_append_le16(&buf, 0x0302);
    rp_buf_append_le32(&buf, 0x07060504);
    rp_buf_append_le64(&buf, 0x0F0E0D0C0B0A0908);
    for (uint8_t i = 0; i < buf.size; i++)
        assert_int_equal(buf.data[i], i + 1);
    struct rp_cursor c = rp_cursor_of(buf.data, buf.size);
    assert_int_equal(rp_cursor_u8(&c), 1);
    assert_int_equal(rp_cursor_le16(&c), 0x0302);
    assert_int_equal(rp_cursor_le32(&c), 0x07060504);
    assert_null(rp_cursor_bytes(&c, 9));
    assert_true(c.failed);
    assert_int_equal(rp_cursor_le64(&c), 0); // keeps failing, although eight would be left
    assert_int_equal(rp_cursor_left(&c), 0);
    c = rp_cursor_of(buf.data, buf.size);
    assert_null(rp_cursor_bytes(&c, SIZE_MAX));
}

static void a_buffer_grows_and_prints(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    for (int i = 0; i < 1000; i++)
        rp_buf_printf(&buf, "%d,", i);
    assert_int_equal(strlen(rp_buf_text(&buf)), buf.size);
    assert_memory_equal(buf.data + buf.size - 8, "998,999,", 8);
    rp_buf_reset(&buf);
    assert_string_equal(rp_buf_text(&buf), "");
    uint8_t be[8];
    rp_put_be64(be, 0x0102030405060708);
    assert_int_equal(be[0], 1);
    assert_int_equal(rp_get_be32(be), 0x01020304);
    assert_int_equal(rp_get_le16(be), 0x0201);
}

static void crc32c_matches_the_published_values(void **state)
{
    (void)state; // RFC 3720, B.4
    uint8_t data[32] = {0};
    assert_int_equal(rp_crc32c(0, data, 32), 0x8A9136AA);
    memset(data, 0xFF, 32);
    assert_int_equal(rp_crc32c(0, data, 32), 0x62A8AB43);
    for (uint8_t i = 0; i < 32; i++)
        data[i] = i;
    assert_int_equal(rp_crc32c(0, data, 32), 0x46DD794E);
    assert_int_equal(rp_crc32c(0, "123456789", 9), 0xE3069283);
    for (size_t cut = 0; cut <= 32; cut++)
        assert_int_equal(rp_crc32c(rp_crc32c(0, data, cut), data + cut, 32 - cut), 0x46DD794E);
    uint8_t field[32];
    memcpy(field, data, 32);
    memset(data + 12, 0, 4);
    assert_int_equal(rp_crc32c_skip(field, 32, 12), rp_crc32c(0, data, 32));
}

static void a_guid_is_in_microsofts_order(void **state)
{
    (void)state;
    struct rp_guid a, b = RP_GUID(0x2DC27766, 0xF623, 0x4200, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08);
    char text[RP_GUID_TEXT];
    assert_int_equal(b.bytes[0], 0x66);
    assert_string_equal(rp_guid_format(&b, text), "2dc27766-f623-4200-9d64-115e9bfd4a08");
    assert_int_equal(rp_guid_parse("{2DC27766-F623-4200-9D64-115E9BFD4A08}", &a, NULL), 0);
    assert_true(rp_guid_equal(&a, &b));
    static const char *const bad[] = {"", "{2dc27766-f623-4200-9d64-115e9bfd4a08", "2dc27766-f623-4200-9d64-115e9bfd4a08 ",
                                      "2dc27766-f623-4200-9d64-115e9bfd4a0g", "2dc27766f623-4200-9d64-115e9bfd4a08a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(rp_guid_parse(bad[i], &a, NULL), -1);
    a = rp_guid_new();
    b = rp_guid_new();
    assert_false(rp_guid_equal(&a, &b));
    assert_int_equal(a.bytes[7] >> 4, 4);
    assert_int_equal(a.bytes[8] >> 6, 2);
    assert_true(rp_guid_is_zero(&(struct rp_guid){{0}}));
}

static void sizes_are_read_and_shown(void **state)
{
    (void)state;
    uint64_t size;
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {{"0", 0}, {"4096", 4096}, {"64K", 64 << 10}, {"1.5M", 3 << 19}, {"10G", 10 * RP_GIB}, {"64T", 64 * RP_TIB}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(rp_parse_size(good[i].text, &size, NULL), 0);
        assert_true(size == good[i].size);
    }
    static const char *const bad[] = {"", "K", "-1", "1X", "1KK", "99999999999999999999", "20000000T", "nan", "inf", "0x10", "1e3", "1.2.3", " 1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!rp_parse_size(bad[i], &size, NULL))
            fail_msg("\"%s\" was read as %llu", bad[i], (unsigned long long)size);
    char text[RP_SIZE_TEXT];
    assert_string_equal(rp_format_size(3 << 19, text), "1.5 MiB");
    assert_false(rp_range_ok(UINT64_MAX, 2, 100));
    assert_false(rp_range_ok(50, UINT64_MAX, 100));
    assert_true(rp_range_ok(100, 0, 100));
    assert_true(rp_div_up(UINT64_MAX, 2) == (uint64_t)1 << 63);
}

static void ranges_stay_ascending_and_joined(void **state)
{
    (void)state;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges a = {0}, b = {0}, out = {0};
    rp_ranges_add(&a, 0, 10);
    rp_ranges_add(&a, 10, 5);
    rp_ranges_add(&a, 12, 1);
    rp_ranges_add(&a, 20, 0);
    rp_ranges_add(&a, 30, 10);
    assert_int_equal(a.count, 2);
    assert_int_equal(a.items[0].length, 15);
    assert_int_equal(rp_ranges_total(&a), 25);
    rp_ranges_push(&b, 35, 100);
    rp_ranges_push(&b, 5, 2);
    rp_ranges_push(&b, 14, 1);
    rp_ranges_push(&b, 6, 3);
    rp_ranges_normalize(&b);
    assert_int_equal(b.count, 3);
    rp_ranges_intersect(&a, &b, &out);
    assert_int_equal(out.count, 3);
    assert_int_equal(out.items[0].offset, 5);
    assert_int_equal(out.items[0].length, 4);
    assert_int_equal(out.items[2].offset, 35);
    assert_int_equal(out.items[2].length, 5);
    rp_ranges_clear(&b);
    rp_ranges_clear(&out);
}

static void text_survives_utf16_and_broken_text_does_not_pass(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf wide = {0}, back = {0};
    const char *text = "Ümlaut, \xE2\x82\xAC and \xF0\x9F\x90\xA7";
    assert_int_equal(rp_utf16_append(&wide, text, NULL), 0);
    assert_int_equal(rp_utf16_to_utf8(wide.data, wide.size, &back, NULL), 0);
    assert_string_equal(rp_buf_text(&back), text);
    static const char *const bad[] = {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "a\xC3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!rp_utf16_append(&wide, bad[i], NULL))
            fail_msg("malformed text %zu was accepted", i);
    rp_buf_reset(&back);
    assert_int_equal(rp_utf16_to_utf8("\x00\xD8", 2, &back, NULL), 0); // half of a pair
    assert_string_equal(rp_buf_text(&back), "\xEF\xBF\xBD");
    assert_int_equal(rp_utf16_to_utf8("abc", 3, &back, NULL), -1);
    rp_buf_clear(&back);
}

static void times_are_read_as_they_are_shown(void **state)
{
    (void)state;
    char text[RP_TIME_TEXT];
    int64_t ns;
    assert_int_equal(rp_time_parse("2026-11-22T12:00:00.123Z", &ns, NULL), 0);
    assert_string_equal(rp_time_format(ns, text), "2026-11-22T12:00:00.123Z");
    assert_int_equal(rp_time_parse("1970-01-02", &ns, NULL), 0);
    assert_true(ns == 86400ll * 1000000000);
    assert_int_equal(rp_time_parse("2024-02-29 23:59", &ns, NULL), 0);
    assert_int_equal(rp_time_parse("2026-12-31T23:59:59", &ns, NULL), 0);
    static const char *const bad[] = {"", "2026", "2026-13-01", "2026-02-29x", "2026-11-22T25:00:00Z", "yesterday",
                                      "2026-11-31", "2026-02-29T12:00:00Z", "2026-12-31T23:59:60", "1677-12-31", "2262-01-01", "9999-12-31"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!rp_time_parse(bad[i], &ns, NULL))
            fail_msg("\"%s\" was read as a time", bad[i]);
    uint64_t before = rp_clock_monotonic_ns();
    assert_true(rp_clock_monotonic_ns() >= before);
}

static void count_one(void *argument) { atomic_fetch_add((atomic_int *)argument, 1); }

static void a_pool_does_every_job_once(void **state)
{
    (void)state;
    atomic_int done = 0;
    struct rp_pool *pool = rp_pool_new(3, 2);
    assert_int_equal(rp_pool_threads(pool), 3);
    for (int i = 0; i < 5000; i++)
        rp_pool_run(pool, count_one, &done);
    rp_pool_wait(pool);
    assert_int_equal(atomic_load(&done), 5000);
    rp_pool_run(pool, count_one, &done);
    rp_pool_free(pool);
    assert_int_equal(atomic_load(&done), 5001);
    rp_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_cause_is_kept_and_explained),
        cmocka_unit_test(every_error_code_has_a_name_of_its_own),
        cmocka_unit_test(a_buffer_can_be_extended_by_nothing),
        cmocka_unit_test(a_cursor_never_leaves_its_bytes),
        cmocka_unit_test(a_buffer_grows_and_prints),
        cmocka_unit_test(crc32c_matches_the_published_values),
        cmocka_unit_test(a_guid_is_in_microsofts_order),
        cmocka_unit_test(sizes_are_read_and_shown),
        cmocka_unit_test(ranges_stay_ascending_and_joined),
        cmocka_unit_test(text_survives_utf16_and_broken_text_does_not_pass),
        cmocka_unit_test(times_are_read_as_they_are_shown),
        cmocka_unit_test(a_pool_does_every_job_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
