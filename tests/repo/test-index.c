// The index cache against a model; damage in the cache never shows in what is read or stored.
#include "faulty.h"
#include "place.h"

#include <signal.h>
#include <sys/inotify.h>
#include <sys/resource.h>

#include <unistd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/num.h"
#include "repo/core.h"
#include "repo/id_nodes.h"
#include "repo/index_segments.h"
#include "repo/pending.h"

#define PACKS 40

static void random_bytes(uint8_t *out, size_t size, uint32_t *random)
{
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(next_random(random) >> 11);
}

static struct rp_entry random_entry(uint32_t *random, uint32_t pack)
{
    struct rp_entry entry = {.at = {.pack = pack, .offset = next_random(random) % 100000, .stored = 16 + next_random(random) % 2000000,
                                    .level = next_random(random) % 3, .compression = next_random(random) % 2,
                                    .frame = (uint16_t)next_random(random), .slot = 3, .last = 31}};
    random_bytes(entry.prefix, sizeof entry.prefix, random);
    return entry;
}

static void segments_find_every_entry_and_invent_none(void **state)
{
    struct place *place = *state;
    enum { COUNT = 30000 };
    struct rp_error err = {0};
    uint32_t random = test_seed();
    struct rp_guid repository = rp_guid_new();
    struct rp_pack_table packs = {0};
    struct rp_index_segments set;
    uint8_t id[RP_PACK_ID];
    assert_ok(rp_index_segments_load(&set, place->cache, &repository, &packs, &err), err);
    for (int i = 0; i < PACKS; i++) {
        random_bytes(id, sizeof id, &random);
        assert_int_equal(rp_pack_table_number(&packs, id), i);
    }
    struct rp_entry *entries = malloc(COUNT * sizeof *entries), *part = malloc(COUNT * sizeof *entries);
    for (size_t i = 0; i < COUNT; i++) {
        entries[i] = random_entry(&random, (uint32_t)(i * PACKS / COUNT));
        if (i % 50 == 1) // the same block in two packs
            memcpy(entries[i].prefix, entries[i / 2].prefix, RP_PREFIX_BYTES);
        if (i % 100 < 3) // ids that begin alike
            memset(entries[i].prefix, 0xFF, 10);
    }
    for (size_t done = 0; done < COUNT;) { // segments of different sizes; a pack is always in one of them as a whole
        size_t some = next_random(&random) % 2 ? 1 : 1 + next_random(&random) % 8;
        size_t count = rp_min64(COUNT - done, some * (COUNT / PACKS));
        memcpy(part, entries + done, count * sizeof *part);
        assert_ok(rp_index_segments_add(&set, &packs, part, count, &err), err);
        done += count;
    }
    for (int pass = 0; pass < 3; pass++) {
        assert_int_equal(rp_index_segments_entries(&set), COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            struct rp_location found[16];
            bool damaged = false, seen = false;
            unsigned count = rp_index_segments_find(&set, entries[i].prefix, found, 16, &damaged);
            for (unsigned f = 0; f < count; f++)
                seen |= !memcmp(&found[f], &entries[i].at, sizeof found[f]);
            assert_true(seen && !damaged);
            assert_true(count == 1 || count == 2 || (count == 3));
            struct rp_entry absent = random_entry(&random, 0);
            assert_int_equal(rp_index_segments_find(&set, absent.prefix, found, 16, &damaged), 0);
        }
        if (pass == 0) { // merged, then reloaded
            uint32_t a, b;
            while (rp_index_segments_candidates(&set, &a, &b)) {
                bool gone[PACKS] = {false}, damaged = false;
                struct rp_segment *merged;
                assert_ok(rp_index_segments_merge(place->cache, &repository, set.items[a].segment, set.items[b].segment,
                                                  gone, gone, &merged, &damaged, &err), err);
                rp_index_segments_replace(&set, &packs, a, b, merged);
            }
            assert_true(set.count <= 8);
        } else if (pass == 1) {
            rp_index_segments_clear(&set);
            for (int i = 0; i < PACKS; i++)
                packs.items[i].indexed = false;
            assert_ok(rp_index_segments_load(&set, place->cache, &repository, &packs, &err), err);
            for (int i = 0; i < PACKS; i++)
                assert_true(packs.items[i].indexed);
        }
    }
    // a merge leaves out what was in packs that are gone
    if (set.count >= 2) {
        bool all[PACKS], damaged = false;
        memset(all, true, sizeof all);
        struct rp_segment *merged;
        assert_ok(rp_index_segments_merge(place->cache, &repository, set.items[0].segment, set.items[1].segment, all, all,
                                          &merged, &damaged, &err), err);
        assert_int_equal(rp_segment_count(merged), 0);
        rp_segment_close(merged);
    }
    rp_index_segments_clear(&set);
    rp_pack_table_clear(&packs);
    free(entries);
    free(part);
}

static void the_pending_set_agrees_with_a_model(void **state)
{
    (void)state;
    enum { IDS = 4000 };
    uint32_t random = test_seed();
    uint8_t (*ids)[RP_PREFIX_BYTES] = malloc(IDS * RP_PREFIX_BYTES);
    bool *in = calloc(IDS, 1);
    for (int i = 0; i < IDS; i++) {
        random_bytes(ids[i], RP_PREFIX_BYTES, &random);
        memset(ids[i], i % 7, 2); // many meet in the same place
        memset(ids[i] + 2, 0, 6);
    }
    struct rp_pending pending = {0};
    size_t count = 0;
    for (int i = 0; i < 40000; i++) {
        uint32_t n = next_random(&random) % IDS;
        if (next_random(&random) % 2) {
            assert_int_equal(rp_pending_add(&pending, ids[n]), !in[n]);
            count += !in[n];
            in[n] = true;
        } else {
            rp_pending_remove(&pending, ids[n]);
            count -= in[n];
            in[n] = false;
        }
        n = next_random(&random) % IDS;
        assert_int_equal(rp_pending_has(&pending, ids[n]), in[n]);
        assert_int_equal(pending.count, count);
    }
    rp_pending_clear(&pending);
    free(ids);
    free(in);
}

// Flips bits in, or cuts short, every file of the cache.
static void damage_cache(const struct place *place, uint32_t *random, bool cut)
{
    char command[300], path[300];
    snprintf(command, sizeof command, "find '%s' -name '*.segment'", place->cache);
    FILE *list = popen(command, "r");
    while (fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        uint64_t size = file_size(path);
        if (cut)
            assert_int_equal(truncate(path, (off_t)(next_random(random) % size)), 0);
        else
            for (int i = 0; i < 3; i++)
                flip_bit(path, (uint64_t)next_random(random) % (size * 8));
    }
    pclose(list);
}

static void a_damaged_cache_is_made_again_and_never_believed(void **state)
{
    struct place *place = *state;
    uint64_t size = 200 * RP_REPO_BLOCK;
    uint8_t *data = malloc(size);
    uint32_t random = test_seed();
    for (uint32_t block = 0; block < 200; block++)
        fill_block(data + block * RP_REPO_BLOCK, block);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    rp_repo_close(repo);
    for (int i = 0; i < 40; i++) {
        damage_cache(place, &random, i % 2);
        repo = place_open(place);
        assert_disk(repo, &root, data);
        if (i % 8 == 7) { // a backup on a damaged cache
            fill_block(data, 1000 + (uint32_t)i);
            root = store_disk(repo, &root, data, size, "vm", NULL);
            assert_disk(repo, &root, data);
        }
        rp_repo_close(repo);
    }
    repo = place_open(place);
    assert_clean(repo, true);
    rp_repo_close(repo);
    free(data);
}

// A page that the disk cannot give is a SIGBUS to who looks at it through a map. So is one that was cut off.
static void a_page_of_the_cache_that_cannot_be_read_is_damage_and_no_signal(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t data[RP_REPO_BLOCK], id[RP_PREFIX_BYTES] = {0};
    struct rp_location found[8];
    struct rp_entry entry;
    char path[300];
    bool damaged = false;
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    struct rp_guid id_of_repo = *rp_repo_id(repo);
    rp_repo_close(repo);
    largest_segment(place, path);
    struct rp_segment *segment = rp_segment_open(path, &id_of_repo, &err);
    assert_ok(segment ? 0 : -1, err);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(rp_segment_find(segment, id, found, 8, &damaged), 0);
    assert_true(damaged);
    assert_false(rp_segment_get(segment, 0, &entry));
    assert_int_equal(rp_segment_pack_count(segment), 1);
    rp_segment_close(segment);
    assert_null(rp_segment_open(path, &id_of_repo, NULL));
}

static void a_pack_that_was_cut_off_is_relied_on_no_more_also_where_the_cache_knows_it(void **state)
{
    struct place *place = *state;
    uint64_t size = 20 * RP_REPO_BLOCK;
    uint8_t *data = malloc(size);
    char pack[256];
    for (uint32_t block = 0; block < 20; block++)
        fill_block(data + block * RP_REPO_BLOCK, block);
    for (int i = 0; i < 3; i++) {
        struct rp_repo *repo = place_open(place);
        struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
        first_pack(place, pack);
        rp_repo_close(repo);
        uint64_t whole = file_size(pack), left[] = {0, whole / 2, whole - 1};
        assert_int_equal(truncate(pack, (off_t)left[i]), 0);
        repo = place_open(place);
        assert_refused_base(repo, &root);
        root = store_disk(repo, NULL, data, size, "vm", NULL);
        rp_repo_close(repo);
        assert_int_equal(unlink(pack), 0); // nothing needs it any more
        repo = place_open(place);
        assert_disk(repo, &root, data);
        rp_repo_close(repo);
        place_teardown(state);
        place_setup(state);
        place = *state;
    }
    free(data);
}

// The next backup looks every block of its base up, when nothing tells that the tree is complete.
static void a_damaged_cache_does_not_make_a_base_look_damaged(void **state)
{
    struct place *place = *state;
    uint64_t size = 200 * RP_REPO_BLOCK; // two pages of entries
    uint8_t *data = malloc(size);
    char command[400], path[300];
    for (uint32_t block = 0; block < 200; block++)
        fill_block(data + block * RP_REPO_BLOCK, block);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    rp_repo_close(repo);
    for (uint64_t page = 0; page < 2; page++) { // one of them does not hold the node
        struct rp_error err = {0};
        snprintf(command, sizeof command, "find '%s' -name '*.segment'; find '%s' -name '*.complete' -delete", place->cache,
                 place->cache);
        FILE *list = popen(command, "r");
        assert_non_null(fgets(path, sizeof path, list));
        pclose(list);
        path[strcspn(path, "\n")] = 0;
        flip_bit(path, (file_size(path) - (page + 1) * 4096 + 40) * 8);
        repo = place_open(place);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &root, 1, &err);
        assert_ok(session ? 0 : -1, err);
        struct rp_disk_writer *writer = rp_disk_writer_new(session, &root, size, &err);
        assert_ok(writer ? 0 : -1, err);
        rp_disk_writer_abandon(writer);
        rp_repo_session_end(session);
        rp_repo_close(repo);
        place_remove_cache(place); // a good one for the next round
        struct rp_repo_info info;
        repo = place_open(place);
        assert_ok(rp_repo_info(repo, &info, &err), err);
        rp_repo_close(repo);
    }
    free(data);
}

static void a_pack_is_missed_also_when_only_a_damaged_cache_knew_it(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_location places[RP_INDEX_MAX_COPIES];
    uint8_t data[RP_REPO_BLOCK];
    char pack[256], path[300];
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    first_pack(place, pack);
    rp_repo_close(repo);
    largest_segment(place, path);
    flip_bit(path, (file_size(path) - 4096 + 40) * 8); // in its only page of entries
    repo = place_open(place);
    assert_ok(rp_repo_need_index(repo, NULL, &err), err);
    uint32_t doubts = rp_index_doubts(repo->index);
    assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_READ, places), 0); // that is when it is found out
    assert_int_equal(unlink(pack), 0);
    assert_ok(rp_index_refresh(repo->index, &err), err);
    assert_int_not_equal(rp_index_doubts(repo->index), doubts);
    rp_repo_close(repo);
}

static enum seen without_its_folder(void *context, const char *name)
{
    const char *hidden = context;
    return !strcmp(name, hidden) ? SEEN_BY_FOLDER : SEEN_WHOLE;
}

// It is away; or its folder cannot be listed, and nothing is forgotten.
static void a_pack_that_is_back_after_a_merge_is_known(void **state)
{
    struct place *place = *state;
    for (int listed = 0; listed < 2; listed++) {
        struct rp_error err = {0};
        struct rp_location places[RP_INDEX_MAX_COPIES];
        uint8_t data[RP_REPO_BLOCK];
        char pack[256], away[300];
        fill_block(data, 1);
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        assert_ok(repo ? 0 : -1, err);
        repo->patience_ms = 0;
        struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
        first_pack(place, pack);
        snprintf(away, sizeof away, "%s/away", place->folder);
        if (listed)
            assert_int_equal(rename(pack, away), 0);
        faulty->context = strstr(pack, "/packs/") + 1;
        faulty->seen = listed ? NULL : without_its_folder;
        for (uint32_t i = 0; i < 8; i++) { // each a segment
            fill_block(data, 2 + i);
            store_disk(repo, NULL, data, sizeof data, "vm", NULL);
        }
        assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_READ, places), 0);
        assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_GONE, places), !listed); // or a merge left it out
        if (listed)
            assert_int_equal(rename(away, pack), 0);
        faulty->seen = NULL;
        assert_ok(rp_index_refresh(repo->index, &err), err);
        assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_READ, places), 1);
        rp_repo_close(repo);
        repo = place_open(place);
        assert_clean(repo, true);
        rp_repo_close(repo);
        place_teardown(state);
        place_setup(state);
        place = *state;
    }
}

static void what_only_the_cache_knows_is_stored_again(void **state)
{
    struct place *place = *state;
    uint8_t data[RP_REPO_BLOCK];
    char command[500];
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    rp_repo_close(repo);
    // all packs and points are gone, the cache still knows them
    snprintf(command, sizeof command, "rm -rf '%s/packs' '%s/points'", place->repository, place->repository);
    assert_int_equal(system(command), 0);
    repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    assert_disk(repo, &root, data);
    assert_clean(repo, true);
    rp_repo_close(repo);
}

// From the moment that the point is written, no file of more than a few bytes can be: as on a full disk.
static void fill_the_disk(void *context, const char *name)
{
    (void)context;
    struct rlimit limit = {3000, RLIM_INFINITY};
    if (!strncmp(name, "points/", 7))
        setrlimit(RLIMIT_FSIZE, &limit);
}

static unsigned marks_in(const struct place *place)
{
    char command[400], line[16];
    snprintf(command, sizeof command, "find '%s' -name '*.complete' | wc -l", place->cache);
    FILE *list = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, list));
    pclose(list);
    return (unsigned)atoi(line);
}

static void an_index_that_could_not_be_written_vouches_for_no_tree(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t data[RP_REPO_BLOCK];
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    log_off();
    signal(SIGXFSZ, SIG_IGN);
    fill_block(data, 1);
    for (int full = 0; full < 2; full++) {
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        faulty->before_put = full ? fill_the_disk : NULL;
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        assert_ok(repo ? 0 : -1, err);
        data[7]++;
        store_disk(repo, NULL, data, sizeof data, "vm", NULL);
        assert_int_equal(marks_in(place), 1); // of the first round only
        setrlimit(RLIMIT_FSIZE, &none);
        rp_repo_close(repo);
    }
    signal(SIGXFSZ, SIG_DFL);
}

static unsigned warnings;
static char warning[1000];

static void count_warning(enum rp_log_level level, const char *text)
{
    (void)level;
    snprintf(warning, sizeof warning, "%s", text);
    warnings++;
}

static unsigned files_made(int watch)
{
    char buffer[8192];
    unsigned made = 0;
    for (ssize_t n; (n = read(watch, buffer, sizeof buffer)) > 0;)
        for (const char *at = buffer; at < buffer + n;) {
            struct inotify_event event;
            memcpy(&event, at, sizeof event);
            at += sizeof event + event.len;
            made++;
        }
    return made;
}

// 65535 entries each: eight of them are written to a segment.
static void add_packs(struct rp_index *index, unsigned count, uint32_t *random)
{
    static struct rp_pack_frame frames[256];
    uint8_t id[RP_PACK_ID];
    struct rp_pack_index content = {.frames = frames, .id_count = RP_PACK_MAX_BLOCKS};
    content.ids = malloc((size_t)content.id_count * RP_ID_BYTES);
    for (uint32_t first = 0; first < content.id_count; first += frames[content.frame_count++].count)
        frames[content.frame_count] = (struct rp_pack_frame){.offset = RP_PACK_HEADER, .stored = 100, .first = first,
                                                             .count = (uint16_t)rp_min64(256, content.id_count - first)};
    for (unsigned i = 0; i < count; i++) {
        random_bytes(id, sizeof id, random);
        for (uint32_t unit = 0; unit < content.id_count; unit++)
            random_bytes(content.ids + (size_t)unit * RP_ID_BYTES, 8, random);
        rp_index_add_pack(index, id, 1000, &content);
    }
    free(content.ids);
}

static void a_cache_that_cannot_be_written_is_not_tried_for_every_pack(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint32_t random = test_seed();
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY}, full = {0, RLIM_INFINITY};
    struct rp_repo *repo = place_open(place);
    struct rp_index_setup setup = {repo->backend, repo->crypto, repo->config.id, place->cache, NULL, NULL};
    struct rp_index *index = rp_index_open(&setup, &err);
    assert_ok(index ? 0 : -1, err);
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    assert_true(watch >= 0 && inotify_add_watch(watch, place->cache, IN_CREATE) >= 0);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &full);
    warnings = 0;
    rp_log_set_sink(count_warning);
    add_packs(index, 20, &random); // tried with 9 of them, and with 18
    setrlimit(RLIMIT_FSIZE, &none);
    assert_int_equal(files_made(watch), 2);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(warning, place->cache));
    log_off();
    assert_true(rp_index_spill(index)); // there is room again
    assert_int_equal(files_made(watch), 1);
    add_packs(index, 9, &random); // as ever
    assert_int_equal(files_made(watch), 1);
    rp_index_discard(index);
    rp_repo_close(repo);
    close(watch);
    signal(SIGXFSZ, SIG_DFL);
}

static void a_cache_without_room_is_not_called_a_full_repository(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY}, full = {0, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    struct rp_id_nodes *nodes = rp_id_nodes_new(place->folder);
    setrlimit(RLIMIT_FSIZE, &full);
    unsigned taken = 0;
    while (taken < 10000 && rp_id_nodes_take(nodes, &err))
        taken++;
    setrlimit(RLIMIT_FSIZE, &none);
    assert_int_equal(taken, 4096); // what is kept in memory
    assert_int_equal(err.code, RP_ERR_IO);
    assert_non_null(strstr(err.text, place->folder));
    assert_non_null(strstr(err.text, "XDG_CACHE_HOME"));
    assert_non_null(rp_id_nodes_take(nodes, &err)); // there is room again
    rp_id_nodes_free(nodes);
    signal(SIGXFSZ, SIG_DFL);
}

int main(void)
{
    log_off();
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(segments_find_every_entry_and_invent_none),
        cmocka_unit_test(the_pending_set_agrees_with_a_model),
        WITH(a_damaged_cache_is_made_again_and_never_believed),
        WITH(a_damaged_cache_does_not_make_a_base_look_damaged),
        WITH(a_pack_is_missed_also_when_only_a_damaged_cache_knew_it),
        WITH(a_page_of_the_cache_that_cannot_be_read_is_damage_and_no_signal),
        WITH(a_pack_that_was_cut_off_is_relied_on_no_more_also_where_the_cache_knows_it),
        WITH(a_pack_that_is_back_after_a_merge_is_known),
        WITH(what_only_the_cache_knows_is_stored_again),
        WITH(an_index_that_could_not_be_written_vouches_for_no_tree),
        WITH(a_cache_that_cannot_be_written_is_not_tried_for_every_pack),
        WITH(a_cache_without_room_is_not_called_a_full_repository),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
