// A restore point: one small JSON document, written last and never changed.
#ifndef RP_REPO_POINT_H
#define RP_REPO_POINT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/guid.h"

#define RP_POINT_ID 65 // lower-case hex text of the id, NUL included; a prefix names a point on the command line
#define RP_REPO_ID_BYTES 32

// A stored disk: the id of its tree's top node and its size in bytes. An all-zero id is an empty (all-zero) disk.
struct rp_repo_root {
    uint8_t id[RP_REPO_ID_BYTES];
    uint64_t size;
};

struct rp_point_disk {
    uint32_t number;
    char *instance;          // the host's InstanceID of the disk
    struct rp_guid disk_id;
    uint32_t logical_sector, physical_sector;
    char *rct_id;            // of the reference point taken with this restore point; NULL: not tracked
    char *kind;              // "full" or "incremental"
    char *reason;            // why full ("first backup", "disk was added", …); NULL when incremental
    uint64_t bytes_read;     // from the host
    uint64_t bytes_changed;  // what the change query named (full: what was allocated)
    struct rp_guid data_write_guid; // of the file in an export, which its definition knows; zero: there was none
    struct rp_repo_root root;
};
// A small file of the VM's configuration, as an export has it.
struct rp_point_file {
    char *name;              // "<GUID>.vmcx"
    char *data;              // in base64
};
// All strings are UTF-8, malloc'ed, owned by the point; NULL means absent.
struct rp_point {
    char id[RP_POINT_ID];
    int64_t time_ns;         // the checkpoint's moment, by the host's clock
    uint64_t sequence;       // larger than those of all points of the VM that were committed before, from 1; 0: not known
    int64_t order_ns;        // not stored: time_ns, or earlier when a later point of the VM says so (rp_repo_points)
    char *vm_id, *vm_name;
    char *host;              // address of the host connection
    char *kind;              // "full" when every disk is, else "incremental"
    char *reason;            // why full, joined from the disks
    char *approach;          // "wmi-checkpoint", later "host-vss"
    char *reader;            // "virtual-disk", "mounted-share", "wmi-export"
    char *consistency_asked, *consistency_reached, *consistency_reason; // "application" | "crash"
    char *reference_point;   // the host's id of it
    char *base_point;        // id of the restore point that this incremental was built on
    char *settings;          // the VM's settings document as the host gave it
    uint64_t started_ns, checkpoint_ns, read_ns, convert_ns; // durations; started_ns is wall time
    uint64_t bytes_read, bytes_stored, new_blocks;
    char *software;          // "refpoint 0.1.0"
    struct rp_point_disk *disks;
    size_t disk_count;
    struct rp_point_file *files;
    size_t file_count;
};
void rp_point_clear_files(struct rp_point *point);
void rp_point_clear(struct rp_point *point);
// The document, without the id (which is derived from it).
int rp_point_encode(const struct rp_point *point, struct rp_buf *json, struct rp_error *err);
int rp_point_decode(const void *json, size_t size, struct rp_point *point, struct rp_error *err);

#endif
