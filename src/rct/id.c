// The text of a tracking id.
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "rct/rct.h"

// "rctX:" + the GUID with colons for dashes + ":" + eight digits
enum { PREFIX = 5, GUID = RP_GUID_TEXT - 1, LENGTH = PREFIX + GUID + 1 + 8 };

const char *rp_rct_id_format(const struct rp_rct_id *id, char out[RP_RCT_ID_TEXT])
{
    char guid[RP_GUID_TEXT];
    rp_guid_format(&id->tracking, guid);
    for (char *p = guid; (p = strchr(p, '-'));)
        *p = ':';
    snprintf(out, RP_RCT_ID_TEXT, "rctX:%s:%08x", guid, id->epoch);
    return out;
}

static int malformed(const char *text, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_TRACKING_SYNTAX, "\"%.80s\" is not a change-tracking id (rctX:…:00000001)", text);
}

int rp_rct_id_parse(const char *text, struct rp_rct_id *id, struct rp_error *err)
{
    if (strlen(text) != LENGTH || strncasecmp(text, "rctX:", PREFIX) || text[PREFIX + GUID] != ':')
        return malformed(text, err);
    char guid[RP_GUID_TEXT];
    memcpy(guid, text + PREFIX, GUID);
    guid[GUID] = 0;
    for (int i = 0; i < GUID; i++) {
        if (guid[i] == '-')
            return malformed(text, err);
        if (guid[i] == ':')
            guid[i] = '-';
    }
    struct rp_rct_id parsed = {.epoch = 0};
    if (rp_guid_parse(guid, &parsed.tracking, NULL))
        return malformed(text, err);
    for (const char *p = text + PREFIX + GUID + 1; *p; p++) {
        if (!isxdigit((unsigned char)*p))
            return malformed(text, err);
        parsed.epoch = parsed.epoch << 4 | (uint32_t)(*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
    }
    *id = parsed;
    return 0;
}
