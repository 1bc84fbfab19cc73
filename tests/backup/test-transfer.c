// The engine that moves ranges: complete, bounded, stoppable.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/transfer.h"
#include "base/clock.h"
#include "base/num.h"

#define UNIT 4096u

struct target {
    atomic_uchar moved[64 * 1024]; // how often, per unit
    atomic_uint pieces;
    uint64_t fail_at;              // offset; UINT64_MAX: never
    unsigned slow_us;              // what storing takes
    unsigned await;                // storing waits until so many pieces were read, or 10 s
    atomic_uint read, storing, most;
};

static int read_piece(void *disk, uint64_t offset, uint32_t length, void *buffer, struct rp_error *err)
{
    struct target *target = disk;
    if (!length || length > RP_TRANSFER_PIECE)
        return rp_fail(err, RP_ERR_INVALID, "piece of %u bytes", length);
    memset(buffer, (int)(offset / UNIT % 251), length); // each thread has its own: ThreadSanitizer would tell
    atomic_fetch_add(&target->read, 1);
    return 0;
}

static int store_piece(void *disk, uint64_t offset, uint32_t length, const void *buffer, struct rp_error *err)
{
    struct target *target = disk;
    const uint8_t *data = buffer;
    unsigned storing = atomic_fetch_add(&target->storing, 1) + 1, most = atomic_load(&target->most);
    while (storing > most && !atomic_compare_exchange_weak(&target->most, &most, storing))
        ;
    if (target->slow_us)
        usleep(target->slow_us);
    for (int i = 0; i < 10000 && atomic_load(&target->read) < target->await; i++)
        usleep(1000);
    if (data[0] != offset / UNIT % 251 || data[length - 1] != data[0])
        return rp_fail(err, RP_ERR_IO, "this is not what was read");
    atomic_fetch_sub(&target->storing, 1);
    atomic_fetch_add(&target->pieces, 1);
    for (uint64_t at = offset; at < offset + length; at += UNIT)
        atomic_fetch_add(&target->moved[at / UNIT], 1);
    if (target->fail_at >= offset && target->fail_at < offset + length)
        return rp_fail(err, RP_ERR_CORRUPT, "failed on purpose");
    return 0;
}

static struct target *target_new(void)
{
    struct target *target = calloc(1, sizeof *target);
    target->fail_at = UINT64_MAX;
    return target;
}

static void every_byte_is_moved_exactly_once(void **state)
{
    (void)state;
    const char *text = getenv("RP_TEST_SEED");
    srand(text ? (unsigned)atoi(text) : 1);
    for (unsigned threads = 0; threads <= 5; threads++) {
        struct target *targets[2] = {target_new(), target_new()};
        struct rp_ranges ranges[2] = {{0}, {0}};
        struct rp_transfer_part parts[2];
        for (size_t i = 0; i < 2; i++) {
            for (uint64_t at = 0; at < 40000;) {
                uint64_t length = 1 + (uint64_t)rand() % (rand() % 20 ? 20 : 2000);
                rp_ranges_add(&ranges[i], at * UNIT, length * UNIT);
                at += length + 1 + (uint64_t)rand() % 50;
            }
            parts[i] = (struct rp_transfer_part){&ranges[i], targets[i]};
        }
        struct rp_transfer transfer = {.parts = parts, .part_count = 2, .threads = threads, .read = read_piece, .store = store_piece};
        assert_int_equal(rp_transfer_run(&transfer, NULL), 0);
        for (size_t i = 0; i < 2; i++) {
            size_t r = 0;
            for (uint64_t unit = 0; unit < 64 * 1024; unit++) {
                while (r < ranges[i].count && ranges[i].items[r].offset + ranges[i].items[r].length <= unit * UNIT)
                    r++;
                bool inside = r < ranges[i].count && ranges[i].items[r].offset <= unit * UNIT;
                assert_int_equal(targets[i]->moved[unit], inside);
            }
            rp_ranges_clear(&ranges[i]);
            free(targets[i]);
        }
    }
}

static void nothing_to_do_is_done_at_once(void **state)
{
    (void)state;
    struct rp_ranges none = {0};
    struct rp_transfer_part part = {&none, NULL};
    struct rp_transfer transfer = {.parts = &part, .part_count = 1, .read = read_piece, .store = store_piece};
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 10; i++) {
        uint64_t start = rp_clock_monotonic_ns();
        assert_int_equal(rp_transfer_run(&transfer, NULL), 0);
        best = rp_min64(best, rp_clock_monotonic_ns() - start);
    }
    assert_true(best < 50000000);
}

static void the_first_failure_stops_all_and_is_reported(void **state)
{
    (void)state;
    struct target *target = target_new();
    target->fail_at = 5 * RP_MIB;
    target->slow_us = 2000; // so that the others are not done before it has failed
    struct rp_range all = {0, 200 * RP_MIB};
    struct rp_ranges ranges = {&all, 1, 1};
    struct rp_transfer_part part = {&ranges, target};
    struct rp_transfer transfer = {.parts = &part, .part_count = 1, .threads = 2, .read = read_piece, .store = store_piece};
    struct rp_error err = {0};
    assert_int_equal(rp_transfer_run(&transfer, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    assert_string_equal(err.text, "failed on purpose");
    assert_true(target->pieces < 200);
    free(target);
}

static void others_read_while_the_threads_asked_for_store(void **state)
{
    (void)state;
    struct target *target = target_new();
    target->slow_us = 20000;
    struct rp_range all = {0, 20 * RP_MIB};
    struct rp_ranges ranges = {&all, 1, 1};
    struct rp_transfer_part part = {&ranges, target};
    for (unsigned threads = 1; threads <= 2; threads++) {
        struct rp_transfer transfer = {.parts = &part, .part_count = 1, .threads = threads, .read = read_piece, .store = store_piece};
        target->most = target->pieces = target->read = 0;
        assert_int_equal(rp_transfer_run(&transfer, NULL), 0);
        assert_int_equal(target->most, threads);
        assert_int_equal(target->pieces, 20);
    }
    // The first piece fails while it is stored: what was read until then is more than the two that could be.
    target->fail_at = 0;
    target->read = 0;
    target->await = 3;
    all.length = 200 * RP_MIB;
    struct rp_transfer transfer = {.parts = &part, .part_count = 1, .threads = 2, .read = read_piece, .store = store_piece};
    assert_int_equal(rp_transfer_run(&transfer, NULL), -1);
    assert_true(target->read > 2 && target->read < 200);
    free(target);
}

static int refuse(void *context, uint64_t done, uint64_t total)
{
    (void)total;
    return done > 0 || ++*(int *)context > 100;
}

static void a_progress_function_can_stop_it_and_a_rate_slows_it(void **state)
{
    (void)state;
    struct target *target = target_new();
    struct rp_range all = {0, 200 * RP_MIB};
    struct rp_ranges ranges = {&all, 1, 1};
    struct rp_transfer_part part = {&ranges, target};
    int calls = 0;
    struct rp_transfer transfer = {
        .parts = &part, .part_count = 1, .threads = 2, .rate = 20 * RP_MIB, .read = read_piece, .store = store_piece, .progress = refuse, .context = &calls};
    struct rp_error err = {0};
    assert_int_equal(rp_transfer_run(&transfer, &err), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    assert_true(target->pieces < 150);
    free(target);

    target = part.disk = target_new();
    all.length = 6 * RP_MIB;
    transfer.progress = NULL;
    uint64_t start = rp_clock_monotonic_ns();
    assert_int_equal(rp_transfer_run(&transfer, NULL), 0);
    uint64_t took = rp_clock_monotonic_ns() - start;
    assert_true(took > 250000000); // the last piece starts after 5.9 MiB: 0.29 s
    for (uint64_t unit = 0; unit < 6 * RP_MIB / UNIT; unit++)
        assert_int_equal(target->moved[unit], 1);
    free(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_moved_exactly_once),
        cmocka_unit_test(nothing_to_do_is_done_at_once),
        cmocka_unit_test(the_first_failure_stops_all_and_is_reported),
        cmocka_unit_test(others_read_while_the_threads_asked_for_store),
        cmocka_unit_test(a_progress_function_can_stop_it_and_a_rate_slows_it),
    };
    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
