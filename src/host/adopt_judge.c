// What adopting a domain would do: every disk is looked at, nothing is changed.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "host/adopt.h"
#include "host/domain.h"

static void clear_item(struct rp_adopt_item *item)
{
    free(item->what);
    free(item->reason);
    free(item->path);
    free(item->format);
    free(item->vhdx);
    free(item->stamp);
}

void rp_host_local_adoption_clear(struct rp_adoption *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        clear_item(&plan->items[i]);
    free(plan->items);
    free(plan->uri);
    free(plan->name);
    free(plan->domain);
    free(plan->before);
    free(plan->after);
    *plan = (struct rp_adoption){0};
}

static struct rp_adopt_item *add(struct rp_adoption *plan, const char *kind, const char *name)
{
    plan->items = rp_xrealloc(plan->items, (plan->count + 1) * sizeof *plan->items);
    struct rp_adopt_item *item = &plan->items[plan->count++];
    *item = (struct rp_adopt_item){.what = *name ? rp_xasprintf("%s %s", kind, name) : rp_xstrdup(kind), .reason = rp_xstrdup(""),
                                   .path = rp_xstrdup(""), .format = rp_xstrdup(""), .vhdx = rp_xstrdup(""), .stamp = rp_xstrdup("")};
    return item;
}

static void set_text(char **text, char *value)
{
    free(*text);
    *text = value;
}

static void say(struct rp_adopt_item *item, enum rp_adopt_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(struct rp_adopt_item *item, enum rp_adopt_verdict verdict, const char *format, ...)
{
    va_list args;
    RP_AUTO_FREE char *more = NULL;
    va_start(args, format);
    if (vasprintf(&more, format, args) < 0)
        abort();
    va_end(args);
    item->verdict = verdict;
    set_text(&item->reason, *item->reason ? rp_xasprintf("%s; %s", item->reason, more) : rp_xstrdup(more));
}

#define refuse(item, ...) say(item, RP_ADOPT_REFUSED, __VA_ARGS__)

// ---- what the definition says of a disk ------------------------------------------------------------------------------

// Whether the image may be looked at.
static bool judge_definition(const struct rp_domain_xml_disk *disk, struct rp_adopt_item *item)
{
    if (!strcmp(disk->device, "cdrom") || !strcmp(disk->device, "floppy")) {
        say(item, RP_ADOPT_LEFT, "a %s stays as it is, and is in no backup", disk->device);
        return false;
    }
    if (!strcmp(disk->device, "disk") && disk->readonly) {
        say(item, RP_ADOPT_LEFT, "is read-only: it stays as it is, and is in no backup");
        return false;
    }
    bool plain = !strcmp(disk->device, "disk"), file = !strcmp(disk->type, "file") || !*disk->type;
    if (!plain)
        refuse(item, "is passed through to the guest (device %s): what it writes cannot be tracked", disk->device);
    else if (!strcmp(disk->type, "block"))
        refuse(item, "is a block device: copy it into a file first (qemu-img convert)");
    else if (!strcmp(disk->type, "volume"))
        refuse(item, "is a volume of a storage pool: name its file in the definition instead (source file)");
    else if (*disk->nbd_socket)
        refuse(item, "is served by a disk service already: %s", disk->nbd_socket);
    else if (!file)
        refuse(item, "is no file of this machine (%s)", disk->type);
    if (item->verdict == RP_ADOPT_REFUSED)
        return false;
    if (disk->encrypted)
        refuse(item, "is encrypted by QEMU (LUKS): encrypt inside the guest instead, or copy it into an image that is not");
    if (disk->shareable)
        refuse(item, "is shared by several VMs (shareable)");
    if (disk->transient)
        refuse(item, "is transient: what the guest writes is thrown away");
    if (disk->mirrored)
        refuse(item, "is being copied by libvirt (mirror): end that block job first");
    if (disk->partial)
        refuse(item, "is a part of a file (slices)");
    if (disk->backing_count && strcmp(disk->format, "qcow2"))
        refuse(item, "is said to lie on %s, which only a qcow2 image can", disk->backing[0].path);
    if (!*disk->target || strlen(disk->target) >= sizeof item->target)
        refuse(item, "has no target that can be named");
    if (*disk->path != '/')
        refuse(item, "has no file");
    return item->verdict == RP_ADOPT_TAKEN;
}

// ---- its image ------------------------------------------------------------------------------------------------------

static bool judge_file(struct rp_adopt_item *item)
{
    struct stat st;
    char *real = realpath(item->path, NULL);
    if (!real || stat(real, &st)) {
        refuse(item, "cannot be read: %s", strerror(errno));
        free(real);
        return false;
    }
    if (strcmp(real, item->path))
        say(item, RP_ADOPT_TAKEN, "is %s", real);
    set_text(&item->path, real);
    if (!rp_local_image_is_text(real))
        refuse(item, "its path is not valid UTF-8: rename the file, or the folder that it is in");
    if (!S_ISREG(st.st_mode))
        refuse(item, "is no file: block devices are passed through");
    else if (st.st_nlink > 1)
        refuse(item, "has %lu names (hard links): the others would go on without the VM", (unsigned long)st.st_nlink);
    else if (rp_adopt_is_written(real))
        refuse(item, "a running QEMU writes to it");
    set_text(&item->stamp, rp_adopt_stamp(real));
    return item->verdict == RP_ADOPT_TAKEN;
}

static int check_adopted(struct rp_local *local, struct rp_adopt_item *item, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT v.name, v.id FROM domain_disk d JOIN vm v ON v.row = d.vm WHERE d.source = ?", "t", item->path);
    int rc = query ? rp_db_step(local->db, query, err) : -1;
    if (rc == 1)
        refuse(item, "was adopted with VM %s (%s) already", rp_db_text(query, 0), rp_db_text(query, 1));
    return rc < 0 ? -1 : 0;
}

static void judge_raw(struct rp_adopt_item *item)
{
    struct stat st;
    if (stat(item->path, &st))
        return refuse(item, "cannot be read: %s", strerror(errno));
    item->size = rp_align_up((uint64_t)st.st_size, 512);
    item->room = rp_adopt_allocated(item->path);
    if (!item->size || item->size > RP_VHDX_MAX_SIZE)
        refuse(item, "is empty, or larger than the 64 TiB of a VHDX");
}

static int judge_qcow2(const struct rp_domain_xml_disk *disk, struct rp_adopt_item *item, struct rp_error *err)
{
    struct rp_adopt_qcow2 image;
    RP_AUTO_FREE char *reason = NULL;
    if (rp_adopt_qcow2_inspect(item->path, &image, &reason, err) || (!reason && rp_adopt_check_chain(disk, item->path, &reason, err)))
        return -1;
    if (reason) {
        refuse(item, "%s", reason);
        return 0;
    }
    item->size = rp_align_up(image.size, 512);
    item->room = rp_min64(image.data, image.size);
    if (image.files > 1)
        say(item, RP_ADOPT_TAKEN, "with the %u image%s behind it; released, it stands alone", image.files - 1, image.files > 2 ? "s" : "");
    if (image.bitmaps)
        say(item, RP_ADOPT_TAKEN, "its dirty bitmaps will be gone when it is released");
    return 0;
}

static void judge_vhdx(struct rp_local *local, struct rp_adopt_item *item)
{
    struct rp_error why = {0};
    RP_CLEANUP(rp_local_image_clear) struct rp_local_image image = {0};
    const struct rp_local_vm nobody = {.local = local, .row = -1};
    item->in_place = true;
    set_text(&item->vhdx, rp_xstrdup(item->path));
    if (rp_local_image_inspect(local, item->path, &image, &why) || rp_local_image_check_free(&nobody, &image, &why))
        refuse(item, "%s", why.text);
    else if (image.format != RP_IMAGE_VHDX)
        refuse(item, "is no VHDX");
    item->size = image.size;
}

static bool is_planned(const struct rp_adoption *plan, const struct rp_adopt_item *but, const char *vhdx)
{
    for (size_t i = 0; i < plan->count; i++)
        if (&plan->items[i] != but && !strcmp(plan->items[i].vhdx, vhdx))
            return true;
    return false;
}

static void judge_place(const struct rp_adoption *plan, struct rp_adopt_item *item, const char *folder)
{
    RP_AUTO_FREE char *own = rp_path_directory(item->path);
    const char *where = folder ? folder : own;
    char *vhdx = rp_adopt_name(where, item->path, item->target, "vhdx");
    if (vhdx && is_planned(plan, item, vhdx)) {
        free(vhdx);
        RP_AUTO_FREE char *name = rp_xasprintf("%s-%s", rp_path_name(item->path), item->target);
        vhdx = rp_adopt_name(where, name, item->target, "vhdx");
    }
    if (!vhdx || is_planned(plan, item, vhdx)) {
        free(vhdx);
        return refuse(item, "there is a file already where its VHDX would be, in %s", where);
    }
    set_text(&item->vhdx, vhdx);
    if (!rp_local_image_is_text(vhdx))
        return refuse(item, "%s is not valid UTF-8: its VHDX cannot be there", where);
    if (access(where, W_OK | X_OK))
        return refuse(item, "%s: %s", where, strerror(errno));
    item->shared = !strcmp(item->format, "raw") && rp_adopt_shares(item->path, where);
    if (item->shared)
        item->room = 0;
}

static int judge_disk(struct rp_local *local, const struct rp_domain_xml_disk *disk, const char *folder, struct rp_adoption *plan,
                      struct rp_error *err)
{
    struct rp_adopt_item *item = add(plan, disk->device, disk->target);
    set_text(&item->path, rp_xstrdup(disk->path));
    set_text(&item->format, rp_xstrdup(*disk->format ? disk->format : *disk->path ? "raw" : ""));
    if (!judge_definition(disk, item) || !judge_file(item))
        return 0;
    memcpy(item->target, disk->target, strlen(disk->target) + 1);
    if (check_adopted(local, item, err))
        return -1;
    if (!strcmp(item->format, "raw"))
        judge_raw(item);
    else if (!strcmp(item->format, "qcow2") ? judge_qcow2(disk, item, err) : 0)
        return -1;
    else if (!strcmp(item->format, "vhdx"))
        judge_vhdx(local, item);
    else if (strcmp(item->format, "qcow2"))
        refuse(item, "is of the format %.32s: raw, qcow2 and vhdx can be taken", item->format);
    if (item->verdict == RP_ADOPT_TAKEN && !item->in_place)
        judge_place(plan, item, folder);
    if (item->verdict == RP_ADOPT_TAKEN)
        item->number = (uint32_t)plan->taken++;
    return 0;
}

// ---- the domain -----------------------------------------------------------------------------------------------------

// Passed-through devices that are disks.
static void judge_hostdevs(const struct rp_domain_xml *xml, struct rp_adoption *plan)
{
    for (size_t i = 0; i < xml->hostdev_count; i++) {
        const struct rp_domain_xml_hostdev *device = &xml->hostdevs[i];
        struct rp_adopt_item *item = add(plan, "hostdev", device->type);
        if (!strcmp(device->type, "scsi") || !strcmp(device->type, "scsi_host") || !strcmp(device->type, "storage"))
            refuse(item, "a disk is passed through to the guest (hostdev %s): what it writes cannot be tracked", device->type);
        else
            say(item, RP_ADOPT_LEFT, "a device is passed through to the guest; if it is a disk, it is in no backup");
    }
}

// All new files of a file system together.
static void judge_room(struct rp_adoption *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        struct rp_adopt_item *item = &plan->items[i];
        if (item->verdict != RP_ADOPT_TAKEN || item->in_place || item->shared)
            continue;
        RP_AUTO_FREE char *folder = rp_path_directory(item->vhdx);
        struct stat here, there;
        uint64_t needed = 0, room = rp_adopt_room(folder);
        for (size_t j = 0; j < plan->count; j++) {
            RP_AUTO_FREE char *other = rp_path_directory(plan->items[j].vhdx);
            if (plan->items[j].verdict == RP_ADOPT_TAKEN && !stat(folder, &here) && !stat(other, &there) && here.st_dev == there.st_dev)
                needed += plan->items[j].room;
        }
        char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
        if (room && needed > room)
            refuse(item, "its VHDX does not fit: %s are needed in %s and %s free; see --disks", rp_format_size(needed, a), folder,
                   rp_format_size(room, b));
    }
}

static int check_known(struct rp_local *local, const struct rp_adoption *plan, struct rp_error *err)
{
    int64_t known = 0;
    if (rp_db_number(local->db, err, &known, "SELECT count(*) FROM vm WHERE id = ?1 OR domain = ?1", "t", plan->uuid))
        return -1;
    return known ? rp_fail(err, RP_ERR_EXISTS, "domain %s: there is a VM %s already", plan->domain, plan->uuid) : 0;
}

static int check_off(struct rp_hypervisor *hv, const struct rp_adoption *plan, struct rp_error *err)
{
    enum rp_domain_state state;
    if (rp_hypervisor_ops()->state(hv, plan->uuid, &state, err))
        return -1;
    if (state == RP_DOMAIN_OFF)
        return 0;
    if (state == RP_DOMAIN_SAVED)
        return rp_fail(err, RP_ERR_STATE, "domain %s has a saved memory (managed save), which knows its old disks: start it and shut "
                       "it down, or virsh managedsave-remove it", plan->domain);
    return rp_fail(err, RP_ERR_STATE, "domain %s is %s: shut it down to adopt it", plan->domain, rp_domain_state_name(state));
}

static int judge_snapshots(struct rp_hypervisor *hv, struct rp_adoption *plan, struct rp_error *err)
{
    RP_AUTO_FREE char *names = NULL;
    if (rp_hypervisor_ops()->snapshots(hv, plan->uuid, &names, err))
        return -1;
    if (*names)
        refuse(add(plan, "domain", ""), "has snapshots or checkpoints of libvirt (%.200s), which would be of no use afterwards: delete them",
               names);
    return 0;
}

static int rewrite(struct rp_local *local, const struct rp_domain_xml *xml, bool iothread, struct rp_adoption *plan, struct rp_error *err)
{
    RP_AUTO_FREE char *id = rp_xstrdup(plan->uuid);
    for (char *p = id; *p; p++)
        *p = *p >= 'a' && *p <= 'f' ? (char)(*p - 'a' + 'A') : *p;
    RP_AUTO_FREE char *socket = rp_xasprintf("%s/vms/%s/" RP_NBD_SOCKET, local->directory, id);
    struct rp_domain_disk disks[RP_ENGINE_MAX_DISKS];
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_adopt_item *item = &plan->items[i];
        if (item->verdict != RP_ADOPT_TAKEN)
            continue;
        disks[count] = (struct rp_domain_disk){.socket = socket};
        memcpy(disks[count].target, item->target, sizeof item->target);
        snprintf(disks[count].export_name, sizeof disks->export_name, "disk%u", item->number);
        count++;
    }
    plan->iothread = iothread;
    return rp_domain_xml_attach(xml, disks, count, &plan->iothread, &plan->after, err);
}

static int judge_domain(struct rp_local *local, struct rp_hypervisor *hv, const char *folder, bool iothread, struct rp_adoption *plan,
                        struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    if (rp_domain_xml_parse(plan->before, &xml, err))
        return -1;
    plan->domain = rp_xstrdup(xml.name);
    plan->generation = xml.efi ? 2 : 1;
    if (!plan->name)
        plan->name = rp_xstrdup(xml.name);
    if (rp_local_name_check(plan->name, err) || check_known(local, plan, err) || check_off(hv, plan, err))
        return -1;
    for (size_t i = 0; i < xml.disk_count; i++)
        if (judge_disk(local, &xml.disks[i], folder, plan, err))
            return rp_context(err, "domain %s", plan->domain);
    judge_hostdevs(&xml, plan);
    judge_room(plan);
    if (judge_snapshots(hv, plan, err))
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        plan->refused += plan->items[i].verdict == RP_ADOPT_REFUSED;
    if (!plan->refused && !plan->taken)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "domain %s: has no disk that could be taken", plan->domain);
    if (plan->taken > RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "domain %s: has %zu disks, a VM may have %d", plan->domain, plan->taken, RP_ENGINE_MAX_DISKS);
    return plan->refused ? 0 : rewrite(local, &xml, iothread, plan, err);
}

int rp_host_local_adopt_plan(struct rp_host_connection *host, const char *uri, const char *domain,
                             const struct rp_adopt_options *options, struct rp_adoption *plan, struct rp_error *err)
{
    static const struct rp_adopt_options defaults;
    options = options ? options : &defaults;
    const char *folder = options->folder;
    *plan = (struct rp_adoption){.uri = rp_xstrdup(uri), .name = options->name ? rp_xstrdup(options->name) : NULL};
    RP_AUTO_FREE char *where = folder ? realpath(folder, NULL) : NULL;
    struct rp_hypervisor *hv = rp_local_domain_open_uri(uri, err);
    if (folder && !where)
        rp_fail_sys(err, errno, "%s", folder);
    else if (hv && !rp_hypervisor_ops()->find(hv, domain, plan->uuid, &plan->before, err) &&
             !judge_domain(rp_local_of(host), hv, where, !options->no_iothread, plan, err))
        return 0;
    rp_host_local_adoption_clear(plan);
    return -1;
}
