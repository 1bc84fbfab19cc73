#include "base/num.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int rp_parse_size(const char *text, uint64_t *size, struct rp_error *err)
{
    static const char units[] = "KMGTPE";
    char *end;
    errno = 0;
    if (text[0] < '0' || text[0] > '9')
        return rp_fail(err, RP_ERR_INVALID, "size \"%s\": not a number; write bytes or a number with K, M, G or T", text);
    double value = strtod(text, &end);
    double factor = 1;
    if (strspn(text, "0123456789.") != (size_t)(end - text)) // strtod also knows exponents and hexadecimal digits
        return rp_fail(err, RP_ERR_INVALID, "size \"%s\": not a number; write bytes or a number with K, M, G or T", text);
    if (*end) {
        const char *unit = strchr(units, *end >= 'a' ? *end - 32 : *end);
        if (!unit || end[1])
            return rp_fail(err, RP_ERR_INVALID, "size \"%s\": unknown unit; use K, M, G or T", text);
        factor = ldexp(1, 10 * (int)(unit - units + 1));
    }
    if (errno || !(value * factor < 18446744073709549568.0))
        return rp_fail(err, RP_ERR_INVALID, "size \"%s\": too large", text);
    if (!*end && !strchr(text, '.'))
        *size = strtoull(text, NULL, 10);
    else
        *size = (uint64_t)(value * factor);
    return 0;
}

const char *rp_format_size(uint64_t size, char out[RP_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    int unit = 0;
    double value = (double)size;
    while (value >= 1024 && unit < 6) {
        value /= 1024;
        unit++;
    }
    snprintf(out, RP_SIZE_TEXT, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}
