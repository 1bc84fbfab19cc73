// The image management service: changes of disks, what files are, and what makes and changes them.
#include "method-kit.h"

#include <sys/stat.h>

#include "cim/cimxml.h"

#define RECOVERY 32768
#define SIZE (512 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

// ---- GetVirtualDiskChanges ------------------------------------------------------------------------------------------

static uint32_t changes(const char *path, const char *limit, uint64_t offset, uint64_t length,
                        struct rp_cim_instance **out)
{
    return mk_call(&mk, IMAGES, "GetVirtualDiskChanges", out, "Path", mk_text("%s", path), "LimitId",
                   mk_text("%s", limit), "ByteOffset", mk_number(offset), "ByteLength", mk_number(length), NULL);
}

static char *tracking_id(const struct rp_cim_path *point)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = mk_one(&mk,
        "SELECT * FROM Msvm_VirtualSystemReferencePoint WHERE InstanceID = '%s'", rp_cim_path_get(point, "InstanceID"));
    return rp_xstrdup(rp_cim_get_text_at(instance, "ResilientChangeTrackingIdentifiers", 0));
}

// A reference point, then writes, then a recovery checkpoint: what a client asks about.
static void prepare(const char *name, uint64_t count, uint64_t step, char id[RP_HOST_ID], char **limit, char **frozen)
{
    mk_define(&mk, name, 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *first = mk_snapshot(&mk, id, RECOVERY, "full");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point = mk_convert(&mk, first);
    mk_wait_merged(&mk, id);
    mk_write(&mk, id, 0, 5, count, step, 3);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *second = mk_snapshot(&mk, id, RECOVERY, "incremental");
    *limit = tracking_id(point);
    *frozen = mk_disk_path(&mk, second, 0);
}

static void changes_since_a_reference_point_are_what_was_written(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *limit = NULL, *frozen = NULL;
    prepare("written", 3, 10, id, &limit, &frozen);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL;
    assert_int_equal(changes(frozen, limit, 0, SIZE, &out), 0); // the whole size, as products pass it
    assert_int_equal(rp_cim_get_unsigned(out, "ProcessedByteLength", 0), SIZE);
    assert_int_equal(rp_cim_get_count(out, "ChangedByteOffsets"), 3);
    assert_int_equal(rp_cim_get_count(out, "ChangedByteLengths"), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteOffsets", i, 0), (5 + 10 * i) * KIT_UNIT);
        assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteLengths", i, 0), KIT_UNIT);
    }
}

static void a_part_of_a_disk_is_answered_for_that_part(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *limit = NULL, *frozen = NULL;
    prepare("part", 4, 8, id, &limit, &frozen); // 5, 13, 21, 29
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL, *none = NULL, *end = NULL;
    uint64_t offset = 13 * KIT_UNIT + 4096, length = 8 * KIT_UNIT;
    assert_int_equal(changes(frozen, limit, offset, length, &out), 0);
    assert_int_equal(rp_cim_get_unsigned(out, "ProcessedByteLength", 0), length);
    assert_int_equal(rp_cim_get_count(out, "ChangedByteOffsets"), 2);
    assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteOffsets", 0, 0), offset);
    assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteLengths", 0, 0), KIT_UNIT - 4096);
    assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteOffsets", 1, 0), 21 * KIT_UNIT);
    assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteLengths", 1, 0), 4096);
    assert_int_equal(changes(frozen, limit, 0, 5 * KIT_UNIT, &none), 0);
    assert_int_equal(rp_cim_get_count(none, "ChangedByteOffsets"), 0);
    assert_int_equal(rp_cim_get_unsigned(none, "ProcessedByteLength", 0), 5 * KIT_UNIT);
    assert_int_equal(changes(frozen, limit, SIZE - 4096, 4096, &end), 0);
    assert_int_equal(rp_cim_get_unsigned(end, "ProcessedByteLength", 0), 4096);
}

static void many_ranges_come_in_answers_that_fit_an_envelope(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *limit = NULL, *frozen = NULL;
    prepare("many", 4090, 2, id, &limit, &frozen);
    uint64_t done = 0, next = 5;
    size_t answers = 0;
    while (done < SIZE) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL;
        assert_int_equal(changes(frozen, limit, done, SIZE - done, &out), 0);
        size_t count = rp_cim_get_count(out, "ChangedByteOffsets");
        uint64_t processed = rp_cim_get_unsigned(out, "ProcessedByteLength", 0);
        assert_true(count <= 2000 && processed > 0 && processed <= SIZE - done);
        for (size_t i = 0; i < count; i++, next += 2) {
            assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteOffsets", i, 0), next * KIT_UNIT);
            assert_int_equal(rp_cim_get_unsigned_at(out, "ChangedByteLengths", i, 0), KIT_UNIT);
        }
        done += processed;
        answers++;
    }
    assert_int_equal(answers, 3);
    assert_int_equal(next, 5 + 2 * 4090);
}

static void ids_and_ranges_that_make_no_sense_are_codes_that_make_clients_read_everything(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *limit = NULL, *frozen = NULL, *loose = mk_file(&mk, "loose.vhdx");
    prepare("senseless", 1, 1, id, &limit, &frozen);
    kit_vhdx(loose, SIZE);
    static const char unknown[] = "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001";
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL;
    assert_true(changes(frozen, unknown, 0, SIZE, &out) >= 32768);
    assert_null(rp_cim_get(out, "ProcessedByteLength"));
    assert_true(changes(frozen, "yesterday", 0, SIZE, NULL) >= 32768);
    assert_int_equal(changes(frozen, "", 0, SIZE, NULL), 32773);
    assert_int_equal(changes("", limit, 0, SIZE, NULL), 32773);
    assert_int_equal(changes(frozen, limit, 0, 0, NULL), 32773);
    assert_int_equal(changes(frozen, limit, UINT64_MAX, 2, NULL), 32773);
    assert_int_equal(changes(frozen, limit, 0, SIZE + 4096, NULL), 32773);
    assert_int_equal(changes(frozen, limit, SIZE, 4096, NULL), 32773);
    assert_true(changes("/nowhere/x.vhdx", limit, 0, SIZE, NULL) >= 32768);
    assert_true(changes(loose, limit, 0, SIZE, NULL) >= 32768); // of no VM
    assert_int_equal(mk_call(&mk, IMAGES, "GetVirtualDiskChanges", NULL, "Path", mk_text("%s", frozen), "LimitId",
                             mk_text("%s", limit), "TargetSnapshotId", mk_text("x"), "ByteOffset", mk_number(0),
                             "ByteLength", mk_number(SIZE), NULL),
                     32770);
}

// ---- what files are -------------------------------------------------------------------------------------------------

static struct rp_cim_instance *information(const char *method, const char *property, const char *path)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL;
    struct rp_error err = {0};
    uint32_t status = mk_call(&mk, IMAGES, method, &out, "Path", mk_text("%s", path), NULL);
    if (status)
        fail_msg("%s: %u", method, status);
    const char *text = rp_cim_get_text(out, property);
    struct rp_cim_instance *instance = text ? rp_cimxml_parse(text, strlen(text), &err) : NULL;
    if (!instance)
        fail_msg("%s: %s", method, err.text);
    return instance;
}

static uint32_t make(const char *path, uint64_t type, const char *parent, uint64_t size)
{
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Path", mk_text("%s", path), "Type",
                                           mk_number(type), "Format", mk_number(3), "ParentPath", mk_text("%s", parent),
                                           "MaxInternalSize", size ? mk_number(size) : (struct rp_cim_value){0}, NULL);
    return mk_call(&mk, IMAGES, "CreateVirtualHardDisk", NULL, "VirtualDiskSettingData", mk_text("%s", settings), NULL);
}

static void a_file_that_was_made_is_what_it_says_it_is(void **state)
{
    (void)state;
    RP_AUTO_FREE char *base = mk_file(&mk, "made.vhdx"), *child = mk_file(&mk, "made-child.vhdx");
    assert_int_equal(make(base, 3, "", 64 * RP_MIB), 0);
    assert_int_equal(make(child, 4, base, 0), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *a =
        information("GetVirtualHardDiskSettingData", "SettingData", base);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *b =
        information("GetVirtualHardDiskSettingData", "SettingData", child);
    assert_int_equal(rp_cim_get_unsigned(a, "Type", 0), 3);
    assert_int_equal(rp_cim_get_unsigned(a, "Format", 0), 3);
    assert_int_equal(rp_cim_get_unsigned(a, "MaxInternalSize", 0), 64 * RP_MIB);
    assert_int_equal(rp_cim_get_unsigned(a, "LogicalSectorSize", 0), 512);
    assert_string_equal(rp_cim_get_text(a, "Path"), base);
    assert_int_equal(strlen(rp_cim_get_text(a, "VirtualDiskId")), 36);
    assert_int_equal(rp_cim_get_unsigned(b, "Type", 0), 4);
    assert_string_equal(rp_cim_get_text(b, "ParentPath"), base);
    assert_string_equal(rp_cim_get_text(b, "VirtualDiskId"), rp_cim_get_text(a, "VirtualDiskId"));
    assert_int_equal(mk_call(&mk, IMAGES, "ValidateVirtualHardDisk", NULL, "Path", mk_text("%s", child), NULL), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *s =
        information("GetVirtualHardDiskState", "State", base);
    struct stat st;
    assert_int_equal(stat(base, &st), 0);
    assert_int_equal(rp_cim_get_unsigned(s, "FileSize", 0), st.st_size);
    assert_false(rp_cim_get_boolean(s, "InUse", true));
}

static void files_are_made_only_where_clients_may_and_only_once(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *once = mk_file(&mk, "once.vhdx"), *used = mk_file(&mk, "owner-0.vhdx"),
                      *child = mk_file(&mk, "child.vhdx");
    RP_AUTO_FREE char *outside = kit_path("%s/outside.vhdx", mk.folder), *up = kit_path("%s/../outside.vhdx", mk.files);
    mk_define(&mk, "owner", 1, SIZE, id);
    assert_int_equal(make(once, 3, "", RP_MIB * 8), 0);
    assert_int_equal(make(once, 3, "", RP_MIB * 8), 32775);
    assert_int_equal(make(outside, 3, "", RP_MIB * 8), 32769);
    assert_int_equal(make(up, 3, "", RP_MIB * 8), 32769);
    assert_int_equal(make("relative.vhdx", 3, "", RP_MIB * 8), 32773);
    assert_int_equal(make("", 3, "", RP_MIB * 8), 32773);
    assert_int_equal(make(child, 2, "", RP_MIB * 8), 32770);  // fixed
    assert_int_equal(make(child, 3, "", 0), 32773);           // of no size
    assert_int_equal(make(child, 9, "", RP_MIB * 8), 32773);
    assert_int_equal(make(child, 4, used, 0), 32774);         // a VM writes to its parent
    assert_int_equal(make(child, 4, "/etc/passwd", 0), 32769);
    assert_int_equal(access(outside, F_OK), -1);
    assert_int_equal(access(child, F_OK), -1);
}

static void files_elsewhere_and_files_that_are_none_are_refused(void **state)
{
    (void)state;
    RP_AUTO_FREE char *missing = mk_file(&mk, "missing.vhdx"), *text = mk_file(&mk, "text.vhdx"),
                      *pipe = mk_file(&mk, "pipe");
    RP_AUTO_FREE char *link = mk_file(&mk, "link.vhdx"), *outside = kit_path("%s/secret.vhdx", mk.folder);
    kit_write_file(text, "no disk", 7);
    kit_vhdx(outside, RP_MIB * 8);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(symlink(outside, link), 0);
    static const char *const methods[] = {"GetVirtualHardDiskSettingData", "GetVirtualHardDiskState",
                                          "ValidateVirtualHardDisk"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mk_call(&mk, IMAGES, methods[i], NULL, "Path", mk_text("%s", missing), NULL), 32779);
        assert_int_equal(mk_call(&mk, IMAGES, methods[i], NULL, "Path", mk_text("%s", outside), NULL), 32769);
        assert_int_equal(mk_call(&mk, IMAGES, methods[i], NULL, "Path", mk_text("%s", link), NULL), 32769);
        assert_int_equal(mk_call(&mk, IMAGES, methods[i], NULL, "Path", mk_text("%s", pipe), NULL), 32773);
        assert_true(mk_call(&mk, IMAGES, methods[i], NULL, "Path", mk_text("%s", text), NULL) >= 32768);
        assert_int_equal(mk_call(&mk, IMAGES, methods[i], NULL, NULL), 32773);
    }
    RP_AUTO_FREE char *copy = mk_file(&mk, "of-a-pipe.vhdx");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Path", mk_text("%s", copy), NULL);
    assert_int_equal(mk_call(&mk, IMAGES, "ConvertVirtualHardDisk", NULL, "SourcePath", mk_text("%s", pipe),
                             "VirtualDiskSettingData", mk_text("%s", settings), NULL),
                     32773);
}

// The locator of a file that somebody puts there leads to a disk of somebody else.
static void a_parent_outside_the_folders_is_not_read_through_a_child_inside(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_AUTO_FREE char *secret = kit_path("%s/parent.vhdx", mk.folder), *bait = mk_file(&mk, "bait.vhdx"),
                      *copy = mk_file(&mk, "copy.vhdx");
    kit_vhdx(secret, RP_MIB * 8);
    struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), secret, RP_VHDX_READ, NULL, &err);
    assert_non_null(parent);
    struct rp_vhdx_create create = {.size = RP_MIB * 8, .parent_path = secret, .disk_id = rp_vhdx_info(parent)->disk_id,
                                    .parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid};
    kit_ok(rp_vhdx_create(rp_fs_posix(), bait, &create, &err), err);
    rp_vhdx_abandon(parent);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Path", mk_text("%s", copy), "Type",
                                           mk_number(3), "Format", mk_number(3), NULL);
    assert_int_equal(mk_call(&mk, IMAGES, "ConvertVirtualHardDisk", NULL, "SourcePath", mk_text("%s", bait),
                             "VirtualDiskSettingData", mk_text("%s", settings), NULL),
                     32769);
    assert_int_equal(mk_call(&mk, IMAGES, "ValidateVirtualHardDisk", NULL, "Path", mk_text("%s", bait), NULL), 32769);
    assert_int_equal(access(copy, F_OK), -1);
}

// ---- and what changes them ------------------------------------------------------------------------------------------

static void write_file(const char *path, uint64_t unit, uint8_t byte)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_chain_close) struct rp_chain below = {0};
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(KIT_UNIT);
    memset(data, byte, KIT_UNIT);
    struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_WRITE, NULL, &err);
    assert_non_null(vhdx);
    if (rp_vhdx_info(vhdx)->has_parent) {
        kit_ok(rp_chain_open(rp_fs_posix(), rp_vhdx_info(vhdx)->parent_path, &below, &err), err);
        kit_ok(rp_vhdx_set_parent(vhdx, below.layers[0], &err), err);
    }
    kit_ok(rp_vhdx_write(vhdx, data, KIT_UNIT, unit * KIT_UNIT, &err), err);
    kit_ok(rp_vhdx_close(vhdx, &err), err);
}

static uint8_t byte_of(const char *path, uint64_t unit)
{
    struct rp_error err = {0};
    uint8_t data[512];
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    kit_ok(rp_chain_open(rp_fs_posix(), path, &chain, &err), err);
    kit_ok(rp_vhdx_read(chain.layers[0], data, sizeof data, unit * KIT_UNIT, &err), err);
    return data[0];
}

static uint32_t merge(const char *source, const char *destination, struct rp_cim_instance **out)
{
    return mk_call(&mk, IMAGES, "MergeVirtualHardDisk", out, "SourcePath", mk_text("%s", source), "DestinationPath",
                   mk_text("%s", destination), NULL);
}

// What was a folder when its path was written down, and is a link by now, may be anybody's.
static void a_link_that_came_into_the_way_to_a_parent_is_not_followed(void **state)
{
    (void)state;
    RP_AUTO_FREE char *folder = mk_file(&mk, "was-a-folder"), *moved = mk_file(&mk, "moved-folder"),
                      *base = mk_file(&mk, "was-a-folder/base.vhdx"), *child = mk_file(&mk, "above-link.vhdx");
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(make(base, 3, "", 16 * RP_MIB), 0);
    assert_int_equal(make(child, 4, base, 0), 0);
    assert_int_equal(mk_call(&mk, IMAGES, "ValidateVirtualHardDisk", NULL, "Path", mk_text("%s", child), NULL), 0);
    assert_int_equal(rename(folder, moved) | symlink(moved, folder), 0);
    assert_int_equal(mk_call(&mk, IMAGES, "ValidateVirtualHardDisk", NULL, "Path", mk_text("%s", child), NULL), 32769);
}

static void a_chain_is_merged_into_a_parent_some_levels_down(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *base = mk_file(&mk, "m0.vhdx"), *middle = mk_file(&mk, "m1.vhdx"),
                      *top = mk_file(&mk, "m2.vhdx"), *other = mk_file(&mk, "m3.vhdx");
    assert_int_equal(make(base, 3, "", 16 * RP_MIB), 0);
    assert_int_equal(make(other, 3, "", 16 * RP_MIB), 0);
    write_file(base, 1, 1);
    write_file(base, 2, 1);
    write_file(base, 3, 1);
    assert_int_equal(make(middle, 4, base, 0), 0);
    write_file(middle, 2, 2);
    write_file(middle, 3, 2);
    assert_int_equal(make(top, 4, middle, 0), 0);
    write_file(top, 3, 3);
    mk_made(&mk, merge(top, base, &out), &out, NULL);
    assert_int_equal(byte_of(base, 1), 1);
    assert_int_equal(byte_of(base, 2), 2);
    assert_int_equal(byte_of(base, 3), 3);
    mk_failed(&mk, merge(base, other, &out), &out, "not in the chain");
    mk_failed(&mk, merge(base, base, &out), &out, "the source itself");
}

// Stopped in the middle it has changed the destination; the chain is still one, as it is after a kill.
static void a_merge_that_was_stopped_can_be_run_again(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    const uint32_t step = 4 * RP_MIB;
    const uint64_t size = 512 * RP_MIB;
    RP_AUTO_FREE char *base = mk_file(&mk, "s0.vhdx"), *child = mk_file(&mk, "s1.vhdx");
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(step);
    assert_int_equal(make(base, 3, "", size), 0);
    assert_int_equal(make(child, 4, base, 0), 0);
    struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), child, RP_VHDX_WRITE, NULL, &err);
    assert_non_null(vhdx);
    memset(data, 6, step);
    for (uint64_t offset = 0; offset < size; offset += step)
        kit_ok(rp_vhdx_write(vhdx, data, step, offset, &err), err);
    kit_ok(rp_vhdx_close(vhdx, &err), err);
    uint32_t status = merge(child, base, &out);
    assert_int_equal(status, 4096);
    uint32_t cancelled = mk_call_on(&mk, rp_cim_get_path(out, "Job"), "RequestStateChange", NULL, "RequestedState",
                                    mk_number(4), NULL);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(&mk, status, &out);
    assert_true(cancelled == 0 || cancelled == 4096);
    assert_int_equal(rp_cim_get_unsigned(job, "JobState", 0), 8);
    mk_made(&mk, merge(child, base, &out), &out, NULL);
    for (uint64_t unit = 0; unit < size / KIT_UNIT; unit += 61)
        assert_int_equal(byte_of(base, unit), 6);
}

static void the_files_of_vms_are_left_alone(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *disk = mk_file(&mk, "alone-0.vhdx"), *free_one = mk_file(&mk, "free.vhdx");
    mk_define(&mk, "alone", 1, SIZE, id);
    kit_vhdx(free_one, SIZE);
    assert_int_equal(merge(disk, free_one, NULL), 32774);
    assert_int_equal(merge(free_one, disk, NULL), 32774);
    assert_int_equal(
        mk_call(&mk, IMAGES, "CompactVirtualHardDisk", NULL, "Path", mk_text("%s", disk), "Mode", mk_number(0), NULL),
        32774);
    assert_int_equal(mk_call(&mk, IMAGES, "SetParentVirtualHardDisk", NULL, "ChildPath", mk_text("%s", disk),
                             "ParentPath", mk_text("%s", free_one), NULL),
                     32774);
    // Nobody is made a child of what the VM writes.
    assert_int_equal(mk_call(&mk, IMAGES, "SetParentVirtualHardDisk", NULL, "ChildPath", mk_text("%s", free_one),
                             "ParentPath", mk_text("%s", disk), "IgnoreIDMismatch", mk_flag(true), NULL),
                     32774);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Path", mk_text("%s", disk), "Type",
                                           mk_number(3), NULL);
    assert_int_equal(mk_call(&mk, IMAGES, "ConvertVirtualHardDisk", NULL, "SourcePath", mk_text("%s", free_one),
                             "VirtualDiskSettingData", mk_text("%s", settings), NULL),
                     32774);
}

static void a_raw_image_and_a_chain_become_a_disk_of_their_own(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *raw = mk_file(&mk, "image.raw"), *base = mk_file(&mk, "c0.vhdx"),
                      *child = mk_file(&mk, "c1.vhdx");
    kit_raw(raw, 4 * RP_MIB, 5);
    assert_int_equal(make(base, 3, "", 16 * RP_MIB), 0);
    write_file(base, 1, 1);
    assert_int_equal(make(child, 4, base, 0), 0);
    write_file(child, 2, 2);
    const char *const sources[] = {raw, child};
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *target = kit_path("%s/converted-%zu.vhdx", mk.files, i);
        RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Path", mk_text("%s", target), "Type",
                                               mk_number(3), "Format", mk_number(3), NULL);
        uint32_t status = mk_call(&mk, IMAGES, "ConvertVirtualHardDisk", &out, "SourcePath", mk_text("%s", sources[i]),
                                  "VirtualDiskSettingData", mk_text("%s", settings), NULL);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(&mk, status, &out);
        assert_string_equal(job->class_name, "Msvm_StorageJob");
        assert_int_equal(rp_cim_get_unsigned(job, "JobState", 0), 7);
        assert_int_equal(rp_cim_get_unsigned(job, "JobType", 0), 6);
        if (i == 1)
            assert_int_equal(byte_of(target, 1) + 10 * byte_of(target, 2), 21);
        assert_int_equal(mk_call(&mk, IMAGES, "ConvertVirtualHardDisk", NULL, "SourcePath", mk_text("%s", sources[i]),
                                 "VirtualDiskSettingData", mk_text("%s", settings), NULL), 32775); // it is there
    }
}

static uint32_t resize(const char *path, uint64_t size, struct rp_cim_instance **out)
{
    return mk_call(&mk, IMAGES, "ResizeVirtualHardDisk", out, "Path", mk_text("%s", path), "MaxInternalSize",
                   mk_number(size), NULL);
}

static void disks_grow_and_never_shrink(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *loose = mk_file(&mk, "grow.vhdx"), *own = mk_file(&mk, "grows-0.vhdx");
    mk_define(&mk, "grows", 1, 8 * RP_MIB, id);
    kit_vhdx(loose, 8 * RP_MIB);
    const char *const paths[] = {loose, own};
    for (size_t i = 0; i < 2; i++) {
        mk_made(&mk, resize(paths[i], 16 * RP_MIB, &out), &out, NULL);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now =
            information("GetVirtualHardDiskSettingData", "SettingData", paths[i]);
        assert_int_equal(rp_cim_get_unsigned(now, "MaxInternalSize", 0), 16 * RP_MIB);
        assert_int_equal(resize(paths[i], 8 * RP_MIB, NULL), 32773);
        assert_int_equal(resize(paths[i], 16 * RP_MIB + 1, NULL), 32773);
        assert_int_equal(resize(paths[i], UINT64_MAX, NULL), 32773);
    }
    assert_int_equal(resize("/nowhere.vhdx", 16 * RP_MIB, NULL), 32769);
}

static void a_child_is_never_smaller_than_its_parent(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *base = mk_file(&mk, "large.vhdx"), *child = mk_file(&mk, "large-child.vhdx");
    assert_int_equal(make(base, 3, "", 64 * RP_MIB), 0);
    assert_int_equal(make(child, 4, base, 32 * RP_MIB), 32773);
    assert_int_equal(make(child, 4, base, 64 * RP_MIB), 0);
    mk_made(&mk, resize(child, 80 * RP_MIB, &out), &out, NULL);
}

static void a_file_of_freed_blocks_becomes_shorter(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    struct rp_error err = {0};
    struct stat before, after;
    RP_AUTO_FREE char *path = mk_file(&mk, "long.vhdx");
    assert_int_equal(make(path, 3, "", 64 * RP_MIB), 0);
    for (uint64_t block = 0; block < 16; block++)
        write_file(path, 32 * block, 1);
    struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_WRITE, NULL, &err);
    kit_ok(rp_vhdx_trim(vhdx, 0, 24 * RP_MIB, NULL, &err), err);
    kit_ok(rp_vhdx_close(vhdx, &err), err);
    assert_int_equal(stat(path, &before), 0);
    uint32_t status = mk_call(&mk, IMAGES, "CompactVirtualHardDisk", &out, "Path", mk_text("%s", path), "Mode",
                              mk_number(1), NULL);
    mk_made(&mk, status, &out, NULL);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_size < before.st_size);
    assert_int_equal(byte_of(path, 32 * 15), 1);
    assert_int_equal(
        mk_call(&mk, IMAGES, "CompactVirtualHardDisk", NULL, "Path", mk_text("%s", path), "Mode", mk_number(5), NULL),
        32773);
}

static uint32_t set_parent(const char *child, const char *parent, bool ignore)
{
    return mk_call(&mk, IMAGES, "SetParentVirtualHardDisk", NULL, "ChildPath", mk_text("%s", child), "ParentPath",
                   mk_text("%s", parent), "IgnoreIDMismatch", mk_flag(ignore), NULL);
}

static void a_moved_parent_is_found_again_and_another_only_when_told_so(void **state)
{
    (void)state;
    RP_AUTO_FREE char *base = mk_file(&mk, "p0.vhdx"), *moved = mk_file(&mk, "p0-moved.vhdx"),
                      *child = mk_file(&mk, "p1.vhdx"), *other = mk_file(&mk, "p2.vhdx");
    assert_int_equal(make(base, 3, "", 16 * RP_MIB), 0);
    assert_int_equal(make(other, 3, "", 16 * RP_MIB), 0);
    write_file(base, 4, 4);
    write_file(other, 4, 5);
    assert_int_equal(make(child, 4, base, 0), 0);
    assert_int_equal(rename(base, moved), 0);
    assert_true(mk_call(&mk, IMAGES, "ValidateVirtualHardDisk", NULL, "Path", mk_text("%s", child), NULL) >= 32768);
    assert_int_equal(set_parent(child, moved, false), 0);
    assert_int_equal(byte_of(child, 4), 4);
    assert_true(set_parent(child, other, false) >= 32768);
    assert_int_equal(byte_of(child, 4), 4);
    assert_int_equal(set_parent(child, other, true), 0);
    assert_int_equal(byte_of(child, 4), 5);
    assert_int_equal(set_parent(child, child, true), 32773);
    RP_AUTO_FREE char *above = mk_file(&mk, "p3.vhdx");
    assert_int_equal(make(above, 4, child, 0), 0);
    assert_int_equal(set_parent(child, above, true), 32773); // a chain that ends nowhere
    assert_int_equal(byte_of(above, 4), 5);
    assert_int_equal(set_parent(other, moved, true), 32773); // it has no parent
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_since_a_reference_point_are_what_was_written),
        cmocka_unit_test(a_part_of_a_disk_is_answered_for_that_part),
        cmocka_unit_test(many_ranges_come_in_answers_that_fit_an_envelope),
        cmocka_unit_test(ids_and_ranges_that_make_no_sense_are_codes_that_make_clients_read_everything),
        cmocka_unit_test(a_file_that_was_made_is_what_it_says_it_is),
        cmocka_unit_test(files_are_made_only_where_clients_may_and_only_once),
        cmocka_unit_test(files_elsewhere_and_files_that_are_none_are_refused),
        cmocka_unit_test(a_parent_outside_the_folders_is_not_read_through_a_child_inside),
        cmocka_unit_test(a_link_that_came_into_the_way_to_a_parent_is_not_followed),
        cmocka_unit_test(a_chain_is_merged_into_a_parent_some_levels_down),
        cmocka_unit_test(a_merge_that_was_stopped_can_be_run_again),
        cmocka_unit_test(the_files_of_vms_are_left_alone),
        cmocka_unit_test(a_raw_image_and_a_chain_become_a_disk_of_their_own),
        cmocka_unit_test(disks_grow_and_never_shrink),
        cmocka_unit_test(a_child_is_never_smaller_than_its_parent),
        cmocka_unit_test(a_file_of_freed_blocks_becomes_shorter),
        cmocka_unit_test(a_moved_parent_is_found_again_and_another_only_when_told_so),
    };
    return cmocka_run_group_tests_name("hostd methods: images", tests, start, stop);
}
