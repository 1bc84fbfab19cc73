#include "hyperv/hosts_file.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hyperv/private_file.h"

#define MAX_HOSTS 10000
#define MAX_VALUE 4096

static const char *const auth_names[] = {
    [RP_AUTH_NEGOTIATE] = "negotiate", [RP_AUTH_KERBEROS] = "kerberos", [RP_AUTH_NTLM] = "ntlm",
    [RP_AUTH_BASIC] = "basic", [RP_AUTH_PEER] = "peer",
};

const char *rp_hosts_auth_name(enum rp_wsman_auth auth) { return auth_names[auth]; }

int rp_hosts_auth_parse(const char *text, enum rp_wsman_auth *auth, struct rp_error *err)
{
    for (size_t i = 0; i < sizeof auth_names / sizeof *auth_names; i++)
        if (!strcasecmp(text, auth_names[i])) {
            *auth = (enum rp_wsman_auth)i;
            return 0;
        }
    return rp_fail(err, RP_ERR_INVALID, "'%.40s' is no way to log in (negotiate, kerberos, ntlm, basic or peer)", text);
}

void rp_hosts_entry_clear(struct rp_hosts_entry *entry)
{
    free(entry->name);
    free(entry->url);
    free(entry->user);
    free(entry->fingerprint);
    free(entry->ca_file);
    free(entry->export_folder);
    rp_path_map_clear(&entry->paths);
    *entry = (struct rp_hosts_entry){0};
}

void rp_hosts_clear(struct rp_hosts *hosts)
{
    for (size_t i = 0; i < hosts->count; i++)
        rp_hosts_entry_clear(&hosts->items[i]);
    free(hosts->items);
    *hosts = (struct rp_hosts){0};
}

char *rp_hosts_file_path(void)
{
    const char *own = getenv("REFPOINT_HOSTS"), *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (own && *own)
        return rp_xstrdup(own);
    if (config && *config == '/')
        return rp_xasprintf("%s/refpoint/hosts", config);
    return rp_xasprintf("%s/.config/refpoint/hosts", home && *home == '/' ? home : "/root");
}

bool rp_hosts_is_name(const char *text)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(text);
    return length && length <= 64 && strspn(text, word) == length && !strchr("._-", *text) && strcasecmp(text, "local");
}

struct rp_hosts_entry *rp_hosts_find(const struct rp_hosts *hosts, const char *name)
{
    for (size_t i = 0; i < hosts->count; i++)
        if (!strcasecmp(hosts->items[i].name, name))
            return &hosts->items[i];
    return NULL;
}

// ---- reading --------------------------------------------------------------------------------------------------------

static char *trimmed(const char *text, size_t size)
{
    while (size && strchr(" \t\r", text[size - 1]))
        size--;
    while (size && strchr(" \t", *text))
        text++, size--;
    return strndup(text, size);
}

static int set_text(char **where, const char *value, struct rp_error *err)
{
    if (*where)
        return rp_fail(err, RP_ERR_INVALID, "it says this twice");
    *where = rp_xstrdup(value);
    return 0;
}

static int set_key(struct rp_hosts_entry *entry, const char *key, const char *value, struct rp_error *err)
{
    if (!*value || strlen(value) > MAX_VALUE)
        return rp_fail(err, RP_ERR_INVALID, "%.40s: a value is missing, or too long", key);
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return rp_fail(err, RP_ERR_INVALID, "%.40s: a control character", key);
    if (!strcmp(key, "url"))
        return set_text(&entry->url, value, err);
    if (!strcmp(key, "user"))
        return set_text(&entry->user, value, err);
    if (!strcmp(key, "fingerprint"))
        return set_text(&entry->fingerprint, value, err);
    if (!strcmp(key, "ca"))
        return set_text(&entry->ca_file, value, err);
    if (!strcmp(key, "export"))
        return set_text(&entry->export_folder, value, err);
    if (!strcmp(key, "map"))
        return rp_path_map_add_line(&entry->paths, value, err);
    if (!strcmp(key, "auth"))
        return rp_hosts_auth_parse(value, &entry->auth, err);
    if (!strcmp(key, "basic-in-clear")) {
        entry->basic_in_clear = !strcmp(value, "yes");
        return entry->basic_in_clear || !strcmp(value, "no") ? 0 : rp_fail(err, RP_ERR_INVALID, "%s: yes or no", key);
    }
    // a word that is spelt wrong may be a safety that is not there
    return rp_fail(err, RP_ERR_INVALID, "what is \"%.40s\"?", key);
}

static int begin_host(struct rp_hosts *hosts, const char *line, struct rp_error *err)
{
    size_t length = strlen(line);
    RP_AUTO_FREE char *name = length > 2 && line[length - 1] == ']' ? strndup(line + 1, length - 2) : NULL;
    if (!name || !rp_hosts_is_name(name))
        return rp_fail(err, RP_ERR_INVALID, "\"%.80s\" is no name of a host: [letters, digits, '.', '-', '_']", line);
    if (rp_hosts_find(hosts, name))
        return rp_fail(err, RP_ERR_INVALID, "host %s is there twice", name);
    if (hosts->count == MAX_HOSTS)
        return rp_fail(err, RP_ERR_INVALID, "more than %d hosts", MAX_HOSTS);
    hosts->items = rp_xrealloc(hosts->items, (hosts->count + 1) * sizeof *hosts->items);
    hosts->items[hosts->count++] = (struct rp_hosts_entry){.name = name};
    name = NULL;
    return 0;
}

static int read_line(struct rp_hosts *hosts, const char *line, struct rp_error *err)
{
    if (!*line || *line == '#')
        return 0;
    if (*line == '[')
        return begin_host(hosts, line, err);
    const char *equals = strchr(line, '=');
    if (!hosts->count || !equals)
        return rp_fail(err, RP_ERR_INVALID, "\"%.80s\" is neither [NAME] nor key = value of a host", line);
    RP_AUTO_FREE char *key = trimmed(line, (size_t)(equals - line)), *value = trimmed(equals + 1, strlen(equals + 1));
    return set_key(&hosts->items[hosts->count - 1], key, value, err);
}

static int check_host(struct rp_hosts_entry *entry, bool auth_said, struct rp_error *err)
{
    if (!entry->url)
        return rp_fail(err, RP_ERR_INVALID, "host %s has no url", entry->name);
    if (!auth_said && !strncmp(entry->url, "unix:", 5))
        entry->auth = RP_AUTH_PEER;
    return 0;
}

static int read_text(const char *text, struct rp_hosts *hosts, unsigned *line_number, struct rp_error *err)
{
    bool auth_said = false;
    for (*line_number = 1;; ++*line_number) {
        size_t length = strcspn(text, "\n");
        RP_AUTO_FREE char *line = trimmed(text, length);
        bool ends = (*line == '[' || !text[length]) && hosts->count;
        if (*line == '[' && ends) {
            if (check_host(&hosts->items[hosts->count - 1], auth_said, err))
                return -1;
            auth_said = false;
        }
        if (read_line(hosts, line, err))
            return -1;
        auth_said |= !strncmp(line, "auth", 4);
        if (!text[length])
            return hosts->count ? check_host(&hosts->items[hosts->count - 1], auth_said, err) : 0;
        text += length + 1;
    }
}

int rp_hosts_file_read(const char *path, struct rp_hosts *hosts, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    *hosts = (struct rp_hosts){0};
    unsigned line = 0;
    if (rp_private_file_read(path, false, &text, err))
        return -1;
    if (!read_text(rp_buf_text(&text), hosts, &line, err))
        return 0;
    rp_hosts_clear(hosts);
    return rp_context(err, "%s, line %u", path, line);
}

// ---- changing -------------------------------------------------------------------------------------------------------

// A line end in a value would be another line: of this host, or of one that nobody added.
static int put_line(struct rp_buf *out, const char *key, const char *value, struct rp_error *err)
{
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return rp_fail(err, RP_ERR_INVALID, "%s: a control character", key);
    rp_buf_printf(out, "%s = %s\n", key, value);
    return 0;
}

static int write_entry(const struct rp_hosts_entry *entry, struct rp_buf *out, struct rp_error *err)
{
    rp_buf_printf(out, "[%s]\n", entry->name);
    const struct {
        const char *key, *value;
    } texts[] = {{"url", entry->url}, {"auth", rp_hosts_auth_name(entry->auth)}, {"user", entry->user},
                 {"fingerprint", entry->fingerprint}, {"ca", entry->ca_file},
                 {"basic-in-clear", entry->basic_in_clear ? "yes" : NULL}, {"export", entry->export_folder}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value && put_line(out, texts[i].key, texts[i].value, err))
            return -1;
    for (size_t i = 0; i < entry->paths.count; i++) {
        RP_AUTO_FREE char *map = rp_xasprintf("%s = %s", entry->paths.items[i].host, entry->paths.items[i].local);
        if (put_line(out, "map", map, err))
            return -1;
    }
    return 0;
}

// What comes out must be what comes in again.
static int check_text(struct rp_buf *text, size_t hosts_expected, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts again = {0};
    unsigned line;
    if (read_text(rp_buf_text(text), &again, &line, err))
        return -1;
    return again.count == hosts_expected ? 0 : rp_fail(err, RP_ERR_INVALID, "it would not be read as it is");
}

int rp_hosts_file_add(const char *path, const struct rp_hosts_entry *entry, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_AUTO_FD int lock = rp_private_file_lock(path, err);
    if (lock < 0 || rp_hosts_file_read(path, &hosts, err) || rp_private_file_read(path, false, &text, err))
        return -1;
    if (!rp_hosts_is_name(entry->name))
        return rp_fail(err, RP_ERR_INVALID, "\"%.80s\" is no name for a host: letters, digits, '.', '-', '_'",
                       entry->name);
    if (rp_hosts_find(&hosts, entry->name))
        return rp_fail(err, RP_ERR_EXISTS, "%s: host %s is there already", path, entry->name);
    if (text.size && text.data[text.size - 1] != '\n')
        rp_buf_append_u8(&text, '\n');
    if (text.size)
        rp_buf_append_u8(&text, '\n');
    if (write_entry(entry, &text, err) || check_text(&text, hosts.count + 1, err))
        return rp_context(err, "host %s", entry->name);
    return rp_private_file_replace(path, text.data, text.size, err);
}

// Whether a line is "[name]", as begin_host takes it.
static bool is_heading(const char *line, const char *name)
{
    size_t length = strlen(name);
    return *line == '[' && (!name[0] || (!strncasecmp(line + 1, name, length) && !strcmp(line + 1 + length, "]")));
}

int rp_hosts_file_remove(const char *path, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0}, rest = {0};
    RP_AUTO_FD int lock = rp_private_file_lock(path, err);
    if (lock < 0 || rp_hosts_file_read(path, &hosts, err) || rp_private_file_read(path, false, &text, err))
        return -1;
    if (!rp_hosts_find(&hosts, name))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no host \"%.64s\"", path, name);
    bool skip = false;
    for (const char *p = rp_buf_text(&text); *p;) {
        size_t length = strcspn(p, "\n");
        RP_AUTO_FREE char *line = trimmed(p, length);
        if (is_heading(line, ""))
            skip = is_heading(line, name);
        length += p[length] == '\n';
        if (!skip)
            rp_buf_append(&rest, p, length);
        p += length;
    }
    if (check_text(&rest, hosts.count - 1, err))
        return -1;
    return rp_private_file_replace(path, rest.data, rest.size, err);
}
