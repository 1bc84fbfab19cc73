#include "hyperv/keyring.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "hyperv/hosts_file.h"
#include "hyperv/private_file.h"

static void wipe(struct rp_buf *buf)
{
    if (buf->data)
        explicit_bzero(buf->data, buf->capacity);
    rp_buf_clear(buf);
}

void rp_keyring_wipe(char **password)
{
    if (*password)
        explicit_bzero(*password, strlen(*password));
    free(*password);
    *password = NULL;
}

char *rp_keyring_path(void)
{
    const char *own = getenv("REFPOINT_KEYRING");
    if (own && *own)
        return rp_xstrdup(own);
    RP_AUTO_FREE char *hosts = rp_hosts_file_path();
    const char *slash = strrchr(hosts, '/');
    return rp_xasprintf("%.*skeyring", slash ? (int)(slash - hosts) + 1 : 0, hosts);
}

// What stands after the name in a line of this host; NULL: it is another's.
static const char *password_of(const char *line, size_t length, const char *host)
{
    size_t name = strlen(host);
    return length > name && line[name] == ':' && !strncasecmp(line, host, name) ? line + name + 1 : NULL;
}

char *rp_keyring_get(const char *path, const char *host, struct rp_error *err)
{
    RP_CLEANUP(wipe) struct rp_buf text = {0};
    if (rp_private_file_read(path, true, &text, err))
        return NULL;
    for (const char *p = rp_buf_text(&text); *p;) {
        size_t length = strcspn(p, "\n");
        const char *password = password_of(p, length, host);
        if (password && password < p + length)
            return strndup(password, (size_t)(p + length - password));
        p += length + (p[length] == '\n');
    }
    return NULL;
}

int rp_keyring_set(const char *path, const char *host, const char *password, struct rp_error *err)
{
    RP_CLEANUP(wipe) struct rp_buf text = {0}, rest = {0};
    if (!rp_hosts_is_name(host))
        return rp_fail(err, RP_ERR_INVALID, "\"%.64s\" is no name of a host", host);
    if (password && (!*password || strlen(password) > RP_KEYRING_MAX_PASSWORD || strpbrk(password, "\r\n")))
        return rp_fail(err, RP_ERR_INVALID, "host %s: a password is 1 to %d bytes in one line", host,
                       RP_KEYRING_MAX_PASSWORD);
    RP_AUTO_FD int lock = rp_private_file_lock(path, err);
    if (lock < 0 || rp_private_file_read(path, true, &text, err))
        return -1;
    rp_buf_reserve(&rest, text.size + RP_KEYRING_MAX_PASSWORD + 128); // it does not move while it grows
    bool had = false;
    for (const char *p = rp_buf_text(&text); *p;) {
        size_t length = strcspn(p, "\n");
        bool own = password_of(p, length, host) != NULL;
        if (!own) {
            rp_buf_append(&rest, p, length);
            rp_buf_append_u8(&rest, '\n');
        }
        had |= own;
        p += length + (p[length] == '\n');
    }
    if (!password && !had)
        return 0;
    if (password) {
        rp_buf_append(&rest, host, strlen(host));
        rp_buf_append_u8(&rest, ':');
        rp_buf_append(&rest, password, strlen(password));
        rp_buf_append_u8(&rest, '\n');
    }
    return rp_private_file_replace(path, rest.data, rest.size, err);
}
