#include "ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "torn.h"

struct rp_error err;
char *shm_folder;

void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

int ledger_change(struct worker *w, uint32_t first, uint32_t count, uint64_t stamp, bool trim, struct rp_error *e)
{
    static _Thread_local uint64_t words[2 * BLOCK / 8];
    for (size_t i = 0; i < count * (size_t)(SECTOR / 8); i++)
        words[i] = stamp;
    atomic_store(&w->ledger->now[w->number].first, first);
    atomic_store(&w->ledger->now[w->number].stamp, stamp);
    atomic_store(&w->ledger->now[w->number].count, count);
    uint64_t offset = (uint64_t)first * SECTOR;
    int failed = stamp ? rp_vhdx_write(w->disk, words, count * SECTOR, offset, e)
                 : trim ? rp_vhdx_trim(w->disk, offset, count * (uint64_t)SECTOR, NULL, e)
                        : rp_vhdx_zero(w->disk, offset, count * (uint64_t)SECTOR, NULL, e);
    if (failed)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        w->ledger->stamps[first + i] = stamp;
    atomic_store(&w->ledger->now[w->number].count, 0);
    return 0;
}

int ledger_step(struct worker *w, struct rp_error *e)
{
    uint32_t per_block = BLOCK / SECTOR, block = (uint32_t)random_below(&w->random, BLOCKS);
    block = block / w->threads * w->threads + w->number;
    block = block < BLOCKS ? block : w->number;
    unsigned verb = (unsigned)random_below(&w->random, 24);
    if (verb == 0)
        return rp_vhdx_flush(w->disk, e);
    if (verb < 4)
        return ledger_change(w, block * per_block, per_block, 0, verb == 1, e);
    if (verb < 6)
        return ledger_change(w, block * per_block, per_block, next_random(&w->random) | 1, false, e);
    uint32_t within = (uint32_t)random_below(&w->random, per_block);
    uint32_t count = 1 + (uint32_t)random_below(&w->random, rp_min64(16, per_block - within));
    return ledger_change(w, block * per_block + within, count, next_random(&w->random) | 1, false, e);
}

static bool under_way(const struct ledger *l, uint32_t sector, uint64_t stamp)
{
    for (unsigned i = 0; i < THREADS; i++)
        if (sector >= l->now[i].first && sector - l->now[i].first < l->now[i].count && stamp == l->now[i].stamp)
            return true;
    return false;
}

void ledger_verify(struct rp_vhdx *disk, struct ledger *l, uint64_t seed)
{
    static uint64_t words[DISK / 8];
    must(rp_vhdx_read(disk, words, DISK, 0, &err));
    for (uint32_t s = 0; s < SECTORS; s++) {
        uint64_t *sector = words + (size_t)s * (SECTOR / 8);
        for (unsigned i = 1; i < SECTOR / 8; i++)
            if (sector[i] != sector[0])
                fail_msg("seed %llu: sector %u is torn", (unsigned long long)seed, s);
        if (sector[0] != l->stamps[s] && !under_way(l, s, sector[0]))
            fail_msg("seed %llu: sector %u reads %llx, %llx was acknowledged", (unsigned long long)seed, s,
                     (unsigned long long)sector[0], (unsigned long long)l->stamps[s]);
        l->stamps[s] = sector[0];
    }
    for (unsigned i = 0; i < THREADS; i++)
        l->now[i].count = 0;
}

struct rp_vhdx *ledger_open_shared(struct rp_fs *fs, const char *path, struct rp_vhdx *parent,
                                   const struct rp_vhdx_session *session)
{
    struct rp_vhdx *v = rp_vhdx_open(fs, path, RP_VHDX_WRITE, session, &err);
    must(!v || (parent && rp_vhdx_set_parent(v, parent, &err)));
    struct rp_shm *shm = rp_shm_create(shm_folder, "disk", rp_vhdx_shm_size(), &err);
    must(!shm || rp_vhdx_share(v, shm, &err));
    return v;
}

int ledger_adopt(struct rp_fs *fs, const char *path, struct rp_error *e)
{
    struct rp_shm *shm = rp_shm_open(shm_folder, "disk", e);
    if (!shm)
        return -1;
    int failed = rp_vhdx_adopt(fs, path, 0, shm, e);
    rp_shm_close(shm);
    return failed;
}

void ledger_check_clean(struct rp_fs *fs, const char *path, struct rp_vhdx *parent, struct ledger *l, uint64_t seed)
{
    struct rp_vhdx *v = rp_vhdx_open(fs, path, RP_VHDX_READ, NULL, &err);
    must(!v || (parent && rp_vhdx_set_parent(v, parent, &err)));
    assert_false(rp_vhdx_info(v)->dirty_log);
    ledger_verify(v, l, seed);
    rp_vhdx_abandon(v);
}

struct rp_vhdx *ledger_make(struct rp_fs *fs, const char *parent, const char *path, struct ledger *l)
{
    struct rp_vhdx_create create = {.size = DISK, .block_size = BLOCK, .disk_id = rp_guid_new()};
    struct rp_vhdx *v = NULL;
    memset(l, 0, sizeof *l);
    if (parent) {
        must(rp_vhdx_create(fs, parent, &create, &err));
        v = rp_vhdx_open(fs, parent, RP_VHDX_WRITE, NULL, &err);
        must(!v);
        uint8_t *data = malloc(DISK / 2);
        memset(data, 0x55, DISK / 2);
        for (uint32_t i = 0; i < SECTORS / 2; i++)
            l->stamps[i] = 0x5555555555555555;
        must(rp_vhdx_write(v, data, DISK / 2, 0, &err) || rp_vhdx_freeze(v, &err));
        free(data);
        create.parent_path = parent;
        create.parent_data_write_guid = rp_vhdx_info(v)->data_write_guid;
    }
    must(rp_vhdx_create(fs, path, &create, &err));
    memcpy(l->flushed, l->stamps, sizeof l->stamps);
    return v;
}

int ledger_make_folder(void **state)
{
    static char name[] = "/dev/shm/refpoint-test-XXXXXX";
    (void)state;
    shm_folder = mkdtemp(name);
    return shm_folder ? 0 : -1;
}

int ledger_remove_folder(void **state)
{
    (void)state;
    rp_shm_clean(shm_folder);
    return 0;
}
