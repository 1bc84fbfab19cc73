// The watchdog of a frozen guest: a process of its own (refpoint-thaw), started before the freeze, that thaws the guest by its
// own connection when whoever froze it dies, or is silent for too long.
//
// They share a socket. The watchdog says "ready" when it can do its work, or "failed" and why. It is told, a line each:
//   frozen         the freeze begins; it must be over within the limit
//   alive MS       the thaw is being tried, and the next line comes within so many milliseconds; 0: it has failed and is being
//                  tried again, and the watchdog had better try as well
//   thawed         all is well; it ends
// The end of the socket without "thawed", or no line a second after it was due, and it thaws itself, until it is certain that
// the guest is thawed or off. Where only one process can be connected (qemu:///embed), a silent one is killed first.
#ifndef RP_HOST_THAW_WATCH_H
#define RP_HOST_THAW_WATCH_H

#include "base/error.h"

#define RP_THAW_GRACE_MS 1000

struct rp_thaw_watch;

// Returns when it is ready. RP_ERR_UNSUPPORTED: the program is not there; RP_ERR_IO: it cannot connect or does not answer. Finds
// refpoint-thaw beside the program (build tree) or in the installed folder; REFPOINT_THAW overrides.
struct rp_thaw_watch *rp_thaw_watch_start(const char *uri, const char *domain, unsigned limit_ms, struct rp_error *err);
void rp_thaw_watch_frozen(struct rp_thaw_watch *watch);
void rp_thaw_watch_alive(struct rp_thaw_watch *watch, unsigned ms);
// `thawed` false: it is left to the watchdog. Frees it; NULL is fine.
void rp_thaw_watch_end(struct rp_thaw_watch *watch, bool thawed);

#endif
