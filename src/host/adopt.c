// A domain of libvirt becomes a VM of this host. Everything is made beside what is there; the last step, one definition, decides
// whether the domain has been adopted. Before it nothing of the domain has changed, after it everything is done but the row,
// which adopt_recover.c makes ready as well.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "host/adopt.h"
#include "host/domain_define.h"

static int check_ids(struct rp_local *local, const char *id, struct rp_error *err)
{
    int64_t known = 0;
    if (rp_db_number(local->db, err, &known, "SELECT count(*) FROM vm WHERE id = ?", "t", id) ||
        (!known && rp_db_number(local->db, err, &known, "SELECT count(*) FROM planned WHERE id = ?", "t", id)))
        return -1;
    return known ? rp_fail(err, RP_ERR_EXISTS, "%s: there is a VM %s already", local->host.address, id) : 0;
}

// The disk that a new file will be: with an identity from the start, so that the row says what it is before it is there.
static int describe(struct rp_local *local, const struct rp_adopt_item *item, struct rp_local_image *image, struct rp_error *err)
{
    if (item->in_place)
        return rp_local_image_inspect(local, item->path, image, err);
    RP_AUTO_FREE char *there = rp_adopt_in_the_way(item->vhdx);
    if (there)
        return rp_fail(err, RP_ERR_EXISTS, "%s: is in the way", there);
    *image = (struct rp_local_image){.format = RP_IMAGE_VHDX, .path = rp_xstrdup(item->vhdx), .size = item->size, .logical = 512,
                                     .physical = 4096, .block = 2 << 20, .disk_id = rp_guid_new()};
    return 0;
}

struct images {
    struct rp_local_image items[RP_ENGINE_MAX_DISKS]; // by the numbers of the disks
};

static void clear_images(struct images *images)
{
    for (size_t i = 0; i < RP_ENGINE_MAX_DISKS; i++)
        rp_local_image_clear(&images->items[i]);
}

// Outside of any transaction: files may be where they take long to look at, and all writers of the database would wait.
static int describe_all(struct rp_local *local, const struct rp_adoption *plan, struct images *images, struct rp_error *err)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->items[i].verdict == RP_ADOPT_TAKEN && describe(local, &plan->items[i], &images->items[plan->items[i].number], err))
            return -1;
    return 0;
}

static int insert_disk(struct rp_local_vm *vm, const struct rp_adopt_item *item, const struct rp_local_image *image, struct rp_error *err)
{
    return rp_local_disk_reserve(vm, image, item->number, err) ||
                   rp_db_run(vm->local->db, err,
                             "INSERT INTO domain_disk (vm, number, target, source, format, stamp) VALUES (?, ?, ?, ?, ?, ?)", "iitttt",
                             vm->row, (int64_t)item->number, item->target, item->path, item->format, item->stamp)
               ? -1 : 0;
}

static int insert(struct rp_local *local, const struct rp_adoption *plan, struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_guid guid;
    char id[RP_GUID_TEXT], controller[RP_GUID_TEXT];
    bool inherited = false;
    if (rp_guid_parse(plan->uuid, &guid, err))
        return -1;
    rp_local_guid_text(&guid, id);
    rp_local_new_id(controller);
    RP_CLEANUP(clear_images) struct images images = {0};
    if (describe_all(local, plan, &images, err))
        return -1;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) || check_ids(local, id, err) ||
        rp_local_system_check_folder(local, id, NULL, NULL, 0, &inherited, err) ||
        rp_db_run(local->db, err,
                  "INSERT INTO vm (id, name, generation, created, controller, inherited, next_disk, hypervisor, domain, domain_xml, iothread,"
                  " state) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 'creating')",
                  "ttiitittti", id, plan->name, plan->generation, rp_clock_wall_ns(), controller, (int64_t)inherited, plan->uri,
                  plan->uuid, plan->before, (int64_t)plan->iothread))
        return -1;
    // The lock before anybody can see the row.
    int64_t row = rp_db_last_row(local->db);
    int rc = rp_lock_take(local->lock_fd, row, 0, err);
    if (rc != 1)
        return rc < 0 ? -1 : rp_fail(err, RP_ERR_BUSY, "VM %s: its new lock is taken", id);
    vm->local = local;
    vm->row = row;
    vm->locked = true;
    if (rp_local_vm_load_row(local, row, vm, err) != 1)
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->items[i].verdict == RP_ADOPT_TAKEN && insert_disk(vm, &plan->items[i], &images.items[plan->items[i].number], err))
            return -1;
    return rp_transaction_commit(&t, err);
}

// ---- the new files --------------------------------------------------------------------------------------------------

// Under a name of its own until it is whole: whatever has the other one meanwhile is somebody's, and stays.
static int convert(const struct rp_local_vm *vm, const struct rp_adopt_item *item, struct rp_local_progress *whole, struct rp_error *err)
{
    struct rp_adopt_nbd nbd;
    struct rp_fs_no_links here; // both folders may be somebody else's, who could put links there meanwhile
    struct rp_fs *files = rp_fs_no_links(&here, "/"), *fs = strcmp(item->format, "raw") ? rp_adopt_nbd(&nbd, item->path) : files;
    struct rp_vhdx_create create = {0};
    RP_AUTO_FREE char *part = NULL;
    {
        RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err, "SELECT disk_id FROM disk WHERE vm = ? AND number = ?", "ii", vm->row,
                                           (int64_t)item->number);
        if (!query || rp_db_step(vm->local->db, query, err) != 1 || rp_guid_parse(rp_db_text(query, 0), &create.disk_id, err))
            return -1;
        part = rp_adopt_part(item->vhdx, rp_db_text(query, 0));
    }
    RP_CLEANUP(rp_local_image_clear) struct rp_local_image facts = {0};
    if (rp_convert_raw_to_vhdx(fs, item->path, part, &create, rp_local_progress_call, whole, err) ||
        rp_local_image_facts(files, part, &facts, err) || rp_adopt_rename(part, item->vhdx, err) ||
        rp_fs_sync_parent(files, item->vhdx, err))
        return rp_context(err, "%s: convert", item->path);
    return rp_db_run(vm->local->db, err, "UPDATE disk SET size = ?, logical = ?, physical = ?, block = ? WHERE vm = ? AND number = ?",
                     "iiiiii", (int64_t)facts.size, (int64_t)facts.logical, (int64_t)facts.physical, (int64_t)facts.block, vm->row,
                     (int64_t)item->number);
}

static int make_files(const struct rp_local_vm *vm, const struct rp_adoption *plan, struct rp_error *err)
{
    struct rp_local_progress whole = rp_local_progress_of(vm->local);
    if (!vm->inherited && mkdir(vm->directory, 0700))
        return rp_fail_sys(err, errno, "%s: create", vm->directory);
    if (rp_fs_sync_parent(vm->local->fs, vm->directory, err))
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        whole.total += plan->items[i].verdict == RP_ADOPT_TAKEN && !plan->items[i].in_place ? plan->items[i].size : 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_adopt_item *item = &plan->items[i];
        if (item->verdict != RP_ADOPT_TAKEN || item->in_place)
            continue;
        if (convert(vm, item, &whole, err))
            return -1;
        whole.before += item->size;
    }
    return rp_local_disk_write_record(vm, err);
}

// ---- the domain -----------------------------------------------------------------------------------------------------

// The images are what was read, the domain is off and as the plan knew it.
static int check_still(struct rp_hypervisor *hv, const struct rp_adoption *plan, struct rp_error *err)
{
    const struct rp_hypervisor_ops *ops = rp_hypervisor_ops();
    RP_AUTO_FREE char *now = NULL;
    char uuid[RP_GUID_TEXT];
    enum rp_domain_state state;
    if (ops->find(hv, plan->uuid, uuid, &now, err) || ops->state(hv, plan->uuid, &state, err))
        return -1;
    if (state != RP_DOMAIN_OFF)
        return rp_fail(err, RP_ERR_STATE, "domain %s was started meanwhile", plan->domain);
    if (strcmp(now, plan->before))
        return rp_fail(err, RP_ERR_STATE, "the definition of domain %s was changed meanwhile: try again", plan->domain);
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_adopt_item *item = &plan->items[i];
        if (item->verdict != RP_ADOPT_TAKEN)
            continue;
        RP_AUTO_FREE char *stamp = rp_adopt_stamp(item->path);
        if (strcmp(stamp, item->stamp))
            return rp_fail(err, RP_ERR_STATE, "%s was written to meanwhile: try again", item->path);
    }
    return 0;
}

// *awaited: it was not waited for any longer that the domain gets its definition; it may yet.
static int take_over(const struct rp_local_vm *vm, const struct rp_adoption *plan, bool *awaited, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv || make_files(vm, plan, err) || check_still(hv, plan, err))
        return -1;
    if (!rp_hypervisor_ops()->define(hv, plan->after, err))
        return 0;
    *awaited = rp_local_domain_may_come(err);
    return rp_context(err, "domain %s: its new definition", plan->domain);
}

// Whatever the hypervisor answered, what it has decides; also when somebody started the domain at the last moment.
static int settle(const struct rp_local_vm *vm, bool awaited, struct rp_error *err)
{
    bool running;
    if (awaited && rp_adopt_is_attached(vm, &running, NULL, err) != 1)
        return -1;
    return rp_adopt_settle(vm, false, err);
}

static int refused(const struct rp_adoption *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf why = {0};
    for (size_t i = 0; i < plan->count; i++)
        if (plan->items[i].verdict == RP_ADOPT_REFUSED)
            rp_buf_printf(&why, "%s%s%s%s: %s", why.size ? "; " : "", plan->items[i].what, *plan->items[i].path ? " " : "",
                          plan->items[i].path, plan->items[i].reason);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "domain %s cannot be adopted: %s", plan->domain, rp_buf_text(&why));
}

int rp_host_local_adopt(struct rp_host_connection *host, const struct rp_adoption *plan, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct rp_error why = {0}, unsettled = {0};
    if (plan->refused)
        return refused(plan, err);
    if (insert(local, plan, &vm, err))
        return -1;
    bool awaited = false;
    int failed = take_over(&vm, plan, &awaited, &why);
    int settled = settle(&vm, awaited, &unsettled);
    bool running;
    if (settled == 1 && failed && rp_adopt_is_attached(&vm, &running, NULL, &unsettled) < 1) {
        rp_context(&why, "domain %s: has the disks that it had, though a disk service has had those of VM %s, which stays", plan->domain,
                   vm.id);
        return rp_fail_as(err, &why);
    }
    if (settled == 1)
        return 0;
    if (settled < 0 || rp_local_system_recover(&vm, &unsettled)) {
        if (unsettled.code)
            rp_fail_as(&why, &unsettled);
        rp_context(&why, "domain %s: whether it is adopted is not known yet; the next use of the host finds out", plan->domain);
        return rp_fail_as(err, &why);
    }
    return failed ? rp_fail_as(err, &why)
                  : rp_fail(err, RP_ERR_STATE, "domain %s was started while it was being adopted: it stays as it was", plan->domain);
}
