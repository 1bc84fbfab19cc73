// The coarse bitmap: what is covered, what a cut adds, what it costs, and files that are not as they should be.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "rct/mrt.h"
#include "single.h"

#define REGION_SIZE ((uint64_t)REGION * UNIT)

static void write_disk(struct disk *d, uint64_t offset, uint64_t length)
{
    struct rp_error err = {0};
    if (!rp_rct_covered(d->rct, offset, length) && rp_rct_cover(d->rct, offset, length, &err))
        fail_msg("%s", err.text);
    assert_true(rp_rct_covered(d->rct, offset, length));
    rp_rct_mark(d->rct, offset, length);
}

static void flush_disk(struct disk *d)
{
    struct rp_gate *gate = rp_gate_new();
    struct rp_error err = {0};
    if (rp_rct_flush(d->rct, gate, &err))
        fail_msg("%s", err.text);
    rp_gate_free(gate);
}

static void cut_power(struct disk *d)
{
    crash_disk(d);
    rp_fs_memory_cut(fs);
}

static void a_region_is_durable_before_it_is_covered(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    unsigned long before = rp_fs_memory_syncs(fs);
    assert_false(rp_rct_covered(d.rct, 5 * REGION_SIZE - 512, 1024));
    write_disk(&d, 5 * REGION_SIZE - 512, 1024);
    assert_int_equal(rp_fs_memory_syncs(fs) - before, 1);
    assert_true(rp_rct_covered(d.rct, 4 * REGION_SIZE, 2 * REGION_SIZE));
    assert_false(rp_rct_covered(d.rct, 4 * REGION_SIZE, 2 * REGION_SIZE + 1));
    assert_int_equal(rp_rct_exposed(d.rct), 2 * REGION_SIZE);
    cut_power(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &id), 2 * REGION);
    assert_int_equal(rp_rct_exposed(d.rct), 0); // all of that is in the array now
    cut_power(&d);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &id), 2 * REGION);
    close_disk(&d);
}

static void after_a_flush_a_cut_adds_only_what_was_in_use(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    for (uint64_t r = 0; r < 20; r += 2)
        write_disk(&d, r * REGION_SIZE, 512);
    flush_disk(&d);
    assert_int_equal(rp_rct_exposed(d.rct), 10 * REGION_SIZE); // preset: they were in use
    write_disk(&d, 3 * REGION_SIZE, 512);
    flush_disk(&d);
    assert_int_equal(rp_rct_exposed(d.rct), REGION_SIZE);
    unsigned long before = rp_fs_memory_syncs(fs);
    for (uint64_t r = 0; r < 20; r += 2)
        write_disk(&d, r * REGION_SIZE, 512); // changed already in this epoch, durably: needs no region
    assert_int_equal(rp_fs_memory_syncs(fs), before);
    assert_false(rp_rct_covered(d.rct, 0, UNIT + 1)); // the next unit does
    cut_power(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &id), 10 + REGION);
    close_disk(&d);
}

static void a_change_of_an_earlier_epoch_covers_nothing(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    write_disk(&d, 0, 512);
    struct rp_rct_id id = seal_disk(&d);
    flush_disk(&d); // lets go of the region that was in use before
    flush_disk(&d);
    assert_int_equal(rp_rct_exposed(d.rct), 0);
    assert_int_equal(changed(d.rct, &id), 0);
    assert_false(rp_rct_covered(d.rct, 0, 512));
    close_disk(&d);
}

static void a_flush_of_nothing_writes_nothing(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    write_disk(&d, 0, 512);
    flush_disk(&d);
    flush_disk(&d);
    unsigned long before = rp_fs_memory_syncs(fs);
    flush_disk(&d);
    assert_int_equal(rp_rct_exposed(d.rct), 0);
    write_disk(&d, 0, 512);
    flush_disk(&d);
    assert_int_equal(rp_fs_memory_syncs(fs), before);
    close_disk(&d);
}

static void marks_without_asking_are_covered_all_the_same(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    rp_rct_mark(d.rct, 7 * REGION_SIZE - 1, 2);
    cut_power(&d);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &id), 2 * REGION);
    close_disk(&d);
}

static void a_stream_costs_a_sync_for_ever_more_regions(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    d.facts.virtual_size = 16 * RP_GIB + 512; // two sectors of the bitmap
    open_disk(&d);
    unsigned long before = rp_fs_memory_syncs(fs);
    for (uint64_t offset = 0; offset < d.facts.virtual_size - 512; offset += RP_MIB)
        write_disk(&d, offset, RP_MIB);
    unsigned long syncs = rp_fs_memory_syncs(fs) - before;
    printf("# 16 GiB in one stream: %lu syncs\n", syncs);
    assert_true(syncs >= 60 && syncs <= 80); // 4096 regions
    close_disk(&d);
}

static void a_child_begins_with_the_regions_that_its_parent_used(void **state)
{
    (void)state;
    struct disk d = new_disk("d"), child = {.path = "c"};
    open_disk(&d);
    write_disk(&d, 0, 512);
    flush_disk(&d);
    write_disk(&d, REGION_SIZE, 512);
    flush_disk(&d);
    write_disk(&d, 2 * REGION_SIZE, 512);
    write_disk(&d, REGION_SIZE, 512);
    fake_disk_new(&child.facts, SIZE, &d.facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    assert_non_null(child.rct = rp_rct_prepare_child(d.rct, "c", &child.facts, &session, NULL));
    fake_disk_written(&child.facts, &session);
    struct rp_rct_id id = rp_rct_seal(d.rct);
    close_disk(&d);
    assert_int_equal(rp_rct_exposed(child.rct), 2 * REGION_SIZE);
    assert_false(rp_rct_covered(child.rct, 0, 1));
    assert_true(rp_rct_covered(child.rct, REGION_SIZE, 2 * REGION_SIZE));
    cut_power(&child);
    open_disk(&child);
    assert_int_equal(changed(child.rct, &id), 2 * REGION);
    close_disk(&child);
}

static void growth_reaches_the_bitmap(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    write_disk(&d, 0, 512);
    d.facts.virtual_size = 40 * RP_GIB; // three sectors instead of one
    assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
    struct rp_rct_id id = seal_disk(&d);
    write_disk(&d, 35 * RP_GIB, 512);
    write_disk(&d, 40 * RP_GIB - 512, 512);
    cut_power(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, d.facts.virtual_size, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 3 * REGION_SIZE); // the first was in use when the session went on
    rp_ranges_clear(&r);
    close_disk(&d);
}

// Growth between a cover and the cut: the regions set so far are in the new file.
static void growth_loses_no_region(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    write_disk(&d, 9 * REGION_SIZE, 512);
    d.facts.virtual_size = 20 * RP_GIB;
    assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
    assert_true(rp_rct_covered(d.rct, 9 * REGION_SIZE, 512));
    cut_power(&d);
    open_disk(&d);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, SIZE, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), REGION_SIZE);
    rp_ranges_clear(&r);
    close_disk(&d);
}

static void a_parent_that_grows_by_a_merge_has_regions_for_it(void **state)
{
    (void)state;
    for (int prepared = 0; prepared < 2; prepared++) {
        struct disk d = new_disk("d"), child = {.path = "c"};
        open_disk(&d);
        fake_disk_new(&child.facts, SIZE, &d.facts.disk_id);
        struct rp_vhdx_session session = fake_session();
        assert_non_null(child.rct = rp_rct_prepare_child(d.rct, "c", &child.facts, &session, NULL));
        rp_rct_seal(d.rct);
        assert_int_equal(rp_rct_freeze(d.rct, &d.facts, NULL), 0);
        session = fake_session();
        if (prepared)
            assert_int_equal(rp_rct_prepare_merge(child.rct, d.rct, &d.facts, &session, NULL), 0);
        assert_int_equal(rp_rct_grow(child.rct, 20 * RP_GIB, NULL), 0);
        assert_int_equal(rp_rct_merge(child.rct, d.rct, &d.facts, &session, NULL), 0);
        fake_disk_written(&d.facts, &session);
        d.facts.virtual_size = 20 * RP_GIB;
        rp_rct_merged(d.rct);
        assert_int_equal(rp_rct_thaw(d.rct, NULL), 0);
        rp_rct_abandon(child.rct);
        struct rp_rct_id id = seal_disk(&d);
        write_disk(&d, 19 * RP_GIB, 512);
        cut_power(&d);
        assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
        struct rp_ranges r = {0};
        assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, 20 * RP_GIB, &r, NULL), 0);
        assert_int_equal(rp_ranges_total(&r), REGION_SIZE);
        rp_ranges_clear(&r);
        close_disk(&d);
        rp_rct_remove(fs, "d", NULL);
        rp_rct_remove(fs, "c", NULL);
    }
}

// More growths than the header can tell apart: what had to make room is in the array before the header is without it.
static void many_growths_are_durable(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id first = seal_disk(&d);
    for (int i = 0; i < 2 * RP_RCT_FLOORS_MAX; i++) {
        seal_disk(&d); // a floor for each epoch
        d.facts.virtual_size += UNIT;
        assert_int_equal(rp_rct_grow(d.rct, d.facts.virtual_size, NULL), 0);
    }
    cut_power(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &first, 0, d.facts.virtual_size, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 2 * RP_RCT_FLOORS_MAX * UNIT);
    rp_ranges_clear(&r);
    close_disk(&d);
}

static void a_bitmap_that_is_not_ours_is_left_alone(void **state)
{
    (void)state;
    static const char *const contents[] = {"", "x", "somebody else's", "RPCOARS"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        struct disk d = new_disk("d");
        write_file("d.mrt", contents[i], strlen(contents[i]));
        assert_int_equal(open_disk(&d), RP_RCT_NEW);
        struct rp_rct_id id = seal_disk(&d);
        assert_true(rp_rct_covered(d.rct, 0, SIZE)); // there is nothing to wait for
        assert_int_equal(rp_rct_cover(d.rct, 0, SIZE, NULL), 0);
        assert_int_equal(rp_rct_exposed(d.rct), SIZE);
        rp_rct_mark(d.rct, 0, 512);
        flush_disk(&d);
        assert_int_equal(changed(d.rct, &id), 1);
        cut_power(&d);
        assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
        assert_int_equal(changed(d.rct, &id), ALL);
        close_disk(&d);
        struct rp_buf after = read_file("d.mrt");
        assert_int_equal(after.size, strlen(contents[i]));
        assert_memory_equal(after.data ? (char *)after.data : "", contents[i], after.size);
        rp_buf_clear(&after);
        assert_int_equal(rp_rct_remove(fs, "d", NULL), 0);
        bool exists;
        assert_int_equal(rp_fs_exists(fs, "d.mrt", &exists, NULL), 0);
        assert_true(exists);
        rp_fs_unlink(fs, "d.mrt", NULL);
    }
}

// What an unclean end counts when the bitmap was tampered with: everything, or what is right.
static int after_tampering(void (*tamper)(struct rp_buf *mrt))
{
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    write_disk(&d, 0, 512);
    flush_disk(&d);
    write_disk(&d, 6 * REGION_SIZE, 512);
    cut_power(&d);
    struct rp_buf mrt = read_file("d.mrt");
    tamper(&mrt);
    rp_fs_unlink(fs, "d.mrt", NULL);
    if (mrt.size)
        write_file("d.mrt", mrt.data, mrt.size);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    int answer = changed(d.rct, &id);
    struct rp_rct_id next = seal_disk(&d);
    write_disk(&d, 0, 512);
    assert_int_equal(changed(d.rct, &next), 1);
    close_disk(&d);
    rp_buf_clear(&mrt);
    rp_rct_remove(fs, "d", NULL);
    rp_fs_unlink(fs, "d.mrt", NULL);
    return answer;
}

static void seal_header(uint8_t *at)
{
    if (rp_mrt_has_signature(at))
        rp_put_le32(at + 8, rp_crc32c_skip(at, RP_MRT_SECTOR_SIZE, 8));
}

static void nothing(struct rp_buf *m) { (void)m; }
static void gone(struct rp_buf *m) { m->size = 0; }
static void cut_short(struct rp_buf *m) { m->size -= 4096; }
static void newest_header(struct rp_buf *m)
{
    bool second = rp_get_le64(m->data + RP_MRT_SLOT_STEP + 16) > rp_get_le64(m->data + 16);
    m->data[(second ? RP_MRT_SLOT_STEP : 0) + 100] ^= 1;
}
static void both_headers(struct rp_buf *m) { m->data[20] ^= 1, m->data[RP_MRT_SLOT_STEP + 20] ^= 1; }
static void other_name(struct rp_buf *m)
{
    m->data[24] ^= 1, m->data[RP_MRT_SLOT_STEP + 24] ^= 1;
    seal_header(m->data), seal_header(m->data + RP_MRT_SLOT_STEP);
}
static void later_tracking(struct rp_buf *m) // it relies on a tracking header that is not there any more
{
    m->data[60] = 1, m->data[RP_MRT_SLOT_STEP + 60] = 1;
    seal_header(m->data), seal_header(m->data + RP_MRT_SLOT_STEP);
}
static void last_generation(struct rp_buf *m) // after which there is none
{
    memset(m->data + 40, 255, 16), memset(m->data + RP_MRT_SLOT_STEP + 40, 255, 16);
    seal_header(m->data), seal_header(m->data + RP_MRT_SLOT_STEP);
}
static void later_version(struct rp_buf *m)
{
    m->data[12] = 2, m->data[RP_MRT_SLOT_STEP + 12] = 2;
    seal_header(m->data), seal_header(m->data + RP_MRT_SLOT_STEP);
}
static void one_sector(struct rp_buf *m) { m->data[RP_MRT_AREAS_AT + 300] ^= 1, m->data[RP_MRT_AREAS_AT + 4396] ^= 1; }
static void zeros(struct rp_buf *m) { memset(m->data + RP_MRT_AREAS_AT, 0, m->size - RP_MRT_AREAS_AT); }

static void a_damaged_bitmap_never_hides_a_change(void **state)
{
    (void)state;
    assert_int_equal(after_tampering(nothing), 2 * REGION);
    assert_int_equal(after_tampering(newest_header), 2 * REGION); // the one before still has both generations
    assert_int_equal(after_tampering(gone), ALL);
    assert_int_equal(after_tampering(cut_short), ALL);
    assert_int_equal(after_tampering(both_headers), ALL);
    assert_int_equal(after_tampering(other_name), ALL);
    assert_int_equal(after_tampering(later_tracking), ALL);
    assert_int_equal(after_tampering(last_generation), ALL);
    assert_int_equal(after_tampering(later_version), ALL);
    assert_int_equal(after_tampering(one_sector), ALL);
    assert_int_equal(after_tampering(zeros), ALL);
}

// A tracking header that was durable, and that retired generations rely on, is lost to damage.
static void a_lost_tracking_header_is_noticed(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    write_disk(&d, 0, 512);
    flush_disk(&d); // writes the header that names the new page
    flush_disk(&d);
    assert_int_equal(rp_rct_exposed(d.rct), 0);
    crash_disk(&d);
    struct rp_buf file = read_file("d.rct");
    bool second = rp_get_le64(file.data + RP_RCT_SLOT_SIZE + 16) > rp_get_le64(file.data + 16);
    file.data[(second ? RP_RCT_SLOT_SIZE : 0) + 100] ^= 1;
    write_file("d.rct", file.data, file.size);
    rp_buf_clear(&file);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &id), ALL);
    close_disk(&d);
}

static void a_disk_put_back_from_a_copy_is_noticed(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    write_disk(&d, 0, 512);
    crash_disk(&d);
    d.facts.identity.inode++;
    assert_int_equal(open_disk(&d), RP_RCT_FOREIGN);
    assert_int_equal(changed(d.rct, &id), ALL);
    close_disk(&d);
}

static void nothing_of_ours_stays_when_a_disk_is_deleted(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    static const char *const names[] = {"d.rct", "d.mrt", "d.mrt.new"};
    open_disk(&d);
    crash_disk(&d);
    write_file("d.mrt.new", "half", 4);
    assert_int_equal(rp_rct_remove(fs, "d", NULL), 0);
    for (int i = 0; i < 3; i++) {
        bool exists;
        assert_int_equal(rp_fs_exists(fs, names[i], &exists, NULL), 0);
        assert_false(exists);
    }
    assert_int_equal(rp_rct_remove(fs, "d", NULL), 0);
}

// A power cut may make the new name of a file durable and not the end of the old one.
static void an_unfinished_file_beside_a_good_one_is_deleted(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    static const char *const names[] = {"d.rct.new", "d.mrt.new"};
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    close_disk(&d);
    for (int i = 0; i < 2; i++)
        write_file(names[i], "half", 4);
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    for (int i = 0; i < 2; i++) {
        bool exists;
        assert_int_equal(rp_fs_exists(fs, names[i], &exists, NULL), 0);
        assert_false(exists);
    }
    assert_int_equal(changed(d.rct, &id), 0);
    close_disk(&d);
}

// A writer has asked in the old generation, and is late with his mark. The flush may not let go of his region before.
struct flusher {
    struct disk *disk;
    struct rp_gate *gate;
    atomic_bool done;
};

static void *flush_beside(void *argument)
{
    struct flusher *f = argument;
    bool failed = rp_rct_flush(f->disk->rct, f->gate, NULL);
    atomic_store(&f->done, true);
    return failed ? "failed" : NULL;
}

static void a_flush_waits_for_writers_who_asked_before_it(void **state)
{
    (void)state;
    struct disk d = new_disk("d");
    open_disk(&d);
    struct rp_rct_id id = seal_disk(&d);
    assert_int_equal(rp_rct_cover(d.rct, 0, 512, NULL), 0);
    write_disk(&d, 9 * REGION_SIZE, 512);
    struct flusher f = {&d, rp_gate_new(), false};
    unsigned token = rp_gate_enter(f.gate);
    assert_true(rp_rct_covered(d.rct, 0, 512));
    pthread_t thread;
    pthread_create(&thread, NULL, flush_beside, &f);
    while (rp_rct_covered(d.rct, 0, 512)) // until the next generation has begun, without this region
        sched_yield();
    usleep(20000);
    assert_false(atomic_load(&f.done));
    unsigned long syncs = rp_fs_memory_syncs(fs);
    rp_rct_mark(d.rct, 0, 512);
    assert_int_equal(rp_fs_memory_syncs(fs), syncs); // it counts still
    rp_gate_leave(f.gate, token);
    void *why;
    pthread_join(thread, &why);
    assert_null(why);
    rp_gate_free(f.gate);
    cut_power(&d);
    open_disk(&d);
    assert_int_equal(changed(d.rct, &id), 1 + REGION); // in the array; and the one that was preset
    close_disk(&d);
}

// Many threads need a region at once: they share syncs.
enum { THREADS = 16, TOUCHES = 40 };
static struct disk storm;

static void *touch(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument;
    for (uint64_t i = 0; i < TOUCHES; i++) {
        uint64_t offset = (i * THREADS + number) * 3 * REGION_SIZE;
        if (!rp_rct_covered(storm.rct, offset, 512) && rp_rct_cover(storm.rct, offset, 512, NULL))
            return "failed";
        if (!rp_rct_covered(storm.rct, offset, 512))
            return "not covered";
        rp_rct_mark(storm.rct, offset, 512);
    }
    return NULL;
}

static void covers_from_many_threads_share_their_syncs(void **state)
{
    (void)state;
    struct rp_fs *memory = fs;
    fs = crashfs_new();
    crashfs_slow(fs, 10000);
    storm = new_disk("d");
    storm.facts.virtual_size = RP_TIB;
    open_disk(&storm);
    unsigned long before = crashfs_flushes(fs);
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, touch, (void *)(uintptr_t)i);
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        assert_null(why);
    }
    unsigned long syncs = crashfs_flushes(fs) - before;
    printf("# %d regions by %d threads: %lu syncs\n", THREADS * TOUCHES, THREADS, syncs);
    assert_true(syncs >= TOUCHES && syncs <= THREADS * TOUCHES / 4);
    assert_int_equal(rp_rct_exposed(storm.rct), THREADS * TOUCHES * REGION_SIZE);
    close_disk(&storm);
    crashfs_free(fs);
    fs = memory;
}

struct beside {
    struct rp_gate *gate;
    atomic_bool over;
    atomic_uint started, touched;
};

// As the data path does.
static void *touch_beside_flushes(void *argument)
{
    struct beside *b = argument;
    uint64_t number = atomic_fetch_add(&b->started, 1);
    for (uint64_t i = number; !atomic_load(&b->over); i += THREADS) {
        uint64_t offset = i * 3 * REGION_SIZE % RP_TIB;
        unsigned token = rp_gate_enter(b->gate);
        while (!rp_rct_covered(storm.rct, offset, 512)) {
            rp_gate_leave(b->gate, token);
            if (rp_rct_cover(storm.rct, offset, 512, NULL))
                return "failed";
            token = rp_gate_enter(b->gate);
        }
        rp_rct_mark(storm.rct, offset, 512);
        rp_gate_leave(b->gate, token);
        atomic_fetch_add(&b->touched, 1);
    }
    return NULL;
}

// A new generation forgets what was asked for in the one before: who waits for that must be woken, and ask again.
static void nobody_waits_for_ever_when_generations_begin_meanwhile(void **state)
{
    (void)state;
    struct rp_fs *memory = fs;
    fs = crashfs_new();
    crashfs_slow(fs, 200);
    storm = new_disk("d");
    storm.facts.virtual_size = RP_TIB;
    open_disk(&storm);
    struct beside b = {.gate = rp_gate_new()};
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, touch_beside_flushes, &b);
    for (unsigned i = 0, before = 0; i < 10; i++, before = atomic_load(&b.touched)) {
        assert_int_equal(rp_rct_flush(storm.rct, b.gate, NULL), 0);
        while (atomic_load(&b.touched) < before + THREADS) // all of them still get on
            sched_yield();
    }
    atomic_store(&b.over, true);
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        assert_null(why);
    }
    rp_gate_free(b.gate);
    close_disk(&storm);
    crashfs_free(fs);
    fs = memory;
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(a_region_is_durable_before_it_is_covered),
        TEST(after_a_flush_a_cut_adds_only_what_was_in_use),
        TEST(a_change_of_an_earlier_epoch_covers_nothing),
        TEST(a_flush_of_nothing_writes_nothing),
        TEST(marks_without_asking_are_covered_all_the_same),
        TEST(a_stream_costs_a_sync_for_ever_more_regions),
        TEST(a_child_begins_with_the_regions_that_its_parent_used),
        TEST(growth_reaches_the_bitmap),
        TEST(growth_loses_no_region),
        TEST(a_parent_that_grows_by_a_merge_has_regions_for_it),
        TEST(many_growths_are_durable),
        TEST(a_bitmap_that_is_not_ours_is_left_alone),
        TEST(a_damaged_bitmap_never_hides_a_change),
        TEST(a_lost_tracking_header_is_noticed),
        TEST(a_disk_put_back_from_a_copy_is_noticed),
        TEST(nothing_of_ours_stays_when_a_disk_is_deleted),
        TEST(an_unfinished_file_beside_a_good_one_is_deleted),
        TEST(a_flush_waits_for_writers_who_asked_before_it),
        TEST(covers_from_many_threads_share_their_syncs),
        TEST(nobody_waits_for_ever_when_generations_begin_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
