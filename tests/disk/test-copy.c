// Conversions between files in memory, which the kernel copies: the content is right and zeros take no space, also when the
// kernel copies piece by piece, or not at all, or refuses in the middle; without room nothing stays. And what creating a
// disk syncs. The system calls go through functions of this program.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/convert.h"

enum { KIB = 1 << 10, MIB = 1 << 20, SIZE = 9 * MIB + 1000 }; // not whole sectors

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

// ---- the system calls

static struct {
    int calls;       // of copy_file_range
    int refuse_from; // this call and the later ones fail with `error`; 0: none
    int error;       // 0: they copy nothing and say so
    size_t most;     // bytes that one call copies; 0: all
    char last_sync;  // 'd'ata or 'f'ile
} kernel;

ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t size, unsigned flags)
{
    if (++kernel.calls >= kernel.refuse_from && kernel.refuse_from) {
        errno = kernel.error;
        return kernel.error ? -1 : 0;
    }
    if (kernel.most && size > kernel.most)
        size = kernel.most;
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags);
}

static int sync_file(int fd, char kind, long call)
{
    struct stat st;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode))
        kernel.last_sync = kind;
    return (int)syscall(call, fd);
}

int fdatasync(int fd) { return sync_file(fd, 'd', SYS_fdatasync); }
int fsync(int fd) { return sync_file(fd, 'f', SYS_fsync); }

// ---- a folder in memory

static char folder[64];

static const char *in(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    struct statfs fs;
    bool memory = !statfs("/dev/shm", &fs) && fs.f_type == TMPFS_MAGIC && !access("/dev/shm", W_OK);
    snprintf(folder, sizeof folder, "%s/test-copy.XXXXXX", memory ? "/dev/shm" : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return rmdir(folder);
}

static uint64_t used(const char *name)
{
    struct stat st;
    assert_int_equal(stat(in(name), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

// ---- the disk

static uint8_t disk[SIZE + 512];

static void put(uint64_t offset, uint64_t size, int byte) { memset(disk + offset, byte, size); }

// Everything that is not a hole: zeros too.
static void make_disk(void)
{
    put(0, 3 * MIB + 7, 1);
    put(3 * MIB + 200 * KIB - 1, 1, 2);         // the last byte of what else is zeros
    put(4 * MIB + 64 * KIB + 4096, 5, 3);       // behind the part by which most data is told from zeros
    put(6 * MIB, 64 * KIB, 4);                  // a grain between zeros
    put(SIZE - 1, 1, 5);                        // in a sector that is not whole
    int fd = open(in("raw"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, disk, SIZE, 0), SIZE);
    close(fd);
}

static void check_disk(const char *name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf found = {0};
    must(rp_fs_read_file(rp_fs_posix(), in(name), sizeof disk, &found, &err));
    assert_int_equal(found.size, rp_align_up(SIZE, 512));
    assert_memory_equal(found.data, disk, found.size);
}

static void convert_there_and_back(void)
{
    struct rp_fs *fs = rp_fs_posix();
    const struct rp_vhdx_create create = {.block_size = MIB};
    kernel.calls = 0;
    must(rp_convert_raw_to_vhdx(fs, in("raw"), in("vhdx"), &create, NULL, NULL, &err));
    kernel.calls = 0;
    must(rp_convert_vhdx_to_vhdx(fs, in("vhdx"), in("again"), NULL, NULL, NULL, &err));
    kernel.calls = 0;
    must(rp_convert_vhdx_to_raw(fs, in("again"), in("back"), NULL, NULL, &err));
    check_disk("back");
    // 3 MiB, and five grains around the other bytes
    assert_in_range(used("back"), 3 * MIB + 5 * 4 * KIB, 3 * MIB + 5 * 64 * KIB);
    assert_in_range(used("vhdx"), 3 * MIB, 3 * MIB + 5 * 64 * KIB + MIB);
    unlink(in("vhdx")), unlink(in("again")), unlink(in("back"));
}

static bool in_memory(void) { return !strncmp(folder, "/dev/shm", 8); }

static void files_in_memory_are_copied_by_the_kernel_without_their_zeros(void **state)
{
    (void)state;
    make_disk();
    convert_there_and_back();
    assert_true(kernel.calls > 0 || !in_memory());
    kernel.most = 5000; // as it may
    convert_there_and_back();
    kernel.most = 0;
}

static void what_the_kernel_does_not_copy_is_read_and_written(void **state)
{
    (void)state;
    make_disk();
    const int errors[] = {EXDEV, EINVAL, EOPNOTSUPP, ENOSYS, 0};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        for (kernel.refuse_from = 1; kernel.refuse_from <= 3; kernel.refuse_from += 2) {
            kernel.error = errors[i];
            kernel.most = kernel.refuse_from > 1 ? 100000 : 0; // refused in the middle of a piece
            convert_there_and_back();
            assert_true(kernel.calls <= kernel.refuse_from); // not tried again
        }
    kernel.refuse_from = 0;
    kernel.most = 0;
}

static void a_copy_that_fails_leaves_nothing(void **state)
{
    (void)state;
    if (!in_memory())
        skip();
    struct rp_fs *fs = rp_fs_posix();
    make_disk();
    must(rp_convert_raw_to_vhdx(fs, in("raw"), in("vhdx"), NULL, NULL, NULL, &err));
    for (int way = 0; way < 4; way++) {
        kernel.error = way % 2 ? ENOSPC : EIO;
        kernel.calls = 0;
        kernel.refuse_from = 2;
        assert_int_equal(way < 2 ? rp_convert_raw_to_vhdx(fs, in("raw"), in("new"), NULL, NULL, NULL, &err)
                                 : rp_convert_vhdx_to_raw(fs, in("vhdx"), in("new"), NULL, NULL, &err),
                         -1);
        assert_int_equal(err.code, way % 2 ? RP_ERR_NO_SPACE : RP_ERR_IO);
        assert_int_equal(kernel.calls, 2);
        assert_int_equal(access(in("new"), F_OK), -1);
        rp_error_clear(&err);
    }
    kernel.refuse_from = 0;
}

// ---- a child of what has changed

static int mark_own(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state != RP_VHDX_IN_PARENT)
        rp_ranges_add(context, offset, length);
    return 0;
}

static int stop(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)done;
    (void)total;
    return 1;
}

// A source that was the base once, changed in units of 64 KiB: to data, to zeros, to nothing; a few more are said to have been.
static void change(struct rp_vhdx *vhdx, struct rp_ranges *changed)
{
    static uint8_t data[64 * KIB];
    static const struct {
        unsigned first, count, how;
    } changes[] = {{0, 1, 'd'}, {5, 3, 'z'}, {16, 16, 't'}, {40, 17, 'd'}, {64, 32, 'z'}, {100, 2, 's'}, {130, 1, 'd'}, {143, 1, 'z'}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint64_t offset = changes[i].first * 64 * KIB, length = changes[i].count * 64 * KIB;
        memset(data, (int)(100 + i), sizeof data);
        rp_ranges_add(changed, offset, length);
        for (uint64_t at = offset; changes[i].how == 'd' && at < offset + length; at += sizeof data)
            must(rp_vhdx_write(vhdx, data, sizeof data, at, &err));
        if (changes[i].how == 'z')
            must(rp_vhdx_zero(vhdx, offset, length, NULL, &err));
        if (changes[i].how == 't')
            must(rp_vhdx_trim(vhdx, offset, length, NULL, &err));
    }
}

static void same_content(const char *a, const char *b)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf x = {0}, y = {0};
    must(rp_convert_vhdx_to_raw(rp_fs_posix(), a, in("x"), NULL, NULL, &err));
    must(rp_convert_vhdx_to_raw(rp_fs_posix(), b, in("y"), NULL, NULL, &err));
    must(rp_fs_read_file(rp_fs_posix(), in("x"), sizeof disk, &x, &err));
    must(rp_fs_read_file(rp_fs_posix(), in("y"), sizeof disk, &y, &err));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    unlink(in("x")), unlink(in("y"));
}

static void a_child_of_the_changes_holds_these_and_nothing_else(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_posix();
    make_disk();
    const struct rp_vhdx_create first = {.block_size = MIB, .disk_id = rp_guid_new(), .data_write_guid = rp_guid_new()};
    must(rp_convert_raw_to_vhdx(fs, in("raw"), in("base"), &first, NULL, NULL, &err));
    must(rp_convert_vhdx_to_vhdx(fs, in("base"), in("source"), &first, NULL, NULL, &err));
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0}, own = {0}, outside = {0};
    struct rp_vhdx *vhdx = rp_vhdx_open(fs, in("source"), RP_VHDX_WRITE, NULL, &err);
    must(!vhdx);
    change(vhdx, &changed);
    must(rp_vhdx_close(vhdx, &err));

    RP_AUTO_FREE char *base = rp_xstrdup(in("base"));
    struct rp_vhdx_create create = first;
    create.data_write_guid = rp_guid_new();
    assert_int_equal(rp_convert_vhdx_to_child(fs, in("source"), in("child"), &create, &changed, NULL, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID); // of nobody
    rp_error_clear(&err);
    create.parent_path = base;
    create.parent_data_write_guid = first.data_write_guid;
    assert_int_equal(rp_convert_vhdx_to_vhdx(fs, in("source"), in("child"), &create, NULL, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_error_clear(&err);
    rp_ranges_add(&outside, SIZE - SIZE % 512, MIB);
    assert_int_equal(rp_convert_vhdx_to_child(fs, in("source"), in("child"), &create, &outside, NULL, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_error_clear(&err);
    assert_int_equal(rp_convert_vhdx_to_child(fs, in("source"), in("child"), &create, &changed, stop, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    rp_error_clear(&err);
    assert_int_equal(access(in("child"), F_OK), -1);

    for (kernel.refuse_from = 0; kernel.refuse_from < 3; kernel.refuse_from += 2) {
        kernel.error = EXDEV;
        kernel.calls = 0;
        must(rp_convert_vhdx_to_child(fs, in("source"), in("child"), &create, &changed, NULL, NULL, &err));
        vhdx = rp_vhdx_open(fs, in("child"), RP_VHDX_READ, NULL, &err);
        must(!vhdx);
        assert_true(rp_guid_equal(&rp_vhdx_info(vhdx)->data_write_guid, &create.data_write_guid));
        assert_true(rp_guid_equal(&rp_vhdx_info(vhdx)->disk_id, &first.disk_id));
        own.count = 0;
        must(rp_vhdx_extents(vhdx, 0, rp_vhdx_info(vhdx)->size, mark_own, &own, &err));
        assert_int_equal(own.count, changed.count);
        assert_memory_equal(own.items, changed.items, own.count * sizeof *own.items);
        rp_vhdx_abandon(vhdx);
        same_content(in("child"), in("source"));
        unlink(in("child"));
    }
    kernel.refuse_from = 0;
    unlink(in("base")), unlink(in("source"));
}

static void a_new_disk_keeps_its_times(void **state)
{
    (void)state;
    must(rp_vhdx_create(rp_fs_posix(), in("new"), &(struct rp_vhdx_create){.size = MIB}, &err));
    assert_int_equal(kernel.last_sync, 'f'); // by which a tracking file knows it
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_in_memory_are_copied_by_the_kernel_without_their_zeros),
        cmocka_unit_test(what_the_kernel_does_not_copy_is_read_and_written),
        cmocka_unit_test(a_copy_that_fails_leaves_nothing),
        cmocka_unit_test(a_child_of_the_changes_holds_these_and_nothing_else),
        cmocka_unit_test(a_new_disk_keeps_its_times),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
