// What names of classes, properties and parameters are made of, in MOF, WQL, paths and CIM-XML alike (DSP0004 annex A).
#ifndef RP_CIM_NAME_H
#define RP_CIM_NAME_H

#include <stdbool.h>

// Letters, digits, underscores, and whatever is not ASCII.
static inline bool rp_cim_in_name(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (unsigned char)c >= 0x80;
}

// One whole name: not empty, and not beginning with a digit.
static inline bool rp_cim_is_name(const char *text)
{
    bool start = *text && (*text < '0' || *text > '9');
    while (rp_cim_in_name(*text))
        text++;
    return start && !*text;
}

#endif
