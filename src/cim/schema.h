// Classes: what a namespace's objects look like. Declared as data, in MOF (DSP0004 annex A): classes with properties,
// methods and qualifiers, of which key, abstract, association, singleton, in and out mean something here and others are
// passed over.
//
//     #pragma namespace("root/virtualization/v2")
//     [Abstract] class CIM_Job : CIM_LogicalElement
//     { string JobStatus; datetime TimeSubmitted; uint32 KillJob([in] boolean DeleteOnKill); };
//     class Msvm_ConcreteJob : CIM_ConcreteJob { [key] string InstanceID; uint16 HealthState = 5; };
//     [Association] class Msvm_AffectedJobElement
//     { [key] CIM_ManagedElement REF AffectedElement; [key] Msvm_ConcreteJob REF AffectingElement; };
//
// As in WMI, a type that is neither intrinsic nor followed by REF is a class whose instances are embedded ("object":
// any), and a subclass that declares a property again may narrow it; its key and default are inherited. A schema does
// not change once loaded; any number of threads may use it.
#ifndef RP_CIM_SCHEMA_H
#define RP_CIM_SCHEMA_H

#include "cim/instance.h"

struct rp_cim_class;
struct rp_cim_declaration {       // of a property or parameter
    char *name;
    enum rp_cim_type type;
    bool array;
    bool key;                     // property
    bool in, out;                 // parameter
    char *object_class;           // of a REFERENCE or OBJECT: its class; NULL: any
    struct rp_cim_value value;    // property: the default, NULL when none is declared
};
struct rp_cim_method {
    char *name;
    const struct rp_cim_schema *schema;
    enum rp_cim_type type;        // of its ReturnValue
    struct rp_cim_declaration *parameters; // in the order of the declaration
    size_t parameter_count;
};
struct rp_cim_class {
    char *name;
    const struct rp_cim_class *super;      // NULL at the top
    const struct rp_cim_schema *schema;
    bool association, abstract, singleton; // a singleton has no keys: its path is "Class=@"
    struct rp_cim_declaration *properties; // inherited ones included, sorted by name without regard to case
    size_t property_count;
    struct rp_cim_method *methods;         // inherited ones included
    size_t method_count;
};

// One namespace. Later declarations may name superclasses of earlier loads. All of a load counts, or, when it fails,
// nothing. RP_ERR_INVALID names `origin`, line and what was expected.
struct rp_cim_schema *rp_cim_schema_new(const char *name_space);
void rp_cim_schema_free(struct rp_cim_schema *schema); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_cim_schema, rp_cim_schema_free)
int rp_cim_schema_load(struct rp_cim_schema *schema, const char *mof, size_t size, const char *origin,
                       struct rp_error *err);
const char *rp_cim_schema_namespace(const struct rp_cim_schema *schema);
// In any case; NULL: none.
const struct rp_cim_class *rp_cim_schema_class(const struct rp_cim_schema *schema, const char *name);
size_t rp_cim_schema_count(const struct rp_cim_schema *schema);
const struct rp_cim_class *rp_cim_schema_at(const struct rp_cim_schema *schema, size_t i); // as declared, one by one

// Itself or one of its subclasses; false for NULL classes.
bool rp_cim_class_is(const struct rp_cim_class *class, const struct rp_cim_class *ancestor);
bool rp_cim_class_is_named(const struct rp_cim_class *class, const char *ancestor); // in any case
const struct rp_cim_declaration *rp_cim_class_property(const struct rp_cim_class *class, const char *name);
const struct rp_cim_method *rp_cim_class_method(const struct rp_cim_class *class, const char *name);

// An instance with every property of the class at its default, or NULL: what libvirt wants to see (facts 2.6).
struct rp_cim_instance *rp_cim_class_instance(const struct rp_cim_class *class);
// Gives bare values of an instance the types of its class, embedded objects those of theirs; RP_ERR_INVALID for an
// unknown property or a value that does not fit, naming it. What WMI adds (__CLASS and its like) is let through. The
// parameters of a method, taken as an instance, likewise; `out`: its out parameters and ReturnValue instead of those
// in.
int rp_cim_class_type(const struct rp_cim_class *class, struct rp_cim_instance *instance, struct rp_error *err);
int rp_cim_method_type(const struct rp_cim_method *method, bool out, struct rp_cim_instance *parameters,
                       struct rp_error *err);
// The path of an instance by its class's keys; a key that is NULL is left out. NULL when the class
// has no keys and is no singleton.
struct rp_cim_path *rp_cim_class_path(const struct rp_cim_class *class, const struct rp_cim_instance *instance);

#endif
