// Who has a file open under a lock: to name the culprit in a message.
#ifndef RP_DISKSERVICE_HOLDER_H
#define RP_DISKSERVICE_HOLDER_H

// "pid 4711 (qemu-img)", malloc'ed; NULL when it cannot be found: another machine, another user, no /proc. Other processes come
// first, this one only when it has the file open more than once.
char *rp_lock_holder(const char *path);

#endif
