// The WS-Management service itself: requests to providers, without any HTTP. A request comes as bytes and leaves as
// bytes, so that it can be tested, replayed and fuzzed. Thread safe.
#ifndef RP_WSMAN_SERVICE_H
#define RP_WSMAN_SERVICE_H

#include "cim/provider.h"
#include "wsman/message.h"

struct rp_wsman_limits {             // 0: the default (facts 2.4)
    uint32_t max_envelope;           // 512,000 bytes, both ways
    uint32_t max_batch;              // 32,000 items of one Pull
    uint32_t max_enumerations;       // 1,000 open at once, a tenth of them of one user
    uint32_t enumeration_timeout_ms; // 240,000 idle
    uint64_t max_enumerated;         // 96 MiB of objects held by all open enumerations; one user's hold a third at most
    uint32_t max_timeout_ms;         // 60,000 to find what an Enumerate asks for, or less by OperationTimeout
};
struct rp_wsman_service;
struct rp_wsman_service *rp_wsman_service_new(const char *machine, const char *product_vendor,
                                              const char *product_version, const struct rp_wsman_limits *limits);
void rp_wsman_service_free(struct rp_wsman_service *service); // NULL is fine; not while a request is handled
RP_DEFINE_CLEANUP(struct rp_wsman_service, rp_wsman_service_free)
// Adds a namespace; the provider is borrowed. Before the first request.
void rp_wsman_service_add(struct rp_wsman_service *service, struct rp_cim_provider *provider);

// Answers a request. `caller` NULL: not known; only Identify is answered then (without version), everything else is
// AccessDenied. Appends the response to `out` and returns the HTTP status. Identify, Enumerate, Pull, Release, Get,
// Put, Delete, Invoke. What a method or Put gives back has to fit into the envelope (the request's, at most
// max_envelope): it has been carried out by then, so the fault is EncodingLimit with UnreportableSuccess.
// Access: reading operations RP_CIM_READ; methods are the provider's business; Put and Delete RP_CIM_ADMINISTER.
unsigned rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                 const char *charset, const void *request, size_t size, struct rp_buf *out);

#endif
