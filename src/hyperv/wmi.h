// The host connection over WMI and WS-Management: a Hyper-V host, or refpoint-hostd (facts/wmi.md 1.5, 1.6).
//
// What differs from the in-process connection, because WMI does not carry it:
//  - nbd_uri, the details of merges, and the time and name of a reference point are there where the host tells them
//    (refpoint-hostd does); disk_id of a reference point's disk is zero for a disk that the VM has no more.
//  - In an inventory the disks have paths but neither size, sectors nor disk_id where the host tells those disk by disk,
//    as Hyper-V does (refpoint-hostd does not).
//  - A snapshot whose merge goes on is listed no more; the VM's activity is all that is seen of it.
//  - A snapshot gets its name after its creation, unless the host heeds the one that it is asked for with
//    (refpoint-hostd does). Who is killed in between leaves one without.
//  - The consistency that a snapshot has, and the name of the snapshot that a reference point was made from, are known
//    to the connection that made them only.
//  - Paths are those of the host. destroy_system deletes no disk files: RP_ERR_UNSUPPORTED, and nothing is done.
#ifndef RP_HYPERV_WMI_H
#define RP_HYPERV_WMI_H

#include "hyperv/host_connection.h"
#include "wsman/client.h"

// Does not connect yet. `address` of the connection is the URL; who knows a better name may set it. RP_ERR_INVALID as
// rp_wsman_client_new.
struct rp_host_connection *rp_host_wmi_open(const struct rp_wsman_options *options, struct rp_error *err);

// What `host test` wants to know. Text is malloc'ed, "" where the host does not say.
struct rp_wmi_facts {
    char *vendor, *product;      // of Identify: "Microsoft Corporation", "OS: 10.0.20348 SP: 0.0 Stack: 3.0"
    char *machine;               // the host's name
    char *os_version;            // Win32_OperatingSystem.Version: "10.0.20348"
    bool services;               // the snapshot, management and image services can be seen
    bool reference_points;       // the reference point service can be seen
    size_t vms;
    char *old_vms;               // names of VMs whose configuration is too old for change tracking, comma separated
    size_t our_snapshots, other_snapshots; // recovery checkpoints: with a tag of refpoint, without one
    char *our_vms, *other_vms;   // the VMs that have those
};
// Reads only. Stops at the first thing that fails; what was learnt by then is in `facts`.
int rp_host_wmi_facts(struct rp_host_connection *host, struct rp_wmi_facts *facts, struct rp_error *err);
void rp_wmi_facts_clear(struct rp_wmi_facts *facts); // usable with RP_CLEANUP

#endif
