// The disk service of one VM as its host sees it: over the control socket while the service runs, in-process on the files
// while the VM is off. docs/formats/control.md has the protocol (one line of JSON per request and reply).
#ifndef RP_DISKSERVICE_SERVICE_H
#define RP_DISKSERVICE_SERVICE_H

#include <sys/types.h>

#include "diskservice/engine.h"

#define RP_CONTROL_SOCKET "control.sock" // in the VM's folder
#define RP_NBD_SOCKET "nbd.sock"

struct rp_service;

// Connects to the running service. When none runs, checkpoint, merge and grow open the files in-process and keep them open
// (and everybody else out: RP_ERR_BUSY) until rp_service_close; info and changes only look at them, unless a killed service left
// something to be brought into the files first. Does not wait.
struct rp_service *rp_service_open(struct rp_fs *fs, const char *vm_directory, struct rp_error *err);
// -1: the in-process disks could not be closed cleanly, what was done to them may not be durable (also in the log). Frees in
// every case; NULL is fine.
int rp_service_close(struct rp_service *service, struct rp_error *err);
static inline void rp_service_close_p(struct rp_service **service) { rp_service_close(*service, NULL); } // for RP_CLEANUP
bool rp_service_is_running(const struct rp_service *service);
// A running service has so long for each answer from now on; RP_ERR_IO afterwards, and what was asked for may still happen. Without,
// it is waited for as long as it lives.
int rp_service_limit(struct rp_service *service, unsigned seconds, struct rp_error *err);

// When none runs, and the last one was killed: brings what it left in shared memory into the files, among it a checkpoint that
// it was about to finish. To be called before anything is concluded from the chain record. Cheap when there is nothing to do.
int rp_service_adopt(struct rp_service *service, struct rp_error *err);

struct rp_service_info {
    pid_t pid;           // 0 when not running
    uint64_t generation; // of the chain record
    size_t count;
    struct rp_engine_disk disks[RP_ENGINE_MAX_DISKS];
    struct rp_engine_merge merge;
};
// Of files that nobody has open: `verdict` is CLEAN, or UNCLEAN when tracking is not at rest (what the next open will really
// find, it will say), and RP_ERR_BUSY while a service starts or ends.
int rp_service_info(struct rp_service *service, struct rp_service_info *info, struct rp_error *err);
void rp_service_info_clear(struct rp_service_info *info);
// `switched` as in rp_engine_checkpoint_tell. A running service goes on with the durability while it runs here, so it may thaw the
// guest. Before every success it has been called: by a service of before this could be told, only then.
int rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched, void *context,
                          struct rp_engine_checkpoint *result, struct rp_error *err);
// Running: starts the merge and returns; in-process: returns when it is done, and does not wait for readers. `rate`: bytes per
// second, 0 no limit; NULL: as it was (also for a merge of this operation that is running already).
int rp_service_merge(struct rp_service *service, const struct rp_guid *operation, const char *const *paths, size_t count,
                     const uint64_t *rate, struct rp_error *err);
int rp_service_changes(struct rp_service *service, const char *path, const struct rp_rct_id *id, uint64_t offset,
                       uint64_t length, struct rp_ranges *changed, struct rp_error *err);
int rp_service_flush(struct rp_service *service, struct rp_error *err);
int rp_service_grow(struct rp_service *service, const char *disk, uint64_t size, struct rp_error *err);

// Starts nbdkit with our plugin on the VM's folder as a daemon of its own (own session, log in service.log), and waits
// until both sockets answer. RP_ERR_BUSY when it runs already; one that was killed and is not quite dead is waited for. Finds
// the plugin beside the program (build tree) or in the installed plugin folder; REFPOINT_PLUGIN overrides.
int rp_service_start(const char *vm_directory, struct rp_error *err);
// Whether one serves: who is just starting or ending it is waited for.
bool rp_service_answers(const char *vm_directory);
// Whether the last one was killed, and the next has to bring in what it left; false while one has the disks. Who is starting or
// ending one is waited for, and so, for some seconds, is one that is ending by itself.
bool rp_service_was_killed(const char *vm_directory);
// Asks it to end (SIGTERM) and waits until everything is closed. Not running is fine. RP_ERR_IO: it has ended, killed or after a
// failed write, without having closed its disks.
int rp_service_stop(const char *vm_directory, struct rp_error *err);
// Its process, as a pidfd. -1: error; RP_ERR_NOT_FOUND: none runs.
int rp_service_process(const char *vm_directory, struct rp_error *err);
// The same as rp_service_stop, but only that process: never another that has taken its place.
int rp_service_end(const char *vm_directory, int process, struct rp_error *err);

#endif
