// Sessions, tombstones; opening with the right and the wrong key.
#include "place.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "faulty.h"
#include "repo/json.h"
#include "repo/lease_numbers.h"
#include "repo/object.h"

static void session_folder(const struct place *place, char folder[64])
{
    char path[200];
    snprintf(path, sizeof path, "%s/sessions", place->repository);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    folder[0] = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.') {
            char inside[500];
            snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
            if (count_files(inside))
                snprintf(folder, 64, "sessions/%.40s", entry->d_name);
        }
    closedir(dir);
}

static void a_session_declared_dead_cannot_commit(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    char folder[64];
    session_folder(place, folder);
    assert_true(folder[0]);
    place_put_lease(repo, folder, "0000000000000002", "free", 0);
    struct rp_repo_root root = {.size = 512};
    struct rp_point point;
    point_of(&point, "vm", &root);
    assert_int_equal(rp_repo_commit(session, &point, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    session_folder(place, folder);
    assert_string_equal(folder, ""); // its holder leaves nothing of it
    struct rp_points points;
    rp_error_clear(&err);
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 0);
    rp_points_clear(&points);
    rp_repo_close(repo);
}

// Somebody ends the lock, and takes it, at the nth put of the commit.
struct rival {
    struct rp_repo *repo;
    struct rp_repo_lock *lock;
    int puts, at;
};

static void at_put(void *context, const char *name)
{
    struct rival *rival = context;
    struct rp_error err = {0};
    struct rp_repo_lock_holder holder;
    (void)name;
    if (rival->puts++ != rival->at)
        return;
    assert_ok(rp_repo_lock_look(rival->repo, "vm", &holder, &err), err);
    assert_ok(rp_repo_lock_end(rival->repo, "vm", "an administrator", &holder, &err), err);
    rival->lock = rp_repo_lock_take(rival->repo, "vm", "the rival", &err);
    assert_ok(rival->lock ? 0 : -1, err);
}

static void without_its_lock_nothing_is_committed_however_late_it_was_lost(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t *block = rp_xcalloc(1, RP_REPO_BLOCK);
    struct rp_repo *other = place_open(place);
    int failed = -1, at = 0;
    for (; failed; at++) { // until it is the point's own put, which is the last
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        assert_ok(repo ? 0 : -1, err);
        struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "a backup", &err);
        assert_ok(lock ? 0 : -1, err);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
        assert_ok(session ? 0 : -1, err);
        rp_repo_session_under(session, lock);
        struct rp_repo_root root;
        struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, RP_REPO_BLOCK, &err);
        fill_block(block, (uint32_t)at + 1);
        assert_ok(rp_disk_writer_put(writer, 0, block, RP_REPO_BLOCK, &err), err);
        assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
        struct rp_point point;
        point_of(&point, "vm", &root);
        struct rival rival = {.repo = other, .at = at};
        faulty->before_put = at_put;
        faulty->context = &rival;
        failed = rp_repo_commit(session, &point, &err);
        faulty->before_put = NULL;
        assert_non_null(rival.lock);
        assert_int_equal(err.code, failed ? RP_ERR_STATE : RP_OK);
        assert_int_equal(rp_repo_lock_held(lock), !failed);
        assert_int_equal(count_points(other), !failed);
        if (!failed)
            assert_int_equal(rival.puts, at + 1);
        rp_error_clear(&err);
        rp_repo_lock_release(rival.lock);
        rp_point_clear(&point);
        rp_repo_session_end(session);
        rp_repo_lock_release(lock);
        rp_repo_close(repo);
    }
    assert_true(at >= 4); // the pack, the renewal of the session, that of the lock, the point
    rp_repo_close(other);
    free(block);
}

static void a_repository_that_is_full_at_the_last_renewal_is_called_full_and_nothing_else(void **state)
{
    struct place *place = *state;
    static const char *const prefixes[] = {"sessions/", "locks/"};
    for (int i = 0; i < 2; i++) {
        struct rp_error err = {0};
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "a backup", &err);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
        assert_ok(session && lock ? 0 : -1, err);
        rp_repo_session_under(session, lock);
        struct rp_repo_root root = {.size = 512};
        struct rp_point point;
        point_of(&point, "vm", &root);
        faulty->prefix = prefixes[i];
        faulty->fault = FAULT_NO_SPACE;
        faulty->puts_left = 0;
        assert_int_equal(rp_repo_commit(session, &point, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
        assert_null(strstr(err.text, "session has ended"));
        assert_true(rp_repo_lock_held(lock));
        faulty->fault = FAULT_NONE;
        rp_error_clear(&err);
        assert_ok(rp_repo_commit(session, &point, &err), err);
        rp_point_clear(&point);
        rp_repo_session_end(session);
        rp_repo_lock_release(lock);
        rp_repo_close(repo);
    }
}

static void a_session_is_an_object_while_it_runs_and_none_after(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    char folder[64];
    struct rp_repo_root pinned = {.size = 4096};
    memset(pinned.id, 7, sizeof pinned.id);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "backup of x", &pinned, 1, &err);
    session_folder(place, folder);
    char name[128];
    snprintf(name, sizeof name, "%s/0000000000000001", folder);
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    assert_ok(rp_object_get(repo->backend, repo->crypto, name, &json, &err), err);
    assert_non_null(strstr(rp_buf_text(&json), "\"what\":\"backup of x\""));
    assert_non_null(strstr(rp_buf_text(&json), "\"root\":\"0707070707"));
    rp_repo_session_end(session);
    session_folder(place, folder);
    assert_int_equal(folder[0], 0);
    rp_repo_close(repo);
    snprintf(name, sizeof name, "%s/sessions", place->repository);
    assert_int_equal(rmdir(name), 0); // no empty folder stays for every backup ever made
}

static void tombstone(struct rp_repo *repo, const char *pack_path)
{
    struct rp_error err = {0};
    char name[128];
    snprintf(name, sizeof name, "tombstones/%s", strrchr(pack_path, '/') + 1);
    assert_ok(rp_object_put(repo->backend, repo->crypto, name, "{\"version\":1,\"time_ns\":1}", 25, &err), err);
}

// A disk of two blocks, in `pack`, which has a tombstone.
static struct rp_repo_root store_tombstoned(struct place *place, struct rp_repo *repo, uint8_t data[2 * RP_REPO_BLOCK], char pack[256])
{
    fill_block(data, 1);
    fill_block(data + RP_REPO_BLOCK, 2);
    struct rp_repo_root root = store_disk(repo, NULL, data, 2 * RP_REPO_BLOCK, "vm", NULL);
    first_pack(place, pack);
    tombstone(repo, pack);
    return root;
}

static void a_block_in_a_tombstoned_pack_is_stored_again(void **state)
{
    struct place *place = *state;
    uint8_t data[2 * RP_REPO_BLOCK];
    char pack[256];
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_tombstoned(place, repo, data, pack);
    struct rp_repo_root again = store_disk(repo, NULL, data, sizeof data, "vm2", NULL);
    assert_memory_equal(&root, &again, sizeof root);
    assert_disk(repo, &root, data); // still readable meanwhile
    assert_int_equal(unlink(pack), 0); // the collector's last step
    rp_repo_close(repo);
    repo = place_open(place);
    assert_disk(repo, &again, data); // from the other pack
    assert_clean(repo, true);
    rp_repo_close(repo);
}

static void nothing_is_built_on_a_copy_that_is_to_be_deleted(void **state)
{
    uint8_t data[2 * RP_REPO_BLOCK];
    char pack[256];
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_root root = store_tombstoned(*state, repo, data, pack);
    assert_refused_base(repo, &root);
    rp_repo_close(repo);
}

// ---- a collection that ends between two listings of a session that begins

static const struct rp_backend_ops *real_ops;
static char dying[256]; // the pack

static int list_then_collect(struct rp_backend *backend, const char *prefix, rp_backend_list_fn *each, void *context,
                             struct rp_error *err)
{
    int result = real_ops->list(backend, prefix, each, context, err);
    if (*dying && (!strcmp(prefix, "packs/") || !strcmp(prefix, "tombstones/"))) {
        char name[128];
        snprintf(name, sizeof name, "tombstones/%s", strrchr(dying, '/') + 1);
        assert_int_equal(unlink(dying), 0);
        assert_int_equal(real_ops->remove(backend, name, NULL), 0);
        *dying = 0;
    }
    return result;
}

static void a_session_that_begins_while_a_pack_is_collected_does_not_rely_on_it(void **state)
{
    struct place *place = *state;
    uint8_t data[RP_REPO_BLOCK];
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    first_pack(place, dying);
    tombstone(repo, dying);
    real_ops = repo->backend->ops;
    struct rp_backend_ops ops = *real_ops;
    ops.list = list_then_collect;
    repo->backend->ops = &ops;
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm2", NULL); // commits
    repo->backend->ops = real_ops;
    assert_int_equal(*dying, 0);
    assert_disk(repo, &root, data);
    assert_clean(repo, true);
    rp_repo_close(repo);
}

static void a_commit_that_needs_a_vanished_pack_is_refused(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t data[RP_REPO_BLOCK];
    fill_block(data, 1);
    struct rp_repo *repo = place_open(place);
    store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    char pack[256];
    first_pack(place, pack);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, sizeof data, &err);
    assert_ok(rp_disk_writer_put(writer, 0, data, sizeof data, &err), err); // known: not stored again
    assert_int_equal(unlink(pack), 0);
    struct rp_repo_root root;
    struct rp_point point;
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    point_of(&point, "vm", &root);
    assert_int_equal(rp_repo_commit(session, &point, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    assert_non_null(strstr(err.text, strrchr(pack, '/') + 1));
    rp_point_clear(&point);
    rp_repo_session_end(session);
    rp_repo_close(repo);
}

// ---- giving up ------------------------------------------------------------------------------------------------------

static unsigned objects(const struct place *place, const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", place->repository, folder);
    return count_files(path);
}

// A session that has stored one pack, and was never to put a point.
static struct rp_repo_session *stored(struct rp_repo *repo, uint32_t seed)
{
    struct rp_error err = {0};
    uint8_t block[RP_REPO_BLOCK];
    fill_block(block, seed);
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
    assert_ok(session ? 0 : -1, err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, sizeof block, &err);
    assert_ok(rp_disk_writer_put(writer, 0, block, sizeof block, &err), err);
    rp_disk_writer_abandon(writer);
    assert_ok(rp_repo_session_flush(session, &err), err);
    return session;
}

static void a_session_that_gives_up_leaves_nothing_and_no_doubts(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t data[2 * RP_REPO_BLOCK];
    for (unsigned i = 0; i < 2; i++)
        fill_block(data + i * RP_REPO_BLOCK, i + 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    for (int spilled = 0; spilled < 2; spilled++) {
        struct rp_repo_session *session = stored(repo, 3);
        assert_int_equal(objects(place, "packs"), 2);
        if (spilled)
            rp_index_spill(repo->index);
        assert_int_equal(rp_repo_session_discard(session), 1);
        assert_int_equal(objects(place, "packs"), 1);
        assert_int_equal(objects(place, "tombstones"), 0);
        rp_repo_session_end(session);
        assert_int_equal(objects(place, "sessions"), 0);
        rp_repo_close(repo);
        repo = place_open(place);
        assert_ok(rp_repo_need_index(repo, NULL, &err), err);
        assert_int_equal(rp_index_doubts(repo->index), 0);
        assert_true(rp_index_is_complete(repo->index, root.id));
    }
    fill_block(data, 3); // what was given up is not known any more
    root = store_disk(repo, NULL, data, sizeof data, "vm", NULL);
    assert_disk(repo, &root, data);
    assert_clean(repo, true);
    rp_repo_close(repo);
}

static void what_somebody_else_may_rely_on_stays(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t block[RP_REPO_BLOCK];
    fill_block(block, 5);
    struct rp_repo *repo = place_open(place), *other = place_open(place);

    // Another session has found the block, and goes on to commit.
    struct rp_repo_session *session = stored(repo, 5), *relies = rp_repo_session_begin(other, "test", NULL, 0, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(relies, NULL, sizeof block, &err);
    assert_ok(rp_disk_writer_put(writer, 0, block, sizeof block, &err), err);
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    assert_int_equal(objects(place, "tombstones"), 0);
    struct rp_repo_root root;
    struct rp_point point;
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    point_of(&point, "vm", &root);
    assert_ok(rp_repo_commit(relies, &point, &err), err);
    rp_point_clear(&point);
    rp_repo_session_end(relies);
    assert_disk(other, &root, block);

    // It has come and gone, and left its point.
    session = stored(repo, 6);
    fill_block(block, 6);
    root = store_disk(other, NULL, block, sizeof block, "vm2", NULL);
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    assert_int_equal(objects(place, "tombstones"), 0);
    assert_disk(other, &root, block);

    // A session that began to commit is one that may have done so.
    session = stored(repo, 7);
    root = (struct rp_repo_root){.size = RP_REPO_BLOCK};
    point_of(&point, "vm3", &root);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    rp_point_clear(&point);
    unsigned packs = objects(place, "packs");
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    assert_int_equal(objects(place, "packs"), packs);
    assert_clean(repo, true);
    rp_repo_close(repo);
    rp_repo_close(other);
}

static void a_point_that_finds_no_room_is_none_and_leaves_no_packs(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    static const enum fault faults[] = {FAULT_NO_SPACE, FAULT_AFTER};
    for (unsigned i = 0; i < 2; i++) {
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        assert_ok(repo ? 0 : -1, err);
        struct rp_repo_session *session = stored(repo, i + 1);
        struct rp_repo_root root = {.size = RP_REPO_BLOCK};
        struct rp_point point;
        point_of(&point, "vm", &root);
        faulty->prefix = "points/";
        faulty->fault = faults[i];
        faulty->puts_left = 0;
        assert_int_equal(rp_repo_commit(session, &point, &err), -1);
        assert_int_equal(err.code, faults[i] == FAULT_NO_SPACE ? RP_ERR_NO_SPACE : RP_ERR_IO);
        rp_error_clear(&err);
        assert_int_equal(rp_repo_session_discard(session), faults[i] == FAULT_NO_SPACE); // the other may be there
        assert_int_equal(objects(place, "packs"), faults[i] != FAULT_NO_SPACE);
        rp_point_clear(&point);
        rp_repo_session_end(session);
        rp_repo_close(repo);
    }
}

static void a_pack_that_a_collector_found_first_is_his(void **state)
{
    struct place *place = *state;
    struct rp_repo *repo = place_open(place);
    struct rp_repo_session *session = stored(repo, 8);
    char pack[256];
    first_pack(place, pack);
    tombstone(repo, pack);
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    assert_int_equal(access(pack, F_OK), 0);
    assert_int_equal(objects(place, "tombstones"), 1);
    rp_repo_close(repo);
}

static void only_a_session_that_is_dead_for_certain_does_not_count(void **state)
{
    struct place *place = *state;
    struct rp_repo *repo = place_open(place);
    // On another machine, long stale: it may only have slept.
    place_put_lease(repo, "sessions/0123456789abcdef0123456789abcdef", "0000000000000001", "held", 9999);
    struct rp_repo_session *session = stored(repo, 1);
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    repo->backend->ops->remove(repo->backend, "sessions/0123456789abcdef0123456789abcdef/0000000000000001", NULL);
    // On this one, and its process is gone.
    pid_t child = fork();
    if (child == 0) {
        struct rp_repo *theirs = rp_repo_open(rp_backend_directory_open(place->repository, false, NULL), PASSPHRASE, place->cache, NULL);
        _exit(theirs && rp_repo_session_begin(theirs, "the dead one", NULL, 0, NULL) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(objects(place, "sessions"), 1);
    session = stored(repo, 2);
    assert_int_equal(objects(place, "sessions"), 1); // ours: what the dead one left is removed
    assert_int_equal(rp_repo_session_discard(session), 1);
    rp_repo_session_end(session);
    // It is dead, and was not when ours began.
    int ready[2], end[2];
    char byte = 0;
    assert_int_equal(pipe(ready) | pipe(end), 0);
    child = fork();
    if (child == 0) {
        struct rp_repo *theirs = rp_repo_open(rp_backend_directory_open(place->repository, false, NULL), PASSPHRASE, place->cache, NULL);
        bool begun = theirs && rp_repo_session_begin(theirs, "the dying one", NULL, 0, NULL);
        _exit(begun && write(ready[1], &byte, 1) == 1 && read(end[0], &byte, 1) == 1 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    session = stored(repo, 3);
    assert_int_equal(write(end[1], &byte, 1), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(objects(place, "sessions"), 2);
    assert_int_equal(rp_repo_session_discard(session), 1);
    rp_repo_session_end(session);
    rp_repo_close(repo);
}

#define STRANGER "sessions/0123456789abcdef0123456789abcdef"

// How many packs go when a session that begins now stores one, and gives up.
static size_t given_up_beside(struct rp_repo *repo, uint32_t seed)
{
    struct rp_repo_session *session = stored(repo, seed);
    size_t removed = rp_repo_session_discard(session);
    rp_repo_session_end(session);
    return removed;
}

static void remove_stranger(const struct place *place)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s/" STRANGER "'", place->repository);
    assert_int_equal(system(command), 0);
}

static void a_session_that_was_silent_for_half_a_day_is_ended_and_counts_no_more(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_lease_state left;
    struct rp_repo *repo = place_open(place);
    place_put_lease(repo, STRANGER, "0000000000000007", "held", 11 * 3600);
    assert_int_equal(given_up_beside(repo, 1), 0);
    remove_stranger(place);
    place_put_lease(repo, STRANGER, "0000000000000007", "held", 13 * 3600);
    assert_int_equal(given_up_beside(repo, 2), 1);
    assert_int_equal(given_up_beside(repo, 3), 1);
    // The end stays: without it its holder, who was asleep, would put the number, and believe that he lives.
    assert_ok(rp_lease_get(repo, STRANGER, 8, &left, &err), err);
    assert_false(left.held);
    rp_lease_state_clear(&left);
    assert_int_equal(objects(place, "sessions"), 2);
    rp_repo_close(repo);
}

static void a_session_that_is_ended_while_ours_runs_counts(void **state)
{
    struct place *place = *state;
    struct rp_repo *repo = place_open(place);
    place_put_lease(repo, STRANGER, "0000000000000001", "held", 0);
    struct rp_repo_session *session = stored(repo, 1);
    place_put_lease(repo, STRANGER, "0000000000000002", "free", 0); // it may have found our pack, and be putting its point
    assert_int_equal(rp_repo_session_discard(session), 0);
    rp_repo_session_end(session);
    assert_int_equal(given_up_beside(repo, 2), 1);
    rp_repo_close(repo);
}

static void wake_up(void *context, const char *name)
{
    if (!strcmp(name, STRANGER "/0000000000000002"))
        place_put_lease(context, STRANGER, "0000000000000002", "held", 0);
}

static void a_session_that_wakes_up_while_it_is_ended_lives(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
    struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err), *other = place_open(place);
    place_put_lease(repo, STRANGER, "0000000000000001", "held", 99999);
    faulty->before_put = wake_up;
    faulty->context = other;
    assert_int_equal(given_up_beside(repo, 1), 0);
    assert_int_equal(objects(place, "sessions"), 2);
    rp_repo_close(repo);
    rp_repo_close(other);
}

static void nothing_is_built_on_a_disk_that_lost_a_pack(void **state)
{
    struct place *place = *state;
    uint64_t size = 40 * RP_REPO_BLOCK;
    uint8_t *data = malloc(size);
    for (uint32_t block = 0; block < 40; block++)
        fill_block(data + block * RP_REPO_BLOCK, 3 * block);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root first = store_disk(repo, NULL, data, size, "vm", NULL), second;
    char pack[256];
    first_pack(place, pack);
    fill_block(data, 1000);
    second = store_disk(repo, &first, data, size, "vm", NULL); // its node is in another pack, most blocks in the first
    rp_repo_close(repo);
    assert_int_equal(unlink(pack), 0);
    for (int i = 0; i < 4; i++) { // with a cache that knows the pack, and with new ones, again and again
        repo = place_open(place);
        assert_refused_base(repo, &second);
        rp_repo_close(repo);
        if (i % 2)
            place_remove_cache(place);
    }
    // while a session runs
    repo = place_open(place);
    struct rp_repo_root whole = store_disk(repo, NULL, data, size, "vm", NULL);
    rp_repo_close(repo);
    repo = place_open(place);
    struct rp_error err = {0};
    struct rp_repo_root root;
    struct rp_point point;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", &whole, 1, &err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, &whole, size, &err);
    assert_ok(writer ? 0 : -1, err);
    fill_block(data, 2000);
    assert_ok(rp_disk_writer_put(writer, 0, data, RP_REPO_BLOCK, &err), err);
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s/packs'", place->repository);
    assert_int_equal(system(command), 0);
    point_of(&point, "vm", &root);
    assert_int_equal(rp_repo_commit(session, &point, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    rp_repo_close(repo);
    free(data);
}

static void only_the_passphrase_opens_an_encrypted_repository(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    const char *wrong[] = {"wrong", "", NULL, "correct horse "};
    for (int i = 0; i < 4; i++) {
        rp_error_clear(&err);
        assert_null(rp_repo_open(rp_backend_directory_open(place->repository, false, &err), wrong[i], place->cache, &err));
        assert_int_equal(err.code, RP_ERR_AUTH);
    }
    rp_error_clear(&err);
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    bool encrypted = false;
    assert_ok(rp_repo_is_encrypted(backend, &encrypted, &err), err);
    assert_true(encrypted);
    struct rp_repo_options options = {.passphrase = PASSPHRASE, .scrypt_log_n = 10};
    assert_int_equal(rp_repo_init(backend, &options, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
}

static void a_passphrase_for_an_unencrypted_repository_is_refused(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    assert_null(rp_repo_open(rp_backend_directory_open(place->repository, false, &err), "p", place->cache, &err));
    assert_int_equal(err.code, RP_ERR_AUTH);
}

static void a_changed_configuration_does_not_open(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char path[200];
    snprintf(path, sizeof path, "%s/config", place->repository);
    uint64_t bits = file_size(path) * 8;
    uint32_t random = test_seed();
    for (int i = 0; i < 60; i++) {
        uint64_t bit = next_random(&random) % bits;
        flip_bit(path, bit);
        rp_error_clear(&err);
        assert_null(rp_repo_open(rp_backend_directory_open(place->repository, false, &err), PASSPHRASE, place->cache, &err));
        flip_bit(path, bit);
    }
    rp_repo_close(place_open(place));
}

static void the_content_of_an_encrypted_repository_does_not_show(void **state)
{
    struct place *place = *state;
    uint8_t data[RP_REPO_BLOCK];
    char command[300];
    for (size_t i = 0; i < sizeof data; i += 16)
        memcpy(data + i, "SECRET-IN-A-DISK", 16);
    struct rp_repo *repo = place_open(place);
    struct rp_error err = {0};
    store_disk(repo, NULL, data, sizeof data, "SECRET-VM-NAME", NULL);
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "SECRET-LOCK", "SECRET-OWNER", &err);
    rp_repo_lock_release(lock);
    rp_repo_close(repo);
    snprintf(command, sizeof command, "grep -raq SECRET %s", place->repository);
    assert_int_equal(WEXITSTATUS(system(command)), 1);
}

static void a_missing_repository_says_what_to_do(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char path[200];
    snprintf(path, sizeof path, "%s/empty/below", place->folder);
    assert_null(rp_backend_directory_open(path, false, &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    rp_error_clear(&err);
    assert_null(rp_repo_open(rp_backend_directory_open(path, true, &err), NULL, place->cache, &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "repo init"));
}

static void an_object_is_put_once_and_leaves_no_temporary(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char path[200], content[4] = "";
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    assert_ok(backend->ops->put(backend, "a/b/c", "one", 3, &err), err);
    assert_int_equal(backend->ops->put(backend, "a/b/c", "two", 3, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    rp_error_clear(&err);
    assert_ok(backend->ops->get(backend, "a/b/c", 0, content, 3, &err), err);
    assert_string_equal(content, "one");
    assert_int_equal(backend->ops->get(backend, "a/b/c", 1, content, 3, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_error_clear(&err);
    assert_ok(backend->ops->remove(backend, "a/b/c", &err), err);
    assert_ok(backend->ops->remove(backend, "a/b/c", &err), err);
    assert_int_equal(backend->ops->get(backend, "a/b/c", 0, content, 3, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    snprintf(path, sizeof path, "%s/tmp", place->repository);
    assert_int_equal(count_files(path), 0);
}

#define OLD_FILE "2dc27766-f623-4200-9d64-115e9bfd4a08" // in tmp/, as a writer names it
#define NEW_FILE "2dc27766-f623-4200-9d64-115e9bfd4a09"
#define FOLDER(last) "0123456789abcdef0123456789abcde" last // in sessions/

static void in_repository(const struct place *place, const char *script)
{
    char command[600];
    snprintf(command, sizeof command, "cd '%s' && %s", place->repository, script);
    assert_int_equal(system(command), 0);
}

static void what_killed_writers_left_is_removed_after_a_day(void **state)
{
    struct place *place = *state;
    in_repository(place, "mkdir -p tmp && cd tmp && touch " NEW_FILE " && touch -d '2 days ago' " OLD_FILE);
    struct rp_repo *repo = place_open(place);
    in_repository(place, "test \"$(ls tmp)\" = " NEW_FILE); // it may belong to a living writer
    assert_clean(repo, true);                               // and is no object
    rp_repo_close(repo);
}

static void an_empty_folder_of_a_session_is_removed_after_a_day(void **state)
{
    const struct place *place = *state;
    struct rp_repo *repo = place_open(place);
    place_put_lease(repo, "sessions/" FOLDER("0"), "0000000000000001", "held", 10);
    rp_repo_close(repo);
    in_repository(place, "cd sessions && mkdir " FOLDER("1") " " FOLDER("2") " && touch -d '-25 hours' " FOLDER("0") " " FOLDER("1"));
    rp_repo_close(place_open(place));
    in_repository(place, "test \"$(ls sessions | xargs)\" = '" FOLDER("0") " " FOLDER("2") "'"); // the new one may be about to be used
}

static void a_folder_that_is_opened_loses_nothing_that_is_not_ours(void **state)
{
    const struct place *place = *state;
    static const char make[] = "mkdir -p tmp sessions/photos && cd tmp && touch a.txt " OLD_FILE ".txt '{" OLD_FILE "}' 0123 && "
                               "touch -d '2 days ago' * ../sessions/photos";
    in_repository(place, make);
    rp_repo_close(place_open(place));
    in_repository(place, "test $(ls tmp | wc -l) = 4 && test -d sessions/photos");
    // Nor one with such a name, where no repository is.
    struct rp_error err = {0};
    in_repository(place, "mv config gone && cd tmp && touch -d '2 days ago' " OLD_FILE " && mkdir ../sessions/" FOLDER("1")
                         " && touch -d '2 days ago' ../sessions/" FOLDER("1"));
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    assert_non_null(backend);
    in_repository(place, "test -f tmp/" OLD_FILE " && test -d sessions/" FOLDER("1"));
}

int main(void)
{
    log_off();
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(a_session_declared_dead_cannot_commit),
        WITH(without_its_lock_nothing_is_committed_however_late_it_was_lost),
        WITH(a_repository_that_is_full_at_the_last_renewal_is_called_full_and_nothing_else),
        WITH(a_session_is_an_object_while_it_runs_and_none_after),
        WITH(a_block_in_a_tombstoned_pack_is_stored_again),
        WITH(nothing_is_built_on_a_copy_that_is_to_be_deleted),
        WITH(a_session_that_begins_while_a_pack_is_collected_does_not_rely_on_it),
        WITH(a_commit_that_needs_a_vanished_pack_is_refused),
        WITH(a_session_that_gives_up_leaves_nothing_and_no_doubts),
        WITH(what_somebody_else_may_rely_on_stays),
        WITH(a_point_that_finds_no_room_is_none_and_leaves_no_packs),
        WITH(a_pack_that_a_collector_found_first_is_his),
        WITH(only_a_session_that_is_dead_for_certain_does_not_count),
        WITH(a_session_that_was_silent_for_half_a_day_is_ended_and_counts_no_more),
        WITH(a_session_that_is_ended_while_ours_runs_counts),
        WITH(a_session_that_wakes_up_while_it_is_ended_lives),
        WITH(nothing_is_built_on_a_disk_that_lost_a_pack),
        WITH(only_the_passphrase_opens_an_encrypted_repository),
        cmocka_unit_test_setup_teardown(a_passphrase_for_an_unencrypted_repository_is_refused, place_setup_unencrypted,
                                        place_teardown),
        WITH(a_changed_configuration_does_not_open),
        WITH(the_content_of_an_encrypted_repository_does_not_show),
        WITH(a_missing_repository_says_what_to_do),
        WITH(an_object_is_put_once_and_leaves_no_temporary),
        WITH(what_killed_writers_left_is_removed_after_a_day),
        WITH(an_empty_folder_of_a_session_is_removed_after_a_day),
        WITH(a_folder_that_is_opened_loses_nothing_that_is_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
