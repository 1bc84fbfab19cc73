#include "domain-kit.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "diskservice/service.h"

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    struct rp_buf text = {0};
    char part[4096];
    size_t n;
    while (file && (n = fread(part, 1, sizeof part, file)) > 0)
        rp_buf_append(&text, part, n);
    if (file)
        fclose(file);
    rp_buf_text(&text);
    return (char *)text.data;
}

void dk_sql(const struct dk *dk, const char *format, ...)
{
    char sql[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    RP_AUTO_FREE char *path = kit_path("%s/host.db", dk->host);
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    if (sqlite3_exec(db, sql, NULL, NULL, &why))
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

void dk_put(const struct dk *dk, const char *suffix, const char *text)
{
    RP_AUTO_FREE char *path = kit_path("%s/%s.%s", dk->folder, dk->uuid, suffix), *part = kit_path("%s.part", path);
    kit_write_file(part, text, strlen(text));
    assert_int_equal(rename(part, path), 0);
}

void dk_event(const struct dk *dk, const char *event)
{
    RP_AUTO_FREE char *path = kit_path("%s/events", dk->folder), *line = kit_path("%s %s\n", dk->uuid, event);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(write(fd, line, strlen(line)), strlen(line));
    close(fd);
}

void dk_fail(const struct dk *dk, const char *call, const char *what)
{
    RP_AUTO_FREE char *path = kit_path("%s/fail/%s", dk->folder, call);
    if (what)
        kit_write_file(path, what, strlen(what));
    else
        unlink(path);
}

void dk_slow(const struct dk *dk, const char *call, const char *ms)
{
    RP_AUTO_FREE char *path = kit_path("%s/slow/%s", dk->folder, call);
    if (ms)
        kit_write_file(path, ms, strlen(ms));
    else
        unlink(path);
}

void dk_then(const struct dk *dk, const char *call, const char *state)
{
    RP_AUTO_FREE char *path = kit_path("%s/then/%s", dk->folder, call);
    kit_write_file(path, state, strlen(state));
}

bool dk_is(const struct dk *dk, const char *state)
{
    RP_AUTO_FREE char *path = kit_path("%s/%s.state", dk->folder, dk->uuid), *text = read_file(path);
    return !strcmp(text, state) || (!*text && !strcmp(state, "off"));
}

unsigned dk_count(const struct dk *dk, const char *text)
{
    RP_AUTO_FREE char *path = kit_path("%s/log", dk->folder), *log = read_file(path);
    unsigned count = 0;
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n"))
        count += strstr(line, text) != NULL;
    return count;
}

bool dk_serves(const struct dk *dk)
{
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), dk->directory, NULL);
    return service && rp_service_is_running(service);
}

void dk_kill(const struct dk *dk)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), dk->directory, &err);
    kit_ok(!service || rp_service_info(service, &info, &err), err);
    assert_true(info.pid > 1);
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    assert_true(dk_until(kill(info.pid, 0) != 0));
}

void dk_adopt(struct dk *dk, const char *host, const char *vm_id)
{
    *dk = (struct dk){.host = host, .folder = kit_folder()};
    snprintf(dk->vm, sizeof dk->vm, "%s", vm_id);
    for (size_t i = 0; vm_id[i]; i++)
        dk->uuid[i] = (char)tolower((unsigned char)vm_id[i]);
    dk->directory = kit_path("%s/vms/%s", host, vm_id);
    static const char *const folders[] = {"fail", "slow", "then"};
    for (size_t i = 0; i < 3; i++) {
        RP_AUTO_FREE char *path = kit_path("%s/%s", dk->folder, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    dk_sql(dk, "UPDATE vm SET hypervisor = 'fake:%s', domain = '%s' WHERE id = '%s'", dk->folder, dk->uuid, vm_id);
    dk_sql(dk, "INSERT INTO domain_disk (vm, number, target, source, format) SELECT vm, number, 'vd' || char(97 + number), '', ''"
               " FROM disk WHERE vm = (SELECT row FROM vm WHERE id = '%s')", vm_id);
    RP_AUTO_FREE char *xml = kit_path(
        "<domain type='qemu'><name>web1</name><uuid>%s</uuid><memory>1</memory><os><type>hvm</type></os><devices>"
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='disk0'>"
        "<host transport='unix' socket='%s/nbd.sock'/></source><target dev='vda' bus='virtio'/></disk></devices></domain>",
        dk->uuid, dk->directory);
    dk_put(dk, "xml", xml);
}

void dk_clear(struct dk *dk)
{
    rp_service_stop(dk->directory, NULL);
    kit_remove_folder(dk->folder);
    free(dk->directory);
}
