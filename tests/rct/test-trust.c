// What a tracker makes of files that are not as it left them: not ours, changed, rolled back, copied, damaged.
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
#include "single.h"

static void a_file_that_is_not_ours_is_left_alone(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    static const char *const contents[] = {"", "x", "Microsoft's own", "RPTRACL and more than eight bytes"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        write_file("d.rct", contents[i], strlen(contents[i]));
        struct rp_vhdx_session session = fake_session();
        struct rp_error err = {0};
        assert_null(rp_rct_open_write(fs, "d", &d.facts, &session, NULL, &err));
        assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
        err.code = RP_OK;
        assert_null(rp_rct_open_read(fs, "d", &d.facts, &err));
        assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
        struct disk parent = new_disk("parent");
        open_disk(&parent);
        err.code = RP_OK;
        assert_null(rp_rct_prepare_child(parent.rct, "d", &d.facts, &session, &err));
        assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
        close_disk(&parent);
        struct rp_buf after = read_file("d.rct");
        assert_int_equal(after.size, strlen(contents[i]));
        if (after.size)
            assert_memory_equal(after.data, contents[i], after.size);
        rp_buf_clear(&after);
    }
}

static void a_file_of_a_later_version_is_left_alone(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    for (size_t at = 0; at + RP_RCT_HEAD_SIZE <= file.size; at += RP_RCT_SLOT_SIZE) {
        rp_put_le32(file.data + at + 12, 3);
        rp_put_le32(file.data + at + 8, rp_crc32c_skip(file.data + at, RP_RCT_HEAD_SIZE, 8));
    }
    write_file("d.rct", file.data, file.size);
    struct rp_vhdx_session session = fake_session();
    struct rp_error err = {0};
    assert_null(rp_rct_open_write(fs, "d", &d.facts, &session, NULL, &err));
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    struct rp_buf after = read_file("d.rct");
    assert_int_equal(after.size, file.size);
    assert_memory_equal(after.data, file.data, file.size);
    rp_buf_clear(&after);
    rp_buf_clear(&file);
}

// What each kind of tampering with the disk makes of an id that was known.
static void tampered(void (*tamper)(struct rp_rct_disk *), enum rp_rct_verdict verdict, int answer)
{
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    rp_rct_mark(d.rct, 0, 512);
    close_disk(&d);
    tamper(&d.facts);
    struct rp_rct *reader = rp_rct_open_read(fs, "d", &d.facts, NULL);
    assert_int_equal(reader != NULL, verdict == RP_RCT_CLEAN);
    rp_rct_abandon(reader);
    assert_int_equal(open_disk(&d), verdict);
    assert_int_equal(changed(d.rct, &id), answer);
    struct rp_rct_id after = seal_disk(&d);
    rp_rct_mark(d.rct, UNIT, 512);
    assert_int_equal(changed(d.rct, &after), 1); // and from here on it is exact again
    close_disk(&d);
    assert_int_equal(rp_fs_unlink(fs, "d.rct", NULL), 0);
}

static void do_nothing(struct rp_rct_disk *d) { (void)d; }
static void other_device(struct rp_rct_disk *d) { d->identity.device++; }
static void other_inode(struct rp_rct_disk *d) { d->identity.inode++; }
static void other_mtime(struct rp_rct_disk *d) { d->identity.mtime_ns++; }
static void other_ctime(struct rp_rct_disk *d) { d->identity.ctime_ns++; }
static void other_file_size(struct rp_rct_disk *d) { d->identity.size += 4096; }
static void other_writer(struct rp_rct_disk *d) { d->file_write_guid = rp_guid_new(); }
static void other_content(struct rp_rct_disk *d) { d->data_write_guid = rp_guid_new(); }
static void other_disk(struct rp_rct_disk *d) { d->disk_id = rp_guid_new(); }
static void shrunk(struct rp_rct_disk *d) { d->virtual_size -= UNIT; }

static void a_disk_changed_by_others_counts_as_changed_everywhere(void **state)
{
    (void)state;
    tampered(do_nothing, RP_RCT_CLEAN, 1);
    tampered(other_device, RP_RCT_CLEAN, 1); // a reboot may do that
    tampered(other_inode, RP_RCT_FOREIGN, ALL);
    tampered(other_mtime, RP_RCT_FOREIGN, ALL);
    tampered(other_ctime, RP_RCT_FOREIGN, ALL);
    tampered(other_file_size, RP_RCT_FOREIGN, ALL);
    tampered(other_writer, RP_RCT_FOREIGN, ALL);
    tampered(other_content, RP_RCT_FOREIGN, ALL);
    tampered(other_disk, RP_RCT_FOREIGN, -RP_ERR_TRACKING_ID);
}

static void a_disk_that_shrank_knows_no_older_id(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    close_disk(&d);
    shrunk(&d.facts);
    assert_int_equal(open_disk(&d), RP_RCT_FOREIGN);
    assert_int_equal(changed(d.rct, &id), -RP_ERR_TRACKING_ID);
    close_disk(&d);
}

// Whatever is put back from an earlier time, an id is answered with at least the truth or refused.
static void rolling_back_both_files_is_exact_or_refused(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id old = seal_disk(&d);
    rp_rct_mark(d.rct, 0, 512);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    struct rp_rct_disk facts = d.facts; // a snapshot of the whole file system: the inode and the times come back too

    open_disk(&d);
    rp_rct_mark(d.rct, UNIT, 512);
    struct rp_rct_id lost = seal_disk(&d);
    rp_rct_mark(d.rct, 2 * UNIT, 512);
    close_disk(&d);

    write_file("d.rct", file.data, file.size);
    d.facts = facts;
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    assert_int_equal(changed(d.rct, &old), 1);
    assert_int_equal(changed(d.rct, &lost), -RP_ERR_TRACKING_ID);
    rp_rct_mark(d.rct, 7 * UNIT, 512);
    struct rp_rct_id other = seal_disk(&d); // the same epoch as `lost`, and another id
    assert_int_equal(other.epoch, lost.epoch);
    assert_false(rp_guid_equal(&other.tracking, &lost.tracking));
    assert_int_equal(changed(d.rct, &lost), -RP_ERR_TRACKING_ID);
    assert_int_equal(changed(d.rct, &old), 2);
    close_disk(&d);
    rp_buf_clear(&file);
}

static void rolling_back_a_live_disk_is_a_superset_or_refused(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id old = seal_disk(&d);
    struct rp_buf file = read_file("d.rct"); // as it is in the middle of a session
    struct rp_rct_disk facts = d.facts;
    rp_rct_mark(d.rct, UNIT, 512);
    struct rp_rct_id lost = seal_disk(&d); // sealed in the same session: the same GUID
    close_disk(&d);

    write_file("d.rct", file.data, file.size);
    d.facts = facts;
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &old), ALL);
    assert_int_equal(changed(d.rct, &lost), -RP_ERR_TRACKING_ID);
    close_disk(&d);
    rp_buf_clear(&file);
}

static void rolling_back_one_of_the_files_is_noticed(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct disk d = new_disk("d");
        open_disk(&d);
        struct rp_rct_id old = seal_disk(&d);
        close_disk(&d);
        struct rp_buf file = read_file("d.rct");
        struct rp_rct_disk facts = d.facts;
        open_disk(&d);
        rp_rct_mark(d.rct, UNIT, 512);
        struct rp_rct_id later = seal_disk(&d);
        rp_rct_mark(d.rct, 2 * UNIT, 512);
        close_disk(&d);
        if (which)
            d.facts = facts;
        else
            write_file("d.rct", file.data, file.size);
        assert_int_equal(open_disk(&d), RP_RCT_FOREIGN);
        assert_int_equal(changed(d.rct, &old), ALL);
        int answer = changed(d.rct, &later);
        assert_true(answer == ALL || answer == -RP_ERR_TRACKING_ID);
        close_disk(&d);
        rp_fs_unlink(fs, "d.rct", NULL);
        rp_buf_clear(&file);
    }
}

static void copies_never_share_an_id(void **state)
{
    (void)state;
    struct disk d = new_disk("d"), copies[2] = {{.path = "copy-a"}, {.path = "copy-b"}};
    open_disk(&d);
    struct rp_rct_id old = seal_disk(&d), ids[3];
    rp_rct_mark(d.rct, 5 * UNIT, 512);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    struct disk *all[] = {&d, &copies[0], &copies[1]};
    for (int i = 0; i < 2; i++) { // the same bytes twice; a copy is another inode
        write_file(i ? "copy-b.rct" : "copy-a.rct", file.data, file.size);
        copies[i].facts = d.facts;
        copies[i].facts.identity.inode += 1000 + (uint64_t)i;
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(open_disk(all[i]), i ? RP_RCT_FOREIGN : RP_RCT_CLEAN);
        assert_int_equal(changed(all[i]->rct, &old), i ? ALL : 1);
        rp_rct_mark(all[i]->rct, (uint64_t)(10 + i) * UNIT, 512);
        ids[i] = seal_disk(all[i]);
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            assert_int_equal(changed(all[i]->rct, &ids[j]), i == j ? 0 : -RP_ERR_TRACKING_ID);
    for (int i = 0; i < 3; i++)
        close_disk(all[i]);
    rp_buf_clear(&file);
}

static void an_unclean_end_counts_the_regions_that_were_set(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id ids[3];
    ids[0] = seal_disk(&d);
    ids[1] = seal_disk(&d);
    rp_rct_mark(d.rct, 0, 512);
    crash_disk(&d);
    assert_null(rp_rct_open_read(fs, "d", &d.facts, NULL));
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &ids[0]), REGION);
    assert_int_equal(changed(d.rct, &ids[1]), REGION);
    assert_true(rp_rct_newer_changes(d.rct));
    ids[2] = seal_disk(&d);
    assert_int_equal(changed(d.rct, &ids[2]), 0);
    crash_disk(&d);
    d.facts.file_write_guid = rp_guid_new(); // and somebody else repaired the disk before we came back
    assert_int_equal(open_disk(&d), RP_RCT_FOREIGN);
    for (int i = 0; i < 3; i++)
        assert_int_equal(changed(d.rct, &ids[i]), ALL);
    close_disk(&d);
}

static void recovery_makes_no_tracking_where_there_was_none(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    struct rp_error err = {0};
    bool exists;
    assert_null(rp_rct_recover(fs, "d", &d.facts, &err));
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    assert_int_equal(rp_fs_exists(fs, "d.rct", &exists, NULL), 0);
    assert_false(exists);
    open_disk(&d);
    crash_disk(&d);
    struct rp_buf before = read_file("d.rct");
    other_disk(&d.facts);
    err.code = RP_OK;
    assert_null(rp_rct_recover(fs, "d", &d.facts, &err));
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    struct rp_buf after = read_file("d.rct");
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, after.size);
    rp_buf_clear(&before);
    rp_buf_clear(&after);
}

static void tracking_that_begins_at_an_id_knows_that_one_and_no_other(void **state)
{
    (void)state;
    const struct rp_rct_id id = {rp_guid_new(), 7}, older = {id.tracking, 6}, younger = {id.tracking, 8}, impossible[] = {
        {id.tracking, 0}, {id.tracking, RP_RCT_EPOCH_LIMIT}, {id.tracking, UINT32_MAX}};
    for (int crash = 0; crash < 2; crash++) {
        struct rp_error err = {0};
        struct disk d = new_disk(crash ? "e" : "d");
        for (size_t i = 0; i < 3; i++, rp_error_clear(&err)) {
            assert_int_equal(rp_rct_begin_at(fs, d.path, &d.facts, &impossible[i], &err), -1);
            assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
        }
        if (rp_rct_begin_at(fs, d.path, &d.facts, &id, &err))
            fail_msg("%s", err.text);
        struct rp_rct *reader = rp_rct_open_read(fs, d.path, &d.facts, &err);
        assert_non_null(reader);
        assert_int_equal(changed(reader, &id), 0);
        assert_int_equal(changed(reader, &older), -RP_ERR_TRACKING_ID);
        assert_int_equal(changed(reader, &younger), -RP_ERR_TRACKING_ID);
        rp_rct_abandon(reader);
        assert_int_equal(rp_rct_begin_at(fs, d.path, &d.facts, &older, &err), -1);
        assert_int_equal(err.code, RP_ERR_EXISTS);

        assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
        rp_rct_mark(d.rct, 3 * UNIT, 512);
        assert_int_equal(changed(d.rct, &id), 1);
        struct rp_rct_id next = seal_disk(&d);
        assert_true(next.epoch > id.epoch);
        rp_rct_mark(d.rct, 5 * UNIT, 512);
        assert_int_equal(changed(d.rct, &id), 2);
        assert_int_equal(changed(d.rct, &next), 1);
        crash ? crash_disk(&d) : close_disk(&d);
        open_disk(&d);
        if (crash)
            assert_true(changed(d.rct, &id) >= 2);
        else
            assert_int_equal(changed(d.rct, &id), 2);
        close_disk(&d);
    }
}

static void a_damaged_page_counts_as_changed(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    rp_rct_mark(d.rct, 0, 512); // one value in each of the two pages
    rp_rct_mark(d.rct, SIZE - 512, 512);
    struct rp_rct_id id = seal_disk(&d);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    for (size_t bit = 0; bit < 8 * RP_RCT_PAGE_SIZE; bit += 97) {
        file.data[RP_RCT_PAGES_AT + bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_file("d.rct", file.data, file.size);
        file.data[RP_RCT_PAGES_AT + bit / 8] ^= (uint8_t)(1 << bit % 8);
        struct rp_rct *rct = rp_rct_open_read(fs, "d", &d.facts, NULL);
        assert_int_equal(changed(rct, &id), 126); // of 1600: the sector
        rp_rct_abandon(rct);
    }
    memset(file.data + RP_RCT_PAGES_AT, 0, RP_RCT_PAGE_SIZE); // as a lost write would leave it
    write_file("d.rct", file.data, file.size);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &id), 1008);
    id = seal_disk(&d);
    assert_int_equal(changed(d.rct, &id), 0);
    close_disk(&d);
    rp_buf_clear(&file);
}

static void a_file_cut_short_never_hides_a_change(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    rp_rct_mark(d.rct, 0, 512);
    rp_rct_mark(d.rct, SIZE - 512, 512);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    struct rp_rct_disk facts = d.facts;
    assert_int_equal(file.size, RP_RCT_PAGES_AT + 2 * RP_RCT_PAGE_SIZE);
    for (size_t size = 8; size <= file.size; size += size < file.size - 5000 ? 3989 : 1) {
        write_file("d.rct", file.data, size);
        d.facts = facts;
        open_disk(&d);
        int answer = changed(d.rct, &id);
        assert_true(answer == (size < file.size ? ALL : 2) || (size < file.size && answer == -RP_ERR_TRACKING_ID));
        close_disk(&d);
    }
    rp_buf_clear(&file);
}

static void a_damaged_slot_never_hides_a_change(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    close_disk(&d);
    open_disk(&d);
    rp_rct_mark(d.rct, 3 * UNIT, 1);
    close_disk(&d);
    struct rp_buf file = read_file("d.rct");
    struct rp_rct_disk facts = d.facts;
    for (unsigned lost = 1; lost < 4; lost++) { // slot A, B, both
        for (int part = 0; part < 3; part++) {
            static const size_t at[] = {100, RP_RCT_LINEAGE_AT, RP_RCT_BITMAP_AT};
            for (unsigned slot = 0; slot < 2; slot++)
                if (lost >> slot & 1)
                    file.data[slot * RP_RCT_SLOT_SIZE + at[part]] ^= 1;
            write_file("d.rct", file.data, file.size);
            for (unsigned slot = 0; slot < 2; slot++)
                if (lost >> slot & 1)
                    file.data[slot * RP_RCT_SLOT_SIZE + at[part]] ^= 1;
            d.facts = facts;
            enum rp_rct_verdict verdict = open_disk(&d);
            int answer = changed(d.rct, &id);
            if (answer >= 0)
                assert_true(answer == ALL || (verdict == RP_RCT_CLEAN && answer == 1));
            else
                assert_int_equal(answer, -RP_ERR_TRACKING_ID);
            close_disk(&d);
        }
    }
    rp_buf_clear(&file);
}

// Puts a value into both heads and makes all checksums right.
static void forge(const char *path, size_t at, uint32_t value, bool in_lineage)
{
    struct rp_buf file = read_file(path);
    for (size_t slot = 0; slot + RP_RCT_HEAD_SIZE <= file.size && slot <= RP_RCT_SLOT_SIZE; slot += RP_RCT_SLOT_SIZE) {
        uint8_t *head = file.data + slot, *lineage = head + RP_RCT_LINEAGE_AT;
        rp_put_le32(in_lineage ? lineage + at : head + at, value);
        rp_put_le32(head + 292, rp_crc32c(0, lineage, rp_get_le32(head + 288) * RP_RCT_SPAN_SIZE));
        rp_put_le32(head + 8, rp_crc32c_skip(head, RP_RCT_HEAD_SIZE, 8));
    }
    write_file(path, file.data, file.size);
    rp_buf_clear(&file);
}

static void impossible_values_are_damage(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        bool in_lineage;
    } lies[] = {
        {28, 1 << 16, false},      // a disk of 256 TiB
        {32, 96 << 10, false},     // a unit that is no power of two
        {32, 4096, false},         // too small
        {40, 0, false},            // epochs begin with 1
        {40, 1000, false},         // first after current
        {296, 0, false},           // bitmap too short
        {304, 65, false},          // floors
        {20, 1000, true},          // ids sealed in the future
        {16, 0, true},             // or in epoch 0
        {44, 0xFFFFFFFE, false},   // no damage, but hardly any epochs left: tracking starts anew
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct disk d = new_disk("d");
        open_disk(&d);
        struct rp_rct_id id = seal_disk(&d);
        close_disk(&d);
        assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
        close_disk(&d);
        open_disk(&d);
        close_disk(&d);
        forge("d.rct", lies[i].at, lies[i].value, lies[i].in_lineage);
        if (open_disk(&d) != RP_RCT_FOREIGN)
            fail_msg("lie %zu was believed", i);
        assert_int_equal(changed(d.rct, &id), -RP_ERR_TRACKING_ID);
        assert_int_equal(rp_rct_epoch(d.rct), 1);
        close_disk(&d);
        rp_fs_unlink(fs, "d.rct", NULL);
    }
}

// Where growths began is counted in units, and pages of the array are made for them.
static void a_growth_that_began_beyond_any_disk_is_damage(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    d.facts.virtual_size *= 2;
    assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
    close_disk(&d);
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    close_disk(&d);
    forge("d.rct", 312, 1 << 8, false); // unit 2^40 and some
    assert_int_equal(open_disk(&d), RP_RCT_FOREIGN);
    assert_int_equal(changed(d.rct, &id), -RP_ERR_TRACKING_ID);
    close_disk(&d);
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(a_file_that_is_not_ours_is_left_alone),
        TEST(a_file_of_a_later_version_is_left_alone),
        TEST(a_disk_changed_by_others_counts_as_changed_everywhere),
        TEST(a_disk_that_shrank_knows_no_older_id),
        TEST(rolling_back_both_files_is_exact_or_refused),
        TEST(rolling_back_a_live_disk_is_a_superset_or_refused),
        TEST(rolling_back_one_of_the_files_is_noticed),
        TEST(copies_never_share_an_id),
        TEST(an_unclean_end_counts_the_regions_that_were_set),
        TEST(recovery_makes_no_tracking_where_there_was_none),
        TEST(tracking_that_begins_at_an_id_knows_that_one_and_no_other),
        TEST(a_damaged_page_counts_as_changed),
        TEST(a_file_cut_short_never_hides_a_change),
        TEST(a_damaged_slot_never_hides_a_change),
        TEST(impossible_values_are_damage),
        TEST(a_growth_that_began_beyond_any_disk_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
