#include "diskservice/switch.h"

#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "io/shm.h"

// The file: whether it is announced, the length of the record, the record as in a slot of the chain record.
enum { SIZE_AT = 8, RECORD_AT = 16, FILE_SIZE = RECORD_AT + RP_RECORD_SLOT };
#define NAME "switch"

static atomic_uint *announced_in(struct rp_shm *shm) { return rp_shm_data(shm); }

void rp_switch_open(struct rp_engine *engine)
{
    struct rp_error err = {0};
    if (!engine->shm_directory)
        return;
    engine->announcement = rp_shm_create(engine->shm_directory, NAME, FILE_SIZE, &err);
    if (engine->announcement && rp_shm_reserve(engine->announcement, 0, RECORD_AT, &err)) {
        rp_shm_remove(engine->announcement);
        engine->announcement = NULL;
    }
    if (err.code)
        rp_log(RP_LOG_WARNING, "%s: a checkpoint cannot be taken over from a killed disk service: %s", engine->directory, err.text);
}

void rp_switch_close(struct rp_engine *engine, bool clean)
{
    clean ? rp_shm_remove(engine->announcement) : rp_shm_close(engine->announcement);
    engine->announcement = NULL;
}

static void put_down(struct rp_engine *engine, const struct rp_record *next)
{
    struct rp_shm *shm = engine->announcement;
    struct rp_error err = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf slot = {0};
    engine->prepared = false;
    if (!shm)
        return;
    if (rp_record_encode(next, &slot, &err) || rp_shm_reserve(shm, 0, RECORD_AT + slot.size, &err)) {
        rp_log(RP_LOG_WARNING, "%s: this checkpoint could not be taken over if the disk service were killed: %s", engine->directory, err.text);
        return;
    }
    uint8_t *data = rp_shm_data(shm);
    rp_put_le64(data + SIZE_AT, slot.size);
    memcpy(data + RECORD_AT, slot.data, slot.size);
    engine->prepared = true;
}

int rp_switch_prepare(struct rp_engine *engine, int (*note)(const void *context, struct rp_record *next, struct rp_error *err),
                      const void *context, struct rp_error *err)
{
    RP_AUTO_FREE struct rp_record *next = rp_xcalloc(1, sizeof *next);
    int failed = rp_record_copy(&engine->record, next, err) || note(context, next, err);
    next->generation++;
    if (!failed)
        put_down(engine, next);
    rp_record_clear(next);
    return failed ? -1 : 0;
}

void rp_switch_announce(struct rp_engine *engine)
{
    if (engine->prepared)
        atomic_store(announced_in(engine->announcement), 1);
}

void rp_switch_withdraw(struct rp_engine *engine)
{
    if (engine->prepared)
        atomic_store(announced_in(engine->announcement), 0);
    engine->prepared = false;
}

int rp_switch_left(struct rp_engine *engine, struct rp_record *next, struct rp_error *err)
{
    struct rp_error why = {0};
    RP_CLEANUP(rp_shm_close_p) struct rp_shm *shm = rp_shm_open(engine->shm_directory, NAME, &why);
    if (!shm)
        return why.code == RP_ERR_BUSY ? rp_fail(err, RP_ERR_BUSY, "%s", why.text) : 0;
    const uint8_t *data = rp_shm_data(shm);
    if (rp_shm_size(shm) != FILE_SIZE || !rp_shm_has(shm, 0, RECORD_AT) || !atomic_load(announced_in(shm)))
        return 0;
    uint64_t size = rp_get_le64(data + SIZE_AT);
    if (size > RP_RECORD_SLOT || rp_record_decode(data + RECORD_AT, size, next, &why)) {
        rp_log(RP_LOG_ERROR, "%s: what a killed disk service announced cannot be read: %s", engine->directory, why.text);
        return 0;
    }
    // An equal generation is in the record already. Any other is none that follows from it.
    if (next->generation == engine->record.generation + 1 && rp_guid_equal(&next->vm_id, &engine->record.vm_id))
        return 1;
    rp_record_clear(next);
    return 0;
}
