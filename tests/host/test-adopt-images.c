// What a domain's definition says of its images against what the files are: where they differ, nobody knows what its guest sees.
#include "adopt-kit.h"

#include <unistd.h>

#include "host/adopt.h"

// "@" stands for the folder.
static char *in_folder(struct ak *ak, const char *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    for (const char *p = text; *p; p++)
        *p == '@' ? rp_buf_printf(&out, "%s", ak->folder) : rp_buf_append(&out, p, 1);
    return rp_xstrdup(rp_buf_text(&out));
}

static void define_disk(struct ak *ak, const char *format, const char *path, const char *more)
{
    RP_AUTO_FREE char *disk = kit_path("    <disk type='file' device='disk'>\n      <driver name='qemu' type='%s'/>\n"
                                       "      <source file='%s'/>\n%s      <target dev='vda' bus='virtio'/>\n    </disk>\n", format, path, more);
    RP_AUTO_FREE char *whole = in_folder(ak, disk);
    ak_define(ak, whole);
}

// top lies on a, a on base; b has another content than a.
static void make_chain(struct ak *ak)
{
    ak_shell(ak, "ln -s images link; cd images; qemu-img create -q -f raw base.raw 4M; for i in a b; do qemu-img create -q -f qcow2 -b \"$PWD/base.raw\" -F raw "
                 "$i.qcow2; done; qemu-io -f qcow2 -c 'write -P 1 1M 64k' a.qcow2 >/dev/null; qemu-io -f qcow2 -c 'write -P 2 1M 64k' b.qcow2 "
                 ">/dev/null; qemu-img create -q -f qcow2 -b \"$PWD/a.qcow2\" -F qcow2 top.qcow2");
}

#define BACKING(format, path, more)                                                                                    \
    "<backingStore type='file'><format type='" format "'/><source file='" path "'/>" more "</backingStore>"

static void a_chain_that_the_definition_says_otherwise_than_the_files_is_refused(void **state)
{
    static const struct {
        const char *format, *file, *backing, *reason;
    } cases[] = {
        {"qcow2", "top.qcow2", BACKING("qcow2", "@/images/b.qcow2", "<backingStore/>"), "/b.qcow2, its file says "},
        {"qcow2", "top.qcow2", BACKING("qcow2", "@/images/b.qcow2", ""), "/b.qcow2, its file says "},
        {"qcow2", "top.qcow2", "<backingStore/>", "nothing behind "},
        {"qcow2", "top.qcow2", BACKING("qcow2", "@/images/a.qcow2", "<backingStore/>"), "nothing behind "},
        {"qcow2", "top.qcow2", BACKING("raw", "@/images/a.qcow2", "<backingStore/>"), "of the format \"raw\", its file says qcow2"},
        {"qcow2", "top.qcow2", BACKING("qcow2", "@/images/gone.qcow2", ""), "/gone.qcow2, its file says "},
        {"qcow2", "top.qcow2", "<backingStore type='network'><format type='qcow2'/><source protocol='nbd' name='a'/></backingStore>",
         "a, its file says "},
        {"qcow2", "top.qcow2",
         BACKING("qcow2", "@/images/a.qcow2", BACKING("raw", "@/images/base.raw", BACKING("raw", "@/images/base.raw", "<backingStore/>"))),
         "there is nothing behind "},
        {"raw", "base.raw", BACKING("qcow2", "@/images/b.qcow2", ""), "only a qcow2 image can"},
        {"qcow2", "top.qcow2", "<backingStore type='file'><format type='qcow2'/><source file='@/images/a.qcow2'><slices/></source></backingStore>",
         "slices"},
    };
    struct ak *ak = *state;
    make_chain(ak);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_AUTO_FREE char *path = kit_path("@/images/%s", cases[i].file);
        define_disk(ak, cases[i].format, path, cases[i].backing);
        RP_AUTO_FREE char *before = ak_tree(ak);
        assert_int_equal(ak_adopt(ak), -1);
        if (ak->err.code != RP_ERR_UNSUPPORTED || !strstr(ak->err.text, cases[i].reason))
            fail_msg("%s: expected \"%s\", got %s: %s", cases[i].backing, cases[i].reason, rp_code_name(ak->err.code), ak->err.text);
        assert_same(rp_xstrdup(before), ak_tree(ak));
        assert_false(ak_has_vm(ak));
    }
}

static void a_chain_that_definition_and_files_agree_on_is_taken_as_the_guest_saw_it(void **state)
{
    static const char *const backings[] = {
        "", BACKING("qcow2", "@/images/a.qcow2", ""), BACKING("qcow2", "@/link/a.qcow2", BACKING("raw", "@/images/base.raw", "<backingStore/>"))};
    struct ak *ak = *state;
    make_chain(ak);
    for (size_t i = 0; i < sizeof backings / sizeof *backings; i++) {
        define_disk(ak, "qcow2", "@/images/top.qcow2", backings[i]);
        RP_AUTO_FREE char *sum = ak_sum(ak, "qcow2", "images/top.qcow2");
        kit_ok(ak_adopt(ak), ak->err);
        assert_same(rp_xstrdup(sum), ak_sum(ak, NULL, "images/top.vhdx"));
        kit_ok(ak_release(ak, NULL), ak->err);
        assert_same(rp_xstrdup(sum), ak_sum(ak, "qcow2", "images/top.qcow2"));
        RP_AUTO_FREE char *xml = ak_kept(ak); // it stands alone now
        assert_null(strstr(xml, "backingStore"));
        ak_shell(ak, "cd images; rm top.qcow2; qemu-img create -q -f qcow2 -b \"$PWD/a.qcow2\" -F qcow2 top.qcow2");
    }
}

// ---- names --------------------------------------------------------------------------------------------------------------

static void an_image_that_is_named_through_a_link_gets_its_definition_back(void **state)
{
    struct ak *ak = *state;
    ak_shell(ak, "truncate -s 4M images/root.raw; ln -s images link");
    define_disk(ak, "raw", "@/link/root.raw", "");
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "sed -i 's|<target|<serial>new</serial><target|' hv/" AK_UUID ".xml"); // changed meanwhile: the name stays
    kit_ok(ak_release(ak, NULL), ak->err);
    RP_AUTO_FREE char *xml = ak_kept(ak), *source = kit_path("<source file='%s/link/root.raw'/>", ak->folder);
    assert_non_null(strstr(xml, source));
    assert_non_null(strstr(xml, "<serial>new</serial>"));
}

static void a_link_that_leads_elsewhere_by_now_is_not_what_the_domain_gets(void **state)
{
    struct ak *ak = *state;
    ak_shell(ak, "truncate -s 4M images/root.raw; ln -s images link");
    define_disk(ak, "raw", "@/link/root.raw", "");
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "mkdir other; truncate -s 1M other/root.raw; ln -sfn other link");
    kit_ok(ak_release(ak, NULL), ak->err);
    RP_AUTO_FREE char *xml = ak_kept(ak), *source = kit_path("<source file='%s/images/root.raw'/>", ak->folder);
    assert_non_null(strstr(xml, source));
}

static void a_path_that_is_no_text_is_refused_before_anything_is_done(void **state)
{
    struct ak *ak = *state;
    ak_shell(ak, "mkdir \"$(printf 'bad\\377')\"; ln -s \"$(printf 'bad\\377')\" link; truncate -s 4M link/root.raw images/root.raw");
    define_disk(ak, "raw", "@/link/root.raw", "");
    assert_int_equal(ak_adopt(ak), -1);
    assert_int_equal(ak->err.code, RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(ak->err.text, "not valid UTF-8"));
    define_disk(ak, "raw", "@/images/root.raw", "");
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    RP_AUTO_FREE char *folder = kit_path("%s/link", ak->folder);
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web1", &(struct rp_adopt_options){.folder = folder}, &plan, &ak->err), ak->err);
    assert_int_equal(plan.refused, 1);
    assert_non_null(strstr(plan.items[0].reason, "not valid UTF-8"));
}

static void disks_that_are_read_only_stay_whatever_they_are(void **state)
{
    static const char *const disks[] = {
        "<disk type='block' device='disk'><source dev='/dev/null'/><target dev='vdb'/><readonly/></disk>",
        "<disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vdb'/><readonly/></disk>",
        "<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdb'/><readonly/><shareable/></disk>"};
    struct ak *ak = *state;
    for (size_t i = 0; i < sizeof disks / sizeof *disks; i++) {
        ak_shell(ak, "truncate -s 4M images/root.raw");
        RP_AUTO_FREE char *root = ak_disk(ak, "raw", "images/root.raw", "vda"), *both = kit_path("%s%s", root, disks[i]);
        ak_define(ak, both);
        kit_ok(ak_adopt(ak), ak->err);
        RP_AUTO_FREE char *xml = ak_kept(ak);
        assert_non_null(strstr(xml, disks[i]));
        kit_ok(ak_release(ak, NULL), ak->err);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest images[] = {
        TEST(a_chain_that_the_definition_says_otherwise_than_the_files_is_refused),
        TEST(a_chain_that_definition_and_files_agree_on_is_taken_as_the_guest_saw_it),
        TEST(an_image_that_is_named_through_a_link_gets_its_definition_back),
        TEST(a_link_that_leads_elsewhere_by_now_is_not_what_the_domain_gets),
        TEST(a_path_that_is_no_text_is_refused_before_anything_is_done),
        TEST(disks_that_are_read_only_stay_whatever_they_are),
    };
    return cmocka_run_group_tests(images, NULL, NULL);
}
