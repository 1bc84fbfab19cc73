#include "adopt-kit.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/convert.h"
#include "diskservice/service.h"

static char *run(struct ak *ak, const char *command, bool must)
{
    RP_AUTO_FREE char *whole = kit_path("cd '%s' && { %s; } 2>&1", ak->folder, command);
    FILE *pipe = popen(whole, "r");
    struct rp_buf text = {0};
    char part[4096];
    assert_non_null(pipe);
    for (size_t n; (n = fread(part, 1, sizeof part, pipe)) > 0;)
        rp_buf_append(&text, part, n);
    int status = pclose(pipe);
    rp_buf_text(&text);
    if (must && status)
        fail_msg("%s: status %d: %s", command, status, (char *)text.data);
    return (char *)text.data;
}

void ak_shell(struct ak *ak, const char *format, ...)
{
    va_list args;
    RP_AUTO_FREE char *command = NULL;
    va_start(args, format);
    assert_true(vasprintf(&command, format, args) >= 0);
    va_end(args);
    free(run(ak, command, true));
}

char *ak_output(struct ak *ak, const char *format, ...)
{
    va_list args;
    RP_AUTO_FREE char *command = NULL;
    va_start(args, format);
    assert_true(vasprintf(&command, format, args) >= 0);
    va_end(args);
    return run(ak, command, true);
}

char *ak_tree(struct ak *ak)
{
    return run(ak, "find images hv host/vms ! -type d -printf '%P %s %T@ %m ' -exec sha256sum {} \\; | sort; find images hv host/vms -type d | sort", true);
}

char *ak_file(struct ak *ak, const char *name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_AUTO_FREE char *path = kit_path("%s/%s", ak->folder, name);
    if (rp_fs_read_file(rp_fs_posix(), path, 1 << 20, &text, NULL))
        return NULL;
    return rp_xstrdup(rp_buf_text(&text));
}

void ak_open(struct ak *ak)
{
    RP_AUTO_FREE char *path = kit_path("%s/host", ak->folder);
    rp_host_close(ak->host);
    rp_error_clear(&ak->err);
    ak->host = rp_host_local_open(path, &ak->err);
    kit_ok(!ak->host, ak->err);
}

int ak_setup(void **state)
{
    struct ak *ak = rp_xcalloc(1, sizeof *ak);
    ak->folder = kit_folder();
    ak->uri = kit_path("fake:%s/hv", ak->folder);
    ak_shell(ak, "mkdir images hv hv/fail hv/slow");
    ak_open(ak);
    *state = ak;
    return 0;
}

int ak_teardown(void **state)
{
    struct ak *ak = *state;
    rp_host_close(ak->host);
    kit_remove_folder(ak->folder);
    free(ak->uri);
    free(ak->xml);
    free(ak);
    return 0;
}

char *ak_disk(struct ak *ak, const char *format, const char *path, const char *target)
{
    return kit_path("    <disk type='file' device='disk'>\n"
                    "      <driver name='qemu' type='%s' cache='writeback' discard='unmap'/>\n"
                    "      <source file='%s/%s'/>\n"
                    "      <target dev='%s' bus='virtio'/>\n"
                    "      <serial>S-%s</serial>\n"
                    "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n"
                    "    </disk>\n", strcmp(format, "vhdx") ? format : "vhd", ak->folder, path, target, target);
}

void ak_define(struct ak *ak, const char *devices)
{
    free(ak->xml);
    ak->xml = kit_path("<domain type='qemu'>\n  <name>web1</name>\n  <uuid>%s</uuid>\n  <memory unit='MiB'>256</memory>\n"
                       "  <vcpu>1</vcpu>\n  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n  <devices>\n%s  </devices>\n"
                       "</domain>\n", AK_UUID, devices);
    RP_AUTO_FREE char *path = kit_path("%s/hv/%s.xml", ak->folder, AK_UUID);
    kit_write_file(path, ak->xml, strlen(ak->xml));
}

void ak_web1(struct ak *ak)
{
    static const struct { const char *format, *name, *target; } disks[] = {{"raw", "root.raw", "vda"}, {"qcow2", "data.qcow2", "vdb"},
                                                                         {"vhdx", "old.vhdx", "vdc"}};
    RP_CLEANUP(rp_buf_clear) struct rp_buf devices = {0};
    for (size_t i = 0; i < 3; i++) {
        RP_AUTO_FREE char *raw = kit_path("%s/images/%s.tmp", ak->folder, disks[i].name), *path = kit_path("images/%s", disks[i].name);
        kit_raw(raw, AK_SIZE / 2, 10 + i);
        ak_shell(ak, "truncate -s %llu '%s'", (unsigned long long)AK_SIZE, raw);
        ak_shell(ak, "qemu-img convert -q -f raw -O %s '%s' '%s' && rm '%s'", disks[i].format, raw, path, raw);
        RP_AUTO_FREE char *disk = ak_disk(ak, disks[i].format, path, disks[i].target);
        rp_buf_printf(&devices, "%s", disk);
    }
    rp_buf_printf(&devices, "    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>\n");
    ak_define(ak, rp_buf_text(&devices));
}

char *ak_kept(struct ak *ak)
{
    return ak_file(ak, "hv/" AK_UUID ".xml");
}

int ak_adopt(struct ak *ak)
{
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    rp_error_clear(&ak->err);
    return rp_host_local_adopt_plan(ak->host, ak->uri, "web1", NULL, &plan, &ak->err) || rp_host_local_adopt(ak->host, &plan, &ak->err)
               ? -1 : 0;
}

int ak_release(struct ak *ak, const char *format)
{
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    rp_error_clear(&ak->err);
    return rp_host_local_release_plan(ak->host, AK_UUID, format, &plan, &ak->err) || rp_host_local_release(ak->host, &plan, &ak->err)
               ? -1 : 0;
}

struct meanwhile {
    struct ak *ak;
    const char *command;
};
static int do_meanwhile(void *context, uint64_t done, uint64_t total)
{
    struct meanwhile *meanwhile = context;
    (void)done, (void)total;
    if (meanwhile->command)
        ak_shell(meanwhile->ak, "%s", meanwhile->command);
    meanwhile->command = NULL;
    return 0;
}

int ak_release_while(struct ak *ak, const char *format, const char *command)
{
    struct meanwhile meanwhile = {ak, command};
    ak->host->progress = do_meanwhile;
    ak->host->progress_context = &meanwhile;
    int failed = ak_release(ak, format);
    ak->host->progress = NULL;
    assert_null(meanwhile.command);
    return failed;
}

void ak_sql(struct ak *ak, const char *format, ...)
{
    va_list args;
    sqlite3 *db;
    char *why = NULL;
    RP_AUTO_FREE char *sql = NULL, *path = kit_path("%s/host/host.db", ak->folder);
    va_start(args, format);
    assert_true(vasprintf(&sql, format, args) >= 0);
    va_end(args);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    if (sqlite3_exec(db, sql, NULL, NULL, &why))
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

void ak_write(struct ak *ak, unsigned number, uint64_t offset, size_t size, uint64_t seed)
{
    RP_AUTO_FREE char *directory = ak_output(ak, "printf %%s \"$PWD\"/host/vms/*");
    RP_AUTO_FREE char *uri = kit_path("nbd+unix:///disk%u?socket=%s/nbd.sock", number, directory);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(size);
    kit_fill(data, size, seed);
    kit_ok(rp_service_start(directory, &ak->err), ak->err);
    kit_nbd_write(uri, data, size, offset);
    kit_ok(rp_service_stop(directory, &ak->err), ak->err);
}

char *ak_sum(struct ak *ak, const char *format, const char *path)
{
    RP_AUTO_FREE char *raw = kit_path("%s/sum.raw", ak->folder), *full = kit_path("%s/%s", ak->folder, path);
    unlink(raw);
    if (format)
        ak_shell(ak, "qemu-img convert -q -f %s -O raw '%s' sum.raw", format, path);
    else
        kit_ok(rp_convert_vhdx_to_raw(rp_fs_posix(), full, raw, NULL, NULL, &ak->err), ak->err);
    return ak_output(ak, "sha256sum <sum.raw; rm sum.raw");
}

bool ak_has_vm(struct ak *ak)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(ak->host->ops->list_vms(ak->host, &vms, &ak->err), ak->err);
    return vms.count > 0;
}
