#include "repo/session.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "repo/discard.h"
#include "repo/json.h"
#include "repo/lease_numbers.h"
#include "repo/points.h"
#include "repo/tree.h"

#define LOOK_UP_SINGLY 64 // more packs than this are checked with one listing
#define COMMIT_SECONDS 300 // from the renewal of the session to its point: a collector waits for twice that
#define CONFIRM_TRIES 8

struct rp_repo_session {
    struct rp_repo *repo;
    struct rp_lease *lease;
    struct rp_repo_lock *lock; // under which it commits; NULL: none
    struct rp_packer *packer;
    struct rp_repo_root *pinned;
    size_t pinned_count;
    uint64_t zero_blocks;
    uint32_t doubts; // when it began
    struct rp_before before; // what there was then
    char folder[RP_SESSION_FOLDER];
    bool committing; // it has begun to put a point, which may be there
};

static json_t *describe(const char *what, const struct rp_repo_root *pinned, size_t count)
{
    json_t *fields = json_object(), *roots = json_array();
    rp_json_set_text(fields, "what", what);
    json_object_set_new(fields, "roots", roots);
    for (size_t i = 0; i < count; i++) {
        json_t *root = json_object();
        rp_json_set_hex(root, "root", pinned[i].id, RP_REPO_ID_BYTES);
        rp_json_set_number(root, "size", pinned[i].size);
        json_array_append_new(roots, root);
    }
    return fields;
}

struct rp_repo_session *rp_repo_session_begin(struct rp_repo *repo, const char *what, const struct rp_repo_root *pinned,
                                              size_t pinned_count, struct rp_error *err)
{
    RP_AUTO_JSON json_t *fields = describe(what, pinned, pinned_count);
    char folder[RP_SESSION_FOLDER], hex[RP_HEX(16)];
    struct rp_guid id = rp_guid_new();
    snprintf(folder, sizeof folder, "sessions/%s", rp_hex(id.bytes, 16, hex));
    struct rp_lease *lease = rp_lease_take(repo, folder, what, fields, err);
    if (!lease) {
        rp_context(err, "%s: begin a session", repo->backend->location);
        return NULL;
    }
    // The order matters: first the session is there for a collector to see, then we look at its tombstones. A tombstone
    // that we do not see is younger than the session, and waits for it.
    bool fresh;
    struct rp_before before;
    if (rp_repo_need_index(repo, &fresh, err) || (!fresh && rp_index_refresh(repo->index, err)) ||
        rp_before_look(repo, folder, &before, err)) {
        rp_lease_release(lease, true);
        return NULL;
    }
    struct rp_repo_session *session = rp_xcalloc(1, sizeof *session);
    session->repo = repo;
    session->lease = lease;
    session->before = before;
    memcpy(session->folder, folder, sizeof folder);
    session->packer = rp_packer_new(repo);
    session->pinned = rp_xcalloc(pinned_count + 1, sizeof *pinned);
    if (pinned_count)
        memcpy(session->pinned, pinned, pinned_count * sizeof *pinned);
    session->pinned_count = pinned_count;
    session->doubts = rp_index_doubts(repo->index);
    return session;
}

void rp_repo_session_under(struct rp_repo_session *session, struct rp_repo_lock *lock) { session->lock = lock; }
struct rp_repo *rp_session_repo(struct rp_repo_session *session) { return session->repo; }
struct rp_packer *rp_session_packer(struct rp_repo_session *session) { return session->packer; }

bool rp_session_pins(const struct rp_repo_session *session, const struct rp_repo_root *root)
{
    for (size_t i = 0; i < session->pinned_count; i++)
        if (!memcmp(session->pinned[i].id, root->id, RP_REPO_ID_BYTES) && session->pinned[i].size == root->size)
            return true;
    return rp_id_is_zero(root->id); // an empty disk needs nothing
}

void rp_session_count_zeros(struct rp_repo_session *session, uint64_t blocks)
{
    __atomic_add_fetch(&session->zero_blocks, blocks, __ATOMIC_RELAXED);
}

int rp_repo_session_flush(struct rp_repo_session *session, struct rp_error *err)
{
    return rp_packer_flush(session->packer, err);
}

// ---- commit ---------------------------------------------------------------------------------------------------------

static int count_pack(void *context, uint32_t number)
{
    (void)number;
    ++*(uint64_t *)context;
    return 0;
}

struct presence {
    struct rp_repo *repo;
    bool singly;
    struct rp_error *err;
};

static int check_pack(void *context, uint32_t number)
{
    struct presence *presence = context;
    struct rp_repo *repo = presence->repo;
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    struct rp_error why = {0};
    rp_index_pack(repo->index, number, &pack);
    rp_pack_name(pack.id, name);
    uint64_t size = pack.size, expected = pack.indexed_size;
    if (presence->singly && repo->backend->ops->size(repo->backend, name, &size, &why) && why.code != RP_ERR_NOT_FOUND)
        return rp_fail_as(presence->err, &why);
    if (presence->singly ? why.code != RP_OK : !pack.present)
        return rp_fail(presence->err, RP_ERR_STATE, "%s/%s: this pack, which the new restore point needs, has "
                       "disappeared; run the backup again", repo->backend->location, name);
    if (size != expected)
        return rp_fail(presence->err, RP_ERR_STATE, "%s/%s: this pack, which the new restore point needs, has %llu "
                       "bytes, and had %llu; run refpoint check, then the backup again", repo->backend->location, name,
                       (unsigned long long)size, (unsigned long long)expected);
    return 0;
}

static int check_packs(struct rp_repo_session *session, struct rp_error *err)
{
    uint64_t count = 0;
    rp_packer_used(session->packer, count_pack, &count);
    struct presence presence = {session->repo, count <= LOOK_UP_SINGLY, err};
    if (rp_index_refresh(session->repo->index, err))
        return -1;
    return rp_packer_used(session->packer, check_pack, &presence);
}

// The rest of the new trees is the rest of older ones, which the session pins. If nevertheless packs have disappeared since
// it began, every node and block is looked up.
static int check_trees(struct rp_repo_session *session, const struct rp_point *point, struct rp_error *err)
{
    if (rp_index_doubts(session->repo->index) == session->doubts)
        return 0;
    for (size_t i = 0; i < point->disk_count; i++)
        if (rp_tree_check_complete(session->repo, &point->disks[i].root, RP_INDEX_SOUND, err))
            return rp_context(err, "disk %u of the new restore point", point->disks[i].number);
    return 0;
}

// Both stand in the repository now. The renewal of the session is the proof that no collector has declared it dead: what
// it pinned is still there. A collector that puts the next generation after this one must wait, so the point is written in
// time. Last the lock, which somebody may have ended on purpose while we looked at packs and trees, and begun a backup.
static int confirm_once(struct rp_repo_session *session, struct rp_error *err)
{
    struct rp_error why = {0};
    if (rp_lease_renew(session->lease, &why)) {
        rp_fail_as(err, &why);
        return why.code == RP_ERR_STATE ? rp_context(err, "the session has ended; run the backup again") : -1;
    }
    return session->lock ? rp_repo_lock_confirm(session->lock, err) : 0;
}

// Also while the machine sleeps.
static int64_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec;
}

// Again when that took too long: a collector that ended the session meanwhile waits for a point no longer than that.
static int confirm(struct rp_repo_session *session, struct rp_error *err)
{
    for (int i = 0; i < CONFIRM_TRIES; i++) {
        int64_t began = now_s();
        if (confirm_once(session, err))
            return -1;
        if (now_s() - began <= COMMIT_SECONDS)
            return 0;
    }
    return rp_fail(err, RP_ERR_STATE, "%s: every answer takes minutes: nothing was committed", session->repo->backend->location);
}

int rp_repo_commit(struct rp_repo_session *session, struct rp_point *point, struct rp_error *err)
{
    if (rp_packer_flush(session->packer, err) || check_packs(session, err) || check_trees(session, point, err) ||
        confirm(session, err))
        return -1;
    bool before = session->committing;
    struct rp_error why = {0};
    session->committing = true;
    if (rp_points_put(session->repo, point, &why)) {
        if (why.code == RP_ERR_NO_SPACE) // leaves nothing: there is no point, and will be none
            session->committing = before;
        return rp_fail_as(err, &why);
    }
    // From now on the index knows the packs of these trees, and will tell if one disappears; unless it could not be written:
    // then the next process must look for itself. The older ones had their time.
    bool known = rp_index_spill(session->repo->index);
    for (size_t i = 0; i < session->pinned_count; i++)
        rp_index_set_complete(session->repo->index, session->pinned[i].id, false);
    for (size_t i = 0; i < point->disk_count && known; i++)
        if (rp_index_doubts(session->repo->index) == session->doubts)
            rp_index_set_complete(session->repo->index, point->disks[i].root.id, true);
    return 0;
}

size_t rp_repo_session_discard(struct rp_repo_session *session)
{
    const uint8_t (*ids)[RP_PACK_ID];
    size_t count;
    if (session->committing)
        return 0;
    rp_packer_stop(session->packer, &ids, &count);
    return rp_discard_packs(session->repo, session->folder, &session->before, ids, count);
}

void rp_repo_session_end(struct rp_repo_session *session)
{
    if (!session)
        return;
    rp_packer_free(session->packer);
    rp_lease_release(session->lease, true);
    rp_before_clear(&session->before);
    free(session->pinned);
    free(session);
}

void rp_repo_session_stats(struct rp_repo_session *session, struct rp_repo_stats *stats)
{
    *stats = (struct rp_repo_stats){0};
    rp_packer_stats(session->packer, stats);
    stats->zero_blocks = __atomic_load_n(&session->zero_blocks, __ATOMIC_RELAXED);
}

// ---- locks ----------------------------------------------------------------------------------------------------------

struct rp_repo_lock {
    struct rp_lease *lease;
};

// The name is hashed: it may be any text, and an encrypted repository does not tell which VMs it holds.
static const char *lock_folder(struct rp_repo *repo, const char *name, char folder[64])
{
    uint8_t id[RP_ID_BYTES];
    char hex[RP_HEX(16)];
    struct rp_scratch *scratch = rp_scratch_take(repo);
    rp_cipher_id(scratch->cipher, 'L', name, strlen(name), id);
    rp_scratch_give(repo, scratch);
    snprintf(folder, 64, "locks/%s", rp_hex(id, 16, hex));
    return folder;
}

struct rp_repo_lock *rp_repo_lock_take(struct rp_repo *repo, const char *name, const char *owner, struct rp_error *err)
{
    char folder[64];
    struct rp_lease *lease = rp_lease_take(repo, lock_folder(repo, name, folder), owner, NULL, err);
    if (!lease) {
        rp_context(err, "%s", name);
        return NULL;
    }
    struct rp_repo_lock *lock = rp_xcalloc(1, sizeof *lock);
    lock->lease = lease;
    return lock;
}

bool rp_repo_lock_held(struct rp_repo_lock *lock) { return rp_lease_held(lock->lease); }

int rp_repo_lock_confirm(struct rp_repo_lock *lock, struct rp_error *err) { return rp_lease_renew(lock->lease, err); }

int rp_repo_lock_number(struct rp_repo *repo, const char *name, uint64_t *number, struct rp_error *err)
{
    char folder[64];
    struct rp_lease_numbers seen;
    if (rp_lease_list(repo, lock_folder(repo, name, folder), &seen, err))
        return rp_context(err, "%s", name);
    *number = seen.highest;
    return 0;
}

int rp_repo_lock_look(struct rp_repo *repo, const char *name, struct rp_repo_lock_holder *holder, struct rp_error *err)
{
    char folder[64];
    return rp_lease_look(repo, lock_folder(repo, name, folder), holder, err) ? rp_context(err, "%s", name) : 0;
}

int rp_repo_lock_end(struct rp_repo *repo, const char *name, const char *owner, struct rp_repo_lock_holder *of,
                     struct rp_error *err)
{
    char folder[64];
    return rp_lease_end(repo, lock_folder(repo, name, folder), owner, of, err) ? rp_context(err, "%s", name) : 0;
}

void rp_repo_lock_release(struct rp_repo_lock *lock)
{
    if (!lock)
        return;
    rp_lease_release(lock->lease, false);
    free(lock);
}
