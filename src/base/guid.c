#include "base/guid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// Position in bytes[] of each textual byte, left to right.
static const uint8_t text_order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

struct rp_guid rp_guid_new(void)
{
    struct rp_guid guid;
    if (getrandom(guid.bytes, sizeof guid.bytes, 0) != (ssize_t)sizeof guid.bytes)
        abort();
    guid.bytes[7] = (guid.bytes[7] & 0x0F) | 0x40; // version 4: high nibble of Data3
    guid.bytes[8] = (guid.bytes[8] & 0x3F) | 0x80;
    return guid;
}

bool rp_guid_equal(const struct rp_guid *a, const struct rp_guid *b) { return !memcmp(a, b, sizeof *a); }

bool rp_guid_is_zero(const struct rp_guid *guid)
{
    static const struct rp_guid zero;
    return rp_guid_equal(guid, &zero);
}

const char *rp_guid_format(const struct rp_guid *guid, char out[RP_GUID_TEXT])
{
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", guid->bytes[text_order[i]]);
    }
    return out;
}

struct rp_guid rp_cursor_guid(struct rp_cursor *c)
{
    struct rp_guid guid = {{0}};
    const uint8_t *bytes = rp_cursor_bytes(c, sizeof guid.bytes);
    if (bytes)
        memcpy(guid.bytes, bytes, sizeof guid.bytes);
    return guid;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int rp_guid_parse(const char *text, struct rp_guid *guid, struct rp_error *err)
{
    const char *p = text;
    bool brace = *p == '{';
    p += brace;
    for (int i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
            goto bad;
        int high = hex_digit(p[0]), low = high < 0 ? -1 : hex_digit(p[1]);
        if (low < 0)
            goto bad;
        guid->bytes[text_order[i]] = (uint8_t)(high << 4 | low);
        p += 2;
    }
    if (brace && *p++ != '}')
        goto bad;
    if (*p == 0)
        return 0;
bad:
    return rp_fail(err, RP_ERR_INVALID, "\"%.64s\" is not a GUID", text);
}
