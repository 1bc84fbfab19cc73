// What a backup will read: the base it builds on, and for every disk whether its changes are enough. Decisions only: no
// function here talks to a host or a repository.
#ifndef RP_BACKUP_PLAN_H
#define RP_BACKUP_PLAN_H

#include "hyperv/host_connection.h"
#include "repo/repo.h"

#define RP_PLAN_REASON 256
#define RP_PLAN_MAX_DISKS 1024

// The base: the newest restore point of this VM whose reference point still exists on the host.
struct rp_plan_base {
    const struct rp_point *point;               // NULL: none
    const struct rp_reference_point *reference; // with `point`
    char reason[RP_PLAN_REASON];                // why there is none
};
// Borrows from both lists.
void rp_plan_choose_base(const struct rp_points *points, const char *vm_id,
                         const struct rp_reference_points *references, struct rp_plan_base *base);

// Whether it is the reference point of this restore point: the one that it names, or another that names the same moment
// of all its disks, as a host makes when it takes one back after a restore. Change tracking issues no id twice.
bool rp_plan_names(const struct rp_point *point, const struct rp_reference_point *reference);

struct rp_plan_disk {
    const struct rp_vm_disk *disk;     // borrowed from the settings
    const struct rp_point_disk *base;  // borrowed from the base point; NULL: the disk is read in full
    char rct_id[RP_HOST_ID];           // with `base`: where the changes start
    char reason[RP_PLAN_REASON];       // without: why
};
struct rp_plan {
    struct rp_plan_disk *disks; // in the order of the settings
    size_t count;
};
// Refuses settings that no host gives (RP_ERR_CORRUPT): two disks of one number, sizes that are not whole sectors.
int rp_plan_make(const struct rp_vm_settings *settings, const struct rp_plan_base *base, struct rp_plan *plan,
                 struct rp_error *err);
void rp_plan_clear(struct rp_plan *plan);
// The disk can only be read in full after all: its changes are not known.
void rp_plan_disk_full(struct rp_plan_disk *disk, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The disk of `point` that is `disk` of the host, or NULL. Instance and disk id name a disk together; a disk that moved
// to another controller is known by its id alone, as long as only one disk has it.
const struct rp_point_disk *rp_plan_match(const struct rp_vm_settings *settings, const struct rp_vm_disk *disk,
                                          const struct rp_point *point);

// How frozen disks are read.
enum rp_reader_kind {
    RP_READER_ANY,          // whichever suits the host
    RP_READER_VIRTUAL_DISK, // the files of this machine
    RP_READER_SHARE,        // the host's files, in mounts of its folders
    RP_READER_EXPORT,       // copies that the host makes in a folder that both sides see
};
const char *rp_reader_name(enum rp_reader_kind kind); // "virtual-disk", "mounted-share", "wmi-export"
// "virtual-disk", "share", "export"; the names above are good too. -1: none of these.
int rp_reader_parse(const char *text, enum rp_reader_kind *kind);
// The virtual disk for a local host, the mounted share when all files are in mapped folders, else the export when there
// is a folder for it (NULL: none). A reader that was asked for and cannot work is refused, with what it lacks.
int rp_plan_choose_reader(const struct rp_host_connection *host, const struct rp_vm_settings *settings,
                          enum rp_reader_kind asked,
                          const char *export_folder, enum rp_reader_kind *chosen, struct rp_error *err);

#endif
