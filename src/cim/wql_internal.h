// What the parser of WQL (wql.c) makes of a condition, and its evaluator (wql_match.c) walks.
#ifndef RP_CIM_WQL_INTERNAL_H
#define RP_CIM_WQL_INTERNAL_H

#include "cim/wql.h"

enum rp_wql_op {
    RP_WQL_AND, RP_WQL_OR, RP_WQL_NOT, // of `parts`
    RP_WQL_EQUAL, RP_WQL_NOT_EQUAL, RP_WQL_LESS, RP_WQL_LESS_EQUAL, RP_WQL_GREATER, RP_WQL_GREATER_EQUAL,
    RP_WQL_LIKE, RP_WQL_ISA,           // `right` is a literal
    RP_WQL_IS_NULL,                    // has no `right`
};
struct rp_wql_operand {
    bool literal;
    char *text;               // of a literal, or the name of a property
    struct rp_cim_path *path; // of a literal that is one; NULL otherwise
};
struct rp_wql_condition {
    enum rp_wql_op op;
    struct rp_wql_condition **parts;
    size_t count;
    struct rp_wql_operand left, right; // `left` is a property
};
// __CLASS, __PATH, __RELPATH, __SERVER, __NAMESPACE of an instance, to be cleared; false for other names. `class`,
// `server`: as for rp_wql_match.
bool rp_wql_system_property(const char *name, const struct rp_cim_class *class, const struct rp_cim_instance *instance,
                            const char *server, struct rp_cim_value *value);

#endif
