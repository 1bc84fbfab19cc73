// Msvm_ComputerSystem.RequestStateChange (facts/wmi.md 1.3). A VM of this host has disks and no guest: it runs or is
// off.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/method.h"

enum {
    STATE_ON = 2,
    STATE_OFF = 3,
    STATE_SHUT_DOWN = 4,
    STATE_SAVE = 6,
    STATE_PAUSE = 9,
    STATE_REBOOT = 10,
    STATE_RESET = 11
};

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
    if (task->number != STATE_ON && request(host, task->vm_id, RP_VM_OFF, err))
        return -1;
    return task->number != STATE_OFF ? request(host, task->vm_id, RP_VM_RUNNING, err) : 0;
}

static int change(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    static const struct {
        uint16_t state, job_type;
        enum rp_vm_state from, to;
        const char *caption;
    } known[] = {
        {STATE_ON, 12, RP_VM_OFF, RP_VM_RUNNING, "Starting Virtual Machine"},
        {STATE_OFF, 13, RP_VM_RUNNING, RP_VM_OFF, "Turning Off Virtual Machine"},
        {STATE_RESET, 28, RP_VM_RUNNING, RP_VM_RUNNING, "Resetting Virtual Machine"},
    };
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const char *name = rp_cim_path_get(call->path, "Name");
    uint64_t asked = rp_cim_get_unsigned(call->in, "RequestedState", 0);
    if (name && !strcasecmp(name, call->hostd->machine))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "the state of the host itself is not changed here");
    if (rp_method_vm_at(call->hostd, call->path, RP_METHOD_REAL, "the object", &found, err))
        return -1;
    if (asked == STATE_SHUT_DOWN || asked == STATE_SAVE || asked == STATE_PAUSE || asked == STATE_REBOOT)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "RequestedState %llu needs a guest, and there is none",
                       (unsigned long long)asked);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].state != asked)
            continue;
        const struct rp_vm *vm = &found.vm->vm;
        if (vm->state != known[i].from)
            return rp_fail(err, RP_ERR_STATE, "VM %s is %s", vm->id, rp_vm_state_name(vm->state));
        char planned[16];
        snprintf(planned, sizeof planned, "%d", (int)known[i].to);
        struct rp_method_task *task = rp_method_task_new(found.vm, vm->id);
        task->number = known[i].state;
        return rp_method_start(call, (struct rp_hostd_job){.type = known[i].job_type, .caption = known[i].caption,
            .result = RP_HOSTD_STATE, .target = vm->id, .planned = planned, .run = run}, task, status, err);
    }
    return rp_fail(err, RP_ERR_INVALID, "RequestedState %llu is unknown", (unsigned long long)asked);
}

const struct rp_hostd_method rp_hostd_state_methods[] = {
    {"Msvm_ComputerSystem", "RequestStateChange", RP_CIM_OPERATE, true, change},
    {0},
};
