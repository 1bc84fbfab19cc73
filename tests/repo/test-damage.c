// Damage of any kind is found, told as points and disk ranges, and never read as data.
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faulty.h"
#include "base/num.h"
#include "repo/blocks.h"
#include "repo/core.h"
#include "repo/extract.h"
#include "repo/object.h"
#include "repo/pack.h"

#define BLOCKS 40
#define SIZE ((uint64_t)BLOCKS * RP_REPO_BLOCK)

struct stored {
    uint8_t *data;
    struct rp_repo_root root;
    char pack[256];
    char point_id[RP_POINT_ID];
};

// One disk, every third block zero, in one pack.
static void store(struct place *place, struct stored *stored)
{
    stored->data = calloc(1, SIZE);
    for (uint32_t block = 0; block < BLOCKS; block++)
        if (block % 3)
            fill_block(stored->data + (uint64_t)block * RP_REPO_BLOCK, block + 1);
    struct rp_repo *repo = place_open(place);
    stored->root = store_disk(repo, NULL, stored->data, SIZE, "the vm", stored->point_id);
    rp_repo_close(repo);
    first_pack(place, stored->pack);
}

struct findings {
    unsigned count, with_ranges;
    struct rp_ranges ranges; // all, of disk 0
    char texts[8192];
    char object[128];
    char point_id[RP_POINT_ID], vm_name[64];
};

static void find(void *context, const struct rp_repo_problem *problem)
{
    struct findings *findings = context;
    findings->count++;
    if (strlen(findings->texts) + strlen(problem->text) + 2 < sizeof findings->texts)
        strcat(strcat(findings->texts, problem->text), "\n");
    if (problem->object)
        snprintf(findings->object, sizeof findings->object, "%s", problem->object);
    if (!problem->ranges)
        return;
    findings->with_ranges++;
    snprintf(findings->point_id, sizeof findings->point_id, "%s", problem->point_id);
    snprintf(findings->vm_name, sizeof findings->vm_name, "%s", problem->vm_name);
    for (size_t i = 0; i < problem->ranges->count; i++)
        rp_ranges_push(&findings->ranges, problem->ranges->items[i].offset, problem->ranges->items[i].length);
}

static void check(struct place *place, bool read_data, struct findings *findings)
{
    struct rp_error err = {0};
    uint64_t problems = 0;
    memset(findings, 0, sizeof *findings);
    struct rp_repo *repo = place_open(place);
    assert_ok(rp_repo_check(repo, read_data, find, findings, NULL, NULL, &problems, &err), err);
    assert_int_equal(problems, findings->count);
    rp_ranges_normalize(&findings->ranges);
    rp_repo_close(repo);
}

static bool covers(const struct rp_ranges *ranges, uint64_t offset)
{
    for (size_t i = 0; i < ranges->count; i++)
        if (offset >= ranges->items[i].offset && offset < ranges->items[i].offset + ranges->items[i].length)
            return true;
    return false;
}

static int keep(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    (void)err;
    memcpy((uint8_t *)context + offset, data, size);
    return 0;
}

// Extracts all that can be had. The rest is zeros in `*data` (malloc'ed), and in `lost`.
static void salvage(struct rp_repo *repo, const struct rp_repo_root *root, uint8_t **data, struct rp_ranges *lost)
{
    *data = calloc(1, root->size + RP_REPO_BLOCK);
    struct rp_extract *extract = rp_extract_new(repo, root, lost, NULL, NULL);
    struct rp_error err = {0};
    struct rp_extract_job *job;
    uint64_t bytes;
    int more;
    while ((more = rp_extract_next(extract, &job, &bytes, &err)) == 1)
        assert_ok(rp_extract_run(extract, job, keep, *data, &err), err);
    assert_ok(more, err);
    rp_extract_free(extract);
    rp_ranges_normalize(lost);
}

// Of the disk in `data`, a salvage leaves out just what cannot be read. Returns how many blocks that are.
static unsigned assert_salvage_is_exact(struct rp_repo *repo, const struct rp_repo_root *root, const uint8_t *data)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    uint8_t *salvaged, *block = malloc(RP_REPO_BLOCK);
    unsigned count = 0;
    salvage(repo, root, &salvaged, &lost);
    for (uint64_t offset = 0; offset < root->size; offset += RP_REPO_BLOCK) {
        size_t length = rp_min64(RP_REPO_BLOCK, root->size - offset);
        bool readable = rp_repo_read(repo, root, offset, block, length, NULL) == 0;
        assert_int_equal(covers(&lost, offset), !readable);
        if (readable)
            assert_memory_equal(salvaged + offset, data + offset, length);
        else
            assert_true(!salvaged[offset] && !memcmp(salvaged + offset, salvaged + offset + 1, length - 1));
        count += !readable;
    }
    assert_true(!lost.count || lost.items[lost.count - 1].offset + lost.items[lost.count - 1].length <= root->size);
    free(salvaged);
    free(block);
    return count;
}

// What the findings name cannot be read, and everything else reads right.
static void assert_ranges_are_exact(struct place *place, const struct stored *stored, const struct findings *findings)
{
    struct rp_repo *repo = place_open(place);
    uint8_t *block = malloc(RP_REPO_BLOCK);
    assert_salvage_is_exact(repo, &stored->root, stored->data);
    for (uint64_t offset = 0; offset < SIZE; offset += RP_REPO_BLOCK) {
        struct rp_error err = {0};
        int result = rp_repo_read(repo, &stored->root, offset, block, RP_REPO_BLOCK, &err);
        bool zero = offset / RP_REPO_BLOCK % 3 == 0;
        if (covers(&findings->ranges, offset)) {
            assert_true(result == -1 || zero);
            if (result)
                assert_true(err.code == RP_ERR_CORRUPT || err.code == RP_ERR_AUTH);
        } else {
            assert_ok(result, err);
            assert_memory_equal(block, stored->data + offset, RP_REPO_BLOCK);
        }
    }
    free(block);
    rp_repo_close(repo);
}

static void every_flipped_bit_in_a_pack_is_found_and_named(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    store(place, &stored);
    uint64_t size = file_size(stored.pack);
    uint8_t footer[RP_PACK_FOOTER];
    int fd = open(stored.pack, O_RDONLY);
    assert_int_equal(pread(fd, footer, sizeof footer, (off_t)(size - sizeof footer)), sizeof footer);
    close(fd);
    struct rp_pack_footer parsed;
    struct rp_error err = {0};
    assert_ok(rp_pack_parse_footer(footer, size, &parsed, &err), err);
    uint32_t random = test_seed();
    for (int i = 0; i < 160; i++) {
        // header, footer, index, frames in turn
        uint64_t from[] = {0, size - RP_PACK_FOOTER, parsed.index_offset, RP_PACK_HEADER};
        uint64_t to[] = {RP_PACK_HEADER, size, size - RP_PACK_FOOTER, parsed.index_offset};
        uint64_t bit = 8 * from[i % 4] + next_random(&random) % (8 * (to[i % 4] - from[i % 4]));
        bool structure = i % 4 < 3;
        flip_bit(stored.pack, bit);
        if (i % 8 < 4)
            place_remove_cache(place); // with a cache that knows the pack, and without
        if (structure) {
            check(place, false, &findings);
            if (!findings.count)
                print_error("bit %llu not found by the plain check\n", (unsigned long long)bit);
            assert_true(findings.count > 0);
            rp_ranges_clear(&findings.ranges);
        }
        check(place, true, &findings);
        if (!findings.count || !findings.with_ranges)
            print_error("bit %llu: %u problems\n%s", (unsigned long long)bit, findings.count, findings.texts);
        assert_true(findings.with_ranges > 0);
        assert_string_equal(findings.point_id, stored.point_id);
        assert_string_equal(findings.vm_name, "the vm");
        if (!structure)
            assert_ranges_are_exact(place, &stored, &findings);
        rp_ranges_clear(&findings.ranges);
        flip_bit(stored.pack, bit);
        place_remove_cache(place);
    }
    check(place, true, &findings);
    assert_int_equal(findings.count, 0);
    free(stored.data);
}

static void a_damaged_block_is_an_error_that_names_pack_and_block(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct rp_error err = {0};
    uint8_t block[RP_REPO_BLOCK];
    store(place, &stored);
    flip_bit(stored.pack, 8 * (RP_PACK_HEADER + 10)); // in the first frame
    struct rp_repo *repo = place_open(place);
    int failed = 0;
    for (uint64_t offset = 0; offset < SIZE; offset += RP_REPO_BLOCK)
        if (rp_repo_read(repo, &stored.root, offset, block, sizeof block, failed ? NULL : &err))
            failed++;
    assert_true(failed > 0);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    assert_non_null(strstr(err.text, strrchr(stored.pack, '/') + 1));
    assert_non_null(strstr(err.text, "frame 0"));
    assert_non_null(strstr(err.text, "block "));
    rp_repo_close(repo);
    free(stored.data);
}

static void flip_in_frame_of(const struct place *place, struct rp_repo *repo, const uint8_t *id)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    struct rp_index_pack pack;
    char name[RP_PACK_NAME], path[256];
    assert_int_equal(rp_index_find(repo->index, id, RP_INDEX_READ, places), 1);
    rp_index_pack(repo->index, places[0].pack, &pack);
    snprintf(path, sizeof path, "%s/%s", place->repository, rp_pack_name(pack.id, name));
    flip_bit(path, 8 * (places[0].offset + (uint64_t)places[0].stored / 2));
}

// Blocks, a node in the middle of the tree, its top: each takes what is below it along, and no more.
static void a_salvage_leaves_out_what_is_below_damage_of_any_level_and_nothing_else(void **state)
{
    enum { MANY = 600, CHANGED = 300 };
    struct place *place = *state;
    uint64_t size = MANY * RP_REPO_BLOCK + 777; // two levels of nodes
    uint8_t *data = calloc(1, size + RP_REPO_BLOCK), top[RP_NODE_BYTES];
    struct rp_error err = {0};
    for (uint32_t block = 0; block <= MANY; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, block + 1);
    memset(data + size, 0, RP_REPO_BLOCK);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "the vm", NULL);
    fill_block(data + CHANGED * RP_REPO_BLOCK, MANY + 2);
    root = store_disk(repo, &root, data, size, "the vm", NULL); // a node of its own, in another pack, has the changed block
    assert_int_equal(assert_salvage_is_exact(repo, &root, data), 0);
    assert_ok(rp_blocks_get(repo->blocks, root.id, 2, top, NULL, &err), err);
    const uint8_t *ids[] = {top + CHANGED / RP_NODE_IDS * RP_ID_BYTES, root.id};
    const unsigned expected[] = {RP_NODE_IDS, MANY + 1};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        flip_in_frame_of(place, repo, ids[i]);
        rp_repo_close(repo); // which has nodes and frames in memory
        repo = place_open(place);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        assert_int_equal(assert_salvage_is_exact(repo, &root, data), expected[i]);
    }
    rp_repo_close(repo);
    free(data);
}

static void a_missing_pack_is_named_with_all_it_held(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    store(place, &stored);
    for (int cached = 1; cached >= 0; cached--) {
        char away[300];
        snprintf(away, sizeof away, "%s/away", place->folder);
        assert_int_equal(rename(stored.pack, away), 0);
        if (!cached)
            place_remove_cache(place);
        check(place, false, &findings);
        assert_int_equal(findings.with_ranges, 1);
        assert_int_equal(rp_ranges_total(&findings.ranges), SIZE); // the top of the tree was in it
        if (cached)
            assert_non_null(strstr(findings.object, strrchr(stored.pack, '/')));
        assert_non_null(strstr(findings.texts, "missing"));
        assert_ranges_are_exact(place, &stored, &findings);
        rp_ranges_clear(&findings.ranges);
        assert_int_equal(rename(away, stored.pack), 0);
    }
    free(stored.data);
}

static void a_truncated_or_longer_pack_is_found_by_the_plain_check(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    store(place, &stored);
    uint64_t size = file_size(stored.pack);
    char copy[256], command[800];
    snprintf(copy, sizeof copy, "%s/copy", place->folder);
    snprintf(command, sizeof command, "cp '%s' '%s'", stored.pack, copy);
    assert_int_equal(system(command), 0);
    int64_t changes[] = {-1, -32, -33, -100000, -(int64_t)size, 1, 32};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        assert_int_equal(truncate(stored.pack, (off_t)((int64_t)size + changes[i])), 0);
        check(place, false, &findings);
        assert_true(findings.with_ranges > 0);
        assert_non_null(strstr(findings.object, strrchr(stored.pack, '/')));
        rp_ranges_clear(&findings.ranges);
        snprintf(command, sizeof command, "cp '%s' '%s'", copy, stored.pack);
        assert_int_equal(system(command), 0);
    }
    check(place, true, &findings);
    assert_int_equal(findings.count, 0);
    free(stored.data);
}

static void an_unreadable_point_is_a_problem_and_hides_no_other(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    struct rp_error err = {0};
    char path[300];
    store(place, &stored);
    struct rp_repo *repo = place_open(place);
    char other[RP_POINT_ID];
    store_disk(repo, NULL, stored.data, RP_REPO_BLOCK, "other", other);
    snprintf(path, sizeof path, "%s/points/%s", place->repository, stored.point_id);
    flip_bit(path, 8 * 100);
    struct rp_points points;
    log_off();
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 1);
    assert_int_equal(points.unreadable, 1);
    assert_string_equal(points.items[0].id, other);
    rp_points_clear(&points);
    rp_repo_close(repo);
    check(place, false, &findings);
    assert_int_equal(findings.count, 1);
    assert_non_null(strstr(findings.object, stored.point_id));
    free(stored.data);
}

static void objects_under_another_name_are_refused(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    store(place, &stored);
    // a point under another id
    char from[300], to[300];
    snprintf(from, sizeof from, "%s/points/%s", place->repository, stored.point_id);
    snprintf(to, sizeof to, "%s/points/%064d", place->repository, 1);
    assert_int_equal(rename(from, to), 0);
    check(place, false, &findings);
    assert_int_equal(findings.count, 1);
    assert_int_equal(rename(to, from), 0);
    // a pack under another id
    snprintf(to, sizeof to, "%s", stored.pack);
    char *last = to + strlen(to) - 1;
    *last = *last == '0' ? '1' : '0';
    assert_int_equal(rename(stored.pack, to), 0);
    check(place, true, &findings);
    assert_true(findings.count > 0);
    assert_int_equal(rp_ranges_total(&findings.ranges), SIZE);
    rp_ranges_clear(&findings.ranges);
    free(stored.data);
}

static int stop(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    assert_true(done <= total);
    return 1;
}

static void what_a_check_found_damaged_is_stored_again(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    char folder[256], second[RP_POINT_ID];
    log_off();
    store(place, &stored);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    uint64_t bit = 8 * (file_size(stored.pack) / 2);
    flip_bit(stored.pack, bit);

    check(place, true, &findings);
    assert_true(findings.with_ranges > 0);
    assert_int_equal(count_files(folder), 1);
    rp_ranges_clear(&findings.ranges);

    // An incremental must not build on it.
    struct rp_repo *repo = place_open(place);
    assert_refused_base(repo, &stored.root);

    // The same content again: the new point is whole, and heals the older one.
    struct rp_repo_root root = store_disk(repo, NULL, stored.data, SIZE, "the vm", second);
    assert_disk(repo, &root, stored.data);
    assert_disk(repo, &stored.root, stored.data);
    // And the next one may build on it.
    store_disk(repo, &root, stored.data, SIZE, "the vm", second);
    rp_repo_close(repo);
    check(place, true, &findings);
    assert_int_equal(findings.with_ranges, 0);
    assert_true(findings.count > 0); // the pack is still damaged
    rp_ranges_clear(&findings.ranges);

    flip_bit(stored.pack, bit);
    check(place, true, &findings);
    assert_int_equal(findings.count, 0);
    assert_int_equal(count_files(folder), 0);
    rp_ranges_clear(&findings.ranges);
    free(stored.data);
}

static void a_pack_whose_index_is_damaged_is_marked_by_the_plain_check(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings;
    char folder[256];
    log_off();
    store(place, &stored);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    uint64_t bit = 8 * (file_size(stored.pack) - 100); // the blocks themselves are whole
    flip_bit(stored.pack, bit);
    check(place, false, &findings);
    assert_true(findings.count > 0);
    assert_int_equal(count_files(folder), 1);
    unsigned told = findings.count;
    rp_ranges_clear(&findings.ranges);
    check(place, true, &findings); // reads no more of it: that is one damage, not two
    assert_int_equal(findings.count, told);
    rp_ranges_clear(&findings.ranges);
    // The cache still knows what it holds; a backup stores that again all the same.
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, stored.data, SIZE, "the vm", NULL);
    rp_repo_close(repo);
    place_remove_cache(place);
    repo = place_open(place);
    assert_disk(repo, &root, stored.data);
    rp_repo_close(repo);
    flip_bit(stored.pack, bit);
    check(place, true, &findings);
    assert_int_equal(findings.count, 0);
    assert_int_equal(count_files(folder), 0);
    rp_ranges_clear(&findings.ranges);
    free(stored.data);
}

static void a_pack_with_very_many_damages_is_told_in_few_lines_that_name_every_block(void **state)
{
    struct place *place = *state;
    struct findings findings;
    char pack[256];
    uint32_t blocks = 200;
    uint64_t size = (uint64_t)blocks * RP_REPO_BLOCK, total;
    uint8_t *data = calloc(1, size);
    log_off();
    for (uint32_t block = 0; block < blocks; block++) // what does not compress: four blocks are a frame
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, 3 * (block + 1));
    struct rp_repo *repo = place_open(place);
    store_disk(repo, NULL, data, size, "the vm", NULL);
    rp_repo_close(repo);
    free(data);
    first_pack(place, pack);
    for (uint64_t at = RP_PACK_HEADER + 5; at < size; at += RP_REPO_BLOCK)
        flip_bit(pack, 8 * at);
    check(place, true, &findings);
    assert_in_range(findings.count, 2, 9);
    assert_non_null(strstr(findings.texts, "more of it is damaged"));
    rp_ranges_normalize(&findings.ranges);
    total = rp_ranges_total(&findings.ranges);
    assert_int_equal(total, size);
    rp_ranges_clear(&findings.ranges);
}

static void a_check_can_be_cancelled(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct rp_error err = {0};
    uint64_t problems;
    store(place, &stored);
    struct rp_repo *repo = place_open(place);
    assert_int_equal(rp_repo_check(repo, true, NULL, NULL, stop, NULL, &problems, &err), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    rp_repo_close(repo);
    free(stored.data);
}

// ---- packs that are lost while somebody relies on them --------------------------------------------------------------

// The pack that is there besides this one.
static void other_pack(const struct place *place, const char *known, char path[256])
{
    char command[600];
    snprintf(command, sizeof command, "find '%s/packs' -type f ! -path '%s'", place->repository, known);
    FILE *list = popen(command, "r");
    assert_non_null(fgets(path, 256, list));
    pclose(list);
    path[strcspn(path, "\n")] = 0;
}

// Writes one block of a disk, then lets somebody take a pack away (and bring another back), and commits.
static void fails_to_commit_without(struct rp_repo *repo, const struct rp_repo_root *base, const char *lost,
                                    const char *hidden, const char *back)
{
    struct rp_error err = {0};
    uint8_t block[RP_REPO_BLOCK];
    struct rp_repo_root root;
    struct rp_point point;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", base, 1, &err);
    assert_ok(session ? 0 : -1, err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, base, base->size, &err);
    assert_ok(writer ? 0 : -1, err);
    fill_block(block, 77);
    assert_ok(rp_disk_writer_put(writer, 0, block, sizeof block, &err), err);
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    assert_int_equal(unlink(lost), 0);
    if (hidden)
        assert_int_equal(rename(hidden, back), 0);
    point_of(&point, "vm", &root);
    assert_int_equal(rp_repo_commit(session, &point, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_point_clear(&point);
    rp_repo_session_end(session);
}

static void a_commit_that_needs_a_pack_of_another_size_is_refused(void **state)
{
    struct place *place = *state;
    enum { MANY = 65 }; // so many are looked up with one listing
    for (unsigned packs = 1; packs <= MANY; packs += MANY - 1) {
        struct rp_error err = {0};
        uint8_t block[RP_REPO_BLOCK];
        char pack[256];
        struct rp_repo_root root;
        struct rp_point point;
        struct rp_repo *repo = place_open(place);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
        struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, MANY * sizeof block, &err);
        for (unsigned i = 0; i < packs; i++) {
            fill_block(block, packs + i);
            assert_ok(rp_disk_writer_put(writer, i * sizeof block, block, sizeof block, &err), err);
            assert_ok(rp_repo_session_flush(session, &err), err);
        }
        assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
        first_pack(place, pack);
        assert_int_equal(truncate(pack, (off_t)file_size(pack) - 1), 0);
        point_of(&point, "vm", &root);
        assert_int_equal(rp_repo_commit(session, &point, &err), -1);
        assert_int_equal(err.code, RP_ERR_STATE);
        assert_non_null(strstr(err.text, strrchr(pack, '/') + 1));
        assert_int_equal(count_points(repo), 0);
        rp_point_clear(&point);
        assert_int_equal(rp_repo_session_discard(session), packs + 1);
        rp_repo_session_end(session);
        rp_repo_close(repo);
    }
}

static void a_node_in_memory_does_not_hide_that_its_pack_is_gone(void **state)
{
    struct place *place = *state;
    uint64_t size = (RP_NODE_IDS + 2) * RP_REPO_BLOCK; // two nodes of level 1, which are not the same
    uint8_t *data = rp_xcalloc(1, size);
    char first[256], second[256];
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    first_pack(place, first);
    memcpy(data + (RP_NODE_IDS + 1) * RP_REPO_BLOCK, data, RP_REPO_BLOCK); // known: the next pack has nodes only
    root = store_disk(repo, &root, data, size, "vm", NULL);
    other_pack(place, first, second);
    rp_repo_close(repo);
    place_remove_cache(place); // so that the base is looked at, and its nodes are kept in memory
    repo = place_open(place);
    fails_to_commit_without(repo, &root, second, NULL, NULL);
    rp_repo_close(repo);
    free(data);
}

static void a_pack_that_comes_back_does_not_hide_that_another_is_gone(void **state)
{
    struct place *place = *state;
    uint8_t data[2 * RP_REPO_BLOCK];
    char base[256], other[256], hidden[100];
    fill_block(data, 1);
    fill_block(data + RP_REPO_BLOCK, 2);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    first_pack(place, base);
    fill_block(data, 3);
    store_disk(repo, NULL, data, RP_REPO_BLOCK, "vm2", NULL);
    other_pack(place, base, other);
    snprintf(hidden, sizeof hidden, "%s/hidden", place->folder);
    assert_int_equal(rename(other, hidden), 0);
    fails_to_commit_without(repo, &root, base, hidden, other);
    rp_repo_close(repo);
}

static void a_killed_backup_does_not_vouch_for_a_base_whose_packs_it_only_had_in_memory(void **state)
{
    struct place *place = *state, elsewhere = *place;
    struct rp_error err = {0};
    uint8_t data[3 * RP_REPO_BLOCK];
    char first[256], second[256];
    for (uint32_t i = 0; i < 3; i++)
        fill_block(data + i * RP_REPO_BLOCK, i);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    first_pack(place, first);
    rp_repo_close(repo);
    snprintf(elsewhere.cache, sizeof elsewhere.cache, "%s/elsewhere", place->folder);
    repo = place_open(&elsewhere);
    fill_block(data, 10);
    root = store_disk(repo, &root, data, sizeof data, "vm", NULL);
    other_pack(place, first, second);
    fill_block(data + RP_REPO_BLOCK, 11);
    root = store_disk(repo, &root, data, sizeof data, "vm", NULL);
    rp_repo_close(repo);
    pid_t child = fork();
    if (child == 0) { // finds the base complete, and is gone
        struct rp_repo_session *theirs = rp_repo_session_begin(place_open(place), "killed", &root, 1, &err);
        _exit(theirs && rp_disk_writer_new(theirs, &root, sizeof data, &err) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(second), 0);
    repo = place_open(place);
    assert_refused_base(repo, &root);
    rp_repo_close(repo);
}

// ---- a disk that gives its bytes no more ----------------------------------------------------------------------------

// A bad sector: what touches it fails, the index at the end of the pack can be read.
struct bad_sector {
    char pack[128];
    int sys;
};

static int in_bad_sector(void *context, const char *name, uint64_t offset)
{
    const struct bad_sector *bad = context;
    return !strcmp(name, bad->pack) && offset < 2 * RP_REPO_BLOCK ? bad->sys : 0;
}

static struct rp_repo *open_over(struct place *place, struct bad_sector *bad)
{
    struct rp_error err = {0};
    struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
    struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    repo->patience_ms = 0;
    faulty->get_fails = in_bad_sector;
    faulty->context = bad;
    return repo;
}

// As store(), random bytes only: the index is not among what is read with the first frames.
static void store_random(struct place *place, struct stored *stored, struct bad_sector *bad)
{
    stored->data = malloc(SIZE);
    for (uint32_t block = 0; block < BLOCKS; block++)
        fill_block(stored->data + (uint64_t)block * RP_REPO_BLOCK, 3 * (block + 1));
    struct rp_repo *repo = place_open(place);
    stored->root = store_disk(repo, NULL, stored->data, SIZE, "the vm", stored->point_id);
    rp_repo_close(repo);
    first_pack(place, stored->pack);
    snprintf(bad->pack, sizeof bad->pack, "packs%s", strstr(stored->pack, "/packs") + strlen("/packs"));
}

static void what_the_disk_cannot_give_any_more_is_stored_again(void **state)
{
    struct place *place = *state;
    struct stored stored;
    static const int losses[] = {EIO, EUCLEAN, EBADMSG, EILSEQ};
    struct bad_sector bad = {.sys = ENOMEM};
    struct findings findings;
    struct rp_error err = {0};
    char folder[256];
    store_random(place, &stored, &bad);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    for (size_t i = 0; i <= sizeof losses / sizeof losses[0]; i++) {
        bool lost = i > 0; // what cannot be read for another reason is told, and says nothing about the pack
        uint64_t problems;
        if (lost)
            bad.sys = losses[i - 1];
        for (int read_data = 0; read_data < 2; read_data++) {
            struct rp_repo *repo = open_over(place, &bad);
            findings = (struct findings){0};
            assert_ok(rp_repo_check(repo, read_data, find, &findings, NULL, NULL, &problems, &err), err);
            assert_true(findings.with_ranges > 0);
            rp_ranges_clear(&findings.ranges);
            assert_int_equal(count_files(folder), lost);
            rp_repo_close(repo);
            if (lost && i < sizeof losses / sizeof losses[0])
                check(place, true, &findings); // the disk was exchanged
            assert_int_equal(count_files(folder), i == sizeof losses / sizeof losses[0]);
        }
    }
    // A full backup beside it: it relies on nothing of that pack.
    struct rp_repo *repo = open_over(place, &bad);
    struct rp_repo_root root = store_disk(repo, NULL, stored.data, SIZE, "the vm", NULL);
    assert_disk(repo, &root, stored.data);
    rp_repo_close(repo);
    free(stored.data);
}

static int count_note(void *context, int64_t time_ns, const char *json)
{
    (void)time_ns;
    assert_string_equal(json, "{\"booted\":2}");
    ++*(unsigned *)context;
    return 0;
}

static void a_damaged_note_hides_no_others(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct rp_error err = {0};
    char command[800];
    unsigned count = 0;
    store(place, &stored);
    struct rp_repo *repo = place_open(place);
    assert_ok(rp_repo_note_add(repo, stored.point_id, "{\"booted\":1}", &err), err);
    assert_ok(rp_repo_note_add(repo, stored.point_id, "{\"booted\":2}", &err), err);
    snprintf(command, sizeof command, "cd '%s/notes/%s' && printf X | dd of=\"$(ls | head -1)\" bs=1 seek=40 conv=notrunc 2>/dev/null",
             place->repository, stored.point_id);
    assert_int_equal(system(command), 0);
    assert_ok(rp_repo_notes(repo, stored.point_id, count_note, &count, &err), err);
    assert_int_equal(count, 1);
    // Nor one of a later version, which is not taken for what it may not be.
    char name[RP_OBJECT_NAME];
    static const char later[] = "{\"version\":2,\"time_ns\":1,\"note\":{\"booted\":3}}";
    snprintf(name, sizeof name, "notes/%s/0000000000000001-0000000000000001", stored.point_id);
    assert_ok(rp_object_put(repo->backend, repo->crypto, name, later, strlen(later), &err), err);
    assert_ok(rp_repo_notes(repo, stored.point_id, count_note, &count, &err), err);
    assert_int_equal(count, 2);
    rp_repo_close(repo);
    free(stored.data);
}

static void a_point_in_a_bad_sector_hides_no_others(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct rp_error err = {0};
    store(place, &stored);
    struct rp_repo *repo = place_open(place);
    char other[RP_POINT_ID];
    store_disk(repo, NULL, stored.data, RP_REPO_BLOCK, "other", other);
    rp_repo_close(repo);
    struct bad_sector bad = {.sys = EIO};
    snprintf(bad.pack, sizeof bad.pack, "points/%s", stored.point_id);
    repo = open_over(place, &bad);
    struct rp_points points;
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 1);
    assert_int_equal(points.unreadable, 1);
    assert_string_equal(points.items[0].id, other);
    rp_points_clear(&points);
    bad.sys = ENOMEM; // says nothing about the point: nobody shall take it for lost
    assert_int_equal(rp_repo_points(repo, &points, &err), -1);
    rp_repo_close(repo);
    free(stored.data);
}

// The frame of nodes is behind the blocks; the index comes with a read that begins before it.
static int in_nodes(void *context, const char *name, uint64_t offset)
{
    const struct bad_sector *bad = context;
    return !strcmp(name, bad->pack) && offset > SIZE ? bad->sys : 0;
}

static void a_node_that_a_plain_check_cannot_read_marks_its_pack(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct bad_sector bad = {.sys = EIO};
    struct findings findings = {0};
    struct rp_error err = {0};
    char folder[256];
    uint64_t problems;
    store_random(place, &stored, &bad);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    struct rp_repo *repo = open_over(place, &bad);
    ((struct faulty *)repo->backend)->get_fails = in_nodes;
    assert_ok(rp_repo_check(repo, false, find, &findings, NULL, NULL, &problems, &err), err);
    assert_int_equal(rp_ranges_total(&findings.ranges), SIZE);
    assert_int_equal(count_files(folder), 1);
    rp_ranges_clear(&findings.ranges);
    rp_repo_close(repo);
    free(stored.data);
}

static void a_base_whose_nodes_cannot_be_read_is_written_in_full_and_relied_on_no_more(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct bad_sector bad = {.sys = EIO};
    store_random(place, &stored, &bad);
    for (int known = 0; known < 2; known++) { // found when the base is looked at; or, where it is known to be complete, later
        struct rp_error err = {0};
        struct rp_repo *repo = open_over(place, &bad);
        ((struct faulty *)repo->backend)->get_fails = in_nodes;
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        rp_index_set_complete(repo->index, stored.root.id, known);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &stored.root, 1, &err);
        struct rp_disk_writer *writer = rp_disk_writer_new(session, &stored.root, SIZE, &err);
        assert_int_equal(writer != NULL, known);
        if (known)
            assert_int_equal(rp_disk_writer_put(writer, 0, stored.data, RP_REPO_BLOCK, &err), -1);
        assert_int_equal(err.code, RP_ERR_CORRUPT);
        rp_disk_writer_abandon(writer);
        rp_repo_session_end(session);
        struct rp_repo_root root = store_disk(repo, NULL, stored.data, SIZE, "the vm", NULL);
        assert_disk(repo, &root, stored.data);
        rp_repo_close(repo);
        place_teardown(state);
        place_setup(state);
        place = *state;
        free(stored.data);
        store_random(place, &stored, &bad);
    }
    free(stored.data);
}

// ---- a pack that goes while a check runs ----------------------------------------------------------------------------

// It was listed, and its index read; then it is removed, before its header is.
static int remove_it(void *context, const char *name, uint64_t offset)
{
    const struct stored *stored = context;
    if (offset == 0 && !strncmp(name, "packs/", 6))
        unlink(stored->pack);
    return 0;
}

static void a_pack_that_its_writer_removes_meanwhile_is_no_damage_unless_a_point_needs_it(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint64_t problems;
    for (int i = 0; i < 4; i++) {
        bool read_data = i % 2, needed = i / 2;
        struct stored stored = {0};
        struct findings findings = {0};
        struct bad_sector none = {0};
        store_random(place, &stored, &none);
        char point[300];
        snprintf(point, sizeof point, "%s/points/%s", place->repository, stored.point_id);
        if (!needed)
            assert_int_equal(unlink(point), 0);
        struct rp_repo *repo = open_over(place, &none);
        struct faulty *faulty = (struct faulty *)repo->backend;
        faulty->get_fails = remove_it;
        faulty->context = &stored;
        assert_ok(rp_repo_check(repo, read_data, find, &findings, NULL, NULL, &problems, &err), err);
        assert_int_equal(access(stored.pack, F_OK), -1);
        assert_int_equal(findings.count, needed);
        if (needed) {
            assert_int_equal(rp_ranges_total(&findings.ranges), SIZE);
            assert_non_null(strstr(findings.texts, "missing"));
            assert_int_equal(unlink(point), 0);
        }
        rp_ranges_clear(&findings.ranges);
        rp_repo_close(repo);
        free(stored.data);
    }
}

// ---- a disk that does not answer for a moment -----------------------------------------------------------------------

struct moment {
    struct bad_sector bad;
    uint64_t from, to;    // of the pack
    int failures;         // that are left
    bool all;             // then nothing else can be read either
};

static int for_a_moment(void *context, const char *name, uint64_t offset)
{
    struct moment *moment = context;
    bool here = !strcmp(name, moment->bad.pack) && offset >= moment->from && offset < moment->to;
    if ((here && __atomic_fetch_sub(&moment->failures, 1, __ATOMIC_RELAXED) > 0) || (moment->all && !strcmp(name, "config")))
        return EIO;
    return 0;
}

static struct rp_repo *open_at(struct place *place, struct moment *moment)
{
    struct rp_repo *repo = open_over(place, &moment->bad);
    ((struct faulty *)repo->backend)->get_fails = for_a_moment;
    return repo;
}

static void what_can_be_read_a_moment_later_is_not_marked_nor_is_what_a_dead_share_does_not_give(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct moment moment = {0};
    struct rp_error err = {0};
    char folder[256];
    store_random(place, &stored, &moment.bad);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    uint64_t size = file_size(stored.pack);
    const struct {
        bool read_data;
        uint64_t from, to;
        bool told; // all the same
    } reads[] = {
        {false, 0, 1, false},       // the header
        {true, 0, 1, false},        // everything
        {false, SIZE, size, false}, // a node
        {false, 1, SIZE, true},     // the index: the check goes on without it
    };
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        for (int all = 0; all < 2; all++) {
            struct findings findings = {0};
            uint64_t problems;
            moment.all = all;
            moment.failures = all ? INT_MAX / 2 : 1;
            moment.from = reads[i].from;
            moment.to = reads[i].to;
            struct rp_repo *repo = open_at(place, &moment);
            assert_ok(rp_repo_check(repo, reads[i].read_data, find, &findings, NULL, NULL, &problems, &err), err);
            assert_int_equal(problems > 0, all || reads[i].told);
            assert_true(moment.failures < (all ? INT_MAX / 2 : 1));
            assert_int_equal(count_files(folder), 0);
            rp_ranges_clear(&findings.ranges);
            rp_repo_close(repo);
        }
    }
    free(stored.data);
}

static void a_base_whose_nodes_can_be_read_a_moment_later_is_built_on(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct moment moment = {.from = SIZE, .to = UINT64_MAX};
    struct rp_error err = {0};
    char folder[256];
    store_random(place, &stored, &moment.bad);
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    struct rp_repo *repo = open_at(place, &moment);
    assert_ok(rp_repo_need_index(repo, NULL, &err), err);
    rp_index_set_complete(repo->index, stored.root.id, false); // so that it is looked at
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &stored.root, 1, &err);
    moment.failures = INT_MAX / 2;
    moment.all = true; // not now, and nobody can tell what is lost
    assert_null(rp_disk_writer_new(session, &stored.root, SIZE, &err));
    assert_int_equal(err.code, RP_ERR_IO);
    rp_error_clear(&err);
    moment.failures = 1;
    moment.all = false;
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &stored.root, SIZE, &err);
    assert_ok(writer ? 0 : -1, err);
    assert_true(moment.failures < 1);
    assert_int_equal(count_files(folder), 0);
    rp_disk_writer_abandon(writer);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(stored.data);
}

// ---- a check that ends early -----------------------------------------------------------------------------------------

static int stop_at_the_points(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    return total - done < 1u << 20; // one MiB for each
}

static void a_check_that_ends_early_tells_what_it_has_found(void **state)
{
    struct place *place = *state;
    struct stored stored;
    struct findings findings = {0};
    struct rp_error err = {0};
    uint64_t problems;
    char folder[256];
    store(place, &stored);
    flip_bit(stored.pack, 8 * (RP_PACK_HEADER + 5));
    struct rp_repo *repo = place_open(place);
    for (int i = 0; i < 2; i++) { // before the walk over the points, which says whom it affects; and after it
        findings = (struct findings){0};
        assert_int_equal(rp_repo_check(repo, true, find, &findings, i ? stop_at_the_points : stop, NULL, &problems, &err), -1);
        assert_int_equal(err.code, RP_ERR_CANCELLED);
        assert_int_equal(problems, 1);
        assert_int_equal(findings.count, 1);
        assert_int_equal(findings.with_ranges, i);
        rp_ranges_clear(&findings.ranges);
    }
    snprintf(folder, sizeof folder, "%s/damaged", place->repository);
    assert_int_equal(count_files(folder), 1);
    rp_repo_close(repo);
    free(stored.data);
}

int main(void)
{
    log_off();
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(every_flipped_bit_in_a_pack_is_found_and_named),
        {"every flipped bit in an unencrypted pack is found and named", every_flipped_bit_in_a_pack_is_found_and_named,
         place_setup_unencrypted, place_teardown, NULL},
        WITH(a_damaged_block_is_an_error_that_names_pack_and_block),
        WITH(a_salvage_leaves_out_what_is_below_damage_of_any_level_and_nothing_else),
        WITH(a_missing_pack_is_named_with_all_it_held),
        WITH(a_truncated_or_longer_pack_is_found_by_the_plain_check),
        WITH(an_unreadable_point_is_a_problem_and_hides_no_other),
        WITH(objects_under_another_name_are_refused),
        WITH(what_a_check_found_damaged_is_stored_again),
        WITH(a_pack_with_very_many_damages_is_told_in_few_lines_that_name_every_block),
        WITH(a_pack_whose_index_is_damaged_is_marked_by_the_plain_check),
        WITH(a_check_can_be_cancelled),
        WITH(what_the_disk_cannot_give_any_more_is_stored_again),
        WITH(a_point_in_a_bad_sector_hides_no_others),
        WITH(a_damaged_note_hides_no_others),
        WITH(a_node_that_a_plain_check_cannot_read_marks_its_pack),
        WITH(a_base_whose_nodes_cannot_be_read_is_written_in_full_and_relied_on_no_more),
        WITH(a_pack_that_its_writer_removes_meanwhile_is_no_damage_unless_a_point_needs_it),
        WITH(what_can_be_read_a_moment_later_is_not_marked_nor_is_what_a_dead_share_does_not_give),
        WITH(a_base_whose_nodes_can_be_read_a_moment_later_is_built_on),
        WITH(a_check_that_ends_early_tells_what_it_has_found),
        WITH(a_commit_that_needs_a_pack_of_another_size_is_refused),
        WITH(a_node_in_memory_does_not_hide_that_its_pack_is_gone),
        WITH(a_pack_that_comes_back_does_not_hide_that_another_is_gone),
        WITH(a_killed_backup_does_not_vouch_for_a_base_whose_packs_it_only_had_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
