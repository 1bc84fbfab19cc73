// What the reader of MOF (mof.c) fills and schema.c keeps.
#ifndef RP_CIM_SCHEMA_INTERNAL_H
#define RP_CIM_SCHEMA_INTERNAL_H

#include "cim/schema.h"

struct rp_cim_schema {
    char *name_space;
    struct rp_cim_class **classes; // in the order of declaration
    struct rp_cim_class **sorted;  // by name
    size_t count, capacity;
};

// A class with everything that `super` (NULL: none) has; not yet part of the schema.
struct rp_cim_class *rp_cim_class_new(const struct rp_cim_schema *schema, const char *name,
                                      const struct rp_cim_class *super);
void rp_cim_class_free(struct rp_cim_class *class);
RP_DEFINE_CLEANUP(struct rp_cim_class, rp_cim_class_free)
// Adds a property, or lets it take the place of one that was inherited: that one's key and, without a default of its
// own, its default stay. `property` is taken.
void rp_cim_class_add_property(struct rp_cim_class *class, struct rp_cim_declaration *property);
void rp_cim_class_add_method(struct rp_cim_class *class, struct rp_cim_method *method); // likewise, as a whole; taken
void rp_cim_declaration_clear(struct rp_cim_declaration *declaration);
RP_DEFINE_CLEANUP(struct rp_cim_declaration, rp_cim_declaration_clear)
void rp_cim_method_clear(struct rp_cim_method *method);
void rp_cim_schema_add(struct rp_cim_schema *schema, struct rp_cim_class *class); // taken; its name is new

// Reads declarations of classes into `schema`.
int rp_mof_read(struct rp_cim_schema *schema, const char *mof, size_t size, const char *origin, struct rp_error *err);

#endif
