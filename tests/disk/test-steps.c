// Changes of a disk's description, stopped at every single write, truncation and sync they make: afterwards the old or
// the new description holds, never anything between, and the content is there.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/vhdx.h"
#include "torn.h"

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

enum { WRITTEN = 6 };

static uint64_t place(unsigned i) { return i * 20 * RP_GIB; }

static void write_content(struct rp_vhdx *v)
{
    uint8_t data[4096];
    for (unsigned i = 0; i < WRITTEN; i++) {
        memset(data, (int)i + 1, sizeof data);
        must(rp_vhdx_write(v, data, sizeof data, place(i), &err));
    }
    memset(data, 0xEE, sizeof data); // behind the last whole block: the part that growth uncovers
    must(rp_vhdx_write(v, data, 512, rp_vhdx_info(v)->size - 512, &err));
}

static void check_content(struct rp_vhdx *v, uint64_t old_size)
{
    uint8_t data[4096];
    for (unsigned i = 0; i < WRITTEN; i++) {
        must(rp_vhdx_read(v, data, sizeof data, place(i), &err));
        for (unsigned k = 0; k < sizeof data; k++)
            assert_int_equal(data[k], i + 1);
    }
    must(rp_vhdx_read(v, data, 512, old_size - 512, &err));
    assert_int_equal(data[0], 0xEE);
    for (uint64_t at = old_size; at < rp_vhdx_info(v)->size && at < old_size + 4 * RP_MIB; at += 512) {
        must(rp_vhdx_read(v, data, 512, at, &err));
        assert_int_equal(data[0], 0);
    }
}

// A step to be interrupted: returns what the operation returns. `check` sees the disk as the crash left it.
struct step {
    const char *parent_path; // NULL: a dynamic disk
    int (*run)(struct rp_vhdx *v, struct rp_error *err);
    void (*check)(struct rp_vhdx *v);
    bool in_session; // only in the session that wrote the content, never in one that has written nothing yet
};

static const uint64_t old_size = 130 * RP_GIB + 512, new_size = 500 * RP_GIB;
static const struct rp_guid linkage = RP_GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), other = RP_GUID(9, 9, 9, 9, 9, 9, 9,
                                                                                                  9, 9, 9, 9);

// Returns false when the operation ended before it was stopped.
static bool stopped_after(const struct step *step, unsigned long changes, uint64_t *random)
{
    struct rp_fs *fs = torn_fs_new();
    struct rp_vhdx_create create = {.size = old_size, .block_size = 1 << 20, .disk_id = rp_guid_new()};
    create.parent_path = step->parent_path;
    create.parent_data_write_guid = linkage;
    must(rp_vhdx_create(fs, "d", &create, &err));
    struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    must(!v);
    write_content(v);
    must(rp_vhdx_flush(v, &err));
    if (!step->in_session && random_below(random, 2)) {
        must(rp_vhdx_close(v, &err));
        v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
        must(!v);
    }
    torn_fs_stop_after(fs, changes);
    struct rp_error why = {0};
    bool stopped = step->run(v, &why) != 0;
    torn_fs_cut(fs, random, (unsigned)random_below(random, 257));
    rp_vhdx_abandon(v);
    for (int i = 0; i < 2; i++) { // the log replayed in memory, then in the file
        v = rp_vhdx_open(fs, "d", i ? RP_VHDX_WRITE : RP_VHDX_READ, NULL, &err);
        must(!v);
        check_content(v, old_size);
        step->check(v);
        rp_vhdx_abandon(v);
    }
    torn_fs_free(fs);
    return stopped;
}

static void at_every_call(const struct step *step)
{
    uint64_t random = test_seed();
    for (int rounds = 0; rounds < 4; rounds++) {
        unsigned long n = 0;
        while (stopped_after(step, n, &random))
            n++;
        assert_true(n > 3);
    }
}

static int run_grow(struct rp_vhdx *v, struct rp_error *e) { return rp_vhdx_grow(v, new_size, e); }

static void check_size(struct rp_vhdx *v)
{
    assert_true(rp_vhdx_info(v)->size == old_size || rp_vhdx_info(v)->size == new_size);
}

static void growth_that_is_interrupted_leaves_the_old_or_the_new_size(void **state)
{
    (void)state;
    at_every_call(&(struct step){NULL, run_grow, check_size, false});
}

static int run_relink(struct rp_vhdx *v, struct rp_error *e)
{
    return rp_vhdx_set_parent_locator(v, &other, &linkage, "a-much-longer-name-of-the-parent-disk-file.vhdx", e);
}

static void check_link(struct rp_vhdx *v)
{
    const struct rp_vhdx_info *info = rp_vhdx_info(v);
    bool old = rp_guid_equal(&info->parent_linkage, &linkage), new = rp_guid_equal(&info->parent_linkage, &other);
    assert_true(old || new);
    assert_int_equal(new, rp_guid_equal(&info->parent_linkage2, &linkage));
    assert_string_equal(info->parent_path, new ? "a-much-longer-name-of-the-parent-disk-file.vhdx" : "p");
}

static void a_new_parent_locator_that_is_interrupted_leaves_the_old_or_the_new_one(void **state)
{
    (void)state;
    at_every_call(&(struct step){"p", run_relink, check_link, false});
}

static int run_freeze(struct rp_vhdx *v, struct rp_error *e) { return rp_vhdx_freeze(v, e); }

static void check_nothing(struct rp_vhdx *v) { (void)v; }

static int run_change_and_freeze(struct rp_vhdx *v, struct rp_error *e)
{
    uint8_t data[4096] = {0};
    return rp_vhdx_write(v, data, sizeof data, 3 * RP_GIB, e) || rp_vhdx_trim(v, 3 * RP_GIB, 1 << 20, NULL, e) ||
                   rp_vhdx_write(v, data, sizeof data, 4 * RP_GIB, e) || run_freeze(v, e)
               ? -1
               : 0;
}

static void a_session_that_is_interrupted_at_its_begin_or_end_loses_nothing(void **state)
{
    (void)state;
    at_every_call(&(struct step){NULL, run_change_and_freeze, check_nothing, false});
    at_every_call(&(struct step){NULL, run_freeze, check_nothing, true}); // the metadata in place is not durable yet
}

static void creation_that_is_interrupted_leaves_a_disk_or_none(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    for (unsigned long n = 0; n < 12; n++)
        for (int round = 0; round < 5; round++) {
            struct rp_fs *fs = torn_fs_new();
            torn_fs_stop_after(fs, n);
            int failed = rp_vhdx_create(fs, "d", &(struct rp_vhdx_create){.size = RP_GIB}, NULL);
            torn_fs_cut(fs, &random, 128);
            struct rp_error why = {0};
            struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &why);
            if (!failed)
                assert_non_null(v);
            else if (!v)
                assert_true(why.code == RP_ERR_CORRUPT || why.code == RP_ERR_NOT_FOUND);
            rp_vhdx_abandon(v);
            torn_fs_free(fs);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_that_is_interrupted_leaves_the_old_or_the_new_size),
        cmocka_unit_test(a_new_parent_locator_that_is_interrupted_leaves_the_old_or_the_new_one),
        cmocka_unit_test(a_session_that_is_interrupted_at_its_begin_or_end_loses_nothing),
        cmocka_unit_test(creation_that_is_interrupted_leaves_a_disk_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
