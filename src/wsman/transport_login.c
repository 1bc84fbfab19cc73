#include <string.h>
#include <strings.h>

#include "wsman/base64.h"
#include "wsman/transport_impl.h"

enum { MAX_ROUNDS = 8 };

static const char *who(const struct rp_wsman_transport *t)
{
    return t->options.credentials.user ? t->options.credentials.user : "the ticket's user";
}

int rp_transport_status(const struct rp_wsman_transport *t, const struct rp_http_exchange *exchange,
                        struct rp_error *err)
{
    const struct rp_buf *body = &exchange->answer;
    bool text = !strncasecmp(exchange->answer_type, "text/plain", 10) && body->size < 400;
    size_t line = text ? strcspn(rp_buf_text((struct rp_buf *)(uintptr_t)body), "\r\n") : 0;
    switch (exchange->status) {
    case 401:
        return rp_fail(err, RP_ERR_AUTH, "log in to %s as %s: refused, wrong user name or password", t->name, who(t));
    case 403:
        return rp_fail(err, RP_ERR_PERMISSION, "%s: refused%s%.*s", t->name, line ? ": " : "", (int)line,
                       line ? (const char *)body->data : "");
    case 404:
        return rp_fail(err, RP_ERR_IO, "%s: there is no WS-Management service at %s", t->name, t->url);
    case 413:
        return rp_fail(err, RP_ERR_INVALID, "%s: the message is too large for it", t->name);
    default:
        return rp_fail(err, RP_ERR_IO, "%s: HTTP status %u%s%.*s", t->name, exchange->status, line ? ": " : "",
                       (int)line, line ? (const char *)body->data : "");
    }
}

static int refused(const struct rp_wsman_transport *t, const struct rp_http_exchange *exchange, const char *scheme,
                   bool first, struct rp_error *err)
{
    RP_AUTO_FREE char *offered = rp_http_challenge(exchange, scheme), *schemes = rp_http_schemes(exchange);
    if (exchange->status != 401 || !first || offered)
        return rp_transport_status(t, exchange, err);
    return rp_fail(err, RP_ERR_AUTH, "log in to %s: it does not offer %s, but %s", t->name, scheme,
                   *schemes ? schemes : "nothing");
}

// Sends our token in a request without a body, and leaves theirs in `token`. 1: that was the last, 0: it goes on.
static int send_token(struct rp_wsman_transport *t, const char *scheme, const struct rp_buf *ours, bool first,
                      struct rp_buf *token, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf header = {0};
    RP_CLEANUP(rp_http_exchange_clear) struct rp_http_exchange exchange = {0};
    rp_buf_printf(&header, "%s ", scheme);
    rp_base64_encode(ours->data, ours->size, &header);
    exchange.authorization = rp_buf_text(&header);
    rp_buf_reset(token);
    if (rp_http_post(t, &exchange, err))
        return -1;
    if (!first && exchange.new_connection)
        return rp_fail(err, RP_ERR_IO, "log in to %s: it does not keep the connection", t->name);
    bool accepted = exchange.status == 200;
    RP_AUTO_FREE char *text = rp_http_challenge(&exchange, scheme);
    if (!accepted && (exchange.status != 401 || !text || !*text))
        return refused(t, &exchange, scheme, first, err);
    if (text && rp_base64_decode(text, strlen(text), token, err))
        return rp_context(err, "log in to %s", t->name);
    return accepted;
}

// A login over TLS has the certificate in it, so there must be a connection first. What is offered comes with its
// answer.
static int connect_first(struct rp_wsman_transport *t, const char *scheme, struct rp_error *err)
{
    RP_CLEANUP(rp_http_exchange_clear) struct rp_http_exchange exchange = {0};
    if (rp_http_post(t, &exchange, err))
        return -1;
    RP_AUTO_FREE char *offered = rp_http_challenge(&exchange, scheme);
    return exchange.status == 401 && offered ? 0 : refused(t, &exchange, scheme, true, err);
}

int rp_transport_log_in(struct rp_wsman_transport *t, struct rp_error *err)
{
    enum rp_wsman_auth auth = t->options.auth;
    enum rp_login_scheme scheme = auth == RP_AUTH_KERBEROS ? RP_LOGIN_KERBEROS
                                  : auth == RP_AUTH_NTLM   ? RP_LOGIN_NTLM
                                                           : RP_LOGIN_NEGOTIATE;
    const char *word = auth == RP_AUTH_KERBEROS ? "Kerberos" : "Negotiate";
    RP_CLEANUP(rp_login_free_p) struct rp_login *login =
        rp_login_client(scheme, t->host, &t->options.credentials, err);
    RP_CLEANUP(rp_buf_clear) struct rp_buf ours = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf theirs = {0};
    int accepted = 0;
    if (login && t->tls) {
        if (connect_first(t, word, err))
            return -1;
        rp_login_bind(login, t->binding.data, t->binding.size);
    }
    for (unsigned round = 0; login && round < MAX_ROUNDS; round++) {
        rp_buf_reset(&ours);
        int done = rp_login_done(login) ? 1 : rp_login_step(login, theirs.data, theirs.size, &ours, err);
        if (done < 0)
            return -1;
        if (done && accepted) {
            t->login = login;
            login = NULL;
            return 0;
        }
        if (accepted || !ours.size)
            return rp_fail(err, RP_ERR_AUTH, "log in to %s: it let us in before it proved who it is", t->name);
        accepted = send_token(t, word, &ours, round == 0, &theirs, err);
        if (accepted < 0)
            return -1;
    }
    return login ? rp_fail(err, RP_ERR_AUTH, "log in to %s: it never ends", t->name) : -1;
}
