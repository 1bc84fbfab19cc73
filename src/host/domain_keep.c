// One look at a VM that a hypervisor runs: its disk service is brought in line with its domain (refpoint-hostd asks for it whenever
// something happened to either), and what its administrator should know is noted.
#include <string.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "base/num.h"
#include "host/domain.h"
#include "host/domain_xml.h"
#include "host/local.h"

#define LOCK_MS 200                // somebody is at work on the VM: the next look is soon enough
#define ROOM_MIN (16 * RP_MIB)     // with less a guest that goes on would only stop again

// ---- disks of the domain that are not ours ------------------------------------------------------------------------------

static bool is_ours(const struct rp_local_domain_disks *ours, const struct rp_domain_xml_disk *disk)
{
    for (size_t i = 0; i < ours->count; i++)
        if (!strcmp(ours->items[i].target, disk->target))
            return rp_domain_xml_is_attached(disk, &ours->items[i]);
    return false;
}

static void list_strangers(const struct rp_domain_xml *xml, const struct rp_local_domain_disks *ours, struct rp_buf *text)
{
    for (size_t i = 0; i < xml->disk_count; i++) {
        const struct rp_domain_xml_disk *disk = &xml->disks[i];
        if (strcmp(disk->device, "cdrom") && strcmp(disk->device, "floppy") && !disk->readonly && !is_ours(ours, disk))
            rp_buf_printf(text, "%s%.32s (%.200s)", text->size ? ", " : "", disk->target, *disk->path ? disk->path : disk->type);
    }
    for (size_t i = 0; i < ours->count; i++)
        if (!rp_domain_xml_disk(xml, ours->items[i].target))
            rp_buf_printf(text, "%s%s, which was taken out of the domain", text->size ? ", " : "", ours->items[i].target);
}

// Best effort: a definition that cannot be had leaves what is known.
static void note_disks(const struct rp_local_vm *vm, struct rp_hypervisor *hv)
{
    RP_CLEANUP(rp_local_domain_disks_clear) struct rp_local_domain_disks ours = {0};
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_AUTO_FREE char *now = NULL;
    int64_t same = 0;
    if (rp_local_domain_disks(vm, &ours, NULL) || rp_hypervisor_ops()->running_xml(hv, vm->domain, &now, NULL) ||
        rp_domain_xml_parse(now, &xml, NULL))
        return;
    list_strangers(&xml, &ours, &text);
    const char *found = rp_buf_text(&text);
    if (rp_db_number(vm->local->db, NULL, &same, "SELECT unprotected = ? FROM vm WHERE row = ?", "ti", found, vm->row) || same)
        return;
    rp_db_run(vm->local->db, NULL, "UPDATE vm SET unprotected = ? WHERE row = ?", "ti", found, vm->row);
    if (*found)
        rp_log(RP_LOG_WARNING, "VM %s: disks that no backup holds: %s", vm->id, found);
}

// ---- room -----------------------------------------------------------------------------------------------------------------

// Whether a file system that the VM's disks lie on is full; `problem` says which.
static bool is_full(const struct rp_local_vm *vm, struct rp_buf *problem)
{
    struct rp_db *db = vm->local->db;
    RP_AUTO_QUERY *query = rp_db_query(db, NULL,
        "SELECT path FROM disk WHERE vm = ?1 UNION SELECT d.child FROM snapshot_disk d JOIN snapshot s ON s.row = d.snapshot"
        " WHERE s.vm = ?1", "i", vm->row);
    while (query && rp_db_step(db, query, NULL) == 1) {
        RP_AUTO_FREE char *folder = rp_path_directory(rp_db_text(query, 0));
        struct statvfs fs;
        if (statvfs(folder, &fs) || !fs.f_blocks)
            continue;
        uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (room >= ROOM_MIN)
            continue;
        rp_buf_printf(problem, "the file system of %s is full; the guest goes on when there is room", folder);
        return true;
    }
    return false;
}

// ---- a look -----------------------------------------------------------------------------------------------------------------

// `served`: its disk service answered before the look.
static int keep_live(const struct rp_local_vm *vm, struct rp_hypervisor *hv, enum rp_domain_state state, bool started, bool served,
                     struct rp_host_kept *kept, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf problem = {0};
    // One whose service died before it was ever connected so: to be seen in what becomes of it when it is resumed.
    struct rp_error why = {0};
    bool unconnected = started && rp_local_domain_reconnect(vm, &why) && served;
    if (state == RP_DOMAIN_IO_ERROR && served && is_full(vm, &problem)) {
        kept->waiting = true;
    } else if (state == RP_DOMAIN_IO_ERROR) {
        kept->acted = true;
        if (rp_hypervisor_ops()->resume(hv, vm->domain, true, err))
            return rp_context(err, "VM %s: let it go on", vm->id);
    }
    if (unconnected) // which does not keep a guest that waits from going on
        return rp_fail_as(err, &why);
    rp_local_domain_note(vm, rp_buf_text(&problem));
    return 0;
}

// `state` was so before the VM was locked.
static int keep(const struct rp_local_vm *vm, enum rp_domain_state state, bool started, bool changed, struct rp_host_kept *kept,
                struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv)
        return -1;
    // Before a service is ended it is looked whether nobody has started the domain meanwhile.
    if (!rp_local_domain_is_live(state) && rp_local_vm_running(vm) && rp_local_domain_state(vm, &state, err))
        return -1;
    kept->live = rp_local_domain_is_live(state);
    if (!kept->live) {
        rp_local_domain_note(vm, "");
        return rp_local_vm_running(vm) ? rp_local_domain_unserve(vm, false, err) : 0;
    }
    bool served = !kept->acted && rp_local_vm_running(vm);
    if (rp_local_domain_serve(vm, err))
        return -1;
    kept->acted |= !served && rp_local_vm_running(vm);
    if (rp_local_domain_let_serve(vm, err))
        return -1;
    int failed = keep_live(vm, hv, state, started, served, kept, err);
    if (!failed && (started || changed))
        note_disks(vm, hv);
    rp_local_domain_serve_alone(vm);
    return failed;
}

// A service that was killed, and not ended, had a domain, and QEMU does not wait for its disks as long as it may take until the
// hypervisor says what that domain does.
static int serve_first(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_host_kept *kept, struct rp_error *err)
{
    struct rp_error why = {0};
    if (rp_local_vm_running(vm) || !rp_engine_left_behind(local->fs, vm->directory))
        return 0;
    if (rp_local_vm_lock_within(local, vm_id, LOCK_MS, vm, &why)) {
        kept->at_work = why.code == RP_ERR_BUSY;
        if (!kept->at_work || !rp_lock_is_taken(local->lock_fd, RP_LOCAL_SERVABLE(vm)))
            return rp_fail_as(err, &why);
    }
    // Without a socket, and with its disks open still, is also one that somebody is ending: whoever does has no domain to serve.
    bool killed = rp_service_was_killed(vm->directory);
    kept->acted |= killed && !rp_local_domain_serve(vm, NULL); // a failure is told when it is tried again
    rp_local_vm_unlock(vm);
    if (!killed)
        kept->at_work = false;
    return kept->at_work ? rp_fail_as(err, &why) : 0;
}

// The VM is not locked while its hypervisor, which may not answer, is asked: whoever else would help has the lock then.
static int look(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, bool started, bool changed, struct rp_host_kept *kept,
                struct rp_error *err)
{
    enum rp_domain_state state;
    struct rp_error why = {0};
    if (serve_first(local, vm_id, vm, kept, err))
        return -1;
    kept->live = rp_local_vm_running(vm);
    if (rp_local_domain_state(vm, &state, &why)) {
        if (why.code == RP_ERR_NOT_FOUND && kept->acted && !rp_local_vm_lock_within(local, vm_id, LOCK_MS, vm, NULL))
            rp_local_domain_unserve(vm, false, NULL);
        kept->live &= why.code != RP_ERR_NOT_FOUND;
        return rp_fail_as(err, &why);
    }
    if (rp_local_vm_lock_within(local, vm_id, LOCK_MS, vm, &why)) {
        kept->at_work = why.code == RP_ERR_BUSY;
        return rp_fail_as(err, &why);
    }
    return keep(vm, state, started, changed, kept, err);
}

static bool has_disks(const struct rp_local_vm *vm)
{
    int64_t disks = 0;
    return !rp_db_number(vm->local->db, NULL, &disks, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm->row) && disks;
}

int rp_host_local_rescue(struct rp_host_connection *host, const char *vm_id, struct rp_host_kept *kept, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    *kept = (struct rp_host_kept){0};
    if (rp_local_vm_load(local, vm_id, &vm, err) || serve_first(local, vm_id, &vm, kept, err))
        return -1;
    kept->served = rp_local_vm_running(&vm);
    return 0;
}

int rp_host_local_keep(struct rp_host_connection *host, const char *vm_id, bool started, bool changed, struct rp_host_kept *kept,
                       struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct rp_error left = {0}, why = {0};
    *kept = (struct rp_host_kept){.acted = kept->acted};
    if (rp_local_vm_load(local, vm_id, &vm, err))
        return -1;
    if (!rp_local_domain_is(&vm))
        return 0;
    int failed = look(local, vm_id, &vm, started, changed, kept, &why);
    kept->served = kept->live && has_disks(&vm);
    if (failed) {
        if (!kept->at_work)
            rp_local_domain_note(&vm, why.text);
        return rp_fail_as(err, &why);
    }
    if (kept->acted && rp_local_vm_finish(&vm, &left)) // with the disk service back, more of it can be finished
        rp_log(RP_LOG_WARNING, "%s", left.text);
    return 0;
}

// ---- which VMs these are ----------------------------------------------------------------------------------------------------

int rp_host_local_domains(struct rp_host_connection *host, struct rp_host_domains *domains, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *domains = (struct rp_host_domains){0};
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT id, name, domain, hypervisor FROM vm WHERE state = 'ready' AND hypervisor <> '' ORDER BY row", "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        domains->items = rp_xrealloc(domains->items, (domains->count + 1) * sizeof *domains->items);
        struct rp_host_domain *item = &domains->items[domains->count++];
        *item = (struct rp_host_domain){.name = rp_xstrdup(rp_db_text(query, 1)), .hypervisor = rp_xstrdup(rp_db_text(query, 3))};
        rp_db_copy(query, 0, item->vm_id, sizeof item->vm_id);
        rp_db_copy(query, 2, item->domain, sizeof item->domain);
        item->control = rp_xasprintf("%s/vms/%s/" RP_CONTROL_SOCKET, local->directory, item->vm_id);
    }
    if (rc < 0)
        rp_host_domains_clear(domains);
    return rc;
}

void rp_host_domains_clear(struct rp_host_domains *domains)
{
    for (size_t i = 0; i < domains->count; i++) {
        free(domains->items[i].name);
        free(domains->items[i].hypervisor);
        free(domains->items[i].control);
    }
    free(domains->items);
    *domains = (struct rp_host_domains){0};
}

struct rp_hypervisor *rp_host_local_hypervisor(const char *uri, struct rp_error *err) { return rp_local_domain_open_uri(uri, err); }
