#include "run-kit.h"

int rk_setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    char job[RP_HOST_ID], id[RP_HOST_ID];
    w->host = kit_folder();
    w->files = kit_folder();
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    RP_AUTO_FREE char *raw = kit_path("%s/web1.raw", w->files);
    kit_raw(raw, DISK, 1);
    const char *disk = raw;
    kit_ok(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, job, id, &w->err), w->err);
    dk_adopt(&w->dk, w->host, id);
    *state = w;
    return 0;
}

int rk_teardown(void **state)
{
    struct world *w = *state;
    rp_host_close(w->c);
    dk_clear(&w->dk);
    kit_remove_folder(w->host);
    kit_remove_folder(w->files);
    free(w);
    return 0;
}

int rk_request(struct world *w, enum rp_vm_state state)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return w->c->ops->request_state(w->c, w->dk.vm, state, job, result, &w->err);
}

enum rp_vm_state rk_shown(struct world *w, char **remark)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory all = {0};
    kit_ok(w->c->ops->find_vm(w->c, w->dk.vm, &vm, &w->err) || w->c->ops->list_vms(w->c, &vms, &w->err) ||
               w->c->ops->inventory(w->c, &all, &w->err), w->err);
    assert_int_equal(vms.count, 1);
    assert_int_equal(vm.state, vms.items[0].state);
    assert_int_equal(vm.state, all.items[0].vm.state);
    assert_true(vm.has_guest && all.items[0].vm.has_guest);
    assert_string_equal(vm.remark ? vm.remark : "", all.items[0].vm.remark ? all.items[0].vm.remark : "");
    if (remark) {
        *remark = vm.remark ? vm.remark : rp_xstrdup("");
        vm.remark = NULL;
    }
    return vm.state;
}

struct rp_host_kept rk_keep(struct world *w, bool started, bool changed)
{
    struct rp_host_kept kept = {0};
    kit_ok(rp_host_local_keep(w->c, w->dk.vm, started, changed, &kept, &w->err), w->err);
    return kept;
}
