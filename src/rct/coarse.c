#include "rct/coarse.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/num.h"

enum {
    WORDS_MAX = RP_MRT_SECTORS_MAX * RP_MRT_SECTOR_WORDS,
    MEMORY = 7 * WORDS_MAX * 8 + RP_MRT_SECTORS_MAX,
    AHEAD_MAX = 64, // 256 MiB of a stream
};

void rp_rct_coarse_init(struct rp_rct_coarse *c, struct rp_fs *fs, const char *disk_path)
{
    c->fs = fs;
    c->path = rp_xasprintf("%s.mrt", disk_path);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    for (int i = 0; i < 2; i++)
        pthread_cond_init(&c->batched[i], NULL);
}

void rp_rct_coarse_free(struct rp_rct_coarse *c)
{
    rp_store_close(c->store);
    if (c->memory)
        munmap(c->memory, MEMORY);
    free(c->path);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->idle);
    for (int i = 0; i < 2; i++)
        pthread_cond_destroy(&c->batched[i]);
}

static size_t words_of(const struct rp_rct_coarse *c) { return (size_t)c->header.sectors * RP_MRT_SECTOR_WORDS; }

// Room for 64 TiB, so that growth moves nothing that others are reading. What is never touched takes no memory.
static void make_memory(struct rp_rct_coarse *c)
{
    if (c->memory)
        return;
    c->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->memory == MAP_FAILED)
        abort(); // as rp_xmalloc does
    madvise(c->memory, MEMORY, MADV_NOHUGEPAGE);
    uint64_t *bitmap = c->memory;
    for (int i = 0; i < 2; i++, bitmap += 3 * WORDS_MAX)
        c->generations[i] = (struct rp_rct_generation){.set = (rp_rct_bits *)bitmap,
                                                       .fresh = (rp_rct_bits *)(bitmap + WORDS_MAX),
                                                       .written = (rp_rct_bits *)(bitmap + 2 * WORDS_MAX)};
    c->asked = bitmap;
    c->dirty = (uint8_t *)(bitmap + WORDS_MAX);
}

static void wipe_generation(struct rp_rct_coarse *c, struct rp_rct_generation *g, uint64_t number)
{
    size_t size = words_of(c) * sizeof *g->set;
    memset((void *)g->set, 0, size);
    memset((void *)g->fresh, 0, size);
    memset((void *)g->written, 0, size);
    g->number = number;
    atomic_store(&g->count, 0);
}

// Sets a word of `set`; counts. Only one thread does.
static void set_word(struct rp_rct_generation *g, size_t at, uint64_t bits)
{
    uint64_t before = atomic_fetch_or_explicit(&g->set[at], bits, memory_order_release);
    atomic_fetch_add(&g->count, (uint64_t)__builtin_popcountll(bits & ~before));
}

static void snapshot_sector(const rp_rct_bits *bits, uint32_t index, uint64_t words[RP_MRT_SECTOR_WORDS])
{
    for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
        words[i] = atomic_load_explicit(&bits[(size_t)index * RP_MRT_SECTOR_WORDS + i], memory_order_relaxed);
}

static bool any(const uint64_t words[RP_MRT_SECTOR_WORDS])
{
    for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
        if (words[i])
            return true;
    return false;
}

static int write_header(struct rp_rct_coarse *c, struct rp_error *err)
{
    uint8_t sector[RP_MRT_SECTOR_SIZE];
    c->header.sequence++;
    rp_mrt_header_encode(&c->header, sector);
    if (!rp_store_pwrite(c->store, sector, sizeof sector, c->header.sequence % 2 ? 0 : RP_MRT_SLOT_STEP, err))
        return 0;
    c->header.sequence--; // the next one goes over what may be there in part
    return -1;
}

static int write_sector(struct rp_rct_coarse *c, uint64_t generation, uint32_t index,
                        const uint64_t words[RP_MRT_SECTOR_WORDS], struct rp_error *err)
{
    uint8_t sector[RP_MRT_SECTOR_SIZE];
    rp_mrt_sector_encode(&c->header.name, generation, index, words, sector);
    return rp_store_pwrite(c->store, sector, sizeof sector, rp_mrt_sector_at(c->header.sectors, generation, index), err);
}

// The newest header. *ours false: no signature of ours, or of a later version.
static int read_header(struct rp_store *store, struct rp_mrt_header *newest, bool *ours, struct rp_error *err)
{
    uint64_t size;
    *newest = (struct rp_mrt_header){0};
    *ours = false;
    bool later = false;
    if (rp_store_size(store, &size, err))
        return -1;
    for (int i = 0; i < 2; i++) {
        uint8_t sector[RP_MRT_SECTOR_SIZE] = {0};
        struct rp_mrt_header header;
        struct rp_error why = {0};
        uint64_t at = (uint64_t)i * RP_MRT_SLOT_STEP;
        if (size < at + 8)
            break;
        if (rp_store_pread(store, sector, (size_t)rp_min64(sizeof sector, size - at), at, err))
            return -1;
        *ours |= rp_mrt_has_signature(sector);
        if (!rp_mrt_header_decode(sector, &header, &why) && header.sequence > newest->sequence)
            *newest = header;
        later |= why.code == RP_ERR_UNSUPPORTED;
    }
    *ours &= !later;
    return 0;
}

// Opens what is there: c->store stays NULL when nothing is.
static int look(struct rp_rct_coarse *c, struct rp_mrt_header *header, bool *ours, struct rp_error *err)
{
    bool exists;
    if (rp_fs_exists(c->fs, c->path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    c->store = rp_fs_open(c->fs, c->path, RP_OPEN_WRITE, err);
    return !c->store || read_header(c->store, header, ours, err) ? -1 : 0;
}

// What a killed process, or a power cut that kept the new name of a file and not the end of the old one, left.
static int remove_unfinished(struct rp_rct_coarse *c, struct rp_error *err)
{
    RP_AUTO_FREE char *unfinished = rp_xasprintf("%s.new", c->path);
    return rp_fs_unlink_if_there(c->fs, unfinished, err);
}

// A new file with the newest generation, and the one before if that still counts. All of it is written, so that setting a
// bit later changes one sector and nothing that the file system keeps about the file.
static int create_file(struct rp_rct_coarse *c, const struct rp_rct_generation *g, const struct rp_rct_generation *before,
                       struct rp_error *err)
{
    RP_AUTO_FREE char *temporary = rp_xasprintf("%s.new", c->path);
    if (remove_unfinished(c, err))
        return -1;
    size_t size = (size_t)rp_mrt_file_size(c->header.sectors);
    RP_AUTO_FREE uint8_t *image = rp_xcalloc(1, size);
    for (uint32_t i = 0; i < c->header.sectors; i++) {
        uint64_t words[RP_MRT_SECTOR_WORDS] = {0};
        if (before)
            snapshot_sector(before->set, i, words);
        rp_mrt_sector_encode(&c->header.name, g->number - 1, i, words,
                             image + rp_mrt_sector_at(c->header.sectors, g->number - 1, i));
        snapshot_sector(g->set, i, words);
        rp_mrt_sector_encode(&c->header.name, g->number, i, words,
                             image + rp_mrt_sector_at(c->header.sectors, g->number, i));
    }
    struct rp_store *store = rp_fs_open(c->fs, temporary, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store)
        return -1;
    struct rp_store *old = c->store;
    uint64_t sequence = c->header.sequence;
    c->store = store;
    c->header.sequence = 0;
    if (rp_store_pwrite(store, image, size, 0, err) || write_header(c, err) || rp_store_flush(store, err) ||
        rp_fs_rename(c->fs, temporary, c->path, err)) {
        rp_fs_unlink(c->fs, temporary, NULL);
        rp_store_close(store);
        c->store = old;
        c->header.sequence = sequence;
        return -1;
    }
    rp_store_close(old);
    return rp_fs_sync_parent(c->fs, c->path, err);
}

// The old bitmap's sectors have another name: they are empty from the moment that the header has the new one.
static int reuse_file(struct rp_rct_coarse *c, const rp_rct_bits *presets, struct rp_error *err)
{
    if (remove_unfinished(c, err))
        return -1;
    for (uint32_t i = 0; i < c->header.sectors; i++) {
        uint64_t words[RP_MRT_SECTOR_WORDS];
        snapshot_sector(presets, i, words);
        if (any(words) && write_sector(c, c->header.newest, i, words, err))
            return -1;
    }
    return write_header(c, err) || rp_store_flush(c->store, err) ? -1 : 0;
}

static void close_store(struct rp_rct_coarse *c)
{
    rp_store_close(c->store);
    c->store = NULL;
}

// The regions that `like` wrote to in its last two generations. They count as written here, too: who takes over from this one,
// perhaps soon, shall have them as well.
static void preset_like(struct rp_rct_generation *g, struct rp_rct_coarse *like, uint64_t regions)
{
    pthread_mutex_lock(&like->lock);
    size_t words = rp_min64(rp_div_up(regions, 64), words_of(like));
    for (int i = 0; i < 2 && atomic_load(&like->current); i++)
        for (size_t w = 0; w < words; w++) {
            uint64_t lately = atomic_load_explicit(&like->generations[i].written[w], memory_order_relaxed);
            set_word(g, w, lately);
            atomic_fetch_or_explicit(&g->written[w], lately, memory_order_relaxed);
        }
    pthread_mutex_unlock(&like->lock);
}

int rp_rct_coarse_start(struct rp_rct_coarse *c, uint64_t virtual_size, struct rp_rct_coarse *like, bool *begun,
                        struct rp_error *err)
{
    struct rp_mrt_header there = {0};
    bool ours = false;
    rp_rct_coarse_stop(c);
    *begun = false;
    if (look(c, &there, &ours, err)) {
        close_store(c);
        return -1;
    }
    if (c->store && !ours) {
        rp_log(RP_LOG_WARNING, "%s: not a file of ours, left alone: after a crash all of the disk will count as changed",
               c->path);
        close_store(c);
        return 0;
    }
    uint32_t sectors = rp_mrt_sectors(virtual_size);
    uint64_t size = 0;
    if (c->store && rp_store_size(c->store, &size, err)) {
        close_store(c);
        return -1;
    }
    c->regions = rp_mrt_regions(virtual_size);
    c->failed = false;
    c->header = (struct rp_mrt_header){.name = rp_guid_new(), .sequence = there.sequence, .oldest = 1, .newest = 1,
                                       .sectors = sectors};
    make_memory(c);
    for (int i = 0; i < 2; i++)
        wipe_generation(c, &c->generations[i], (uint64_t)i);
    struct rp_rct_generation *first = &c->generations[1];
    if (like)
        preset_like(first, like, c->regions);
    memset(c->dirty, 0, sectors);
    for (size_t w = 0; w < words_of(c); w++)
        c->asked[w] = atomic_load(&first->set[w]);
    bool fits = c->store && there.sequence && there.sectors == sectors && size == rp_mrt_file_size(sectors);
    if (fits ? reuse_file(c, first->set, err) : create_file(c, first, NULL, err)) {
        close_store(c);
        return -1;
    }
    atomic_store(&c->current, first);
    *begun = true;
    return 0;
}

void rp_rct_coarse_stop(struct rp_rct_coarse *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->busy)
        pthread_cond_wait(&c->idle, &c->lock);
    atomic_store(&c->current, NULL);
    atomic_store(&c->previous, NULL);
    close_store(c);
    pthread_mutex_unlock(&c->lock);
}

bool rp_rct_coarse_holds(struct rp_rct_coarse *c, uint64_t region)
{
    struct rp_rct_generation *g = atomic_load_explicit(&c->current, memory_order_acquire);
    if (!g || rp_rct_bit(g->set, region))
        return true;
    g = atomic_load_explicit(&c->previous, memory_order_acquire);
    return g && rp_rct_bit(g->set, region);
}

// One caller at a time has the file, without the lock. Batches wait, or a storm of them could hold up a flush for long.
static void take(struct rp_rct_coarse *c)
{
    c->takers++;
    while (c->busy)
        pthread_cond_wait(&c->idle, &c->lock);
    c->takers--;
    c->busy = true;
}

// One of those who wait for the next batch shall write it: the others sleep on until it is durable.
static void wake_writer(struct rp_rct_coarse *c) { pthread_cond_signal(&c->batched[(c->batches + 1) % 2]); }

// What finds no room is written again when there is some. After any other failure nobody knows what the file says.
static bool is_final(const struct rp_error *why) { return why->code != RP_OK && why->code != RP_ERR_NO_SPACE; }

static void give_back(struct rp_rct_coarse *c, bool failed)
{
    c->busy = false;
    c->failed |= failed;
    pthread_cond_broadcast(&c->idle);
    if (failed) // who waits for the next batch waits for nothing
        pthread_cond_broadcast(&c->batched[(c->batches + 1) % 2]);
    else
        wake_writer(c);
}

static bool all_set(const struct rp_rct_generation *g, uint64_t first, uint64_t last)
{
    while (first <= last && rp_rct_bit(g->set, first))
        first++;
    return first > last;
}

static int refused(struct rp_rct_coarse *c, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", c->path);
}

// Writes every sector in which something is asked for, for everybody who waits. Called and left with the lock held. Without
// room for all of them none counts: each may be there in part, and is written once more by whoever tries next.
static int write_asked(struct rp_rct_coarse *c, struct rp_rct_generation *g, struct rp_error *err)
{
    uint32_t count = 0, sectors = c->header.sectors;
    for (uint32_t i = 0; i < sectors; i++)
        count += c->dirty[i];
    RP_AUTO_FREE uint32_t *indexes = rp_xmalloc(count * sizeof *indexes);
    RP_AUTO_FREE uint64_t *words = rp_xmalloc((size_t)count * RP_MRT_SECTOR_WORDS * sizeof *words);
    for (uint32_t i = 0, n = 0; i < sectors && n < count; i++)
        if (c->dirty[i]) {
            c->dirty[i] = 0;
            memcpy(words + (size_t)n * RP_MRT_SECTOR_WORDS, c->asked + (size_t)i * RP_MRT_SECTOR_WORDS,
                   RP_MRT_SECTOR_WORDS * sizeof *words);
            indexes[n++] = i;
        }
    uint64_t batch = ++c->batches;
    c->busy = true;
    pthread_mutex_unlock(&c->lock);
    int failed = 0;
    struct rp_error why = {0};
    for (uint32_t n = 0; n < count && !failed; n++)
        failed = write_sector(c, g->number, indexes[n], words + (size_t)n * RP_MRT_SECTOR_WORDS, &why);
    failed = failed || rp_store_flush(c->store, &why);
    for (uint32_t n = 0; n < count && !failed; n++)
        for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
            if (words[(size_t)n * RP_MRT_SECTOR_WORDS + i])
                set_word(g, (size_t)indexes[n] * RP_MRT_SECTOR_WORDS + i, words[(size_t)n * RP_MRT_SECTOR_WORDS + i]);
    pthread_mutex_lock(&c->lock);
    for (uint32_t n = 0; n < count && failed; n++)
        c->dirty[indexes[n]] = 1;
    c->ended = batch;
    pthread_cond_broadcast(&c->batched[batch % 2]);
    give_back(c, is_final(&why));
    return failed ? rp_fail_as(err, &why) : 0;
}

// A stream will need the regions that follow: as many as it has written before this one, so that their number doubles.
static uint64_t ahead_of(struct rp_rct_coarse *c, const struct rp_rct_generation *g, uint64_t first, uint64_t last)
{
    uint64_t behind = 0;
    while (behind < AHEAD_MAX && behind < first && rp_rct_bit(g->written, first - behind - 1))
        behind++;
    return rp_min64(last + behind, c->regions - 1);
}

int rp_rct_coarse_set(struct rp_rct_coarse *c, uint64_t first, uint64_t last, struct rp_error *err)
{
    int failed = 0;
    uint64_t batch = 0; // that has what we ask for, at the latest; 0: none yet
    pthread_mutex_lock(&c->lock);
    for (;;) {
        struct rp_rct_generation *g = atomic_load(&c->current); // anew each time: a flush may have begun the next one
        if (!g || all_set(g, first, last))
            break;
        if (c->failed || last >= c->regions) {
            failed = c->failed ? refused(c, err) : rp_fail(err, RP_ERR_INVALID, "%s: has no such region", c->path);
            break;
        }
        for (uint64_t r = first, end = ahead_of(c, g, first, last); r <= end; r++)
            if (!(c->asked[r / 64] >> r % 64 & 1)) {
                c->asked[r / 64] |= (uint64_t)1 << r % 64;
                c->dirty[r / RP_MRT_SECTOR_REGIONS] = 1;
                batch = 0;
            }
        if (batch <= c->ended)
            batch = c->batches + 1;
        if (c->busy || c->takers)
            pthread_cond_wait(&c->batched[batch % 2], &c->lock);
        else if ((failed = write_asked(c, g, err)))
            break;
    }
    if (!c->busy && batch == c->batches + 1) // woken to write it, but with nothing left to ask for
        wake_writer(c);
    pthread_mutex_unlock(&c->lock);
    return failed;
}

int rp_rct_coarse_turn(struct rp_rct_coarse *c, struct rp_error *err)
{
    pthread_mutex_lock(&c->lock);
    take(c);
    if (c->failed) {
        give_back(c, false);
        pthread_mutex_unlock(&c->lock);
        return refused(c, err);
    }
    pthread_mutex_unlock(&c->lock);
    struct rp_rct_generation *g = atomic_load(&c->current), *next = g == c->generations ? c->generations + 1 : c->generations;
    wipe_generation(c, next, g->number + 1);
    int failed = 0;
    struct rp_error why = {0};
    for (uint32_t s = 0; s < c->header.sectors && !failed; s++) {
        uint64_t words[RP_MRT_SECTOR_WORDS];
        snapshot_sector(g->fresh, s, words);
        if (any(words))
            failed = write_sector(c, next->number, s, words, &why);
        for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
            if (words[i])
                set_word(next, (size_t)s * RP_MRT_SECTOR_WORDS + i, words[i]);
    }
    c->header.newest = next->number;
    failed = failed || write_header(c, &why) || rp_store_flush(c->store, &why);
    pthread_mutex_lock(&c->lock);
    if (failed) {
        c->header.newest = g->number; // in the file both may count: that is more, never less
    } else {
        for (size_t w = 0; w < words_of(c); w++)
            c->asked[w] = atomic_load_explicit(&next->set[w], memory_order_relaxed);
        memset(c->dirty, 0, c->header.sectors);
        atomic_store(&c->previous, g);
        atomic_store(&c->current, next);
    }
    give_back(c, is_final(&why));
    pthread_mutex_unlock(&c->lock);
    return failed ? rp_fail_as(err, &why) : 0;
}

int rp_rct_coarse_retire(struct rp_rct_coarse *c, uint64_t rct_sequence, struct rp_error *err)
{
    pthread_mutex_lock(&c->lock);
    take(c);
    atomic_store(&c->previous, NULL);
    pthread_mutex_unlock(&c->lock);
    struct rp_error why = {0};
    int failed = c->failed ? refused(c, &why) : 0;
    if (!failed) {
        // Without room for it the next header will say so: until then the file has one generation more than is relied on.
        c->header.oldest = c->header.newest;
        c->header.rct_sequence = rct_sequence;
        failed = write_header(c, &why) || rp_store_flush(c->store, &why);
    }
    pthread_mutex_lock(&c->lock);
    give_back(c, is_final(&why));
    pthread_mutex_unlock(&c->lock);
    return failed ? rp_fail_as(err, &why) : 0;
}

int rp_rct_coarse_grow(struct rp_rct_coarse *c, uint64_t virtual_size, struct rp_error *err)
{
    pthread_mutex_lock(&c->lock);
    take(c);
    struct rp_rct_generation *g = atomic_load(&c->current);
    struct rp_store *old = c->store;
    uint32_t sectors = c->header.sectors;
    int failed = 0;
    if (g && c->failed) {
        failed = refused(c, err);
    } else if (g && rp_mrt_sectors(virtual_size) > sectors) {
        // Another file of the same name and content: whichever of the two a crash leaves is right.
        c->header.sectors = rp_mrt_sectors(virtual_size);
        failed = create_file(c, g, atomic_load(&c->previous), err);
    }
    if (g && !failed)
        c->regions = rp_mrt_regions(virtual_size);
    if (failed && c->store == old) // the file of before is as it was
        c->header.sectors = sectors;
    give_back(c, failed && c->store != old);
    pthread_mutex_unlock(&c->lock);
    return failed ? -1 : 0;
}

uint64_t rp_rct_coarse_count(struct rp_rct_coarse *c)
{
    pthread_mutex_lock(&c->lock);
    struct rp_rct_generation *g = atomic_load(&c->current), *p = atomic_load(&c->previous);
    uint64_t count = (g ? atomic_load(&g->count) : 0) + (p ? atomic_load(&p->count) : 0);
    pthread_mutex_unlock(&c->lock);
    return count;
}

static int read_generation(struct rp_rct_coarse *c, const struct rp_mrt_header *h, uint64_t generation,
                           void (*set)(void *context, uint64_t region), void *context, struct rp_error *err)
{
    for (uint32_t s = 0; s < h->sectors; s++) {
        uint8_t sector[RP_MRT_SECTOR_SIZE];
        uint64_t words[RP_MRT_SECTOR_WORDS];
        if (rp_store_pread(c->store, sector, sizeof sector, rp_mrt_sector_at(h->sectors, generation, s), err))
            return -1;
        rp_mrt_sector_decode(sector, &h->name, generation, s, words);
        for (size_t i = 0; i < RP_MRT_SECTOR_REGIONS; i++)
            if (words[i / 64] >> i % 64 & 1)
                set(context, (uint64_t)s * RP_MRT_SECTOR_REGIONS + i);
    }
    return 0;
}

int rp_rct_coarse_read(struct rp_rct_coarse *c, const struct rp_guid *name, uint64_t rct_sequence, bool *usable,
                       void (*set)(void *context, uint64_t region), void *context, struct rp_error *err)
{
    struct rp_mrt_header h = {0};
    bool ours = false;
    uint64_t size = 0;
    *usable = false;
    int failed = look(c, &h, &ours, err) || (c->store && rp_store_size(c->store, &size, err));
    if (!failed && c->store && ours && h.sequence && rp_guid_equal(&h.name, name) && h.rct_sequence <= rct_sequence &&
        size >= rp_mrt_file_size(h.sectors)) {
        *usable = true;
        for (uint64_t g = h.oldest; g <= h.newest && !failed; g++)
            failed = read_generation(c, &h, g, set, context, err);
    }
    close_store(c);
    return failed ? -1 : 0;
}

int rp_rct_coarse_remove(struct rp_rct_coarse *c, struct rp_error *err)
{
    struct rp_mrt_header header;
    bool ours = false;
    if (look(c, &header, &ours, err))
        return -1;
    close_store(c);
    return (ours && rp_fs_unlink(c->fs, c->path, err)) || remove_unfinished(c, err) ? -1 : 0;
}
