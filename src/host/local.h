// The in-process host connection "local:DIR": VMs that are nothing but a name and disks (the offline inventory), kept
// in DIR. State in DIR/host.db (SQLite, synchronous=FULL) with intent records; a folder DIR/vms/<GUID> per VM.
#ifndef RP_HOST_LOCAL_H
#define RP_HOST_LOCAL_H

#include "hyperv/host_connection.h"

// Opens DIR, creating it when missing, and finishes or undoes what an earlier process began and did not end. Several
// processes may have it open; each change takes a lock.
struct rp_host_connection *rp_host_local_open(const char *directory, struct rp_error *err);
// The same for a service that stays: merges of VMs that are off, which take their time, are left to whoever asks find_vm for
// such a VM. Without `recover` nothing is finished or undone: for its further connections.
struct rp_host_connection *rp_host_local_open_resident(const char *directory, bool recover, struct rp_error *err);

// What the next method of this connection makes (snapshot, reference point, VM, planned VM) gets this GUID instead of a new one:
// who remembers it first can tell after a kill whether it was made. Used up by that method. The id of a snapshot or reference
// point is "Microsoft:" and the GUID, upper case; that of a VM just the GUID. A plan that keeps its old identity has that.
void rp_host_local_next_id(struct rp_host_connection *host, const char *guid);

// The settings (below) that the VM which the next define_system of this connection makes has from the start; NULL: none.
// Copied; used up by that method, also when it fails.
void rp_host_local_next_extras(struct rp_host_connection *host, const char *text);

// Settings of a VM that this host has no use for itself, and keeps: processors, memory, notes, start and stop actions, as a
// text of the caller's (at most 1 MiB). `id`: a VM's, a planned VM's, or a snapshot's, which has those of its moment. Exports
// carry it. *text is malloc'ed, "" when nothing was set.
int rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err);
int rp_host_local_set_extras(struct rp_host_connection *host, const char *vm_id, const char *text, struct rp_error *err);
// Where an export of this kind will have its definition, which it writes last: when the file is there, the export is whole.
// malloc'ed.
char *rp_host_local_export_file(struct rp_host_connection *host, const struct rp_export *what, struct rp_error *err);

// A file that its maker makes under a name of its own, and renames when it is whole. Announced durably before it is made:
// what a killed process leaves of it goes when the host is opened next. `path`: absolute, and nothing is there; its folder
// is under its own name. *making is for rp_host_local_made, of the same connection.
int rp_host_local_making(struct rp_host_connection *host, const char *path, int64_t *making, struct rp_error *err);
// The end, also of a failure: what is still there under that name goes. On failure it goes later, as after a kill.
int rp_host_local_made(struct rp_host_connection *host, int64_t making, struct rp_error *err);

// Which VM has a file: as a disk, in the chain of one, or as the parent of one; *written: it writes to it, or will when the
// checkpoints above it are gone. 1 and its id, 0 none, -1 error. Planned VMs do not count.
int rp_host_local_file_user(struct rp_host_connection *host, const char *path, char vm_id[RP_GUID_TEXT], bool *written,
                            struct rp_error *err);
// The planned VMs; their disks' paths are what the import says, whether they are there or not.
int rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned, struct rp_error *err);
// A number that changes with every change that any process makes in the host's database.
int rp_host_local_version(struct rp_host_connection *host, uint64_t *version, struct rp_error *err);

#endif
