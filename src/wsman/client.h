// A client of any WS-Management service: WinRM of a Hyper-V host, refpoint-hostd. What can be set is in transport.h.
// Not thread safe. It relies on nothing that real services do not promise: any prefixes, items in either namespace,
// DMTF and Microsoft forms of values.
#ifndef RP_WSMAN_CLIENT_H
#define RP_WSMAN_CLIENT_H

#include "cim/schema.h"
#include "wsman/message.h"
#include "wsman/transport.h"

struct rp_wsman_client;
// Does not connect yet. RP_ERR_INVALID for what cannot be (see rp_wsman_transport_new).
struct rp_wsman_client *rp_wsman_client_new(const struct rp_wsman_options *options, struct rp_error *err);
void rp_wsman_client_free(struct rp_wsman_client *client); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_wsman_client, rp_wsman_client_free)

// Fills malloc'ed strings ("" when it does not say); either pointer may be NULL.
int rp_wsman_identify(struct rp_wsman_client *client, char **vendor, char **version, struct rp_error *err);
// Every result of a WQL query (or, `query` NULL, every instance of `class_name`), in batches, appended to `result`.
// `schema` types the values that its classes know and that fit; others stay bare, since a host may be newer (NULL:
// all do). `with_paths`: ObjectAndEPR, each gets its path. RP_ERR_* as rp_fault_to_error; `result` is then as it was.
int rp_wsman_query(struct rp_wsman_client *client, const char *name_space, const char *class_name, const char *query,
                   const struct rp_cim_schema *schema, bool with_paths, struct rp_cim_instances *result,
                   struct rp_error *err);
// The instance at a path, which it gets too.
struct rp_cim_instance *rp_wsman_get(struct rp_wsman_client *client, const struct rp_cim_path *path,
                                     const struct rp_cim_schema *schema, struct rp_error *err);
// Calls a method of the object at `path`, whose namespace and class must be said. `in` NULL: no parameters. *status:
// ReturnValue. The result has the out parameters, bare.
struct rp_cim_instance *rp_wsman_invoke(struct rp_wsman_client *client, const struct rp_cim_path *path,
                                        const char *method, const struct rp_cim_instance *in, uint32_t *status,
                                        struct rp_error *err);

#endif
