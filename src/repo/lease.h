// Leases: who is at work. A lease is a folder of numbered generations; the object with the highest number is what
// counts, and whoever puts the next number first has it. docs/formats/repository.md, "Leases".
#ifndef RP_REPO_LEASE_H
#define RP_REPO_LEASE_H

#include <jansson.h>

#include "repo/core.h"

#define RP_LEASE_SECONDS 120
#define RP_LEASE_RENEW_SECONDS 30
#define RP_LEASE_GRACE_SECONDS 60 // for clocks that differ
#define RP_LEASE_SILENT_SECONDS (12 * 3600) // a holder who was not heard of for so long is not waited for any more

// One generation, as stored. Texts are owned.
struct rp_lease_state {
    bool held;         // else: released, or taken away
    char *owner, *host;
    char *machine;     // boot and process namespace: within one, a process id means something
    char *computer;    // the machine over its restarts; "" or NULL: nobody can tell
    uint64_t pid, pid_started;
    int64_t since_ns, renewed_ns;
    uint64_t seconds;
    uint8_t token[16]; // same in every generation of one holder
};
// Of this process, from now on.
void rp_lease_state_begin(struct rp_lease_state *state, const char *owner);
// `fields` (NULL: none) are added.
void rp_lease_encode(const struct rp_lease_state *state, json_t *fields, struct rp_buf *out);
int rp_lease_decode(const void *json, size_t size, const char *name, struct rp_lease_state *state,
                    struct rp_error *err);
void rp_lease_state_clear(struct rp_lease_state *state);

enum rp_lease_life {
    RP_LEASE_FREE,         // given up, or ended by somebody else
    RP_LEASE_PROCESS_GONE, // it was a process of this machine
    RP_LEASE_RESTARTED,    // it was a process of this machine before that was started again
    RP_LEASE_RUN_OUT,      // by our clock it was not renewed in time
    RP_LEASE_LIVES,        // as far as anybody can tell
};
// How its holder is, looked at now.
enum rp_lease_life rp_lease_life(const struct rp_lease_state *state);
// The stricter question, for what must never be done under a living holder: true when the holder is dead for certain,
// which is known only of processes of this boot of this machine. (After a wrong answer of the other kind the holder
// finds its lease gone, and stops.)
bool rp_lease_is_dead(const struct rp_lease_state *state);
// Has a lease of this process that token?
bool rp_lease_is_ours(const uint8_t token[16]);

struct rp_lease;
// `folder`: "locks/…" or "sessions/…". `fields` (NULL: none) are put into every generation.
// RP_ERR_BUSY names the holder. One whose holder does not live is taken over at once, with a warning in the log that
// names it.
struct rp_lease *rp_lease_take(struct rp_repo *repo, const char *folder, const char *owner, json_t *fields,
                               struct rp_error *err);
// Puts the next generation now. RP_ERR_STATE when somebody else did.
int rp_lease_renew(struct rp_lease *lease, struct rp_error *err);
bool rp_lease_held(struct rp_lease *lease);
// Ends it. `forget`: nobody else ever takes this folder; all that is in it is removed, also what somebody put who ended it.
void rp_lease_release(struct rp_lease *lease, bool forget); // NULL is fine

// Who holds it (see repo.h).
int rp_lease_look(struct rp_repo *repo, const char *folder, struct rp_repo_lock_holder *holder, struct rp_error *err);
// Ends the lease of the holder that was looked at, whether he lives or not: he finds out when he next renews it.
// RP_ERR_BUSY: it is somebody else's meanwhile; !of->held: nobody's.
int rp_lease_end(struct rp_repo *repo, const char *folder, const char *owner, struct rp_repo_lock_holder *of,
                 struct rp_error *err);

// For a session's folder: has it ended, though its folder is there? One whose holder was not heard of for
// RP_LEASE_SILENT_SECONDS is ended now; of one whose holder is dead for certain the folder is removed. Whoever holds an ended
// one cannot renew it any more, and so never commits.
bool rp_lease_has_ended(struct rp_repo *repo, const char *folder);

#endif
