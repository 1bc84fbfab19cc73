// The kernel may do less than a call asks for, and end it early for a signal: reads, writes and copies of disk files go on with the
// rest. Here they do so all the time, on real files.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/vhdx.h"
#include "torn.h"

enum { MIB = 1 << 20, DISK = 40 * MIB };

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

// ---- the calls. The linker leads them here.

static atomic_bool cutting;
static atomic_uint asked, cut;

// How much of it is done; 0: a signal came first. Past the page cache it is whole sectors.
static size_t share_of(size_t size, bool direct)
{
    unsigned n = atomic_fetch_add(&asked, 1);
    if (!atomic_load(&cutting) || size <= 4096)
        return size;
    atomic_fetch_add(&cut, 1);
    return n % 5 == 4 ? 0 : direct || n % 3 ? rp_align_up(size / 2, 4096) : size - 7;
}

static ssize_t interrupted(void)
{
    errno = EINTR;
    return -1;
}

ssize_t __real_pread64(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *data, size_t size, off_t offset)
{
    size_t share = share_of(size, false);
    return share ? __real_pread64(fd, data, share, offset) : interrupted();
}

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    size_t share = share_of(size, fcntl(fd, F_GETFL) & O_DIRECT);
    return share ? __real_pwrite64(fd, data, share, offset) : interrupted();
}

ssize_t __real_copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t size, unsigned flags);
ssize_t __wrap_copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t size, unsigned flags);
ssize_t __wrap_copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t size, unsigned flags)
{
    size_t share = share_of(size, false);
    return share ? __real_copy_file_range(from_fd, from, to_fd, to, share, flags) : interrupted();
}

// ---- a disk

struct world {
    uint64_t random;
    char folder[32], *base, *leaf;
    uint8_t *model, *buffer;
    struct rp_vhdx *parent, *disk;
};

static void open_disks(struct world *w, unsigned parent_flags, unsigned flags, const struct rp_vhdx_session *session)
{
    w->parent = rp_vhdx_open(rp_fs_posix(), w->base, parent_flags, session, &err);
    must(!w->parent);
    w->disk = rp_vhdx_open(rp_fs_posix(), w->leaf, flags, NULL, &err);
    must(!w->disk || rp_vhdx_set_parent(w->disk, w->parent, &err));
}

static void close_disks(struct world *w)
{
    must(rp_vhdx_close(w->disk, &err) || rp_vhdx_close(w->parent, &err));
    w->disk = w->parent = NULL;
}

static void write_some(struct world *w, struct rp_vhdx *disk, unsigned count)
{
    while (count--) {
        uint64_t offset = random_below(&w->random, DISK / 512) * 512;
        uint64_t length = rp_min64(512 * (1 + random_below(&w->random, 6000)), DISK - offset);
        for (uint64_t at = offset; at < offset + length; at += 8) {
            uint64_t x = next_random(&w->random);
            memcpy(w->model + at, &x, 8);
        }
        must(rp_vhdx_write(disk, w->model + offset, (uint32_t)length, offset, &err));
    }
}

static void check(struct world *w, struct rp_vhdx *disk)
{
    memset(w->buffer, 0xee, DISK);
    must(rp_vhdx_read(disk, w->buffer, DISK, 0, &err));
    for (uint64_t at = 0; at < DISK; at += 512)
        if (memcmp(w->buffer + at, w->model + at, 512))
            fail_msg("sector %llu is not what was written", (unsigned long long)at / 512);
}

static void start(struct world *w, const char *where)
{
    *w = (struct world){.random = test_seed()};
    snprintf(w->folder, sizeof w->folder, "%s/rp-test-short-XXXXXX", where);
    w->model = rp_xcalloc(1, DISK);
    w->buffer = rp_xmalloc(DISK);
    assert_non_null(mkdtemp(w->folder));
    w->base = rp_path_join(w->folder, "base.vhdx");
    w->leaf = rp_path_join(w->folder, "leaf.avhdx");
    struct rp_vhdx_create create = {.size = DISK, .block_size = MIB, .disk_id = rp_guid_new()};
    atomic_store(&cutting, true);
    must(rp_vhdx_create(rp_fs_posix(), w->base, &create, &err));
    w->parent = rp_vhdx_open(rp_fs_posix(), w->base, RP_VHDX_WRITE, NULL, &err);
    must(!w->parent);
    write_some(w, w->parent, 12);
    must(rp_vhdx_freeze(w->parent, &err));
    create.parent_path = w->base;
    create.parent_data_write_guid = rp_vhdx_info(w->parent)->data_write_guid;
    must(rp_vhdx_create(rp_fs_posix(), w->leaf, &create, &err) || rp_vhdx_close(w->parent, &err));
    open_disks(w, RP_VHDX_READ, RP_VHDX_WRITE, NULL);
}

static void end(struct world *w)
{
    atomic_store(&cutting, false);
    unlink(w->base);
    unlink(w->leaf);
    rmdir(w->folder);
    free(w->base);
    free(w->leaf);
    free(w->model);
    free(w->buffer);
}

static void a_disk_whose_calls_are_all_cut_short_is_whole(void **state)
{
    (void)state;
    struct world w;
    start(&w, "/tmp");
    for (int round = 0; round < 4; round++) {
        write_some(&w, w.disk, 5);
        must(rp_vhdx_flush(w.disk, &err));
        check(&w, w.disk);
    }
    close_disks(&w);
    atomic_store(&cutting, false); // to be judged without
    open_disks(&w, RP_VHDX_READ, RP_VHDX_READ, NULL);
    check(&w, w.disk);
    close_disks(&w);
    assert_true(atomic_load(&cut) > 50);
    end(&w);
}

static void merge(const char *where, unsigned writes)
{
    struct world w;
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    start(&w, where);
    struct rp_guid now = rp_vhdx_info(w.parent)->data_write_guid;
    write_some(&w, w.disk, writes);
    must(rp_vhdx_set_parent_locator(w.disk, &now, &session.data_write_guid, NULL, &err));
    close_disks(&w);
    open_disks(&w, RP_VHDX_WRITE, RP_VHDX_READ, &session);
    must(rp_vhdx_merge(w.disk, w.parent, NULL, NULL, &err));
    close_disks(&w);
    atomic_store(&cutting, false);
    struct rp_vhdx *merged = rp_vhdx_open(rp_fs_posix(), w.base, RP_VHDX_READ, NULL, &err);
    must(!merged);
    check(&w, merged);
    must(rp_vhdx_close(merged, &err));
    end(&w);
}

static void a_merge_within_the_page_cache_whose_calls_are_cut_short_copies_all(void **state)
{
    (void)state;
    merge("/tmp", 2);
}

static void a_merge_past_the_page_cache_whose_calls_are_cut_short_copies_all(void **state)
{
    (void)state;
    merge("/tmp", 40);
}

static void a_merge_by_the_kernel_whose_calls_are_cut_short_copies_all(void **state)
{
    (void)state;
    merge("/dev/shm", 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_whose_calls_are_all_cut_short_is_whole),
        cmocka_unit_test(a_merge_within_the_page_cache_whose_calls_are_cut_short_copies_all),
        cmocka_unit_test(a_merge_past_the_page_cache_whose_calls_are_cut_short_copies_all),
        cmocka_unit_test(a_merge_by_the_kernel_whose_calls_are_cut_short_copies_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
