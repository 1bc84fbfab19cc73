// Embedded instances as text: an INSTANCE of CIM-XML inside a string property or parameter (DSP0201; facts/wmi.md 2.6).
#ifndef RP_CIM_CIMXML_H
#define RP_CIM_CIMXML_H

#include "cim/instance.h"

// Everything that the facts list: with or without XML declaration (whatever encoding it claims; the text is UTF-8),
// white space, wrappers CIM, DECLARATION, DECLGROUP, VALUE.OBJECT, VALUE.NAMEDINSTANCE, qualifiers, unknown attributes,
// absent VALUEs, arrays, references as text or INSTANCEPATH, embedded instances (typed as such by EmbeddedObject;
// strings otherwise). No DTD, no entities but the five, bounded depth (32) and size (1 MiB). RP_ERR_CORRUPT.
struct rp_cim_instance *rp_cimxml_parse(const char *text, size_t size, struct rp_error *err);
// The minimal form, without declaration: NULL values are left out, properties in the order of their names.
void rp_cimxml_write(const struct rp_cim_instance *instance, struct rp_buf *out);

#endif
