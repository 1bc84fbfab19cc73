// The recorder and the model of a power cut, on programs whose every step is known. The test runs itself as the recorded
// program: test-record --play SCRIPT FOLDER.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tree.h"

// ---- recorded programs ----------------------------------------------------------------------------------------------

static void need(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}
#define NEED(call) need((call), #call)

static void play_file(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0600), dir = open(".", O_RDONLY | O_DIRECTORY);
    NEED(fd >= 0 && dir >= 0 && pwrite(fd, "durable", 7, 0) == 7 && !fsync(fd) && !fsync(dir));
    NEED(pwrite(fd, "LOST", 4, 3) == 4);
}

// Ends with the number of syncs that failed.
static void play_tries(void)
{
    int fd = open("t", O_RDWR | O_CREAT, 0600), failed = 0;
    for (int i = 0; i < 4; i++) {
        NEED(write(fd, "1", 1) == 1);
        failed += fdatasync(fd) != 0;
        NEED(!failed || errno == EIO);
    }
    exit(failed);
}

static void play_names(void)
{
    int dir = open(".", O_RDONLY | O_DIRECTORY), fd = open("old", O_RDWR | O_CREAT, 0600);
    NEED(write(fd, "1", 1) == 1 && !fsync(fd) && !fsync(dir) && !rename("old", "new") && !mkdir("folder", 0700));
    fd = open("folder/x", O_RDWR | O_CREAT | O_EXCL, 0600);
    NEED(fd >= 0 && write(fd, "2", 1) == 1 && !unlink("new"));
}

static void play_sectors(void)
{
    static char data[8192];
    int fd = open("s", O_RDWR | O_CREAT, 0600), dir = open(".", O_RDONLY | O_DIRECTORY);
    NEED(pwrite(fd, data, sizeof data, 0) == sizeof data && !fsync(fd) && !fsync(dir));
    memset(data, 'x', sizeof data);
    NEED(pwrite(fd, data, sizeof data, 0) == sizeof data);
}

// A write of whole sectors, which is cut short.
static void play_short_write(size_t size)
{
    char data[1536];
    int fd = open("short", O_RDWR | O_CREAT, 0600);
    memset(data, 'x', sizeof data);
    NEED(pwrite(fd, data, size, 0) == 512);
}

// Everything that the recorder covers.
static void *write_much(void *name)
{
    char data[3000];
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    for (unsigned i = 0; i < 200; i++) {
        memset(data, (int)(i + *(char *)name), sizeof data);
        NEED(pwrite(fd, data, 1 + i * 7 % sizeof data, (off_t)(i * 1013 % 100000)) > 0);
    }
    close(fd);
    return NULL;
}
static void play_all(void)
{
    pthread_t threads[4];
    char names[4][8];
    for (int i = 0; i < 4; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        pthread_create(&threads[i], NULL, write_much, names[i]);
    }
    struct iovec parts[2] = {{"left", 4}, {"right", 5}};
    int fd = openat(AT_FDCWD, "all", O_RDWR | O_CREAT | O_TRUNC, 0600), other, socket_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    NEED(write(fd, "abc", 3) == 3 && write(fd, "def", 3) == 3 && writev(fd, parts, 2) == 9 && pwritev(fd, parts, 2, 100) == 9);
    NEED(!fallocate(fd, 0, 0, 20000) && !ftruncate(fd, 30000) && !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 50));
    NEED(!posix_fallocate(fd, 0, 40000) && pwrite(fd, "end", 3, 39999) == 3 && !ftruncate(fd, 40001) && !fdatasync(fd));
    other = open("copy", O_RDWR | O_CREAT, 0600);
    off_t from = 2, to = 5;
    NEED(copy_file_range(fd, &from, other, &to, 1000, 0) == 1000);
    close(other);
    other = open("copy", O_WRONLY | O_APPEND);
    NEED(write(other, "tail", 4) == 4 && !link("copy", "copy2") && !mkdir("d", 0700) && !mkdirat(AT_FDCWD, "d/e/", 0700));
    NEED(!rename("copy", "d/e/moved") && !renameat2(AT_FDCWD, "copy2", AT_FDCWD, "third", RENAME_NOREPLACE));
    NEED(!mkdir("gone", 0700) && !rmdir("gone"));
    other = creat("short", 0600);
    NEED(write(other, "123", 3) == 3 && !unlink("short") && write(other, "456", 3) == 3); // written to, without a name
    other = open("all2", O_WRONLY | O_CREAT, 0600);
    NEED(write(other, "old content", 11) == 11);
    close(other);
    other = open("all2", O_WRONLY | O_TRUNC);
    NEED(write(other, "new", 3) == 3);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "d/socket"};
    NEED(!bind(socket_fd, (struct sockaddr *)&address, sizeof address));
    pid_t pid = fork();
    if (pid == 0) {
        NEED(write(fd, "of a child", 10) == 10);
        _exit(0);
    }
    NEED(waitpid(pid, NULL, 0) == pid);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void play_mapped(void)
{
    int fd = open("m", O_RDWR | O_CREAT, 0600);
    NEED(!ftruncate(fd, 4096));
    NEED(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
}

static int play(const char *script, const char *folder)
{
    NEED(!chdir(folder));
    if (!strcmp(script, "file"))
        play_file();
    else if (!strcmp(script, "tries"))
        play_tries();
    else if (!strcmp(script, "names"))
        play_names();
    else if (!strcmp(script, "three sectors"))
        play_short_write(1536);
    else if (!strcmp(script, "one sector"))
        play_short_write(512);
    else if (!strcmp(script, "sectors"))
        play_sectors();
    else if (!strcmp(script, "all"))
        play_all();
    else
        play_mapped();
    return 0;
}

// ---- the tests ------------------------------------------------------------------------------------------------------

static const char *self, *recorder;

struct stage {
    char folder[64], root[80], built[80], log_path[80];
    struct log log;
    int status;
};

static void set(struct stage *s)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(s->folder, sizeof s->folder, "%.30s/record.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->root, sizeof s->root, "%s/root", s->folder);
    snprintf(s->built, sizeof s->built, "%s/built", s->folder);
    snprintf(s->log_path, sizeof s->log_path, "%s/log", s->folder);
    assert_int_equal(mkdir(s->root, 0700) | mkdir(s->built, 0700), 0);
    assert_int_equal(log_create(&s->log, s->log_path, s->root, 100000, 64 << 20), 0);
}

static void run(struct stage *s, const char *script)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("LD_PRELOAD", recorder, 1);
        setenv("RECORD_LOG", s->log_path, 1);
        alarm(30);
        execl(self, self, "--play", script, s->root, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &s->status, 0), pid);
    while (waitpid(-1, NULL, 0) > 0) // its own child lives on when it is killed, and writes
        ;
    if (WIFSIGNALED(s->status))
        assert_int_equal(log_mend(&s->log), 0);
}

static void strike(struct stage *s)
{
    char command[200];
    log_close(&s->log);
    snprintf(command, sizeof command, "rm -rf '%s'", s->folder);
    assert_int_equal(system(command), 0);
}

static void build(struct stage *s, struct cut cut)
{
    struct tree *tree = tree_new(&s->log);
    tree_advance(tree, cut.at);
    assert_int_equal(tree_build(tree, &cut, s->built, NULL), 0);
    tree_free(tree);
}

// The content of a file of the built folder; "-" when there is none.
static const char *built(struct stage *s, const char *name)
{
    static char data[65536];
    char path[200];
    snprintf(path, sizeof path, "%s/%s", s->built, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return "-";
    ssize_t n = read(fd, data, sizeof data - 1);
    data[n > 0 ? n : 0] = 0;
    close(fd);
    return data;
}

static bool same_folders(struct stage *s)
{
    char command[400];
    snprintf(command, sizeof command, "cd '%s' && diff -r --no-dereference -x socket root built && (cd root && find . | sort) >1 && (cd built && find . | sort) >2 && cmp 1 2",
             s->folder);
    return system(command) == 0;
}

static void a_log_replayed_to_its_end_is_the_folder(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "all");
    assert_int_equal(s.status, 0);
    build(&s, (struct cut){log_count(&s.log), CUT_ALL, 0});
    assert_true(same_folders(&s));
    assert_false(atomic_load(&s.log.header->mapped));
    strike(&s);
}

static void what_was_not_synced_can_be_lost_and_what_was_is_not(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "file");
    assert_int_equal(s.status, 0);
    uint64_t end = log_count(&s.log);
    build(&s, (struct cut){end, CUT_SYNCED, 0});
    assert_string_equal(built(&s, "a"), "durable");
    build(&s, (struct cut){end, CUT_ALL, 0});
    assert_string_equal(built(&s, "a"), "durLOST");
    bool with = false, without = false;
    for (uint64_t seed = 0; seed < 64; seed++) {
        build(&s, (struct cut){end, seed % 2 ? CUT_LOOSE : CUT_ORDERED, seed});
        with |= !strcmp(built(&s, "a"), "durLOST");
        without |= !strcmp(built(&s, "a"), "durable");
        assert_true(!strncmp(built(&s, "a"), "dur", 3));
    }
    assert_true(with && without);
    // before the folder was synced, the file may not be there at all; before its own sync, it may be empty
    bool absent = false, empty = false;
    for (uint64_t at = 0; at < end; at++)
        for (uint64_t seed = 0; seed < 16; seed++) {
            build(&s, (struct cut){at, CUT_LOOSE, seed});
            absent |= !strcmp(built(&s, "a"), "-");
            empty |= !strcmp(built(&s, "a"), "");
        }
    assert_true(absent && empty);
    strike(&s);
}

static void names_survive_in_order_or_each_for_itself(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "names");
    assert_int_equal(s.status, 0);
    uint64_t end = log_count(&s.log);
    build(&s, (struct cut){end, CUT_SYNCED, 0});
    assert_string_equal(built(&s, "old"), "1");
    build(&s, (struct cut){end, CUT_ALL, 0});
    assert_string_equal(built(&s, "new"), "-");
    assert_string_equal(built(&s, "folder/x"), "2");
    bool torn = false;
    for (uint64_t seed = 0; seed < 200; seed++) {
        build(&s, (struct cut){end, CUT_ORDERED, seed});
        bool old = strcmp(built(&s, "old"), "-") != 0, new = strcmp(built(&s, "new"), "-") != 0, inside = strcmp(built(&s, "folder/x"), "-") != 0;
        assert_false(old && new);                 // a rename is one thing
        assert_false(inside && old);              // and came before what came later
        assert_true(old || new || inside);        // unlinked last
        build(&s, (struct cut){end, CUT_LOOSE, seed});
        torn |= strcmp(built(&s, "old"), "-") && strcmp(built(&s, "new"), "-");
    }
    assert_true(torn);
    strike(&s);
}

static void a_write_is_torn_at_sectors(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "sectors");
    assert_int_equal(s.status, 0);
    unsigned mixed = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        build(&s, (struct cut){log_count(&s.log), CUT_LOOSE, seed});
        char path[200], data[8192];
        snprintf(path, sizeof path, "%s/s", s.built);
        int fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, data, sizeof data), sizeof data);
        close(fd);
        unsigned changed = 0;
        for (size_t i = 0; i < sizeof data; i += 512) {
            for (size_t k = 1; k < 512; k++)
                assert_int_equal(data[i + k], data[i]);
            changed += data[i] == 'x';
        }
        mixed += changed > 0 && changed < 16;
    }
    assert_in_range(mixed, 5, 100);
    strike(&s);
}

static void a_sync_that_is_forgotten_is_missed(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "file");
    uint64_t end = log_count(&s.log), sync = 0;
    while (log_kind(&s.log, sync) != LOG_SYNC)
        sync++;
    struct cut cut = {end, CUT_SYNCED, 0};
    struct tree *tree = tree_new(&s.log);
    tree_forget_syncs(tree, sync, NULL);
    tree_advance(tree, end);
    assert_int_equal(tree_build(tree, &cut, s.built, NULL), 0);
    assert_string_equal(built(&s, "a"), ""); // its name was synced, its content was not
    tree_free(tree);
    tree = tree_new(&s.log);
    tree_forget_syncs(tree, UINT64_MAX, "root");
    tree_advance(tree, end);
    assert_int_equal(tree_build(tree, &cut, s.built, NULL), 0);
    tree_free(tree);
    strike(&s);
}

static void a_program_is_killed_at_any_call_and_the_log_stays_right(void **state)
{
    (void)state;
    static const enum log_fault kinds[] = {FAULT_KILL_BEFORE, FAULT_KILL_AFTER, FAULT_KILL_WITHIN};
    unsigned killed = 0;
    for (int64_t n = 1; n < 60; n++) {
        struct stage s;
        set(&s);
        atomic_store(&s.log.header->fault_countdown, n * 13);
        atomic_store(&s.log.header->fault, kinds[n % 3]);
        run(&s, "all");
        killed += WIFSIGNALED(s.status);
        build(&s, (struct cut){log_count(&s.log), CUT_ALL, 0});
        assert_true(same_folders(&s));
        strike(&s);
    }
    assert_in_range(killed, 40, 59);
}

static uint64_t append_as(struct stage *s, uint32_t pid, enum log_kind kind, struct log_entry entry, const char *data)
{
    if (data)
        memcpy(log_reserve(&s->log, strlen(data) + 1, &entry.data), data, strlen(data) + 1);
    uint64_t index = log_append(&s->log, kind, &entry);
    s->log.entries[index].pid = pid;
    return index;
}

// A service is killed in a write; the next one takes the file over and syncs it; only then it is found out what was done.
static void what_a_killed_process_did_not_do_is_not_there_after_the_next_one_has_synced_the_file(void **state)
{
    (void)state;
    for (unsigned done = 0; done < 2; done++) {
        struct stage s;
        set(&s);
        uint64_t root = s.log.header->root_inode;
        append_as(&s, 1, LOG_CREATE, (struct log_entry){.inode = 7, .directory = root}, "a");
        uint64_t write = append_as(&s, 1, LOG_WRITE, (struct log_entry){.inode = 7, .length = 4}, "late");
        for (unsigned i = 0; i < 2; i++) { // the folder, and the file
            uint64_t sync = append_as(&s, 2, LOG_SYNC, (struct log_entry){.inode = i ? 7 : root, .length = 1}, NULL);
            append_as(&s, 2, LOG_SYNC_END, (struct log_entry){.inode = i ? 7 : root, .other = sync}, NULL);
        }
        uint64_t cut = log_count(&s.log);
        append_as(&s, 3, LOG_END, (struct log_entry){.inode = 7, .other = write}, NULL);
        if (done) {
            uint64_t found = append_as(&s, 3, LOG_WRITE, (struct log_entry){.inode = 7, .length = 4}, "late");
            append_as(&s, 3, LOG_END, (struct log_entry){.inode = 7, .other = found, .length = 4}, NULL);
        }
        for (enum cut_mode mode = CUT_SYNCED; mode <= CUT_LOOSE; mode++)
            for (uint64_t seed = 0; seed < 32; seed++) {
                build(&s, (struct cut){cut, mode, seed});
                assert_string_equal(built(&s, "a"), done ? "late" : "");
            }
        strike(&s);
    }
}

static void a_call_fails_or_is_cut_short_on_demand(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    atomic_store(&s.log.header->fault_countdown, 2); // create, then write
    atomic_store(&s.log.header->fault_errno, ENOSPC);
    atomic_store(&s.log.header->fault, FAULT_ERROR);
    run(&s, "file");
    assert_int_equal(WEXITSTATUS(s.status), 1);
    build(&s, (struct cut){log_count(&s.log), CUT_ALL, 0});
    assert_string_equal(built(&s, "a"), "");
    assert_int_equal(atomic_load(&s.log.header->faults), 1);
    strike(&s);
    set(&s);
    atomic_store(&s.log.header->fault_countdown, 2);
    atomic_store(&s.log.header->fault, FAULT_SHORT);
    run(&s, "file");
    build(&s, (struct cut){log_count(&s.log), CUT_ALL, 0});
    assert_string_equal(built(&s, "a"), "dur");
    strike(&s);
    for (unsigned one = 0; one < 2; one++) { // of whole sectors: no half of one
        set(&s);
        atomic_store(&s.log.header->fault_countdown, 2);
        atomic_store(&s.log.header->fault, FAULT_SHORT);
        run(&s, one ? "one sector" : "three sectors");
        assert_int_equal(s.status, 0);
        assert_int_equal(atomic_load(&s.log.header->faults), one ? 0 : 1); // of one sector nothing is cut off
        strike(&s);
    }
}

static void a_sync_fails_on_demand_and_some_after_it_and_makes_nothing_durable(void **state)
{
    (void)state;
    for (unsigned lasts = 0; lasts < 4; lasts++) {
        struct stage s;
        unsigned failed = lasts < 2 ? 1 + lasts : 3, synced = 0;
        set(&s);
        atomic_store(&s.log.header->fault_countdown, 2); // of four
        atomic_store(&s.log.header->fault_errno, EIO);
        atomic_store(&s.log.header->fault_lasts, lasts);
        atomic_store(&s.log.header->fault, FAULT_SYNC);
        run(&s, "tries");
        assert_int_equal(WEXITSTATUS(s.status), failed);
        assert_int_equal(atomic_load(&s.log.header->faults), failed);
        for (uint64_t i = 0; i < log_count(&s.log); i++)
            synced += log_kind(&s.log, i) == LOG_SYNC_END;
        assert_int_equal(synced, 4 - failed);
        strike(&s);
    }
}

static void a_file_that_is_mapped_for_writing_is_told(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "mapped");
    assert_int_equal(s.status, 0);
    assert_true(atomic_load(&s.log.header->mapped));
    strike(&s);
}

static void built_files_show_the_inode_and_times_that_the_program_saw(void **state)
{
    struct stage s;
    (void)state;
    set(&s);
    run(&s, "file");
    char real[200], path[200], table[200];
    struct stat st, now;
    snprintf(real, sizeof real, "%s/a", s.root);
    snprintf(path, sizeof path, "%s/a", s.built);
    snprintf(table, sizeof table, "%s/times", s.folder);
    assert_int_equal(stat(real, &st), 0);
    struct times *times = times_open(table);
    struct tree *tree = tree_new(&s.log);
    tree_advance(tree, log_count(&s.log));
    assert_int_equal(tree_build(tree, &(struct cut){log_count(&s.log), CUT_ALL, 0}, s.built, times), 0);
    tree_free(tree);
    times_show(times);
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_ino, st.st_ino);
    assert_int_equal(now.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
    assert_int_equal(now.st_ctim.tv_nsec, st.st_ctim.tv_nsec);
    int fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, "!", 1), 1);
    assert_int_equal(fstat(fd, &now), 0);
    close(fd);
    assert_int_equal(now.st_ino, st.st_ino);
    assert_int_not_equal(now.st_ctim.tv_nsec, st.st_ctim.tv_nsec);
    times_show(NULL);
    times_close(times);
    strike(&s);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--play"))
        return play(argv[2], argv[3]);
    self = argv[0];
    recorder = argv[1];
    prctl(PR_SET_CHILD_SUBREAPER, 1); // for run() to wait for all
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_replayed_to_its_end_is_the_folder),
        cmocka_unit_test(what_was_not_synced_can_be_lost_and_what_was_is_not),
        cmocka_unit_test(names_survive_in_order_or_each_for_itself),
        cmocka_unit_test(a_write_is_torn_at_sectors),
        cmocka_unit_test(a_sync_that_is_forgotten_is_missed),
        cmocka_unit_test(a_program_is_killed_at_any_call_and_the_log_stays_right),
        cmocka_unit_test(what_a_killed_process_did_not_do_is_not_there_after_the_next_one_has_synced_the_file),
        cmocka_unit_test(a_call_fails_or_is_cut_short_on_demand),
        cmocka_unit_test(a_sync_fails_on_demand_and_some_after_it_and_makes_nothing_durable),
        cmocka_unit_test(a_file_that_is_mapped_for_writing_is_told),
        cmocka_unit_test(built_files_show_the_inode_and_times_that_the_program_saw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
