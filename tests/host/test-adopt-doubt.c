// An adoption that finds things otherwise than they were: files of another disk, links, images that were written to or are not
// there, what a killed one has left. The domain has the newest of its disks in the end, and nobody else's file is touched.
#include "adopt-kit.h"

#include <unistd.h>

#define ORIGINALS "data.qcow2\nold.vhdx\nroot.raw\n"

static char *vm_folders(struct ak *ak) { return ak_output(ak, "ls -A host/vms | wc -l"); }

static void check_undone(struct ak *ak, const char *files)
{
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup(files), ak_output(ak, "ls -A images"));
    assert_same(rp_xstrdup("0\n"), vm_folders(ak));
}

// While the first image is copied, the shell runs the command.
static int run_once(void *context, uint64_t done, uint64_t total)
{
    const char **command = ((void **)context)[1];
    (void)done, (void)total;
    if (*command)
        ak_shell(((void **)context)[0], "%s", *command);
    *command = NULL;
    return 0;
}

static int adopt_while(struct ak *ak, const char *command)
{
    void *context[] = {ak, &command};
    ak->host->progress = run_once;
    ak->host->progress_context = context;
    int failed = ak_adopt(ak);
    ak->host->progress = NULL;
    assert_null(command);
    return failed;
}

// ---- files of others ----------------------------------------------------------------------------------------------------

static void tracking_that_is_left_of_another_disk_is_in_the_way(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    ak_shell(ak, "echo left >images/root.vhdx.rct; echo left >images/data.vhdx.mrt; echo 'invalid no' >hv/fail/define");
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_INVALID);
    check_undone(ak, "data.qcow2\ndata.vhdx.mrt\nold.vhdx\nroot.raw\nroot.vhdx.rct\n");
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "test -e images/root-vda.vhdx -a -e images/data-vdb.vhdx -a ! -e images/root.vhdx");
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup("left\nleft\n"), ak_output(ak, "cat images/*.rct images/*.mrt"));
}

// It looks as if a disk service had had the disks.
static void an_adoption_that_failed_says_so_even_where_its_vm_stays(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    assert_int_equal(adopt_while(ak, "echo theirs >images/root.vhdx.rct; echo running >hv/" AK_UUID ".state"), -1);
    assert_int_equal(ak->err.code, RP_ERR_STATE);
    assert_non_null(strstr(ak->err.text, "which stays"));
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_link_that_comes_to_the_place_of_a_new_disk_leads_nowhere(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *victim = kit_path("%s/victim.vhdx", ak->folder);
    ak_web1(ak);
    kit_vhdx(victim, AK_SIZE);
    RP_AUTO_FREE char *before = ak_output(ak, "sha256sum victim.vhdx");
    kit_fails(adopt_while(ak, "cd images; for f in .root.vhdx.*.part; do mv $f ../taken; ln -s ../victim.vhdx $f; done"), ak->err,
              RP_ERR_PERMISSION);
    check_undone(ak, ORIGINALS);
    assert_same(rp_xstrdup(before), ak_output(ak, "sha256sum victim.vhdx"));
}

// ---- somebody was faster ------------------------------------------------------------------------------------------------

static void adopt_unseen(struct ak *ak)
{
    ak_web1(ak);
    ak_shell(ak, "mkdir hv/late; touch hv/late/define");
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_BUSY);
}

// Started and shut down before the definition came, about which nobody has heard.
static void a_guest_that_wrote_to_its_image_keeps_what_it_wrote(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, "echo new | dd of=images/root.raw conv=notrunc status=none; mv hv/late/" AK_UUID ".xml hv");
    ak_open(ak);
    check_undone(ak, ORIGINALS);
    assert_same(rp_xstrdup("new\n"), ak_output(ak, "head -c4 images/root.raw"));
    kit_ok(ak_adopt(ak), ak->err);
}

// ---- what cannot be seen ------------------------------------------------------------------------------------------------

static void an_adoption_is_not_undone_before_its_images_are_mounted(void **state)
{
    struct ak *ak = *state;
    for (int missing = 0; missing < 2; missing++) { // the folder is empty, or not there
        ak_shell(ak, "rm -rf hv/late");
        adopt_unseen(ak);
        ak_shell(ak, "mv images mounted; %s", missing ? "true" : "mkdir images");
        ak_open(ak);
        assert_same(rp_xstrdup("1\n"), vm_folders(ak));
        ak_shell(ak, "rm -rf images; mv mounted images");
        ak_open(ak);
        check_undone(ak, ORIGINALS);
    }
}

static void nobody_waits_for_images_that_the_domain_does_without(void **state)
{
    struct ak *ak = *state;
    for (int gone = 0; gone < 2; gone++) { // the domain has its images elsewhere, or is gone
        ak_shell(ak, "rm -rf hv/late images elsewhere; mkdir images");
        adopt_unseen(ak);
        ak_shell(ak, "mkdir elsewhere; mv images/root.raw images/data.qcow2 elsewhere; cp images/old.vhdx elsewhere; cd hv; %s",
                 gone ? "rm *.xml" : "sed -i s,/images/,/elsewhere/, *.xml");
        ak_open(ak);
        assert_same(rp_xstrdup("0\n"), vm_folders(ak));
        assert_same(rp_xstrdup("old.vhdx\n"), ak_output(ak, "ls -A images"));
    }
}

// ---- a VM that was not made -----------------------------------------------------------------------------------------------

static void a_placeholder_goes_with_the_vm_whose_place_it_held(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE char *path = kit_path("%s/images/new.raw", ak->folder);
    const char *disk = path;
    ak_shell(ak, "truncate -s 1M images/new.raw; mkdir hv/late; touch hv/late/define; echo 'busy no answer' >hv/fail/undefine");
    kit_ok(rp_host_local_set_hypervisor(ak->host, ak->uri, "default", "tcg", &ak->err), ak->err);
    rp_host_local_next_id(ak->host, AK_UUID);
    kit_fails(ak->host->ops->define_system(ak->host, "new", &disk, 1, NULL, NULL, job, result, &ak->err), ak->err, RP_ERR_BUSY);
    ak_open(ak);
    RP_AUTO_FREE char *held = ak_kept(ak);
    assert_non_null(held);
    ak_open(ak);
    assert_null(ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), vm_folders(ak));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest doubt[] = {
        TEST(tracking_that_is_left_of_another_disk_is_in_the_way),
        TEST(an_adoption_that_failed_says_so_even_where_its_vm_stays),
        TEST(a_link_that_comes_to_the_place_of_a_new_disk_leads_nowhere),
        TEST(a_guest_that_wrote_to_its_image_keeps_what_it_wrote),
        TEST(an_adoption_is_not_undone_before_its_images_are_mounted),
        TEST(nobody_waits_for_images_that_the_domain_does_without),
        TEST(a_placeholder_goes_with_the_vm_whose_place_it_held),
    };
    return cmocka_run_group_tests(doubt, NULL, NULL);
}
