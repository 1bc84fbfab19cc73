// A host with one VM that the hypervisor of files runs.
#ifndef RP_TESTS_RUN_KIT_H
#define RP_TESTS_RUN_KIT_H

#include "domain-kit.h"
#include "host/local.h"

#define DISK ((size_t)4 * 1024 * 1024)

struct world {
    char *host, *files;
    struct rp_host_connection *c;
    struct rp_error err;
    struct dk dk;
};
int rk_setup(void **state);
int rk_teardown(void **state);
int rk_request(struct world *w, enum rp_vm_state state);
#define becomes(w, state) kit_ok(rk_request(w, state), (w)->err)
#define refused(w, state, code) kit_fails(rk_request(w, state), (w)->err, code)
// As list, find and inventory show it; all must agree. *remark is malloc'ed; NULL: not wanted.
enum rp_vm_state rk_shown(struct world *w, char **remark);
struct rp_host_kept rk_keep(struct world *w, bool started, bool changed); // one look, which does not fail
#define TEST(name) cmocka_unit_test_setup_teardown(name, rk_setup, rk_teardown)

#endif
