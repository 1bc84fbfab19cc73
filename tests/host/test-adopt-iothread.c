// The iothread that a domain's virtio disks get when it is adopted, and lose when it is released.
#include "adopt-kit.h"

#include "host/adopt.h"

#define IOTHREADS "<iothreads>1</iothreads>"

static void define(struct ak *ak, const char *target, const char *more)
{
    ak_shell(ak, "truncate -s 4M images/root.raw");
    RP_AUTO_FREE char *disk = ak_disk(ak, "raw", "images/root.raw", target), *devices = kit_path("%s%s", disk, more);
    ak_define(ak, devices);
}

// The administrator's virsh edit.
static void edit(struct ak *ak, const char *script)
{
    ak_shell(ak, "sed -i \"%s\" hv/" AK_UUID ".xml", script);
}

static size_t count(struct ak *ak, const char *text)
{
    RP_AUTO_FREE char *xml = ak_kept(ak);
    size_t found = 0;
    for (const char *p = xml; (p = strstr(p, text)); p += strlen(text))
        found++;
    return found;
}

static void virtio_disks_get_one_and_lose_it(void **state)
{
    struct ak *ak = *state;
    define(ak, "vda", "    <disk type='file' device='cdrom'><driver name='qemu'/><target dev='sda' bus='sata'/><readonly/></disk>\n");
    kit_ok(ak_adopt(ak), ak->err);
    assert_int_equal(count(ak, IOTHREADS), 1);
    assert_int_equal(count(ak, " iothread='1'"), 1);
    edit(ak, "s|<serial>S-vda</serial>|<serial>new</serial>|"); // so that the disk's text of before is not what comes back
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_int_equal(count(ak, "iothread"), 0);
    assert_int_equal(count(ak, "<serial>new</serial>"), 1);
    assert_int_equal(count(ak, "images/root.raw"), 1);
}

static void the_definition_is_to_the_byte_what_it_was(void **state)
{
    struct ak *ak = *state;
    define(ak, "vda", "");
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_domain_that_speaks_of_iothreads_stays_as_its_administrator_has_it(void **state)
{
    static const char to_qemu[] =
        "s|<domain |&xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' |; "
        "s|</domain>|<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='virtio-blk-pci.ioeventfd=off'/></qemu:commandline>&|";
    static const char *const edits[] = {"s|  <vcpu>|  <iothreads>2</iothreads>\\n&|",
                                        "s|  <vcpu>|  <cputune><iothread_quota>1000</iothread_quota></cputune>\\n&|", to_qemu};
    struct ak *ak = *state;
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        define(ak, "vda", "");
        edit(ak, edits[i]);
        RP_AUTO_FREE char *before = ak_kept(ak);
        kit_ok(ak_adopt(ak), ak->err);
        assert_int_equal(count(ak, "nbd.sock"), 1);
        assert_int_equal(count(ak, " iothread="), 0);
        assert_int_equal(count(ak, "<iothreads>1"), 0);
        kit_ok(ak_release(ak, NULL), ak->err);
        assert_same(rp_xstrdup(before), ak_kept(ak));
    }
}

static void a_disk_that_cannot_have_one_gets_none(void **state)
{
    static const char *const edits[] = {"s|bus='virtio'|bus='scsi'|", "s|type='pci'|type='virtio-mmio'|",
                                        "s|discard='unmap'|& ioeventfd='off'|"};
    struct ak *ak = *state;
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        define(ak, "vda", "");
        edit(ak, edits[i]);
        RP_AUTO_FREE char *before = ak_kept(ak);
        kit_ok(ak_adopt(ak), ak->err);
        assert_int_equal(count(ak, "nbd.sock"), 1);
        assert_int_equal(count(ak, "iothread"), 0);
        kit_ok(ak_release(ak, NULL), ak->err);
        assert_same(rp_xstrdup(before), ak_kept(ak));
    }
}

static void nobody_gets_one_who_does_not_want_it(void **state)
{
    struct ak *ak = *state;
    define(ak, "vda", "");
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web1", &(struct rp_adopt_options){.no_iothread = true}, &plan, &ak->err), ak->err);
    kit_ok(rp_host_local_adopt(ak->host, &plan, &ak->err), ak->err);
    assert_int_equal(count(ak, "iothread"), 0);
    // One that its administrator adds, looking as ours would, is not taken away.
    edit(ak, "s|  <vcpu>|  " IOTHREADS "\\n&|; s|cache='none'|& iothread='1'|");
    assert_int_equal(count(ak, " iothread='1'"), 1);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_int_equal(count(ak, IOTHREADS), 1);
    assert_int_equal(count(ak, " iothread='1'"), 1);
    assert_int_equal(count(ak, "images/root.raw"), 1);
}

static void it_stays_where_something_else_has_come_to_use_it(void **state)
{
    static const char *const uses[] = {
        "s|</devices>|<controller type='scsi' model='virtio-scsi'><driver iothread='1'/></controller>&|",
        "s|  <vcpu>|  <cputune><iothreadpin iothread='1' cpuset='0'/></cputune>\\n&|"};
    struct ak *ak = *state;
    for (size_t i = 0; i < 2; i++) {
        define(ak, "vda", "");
        kit_ok(ak_adopt(ak), ak->err);
        edit(ak, uses[i]);
        kit_ok(ak_release(ak, NULL), ak->err);
        assert_int_equal(count(ak, IOTHREADS), 1);
        assert_int_equal(count(ak, " iothread='1'"), 1);
        assert_int_equal(count(ak, "images/root.raw"), 1);
    }
}

static void iothreads_that_were_changed_since_are_not_ours_to_take(void **state)
{
    struct ak *ak = *state;
    define(ak, "vda", "");
    kit_ok(ak_adopt(ak), ak->err);
    edit(ak, "s|" IOTHREADS "|<iothreads>4</iothreads>|");
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_int_equal(count(ak, "<iothreads>4</iothreads>"), 1);
    assert_int_equal(count(ak, "iothread='1'"), 1); // as the disk has it
}

static void a_disk_that_is_added_shares_that_of_the_others(void **state)
{
    struct ak *ak = *state;
    define(ak, "vda", "");
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *raw = kit_path("%s/second.raw", ak->folder);
    char job[RP_HOST_ID], result[RP_HOST_ID];
    kit_raw(raw, 4 << 20, 2);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(ak->host->ops->find_vm(ak->host, "web1", &vm, &ak->err), ak->err);
    kit_ok(ak->host->ops->add_disk(ak->host, vm.id, raw, job, result, &ak->err), ak->err);
    assert_int_equal(count(ak, "nbd.sock"), 2);
    assert_int_equal(count(ak, " iothread='1'"), 2);
    assert_int_equal(count(ak, IOTHREADS), 1);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_int_equal(count(ak, "nbd.sock"), 0);
    assert_int_equal(count(ak, "iothread"), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest iothread[] = {
        TEST(virtio_disks_get_one_and_lose_it),
        TEST(the_definition_is_to_the_byte_what_it_was),
        TEST(a_domain_that_speaks_of_iothreads_stays_as_its_administrator_has_it),
        TEST(a_disk_that_cannot_have_one_gets_none),
        TEST(nobody_gets_one_who_does_not_want_it),
        TEST(it_stays_where_something_else_has_come_to_use_it),
        TEST(iothreads_that_were_changed_since_are_not_ours_to_take),
        TEST(a_disk_that_is_added_shares_that_of_the_others),
    };
    return cmocka_run_group_tests(iothread, NULL, NULL);
}
