// One tracker's promises, each on its own: ids, ranges, branches, growth, size.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "single.h"

static void an_id_survives_text(void **state)
{
    (void)state;
    struct rp_rct_id id, again;
    char text[RP_RCT_ID_TEXT];
    assert_int_equal(rp_rct_id_parse("rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", &id, NULL), 0);
    assert_int_equal(id.epoch, 1);
    assert_string_equal(rp_rct_id_format(&id, text), "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001");
    assert_int_equal(rp_rct_id_parse("RCTx:5BFDE23B:CE75:4303:B54F:6C18394F105C:DEADBEEF", &again, NULL), 0);
    assert_true(rp_guid_equal(&id.tracking, &again.tracking));
    assert_int_equal(again.epoch, 0xDEADBEEF);
    static const char *const bad[] = {
        "", "rctX", "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:0000001", "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:000000001",
        "rctY:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", "rctX:5bfde23b-ce75-4303-b54f-6c18394f105c:00000001",
        "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c-00000001", "rctX:5bfde23g:ce75:4303:b54f:6c18394f105c:00000001",
        "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:0000000x", "rctX:5bfde23bc:e75:4303:b54f:6c18394f105c:00000001",
        "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c: 0000001", "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001 ",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_error err = {0};
        assert_int_equal(rp_rct_id_parse(bad[i], &id, &err), -1);
        assert_int_equal(err.code, RP_ERR_TRACKING_SYNTAX);
    }
}

static void only_ids_that_were_sealed_are_known(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    struct rp_rct_id first, last;
    assert_int_equal(open_disk(&d), RP_RCT_NEW);
    assert_false(rp_rct_last_sealed(d.rct, &last));
    first = seal_disk(&d);
    assert_int_equal(changed(d.rct, &first), 0);
    struct rp_rct_id never = {first.tracking, first.epoch + 1};
    assert_int_equal(changed(d.rct, &never), -RP_ERR_TRACKING_ID);
    never.epoch = 0;
    assert_int_equal(changed(d.rct, &never), -RP_ERR_TRACKING_ID);
    never = (struct rp_rct_id){rp_guid_new(), 1};
    assert_int_equal(changed(d.rct, &never), -RP_ERR_TRACKING_ID);

    rp_rct_mark(d.rct, 3 * UNIT, 1);
    close_disk(&d);
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    assert_int_equal(changed(d.rct, &first), 1);
    assert_true(rp_rct_last_sealed(d.rct, &last));
    assert_memory_equal(&last, &first, sizeof last);
    assert_true(rp_rct_newer_changes(d.rct));
    struct rp_guid now = rp_rct_tracking_guid(d.rct);
    assert_false(rp_guid_equal(&now, &first.tracking));
    never = (struct rp_rct_id){now, rp_rct_epoch(d.rct)}; // the current epoch is not sealed yet
    assert_int_equal(changed(d.rct, &never), -RP_ERR_TRACKING_ID);
    never.epoch = first.epoch; // sealed, but under another name
    assert_int_equal(changed(d.rct, &never), -RP_ERR_TRACKING_ID);
    struct rp_rct_id second = seal_disk(&d);
    assert_int_equal(changed(d.rct, &first), 1);
    assert_int_equal(changed(d.rct, &second), 0);
    close_disk(&d);
}

static void a_range_is_clipped_to_what_was_asked(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    rp_rct_mark(d.rct, 2 * UNIT - 1, 2);
    rp_rct_mark(d.rct, 9 * UNIT, 512);
    rp_rct_mark(d.rct, SIZE - 1, 1 << 30); // a mark never reaches beyond the disk
    rp_rct_mark(d.rct, SIZE, 512);
    rp_rct_mark(d.rct, 5 * UNIT, 0);
    struct rp_ranges r = {0};
    struct rp_error err = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(r.count, 3);
    assert_int_equal(r.items[0].offset, UNIT);
    assert_int_equal(r.items[0].length, 2 * UNIT);
    assert_int_equal(r.items[2].offset + r.items[2].length, SIZE);
    rp_ranges_clear(&r);
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, UNIT + 512, 1024, &r, NULL), 0);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.items[0].offset, UNIT + 512);
    assert_int_equal(r.items[0].length, 1024);
    rp_ranges_clear(&r);
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, UNIT, 0, &r, NULL), 0);
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, SIZE, 0, &r, NULL), 0);
    assert_int_equal(r.count, 0);
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 512, SIZE, &r, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    close_disk(&d);
}

static void two_cannot_have_it_open(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_vhdx_session session = fake_session();
    struct rp_error err = {0};
    assert_null(rp_rct_open_write(fs, "d", &d.facts, &session, NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    err.code = RP_OK;
    assert_null(rp_rct_open_read(fs, "d", &d.facts, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_int_equal(rp_rct_freeze(d.rct, &d.facts, NULL), 0);
    struct rp_rct *reader = rp_rct_open_read(fs, "d", &d.facts, &err); // a frozen file may be asked by anyone
    assert_non_null(reader);
    rp_rct_abandon(reader);
    close_disk(&d);
}

static void a_second_branch_above_a_frozen_file_has_ids_of_its_own(void **state)
{
    (void)state;
    struct disk base = new_disk("base"), branch[2] = {{.path = "a"}, {.path = "b"}};
    open_disk(&base);
    struct rp_rct_id root, ids[2];
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&branch[0].facts, SIZE, &base.facts.disk_id);
    assert_non_null(branch[0].rct = rp_rct_prepare_child(base.rct, "a", &branch[0].facts, &session, NULL));
    root = rp_rct_seal(base.rct);
    assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    fake_disk_new(&branch[1].facts, SIZE, &base.facts.disk_id);
    session = fake_session();
    assert_non_null(branch[1].rct = rp_rct_prepare_child(base.rct, "b", &branch[1].facts, &session, NULL));
    for (int i = 0; i < 2; i++) {
        rp_rct_mark(branch[i].rct, (uint64_t)i * UNIT, 1);
        assert_int_equal(changed(branch[i].rct, &root), 1);
        ids[i] = seal_disk(&branch[i]);
    }
    for (int i = 0; i < 2; i++) {
        struct rp_rct *chain[] = {branch[i].rct, base.rct};
        struct rp_ranges r = {0};
        assert_int_equal(rp_rct_query(chain, 2, &root, 0, SIZE, &r, NULL), 0);
        assert_int_equal(rp_ranges_total(&r), UNIT);
        rp_ranges_clear(&r);
        assert_int_equal(changed(branch[i].rct, &ids[i]), 0);
        assert_int_equal(changed(branch[i].rct, &ids[!i]), -RP_ERR_TRACKING_ID);
        close_disk(&branch[i]);
    }
    close_disk(&base);
}

static void a_parent_written_behind_its_child_counts_as_changed(void **state)
{
    (void)state;
    struct disk base = new_disk("base"), child = {.path = "child-of-base"};
    open_disk(&base);
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&child.facts, SIZE, &base.facts.disk_id);
    assert_non_null(child.rct = rp_rct_prepare_child(base.rct, child.path, &child.facts, &session, NULL));
    rp_rct_seal(base.rct);
    close_disk(&base);
    struct rp_rct_id id = seal_disk(&child); // later than anything the parent knows
    rp_rct_mark(child.rct, 0, 1);

    base.facts.identity.mtime_ns++; // somebody wrote to it, and its state is taken over as it is
    assert_int_equal(open_disk(&base), RP_RCT_FOREIGN);
    assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    struct rp_rct *chain[] = {child.rct, base.rct};
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(chain, 2, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), SIZE);
    rp_ranges_clear(&r);
    session = fake_session(); // merged, it still does
    assert_int_equal(rp_rct_merge(child.rct, base.rct, &base.facts, &session, NULL), 0);
    assert_int_equal(changed(base.rct, &id), ALL);
    struct rp_rct *gap[] = {child.rct, NULL};
    struct rp_error err = {0};
    assert_int_equal(rp_rct_query(gap, 2, &id, 0, SIZE, &r, &err), -1);
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    rp_rct_abandon(child.rct);
    close_disk(&base);
}

static void a_parent_written_by_a_session_that_crashed_counts_as_changed(void **state)
{
    (void)state;
    struct disk base = new_disk("base"), child = {.path = "child-of-base"};
    open_disk(&base);
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&child.facts, SIZE, &base.facts.disk_id);
    assert_non_null(child.rct = rp_rct_prepare_child(base.rct, child.path, &child.facts, &session, NULL));
    rp_rct_seal(base.rct);
    close_disk(&base);
    struct rp_rct_id id = seal_disk(&child);

    assert_int_equal(open_disk(&base), RP_RCT_CLEAN);
    rp_rct_mark(base.rct, 0, 1);
    crash_disk(&base);
    struct rp_error err = {0};
    assert_null(rp_rct_open_read(fs, base.path, &base.facts, &err));
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    assert_non_null(base.rct = rp_rct_recover(fs, base.path, &base.facts, NULL));
    struct rp_rct *chain[] = {child.rct, base.rct};
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(chain, 2, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), SIZE);
    rp_ranges_clear(&r);
    close_disk(&child);
    close_disk(&base);
}

static void a_parent_opened_and_not_written_stays_exact(void **state)
{
    (void)state;
    struct disk base = new_disk("base"), child = {.path = "child-of-base"};
    open_disk(&base);
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&child.facts, SIZE, &base.facts.disk_id);
    assert_non_null(child.rct = rp_rct_prepare_child(base.rct, child.path, &child.facts, &session, NULL));
    rp_rct_mark(base.rct, 9 * UNIT, 1);
    rp_rct_seal(base.rct);
    crash_disk(&base); // after the switch, before the freeze
    struct rp_rct_id id = seal_disk(&child);
    rp_rct_mark(child.rct, 0, 1);
    assert_int_equal(open_disk(&base), RP_RCT_UNCLEAN);
    assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    struct rp_rct *chain[] = {child.rct, base.rct};
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(chain, 2, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), UNIT);
    rp_ranges_clear(&r);
    close_disk(&child);
    close_disk(&base);
}

static uint64_t changed_through(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_id *id)
{
    struct rp_rct *chain[] = {child, parent};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(chain, 2, id, 0, SIZE, &r, NULL), 0);
    return rp_ranges_total(&r) / UNIT;
}

// Nobody knows which of the child's units have arrived: to an id of the child, those that have not are changed back.
static void a_half_merged_parent_is_right_beneath_its_child_only(void **state)
{
    (void)state;
    struct disk base = new_disk("base"), child = {.path = "c"}, leaf = {.path = "l"}, branch = {.path = "b"};
    open_disk(&base);
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&child.facts, SIZE, &base.facts.disk_id);
    assert_non_null(child.rct = rp_rct_prepare_child(base.rct, "c", &child.facts, &session, NULL));
    struct rp_rct_id first = rp_rct_seal(base.rct);
    assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    rp_rct_mark(child.rct, 3 * UNIT, 1);
    fake_disk_new(&leaf.facts, SIZE, &base.facts.disk_id);
    session = fake_session();
    assert_non_null(leaf.rct = rp_rct_prepare_child(child.rct, "l", &leaf.facts, &session, NULL));
    struct rp_rct_id second = rp_rct_seal(child.rct);
    assert_int_equal(rp_rct_freeze(child.rct, &child.facts, NULL), 0);
    session = fake_session();
    assert_int_equal(rp_rct_merge(child.rct, base.rct, &base.facts, &session, NULL), 0);
    rp_rct_abandon(leaf.rct);
    crash_disk(&child);
    crash_disk(&base); // in the middle of the copying
    fake_disk_written(&base.facts, &session);

    assert_non_null(base.rct = rp_rct_recover(fs, "base", &base.facts, NULL));
    assert_non_null(child.rct = rp_rct_open_read(fs, "c", &child.facts, NULL));
    assert_int_equal(changed_through(child.rct, base.rct, &first), 1);
    assert_int_equal(changed_through(child.rct, base.rct, &second), 0);
    assert_int_equal(changed(base.rct, &second), ALL); // alone
    session = fake_session();
    fake_disk_new(&branch.facts, SIZE, &base.facts.disk_id);
    assert_non_null(branch.rct = rp_rct_prepare_child(base.rct, "b", &branch.facts, &session, NULL));
    assert_int_equal(changed_through(branch.rct, base.rct, &second), ALL); // beneath another
    rp_rct_abandon(branch.rct);
    rp_rct_abandon(base.rct);

    assert_non_null(base.rct = rp_rct_open_read(fs, "base", &base.facts, NULL)); // it is still so when opened again
    assert_int_equal(changed_through(child.rct, base.rct, &first), 1);
    assert_int_equal(changed(base.rct, &second), ALL);
    rp_rct_abandon(base.rct);
    rp_rct_abandon(child.rct);
    assert_int_equal(open_disk(&base), RP_RCT_UNCLEAN); // as a leaf
    assert_int_equal(changed(base.rct, &second), ALL);
    close_disk(&base);
}

// The parent, frozen at its old size after the attempt that failed, no longer names the pages of the space it grew by, and the
// second attempt finds in them already what it would write.
static void a_second_attempt_to_merge_a_grown_child_names_its_pages_again(void **state)
{
    (void)state;
    const uint64_t big = RP_GIB;
    struct disk base = new_disk("base"), child = {.path = "c"};
    open_disk(&base);
    struct rp_vhdx_session session = fake_session();
    fake_disk_new(&child.facts, SIZE, &base.facts.disk_id);
    assert_non_null(child.rct = rp_rct_prepare_child(base.rct, "c", &child.facts, &session, NULL));
    rp_rct_seal(base.rct);
    assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    child.facts.virtual_size = big;
    assert_int_equal(rp_rct_grow(child.rct, big, NULL), 0);
    struct rp_rct_id id = seal_disk(&child);
    rp_rct_mark(child.rct, big - UNIT, 1);
    rp_rct_seal(child.rct);
    assert_int_equal(rp_rct_freeze(child.rct, &child.facts, NULL), 0);
    for (int attempt = 0; attempt < 2; attempt++) {
        session = fake_session();
        assert_int_equal(rp_rct_merge(child.rct, base.rct, &base.facts, &session, NULL), 0);
        if (attempt) {
            fake_disk_written(&base.facts, &session);
            base.facts.virtual_size = big;
            rp_rct_merged(base.rct);
        }
        assert_int_equal(rp_rct_freeze(base.rct, &base.facts, NULL), 0);
    }
    rp_rct_abandon(child.rct);
    rp_rct_abandon(base.rct);
    assert_non_null(base.rct = rp_rct_open_read(fs, "base", &base.facts, NULL));
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&base.rct, 1, &id, 0, big, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), UNIT);
    rp_rct_abandon(base.rct);
}

static void growth_is_a_change_of_the_new_space(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    d.facts.virtual_size = 10 * UNIT + 512;
    open_disk(&d);
    struct rp_rct_id before = seal_disk(&d);
    struct rp_error err = {0};
    assert_int_equal(rp_rct_grow(d.rct, 9 * UNIT, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    assert_int_equal(rp_rct_grow(d.rct, SIZE, NULL), 0);
    d.facts.virtual_size = SIZE;
    assert_int_equal(changed(d.rct, &before), ALL - 10);
    struct rp_rct_id after = seal_disk(&d);
    assert_int_equal(changed(d.rct, &after), 0);
    close_disk(&d);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &before), ALL - 10);
    assert_int_equal(changed(d.rct, &after), 0);
    for (int i = 0; i < 200; i++) { // more growths than the file can tell apart
        struct rp_rct_id id = seal_disk(&d);
        d.facts.virtual_size += UNIT;
        assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges r = {0};
        assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, d.facts.virtual_size, &r, NULL), 0);
        assert_int_equal(rp_ranges_total(&r), UNIT);
        rp_ranges_clear(&r);
        assert_int_equal(rp_rct_query(&d.rct, 1, &after, 0, d.facts.virtual_size, &r, NULL), 0);
        assert_int_equal(rp_ranges_total(&r), (uint64_t)(i + 1) * UNIT);
    }
    close_disk(&d);
}

static void a_huge_disk_costs_what_was_touched(void **state)
{
    (void)state;
    assert_int_equal(rp_rct_unit_size_for(0), 64 * RP_KIB);
    assert_int_equal(rp_rct_unit_size_for(8 * RP_TIB), 64 * RP_KIB);
    assert_int_equal(rp_rct_unit_size_for(8 * RP_TIB + 512), 128 * RP_KIB);
    assert_int_equal(rp_rct_unit_size_for(64 * RP_TIB), 512 * RP_KIB);
    struct disk d = new_disk("d");
    d.facts.virtual_size = RP_GIB;
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    d.facts.virtual_size = 64 * RP_TIB; // grown from a small one: its small unit stays
    assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
    assert_int_equal(rp_rct_unit_size(d.rct), 64 * RP_KIB);
    struct rp_rct_id grown = seal_disk(&d);
    rp_rct_mark(d.rct, 64 * RP_TIB - 512, 512);
    rp_rct_mark(d.rct, 32 * RP_TIB, 512);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rp_rct_cover(d.rct, (uint64_t)i * RP_GIB * 7, 4096, NULL), 0);
    unsigned long syncs = rp_fs_memory_syncs(fs);
    for (int i = 0; i < 1000; i++)
        rp_rct_mark(d.rct, (uint64_t)i * RP_GIB * 7, 4096);
    assert_int_equal(rp_fs_memory_syncs(fs), syncs);
    close_disk(&d);
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &grown, 0, 64 * RP_TIB, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 1002 * UNIT);
    rp_ranges_clear(&r);
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, 64 * RP_TIB, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 64 * RP_TIB - RP_GIB + UNIT);
    rp_ranges_clear(&r);
    close_disk(&d);
    struct rp_store *store = rp_fs_open(fs, "d.rct", RP_OPEN_READ, NULL);
    assert_int_equal(rp_store_extents(store, 0, UINT64_MAX / 2, &r, NULL), 0);
    assert_true(rp_ranges_total(&r) < 8 * RP_MIB);
    rp_ranges_clear(&r);
    rp_store_close(store);
}

static void the_lineage_forgets_only_the_oldest(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    struct rp_rct_id ids[RP_RCT_LINEAGE_MAX + 40];
    int count = RP_RCT_LINEAGE_MAX + 40;
    for (int i = 0; i < count; i++) {
        open_disk(&d);
        ids[i] = seal_disk(&d);
        rp_rct_mark(d.rct, (uint64_t)(i % 3) * UNIT, 1);
        close_disk(&d);
        assert_true(open_disk(&d) == RP_RCT_CLEAN); // sessions that seal nothing take no place
        close_disk(&d);
    }
    open_disk(&d);
    assert_int_equal(changed(d.rct, &ids[count - 1]), 1);
    assert_int_equal(changed(d.rct, &ids[count - RP_RCT_LINEAGE_MAX]), 3);
    assert_int_equal(changed(d.rct, &ids[count - RP_RCT_LINEAGE_MAX - 1]), -RP_ERR_TRACKING_ID);
    close_disk(&d);
}

static void files_with_different_units_make_one_chain(void **state)
{
    (void)state;
    struct disk parent = new_disk("p"), child = {.path = "c"};
    open_disk(&parent);
    struct rp_rct_id id = seal_disk(&parent);
    rp_rct_mark(parent.rct, 1599 * UNIT, 1);
    fake_disk_new(&child.facts, SIZE, &parent.facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    assert_non_null(child.rct = rp_rct_prepare_child(parent.rct, "c", &child.facts, &session, NULL));
    rp_rct_seal(parent.rct);
    close_disk(&parent);
    struct rp_buf file = read_file("p.rct"); // a unit that only a larger disk would have: what lies in page 1 is gone with it
    for (size_t at = 0; at + RP_RCT_HEAD_SIZE <= file.size; at += RP_RCT_SLOT_SIZE) {
        rp_put_le32(file.data + at + 32, 256 << 10);
        rp_put_le32(file.data + at + 8, rp_crc32c_skip(file.data + at, RP_RCT_HEAD_SIZE, 8));
    }
    write_file("p.rct", file.data, file.size);
    rp_buf_clear(&file);
    assert_non_null(parent.rct = rp_rct_open_read(fs, "p", &parent.facts, NULL));
    assert_int_equal(rp_rct_unit_size(parent.rct), 256 << 10);

    rp_rct_mark(child.rct, 5 * UNIT, 1);
    rp_rct_mark(child.rct, SIZE - 1, 1);
    assert_int_equal(changed(child.rct, &id), 2);
    struct rp_rct *chain[] = {child.rct, parent.rct};
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(chain, 2, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 2 * UNIT);
    rp_ranges_clear(&r);
    session = fake_session();
    assert_int_equal(rp_rct_merge(child.rct, parent.rct, &parent.facts, &session, NULL), 0);
    assert_int_equal(changed(parent.rct, &id), ALL); // by itself, before the disk has all of it
    rp_rct_merged(parent.rct);
    assert_int_equal(changed(parent.rct, &id), 8); // two units of the larger kind
    rp_rct_abandon(child.rct);
    close_disk(&parent);
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(an_id_survives_text),
        TEST(only_ids_that_were_sealed_are_known),
        TEST(a_range_is_clipped_to_what_was_asked),
        TEST(two_cannot_have_it_open),
        TEST(a_second_branch_above_a_frozen_file_has_ids_of_its_own),
        TEST(a_parent_written_behind_its_child_counts_as_changed),
        TEST(a_parent_written_by_a_session_that_crashed_counts_as_changed),
        TEST(a_parent_opened_and_not_written_stays_exact),
        TEST(a_half_merged_parent_is_right_beneath_its_child_only),
        TEST(a_second_attempt_to_merge_a_grown_child_names_its_pages_again),
        TEST(growth_is_a_change_of_the_new_space),
        TEST(a_huge_disk_costs_what_was_touched),
        TEST(the_lineage_forgets_only_the_oldest),
        TEST(files_with_different_units_make_one_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
