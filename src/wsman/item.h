// CIM objects as the wire carries them (DSP0230, MS-WSMV 2.2.4; facts/wmi.md 2.3, 2.6, 2.7): instances, references
// (EPRs), parameters. Writing uses fixed prefixes (s a w p, cim, xsi), which libvirt looks for; reading knows
// namespaces only.
#ifndef RP_WSMAN_ITEM_H
#define RP_WSMAN_ITEM_H

#include "cim/schema.h"
#include "cim/xml.h"

enum rp_uri_style { RP_URI_STYLE_WMI, RP_URI_STYLE_DMTF }; // replies use that of the request

// ".../wmi/root/virtualization/v2/Msvm_X" into its parts; class "*" of a query. `name_space`: what the selector
// __cimnamespace says (NULL: nothing); required to agree with a WMI URI that has one; without any: "root/cimv2". Fills
// malloc'ed strings. RP_ERR_INVALID.
int rp_wsman_uri_parse(const char *uri, const char *selector_namespace, enum rp_uri_style *style, char **name_space,
                       char **class_name, struct rp_error *err);
void rp_wsman_uri(struct rp_buf *out, enum rp_uri_style style, const char *name_space, const char *class_name);

// The children of an EndpointReference: a:Address, a:ReferenceParameters{w:ResourceURI, w:SelectorSet},
// __cimnamespace always among the selectors. A key that is a whole path (\\host\namespace:Class.Key="…", an
// association's) becomes an EPR in its selector.
void rp_wsman_write_epr(struct rp_buf *out, enum rp_uri_style style, const struct rp_cim_path *path);
// From an element that has these children, or an a:EndpointReference with them, or is an instance inline whose
// properties are then the keys (OMI). A selector may hold an EPR: the key is then the path's text; EPRs in it again, at
// most four deep.
struct rp_cim_path *rp_wsman_read_epr(const xmlNode *element, struct rp_error *err);
#define RP_WSMAN_MAX_SELECTORS 64
// The selectors of a w:SelectorSet (NULL: none) into the keys of `path`, __cimnamespace into *name_space (malloc'ed;
// NULL: none). RP_ERR_EXISTS for one that comes twice, RP_ERR_NO_SPACE for too many, RP_ERR_INVALID.
int rp_wsman_read_selectors(const xmlNode *set, struct rp_cim_path *path, char **name_space, struct rp_error *err);

// <p:Class xmlns:p="class URI" xsi:type="p:Class_Type">…</p:Class>. With a class: all its properties that are scalars
// appear (nil when NULL), NULL and empty arrays do not. Without: what the instance has. `columns`: only these; none:
// all.
void rp_wsman_write_instance(struct rp_buf *out, enum rp_uri_style style, const struct rp_cim_class *class,
                             const struct rp_cim_instance *instance, char *const *columns, size_t column_count);
// An instance element; values stay bare (RP_CIM_NONE) but for nil, references, objects inline and what says that it is
// base64 (then uint8[]): rp_cim_class_type types them. Repeated elements become arrays. The class is the element's
// name, unless xsi:type says another; the namespace that of its URI; cim:Location its path. At most 1,024 properties,
// and objects in objects eight deep.
struct rp_cim_instance *rp_wsman_read_instance(const xmlNode *element, struct rp_error *err);
// Octets come as repeated numbers or as base64 (DSP0230 8.2), which nothing but the declaration tells from text: turns
// a bare value for a uint8[] that is no number but base64 into the array. Others are left.
void rp_wsman_unpack_octets(const struct rp_cim_declaration *declaration, struct rp_cim_value *value);

// One parameter in <p:Method_INPUT> or _OUTPUT, which read back as an instance of the class "Method_INPUT".
void rp_wsman_write_parameter(struct rp_buf *out, enum rp_uri_style style, const char *name,
                              const struct rp_cim_value *value);

#endif
