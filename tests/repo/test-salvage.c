// What a salvage takes for lost: damage, and nothing that may be read by the next one.
#include "place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "faulty.h"
#include "repo/blocks.h"
#include "repo/core.h"
#include "repo/damage.h"
#include "repo/extract.h"
#include "repo/pack.h"
#include "repo/tree.h"

// ---- a disk in several packs ----------------------------------------------------------------------------------------

// What fails, and how often yet.
struct trouble {
    char pack[2][RP_PACK_NAME];
    int sys[2]; // of gets of these
    uint64_t from, to; // that begin here; to 0: all
    int left; // so often; -1: always
    int list_sys, lists_left;
    bool all;  // and nothing else can be read while these fail
    enum seen seen; // by a listing, of pack[0], so often
    int seen_left;
    int size_sys, sizes_left; // of it
    int hits;
};

static int get_fails(void *context, const char *name, uint64_t offset)
{
    struct trouble *trouble = context;
    if (trouble->all && trouble->hits && trouble->left && !strcmp(name, "config"))
        return EIO;
    for (int i = 0; i < 2; i++)
        if (!strcmp(name, trouble->pack[i]) && offset >= trouble->from && (!trouble->to || offset < trouble->to)) {
            trouble->hits++;
            return trouble->left && (trouble->left < 0 || trouble->left--) ? trouble->sys[i] : 0;
        }
    return 0;
}

static int list_fails(void *context, const char *prefix)
{
    struct trouble *trouble = context;
    return !strcmp(prefix, "packs/") && trouble->lists_left && trouble->lists_left-- ? trouble->list_sys : 0;
}

static int size_fails(void *context, const char *name)
{
    struct trouble *trouble = context;
    bool fails = !strcmp(name, trouble->pack[0]) && trouble->sizes_left && (trouble->sizes_left < 0 || trouble->sizes_left--);
    return fails ? trouble->size_sys : 0;
}

static enum seen seen(void *context, const char *name)
{
    struct trouble *trouble = context;
    bool broken = !strcmp(name, trouble->pack[0]) && trouble->seen_left && (trouble->seen_left < 0 || trouble->seen_left--);
    return broken ? trouble->seen : SEEN_WHOLE;
}

static struct rp_repo *open_over(const struct place *place, struct trouble *trouble, struct faulty **out)
{
    struct rp_error err = {0};
    struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
    struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    repo->patience_ms = 0;
    faulty->context = trouble;
    faulty->get_fails = get_fails;
    faulty->list_fails = list_fails;
    faulty->size_fails = size_fails;
    faulty->seen = seen;
    *out = faulty;
    return repo;
}

static void pack_of(struct rp_repo *repo, const uint8_t *id, char name[RP_PACK_NAME])
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    struct rp_index_pack pack;
    assert_int_equal(rp_index_find(repo->index, id, RP_INDEX_READ, places), 1);
    rp_index_pack(repo->index, places[0].pack, &pack);
    rp_pack_name(pack.id, name);
}

static void fill(uint8_t *data, uint32_t blocks, uint32_t seed)
{
    for (uint32_t block = 0; block < blocks; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, 3 * (seed + block)); // random bytes
}

#define BLOCKS 40
#define SIZE ((uint64_t)BLOCKS * RP_REPO_BLOCK)

struct stored {
    uint8_t data[SIZE];
    struct rp_repo_root root;
    char blocks[RP_PACK_NAME], nodes[RP_PACK_NAME]; // the packs: of all blocks but one; of that and the node
};

static struct stored *store(const struct place *place)
{
    struct stored *stored = rp_xcalloc(1, sizeof *stored);
    struct rp_repo *repo = place_open(place);
    fill(stored->data, BLOCKS, 1);
    stored->root = store_disk(repo, NULL, stored->data, SIZE, "vm", NULL);
    pack_of(repo, stored->root.id, stored->blocks);
    fill(stored->data, 1, 1000);
    stored->root = store_disk(repo, &stored->root, stored->data, SIZE, "vm", NULL);
    pack_of(repo, stored->root.id, stored->nodes);
    rp_repo_close(repo);
    return stored;
}

static int keep(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    (void)err;
    memcpy((uint8_t *)context + offset, data, size);
    return 0;
}

static int salvage(struct rp_repo *repo, const struct rp_repo_root *root, uint8_t *data, struct rp_ranges *lost,
                   struct rp_error *err)
{
    struct rp_extract *extract = rp_extract_new(repo, root, lost, NULL, NULL);
    struct rp_extract_job *job;
    uint64_t bytes;
    int more;
    rp_error_clear(err);
    while ((more = rp_extract_next(extract, &job, &bytes, err)) == 1)
        if (rp_extract_run(extract, job, keep, data, err))
            break;
    rp_extract_free(extract);
    rp_ranges_normalize(lost);
    return more ? -1 : 0;
}

static void assert_whole(struct rp_repo *repo, const struct stored *stored)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
    assert_ok(salvage(repo, &stored->root, data, &lost, &err), err);
    assert_int_equal(lost.count, 0);
    assert_memory_equal(data, stored->data, SIZE);
}

// It fails, and not for damage: the salvage of today must not be the reason that the data is given up.
static void assert_fails(struct rp_repo *repo, const struct stored *stored)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
    assert_int_equal(salvage(repo, &stored->root, data, &lost, &err), -1);
    assert_int_equal(lost.count, 0);
    assert_int_equal(err.code, RP_ERR_IO);
    assert_false(rp_damage_is(&err));
}

static unsigned marks(const struct place *place)
{
    char folder[200];
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    return count_files(folder);
}

// ---- what may pass --------------------------------------------------------------------------------------------------

static void a_pack_whose_index_could_not_be_read_once_is_not_lost(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    for (int i = 0; i < 2; i++) {
        struct trouble trouble = {.sys = {ENOMEM}, .left = 1};
        struct faulty *faulty;
        strcpy(trouble.pack[0], i ? stored->blocks : stored->nodes);
        place_remove_cache(place);
        struct rp_repo *repo = open_over(place, &trouble, &faulty);
        assert_whole(repo, stored);
        assert_int_equal(trouble.left, 0);
        rp_repo_close(repo);
        // For longer
        place_remove_cache(place);
        trouble.left = -1;
        repo = open_over(place, &trouble, &faulty);
        assert_fails(repo, stored);
        trouble.left = 0;
        assert_whole(repo, stored);
        rp_repo_close(repo);
    }
    assert_int_equal(marks(place), 0);
    free(stored);
}

// By a disk that is being reset: when the index is opened, and when it is looked at once more; or for good.
static void a_pack_whose_index_the_disk_did_not_give_is_asked_for_again_before_it_is_lost(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct rp_error err = {0};
    for (int i = 0; i < 2; i++)
        for (int left = -1; left < 3; left += left < 0 ? 2 : 1) {
            struct trouble trouble = {.sys = {EIO}, .left = left};
            struct faulty *faulty;
            strcpy(trouble.pack[0], i ? stored->blocks : stored->nodes);
            place_remove_cache(place);
            struct rp_repo *repo = open_over(place, &trouble, &faulty);
            if (left > 0) {
                assert_whole(repo, stored);
                assert_int_equal(trouble.left, 0);
            } else {
                RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
                RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
                assert_ok(salvage(repo, &stored->root, data, &lost, &err), err);
                assert_int_equal(rp_ranges_total(&lost), i ? SIZE - RP_REPO_BLOCK : SIZE);
                assert_true(trouble.hits < 8);
                trouble.all = true; // it may be the share
                place_remove_cache(place);
                assert_fails(repo, stored);
                trouble.left = 0;
                assert_whole(repo, stored); // it is asked for at each look
            }
            rp_repo_close(repo);
            // A backup builds on it all the same.
            trouble = (struct trouble){.sys = {EIO}, .left = left};
            strcpy(trouble.pack[0], i ? stored->blocks : stored->nodes);
            place_remove_cache(place);
            repo = open_over(place, &trouble, &faulty);
            struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &stored->root, 1, &err);
            struct rp_disk_writer *writer = rp_disk_writer_new(session, &stored->root, SIZE, &err);
            assert_int_equal(writer != NULL, left > 0);
            assert_int_equal(err.code, left > 0 ? RP_OK : RP_ERR_CORRUPT);
            rp_error_clear(&err);
            rp_disk_writer_abandon(writer);
            rp_repo_session_end(session);
            rp_repo_close(repo);
        }
    assert_int_equal(marks(place), 0);
    free(stored);
}

static void packs_of_a_folder_that_could_not_be_listed_are_looked_for_again_before_they_are_lost(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct rp_error err = {0};
    for (int i = 0; i < 4; i++)
        for (int left = -1; left < 3; left += left < 0 ? 2 : 1) {
            struct trouble trouble = {.sys = {ENOMEM}, .seen = SEEN_BY_FOLDER, .seen_left = left};
            struct faulty *faulty;
            strcpy(trouble.pack[0], i % 2 ? stored->blocks : stored->nodes);
            if (i < 2)
                place_remove_cache(place);
            struct rp_repo *repo = open_over(place, &trouble, &faulty);
            if (left > 0) {
                assert_whole(repo, stored);
            } else {
                RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
                RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
                assert_ok(salvage(repo, &stored->root, data, &lost, &err), err);
                assert_int_equal(rp_ranges_total(&lost), i % 2 ? SIZE - RP_REPO_BLOCK : SIZE);
                trouble.seen_left = 0;
                assert_whole(repo, stored);
            }
            rp_repo_close(repo);
        }
    free(stored);
}

static void a_pack_that_a_listing_could_not_look_at_is_asked_for_its_size(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct rp_error err = {0};
    uint64_t problems;
    for (int fails = -1; fails < 2; fails++) { // it cannot be told for good; it can; not once
        struct trouble trouble = {.seen = SEEN_WITHOUT_SIZE, .seen_left = -1, .size_sys = EUCLEAN, .sizes_left = fails};
        struct faulty *faulty;
        strcpy(trouble.pack[0], stored->blocks);
        place_remove_cache(place);
        struct rp_repo *repo = open_over(place, &trouble, &faulty);
        if (fails >= 0)
            assert_whole(repo, stored);
        trouble.sizes_left = fails;
        assert_ok(rp_repo_check(repo, true, NULL, NULL, NULL, NULL, &problems, &err), err);
        assert_int_equal(problems > 0, fails != 0);
        assert_int_equal(marks(place), fails < 0);
        rp_repo_close(repo);
        repo = place_open(place);
        assert_clean(repo, true); // what it was looked at says all of it, and no mark stays
        assert_clean(repo, true);
        rp_repo_close(repo);
    }
    free(stored);
}

static void a_repository_that_cannot_be_listed_once_has_lost_nothing(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    for (int i = 0; i < 2; i++) {
        struct trouble trouble = {.sys = {ENOMEM}, .left = 1, .list_sys = EIO};
        struct faulty *faulty;
        struct rp_error err = {0};
        strcpy(trouble.pack[0], i ? stored->blocks : stored->nodes);
        place_remove_cache(place);
        struct rp_repo *repo = open_over(place, &trouble, &faulty);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        trouble.lists_left = 1;
        assert_fails(repo, stored);
        assert_int_equal(trouble.lists_left, 0);
        assert_whole(repo, stored);
        rp_repo_close(repo);
    }
    free(stored);
}

static void a_base_is_not_called_damaged_because_a_pack_could_not_be_read(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct trouble trouble = {.sys = {ENOMEM}, .left = -1};
    struct faulty *faulty;
    struct rp_error err = {0};
    strcpy(trouble.pack[0], stored->blocks);
    place_remove_cache(place);
    struct rp_repo *repo = open_over(place, &trouble, &faulty);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &stored->root, 1, &err);
    assert_ok(session ? 0 : -1, err);
    assert_null(rp_disk_writer_new(session, &stored->root, SIZE, &err));
    assert_int_equal(err.code, RP_ERR_IO);
    assert_false(rp_damage_is(&err));
    assert_non_null(strstr(err.text, stored->blocks));
    rp_error_clear(&err);
    trouble.left = 0;
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &stored->root, SIZE, &err);
    assert_ok(writer ? 0 : -1, err);
    rp_disk_writer_abandon(writer);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(stored);
}

static void a_look_that_fails_does_not_forget_what_is_marked(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct trouble trouble = {.list_sys = EIO};
    struct faulty *faulty;
    struct rp_error err = {0};
    struct rp_location places[RP_INDEX_MAX_COPIES];
    uint8_t id[RP_PACK_ID];
    struct rp_repo *repo = open_over(place, &trouble, &faulty);
    assert_true(rp_pack_parse_name(stored->nodes, id));
    assert_ok(rp_repo_need_index(repo, NULL, &err), err);
    assert_ok(rp_damage_mark(repo, id, true, &err), err);
    assert_ok(rp_index_refresh(repo->index, &err), err);
    assert_int_equal(rp_index_find(repo->index, stored->root.id, RP_INDEX_WRITE, places), 0);
    trouble.lists_left = 1;
    assert_int_equal(rp_index_refresh(repo->index, &err), -1);
    assert_int_equal(rp_index_find(repo->index, stored->root.id, RP_INDEX_WRITE, places), 0);
    assert_int_equal(rp_index_find(repo->index, stored->root.id, RP_INDEX_READ, places), 1);
    rp_repo_close(repo);
    free(stored);
}

// The data can be looked up, and then, for a moment or with all else, not be read: of a block, of a node.
static void what_the_disk_did_not_give_is_lost_only_when_it_stays_so_and_other_objects_can_be_read(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct rp_error err = {0};
    for (int node = 0; node < 2; node++) {
        struct trouble trouble = {.sys = {EIO}};
        struct faulty *faulty;
        strcpy(trouble.pack[0], node ? stored->nodes : stored->blocks);
        trouble.from = node ? RP_REPO_BLOCK : 0; // behind the one block that is there, too
        trouble.to = node ? 0 : RP_REPO_BLOCK;
        struct rp_repo *repo = open_over(place, &trouble, &faulty);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        trouble.left = node ? 1 : 2; // a block is read with its neighbours first
        assert_whole(repo, stored);
        assert_int_equal(trouble.left, 0);
        rp_repo_close(repo);
        repo = open_over(place, &trouble, &faulty);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        trouble.left = -1;
        trouble.all = true;
        trouble.hits = 0;
        assert_fails(repo, stored);
        assert_true(trouble.hits > 0);
        trouble.all = false;
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
        RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
        assert_ok(salvage(repo, &stored->root, data, &lost, &err), err);
        assert_int_equal(lost.count, 1);
        rp_repo_close(repo);
    }
    free(stored);
}

// ---- two copies, of which one is damaged and one cannot be read now -------------------------------------------------

static void damage_of_one_copy_does_not_hide_that_the_other_may_be_good(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct stored *stored = rp_xcalloc(1, sizeof *stored);
    struct trouble trouble = {0};
    struct faulty *faulty;
    uint8_t id[RP_PACK_ID];
    fill(stored->data, BLOCKS, 1);
    struct rp_repo *repo = place_open(place);
    stored->root = store_disk(repo, NULL, stored->data, SIZE, "vm", NULL);
    pack_of(repo, stored->root.id, trouble.pack[0]);
    assert_true(rp_pack_parse_name(trouble.pack[0], id));
    assert_ok(rp_damage_mark(repo, id, true, &err), err);
    store_disk(repo, NULL, stored->data, SIZE, "vm", NULL);
    assert_ok(rp_damage_mark(repo, id, false, &err), err);
    rp_repo_close(repo);
    for (int order = 0; order < 2; order++)
        for (int nodes = 0; nodes < 2; nodes++) {
            struct rp_location places[RP_INDEX_MAX_COPIES];
            struct rp_index_pack pack;
            uint64_t problems;
            repo = open_over(place, &trouble, &faulty);
            assert_ok(rp_repo_need_index(repo, NULL, &err), err);
            assert_int_equal(rp_index_find(repo->index, stored->root.id, RP_INDEX_READ, places), 2);
            for (int i = 0; i < 2; i++) {
                rp_index_pack(repo->index, places[i].pack, &pack);
                rp_pack_name(pack.id, trouble.pack[i]);
            }
            trouble.sys[order] = EIO;
            trouble.sys[!order] = ETIMEDOUT;
            trouble.from = nodes ? SIZE : 0; // they stand behind the blocks; the index comes with a read that begins before them
            trouble.to = nodes ? 0 : SIZE / 2;
            trouble.left = -1;
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
            RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
            assert_int_equal(salvage(repo, &stored->root, data, &lost, &err), -1);
            assert_int_equal(lost.count, 0);
            assert_int_equal(err.sys, ETIMEDOUT);
            rp_error_clear(&err);
            if (nodes) {
                assert_int_equal(rp_tree_check_complete(repo, &stored->root, RP_INDEX_WRITE, &err), -1);
                assert_int_equal(err.sys, ETIMEDOUT);
                assert_int_equal(marks(place), 0);
                rp_error_clear(&err);
            }
            assert_ok(rp_repo_check(repo, false, NULL, NULL, NULL, NULL, &problems, &err), err);
            assert_true(rp_pack_parse_name(trouble.pack[order], id));
            if (nodes) { // nobody asked twice for the one; so it is marked only when its bytes came
                char path[300];
                assert_int_equal(marks(place), 0);
                snprintf(path, sizeof path, "%s/%s", place->repository, trouble.pack[order]);
                trouble.sys[order] = 0;
                flip_bit(path, 8 * (places[order].offset + 5));
                assert_ok(rp_repo_check(repo, false, NULL, NULL, NULL, NULL, &problems, &err), err);
                flip_bit(path, 8 * (places[order].offset + 5));
            }
            assert_int_equal(marks(place), 1);
            assert_ok(rp_damage_mark(repo, id, false, &err), err);
            assert_int_equal(marks(place), 0); // it was this one
            trouble.left = 0;
            rp_repo_close(repo);
        }
    free(stored);
}

// ---- a damaged cache ------------------------------------------------------------------------------------------------

static void a_damaged_cache_makes_nothing_lost_also_when_something_is(void **state)
{
    enum { MANY = 500, PAGES = 4 };
    struct place *place = *state;
    uint64_t size = MANY * RP_REPO_BLOCK;
    struct rp_error err = {0};
    RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, size), *salvaged = rp_xcalloc(1, size);
    char first[RP_PACK_NAME], path[300], keep_cache[300];
    fill(data, MANY, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root other = store_disk(repo, NULL, data, RP_REPO_BLOCK, "other", NULL);
    pack_of(repo, other.id, first);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL); // block 0 is in the other's pack
    rp_repo_close(repo);
    snprintf(path, sizeof path, "%s/%s", place->repository, first);
    assert_int_equal(unlink(path), 0);
    snprintf(keep_cache, sizeof keep_cache, "cp -a '%s' '%s.kept'", place->cache, place->cache);
    assert_int_equal(system(keep_cache), 0);
    snprintf(keep_cache, sizeof keep_cache, "cp -a '%s.kept' '%s'", place->cache, place->cache);
    for (unsigned page = 0; page < PAGES; page++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
        largest_segment(place, path);
        assert_int_equal(file_size(path), (2 + PAGES) * 4096);
        flip_bit(path, 8 * ((2 + page) * 4096 + 40));
        repo = place_open(place);
        assert_ok(salvage(repo, &root, salvaged, &lost, &err), err);
        rp_repo_close(repo);
        assert_int_equal(lost.count, 1);
        assert_int_equal(lost.items[0].offset, 0);
        assert_int_equal(lost.items[0].length, RP_REPO_BLOCK);
        assert_memory_equal(salvaged + RP_REPO_BLOCK, data + RP_REPO_BLOCK, size - RP_REPO_BLOCK);
        place_remove_cache(place);
        assert_int_equal(system(keep_cache), 0);
    }
}

// ---- very much is lost ----------------------------------------------------------------------------------------------

// A disk with a block below each of many nodes; the newest pack has the top node and a few others.
static void what_is_lost_is_not_asked_for_again_and_again(void **state)
{
    enum { NODES = 40 };
    struct place *place = *state;
    uint64_t size = (uint64_t)NODES * RP_NODE_IDS * RP_REPO_BLOCK;
    struct rp_error err = {0};
    char pack[RP_PACK_NAME], path[300];
    uint8_t block[RP_REPO_BLOCK];
    struct rp_repo_root root, base;
    struct rp_point point;
    struct rp_repo *repo = place_open(place);
    for (int pass = 0; pass < 2; pass++) {
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", pass ? &base : NULL, pass ? 1 : 0, &err);
        struct rp_disk_writer *writer = rp_disk_writer_new(session, pass ? &base : NULL, size, &err);
        for (uint32_t node = 0; node < (pass ? 1 : NODES); node++) {
            fill_block(block, 3 * (node + 1 + 1000 * (uint32_t)pass));
            assert_ok(rp_disk_writer_put(writer, (uint64_t)node * RP_NODE_IDS * RP_REPO_BLOCK, block, sizeof block, &err), err);
        }
        assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
        point_of(&point, "vm", &root);
        assert_ok(rp_repo_commit(session, &point, &err), err);
        rp_point_clear(&point);
        rp_repo_session_end(session);
        if (!pass)
            pack_of(repo, root.id, pack);
        base = root;
    }
    rp_repo_close(repo);
    for (int deleted = 0; deleted < 2; deleted++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
        struct trouble trouble = {.sys = {EIO}, .left = -1, .from = NODES * RP_REPO_BLOCK};
        struct faulty *faulty;
        uint64_t bytes;
        strcpy(trouble.pack[0], pack);
        snprintf(path, sizeof path, "%s/%s", place->repository, pack);
        if (deleted)
            assert_int_equal(unlink(path), 0);
        repo = open_over(place, &trouble, &faulty);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        int lists = faulty->lists;
        trouble.hits = 0;
        assert_ok(rp_repo_data_bytes(repo, &root, &lost, &bytes, &err), err);
        rp_ranges_normalize(&lost);
        assert_int_equal(rp_ranges_total(&lost), size - RP_NODE_IDS * RP_REPO_BLOCK);
        assert_int_equal(faulty->lists - lists, deleted ? 3 : 0); // one look
        assert_int_equal(trouble.hits, deleted ? 0 : 2); // and once more after a while
        rp_repo_close(repo);
    }
}

static void a_frame_that_the_disk_cannot_give_is_read_three_times_and_no_more(void **state)
{
    struct place *place = *state;
    struct stored *stored = store(place);
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    RP_AUTO_FREE uint8_t *data = rp_xcalloc(1, SIZE);
    struct trouble trouble = {.sys = {EIO}, .left = -1, .to = RP_REPO_BLOCK};
    struct faulty *faulty;
    strcpy(trouble.pack[0], stored->blocks);
    struct rp_repo *repo = open_over(place, &trouble, &faulty);
    assert_ok(salvage(repo, &stored->root, data, &lost, &err), err);
    assert_true(rp_ranges_total(&lost) >= 2 * RP_REPO_BLOCK);
    assert_int_equal(trouble.hits, 3); // with its neighbours, alone, and after a while
    rp_repo_close(repo);
    free(stored);
}

int main(void)
{
    log_off();
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(a_pack_whose_index_could_not_be_read_once_is_not_lost),
        WITH(a_pack_whose_index_the_disk_did_not_give_is_asked_for_again_before_it_is_lost),
        WITH(packs_of_a_folder_that_could_not_be_listed_are_looked_for_again_before_they_are_lost),
        WITH(a_pack_that_a_listing_could_not_look_at_is_asked_for_its_size),
        WITH(a_repository_that_cannot_be_listed_once_has_lost_nothing),
        WITH(a_base_is_not_called_damaged_because_a_pack_could_not_be_read),
        WITH(a_look_that_fails_does_not_forget_what_is_marked),
        WITH(what_the_disk_did_not_give_is_lost_only_when_it_stays_so_and_other_objects_can_be_read),
        WITH(damage_of_one_copy_does_not_hide_that_the_other_may_be_good),
        WITH(a_damaged_cache_makes_nothing_lost_also_when_something_is),
        WITH(what_is_lost_is_not_asked_for_again_and_again),
        WITH(a_frame_that_the_disk_cannot_give_is_read_three_times_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
