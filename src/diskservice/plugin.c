// The nbdkit plugin: every disk of a VM as an NBD export. A thin skin over the engine.
//   nbdkit refpoint vm=DIR
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/num.h"
#include "diskservice/server.h"
#include "io/fs.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *vm_directory;
static struct rp_engine *engine;
static struct rp_server *server;
static struct rp_server_clients clients = {PTHREAD_MUTEX_INITIALIZER, 0};

struct handle {
    size_t disk;
    struct rp_engine_disk facts; // as at connection: NBD has no way to tell later
};

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

// Not earlier: nbdkit may fork, and threads and locks belong to the process that stays.
static int plugin_after_fork(void)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), vm_directory);
    engine = rp_engine_open(rp_fs_posix(), vm_directory, shm, &err);
    if (!engine || !(server = rp_server_start(engine, vm_directory, &clients, &err))) {
        nbdkit_error("%s", err.text);
        return -1;
    }
    return 0;
}

static void plugin_cleanup(void)
{
    struct rp_error err = {0};
    if (engine)
        rp_engine_cancel(engine);
    rp_server_stop(server); // waits for what it is answering
    server = NULL;
    if (engine && rp_engine_close(engine, &err))
        nbdkit_error("not everything could be made durable: %s", err.text);
    engine = NULL;
}

static void plugin_unload(void) { free(vm_directory); }

static const char *describe(const struct rp_engine_disk *disk)
{
    char id[RP_GUID_TEXT];
    return nbdkit_printf_intern("%s, disk id %s", rp_path_name(disk->leaf_path), rp_guid_format(&disk->disk_id, id));
}

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    (void)readonly;
    (void)is_tls;
    for (size_t i = 0; i < rp_engine_disk_count(engine); i++) {
        struct rp_engine_disk disk;
        rp_engine_disk(engine, i, &disk);
        int added = nbdkit_add_export(exports, disk.name, describe(&disk));
        free(disk.leaf_path);
        if (added)
            return -1;
    }
    return 0;
}

static const char *plugin_default_export(int readonly, int is_tls)
{
    (void)readonly;
    (void)is_tls;
    if (!rp_engine_disk_count(engine))
        return NULL;
    struct rp_engine_disk disk;
    rp_engine_disk(engine, 0, &disk);
    free(disk.leaf_path);
    return nbdkit_strdup_intern(disk.name);
}

static void *plugin_open(int readonly)
{
    (void)readonly;
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

static int plugin_pread(void *opaque, void *data, uint32_t size, uint64_t offset, uint32_t flags)
{
    (void)flags;
    struct rp_error err = {0};
    return rp_engine_read(engine, ((struct handle *)opaque)->disk, data, size, offset, &err) ? failed(&err) : 0;
}

static int plugin_pwrite(void *opaque, const void *data, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    return rp_engine_write(engine, ((struct handle *)opaque)->disk, data, size, offset, fua, &err) ? failed(&err) : 0;
}

// With MAY_TRIM or without: whole blocks are freed in either case, and read as zeros.
static int plugin_zero(void *opaque, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    return rp_engine_zero(engine, ((struct handle *)opaque)->disk, offset, size, fua, &err) ? failed(&err) : 0;
}

static int plugin_trim(void *opaque, uint32_t size, uint64_t offset, uint32_t flags)
{
    struct rp_error err = {0};
    bool fua = flags & NBDKIT_FLAG_FUA;
    return rp_engine_trim(engine, ((struct handle *)opaque)->disk, offset, size, fua, &err) ? failed(&err) : 0;
}

static int plugin_flush(void *opaque, uint32_t flags)
{
    (void)flags;
    struct rp_error err = {0};
    return rp_engine_flush(engine, ((struct handle *)opaque)->disk, &err) ? failed(&err) : 0;
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
    if (!rp_engine_extents(engine, handle->disk, start, end - start, add_extent, extents, &err))
        return 0;
    return err.code ? failed(&err) : -1;
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
