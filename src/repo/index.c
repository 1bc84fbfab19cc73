#include "repo/index.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/num.h"
#include "repo/damage.h"
#include "repo/index_roots.h"
#include "repo/index_segments.h"
#include "repo/pack_table.h"

#define TABLE_FIRST 4096u
#define TAIL_READ 65536u
#define TABLE_SPILL (512u << 10) // entries: 24 MiB at most, unless the cache cannot be written

// Entries of packs that this process wrote and no segment has yet: open addressing by prefix.
struct table {
    struct rp_entry *slots;
    size_t capacity, count; // capacity is a power of two
};

struct rp_index {
    struct rp_index_setup setup;
    pthread_rwlock_t lock;       // everything below
    struct rp_pack_table packs;
    struct rp_index_segments segments;
    struct table table;
    size_t spill_at;             // entries of the table
    bool spill_failed;           // and the administrator was told
    bool damaged;                // a segment lost entries; atomic, lookups share the lock
    pthread_mutex_t maintenance; // one refresh or merge at a time; taken before `lock`
    uint32_t looks;              // at the repository, so far
    uint32_t doubts;             // see rp_index_doubts
    uint32_t unread;             // packs that are still to be read in
    struct rp_error unread_why;  // of one of them
    uint32_t lost, lost_folders; // packs whose index the disk did not give, folders of packs, at the last look
    struct rp_error lost_why;    // of one of them
};

static bool empty(const struct rp_entry *entry) { return entry->at.stored == 0; }

static void table_insert(struct table *table, const struct rp_entry *entry)
{
    size_t mask = table->capacity - 1, i = (size_t)rp_get_le64(entry->prefix) & mask;
    while (!empty(&table->slots[i]))
        i = (i + 1) & mask;
    table->slots[i] = *entry;
    table->count++;
}

static void table_add(struct table *table, const struct rp_entry *entry)
{
    if (table->capacity < 2 * (table->count + 1)) {
        struct table larger = {NULL, table->capacity ? 2 * table->capacity : TABLE_FIRST, 0};
        larger.slots = rp_xcalloc(larger.capacity, sizeof *larger.slots);
        for (size_t i = 0; i < table->capacity; i++)
            if (!empty(&table->slots[i]))
                table_insert(&larger, &table->slots[i]);
        free(table->slots);
        *table = larger;
    }
    table_insert(table, entry);
}

static unsigned table_find(const struct table *table, const uint8_t *id, struct rp_location *out, unsigned max)
{
    unsigned found = 0;
    if (!table->capacity)
        return 0;
    size_t mask = table->capacity - 1;
    for (size_t i = (size_t)rp_get_le64(id) & mask; !empty(&table->slots[i]) && found < max; i = (i + 1) & mask)
        if (!memcmp(table->slots[i].prefix, id, RP_PREFIX_BYTES))
            out[found++] = table->slots[i].at;
    return found;
}

static void table_clear(struct table *table)
{
    free(table->slots);
    *table = (struct table){0};
}

// Under the write lock.
static int spill(struct rp_index *index, struct rp_error *err)
{
    struct table *table = &index->table;
    if (!table->count)
        return 0;
    size_t count = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (!empty(&table->slots[i]))
            table->slots[count++] = table->slots[i];
    int result = rp_index_segments_add(&index->segments, &index->packs, table->slots, count, err);
    if (result == 0) {
        table_clear(table);
        return 0;
    }
    // The order of the slots is lost: put the entries back.
    struct table again = {0};
    for (size_t i = 0; i < count; i++)
        table_add(&again, &table->slots[i]);
    table_clear(table);
    *table = again;
    return result;
}

// It was cut off, say: whoever changed it, what its index says is not there any more.
static bool has_other_size(const struct rp_pack_state *pack) { return pack->indexed && pack->size != pack->indexed_size; }

static bool usable(const struct rp_pack_state *pack, enum rp_index_use use)
{
    switch (use) {
    case RP_INDEX_GONE: return !pack->present;
    case RP_INDEX_SOUND: return pack->present && !pack->damaged && !has_other_size(pack);
    case RP_INDEX_WRITE: return pack->present && !pack->damaged && !has_other_size(pack) && !pack->tombstoned;
    default: return pack->present;
    }
}

unsigned rp_index_find(struct rp_index *index, const uint8_t id[RP_ID_BYTES], enum rp_index_use use,
                       struct rp_location out[RP_INDEX_MAX_COPIES])
{
    struct rp_location all[64]; // copies in packs that are gone must not hide the one that is there
    bool damaged = false;
    pthread_rwlock_rdlock(&index->lock);
    unsigned found = table_find(&index->table, id, all, 64);
    found += rp_index_segments_find(&index->segments, id, all + found, 64 - found, &damaged);
    unsigned kept = 0;
    for (unsigned i = 0; i < found && kept < RP_INDEX_MAX_COPIES; i++) {
        const struct rp_pack_state *pack = &index->packs.items[all[i].pack];
        if (usable(pack, use))
            out[kept++] = all[i];
    }
    pthread_rwlock_unlock(&index->lock);
    if (damaged)
        __atomic_store_n(&index->damaged, true, __ATOMIC_RELAXED);
    return kept;
}

static bool is_to_be_read(const struct rp_pack_state *pack)
{
    return pack->present && !pack->indexed && (!pack->unreadable || pack->passing || pack->lost);
}

// Under the write lock.
static void count_unread(struct rp_index *index)
{
    index->unread = index->lost = 0;
    for (uint32_t i = 0; i < index->packs.count; i++) {
        const struct rp_pack_state *pack = &index->packs.items[i];
        index->unread += is_to_be_read(pack) && !pack->lost;
        index->lost += is_to_be_read(pack) && pack->lost;
    }
}

// Under the write lock. A pack that was gone, and is not in the merged segment, is read in when it is back.
static void replace(struct rp_index *index, const uint32_t at[2], struct rp_segment *merged)
{
    rp_index_segments_replace(&index->segments, &index->packs, at[0], at[1], merged);
    for (size_t i = 0; i < index->table.capacity; i++)
        if (!empty(&index->table.slots[i]))
            index->packs.items[index->table.slots[i].at.pack].indexed = true;
    count_unread(index); // it may be back already
}

// Keeps the segments few. Merging runs without the lock: segments do not change, and only we replace them.
static void merge_segments(struct rp_index *index)
{
    struct rp_index_segments *set = &index->segments;
    pthread_mutex_lock(&index->maintenance);
    for (;;) {
        uint32_t at[2];
        bool *gone[2] = {NULL, NULL}, damaged = false, forgets = false;
        struct rp_segment *segments[2], *merged = NULL;
        pthread_rwlock_rdlock(&index->lock);
        bool needed = rp_index_segments_candidates(set, &at[0], &at[1]);
        for (int i = 0; needed && i < 2; i++) {
            segments[i] = set->items[at[i]].segment;
            gone[i] = rp_xcalloc(rp_segment_pack_count(segments[i]) + 1, sizeof(bool));
            for (uint32_t p = 0; p < rp_segment_pack_count(segments[i]); p++)
                forgets |= gone[i][p] = !index->packs.items[set->items[at[i]].numbers[p]].present && !index->lost_folders;
        }
        pthread_rwlock_unlock(&index->lock);
        if (!needed)
            break;
        if (forgets)
            rp_index_roots_forget(set->directory);
        int result = rp_index_segments_merge(set->directory, &set->repository, segments[0], segments[1], gone[0],
                                             gone[1], &merged, &damaged, NULL);
        free(gone[0]);
        free(gone[1]);
        pthread_rwlock_wrlock(&index->lock);
        if (result == 0)
            replace(index, at, merged);
        if (damaged)
            __atomic_store_n(&index->damaged, true, __ATOMIC_RELAXED);
        pthread_rwlock_unlock(&index->lock);
        if (result)
            break; // no space or damage: the segments stay as they are
    }
    pthread_mutex_unlock(&index->maintenance);
}

// Appending to the set while a merge runs is fine: positions of older segments stay. Where it fails, the table grows, and it
// is not tried again for every pack.
static bool spill_if(struct rp_index *index, bool at_once)
{
    struct rp_error err = {0};
    pthread_rwlock_wrlock(&index->lock);
    size_t count = index->table.count;
    bool full = count >= (at_once ? 1 : index->spill_at), tell = false;
    int result = full ? spill(index, &err) : 0;
    if (full)
        index->spill_at = result ? rp_max64(TABLE_SPILL, 2 * count) : TABLE_SPILL;
    if (result) {
        tell = !index->spill_failed;
        index->spill_failed = true;
    }
    pthread_rwlock_unlock(&index->lock);
    if (tell)
        rp_log(RP_LOG_WARNING, "the index cache in %s cannot be written, which costs memory and time: %s",
               index->segments.directory, err.text);
    if (full && !result)
        merge_segments(index);
    return result == 0;
}

bool rp_index_spill(struct rp_index *index) { return spill_if(index, true); }

static uint32_t add_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID], uint64_t size,
                         const struct rp_pack_index *content)
{
    pthread_rwlock_wrlock(&index->lock);
    uint32_t number = rp_pack_table_number(&index->packs, id);
    struct rp_pack_state *pack = &index->packs.items[number];
    pack->size = size;
    pack->indexed_size = (uint32_t)size;
    pack->present = true;
    pack->seen = index->looks;
    for (uint32_t f = 0; f < content->frame_count && !pack->indexed; f++) {
        const struct rp_pack_frame *frame = &content->frames[f];
        for (uint32_t slot = 0; slot < frame->count; slot++) {
            struct rp_entry entry = {.at = {.pack = number, .offset = frame->offset, .stored = frame->stored,
                                            .level = frame->level, .compression = frame->compression,
                                            .frame = (uint16_t)f, .slot = (uint8_t)slot,
                                            .last = (uint8_t)(frame->count - 1)}};
            memcpy(entry.prefix, content->ids + (size_t)(frame->first + slot) * RP_ID_BYTES, RP_PREFIX_BYTES);
            table_add(&index->table, &entry);
        }
    }
    pack->indexed = true;
    pack->unreadable = pack->lost = false;
    pthread_rwlock_unlock(&index->lock);
    return number;
}

uint32_t rp_index_add_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID], uint64_t size,
                           const struct rp_pack_index *content)
{
    uint32_t number = add_pack(index, id, size, content);
    spill_if(index, false);
    return number;
}

uint32_t rp_index_pack_count(struct rp_index *index)
{
    pthread_rwlock_rdlock(&index->lock);
    uint32_t count = index->packs.count;
    pthread_rwlock_unlock(&index->lock);
    return count;
}

void rp_index_pack(struct rp_index *index, uint32_t number, struct rp_index_pack *out)
{
    pthread_rwlock_rdlock(&index->lock);
    const struct rp_pack_state *pack = &index->packs.items[number];
    memcpy(out->id, pack->id, RP_PACK_ID);
    out->size = pack->size;
    out->indexed_size = pack->indexed_size;
    out->present = pack->present;
    out->tombstoned = pack->tombstoned;
    out->damaged = pack->damaged;
    out->unreadable = pack->unreadable;
    pthread_rwlock_unlock(&index->lock);
}

static bool is_doubtful(const struct rp_pack_state *pack)
{
    return (pack->indexed && !pack->present) || pack->unreadable ||
           (pack->present && (pack->damaged || has_other_size(pack)));
}

int rp_index_knows_all(struct rp_index *index, struct rp_error *err)
{
    int result = 0;
    pthread_rwlock_rdlock(&index->lock);
    if (index->unread)
        result = rp_fail(err, RP_ERR_IO, "%u pack%s could not be read: %s", index->unread, index->unread == 1 ? "" : "s",
                         index->unread_why.code ? index->unread_why.text : "not yet");
    pthread_rwlock_unlock(&index->lock);
    if (__atomic_load_n(&index->damaged, __ATOMIC_RELAXED))
        result = rp_fail(err, RP_ERR_IO, "%s: the index cache is damaged", index->segments.directory);
    return result;
}

int rp_index_was_given_all(struct rp_index *index, struct rp_error *err)
{
    int result = 0;
    pthread_rwlock_rdlock(&index->lock);
    if (index->lost || index->lost_folders)
        result = rp_fail_as(err, &index->lost_why);
    pthread_rwlock_unlock(&index->lock);
    return result;
}

// Of what the last look found, what was not so before.
static void count_doubts(struct rp_index *index)
{
    pthread_rwlock_wrlock(&index->lock);
    count_unread(index);
    for (uint32_t i = 0; i < index->packs.count; i++) {
        struct rp_pack_state *pack = &index->packs.items[i];
        bool before = pack->doubtful;
        pack->doubtful = is_doubtful(pack);
        index->doubts += pack->doubtful && !before;
    }
    pthread_rwlock_unlock(&index->lock);
}

uint32_t rp_index_doubts(struct rp_index *index)
{
    pthread_rwlock_rdlock(&index->lock);
    uint32_t doubts = index->doubts;
    pthread_rwlock_unlock(&index->lock);
    return doubts;
}

bool rp_index_is_complete(struct rp_index *index, const uint8_t root[RP_ID_BYTES])
{
    bool doubtful = false;
    pthread_rwlock_rdlock(&index->lock);
    for (uint32_t i = 0; i < index->packs.count && !doubtful; i++)
        doubtful = is_doubtful(&index->packs.items[i]) || (index->packs.items[i].present && index->packs.items[i].tombstoned);
    pthread_rwlock_unlock(&index->lock);
    return !doubtful && rp_index_roots_has(index->segments.directory, root);
}

void rp_index_set_complete(struct rp_index *index, const uint8_t root[RP_ID_BYTES], bool complete)
{
    if (complete)
        rp_index_roots_add(index->segments.directory, root);
    else
        rp_index_roots_remove(index->segments.directory, root);
}

uint64_t rp_index_entries(struct rp_index *index)
{
    pthread_rwlock_rdlock(&index->lock);
    uint64_t entries = index->table.count + rp_index_segments_entries(&index->segments);
    pthread_rwlock_unlock(&index->lock);
    return entries;
}

void rp_index_forget_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID])
{
    pthread_rwlock_wrlock(&index->lock);
    struct rp_pack_state *pack = rp_pack_table_get(&index->packs, id);
    pack->present = false;
    pack->discarded = true;
    pthread_rwlock_unlock(&index->lock);
}

// Segments that hold other packs, too, keep what they have of these until they are merged. Until then the next process finds
// packs missing, and looks at the trees it builds on: slower, and no less safe.
void rp_index_tidy(struct rp_index *index)
{
    pthread_mutex_lock(&index->maintenance);
    pthread_rwlock_wrlock(&index->lock);
    struct table kept = {0};
    for (size_t i = 0; i < index->table.capacity; i++) {
        const struct rp_entry *entry = &index->table.slots[i];
        if (!empty(entry) && !index->packs.items[entry->at.pack].discarded)
            table_add(&kept, entry);
    }
    table_clear(&index->table);
    index->table = kept;
    for (uint32_t i = 0; i < index->packs.count; i++)
        index->packs.items[i].indexed &= !index->packs.items[i].discarded;
    rp_index_segments_discard(&index->segments, &index->packs);
    pthread_rwlock_unlock(&index->lock);
    pthread_mutex_unlock(&index->maintenance);
}

// ---- refresh --------------------------------------------------------------------------------------------------------

int rp_index_read_pack(struct rp_backend *backend, const struct rp_crypto *crypto, const uint8_t id[RP_PACK_ID],
                       uint64_t *size, struct rp_pack_index *out, struct rp_error *err)
{
    char name[RP_PACK_NAME];
    uint8_t header[RP_PACK_HEADER], key[RP_KEY_BYTES];
    struct rp_pack_footer footer;
    rp_pack_name(id, name);
    if (!*size && backend->ops->size(backend, name, size, err))
        return -1;
    if (*size < RP_PACK_HEADER + RP_TAG_BYTES + RP_PACK_FOOTER || *size > RP_PACK_MAX_SIZE)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: %llu bytes are not a pack", name, (unsigned long long)*size);
    // Most indexes come with the footer in one read.
    size_t tail_size = (size_t)rp_min64(*size, TAIL_READ);
    RP_AUTO_FREE uint8_t *tail = rp_xmalloc(tail_size), *index = NULL;
    if (backend->ops->get(backend, name, *size - tail_size, tail, tail_size, err))
        return -1;
    const uint8_t *end = tail + tail_size - RP_PACK_FOOTER, *sealed;
    if (rp_pack_parse_footer(end, *size, &footer, err))
        return rp_context(err, "%s", name);
    if (footer.index_size + RP_PACK_FOOTER <= tail_size) {
        sealed = end - footer.index_size;
    } else {
        sealed = index = rp_xmalloc(footer.index_size);
        if (backend->ops->get(backend, name, footer.index_offset, index, footer.index_size, err))
            return -1;
    }
    rp_pack_header(id, rp_crypto_encrypted(crypto), header); // what it must be; a check compares it with what is there
    rp_crypto_derive(crypto, "refpoint 1 pack", id, RP_PACK_ID, key);
    RP_CLEANUP(rp_cipher_free_p) struct rp_cipher *cipher = rp_cipher_new(crypto);
    int result = rp_pack_open_index(cipher, key, header, end, &footer, sealed, out, err);
    rp_crypto_wipe(key, sizeof key);
    return result ? rp_context(err, "%s", name) : 0;
}

// One that cannot be listed comes by its name.
static void see_folder(struct rp_index *index, const char *name)
{
    uint8_t first;
    if (strncmp(name, "packs/", 6) || !rp_unhex(name + 6, &first, 1))
        return;
    index->lost_folders++;
    rp_error_clear(&index->lost_why);
    rp_fail_sys(&index->lost_why, EIO, "%s: list the packs in this folder", name);
}

static int see_pack(void *context, const char *name, uint64_t size)
{
    struct rp_index *index = context;
    uint8_t id[RP_PACK_ID];
    if (!rp_pack_parse_name(name, id)) {
        see_folder(index, name);
        return 0;
    }
    uint32_t number = rp_pack_table_number(&index->packs, id); // may move the items
    struct rp_pack_state *pack = &index->packs.items[number];
    if (pack->size != size)
        pack->unreadable = pack->lost = false;
    pack->size = size;
    pack->seen = index->looks;
    return 0;
}

// The pack that an object like "tombstones/<pack id>" is about; NULL for any other name.
static struct rp_pack_state *pack_named(struct rp_index *index, const char *prefix, const char *name)
{
    uint8_t id[RP_PACK_ID];
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) || strlen(name) != length + 2 * RP_PACK_ID || !rp_unhex(name + length, id, RP_PACK_ID))
        return NULL;
    return rp_pack_table_get(&index->packs, id);
}

static int see_tombstone(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct rp_pack_state *pack = pack_named(context, "tombstones/", name);
    if (pack)
        pack->seen_tombstone = true;
    return 0;
}

static int see_damage(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct rp_pack_state *pack = pack_named(context, RP_DAMAGED_PREFIX, name);
    if (pack)
        pack->seen_damage = true;
    return 0;
}

// One that fails leaves what the last one found.
static int look(struct rp_index *index, struct rp_error *err)
{
    const struct rp_backend *backend = index->setup.backend;
    index->looks++;
    index->lost_folders = 0;
    for (uint32_t i = 0; i < index->packs.count; i++)
        index->packs.items[i].seen_tombstone = index->packs.items[i].seen_damage = false;
    // Tombstones first: one that is gone by now went after its pack, which is not found then.
    if (backend->ops->list(index->setup.backend, "tombstones/", see_tombstone, index, err) ||
        backend->ops->list(index->setup.backend, "packs/", see_pack, index, err) ||
        backend->ops->list(index->setup.backend, RP_DAMAGED_PREFIX, see_damage, index, err))
        return -1;
    for (uint32_t i = 0; i < index->packs.count; i++) {
        struct rp_pack_state *pack = &index->packs.items[i];
        pack->present = pack->seen == index->looks;
        pack->tombstoned = pack->seen_tombstone;
        pack->damaged = pack->seen_damage;
    }
    return 0;
}

static void bad_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID], const struct rp_error *why)
{
    char name[RP_PACK_NAME];
    if (index->setup.bad_pack)
        index->setup.bad_pack(index->setup.context, rp_pack_name(id, name), why);
    else
        rp_log(RP_LOG_WARNING, "%s; run refpoint check", why->text);
}

// One pack that cannot be read must not keep the others from being.
static void read_in(struct rp_index *index, uint32_t number)
{
    struct rp_pack_index content;
    struct rp_error why = {0};
    pthread_rwlock_rdlock(&index->lock);
    struct rp_pack_state pack = index->packs.items[number];
    pthread_rwlock_unlock(&index->lock);
    if (!is_to_be_read(&pack))
        return;
    if (rp_index_read_pack(index->setup.backend, index->setup.crypto, pack.id, &pack.size, &content, &why) == 0) {
        rp_index_add_pack(index, pack.id, pack.size, &content);
        rp_pack_index_clear(&content);
        return;
    }
    bool collected = why.code == RP_ERR_NOT_FOUND; // meanwhile
    pthread_rwlock_wrlock(&index->lock);
    struct rp_pack_state *now = &index->packs.items[number];
    if (collected) {
        now->present = false;
    } else if (!now->indexed) { // by another look
        now->unreadable = true;
        now->passing = !rp_damage_is(&why);
        now->lost = !now->passing && why.code == RP_ERR_IO;
        if (now->passing)
            index->unread_why = why;
        if (now->lost) {
            index->lost_why = why;
            index->lost_why.sys = EIO; // with several of them it must not look as if it changed: rp_damage_stays
        }
    }
    pthread_rwlock_unlock(&index->lock);
    if (!collected && !pack.unreadable)
        bad_pack(index, pack.id, &why);
}

int rp_index_refresh(struct rp_index *index, struct rp_error *err)
{
    struct rp_error why = {0};
    pthread_mutex_lock(&index->maintenance);
    pthread_rwlock_wrlock(&index->lock);
    if (__atomic_load_n(&index->damaged, __ATOMIC_RELAXED)) { // start again from the packs
        rp_index_segments_drop(&index->segments);
        table_clear(&index->table);
        for (uint32_t i = 0; i < index->packs.count; i++)
            index->packs.items[i].indexed = false;
        __atomic_store_n(&index->damaged, false, __ATOMIC_RELAXED);
        index->doubts++; // nobody will miss a pack that only the segments knew
    }
    int result = look(index, &why);
    uint32_t count = index->packs.count;
    count_unread(index);
    if (result)
        index->unread_why = why;
    pthread_rwlock_unlock(&index->lock);
    pthread_mutex_unlock(&index->maintenance);
    if (result)
        return rp_damage_may_pass(err, &why);

    for (uint32_t i = 0; i < count; i++)
        read_in(index, i);
    count_doubts(index);
    return 0;
}

struct rp_index *rp_index_open(const struct rp_index_setup *setup, struct rp_error *err)
{
    struct rp_index *index = rp_xcalloc(1, sizeof *index);
    index->setup = *setup;
    index->spill_at = TABLE_SPILL;
    index->setup.directory = NULL; // borrowed by the caller for this call only
    pthread_rwlock_init(&index->lock, NULL);
    pthread_mutex_init(&index->maintenance, NULL);
    if (rp_index_segments_load(&index->segments, setup->directory, &setup->repository, &index->packs, err) ||
        rp_index_refresh(index, err)) {
        rp_index_close(index);
        return NULL;
    }
    return index;
}

void rp_index_discard(struct rp_index *index)
{
    if (!index)
        return;
    rp_index_segments_drop(&index->segments);
    table_clear(&index->table);
    rp_index_close(index);
}

void rp_index_close(struct rp_index *index)
{
    if (!index)
        return;
    rp_index_spill(index);
    table_clear(&index->table);
    rp_index_segments_clear(&index->segments);
    rp_pack_table_clear(&index->packs);
    pthread_rwlock_destroy(&index->lock);
    pthread_mutex_destroy(&index->maintenance);
    free(index);
}
