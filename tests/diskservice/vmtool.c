// Does to a VM's folder what the shell tests ask for, through the same calls as the host:
//   vmtool create DIR DISKS SIZE | start DIR | stop DIR | info DIR | checkpoint DIR [OPERATION] | merge DIR FILE…
//   vmtool changes DIR FILE ID | flush DIR | grow DIR DISK SIZE
// Prints one "key value…" line per fact; errors as "code: text" on standard error.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "diskservice/record.h"
#include "diskservice/service.h"

static int create(const char *directory, const char *disks, const char *size, struct rp_error *err)
{
    static struct rp_record record;
    struct rp_vhdx_create create = {0};
    if (rp_parse_size(size, &create.size, err))
        return -1;
    record.vm_id = rp_guid_new();
    for (int i = 0; i < disks[0] - '0'; i++) {
        struct rp_record_disk *disk = &record.disks[record.count++];
        create.disk_id = disk->disk_id = rp_guid_new();
        disk->number = (uint32_t)i;
        disk->leaf_path = rp_xasprintf("%s/disk%d.vhdx", directory, i);
        if (rp_vhdx_create(rp_fs_posix(), disk->leaf_path, &create, err))
            return -1;
    }
    int failed = rp_record_write(rp_fs_posix(), directory, &record, err);
    rp_record_clear(&record);
    return failed;
}

static int info(struct rp_service *service, struct rp_error *err)
{
    static struct rp_service_info info;
    if (rp_service_info(service, &info, err))
        return -1;
    printf("pid %ld\ngeneration %" PRIu64 "\nmerge %d\n", (long)info.pid, info.generation, info.merge.phase);
    for (size_t i = 0; i < info.count; i++)
        printf("disk %s %" PRIu64 " %s tracked=%d verdict=%d\n", info.disks[i].name, info.disks[i].size, info.disks[i].leaf_path,
               info.disks[i].tracked, info.disks[i].verdict);
    rp_service_info_clear(&info);
    return 0;
}

static int checkpoint(struct rp_service *service, const char *text, struct rp_error *err)
{
    static struct rp_engine_checkpoint result;
    struct rp_guid operation = rp_guid_new();
    char id[RP_RCT_ID_TEXT];
    if ((text && rp_guid_parse(text, &operation, err)) || rp_service_checkpoint(service, &operation, NULL, NULL, &result, err))
        return -1;
    for (size_t i = 0; i < result.count; i++)
        printf("frozen %s %s %s\n", result.disks[i].path, result.disks[i].leaf_path,
               result.disks[i].tracked ? rp_rct_id_format(&result.disks[i].id, id) : "untracked");
    rp_engine_checkpoint_clear(&result);
    return 0;
}

static int merge(struct rp_service *service, char **paths, size_t count, struct rp_error *err)
{
    static struct rp_service_info info;
    struct rp_guid operation = rp_guid_new();
    if (rp_service_merge(service, &operation, (const char *const *)paths, count, NULL, err))
        return -1;
    for (;;) {
        if (rp_service_info(service, &info, err))
            return -1;
        struct rp_engine_merge state = info.merge;
        rp_service_info_clear(&info);
        if (state.phase == RP_MERGE_FAILED)
            return rp_fail_as(err, &state.error);
        if (state.phase != RP_MERGE_RUNNING)
            return 0;
        usleep(10000);
    }
}

static int changes(struct rp_service *service, const char *path, const char *text, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    static struct rp_service_info info;
    struct rp_rct_id id;
    if (rp_rct_id_parse(text, &id, err) || rp_service_info(service, &info, err))
        return -1;
    uint64_t size = info.disks[0].size;
    rp_service_info_clear(&info);
    if (rp_service_changes(service, path, &id, 0, size, &changed, err))
        return -1;
    for (size_t i = 0; i < changed.count; i++)
        printf("range %" PRIu64 " %" PRIu64 "\n", changed.items[i].offset, changed.items[i].length);
    return 0;
}

static int with_service(struct rp_service *service, int argc, char **argv, struct rp_error *err)
{
    const char *verb = argv[1];
    uint64_t size;
    if (!strcmp(verb, "info"))
        return info(service, err);
    if (!strcmp(verb, "checkpoint"))
        return checkpoint(service, argv[3], err);
    if (!strcmp(verb, "merge"))
        return merge(service, argv + 3, (size_t)argc - 3, err);
    if (!strcmp(verb, "changes") && argc == 5)
        return changes(service, argv[3], argv[4], err);
    if (!strcmp(verb, "flush"))
        return rp_service_flush(service, err);
    if (!strcmp(verb, "grow") && argc == 5)
        return rp_parse_size(argv[4], &size, err) || rp_service_grow(service, argv[3], size, err) ? -1 : 0;
    return rp_fail(err, RP_ERR_USAGE, "%s: unknown", verb);
}

int main(int argc, char **argv)
{
    struct rp_error err = {0};
    int failed;
    if (argc < 3)
        return 3;
    if (!strcmp(argv[1], "create") && argc == 5)
        failed = create(argv[2], argv[3], argv[4], &err);
    else if (!strcmp(argv[1], "start"))
        failed = rp_service_start(argv[2], &err);
    else if (!strcmp(argv[1], "stop"))
        failed = rp_service_stop(argv[2], &err);
    else {
        RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), argv[2], &err);
        failed = !service || with_service(service, argc, argv, &err);
    }
    if (failed)
        fprintf(stderr, "%s: %s\n", rp_code_name(err.code), err.text);
    return failed ? 2 : 0;
}
