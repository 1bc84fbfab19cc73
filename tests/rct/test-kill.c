// A process that tracks is killed in the middle of marks, covers, flushes and seals, again and again; what it shared is
// adopted, and nothing is missing or too much.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "single.h"

enum { UNITS = 1 << 18, WRITERS = 2, ROUNDS = 40, LIFE = 20 }; // 16 GiB; LIFE: seconds after which a child ends by itself

// What the child says it does, in memory that outlives it.
struct diary {
    atomic_bool shared, sealing, sealed;
    _Atomic uint32_t marks;
    atomic_uchar before[UNITS], after[UNITS]; // set before a mark begins, and when it has returned
};

static struct diary *diary;
static char folder[64];
static struct disk disk;
static struct rp_gate *gate;
static atomic_bool stop;

static void die(const char *what, const struct rp_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    _exit(1);
}

static void *write_on(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument;
    struct rp_error err = {0};
    while (!atomic_load(&stop)) {
        uint64_t unit = test_random(&seed) % (UNITS - 2), count = 1 + test_random(&seed) % 2;
        unsigned token = rp_gate_enter(gate);
        while (!rp_rct_covered(disk.rct, unit * UNIT, count * UNIT)) {
            rp_gate_leave(gate, token);
            if (rp_rct_cover(disk.rct, unit * UNIT, count * UNIT, &err))
                die("cover", &err);
            token = rp_gate_enter(gate);
        }
        if (atomic_load(&stop)) { // sealed: from here on a child would be written
            rp_gate_leave(gate, token);
            break;
        }
        for (uint64_t i = unit; i < unit + count; i++)
            atomic_store(&diary->before[i], 1);
        rp_rct_mark(disk.rct, unit * UNIT, count * UNIT);
        for (uint64_t i = unit; i < unit + count; i++)
            atomic_store(&diary->after[i], 1);
        atomic_fetch_add(&diary->marks, 1);
        rp_gate_leave(gate, token);
    }
    return NULL;
}

static void change_guids(const struct rp_vhdx_session *session)
{
    disk.facts.file_write_guid = session->file_write_guid;
    disk.facts.data_write_guid = session->data_write_guid;
}

// A life of the service. It ends by a kill.
static void live(const struct rp_vhdx_session *session, uint64_t seed)
{
    struct rp_error err = {0};
    alarm(LIFE);
    gate = rp_gate_new();
    if (!(disk.rct = rp_rct_open_write(fs, disk.path, &disk.facts, session, NULL, &err)))
        die("open", &err);
    struct rp_shm *shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
    if (!shm || rp_rct_share(disk.rct, shm, &err))
        die("share", &err);
    change_guids(session);
    atomic_store(&diary->shared, true);
    pthread_t writers[WRITERS];
    for (uint64_t i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, write_on, (void *)(uintptr_t)(seed + i));
    for (unsigned n = seed % 60; n > 0; n--)
        if (rp_rct_flush(disk.rct, gate, &err))
            die("flush", &err);
    rp_gate_close(gate);
    atomic_store(&stop, true);
    atomic_store(&diary->sealing, true);
    rp_rct_seal(disk.rct);
    atomic_store(&diary->sealed, true);
    rp_gate_open(gate);
    for (uint64_t i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    if (seed % 2 && rp_rct_freeze(disk.rct, &disk.facts, &err))
        die("freeze", &err);
    for (;;)
        pause();
}

static bool exists(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return !access(path, F_OK);
}

static void adopt(bool again)
{
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_open(folder, "shm", &err);
    if (!shm)
        fail_msg("%s", err.text);
    for (int i = 0; i <= again; i++) {
        fake_disk_written(&disk.facts, NULL);
        if (rp_rct_adopt(fs, disk.path, &disk.facts, shm, &err))
            fail_msg("%s", err.text);
    }
    rp_shm_remove(shm);
}

static size_t compare(struct rp_rct *rct, const struct rp_rct_id *id)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    struct rp_error err = {0};
    if (rp_rct_query(&rct, 1, id, 0, (uint64_t)UNITS * UNIT, &found, &err))
        fail_msg("%s", err.text);
    size_t at = 0;
    for (uint64_t unit = 0; unit < UNITS; unit++) {
        while (at < found.count && found.items[at].offset + found.items[at].length <= unit * UNIT)
            at++;
        bool answered = at < found.count && found.items[at].offset <= unit * UNIT;
        if (atomic_load(&diary->after[unit]) && !answered)
            fail_msg("unit %llu was marked and is not reported", (unsigned long long)unit);
        if (answered && !atomic_load(&diary->before[unit]))
            fail_msg("unit %llu is reported and was never marked", (unsigned long long)unit);
    }
    return (size_t)(rp_ranges_total(&found) / UNIT);
}

// One life and death. Returns whether an epoch was sealed.
static bool round_of(uint64_t seed)
{
    struct rp_vhdx_session session = fake_session();
    atomic_store(&diary->shared, false);
    atomic_store(&diary->sealing, false);
    atomic_store(&diary->sealed, false);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child)
        live(&session, seed);
    uint64_t deadline = rp_clock_monotonic_ns() + (uint64_t)LIFE * 1000000000;
    while (!atomic_load(&diary->shared) && rp_clock_monotonic_ns() < deadline)
        usleep(100);
    usleep((useconds_t)(test_random(&seed) % 12000));
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    change_guids(&session);
    if (exists("shm"))
        adopt(seed % 3 == 0);
    else // it had frozen the file, and said so by removing the memory
        assert_true(atomic_load(&diary->sealed));
    return atomic_load(&diary->sealed);
}

static void make_disk(void)
{
    fs = rp_fs_posix();
    strcpy(folder, "/dev/shm/rct-kill-XXXXXX");
    assert_non_null(mkdtemp(folder));
    static char path[80];
    snprintf(path, sizeof path, "%s/d", folder);
    disk = new_disk(path);
    disk.facts.virtual_size = (uint64_t)UNITS * UNIT;
    diary = mmap(NULL, sizeof *diary, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(diary != MAP_FAILED);
}

static void remove_disk(void)
{
    rp_rct_remove(fs, disk.path, NULL);
    rp_shm_clean(folder);
    assert_int_not_equal(access(folder, F_OK), 0);
    munmap(diary, sizeof *diary);
}

static struct rp_rct_id first_id(void)
{
    open_disk(&disk);
    struct rp_rct_id id = rp_rct_seal(disk.rct);
    close_disk(&disk);
    return id;
}

static void killed_anywhere_nothing_is_missing_and_nothing_too_much(void **state)
{
    (void)state;
    make_disk();
    uint64_t seed = test_seed();
    struct rp_rct_id first = first_id(), last;
    unsigned seals = 0;
    size_t total = 0;
    for (int round = 0; round < ROUNDS; round++) {
        bool sealed = round_of(test_random(&seed));
        struct rp_error err = {0};
        struct rp_rct *rct = rp_rct_open_read(fs, disk.path, &disk.facts, &err);
        if (!rct)
            fail_msg("%s", err.text);
        total = compare(rct, &first);
        if (sealed) {
            assert_true(rp_rct_last_sealed(rct, &last));
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
            assert_int_equal(rp_rct_query(&rct, 1, &last, 0, (uint64_t)UNITS * UNIT, &found, NULL), 0);
            assert_int_equal(found.count, 0);
            assert_false(rp_rct_newer_changes(rct));
            seals++;
        }
        rp_rct_abandon(rct);
    }
    printf("# %d kills, %u after a seal; %u marks, %zu units\n", ROUNDS, seals, atomic_load(&diary->marks), total);
    assert_true(total > 0);
    remove_disk();
}

static void foreign_memory_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    make_disk();
    first_id();
    struct rp_error err = {0};
    for (int what = 0; what < 6; what++) {
        struct rp_shm *shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
        assert_non_null(shm);
        open_disk(&disk);
        struct rp_rct_id id = rp_rct_seal(disk.rct);
        close_disk(&disk);
        open_disk(&disk);
        rp_rct_mark(disk.rct, 0, 512);
        if (what) // else nothing was shared
            assert_int_equal(rp_rct_share(disk.rct, shm, NULL), 0);
        else
            rp_shm_close(shm);
        crash_disk(&disk);
        struct rp_rct_disk facts = disk.facts, other = disk.facts;
        if (what == 1)
            other.disk_id = rp_guid_new();
        if (what == 2)
            other.file_write_guid = rp_guid_new();
        if (what == 3)
            other.data_write_guid = rp_guid_new();
        if (what == 4) { // a session came between
            open_disk(&disk);
            crash_disk(&disk);
            facts = other = disk.facts;
        }
        if (what == 5) { // one that happened to have the same GUIDs
            struct rp_vhdx_session same = {facts.file_write_guid, facts.data_write_guid};
            rp_rct_abandon(rp_rct_open_write(fs, disk.path, &facts, &same, NULL, NULL));
        }
        assert_non_null(shm = rp_shm_open(folder, "shm", &err));
        assert_int_equal(rp_rct_adopt(fs, disk.path, &other, shm, &err), -1);
        assert_int_equal(err.code, RP_ERR_STATE);
        err.code = RP_OK;
        rp_shm_remove(shm);
        disk.facts = facts;
        assert_int_equal(open_disk(&disk), RP_RCT_UNCLEAN); // as a power cut
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
        assert_int_equal(rp_rct_query(&disk.rct, 1, &id, 0, (uint64_t)UNITS * UNIT, &found, NULL), 0);
        assert_int_equal(rp_ranges_total(&found), REGION * UNIT);
        close_disk(&disk);
    }
    remove_disk();
}

// Its child's session has the same tracking GUID, and another one for its disk.
static void the_memory_of_a_parent_is_none_of_its_child(void **state)
{
    (void)state;
    make_disk();
    struct rp_error err = {0};
    open_disk(&disk);
    struct rp_shm *shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
    assert_int_equal(rp_rct_share(disk.rct, shm, &err), 0);
    char path[100];
    snprintf(path, sizeof path, "%s/c", folder);
    struct rp_rct_disk child;
    fake_disk_new(&child, disk.facts.virtual_size, &disk.facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    struct rp_rct *rct = rp_rct_prepare_child(disk.rct, path, &child, &session, &err);
    assert_non_null(rct);
    rp_rct_abandon(rct);
    rp_rct_seal(disk.rct); // the child's epoch now
    crash_disk(&disk);
    assert_non_null(shm = rp_shm_open(folder, "shm", &err));
    fake_disk_written(&child, &session);
    assert_int_equal(rp_rct_adopt(fs, path, &child, shm, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    assert_int_equal(rp_rct_adopt(fs, disk.path, &disk.facts, shm, NULL), 0);
    rp_shm_remove(shm);
    rp_rct_remove(fs, path, NULL);
    remove_disk();
}

// A tmpfs that is full (the linker puts this in between, see meson.build).
static bool no_memory;
int __real_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err);
int __wrap_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err);
int __wrap_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err)
{
    return no_memory ? rp_fail(err, RP_ERR_NO_SPACE, "no memory") : __real_rp_shm_reserve(shm, offset, length, err);
}

// The memory of the machine is used up: marks go on, and a kill counts as a power cut where memory was missing.
static void without_memory_a_kill_counts_as_a_power_cut(void **state)
{
    (void)state;
    make_disk();
    struct rp_rct_id id = first_id();
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
    open_disk(&disk);
    assert_int_equal(rp_rct_share(disk.rct, shm, &err), 0);
    rp_rct_mark(disk.rct, 0, 512);
    assert_int_equal(rp_rct_cover(disk.rct, (uint64_t)(UNITS - 1) * UNIT, 512, &err), 0);
    no_memory = true;
    rp_rct_mark(disk.rct, (uint64_t)(UNITS - 1) * UNIT, 512);
    no_memory = false;
    crash_disk(&disk);
    assert_non_null(shm = rp_shm_open(folder, "shm", &err));
    fake_disk_written(&disk.facts, NULL);
    if (rp_rct_adopt(fs, disk.path, &disk.facts, shm, &err))
        fail_msg("%s", err.text);
    rp_shm_remove(shm);
    assert_non_null(disk.rct = rp_rct_open_read(fs, disk.path, &disk.facts, &err));
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    assert_int_equal(rp_rct_query(&disk.rct, 1, &id, 0, (uint64_t)UNITS * UNIT, &found, NULL), 0);
    assert_int_equal(rp_ranges_total(&found), 2 * REGION * UNIT);
    rp_rct_abandon(disk.rct);

    // Not even enough to begin: the session goes on unshared.
    open_disk(&disk);
    shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
    no_memory = true;
    assert_int_equal(rp_rct_share(disk.rct, shm, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    no_memory = false;
    rp_shm_remove(shm);
    rp_rct_mark(disk.rct, 0, 512);
    close_disk(&disk);
    remove_disk();
}

// The leaf was merged, in the pause, into a parent for whose new marks there was no memory. The regions of the parent do not
// have them, and the guest went on in it.
static void without_memory_in_the_pause_of_a_merge_a_kill_makes_everything_count(void **state)
{
    (void)state;
    make_disk();
    struct rp_error err = {0};
    open_disk(&disk);
    char path[100];
    snprintf(path, sizeof path, "%s/c", folder);
    struct rp_rct_disk facts;
    fake_disk_new(&facts, disk.facts.virtual_size, &disk.facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    struct rp_rct *child = rp_rct_prepare_child(disk.rct, path, &facts, &session, &err);
    assert_non_null(child);
    struct rp_rct_id id = rp_rct_seal(disk.rct);
    fake_disk_written(&disk.facts, NULL);
    assert_int_equal(rp_rct_freeze(disk.rct, &disk.facts, &err), 0);
    fake_disk_written(&facts, &session);

    session = fake_session();
    assert_int_equal(rp_rct_prepare_merge(child, disk.rct, &disk.facts, &session, &err), 0);
    struct rp_shm *shm = rp_shm_create(folder, "shm", rp_rct_shm_size(), &err);
    assert_int_equal(rp_rct_share(disk.rct, shm, &err), 0);
    assert_int_equal(rp_rct_ready_merge(disk.rct, &err), 0);
    assert_int_equal(rp_rct_cover(child, (uint64_t)(UNITS - 1) * UNIT, 512, &err), 0);
    rp_rct_mark(child, (uint64_t)(UNITS - 1) * UNIT, 512);
    no_memory = true;
    rp_rct_finish_merge(child, disk.rct);
    no_memory = false;
    rp_rct_abandon(child);
    rp_rct_abandon(disk.rct);

    change_guids(&session);
    adopt(false);
    open_disk(&disk);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    assert_int_equal(rp_rct_query(&disk.rct, 1, &id, 0, (uint64_t)UNITS * UNIT, &found, &err), 0);
    assert_int_equal(rp_ranges_total(&found), (uint64_t)UNITS * UNIT);
    close_disk(&disk);
    rp_rct_remove(fs, path, NULL);
    remove_disk();
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_anywhere_nothing_is_missing_and_nothing_too_much),
        cmocka_unit_test(foreign_memory_is_refused_and_changes_nothing),
        cmocka_unit_test(the_memory_of_a_parent_is_none_of_its_child),
        cmocka_unit_test(without_memory_a_kill_counts_as_a_power_cut),
        cmocka_unit_test(without_memory_in_the_pause_of_a_merge_a_kill_makes_everything_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
