#include "diskservice/chains.h"
#include "vm.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "crashfs.h"
#include "disk/chain.h"

void vm_create(struct rp_fs *fs, const char *directory, size_t disks, uint64_t size)
{
    RP_AUTO_FREE struct rp_record *record = rp_xcalloc(1, sizeof *record);
    struct rp_error err = {0};
    record->vm_id = rp_guid_new();
    for (size_t i = 0; i < disks; i++) {
        struct rp_vhdx_create create = {.size = size, .block_size = 1 << 20, .disk_id = rp_guid_new()};
        struct rp_record_disk *disk = &record->disks[record->count++];
        *disk = (struct rp_record_disk){(uint32_t)i, create.disk_id, rp_xasprintf("%s/disk%zu.vhdx", directory, i)};
        if (rp_vhdx_create(fs, disk->leaf_path, &create, &err))
            fail_msg("%s", err.text);
    }
    if (rp_record_write(fs, directory, record, &err))
        fail_msg("%s", err.text);
    rp_record_clear(record);
}

struct rp_engine *vm_open_shared(struct rp_fs *fs, const char *directory, const char *shm)
{
    struct rp_error err = {0};
    struct rp_engine *engine = rp_engine_open(fs, directory, shm, &err);
    if (!engine)
        fail_msg("open: %s", err.text);
    return engine;
}

struct rp_engine *vm_open(struct rp_fs *fs, const char *directory) { return vm_open_shared(fs, directory, NULL); }

char *vm_shm_new(void)
{
    char *shm = rp_xstrdup("/dev/shm/rp-test-XXXXXX");
    assert_non_null(mkdtemp(shm));
    return shm;
}

void vm_shm_remove(const char *shm)
{
    rp_shm_clean(shm);
    rmdir(shm);
}

char *vm_leaf(struct rp_engine *engine, size_t disk)
{
    struct rp_engine_disk facts;
    rp_engine_disk(engine, disk, &facts);
    return facts.leaf_path;
}

void model_new(struct model *model, uint64_t size)
{
    model->size = size;
    model->cells = rp_xcalloc(size / VM_CELL, sizeof *model->cells);
}

void model_copy(struct model *to, const struct model *from)
{
    model_new(to, from->size);
    memcpy(to->cells, from->cells, from->size / VM_CELL * sizeof *to->cells);
}

void model_free(struct model *model)
{
    free(model->cells);
    *model = (struct model){0};
}

static void fill(uint8_t *data, uint64_t cell, uint64_t count, uint32_t value)
{
    for (uint64_t i = 0; i < count; i++)
        for (size_t j = 0; j < VM_CELL / 4; j++) {
            uint32_t word = value ? value * 2654435761u + (uint32_t)((cell + i) * 1024 + j) : 0;
            memcpy(data + i * VM_CELL + j * 4, &word, 4);
        }
}

static void note(struct model *model, uint64_t cell, uint64_t count, uint32_t value)
{
    for (uint64_t i = 0; i < count; i++)
        model->cells[cell + i] = value;
}

int model_write(struct model *model, struct rp_engine *engine, size_t disk, uint64_t cell, uint64_t count, uint32_t value)
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(count * VM_CELL);
    fill(data, cell, count, value);
    if (rp_engine_write(engine, disk, data, (uint32_t)(count * VM_CELL), cell * VM_CELL, false, NULL))
        return -1;
    note(model, cell, count, value);
    return 0;
}

int model_zero(struct model *model, struct rp_engine *engine, size_t disk, uint64_t cell, uint64_t count)
{
    if (rp_engine_zero(engine, disk, cell * VM_CELL, count * VM_CELL, false, NULL))
        return -1;
    note(model, cell, count, 0);
    return 0;
}

int model_change_some(struct model *model, struct rp_engine *engine, size_t disk, unsigned count, uint64_t *seed)
{
    uint64_t cells = model->size / VM_CELL;
    while (count--) {
        uint64_t n = test_random(seed) % 10 ? 1 + test_random(seed) % 24 : 256 + test_random(seed) % 300;
        n = rp_min64(n, cells);
        uint64_t cell = test_random(seed) % (cells - n + 1);
        int failed = test_random(seed) % 6 ? model_write(model, engine, disk, cell, n, 1 + (uint32_t)test_random(seed) % 1000000)
                                           : model_zero(model, engine, disk, cell, n);
        if (failed)
            return -1;
    }
    return 0;
}

static void check_cells(const struct model *model, const uint8_t *data, uint64_t first, uint64_t count, const char *what)
{
    uint8_t expected[VM_CELL];
    for (uint64_t i = 0; i < count; i++) {
        fill(expected, first + i, 1, model->cells[first + i]);
        if (memcmp(expected, data + i * VM_CELL, VM_CELL))
            fail_msg("%s: cell %llu is not what was written last (%u)", what, (unsigned long long)(first + i),
                     model->cells[first + i]);
    }
}

void model_check(const struct model *model, struct rp_engine *engine, size_t disk)
{
    enum { STEP = 256 };
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(STEP * VM_CELL);
    struct rp_error err = {0};
    for (uint64_t cell = 0; cell < model->size / VM_CELL; cell += STEP) {
        uint64_t n = rp_min64(STEP, model->size / VM_CELL - cell);
        if (rp_engine_read(engine, disk, data, (uint32_t)(n * VM_CELL), cell * VM_CELL, &err))
            fail_msg("read: %s", err.text);
        check_cells(model, data, cell, n, "engine");
    }
}

void model_settle(struct model *now, const struct model *flushed, struct rp_engine *engine, size_t disk)
{
    uint8_t got[VM_CELL], old[VM_CELL], new[VM_CELL];
    for (uint64_t i = 0; i < now->size / VM_CELL; i++) {
        if (now->cells[i] == flushed->cells[i])
            continue;
        fill(old, i, 1, flushed->cells[i]);
        fill(new, i, 1, now->cells[i]);
        assert_int_equal(rp_engine_read(engine, disk, got, VM_CELL, i * VM_CELL, NULL), 0);
        for (int at = 0; at < VM_CELL; at += 512)
            if (memcmp(got + at, old + at, 512) && memcmp(got + at, new + at, 512))
                fail_msg("cell %llu is neither what was flushed last (%u) nor what was written since (%u)", (unsigned long long)i,
                         flushed->cells[i], now->cells[i]);
        assert_int_equal(rp_engine_write(engine, disk, new, VM_CELL, i * VM_CELL, false, NULL), 0);
    }
}

void model_check_file(const struct model *model, struct rp_fs *fs, const char *path)
{
    enum { STEP = 256 };
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(STEP * VM_CELL);
    struct rp_error err = {0};
    struct rp_chain chain;
    if (rp_chain_open(fs, path, &chain, &err))
        fail_msg("%s", err.text);
    assert_int_equal(rp_vhdx_info(chain.layers[0])->size, model->size);
    for (uint64_t cell = 0; cell < model->size / VM_CELL; cell += STEP) {
        uint64_t n = rp_min64(STEP, model->size / VM_CELL - cell);
        if (rp_vhdx_read(chain.layers[0], data, (uint32_t)(n * VM_CELL), cell * VM_CELL, &err))
            fail_msg("read: %s", err.text);
        check_cells(model, data, cell, n, path);
    }
    rp_chain_close(&chain);
}

void model_check_cut(const struct model *before, const struct model *after, const struct rp_ranges *changed, const bool *regions)
{
    size_t at = 0;
    for (uint64_t unit = 0; unit * VM_UNIT < after->size; unit++) {
        uint64_t first = unit * (VM_UNIT / VM_CELL), end = rp_min64(first + VM_UNIT / VM_CELL, after->size / VM_CELL);
        bool differs = end > before->size / VM_CELL;
        for (uint64_t i = first; i < end && !differs; i++)
            differs = before->cells[i] != after->cells[i];
        while (at < changed->count && changed->items[at].offset + changed->items[at].length <= unit * VM_UNIT)
            at++;
        bool listed = at < changed->count && changed->items[at].offset <= unit * VM_UNIT;
        if (differs && !listed)
            fail_msg("unit %llu changed, and the answer does not list it", (unsigned long long)unit);
        if (regions && !regions[unit / (VM_REGION / VM_UNIT)] && listed && !differs)
            fail_msg("unit %llu did not change, and the answer lists it", (unsigned long long)unit);
    }
}

void model_check_changes(const struct model *before, const struct model *after, const struct rp_ranges *changed, bool exact)
{
    RP_AUTO_FREE bool *none = rp_xcalloc(rp_div_up(after->size, VM_REGION), sizeof *none);
    model_check_cut(before, after, changed, exact ? none : NULL);
}

struct rp_guid vm_operation(void) { return rp_guid_new(); }

void vm_merge_by(struct rp_engine *engine, bool rounds)
{
    struct rp_engine_merge_options options = {.pause_ms = rounds ? 1 : UINT_MAX, .checkpoint_ms = 1, .reader_ms = 1};
    rp_engine_set_merge_options(engine, &options);
}

void vm_no_leftovers(struct rp_engine *engine, struct rp_fs *fs, const char *directory)
{
    struct rp_record record;
    bool there;
    assert_int_equal(rp_record_read(fs, directory, &record, NULL), 0);
    for (size_t i = 0; i < record.scratch_count + record.merging_count; i++) {
        const char *path = i < record.scratch_count ? record.scratch[i] : record.merging[i - record.scratch_count];
        size_t disk, layer;
        assert_int_equal(rp_fs_exists(fs, path, &there, NULL), 0);
        if (there && !rp_engine_find_layer(engine, path, &disk, &layer))
            fail_msg("%s was left over", path);
        if (there && i >= record.scratch_count)
            fail_msg("%s is not merged", path);
    }
    rp_record_clear(&record);
}

int vm_checkpoint(struct rp_engine *engine, struct rp_rct_id *id, struct rp_error *err)
{
    struct rp_guid operation = vm_operation();
    RP_CLEANUP(rp_engine_checkpoint_clear) struct rp_engine_checkpoint made = {0};
    if (rp_engine_checkpoint(engine, &operation, &made, err))
        return -1;
    if (id)
        *id = made.disks[0].id;
    return 0;
}

void model_layers(struct model *now, struct model *then, struct rp_engine *engine, char **files, uint32_t count, struct rp_rct_id *id)
{
    for (uint32_t i = 0; i < count; i++) {
        files[i] = vm_leaf(engine, 0);
        assert_int_equal(model_write(now, engine, 0, i * 100, 300, i + 1), 0);
        if (!i)
            model_copy(then, now);
        if (i + 1 < count)
            assert_int_equal(vm_checkpoint(engine, i ? NULL : id, NULL), 0);
    }
}

int vm_merge(struct rp_engine *engine, const char *path, struct rp_error *err)
{
    struct rp_guid operation = rp_guid_new();
    return rp_engine_merge_start(engine, &operation, &path, 1, err) || rp_engine_merge_wait(engine, err) ? -1 : 0;
}

void vm_listen(enum rp_log_level level, const char *text)
{
    (void)level;
    if (getenv("RP_TEST_LOG"))
        fprintf(stderr, "%s\n", text);
}
