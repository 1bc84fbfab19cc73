// The files of a domain's firmware and TPM.
#include "host/domain_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/domain_xml.h"

#define EMBED_ROOT "root="

// ---- where they are -------------------------------------------------------------------------------------------------

void rp_domain_state_places_clear(struct rp_domain_state_places *places)
{
    free(places->nvram);
    free(places->tpm);
    free(places->conf);
    *places = (struct rp_domain_state_places){0};
}

// "qemu:///embed?root=/x&…": "/x"; NULL: not an embedded one.
static char *embed_root(const char *uri)
{
    const char *query = strstr(uri, "/embed?"), *root = query ? strstr(query, EMBED_ROOT) : NULL;
    return root ? strndup(root + strlen(EMBED_ROOT), strcspn(root + strlen(EMBED_ROOT), "&")) : NULL;
}

char *rp_domain_state_nvram(const char *uri, const char *id)
{
    RP_AUTO_FREE char *root = embed_root(uri);
    char uuid[RP_GUID_TEXT];
    struct rp_guid guid;
    if (rp_guid_parse(id, &guid, NULL) || (!root && strcmp(uri, "qemu:///system")))
        return NULL;
    rp_guid_format(&guid, uuid);
    return root ? rp_xasprintf("%s/lib/qemu/nvram/%s_VARS.fd", root, uuid)
                : rp_xasprintf("/var/lib/libvirt/qemu/nvram/%s_VARS.fd", uuid);
}

void rp_domain_state_places(const char *uri, const struct rp_domain_xml *xml, struct rp_domain_state_places *places)
{
    RP_AUTO_FREE char *root = embed_root(uri);
    *places = (struct rp_domain_state_places){0};
    if (*xml->nvram == '/')
        places->nvram = rp_xstrdup(xml->nvram);
    // libvirt's own places; its versions up to 10.9 have no others.
    if (!strcmp(xml->tpm_backend, "emulator"))
        places->tpm = root ? rp_xasprintf("%s/lib/swtpm/%s/tpm2", root, xml->uuid)
                           : rp_xasprintf("/var/lib/libvirt/swtpm/%s/tpm2", xml->uuid);
    places->conf = root ? rp_xasprintf("%s/etc/qemu.conf", root) : rp_xstrdup("/etc/libvirt/qemu.conf");
}

// ---- reading --------------------------------------------------------------------------------------------------------

// 1 read, 0 there is none, -1 error.
static int read_file(const char *path, size_t most, struct rp_buf *content, struct rp_error *err)
{
    struct stat st;
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? 0 : rp_fail_sys(err, errno, "%s", path);
    if (fstat(fd, &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > most)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: no file, or of more than %zu bytes: it is not kept", path, most);
    size_t size = (size_t)st.st_size, done = 0;
    uint8_t *data = rp_buf_extend(content, size);
    for (ssize_t n; done < size; done += (size_t)n) {
        n = pread(fd, data + done, size - done, (off_t)done);
        if (n < 0)
            return rp_fail_sys(err, errno, "%s: read", path);
        if (n == 0) // replaced by a shorter one meanwhile
            return rp_fail(err, RP_ERR_BUSY, "%s: changed while it was read", path);
    }
    return 1;
}

static int add_file(const char *path, bool tpm, const char *name, size_t *total, struct rp_domain_state_files *files,
                    struct rp_error *err)
{
    if (files->count == RP_DOMAIN_STATE_FILES)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: the firmware has more than %d files", path, RP_DOMAIN_STATE_FILES);
    struct rp_domain_state_file *file = &files->items[files->count];
    *file = (struct rp_domain_state_file){.tpm = tpm};
    if (strlen(name) >= sizeof file->name)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: a name that no TPM's file has", path);
    snprintf(file->name, sizeof file->name, "%s", name);
    int rc = read_file(path, RP_DOMAIN_STATE_MAX - *total, &file->content, err);
    if (rc != 1) {
        rp_buf_clear(&file->content);
        return rc;
    }
    *total += file->content.size;
    files->count++;
    return 0;
}

// Not every file system says it with the name.
static bool is_file(int folder, const struct dirent *entry)
{
    struct stat st;
    return entry->d_type == DT_REG ||
           (entry->d_type == DT_UNKNOWN && !fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode));
}

static int read_tpm(const char *folder, size_t *total, struct rp_domain_state_files *files, struct rp_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? 0 : rp_fail_sys(err, errno, "%s", folder);
    int rc = 0;
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        RP_AUTO_FREE char *path = rp_path_join(folder, entry->d_name);
        // Hidden ones are locks, and new ones that are not renamed yet.
        if (*entry->d_name != '.' && is_file(dirfd(dir), entry))
            rc = add_file(path, true, entry->d_name, total, files, err);
    }
    closedir(dir);
    return rc;
}

int rp_domain_state_read(const struct rp_domain_state_places *places, struct rp_domain_state_files *files,
                         struct rp_error *err)
{
    size_t total = 0;
    *files = (struct rp_domain_state_files){0};
    if ((!places->nvram || !add_file(places->nvram, false, "", &total, files, err)) &&
        (!places->tpm || !read_tpm(places->tpm, &total, files, err)))
        return 0;
    rp_domain_state_clear(files);
    return -1;
}

// ---- writing --------------------------------------------------------------------------------------------------------

struct owner {
    uid_t uid;
    gid_t gid;
};

// "swtpm_user = "tss"" of qemu.conf. What it says twice counts the last time, as there.
static bool configured(const char *conf, const char *key, char value[64])
{
    FILE *file = fopen(conf, "re");
    char line[512], name[64], text[64];
    bool found = false;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, " %63[a-z_] = \"%63[^\"]\"", name, text) == 2 && !strcmp(name, key)) {
            snprintf(value, 64, "%s", text);
            found = true;
        }
    if (file)
        fclose(file);
    return found;
}

// Whose swtpm's files are: whose its folder is, or whom libvirt runs it as.
static struct owner owner_of(const char *folder, const char *conf)
{
    struct stat st;
    char user[64] = "tss", group[64] = "tss"; // libvirt's own defaults
    if (!stat(folder, &st))
        return (struct owner){st.st_uid, st.st_gid};
    configured(conf, "swtpm_user", user);
    configured(conf, "swtpm_group", group);
    char room[2][4096]; // refpoint-hostd has threads
    struct passwd passwd, *found = NULL;
    struct group entry, *of = NULL;
    getpwnam_r(user, &passwd, room[0], sizeof room[0], &found);
    getgrnam_r(group, &entry, room[1], sizeof room[1], &of);
    return (struct owner){found ? found->pw_uid : geteuid(), of ? of->gr_gid : getegid()};
}

// Whole or not at all. Who is not root writes as himself, and libvirt then has him run the VM, too.
static int write_file(const char *path, const struct rp_buf *content, const struct owner *owner, struct rp_error *err)
{
    RP_AUTO_FREE char *fresh = rp_xasprintf("%s.refpoint-new", path);
    unlink(fresh);
    RP_AUTO_FD int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return rp_fail_sys(err, errno, "%s: create", fresh);
    size_t done = 0;
    for (ssize_t n = 0; n >= 0 && done < content->size; done += n > 0 ? (size_t)n : 0)
        n = write(fd, content->data + done, content->size - done);
    if (done < content->size || (!geteuid() && fchown(fd, owner->uid, owner->gid)) || fsync(fd) ||
        rename(fresh, path)) {
        int sys = errno;
        unlink(fresh);
        return rp_fail_sys(err, sys, "%s: write", path);
    }
    return rp_fs_sync_parent(rp_fs_posix(), path, err);
}

static int write_nvram(const char *path, const struct rp_buf *content, struct rp_error *err)
{
    struct stat st;
    struct owner owner = {geteuid(), getegid()}; // libvirt gives it to QEMU when it starts
    if (!stat(path, &st))
        owner = (struct owner){st.st_uid, st.st_gid};
    return write_file(path, content, &owner, err);
}

static bool is_among(const struct rp_domain_state_files *files, const char *name)
{
    for (size_t i = 0; i < files->count; i++)
        if (files->items[i].tpm && !strcmp(files->items[i].name, name))
            return true;
    return false;
}

// A state of another moment beside it would be taken for newer (swtpm's volatile state).
static int remove_others(const char *folder, const struct rp_domain_state_files *files, struct rp_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return rp_fail_sys(err, errno, "%s", folder);
    int rc = 0;
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        RP_AUTO_FREE char *path = rp_path_join(folder, entry->d_name);
        if (*entry->d_name != '.' && is_file(dirfd(dir), entry) && !is_among(files, entry->d_name) && unlink(path))
            rc = rp_fail_sys(err, errno, "%s: delete", path);
    }
    closedir(dir);
    return rc;
}

// As libvirt makes it: others may pass through to the innermost, which is swtpm's alone.
static int make_folder(const char *folder, const struct owner *owner, struct rp_error *err)
{
    RP_AUTO_FREE char *of_domain = rp_path_directory(folder), *of_all = rp_path_directory(of_domain);
    if ((mkdir(of_all, 0711) && errno != EEXIST) || (mkdir(of_domain, 0711) && errno != EEXIST))
        return rp_fail_sys(err, errno, "%s", of_domain);
    if (mkdir(folder, 0700))
        return errno == EEXIST ? 0 : rp_fail_sys(err, errno, "%s", folder);
    return geteuid() || !lchown(folder, owner->uid, owner->gid) ? 0 : rp_fail_sys(err, errno, "%s", folder);
}

int rp_domain_state_write(const struct rp_domain_state_places *places, const struct rp_domain_state_files *files,
                          unsigned *left_out, struct rp_error *err)
{
    bool tpm = false;
    *left_out = 0;
    struct owner owner = {0};
    for (size_t i = 0; i < files->count; i++) {
        const struct rp_domain_state_file *file = &files->items[i];
        if (file->tpm ? !places->tpm : !places->nvram) {
            ++*left_out;
            continue;
        }
        if (!file->tpm) {
            if (write_nvram(places->nvram, &file->content, err))
                return -1;
            continue;
        }
        if (!tpm) {
            owner = owner_of(places->tpm, places->conf);
            if (make_folder(places->tpm, &owner, err))
                return -1;
            tpm = true;
        }
        RP_AUTO_FREE char *path = rp_path_join(places->tpm, file->name);
        if (write_file(path, &file->content, &owner, err))
            return -1;
    }
    return tpm ? remove_others(places->tpm, files, err) : 0;
}
