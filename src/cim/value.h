// CIM values: typed scalars and arrays (DSP0004), as properties, parameters and literals of queries hold them.
#ifndef RP_CIM_VALUE_H
#define RP_CIM_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

enum rp_cim_type {
    RP_CIM_NONE, // of a value that came without a type (a bare element on the wire); text until a class says more
    RP_CIM_BOOLEAN,
    RP_CIM_UINT8, RP_CIM_SINT8, RP_CIM_UINT16, RP_CIM_SINT16,
    RP_CIM_UINT32, RP_CIM_SINT32, RP_CIM_UINT64, RP_CIM_SINT64,
    RP_CIM_REAL32, RP_CIM_REAL64,
    RP_CIM_CHAR16,
    RP_CIM_STRING,
    RP_CIM_DATETIME,
    RP_CIM_REFERENCE,
    RP_CIM_OBJECT, // an embedded instance that is typed as one; one inside a string is RP_CIM_STRING (see cimxml.h)
};
// "uint16", "datetime", …: as CIM-XML's TYPE and MOF spell them; "object" for an embedded instance. From a name in
// either case; an unknown one is RP_CIM_NONE.
const char *rp_cim_type_name(enum rp_cim_type type);
enum rp_cim_type rp_cim_type_from_name(const char *name);
bool rp_cim_type_is_unsigned(enum rp_cim_type type);
bool rp_cim_type_is_signed(enum rp_cim_type type);

// A moment (microseconds since 1970 UTC, with the minutes east of UTC that its text shows) or an interval.
struct rp_cim_datetime {
    bool interval;
    int16_t offset;
    int64_t microseconds;
};
#define RP_CIM_DATETIME_TEXT 40
// "20260102030405.678000+060" or "00000000000130.500000:000" (DSP0004 5.2.4), 25 characters. Returns `out`.
const char *rp_cim_datetime_format(const struct rp_cim_datetime *t, char out[RP_CIM_DATETIME_TEXT]);
// "2026-01-02T04:04:05.678+01:00" ("…Z" in UTC) or "P0DT0H1M30.5S": what WS-Management carries. Returns `out`.
const char *rp_cim_datetime_format_xml(const struct rp_cim_datetime *t, char out[RP_CIM_DATETIME_TEXT]);
// Both forms, '*' of DSP0004 as zeros, xs:dateTime with any offset, xs:duration with any of its parts (months count 30
// days, years 365). RP_ERR_INVALID.
int rp_cim_datetime_parse(const char *text, struct rp_cim_datetime *t, struct rp_error *err);

struct rp_cim_path;
struct rp_cim_instance;

union rp_cim_scalar {
    bool boolean;
    uint64_t u;    // unsigned types and char16
    int64_t s;     // signed types
    double real;
    char *text;    // STRING, NONE; malloc'ed, UTF-8
    struct rp_cim_datetime datetime;
    struct rp_cim_path *path;
    struct rp_cim_instance *object;
};

// Zeroed it is a NULL of type NONE (`null` need not be set then; rp_cim_set sets it). An array may be NULL or empty,
// its elements are never NULL.
struct rp_cim_value {
    enum rp_cim_type type;
    bool array, null;
    uint32_t count, capacity;     // of an array; capacity is rp_cim_value_push's own
    union {
        union rp_cim_scalar one;
        union rp_cim_scalar *many; // malloc'ed
    };
};
static inline bool rp_cim_value_is_null(const struct rp_cim_value *value)
{
    return value->null || (value->type == RP_CIM_NONE && !value->array && !value->one.text);
}
void rp_cim_value_clear(struct rp_cim_value *value); // frees what it owns; a zeroed value is left
struct rp_cim_value rp_cim_value_copy(const struct rp_cim_value *value);
// Appends to an array (rp_cim_null(type, true) to begin with) what `item` (of its type, no array, not NULL) holds;
// `item` is taken and zeroed.
void rp_cim_value_push(struct rp_cim_value *array, struct rp_cim_value *item);
// Element `i` of an array, or the scalar for i 0, as a borrowed scalar value: do not clear it.
struct rp_cim_value rp_cim_value_at(const struct rp_cim_value *value, size_t i);

struct rp_cim_value rp_cim_null(enum rp_cim_type type, bool array);
struct rp_cim_value rp_cim_boolean(bool value);
struct rp_cim_value rp_cim_unsigned(enum rp_cim_type type, uint64_t value);
struct rp_cim_value rp_cim_signed(enum rp_cim_type type, int64_t value);
struct rp_cim_value rp_cim_string(const char *text);           // copied; NULL gives a NULL string
struct rp_cim_value rp_cim_reference(struct rp_cim_path *path); // taken; NULL gives a NULL reference
struct rp_cim_value rp_cim_moment(int64_t ns);                 // wall clock, nanoseconds since 1970
struct rp_cim_value rp_cim_duration(int64_t ns);
struct rp_cim_value rp_cim_object(struct rp_cim_instance *object); // taken

// A scalar as text, the way DSP0201 puts it into VALUE: TRUE/FALSE, decimal numbers, CIM datetimes, a path's text, an
// object's CIM-XML. `value` is no array and not NULL.
void rp_cim_value_text(const struct rp_cim_value *value, struct rp_buf *out);
// The other way: booleans in any case (or 1, 0), numbers in decimal, hexadecimal (0x) or binary (b) form that fit the
// type, any form of a datetime; blanks around them are fine, those of strings are kept. RP_ERR_INVALID names the type.
int rp_cim_value_parse(enum rp_cim_type type, const char *text, struct rp_cim_value *value, struct rp_error *err);
// Makes `value` one of `type`, when its text is one of that type; arrays element by element, a scalar becomes an array
// of one when `array`, an array of one a scalar otherwise. An object that stands for a reference gives the path with
// its properties as keys. Bare text that is blank is NULL of all types but strings. What a bare element from the wire
// goes through when the class is known. On failure it is left.
int rp_cim_value_convert(struct rp_cim_value *value, enum rp_cim_type type, bool array, struct rp_error *err);
bool rp_cim_value_equal(const struct rp_cim_value *a, const struct rp_cim_value *b); // strings exactly, types and all

#endif
