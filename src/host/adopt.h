// What the files that adopt and release VMs share (the public part is in local.h).
#ifndef RP_HOST_ADOPT_H
#define RP_HOST_ADOPT_H

#include "host/domain_xml.h"
#include "host/internal.h"
#include "host/local.h"

// ---- adopt_tool.c: qemu-img -----------------------------------------------------------------------------------------

// Runs a tool and parses what it says, which has to be JSON. `struct json_t`: jansson's, to be given back to it.
struct json_t *rp_adopt_tool_ask(const char *const argv[], struct rp_error *err);

struct rp_adopt_qcow2 {
    uint64_t size;        // of the virtual disk
    uint64_t data;        // bytes of it that are allocated, about
    uint64_t cluster;
    char compat[8];       // "1.1"
    unsigned files;       // 1 and those behind it
    bool bitmaps;
};
// What the image is. *reason (malloc'ed; NULL: it can be read): why it cannot be taken. RP_ERR_NOT_FOUND: no qemu-img.
int rp_adopt_qcow2_inspect(const char *path, struct rp_adopt_qcow2 *image, char **reason, struct rp_error *err);
// Makes the empty file `fd` a qcow2 image with what the VHDX holds, which is at rest and has no parent; durable with a sync.
// `target`: what messages call it. `like` (NULL: none): clusters and version as there. `progress` is only asked whether to stop.
int rp_adopt_qcow2_write(const char *vhdx, int fd, const char *target, const struct rp_adopt_qcow2 *like, rp_progress_fn *progress,
                         void *context, struct rp_error *err);

// ---- adopt_chain.c ---------------------------------------------------------------------------------------------------

// libvirt lets a guest see the images behind its disk that the definition names, qemu-img those that the files name. *reason
// (malloc'ed; NULL: they are the same) says where they differ.
int rp_adopt_check_chain(const struct rp_domain_xml_disk *disk, const char *path, char **reason, struct rp_error *err);

// ---- adopt_nbd.c: a qcow2 image as a byte store ----------------------------------------------------------------------

// The machine's file system, no link followed, but `path` opens (for reading) as the disk that the qcow2 image there holds,
// through qemu-nbd.
struct rp_adopt_nbd {
    struct rp_fs fs;
    const char *path; // borrowed
    struct rp_fs_no_links others;
};
struct rp_fs *rp_adopt_nbd(struct rp_adopt_nbd *nbd, const char *path);

// ---- adopt_file.c: files of others ----------------------------------------------------------------------------------

// "INODE SIZE MTIME": changes with every write by anybody. malloc'ed; "" when the file is not there.
char *rp_adopt_stamp(const char *path);
// Which file it is, whatever is written to it and wherever it is moved on its file system. malloc'ed; "" when it is not there.
char *rp_adopt_mark(const char *path);
char *rp_adopt_mark_of(int fd);
int rp_adopt_is_marked(const char *path, const char *mark, struct rp_error *err); // 1 it is that file, 0 another one or none, -1 error
// A new file for an image, open to write, that nobody else may read. In a folder of somebody else it could be exchanged while it
// is written: no link is followed, and whatever is done to it is done through the descriptor that this returns; -1: error.
int rp_adopt_create(const char *path, struct rp_error *err);
// Opens a file to read, following no link; -1: error.
int rp_adopt_open(const char *path, struct rp_error *err);
// Renames without replacing anything (RP_ERR_EXISTS), following no link.
int rp_adopt_rename(const char *from, const char *to, struct rp_error *err);
// A process that has the image open in QEMU's way writes to it.
bool rp_adopt_is_written(const char *path);
// What is in a folder can share its blocks with this file.
bool rp_adopt_shares(const char *path, const char *folder);
uint64_t rp_adopt_allocated(const char *path);     // bytes of a file that are no holes
uint64_t rp_adopt_room(const char *folder);        // that are free to root; 0 when nobody knows
// What is there already where a new VHDX would be, or its tracking: one that is left of another disk would be taken for its own.
// malloc'ed; NULL: nothing.
char *rp_adopt_in_the_way(const char *vhdx);
// "FOLDER/stem of path.extension", or with `other` between, where that is there already; NULL when both are.
char *rp_adopt_name(const char *folder, const char *path, const char *other, const char *extension);
// Owner, mode and access control list as the file `like` has, when that is there. `path`: what messages call the open file.
int rp_adopt_dress(int fd, const char *path, const char *like, struct rp_error *err);

// ---- adopt.c, adopt_recover.c ---------------------------------------------------------------------------------------

// What stands in the domain's definition: a disk that this VM's disk service serves. 1 yes, 0 no or there is no such domain, -1 nobody
// can tell now. *running: the running one has it, too, or none runs. *xml (may be NULL): the definition, malloc'ed, NULL without a
// domain.
int rp_adopt_is_attached(const struct rp_local_vm *vm, bool *running, char **xml, struct rp_error *err);
// Of a VM in state 'creating' that was being adopted: 1 it is adopted, and was left in state 'ready'; 0 it was not: files that
// were made for it are gone, the rest is to be undone; -1 error, or it is not known yet. `left`: by somebody who was killed, or did
// not wait for the hypervisor's answer: the definition may still come, and is kept from it.
int rp_adopt_settle(const struct rp_local_vm *vm, bool left, struct rp_error *err);
// A new VHDX, or image, has this name beside `path` until it is whole: one that nobody else would choose. malloc'ed.
char *rp_adopt_part(const char *path, const char *disk_id);

// ---- release.c, release_write.c, release_decide.c, release_recover.c ----------------------------------------------------

// The image of before at `path` may be replaced: nobody has written to it since, which would be lost, or is about to.
int rp_release_check_image(const char *path, const char *stamp, const char *id, struct rp_error *err);

// An image that is whole, under the name that it has until its release is decided; path NULL: the disk keeps its VHDX.
struct rp_release_part {
    char *path, *mark;
};
// Writes the images of the plan, each under a name of its own that is announced in `names` first, durably. `parts` has a place for
// each item of the plan; the texts are the caller's.
int rp_release_write(const struct rp_local_vm *vm, const struct rp_release *plan, struct rp_local_export_names *names,
                     struct rp_release_part *parts, struct rp_error *err);
// Everything is durable: from now on the VM is on its way out, and what the names announced is not to go any more.
int rp_release_decide(const struct rp_local_vm *vm, const struct rp_release *plan, const struct rp_local_export_names *names,
                      const struct rp_release_part *parts, struct rp_error *err);

struct rp_release_image {
    uint32_t number;
    const char *target, *path, *format;
};
// The definition `now` of the VM's domain with its disks given back to images, in *after (malloc'ed). RP_ERR_STATE: it would still
// need the VM.
int rp_release_rewrite(const struct rp_local_vm *vm, const char *now, const struct rp_release_image *images, size_t count, char **after,
                       struct rp_error *err);
// Goes on with a VM in state 'deleting' whose images are whole, whatever was done of it: they take their places, the domain gets
// its definition, the files of the VM go. 1: all but its row is gone. 0: it is no release; or its domain could not be given the
// definition, and it is 'ready' again: *why says so (else it is empty). -1: not now.
int rp_release_finish(const struct rp_local_vm *vm, struct rp_error *why, struct rp_error *err);

#endif
