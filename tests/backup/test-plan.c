// Decisions of a backup, without host and repository.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "backup/disk.h"
#include "backup/document.h"
#include "backup/plan.h"
#include "backup/tag.h"
#include "base/num.h"

static struct rp_guid guid(uint8_t n) { return (struct rp_guid){{n}}; }

static struct rp_vm_disk vm_disk(const char *instance, uint32_t number, uint8_t id, uint64_t size)
{
    struct rp_vm_disk disk = {.number = number, .disk_id = guid(id), .size = size, .path = (char *)"file"};
    snprintf(disk.instance, sizeof disk.instance, "%s", instance);
    return disk;
}
static struct rp_point_disk point_disk(const char *instance, uint32_t number, uint8_t id, const char *rct)
{
    return (struct rp_point_disk){.number = number, .instance = (char *)instance, .disk_id = guid(id), .rct_id = (char *)rct,
                                  .root.size = RP_MIB};
}

static void a_disk_is_known_by_instance_and_id_together(void **state)
{
    (void)state;
    struct rp_point_disk old[] = {point_disk("a", 0, 1, "x"), point_disk("b", 1, 1, "y")}; // a clone: both have one id
    struct rp_point point = {.disks = old, .disk_count = 2};
    struct rp_vm_disk now[] = {vm_disk("b", 0, 1, RP_MIB), vm_disk("a", 1, 1, RP_MIB), vm_disk("c", 2, 1, RP_MIB)};
    struct rp_vm_settings settings = {.disks = now, .disk_count = 3};
    assert_ptr_equal(rp_plan_match(&settings, &now[0], &point), &old[1]);
    assert_ptr_equal(rp_plan_match(&settings, &now[1], &point), &old[0]);
    assert_null(rp_plan_match(&settings, &now[2], &point));
}

static void a_moved_disk_is_known_by_its_id_only_when_nothing_else_has_it(void **state)
{
    (void)state;
    struct rp_point_disk old[] = {point_disk("a", 0, 1, "x"), point_disk("b", 1, 2, "y")};
    struct rp_point point = {.disks = old, .disk_count = 2};
    struct rp_vm_disk now[] = {vm_disk("c", 0, 1, RP_MIB), vm_disk("b", 1, 2, RP_MIB), vm_disk("d", 2, 1, RP_MIB)};
    struct rp_vm_settings settings = {.disks = now, .disk_count = 2};
    assert_ptr_equal(rp_plan_match(&settings, &now[0], &point), &old[0]);
    settings.disk_count = 3; // now two disks claim the id
    assert_null(rp_plan_match(&settings, &now[0], &point));
}

static void a_disk_without_an_id_is_never_taken_for_another(void **state)
{
    (void)state;
    struct rp_point_disk old[] = {point_disk("a", 0, 0, "x")};
    struct rp_point point = {.disks = old, .disk_count = 1};
    struct rp_vm_disk now[] = {vm_disk("a", 0, 0, RP_MIB)};
    struct rp_vm_settings settings = {.disks = now, .disk_count = 1};
    assert_null(rp_plan_match(&settings, &now[0], &point));
}

static void the_base_is_the_newest_point_of_this_vm_whose_reference_point_exists(void **state)
{
    (void)state;
    struct rp_point items[] = {
        {.vm_id = (char *)"vm", .reference_point = (char *)"r1"}, {.vm_id = (char *)"vm", .reference_point = (char *)"r2"},
        {.vm_id = (char *)"vm", .reference_point = (char *)"gone"}, {.vm_id = (char *)"vm"},
        {.vm_id = (char *)"another", .reference_point = (char *)"r3"}};
    struct rp_points points = {.items = items, .count = 5};
    struct rp_reference_point on_host[] = {{.id = "r1"}, {.id = "r2"}, {.id = "r3"}};
    struct rp_reference_points references = {on_host, 3};
    struct rp_plan_base base;
    rp_plan_choose_base(&points, "vm", &references, &base);
    assert_ptr_equal(base.point, &items[1]);
    assert_ptr_equal(base.reference, &on_host[1]);
    rp_plan_choose_base(&points, "new", &references, &base);
    assert_null(base.point);
    assert_string_equal(base.reason, "first backup of this VM");
    points.unreadable = 1; // which may be one of it
    rp_plan_choose_base(&points, "new", &references, &base);
    assert_string_equal(base.reason, "first backup of this VM, or none of its earlier ones can be read");
    references.count = 0;
    for (points.unreadable = 0; points.unreadable < 2; points.unreadable++) {
        rp_plan_choose_base(&points, "vm", &references, &base);
        assert_null(base.point);
        assert_string_equal(base.reason, points.unreadable ? "the host has no reference point of an earlier backup that can be read"
                                                           : "the host has no reference point of an earlier backup any more");
    }
}

// As a host makes one when it takes it back after a restore: another id, the same moment.
static void a_reference_point_is_known_by_the_moment_of_all_its_disks(void **state)
{
    (void)state;
    struct rp_point_disk disks[] = {point_disk("a", 0, 1, "x:1"), point_disk("b", 1, 2, "y:1"), point_disk("c", 2, 3, NULL)};
    struct rp_point point = {.vm_id = (char *)"vm", .reference_point = (char *)"gone", .disks = disks, .disk_count = 3};
    struct rp_reference_disk same[] = {{.rct_id = "y:1"}, {.rct_id = "x:1"}, {.rct_id = ""}};
    struct rp_reference_disk other[] = {{.rct_id = "y:1"}, {.rct_id = "x:2"}};
    struct rp_reference_disk more[] = {{.rct_id = "y:1"}, {.rct_id = "x:1"}, {.rct_id = "z:1"}};
    struct rp_reference_point on_host[] = {{.id = "new", .disks = same, .disk_count = 3}, {.id = "r2", .disks = other, .disk_count = 2},
                                           {.id = "r3", .disks = more, .disk_count = 3}, {.id = "r4", .disks = same, .disk_count = 1},
                                           {.id = "r5"}};
    assert_true(rp_plan_names(&point, &on_host[0]));
    for (size_t i = 1; i < 5; i++)
        assert_false(rp_plan_names(&point, &on_host[i]));
    struct rp_points points = {.items = &point, .count = 1};
    struct rp_reference_points references = {on_host, 5};
    struct rp_plan_base base;
    rp_plan_choose_base(&points, "vm", &references, &base);
    assert_ptr_equal(base.reference, &on_host[0]);
    memcpy(on_host[4].id, "gone", 5); // the one that it names, rather
    rp_plan_choose_base(&points, "vm", &references, &base);
    assert_ptr_equal(base.reference, &on_host[4]);
    struct rp_point untracked = {.reference_point = (char *)"gone too", .disks = &disks[2], .disk_count = 1};
    struct rp_reference_disk nothing[] = {{.rct_id = ""}};
    struct rp_reference_point empty = {.id = "r6", .disks = nothing, .disk_count = 1};
    assert_false(rp_plan_names(&untracked, &empty));
}

static void only_the_whole_form_of_a_tag_is_ours(void **state)
{
    (void)state;
    struct rp_guid repository = rp_guid_new(), other = rp_guid_new(), job = rp_guid_new();
    char tag[RP_TAG_TEXT], longer[RP_TAG_TEXT + 2];
    rp_tag_format(&repository, &job, tag);
    assert_true(rp_tag_is_of(tag, &repository));
    assert_false(rp_tag_is_of(tag, &other));
    assert_false(rp_tag_is_of(NULL, &repository));
    assert_false(rp_tag_is_of("", &repository));
    snprintf(longer, sizeof longer, "%sx", tag);
    assert_false(rp_tag_is_of(longer, &repository));
    tag[strlen(tag) - 1] = 0;
    assert_false(rp_tag_is_of(tag, &repository));
}

static void changes_are_widened_to_blocks_and_clipped_to_the_disk(void **state)
{
    (void)state;
    struct rp_range changed[] = {{10, 1}, {65535, 2}, {200000, 1}, {300000, 100}};
    struct rp_ranges ranges = {changed, 4, 4}, blocks = {0};
    rp_backup_align(&ranges, 300500, &blocks);
    assert_int_equal(blocks.count, 2);
    assert_int_equal(blocks.items[0].offset, 0);
    assert_int_equal(blocks.items[0].length, 131072);
    assert_int_equal(blocks.items[1].offset, 196608);
    assert_int_equal(blocks.items[1].length, 300500 - 196608);
    rp_ranges_clear(&blocks);
}

// Long paths and many disks, each read in full for a reason of its own: the point must still be one that can be written.
static void reasons_that_are_long_and_cut_within_a_character_still_make_a_document(void **state)
{
    (void)state;
    enum { DISKS = 64 };
    struct rp_vm_disk now[DISKS];
    struct rp_plan_disk plans[DISKS] = {0};
    struct rp_backup_disk disks[DISKS] = {0};
    char path[400] = "";
    for (int i = 0; i < 130; i++)
        strcat(path, "\u4e16");
    for (uint32_t i = 0; i < DISKS; i++) {
        char instance[16];
        snprintf(instance, sizeof instance, "i%u", i);
        now[i] = vm_disk(instance, i, (uint8_t)(i + 1), RP_MIB);
        plans[i].disk = &now[i];
        rp_plan_disk_full(&plans[i], "changes are not known: /%.*s/%u%s", (int)(i % 3), "abc", i, path);
        disks[i].plan = &plans[i];
        disks[i].reader_name = "test";
    }
    struct rp_vm vm = {.id = "vm", .name = (char *)"vm"};
    struct rp_vm_settings settings = {0};
    struct rp_point point = {.time_ns = 1}, again;
    struct rp_buf json = {0};
    struct rp_error err = {0};
    rp_document_fill(&point, "host", &vm, &settings, NULL, NULL, disks, DISKS);
    if (rp_point_encode(&point, &json, &err) || rp_point_decode(json.data, json.size, &again, &err))
        fail_msg("%s", err.text);
    assert_non_null(strstr(again.reason, "disk 0: changes are not known"));
    rp_point_clear(&again);
    rp_point_clear(&point);
    rp_buf_clear(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_is_known_by_instance_and_id_together),
        cmocka_unit_test(a_moved_disk_is_known_by_its_id_only_when_nothing_else_has_it),
        cmocka_unit_test(a_disk_without_an_id_is_never_taken_for_another),
        cmocka_unit_test(the_base_is_the_newest_point_of_this_vm_whose_reference_point_exists),
        cmocka_unit_test(a_reference_point_is_known_by_the_moment_of_all_its_disks),
        cmocka_unit_test(only_the_whole_form_of_a_tag_is_ours),
        cmocka_unit_test(changes_are_widened_to_blocks_and_clipped_to_the_disk),
        cmocka_unit_test(reasons_that_are_long_and_cut_within_a_character_still_make_a_document),
    };
    return cmocka_run_group_tests_name("backup plan", tests, NULL, NULL);
}
