// An adoption and a release, killed before each of the steps that they take on the disk. Whoever opens the host next finishes or
// undoes it: the domain is what it was, or it is adopted, and whatever holds its disks then holds all of them. By default some
// steps, others with another RP_TEST_SEED; RP_TEST_ALL=1: all of them.
#include "../hostd/kill-steps.h"
#include "adopt-kit.h"
#include "host/adopt.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLS = 20, MOST_STEPS = 100000, LAST_STEPS = 30 };

static const char *const images[][3] = {{"raw", "images/root.raw", "images/root.vhdx"}, {"qcow2", "images/data.qcow2", "images/data.vhdx"},
                                        {"vhdx", "images/old.vhdx", "images/old.vhdx"}};

struct world {
    struct ak *ak;
    char *sums[3];  // of the disks
    bool release;
    bool refused;   // the release, because the hypervisor does not take the definition; it would later
    long *steps;
    int done, undone;
};

// Everything as it was when the template was made. Copies have the very times, but they are other files to the stamp of
// an image that was adopted: they get the stamps that they would have had.
static void reset(struct world *w)
{
    rp_host_close(w->ak->host);
    w->ak->host = NULL;
    ak_shell(w->ak, "rm -rf images hv host && cp -a template/images template/hv template/host .");
    for (size_t i = 0; w->release && i < 3; i++) {
        RP_AUTO_FREE char *path = kit_path("%s/%s", w->ak->folder, images[i][1]), *stamp = rp_adopt_stamp(path);
        ak_sql(w->ak, "UPDATE domain_disk SET stamp = '%s' WHERE source = '%s' AND stamp <> ''", stamp, path);
    }
}

static void check_sums(struct world *w, bool adopted, long at)
{
    for (size_t i = 0; i < 3; i++) {
        RP_AUTO_FREE char *sum = adopted ? ak_sum(w->ak, NULL, images[i][2]) : ak_sum(w->ak, images[i][0], images[i][1]);
        if (strcmp(sum, w->sums[i]))
            fail_msg("killed at step %ld: %s has another content", at, adopted ? images[i][2] : images[i][1]);
    }
}

// A release that has been decided, and whose host is opened first while the file system of the images is not mounted.
static void open_without_images(struct world *w)
{
    struct ak *ak = w->ak;
    RP_AUTO_FREE char *releasing = ak_output(ak, "python3 -c \"import sqlite3; print(sqlite3.connect('host/host.db').execute('SELECT count(*) FROM releasing').fetchone()[0])\"");
    if (!atoi(releasing))
        return;
    ak_shell(ak, "mv images mounted && mkdir images");
    ak_open(ak);
    ak_shell(ak, "rmdir images && mv mounted images");
}

// Each disk is whole in the VHDX of a VM that is there, or in the image that it was given back in, and there is nothing else.
static void check_refused(struct world *w, long at)
{
    static const char *const beside[] = {"images/root.qcow2", "images/data.qcow2", "images/old.qcow2"};
    struct ak *ak = w->ak;
    ak_shell(ak, "rm hv/fail/define.always"); // its cause has gone meanwhile
    ak_open(ak);
    bool vm = ak_has_vm(ak);
    RP_AUTO_FREE char *files = ak_output(ak, "ls -A images | grep -vE '(rct|mrt)$'");
    if (strcmp(files, vm ? "data.qcow2\ndata.vhdx\nold.vhdx\nroot.raw\nroot.vhdx\n" : "data.qcow2\nold.qcow2\nroot.qcow2\nroot.raw\n"))
        fail_msg("killed at step %ld: %s VM, with the files %s", at, vm ? "a" : "no", files);
    for (size_t i = 0; i < 3; i++) {
        RP_AUTO_FREE char *sum = vm ? ak_sum(ak, NULL, images[i][2]) : ak_sum(ak, "qcow2", beside[i]);
        if (strcmp(sum, w->sums[i]))
            fail_msg("killed at step %ld: %s has another content", at, vm ? images[i][2] : beside[i]);
    }
    vm ? w->undone++ : w->done++;
}

static void check(struct world *w, long at)
{
    struct ak *ak = w->ak;
    if (w->release)
        open_without_images(w);
    if (w->refused) {
        check_refused(w, at);
        return;
    }
    ak_open(ak);
    bool adopted = ak_has_vm(ak);
    RP_AUTO_FREE char *xml = ak_kept(ak), *folders = ak_output(ak, "ls -A host/vms | wc -l"), *files = ak_output(ak, "ls -A images");
    if (!xml)
        fail_msg("killed at step %ld: the domain is gone", at);
    if (adopted != (strstr(xml, "nbd.sock") != NULL) || adopted != (atoi(folders) == 1))
        fail_msg("killed at step %ld: %sadopted, folders %s, the definition is %s", at, adopted ? "" : "not ", folders, xml);
    if (!adopted && strcmp(xml, ak->xml))
        fail_msg("killed at step %ld: the definition is %s", at, xml);
    const char *expected = adopted ? "data.qcow2\ndata.vhdx\nold.vhdx\nroot.raw\nroot.vhdx\n" : "data.qcow2\nold.vhdx\nroot.raw\n";
    RP_AUTO_FREE char *seen = ak_output(ak, "ls -A images | grep -vE '(rct|mrt)$'"), *tracking = ak_output(ak, "ls -A images | grep -cE '(rct|mrt)$' || true");
    if (strcmp(seen, expected) || (!adopted && atoi(tracking)))
        fail_msg("killed at step %ld: %sadopted, with the files %s", at, adopted ? "" : "not ", files);
    check_sums(w, adopted, at);
    adopted ? w->done++ : w->undone++;
    // Whatever it is, the other way is open.
    kit_ok(adopted ? ak_release(ak, NULL) : ak_adopt(ak), ak->err);
    check_sums(w, !adopted, at);
}

static _Noreturn void live(struct world *w, int (*act)(struct world *w), long at)
{
    struct ak *ak = w->ak;
    ak_open(ak);
    kill_at_step(at);
    int failed = act(w);
    *w->steps = kill_never();
    if (failed)
        fprintf(stderr, "%s\n", ak->err.text);
    _exit(failed ? 1 : 0);
}

static bool kill_it(struct world *w, int (*act)(struct world *w), long at)
{
    int ended = 0;
    reset(w);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        alarm(60);
        live(w, act, at);
    }
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    bool killed = WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL;
    if (!killed && ended)
        fail_msg("to be killed at step %ld: ended with %x", at, (unsigned)ended);
    check(w, at);
    return killed;
}

static void try_all(struct world *w, int (*act)(struct world *w), const char *name)
{
    uint64_t random = kit_seed() * 0x9e3779b97f4a7c15ull | 1;
    rp_host_close(w->ak->host);
    w->ak->host = NULL;
    ak_shell(w->ak, "mkdir template && cp -a images hv host template");
    w->steps = mmap(NULL, sizeof *w->steps, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(w->steps != MAP_FAILED);
    assert_false(kill_it(w, act, MOST_STEPS)); // how many there are
    long stride = getenv("RP_TEST_ALL") ? 1 : *w->steps / KILLS + 1, kills = 0;
    long most = *w->steps;
    for (long at = 1 + (long)(kit_random(&random) % (uint64_t)stride); at <= most; at += stride)
        kills += kill_it(w, act, at);
    for (long at = most - LAST_STEPS; w->refused && at <= most; at++) // from before the decision to the way back
        kills += kill_it(w, act, at);
    print_message("# %s: %ld kills at %ld steps; adopted afterwards %d, not %d\n", name, kills, *w->steps, w->done, w->undone);
    assert_true(kills > 0 && w->done > 0 && w->undone > 0);
    munmap(w->steps, sizeof *w->steps);
    for (size_t i = 0; i < 3; i++)
        free(w->sums[i]);
    ak_open(w->ak);
}

static int adopt(struct world *w) { return ak_adopt(w->ak); }
static int release(struct world *w) { return ak_release(w->ak, NULL); }

static int release_refused(struct world *w)
{
    ak_shell(w->ak, "mkdir -p hv/fail; echo 'invalid the schema says no' >hv/fail/define.always");
    return ak_release(w->ak, "qcow2") && w->ak->err.code == RP_ERR_INVALID ? 0 : -1;
}

static void a_killed_adoption_has_been_or_has_not(void **state)
{
    struct world w = {.ak = *state};
    ak_web1(w.ak);
    for (size_t i = 0; i < 3; i++)
        w.sums[i] = ak_sum(w.ak, images[i][0], images[i][1]);
    try_all(&w, adopt, "adopt");
}

static void try_release(struct world w, int (*act)(struct world *w), const char *name)
{
    ak_web1(w.ak);
    kit_ok(ak_adopt(w.ak), w.ak->err);
    for (unsigned i = 0; i < 3; i++)
        ak_write(w.ak, i, RP_MIB, 65536, 60 + i);
    for (size_t i = 0; i < 3; i++)
        w.sums[i] = ak_sum(w.ak, NULL, images[i][2]);
    try_all(&w, act, name);
}

static void a_killed_release_has_been_or_has_not(void **state)
{
    try_release((struct world){.ak = *state, .release = true}, release, "release");
}

static void a_killed_release_whose_definition_is_refused_loses_nothing(void **state)
{
    try_release((struct world){.ak = *state, .release = true, .refused = true}, release_refused, "refused release");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest kills[] = {TEST(a_killed_adoption_has_been_or_has_not), TEST(a_killed_release_has_been_or_has_not),
                                       TEST(a_killed_release_whose_definition_is_refused_loses_nothing)};
    return cmocka_run_group_tests(kills, NULL, NULL);
}
