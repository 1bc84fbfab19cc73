// Msvm_ComputerSystem.RequestStateChange (facts/wmi.md 1.3). A VM without a guest, whose disks are served or not, runs or is
// off; one that a hypervisor runs can be all that a VM of Hyper-V can be.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/method.h"

static int request(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, struct rp_error *err)
{
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    return rp_method_wait(host, host->ops->request_state(host, vm_id, state, job, made, err), job, made, err);
}

static int run(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err)
{
    (void)hostd, (void)result;
    const struct rp_method_task *task = context;
    if (task->number != RP_VM_RESET || task->flag)
        return request(host, task->vm_id, (enum rp_vm_state)task->number, err);
    return request(host, task->vm_id, RP_VM_OFF, err) || request(host, task->vm_id, RP_VM_RUNNING, err) ? -1 : 0;
}

#define FROM(state) (1u << (state))
static const struct change {
    enum rp_vm_state asked;   // RequestedState
    uint16_t job_type;
    unsigned from;            // states that it can be asked in: FROM(…)
    enum rp_vm_state to;      // when it is done
    bool needs_guest;
    const char *caption;
} changes[] = {
    {RP_VM_RUNNING, 12, FROM(RP_VM_OFF) | FROM(RP_VM_SAVED) | FROM(RP_VM_PAUSED), RP_VM_RUNNING, false, "Starting Virtual Machine"},
    {RP_VM_OFF, 13, FROM(RP_VM_RUNNING) | FROM(RP_VM_PAUSED), RP_VM_OFF, false, "Turning Off Virtual Machine"},
    {RP_VM_SHUT_DOWN, 14, FROM(RP_VM_RUNNING), RP_VM_OFF, true, "Shutting Down Virtual Machine"},
    {RP_VM_SAVED, 15, FROM(RP_VM_RUNNING) | FROM(RP_VM_PAUSED), RP_VM_SAVED, true, "Saving Virtual Machine"},
    {RP_VM_PAUSED, 16, FROM(RP_VM_RUNNING), RP_VM_PAUSED, true, "Pausing Virtual Machine"},
    {RP_VM_REBOOT, 27, FROM(RP_VM_RUNNING), RP_VM_RUNNING, true, "Rebooting Virtual Machine"},
    {RP_VM_RESET, 28, FROM(RP_VM_RUNNING) | FROM(RP_VM_PAUSED), RP_VM_RUNNING, false, "Resetting Virtual Machine"},
};

static int change(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const char *name = rp_cim_path_get(call->path, "Name");
    uint64_t asked = rp_cim_get_unsigned(call->in, "RequestedState", 0);
    if (name && !strcasecmp(name, call->hostd->machine))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "the state of the host itself is not changed here");
    if (rp_method_vm_at(call->hostd, call->path, RP_METHOD_REAL, "the object", &found, err))
        return -1;
    const struct rp_vm *vm = &found.vm->vm;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        if (c->asked != asked)
            continue;
        if (c->needs_guest && !vm->has_guest)
            return rp_fail(err, RP_ERR_UNSUPPORTED, "RequestedState %llu needs a guest, and there is none", (unsigned long long)asked);
        // Of a VM that waits for a disk the host knows best what can be done.
        if (!(c->from & FROM(vm->state)) && !vm->waits)
            return rp_fail(err, RP_ERR_STATE, "VM %s is %s", vm->id, rp_vm_state_name(vm->state));
        char planned[16];
        snprintf(planned, sizeof planned, "%d", (int)c->to);
        struct rp_method_task *task = rp_method_task_new(found.vm, vm->id);
        task->number = c->asked;
        task->flag = vm->has_guest;
        return rp_method_start(call, (struct rp_hostd_job){.type = c->job_type, .caption = c->caption,
            .result = RP_HOSTD_STATE, .target = vm->id, .planned = planned, .run = run}, task, status, err);
    }
    return rp_fail(err, RP_ERR_INVALID, "RequestedState %llu is unknown", (unsigned long long)asked);
}

const struct rp_hostd_method rp_hostd_state_methods[] = {
    {"Msvm_ComputerSystem", "RequestStateChange", RP_CIM_OPERATE, true, change},
    {0},
};
