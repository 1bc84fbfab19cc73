// Compacting: the file gets short, the disk in it stays the same, at any moment.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "torn.h"

enum { MIB = 1 << 20, DISK = 24 * MIB };

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

struct world {
    uint64_t random;
    struct rp_fs *fs;
    struct rp_vhdx *parent;
    uint8_t *model, *buffer;
    uint32_t block;
    bool child;
};

static struct rp_vhdx *open_disk(struct world *w, unsigned flags)
{
    struct rp_vhdx *v = rp_vhdx_open(w->fs, "disk", flags, NULL, &err);
    if (v && w->child)
        must(rp_vhdx_set_parent(v, w->parent, &err));
    return v;
}

static void fill(struct world *w, struct rp_vhdx *v, unsigned writes)
{
    while (writes--) {
        uint64_t offset = random_below(&w->random, DISK / 512) * 512;
        uint64_t length = rp_min64(512 * (1 + random_below(&w->random, 6000)), DISK - offset);
        for (uint64_t at = 0; at < length; at += 8) {
            uint64_t x = next_random(&w->random);
            memcpy(w->buffer + at, &x, 8);
        }
        must(rp_vhdx_write(v, w->buffer, (uint32_t)length, offset, &err));
    }
}

static void make_disk(struct world *w)
{
    struct rp_vhdx_create create = {.size = DISK, .block_size = w->block, .disk_id = rp_guid_new()};
    if (w->child) {
        must(rp_vhdx_create(w->fs, "parent", &create, &err));
        struct rp_vhdx *parent = rp_vhdx_open(w->fs, "parent", RP_VHDX_WRITE, NULL, &err);
        must(!parent);
        fill(w, parent, 5);
        must(rp_vhdx_close(parent, &err));
        w->parent = rp_vhdx_open(w->fs, "parent", RP_VHDX_READ, NULL, &err);
        must(!w->parent);
        create.parent_path = "parent";
        create.parent_data_write_guid = rp_vhdx_info(w->parent)->data_write_guid;
    }
    must(rp_vhdx_create(w->fs, "disk", &create, &err));
    struct rp_vhdx *v = open_disk(w, RP_VHDX_WRITE);
    must(!v);
    fill(w, v, 12);
    for (int i = 0; i < 6; i++) {
        uint64_t block = random_below(&w->random, DISK / w->block), count = 1 + random_below(&w->random, 2);
        uint64_t length = rp_min64(count * w->block, DISK - block * w->block);
        must((random_below(&w->random, 2) ? rp_vhdx_trim : rp_vhdx_zero)(v, block * w->block, length, NULL, &err));
    }
    must(rp_vhdx_read(v, w->model, DISK, 0, &err));
    must(rp_vhdx_close(v, &err));
}

static void free_world(struct world *w)
{
    rp_vhdx_abandon(w->parent);
    w->parent = NULL;
    torn_fs_free(w->fs);
}

static void check(struct world *w, struct rp_vhdx *v)
{
    must(rp_vhdx_read(v, w->buffer, DISK, 0, &err));
    for (uint64_t at = 0; at < DISK; at += 512)
        if (memcmp(w->buffer + at, w->model + at, 512))
            fail_msg("sector %llu differs", (unsigned long long)at / 512);
}

static uint64_t file_size(struct world *w)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(w->fs, "disk", RP_OPEN_READ, &err);
    uint64_t size = 0;
    must(!store || rp_store_size(store, &size, &err));
    return size;
}

static int compact(struct world *w, uint64_t *before, uint64_t *after)
{
    struct rp_vhdx *v = open_disk(w, RP_VHDX_WRITE);
    if (!v)
        return -1;
    struct rp_guid content = rp_vhdx_info(v)->data_write_guid;
    uint64_t expected;
    if (rp_vhdx_compact(v, false, before, &expected, NULL, NULL, &err) ||
        rp_vhdx_compact(v, true, before, after, NULL, NULL, &err)) {
        rp_vhdx_abandon(v);
        return -1;
    }
    assert_int_equal(*after, expected);
    assert_int_equal(file_size(w), *after);
    assert_true(rp_guid_equal(&content, &rp_vhdx_info(v)->data_write_guid));
    check(w, v); // by the same handle too
    return rp_vhdx_close(v, &err);
}

static void rounds(bool share)
{
    struct world w = {.random = test_seed(), .model = malloc(DISK), .buffer = malloc(DISK)};
    const char *text = getenv("RP_TEST_ROUNDS");
    unsigned interrupted = 0, shorter = 0;
    for (int round = text ? atoi(text) : 24; round > 0; round--) {
        uint64_t before, after, again;
        w.fs = torn_fs_new();
        w.block = (uint32_t)MIB << random_below(&w.random, 3);
        w.child = random_below(&w.random, 2);
        if (share)
            torn_fs_share(w.fs);
        make_disk(&w);
        bool done = false;
        for (int cuts = 0; !done; cuts++) {
            if (cuts < 4)
                torn_fs_stop_after(w.fs, random_below(&w.random, 60));
            done = compact(&w, &before, &after) == 0;
            rp_error_clear(&err);
            torn_fs_cut(w.fs, &w.random, (unsigned)random_below(&w.random, 257));
            if (w.child) {
                rp_vhdx_abandon(w.parent);
                w.parent = rp_vhdx_open(w.fs, "parent", RP_VHDX_READ, NULL, &err);
                must(!w.parent);
            }
            struct rp_vhdx *v = open_disk(&w, RP_VHDX_READ);
            must(!v);
            check(&w, v);
            rp_vhdx_abandon(v);
            interrupted += !done;
        }
        shorter += after < before;
        must(compact(&w, &after, &again));
        assert_int_equal(again, after); // nothing is left to do
        free_world(&w);
    }
    assert_true(interrupted > 0 && shorter > 0);
    free(w.model);
    free(w.buffer);
}

static void compacting_by_copies_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    rounds(false);
}

static void compacting_by_sharing_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    rounds(true);
}

static int stop_at_the_second(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(int *)context == 2;
}

static void a_short_file_is_left_alone_and_a_stopped_one_is_right(void **state)
{
    (void)state;
    struct world w = {.random = test_seed(), .fs = torn_fs_new(), .model = malloc(DISK), .buffer = malloc(DISK), .block = MIB};
    struct rp_vhdx_create create = {.size = DISK, .block_size = MIB};
    uint64_t before, after;
    int calls = 0;
    must(rp_vhdx_create(w.fs, "disk", &create, &err));
    struct rp_vhdx *v = open_disk(&w, RP_VHDX_WRITE);
    for (uint64_t at = 0; at < DISK; at += MIB) { // every block, one by one
        memset(w.model + at, (int)(at / MIB + 1), MIB);
        must(rp_vhdx_write(v, w.model + at, MIB, at, &err));
    }
    must(rp_vhdx_close(v, &err));
    v = open_disk(&w, RP_VHDX_WRITE);
    struct rp_guid file = rp_vhdx_info(v)->file_write_guid;
    must(rp_vhdx_compact(v, true, &before, &after, NULL, NULL, &err));
    assert_int_equal(before, after);
    assert_true(rp_guid_equal(&file, &rp_vhdx_info(v)->file_write_guid)); // not even a header was written
    must(rp_vhdx_trim(v, 2 * MIB, 4 * MIB, NULL, &err));
    memset(w.model + 2 * MIB, 0, 4 * MIB);
    assert_int_equal(rp_vhdx_compact(v, true, &before, &after, NULL, NULL, &err), -1); // it was changed since
    assert_int_equal(err.code, RP_ERR_STATE);
    rp_error_clear(&err);
    must(rp_vhdx_close(v, &err));
    v = open_disk(&w, RP_VHDX_WRITE);
    assert_int_equal(rp_vhdx_compact(v, true, &before, &after, stop_at_the_second, &calls, &err), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    rp_error_clear(&err);
    check(&w, v);
    must(rp_vhdx_close(v, &err));
    uint64_t stopped = file_size(&w);
    assert_int_equal(stopped, before - 2 * MIB);
    must(compact(&w, &before, &after));
    assert_int_equal(after, before - 2 * MIB);
    free_world(&w);
    free(w.model);
    free(w.buffer);
}

// The place of an entry of the block table in the file.
static uint64_t entry_place(struct rp_store *store, uint64_t index)
{
    static const uint8_t table_id[] = {0x66, 0x77, 0xC2, 0x2D};
    uint8_t entries[2][32];
    must(rp_store_pread(store, entries, sizeof entries, (192 << 10) + 16, &err));
    return rp_get_le64(entries[memcmp(entries[0], table_id, 4) != 0] + 16) + index * 8;
}

// Only the states 1 and 3 keep space; others may leave any number there, and it is nobody's.
static void an_offset_that_a_block_without_data_left_behind_is_ignored(void **state)
{
    (void)state;
    for (unsigned left = 0; left <= 2; left += 2) { // NOT_PRESENT, ZERO
        struct world w = {.fs = torn_fs_new(), .model = calloc(1, DISK), .buffer = malloc(DISK), .block = MIB};
        struct rp_vhdx_create create = {.size = DISK, .block_size = MIB};
        must(rp_vhdx_create(w.fs, "disk", &create, &err));
        struct rp_vhdx *v = open_disk(&w, RP_VHDX_WRITE);
        for (uint64_t at = 0; at < 6 * MIB; at += MIB) {
            memset(w.model + at, (int)(at / MIB + 1), MIB);
            must(rp_vhdx_write(v, w.model + at, MIB, at, &err));
        }
        must(rp_vhdx_trim(v, MIB, 3 * MIB, NULL, &err) || rp_vhdx_close(v, &err));
        memset(w.model + MIB, 0, 3 * MIB);
        struct rp_store *store = rp_fs_open(w.fs, "disk", RP_OPEN_WRITE, &err);
        uint8_t entry[8];
        must(!store || rp_store_pread(store, entry, 8, entry_place(store, 5), &err));
        rp_put_le64(entry, (rp_get_le64(entry) & ~(uint64_t)7) | left);
        must(rp_store_pwrite(store, entry, 8, entry_place(store, 12), &err)); // where block 5 lies
        rp_put_le64(entry, ((uint64_t)1 << 44) | left);
        must(rp_store_pwrite(store, entry, 8, entry_place(store, 13), &err)); // far outside
        rp_store_close(store);
        uint64_t before, after;
        must(compact(&w, &before, &after));
        assert_int_equal(after, before - 3 * MIB);
        v = open_disk(&w, RP_VHDX_READ);
        check(&w, v);
        rp_vhdx_abandon(v);
        free_world(&w);
        free(w.model);
        free(w.buffer);
    }
}

static void a_handle_that_compacted_its_file_only_reads(void **state)
{
    (void)state;
    struct world w = {.random = test_seed(), .fs = torn_fs_new(), .model = malloc(DISK), .buffer = malloc(DISK), .block = MIB};
    struct rp_vhdx_create create = {.size = DISK, .block_size = MIB};
    uint64_t before = 0, after = 0;
    must(rp_vhdx_create(w.fs, "disk", &create, &err));
    struct rp_vhdx *v = open_disk(&w, RP_VHDX_WRITE);
    fill(&w, v, 12);
    must(rp_vhdx_zero(v, 2 * MIB, 12 * MIB, NULL, &err) || rp_vhdx_read(v, w.model, DISK, 0, &err) ||
         rp_vhdx_close(v, &err));
    v = open_disk(&w, RP_VHDX_WRITE);
    must(!v || rp_vhdx_compact(v, true, &before, &after, NULL, NULL, &err));
    assert_true(after < before);
    struct rp_guid file = rp_vhdx_info(v)->file_write_guid;
    assert_int_equal(rp_vhdx_write(v, w.model, 512, 0, &err), -1); // by a session that has ended
    assert_int_equal(err.code, RP_ERR_STATE);
    rp_error_clear(&err);
    check(&w, v);
    must(rp_vhdx_close(v, &err));
    v = open_disk(&w, RP_VHDX_WRITE);
    memset(w.model, 7, 512);
    must(!v || rp_vhdx_write(v, w.model, 512, 0, &err));
    assert_false(rp_guid_equal(&file, &rp_vhdx_info(v)->file_write_guid));
    rp_vhdx_abandon(v); // killed before any flush
    v = open_disk(&w, RP_VHDX_READ);
    must(!v);
    rp_vhdx_abandon(v);
    free_world(&w);
    free(w.model);
    free(w.buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compacting_by_copies_survives_power_cuts_at_any_moment),
        cmocka_unit_test(compacting_by_sharing_survives_power_cuts_at_any_moment),
        cmocka_unit_test(a_short_file_is_left_alone_and_a_stopped_one_is_right),
        cmocka_unit_test(an_offset_that_a_block_without_data_left_behind_is_ignored),
        cmocka_unit_test(a_handle_that_compacted_its_file_only_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
