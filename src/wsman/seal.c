#include "wsman/seal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "wsman/media.h"

#define BOUNDARY "Encrypted Boundary"

enum { MAX_BOUNDARY = 70, MAX_LINE = 1024, MAX_LINES = 16, MAX_PADDING = 16 };

bool rp_seal_is(const char *content_type)
{
    return content_type && (rp_media_is(content_type, "multipart/encrypted") ||
                            rp_media_is(content_type, "multipart/x-multi-encrypted"));
}

void rp_seal_format(const char *protocol, const void *header, size_t header_size, const void *data, size_t data_size,
                    size_t length, char content_type[256], struct rp_buf *body)
{
    snprintf(content_type, 256, "multipart/encrypted;protocol=\"%s\";boundary=\"" BOUNDARY "\"", protocol);
    rp_buf_reserve(body, body->size + header_size + data_size + 512);
    rp_buf_printf(body,
                  "--" BOUNDARY "\r\n\tContent-Type: %s\r\n"
                  "\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%zu\r\n"
                  "--" BOUNDARY "\r\n\tContent-Type: application/octet-stream\r\n",
                  protocol, length);
    rp_buf_append_le32(body, (uint32_t)header_size);
    rp_buf_append(body, header, header_size);
    rp_buf_append(body, data, data_size);
    rp_buf_append(body, "--" BOUNDARY "--\r\n", strlen("--" BOUNDARY "--\r\n"));
}

int rp_seal(struct rp_login *login, const void *plain, size_t size, char content_type[256], struct rp_buf *body,
            struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf header = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf data = {0};
    if (rp_login_wrap(login, plain, size, &header, &data, err))
        return -1;
    rp_seal_format(rp_login_protocol(login), header.data, header.size, data.data, data.size, size, content_type, body);
    return 0;
}

static int not_sealed(struct rp_error *err, const char *why)
{
    return rp_fail(err, RP_ERR_CORRUPT, "sealed message: %s", why);
}

// A line without its CRLF and without what stands before its first word (a tab in WinRM's, nothing in OMI's).
static bool take_line(struct rp_cursor *c, char line[MAX_LINE])
{
    const uint8_t *start = c->data + c->position;
    size_t left = rp_cursor_left(c);
    const uint8_t *end = left ? memmem(start, left < MAX_LINE ? left : MAX_LINE, "\r\n", 2) : NULL;
    if (!end)
        return false;
    c->position += (size_t)(end - start) + 2;
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    if (memchr(start, 0, (size_t)(end - start)))
        return false;
    memcpy(line, start, (size_t)(end - start));
    line[end - start] = '\0';
    return true;
}

// "--boundary", or "-- boundary" of older Windows.
static bool is_delimiter(const char *line, const char *boundary)
{
    return !strncmp(line, "--", 2) && !strcmp(line + 2 + (line[2] == ' '), boundary);
}

// Drops the delimiter that ends the body; nothing but it stands after the data, not even a line break.
static bool drop_end(struct rp_cursor *c, const char *boundary)
{
    char end[2][MAX_BOUNDARY + 8];
    snprintf(end[0], sizeof end[0], "--%s--", boundary);
    snprintf(end[1], sizeof end[1], "-- %s--", boundary);
    size_t size = c->size;
    if (size - c->position >= 2 && !memcmp(c->data + size - 2, "\r\n", 2))
        size -= 2;
    for (unsigned i = 0; i < 2; i++) {
        size_t length = strlen(end[i]);
        if (size - c->position >= length && !memcmp(c->data + size - length, end[i], length)) {
            c->size = size - length;
            return true;
        }
    }
    return false;
}

static int parse_length(const char *line, uint64_t *length, struct rp_error *err)
{
    char text[24];
    if (!rp_media_parameter(line, "Length", text, sizeof text) || strspn(text, "0123456789") != strlen(text) ||
        strlen(text) > 10)
        return not_sealed(err, "OriginalContent has no Length");
    *length = strtoull(text, NULL, 10);
    return 0;
}

static int parse_metadata(struct rp_cursor *c, const char *boundary, struct rp_sealed *sealed, struct rp_error *err)
{
    char line[MAX_LINE];
    bool original = false;
    for (unsigned lines = 0; lines < MAX_LINES && take_line(c, line); lines++) {
        if (is_delimiter(line, boundary))
            return original ? 0 : not_sealed(err, "it has no OriginalContent");
        if (strncasecmp(line, "OriginalContent:", 16))
            continue;
        if (original)
            return not_sealed(err, "two OriginalContent");
        original = true;
        if (parse_length(line, &sealed->length, err))
            return -1;
        rp_media_parameter(line, "charset", sealed->charset, sizeof sealed->charset);
    }
    return not_sealed(err, "the first part does not end");
}

int rp_seal_parse(const char *content_type, const void *body, size_t size, struct rp_sealed *sealed,
                  struct rp_error *err)
{
    char boundary[MAX_BOUNDARY + 1] = BOUNDARY, line[MAX_LINE];
    *sealed = (struct rp_sealed){0};
    if (!rp_seal_is(content_type))
        return not_sealed(err, "its Content-Type is another");
    if (!rp_media_is(content_type, "multipart/encrypted"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "sealed message: several parts (CredSSP) are not supported");
    if (strcasestr(content_type, ";boundary=") || strcasestr(content_type, " boundary="))
        if (!rp_media_parameter(content_type, "boundary", boundary, sizeof boundary))
            return not_sealed(err, "its boundary is not one");
    struct rp_cursor c = rp_cursor_of(body, size);
    if (!take_line(&c, line) || !is_delimiter(line, boundary))
        return not_sealed(err, "it does not begin with its boundary");
    if (parse_metadata(&c, boundary, sealed, err))
        return -1;
    if (!take_line(&c, line) || strncasecmp(line, "Content-Type:", 13))
        return not_sealed(err, "the second part has no Content-Type");
    if (!drop_end(&c, boundary))
        return not_sealed(err, "it does not end with its boundary");
    uint32_t header_size = rp_cursor_le32(&c);
    sealed->header = rp_cursor_bytes(&c, header_size);
    sealed->header_size = header_size;
    sealed->data_size = rp_cursor_left(&c);
    sealed->data = c.failed ? NULL : rp_cursor_bytes(&c, sealed->data_size);
    if (c.failed)
        return not_sealed(err, "its signature is longer than itself");
    if (sealed->data_size < sealed->length || sealed->data_size - sealed->length > MAX_PADDING)
        return not_sealed(err, "it has not as much data as it says");
    return 0;
}

int rp_unseal(struct rp_login *login, const char *content_type, const void *body, size_t size, struct rp_buf *plain,
              char charset[32], struct rp_error *err)
{
    struct rp_sealed sealed;
    size_t before = plain->size;
    if (rp_seal_parse(content_type, body, size, &sealed, err) ||
        rp_login_unwrap(login, sealed.header, sealed.header_size, sealed.data, sealed.data_size, plain, err))
        return -1;
    // Where a cipher pads, some count the padding (pywinrm's successors) and some do not.
    if (plain->size - before != sealed.length && sealed.data_size != sealed.length) {
        plain->size = before;
        return rp_fail(err, RP_ERR_AUTH, "sealed message: it is not as long as it says");
    }
    memcpy(charset, sealed.charset, 32);
    return 0;
}
