// Reference points (facts/wmi.md 1.2, 1.3).
#include <string.h>
#include <strings.h>

#include "hostd/core.h"

static int emit_point(const struct rp_cim_class *class, const struct rp_reference_point *point, struct rp_cim_sink sink,
                      struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    rp_hostd_object_text(object, class, "InstanceID", rp_hostd_paths_instance(point->id, "", instance));
    rp_hostd_object_text(object, class, "VirtualSystemIdentifier", point->vm_id);
    rp_hostd_object_text(object, class, "Caption", "Virtual System Reference Point");
    rp_hostd_object_text(object, class, "ElementName", point->name);
    rp_hostd_object_number(object, class, "ReferencePointType", 2); // RCT
    rp_hostd_object_number(object, class, "ConsistencyLevel", RP_CONSISTENCY_CRASH);
    rp_hostd_object_flag(object, class, "HasAssociatedData", false);
    for (size_t i = 0; i < point->disk_count; i++) {
        rp_hostd_object_add(object, class, "VirtualDiskIdentifiers", rp_cim_string(point->disks[i].instance));
        rp_hostd_object_add(object, class, "ResilientChangeTrackingIdentifiers", rp_cim_string(point->disks[i].rct_id));
    }
    return sink.take(sink.context, object, err);
}

static int each_point(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                      const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)hostd;
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].points.count; j++) {
            const struct rp_reference_point *point = &inventory->items[i].points.items[j];
            if (only && strcasecmp(rp_hostd_paths_bare(only), rp_hostd_paths_bare(point->id)))
                continue;
            if (emit_point(class, point, sink, err))
                return -1;
        }
    return 0;
}

const struct rp_hostd_objects rp_hostd_point_objects[] = {
    {"Msvm_VirtualSystemReferencePoint", "InstanceID", true, each_point},
    {0},
};
