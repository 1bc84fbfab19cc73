// Random operations on disks whose power is cut at random moments. Every sector must read as it was last flushed, or as
// one of the writes since.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/vhdx.h"
#include "torn.h"

enum { SECTOR = 512, DISK = 12 << 20, SECTORS = DISK / SECTOR, BLOCK = 1 << 20, MAX_WRITE = 3 << 20 };

// A sector holds one number over and over: its stamp. Zeros are stamp 0.
struct recent {
    uint32_t sector, next; // index + 1 of the older one of this sector
    uint64_t stamp;
};

struct model {
    uint64_t random;
    struct rp_fs *fs;
    struct rp_vhdx *parent, *disk;
    const char *path;
    // Which part of the disk is used: so many sectors at the start of every stride-th block. With a stride, neighbours
    // have metadata pages of their own.
    uint32_t window;
    uint64_t stride;
    uint64_t flushed[SECTORS];
    uint64_t newest[SECTORS];
    uint32_t recent_of[SECTORS]; // index + 1 of the newest write since the last flush
    struct recent *recent;
    size_t count, capacity;
    uint64_t next_stamp;
    uint8_t *buffer;
};

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

static uint64_t place(const struct model *m, uint32_t sector)
{
    return sector / m->window * m->stride * BLOCK + (uint64_t)(sector % m->window) * SECTOR;
}

static void note(struct model *m, uint32_t sector, uint64_t stamp)
{
    if (m->count == m->capacity) {
        m->capacity = m->capacity ? 2 * m->capacity : 1024;
        m->recent = realloc(m->recent, m->capacity * sizeof *m->recent);
    }
    m->recent[m->count] = (struct recent){sector, m->recent_of[sector], stamp};
    m->recent_of[sector] = (uint32_t)++m->count;
    m->newest[sector] = stamp;
}

static void settle(struct model *m)
{
    memcpy(m->flushed, m->newest, sizeof m->flushed);
    memset(m->recent_of, 0, sizeof m->recent_of);
    m->count = 0;
}

static bool allowed(const struct model *m, uint32_t sector, uint64_t stamp)
{
    if (m->flushed[sector] == stamp)
        return true;
    for (uint32_t i = m->recent_of[sector]; i; i = m->recent[i - 1].next)
        if (m->recent[i - 1].stamp == stamp)
            return true;
    return false;
}

static void open_disk(struct model *m, unsigned flags)
{
    m->disk = rp_vhdx_open(m->fs, m->path, flags, NULL, &err);
    must(!m->disk);
    if (m->parent)
        must(rp_vhdx_set_parent(m->disk, m->parent, &err));
}

// Reads everything. `exact`: as last written, else as a crash may leave it; what is found then counts as flushed.
static void verify(struct model *m, bool exact)
{
    for (uint32_t s = 0; s < SECTORS; s += m->window)
        must(rp_vhdx_read(m->disk, m->buffer + (size_t)s * SECTOR, m->window * SECTOR, place(m, s), &err));
    for (uint32_t s = 0; s < SECTORS; s++) {
        const uint64_t *words = (const uint64_t *)(m->buffer + (size_t)s * SECTOR);
        for (unsigned i = 1; i < SECTOR / 8; i++)
            if (words[i] != words[0])
                fail_msg("sector %u is torn: %llx %llx", s, (unsigned long long)words[0], (unsigned long long)words[i]);
        if (exact ? words[0] != m->newest[s] : !allowed(m, s, words[0]))
            fail_msg("sector %u reads %llx, flushed %llx, newest %llx", s, (unsigned long long)words[0],
                     (unsigned long long)m->flushed[s], (unsigned long long)m->newest[s]);
        m->newest[s] = words[0];
    }
}

// The changes below note what they are about to do, and then fail where the machine stops: -1.
static int write_stamps(struct model *m, uint32_t sector, uint32_t count)
{
    uint64_t stamp = ++m->next_stamp;
    uint64_t *words = (uint64_t *)m->buffer;
    for (uint32_t i = 0; i < count * (SECTOR / 8); i++)
        words[i] = stamp;
    for (uint32_t i = 0; i < count; i++)
        note(m, sector + i, stamp);
    return rp_vhdx_write(m->disk, m->buffer, count * SECTOR, place(m, sector), &err);
}

static void note_zeros(struct model *m, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += SECTOR)
        if (at / BLOCK % m->stride == 0 && at % BLOCK / SECTOR < m->window)
            note(m, (uint32_t)(at / BLOCK / m->stride * m->window + at % BLOCK / SECTOR), 0);
}

static int zero_or_trim(struct model *m, bool trim, uint64_t offset, uint64_t length)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges preview = {0}, changed = {0};
    must((trim ? rp_vhdx_trim_preview : rp_vhdx_zero_preview)(m->disk, offset, length, &preview, &err));
    for (size_t i = 0; i < preview.count; i++)
        note_zeros(m, preview.items[i].offset, preview.items[i].length);
    if ((trim ? rp_vhdx_trim : rp_vhdx_zero)(m->disk, offset, length, &changed, &err))
        return -1;
    assert_int_equal(preview.count, changed.count);
    assert_memory_equal(preview.items, changed.items, changed.count * sizeof *changed.items);
    return 0;
}

static int random_change(struct model *m)
{
    uint32_t sector = (uint32_t)random_below(&m->random, SECTORS), count = 1 + (uint32_t)random_below(&m->random, 64);
    unsigned kind = (unsigned)random_below(&m->random, 20);
    if (kind > 16) // whole blocks
        sector = sector / m->window * m->window, count = m->window;
    else if (kind == 16)
        count = 1 + (uint32_t)random_below(&m->random, MAX_WRITE / SECTOR);
    uint32_t end = m->stride > 1 ? (sector / m->window + 1) * m->window : SECTORS;
    count = count > end - sector ? end - sector : count;
    unsigned verb = (unsigned)random_below(&m->random, 6);
    if (verb > 1)
        return write_stamps(m, sector, count);
    return zero_or_trim(m, verb == 1, place(m, sector), kind > 16 ? BLOCK : (uint64_t)count * SECTOR);
}

static int flush(struct model *m)
{
    if (rp_vhdx_flush(m->disk, &err))
        return -1;
    settle(m);
    return 0;
}

static void cut_and_check(struct model *m)
{
    torn_fs_cut(m->fs, &m->random, (unsigned)random_below(&m->random, 257));
    rp_vhdx_abandon(m->disk);
    if (m->parent) {
        rp_vhdx_abandon(m->parent);
        m->parent = rp_vhdx_open(m->fs, "parent.vhdx", RP_VHDX_READ, NULL, &err);
        must(!m->parent);
    }
    open_disk(m, RP_VHDX_READ); // replays in memory
    verify(m, false);
    rp_vhdx_abandon(m->disk);
    settle(m);
    open_disk(m, RP_VHDX_WRITE); // replays in the file
    verify(m, true);
}

static int reopen(struct model *m)
{
    struct rp_vhdx *disk = m->disk;
    m->disk = NULL;
    if (rp_vhdx_close(disk, &err))
        return -1;
    settle(m);
    open_disk(m, RP_VHDX_WRITE);
    assert_false(rp_vhdx_info(m->disk)->dirty_log);
    verify(m, true);
    return 0;
}

// Until the end of the round or of the power, whichever comes first.
static void round_of_changes(struct model *m)
{
    if (random_below(&m->random, 4))
        torn_fs_stop_after(m->fs, random_below(&m->random, 100));
    unsigned steps = (unsigned)random_below(&m->random, 40);
    for (unsigned i = 0; i < steps; i++)
        if (random_change(m) || (random_below(&m->random, 5) == 0 && flush(m)) ||
            (random_below(&m->random, 60) == 0 && reopen(m)))
            break;
    rp_error_clear(&err);
}

static struct model *new_model(bool child, uint64_t stride)
{
    struct model *m = calloc(1, sizeof *m);
    m->random = test_seed();
    m->stride = stride;
    m->window = stride > 1 ? 32 : BLOCK / SECTOR;
    m->fs = torn_fs_new();
    m->buffer = malloc(DISK);
    struct rp_vhdx_create create = {.size = SECTORS / m->window * stride * BLOCK, .block_size = BLOCK,
                                    .disk_id = rp_guid_new()};
    m->path = child ? "parent.vhdx" : "disk.vhdx";
    must(rp_vhdx_create(m->fs, m->path, &create, &err));
    if (!child)
        return m;
    open_disk(m, RP_VHDX_WRITE);
    for (int i = 0; i < 30; i++)
        random_change(m);
    settle(m);
    must(rp_vhdx_close(m->disk, &err));
    m->disk = NULL;
    struct rp_vhdx *parent = rp_vhdx_open(m->fs, m->path, RP_VHDX_READ, NULL, &err);
    must(!parent);
    create.parent_path = "parent.vhdx";
    create.parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid;
    m->path = "child.vhdx";
    must(rp_vhdx_create(m->fs, m->path, &create, &err));
    m->parent = parent;
    return m;
}

static void free_model(struct model *m)
{
    rp_vhdx_abandon(m->disk);
    rp_vhdx_abandon(m->parent);
    torn_fs_free(m->fs);
    free(m->recent);
    free(m->buffer);
    free(m);
}

static void crash_rounds(bool child, uint64_t stride)
{
    struct model *m = new_model(child, stride);
    const char *text = getenv("RP_TEST_ROUNDS");
    int rounds = text ? atoi(text) : 60;
    open_disk(m, RP_VHDX_WRITE);
    for (int i = 0; i < rounds; i++) {
        round_of_changes(m);
        cut_and_check(m);
    }
    free_model(m);
}

static void a_dynamic_disk_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    crash_rounds(false, 1);
}

static void a_differencing_disk_survives_power_cuts_at_any_moment(void **state)
{
    (void)state;
    crash_rounds(true, 1);
}

static void changes_spread_over_many_metadata_pages_survive_power_cuts(void **state)
{
    (void)state;
    crash_rounds(false, 600);
    crash_rounds(true, 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dynamic_disk_survives_power_cuts_at_any_moment),
        cmocka_unit_test(a_differencing_disk_survives_power_cuts_at_any_moment),
        cmocka_unit_test(changes_spread_over_many_metadata_pages_survive_power_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
