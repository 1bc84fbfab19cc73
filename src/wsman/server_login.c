// Who asks: by the peer of a unix socket, by Negotiate or Kerberos once per connection, by Basic with every request.
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/log.h"
#include "wsman/base64.h"
#include "wsman/server_impl.h"

static int unauthorized(struct rp_server_request *request)
{
    request->status = MHD_HTTP_UNAUTHORIZED;
    request->schemes = true;
    return -1;
}

static int refused(struct rp_server_request *request, const struct rp_error *err)
{
    struct rp_server_connection *c = request->connection;
    rp_log(RP_LOG_WARNING, "%s: %s", c->address, err->text);
    rp_server_connection_forget(c);
    request->close = ++c->refusals >= RP_SERVER_REFUSALS;
    return unauthorized(request);
}

// Somebody who is who he says, but has no rights here: another answer would make him try other passwords.
static int forbidden(struct rp_server_request *request, const char *user)
{
    rp_log(RP_LOG_WARNING, "%s: %s is logged in but has no rights on this host", request->connection->address, user);
    request->status = MHD_HTTP_FORBIDDEN;
    rp_buf_printf(&request->answer, "%s has no rights on this host\n", user);
    rp_server_connection_forget(request->connection);
    return -1;
}

static int is_peer(struct rp_server_request *request)
{
    struct rp_server_connection *c = request->connection;
    const struct rp_wsman_server_ops *ops = &request->server->ops;
    struct ucred peer;
    socklen_t size = sizeof peer;
    char user[256] = "somebody";
    if (c->user)
        return 0;
    if (!ops->peer || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) ||
        ops->peer(ops->context, peer.uid, peer.gid, user, &c->access, NULL))
        return forbidden(request, user);
    c->user = rp_xstrdup(user);
    rp_server_connection_known(c, c->user);
    return 0;
}

static int authorize(struct rp_server_request *request, const char *user)
{
    struct rp_server_connection *c = request->connection;
    const struct rp_wsman_server_ops *ops = &request->server->ops;
    RP_AUTO_FREE char *name = rp_xstrdup(user); // of the login that may be forgotten
    if (!ops->authorize || ops->authorize(ops->context, name, &c->access, NULL))
        return forbidden(request, name);
    free(c->user);
    c->user = rp_xstrdup(name);
    rp_server_connection_known(c, c->user);
    return 0;
}

static void challenge(struct rp_server_request *request, const char *scheme, const struct rp_buf *token)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_buf_printf(&text, "%s ", scheme);
    rp_base64_encode(token->data, token->size, &text);
    free(request->challenge);
    request->challenge = rp_xstrdup(rp_buf_text(&text));
}

static int negotiate(struct rp_server_request *request, enum rp_login_scheme scheme, const char *encoded)
{
    struct rp_server_connection *c = request->connection;
    RP_CLEANUP(rp_buf_clear) struct rp_buf token = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_error err = {0};
    if (rp_base64_decode(encoded, strlen(encoded), &token, &err))
        return refused(request, &err);
    // a header after the end of a login begins another, and who was logged in is not any more
    if (!c->login || rp_login_done(c->login) || c->scheme != scheme) {
        rp_server_connection_forget(c);
        c->scheme = scheme;
        c->login = rp_login_server(scheme, &request->server->acceptor, &err);
        if (!c->login)
            return refused(request, &err);
        rp_login_bind(c->login, c->listener->binding.data, c->listener->binding.size);
    }
    int done = rp_login_step(c->login, token.data, token.size, &answer, &err);
    if (done < 0)
        return refused(request, &err);
    if (answer.size)
        challenge(request, scheme == RP_LOGIN_KERBEROS ? "Kerberos" : "Negotiate", &answer);
    if (done)
        return authorize(request, rp_login_user(c->login));
    request->status = MHD_HTTP_UNAUTHORIZED;
    return -1;
}

static int basic(struct rp_server_request *request, const char *encoded)
{
    const struct rp_wsman_server_ops *ops = &request->server->ops;
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    struct rp_error err = {0};
    rp_server_connection_forget(request->connection);
    if (!request->connection->listener->basic)
        rp_fail(&err, RP_ERR_AUTH, "login: Basic is not offered here, nothing hides the password");
    else if (!rp_base64_decode(encoded, strlen(encoded), &plain, &err)) {
        char *user = (char *)(uintptr_t)rp_buf_text(&plain), *colon = strchr(user, ':');
        if (colon)
            *colon = '\0';
        if (!colon || memchr(colon + 1, 0, plain.size - (size_t)(colon + 1 - user)) || !rp_login_is_name(user)) {
            rp_fail(&err, RP_ERR_AUTH, "login: Basic without a name and a password");
        } else {
            if (ops->password(ops->context, user, colon + 1)) {
                int result = authorize(request, user);
                explicit_bzero(plain.data, plain.size);
                return result;
            }
            rp_fail(&err, RP_ERR_AUTH, "login: wrong user name or password");
        }
    }
    if (plain.size)
        explicit_bzero(plain.data, plain.size);
    return refused(request, &err);
}

static int by_header(struct rp_server_request *request)
{
    const char *word = request->authorization, *rest = word + strcspn(word, " ");
    size_t length = (size_t)(rest - word);
    rest += strspn(rest, " ");
    const struct rp_login_acceptor *acceptor = &request->server->acceptor;
    if (length == 9 && !strncasecmp(word, "Negotiate", 9) && (acceptor->keytab || acceptor->ntlm_users))
        return negotiate(request, RP_LOGIN_NEGOTIATE, rest);
    if (length == 8 && !strncasecmp(word, "Kerberos", 8) && acceptor->keytab)
        return negotiate(request, RP_LOGIN_KERBEROS, rest);
    if (length == 5 && !strncasecmp(word, "Basic", 5))
        return basic(request, rest);
    return unauthorized(request);
}

// A connection lives on when rights change; who it belongs to stays as it is.
static int recheck(struct rp_server_request *request)
{
    struct rp_server_connection *c = request->connection;
    if (!rp_server_connection_stale(c) || !c->user)
        return 0;
    if (c->login)
        return authorize(request, rp_login_user(c->login));
    free(c->user); // of a unix socket, whose peer is asked for again; Basic comes with every request
    c->user = NULL;
    return 0;
}

int rp_server_login(struct rp_server_request *request, struct rp_cim_caller *caller)
{
    struct rp_server_connection *c = request->connection;
    if (recheck(request))
        return -1;
    if (c->listener->socket ? is_peer(request) : request->authorization && by_header(request))
        return -1;
    // Basic is good for the request that brings it, the others for the connection
    bool logged_in = c->user && (c->listener->socket || c->login || request->authorization);
    *caller = (struct rp_cim_caller){logged_in ? c->user : NULL, c->address, logged_in ? c->access : RP_CIM_READ};
    return logged_in || request->identify ? 0 : unauthorized(request);
}
