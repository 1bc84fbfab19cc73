// Hostile sealed bodies: their first line is the Content-Type, the rest the body. What is understood lies inside the
// body and survives being written again. The base64 of logins takes the same bytes.
#include <stdlib.h>
#include <string.h>

#include "wsman/base64.h"
#include "wsman/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

static void try_base64(const char *text, size_t size)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf again = {0};
    if (rp_base64_decode(text, size, &plain, NULL))
        return;
    rp_base64_encode(plain.data, plain.size, &again);
    check(again.size == size && (!size || !memcmp(again.data, text, size)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    try_base64((const char *)data, size);
    if (!line)
        return 0;
    RP_AUTO_FREE char *type = strndup((const char *)data, (size_t)(line - data));
    const uint8_t *body = line + 1;
    size_t body_size = (size_t)(data + size - body);
    struct rp_sealed sealed, again;
    if (rp_seal_parse(type, body, body_size, &sealed, NULL))
        return 0;
    check(sealed.header >= body && sealed.header + sealed.header_size <= sealed.data);
    check(sealed.data + sealed.data_size <= body + body_size && sealed.length <= sealed.data_size);
    char content_type[256];
    RP_CLEANUP(rp_buf_clear) struct rp_buf copy = {0};
    rp_seal_format("application/HTTP-SPNEGO-session-encrypted", sealed.header, sealed.header_size, sealed.data,
                   sealed.data_size, (size_t)sealed.length, content_type, &copy);
    check(!rp_seal_parse(content_type, copy.data, copy.size, &again, NULL));
    check(again.header_size == sealed.header_size && again.data_size == sealed.data_size);
    check(again.length == sealed.length);
    check(!memcmp(again.data, sealed.data, sealed.data_size));
    return 0;
}
