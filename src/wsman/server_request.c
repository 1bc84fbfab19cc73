// One request, from its first line to the end of its answer. libmicrohttpd's threads only move bytes; what takes time
// (logins, seals, the service) is done by the pool, while the connection is suspended.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "wsman/media.h"
#include "wsman/seal.h"
#include "wsman/server_impl.h"

#define SOAP "application/soap+xml;charset=UTF-8"

static void explain(struct rp_server_request *request, unsigned status, const char *text)
{
    request->status = status;
    rp_buf_printf(&request->answer, "%s\n", text);
}

// Sealed bodies are opened, and their answers sealed. Others are taken where nobody else can read them, or where
// somebody asked for exactly that (facts 2.9: AllowUnencrypted).
static int open_body(struct rp_server_request *request, bool logged_in, struct rp_buf *plain, char charset[32])
{
    struct rp_server_connection *c = request->connection;
    struct rp_error err = {0};
    if (!rp_seal_is(request->content_type)) {
        if (logged_in && !c->listener->socket && !c->listener->certificate && !c->listener->clear) {
            explain(request, MHD_HTTP_FORBIDDEN, "messages must be sealed here, or sent over TLS");
            return -1;
        }
        if (request->content_type)
            rp_media_parameter(request->content_type, "charset", charset, 32);
        return 0;
    }
    if (!c->login || !rp_login_done(c->login)) {
        request->status = MHD_HTTP_UNAUTHORIZED;
        request->schemes = true;
        return -1;
    }
    if (!rp_unseal(c->login, request->content_type, request->body.data, request->body.size, plain, charset, &err))
        return 0;
    rp_log(RP_LOG_WARNING, "%s: %s: %s", c->address, c->user, err.text);
    explain(request, MHD_HTTP_BAD_REQUEST, err.text);
    // somebody else may be on the line
    rp_server_connection_forget(c);
    request->close = true;
    return -1;
}

static void serve(struct rp_server_request *request)
{
    struct rp_wsman_server *server = request->server;
    struct rp_cim_caller caller;
    char charset[32] = "";
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    if (rp_server_login(request, &caller))
        return;
    request->status = MHD_HTTP_OK;
    if (!request->body.size || open_body(request, caller.user != NULL, &plain, charset))
        return;
    bool sealed = rp_seal_is(request->content_type);
    const struct rp_buf *message = sealed ? &plain : &request->body;
    request->status = rp_wsman_service_handle(server->service, caller.user ? &caller : NULL, *charset ? charset : NULL,
                                              message->data, message->size, &request->answer);
    snprintf(request->answer_type, sizeof request->answer_type, SOAP);
    request->drop = server->ops.drop && server->ops.drop(server->ops.context);
    if (!sealed || !request->answer.size)
        return;
    RP_CLEANUP(rp_buf_clear) struct rp_buf clear = request->answer;
    struct rp_error err = {0};
    request->answer = (struct rp_buf){0};
    if (rp_seal(request->connection->login, clear.data, clear.size, request->answer_type, &request->answer, &err)) {
        rp_log(RP_LOG_ERROR, "%s: %s", request->connection->address, err.text);
        request->drop = true;
    }
}

static void work(void *argument)
{
    struct rp_server_request *request = argument;
    rp_server_connection_deadline(request->connection, 0);
    serve(request);
    rp_server_connection_deadline(request->connection, request->server->limits.transfer_seconds);
    rp_buf_clear(&request->body);
    request->phase = RP_REQUEST_DONE;
    MHD_resume_connection(request->http);
}

static void list_schemes(const struct rp_server_request *request, struct MHD_Response *response)
{
    const struct rp_login_acceptor *acceptor = &request->server->acceptor;
    if (acceptor->keytab || acceptor->ntlm_users)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Negotiate");
    if (acceptor->keytab)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Kerberos");
    if (request->connection->listener->basic)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"WSMAN\"");
}

static enum MHD_Result answer(struct rp_server_request *request)
{
    request->phase = RP_REQUEST_ANSWERED;
    if (request->drop)
        return MHD_NO;
    struct rp_buf *body = &request->answer;
    struct MHD_Response *response = MHD_create_response_from_buffer(body->size, body->data, MHD_RESPMEM_MUST_FREE);
    if (!response)
        return MHD_NO;
    if (body->size)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                *request->answer_type ? request->answer_type : "text/plain;charset=UTF-8");
    *body = (struct rp_buf){0};
    if (request->challenge)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, request->challenge);
    if (request->schemes)
        list_schemes(request, response);
    if (request->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "POST");
    if (request->close)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result result = MHD_queue_response(request->http, request->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_at_once(struct rp_server_request *request, unsigned status)
{
    request->status = status;
    return answer(request);
}

// A body is kept only when something can be done with it: nobody fills our memory before he has shown a header.
static enum MHD_Result begin(struct rp_server_request *request, const char *url, const char *method)
{
    struct MHD_Connection *http = request->http;
    struct rp_server_connection *c = request->connection;
    rp_server_connection_deadline(c, request->server->limits.transfer_seconds);
    if (strcmp(url, "/wsman") && strcmp(url, "/wsman/"))
        return answer_at_once(request, MHD_HTTP_NOT_FOUND);
    if (strcmp(method, MHD_HTTP_METHOD_POST))
        return answer_at_once(request, MHD_HTTP_METHOD_NOT_ALLOWED);
    const char *length = MHD_lookup_connection_value(http, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *identify = MHD_lookup_connection_value(http, MHD_HEADER_KIND, "WSMANIDENTIFY");
    if (length && strtoull(length, NULL, 10) > RP_SERVER_MAX_BODY)
        return answer_at_once(request, MHD_HTTP_CONTENT_TOO_LARGE);
    request->authorization = MHD_lookup_connection_value(http, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    request->content_type = MHD_lookup_connection_value(http, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    request->identify = identify && !strcasecmp(identify, "unauthenticated");
    request->discard = !request->authorization && !request->identify && !c->user && !c->listener->socket;
    return MHD_YES;
}

// Returns false when the body is too much: of this request, or of all who are not logged in.
static bool keep(struct rp_server_request *request, const char *data, size_t size)
{
    struct rp_server_connection *c = request->connection;
    bool anonymous = request->identify && !request->authorization && !c->user && !c->listener->socket;
    if (request->body.size + size > (anonymous ? RP_SERVER_MAX_IDENTIFY : RP_SERVER_MAX_BODY))
        return false;
    if (!c->user && !c->listener->socket) {
        request->held += size;
        if (atomic_fetch_add(&request->server->held, size) + size > RP_SERVER_MAX_HELD)
            return false;
    }
    rp_buf_append(&request->body, data, size);
    return true;
}

// A connection is suspended before a worker can resume it. What has been handed over when the server stops is still
// answered: that is decided under the mutex, and the pool's queue is never full.
static enum MHD_Result start_work(struct rp_server_request *request)
{
    struct rp_wsman_server *server = request->server;
    MHD_suspend_connection(request->http);
    pthread_mutex_lock(&server->mutex);
    bool stopping = server->stopping;
    request->phase = stopping ? RP_REQUEST_DONE : RP_REQUEST_WORK;
    request->drop = stopping;
    request->counted = !stopping;
    if (!stopping) {
        server->requests++;
        rp_pool_run(server->pool, work, request);
    }
    pthread_mutex_unlock(&server->mutex);
    if (stopping)
        MHD_resume_connection(request->http);
    return MHD_YES;
}

enum MHD_Result rp_server_request_handle(void *argument, struct MHD_Connection *http, const char *url,
                                         const char *method, const char *version, const char *data, size_t *size,
                                         void **context)
{
    (void)version;
    struct rp_server_listener *listener = argument;
    struct rp_server_request *request = *context;
    if (!request) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(http, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        *context = request = rp_xcalloc(1, sizeof *request);
        request->server = listener->server;
        request->http = http;
        request->connection = info->socket_context;
        return begin(request, url, method);
    }
    if (request->phase == RP_REQUEST_DONE)
        return answer(request);
    if (request->phase != RP_REQUEST_BODY)
        return MHD_YES;
    if (*size) {
        if (!request->discard && !keep(request, data, *size)) {
            request->discard = true;
            request->status = MHD_HTTP_CONTENT_TOO_LARGE;
            rp_buf_clear(&request->body);
        }
        *size = 0;
        return MHD_YES;
    }
    if (!request->discard)
        return start_work(request);
    if (!request->status) {
        request->status = MHD_HTTP_UNAUTHORIZED;
        request->schemes = true;
    }
    return answer(request);
}

void rp_server_request_completed(void *listener, struct MHD_Connection *http, void **context,
                                 enum MHD_RequestTerminationCode code)
{
    (void)listener, (void)http, (void)code;
    struct rp_server_request *request = *context;
    if (!request)
        return;
    struct rp_wsman_server *server = request->server;
    rp_server_connection_idle(request->connection);
    atomic_fetch_sub(&server->held, request->held);
    pthread_mutex_lock(&server->mutex);
    server->requests -= request->counted;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
    rp_buf_clear(&request->body);
    rp_buf_clear(&request->answer);
    free(request->challenge);
    free(request);
    *context = NULL;
}
