// Enumerations under way: what has been found and not yet been pulled (DSP0226 8). Thread safe, but for the enumeration
// itself, which belongs to whoever has taken it.
#ifndef RP_WSMAN_ENUMERATION_H
#define RP_WSMAN_ENUMERATION_H

#include "cim/provider.h"
#include "wsman/fault.h"
#include "wsman/item.h"

enum rp_enumeration_mode { RP_ENUMERATE_OBJECTS, RP_ENUMERATE_EPRS, RP_ENUMERATE_BOTH };

struct rp_enumerations;
struct rp_enumeration_holder; // a user, with all that his enumerations hold
struct rp_enumeration {
    struct rp_enumerations *owner;    // whose quota counts what it holds
    char id[48];                      // "" until it is kept
    char *user;                       // nobody else may pull
    struct rp_enumeration_holder *holder;
    const struct rp_cim_schema *schema;
    enum rp_uri_style style;
    enum rp_enumeration_mode mode;
    char **columns;                   // of a projection; none: all
    size_t column_count;
    struct rp_cim_instances items;
    size_t next;                      // the first that is still to be given
    uint64_t held;                    // bytes, as estimated
    uint64_t used_ns;                 // when it was pulled last, monotonic
    bool busy, released;
};

// Of `most_bytes` one user may hold a third.
struct rp_enumerations *rp_enumerations_new(size_t most, size_t most_of_user, uint32_t timeout_ms, uint64_t most_bytes);
void rp_enumerations_free(struct rp_enumerations *all);
size_t rp_enumerations_count(struct rp_enumerations *all); // open ones

struct rp_enumeration *rp_enumeration_new(struct rp_enumerations *owner, const char *user);
void rp_enumeration_free(struct rp_enumeration *enumeration); // one that is not kept; NULL is fine
RP_DEFINE_CLEANUP(struct rp_enumeration, rp_enumeration_free)
// Adds an object (taken, also on failure). Held is what has to be written: for EPRs its path only, and of classes in
// the schema no NULLs. QuotaLimit when all enumerations, or the user's, hold too much, but for those that nobody pulls any more.
int rp_enumeration_add(struct rp_enumeration *enumeration, struct rp_cim_instance *instance, struct rp_fault *fault);
void rp_enumeration_advance(struct rp_enumeration *enumeration, size_t count); // gives up the next ones

// Keeps it (taken on success) under a new id. Those that nobody has pulled for too long go first; then QuotaLimit.
int rp_enumerations_keep(struct rp_enumerations *all, struct rp_enumeration *enumeration, struct rp_fault *fault);
// Takes the user's enumeration out for a Pull: NULL with InvalidEnumerationContext, or Concurrency while another one
// has it. To be given back; `done`: it ends.
struct rp_enumeration *rp_enumerations_take(struct rp_enumerations *all, const char *id, const char *user,
                                            struct rp_fault *fault);
void rp_enumerations_give_back(struct rp_enumerations *all, struct rp_enumeration *enumeration, bool done);
int rp_enumerations_release(struct rp_enumerations *all, const char *id, const char *user, struct rp_fault *fault);

#endif
