// GetVirtualDiskChanges against a host that answers what a test wants.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scene.h"

static uint64_t processed_limit;
static int changes_fault;

static void push_number(struct rp_cim_instance *out, const char *name, uint64_t value)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_UINT64, true), one = rp_cim_unsigned(RP_CIM_UINT64, value);
    rp_cim_value_push(&array, &one);
    rp_cim_set(out, name, array);
}

static void tell_changes(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                         struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path;
    uint64_t offset = rp_cim_get_unsigned(in, "ByteOffset", 1), length = rp_cim_get_unsigned(in, "ByteLength", 0);
    assert_string_equal(rp_cim_get_text(in, "Path"), "D:\\VMs\\web1.avhdx");
    assert_null(rp_cim_get_text(in, "TargetSnapshotId"));
    uint64_t done = length < processed_limit ? length : processed_limit;
    push_number(out, "ChangedByteOffsets", changes_fault == 1 ? offset + done + length : offset);
    if (changes_fault != 2)
        push_number(out, "ChangedByteLengths", 4096);
    rp_cim_set(out, "ProcessedByteLength",
               rp_cim_unsigned(RP_CIM_UINT64, changes_fault == 3   ? 0
                                              : changes_fault == 4 ? length + 1
                                                                   : done));
    *status = 0;
}

static const char *const rct = "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001";

static void changes_are_asked_for_until_the_disk_is_covered(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", tell_changes, 0}, {0}};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    answers(list);
    processed_limit = 1 << 20;
    changes_fault = 0;
    good(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 5 << 19, &ranges, &err));
    assert_string_equal(fake->log, "GetVirtualDiskChanges GetVirtualDiskChanges GetVirtualDiskChanges ");
    assert_int_equal(ranges.count, 3);
    assert_int_equal(ranges.items[2].offset, 2 << 20);
    fake->drop_method = "GetVirtualDiskChanges"; // it changes nothing, and is asked again
    good(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 1 << 20, &ranges, &err));
}

static void overlap(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                    struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    push_number(out, "ChangedByteOffsets", 65536);
    push_number(out, "ChangedByteLengths", 65536);
    rp_cim_set(out, "ProcessedByteLength", rp_cim_unsigned(RP_CIM_UINT64, 8192));
    *status = 0;
}

static void changes_that_are_rounded_to_blocks_count_as_far_as_they_were_asked_for(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", overlap, 0}, {0}};
    static const uint64_t offsets[] = {65536 - 4096, 65536 + 4096, 131072 - 4096};
    static const struct rp_range expected[] = {{65536, 4096}, {65536 + 4096, 8192}, {131072 - 4096, 4096}};
    answers(list);
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        uint64_t processed;
        good(host->ops->disk_changes(host, "D:\\a.vhdx", rct, offsets[i], 8192, &ranges, &processed, &err));
        assert_int_equal(ranges.count, 1);
        assert_int_equal(ranges.items[0].offset, expected[i].offset);
        assert_int_equal(ranges.items[0].length, expected[i].length);
    }
}

// Every other block of 4 KiB.
static void tell_many(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                      struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path;
    uint64_t offset = rp_cim_get_unsigned(in, "ByteOffset", 1), length = rp_cim_get_unsigned(in, "ByteLength", 0);
    struct rp_cim_value offsets = rp_cim_null(RP_CIM_UINT64, true), lengths = rp_cim_null(RP_CIM_UINT64, true);
    for (uint64_t at = offset; at < offset + length; at += 8192) {
        struct rp_cim_value one = rp_cim_unsigned(RP_CIM_UINT64, at), size = rp_cim_unsigned(RP_CIM_UINT64, 4096);
        rp_cim_value_push(&offsets, &one);
        rp_cim_value_push(&lengths, &size);
    }
    rp_cim_set(out, "ChangedByteOffsets", offsets);
    rp_cim_set(out, "ChangedByteLengths", lengths);
    rp_cim_set(out, "ProcessedByteLength", rp_cim_unsigned(RP_CIM_UINT64, length));
    *status = 0;
}

static void changes_that_do_not_fit_into_an_answer_are_asked_for_in_parts(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", tell_many, 0}, {0}};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    answers(list);
    good(rp_host_all_changes(host, "D:\\a.vhdx", rct, 256 << 20, &ranges, &err));
    assert_int_equal(ranges.count, (256 << 20) / 8192);
    unsigned calls = 0;
    for (const char *p = fake->log; (p = strchr(p, ' ')); p++)
        calls++;
    if (calls < 3 || calls > 40) // what did not fit once is not tried again and again
        fail_msg("%u calls", calls);
}

static void changes_of_a_disk_that_answers_otherwise_are_not_known(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"GetVirtualDiskChanges", tell_changes, 0}, {"GetVirtualHardDiskSettingData", disk_facts, 0}, {0}};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    uint64_t processed;
    answers(list);
    processed_limit = 1 << 20;
    changes_fault = 0;
    good(host->ops->disk_changes(host, "D:\\VMs\\web1.avhdx", rct, 0, 4096, &ranges, &processed, &err));
    fake->drop = 2; // both tries
    bad(host->ops->disk_changes(host, "D:\\VMs\\web1.avhdx", rct, 0, 4096, &ranges, &processed, &err),
        RP_ERR_TRACKING_OFF, "changes of disk");
    fake->drop = 3;
    bad(host->ops->disk_changes(host, "D:\\VMs\\web1.avhdx", rct, 0, 4096, &ranges, &processed, &err), RP_ERR_IO,
        "changes of disk");
}

static void changes_that_cannot_be_are_not_believed(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", tell_changes, 0}, {0}};
    static const char *const words[] = {"", "nobody asked for", "1 offsets and 0 lengths", "covered 0",
                                        "covered 1048577"};
    answers(list);
    processed_limit = 1 << 20;
    for (changes_fault = 1; changes_fault < 5; changes_fault++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        bad(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 1 << 20, &ranges, &err), RP_ERR_CORRUPT,
            words[changes_fault]);
        assert_int_equal(ranges.count, 0);
    }
}

static void a_refused_tracking_id_means_that_everything_is_read(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        const char *id;
        enum rp_code expected;
    } cases[] = {{32768, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", RP_ERR_TRACKING_ID},
                 {32773, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", RP_ERR_TRACKING_ID},
                 {32773, "nonsense", RP_ERR_TRACKING_SYNTAX},
                 {32775, "nonsense", RP_ERR_TRACKING_OFF},
                 {32770, "nonsense", RP_ERR_TRACKING_OFF},
                 {4096, "nonsense", RP_ERR_TRACKING_OFF},
                 {32779, "nonsense", RP_ERR_NOT_FOUND},
                 {32769, "nonsense", RP_ERR_PERMISSION}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct fake_answer list[] = {
            {"GetVirtualDiskChanges", NULL, cases[i].code}, {"GetVirtualHardDiskSettingData", disk_facts, 0}, {0}};
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        uint64_t processed;
        answers(list);
        bad(host->ops->disk_changes(host, "D:\\a.vhdx", cases[i].id, 0, 4096, &ranges, &processed, &err),
            cases[i].expected, "changes of disk");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(changes_are_asked_for_until_the_disk_is_covered),
        SCENE(changes_that_are_rounded_to_blocks_count_as_far_as_they_were_asked_for),
        SCENE(changes_that_do_not_fit_into_an_answer_are_asked_for_in_parts),
        SCENE(changes_of_a_disk_that_answers_otherwise_are_not_known),
        SCENE(changes_that_cannot_be_are_not_believed),
        SCENE(a_refused_tracking_id_means_that_everything_is_read),
    };
    return cmocka_run_group_tests_name("wmi-changes", tests, NULL, NULL);
}
