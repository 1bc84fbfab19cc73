// Settings as text: CIM-XML instances one after the other, as documents and what a host keeps for others
// (rp_host_local_extras) have them.
#ifndef RP_HOST_CIM_TEXT_H
#define RP_HOST_CIM_TEXT_H

#include "cim/cimxml.h"

// Appends. At most 1 MiB and 256 instances: RP_ERR_CORRUPT.
int rp_cim_text_parse(const char *text, struct rp_cim_instances *instances, struct rp_error *err);
// malloc'ed, "" for none; RP_ERR_INVALID when it could not be read again, which would hide a VM's settings for ever.
char *rp_cim_text_format(const struct rp_cim_instances *instances, struct rp_error *err);

#endif
