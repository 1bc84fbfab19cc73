// What the files of the service share.
#ifndef RP_WSMAN_SERVICE_IMPL_H
#define RP_WSMAN_SERVICE_IMPL_H

#include "wsman/enumeration.h"
#include "wsman/service.h"

#define RP_SERVICE_MIN_ENVELOPE 8192 // DSP0226 6.2

struct rp_wsman_service {
    char *machine, *product_vendor, *product_version;
    struct rp_wsman_limits limits;
    struct rp_enumerations *enumerations;
    struct rp_cim_provider **providers;
    size_t provider_count;
};

// One request on its way. Operations write their response to `out`, or set the fault and return -1.
struct rp_service_request {
    struct rp_wsman_service *service;
    const struct rp_cim_caller *caller;
    struct rp_message message;
    struct rp_fault fault;
    struct rp_cim_provider *provider; // of the resource, once rp_service_resource has found it
    const struct rp_cim_class *class; // likewise; NULL for "*"
    struct rp_buf *out;
    size_t limit;                     // bytes of the response
    uint64_t deadline_ns;             // monotonic
};

// Writes the start of the response; `p_class` NULL: without prefix p, otherwise p is the URI of that class.
void rp_service_begin(struct rp_service_request *request, const char *action, const char *p_class);
// Finds the provider and the class that the resource URI names, or "*" where that is `all`.
int rp_service_resource(struct rp_service_request *request, bool all);
// The one instance that the selectors name, by all keys, or by some if they tell it from all others. Needs the
// resource.
struct rp_cim_instance *rp_service_find(struct rp_service_request *request);
// A fault for an error of the provider.
int rp_service_failed(struct rp_service_request *request, const struct rp_error *err);
// SELECT * FROM class WHERE all keys of `path` are as they are there. NULL when that is no query.
struct rp_wql *rp_service_select(const struct rp_cim_path *path, struct rp_error *err);

int rp_service_get(struct rp_service_request *request);
int rp_service_put(struct rp_service_request *request);
int rp_service_delete(struct rp_service_request *request);
int rp_service_invoke(struct rp_service_request *request);
int rp_service_enumerate(struct rp_service_request *request);
int rp_service_pull(struct rp_service_request *request);
int rp_service_release(struct rp_service_request *request);

// The query of a w:Filter, or for all of the class. Sets the fault. (service_filter.c)
struct rp_wql *rp_service_filter(struct rp_service_request *request, const xmlNode *filter,
                                 struct rp_enumeration *enumeration);

#endif
