// The hypervisor connections of this process, and what a VM's rows say of its domain.
#include "host/domain.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "io/fs.h"

#define AGAIN_NS 5000000000ull // a hypervisor that cannot be reached makes nobody wait more often than that

struct connection {
    struct connection *next;
    char *uri;
    struct rp_hypervisor *hv; // NULL: could not be opened
    struct rp_error why;
    uint64_t tried;
    bool opening; // by one of those who want it: the others wait for him, and for no other hypervisor
};
static struct connection *connections;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;

static struct connection *find(const char *uri)
{
    struct connection *c = connections;
    while (c && strcmp(c->uri, uri))
        c = c->next;
    if (c)
        return c;
    c = rp_xcalloc(1, sizeof *c);
    c->uri = rp_xstrdup(uri);
    c->next = connections;
    return connections = c;
}

// Under the lock, which is let go of meanwhile.
static void open_it(struct connection *c)
{
    struct rp_error why = {0};
    c->opening = true;
    pthread_mutex_unlock(&lock);
    struct rp_hypervisor *hv = rp_hypervisor_open(c->uri, &why);
    pthread_mutex_lock(&lock);
    c->hv = hv;
    c->why = why;
    c->tried = rp_clock_monotonic_ns();
    c->opening = false;
    pthread_cond_broadcast(&opened);
}

struct rp_hypervisor *rp_local_domain_open_uri(const char *uri, struct rp_error *err)
{
    pthread_mutex_lock(&lock);
    struct connection *c = find(uri);
    while (c->opening)
        pthread_cond_wait(&opened, &lock);
    if (!c->hv && (!c->tried || rp_clock_monotonic_ns() - c->tried > AGAIN_NS))
        open_it(c);
    struct rp_hypervisor *hv = c->hv;
    if (!hv)
        rp_fail_as(err, &c->why);
    pthread_mutex_unlock(&lock);
    return hv;
}

struct rp_hypervisor *rp_local_domain_open(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open_uri(vm->hypervisor, err);
    if (!hv)
        rp_context(err, "VM %s: its hypervisor", vm->id);
    return hv;
}

int rp_local_domain_state(const struct rp_local_vm *vm, enum rp_domain_state *state, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv)
        return -1;
    return rp_hypervisor_ops()->state(hv, vm->domain, state, err) ? rp_context(err, "VM %s: state of its domain", vm->id) : 0;
}

bool rp_local_domain_is_live(enum rp_domain_state state)
{
    return state != RP_DOMAIN_OFF && state != RP_DOMAIN_SAVED;
}

bool rp_local_domain_needs_service(const struct rp_local_vm *vm)
{
    enum rp_domain_state state;
    return rp_local_domain_is(vm) && (rp_local_domain_state(vm, &state, NULL) || rp_local_domain_is_live(state));
}

enum rp_vm_state rp_local_domain_vm_state(enum rp_domain_state state)
{
    switch (state) {
    case RP_DOMAIN_OFF: return RP_VM_OFF;
    case RP_DOMAIN_RUNNING: case RP_DOMAIN_STARTING: case RP_DOMAIN_STOPPING: return RP_VM_RUNNING;
    case RP_DOMAIN_PAUSED: case RP_DOMAIN_IO_ERROR: case RP_DOMAIN_CRASHED: return RP_VM_PAUSED;
    case RP_DOMAIN_SAVED: return RP_VM_SAVED;
    }
    return RP_VM_OFF;
}

int rp_local_domain_disks(const struct rp_local_vm *vm, struct rp_local_domain_disks *disks, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    *disks = (struct rp_local_domain_disks){.socket = rp_path_join(vm->directory, RP_NBD_SOCKET)};
    RP_AUTO_QUERY *query = rp_db_query(db, err,
        "SELECT m.number, m.target FROM domain_disk m JOIN disk d ON d.vm = m.vm AND d.number = m.number"
        " WHERE m.vm = ? AND d.state <> 'removing' ORDER BY m.number", "i", vm->row);
    int rc = query ? 1 : -1;
    while (rc > 0 && disks->count < RP_ENGINE_MAX_DISKS && (rc = rp_db_step(db, query, err)) == 1) {
        disks->numbers[disks->count] = (uint32_t)sqlite3_column_int64(query, 0);
        struct rp_domain_disk *disk = &disks->items[disks->count++];
        *disk = (struct rp_domain_disk){.socket = disks->socket};
        rp_db_copy(query, 1, disk->target, sizeof disk->target);
        snprintf(disk->export_name, sizeof disk->export_name, "disk%u", disks->numbers[disks->count - 1]);
    }
    if (rc >= 0)
        return 0;
    rp_local_domain_disks_clear(disks);
    return -1;
}

void rp_local_domain_disks_clear(struct rp_local_domain_disks *disks)
{
    free(disks->socket);
    *disks = (struct rp_local_domain_disks){0};
}

void rp_local_domain_describe(const struct rp_local_vm *vm, const char *problem, const char *unprotected, struct rp_vm *out)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf remark = {0};
    struct rp_error why = {0};
    enum rp_domain_state state;
    out->has_guest = true;
    if (rp_local_domain_state(vm, &state, &why)) {
        out->state = rp_local_vm_running(vm) ? RP_VM_RUNNING : RP_VM_OFF;
        rp_buf_printf(&remark, "%s", why.text);
    } else {
        out->state = rp_local_domain_vm_state(state);
        out->waits = state == RP_DOMAIN_IO_ERROR;
        if (out->waits || state == RP_DOMAIN_STARTING || state == RP_DOMAIN_STOPPING || state == RP_DOMAIN_CRASHED)
            rp_buf_printf(&remark, "%s", rp_domain_state_name(state));
    }
    if (*problem)
        rp_buf_printf(&remark, "%s%s", remark.size ? ": " : "", problem);
    if (*unprotected)
        rp_buf_printf(&remark, "%snot protected: %s", remark.size ? "; " : "", unprotected);
    if (remark.size)
        out->remark = rp_xstrdup(rp_buf_text(&remark));
}

void rp_local_domain_describe_row(const struct rp_local_vm *vm, struct rp_vm *out)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, NULL, "SELECT problem, unprotected FROM vm WHERE row = ?", "i", vm->row);
    bool there = query && rp_db_step(vm->local->db, query, NULL) == 1;
    rp_local_domain_describe(vm, there ? rp_db_text(query, 0) : "", there ? rp_db_text(query, 1) : "", out);
}

void rp_local_domain_note(const struct rp_local_vm *vm, const char *problem)
{
    int64_t same = 0; // each change of the database has every reader look again
    if (!rp_db_number(vm->local->db, NULL, &same, "SELECT problem = ? FROM vm WHERE row = ?", "ti", problem, vm->row) && !same)
        rp_db_run(vm->local->db, NULL, "UPDATE vm SET problem = ? WHERE row = ?", "ti", problem, vm->row);
}
