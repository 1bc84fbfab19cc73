// One tracker's promises, each on its own: ids, files that are not ours, copies and roll-backs, damage.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "rct/file.h"
#include "world.h"

#define SIZE (100 * RP_MIB)
#define UNIT ((uint64_t)WORLD_UNIT)

struct disk { // a disk file, its tracking file and the tracker
    const char *path;
    struct rp_rct_disk facts;
    struct rp_rct *rct;
};

static struct rp_fs *fs;

static int set_up(void **state)
{
    (void)state;
    fs = rp_fs_memory_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rp_fs_memory_free(fs);
    return 0;
}

static struct disk new_disk(const char *path)
{
    struct disk d = {.path = path};
    struct rp_guid disk_id = rp_guid_new();
    fake_disk_new(&d.facts, SIZE, &disk_id);
    return d;
}

static enum rp_rct_verdict open_disk(struct disk *d)
{
    struct rp_vhdx_session session = fake_session();
    struct rp_error err = {0};
    enum rp_rct_verdict verdict;
    d->rct = rp_rct_open_write(fs, d->path, &d->facts, &session, &verdict, &err);
    if (!d->rct)
        fail_msg("%s", err.text);
    fake_disk_written(&d->facts, &session);
    return verdict;
}

static void close_disk(struct disk *d)
{
    struct rp_error err = {0};
    if (rp_rct_close(d->rct, &d->facts, &err))
        fail_msg("%s", err.text);
    d->rct = NULL;
}

static void crash_disk(struct disk *d)
{
    rp_rct_abandon(d->rct);
    d->rct = NULL;
}

// A checkpoint that is merged back at once: the disk keeps its one file, and an id is published.
static struct rp_rct_id seal_disk(struct disk *d)
{
    struct disk child = {.path = "child"};
    fake_disk_new(&child.facts, d->facts.virtual_size, &d->facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    assert_non_null(child.rct = rp_rct_prepare_child(d->rct, child.path, &child.facts, &session, NULL));
    struct rp_rct_id id = rp_rct_seal(d->rct);
    assert_int_equal(rp_rct_freeze(d->rct, &d->facts, NULL), 0);
    session = fake_session();
    assert_int_equal(rp_rct_merge(child.rct, d->rct, &d->facts, &session, NULL), 0);
    fake_disk_written(&d->facts, &session);
    rp_rct_thaw(d->rct);
    rp_rct_abandon(child.rct);
    return id;
}

// Units changed since the id, or minus the error code.
static int changed(struct rp_rct *rct, const struct rp_rct_id *id)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    struct rp_error err = {0};
    if (rp_rct_query(&rct, 1, id, 0, SIZE, &found, &err))
        return -(int)err.code;
    return (int)rp_div_up(rp_ranges_total(&found), UNIT);
}
#define ALL ((int)(SIZE / UNIT))

static struct rp_buf read_file(const char *path)
{
    struct rp_buf content = {0};
    assert_int_equal(rp_fs_read_file(fs, path, 64 * RP_MIB, &content, NULL), 0);
    return content;
}

static void write_file(const char *path, const void *data, size_t size)
{
    assert_int_equal(rp_fs_replace_file(fs, path, data, size, NULL), 0);
}

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
        rp_put_le32(file.data + at + 12, 2);
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

static void an_unclean_end_counts_as_changed_everywhere(void **state)
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
    assert_int_equal(changed(d.rct, &ids[0]), ALL);
    assert_int_equal(changed(d.rct, &ids[1]), ALL);
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
        assert_int_equal(changed(rct, &id), 1020); // of 1600
        rp_rct_abandon(rct);
    }
    memset(file.data + RP_RCT_PAGES_AT, 0, RP_RCT_PAGE_SIZE); // as a lost write would leave it
    write_file("d.rct", file.data, file.size);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &id), 1020);
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

// Puts a value into both heads and makes all checksums right.
static void forge(const char *path, size_t at, uint32_t value, bool in_lineage)
{
    struct rp_buf file = read_file(path);
    for (size_t slot = 0; slot + RP_RCT_HEAD_SIZE <= file.size && slot <= RP_RCT_SLOT_SIZE; slot += RP_RCT_SLOT_SIZE) {
        uint8_t *head = file.data + slot, *lineage = head + RP_RCT_LINEAGE_AT;
        rp_put_le32(in_lineage ? lineage + at : head + at, value);
        rp_put_le32(head + 244, rp_crc32c(0, lineage, rp_get_le32(head + 240) * RP_RCT_SPAN_SIZE));
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
        {248, 0, false},           // bitmap too short
        {256, 65, false},          // floors
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
    struct rp_buf file = read_file("p.rct"); // a unit that only a larger disk would have: page 1 is gone with it
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
    assert_int_equal(changed(parent.rct, &id), 8); // two units of the larger kind
    rp_rct_abandon(child.rct);
    close_disk(&parent);
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(an_id_survives_text),
        TEST(only_ids_that_were_sealed_are_known),
        TEST(a_range_is_clipped_to_what_was_asked),
        TEST(a_file_that_is_not_ours_is_left_alone),
        TEST(a_file_of_a_later_version_is_left_alone),
        TEST(two_cannot_have_it_open),
        TEST(a_disk_changed_by_others_counts_as_changed_everywhere),
        TEST(a_disk_that_shrank_knows_no_older_id),
        TEST(rolling_back_both_files_is_exact_or_refused),
        TEST(rolling_back_a_live_disk_is_a_superset_or_refused),
        TEST(rolling_back_one_of_the_files_is_noticed),
        TEST(copies_never_share_an_id),
        TEST(an_unclean_end_counts_as_changed_everywhere),
        TEST(a_second_branch_above_a_frozen_file_has_ids_of_its_own),
        TEST(a_parent_written_behind_its_child_counts_as_changed),
        TEST(a_parent_written_by_a_session_that_crashed_counts_as_changed),
        TEST(recovery_makes_no_tracking_where_there_was_none),
        TEST(a_parent_opened_and_not_written_stays_exact),
        TEST(a_damaged_page_counts_as_changed),
        TEST(a_file_cut_short_never_hides_a_change),
        TEST(a_damaged_slot_never_hides_a_change),
        TEST(growth_is_a_change_of_the_new_space),
        TEST(a_huge_disk_costs_what_was_touched),
        TEST(the_lineage_forgets_only_the_oldest),
        TEST(impossible_values_are_damage),
        TEST(files_with_different_units_make_one_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
