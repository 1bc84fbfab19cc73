// The repository: deduplicated, compressed, encrypted blocks; one Merkle tree per disk; restore points. The format is
// in docs/formats/repository.md.
//
// A handle is thread safe unless a function says otherwise. Whatever happens, at any moment, the repository opens and
// every committed restore point is intact.
#ifndef RP_REPO_REPO_H
#define RP_REPO_REPO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/guid.h"
#include "base/ranges.h"
#include "repo/backend.h"
#include "repo/point.h"

#define RP_REPO_BLOCK 65536u // bytes of a leaf

struct rp_repo;

struct rp_repo_options {
    const char *passphrase; // NULL: unencrypted (an explicit choice of the caller)
    uint32_t scrypt_log_n;  // 0: the default (16 → N = 65536)
};
// Creates an empty repository; RP_ERR_EXISTS when one is there.
int rp_repo_init(struct rp_backend *backend, const struct rp_repo_options *options, struct rp_error *err);
// Takes the backend over (also on failure). Wrong or missing passphrase, or one for an unencrypted repository:
// RP_ERR_AUTH. The index cache lives in `cache_directory` (NULL:
// $XDG_CACHE_HOME/refpoint or ~/.cache/refpoint) and is rebuilt freely.
struct rp_repo *rp_repo_open(struct rp_backend *backend, const char *passphrase, const char *cache_directory,
                             struct rp_error *err);
// True when a repository at `backend` needs a passphrase.
int rp_repo_is_encrypted(struct rp_backend *backend, bool *encrypted, struct rp_error *err);
void rp_repo_close(struct rp_repo *repo); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_repo, rp_repo_close)

struct rp_repo_info {
    struct rp_guid id;
    bool encrypted;
    int64_t created_ns;
    uint64_t packs, pack_bytes, blocks, points;
};
// Bytes that can still be stored; UINT64_MAX where nobody can tell.
int rp_repo_room(struct rp_repo *repo, uint64_t *bytes, struct rp_error *err);
// Another folder, where a copy of this repository is that was backed up into from here before (malloc'ed);
// NULL: none is known.
char *rp_repo_twin(struct rp_repo *repo);
const char *rp_repo_location(const struct rp_repo *repo); // borrowed
const struct rp_guid *rp_repo_id(const struct rp_repo *repo); // borrowed
int rp_repo_info(struct rp_repo *repo, struct rp_repo_info *info, struct rp_error *err);

// ---- jobs -----------------------------------------------------------------------------------------------------------

// A lock on one name (a VM's GUID) with owner and lease: RP_ERR_BUSY names the owner and since when. A lock whose lease
// has run out, or whose owner was a process of this machine and is gone (also with an earlier boot of it), is taken
// over, and the log says from whom. The lease is renewed by a thread until release.
struct rp_repo_lock;
struct rp_repo_lock *rp_repo_lock_take(struct rp_repo *repo, const char *name, const char *owner, struct rp_error *err);
// False when the lease was lost (clock jump, somebody took over): the job must stop before it commits.
bool rp_repo_lock_held(struct rp_repo_lock *lock);
// The same, asked of the repository: RP_ERR_STATE when somebody has taken it over or ended it.
int rp_repo_lock_confirm(struct rp_repo_lock *lock, struct rp_error *err);
// The number of the lock's newest generation: each holder finds a larger one than any that an earlier holder confirmed.
int rp_repo_lock_number(struct rp_repo *repo, const char *name, uint64_t *number, struct rp_error *err);
void rp_repo_lock_release(struct rp_repo_lock *lock); // NULL is fine

struct rp_repo_lock_holder {
    bool held;      // else nobody holds it
    bool lives;     // as far as anybody can tell
    char text[512]; // "a backup of VM web1 on hv1 (process 77) since 2026-…", and how he is known to be gone
    // By what he is known again: his token, or the generation that cannot be read.
    uint8_t token[16];
    uint64_t unreadable;
};
int rp_repo_lock_look(struct rp_repo *repo, const char *name, struct rp_repo_lock_holder *holder, struct rp_error *err);
// Ends the lock on `name` of the holder that was looked at: one who lives finds out when he next renews it, or wants to
// commit, and stops. For a person who knows that he is gone. `owner`: by whom. RP_ERR_BUSY: somebody else has taken it
// meanwhile; !of->held: nobody holds it any more.
int rp_repo_lock_end(struct rp_repo *repo, const char *name, const char *owner, struct rp_repo_lock_holder *of,
                     struct rp_error *err);

// A running job: an object in the repository that pins the points it builds on against collection.
struct rp_repo_session;
struct rp_repo_session *rp_repo_session_begin(struct rp_repo *repo, const char *what, const struct rp_repo_root *pinned,
                                              size_t pinned_count, struct rp_error *err);
// Its commits are made under this lock (borrowed): it is confirmed last, when all but the point is written.
void rp_repo_session_under(struct rp_repo_session *session, struct rp_repo_lock *lock);
// Every pack written so far becomes durable (the rest of the open pack is written too). All puts have returned.
int rp_repo_session_flush(struct rp_repo_session *session, struct rp_error *err);
// Commits: flushes, checks that every pack that the new roots refer to is there, writes the point last. Fills
// point->id. RP_ERR_STATE when such a pack has disappeared, the session was declared dead, or the lock was lost;
// RP_ERR_CORRUPT when an older part of a tree has lost a pack. A session can commit more than once.
int rp_repo_commit(struct rp_repo_session *session, struct rp_point *point, struct rp_error *err);
// For a job that cannot go on because the repository is full: removes the packs that the session wrote, and returns how
// many. Those that somebody else may rely on stay: other sessions live, a restore point is new, or this one may have put
// its own (not one for which there was no room). All puts have returned; nothing more can be stored in this session.
size_t rp_repo_session_discard(struct rp_repo_session *session);
// Ends the session. Without commit, what it stored is garbage for the collector, and harmless.
void rp_repo_session_end(struct rp_repo_session *session); // NULL is fine

struct rp_repo_stats {
    uint64_t new_blocks, new_bytes;   // stored now: count, and bytes before compression
    uint64_t stored_bytes;            // bytes they take in packs
    uint64_t known_blocks, zero_blocks;
};
void rp_repo_session_stats(struct rp_repo_session *session, struct rp_repo_stats *stats);

// ---- disks ----------------------------------------------------------------------------------------------------------

// Builds the tree of one disk on top of `base` (NULL: an empty disk), which is a root that the session pins and not
// larger than `size`, else RP_ERR_INVALID. RP_ERR_CORRUPT when packs have disappeared that the base needs, or nodes of
// it cannot be read any more, whose packs are marked then, as by a check: it is to be written in full. Blocks may be
// put in any order from any thread; hashing, compression and encryption run on the calling thread.
struct rp_disk_writer;
struct rp_disk_writer *rp_disk_writer_new(struct rp_repo_session *session, const struct rp_repo_root *base,
                                          uint64_t size, struct rp_error *err);
// `offset` is a multiple of RP_REPO_BLOCK, `size` too except at the end of the disk. Blocks of zeros cost nothing.
int rp_disk_writer_put(struct rp_disk_writer *writer, uint64_t offset, const void *data, size_t size,
                       struct rp_error *err);
// The blocks read as zeros (holes, unmapped space). Block-aligned, or up to the end.
int rp_disk_writer_zero(struct rp_disk_writer *writer, uint64_t offset, uint64_t length, struct rp_error *err);
// Writes the changed nodes and gives the new root. One thread, after all puts have returned. Frees.
int rp_disk_writer_finish(struct rp_disk_writer *writer, struct rp_repo_root *root, struct rp_error *err);
void rp_disk_writer_abandon(struct rp_disk_writer *writer); // NULL is fine

// Reads [offset, offset+size) of a stored disk, any alignment, inside the disk's size. Every byte is authenticated
// (encrypted) or checksummed: damage is RP_ERR_CORRUPT or RP_ERR_AUTH, naming pack and block.
int rp_repo_read(struct rp_repo *repo, const struct rp_repo_root *root, uint64_t offset, void *data, size_t size,
                 struct rp_error *err);
// Appends the ranges that hold data (blocks that are not zero), block-aligned, clipped to the size.
int rp_repo_allocated(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *ranges,
                      struct rp_error *err);
// How many bytes these are. `lost`: NULL, or what cannot be told, because a node of the tree is damaged, is left out of the
// sum and added there.
int rp_repo_data_bytes(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *lost, uint64_t *bytes,
                       struct rp_error *err);
// Appends the ranges whose blocks differ between two disks (a subtree with equal ids is not descended into).
int rp_repo_diff(struct rp_repo *repo, const struct rp_repo_root *a, const struct rp_repo_root *b,
                 struct rp_ranges *ranges, struct rp_error *err);

// ---- restore points -------------------------------------------------------------------------------------------------

struct rp_points {
    struct rp_point *items; // by order_ns, oldest first; those of one VM in the order of their commits
    size_t count;
    size_t unreadable; // of any VM: nobody can tell which
};
// Points that cannot be read are left out and counted, with a warning in the log; a check names them. `settings` and
// `files` are left out, too: there may be very many points.
int rp_repo_points(struct rp_repo *repo, struct rp_points *points, struct rp_error *err);
// Only those of one VM: all of them together are 2.5 KB for each backup ever made of any VM.
int rp_repo_points_of(struct rp_repo *repo, const char *vm_id, struct rp_points *points, struct rp_error *err);
void rp_points_clear(struct rp_points *points);
// One point, with everything.
int rp_repo_point(struct rp_repo *repo, const char *point_id, struct rp_point *point, struct rp_error *err);
// What is learnt later about a point: one JSON object text per note, append-only.
int rp_repo_note_add(struct rp_repo *repo, const char *point_id, const char *json, struct rp_error *err);
typedef int rp_repo_note_fn(void *context, int64_t time_ns, const char *json);
int rp_repo_notes(struct rp_repo *repo, const char *point_id, rp_repo_note_fn *each, void *context,
                  struct rp_error *err);

// ---- check ----------------------------------------------------------------------------------------------------------

struct rp_repo_problem {
    const char *text;       // one line
    const char *object;     // the object's name, or NULL
    // What it means for the restore points: for each affected (point, disk), the damaged ranges.
    const char *point_id;   // NULL: no point is affected
    const char *vm_name;
    uint32_t disk_number;
    const struct rp_ranges *ranges;
};
typedef void rp_repo_problem_fn(void *context, const struct rp_repo_problem *problem);
// Structure: every object parses and authenticates, every point's tree is complete, every block that it names is in a
// pack that is there with its right size. `read_data`: also reads, decrypts, decompresses and hashes every stored
// block. A pack that is found damaged, or that the disk cannot give any more, is marked in the repository: writers
// store its blocks again, and do not build on disks that need them. `read_data` takes the mark from a pack that is
// whole. Calls `problem` on the calling thread, after all packs were looked at: once per finding and affected disk of
// a point, once if it affects none; *problems counts the calls. Returns -1 only when the check itself could not run,
// or `progress` returned non-zero (RP_ERR_CANCELLED); what it had found by then is told all the same. `done` and `total`
// are bytes, a point counting as 1 MiB.
int rp_repo_check(struct rp_repo *repo, bool read_data, rp_repo_problem_fn *problem, void *context,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *progress_context,
                  uint64_t *problems, struct rp_error *err);

#endif
