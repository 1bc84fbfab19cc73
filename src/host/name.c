// Names that administrators and clients give: what is refused at the door, so that no later place (documents, file names,
// terminals) meets it for the first time.
#include <stdio.h>
#include <string.h>

#include "base/utf16.h"
#include "host/internal.h"

#define MAX_NAME 255
#define MAX_TAG 1000 // in one error message
#define MAX_FILE 200 // leaves room in 255 bytes for a number and an extension

int rp_local_name_check(const char *name, struct rp_error *err)
{
    struct rp_guid guid;
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (!*name)
        return rp_fail(err, RP_ERR_INVALID, "a VM needs a name");
    if (strlen(name) > MAX_NAME)
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: %zu bytes, at most %d are possible", strlen(name), MAX_NAME);
    if (rp_utf16_append(&utf16, name, NULL))
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: not valid UTF-8");
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            return rp_fail(err, RP_ERR_INVALID, "name of a VM: a control character (0x%02x) is not possible in it",
                           *p == 0xc2 ? p[1] : *p);
    if (!rp_guid_parse(name, &guid, NULL))
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: %s looks like an id, and would be taken for one", name);
    return 0;
}

int rp_local_name_check_tag(const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (strlen(name) > MAX_TAG)
        return rp_fail(err, RP_ERR_INVALID, "name of a checkpoint: %zu bytes, at most %d are possible", strlen(name),
                       MAX_TAG);
    if (rp_utf16_append(&utf16, name, NULL))
        return rp_fail(err, RP_ERR_INVALID, "name of a checkpoint: not valid UTF-8");
    return 0;
}

char *rp_local_name_as_file(const char *name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf file = {0};
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        bool first = !file.size, last = !p[1];
        // What Windows refuses too: an export travels. No leading dot, so neither "." nor "..".
        bool bad = *p < 0x20 || *p == 0x7f || strchr("/\\:*?\"<>|", *p) || (first && *p == '.') ||
                   (last && (*p == '.' || *p == ' '));
        if (file.size >= MAX_FILE && (*p & 0xc0) != 0x80) // never within a character
            break;
        rp_buf_append_u8(&file, bad ? '_' : *p);
    }
    return rp_xstrdup(file.size ? rp_buf_text(&file) : "_");
}

int rp_local_name_change(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                         struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    struct rp_guid guid;
    if (rp_guid_parse(id, &guid, NULL)) {
        if (rp_local_name_check_tag(name, err) ||
            rp_db_run(local->db, err, "UPDATE snapshot SET name = ? WHERE id = ? AND state <> 'creating'", "tt", name,
                      id))
            return -1;
        return sqlite3_changes(local->db->handle) ? 0
                   : rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM or checkpoint %s", host->address, id);
    }
    char text[RP_GUID_TEXT];
    rp_local_guid_text(&guid, text);
    if (rp_local_name_check(name, err) ||
        rp_db_run(local->db, err, "UPDATE vm SET name = ? WHERE id = ? AND state = 'ready'", "tt", name, text))
        return -1;
    if (sqlite3_changes(local->db->handle))
        return 0;
    if (rp_db_run(local->db, err, "UPDATE planned SET name = ? WHERE id = ?", "tt", name, text))
        return -1;
    return sqlite3_changes(local->db->handle) ? 0 : rp_local_not_found(local, text, err);
}
