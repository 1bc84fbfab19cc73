// Object paths: what names an instance (DSP0004 8.2; facts/wmi.md 1.1). In strings:
//     \\HOST\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="…"
#ifndef RP_CIM_PATH_H
#define RP_CIM_PATH_H

#include "cim/value.h"

// What neither the name of a host nor that of a namespace has in it: a path would not be read as it was written.
#define RP_CIM_HOST_END "\\/=,\"' {}\t\r\n"
#define RP_CIM_NAMESPACE_END ":.=,\"' {}\t\r\n"

struct rp_cim_key {
    char *name;
    char *value; // as text, whatever its type; of a reference: the path's text
};
struct rp_cim_path {
    char *host;       // NULL: not said
    char *name_space; // "root/virtualization/v2", always with '/', no slash at its ends; NULL: not said
    char *class_name;
    bool singleton;   // "Class=@"
    struct rp_cim_key *keys; // none: the path of a class
    size_t key_count;
};
struct rp_cim_path *rp_cim_path_new(const char *name_space, const char *class_name); // NULL namespace: not said
void rp_cim_path_free(struct rp_cim_path *path); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_cim_path, rp_cim_path_free)
struct rp_cim_path *rp_cim_path_copy(const struct rp_cim_path *path);
// Adds or replaces a key (names in any case). Both are copied.
void rp_cim_path_set(struct rp_cim_path *path, const char *key, const char *value);
const char *rp_cim_path_get(const struct rp_cim_path *path, const char *key); // borrowed; NULL: no such key

// Tolerant: optional \\HOST\namespace:, '/' or '\' between its parts, single or double quotes, numbers and booleans
// without quotes, backslash escapes in quotes (before anything but \ " ' it is one that was not doubled), blanks around
// '.', ',' and '='. Bounded: at most 64 keys. RP_ERR_INVALID with the place.
struct rp_cim_path *rp_cim_path_parse(const char *text, struct rp_error *err);
// The form above: keys in double quotes with \ and " escaped, in the order they have; without the part before the class
// when host or namespace is not known.
void rp_cim_path_format(const struct rp_cim_path *path, struct rp_buf *out);
void rp_cim_path_format_relative(const struct rp_cim_path *path, struct rp_buf *out); // from the class on: __RELPATH
// Same object: class and key names and all values without regard to case, keys in any order, namespaces when both say
// one; hosts are not looked at. Values that are paths are compared as such.
bool rp_cim_path_equal(const struct rp_cim_path *a, const struct rp_cim_path *b);

#endif
