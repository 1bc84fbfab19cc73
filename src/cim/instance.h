// Instances: a class name and named values. The class itself need not be known: a client takes what a host sends.
#ifndef RP_CIM_INSTANCE_H
#define RP_CIM_INSTANCE_H

#include "cim/path.h"
#include "cim/value.h"

struct rp_cim_property {
    char *name;
    struct rp_cim_value value;
};
struct rp_cim_instance {
    char *class_name;
    char *name_space;                   // NULL: not said
    struct rp_cim_path *path;           // where it came with one (ObjectAndEPR, a provider's instance); NULL otherwise
    struct rp_cim_property *properties; // sorted by name without regard to case
    size_t count, capacity;
};
struct rp_cim_instance *rp_cim_instance_new(const char *name_space, const char *class_name);
void rp_cim_instance_free(struct rp_cim_instance *instance); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_cim_instance, rp_cim_instance_free)
struct rp_cim_instance *rp_cim_instance_copy(const struct rp_cim_instance *instance);

// Adds or replaces; `value` is taken. Names in any case; the spelling that came first stays.
void rp_cim_set(struct rp_cim_instance *instance, const char *name, struct rp_cim_value value);
// Borrowed; NULL when there is none of that name (a NULL value is there).
const struct rp_cim_value *rp_cim_get(const struct rp_cim_instance *instance, const char *name);

// Values that a client wants, wherever they come from: typed or bare text, absent and NULL alike. Arrays give their
// first element. NULL, `otherwise`, false when absent, NULL, or not readable as that.
const char *rp_cim_get_text(const struct rp_cim_instance *instance, const char *name); // borrowed; strings only
uint64_t rp_cim_get_unsigned(const struct rp_cim_instance *instance, const char *name, uint64_t otherwise);
bool rp_cim_get_boolean(const struct rp_cim_instance *instance, const char *name, bool otherwise);
bool rp_cim_get_datetime(const struct rp_cim_instance *instance, const char *name, struct rp_cim_datetime *t);
const struct rp_cim_path *rp_cim_get_path(const struct rp_cim_instance *instance, const char *name); // borrowed
// How many elements an array has (1 for a scalar, 0 absent or NULL), and element i as text, number or path.
size_t rp_cim_get_count(const struct rp_cim_instance *instance, const char *name);
const char *rp_cim_get_text_at(const struct rp_cim_instance *instance, const char *name, size_t i);
const struct rp_cim_path *rp_cim_get_path_at(const struct rp_cim_instance *instance, const char *name, size_t i);
uint64_t rp_cim_get_unsigned_at(const struct rp_cim_instance *instance, const char *name, size_t i, uint64_t otherwise);

struct rp_cim_instances {
    struct rp_cim_instance **items;
    size_t count, capacity;
};
void rp_cim_instances_push(struct rp_cim_instances *list, struct rp_cim_instance *instance); // taken
void rp_cim_instances_clear(struct rp_cim_instances *list); // usable with RP_CLEANUP

#endif
