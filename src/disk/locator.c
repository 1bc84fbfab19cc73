#include "disk/locator.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/num.h"
#include "base/utf16.h"

static const struct rp_guid locator_type = RP_GUID(0xB04AEFB7, 0xD19E, 0x4A81, 0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44,
                                                   0x59, 0x13);

enum { MAX_PAIRS = 64, PAIR_SIZE = 12, FIXED_SIZE = 20 };

void rp_locator_clear(struct rp_locator *locator)
{
    for (size_t i = 0; i < locator->count; i++) {
        free(locator->pairs[i].key);
        free(locator->pairs[i].value);
    }
    free(locator->pairs);
    *locator = (struct rp_locator){0};
}

static char *decode_text(const uint8_t *item, size_t size, uint32_t offset, uint16_t length, struct rp_error *err)
{
    if (!rp_range_ok(offset, length, size)) {
        rp_fail(err, RP_ERR_CORRUPT, "parent locator: text of %u bytes at %u of %zu", length, offset, size);
        return NULL;
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (rp_utf16_to_utf8(item + offset, length, &text, err))
        return NULL;
    if (memchr(text.data ? (const char *)text.data : "", 0, text.size)) {
        rp_fail(err, RP_ERR_CORRUPT, "parent locator: NUL inside a text");
        return NULL;
    }
    return rp_xstrdup(rp_buf_text(&text));
}

static void push(struct rp_locator *locator, char *key, char *value)
{
    locator->pairs = rp_xrealloc(locator->pairs, (locator->count + 1) * sizeof *locator->pairs);
    locator->pairs[locator->count++] = (struct rp_locator_pair){key, value};
}

int rp_locator_decode(const uint8_t *item, size_t size, struct rp_locator *locator, struct rp_error *err)
{
    if (size < FIXED_SIZE || memcmp(item, locator_type.bytes, 16))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "parent locator: not of the VHDX type");
    unsigned count = rp_get_le16(item + 18);
    if (count > MAX_PAIRS || FIXED_SIZE + (size_t)count * PAIR_SIZE > size)
        return rp_fail(err, RP_ERR_CORRUPT, "parent locator: %u entries in %zu bytes", count, size);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *pair = item + FIXED_SIZE + i * PAIR_SIZE;
        char *key = decode_text(item, size, rp_get_le32(pair), rp_get_le16(pair + 8), err);
        char *value = key ? decode_text(item, size, rp_get_le32(pair + 4), rp_get_le16(pair + 10), err) : NULL;
        if (!value || rp_locator_get(locator, key)) {
            rp_fail(err, RP_ERR_CORRUPT, "parent locator: key %s is there twice", key ? key : "?");
            free(key);
            free(value);
            return -1;
        }
        push(locator, key, value);
    }
    return 0;
}

int rp_locator_encode(const struct rp_locator *locator, struct rp_buf *out, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf texts = {0};
    size_t start = FIXED_SIZE + locator->count * PAIR_SIZE;
    rp_buf_append(out, locator_type.bytes, 16);
    rp_buf_append_le16(out, 0);
    rp_buf_append_le16(out, (uint16_t)locator->count);
    for (size_t i = 0; i < locator->count; i++) {
        size_t key = texts.size;
        if (rp_utf16_append(&texts, locator->pairs[i].key, err))
            return -1;
        size_t value = texts.size;
        if (rp_utf16_append(&texts, locator->pairs[i].value, err))
            return -1;
        if (value - key > UINT16_MAX || texts.size - value > UINT16_MAX)
            return rp_fail(err, RP_ERR_INVALID, "parent locator: %s is too long", locator->pairs[i].key);
        rp_buf_append_le32(out, (uint32_t)(start + key));
        rp_buf_append_le32(out, (uint32_t)(start + value));
        rp_buf_append_le16(out, (uint16_t)(value - key));
        rp_buf_append_le16(out, (uint16_t)(texts.size - value));
    }
    rp_buf_append(out, texts.data, texts.size);
    return 0;
}

static struct rp_locator_pair *find(const struct rp_locator *locator, const char *key)
{
    for (size_t i = 0; i < locator->count; i++)
        if (!strcmp(locator->pairs[i].key, key))
            return &locator->pairs[i];
    return NULL;
}

const char *rp_locator_get(const struct rp_locator *locator, const char *key)
{
    struct rp_locator_pair *pair = find(locator, key);
    return pair ? pair->value : NULL;
}

void rp_locator_set(struct rp_locator *locator, const char *key, const char *value)
{
    struct rp_locator_pair *pair = find(locator, key);
    if (pair && value) {
        free(pair->value);
        pair->value = rp_xstrdup(value);
    } else if (pair) {
        free(pair->key);
        free(pair->value);
        size_t after = (size_t)(locator->pairs + locator->count - pair) - 1;
        memmove(pair, pair + 1, after * sizeof *pair);
        locator->count--;
    } else if (value) {
        push(locator, rp_xstrdup(key), rp_xstrdup(value));
    }
}

int rp_locator_get_guid(const struct rp_locator *locator, const char *key, struct rp_guid *guid, struct rp_error *err)
{
    const char *text = rp_locator_get(locator, key);
    *guid = (struct rp_guid){0};
    if (text && rp_guid_parse(text, guid, NULL))
        return rp_fail(err, RP_ERR_CORRUPT, "parent locator: %s is no GUID", key);
    return 0;
}

void rp_locator_set_guid(struct rp_locator *locator, const char *key, const struct rp_guid *guid)
{
    char text[RP_GUID_TEXT], braced[RP_GUID_TEXT + 2] = "{";
    strcat(strcat(braced, rp_guid_format(guid, text)), "}");
    rp_locator_set(locator, key, rp_guid_is_zero(guid) ? NULL : braced);
}

// The path made absolute if `like` is, so that both can be compared part by part.
static char *comparable(const char *path, const char *like)
{
    char here[4096];
    if (path[0] == '/' || like[0] != '/' || !getcwd(here, sizeof here))
        return rp_xstrdup(path);
    return rp_path_join(here, path);
}

static const char *skip_separators(const char *path)
{
    for (;;) {
        if (*path == '/')
            path++;
        else if (path[0] == '.' && path[1] == '/')
            path += 2;
        else
            return path;
    }
}

// "/a/b/c.vhdx" seen from "/a/d/e.vhdx" is "..\b\c.vhdx"; from the same folder ".\c.vhdx".
static int relative_path(const char *child, const char *parent, struct rp_buf *out, struct rp_error *err)
{
    RP_AUTO_FREE char *from = comparable(child, parent);
    RP_AUTO_FREE char *to = comparable(parent, child);
    const char *f = skip_separators(from), *t = skip_separators(to);
    for (;;) { // the folders that both have in common
        const char *f_end = strchr(f, '/'), *t_end = strchr(t, '/');
        if (!f_end || !t_end || f_end - f != t_end - t || memcmp(f, t, (size_t)(f_end - f)))
            break;
        f = skip_separators(f_end);
        t = skip_separators(t_end);
    }
    unsigned ups = 0;
    for (const char *slash; (slash = strchr(f, '/')); f = skip_separators(slash)) {
        if (!strncmp(f, "../", 3))
            return rp_fail(err, RP_ERR_INVALID, "%s: no relative path leads from here to %s", child, parent);
        rp_buf_printf(out, "..\\");
        ups++;
    }
    if (!ups)
        rp_buf_printf(out, ".\\");
    for (; *t; t++) {
        if (*t == '\\')
            return rp_fail(err, RP_ERR_INVALID, "%s: a parent's path cannot have a backslash", parent);
        rp_buf_append_u8(out, *t == '/' ? '\\' : (uint8_t)*t);
    }
    return 0;
}

int rp_locator_set_paths(struct rp_locator *locator, const char *child, const char *parent, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf relative = {0};
    if (relative_path(child, parent, &relative, err))
        return -1;
    rp_locator_set(locator, "relative_path", rp_buf_text(&relative));
    rp_locator_set(locator, "volume_path", NULL);
    rp_locator_set(locator, "absolute_win32_path", NULL);
    // For a folder on the way that is a link, and for libvhdi, which finds the parent's name only here.
    RP_AUTO_FREE char *absolute = comparable(parent, "/");
    for (char *p = absolute; *p; p++)
        if (*p == '/')
            *p = '\\';
    rp_locator_set(locator, "absolute_win32_path", absolute);
    return 0;
}

// A Windows path in this machine's terms, or NULL when it names a drive or volume that does not exist here.
static char *to_posix(const char *windows, bool absolute)
{
    if (!strncmp(windows, "\\\\?\\", 4))
        windows += 3;
    if (!*windows || strchr(windows, ':') || strstr(windows, "Volume{"))
        return NULL;
    char *path = rp_xstrdup(windows);
    for (char *p = path; *p; p++)
        if (*p == '\\')
            *p = '/';
    if ((path[0] == '/') == absolute && strncmp(path, "//", 2))
        return path;
    free(path);
    return NULL;
}

// Takes "folder/.." out of a path, the reverse of how relative_path found it: by names, not by links.
static void collapse(char *path)
{
    for (char *up; (up = strstr(path, "/../"));) {
        char *start = up;
        while (start > path && start[-1] != '/')
            start--;
        if (start == up || !strncmp(start, "../", 3))
            return; // nothing to take out
        memmove(start, up + 4, strlen(up + 4) + 1);
    }
}

char *rp_locator_resolve(const struct rp_locator *locator, struct rp_fs *fs, const char *child, struct rp_error *err)
{
    static const char *const keys[] = {"relative_path", "volume_path", "absolute_win32_path"};
    RP_AUTO_FREE char *directory = rp_path_directory(child);
    char *first = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = rp_locator_get(locator, keys[i]);
        RP_AUTO_FREE char *posix = value ? to_posix(value, i > 0) : NULL;
        if (!posix)
            continue;
        const char *name = posix;
        while (i == 0 && !strncmp(name, "./", 2))
            name += 2;
        // "." as folder stands for a bare name: stores in memory know no folders
        char *path = i > 0 || !strcmp(directory, ".") ? rp_xstrdup(name) : rp_path_join(directory, name);
        collapse(path);
        bool exists = false;
        if (!rp_fs_exists(fs, path, &exists, NULL) && exists) {
            free(first);
            return path;
        }
        if (first)
            free(path);
        else
            first = path;
    }
    // A path of another machine, as in an export or on a mounted share: the parent may lie beside the child, and is known by
    // its DataWriteGuid anyway.
    for (size_t i = sizeof keys / sizeof *keys; !first && i-- > 0;) {
        const char *value = rp_locator_get(locator, keys[i]), *slash = value ? strrchr(value, '\\') : NULL;
        if (slash && slash[1] && !strchr(slash + 1, '/') && strcmp(slash + 1, ".") && strcmp(slash + 1, ".."))
            first = strcmp(directory, ".") ? rp_path_join(directory, slash + 1) : rp_xstrdup(slash + 1);
    }
    if (!first)
        rp_fail(err, RP_ERR_CORRUPT, "%s: the parent locator has no path that means something here", child);
    return first;
}
