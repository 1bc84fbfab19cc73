// The in-process host connection "local:DIR": VMs that are nothing but a name and disks (the offline inventory), kept
// in DIR. State in DIR/host.db (SQLite, synchronous=FULL) with intent records; a folder DIR/vms/<GUID> per VM.
#ifndef RP_HOST_LOCAL_H
#define RP_HOST_LOCAL_H

#include "hyperv/host_connection.h"

// Opens DIR, creating it when missing, and finishes or undoes what an earlier process began and did not end. Several
// processes may have it open; each change takes a lock.
struct rp_host_connection *rp_host_local_open(const char *directory, struct rp_error *err);

#endif
