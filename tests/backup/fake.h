// A host of one VM whose disks live in memory, with change tracking, checkpoints and reference points as the real one has
// them, that can be told to fail or to lie; a reader of its frozen disks; and a backend that fails on purpose.
#ifndef TESTS_BACKUP_FAKE_H
#define TESTS_BACKUP_FAKE_H

#include "backup/backup.h"

#define FAKE_MAX 8
#define FAKE_POINTS 256
#define FAKE_UNIT 65536u

struct fake_disk {
    bool present;
    uint32_t number;
    char instance[RP_HOST_ID];
    struct rp_guid disk_id;
    uint64_t size;
    uint8_t *data;       // the whole disk
    bool *allocated;     // per unit
    uint32_t *since;     // per unit: epoch of the last change
    struct rp_guid tracking;
    bool untracked;
};
struct fake_point {
    bool present, snapshot; // snapshot, or reference point
    char id[RP_HOST_ID];
    char *name;
    enum rp_snapshot_type type;
    uint32_t epoch;
    int64_t time_ns;
    struct fake_disk disks[FAKE_MAX]; // frozen; data only in a snapshot
    unsigned readers;            // open now
};
struct fake_host {
    struct rp_host_connection host;
    struct rp_vm vm;
    uint32_t epoch;              // shared by all disks
    unsigned next_id;
    struct fake_disk disks[FAKE_MAX];
    struct fake_point points[FAKE_POINTS];
    unsigned merging;            // find_vm says MERGING so many times more
    int64_t time_ns;             // what its clock says; 0: the truth
    // faults
    unsigned calls;              // verbs called so far (only those that a backup makes; not find_vm)
    unsigned fail_at;            // this call fails; 0: none
    bool fail_after;             // ... after having done its work: the answer is lost
    const char *failed_verb;     // which one it was
    unsigned lost_from;          // from this call on every one fails: nobody is there any more
    // jobs that take a while (fake_jobs.c)
    unsigned slow;               // so often job_state says RUNNING of each; 0: they are done when they are started
    enum fake_cancel {
        FAKE_CANCEL_ENDS,        // asked to end, a job ends and has made nothing
        FAKE_CANCEL_TOO_LATE,    // … is done at the next look
        FAKE_CANCEL_REFUSED,     // … says no, and is done in its own time
        FAKE_CANCEL_IGNORED,     // … says yes, and goes on for ever
    } cancel;
    struct fake_job {
        bool present, ended, done, endless;
        const char *verb;
        char target[RP_HOST_ID], name[RP_HOST_ID], result[RP_HOST_ID];
        enum rp_snapshot_type type;
        unsigned polls;
    } jobs[64];
    unsigned next_job, asked_to_end;
    bool nameless;               // a reference point does not get the name of its checkpoint
    void (*before)(struct fake_host *fake, const char *verb);
    void *context;
    // lies
    bool reached_crash, unordered_changes, outside_changes, no_progress_changes, refuse_changes, wrong_size, twice_the_number;
    const char *outside;         // what the VM's settings say is outside of its disks; NULL: nothing
    bool left_out;               // a checkpoint leaves out the first disk
    bool hide_snapshot, hide_reference, hide_newest, other_rct_ids;
    uint64_t bytes_read;         // by the reader
    unsigned readers;            // open now
    bool gone;                   // the VM is; others that were restored may be there
    // fake_files.c: the host's folders D:\VMs and E:\Export in these, mapped; NULL: it has no files
    char *vms, *exports;
    const char *consistency_reason; // what the checkpoints say of it; NULL: nothing
    enum rp_code no_application_code; // how they fail; 0: RP_ERR_STATE
    bool whole_instead, refuse_export, refuse_differences, no_application, foreign_configuration, lost_reference;
    unsigned export_count;
    char excluded[FAKE_MAX][RP_HOST_ID]; // of the last export
    size_t excluded_count;
    char *definition;            // what the last import was given
    const char *old_files[FAKE_MAX]; // of an imported VM's disks; NULL: of a machine that is long gone
    char reference_id[RP_HOST_ID]; // what an import of the reference point makes
    struct fake_planned {
        bool present, real, running, validated;
        char id[RP_GUID_TEXT];
        char *name;
        size_t disk_count;
        struct rp_vm_disk disks[FAKE_MAX];
        bool reference;
    } planned[4];
};

void fake_init(struct fake_host *fake);
void fake_clear(struct fake_host *fake);
struct fake_disk *fake_add_disk(struct fake_host *fake, uint64_t size);
void fake_remove_disk(struct fake_host *fake, unsigned slot);
void fake_resize(struct fake_host *fake, unsigned slot, uint64_t size);
void fake_write(struct fake_host *fake, unsigned slot, uint64_t offset, const void *data, size_t size);
void fake_trim(struct fake_host *fake, unsigned slot, uint64_t offset, uint64_t length); // whole units
unsigned fake_count(const struct fake_host *fake, bool snapshots); // snapshots, or reference points
void fake_forget_points(struct fake_host *fake); // all snapshots and reference points
struct fake_point *fake_new_point(struct fake_host *fake, bool snapshot, const char *name);

// ---- fake_jobs.c ----------------------------------------------------------------------------------------------------

// Does what the verb does, at once or as a job.
void fake_job_start(struct fake_host *fake, const struct fake_job *what, char job[RP_HOST_ID]);
void fake_job_do(struct fake_host *fake, struct fake_job *job); // fake.c: the work itself
bool fake_job_busy(const struct fake_host *fake, const char *target); // somebody is at it
void fake_jobs_finish(struct fake_host *fake); // those that go on for ever have come to their end
int fake_job_state(struct rp_host_connection *host, const char *job, struct rp_job_state *state, struct rp_error *err);
int fake_job_cancel(struct rp_host_connection *host, const char *job, struct rp_error *err);

// ---- fake_files.c: frozen disks as files, exports, planned VMs ----------------------------------------------------------

// Makes FOLDER/vms and FOLDER/exports, and maps D:\VMs and E:\Export to them.
void fake_use_files(struct fake_host *fake, const char *folder);
void fake_clear_files(struct fake_host *fake);
void fake_write_snapshot(struct fake_host *fake, const struct fake_point *point); // its disks as files in FOLDER/vms
unsigned fake_count_planned(const struct fake_host *fake, bool real);
// What fake.c shares with it.
bool fake_enter(struct fake_host *fake, const char *verb, struct rp_error *err);
int fake_leave(struct fake_host *fake, const char *verb, struct rp_error *err);
struct fake_point *fake_find_point(struct fake_host *fake, const char *id, bool snapshot);
extern const struct rp_host_ops fake_file_ops;

// For rp_backup_options.open_reader.
struct rp_reader *fake_reader_open(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err);

// A backend on `inner` whose put number `fail_at` fails (1: the next); taken over.
struct fake_backend {
    struct rp_backend backend;
    struct rp_backend *inner;
    unsigned puts, fail_at;
    unsigned calls, fail_call; // of any kind
    unsigned points_read;
    char failed[128];          // the first call that failed
    bool stays_full, full;     // from the failing call on, every put fails
    uint64_t room;             // what it says; 0: the truth
    unsigned packs;            // puts of packs
    char bad_sector[128];      // a get of this object is an EIO
};
struct rp_backend *fake_backend_new(struct rp_backend *inner, struct fake_backend **out);

#endif
