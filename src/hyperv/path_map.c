#include "hyperv/path_map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <wctype.h>

#include "base/buf.h"
#include "base/utf16.h"

#define MAX_PARTS 256
#define MAX_PATH_BYTES 32768u // more than any host has: Windows knows 32,767 characters

// A host's path, taken apart. Of a Windows path the first part is its root: "D:", "\\server\share" or "\\?\Volume{…}".
struct parsed {
    bool windows;
    char *text; // what the parts point into
    const char *parts[MAX_PARTS];
    size_t count;
};

static void parsed_clear(struct parsed *p) { free(p->text); }

// ---- names ----------------------------------------------------------------------------------------------------------

static locale_t utf8_locale;
static void make_locale(void) { utf8_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }

static uint32_t fold(uint32_t code)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_locale); // whatever locale the program runs in
    if (utf8_locale)
        return (uint32_t)towupper_l((wint_t)code, utf8_locale);
    return code >= 'a' && code <= 'z' ? code - 32 : code;
}

static bool same_name(const char *a, const char *b, bool windows)
{
    if (!windows)
        return !strcmp(a, b);
    while (*a && *b) {
        uint32_t x = (uint8_t)*a, y = (uint8_t)*b;
        int m = rp_utf8_decode(a, strlen(a), &x), n = rp_utf8_decode(b, strlen(b), &y);
        if ((m > 0) != (n > 0) || (m > 0 ? fold(x) != fold(y) : *a != *b))
            return false;
        a += m > 0 ? m : 1;
        b += n > 0 ? n : 1;
    }
    return *a == *b;
}

// A name that Windows takes as it stands: no stream, no wildcard, nothing that it would strip (".. " is ".." to it).
static bool is_windows_name(const char *name)
{
    size_t length = strlen(name);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || strchr("<>:\"|?*/\\", *p))
            return false;
    return length && name[length - 1] != '.' && name[length - 1] != ' ';
}

static bool is_windows_path(const char *path) { return path[0] != '/' || path[1] == '/'; }

// ---- a host's path --------------------------------------------------------------------------------------------------

static bool is_drive(const char *text)
{
    return ((text[0] | 32) >= 'a' && (text[0] | 32) <= 'z') && text[1] == ':' && (text[2] == '\\' || !text[2]);
}

// The end of the next `count` parts, all of them there; NULL otherwise.
static char *skip_parts(char *text, unsigned count)
{
    for (char *at = text; count--; at++) {
        size_t length = strcspn(at, "\\");
        if (!length || !strncmp(at, ".", length) || !strncmp(at, "..", length) || !strncmp(at, "?", length))
            return NULL;
        at += length;
        if (!count)
            return at;
        if (!*at)
            return NULL;
    }
    return NULL;
}

// Finds the root of a Windows path, which becomes the first part. Returns what follows it, or NULL.
static char *parse_root(struct parsed *p)
{
    char *text = p->text, *end;
    for (char *c = text; *c; c++)
        if (*c == '/')
            *c = '\\';
    if (!strncmp(text, "\\\\?\\", 4) || !strncmp(text, "\\\\.\\", 4)) {
        if (!strncasecmp(text + 4, "UNC\\", 4)) {
            text += 6;
            *text = '\\'; // "\\?\UNC\server" is "\\server"
        } else if (!strncasecmp(text + 4, "Volume{", 7)) {
            text[2] = '?';
            end = text + 4 + strcspn(text + 4, "\\");
            goto found;
        } else {
            text += 4;
        }
    }
    if (is_drive(text))
        end = text + 2;
    else if (strncmp(text, "\\\\", 2) || !(end = skip_parts(text + 2, 2)))
        return NULL;
found:
    p->parts[p->count++] = text;
    if (!*end)
        return end;
    *end = 0;
    return end + 1;
}

static int parse(const char *path, struct parsed *p, struct rp_error *err)
{
    *p = (struct parsed){.windows = is_windows_path(path)};
    if (strlen(path) >= MAX_PATH_BYTES)
        return rp_fail(err, RP_ERR_INVALID, "%.64s…: the path is too long", path);
    p->text = rp_xstrdup(path);
    char *at = p->windows ? parse_root(p) : p->text;
    if (!at)
        return rp_fail(err, RP_ERR_INVALID,
                       "\"%.256s\" is not an absolute path of a host (D:\\VMs, \\\\server\\share, /srv/vms)", path);
    char *saved = NULL;
    for (char *part = strtok_r(at, p->windows ? "\\" : "/", &saved); part;
         part = strtok_r(NULL, p->windows ? "\\" : "/", &saved)) {
        if (!strcmp(part, "."))
            continue;
        if (!strcmp(part, ".."))
            return rp_fail(err, RP_ERR_INVALID, "\"%.256s\": a path of a host is taken as it stands, without \"..\"",
                           path);
        if (p->windows && !is_windows_name(part))
            return rp_fail(err, RP_ERR_INVALID, "\"%.256s\": \"%.64s\" is no name of a file", path, part);
        if (p->count == MAX_PARTS)
            return rp_fail(err, RP_ERR_INVALID, "\"%.256s\": more than %d folders deep", path, MAX_PARTS);
        p->parts[p->count++] = part;
    }
    return 0;
}

static char *rejoin(const struct parsed *p)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    for (size_t i = 0; i < p->count; i++)
        rp_buf_printf(&text, "%s%s", !p->windows ? "/" : i ? "\\" : "", p->parts[i]);
    return rp_xstrdup(text.size ? rp_buf_text(&text) : "/");
}

// The mapping of the longest folder that `p` is in; *rest: the first part below it. NULL: none.
static const struct rp_path_mapping *find(const struct rp_path_map *map, const struct parsed *p, size_t *rest)
{
    const struct rp_path_mapping *found = NULL;
    for (size_t i = 0; map && i < map->count; i++) {
        RP_CLEANUP(parsed_clear) struct parsed folder;
        if (parse(map->items[i].host, &folder, NULL) || folder.windows != p->windows || folder.count > p->count ||
            (found && folder.count <= *rest))
            continue;
        size_t same = 0;
        while (same < folder.count && same_name(folder.parts[same], p->parts[same], p->windows))
            same++;
        if (same < folder.count)
            continue;
        found = &map->items[i];
        *rest = folder.count;
    }
    return found;
}

// ---- the map --------------------------------------------------------------------------------------------------------

int rp_path_map_add(struct rp_path_map *map, const char *host, const char *local, struct rp_error *err)
{
    RP_CLEANUP(parsed_clear) struct parsed folder;
    size_t length = strlen(local), rest = 0;
    if (parse(host, &folder, err))
        return -1;
    if (folder.count == MAX_PARTS || strlen(host) + 2 >= MAX_PATH_BYTES) // no file in it could ever be named
        return rp_fail(err, RP_ERR_INVALID, "\"%.256s\": more than %d folders deep, or too long", host, MAX_PARTS - 1);
    if (*local != '/' || length >= PATH_MAX)
        return rp_fail(err, RP_ERR_INVALID, "\"%.256s\" is not an absolute path of this machine", local);
    const struct rp_path_mapping *same = find(map, &folder, &rest);
    if (same && rest == folder.count)
        return rp_fail(err, RP_ERR_INVALID, "%s is mapped twice: to %s and to %s", same->host, same->local, local);
    while (length > 1 && local[length - 1] == '/')
        length--;
    map->items = rp_xrealloc(map->items, (map->count + 1) * sizeof *map->items);
    map->items[map->count++] = (struct rp_path_mapping){rejoin(&folder), rp_xasprintf("%.*s", (int)length, local)};
    return 0;
}

static char *trimmed(const char *text, size_t length)
{
    while (length && (*text == ' ' || *text == '\t')) {
        text++;
        length--;
    }
    while (length && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    return rp_xasprintf("%.*s", (int)length, text);
}

int rp_path_map_add_line(struct rp_path_map *map, const char *line, struct rp_error *err)
{
    size_t length = strlen(line);
    for (const char *equals = line; length < MAX_PATH_BYTES && (equals = strchr(equals, '=')); equals++) {
        const char *local = equals + 1 + strspn(equals + 1, " \t");
        if (*local != '/') // a name may have an equals sign
            continue;
        RP_AUTO_FREE char *host = trimmed(line, (size_t)(equals - line)), *here = trimmed(local, strlen(local));
        return rp_path_map_add(map, host, here, err);
    }
    return rp_fail(err, RP_ERR_INVALID,
                   "\"%.256s\" does not say which folder of the host is which one here (D:\\VMs = /mnt/vms)", line);
}

void rp_path_map_clear(struct rp_path_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->items[i].host);
        free(map->items[i].local);
    }
    free(map->items);
    *map = (struct rp_path_map){0};
}

struct rp_path_map *rp_path_map_copy(const struct rp_path_map *map)
{
    if (!map)
        return NULL;
    struct rp_path_map *copy = rp_xcalloc(1, sizeof *copy);
    copy->items = rp_xcalloc(map->count + 1, sizeof *copy->items);
    for (; copy->count < map->count; copy->count++)
        copy->items[copy->count] = (struct rp_path_mapping){rp_xstrdup(map->items[copy->count].host),
                                                            rp_xstrdup(map->items[copy->count].local)};
    return copy;
}

void rp_path_map_free(struct rp_path_map *map)
{
    if (!map)
        return;
    rp_path_map_clear(map);
    free(map);
}

bool rp_path_map_knows(const struct rp_path_map *map, const char *host_path)
{
    RP_CLEANUP(parsed_clear) struct parsed p;
    size_t rest = 0;
    return !parse(host_path, &p, NULL) && find(map, &p, &rest);
}

// ---- from the host's names to ours ----------------------------------------------------------------------------------

static bool is_inside(const char *root, const char *path)
{
    size_t length = strcmp(root, "/") ? strlen(root) : 0;
    return !strncmp(root, path, length) && (!path[length] || path[length] == '/');
}

static char *join(const char *folder, const char *name)
{
    return rp_xasprintf("%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name);
}

// The entry of `folder` that Windows takes for `name`. NULL: none, with err set when there are several.
static char *find_entry(const char *folder, const char *name, struct rp_error *err)
{
    char *found = NULL;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!same_name(entry->d_name, name, true))
            continue;
        if (found) {
            rp_fail(err, RP_ERR_INVALID, "%s: \"%.64s\" and \"%.64s\" differ only in case, which of them is meant?",
                    folder, found, entry->d_name);
            free(found);
            found = NULL;
            break;
        }
        found = rp_xstrdup(entry->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

// One step down. 1: `*at` is there; 0: it is not; -1: it must not be gone to.
static int step(const char *root, char **at, const char *name, bool windows, struct rp_error *err)
{
    struct rp_error why = {0};
    struct stat st;
    char *next = join(*at, name);
    bool there = !lstat(next, &st);
    if (!there && windows) {
        RP_AUTO_FREE char *entry = find_entry(*at, name, &why);
        if (entry) {
            free(next);
            next = join(*at, entry);
            there = !lstat(next, &st);
        }
    }
    if (there && S_ISLNK(st.st_mode)) {
        char *target = realpath(next, NULL);
        if (!target || !is_inside(root, target))
            rp_fail(&why, RP_ERR_PERMISSION, "%s: this link leads out of %s", next, root);
        if (target) {
            free(next);
            next = target;
        }
    }
    free(*at);
    *at = next;
    if (why.code)
        return rp_fail_as(err, &why);
    return there;
}

char *rp_path_map_to_local(const struct rp_path_map *map, const char *host_path, struct rp_error *err)
{
    RP_CLEANUP(parsed_clear) struct parsed p;
    size_t part = 0;
    if (parse(host_path, &p, err))
        return NULL;
    const struct rp_path_mapping *mapping = find(map, &p, &part);
    if (!mapping) {
        rp_fail(err, RP_ERR_NOT_FOUND, "%s is in none of the host's folders that are mapped to this machine",
                host_path);
        return NULL;
    }
    RP_AUTO_FREE char *root = realpath(mapping->local, NULL);
    if (!root) {
        rp_fail_sys(err, errno, "%s, where the host's %s should be", mapping->local, mapping->host);
        return NULL;
    }
    char *at = rp_xstrdup(root);
    for (int there = 1; part < p.count; part++) {
        if (there)
            there = step(root, &at, p.parts[part], p.windows, err);
        else { // below what is not there yet there are no links
            char *next = join(at, p.parts[part]);
            free(at);
            at = next;
        }
        if (there < 0) {
            free(at);
            rp_context(err, "%s", host_path);
            return NULL;
        }
    }
    return at;
}

// ---- and back -------------------------------------------------------------------------------------------------------

// The path with all links followed; its last part need not be there.
static char *follow(const char *path, struct rp_error *err)
{
    const char *slash = strrchr(path, '/');
    char *real = *path == '/' ? realpath(path, NULL) : NULL;
    if (real || *path != '/' || errno != ENOENT || !slash[1] || !strcmp(slash, "/.") || !strcmp(slash, "/..")) {
        if (!real)
            rp_fail_sys(err, *path == '/' ? errno : EINVAL, "%s", path);
        return real;
    }
    struct stat st;
    RP_AUTO_FREE char *folder = rp_xasprintf("%.*s", slash == path ? 1 : (int)(slash - path), path);
    RP_AUTO_FREE char *real_folder = realpath(folder, NULL);
    if (real_folder && lstat(path, &st) && errno == ENOENT)
        return join(real_folder, slash + 1);
    if (real_folder)
        rp_fail(err, RP_ERR_PERMISSION, "%s: this link leads nowhere", path);
    else
        rp_fail_sys(err, errno, "%s", folder);
    return NULL;
}

// The mapping in whose folder `real` is: the innermost. `*root`, malloc'ed, gets that folder.
static const struct rp_path_mapping *find_local(const struct rp_path_map *map, const char *real, char **root)
{
    const struct rp_path_mapping *found = NULL;
    *root = NULL;
    for (size_t i = 0; map && i < map->count; i++) {
        char *folder = realpath(map->items[i].local, NULL);
        if (folder && is_inside(folder, real) && (!*root || strlen(folder) > strlen(*root))) {
            char *longer = folder;
            folder = *root;
            *root = longer;
            found = &map->items[i];
        }
        free(folder);
    }
    return found;
}

int rp_path_map_open(const struct rp_path_map *map, const char *local_path, struct rp_error *err)
{
    RP_AUTO_FREE char *real = follow(local_path, err), *root = NULL;
    if (!real)
        return -1;
    if (!find_local(map, real, &root))
        return rp_fail(err, RP_ERR_PERMISSION, "%s is in none of the folders that are mapped to the host's",
                       local_path);
    RP_AUTO_FD int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return rp_fail_sys(err, errno, "%s", root);
    // Whoever can write to the share may put a link in the way after it was looked at: the kernel looks again.
    const char *inside = real + (strcmp(root, "/") ? strlen(root) : 0);
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, folder, inside + strspn(inside, "/"), &how, sizeof how);
    if (fd < 0 && errno == ENOSYS)
        fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return rp_fail_sys(err, errno == EXDEV || errno == ELOOP ? EACCES : errno, "%s", local_path);
    return fd;
}

char *rp_path_map_to_host(const struct rp_path_map *map, const char *local_path, struct rp_error *err)
{
    RP_AUTO_FREE char *real = follow(local_path, err), *root = NULL;
    if (!real)
        return NULL;
    const struct rp_path_mapping *mapping = find_local(map, real, &root);
    if (!mapping) {
        rp_fail(err, RP_ERR_NOT_FOUND, "%s is in none of the folders that are mapped to the host's", local_path);
        return NULL;
    }
    char *host = rp_xstrdup(mapping->host), *saved = NULL;
    for (char *part = strtok_r(real + (strcmp(root, "/") ? strlen(root) : 0), "/", &saved); part;
         part = strtok_r(NULL, "/", &saved)) {
        if (is_windows_path(mapping->host) && !is_windows_name(part)) {
            rp_fail(err, RP_ERR_INVALID, "%s: \"%.64s\" cannot be a name on Windows", local_path, part);
            free(host);
            return NULL;
        }
        char *longer = rp_path_map_join(host, part);
        free(host);
        host = longer;
    }
    return host;
}

// ---- names ----------------------------------------------------------------------------------------------------------

char *rp_path_map_join(const char *host_folder, const char *name)
{
    bool windows = is_windows_path(host_folder);
    size_t length = strlen(host_folder);
    bool ends = length && (host_folder[length - 1] == '/' || (windows && host_folder[length - 1] == '\\'));
    return rp_xasprintf("%s%s%s", host_folder, ends ? "" : windows ? "\\" : "/", name);
}

const char *rp_path_map_name(const char *host_path)
{
    const char *name = host_path;
    for (const char *p = host_path; *p; p++)
        if (*p == '/' || (*p == '\\' && is_windows_path(host_path)))
            name = p + 1;
    return name;
}
