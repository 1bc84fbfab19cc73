// Memory, with ten million blocks in the repository and a sparse disk of 64 TiB. Each command runs in a process of its own
// whose anonymous memory is sampled; packs are made up: ids that no block has, frames that hold nothing.
#include "place.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "repo/core.h"
#include "repo/extract.h"
#include "repo/session.h"
#include "repo/tree.h"

#define LIMIT_KIB (300u << 10)
#define DISK ((uint64_t)64 << 40)
#define LEAVES 45000u       // nodes of level 1 that hold something; seven of eight of their blocks do
#define SPREAD 93u          // one of so many leaves
#define PER_FRAME 32u
#define PER_PACK (2000u * PER_FRAME)
#define FAKE_FRAME (RP_TAG_BYTES + 1)
#define REAL (256u << 20)   // bytes of true data in the second disk

struct large {
    struct place *place;
    struct rp_repo_root root, real;
};

// ---- making it ------------------------------------------------------------------------------------------------------

struct maker {
    struct rp_repo *repo;
    struct rp_pack_index index;
    uint32_t random;
    uint64_t blocks;
};

static void end_pack(struct maker *maker)
{
    struct rp_error err = {0};
    uint8_t id[RP_PACK_ID], key[RP_KEY_BYTES], header[RP_PACK_HEADER];
    char name[RP_PACK_NAME];
    struct rp_repo *repo = maker->repo;
    RP_CLEANUP(rp_buf_clear) struct rp_buf pack = {0};
    if (!maker->index.id_count)
        return;
    rp_crypto_random(id, sizeof id);
    rp_crypto_derive(repo->crypto, "refpoint 1 pack", id, sizeof id, key);
    rp_pack_header(id, repo->config.encrypted, header);
    rp_buf_append(&pack, header, sizeof header);
    for (uint32_t at = 0; at < maker->index.id_count; at += PER_FRAME) {
        uint32_t count = maker->index.id_count - at < PER_FRAME ? maker->index.id_count - at : PER_FRAME;
        maker->index.frames[maker->index.frame_count++] = (struct rp_pack_frame){
            .offset = (uint32_t)pack.size, .stored = FAKE_FRAME, .compression = RP_COMPRESSION_ZSTD, .count = (uint16_t)count, .first = at};
        memset(rp_buf_extend(&pack, FAKE_FRAME), 0, FAKE_FRAME);
    }
    struct rp_scratch *scratch = rp_scratch_take(repo);
    rp_pack_finish(scratch->cipher, key, header, &maker->index, pack.size, &pack);
    rp_scratch_give(repo, scratch);
    assert_ok(repo->backend->ops->put(repo->backend, rp_pack_name(id, name), pack.data, pack.size, &err), err);
    maker->index.frame_count = maker->index.id_count = 0;
}

static void make_leaf(struct maker *maker, uint8_t *node)
{
    for (uint32_t i = 0; i < RP_NODE_IDS; i++) {
        uint8_t *id = node + (size_t)i * RP_ID_BYTES;
        memset(id, 0, RP_ID_BYTES);
        if (i % 8 == 7)
            continue;
        for (uint32_t word = 0; word < RP_ID_BYTES; word += 4)
            rp_put_le32(id + word, next_random(&maker->random));
        memcpy(maker->index.ids + (size_t)maker->index.id_count++ * RP_ID_BYTES, id, RP_ID_BYTES);
        maker->blocks++;
        if (maker->index.id_count == PER_PACK)
            end_pack(maker);
    }
}

// The id of the node of this level and number; every leaf that is a multiple of SPREAD holds blocks.
static void make_node(struct maker *maker, struct rp_packer *packer, unsigned level, uint64_t number, uint8_t *id)
{
    uint8_t *node = calloc(1, RP_NODE_BYTES);
    struct rp_error err = {0};
    uint64_t leaves = rp_tree_span(level) / RP_NODE_IDS, first = number * leaves, next = (first + SPREAD - 1) / SPREAD * SPREAD;
    memset(id, 0, RP_ID_BYTES);
    if (next < first + leaves && next < (uint64_t)LEAVES * SPREAD) {
        if (level == 1)
            make_leaf(maker, node);
        for (uint32_t i = 0; level > 1 && i < RP_NODE_IDS; i++)
            make_node(maker, packer, level - 1, number * RP_NODE_IDS + i, node + (size_t)i * RP_ID_BYTES);
        struct rp_scratch *scratch = rp_scratch_take(maker->repo);
        assert_ok(rp_packer_put(packer, scratch, level, node, id, &err), err);
        rp_scratch_give(maker->repo, scratch);
    }
    free(node);
}

static void make_made_up(struct large *large, struct rp_repo *repo)
{
    struct maker maker = {.repo = repo, .random = 1};
    struct rp_error err = {0};
    struct rp_point point;
    maker.index.frames = calloc(RP_PACK_MAX_BLOCKS, sizeof *maker.index.frames);
    maker.index.ids = malloc((size_t)RP_PACK_MAX_BLOCKS * RP_ID_BYTES);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    assert_ok(session ? 0 : -1, err);
    large->root.size = DISK;
    make_node(&maker, rp_session_packer(session), rp_tree_levels(DISK), 0, large->root.id);
    end_pack(&maker);
    point_of(&point, "large", &large->root);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    rp_pack_index_clear(&maker.index);
    assert_true(maker.blocks > 10000000);
}

static void make_real(struct large *large, struct rp_repo *repo)
{
    struct rp_error err = {0};
    struct rp_point point;
    uint8_t *data = malloc(1 << 20);
    uint32_t random = 7;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, DISK, &err);
    for (uint64_t i = 0; i < REAL >> 20; i++) {
        for (uint32_t at = 0; at < 1 << 20; at += 4)
            rp_put_le32(data + at, at % 3 ? next_random(&random) : 0);
        assert_ok(rp_disk_writer_put(writer, DISK / (REAL >> 20) * i, data, 1 << 20, &err), err);
    }
    assert_ok(rp_disk_writer_finish(writer, &large->real, &err), err);
    point_of(&point, "real", &large->real);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    free(data);
}

static int make(void **state)
{
    struct large *large = calloc(1, sizeof *large);
    log_off();
    place_setup(state);
    large->place = *state;
    pid_t child = fork(); // its memory is not to be inherited
    char path[128];
    snprintf(path, sizeof path, "%s/roots", large->place->folder);
    if (!child) {
        struct rp_repo *repo = place_open(large->place);
        make_made_up(large, repo);
        make_real(large, repo);
        rp_repo_close(repo);
        FILE *file = fopen(path, "w");
        fwrite(large, sizeof *large, 1, file);
        fclose(file);
        _exit(0);
    }
    int status;
    struct large made;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    FILE *file = fopen(path, "r");
    assert_int_equal(fread(&made, sizeof made, 1, file), 1);
    fclose(file);
    large->root = made.root;
    large->real = made.real;
    *state = large;
    return 0;
}

static int unmake(void **state)
{
    struct large *large = *state;
    *state = large->place;
    free(large);
    return place_teardown(state);
}

// ---- measuring ------------------------------------------------------------------------------------------------------

static unsigned long highest;

static void *sample(void *unused)
{
    for (;;) {
        FILE *file = fopen("/proc/self/status", "re");
        char line[256];
        unsigned long kib = 0;
        while (fgets(line, sizeof line, file) && sscanf(line, "RssAnon: %lu", &kib) != 1)
            ;
        fclose(file);
        if (kib > highest)
            highest = kib;
        usleep(1000);
    }
    return unused;
}

// Runs `command` in a process of its own, which must stay below the limit.
static void measure(const struct large *large, const char *name, void (*command)(const struct large *, struct rp_repo *))
{
    pid_t child = fork();
    if (!child) {
        pthread_t sampler;
        pthread_create(&sampler, NULL, sample, NULL);
        struct rp_repo *repo = place_open(large->place);
        command(large, repo);
        rp_repo_close(repo);
        print_message("# %s: %lu MiB\n", name, highest >> 10);
        fflush(NULL);
        _exit(highest > LIMIT_KIB);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("%s takes too much, or failed", name);
}

static void list(const struct large *large, struct rp_repo *repo)
{
    struct rp_points points;
    struct rp_repo_info info;
    (void)large;
    assert_int_equal(rp_repo_points(repo, &points, NULL), 0);
    rp_points_clear(&points);
    assert_int_equal(rp_repo_info(repo, &info, NULL), 0);
    assert_true(info.blocks > 10000000);
}

static void diff(const struct large *large, struct rp_repo *repo)
{
    struct rp_ranges ranges = {0};
    assert_int_equal(rp_repo_diff(repo, &large->real, &large->root, &ranges, NULL), 0);
    assert_true(ranges.count > 1000000);
    rp_ranges_clear(&ranges);
}

static unsigned problems_told;
static void count_problem(void *context, const struct rp_repo_problem *problem)
{
    (void)context;
    (void)problem;
    problems_told++;
}

static void quick_check(const struct large *large, struct rp_repo *repo)
{
    uint64_t problems;
    (void)large;
    assert_int_equal(rp_repo_check(repo, false, count_problem, NULL, NULL, NULL, &problems, NULL), 0);
    assert_int_equal(problems, 0);
}

static void deep_check_of_ten_million_damaged_blocks(const struct large *large, struct rp_repo *repo)
{
    uint64_t problems;
    (void)large;
    assert_int_equal(rp_repo_check(repo, true, count_problem, NULL, NULL, NULL, &problems, NULL), 0);
    assert_true(problems > 100);
    assert_int_equal(problems, problems_told);
}

struct writing {
    struct rp_disk_writer *writer;
    unsigned part;
};

static void *write_part(void *argument)
{
    const struct writing *writing = argument;
    struct rp_error err = {0};
    uint8_t *data = malloc(1 << 20);
    uint32_t random = 99 + writing->part;
    for (unsigned i = 0; i < 64; i++) {
        for (uint32_t at = 0; at < 1 << 20; at += 4)
            rp_put_le32(data + at, at % 5 ? next_random(&random) : 0);
        assert_ok(rp_disk_writer_put(writing->writer, (DISK / 256 * (i * 4 + writing->part)) & ~0xFFFFull, data, 1 << 20, &err), err);
    }
    free(data);
    return NULL;
}

static void back_up(const struct large *large, struct rp_repo *repo)
{
    struct rp_error err = {0};
    struct rp_repo_root root;
    struct rp_point point;
    pthread_t threads[4];
    struct writing parts[4];
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &large->root, 1, &err);
    assert_ok(session ? 0 : -1, err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &large->root, DISK, &err);
    assert_ok(writer ? 0 : -1, err);
    for (unsigned i = 0; i < 4; i++) {
        parts[i] = (struct writing){writer, i};
        pthread_create(&threads[i], NULL, write_part, &parts[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    point_of(&point, "next", &root);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    rp_point_clear(&point);
    rp_repo_session_end(session);
}

static pthread_mutex_t jobs = PTHREAD_MUTEX_INITIALIZER;
static uint64_t extracted;

static int take_data(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    (void)context;
    (void)offset;
    (void)data;
    (void)err;
    __atomic_add_fetch(&extracted, size, __ATOMIC_RELAXED);
    return 0;
}

static void *extract_some(void *argument)
{
    for (;;) {
        struct rp_extract_job *job;
        struct rp_error err = {0};
        uint64_t bytes;
        pthread_mutex_lock(&jobs);
        int more = rp_extract_next(argument, &job, &bytes, &err);
        pthread_mutex_unlock(&jobs);
        if (more != 1) {
            assert_ok(more, err);
            return NULL;
        }
        assert_ok(rp_extract_run(argument, job, take_data, NULL, &err), err);
    }
}

static void restore(const struct large *large, struct rp_repo *repo)
{
    struct rp_extract *extract = rp_extract_new(repo, &large->real, NULL, NULL, NULL);
    uint64_t bytes;
    pthread_t threads[8]; // as many as a restore takes on its own
    assert_int_equal(rp_repo_data_bytes(repo, &large->root, NULL, &bytes, NULL), 0);
    assert_true(bytes > (uint64_t)10000000 * RP_REPO_BLOCK);
    for (unsigned i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, extract_some, extract);
    for (unsigned i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(extracted, REAL);
    rp_extract_free(extract);
    // The plan for what cannot be read: a whole window of it.
    struct rp_extract_job *job;
    extract = rp_extract_new(repo, &large->root, NULL, NULL, NULL);
    assert_int_equal(rp_extract_next(extract, &job, &bytes, NULL), 1);
    assert_int_equal(rp_extract_run(extract, job, take_data, NULL, NULL), -1);
    rp_extract_free(extract);
}

static void no_command_takes_more_than_300_mib(void **state)
{
    const struct large *large = *state;
    measure(large, "list, info", list);
    measure(large, "check", quick_check);
    measure(large, "diff", diff);
    measure(large, "restore", restore);
    measure(large, "backup", back_up);
    measure(large, "check --read-data of ten million damaged blocks", deep_check_of_ten_million_damaged_blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(no_command_takes_more_than_300_mib, make, unmake)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
