// A small Hyper-V host in memory, over the classes that hostd serves: the provider behind the tests and the fuzz target
// of the service. Two running machines "web" and "db", the host's own row, settings, disks, a job, services, reference
// points; in root/cimv2 one of each. Its objects are fixed but for Put and Delete; it may be asked by several threads
// as long as nobody uses those.
#ifndef TEST_WSMAN_INVENTORY_H
#define TEST_WSMAN_INVENTORY_H

#include <pthread.h>

#include "cim/provider.h"
#include "wsman/service.h"

#define WEB "A1B2C3D4-0000-4000-8000-000000000001"
#define DB "A1B2C3D4-0000-4000-8000-000000000002"
#define JOB "0B0B0B0B-0000-4000-8000-000000000003"

struct inventory {
    struct rp_cim_provider provider;  // first: it is what its functions get
    struct rp_cim_schema *schema;
    struct rp_cim_instances objects;
    enum rp_code broken;              // every call ends with this error
    unsigned delay_ms;                // before every object of an enumeration
    pthread_mutex_t mutex;            // of what follows
    struct rp_cim_instance *in;       // what the last method was given
    struct rp_cim_path *target;       // and of which object it was
    char user[64];
};
struct inventory *inventory_new(const char *name_space);
void inventory_free(struct inventory *inventory);
void inventory_reset(struct inventory *inventory); // the objects that there were at first
void inventory_fill(struct inventory *inventory, unsigned machines); // so many more machines "m0", "m1", …

// A service with both namespaces.
struct site {
    struct inventory *v2, *cimv2;
    struct rp_wsman_service *service;
    struct rp_cim_caller caller;      // administrator
    char context[64];                 // of the last answer that had one
};
struct rp_wsman_service *site_service(struct inventory *v2, struct inventory *cimv2,
                                      const struct rp_wsman_limits *limits);
void site_open(struct site *site, const struct rp_wsman_limits *limits);
void site_close(struct site *site);
// Sends one request, in which @CONTEXT@ stands for the last context. Appends the answer.
unsigned site_send(struct site *site, const char *request, size_t size, struct rp_buf *answer);

#endif
