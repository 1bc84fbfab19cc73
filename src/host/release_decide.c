// The transaction that decides a release: before it nothing of the VM has changed, and after it everybody carries the
// release through (release_recover.c). Files are looked at before it: in it, one that does not answer (NFS) would stop
// whoever writes to the host's database. What changes between is found when the images are put in their places.
#include <errno.h>
#include <sys/stat.h>

#include "host/adopt.h"

// Hours may have passed since the plan was made: nothing that somebody else has put there is replaced.
static int look_at_place(const struct rp_local_vm *vm, const struct rp_release_item *item,
                         const struct rp_release_part *part, struct rp_error *err)
{
    struct stat st;
    int whole = rp_adopt_is_marked(part->path, part->mark, err);
    if (whole < 1)
        return whole ? -1 : rp_fail(err, RP_ERR_NOT_FOUND, "%s: somebody has moved it away", part->path);
    if (item->replaces)
        return rp_release_check_image(item->path, item->stamp, vm->id, err);
    if (lstat(item->path, &st))
        return errno == ENOENT ? 0 : rp_fail_sys(err, errno, "%s", item->path);
    return rp_fail(err, RP_ERR_EXISTS, "%s: is there meanwhile, where disk%u would go: try again", item->path,
                   item->number);
}

// By a VM whose file is not there now, or by one whose release has been decided first.
static int check_name(const struct rp_local_vm *vm, const struct rp_release_item *item, struct rp_error *err)
{
    int64_t taken = 0;
    if (rp_db_number(vm->local->db, err, &taken,
                     "SELECT (SELECT count(*) FROM disk WHERE path = ?1) +"
                     " (SELECT count(*) FROM snapshot_disk WHERE path = ?1) +"
                     " (SELECT count(*) FROM releasing_disk WHERE path = ?1)",
                     "t", item->path))
        return -1;
    return taken ? rp_fail(err, RP_ERR_EXISTS, "%s: is another VM's meanwhile, where disk%u would go: try again",
                           item->path, item->number)
                 : 0;
}

static int insert(const struct rp_local_vm *vm, const struct rp_release_item *item, const struct rp_release_part *part,
                  struct rp_error *err)
{
    if (!item->stays && check_name(vm, item, err))
        return -1;
    return rp_db_run(vm->local->db, err,
                     "INSERT INTO releasing_disk (vm, number, part, path, format, mark) VALUES (?, ?, ?, ?, ?, ?)",
                     "iitttt", vm->row, (int64_t)item->number, part->path ? part->path : "", item->path, item->format,
                     part->path ? part->mark : "");
}

int rp_release_decide(const struct rp_local_vm *vm, const struct rp_release *plan,
                      const struct rp_local_export_names *names, const struct rp_release_part *parts,
                      struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    if (rp_local_vm_need_off(vm, "release it", err)) // hours later, perhaps
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        if (!plan->items[i].stays && look_at_place(vm, &plan->items[i], &parts[i], err))
            return -1;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) || rp_db_run(db, err, "INSERT INTO releasing (vm) VALUES (?)", "i", vm->row))
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        if (insert(vm, &plan->items[i], &parts[i], err))
            return -1;
    if (rp_db_run(db, err, "UPDATE vm SET state = 'deleting', delete_disks = 0 WHERE row = ?", "i", vm->row) ||
        rp_db_run(db, err, "DELETE FROM export WHERE row = ?", "i", names->row)) // its names are not to go any more
        return -1;
    return rp_transaction_commit(&t, err);
}
