// A host that is killed in the middle of what it makes for a client, and started again: nothing half done is left, and
// the job is told as what it was.
#include "method-kit.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE (256 * RP_MIB)

// In a process of its own. Ends by its own hand as soon as the export has begun to copy.
static void export_and_die(char *folder)
{
    struct mk mk;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_start_in(&mk, folder);
    mk_define(&mk, "killed", 1, SIZE, id);
    mk_write(&mk, id, 0, 0, SIZE / KIT_UNIT, 1, 5);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    uint32_t status = mk_call(&mk, POINTS, "CreateReferencePoint", &out, "AffectedSystem", mk_ref(vm),
                              "ReferencePointType", mk_number(2), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point =
        mk_made(&mk, status, &out, "Msvm_VirtualSystemReferencePoint");
    mk_wait_merged(&mk, id);
    rp_cim_path_free(mk_snapshot(&mk, id, 32768, "refpoint:1:2")); // somebody's, who may be at work with it
    RP_AUTO_FREE char *target = mk_file(&mk, "export");
    status = mk_call(&mk, POINTS, "ExportReferencePoint", &out, "ReferencePoint", mk_ref(point), "ExportDirectory",
                     mk_text("%s", target), NULL);
    assert_int_equal(status, 4096);
    RP_AUTO_FREE char *copy = kit_path("%s/Virtual Hard Disks/killed-0.vhdx", target);
    for (int i = 0; i < 10000 && access(copy, F_OK); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    raise(SIGKILL);
}

// Does `work` in a process of its own, which kills itself; the folder.
static char *killed_in(void (*work)(char *folder))
{
    char *folder = kit_folder();
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(60);
        work(folder);
        _exit(1);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
    return folder;
}

static void a_killed_export_leaves_neither_checkpoint_nor_files(void **state)
{
    (void)state;
    struct mk mk;
    for (int done_before = 1, tries = 0; done_before && tries < 10; tries++) { // a slow machine's signal may come late
        if (tries)
            mk_stop(&mk);
        mk_start_in(&mk, killed_in(export_and_die));
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *export =
            mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePointExportJob");
        done_before = rp_cim_get_unsigned(export, "JobState", 0) == 7;
    }
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'killed'");
    const char *id = rp_cim_get_text(vm, "Name");
    RP_AUTO_FREE char *disk = mk_file(&mk, "export/Virtual Hard Disks/killed-0.vhdx");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *left =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier = '%s' AND"
                    " VirtualSystemType = 'Microsoft:Hyper-V:Snapshot:Recovery'", id);
    assert_string_equal(rp_cim_get_text(left, "ElementName"), "refpoint:1:2");
    mk_wait_merged(&mk, id);
    assert_int_equal(access(disk, F_OK), -1);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePointExportJob");
    assert_int_equal(rp_cim_get_unsigned(job, "JobState", 0), 10);
    // And the next one is as good as if nothing had been.
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *point = mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePoint");
    RP_AUTO_FREE char *target = mk_file(&mk, "export");
    struct rp_cim_instance *out;
    mk_made(&mk,
            mk_call(&mk, POINTS, "ExportReferencePoint", &out, "ReferencePoint", mk_ref(point->path), "ExportDirectory",
                    mk_text("%s", target), NULL),
            &out, NULL);
    assert_int_equal(access(disk, F_OK), 0);
    mk_stop(&mk);
}

// ---- conversion -----------------------------------------------------------------------------------------------------

static size_t parts_in(const char *folder)
{
    size_t count = 0;
    DIR *all = opendir(folder);
    assert_non_null(all);
    for (struct dirent *entry; (entry = readdir(all));) {
        size_t length = strlen(entry->d_name);
        count += length > 5 && !strcmp(entry->d_name + length - 5, ".part");
    }
    closedir(all);
    return count;
}

static uint32_t convert(struct mk *mk, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *source = mk_file(mk, "image.raw"), *target = mk_file(mk, "disk.vhdx");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Type", mk_number(3), "Format",
                                           mk_number(3), "Path", mk_text("%s", target), NULL);
    return mk_call(mk, IMAGES, "ConvertVirtualHardDisk", out, "SourcePath", mk_text("%s", source),
                   "VirtualDiskSettingData", mk_text("%s", settings), NULL);
}

static void convert_and_die(char *folder)
{
    struct mk mk;
    mk_start_in(&mk, folder);
    RP_AUTO_FREE char *source = mk_file(&mk, "image.raw");
    kit_raw(source, SIZE, 3);
    assert_int_equal(convert(&mk, NULL), 4096);
    for (int i = 0; i < 10000 && !parts_in(mk.files); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    raise(SIGKILL);
}

static void a_killed_conversion_leaves_no_part_of_a_file(void **state)
{
    (void)state;
    struct mk mk;
    struct rp_cim_instance *out;
    mk_start_in(&mk, killed_in(convert_and_die));
    RP_AUTO_FREE char *target = mk_file(&mk, "disk.vhdx");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_one(&mk, "SELECT * FROM Msvm_StorageJob");
    assert_int_equal(parts_in(mk.files), 0);
    assert_int_equal(rp_cim_get_unsigned(job, "JobState", 0), access(target, F_OK) ? 10 : 7);
    if (access(target, F_OK)) {
        uint32_t status = convert(&mk, &out);
        mk_made(&mk, status, &out, NULL);
    }
    assert_int_equal(parts_in(mk.files), 0);
    assert_int_equal(access(target, F_OK), 0);
    mk_stop(&mk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_export_leaves_neither_checkpoint_nor_files),
        cmocka_unit_test(a_killed_conversion_leaves_no_part_of_a_file),
    };
    return cmocka_run_group_tests_name("hostd methods: killed", tests, NULL, NULL);
}
