// Disks whose file system fails: full, broken for one call, or for good. What was flushed is there afterwards, what was
// acknowledged is there when a flush says so, and a write that fails fails alone.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../stride.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "limited.h"
#include "torn.h"

enum { SECTOR = 512, BLOCK = 1 << 20, BLOCKS = 12, DISK = BLOCKS * BLOCK, SECTORS = DISK / SECTOR, MAYBE = 320 };

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

// A sector holds one stamp all over: the last one that was acknowledged, or one of those whose writes failed since, or
// (after a crash) have not been flushed.
struct model {
    struct rp_fs *fs;
    struct rp_vhdx *parent, *disk;
    uint64_t random, last[SECTORS], maybe[SECTORS][MAYBE];
    unsigned maybes[SECTORS];
};

static void add_maybe(struct model *m, uint32_t sector, uint64_t stamp)
{
    assert_true(m->maybes[sector] < MAYBE);
    m->maybe[sector][m->maybes[sector]++] = stamp;
}

static int write_stamps(struct model *m, uint32_t first, uint32_t count, uint64_t stamp, bool keep_old, struct rp_error *e)
{
    static uint64_t words[2 * BLOCK / 8];
    for (size_t i = 0; i < count * (size_t)(SECTOR / 8); i++)
        words[i] = stamp;
    uint64_t offset = (uint64_t)first * SECTOR, length = (uint64_t)count * SECTOR;
    int failed = stamp ? rp_vhdx_write(m->disk, words, (uint32_t)length, offset, e)
                       : rp_vhdx_zero(m->disk, offset, length, NULL, e);
    for (uint32_t s = first; s < first + count; s++) {
        if (failed) {
            add_maybe(m, s, stamp);
            continue;
        }
        if (keep_old)
            add_maybe(m, s, m->last[s]);
        else
            m->maybes[s] = 0;
        m->last[s] = stamp;
    }
    return failed;
}

static int random_write(struct model *m, bool keep_old, struct rp_error *e)
{
    uint32_t per_block = BLOCK / SECTOR, sector = (uint32_t)random_below(&m->random, SECTORS);
    unsigned verb = (unsigned)random_below(&m->random, 8);
    if (verb < 2) // a whole block
        return write_stamps(m, sector / per_block * per_block, per_block, verb ? next_random(&m->random) | 1 : 0, keep_old, e);
    uint32_t count = 1 + (uint32_t)random_below(&m->random, rp_min64(8, SECTORS - sector));
    return write_stamps(m, sector, count, next_random(&m->random) | 1, keep_old, e);
}

static void settle(struct model *m) { memset(m->maybes, 0, sizeof m->maybes); }

static void verify(struct model *m)
{
    static uint64_t words[DISK / 8];
    must(rp_vhdx_read(m->disk, words, DISK, 0, &err));
    for (uint32_t s = 0; s < SECTORS; s++) {
        uint64_t found = words[(size_t)s * (SECTOR / 8)];
        bool ok = found == m->last[s];
        for (unsigned i = 0; i < m->maybes[s] && !ok; i++)
            ok = found == m->maybe[s][i];
        // a write that failed in its middle left some of its sectors' bytes: it is torn anywhere
        for (unsigned i = 1; i < SECTOR / 8 && !m->maybes[s]; i++)
            ok &= words[(size_t)s * (SECTOR / 8) + i] == found;
        if (!ok)
            fail_msg("sector %u reads %llx, %llx was acknowledged", s, (unsigned long long)found,
                     (unsigned long long)m->last[s]);
        m->last[s] = found;
    }
}

static void open_disk(struct model *m, unsigned flags)
{
    m->disk = rp_vhdx_open(m->fs, "d", flags, NULL, &err);
    must(!m->disk || (m->parent && rp_vhdx_set_parent(m->disk, m->parent, &err)));
}

static struct model *new_model(bool child, uint64_t random)
{
    struct model *m = calloc(1, sizeof *m);
    m->fs = limited_fs_new();
    m->random = random;
    struct rp_vhdx_create create = {.size = DISK, .block_size = BLOCK, .disk_id = rp_guid_new()};
    if (child) {
        must(rp_vhdx_create(m->fs, "p", &create, &err));
        m->parent = rp_vhdx_open(m->fs, "p", RP_VHDX_WRITE, NULL, &err);
        must(!m->parent);
        uint64_t *words = malloc(DISK / 2);
        for (size_t i = 0; i < DISK / 16; i++)
            words[i] = 0x55;
        must(rp_vhdx_write(m->parent, words, DISK / 2, 0, &err) || rp_vhdx_freeze(m->parent, &err));
        free(words);
        for (uint32_t s = 0; s < SECTORS / 2; s++)
            m->last[s] = 0x55;
        create.parent_path = "p";
        create.parent_data_write_guid = rp_vhdx_info(m->parent)->data_write_guid;
    }
    must(rp_vhdx_create(m->fs, "d", &create, &err));
    open_disk(m, RP_VHDX_WRITE);
    return m;
}

static void free_model(struct model *m)
{
    limited_fs_watch(m->fs, NULL, NULL);
    rp_vhdx_abandon(m->disk);
    rp_vhdx_abandon(m->parent);
    limited_fs_free(m->fs);
    free(m);
}

// ---- a full file system

static void a_full_file_system_fails_the_writes_that_need_room_and_nothing_else(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    unsigned failures = 0;
    for (int round = 0; round < 24; round++) {
        struct model *m = new_model(round % 2, next_random(&random));
        limited_fs_set(m->fs, limited_fs_used(m->fs) + random_below(&random, 4000));
        for (int i = 0; i < 300; i++) {
            struct rp_error why = {0};
            if (random_write(m, false, &why)) {
                assert_int_equal(why.code, RP_ERR_NO_SPACE);
                failures++;
            }
            if (i % 16 == 0)
                must(rp_vhdx_flush(m->disk, &err)); // for what is acknowledged there is room
        }
        verify(m);
        must(rp_vhdx_flush(m->disk, &err));
        if (round % 3 == 0) { // a crash while it is full
            rp_vhdx_abandon(m->disk);
            open_disk(m, RP_VHDX_WRITE);
            verify(m);
        }
        limited_fs_set(m->fs, SIZE_MAX);
        settle(m);
        for (int i = 0; i < 20; i++)
            must(random_write(m, false, &err));
        verify(m);
        must(rp_vhdx_close(m->disk, &err));
        open_disk(m, RP_VHDX_READ);
        assert_false(rp_vhdx_info(m->disk)->dirty_log);
        verify(m);
        free_model(m);
    }
    assert_true(failures > 0);
}

static void however_little_room_is_left_what_is_acknowledged_can_be_flushed(void **state)
{
    (void)state;
    enum { LOG = 2048, BITMAP = 256 }; // pages
    for (unsigned room = 0; room < BITMAP + 8; room += room < 8 || room > BITMAP - 8 ? 1 : 40)
        for (int child = 0; child < 2; child++) {
            struct model *m = new_model(child, room);
            limited_fs_set(m->fs, limited_fs_used(m->fs) + LOG + room);
            for (uint32_t i = 0; i < 4; i++) {
                struct rp_error why = {0};
                if (write_stamps(m, i * (BLOCK / SECTOR), 1, 7 + i, false, &why))
                    assert_int_equal(why.code, RP_ERR_NO_SPACE);
                must(rp_vhdx_flush(m->disk, &err));
            }
            must(rp_vhdx_close(m->disk, &err));
            open_disk(m, RP_VHDX_READ);
            verify(m);
            free_model(m);
        }
}

static void without_room_for_its_log_a_session_does_not_begin(void **state)
{
    (void)state;
    struct model *m = new_model(false, 1);
    struct rp_guid before = rp_vhdx_info(m->disk)->file_write_guid;
    limited_fs_set(m->fs, limited_fs_used(m->fs) + 100);
    assert_int_equal(write_stamps(m, 0, 1, 7, false, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    rp_error_clear(&err);
    settle(m);
    assert_true(rp_guid_equal(&before, &rp_vhdx_info(m->disk)->file_write_guid));
    limited_fs_set(m->fs, SIZE_MAX);
    must(write_stamps(m, 0, 1, 7, false, &err) || rp_vhdx_close(m->disk, &err));
    open_disk(m, RP_VHDX_READ);
    verify(m);
    free_model(m);
}

// ---- one call that fails

struct trip {
    unsigned long calls, at;
    enum rp_code code;
    bool tripped, sync; // it was a sync
};

static enum rp_code trip(void *context, enum call call, uint64_t offset, uint64_t length)
{
    struct trip *t = context;
    (void)offset, (void)length;
    if (t->calls++ != t->at)
        return RP_OK;
    t->tripped = true;
    t->sync = call == CALL_FLUSH || call == CALL_SETTLE;
    return t->code;
}

// False when nothing tripped: there are no more calls.
static bool run_and_trip(bool child, unsigned long at, enum rp_code code, uint64_t seed)
{
    struct model *m = new_model(child, seed);
    struct trip t = {.at = at, .code = code};
    limited_fs_watch(m->fs, trip, &t);
    bool lost = false;
    for (int i = 0; i < 14 && !lost; i++) {
        struct rp_error why = {0};
        random_write(m, true, &why);
        if (i % 4 == 3 && !rp_vhdx_flush(m->disk, &why)) {
            for (uint32_t s = 0; s < SECTORS; s++) // old versions are gone; failed writes may be there still
                if (!t.tripped)
                    m->maybes[s] = 0;
        } else if (i % 4 == 3) {
            lost = true;
            assert_int_equal(rp_vhdx_flush(m->disk, NULL), -1); // it stays lost, though every call works now
            assert_int_equal(write_stamps(m, 0, 1, 9, true, NULL), -1);
        }
        if (t.tripped && t.sync && !lost && i % 4 == 3)
            fail_msg("a sync failed and nobody was told");
    }
    if (lost)
        rp_vhdx_abandon(m->disk);
    else if (rp_vhdx_close(m->disk, &err) && !t.tripped)
        must(-1);
    rp_error_clear(&err);
    limited_fs_watch(m->fs, NULL, NULL);
    open_disk(m, RP_VHDX_READ);
    verify(m);
    rp_vhdx_abandon(m->disk);
    open_disk(m, RP_VHDX_WRITE);
    verify(m);
    settle(m);
    must(random_write(m, false, &err));
    must(rp_vhdx_close(m->disk, &err));
    m->disk = NULL;
    free_model(m);
    return t.tripped;
}

static void a_call_that_fails_once_loses_nothing_that_was_flushed(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (int child = 0; child < 2; child++)
        for (int code = 0; code < 2; code++)
            for (unsigned long n = seed % STRIDE; run_and_trip(child, n, code ? RP_ERR_IO : RP_ERR_NO_SPACE, seed); n += STRIDE)
                ;
}

// ---- one call that fails in what takes many

enum work { MERGE, GROW, COMPACT };

static void leave(struct model *m)
{
    rp_vhdx_abandon(m->disk);
    rp_vhdx_abandon(m->parent);
    m->disk = m->parent = NULL;
}

// As it is found when the program has ended.
static void come_back(struct model *m, bool child)
{
    leave(m);
    if (child && !(m->parent = rp_vhdx_open(m->fs, "p", RP_VHDX_READ, NULL, &err)))
        must(-1);
    open_disk(m, RP_VHDX_READ);
}

// The child is merged as the disk service does it: it accepts the parent of before and the one that comes.
static int merge(struct model *m, limited_hook *hook, struct trip *t, struct rp_error *why)
{
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    leave(m);
    m->parent = rp_vhdx_open(m->fs, "p", RP_VHDX_WRITE, &session, &err);
    must(!m->parent);
    struct rp_guid now = rp_vhdx_info(m->parent)->data_write_guid;
    open_disk(m, RP_VHDX_WRITE);
    must(rp_vhdx_set_parent_locator(m->disk, &now, &session.data_write_guid, NULL, &err) || rp_vhdx_freeze(m->disk, &err));
    limited_fs_watch(m->fs, hook, t);
    return rp_vhdx_merge(m->disk, m->parent, NULL, NULL, why) || rp_vhdx_freeze(m->parent, why) ? -1 : 0;
}

static int perform(struct model *m, enum work work, limited_hook *hook, struct trip *t, struct rp_error *why)
{
    uint64_t before, after;
    int failed;
    if (work == MERGE) {
        failed = merge(m, hook, t, why);
    } else {
        rp_vhdx_abandon(m->disk);
        open_disk(m, RP_VHDX_WRITE);
        limited_fs_watch(m->fs, hook, t);
        failed = work == GROW ? rp_vhdx_grow(m->disk, 2 * (uint64_t)DISK, why)
                              : rp_vhdx_compact(m->disk, true, &before, &after, NULL, NULL, why);
    }
    limited_fs_watch(m->fs, NULL, NULL);
    return failed;
}

// False when nothing tripped: there are no more calls.
static bool trip_in(enum work work, bool child, unsigned long at, enum rp_code code, uint64_t seed)
{
    struct model *m = new_model(child, seed);
    struct trip t = {.at = at, .code = code};
    struct rp_error why = {0};
    must(write_stamps(m, 0, 2 * BLOCK / SECTOR, 7, false, &err));
    for (int i = 0; i < 8; i++)
        must(random_write(m, false, &err));
    must(rp_vhdx_trim(m->disk, 0, 2 * BLOCK, NULL, &err) || rp_vhdx_close(m->disk, &err)); // something to be hidden, and gaps
    memset(m->last, 0, 2 * BLOCK / SECTOR * sizeof *m->last);
    m->disk = NULL;
    if (perform(m, work, trip, &t, &why) && (!t.tripped || (why.code != code && why.code != RP_ERR_STATE && why.code != RP_ERR_IO)))
        fail_msg("work %d, call %lu: %s", (int)work, at, why.text);
    come_back(m, child);
    verify(m);
    must(perform(m, work, NULL, NULL, &err));
    come_back(m, child);
    verify(m);
    if (work == MERGE) { // all of the child is there
        rp_vhdx_abandon(m->disk);
        m->disk = m->parent;
        m->parent = NULL;
        verify(m);
    }
    if (work == GROW)
        assert_int_equal(rp_vhdx_info(m->disk)->size, 2 * DISK);
    leave(m);
    free_model(m);
    return t.tripped;
}

static void trip_everywhere_in(enum work work, int first)
{
    uint64_t seed = test_seed();
    for (int child = first; child < 2; child++)
        for (int code = 0; code < 2; code++) {
            unsigned long n = seed % STRIDE;
            while (trip_in(work, child, n, code ? RP_ERR_IO : RP_ERR_NO_SPACE, seed))
                n += STRIDE;
            print_message("# %lu calls\n", n);
            assert_true(n >= 8);
        }
}

static void a_call_that_fails_once_in_a_merge_loses_nothing(void **state)
{
    (void)state;
    trip_everywhere_in(MERGE, 1);
}

static void a_call_that_fails_once_in_a_growth_loses_nothing(void **state)
{
    (void)state;
    trip_everywhere_in(GROW, 0);
}

static void a_call_that_fails_once_in_a_compaction_loses_nothing(void **state)
{
    (void)state;
    trip_everywhere_in(COMPACT, 0);
}

// ---- metadata that fails halfway

static enum rp_code no_second_region_table(void *context, enum call call, uint64_t offset, uint64_t length)
{
    (void)context, (void)length;
    return call == CALL_READ && offset >= 256 << 10 && offset < 320 << 10 ? RP_ERR_IO : RP_OK;
}

// The second region table has left the cache, and cannot be read again: the first must not reach the file alone.
static void growth_that_names_its_new_table_in_one_place_only_is_final(void **state)
{
    (void)state;
    enum { PAGES = 8400 }; // of the table: more than the cache keeps
    const uint64_t page = 512 * (uint64_t)BLOCK, size = PAGES * page;
    struct rp_fs *fs = limited_fs_new();
    struct rp_vhdx_create create = {.size = size, .block_size = BLOCK, .disk_id = rp_guid_new()};
    create.parent_path = "p";
    create.parent_data_write_guid = rp_guid_new();
    must(rp_vhdx_create(fs, "d", &create, &err));
    struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    must(!v);
    for (uint64_t i = 0; i < PAGES; i++)
        must(rp_vhdx_zero(v, i * page, BLOCK, NULL, &err));
    must(rp_vhdx_flush(v, &err));
    limited_fs_watch(fs, no_second_region_table, NULL);
    assert_int_equal(rp_vhdx_grow(v, 8 * size, NULL), -1);
    limited_fs_watch(fs, NULL, NULL);
    assert_int_equal(rp_vhdx_flush(v, NULL), -1);
    assert_int_equal(rp_vhdx_zero(v, BLOCK, BLOCK, NULL, NULL), -1);
    rp_vhdx_abandon(v);
    v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    must(!v);
    assert_int_equal(rp_vhdx_info(v)->size, size);
    must(rp_vhdx_grow(v, 8 * size, &err));
    uint8_t sector[SECTOR];
    for (uint64_t i = 0; i < PAGES; i += 99)
        must(rp_vhdx_read(v, sector, SECTOR, i * page, &err)); // zeros of its own: there is no parent to ask
    must(rp_vhdx_close(v, &err));
    limited_fs_free(fs);
}

static enum rp_code fail_read(void *context, enum call call, uint64_t offset, uint64_t length)
{
    unsigned *left = context;
    (void)offset, (void)length;
    return call == CALL_READ && *left && !--*left ? RP_ERR_IO : RP_OK;
}

// Its first place was backed, and given back when the table could not be read to name it.
static void a_sector_bitmap_has_room_wherever_it_is(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 5; at++) {
        struct model *m = new_model(true, at);
        struct rp_error why = {0};
        unsigned left = at;
        limited_fs_watch(m->fs, fail_read, &left);
        write_stamps(m, 0, 1, 7, false, &why);
        limited_fs_watch(m->fs, NULL, NULL);
        limited_fs_set(m->fs, limited_fs_used(m->fs) + 1); // room for the sector alone
        write_stamps(m, 0, 1, 8, false, &why);
        must(rp_vhdx_flush(m->disk, &err));
        must(rp_vhdx_close(m->disk, &err));
        open_disk(m, RP_VHDX_READ);
        verify(m);
        free_model(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_file_system_fails_the_writes_that_need_room_and_nothing_else),
        cmocka_unit_test(however_little_room_is_left_what_is_acknowledged_can_be_flushed),
        cmocka_unit_test(without_room_for_its_log_a_session_does_not_begin),
        cmocka_unit_test(a_call_that_fails_once_loses_nothing_that_was_flushed),
        cmocka_unit_test(a_call_that_fails_once_in_a_merge_loses_nothing),
        cmocka_unit_test(a_call_that_fails_once_in_a_growth_loses_nothing),
        cmocka_unit_test(a_call_that_fails_once_in_a_compaction_loses_nothing),
        cmocka_unit_test(growth_that_names_its_new_table_in_one_place_only_is_final),
        cmocka_unit_test(a_sector_bitmap_has_room_wherever_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
