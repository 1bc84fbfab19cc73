// A backend that fails on purpose, around another one.
#ifndef TESTS_REPO_FAULTY_H
#define TESTS_REPO_FAULTY_H

#include "repo/backend.h"

enum fault {
    FAULT_NONE,
    FAULT_BEFORE,   // the put does nothing and fails
    FAULT_AFTER,    // the put is done and fails all the same (a lost answer)
    FAULT_NO_SPACE,
    FAULT_EXISTS,   // as after; the second try of whoever tried again finds what it has put (NFS). For leases
};
enum seen { SEEN_WHOLE, SEEN_WITHOUT_SIZE, SEEN_BY_FOLDER }; // what a listing shows of an object: broken inodes
struct faulty {
    struct rp_backend backend;
    struct rp_backend *inner;
    enum fault fault;
    const char *prefix;   // only puts of names that begin so; NULL: all
    int puts_left;        // the fault comes at this put and stays, until `fault` is reset
    int puts;             // so far
    void (*before_put)(void *context, const char *name); // NULL: nothing
    void *context;
    int (*get_fails)(void *context, const char *name, uint64_t offset); // the errno of a get; 0: none. NULL: never
    int (*list_fails)(void *context, const char *prefix); // likewise
    int (*size_fails)(void *context, const char *name);   // likewise
    enum seen (*seen)(void *context, const char *name);   // NULL: whole
    int gets, lists; // so far
};
// Takes `inner` over. Both are closed with the returned backend's close.
struct faulty *faulty_new(struct rp_backend *inner);

#endif
