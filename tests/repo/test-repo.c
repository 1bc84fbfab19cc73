// Stored disks come back exactly: full, incremental, grown, of any size; points and notes.
#include "place.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "repo/extract.h"
#include "repo/tree.h"

static void a_disk_of_mixed_content_is_restored_bit_for_bit(void **state)
{
    uint64_t size = 40 << 20;
    uint8_t *data = calloc(1, size);
    uint32_t random = test_seed();
    for (uint64_t block = 0; block < size / RP_REPO_BLOCK; block++)
        if (next_random(&random) % 4)
            fill_block(data + block * RP_REPO_BLOCK, next_random(&random));
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    assert_disk(repo, &root, data);
    rp_repo_close(repo);
    repo = place_open(*state);
    assert_disk(repo, &root, data);
    rp_repo_close(repo);
    place_remove_cache(*state); // only a cache
    repo = place_open(*state);
    assert_disk(repo, &root, data);
    rp_repo_close(repo);
    free(data);
}

static void a_read_may_begin_and_end_anywhere(void **state)
{
    uint64_t size = 3 * RP_REPO_BLOCK + 777;
    uint8_t *data = calloc(1, size + RP_REPO_BLOCK), *read = malloc(size);
    for (int block = 0; block < 4; block += 1 + (block == 1))
        fill_block(data + block * RP_REPO_BLOCK, (uint32_t)block + 7);
    struct rp_repo *repo = place_open(*state);
    struct rp_error err = {0};
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    uint32_t random = test_seed();
    for (int i = 0; i < 300; i++) {
        uint64_t offset = next_random(&random) % size, length = next_random(&random) % (size - offset + 1);
        assert_ok(rp_repo_read(repo, &root, offset, read, length, &err), err);
        assert_memory_equal(read, data + offset, length);
    }
    assert_int_equal(rp_repo_read(repo, &root, size - 1, read, 2, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_repo_close(repo);
    free(data);
    free(read);
}

struct extracted {
    uint8_t *data;
    bool *told;   // by block: whether room was spoken of
    uint64_t end; // of what was spoken of
    unsigned stretches;
};

static int note_room(void *context, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct extracted *extracted = context;
    (void)err;
    assert_true(!extracted->stretches++ || offset > extracted->end); // else it would be one with the one before
    for (uint64_t at = offset; at < offset + length; at += RP_REPO_BLOCK)
        extracted->told[at / RP_REPO_BLOCK] = true;
    extracted->end = offset + length;
    return 0;
}

static int take_data(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    struct extracted *extracted = context;
    (void)err;
    for (uint64_t at = offset; at < offset + size; at += RP_REPO_BLOCK)
        assert_true(extracted->told[at / RP_REPO_BLOCK]);
    memcpy(extracted->data + offset, data, size);
    return 0;
}

static void an_extraction_gives_all_data_and_says_before_where_it_will_come(void **state)
{
    enum { BLOCKS = 400 };
    uint64_t size = BLOCKS * RP_REPO_BLOCK + 777;
    uint8_t *data = calloc(1, size + RP_REPO_BLOCK);
    bool there[BLOCKS + 1], told[BLOCKS + 1] = {false};
    uint32_t random = test_seed();
    unsigned stretches = 0;
    for (uint64_t block = 0; block <= BLOCKS; block++) {
        there[block] = next_random(&random) % 4 || block == BLOCKS; // the last one is no whole block
        if (there[block])
            fill_block(data + block * RP_REPO_BLOCK, next_random(&random));
        stretches += there[block] && !(block && there[block - 1]);
    }
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    struct extracted extracted = {.data = calloc(1, size), .told = told};
    struct rp_extract *extract = rp_extract_new(repo, &root, NULL, note_room, &extracted);
    struct rp_error err = {0};
    struct rp_extract_job *job;
    uint64_t bytes;
    int more;
    while ((more = rp_extract_next(extract, &job, &bytes, &err)) == 1)
        assert_ok(rp_extract_run(extract, job, take_data, &extracted, &err), err);
    assert_ok(more, err);
    rp_extract_free(extract);
    assert_memory_equal(extracted.data, data, size);
    assert_memory_equal(told, there, sizeof told);
    assert_int_equal(extracted.stretches, stretches);
    assert_int_equal(extracted.end, size);
    rp_repo_close(repo);
    free(extracted.data);
    free(data);
}

// Random rounds of changes, growth and zeroing against a model; every point stays exact.
static void every_point_of_many_incrementals_stays_exact(void **state)
{
    enum { ROUNDS = 12 };
    uint64_t limit = 80 << 20, size = 5 * RP_REPO_BLOCK + 512;
    uint8_t *models[ROUNDS], *data = calloc(1, limit);
    struct rp_repo_root roots[ROUNDS];
    uint32_t random = test_seed();
    struct rp_repo *repo = place_open(*state);
    struct rp_error err = {0};
    for (int round = 0; round < ROUNDS; round++) {
        if (round && next_random(&random) % 2) // growth, at times by levels of the tree
            size += (uint64_t)(next_random(&random) % (round % 5 ? 40 : 500)) * RP_REPO_BLOCK / 3 / 512 * 512;
        if (size > limit)
            size = limit;
        const struct rp_repo_root *base = round ? &roots[round - 1] : NULL;
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", base, base ? 1 : 0, &err);
        assert_ok(session ? 0 : -1, err);
        struct rp_disk_writer *writer = rp_disk_writer_new(session, base, size, &err);
        assert_ok(writer ? 0 : -1, err);
        for (unsigned i = next_random(&random) % 30; i; i--) {
            uint64_t block = next_random(&random) % rp_tree_blocks(size), offset = block * RP_REPO_BLOCK;
            uint64_t count = 1 + next_random(&random) % 40, length = rp_min64(count * RP_REPO_BLOCK, size - offset);
            if (next_random(&random) % 4) {
                uint8_t content[RP_REPO_BLOCK];
                for (uint64_t at = 0; at < length; at += RP_REPO_BLOCK) {
                    fill_block(content, next_random(&random) % 500);
                    memcpy(data + offset + at, content, rp_min64(RP_REPO_BLOCK, length - at));
                }
                assert_ok(rp_disk_writer_put(writer, offset, data + offset, length, &err), err);
            } else {
                memset(data + offset, 0, length);
                assert_ok(rp_disk_writer_zero(writer, offset, length, &err), err);
            }
        }
        struct rp_point point;
        assert_ok(rp_disk_writer_finish(writer, &roots[round], &err), err);
        point_of(&point, "vm", &roots[round]);
        assert_ok(rp_repo_commit(session, &point, &err), err);
        rp_point_clear(&point);
        rp_repo_session_end(session);
        models[round] = malloc(size);
        memcpy(models[round], data, size);
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        for (int round = 0; round < ROUNDS; round++)
            assert_disk(repo, &roots[round], models[round]);
        rp_repo_close(repo);
        repo = place_open(*state);
    }
    // what differs between any two is what the models say, and nothing else
    for (int round = 1; round < ROUNDS; round++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges diff = {0}, expected = {0}, data_ranges = {0}, allocated = {0};
        uint64_t common = rp_min64(roots[round - 1].size, roots[round].size);
        for (uint64_t at = 0; at < roots[round].size; at += RP_REPO_BLOCK) {
            uint64_t length = rp_min64(RP_REPO_BLOCK, roots[round].size - at);
            uint8_t before[RP_REPO_BLOCK] = {0}, zero[RP_REPO_BLOCK] = {0};
            if (at < common)
                memcpy(before, models[round - 1] + at, rp_min64(length, common - at));
            if (memcmp(before, models[round] + at, length))
                rp_ranges_add(&expected, at, length);
            if (memcmp(zero, models[round] + at, length))
                rp_ranges_add(&data_ranges, at, length);
        }
        assert_ok(rp_repo_diff(repo, &roots[round - 1], &roots[round], &diff, &err), err);
        assert_ok(rp_repo_allocated(repo, &roots[round], &allocated, &err), err);
        assert_int_equal(diff.count, expected.count);
        assert_memory_equal(diff.items, expected.items, diff.count * sizeof *diff.items);
        assert_int_equal(allocated.count, data_ranges.count);
        assert_memory_equal(allocated.items, data_ranges.items, allocated.count * sizeof *allocated.items);
    }
    assert_clean(repo, true);
    rp_repo_close(repo);
    for (int round = 0; round < ROUNDS; round++)
        free(models[round]);
    free(data);
}

static void equal_blocks_are_stored_once_and_zeros_not_at_all(void **state)
{
    struct rp_error err = {0};
    uint64_t size = 64 * RP_REPO_BLOCK;
    uint8_t *data = calloc(1, size);
    for (int block = 0; block < 32; block++)
        fill_block(data + block * RP_REPO_BLOCK, 3 * (uint32_t)(block % 4));
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, size, &err);
    assert_ok(rp_disk_writer_put(writer, 0, data, size, &err), err);
    struct rp_repo_root root;
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    assert_ok(rp_repo_session_flush(session, &err), err);
    struct rp_repo_stats stats;
    rp_repo_session_stats(session, &stats);
    assert_int_equal(stats.new_blocks, 4);
    assert_int_equal(stats.new_bytes, 4 * RP_REPO_BLOCK);
    assert_int_equal(stats.known_blocks, 28);
    assert_int_equal(stats.zero_blocks, 32);
    assert_true(stats.stored_bytes > 4 * RP_REPO_BLOCK && stats.stored_bytes < 5 * RP_REPO_BLOCK);
    rp_repo_session_end(session);
    // a later session knows them too, in this process and in the next
    for (int i = 0; i < 2; i++) {
        session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
        writer = rp_disk_writer_new(session, NULL, size, &err);
        assert_ok(rp_disk_writer_put(writer, 0, data, size, &err), err);
        struct rp_repo_root again;
        assert_ok(rp_disk_writer_finish(writer, &again, &err), err);
        assert_memory_equal(&again, &root, sizeof root);
        assert_ok(rp_repo_session_flush(session, &err), err);
        rp_repo_session_stats(session, &stats);
        assert_int_equal(stats.new_blocks, 0);
        assert_int_equal(stats.stored_bytes, 0);
        rp_repo_session_end(session);
        rp_repo_close(repo);
        repo = place_open(*state);
    }
    rp_repo_close(repo);
    free(data);
}

// What a disk grew by is zeros, and at most that much memory: 8 KiB for each 16 MiB would be gigabytes.
static void growth_without_data_costs_nothing(void **state)
{
    uint8_t data[RP_REPO_BLOCK], read[RP_REPO_BLOCK];
    uint64_t size = (uint64_t)4 << 40, rest = size - sizeof data;
    struct rlimit old, limit;
    struct rp_error err = {0};
    fill_block(data, 1);
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_root base = store_disk(repo, NULL, data, sizeof data, "vm", NULL), root;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &base, 1, &err);
    assert_ok(session ? 0 : -1, err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &base, size, &err);
    assert_ok(writer ? 0 : -1, err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = (struct rlimit){64 << 20, old.rlim_max}; // of the file that nodes go to when they are many
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int result = rp_disk_writer_zero(writer, sizeof data, rest, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_ok(result, err);
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    assert_ok(rp_repo_session_flush(session, &err), err);
    assert_ok(rp_repo_read(repo, &root, 0, read, sizeof read, &err), err);
    assert_memory_equal(read, data, sizeof data);
    assert_ok(rp_repo_read(repo, &root, size - sizeof read, read, sizeof read, &err), err);
    assert_true(!read[0] && !memcmp(read, read + 1, sizeof read - 1));
    rp_repo_session_end(session);
    rp_repo_close(repo);
}

static void an_empty_disk_and_an_unchanged_one_store_nothing(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    uint8_t *zeros = calloc(1, 1 << 20);
    struct rp_repo_root empty = store_disk(repo, NULL, zeros, 1 << 20, "vm", NULL), root, again;
    static const uint8_t zero_id[RP_REPO_ID_BYTES];
    assert_memory_equal(empty.id, zero_id, RP_REPO_ID_BYTES);
    fill_block(zeros, 5);
    root = store_disk(repo, &empty, zeros, 1 << 20, "vm", NULL);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &root, 1, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &root, root.size, &err);
    assert_ok(rp_disk_writer_finish(writer, &again, &err), err);
    assert_memory_equal(&again, &root, sizeof root);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(zeros);
}

static void a_disk_is_built_only_on_what_the_session_pins(void **state)
{
    struct rp_error err = {0};
    uint8_t *data = malloc(RP_REPO_BLOCK);
    fill_block(data, 1);
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_root root = store_disk(repo, NULL, data, RP_REPO_BLOCK, "vm", NULL);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    assert_null(rp_disk_writer_new(session, &root, root.size, &err));
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_error_clear(&err);
    assert_null(rp_disk_writer_new(session, &root, root.size - 1, &err)); // a shrunk disk is written in full
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_error_clear(&err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, RP_REPO_BLOCK * 2, &err);
    assert_int_equal(rp_disk_writer_put(writer, 512, data, RP_REPO_BLOCK, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_disk_writer_abandon(writer);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(data);
}

static void a_point_comes_back_with_every_field(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    struct rp_point_disk disks[2] = {
        {.number = 0, .instance = "disk-0", .disk_id = rp_guid_new(), .logical_sector = 512, .physical_sector = 4096,
         .rct_id = "rct:1", .kind = "full", .reason = "first backup", .bytes_read = 10, .bytes_changed = 11, .root.size = 512,
         .data_write_guid = rp_guid_new()},
        {.number = 7, .disk_id = rp_guid_new(), .kind = "incremental"},
    };
    struct rp_point_file files[2] = {{"A.vmcx", "AQID"}, {"A.vmrs", ""}};
    struct rp_point point = {
        .files = files, .file_count = 2,
        .time_ns = 1700000000123456789, .vm_id = "id", .vm_name = "N\u00e4me \"x\"\n", .host = "local:/h", .kind = "full", .reason = "why",
        .approach = "wmi-checkpoint", .reader = "virtual-disk", .consistency_asked = "application",
        .consistency_reached = "crash", .consistency_reason = "no agent", .reference_point = "rp", .base_point = "b",
        .settings = "<xml/>", .started_ns = 5, .checkpoint_ns = 6, .read_ns = 7, .convert_ns = 8, .bytes_read = 9,
        .bytes_stored = 10, .new_blocks = 11, .software = "refpoint", .disks = disks, .disk_count = 2, .sequence = 12,
    };
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    rp_repo_session_end(session);
    struct rp_points points;
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].id, point.id);
    assert_null(points.items[0].settings);
    RP_CLEANUP(rp_buf_clear) struct rp_buf a = {0}, b = {0};
    RP_CLEANUP(rp_point_clear) struct rp_point whole = {0};
    assert_ok(rp_repo_point(repo, point.id, &whole, &err), err);
    assert_ok(rp_point_encode(&point, &a, &err), err);
    assert_ok(rp_point_encode(&whole, &b, &err), err);
    assert_string_equal(rp_buf_text(&a), rp_buf_text(&b));
    assert_string_equal(points.items[0].vm_name, point.vm_name);
    assert_string_equal(points.items[0].disks[0].rct_id, "rct:1");
    assert_null(points.items[0].disks[1].rct_id);
    assert_int_equal(points.items[0].file_count, 0); // a list leaves out what is large
    assert_int_equal(whole.file_count, 2);
    assert_string_equal(whole.files[0].name, "A.vmcx");
    assert_string_equal(whole.files[0].data, "AQID");
    assert_string_equal(whole.files[1].name, "A.vmrs");
    assert_string_equal(whole.files[1].data, "");
    for (size_t i = 0; i < 2; i++) { // the second has none
        assert_true(rp_guid_equal(&whole.disks[i].data_write_guid, &disks[i].data_write_guid));
        assert_true(rp_guid_equal(&points.items[0].disks[i].data_write_guid, &disks[i].data_write_guid));
    }
    rp_points_clear(&points);
    rp_repo_close(repo);
}

static int add_note(void *context, int64_t time_ns, const char *json)
{
    char *all = context;
    assert_true(time_ns > 0);
    strcat(all, json);
    return 0;
}

static void a_wrong_clock_does_not_keep_its_point_the_latest(void **state)
{
    struct rp_error err = {0};
    struct rp_repo_root empty = {.size = RP_REPO_BLOCK};
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    // in the order of the commits; "b" is another VM, "old" was written before there were sequences
    static const struct { const char *vm, *name; int64_t time; uint64_t sequence; } made[] = {
        {"vm", "old", 5, 0}, {"vm", "one", 10, 1}, {"vm", "future", 1000, 2}, {"b", "b", 25, 1}, {"vm", "three", 20, 3},
        {"vm", "four", 30, 4}, {"vm", "back", 15, 5},
    };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        struct rp_point point;
        point_of(&point, made[i].name, &empty);
        free(point.vm_id);
        point.vm_id = strdup(made[i].vm);
        point.time_ns = made[i].time;
        point.sequence = made[i].sequence;
        assert_ok(rp_repo_commit(session, &point, &err), err);
        rp_point_clear(&point);
    }
    rp_repo_session_end(session);
    static const char *const expected[] = {"old", "one", "future", "three", "four", "back", "b"};
    struct rp_points points;
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 7);
    for (size_t i = 0; i < points.count; i++)
        assert_string_equal(points.items[i].vm_name, expected[i]);
    assert_int_equal(points.items[2].time_ns, 1000); // what it says of itself stays
    assert_int_equal(points.items[2].order_ns, 15);
    rp_points_clear(&points);
    rp_repo_close(repo);
}

static void the_points_of_one_vm_come_without_those_of_others(void **state)
{
    struct rp_error err = {0};
    struct rp_repo_root empty = {.size = RP_REPO_BLOCK};
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    for (int i = 0; i < 9; i++) {
        struct rp_point point;
        point_of(&point, "a name", &empty);
        point.time_ns = 1 + i;
        free(point.vm_id);
        point.vm_id = strdup(i % 3 ? "other" : "vm");
        assert_ok(rp_repo_commit(session, &point, &err), err);
        rp_point_clear(&point);
    }
    rp_repo_session_end(session);
    const struct { const char *vm; size_t count; } expected[] = {{NULL, 9}, {"vm", 3}, {"other", 6}, {"nobody", 0}};
    for (int i = 0; i < 4; i++) {
        struct rp_points points;
        assert_ok(rp_repo_points_of(repo, expected[i].vm, &points, &err), err);
        assert_int_equal(points.count, expected[i].count);
        for (size_t j = 0; j < points.count; j++) {
            assert_true(!expected[i].vm || !strcmp(points.items[j].vm_id, expected[i].vm));
            assert_true(!j || points.items[j].time_ns > points.items[j - 1].time_ns);
        }
        rp_points_clear(&points);
    }
    rp_repo_close(repo);
}

static void notes_are_added_in_order_and_never_change(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    char id[RP_POINT_ID], all[256] = "";
    uint8_t zeros[512] = {0};
    store_disk(repo, NULL, zeros, 512, "vm", id);
    assert_ok(rp_repo_note_add(repo, id, "{\"checked\":true}", &err), err);
    assert_ok(rp_repo_note_add(repo, id, "{\"booted\":1}", &err), err);
    assert_ok(rp_repo_notes(repo, id, add_note, all, &err), err);
    assert_string_equal(all, "{\"checked\":true}{\"booted\":1}");
    assert_int_equal(rp_repo_note_add(repo, id, "not json", &err), -1);
    rp_error_clear(&err);
    assert_int_equal(rp_repo_note_add(repo, "../x", "{}", &err), -1);
    rp_repo_close(repo);
}

static void what_another_process_commits_is_seen_without_reopening(void **state)
{
    uint8_t *data = malloc(RP_REPO_BLOCK);
    fill_block(data, 9);
    struct rp_repo *reader = place_open(*state), *writer = place_open(*state);
    struct rp_repo_root root = store_disk(writer, NULL, data, RP_REPO_BLOCK, "vm", NULL);
    assert_disk(reader, &root, data);
    rp_repo_close(reader);
    rp_repo_close(writer);
    free(data);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(a_disk_of_mixed_content_is_restored_bit_for_bit),
        WITH(a_read_may_begin_and_end_anywhere),
        WITH(an_extraction_gives_all_data_and_says_before_where_it_will_come),
        WITH(every_point_of_many_incrementals_stays_exact),
        {"every point stays exact in an unencrypted repository", every_point_of_many_incrementals_stays_exact,
         place_setup_unencrypted, place_teardown, NULL},
        WITH(equal_blocks_are_stored_once_and_zeros_not_at_all),
        WITH(growth_without_data_costs_nothing),
        WITH(an_empty_disk_and_an_unchanged_one_store_nothing),
        WITH(a_disk_is_built_only_on_what_the_session_pins),
        WITH(a_point_comes_back_with_every_field),
        WITH(a_wrong_clock_does_not_keep_its_point_the_latest),
        WITH(the_points_of_one_vm_come_without_those_of_others),
        WITH(notes_are_added_in_order_and_never_change),
        WITH(what_another_process_commits_is_seen_without_reopening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
