// A guest that is brought to rest for a checkpoint: frozen through its agent, watched, and let go again at the moment when the
// checkpoint's pause is over, or when the time is up, whatever else goes on.
//
//   freeze = rp_local_freeze_begin(vm, limit, err)    the file systems are frozen
//   rp_local_freeze_switched(freeze)                  the disks are in new leaves: the guest is let go (by a thread of its own)
//   rp_local_freeze_end(freeze, …)                    thawed, or left to who goes on trying
#ifndef RP_HOST_FREEZE_H
#define RP_HOST_FREEZE_H

#include "host/internal.h"

#define RP_LOCAL_FREEZE_MS 10000 // how long a guest is frozen at most, when nobody says otherwise

struct rp_local_freeze;

// A guest that is to be frozen, or is, writes before it answers: it needs its disks. Whoever has the VM's lock keeps
// everybody else from bringing a disk service back that has died, so he does it himself. True: one was started; false with
// `why` set: it cannot be.
bool rp_local_freeze_serve(const struct rp_local_vm *vm, struct rp_error *why);

// Starts the watchdog (host/thaw_watch.h), then freezes; a disk service that dies meanwhile is started anew. On failure
// nothing is frozen any more, or it is said that this is not certain, and what can be done about it goes on: by this process
// while it lives, then by the watchdog. `vm` is needed, and used by nobody else, until begin has returned, and again while
// end runs.
struct rp_local_freeze *rp_local_freeze_begin(const struct rp_local_vm *vm, unsigned limit_ms, struct rp_error *err);
// Whether begin has started one: earlier connections are to the dead one.
bool rp_local_freeze_served(const struct rp_local_freeze *freeze);
void rp_local_freeze_switched(void *freeze); // a rp_engine_switched_fn; takes no time
// Lets the guest go, if it is not yet, and waits for that, some seconds. True: the guest was at rest in the pause of the
// checkpoint, and thawed within the limit. A disk service that dies in this wait is started anew as well. Else `reason` says why it is not
// certain. Frees the freeze.
bool rp_local_freeze_end(struct rp_local_freeze *freeze, char reason[RP_ERROR_TEXT]);

#endif
