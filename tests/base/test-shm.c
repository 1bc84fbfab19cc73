// Shared memory that outlives its process.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/buf.h"
#include "io/shm.h"

enum { SIZE = 64 << 20 };

static int setup(void **state)
{
    char *folder = rp_xstrdup("/dev/shm/refpoint-test-XXXXXX");
    *state = folder;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    rp_shm_clean(*state);
    struct stat st;
    int left = stat(*state, &st) == 0;
    free(*state);
    return left;
}

static void what_a_killed_process_wrote_is_there_for_the_next_one(void **state)
{
    struct rp_error err = {0};
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        struct rp_shm *shm = rp_shm_create(*state, "a", SIZE, NULL);
        if (!shm || rp_shm_reserve(shm, 1 << 20, 4096, NULL))
            _exit(1);
        strcpy((char *)rp_shm_data(shm) + (1 << 20), "acknowledged");
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    char x;
    assert_int_equal(read(ready[0], &x, 1), 1);
    assert_null(rp_shm_open(*state, "a", &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    err = (struct rp_error){0};
    assert_null(rp_shm_create(*state, "a", SIZE, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct rp_shm *shm = rp_shm_open(*state, "a", &err);
    assert_non_null(shm);
    assert_int_equal(rp_shm_size(shm), SIZE);
    assert_true(rp_shm_has(shm, 0, SIZE));
    assert_false(rp_shm_has(shm, 0, 1 << 20));
    assert_string_equal((char *)rp_shm_data(shm) + (1 << 20), "acknowledged");
    rp_shm_remove(shm);
    err = (struct rp_error){0};
    assert_null(rp_shm_open(*state, "a", &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    close(ready[0]);
    close(ready[1]);
}

static void created_again_it_is_empty(void **state)
{
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_create(*state, "b", SIZE, &err);
    assert_non_null(shm);
    assert_int_equal(rp_shm_reserve(shm, 0, SIZE / 2, &err), 0);
    memset(rp_shm_data(shm), 7, 4096);
    rp_shm_close(shm);
    shm = rp_shm_create(*state, "b", SIZE, &err);
    assert_non_null(shm);
    assert_false(rp_shm_has(shm, 0, SIZE));
    assert_int_equal(rp_shm_reserve(shm, 0, 4096, &err), 0);
    assert_int_equal(*(char *)rp_shm_data(shm), 0);
    assert_int_equal(rp_shm_reserve(shm, SIZE - 1, 2, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_shm_close(shm);
}

static void more_than_tmpfs_has_is_no_space_and_not_a_signal(void **state)
{
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_create(*state, "c", (size_t)1 << 46, &err);
    assert_non_null(shm);
    assert_int_equal(rp_shm_reserve(shm, 0, (size_t)1 << 46, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    assert_false(rp_shm_has(shm, 0, SIZE));
    rp_shm_close(shm);
}

static void a_folder_has_one_place_and_a_file_on_a_disk_is_refused(void **state)
{
    struct rp_error err = {0};
    char *one = rp_shm_directory("/usr", &err), *same = rp_shm_directory("/usr/", &err), *other = rp_shm_directory(*state, &err);
    assert_string_equal(one, same);
    assert_string_not_equal(one, other);
    struct stat made;
    assert_int_equal(stat(other, &made), -1); // asking makes nothing
    assert_int_equal(rp_shm_make(other, *state, &err) || rp_shm_make(other, *state, &err) || stat(other, &made), 0);
    assert_int_equal(made.st_mode & 07777, 0700);
    rp_shm_clean(other);
    assert_int_equal(stat(other, &made), -1);
    free(one);
    free(same);
    free(other);
    char folder[] = "/tmp/refpoint-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct stat tmp, shm;
    assert_int_equal(stat(folder, &tmp) || stat("/dev/shm", &shm), 0);
    struct rp_shm *there = rp_shm_create(folder, "d", 4096, &err);
    RP_AUTO_FREE char *file = rp_xasprintf("%s/d", folder);
    unlink(file);
    rmdir(folder);
    if (there) // /tmp is a tmpfs here
        rp_shm_close(there);
    else
        assert_int_equal(err.code, RP_ERR_UNSUPPORTED);
}

// ---- what is left for folders that have been deleted

enum kept { GONE, GONE_AND_MADE_AGAIN, GONE_WHILE_IN_USE, RENAMED, THERE, WITHOUT_A_NOTE, KEPT };
static const char *const kept_names[KEPT] = {"gone", "again", "in-use", "renamed", "there", "unknown"};

static char *in(const char *folder, const char *name) { return rp_xasprintf("%s/%s", folder, name); }

static bool is_there(const char *folder, const char *name)
{
    RP_AUTO_FREE char *path = in(folder, name);
    struct stat st;
    return !lstat(path, &st);
}

// Where a file system can be asked for what a handle names, and we may.
static bool can_ask(const char *folder)
{
    RP_AUTO_FREE struct file_handle *handle = rp_xcalloc(1, sizeof *handle + MAX_HANDLE_SZ);
    handle->handle_bytes = MAX_HANDLE_SZ;
    int mount;
    RP_AUTO_FD int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || name_to_handle_at(AT_FDCWD, folder, handle, &mount, 0))
        return false;
    RP_AUTO_FD int found = open_by_handle_at(fd, handle, O_PATH | O_CLOEXEC);
    return found >= 0;
}

static void only_what_is_left_for_a_deleted_folder_is_swept(void **state)
{
    char folder[] = "/tmp/refpoint-test-XXXXXX";
    struct rp_shm *used = NULL;
    assert_non_null(mkdtemp(folder));
    bool can = can_ask(folder);
    if (!can)
        printf("# nobody tells here whether a folder was deleted: nothing may be swept\n");
    for (int i = 0; i < KEPT; i++) {
        RP_AUTO_FREE char *one = in(folder, kept_names[i]), *shm = in(*state, kept_names[i]);
        struct rp_error err = {0};
        assert_int_equal(mkdir(one, 0700), 0);
        if (i == WITHOUT_A_NOTE ? mkdir(shm, 0700) : rp_shm_make(shm, one, &err))
            fail_msg("%s", err.text);
        struct rp_shm *left = rp_shm_create(shm, "left", 4096, &err);
        assert_non_null(left);
        if (i == GONE_WHILE_IN_USE)
            used = left;
        else
            rp_shm_close(left);
        RP_AUTO_FREE char *elsewhere = in(folder, "elsewhere");
        if (i == RENAMED)
            assert_int_equal(rename(one, elsewhere), 0);
        else if (i != THERE)
            assert_int_equal(rmdir(one), 0);
        if (i == GONE_AND_MADE_AGAIN) // some file systems give it the number of the one before
            assert_int_equal(mkdir(one, 0700), 0);
    }
    RP_AUTO_FREE char *beside = in(*state, "beside");
    for (int twice = 0; twice < 2; twice++)
        rp_shm_sweep(beside); // which need not be there
    for (int i = 0; i < KEPT; i++)
        if (is_there(*state, kept_names[i]) == (can && i <= GONE_AND_MADE_AGAIN))
            fail_msg("%s is %s", kept_names[i], can && i <= GONE_AND_MADE_AGAIN ? "still there" : "gone");
    RP_AUTO_FREE char *in_use = in(*state, kept_names[GONE_WHILE_IN_USE]);
    assert_true(is_there(in_use, "left"));
    rp_shm_close(used);
    rp_shm_sweep(beside);
    assert_int_equal(is_there(*state, kept_names[GONE_WHILE_IN_USE]), !can);
    for (int i = 0; i < KEPT; i++) {
        RP_AUTO_FREE char *one = in(folder, i == RENAMED ? "elsewhere" : kept_names[i]), *shm = in(*state, kept_names[i]);
        rmdir(one);
        rp_shm_clean(shm);
        assert_false(is_there(*state, kept_names[i]));
    }
    assert_int_equal(rmdir(folder), 0);
}

// The linker leads here: so many calls find a signal that is pending, as under SIGSTOP and SIGCONT or a debugger.
static int signals;
int __real_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length)
{
    if (!signals)
        return __real_fallocate64(fd, mode, offset, length);
    signals--;
    errno = EINTR;
    return -1;
}

static void a_signal_is_no_reason_to_go_without_memory(void **state)
{
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_create(*state, "one", SIZE, &err);
    assert_non_null(shm);
    signals = 3;
    if (rp_shm_reserve(shm, 0, 8192, &err))
        fail_msg("%s", err.text);
    assert_int_equal(signals, 0);
    rp_shm_close(shm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_killed_process_wrote_is_there_for_the_next_one, setup, teardown),
        cmocka_unit_test_setup_teardown(created_again_it_is_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_is_no_reason_to_go_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(more_than_tmpfs_has_is_no_space_and_not_a_signal, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_has_one_place_and_a_file_on_a_disk_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_what_is_left_for_a_deleted_folder_is_swept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
