// What every host connection must do, written against the vtable only: the same tests run against the in-process host
// and against a host at the other end of a wire.
#ifndef RP_TESTS_HOST_CONFORMANCE_H
#define RP_TESTS_HOST_CONFORMANCE_H

#include "hyperv/host_connection.h"

struct conformance_host {
    // A new host without VMs; `context` is passed to the other two.
    void *(*start)(void);
    // Another connection to it.
    struct rp_host_connection *(*connect)(void *context, struct rp_error *err);
    // A folder where tests may put disk files that the host can open.
    const char *(*folder)(void *context);
    void (*stop)(void *context);
    // It is at the other end of a wire, whose answers tell less: a thing in the way is there, in use or a state, as may be; a
    // parameter that names nothing is an invalid one; a checkpoint that is being merged is gone.
    bool wire;
};

// Runs all tests as the cmocka group `name`; returns the number of failures.
int conformance_run(const char *name, const struct conformance_host *host);

#endif
