// Locks of the host: one per VM, so that two processes never change one chain at a time. They are bytes of one file,
// DIR/lock (open file description locks): the kernel releases them when a process is killed, and no file is made or
// deleted per VM, so there is nothing to race about.
#ifndef RP_HOST_LOCK_H
#define RP_HOST_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

int rp_lock_open(const char *path, struct rp_error *err); // fd, or -1
// Waits up to `timeout_ms`. Returns 1 taken, 0 held by another, -1 error. Not recursive: a second lock of the same
// number through the same fd is the same lock.
int rp_lock_take(int fd, int64_t number, unsigned timeout_ms, struct rp_error *err);
bool rp_lock_is_taken(int fd, int64_t number); // by another fd
void rp_lock_release(int fd, int64_t number);

#endif
