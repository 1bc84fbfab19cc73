// QEMU of the system's libvirt runs as a user of its own, who may not look into a host's folder. It gets to the NBD socket of
// its VM, and to nothing else: it may pass through the folders on the way, not list them, and the socket is its own.
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "host/domain.h"

// Debian's and Fedora's name of that user. REFPOINT_QEMU_USER: what qemu.conf says; "": QEMU is root.
static bool find_user(uid_t *uid, gid_t *gid)
{
    const char *chosen = getenv("REFPOINT_QEMU_USER");
    const char *const names[] = {chosen ? chosen : "libvirt-qemu", chosen ? chosen : "qemu"};
    for (size_t i = 0; i < 2; i++) {
        char text[4096];
        struct passwd user, *found = NULL;
        struct group group, *own = NULL;
        if (!*names[i] || getpwnam_r(names[i], &user, text, sizeof text, &found) || !found)
            continue;
        *uid = user.pw_uid;
        *gid = user.pw_gid; // "kvm" on Debian, which others are in as well; rather the group that is called as the user
        if (!getgrnam_r(names[i], &group, text, sizeof text, &own) && own)
            *gid = own->gr_gid;
        return true;
    }
    return false;
}

static int let_through(const char *folder, gid_t gid, struct rp_error *err)
{
    struct stat st;
    if (stat(folder, &st))
        return rp_fail_sys(err, errno, "%s", folder);
    if ((st.st_mode & S_IXOTH) || (st.st_gid == gid && (st.st_mode & S_IXGRP)))
        return 0;
    // What its group could do before, that group cannot any more: it was nobody's who needs it.
    mode_t mode = (st.st_mode & (07000 | S_IRWXU | S_IRWXO)) | S_IXGRP;
    if (chown(folder, (uid_t)-1, gid) || chmod(folder, mode))
        return rp_fail_sys(err, errno, "%s: let QEMU's user through", folder);
    return 0;
}

static void shut(const struct rp_local *local, const char *name)
{
    RP_AUTO_FREE char *path = rp_path_join(local->directory, name);
    if (chmod(path, 0600) && errno != ENOENT)
        rp_log(RP_LOG_WARNING, "%s: %s", path, strerror(errno));
}

int rp_local_domain_admit(const struct rp_local_vm *vm, struct rp_error *err)
{
    uid_t uid;
    gid_t gid;
    if (geteuid() || strstr(vm->hypervisor, "/session") || strstr(vm->hypervisor, "/embed") || !find_user(&uid, &gid))
        return 0;
    RP_AUTO_FREE char *vms = rp_path_directory(vm->directory), *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    // Which the folder alone had kept from others' eyes. A journal holds pages of its database.
    static const char *const private[] = {"host.db", "host.db-journal", "hostd.db", "hostd.db-journal"};
    for (size_t i = 0; i < sizeof private / sizeof *private; i++)
        shut(vm->local, private[i]);
    if (let_through(vm->local->directory, gid, err) || let_through(vms, gid, err) || let_through(vm->directory, gid, err))
        return -1;
    if (chmod(socket, 0600) || chown(socket, uid, (gid_t)-1))
        return rp_fail_sys(err, errno, "%s: give it to QEMU's user", socket);
    return 0;
}
