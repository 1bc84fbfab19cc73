#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "wsman/base64.h"
#include "wsman/media.h"
#include "wsman/seal.h"
#include "wsman/transport_impl.h"

#define SOAP "application/soap+xml;charset=UTF-8"

static int parse_url(struct rp_wsman_transport *t, const char *text, struct rp_error *err)
{
    if (!strncmp(text, "unix:", 5)) {
        t->socket = rp_xstrdup(text + 5);
        t->url = rp_xstrdup("http://localhost/wsman");
        t->name = t->socket;
        return *t->socket == '/' ? 0 : rp_fail(err, RP_ERR_INVALID, "'%s': a unix socket needs a whole path", text);
    }
    if (strchr(text, '@')) // and is not repeated: there may be a password in it
        return rp_fail(err, RP_ERR_INVALID, "the URL of a host has no user in it (https://NAME or http://NAME)");
    CURLU *url = curl_url();
    char *scheme = NULL, *port = NULL, *path = NULL, *host = NULL, *whole = NULL;
    bool good = !curl_url_set(url, CURLUPART_URL, text, 0) && !curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) &&
                (!strcmp(scheme, "http") || !strcmp(scheme, "https"));
    t->tls = good && !strcmp(scheme, "https");
    if (good && curl_url_get(url, CURLUPART_PORT, &port, 0))
        good = !curl_url_set(url, CURLUPART_PORT, t->tls ? "5986" : "5985", 0);
    if (good && (curl_url_get(url, CURLUPART_PATH, &path, 0) || !strcmp(path, "/")))
        good = !curl_url_set(url, CURLUPART_PATH, "/wsman", 0);
    good = good && !curl_url_get(url, CURLUPART_HOST, &host, 0) && !curl_url_get(url, CURLUPART_URL, &whole, 0);
    if (good) {
        size_t bracket = *host == '[';
        t->host = strndup(host + bracket, strlen(host) - 2 * bracket);
        t->url = rp_xstrdup(whole);
        t->name = t->host;
    }
    curl_free(scheme), curl_free(port), curl_free(path), curl_free(host), curl_free(whole);
    curl_url_cleanup(url);
    return good ? 0 : rp_fail(err, RP_ERR_INVALID, "'%s' is not the URL of a host (https://NAME or http://NAME)", text);
}

static int parse_pin(struct rp_wsman_transport *t, struct rp_error *err)
{
    size_t digits = 0;
    const char *text = t->options.fingerprint;
    for (; *text && digits < 65; text++) {
        static const char hex[] = "0123456789abcdef";
        if (*text == ':' || *text == ' ')
            continue;
        if (!isxdigit((unsigned char)*text))
            break;
        unsigned value = (unsigned)(strchr(hex, tolower((unsigned char)*text)) - hex);
        if (digits < 64)
            t->pin[digits / 2] = (uint8_t)(t->pin[digits / 2] << 4 | value);
        digits++;
    }
    if (digits != 64 || *text)
        return rp_fail(err, RP_ERR_INVALID, "'%s' is not the SHA-256 of a certificate: 64 hexadecimal digits",
                       t->options.fingerprint);
    return 0;
}

static int check(const struct rp_wsman_transport *t, struct rp_error *err)
{
    const struct rp_wsman_options *o = &t->options;
    if ((o->auth == RP_AUTH_PEER) != (t->socket != NULL))
        return rp_fail(err, RP_ERR_INVALID, "%s: a unix socket, and nothing else, knows the peer by itself", t->name);
    if (o->auth == RP_AUTH_BASIC && (!o->credentials.user || !o->credentials.password))
        return rp_fail(err, RP_ERR_INVALID, "%s: Basic needs a user name and a password", t->name);
    if (o->auth == RP_AUTH_BASIC && strchr(o->credentials.user, ':'))
        return rp_fail(err, RP_ERR_INVALID, "%s: Basic cannot tell a colon in a user name from its end", t->name);
    if (o->auth == RP_AUTH_BASIC && !t->tls && !o->basic_in_clear)
        return rp_fail(err, RP_ERR_INVALID, "%s: Basic without TLS would send the password in clear", t->name);
    if (o->fingerprint && !t->tls)
        return rp_fail(err, RP_ERR_INVALID, "%s: a pinned certificate needs https", t->name);
    return 0;
}

static const char *copy(const char *text)
{
    return text ? rp_xstrdup(text) : NULL;
}

struct rp_wsman_transport *rp_wsman_transport_new(const struct rp_wsman_options *options, struct rp_error *err)
{
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *t = rp_xcalloc(1, sizeof *t);
    struct rp_wsman_options *o = &t->options;
    *o = *options;
    o->url = NULL;
    o->credentials.user = copy(options->credentials.user);
    o->credentials.password = copy(options->credentials.password);
    o->credentials.ccache = copy(options->credentials.ccache);
    o->credentials.keytab = copy(options->credentials.keytab);
    o->ca_file = copy(options->ca_file);
    o->fingerprint = copy(options->fingerprint);
    if (parse_url(t, options->url, err) || check(t, err) || (o->fingerprint && parse_pin(t, err)) ||
        rp_http_setup(t, err))
        return NULL;
    struct rp_wsman_transport *result = t;
    t = NULL;
    return result;
}

static void drop(const char *text, bool secret)
{
    char *own = (char *)(uintptr_t)text;
    if (own && secret)
        explicit_bzero(own, strlen(own));
    free(own);
}

void rp_wsman_transport_free(struct rp_wsman_transport *t)
{
    if (!t)
        return;
    if (t->curl)
        curl_easy_cleanup(t->curl);
    rp_login_free(t->login);
    rp_buf_clear(&t->binding);
    drop(t->options.credentials.user, false);
    drop(t->options.credentials.password, true);
    drop(t->options.credentials.ccache, false);
    drop(t->options.credentials.keytab, false);
    drop(t->options.ca_file, false);
    drop(t->options.fingerprint, false);
    free(t->url);
    free(t->host);
    free(t->socket);
    free(t);
}

const char *rp_wsman_transport_url(const struct rp_wsman_transport *t)
{
    return t->url;
}

unsigned rp_wsman_transport_timeout(const struct rp_wsman_transport *t)
{
    return t->options.timeout_ms ? t->options.timeout_ms : 60000;
}

static void log_out(struct rp_wsman_transport *t)
{
    rp_login_free(t->login);
    t->login = NULL;
}

static char *basic_header(const struct rp_wsman_transport *t)
{
    RP_AUTO_FREE char *plain = rp_xasprintf("%s:%s", t->options.credentials.user, t->options.credentials.password);
    struct rp_buf header = {0};
    rp_buf_printf(&header, "Basic ");
    rp_base64_encode(plain, strlen(plain), &header);
    explicit_bzero(plain, strlen(plain));
    rp_buf_text(&header);
    return (char *)header.data;
}

// Sends the message as the login demands it: sealed, with a header of its own, or just so.
static int send_message(struct rp_wsman_transport *t, const void *message, size_t size,
                        struct rp_http_exchange *exchange, struct rp_error *err)
{
    char type[256] = SOAP;
    RP_CLEANUP(rp_buf_clear) struct rp_buf sealed = {0};
    RP_AUTO_FREE char *basic = t->options.auth == RP_AUTH_BASIC ? basic_header(t) : NULL;
    *exchange = (struct rp_http_exchange){.authorization = basic, .content_type = type, .body = message, .size = size};
    if (t->login && !t->tls) {
        if (rp_seal(t->login, message, size, type, &sealed, err))
            return -1;
        exchange->body = sealed.data;
        exchange->size = sealed.size;
    }
    int result = rp_http_post(t, exchange, err);
    if (basic)
        explicit_bzero(basic, strlen(basic));
    return result;
}

static int open_answer(struct rp_wsman_transport *t, const struct rp_http_exchange *exchange, struct rp_buf *answer,
                       char charset[32], struct rp_error *err)
{
    const char *type = exchange->answer_type;
    unsigned status = exchange->status;
    *charset = '\0';
    if (rp_seal_is(type) && t->login &&
        !rp_unseal(t->login, type, exchange->answer.data, exchange->answer.size, answer, charset, err))
        return 0;
    if (rp_seal_is(type))
        return t->login ? rp_context(err, "the answer of %s", t->name)
                        : rp_fail(err, RP_ERR_CORRUPT, "%s: its answer is sealed, which nobody asked for", t->name);
    if ((status != 200 && status != 400 && status != 500) || !rp_media_is(type, "application/soap+xml"))
        return status == 200 ? rp_fail(err, RP_ERR_CORRUPT, "%s: it answers with '%s' and not with SOAP", t->name, type)
                             : rp_transport_status(t, exchange, err);
    if (t->login && !t->tls)
        return rp_fail(err, RP_ERR_AUTH, "%s: its answer is not sealed, anybody may have sent it", t->name);
    rp_media_parameter(type, "charset", charset, 32);
    rp_buf_append(answer, exchange->answer.data, exchange->answer.size);
    return 0;
}

// A 401 to a message is the answer of a connection that is not logged in any more, or never was: the host has not
// looked at it.
static int try(struct rp_wsman_transport *t, const void *message, size_t size, bool last, struct rp_buf *answer,
               char charset[32], unsigned *status, struct rp_error *err)
{
    bool login = t->options.auth != RP_AUTH_BASIC && t->options.auth != RP_AUTH_PEER;
    RP_CLEANUP(rp_http_exchange_clear) struct rp_http_exchange exchange = {0};
    if (login && !t->login && rp_transport_log_in(t, err))
        return -1;
    if (send_message(t, message, size, &exchange, err))
        return -1;
    *status = exchange.status;
    if (login && exchange.status == 401 && !last) {
        log_out(t);
        return 1;
    }
    return open_answer(t, &exchange, answer, charset, err);
}

int rp_wsman_transport_exchange(struct rp_wsman_transport *t, const void *message, size_t size,
                                struct rp_buf *answer, char charset[32], unsigned *status, struct rp_error *err)
{
    size_t before = answer->size;
    bool logged_in = t->login != NULL;
    if (t->options.trace)
        t->options.trace(t->options.trace_context, true, message, size);
    int result = try(t, message, size, !logged_in, answer, charset, status, err);
    if (result > 0)
        result = try(t, message, size, true, answer, charset, status, err);
    if (result) {
        log_out(t); // whatever it was, this connection and its seals are out of step
        answer->size = before;
        return -1;
    }
    if (t->options.trace)
        t->options.trace(t->options.trace_context, false, answer->data + before, answer->size - before);
    return 0;
}
