// The config file: lines of "name = value", '#' starts a comment, names that may stand several times add up.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hostd/config.h"

#define MAX_SIZE (1 << 20)
#define FREEZE_LIMIT_LEAST_MS 100u // less, and no guest would ever be done
#define FREEZE_LIMIT_MOST_MS 3600000u

struct reader {
    struct rp_hostd_config *config;
    const char *name; // of the file
    unsigned line;
    unsigned http_line; // of the first listener that needs logins; 0: none
};

static int complain(const struct reader *reader, struct rp_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int complain(const struct reader *reader, struct rp_error *err, const char *format, ...)
{
    char text[RP_ERROR_TEXT / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return rp_fail(err, RP_ERR_INVALID, "%s:%u: %s", reader->name, reader->line, text);
}

static int set_once(const struct reader *reader, const char *name, char **place, const char *value,
                    struct rp_error *err)
{
    if (*place)
        return complain(reader, err, "%s is set twice", name);
    *place = rp_xstrdup(value);
    return 0;
}

static int set_path(const struct reader *reader, const char *name, char **place, const char *value,
                    struct rp_error *err)
{
    if (*value != '/')
        return complain(reader, err, "%s: an absolute path is needed, not \"%.200s\"", name, value);
    return set_once(reader, name, place, value, err);
}

// ---- listen ---------------------------------------------------------------------------------------------------------

static int read_port(const struct reader *reader, const char *text, uint16_t otherwise, uint16_t *port,
                     struct rp_error *err)
{
    if (!text) {
        *port = otherwise;
        return 0;
    }
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || number > 65535 || !number)
        return complain(reader, err, "listen: \"%.50s\" is no port", text);
    *port = (uint16_t)number;
    return 0;
}

// "127.0.0.1:5985", "[::1]:5985", "*": splits in place.
static int read_address(const struct reader *reader, char *text, uint16_t otherwise, struct rp_wsman_listener *listener,
                        struct rp_error *err)
{
    char *port = NULL, *address = text;
    if (*text == '[') {
        address++;
        char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return complain(reader, err, "listen: \"%.100s\" is no address", text);
        port = end[1] ? end + 2 : NULL;
        *end = '\0';
    } else if ((port = strrchr(text, ':'))) {
        *port++ = '\0';
    }
    if (!*address || (*text != '[' && strchr(address, ':')))
        return complain(reader, err, "listen: an address is needed; IPv6 in brackets: [::1]:%u", otherwise);
    struct in6_addr any;
    if (strcmp(address, "*") && inet_pton(*text == '[' ? AF_INET6 : AF_INET, address, &any) != 1)
        return complain(reader, err, "listen: \"%.100s\" is no address; names are not looked up", address);
    if (read_port(reader, port, otherwise, &listener->port, err))
        return -1;
    listener->address = rp_xstrdup(!strcmp(address, "*") ? "::" : address);
    return 0;
}

static void clear_listener(struct rp_wsman_listener *listener)
{
    free((char *)(uintptr_t)listener->address);
    free((char *)(uintptr_t)listener->socket);
    free((char *)(uintptr_t)listener->certificate);
    free((char *)(uintptr_t)listener->key);
    *listener = (struct rp_wsman_listener){0};
}

static int read_listener(const struct reader *reader, char *value, struct rp_wsman_listener *listener,
                         struct rp_error *err)
{
    char *rest = NULL, *place = strtok_r(value, " \t", &rest), *first = strtok_r(NULL, " \t", &rest);
    char *second = strtok_r(NULL, " \t", &rest);
    if (!place || strtok_r(NULL, " \t", &rest))
        return complain(
            reader, err,
            "listen: http://ADDRESS[:PORT], https://ADDRESS[:PORT] CERTIFICATE KEY, or unix:PATH is needed");
    if (!strncmp(place, "unix:", 5)) {
        if (place[5] != '/' || first)
            return complain(reader, err, "listen: unix: and an absolute path are needed");
        listener->socket = rp_xstrdup(place + 5);
        return 0;
    }
    if (!strncmp(place, "http://", 7)) {
        if (first && (strcmp(first, "basic-in-clear") || second))
            return complain(reader, err, "listen: only basic-in-clear may follow http://…, not \"%.50s\"",
                            first);
        listener->flags = first ? RP_LISTEN_BASIC_IN_CLEAR : 0;
        return read_address(reader, place + 7, 5985, listener, err);
    }
    if (strncmp(place, "https://", 8))
        return complain(reader, err, "listen: \"%.100s\" begins with none of http://, https:// and unix:", place);
    if (!second || *first != '/' || *second != '/')
        return complain(reader, err,
                        "listen: after https://… the absolute paths of certificate and key (PEM) are needed");
    listener->certificate = rp_xstrdup(first);
    listener->key = rp_xstrdup(second);
    return read_address(reader, place + 8, 5986, listener, err);
}

static int add_listener(struct reader *reader, const char *value, struct rp_error *err)
{
    struct rp_hostd_config *config = reader->config;
    struct rp_wsman_listener listener = {0};
    RP_AUTO_FREE char *copy = rp_xstrdup(value);
    if (read_listener(reader, copy, &listener, err)) {
        clear_listener(&listener);
        return -1;
    }
    if (!listener.socket && !reader->http_line)
        reader->http_line = reader->line;
    config->listeners = rp_xrealloc(config->listeners, (config->listener_count + 1) * sizeof *config->listeners);
    config->listeners[config->listener_count++] = listener;
    return 0;
}

// ---- the rest -------------------------------------------------------------------------------------------------------

static int add_folder(const struct reader *reader, const char *value, struct rp_error *err)
{
    struct rp_hostd_config *config = reader->config;
    if (*value != '/')
        return complain(reader, err, "folder: an absolute path is needed, not \"%.200s\"", value);
    config->folders = rp_xrealloc(config->folders, (config->folder_count + 1) * sizeof *config->folders);
    config->folders[config->folder_count++] = rp_xstrdup(value);
    return 0;
}

static int add_rules(const struct reader *reader, enum rp_cim_access access, const char *name, const char *value,
                     struct rp_error *err)
{
    struct rp_error why = {0};
    return rp_hostd_access_add(&reader->config->access, access, value, &why)
               ? complain(reader, err, "%s: %s", name, why.text)
               : 0;
}

// "10", "10s", "800ms": seconds unless it says otherwise.
static int set_freeze_limit(const struct reader *reader, const char *name, const char *value, struct rp_error *err)
{
    unsigned *place = &reader->config->freeze_limit_ms;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    bool digit = *value >= '0' && *value <= '9';
    end += strspn(end, " ");
    unsigned unit_ms = !strcmp(end, "ms") ? 1 : !*end || !strcmp(end, "s") ? 1000 : 0;
    if (*place)
        return complain(reader, err, "%s is set twice", name);
    if (!digit || !unit_ms)
        return complain(reader, err, "%s: seconds are needed (10s), or milliseconds (800ms), not \"%.50s\"", name, value);
    if (errno || number > FREEZE_LIMIT_MOST_MS || number * unit_ms < FREEZE_LIMIT_LEAST_MS ||
        number * unit_ms > FREEZE_LIMIT_MOST_MS)
        return complain(reader, err, "%s: %.50s is not between %ums and %us", name, value, FREEZE_LIMIT_LEAST_MS,
                        FREEZE_LIMIT_MOST_MS / 1000);
    *place = (unsigned)(number * unit_ms);
    return 0;
}

static int set(struct reader *reader, const char *name, const char *value, struct rp_error *err)
{
    struct rp_hostd_config *config = reader->config;
    if (!*value)
        return complain(reader, err, "%s has no value", name);
    if (!strcmp(name, "directory"))
        return set_path(reader, name, &config->directory, value, err);
    if (!strcmp(name, "name"))
        return set_once(reader, name, &config->machine, value, err);
    if (!strcmp(name, "audit"))
        return strcmp(value, "-") ? set_path(reader, name, &config->audit, value, err)
                                  : set_once(reader, name, &config->audit, value, err);
    if (!strcmp(name, "keytab"))
        return set_path(reader, name, &config->keytab, value, err);
    if (!strcmp(name, "ntlm-users"))
        return set_path(reader, name, &config->users, value, err);
    if (!strcmp(name, "hypervisor"))
        return set_once(reader, name, &config->hypervisor, value, err);
    if (!strcmp(name, "hypervisor-network"))
        return set_once(reader, name, &config->network, value, err);
    if (!strcmp(name, "hypervisor-accelerator"))
        return set_once(reader, name, &config->accelerator, value, err);
    if (!strcmp(name, "freeze-limit"))
        return set_freeze_limit(reader, name, value, err);
    if (!strcmp(name, "folder"))
        return add_folder(reader, value, err);
    if (!strcmp(name, "listen"))
        return add_listener(reader, value, err);
    if (!strcmp(name, "read"))
        return add_rules(reader, RP_CIM_READ, name, value, err);
    if (!strcmp(name, "operate"))
        return add_rules(reader, RP_CIM_OPERATE, name, value, err);
    if (!strcmp(name, "administer"))
        return add_rules(reader, RP_CIM_ADMINISTER, name, value, err);
    return complain(reader, err, "there is no setting \"%.50s\"", name);
}

static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t size = strlen(text);
    while (size && strchr(" \t\r", text[size - 1]))
        text[--size] = '\0';
    return text;
}

static int read_line(struct reader *reader, char *line, struct rp_error *err)
{
    line = trim(line);
    if (!*line || *line == '#')
        return 0;
    for (const unsigned char *p = (const unsigned char *)line; *p; p++)
        if (*p < ' ' && *p != '\t')
            return complain(reader, err, "a control character");
    char *equals = strchr(line, '=');
    if (!equals)
        return complain(reader, err, "\"name = value\" is needed, not \"%.100s\"", line);
    *equals = '\0';
    return set(reader, trim(line), trim(equals + 1), err);
}

// What only the whole file tells.
static int finish(struct reader *reader, struct rp_error *err)
{
    struct rp_hostd_config *config = reader->config;
    config->acceptor = (struct rp_login_acceptor){config->keytab, config->users};
    config->access.acceptor = config->users ? &config->acceptor : NULL;
    if (!config->hypervisor && (config->network || config->accelerator))
        return rp_fail(err, RP_ERR_INVALID, "%s: hypervisor-%s without \"hypervisor\"", reader->name,
                       config->network ? "network" : "accelerator");
    if (!config->listener_count)
        return rp_fail(err, RP_ERR_INVALID, "%s: no \"listen\": nobody could reach this host", reader->name);
    if (reader->http_line && !config->keytab && !config->users) {
        reader->line = reader->http_line;
        return complain(reader, err, "listen: nobody can log in over the network without \"keytab\" or \"ntlm-users\"");
    }
    if (!config->directory)
        config->directory = rp_xstrdup("/var/lib/refpoint");
    return 0;
}

int rp_hostd_config_parse(const char *text, const char *name, struct rp_hostd_config *config, struct rp_error *err)
{
    struct reader reader = {.config = config, .name = name};
    RP_AUTO_FREE char *copy = rp_xstrdup(text);
    *config = (struct rp_hostd_config){0};
    char *rest = copy;
    for (char *line; (line = strsep(&rest, "\n"));) {
        reader.line++;
        if (read_line(&reader, line, err)) {
            rp_hostd_config_clear(config);
            return -1;
        }
    }
    if (!finish(&reader, err))
        return 0;
    rp_hostd_config_clear(config);
    return -1;
}

// Who writes to it decides who administers this host.
static int check_file(const char *path, FILE *file, struct rp_error *err)
{
    struct stat st;
    if (fstat(fileno(file), &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a file", path);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return rp_fail(err, RP_ERR_PERMISSION, "%s: belongs to another user, who could give himself every right", path);
    if (st.st_mode & 022)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: others may write to it (chmod go-w)", path);
    return 0;
}

int rp_hostd_config_read(const char *path, struct rp_hostd_config *config, struct rp_error *err)
{
    *config = (struct rp_hostd_config){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO would wait for somebody
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file)
        return rp_fail_sys(err, errno, "%s", path);
    if (check_file(path, file, err)) {
        fclose(file);
        return -1;
    }
    RP_AUTO_FREE char *text = rp_xmalloc(MAX_SIZE + 1);
    size_t size = fread(text, 1, MAX_SIZE + 1, file);
    int problem = ferror(file) ? errno : 0;
    fclose(file);
    if (problem)
        return rp_fail_sys(err, problem, "%s", path);
    if (size > MAX_SIZE || memchr(text, '\0', size))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a config file", path);
    text[size] = '\0';
    return rp_hostd_config_parse(text, path, config, err);
}

// A group that serves for certificates may read a key; all the world may not.
static int check_secret(const char *path, struct rp_error *err)
{
    struct stat st;
    if (stat(path, &st) || access(path, R_OK))
        return rp_fail_sys(err, errno, "%s", path);
    if (st.st_mode & 07)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: everybody may read the secret in it (chmod o=)", path);
    return 0;
}

int rp_hostd_config_check(const struct rp_hostd_config *config, struct rp_error *err)
{
    if ((config->keytab && check_secret(config->keytab, err)) ||
        ((config->keytab || config->users) && rp_login_check(&config->acceptor, err)))
        return -1;
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct rp_wsman_listener *listener = &config->listeners[i];
        if (listener->key && check_secret(listener->key, err))
            return -1;
        if (listener->certificate && access(listener->certificate, R_OK))
            return rp_fail_sys(err, errno, "%s", listener->certificate);
    }
    return 0;
}

static bool same(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

static bool same_listener(const struct rp_wsman_listener *a, const struct rp_wsman_listener *b)
{
    return same(a->address, b->address) && a->port == b->port && same(a->socket, b->socket) &&
           same(a->certificate, b->certificate) && same(a->key, b->key) && a->flags == b->flags;
}

const char *rp_hostd_config_difference(const struct rp_hostd_config *a, const struct rp_hostd_config *b)
{
    const struct { const char *name, *a, *b; } texts[] = {
        {"directory", a->directory, b->directory}, {"name", a->machine, b->machine}, {"audit", a->audit, b->audit},
        {"keytab", a->keytab, b->keytab}, {"ntlm-users", a->users, b->users},
        {"hypervisor", a->hypervisor, b->hypervisor}, {"hypervisor-network", a->network, b->network},
        {"hypervisor-accelerator", a->accelerator, b->accelerator},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!same(texts[i].a, texts[i].b))
            return texts[i].name;
    if (a->freeze_limit_ms != b->freeze_limit_ms)
        return "freeze-limit";
    for (size_t i = 0; i < a->folder_count || i < b->folder_count; i++)
        if (i >= a->folder_count || i >= b->folder_count || strcmp(a->folders[i], b->folders[i]))
            return "folder";
    for (size_t i = 0; i < a->listener_count || i < b->listener_count; i++)
        if (i >= a->listener_count || i >= b->listener_count || !same_listener(&a->listeners[i], &b->listeners[i]))
            return "listen";
    return NULL;
}

void rp_hostd_config_clear(struct rp_hostd_config *config)
{
    for (size_t i = 0; i < config->folder_count; i++)
        free(config->folders[i]);
    for (size_t i = 0; i < config->listener_count; i++)
        clear_listener(&config->listeners[i]);
    free(config->folders);
    free(config->listeners);
    free(config->directory);
    free(config->machine);
    free(config->audit);
    free(config->keytab);
    free(config->users);
    free(config->hypervisor);
    free(config->network);
    free(config->accelerator);
    rp_hostd_access_clear(&config->access);
    *config = (struct rp_hostd_config){0};
}

struct rp_hostd_options rp_hostd_config_options(struct rp_hostd_config *config)
{
    config->access.acceptor = config->users ? &config->acceptor : NULL; // the config may have moved
    return (struct rp_hostd_options){
        .directory = config->directory, .machine = config->machine,
        .folders = (const char *const *)config->folders, .folder_count = config->folder_count,
        .listeners = config->listeners, .listener_count = config->listener_count,
        .acceptor = config->keytab || config->users ? &config->acceptor : NULL,
        .access = {.authorize = rp_hostd_access_authorize, .password = config->users ? rp_hostd_access_password : NULL,
                   .peer = rp_hostd_access_peer, .context = &config->access},
        .audit = config->audit,
        .hypervisor = config->hypervisor, .network = config->network, .accelerator = config->accelerator,
        .freeze_limit_ms = config->freeze_limit_ms,
    };
}
