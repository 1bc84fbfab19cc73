// The classes that the host serves: Hyper-V's in root/virtualization/v2 and a few of Windows's in root/cimv2, as the
// MOF files beside this header declare them.
#ifndef RP_HOSTD_SCHEMA_SCHEMA_H
#define RP_HOSTD_SCHEMA_SCHEMA_H

#include "cim/schema.h"

#define RP_HOSTD_VIRTUALIZATION "root/virtualization/v2"
#define RP_HOSTD_CIMV2 "root/cimv2"

// A new schema of one of these namespaces, to be freed; RP_ERR_NOT_FOUND for another.
struct rp_cim_schema *rp_hostd_schema(const char *name_space, struct rp_error *err);

#endif
