// The nbdkit plugin: every disk of a VM as an NBD export. A thin skin over the engine.
//   nbdkit refpoint vm=DIR
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/gate.h"
#include "base/log.h"
#include "base/num.h"
#include "diskservice/server.h"
#include "diskservice/service.h"
#include "diskservice/socket.h"
#include "io/fs.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *vm_directory;
static struct rp_engine *engine;
static struct rp_server *server;
static struct rp_server_clients clients = {PTHREAD_MUTEX_INITIALIZER, 0};

static struct rp_gate *requests; // inside: whoever uses the engine. Afterwards there is none.

// nbdkit that is told to end takes no new request, and waits until its clients go: an idle one stays for ever. So this thread
// ends the engine, once nobody uses it any more, and then hangs up on the clients. Not on those at work before they had time to
// hear that the server ends, and to take their answers; but nor does one that takes none keep the process alive.
enum { GRACE_MS = 200, AGAIN_MS = 20, PATIENCE_MS = 5000 };
static pthread_t usher;
static bool has_usher;
static atomic_bool all_gone;

struct handle {
    size_t disk;
    struct rp_engine_disk facts; // as at connection: NBD has no way to tell later
};

// False: it has ended.
static bool enter(unsigned *token)
{
    *token = rp_gate_enter(requests);
    if (engine)
        return true;
    rp_gate_leave(requests, *token);
    nbdkit_error("the disk service is ending");
    nbdkit_set_error(ESHUTDOWN);
    return false;
}

static int failed(const struct rp_error *err)
{
    if (err->code != RP_ERR_NO_SPACE) // the engine has said so, once for all requests
        nbdkit_error("%s", err->text);
    nbdkit_set_error(err->code == RP_ERR_NO_SPACE ? ENOSPC : err->code == RP_ERR_INVALID ? EINVAL : err->sys ? err->sys : EIO);
    return -1;
}

static void to_nbdkit_log(enum rp_log_level level, const char *text)
{
    if (level == RP_LOG_DEBUG)
        nbdkit_debug("%s", text);
    else
        nbdkit_error("%s%s", level == RP_LOG_ERROR ? "" : level == RP_LOG_WARNING ? "warning: " : "note: ", text);
}

static void plugin_load(void)
{
    rp_log_set_sink(to_nbdkit_log);
    rp_log_set_level(RP_LOG_INFO);
}

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "vm")) {
        nbdkit_error("unknown parameter '%s'", key);
        return -1;
    }
    free(vm_directory);
    vm_directory = nbdkit_realpath(value);
    return vm_directory ? 0 : -1;
}

static int plugin_config_complete(void)
{
    if (vm_directory)
        return 0;
    nbdkit_error("the parameter vm=DIR is missing: the folder of the VM whose disks to serve");
    return -1;
}

// Everything that was acknowledged is durable afterwards.
static void end_engine(const char *nbd_path)
{
    struct rp_error err = {0};
    rp_engine_cancel(engine);
    rp_server_stop(server); // waits for what it is answering
    rp_gate_close(requests);
    unlink(nbd_path); // nbdkit leaves it
    if (rp_engine_close(engine, &err))
        nbdkit_error("not everything could be made durable: %s", err.text);
    engine = NULL;
    rp_gate_open(requests);
}

static void *show_out(void *nothing)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_NBD_SOCKET);
    while (!nbdkit_nanosleep(3600, 0) || errno != ESHUTDOWN) // as soon as nbdkit is told to end
        usleep(AGAIN_MS * 1000);
    end_engine(path);
    for (unsigned waited = 0; !atomic_load(&all_gone); waited += AGAIN_MS) {
        if (waited >= GRACE_MS)
            rp_socket_hang_up(path);
        if (waited >= PATIENCE_MS)
            _exit(0);
        usleep(AGAIN_MS * 1000);
    }
    return nothing;
}

// Not earlier: nbdkit may fork, and threads and locks belong to the process that stays.
static int plugin_after_fork(void)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), vm_directory);
    requests = rp_gate_new();
    engine = rp_engine_open(rp_fs_posix(), vm_directory, shm, &err);
    if (!engine || !(server = rp_server_start(engine, vm_directory, &clients, &err))) {
        nbdkit_error("%s", err.text);
        return -1;
    }
    int sys = pthread_create(&usher, NULL, show_out, NULL);
    has_usher = !sys;
    if (sys)
        nbdkit_error("no thread to end the service by: %s", strerror(sys));
    return sys ? -1 : 0;
}

static void plugin_cleanup(void)
{
    atomic_store(&all_gone, true);
    nbdkit_shutdown(); // it ends without being told when its only client (-s) has gone
    if (has_usher)
        pthread_join(usher, NULL);
}

static void plugin_unload(void)
{
    rp_gate_free(requests);
    free(vm_directory);
}

static const char *describe(const struct rp_engine_disk *disk)
{
    char id[RP_GUID_TEXT];
    return nbdkit_printf_intern("%s, disk id %s", rp_path_name(disk->leaf_path), rp_guid_format(&disk->disk_id, id));
}

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    (void)readonly;
    (void)is_tls;
    unsigned token;
    int rc = 0;
    if (!enter(&token))
        return -1;
    for (size_t i = 0; !rc && i < rp_engine_disk_count(engine); i++) {
        struct rp_engine_disk disk;
        rp_engine_disk(engine, i, &disk);
        rc = nbdkit_add_export(exports, disk.name, describe(&disk));
        free(disk.leaf_path);
    }
    rp_gate_leave(requests, token);
    return rc;
}

static const char *plugin_default_export(int readonly, int is_tls)
{
    (void)readonly;
    (void)is_tls;
    unsigned token;
    const char *name = NULL;
    if (!enter(&token))
        return NULL;
    if (rp_engine_disk_count(engine)) {
        struct rp_engine_disk disk;
        rp_engine_disk(engine, 0, &disk);
        free(disk.leaf_path);
        name = nbdkit_strdup_intern(disk.name);
    }
    rp_gate_leave(requests, token);
    return name;
}

static struct handle *open_export(void)
{
    const char *name = nbdkit_export_name();
    int disk = name ? rp_engine_find_disk(engine, name) : -1;
    if (disk < 0) {
        nbdkit_error("there is no export \"%s\"", name ? name : "");
        nbdkit_set_error(ENOENT);
        return NULL;
    }
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return NULL;
    // The size must stand from here until the client has gone.
    pthread_mutex_lock(&clients.lock);
    handle->disk = (size_t)disk;
    rp_engine_disk(engine, handle->disk, &handle->facts);
    clients.count++;
    pthread_mutex_unlock(&clients.lock);
    return handle;
}

static void *plugin_open(int readonly)
{
    (void)readonly;
    unsigned token;
    if (!enter(&token))
        return NULL;
    struct handle *handle = open_export();
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_NBD_SOCKET);
    rp_socket_widen(path);
    rp_gate_leave(requests, token);
    return handle;
}

static void plugin_close(void *opaque)
{
    struct handle *handle = opaque;
    pthread_mutex_lock(&clients.lock);
    clients.count--;
    pthread_mutex_unlock(&clients.lock);
    free(handle->facts.leaf_path);
    free(handle);
}

static int64_t plugin_get_size(void *opaque) { return (int64_t)((struct handle *)opaque)->facts.size; }

static const char *plugin_export_description(void *opaque) { return describe(&((struct handle *)opaque)->facts); }

static int plugin_block_size(void *opaque, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    const struct rp_engine_disk *disk = &((struct handle *)opaque)->facts;
    *minimum = disk->logical_sector;
    *preferred = (uint32_t)rp_max64(disk->physical_sector, 4096);
    *maximum = 32 << 20;
    return 0;
}

static int yes(void *opaque)
{
    (void)opaque;
    return 1;
}

static int plugin_can_fua(void *opaque)
{
    (void)opaque;
    return NBDKIT_FUA_NATIVE;
}

// The end of a request.
static int leave(unsigned token, int rc, const struct rp_error *err)
{
    rp_gate_leave(requests, token);
    return rc ? failed(err) : 0;
}

static size_t disk_of(const void *opaque) { return ((const struct handle *)opaque)->disk; }

static int plugin_pread(void *opaque, void *data, uint32_t size, uint64_t offset, uint32_t flags)
{
    (void)flags;
    struct rp_error err = {0};
    unsigned token;
    return enter(&token) ? leave(token, rp_engine_read(engine, disk_of(opaque), data, size, offset, &err), &err) : -1;
}

static int plugin_pwrite(void *opaque, const void *data, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    unsigned token;
    return enter(&token) ? leave(token, rp_engine_write(engine, disk_of(opaque), data, size, offset, fua, &err), &err) : -1;
}

// With MAY_TRIM or without: whole blocks are freed in either case, and read as zeros.
static int plugin_zero(void *opaque, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    unsigned token;
    return enter(&token) ? leave(token, rp_engine_zero(engine, disk_of(opaque), offset, size, fua, &err), &err) : -1;
}

static int plugin_trim(void *opaque, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    unsigned token;
    return enter(&token) ? leave(token, rp_engine_trim(engine, disk_of(opaque), offset, size, fua, &err), &err) : -1;
}

static int plugin_flush(void *opaque, uint32_t flags)
{
    (void)flags;
    struct rp_error err = {0};
    unsigned token;
    return enter(&token) ? leave(token, rp_engine_flush(engine, disk_of(opaque), &err), &err) : -1;
}

static int add_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    uint32_t type = state == RP_VHDX_DATA ? 0 : state == RP_VHDX_ZERO ? NBDKIT_EXTENT_ZERO : NBDKIT_EXTENT_ZERO | NBDKIT_EXTENT_HOLE;
    return nbdkit_add_extent(context, offset, length, type);
}

static int plugin_extents(void *opaque, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
    (void)flags;
    const struct handle *handle = opaque;
    struct rp_error err = {0};
    // A client may ask for any bytes; ours are sectors, and nbdkit wants to hear of the first byte asked for.
    uint64_t sector = handle->facts.logical_sector, start = rp_align_down(offset, sector);
    uint64_t end = rp_min64(rp_align_up(offset + count, sector), handle->facts.size);
    unsigned token;
    if (!enter(&token))
        return -1;
    int rc = rp_engine_extents(engine, handle->disk, start, end - start, add_extent, extents, &err);
    rp_gate_leave(requests, token);
    return rc && err.code ? failed(&err) : rc;
}

static struct nbdkit_plugin plugin = {
    .name = "refpoint",
    .longname = "the disks of a refpoint VM",
    .version = RP_VERSION,
    .description = "Serves a VM's VHDX chains and tracks what changes (Resilient Change Tracking).",
    .magic_config_key = "vm",
    .config_help = "vm=<DIR>      (required) The VM's folder.",
    .load = plugin_load,
    .unload = plugin_unload,
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .list_exports = plugin_list_exports,
    .default_export = plugin_default_export,
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .export_description = plugin_export_description,
    .block_size = plugin_block_size,
    .can_write = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_extents = yes,
    .can_multi_conn = yes,
    .can_fua = plugin_can_fua,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .zero = plugin_zero,
    .trim = plugin_trim,
    .flush = plugin_flush,
    .extents = plugin_extents,
    .errno_is_preserved = 0,
};

struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
