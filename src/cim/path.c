#include "cim/path.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/name.h"

#define MAX_KEYS 64
#define MAX_NESTED 4 // paths in keys of paths that are compared as such

struct rp_cim_path *rp_cim_path_new(const char *name_space, const char *class_name)
{
    struct rp_cim_path *path = rp_xcalloc(1, sizeof *path);
    path->name_space = name_space ? rp_xstrdup(name_space) : NULL;
    path->class_name = rp_xstrdup(class_name);
    return path;
}

void rp_cim_path_free(struct rp_cim_path *path)
{
    if (!path)
        return;
    for (size_t i = 0; i < path->key_count; i++) {
        free(path->keys[i].name);
        free(path->keys[i].value);
    }
    free(path->keys);
    free(path->host);
    free(path->name_space);
    free(path->class_name);
    free(path);
}

struct rp_cim_path *rp_cim_path_copy(const struct rp_cim_path *path)
{
    struct rp_cim_path *copy = rp_cim_path_new(path->name_space, path->class_name);
    copy->host = path->host ? rp_xstrdup(path->host) : NULL;
    copy->singleton = path->singleton;
    copy->keys = rp_xmalloc(path->key_count * sizeof *copy->keys);
    for (; copy->key_count < path->key_count; copy->key_count++) {
        const struct rp_cim_key *key = &path->keys[copy->key_count];
        copy->keys[copy->key_count] = (struct rp_cim_key){rp_xstrdup(key->name), rp_xstrdup(key->value)};
    }
    return copy;
}

static struct rp_cim_key *find_key(const struct rp_cim_path *path, const char *name)
{
    for (size_t i = 0; i < path->key_count; i++)
        if (!strcasecmp(path->keys[i].name, name))
            return &path->keys[i];
    return NULL;
}

void rp_cim_path_set(struct rp_cim_path *path, const char *key, const char *value)
{
    struct rp_cim_key *old = find_key(path, key);
    if (old) {
        char *copy = rp_xstrdup(value);
        free(old->value);
        old->value = copy;
        return;
    }
    path->keys = rp_xrealloc(path->keys, (path->key_count + 1) * sizeof *path->keys);
    path->keys[path->key_count++] = (struct rp_cim_key){rp_xstrdup(key), rp_xstrdup(value)};
}

const char *rp_cim_path_get(const struct rp_cim_path *path, const char *key)
{
    const struct rp_cim_key *found = find_key(path, key);
    return found ? found->value : NULL;
}

static bool is_slash(char c)
{
    return c == '\\' || c == '/';
}

static void skip_blanks(const char **p)
{
    *p += strspn(*p, " \t\r\n");
}

static char *cut(const char *from, const char *to)
{
    char *text = rp_xmalloc((size_t)(to - from) + 1);
    memcpy(text, from, (size_t)(to - from));
    text[to - from] = 0;
    return text;
}

static char *read_name(const char **p)
{
    const char *start = *p;
    if (*start >= '0' && *start <= '9')
        return NULL;
    while (rp_cim_in_name(**p))
        (*p)++;
    return *p == start ? NULL : cut(start, *p);
}

// \\HOST\root\cimv2: or root\cimv2: or nothing of both.
static bool read_place(const char **p, struct rp_cim_path *path)
{
    bool hosted = is_slash((*p)[0]) && is_slash((*p)[1]);
    const char *start = *p + (hosted ? 2 : is_slash(**p));
    if (hosted) {
        size_t length = strcspn(start, "\\/");
        if (!length || !start[length] || strcspn(start, RP_CIM_HOST_END) < length)
            return false;
        path->host = cut(start, start + length);
        start += length + 1;
    }
    const char *colon = start + strcspn(start, RP_CIM_NAMESPACE_END);
    if (*colon != ':')
        return !hosted && start == *p;
    const char *end = colon;
    while (end > start && is_slash(end[-1]))
        end--;
    if (end == start)
        return false;
    path->name_space = cut(start, end);
    for (char *c = path->name_space; *c; c++)
        *c = *c == '\\' ? '/' : *c;
    *p = colon + 1;
    return true;
}

static char *read_value(const char **p)
{
    struct rp_buf value = {0};
    char quote = **p;
    if (quote != '"' && quote != '\'') {
        const char *start = *p;
        *p += strcspn(start, ", \t\r\n\"'=");
        return *p == start ? NULL : cut(start, *p);
    }
    for ((*p)++; **p && **p != quote; (*p)++) {
        if (**p == '\\' && (*p)[1] && strchr("\\\"'", (*p)[1]))
            (*p)++;
        rp_buf_append_u8(&value, (uint8_t)**p);
    }
    if (!**p) {
        rp_buf_clear(&value);
        return NULL;
    }
    (*p)++;
    rp_buf_text(&value);
    return (char *)value.data;
}

static const char *read_keys(const char **p, struct rp_cim_path *path)
{
    do {
        skip_blanks(p);
        RP_AUTO_FREE char *name = read_name(p);
        if (!name)
            return "the name of a key";
        skip_blanks(p);
        if (*(*p)++ != '=')
            return (*p)--, "\"=\"";
        skip_blanks(p);
        RP_AUTO_FREE char *value = read_value(p);
        if (!value)
            return "the value of a key";
        if (find_key(path, name))
            return "each key once";
        if (path->key_count == MAX_KEYS)
            return "no more keys";
        rp_cim_path_set(path, name, value);
        skip_blanks(p);
    } while (**p == ',' && (*p)++);
    return **p ? "\",\" or the end" : NULL;
}

static const char *read_path(const char **p, struct rp_cim_path *path)
{
    skip_blanks(p);
    if (!read_place(p, path))
        return "\\\\HOST\\namespace:";
    skip_blanks(p);
    if (!(path->class_name = read_name(p)))
        return "the name of a class";
    skip_blanks(p);
    if (**p == '.')
        return (*p)++, read_keys(p, path);
    if (**p == '=') {
        (*p)++;
        skip_blanks(p);
        if (**p != '@')
            return "\"@\"";
        (*p)++;
        path->singleton = true;
        skip_blanks(p);
    }
    return **p ? "\".\" or \"=@\" or the end" : NULL;
}

struct rp_cim_path *rp_cim_path_parse(const char *text, struct rp_error *err)
{
    struct rp_cim_path *path = rp_xcalloc(1, sizeof *path);
    const char *p = text, *expected = read_path(&p, path);
    if (!expected)
        return path;
    rp_fail(err, RP_ERR_INVALID, "object path \"%.200s\": at character %zu: expected %s", text, (size_t)(p - text) + 1,
            expected);
    rp_cim_path_free(path);
    return NULL;
}

void rp_cim_path_format(const struct rp_cim_path *path, struct rp_buf *out)
{
    if (path->host && path->name_space) {
        rp_buf_printf(out, "\\\\%s\\", path->host);
        for (const char *c = path->name_space; *c; c++)
            rp_buf_append_u8(out, *c == '/' ? '\\' : (uint8_t)*c);
        rp_buf_append_u8(out, ':');
    }
    rp_cim_path_format_relative(path, out);
}

void rp_cim_path_format_relative(const struct rp_cim_path *path, struct rp_buf *out)
{
    rp_buf_printf(out, "%s%s", path->class_name, path->singleton ? "=@" : "");
    for (size_t i = 0; i < path->key_count; i++) {
        rp_buf_printf(out, "%c%s=\"", i ? ',' : '.', path->keys[i].name);
        for (const char *c = path->keys[i].value; *c; c++) {
            if (*c == '"' || *c == '\\')
                rp_buf_append_u8(out, '\\');
            rp_buf_append_u8(out, (uint8_t)*c);
        }
        rp_buf_append_u8(out, '"');
    }
}

static bool path_equal(const struct rp_cim_path *a, const struct rp_cim_path *b, unsigned nested);

// Keys of associations are paths again, which one side may have spelt otherwise.
static bool value_equal(const char *a, const char *b, unsigned nested)
{
    if (!strcasecmp(a, b))
        return true;
    if (nested == MAX_NESTED || !strchr(a, '=') || !strchr(b, '='))
        return false;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *left = rp_cim_path_parse(a, NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *right = left ? rp_cim_path_parse(b, NULL) : NULL;
    return right && path_equal(left, right, nested + 1);
}

static bool path_equal(const struct rp_cim_path *a, const struct rp_cim_path *b, unsigned nested)
{
    if (strcasecmp(a->class_name, b->class_name) || a->key_count != b->key_count || a->singleton != b->singleton ||
        (a->name_space && b->name_space && strcasecmp(a->name_space, b->name_space)))
        return false;
    for (size_t i = 0; i < a->key_count; i++) {
        const char *other = rp_cim_path_get(b, a->keys[i].name);
        if (!other || !value_equal(a->keys[i].value, other, nested))
            return false;
    }
    return true;
}

bool rp_cim_path_equal(const struct rp_cim_path *a, const struct rp_cim_path *b)
{
    return path_equal(a, b, 0);
}
