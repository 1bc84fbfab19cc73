// The oracle of the soak test: what it allows, and what it does not.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "oracle.h"

enum { REGIONS = 160, IN_REGION = REGION / UNIT };

struct life {
    char folder[32], path[40];
    struct log log;
    uint32_t number;
};

static void begin(struct life *l)
{
    *l = (struct life){.folder = "/tmp/rp-oracle-XXXXXX"};
    assert_non_null(mkdtemp(l->folder));
    snprintf(l->path, sizeof l->path, "%s/log", l->folder);
    assert_int_equal(log_create(&l->log, l->path, l->folder, 1024, 1 << 20), 0);
    struct note size = {.length = REGIONS * REGION};
    log_note(&l->log, NOTE_SIZE, &size, sizeof size);
}

static void end(struct life *l)
{
    log_close(&l->log);
    unlink(l->path);
    rmdir(l->folder);
}

static void writes(struct life *l, uint64_t first_region, uint64_t regions)
{
    for (uint64_t i = 0; i < regions; i++) { // one sector in each
        struct note n = {.number = ++l->number, .what = OP_WRITE, .offset = (first_region + i) * REGION + 3 * UNIT, .length = SECTOR};
        log_note(&l->log, NOTE_ISSUE, &n, sizeof n);
        log_note(&l->log, NOTE_ACK, &n, sizeof n);
    }
}

static void stops(struct life *l)
{
    struct note n = {.disk = UINT32_MAX};
    log_note(&l->log, NOTE_FLUSH, &n, sizeof n);
}

// What a power cut now may add to the changes: whole regions, "10-14 16-16".
static void assert_may(struct life *l, const char *expected)
{
    static uint8_t units[REGIONS * IN_REGION];
    struct oracle *o = oracle_new(&l->log);
    char text[256] = "";
    size_t length = 0;
    memset(units, 0, sizeof units);
    oracle_may_tell(o, 0, log_count(&l->log), log_count(&l->log), true, units, sizeof units);
    for (uint64_t r = 0, first = 0; r < REGIONS; r++) {
        for (uint64_t u = 1; u < IN_REGION; u++)
            assert_int_equal(units[r * IN_REGION + u], units[r * IN_REGION]);
        bool is = units[r * IN_REGION], was = r && units[(r - 1) * IN_REGION], more = r + 1 < REGIONS && units[(r + 1) * IN_REGION];
        first = is && !was ? r : first;
        if (is && !more)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%u-%u", length ? " " : "", (unsigned)first, (unsigned)r);
    }
    oracle_free(o);
    assert_string_equal(text, expected);
}

static void a_region_in_which_something_was_written_counts_after_a_cut_and_no_other(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    writes(&l, 10, 1);
    writes(&l, 20, 1);
    assert_may(&l, "10-10 20-20");
    end(&l);
}

static void a_stream_has_as_many_regions_ahead_as_are_behind(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    writes(&l, 10, 5);
    assert_may(&l, "10-18");
    end(&l);
}

static void a_write_into_what_a_stream_has_ahead_takes_nothing_of_it_away(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    writes(&l, 10, 5);
    writes(&l, 16, 1);
    assert_may(&l, "10-18");
    writes(&l, 17, 2);
    assert_may(&l, "10-20");
    end(&l);
}

static void no_more_than_64_regions_are_ahead_and_none_beyond_the_disk(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    writes(&l, 0, 70);
    assert_may(&l, "0-133");
    writes(&l, 156, 4);
    assert_may(&l, "0-133 156-159");
    end(&l);
}

static void what_was_written_before_a_clean_end_does_not_count(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    writes(&l, 10, 5);
    stops(&l);
    writes(&l, 15, 1);
    assert_may(&l, "15-15");
    end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_region_in_which_something_was_written_counts_after_a_cut_and_no_other),
        cmocka_unit_test(a_stream_has_as_many_regions_ahead_as_are_behind),
        cmocka_unit_test(a_write_into_what_a_stream_has_ahead_takes_nothing_of_it_away),
        cmocka_unit_test(no_more_than_64_regions_are_ahead_and_none_beyond_the_disk),
        cmocka_unit_test(what_was_written_before_a_clean_end_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
