// The files of this folder as `embed` puts them into the program.
#ifndef RP_HOSTD_SCHEMA_MOF_H
#define RP_HOSTD_SCHEMA_MOF_H

#include <stddef.h>

struct rp_hostd_mof {
    const char *name, *name_space;
    const char *text;
    size_t size;
};
extern const struct rp_hostd_mof rp_hostd_mof[];
extern const size_t rp_hostd_mof_count;

#endif
