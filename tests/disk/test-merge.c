// Merges whose power is cut: at any moment the child above its parent shows what it showed before, and the merge can be run
// again until the parent alone shows it. With blocks copied and with blocks shared.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/convert.h"
#include "disk/vhdx.h"
#include "torn.h"

enum { MIB = 1 << 20, DISK = 9 * MIB, BLOCK = 1 << 20, LEVELS = 3 };

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

struct world {
    uint64_t random;
    struct rp_fs *fs;
    struct rp_vhdx *layers[LEVELS]; // base, middle, leaf: the leaf is merged into the middle
    uint8_t *model;                 // what the leaf shows
    uint8_t *buffer;
};

static const char *const names[LEVELS] = {"base.vhdx", "middle.vhdx", "leaf.vhdx"};

static void fill_random(struct world *w, struct rp_vhdx *v)
{
    for (int i = 0; i < 25; i++) {
        uint64_t sector = random_below(&w->random, DISK / 512), count = 1 + random_below(&w->random, 300);
        if (random_below(&w->random, 3) == 0) { // whole blocks
            sector = sector / (BLOCK / 512) * (BLOCK / 512);
            count = BLOCK / 512 * (1 + random_below(&w->random, 3));
        }
        uint64_t offset = sector * 512, length = rp_min64(count * 512, DISK - offset);
        unsigned kind = (unsigned)random_below(&w->random, 8);
        if (kind > 1) {
            for (uint64_t at = 0; at < length; at += 8) {
                uint64_t x = next_random(&w->random);
                memcpy(w->buffer + at, &x, 8);
            }
            must(rp_vhdx_write(v, w->buffer, (uint32_t)length, offset, &err));
        } else {
            must((kind ? rp_vhdx_trim : rp_vhdx_zero)(v, offset, length, NULL, &err));
        }
    }
}

static void link_layers(struct world *w)
{
    for (int i = 1; i < LEVELS; i++)
        if (w->layers[i] && w->layers[i - 1])
            must(rp_vhdx_set_parent(w->layers[i], w->layers[i - 1], &err));
}

static void open_layer(struct world *w, int level, unsigned flags, const struct rp_vhdx_session *session)
{
    w->layers[level] = rp_vhdx_open(w->fs, names[level], flags, session, &err);
    must(!w->layers[level]);
}

static void abandon_all(struct world *w)
{
    for (int i = 0; i < LEVELS; i++) {
        rp_vhdx_abandon(w->layers[i]);
        w->layers[i] = NULL;
    }
}

static void make_layers(struct world *w)
{
    struct rp_vhdx_create create = {.size = DISK, .disk_id = rp_guid_new()};
    for (int i = 0; i < LEVELS; i++) {
        create.block_size = random_below(&w->random, 3) ? BLOCK : 2 * BLOCK; // mostly equal, as ours always are
        if (i) {
            create.parent_path = names[i - 1];
            create.parent_data_write_guid = rp_vhdx_info(w->layers[i - 1])->data_write_guid;
        }
        must(rp_vhdx_create(w->fs, names[i], &create, &err));
        open_layer(w, i, RP_VHDX_WRITE, NULL);
        link_layers(w);
        fill_random(w, w->layers[i]);
        must(rp_vhdx_freeze(w->layers[i], &err));
    }
    must(rp_vhdx_read(w->layers[LEVELS - 1], w->model, DISK, 0, &err));
    abandon_all(w);
}

static void check(struct world *w, struct rp_vhdx *v)
{
    must(rp_vhdx_read(v, w->buffer, DISK, 0, &err));
    for (uint64_t at = 0; at < DISK; at += 512)
        if (memcmp(w->buffer + at, w->model + at, 512))
            fail_msg("%s: sector %llu differs", rp_vhdx_path(v), (unsigned long long)at / 512);
}

// As the disk service does it: the child accepts the parent before and after.
static int merge(struct world *w)
{
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_guid now;
    open_layer(w, 0, RP_VHDX_READ, NULL);
    open_layer(w, 1, RP_VHDX_READ, NULL);
    now = rp_vhdx_info(w->layers[1])->data_write_guid;
    rp_vhdx_abandon(w->layers[1]);
    w->layers[1] = NULL;
    struct rp_vhdx *child = rp_vhdx_open(w->fs, names[2], RP_VHDX_WRITE, NULL, &err);
    if (!child)
        return -1;
    w->layers[2] = child;
    if (rp_vhdx_set_parent_locator(child, &now, &session.data_write_guid, NULL, &err) || rp_vhdx_freeze(child, &err))
        return -1;
    w->layers[1] = rp_vhdx_open(w->fs, names[1], RP_VHDX_WRITE, &session, &err);
    if (!w->layers[1])
        return -1;
    link_layers(w);
    if (rp_vhdx_begin_data_change(w->layers[1], &err) || rp_vhdx_merge(child, w->layers[1], NULL, NULL, &err) ||
        rp_vhdx_flush(w->layers[1], &err))
        return -1;
    check(w, w->layers[1]);
    struct rp_vhdx *middle = w->layers[1];
    w->layers[1] = NULL;
    return rp_vhdx_close(middle, &err);
}

static void check_after_cut(struct world *w)
{
    for (int i = 0; i < LEVELS; i++)
        open_layer(w, i, RP_VHDX_READ, NULL);
    link_layers(w);
    check(w, w->layers[2]);
    abandon_all(w);
}

static void cut_merges(bool share)
{
    struct world w = {.random = test_seed()};
    w.model = malloc(DISK);
    w.buffer = malloc(DISK);
    const char *text = getenv("RP_TEST_ROUNDS");
    unsigned interrupted = 0;
    for (int round = text ? atoi(text) : 12; round > 0; round--) {
        w.fs = torn_fs_new();
        if (share)
            torn_fs_share(w.fs);
        make_layers(&w);
        unsigned cuts = 0;
        for (bool done = false; !done; cuts++) {
            if (cuts < 4)
                torn_fs_stop_after(w.fs, random_below(&w.random, 90));
            done = merge(&w) == 0;
            rp_error_clear(&err);
            torn_fs_cut(w.fs, &w.random, (unsigned)random_below(&w.random, 257));
            abandon_all(&w);
            if (!done)
                check_after_cut(&w);
            interrupted += !done;
        }
        open_layer(&w, 0, RP_VHDX_READ, NULL);
        open_layer(&w, 1, RP_VHDX_READ, NULL);
        link_layers(&w);
        check(&w, w.layers[1]);
        abandon_all(&w);
        torn_fs_free(w.fs);
    }
    assert_true(interrupted > 0);
    free(w.model);
    free(w.buffer);
}

static void a_merge_that_copies_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    cut_merges(false);
}

static void a_merge_that_shares_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    cut_merges(true);
}

struct meter {
    uint64_t last, most, calls, stop_at;
};

static int meter(void *context, uint64_t done, uint64_t total)
{
    struct meter *m = context;
    assert_true(done >= m->last && done <= total);
    m->most = rp_max64(m->most, done - m->last);
    m->last = done;
    return ++m->calls == m->stop_at;
}

static void progress_of_a_merge_counts_its_data_and_can_stop_it(void **state)
{
    (void)state;
    for (int share = 0; share < 2; share++) {
        struct world w = {.random = test_seed(), .fs = torn_fs_new(), .model = malloc(DISK), .buffer = malloc(DISK)};
        if (share)
            torn_fs_share(w.fs);
        struct rp_vhdx_create create = {.size = (uint64_t)1 << 40, .disk_id = rp_guid_new()};
        must(rp_vhdx_create(w.fs, "p", &create, &err));
        struct rp_vhdx *parent = rp_vhdx_open(w.fs, "p", RP_VHDX_WRITE, NULL, &err);
        must(!parent);
        create.parent_path = "p";
        create.parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid;
        must(rp_vhdx_create(w.fs, "c", &create, &err));
        struct rp_vhdx *child = rp_vhdx_open(w.fs, "c", RP_VHDX_WRITE, NULL, &err);
        must(!child || rp_vhdx_set_parent(child, parent, &err));
        memset(w.buffer, 7, DISK);
        must(rp_vhdx_write(child, w.buffer, 8 * MIB, (uint64_t)100 << 30, &err));
        must(rp_vhdx_write(child, w.buffer, 512, (uint64_t)900 << 30, &err));
        must(rp_vhdx_zero(child, (uint64_t)500 << 30, 4 * MIB, NULL, &err));
        must(rp_vhdx_freeze(child, &err));
        struct meter m = {.stop_at = 3};
        assert_int_equal(rp_vhdx_merge(child, parent, meter, &m, &err), -1);
        assert_int_equal(err.code, RP_ERR_CANCELLED);
        assert_int_equal(m.calls, 3);
        rp_error_clear(&err);
        m = (struct meter){0};
        must(rp_vhdx_merge(child, parent, meter, &m, &err));
        assert_int_equal(m.last, 8 * MIB + 512);
        assert_true(m.most <= MIB);
        must(rp_vhdx_close(parent, &err) || rp_vhdx_close(child, &err));
        torn_fs_free(w.fs);
        free(w.model);
        free(w.buffer);
    }
}

static int stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    return done * 2 > total;
}

static void a_conversion_that_fails_or_is_stopped_leaves_nothing(void **state)
{
    (void)state;
    for (int share = 0; share < 2; share++) {
        uint64_t random = test_seed();
        struct rp_fs *fs = torn_fs_new();
        if (share)
            torn_fs_share(fs);
        struct rp_store *raw = rp_fs_open(fs, "raw", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
        RP_AUTO_FREE uint8_t *data = malloc(DISK);
        for (size_t at = 0; at < DISK; at += 8) {
            uint64_t x = next_random(&random);
            memcpy(data + at, &x, 8);
        }
        must(rp_store_pwrite(raw, data, DISK, 0, &err));
        rp_store_close(raw);
        must(rp_convert_raw_to_vhdx(fs, "raw", "vhdx", NULL, NULL, NULL, &err));
        for (int way = 0; way < 3; way++) {
            for (unsigned trouble = 0; trouble < 30; trouble++) {
                bool there = false;
                if (trouble == 1)
                    torn_fs_fail_flush(fs, 1);
                else if (trouble)
                    torn_fs_stop_after(fs, trouble - 2);
                rp_progress_fn *progress = trouble ? NULL : stop_at_once;
                int failed = way == 0   ? rp_convert_raw_to_vhdx(fs, "raw", "new", NULL, progress, NULL, &err)
                             : way == 1 ? rp_convert_vhdx_to_raw(fs, "vhdx", "new", progress, NULL, &err)
                                        : rp_convert_vhdx_to_vhdx(fs, "vhdx", "new", NULL, progress, NULL, &err);
                if (trouble < 2)
                    assert_int_equal(failed, -1);
                must(rp_fs_exists(fs, "new", &there, &err) && failed);
                assert_int_equal(there, !failed);
                rp_error_clear(&err);
                torn_fs_cut(fs, &random, 256);
                must(rp_fs_exists(fs, "new", &there, &err)); // its deletion was not made durable
                if (there)
                    must(rp_fs_unlink(fs, "new", &err) || rp_fs_sync_parent(fs, "new", &err));
            }
        }
        torn_fs_free(fs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_merge_that_copies_survives_power_cuts_at_any_moment),
        cmocka_unit_test(a_merge_that_shares_survives_power_cuts_at_any_moment),
        cmocka_unit_test(progress_of_a_merge_counts_its_data_and_can_stop_it),
        cmocka_unit_test(a_conversion_that_fails_or_is_stopped_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
