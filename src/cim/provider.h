// What serves a namespace: the interface between WS-Management (src/wsman) and those who know the objects (src/hostd,
// tests).
#ifndef RP_CIM_PROVIDER_H
#define RP_CIM_PROVIDER_H

#include "cim/wql.h"

enum rp_cim_access { RP_CIM_READ = 1, RP_CIM_OPERATE = 2, RP_CIM_ADMINISTER = 3 }; // each includes those before it

// Who asks. Decided by authentication, before a provider sees the request.
struct rp_cim_caller {
    const char *user;       // "LAB\\admin", "alice@EXAMPLE.ORG", "uid 0"; never NULL
    const char *address;    // where it comes from, for the audit; never NULL
    enum rp_cim_access access;
};

// Takes one instance, also when it fails. Non-zero stops the enumeration with that error.
struct rp_cim_sink {
    int (*take)(void *context, struct rp_cim_instance *instance, struct rp_error *err);
    void *context;
};

struct rp_cim_provider;
struct rp_cim_provider_ops {
    // All instances of exactly `class` (not abstract; subclasses are asked for on their own). `query` may be NULL; a
    // provider may use rp_wql_required to give fewer, never too few. What has no path gets that of its keys.
    int (*instances)(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err);
    // One instance of exactly the path's class by some of its keys. RP_ERR_NOT_FOUND.
    struct rp_cim_instance *(*get)(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err);
    // The association instances of exactly `association` that name `source`, the whole path of an instance, at one of
    // their ends; more do no harm.
    int (*references)(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association, const struct rp_cim_path *source,
                      struct rp_cim_sink sink, struct rp_error *err);
    // `in` is typed by the method's declaration. Sets *status (ReturnValue) and out parameters in `out`. An error is a
    // failure of the provider itself; what the method cannot do is a status.
    int (*invoke)(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  const struct rp_cim_method *method, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                  uint32_t *status, struct rp_error *err);
    // WS-Transfer's Put and Delete; RP_ERR_UNSUPPORTED where the class has its methods instead.
    int (*put)(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
               const struct rp_cim_instance *instance, struct rp_error *err);
    int (*remove)(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  struct rp_error *err);
};
// One namespace. Called from several threads at once.
struct rp_cim_provider {
    const struct rp_cim_provider_ops *ops;
    const struct rp_cim_schema *schema;
    const char *server; // __SERVER: the host's name
};

// Runs a query: superclasses match their subclasses, associations are followed, columns cut. Instances come with their
// paths (server and namespace in them) in a stable order: that of the classes' declaration, then the provider's; of
// associators each once. RP_ERR_NOT_FOUND: no such class, or no instance where associations should start;
// RP_ERR_INVALID: a column that the class does not have; RP_ERR_UNSUPPORTED: ClassDefsOnly, another namespace;
// RP_ERR_CANCELLED: the query's deadline has passed.
int rp_cim_query(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_wql *query,
                 struct rp_cim_sink sink, struct rp_error *err);
// All instances of a class and of its subclasses, with their paths.
int rp_cim_enumerate(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     struct rp_cim_sink sink, struct rp_error *err);
// The instance that `path` names by some of its keys, of its class or of a subclass, with its path. RP_ERR_NOT_FOUND:
// no such class or instance.
struct rp_cim_instance *rp_cim_find(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                    const struct rp_cim_path *path, struct rp_error *err);

#endif
