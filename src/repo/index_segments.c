#include "repo/index_segments.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/fs.h"
#include "repo/folders.h"
#include "repo/index_roots.h"

#define SUFFIX ".segment"

static void append(struct rp_index_segments *set, struct rp_pack_table *packs, struct rp_segment *segment)
{
    set->items = rp_xrealloc(set->items, (set->count + 1) * sizeof *set->items);
    struct rp_index_segment *item = &set->items[set->count++];
    uint32_t count = rp_segment_pack_count(segment);
    item->segment = segment;
    item->numbers = rp_xcalloc(count + 1, sizeof *item->numbers);
    for (uint32_t i = 0; i < count; i++) {
        item->numbers[i] = rp_pack_table_number(packs, rp_segment_pack(segment, i)->id);
        packs->items[item->numbers[i]].indexed = true;
        packs->items[item->numbers[i]].indexed_size = rp_segment_pack(segment, i)->size;
    }
}

static int larger_first(const void *a, const void *b)
{
    uint64_t x = rp_segment_count(*(struct rp_segment *const *)a), y = rp_segment_count(*(struct rp_segment *const *)b);
    return x < y ? 1 : x > y ? -1 : 0;
}

static bool repeats_others(const struct rp_segment *segment, struct rp_pack_table *packs)
{
    for (uint32_t i = 0; i < rp_segment_pack_count(segment); i++)
        if (!rp_pack_table_get(packs, rp_segment_pack(segment, i)->id)->indexed)
            return false;
    return true;
}

int rp_index_segments_load(struct rp_index_segments *set, const char *directory, const struct rp_guid *repository,
                           struct rp_pack_table *packs, struct rp_error *err)
{
    *set = (struct rp_index_segments){.directory = rp_xstrdup(directory), .repository = *repository};
    if (rp_folders_make(directory, err))
        return rp_context(err, "the index cache");
    DIR *dir = opendir(directory);
    if (!dir)
        return rp_fail_sys(err, errno, "%s: list the index cache", directory);
    RP_AUTO_FREE struct rp_segment **found = NULL;
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *suffix = strstr(entry->d_name, SUFFIX);
        RP_AUTO_FREE char *path = rp_path_join(directory, entry->d_name);
        struct stat st;
        if (!suffix || stat(path, &st))
            continue;
        if (strcmp(suffix, SUFFIX)) { // an unfinished one; a day old, its writer is dead
            if (st.st_mtime < time(NULL) - 24 * 3600)
                unlink(path);
            continue;
        }
        struct rp_segment *segment = rp_segment_open(path, repository, NULL);
        if (!segment) {
            unlink(path);
            rp_index_roots_forget(directory);
            continue;
        }
        found = rp_xrealloc(found, (count + 1) * sizeof *found);
        found[count++] = segment;
    }
    closedir(dir);
    if (count)
        qsort(found, count, sizeof *found, larger_first);
    for (size_t i = 0; i < count; i++) {
        if (repeats_others(found[i], packs)) { // two processes did the same work
            unlink(rp_segment_path(found[i]));
            rp_segment_close(found[i]);
        } else {
            append(set, packs, found[i]);
        }
    }
    if (!set->count)
        rp_index_roots_forget(directory);
    return 0;
}

void rp_index_segments_clear(struct rp_index_segments *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        rp_segment_close(set->items[i].segment);
        free(set->items[i].numbers);
    }
    free(set->items);
    free(set->directory);
    *set = (struct rp_index_segments){0};
}

void rp_index_segments_drop(struct rp_index_segments *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        unlink(rp_segment_path(set->items[i].segment));
        rp_segment_close(set->items[i].segment);
        free(set->items[i].numbers);
    }
    set->count = 0;
    rp_index_roots_forget(set->directory);
}

static void remove_at(struct rp_index_segments *set, uint32_t at)
{
    struct rp_index_segment *item = &set->items[at];
    unlink(rp_segment_path(item->segment));
    rp_segment_close(item->segment);
    free(item->numbers);
    memmove(item, item + 1, (set->count - at - 1) * sizeof *item);
    set->count--;
}

void rp_index_segments_discard(struct rp_index_segments *set, struct rp_pack_table *packs)
{
    for (uint32_t at = set->count; at--;) {
        const struct rp_index_segment *item = &set->items[at];
        uint32_t count = rp_segment_pack_count(item->segment), kept = 0;
        for (uint32_t i = 0; i < count; i++)
            kept += !packs->items[item->numbers[i]].discarded;
        if (!kept)
            remove_at(set, at);
        for (uint32_t i = 0; i < count && kept; i++) // what is kept is known, and missed when it is gone
            packs->items[item->numbers[i]].indexed = true;
    }
}

unsigned rp_index_segments_find(const struct rp_index_segments *set, const uint8_t *id, struct rp_location *out,
                                unsigned max, bool *damaged)
{
    unsigned found = 0;
    for (uint32_t i = 0; i < set->count && found < max; i++) {
        unsigned here = rp_segment_find(set->items[i].segment, id, out + found, max - found, damaged);
        for (; here; here--, found++)
            out[found].pack = set->items[i].numbers[out[found].pack];
    }
    return found;
}

uint64_t rp_index_segments_entries(const struct rp_index_segments *set)
{
    uint64_t entries = 0;
    for (uint32_t i = 0; i < set->count; i++)
        entries += rp_segment_count(set->items[i].segment);
    return entries;
}

static char *new_path(const char *directory)
{
    char guid[RP_GUID_TEXT];
    struct rp_guid random = rp_guid_new();
    return rp_xasprintf("%s/%s%s", directory, rp_guid_format(&random, guid), SUFFIX);
}

int rp_index_segments_add(struct rp_index_segments *set, const struct rp_pack_table *packs, struct rp_entry *entries,
                          size_t count, struct rp_error *err)
{
    // Local numbers: only the packs that occur, in order of their index-wide numbers.
    RP_AUTO_FREE uint32_t *local = rp_xcalloc(packs->count + 1, sizeof *local);
    for (size_t i = 0; i < count; i++)
        local[entries[i].at.pack] = 1;
    RP_AUTO_FREE uint32_t *numbers = rp_xcalloc(packs->count + 1, sizeof *numbers);
    RP_AUTO_FREE struct rp_segment_pack *table = rp_xcalloc((size_t)packs->count + 1, sizeof *table);
    uint32_t used = 0;
    for (uint32_t i = 0; i < packs->count; i++)
        if (local[i]) {
            memcpy(table[used].id, packs->items[i].id, RP_PACK_ID);
            table[used].size = packs->items[i].indexed_size;
            numbers[used] = i;
            local[i] = used++;
        }
    RP_AUTO_FREE char *path = new_path(set->directory);
    struct rp_segment_writer *writer = rp_segment_writer_new(path, &set->repository, table, used, err);
    if (!writer)
        return -1;
    qsort(entries, count, sizeof *entries, rp_entry_compare);
    for (size_t i = 0; i < count; i++) {
        struct rp_entry entry = entries[i];
        entry.at.pack = local[entry.at.pack];
        if (rp_segment_writer_add(writer, &entry, err)) {
            rp_segment_writer_abandon(writer);
            return -1;
        }
    }
    if (rp_segment_writer_finish(writer, err))
        return -1;
    struct rp_segment *segment = rp_segment_open(path, &set->repository, err);
    if (!segment)
        return -1;
    set->items = rp_xrealloc(set->items, (set->count + 1) * sizeof *set->items);
    set->items[set->count++] = (struct rp_index_segment){segment, numbers};
    numbers = NULL;
    return 0;
}

bool rp_index_segments_candidates(const struct rp_index_segments *set, uint32_t *a, uint32_t *b)
{
    // Sizes stay apart by a factor of two, as in any log-structured index: few segments, each entry rewritten rarely.
    uint32_t smallest = 0, second = 0;
    if (set->count < 4)
        return false;
    for (uint32_t i = 1; i < set->count; i++)
        if (rp_segment_count(set->items[i].segment) < rp_segment_count(set->items[smallest].segment))
            smallest = i;
    second = smallest ? 0 : 1;
    for (uint32_t i = 0; i < set->count; i++)
        if (i != smallest &&
            rp_segment_count(set->items[i].segment) < rp_segment_count(set->items[second].segment))
            second = i;
    *a = smallest < second ? smallest : second;
    *b = smallest < second ? second : smallest;
    return rp_segment_count(set->items[second].segment) < 2 * rp_segment_count(set->items[smallest].segment) ||
           set->count > 8;
}

struct source {
    struct rp_segment *segment;
    const bool *gone;
    uint32_t *local; // in the merged segment
    uint64_t next;
    struct rp_entry entry;
    bool more;
};

static bool advance(struct source *source, bool *damaged)
{
    while (source->next < rp_segment_count(source->segment)) {
        if (!rp_segment_get(source->segment, source->next++, &source->entry)) {
            *damaged = true;
            return false;
        }
        if (!source->gone[source->entry.at.pack]) {
            source->entry.at.pack = source->local[source->entry.at.pack];
            return source->more = true;
        }
    }
    source->more = false;
    return true;
}

int rp_index_segments_merge(const char *directory, const struct rp_guid *repository, struct rp_segment *a,
                            struct rp_segment *b, const bool *gone_a, const bool *gone_b, struct rp_segment **merged,
                            bool *damaged, struct rp_error *err)
{
    RP_AUTO_FREE uint32_t *local_a = rp_xcalloc(rp_segment_pack_count(a) + 1, sizeof(uint32_t));
    RP_AUTO_FREE uint32_t *local_b = rp_xcalloc(rp_segment_pack_count(b) + 1, sizeof(uint32_t));
    struct source sources[2] = {{.segment = a, .gone = gone_a, .local = local_a},
                                {.segment = b, .gone = gone_b, .local = local_b}};
    struct rp_pack_table both = {0};
    RP_AUTO_FREE struct rp_segment_pack *table =
        rp_xcalloc((size_t)rp_segment_pack_count(a) + rp_segment_pack_count(b) + 1, sizeof *table);
    for (int s = 0; s < 2; s++)
        for (uint32_t i = 0; i < rp_segment_pack_count(sources[s].segment); i++)
            if (!sources[s].gone[i]) {
                const struct rp_segment_pack *pack = rp_segment_pack(sources[s].segment, i);
                sources[s].local[i] = rp_pack_table_number(&both, pack->id);
                table[sources[s].local[i]] = *pack;
            }
    RP_AUTO_FREE char *path = new_path(directory);
    struct rp_segment_writer *writer = rp_segment_writer_new(path, repository, table, both.count, err);
    rp_pack_table_clear(&both);
    if (!writer)
        return -1;
    bool good = advance(&sources[0], damaged) && advance(&sources[1], damaged);
    struct rp_entry last = {0};
    while (good && (sources[0].more || sources[1].more)) {
        struct source *least = !sources[1].more || (sources[0].more && rp_entry_compare(&sources[0].entry, &sources[1].entry) <= 0)
                                   ? &sources[0] : &sources[1];
        bool same = !rp_entry_compare(&least->entry, &last) && least->entry.at.slot == last.at.slot;
        if (!same && rp_segment_writer_add(writer, &least->entry, err)) {
            rp_segment_writer_abandon(writer);
            return -1;
        }
        last = least->entry;
        good = advance(least, damaged);
    }
    if (!good) {
        rp_segment_writer_abandon(writer);
        return rp_fail(err, RP_ERR_CORRUPT, "%s: a segment of the index cache is damaged", directory);
    }
    if (rp_segment_writer_finish(writer, err))
        return -1;
    *merged = rp_segment_open(path, repository, err);
    return *merged ? 0 : -1;
}

void rp_index_segments_replace(struct rp_index_segments *set, struct rp_pack_table *packs, uint32_t a, uint32_t b,
                               struct rp_segment *merged)
{
    uint32_t old[2] = {b, a}; // b > a: from the end
    for (int i = 0; i < 2; i++) {
        const struct rp_index_segment *item = &set->items[old[i]];
        for (uint32_t p = 0; p < rp_segment_pack_count(item->segment); p++)
            packs->items[item->numbers[p]].indexed = false;
        remove_at(set, old[i]);
    }
    append(set, packs, merged);
    for (uint32_t i = 0; i < set->count; i++)
        for (uint32_t p = 0; p < rp_segment_pack_count(set->items[i].segment); p++)
            packs->items[set->items[i].numbers[p]].indexed = true;
}
