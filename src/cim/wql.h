// WQL, as far as management clients use it (facts/wmi.md 2.5):
//     SELECT * | a, b FROM Class [WHERE condition]
//     ASSOCIATORS OF {path} [WHERE [AssocClass=C] [ResultClass=C] [Role=r] [ResultRole=r] [ClassDefsOnly] [KeysOnly]]
//     REFERENCES OF {path} [WHERE [ResultClass=C] [Role=r] [ClassDefsOnly] [KeysOnly]]
// Conditions: = != <> < <= > >= LIKE (% _ [a-f] [^a-f]; a=f is a range too) ISA, IS [NOT] NULL, AND OR NOT,
// parentheses; the properties __CLASS, __PATH, __RELPATH, __SERVER, __NAMESPACE on either side, __THIS before ISA.
// Keywords, names and the text that is compared: without regard to case.
#ifndef RP_CIM_WQL_H
#define RP_CIM_WQL_H

#include "cim/schema.h"

enum rp_wql_kind { RP_WQL_SELECT, RP_WQL_ASSOCIATORS, RP_WQL_REFERENCES };

struct rp_wql_condition; // wql_internal.h
struct rp_wql {
    enum rp_wql_kind kind;
    char *class_name;      // SELECT
    char **columns;        // SELECT; none: all
    size_t column_count;
    struct rp_wql_condition *condition; // SELECT; NULL: all
    struct rp_cim_path *source;         // of the others
    char *assoc_class, *result_class, *role, *result_role; // NULL: any
    bool class_defs_only, keys_only;
    uint64_t deadline_ns;  // monotonic; whoever runs the query gives up then. Not of the text; 0: never
};
// Bytes of a query. Longer ones are RP_ERR_INVALID, and so are nesting deeper than 64, more than 256 columns or 1,000
// comparisons, and patterns of more than 1 KiB.
#define RP_WQL_MAX_TEXT (64 << 10)
struct rp_wql *rp_wql_parse(const char *text, size_t size, struct rp_error *err); // errors: what was expected, where
void rp_wql_free(struct rp_wql *query); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_wql, rp_wql_free)

// Whether the condition holds for an instance of a class that matches class_name (the caller has seen to that). A
// comparison with NULL or with a property that there is not is neither true nor false, as in SQL, and NOT of it
// neither (= NULL and != NULL are taken for IS NULL and IS NOT NULL); numbers, booleans and datetimes compare as such
// when the property is one, __PATH, __RELPATH and references as paths (= and !=). `class`: NULL when it is not known;
// `server`: what __SERVER is. A comparison with an array is false.
bool rp_wql_match(const struct rp_wql *query, const struct rp_cim_class *class, const struct rp_cim_instance *instance,
                  const char *server);
// The text that every match must have in `property` (__PATH too) because the condition says so at its top, in a chain
// of ANDs: what lets a provider fetch one instance instead of all. NULL: nothing of the kind.
const char *rp_wql_required(const struct rp_wql *query, const char *property);

#endif
