// What the tests of conformance share, in conformance.c: a host seen through the vtable, and its methods, each waited for.
#ifndef RP_TESTS_HOST_CONFORMANCE_KIT_H
#define RP_TESTS_HOST_CONFORMANCE_KIT_H

#include "conformance.h"
#include "host-kit.h"

#define DISK ((size_t)4 * 1024 * 1024)

extern bool conformance_wire; // see conformance.h
// Whether a failure is of the kind that is expected, as well as the host can tell.
bool conformance_code(enum rp_code got, enum rp_code expected);
#undef kit_fails
#define kit_fails(call, err, expected)                                                                                 \
    do {                                                                                                               \
        rp_error_clear(&(err));                                                                                        \
        if (!(call))                                                                                                   \
            fail_msg("%s: did not fail", #call);                                                                       \
        if (!conformance_code((err).code, (expected)) || !(err).text[0])                                               \
            fail_msg("%s: expected %s, got %s: %s", #call, rp_code_name(expected), rp_code_name((err).code), (err).text); \
        rp_error_clear(&(err));                                                                                        \
    } while (0)

struct world {
    void *host;
    struct rp_host_connection *c;
    const char *folder;
    struct rp_error err;
};
int conformance_setup(void **state);
int conformance_teardown(void **state);
#define CONFORMANCE_TEST(f) cmocka_unit_test_setup_teardown(f, conformance_setup, conformance_teardown)
// Those in conformance-management.c.
extern const struct CMUnitTest conformance_more[];
extern const size_t conformance_more_count;

// Calls a method and waits for its job; evaluates to 0 or -1 and leaves the result in `out`.
#define METHOD(w, out, method, ...)                                                                                    \
    ({                                                                                                                 \
        char job_[RP_HOST_ID] = "";                                                                                    \
        (out)[0] = 0;                                                                                                  \
        (w)->c->ops->method((w)->c, __VA_ARGS__, job_, out, &(w)->err) ? -1                                            \
            : rp_host_wait((w)->c, job_, out, NULL, NULL, &(w)->err);                                                  \
    })

// What can delete files is asked to: over WMI nobody can.
#define WITH_DISKS(w) rp_host_is_local((w)->c)

void conformance_reconnect(struct world *w);
// A VM of up to two disk files.
void define(struct world *w, const char *name, const char *disk0, const char *disk1, char id[RP_HOST_ID]);
// With one disk of kit_fill(seed) of DISK bytes, which is also put into `model` (may be NULL).
void define_filled(struct world *w, const char *name, uint64_t seed, uint8_t *model, char id[RP_HOST_ID]);
void set_state(struct world *w, const char *id, enum rp_vm_state state);
void snapshot(struct world *w, const char *id, enum rp_snapshot_type type, const char *name, char out[RP_HOST_ID]);
// Until its merges are over.
void wait_idle(struct world *w, const char *id);
// A checkpoint; waits for the merge.
void destroy(struct world *w, const char *vm, const char *snapshot_id);
void convert(struct world *w, const char *vm, const char *snapshot_id, char point[RP_HOST_ID]);
// Path or NBD address of a disk of a VM; malloc'ed.
char *live(struct world *w, const char *vm, size_t index, bool uri);
// Path of a disk of a checkpoint; malloc'ed.
char *frozen(struct world *w, const char *snapshot_id, size_t index);
// kit_fill(seed) into the running VM's first disk, and into `model`.
void write_live(struct world *w, const char *vm, uint8_t *model, uint64_t seed, uint64_t offset, size_t size);
void live_holds(struct world *w, const char *vm, const uint8_t *model);
void frozen_holds(struct world *w, const char *snapshot_id, const uint8_t *model);
size_t count_snapshots(struct world *w, const char *vm);
// Of a disk of a reference point.
void rct_id(struct world *w, const char *vm, const char *point, size_t disk, char out[RP_HOST_ID]);
// The changed units since `id`, as a set.
void changes(struct world *w, const char *path, const char *id, bool units[DISK / KIT_UNIT]);

#endif
