// Backup of one VM: full, or what changed since the newest restore point whose reference point the host still has.
//
// Order (docs/architecture.md; facts/wmi.md 1.5): lock → own leftovers away → base → session → checkpoint → (export →)
// read and store (→ export away) → packs durable → reference point → restore point → older reference points away →
// merge. Before the restore point is written, a failure removes what this job made on the host; after it, nothing can
// undo the backup.
#ifndef RP_BACKUP_BACKUP_H
#define RP_BACKUP_BACKUP_H

#include "backup/plan.h"
#include "backup/reader.h"

struct rp_backup_options {
    bool full;                       // read everything allocated, whatever is known
    enum rp_consistency consistency; // asked for; UNKNOWN counts as CRASH
    bool allow_crash;                // take what the host reached when it could not do better, and when it could do
                                     // nothing ask for a crash-consistent one; the point records why
    bool by_default;                 // nobody asked for application consistency in so many words: that a guest has no agent, or
                                     // does not run, is recorded, but no remark
    bool left_out_known;             // no remark on disks of the VM that its checkpoint leaves out
    bool ignore_room;                // begin also when the repository seems to have too little
    uint64_t rate;                   // bytes per second read; 0: no limit
    unsigned threads;                // 0: as many as fit the machine
    unsigned merge_timeout_ms;       // how long to wait for merges, before and after; 0: look once
    unsigned cancel_timeout_ms;      // how long the host may take to end what it was asked to end; 0: a minute
    // All may be NULL. `progress`: bytes read of those to read; non-zero stops. `stop`: non-zero stops, where there is
    // no progress to report. `remark`: what the administrator should know though the backup is good.
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
    int (*stop)(void *context);
    void (*remark)(void *context, const char *text);
    // How the host's merge is getting on, while it is waited for.
    void (*merging)(void *context, const struct rp_vm *vm);
    void *context;
    // How the disks are read: rp_plan_choose_reader.
    enum rp_reader_kind reader;
    const char *export_folder;       // as the host calls it; NULL: the connection's
    // Instead of all that: who brings a reader of his own.
    struct rp_reader *(*open_reader)(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                     struct rp_error *err);
};

struct rp_backup_result {
    struct rp_point point;   // as committed
    bool merge_pending;      // the host still merges: the point is good, the VM's chain is longer for a while
    unsigned orphans;        // leftovers of interrupted jobs that were removed
    uint64_t wait_ns;        // for the merge
};

// `vm`: as rp_host_ops.find_vm gave it. RP_ERR_CANCELLED: asked to stop; the message says what was done about it, and
// what is left on the host, if anything. Asked to stop too late, the backup is made. RP_ERR_BUSY: another backup of this
// VM into this repository is running. RP_ERR_NO_SPACE: the repository is full, or so nearly that this was not begun; the
// message says where and how much is missing.
int rp_backup_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                  const struct rp_backup_options *options, struct rp_backup_result *result, struct rp_error *err);
void rp_backup_result_clear(struct rp_backup_result *result);

// What rp_backup_run would do, as far as can be known without a checkpoint. Changes nothing.
struct rp_backup_preview {
    struct rp_points points;                   // what the plan borrows from
    struct rp_reference_points references;
    struct rp_vm_settings settings;
    struct rp_plan_base base;
    struct rp_plan plan;
    enum rp_reader_kind reader;
};
int rp_backup_preview(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                      const struct rp_backup_options *options, struct rp_backup_preview *preview, struct rp_error *err);
void rp_backup_preview_clear(struct rp_backup_preview *preview);

#endif
