// Restores to files, of a fake host's backups.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backup/diff.h"
#include "backup/restore.h"
#include "backup/salvage.h"
#include "base/buf.h"
#include "base/num.h"
#include "disk/chain.h"
#include "durable.h"
#include "world.h"

static int setup(void **state)
{
    struct world *world = malloc(sizeof *world);
    world_init(world);
    fake_add_disk(&world->fake, 5 * RP_MIB + 512 * 3);
    world_write(world, 0, RP_MIB - 100, 70000);
    world_write(world, 0, 5 * RP_MIB, 512 * 3);
    fake_add_disk(&world->fake, 64 * RP_MIB);
    world_write(world, 1, 40 * RP_MIB, 1);
    world_must_backup(world);
    *state = world;
    return 0;
}
static int teardown(void **state)
{
    world_clear(*state);
    free(*state);
    return 0;
}

static unsigned files_in(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    if (dir)
        closedir(dir);
    return count;
}

static char *target(struct world *world) { return rp_xasprintf("%s/restored", world->folder); }

static void check_raw(const char *path, const struct image *image)
{
    struct rp_buf got = {0};
    struct rp_error err = {0};
    if (rp_fs_read_file(rp_fs_posix(), path, 1 << 30, &got, &err))
        fail_msg("%s", err.text);
    assert_int_equal(got.size, image->size);
    assert_memory_equal(got.data, image->data, image->size);
    rp_buf_clear(&got);
}

static void a_raw_restore_is_exact_and_sparse(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *path = rp_xasprintf("%s/web1-disk1.raw", folder);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1};
    struct rp_restore_result result;
    struct rp_error err = {0};
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(result.count, 2);
    for (size_t i = 0; i < 2; i++)
        check_raw(result.files[i].path, &world->expected[0].disks[result.files[i].number]);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < RP_MIB);
    assert_int_equal(files_in(folder), 2);
    rp_restore_result_clear(&result);
}

static void a_vhdx_restore_is_exact_and_keeps_the_disks_identity(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_VHDX, .disk = -1, .threads = 2};
    struct rp_restore_result result;
    struct rp_error err = {0};
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < result.count; i++) {
        const struct image *image = &world->expected[0].disks[result.files[i].number];
        struct rp_chain chain;
        if (rp_chain_open(rp_fs_posix(), result.files[i].path, &chain, &err))
            fail_msg("%s", err.text);
        const struct rp_vhdx_info *info = rp_vhdx_info(chain.layers[0]);
        assert_int_equal(info->size, image->size);
        assert_int_equal(info->logical_sector, 512);
        assert_int_equal(info->physical_sector, 4096);
        assert_true(rp_guid_equal(&info->disk_id, &world->fake.disks[result.files[i].number].disk_id));
        RP_AUTO_FREE uint8_t *data = rp_xmalloc(image->size);
        assert_int_equal(rp_vhdx_read(chain.layers[0], data, (uint32_t)image->size, 0, &err), 0);
        assert_memory_equal(data, image->data, image->size);
        rp_chain_close(&chain);
    }
    rp_restore_result_clear(&result);
}

static void another_program_finds_the_same_in_a_restored_vhdx(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_VHDX, .disk = -1};
    struct rp_restore_result result;
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, NULL), 0);
    rp_restore_result_clear(&result);
    options.format = RP_IMAGE_RAW;
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, NULL), 0);
    rp_restore_result_clear(&result);
    for (unsigned i = 0; i < 2; i++) {
        RP_AUTO_FREE char *command = rp_xasprintf("qemu-img compare -f raw -F vhdx %s/web1-disk%u.raw %s/web1-disk%u.vhdx >/dev/null",
                                                  folder, i, folder, i);
        assert_int_equal(system(command), 0);
    }
}

static void a_new_folder_stays_after_a_power_cut_however_it_is_written(void **state)
{
    struct world *world = *state;
    for (int slashes = 0; slashes < 3; slashes++) {
        RP_AUTO_FREE char *folder = rp_xasprintf("%s/restored%d", world->folder, slashes);
        RP_AUTO_FREE char *written = rp_xasprintf("%s%.*s", folder, slashes, "//");
        struct rp_restore_options options = {.directory = written, .format = RP_IMAGE_RAW, .disk = 1};
        struct rp_restore_result result;
        struct rp_error err = {0};
        durable_forget();
        if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
            fail_msg("%s", err.text);
        assert_true(durable_name(folder));
        assert_true(durable_name(result.files[0].path));
        rp_restore_result_clear(&result);
    }
}

static void one_disk_can_be_restored_alone(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = 1};
    struct rp_restore_result result;
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, NULL), 0);
    assert_int_equal(files_in(folder), 1);
    rp_restore_result_clear(&result);
    options.disk = 7;
    struct rp_error err = {0};
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void a_file_that_exists_is_never_overwritten(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *path = rp_xasprintf("%s/web1-disk1.raw", folder);
    mkdir(folder, 0700);
    assert_int_equal(rp_fs_replace_file(rp_fs_posix(), path, "precious", 8, NULL), 0);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1};
    struct rp_restore_result result;
    struct rp_error err = {0};
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(files_in(folder), 1);
    RP_CLEANUP(rp_buf_clear) struct rp_buf got = {0};
    assert_int_equal(rp_fs_read_file(rp_fs_posix(), path, 100, &got, NULL), 0);
    assert_int_equal(got.size, 8);
}

static int stop_after_a_while(void *context, uint64_t done, uint64_t total)
{
    // The second file's name is taken while the first is written: found out only at the very end.
    const char *path = context;
    (void)total;
    if (path && done)
        assert_int_equal(rp_fs_replace_file(rp_fs_posix(), path, "precious", 8, NULL), 0);
    return !path;
}

static void an_interrupted_restore_leaves_nothing(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    for (int format = RP_IMAGE_RAW; format <= RP_IMAGE_VHDX; format++) {
        struct rp_restore_options options = {
            .directory = folder, .format = (enum rp_image_format)format, .disk = -1, .progress = stop_after_a_while};
        struct rp_restore_result result;
        struct rp_error err = {0};
        assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
        assert_int_equal(err.code, RP_ERR_CANCELLED);
        assert_int_equal(access(folder, F_OK), -1); // made by us, so gone with us
    }
}

static void a_name_taken_meanwhile_is_not_overwritten_and_nothing_else_stays(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *path = rp_xasprintf("%s/web1-disk1.raw", folder);
    struct rp_restore_options options = {
        .directory = folder, .format = RP_IMAGE_RAW, .disk = -1, .progress = stop_after_a_while, .context = path};
    struct rp_restore_result result;
    struct rp_error err = {0};
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    assert_int_equal(files_in(folder), 1);
    RP_CLEANUP(rp_buf_clear) struct rp_buf got = {0};
    assert_int_equal(rp_fs_read_file(rp_fs_posix(), path, 100, &got, NULL), 0);
    assert_int_equal(got.size, 8);
}

static int kill_ourselves(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)total;
    if (done)
        raise(SIGKILL);
    return 0;
}

static void what_a_killed_restore_left_the_next_one_removes(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_VHDX, .disk = -1};
    for (int format = 0; format < 2; format++) {
        options.format = format ? RP_IMAGE_RAW : RP_IMAGE_VHDX;
        pid_t child = fork();
        if (!child) {
            RP_AUTO_FREE char *name = rp_xasprintf("repo");
            struct fake_backend *backend;
            struct rp_repo *repo = world_open_repo(world, name, &backend); // threads do not survive a fork
            struct rp_restore_options killed = options;
            struct rp_restore_result result;
            killed.progress = kill_ourselves;
            killed.rate = RP_MIB;
            rp_restore_run(repo, &world->last.point, &killed, &result, NULL);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_int_equal(files_in(folder), 2);
        // one that somebody still writes, and one that is nobody's
        RP_AUTO_FREE char *living = rp_xasprintf("%s/web1-disk0.%s.partial.%d", folder, format ? "raw" : "vhdx", (int)child + 1);
        RP_AUTO_FREE char *other = rp_xasprintf("%s/web1-disk0.%s.partial.", folder, format ? "raw" : "vhdx");
        struct rp_store *store = rp_fs_open(rp_fs_posix(), living, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
        assert_int_equal(rp_store_lock(store, true, NULL), 0);
        rp_store_close(rp_fs_open(rp_fs_posix(), other, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
        struct rp_restore_result result;
        struct rp_error err = {0};
        if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
            fail_msg("%s", err.text);
        assert_int_equal(files_in(folder), 4);
        assert_int_equal(access(living, F_OK), 0);
        assert_int_equal(access(other, F_OK), 0);
        rp_store_close(store);
        rp_restore_result_clear(&result);
        RP_AUTO_FREE char *command = rp_xasprintf("rm -r %s", folder);
        assert_int_equal(system(command), 0);
    }
}

static void damage_packs(const struct world *world)
{
    RP_AUTO_FREE char *command = rp_xasprintf(
        "for f in $(find %s/repo -type f -size +60k); do printf X | dd of=$f bs=1 seek=50000 conv=notrunc 2>/dev/null; done", world->folder);
    assert_int_equal(system(command), 0);
}

static void damaged_data_is_an_error_and_leaves_no_file(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    damage_packs(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1};
    struct rp_restore_result result;
    struct rp_error err = {0};
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_true(err.code == RP_ERR_CORRUPT || err.code == RP_ERR_AUTH);
    assert_int_equal(access(folder, F_OK), -1);
}

// ---- whose fault it was ---------------------------------------------------------------------------------------------

static bool disk_is_bad; // the one that is restored to

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    if (!disk_is_bad)
        return __real_pwrite64(fd, data, size, offset);
    errno = EIO;
    return -1;
}

// Every read of the largest pack is an EIO.
static void break_pack(const struct world *world)
{
    RP_AUTO_FREE char *command = rp_xasprintf("cd %s/repo && find packs -type f -printf '%%s %%p\\n' | sort -n | tail -1 | cut -d' ' -f2",
                                              world->folder);
    RP_AUTO_FREE char *name = world_output_of(command);
    snprintf(world->backend->bad_sector, sizeof world->backend->bad_sector, "%.*s", (int)strcspn(name, "\n"), name);
}

static void a_restore_says_whether_it_was_the_repository_that_failed(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1};
    struct rp_restore_result result;
    struct rp_error err = {0};
    for (int i = 0; i < 4; i++) {
        options.format = i % 2 ? RP_IMAGE_VHDX : RP_IMAGE_RAW;
        disk_is_bad = i < 2;
        if (!disk_is_bad)
            break_pack(world);
        rp_error_clear(&err);
        assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
        assert_int_equal(err.sys, EIO);
        assert_int_equal(result.damaged, !disk_is_bad);
        disk_is_bad = false;
    }
    assert_int_equal(access(folder, F_OK), -1);
}

// ---- salvage --------------------------------------------------------------------------------------------------------

static int mend(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    *((struct world *)context)->backend->bad_sector = 0;
    return 0;
}

static void a_salvage_does_not_list_what_could_be_read_in_the_end(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1, .salvage = true,
                                         .progress = mend, .context = world};
    struct rp_restore_result result;
    struct rp_error err = {0};
    RP_AUTO_FREE char *left = rp_xasprintf("%s/web1-disk1.raw.lost.partial.999999999", folder); // by a process that is no more
    assert_int_equal(mkdir(folder, 0700), 0);
    rp_store_close(rp_fs_open(rp_fs_posix(), left, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
    break_pack(world);
    options.salvage = false;
    assert_int_equal(rp_restore_preview(world->repo, &world->last.point, &options, &result, NULL), -1);
    assert_true(result.damaged);
    options.salvage = true;
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < result.count; i++) {
        assert_null(result.files[i].list);
        check_raw(result.files[i].path, &world->expected[0].disks[result.files[i].number]);
    }
    assert_int_equal(files_in(folder), result.count);
    rp_restore_result_clear(&result);
}

// The lines of the list, as whoever reads docs/formats/lost-list.md takes them.
static void read_list(const char *path, struct rp_ranges *lost)
{
    FILE *list = fopen(path, "r");
    char line[256];
    assert_non_null(list);
    while (fgets(line, sizeof line, list)) {
        unsigned long long offset, length;
        if (*line == '#')
            continue;
        assert_int_equal(sscanf(line, "%llu %llu\n", &offset, &length), 2);
        assert_true(!lost->count || offset > lost->items[lost->count - 1].offset + lost->items[lost->count - 1].length);
        rp_ranges_add(lost, offset, length);
    }
    fclose(list);
}

static void a_salvage_restores_what_is_whole_and_lists_the_rest(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world);
    damage_packs(world);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1, .salvage = true};
    struct rp_restore_result result;
    struct rp_error err = {0};
    unsigned lists = 0;
    durable_forget();
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < result.count; i++) {
        const struct rp_restore_file *file = &result.files[i];
        const struct image *image = &world->expected[0].disks[file->number];
        struct image expected = {image->size, rp_xmalloc(image->size)};
        memcpy(expected.data, image->data, image->size);
        if (file->list) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges listed = {0};
            RP_AUTO_FREE char *name = rp_xasprintf("%s.lost", file->path);
            assert_string_equal(file->list, name);
            assert_true(durable_name(file->list));
            read_list(file->list, &listed);
            assert_int_equal(listed.count, file->lost.count);
            for (size_t j = 0; j < listed.count; j++) {
                assert_memory_equal(&listed.items[j], &file->lost.items[j], sizeof *listed.items);
                memset(expected.data + listed.items[j].offset, 0, listed.items[j].length);
            }
            lists++;
        }
        assert_int_equal(file->lost.count > 0, file->list != NULL);
        check_raw(file->path, &expected);
        free(expected.data);
    }
    assert_true(lists > 0);
    assert_int_equal(files_in(folder), result.count + lists);
    rp_restore_result_clear(&result);
}

static void a_salvage_without_any_data_says_that_all_is_lost(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *command = rp_xasprintf("rm -r %s/repo/packs/*", world->folder);
    struct fake_backend *backend;
    assert_int_equal(system(command), 0);
    struct rp_repo *repo = world_open_repo(world, "repo", &backend); // which has no nodes in memory
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_VHDX, .disk = -1, .salvage = true};
    struct rp_restore_result result;
    struct rp_error err = {0};
    for (int real = 0; real < 2; real++) {
        if ((real ? rp_restore_run : rp_restore_preview)(repo, &world->last.point, &options, &result, &err))
            fail_msg("%s", err.text);
        assert_int_equal(result.count, 2);
        for (size_t i = 0; i < result.count; i++) {
            assert_int_equal(result.files[i].lost.count, 1);
            assert_int_equal(rp_ranges_total(&result.files[i].lost), result.files[i].size);
            assert_int_equal(access(result.files[i].list, F_OK), real - 1);
        }
        rp_restore_result_clear(&result);
    }
    rp_repo_close(repo);
}

static const char *deadly; // who gives a file this name is killed

int __real_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    if (deadly && !strcmp(to, deadly))
        raise(SIGKILL);
    return __real_renameat2(from_folder, from, to_folder, to, flags);
}

static void salvage_until_killed(struct world *world, const struct rp_restore_options *options, const char *name)
{
    struct fake_backend *backend;
    struct rp_restore_result result;
    int status;
    pid_t child = fork();
    if (!child) {
        deadly = name;
        rp_restore_run(world_open_repo(world, "repo", &backend), &world->last.point, options, &result, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_list_that_a_killed_salvage_left_is_told_and_stays(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *image = rp_xasprintf("%s/web1-disk0.raw", folder);
    RP_AUTO_FREE char *list = rp_xasprintf("%s.lost", image);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = 0, .salvage = true};
    struct rp_restore_result result;
    struct rp_error err = {0};
    damage_packs(world);
    salvage_until_killed(world, &options, image);
    assert_int_equal(files_in(folder), 2); // and the image, under the name of the process
    assert_int_equal(access(list, F_OK), 0);
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    assert_non_null(strstr(err.text, list));
    assert_non_null(strstr(err.text, "remove the list if nobody needs it"));
    assert_int_equal(unlink(list), 0);
    rp_error_clear(&err);
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(files_in(folder), 2);
    assert_int_equal(access(image, F_OK) || access(list, F_OK), 0);
    rp_restore_result_clear(&result);
}

static void a_list_that_cannot_be_written_is_removed_unless_it_is_somebody_elses(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *list = rp_xasprintf("%s/list", world->folder);
    RP_AUTO_FREE char *other = rp_xasprintf("%s/web1-disk0.raw.lost.partial.%d", folder, (int)getpid()); // of another machine
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = 0, .salvage = true};
    struct rp_restore_result result;
    struct rp_error err = {0};
    disk_is_bad = true;
    assert_int_equal(rp_salvage_write_list(list, "image", &(struct rp_ranges){0}, NULL), -1);
    disk_is_bad = false;
    assert_int_equal(access(list, F_OK), -1);
    assert_int_equal(mkdir(folder, 0700), 0);
    struct rp_store *store = rp_fs_open(rp_fs_posix(), other, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    assert_int_equal(rp_store_lock(store, true, NULL), 0);
    damage_packs(world);
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    assert_int_equal(access(other, F_OK), 0);
    assert_int_equal(files_in(folder), 1);
    rp_store_close(store);
}

static void a_salvage_of_what_is_whole_is_a_restore(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *folder = target(world), *list = rp_xasprintf("%s/web1-disk1.vhdx.lost", folder);
    struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_RAW, .disk = -1, .salvage = true};
    struct rp_restore_result result;
    struct rp_error err = {0};
    if (rp_restore_run(world->repo, &world->last.point, &options, &result, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < 2; i++) {
        assert_true(!result.files[i].list && !result.files[i].lost.count);
        check_raw(result.files[i].path, &world->expected[0].disks[result.files[i].number]);
    }
    assert_int_equal(files_in(folder), 2);
    rp_restore_result_clear(&result);
    // A list of another salvage is not overwritten, nor an image put beside it.
    options.format = RP_IMAGE_VHDX;
    assert_int_equal(rp_fs_replace_file(rp_fs_posix(), list, "precious", 8, NULL), 0);
    assert_int_equal(rp_restore_run(world->repo, &world->last.point, &options, &result, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    assert_int_equal(files_in(folder), 3);
}

static void names_of_vms_become_harmless_file_names(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"web1", "web1"},           {"a/../../etc/passwd", "a_.._.._etc_passwd"}, {"../x", "_._x"}, {".hidden", "_hidden"},
        {"-rf", "_rf"},             {"", "vm"},                                   {"a b\n\x1b[2J", "a_b___2J"},
        {"Größe", "Gr__e"},         {"\xff\xfe", "__"},                           {"..", "_."},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        RP_AUTO_FREE char *safe = rp_restore_safe_name(names[i][0]);
        assert_string_equal(safe, names[i][1]);
    }
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    RP_AUTO_FREE char *safe = rp_restore_safe_name(longest), *none = rp_restore_safe_name(NULL);
    assert_int_equal(strlen(safe), 100);
    assert_string_equal(none, "vm");
}

static void a_diff_names_exactly_the_changed_blocks(void **state)
{
    struct world *world = *state;
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    world_write(world, 1, 40 * RP_MIB, 100); // what is trimmed below shall hold something, whatever the seed
    world_must_backup(world);
    world_write(world, 1, 10 * RP_MIB + 5, 3);
    fake_trim(&world->fake, 1, 40 * RP_MIB, FAKE_UNIT);
    fake_remove_disk(&world->fake, 0);
    world_must_backup(world);
    world_small_disk(world, RP_MIB); // takes the removed one's place
    world_must_backup(world);
    assert_int_equal(rp_repo_points(world->repo, &points, NULL), 0);
    struct rp_diff diff;
    assert_int_equal(rp_diff_points(world->repo, &points.items[1], &points.items[2], &diff, NULL), 0);
    assert_int_equal(diff.count, 2);
    assert_int_equal(diff.disks[0].ranges.count, 2);
    assert_int_equal(diff.disks[0].ranges.items[0].offset, 10 * RP_MIB);
    assert_int_equal(diff.disks[0].ranges.items[0].length, FAKE_UNIT);
    assert_int_equal(diff.disks[0].ranges.items[1].offset, 40 * RP_MIB);
    assert_null(diff.disks[1].to);
    rp_diff_clear(&diff);
    assert_int_equal(rp_diff_points(world->repo, &points.items[1], &points.items[3], &diff, NULL), 0);
    assert_int_equal(diff.count, 3); // disk 0 is another one now: added, and the old one removed
    assert_null(diff.disks[0].from);
    assert_true(diff.disks[0].ranges.count > 0);
    assert_null(diff.disks[2].to);
    rp_diff_clear(&diff);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_raw_restore_is_exact_and_sparse),
        TEST(a_vhdx_restore_is_exact_and_keeps_the_disks_identity),
        TEST(another_program_finds_the_same_in_a_restored_vhdx),
        TEST(a_new_folder_stays_after_a_power_cut_however_it_is_written),
        TEST(one_disk_can_be_restored_alone),
        TEST(a_file_that_exists_is_never_overwritten),
        TEST(an_interrupted_restore_leaves_nothing),
        TEST(what_a_killed_restore_left_the_next_one_removes),
        TEST(a_name_taken_meanwhile_is_not_overwritten_and_nothing_else_stays),
        TEST(damaged_data_is_an_error_and_leaves_no_file),
        TEST(a_restore_says_whether_it_was_the_repository_that_failed),
        TEST(a_salvage_does_not_list_what_could_be_read_in_the_end),
        TEST(a_salvage_restores_what_is_whole_and_lists_the_rest),
        TEST(a_salvage_without_any_data_says_that_all_is_lost),
        TEST(a_list_that_a_killed_salvage_left_is_told_and_stays),
        TEST(a_list_that_cannot_be_written_is_removed_unless_it_is_somebody_elses),
        TEST(a_salvage_of_what_is_whole_is_a_restore),
        cmocka_unit_test(names_of_vms_become_harmless_file_names),
        TEST(a_diff_names_exactly_the_changed_blocks),
    };
    return cmocka_run_group_tests_name("restore", tests, NULL, NULL);
}
