// Byte stores: the same promises for files and for memory, and what a power cut takes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/num.h"
#include "io/fs.h"
#include "io/memory.h"

static char folder[] = "/tmp/refpoint-test-io-XXXXXX";

struct place {
    struct rp_fs *fs;
    const char *directory;
};

static int set_up_memory(void **state)
{
    static struct place place = {NULL, "/d"};
    place.fs = rp_fs_memory_new();
    *state = &place;
    return 0;
}

static int tear_down_memory(void **state)
{
    rp_fs_memory_free(((struct place *)*state)->fs);
    return 0;
}

static int set_up_files(void **state)
{
    static struct place place = {NULL, folder};
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    place.fs = rp_fs_posix();
    *state = &place;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down_files(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static char *at(struct place *p, const char *name) { return rp_path_join(p->directory, name); }

static void a_store_holds_what_is_written_and_says_where_it_ends(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "a");
    struct rp_error err = {0};
    uint64_t size;
    char data[8] = "";
    struct rp_store *s = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, &err);
    assert_non_null(s);
    assert_int_equal(rp_store_pwrite(s, "hello", 5, 100000, NULL), 0);
    assert_int_equal(rp_store_size(s, &size, NULL), 0);
    assert_int_equal(size, 100005);
    assert_int_equal(rp_store_pread(s, data, 7, 99998, NULL), 0);
    assert_memory_equal(data, "\0\0hello", 7);
    assert_int_equal(rp_store_pread(s, data, 7, 99999, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    assert_int_equal(rp_store_truncate(s, 100002, NULL), 0);
    assert_int_equal(rp_store_truncate(s, 100007, NULL), 0);
    assert_int_equal(rp_store_pread(s, data, 7, 100000, NULL), 0);
    assert_memory_equal(data, "he\0\0\0\0\0", 7); // what was cut off does not come back
    rp_store_close(s);
    err.code = RP_OK;
    assert_null(rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, &err));
    assert_int_equal(err.code, RP_ERR_EXISTS);
    RP_AUTO_FREE char *other = at(p, "other");
    err.code = RP_OK;
    assert_null(rp_fs_open(p->fs, other, RP_OPEN_READ, &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void holes_are_found_and_made(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "holes");
    struct rp_store *s = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    static char block[1 << 16];
    memset(block, 'x', sizeof block);
    assert_int_equal(rp_store_truncate(s, 16 * RP_MIB, NULL), 0);
    assert_int_equal(rp_store_pwrite(s, block, sizeof block, RP_MIB, NULL), 0);
    assert_int_equal(rp_store_pwrite(s, block, sizeof block, 8 * RP_MIB, NULL), 0);
    assert_int_equal(rp_store_extents(s, 0, 16 * RP_MIB, &data, NULL), 0);
    assert_int_equal(data.count, 2);
    assert_int_equal(data.items[1].offset, 8 * RP_MIB);
    assert_int_equal(rp_ranges_total(&data), 2 * sizeof block);
    rp_ranges_clear(&data);
    assert_int_equal(rp_store_extents(s, RP_MIB + 4096, 100, &data, NULL), 0);
    assert_int_equal(rp_ranges_total(&data), 100);
    rp_ranges_clear(&data);
    assert_int_equal(rp_store_punch(s, RP_MIB, sizeof block, NULL), 0);
    assert_int_equal(rp_store_extents(s, 0, 4 * RP_MIB, &data, NULL), 0);
    assert_int_equal(data.count, 0);
    assert_int_equal(rp_store_pread(s, block, 10, RP_MIB, NULL), 0);
    assert_int_equal(block[0], 0);
    rp_store_close(s);
}

static void a_write_changes_the_identity_and_a_rename_keeps_the_inode(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "a"), *moved = at(p, "b");
    struct rp_store_identity before, after;
    struct rp_store *s = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    assert_int_equal(rp_store_identity(s, &before, NULL), 0);
    assert_int_equal(rp_store_pwrite(s, "x", 1, 0, NULL), 0);
    assert_int_equal(rp_store_identity(s, &after, NULL), 0);
    assert_int_equal(before.inode, after.inode);
    assert_int_equal(after.size, 1);
    rp_store_close(s);
    assert_int_equal(rp_fs_rename(p->fs, path, moved, NULL), 0);
    s = rp_fs_open(p->fs, moved, RP_OPEN_READ, NULL);
    assert_int_equal(rp_store_identity(s, &after, NULL), 0);
    assert_int_equal(before.inode, after.inode);
    rp_store_close(s);
}

static void locks_exclude_within_the_process_too(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "lock");
    struct rp_error err = {0};
    struct rp_store *a = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    struct rp_store *b = rp_fs_open(p->fs, path, RP_OPEN_WRITE, NULL);
    assert_int_equal(rp_store_lock(a, true, NULL), 0);
    assert_int_equal(rp_store_lock(b, false, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_int_equal(rp_store_lock(a, false, NULL), 0);
    assert_int_equal(rp_store_lock(b, false, NULL), 0);
    assert_int_equal(rp_store_lock(a, true, NULL), -1);
    rp_store_close(b);
    assert_int_equal(rp_store_lock(a, true, NULL), 0);
    rp_store_close(a);
}

static void replacing_a_file_is_all_or_nothing(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "doc"), *stale = at(p, "doc.new");
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0};
    rp_store_close(rp_fs_open(p->fs, stale, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL)); // an earlier attempt died
    assert_int_equal(rp_fs_replace_file(p->fs, path, "one", 3, NULL), 0);
    assert_int_equal(rp_fs_replace_file(p->fs, path, "second", 6, NULL), 0);
    assert_int_equal(rp_fs_read_file(p->fs, path, 6, &content, NULL), 0);
    assert_string_equal(rp_buf_text(&content), "second");
    struct rp_error err = {0};
    assert_int_equal(rp_fs_read_file(p->fs, path, 5, &content, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    bool exists;
    assert_int_equal(rp_fs_exists(p->fs, stale, &exists, NULL), 0);
    assert_false(exists);
}

static void paths_are_joined_and_taken_apart(void **state)
{
    (void)state;
    RP_AUTO_FREE char *a = rp_path_join("/x", "y"), *b = rp_path_join("/", "y"), *c = rp_path_directory("y");
    RP_AUTO_FREE char *d = rp_path_directory("/y"), *e = rp_path_directory("/x/y");
    assert_string_equal(a, "/x/y");
    assert_string_equal(b, "/y");
    assert_string_equal(c, ".");
    assert_string_equal(d, "/");
    assert_string_equal(e, "/x");
    assert_string_equal(rp_path_name("/x/y"), "y");
    assert_string_equal(rp_path_name("y"), "y");
}

static void a_power_cut_takes_what_was_not_flushed(void **state)
{
    struct place *p = *state;
    char data[4] = "";
    struct rp_error err = {0};
    struct rp_store *s = rp_fs_open(p->fs, "/d/a", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    rp_store_pwrite(s, "old", 3, 0, NULL);
    unsigned long syncs = rp_fs_memory_syncs(p->fs);
    assert_int_equal(rp_store_flush(s, NULL), 0);
    assert_int_equal(rp_fs_sync_parent(p->fs, "/d/a", NULL), 0);
    assert_int_equal(rp_fs_memory_syncs(p->fs), syncs + 2);
    rp_store_pwrite(s, "new and longer", 14, 0, NULL);
    assert_int_equal(rp_store_lock(s, true, NULL), 0);
    rp_store_close(rp_fs_open(p->fs, "/d/b", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL));
    rp_fs_memory_cut(p->fs);
    assert_int_equal(rp_store_pread(s, data, 3, 0, &err), -1); // this machine is gone
    assert_int_equal(err.code, RP_ERR_IO);
    rp_store_close(s);
    s = rp_fs_open(p->fs, "/d/a", RP_OPEN_WRITE, NULL);
    uint64_t size;
    assert_int_equal(rp_store_size(s, &size, NULL), 0);
    assert_int_equal(size, 3);
    assert_int_equal(rp_store_pread(s, data, 3, 0, NULL), 0);
    assert_string_equal(data, "old");
    assert_int_equal(rp_store_lock(s, true, NULL), 0); // and so are its locks
    rp_store_close(s);
    assert_null(rp_fs_open(p->fs, "/d/b", RP_OPEN_READ, NULL)); // its name was never synced
}

static void a_power_cut_takes_renames_that_were_not_synced(void **state)
{
    struct place *p = *state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0};
    assert_int_equal(rp_fs_replace_file(p->fs, "/d/a", "old", 3, NULL), 0);
    struct rp_store *s = rp_fs_open(p->fs, "/d/n", RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    rp_store_pwrite(s, "new", 3, 0, NULL);
    rp_store_flush(s, NULL);
    rp_store_close(s);
    assert_int_equal(rp_fs_rename(p->fs, "/d/n", "/d/a", NULL), 0);
    assert_int_equal(rp_fs_read_file(p->fs, "/d/a", 10, &content, NULL), 0);
    assert_string_equal(rp_buf_text(&content), "new");
    rp_fs_memory_cut(p->fs);
    rp_buf_reset(&content);
    assert_int_equal(rp_fs_read_file(p->fs, "/d/a", 10, &content, NULL), 0);
    assert_string_equal(rp_buf_text(&content), "old");
    assert_int_equal(rp_fs_unlink(p->fs, "/d/a", NULL), 0);
    rp_fs_memory_cut(p->fs);
    bool exists;
    assert_int_equal(rp_fs_exists(p->fs, "/d/a", &exists, NULL), 0);
    assert_true(exists);
    assert_int_equal(rp_fs_unlink(p->fs, "/d/a", NULL), 0);
    assert_int_equal(rp_fs_sync_parent(p->fs, "/d/a", NULL), 0);
    rp_fs_memory_cut(p->fs);
    assert_int_equal(rp_fs_exists(p->fs, "/d/a", &exists, NULL), 0);
    assert_false(exists);
}

static void what_is_written_past_the_page_cache_reads_as_any_other_write(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "direct");
    uint8_t *data = NULL, back[3 * 4096];
    assert_int_equal(posix_memalign((void **)&data, RP_STORE_ALIGN, sizeof back), 0);
    memset(data, 'o', sizeof back);
    struct rp_store *s = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    assert_non_null(s);
    assert_int_equal(rp_store_pwrite(s, data, 3 * 4096, 0, NULL), 0);
    memset(data, 'n', sizeof back);
    assert_int_equal(rp_store_pwrite_direct(s, data, 4096, 4096, NULL), 0);
    assert_int_equal(rp_store_pwrite_direct(s, data + 1, 7, 8192 + 5, NULL), 0); // not aligned: the ordinary way
    assert_int_equal(rp_store_pwrite_direct(s, data, 4096, 1 << 20, NULL), 0);
    assert_int_equal(rp_store_pread(s, back, sizeof back, 0, NULL), 0);
    for (size_t i = 0; i < sizeof back; i++)
        assert_int_equal(back[i], (i >= 4096 && i < 8192) || (i >= 8197 && i < 8204) ? 'n' : 'o');
    assert_int_equal(rp_store_pread(s, back, 4096, 1 << 20, NULL), 0);
    assert_int_equal(back[4095], 'n');
    assert_int_equal(rp_store_flush(s, NULL), 0);
    rp_store_close(s);
    s = rp_fs_open(p->fs, path, RP_OPEN_READ, NULL);
    assert_int_equal(rp_store_direct(s), false); // not open for writing
    assert_int_equal(rp_store_pwrite_direct(s, data, 4096, 0, NULL) && p->fs == rp_fs_posix(), p->fs == rp_fs_posix());
    rp_store_close(s);
    free(data);
}

static void shared_blocks_are_copied_when_one_side_is_written(void **state)
{
    struct place *p = *state;
    RP_AUTO_FREE char *path = at(p, "from"), *other = at(p, "to");
    uint8_t data[2 * RP_STORE_SHARE], back[2 * RP_STORE_SHARE], zeros[100] = {0};
    struct rp_error err = {0};
    struct rp_store *from = rp_fs_open(p->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    struct rp_store *to = rp_fs_open(p->fs, other, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    memset(data, 'd', sizeof data);
    assert_int_equal(rp_store_pwrite(from, data, sizeof data, RP_STORE_SHARE, NULL), 0); // a hole, then data
    assert_int_equal(rp_store_truncate(to, 4 * RP_STORE_SHARE, NULL), 0);
    assert_int_equal(rp_store_pwrite(to, data, sizeof data, 0, NULL), 0);
    if (rp_store_clone_range(to, RP_STORE_SHARE, from, 0, 2 * RP_STORE_SHARE, &err)) {
        assert_int_equal(err.code, RP_ERR_UNSUPPORTED); // by this file system; nothing happened
        assert_int_equal(rp_store_pread(to, back, sizeof back, 0, NULL), 0);
        assert_memory_equal(back, data, sizeof back);
    } else {
        assert_int_equal(rp_store_pread(to, back, sizeof back, RP_STORE_SHARE, NULL), 0);
        assert_memory_equal(back, zeros, sizeof zeros); // the hole came along
        assert_memory_equal(back + RP_STORE_SHARE, data, RP_STORE_SHARE);
        assert_int_equal(rp_store_pwrite(from, "new", 3, RP_STORE_SHARE, NULL), 0);
        assert_int_equal(rp_store_pwrite(to, "tar", 3, 3 * RP_STORE_SHARE - 3, NULL), 0);
        assert_int_equal(rp_store_pread(to, back, sizeof back, 2 * RP_STORE_SHARE, NULL), 0);
        assert_memory_equal(back, data, 3);
        assert_memory_equal(back + RP_STORE_SHARE - 3, "tar", 3);
        assert_int_equal(rp_store_pread(from, back, 2 * RP_STORE_SHARE, RP_STORE_SHARE, NULL), 0);
        assert_memory_equal(back, "newd", 4);
        assert_int_equal(back[RP_STORE_SHARE - 1], 'd');
        if (p->fs != rp_fs_posix())
            assert_int_equal(rp_store_clone_range(to, 512, from, 0, RP_STORE_SHARE, &err), -1); // not aligned
    }
    rp_store_close(from);
    rp_store_close(to);
}

#define FILES(name) {#name "_in_files", name, set_up_files, tear_down_files, NULL}
#define MEMORY(name) {#name "_in_memory", name, set_up_memory, tear_down_memory, NULL}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILES(a_store_holds_what_is_written_and_says_where_it_ends),
        MEMORY(a_store_holds_what_is_written_and_says_where_it_ends),
        FILES(holes_are_found_and_made),
        MEMORY(holes_are_found_and_made),
        FILES(a_write_changes_the_identity_and_a_rename_keeps_the_inode),
        MEMORY(a_write_changes_the_identity_and_a_rename_keeps_the_inode),
        FILES(locks_exclude_within_the_process_too),
        MEMORY(locks_exclude_within_the_process_too),
        FILES(replacing_a_file_is_all_or_nothing),
        MEMORY(replacing_a_file_is_all_or_nothing),
        FILES(what_is_written_past_the_page_cache_reads_as_any_other_write),
        MEMORY(what_is_written_past_the_page_cache_reads_as_any_other_write),
        FILES(shared_blocks_are_copied_when_one_side_is_written),
        MEMORY(shared_blocks_are_copied_when_one_side_is_written),
        cmocka_unit_test(paths_are_joined_and_taken_apart),
        cmocka_unit_test_setup_teardown(a_power_cut_takes_what_was_not_flushed, set_up_memory, tear_down_memory),
        cmocka_unit_test_setup_teardown(a_power_cut_takes_renames_that_were_not_synced, set_up_memory, tear_down_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
