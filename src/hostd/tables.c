// The methods that this host has: a table of each method_*.c.
#include "hostd/hostd.h"

const struct rp_hostd_method *const rp_hostd_method_tables[] = {
    rp_hostd_job_methods,
    rp_hostd_snapshot_methods,
    rp_hostd_point_methods,
    rp_hostd_management_methods,
    rp_hostd_planned_methods,
    rp_hostd_image_methods,
    rp_hostd_state_methods,
    rp_hostd_summary_methods,
    NULL,
};
