// The parent locator of a differencing disk ([MS-VHDX] 2.6.2.6): codec, and its paths translated to this machine's.
// Internal to src/disk.
#ifndef RP_DISK_LOCATOR_H
#define RP_DISK_LOCATOR_H

#include "base/buf.h"
#include "base/guid.h"
#include "io/fs.h"

struct rp_locator_pair {
    char *key, *value; // UTF-8, owned
};

struct rp_locator {
    struct rp_locator_pair *pairs;
    size_t count;
};

// Appends the pairs of a locator item; `locator` starts zeroed and is to be cleared in every case.
int rp_locator_decode(const uint8_t *item, size_t size, struct rp_locator *locator, struct rp_error *err);
int rp_locator_encode(const struct rp_locator *locator, struct rp_buf *out, struct rp_error *err);
void rp_locator_clear(struct rp_locator *locator);

const char *rp_locator_get(const struct rp_locator *locator, const char *key); // borrowed, or NULL
void rp_locator_set(struct rp_locator *locator, const char *key, const char *value); // NULL removes
// A linkage key as a GUID; zero when it is absent.
int rp_locator_get_guid(const struct rp_locator *locator, const char *key, struct rp_guid *guid, struct rp_error *err);
void rp_locator_set_guid(struct rp_locator *locator, const char *key, const struct rp_guid *guid); // zero removes

// Sets the path keys of the child file `child` for `parent` (both as this process names them).
int rp_locator_set_paths(struct rp_locator *locator, const char *child, const char *parent, struct rp_error *err);
// Where the parent is: relative_path against the folder of `child`, then the absolute keys that can mean a path here;
// the first that exists, else the first. When none can mean a path here: its name, beside `child`. malloc'ed. RP_ERR_CORRUPT
// when there is none.
char *rp_locator_resolve(const struct rp_locator *locator, struct rp_fs *fs, const char *child, struct rp_error *err);

#endif
