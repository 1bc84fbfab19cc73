// A file system in memory whose disk has an end, and whose every call can be watched, and made to fail, by the test.
#ifndef TESTS_DISK_LIMITED_H
#define TESTS_DISK_LIMITED_H

#include "io/fs.h"

enum call { CALL_READ, CALL_WRITE, CALL_FLUSH, CALL_SETTLE, CALL_TRUNCATE, CALL_ALLOCATE, CALL_PUNCH };

struct rp_fs *limited_fs_new(void);
// So many pages of 4 KiB can be in use; more is NO_SPACE for the write or allocation that asks for it.
void limited_fs_set(struct rp_fs *fs, size_t pages);
size_t limited_fs_used(struct rp_fs *fs);
// Before every call on a store. What `hook` returns, if not RP_OK, is the call's failure; a write writes half of it first.
typedef enum rp_code limited_hook(void *context, enum call call, uint64_t offset, uint64_t length);
void limited_fs_watch(struct rp_fs *fs, limited_hook *hook, void *context);
void limited_fs_free(struct rp_fs *fs);

#endif
