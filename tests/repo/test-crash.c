// Whatever fails, and whenever: the repository opens, the committed points are intact, the check is clean.
#include "place.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../stride.h"
#include "base/num.h"
#include "faulty.h"

#define BLOCKS 600u // more than one pack
#define SIZE ((uint64_t)BLOCKS * RP_REPO_BLOCK)

static void fill(uint8_t *data, uint32_t seed)
{
    for (uint32_t block = 0; block < BLOCKS; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, (seed * 1000 + block) * 3); // kind 0: random bytes
}

static struct rp_repo *open_faulty(const struct place *place, struct faulty **faulty)
{
    struct rp_error err = {0};
    struct rp_backend *inner = rp_backend_directory_open(place->repository, false, &err);
    assert_ok(inner ? 0 : -1, err);
    *faulty = faulty_new(inner);
    struct rp_repo *repo = rp_repo_open(&(*faulty)->backend, PASSPHRASE, place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    return repo;
}

static void a_failure_of_any_write_leaves_every_point_intact(void **state)
{
    struct place *place = *state;
    uint8_t *first = malloc(SIZE), *second = malloc(SIZE);
    fill(first, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, first, SIZE, "vm", NULL);
    rp_repo_close(repo);
    size_t points = 1;
    uint32_t seed = 2;
    int first_put = (int)(test_seed() % STRIDE);
    for (enum fault fault = FAULT_BEFORE; fault <= FAULT_NO_SPACE; fault++)
        for (int at = first_put;; at += STRIDE) {
            struct faulty *faulty;
            struct rp_error err = {0};
            fill(second, seed++);
            repo = open_faulty(place, &faulty);
            faulty->fault = fault;
            faulty->puts_left = at;
            int result = try_backup(repo, second, SIZE, &err);
            bool reached = faulty->puts_left < 0;
            faulty->fault = FAULT_NONE;
            rp_repo_close(repo);
            if (result)
                assert_int_equal(err.code, fault == FAULT_NO_SPACE ? RP_ERR_NO_SPACE : RP_ERR_IO);
            repo = place_open(place);
            size_t now = count_points(repo);
            assert_true(result == 0 ? now == points + 1 : now == points || (fault == FAULT_AFTER && now == points + 1));
            points = now;
            assert_clean(repo, false);
            assert_disk(repo, &root, first);
            rp_repo_close(repo);
            if (!reached)
                break;
        }
    free(first);
    free(second);
}

static void a_repeated_backup_finds_what_a_failed_one_stored(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct faulty *faulty;
    uint8_t *data = malloc(SIZE);
    fill(data, 7);
    struct rp_repo *repo = open_faulty(place, &faulty);
    faulty->fault = FAULT_BEFORE;
    faulty->prefix = "points/";
    assert_int_equal(try_backup(repo, data, SIZE, &err), -1);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, SIZE, &err);
    rp_error_clear(&err);
    assert_ok(rp_disk_writer_put(writer, 0, data, SIZE, &err), err);
    struct rp_repo_stats stats;
    rp_repo_session_stats(session, &stats);
    assert_int_equal(stats.new_blocks, 0);
    assert_int_equal(stats.known_blocks, BLOCKS);
    rp_disk_writer_abandon(writer);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(data);
}

static void after_a_failed_write_the_session_cannot_commit(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct faulty *faulty;
    uint8_t *data = malloc(SIZE);
    fill(data, 8);
    struct rp_repo *repo = open_faulty(place, &faulty);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, SIZE, &err);
    faulty->fault = FAULT_NO_SPACE;
    faulty->prefix = "packs/";
    rp_disk_writer_put(writer, 0, data, SIZE, NULL);
    assert_int_equal(rp_repo_session_flush(session, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    faulty->fault = FAULT_NONE; // space again: what was lost is lost
    rp_error_clear(&err);
    assert_int_equal(rp_disk_writer_put(writer, 0, data, RP_REPO_BLOCK, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    rp_disk_writer_abandon(writer);
    struct rp_repo_root root = {.size = SIZE};
    struct rp_point point;
    point_of(&point, "vm", &root);
    assert_int_equal(rp_repo_commit(session, &point, NULL), -1);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    assert_int_equal(count_points(repo), 0);
    rp_repo_close(repo);
    free(data);
}

static void a_writer_killed_at_any_moment_leaves_every_point_intact(void **state)
{
    struct place *place = *state;
    uint32_t random = test_seed();
    uint8_t *data = malloc(SIZE);
    fill(data, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, SIZE, "vm", NULL);
    rp_repo_close(repo);
    size_t points = 1;
    for (int round = 0; round < 8; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (uint32_t seed = 10 + (uint32_t)round * 100;; seed++) {
                struct rp_backend *backend = rp_backend_directory_open(place->repository, false, NULL);
                struct rp_repo *writer = rp_repo_open(backend, PASSPHRASE, place->cache, NULL);
                if (!writer)
                    _exit(1);
                fill(data, seed);
                try_backup(writer, data, SIZE, NULL);
                rp_repo_close(writer);
            }
        }
        usleep(20000 + next_random(&random) % 400000);
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); // it did not end by itself
        repo = place_open(place);
        size_t now = count_points(repo);
        assert_true(now >= points);
        points = now;
        assert_clean(repo, round == 7);
        fill(data, 1);
        assert_disk(repo, &root, data);
        rp_repo_close(repo);
    }
    free(data);
}

struct worker {
    struct rp_repo *repo;
    const uint8_t *data;
    struct rp_repo_root root;
    struct rp_disk_writer *writer;
    int part;
};

static void *back_up(void *argument)
{
    struct worker *worker = argument;
    worker->root = store_disk(worker->repo, NULL, worker->data, SIZE, "vm", NULL);
    return NULL;
}

static void two_sessions_may_write_the_same_blocks_at_once(void **state)
{
    struct place *place = *state;
    uint8_t *data = malloc(SIZE);
    fill(data, 3);
    struct rp_repo *repo = place_open(place), *other = place_open(place);
    struct worker workers[3] = {{repo, data, {{0}, 0}, NULL, 0}, {repo, data, {{0}, 0}, NULL, 0}, {other, data, {{0}, 0}, NULL, 0}};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, back_up, &workers[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(&workers[i].root, &workers[0].root, sizeof workers[0].root);
        assert_disk(repo, &workers[i].root, data);
    }
    assert_clean(other, true);
    rp_repo_close(repo);
    rp_repo_close(other);
    free(data);
}

static void *put_part(void *argument)
{
    struct worker *worker = argument;
    struct rp_error err = {0};
    // interleaved, so that threads meet in the same nodes and frames
    for (uint32_t block = (uint32_t)worker->part; block < BLOCKS; block += 4) {
        uint64_t at = (uint64_t)block * RP_REPO_BLOCK;
        assert_ok(rp_disk_writer_put(worker->writer, at, worker->data + at, RP_REPO_BLOCK, &err), err);
    }
    return NULL;
}

static void many_threads_write_one_disk(void **state)
{
    struct rp_error err = {0};
    uint8_t *data = malloc(SIZE);
    for (uint32_t block = 0; block < BLOCKS; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, block % 400);
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, SIZE, &err);
    struct worker workers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){repo, data, {{0}, 0}, writer, i};
        assert_int_equal(pthread_create(&threads[i], NULL, put_part, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct rp_repo_root root;
    struct rp_repo_stats stats;
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    rp_repo_session_stats(session, &stats);
    assert_int_equal(stats.new_blocks, 400);
    assert_int_equal(stats.known_blocks, BLOCKS - 400);
    assert_ok(rp_repo_session_flush(session, &err), err);
    assert_disk(repo, &root, data);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(data);
}

int main(void)
{
    log_off();
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(a_failure_of_any_write_leaves_every_point_intact),
        WITH(a_repeated_backup_finds_what_a_failed_one_stored),
        WITH(after_a_failed_write_the_session_cannot_commit),
        WITH(a_writer_killed_at_any_moment_leaves_every_point_intact),
        WITH(two_sessions_may_write_the_same_blocks_at_once),
        WITH(many_threads_write_one_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
