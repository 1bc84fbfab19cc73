// The audit: who changed what, when, from where, and what came of it.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "hostd/core.h"

#define MAX_VALUE 1000 // of a value in bytes; what is longer is cut and ends with "..."

struct rp_hostd_audit {
    pthread_mutex_t mutex;
    char *path; // NULL: standard error
    int fd;
};

// O_APPEND and one write per line: several writers and a rotation do not tear lines.
static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
}

struct rp_hostd_audit *rp_hostd_audit_open(const char *path, struct rp_error *err)
{
    bool file = path && strcmp(path, "-");
    int fd = !path ? -1 : file ? open_file(path) : STDERR_FILENO;
    if (file && fd < 0) {
        rp_fail_sys(err, errno, "audit %s", path);
        return NULL;
    }
    struct rp_hostd_audit *audit = rp_xcalloc(1, sizeof *audit);
    pthread_mutex_init(&audit->mutex, NULL);
    audit->path = file ? rp_xstrdup(path) : NULL;
    audit->fd = fd;
    return audit;
}

void rp_hostd_audit_close(struct rp_hostd_audit *audit)
{
    if (!audit)
        return;
    if (audit->path)
        close(audit->fd);
    pthread_mutex_destroy(&audit->mutex);
    free(audit->path);
    free(audit);
}

void rp_hostd_audit_reopen(struct rp_hostd_audit *audit)
{
    if (!audit->path)
        return;
    int fd = open_file(audit->path);
    if (fd < 0) {
        rp_log(RP_LOG_ERROR, "audit %s: %s; the old file goes on", audit->path, strerror(errno));
        return;
    }
    pthread_mutex_lock(&audit->mutex);
    int old = audit->fd;
    audit->fd = fd;
    pthread_mutex_unlock(&audit->mutex);
    close(old);
}

static bool begins(const unsigned char *text, const char *with, unsigned char from, unsigned char to)
{
    size_t size = strlen(with);
    return !strncmp((const char *)text, with, size) && text[size] >= from && text[size] <= to;
}

// The bytes of a character that must not reach who reads the audit as it is; 0: it may. Beside ASCII's: controls of a
// terminal (U+0080 to U+009F), other ends of lines (U+2028, U+2029), what turns the direction of a text around.
static size_t hostile(const unsigned char *p)
{
    if (*p < ' ' || *p == 0x7f)
        return 1;
    if (begins(p, "\xc2", 0x80, 0x9f))
        return 2;
    bool turns = begins(p, "\xe2\x80", 0xa8, 0xae) || begins(p, "\xe2\x80", 0x8e, 0x8f) ||
                 begins(p, "\xe2\x81", 0xa6, 0xa9);
    return turns ? 3 : 0;
}

void rp_hostd_audit_field(struct rp_buf *line, const char *name, const char *value)
{
    bool plain = *value && !value[strcspn(value, " \"\\=")];
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        plain &= *p > ' ' && *p < 0x7f;
    rp_buf_printf(line, plain && strlen(value) <= MAX_VALUE ? " %s=%s" : " %s=\"", name, value);
    if (plain && strlen(value) <= MAX_VALUE)
        return;
    size_t start = line->size;
    const unsigned char *p = (const unsigned char *)value;
    for (; *p && line->size - start < MAX_VALUE; p++) {
        size_t bad = hostile(p);
        if (bad)
            for (size_t i = 0; i < bad; i++)
                rp_buf_printf(line, "\\x%02x", p[i]);
        else if (*p == '"' || *p == '\\')
            rp_buf_printf(line, "\\%c", *p);
        else
            rp_buf_append_u8(line, *p);
        p += bad ? bad - 1 : 0;
    }
    while (*p && (*p & 0xc0) == 0x80) // not in the middle of a character
        rp_buf_append_u8(line, *p++);
    rp_buf_printf(line, *p ? "...\"" : "\"");
}

void rp_hostd_audit_write(struct rp_hostd_audit *audit, struct rp_buf *fields)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    char now[RP_TIME_TEXT];
    pthread_mutex_lock(&audit->mutex); // times in the order of the lines
    rp_buf_printf(&line, "%s%s\n", rp_time_format(rp_clock_wall_ns(), now), rp_buf_text(fields));
    ssize_t written = audit->fd < 0 ? (ssize_t)line.size : write(audit->fd, line.data, line.size);
    int problem = errno;
    pthread_mutex_unlock(&audit->mutex);
    if (written != (ssize_t)line.size)
        rp_log(RP_LOG_ERROR, "audit: a line is lost: %s", written < 0 ? strerror(problem) : "cut off");
}
