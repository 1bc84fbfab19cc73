#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "wsman/binding.h"
#include "wsman/transport_impl.h"

void rp_http_exchange_clear(struct rp_http_exchange *exchange)
{
    rp_buf_clear(&exchange->answer);
    for (size_t i = 0; i < exchange->challenge_count; i++)
        free(exchange->challenges[i]);
    exchange->challenge_count = 0;
}

static size_t take_body(char *data, size_t one, size_t size, void *argument)
{
    struct rp_http_exchange *exchange = argument;
    (void)one;
    if (exchange->answer.size + size > RP_TRANSPORT_MAX_ANSWER) {
        exchange->too_large = true;
        return 0;
    }
    rp_buf_append(&exchange->answer, data, size);
    return size;
}

// The value of a header line, when it is that header; malloc'ed.
static char *header_value(const char *line, size_t size, const char *name)
{
    size_t length = strlen(name);
    if (size <= length || strncasecmp(line, name, length) || line[length] != ':')
        return NULL;
    line += length + 1;
    size -= length + 1;
    while (size && (*line == ' ' || *line == '\t'))
        line++, size--;
    while (size && strchr("\r\n \t", line[size - 1]))
        size--;
    return strndup(line, size);
}

static size_t take_header(char *line, size_t one, size_t size, void *argument)
{
    struct rp_http_exchange *exchange = argument;
    (void)one;
    if (size >= 5 && !strncmp(line, "HTTP/", 5)) { // that of a 100 does not count
        for (size_t i = 0; i < exchange->challenge_count; i++)
            free(exchange->challenges[i]);
        exchange->challenge_count = 0;
        *exchange->answer_type = '\0';
        return size;
    }
    char *value = size <= RP_TRANSPORT_MAX_CHALLENGE ? header_value(line, size, "WWW-Authenticate") : NULL;
    if (value && exchange->challenge_count < RP_TRANSPORT_MAX_CHALLENGES)
        exchange->challenges[exchange->challenge_count++] = value;
    else
        free(value);
    RP_AUTO_FREE char *type = header_value(line, size, "Content-Type");
    if (type)
        snprintf(exchange->answer_type, sizeof exchange->answer_type, "%s", type);
    return size;
}

// Without a function that seeks libcurl cannot send a body again by itself.
static size_t give_body(char *data, size_t one, size_t size, void *argument)
{
    struct rp_http_exchange *exchange = argument;
    size_t left = exchange->size - exchange->sent;
    size = size * one < left ? size * one : left;
    if (size)
        memcpy(data, (const uint8_t *)exchange->body + exchange->sent, size);
    exchange->sent += size;
    return size;
}

// A pinned certificate is believed, whoever signed it and whatever its name and dates are.
static int verify(X509_STORE_CTX *context, void *argument)
{
    struct rp_wsman_transport *transport = argument;
    uint8_t digest[32];
    unsigned size = 0;
    X509 *certificate = X509_STORE_CTX_get0_cert(context);
    *transport->seen = '\0';
    if (certificate)
        rp_binding_of_certificate(certificate, &transport->binding);
    if (!transport->options.fingerprint)
        return X509_verify_cert(context);
    if (certificate && X509_digest(certificate, EVP_sha256(), digest, &size) && size == sizeof digest) {
        if (!CRYPTO_memcmp(digest, transport->pin, sizeof digest)) {
            X509_STORE_CTX_set_error(context, X509_V_OK);
            return 1;
        }
        for (unsigned i = 0; i < size; i++)
            snprintf(transport->seen + 2 * i, sizeof transport->seen - 2 * i, "%02x", digest[i]);
    }
    X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_UNTRUSTED);
    return 0;
}

static CURLcode set_verify(CURL *curl, void *ssl, void *argument)
{
    (void)curl;
    SSL_CTX_set_cert_verify_callback(ssl, verify, argument);
    return CURLE_OK;
}

int rp_http_setup(struct rp_wsman_transport *t, struct rp_error *err)
{
    static int global = -1;
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once);
    if (global)
        global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -1;
    pthread_mutex_unlock(&once);
    CURL *curl = t->curl = global ? NULL : curl_easy_init();
    if (!curl)
        return rp_fail(err, RP_ERR_NO_MEMORY, "libcurl cannot be used");
    long timeout = (long)rp_wsman_transport_timeout(t);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, t->curl_error);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); // a login is for the connection: nobody may stand in between
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_MAXCONNECTS, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    // the host's own time-out shall be heard first
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout + timeout / 4);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     timeout < RP_TRANSPORT_CONNECT_MS ? timeout : (long)RP_TRANSPORT_CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_URL, t->url);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_body);
    if (t->socket)
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, t->socket);
    if (!t->tls)
        return 0;
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    // without our eye on the certificate a pin would mean nothing
    const char *backend = curl_version_info(CURLVERSION_NOW)->ssl_version;
    if (!backend || strncmp(backend, "OpenSSL/", 8) ||
        curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, set_verify) != CURLE_OK)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "https needs a libcurl with OpenSSL, this one has %s",
                       backend ? backend : "no TLS");
    curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, t);
    if (t->options.fingerprint) {
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
        curl_easy_setopt(curl, CURLOPT_CAINFO, NULL); // no CA is asked, so none need be there
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    } else if (t->options.ca_file) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, t->options.ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    return 0;
}

static int tls_failed(const struct rp_wsman_transport *t, struct rp_error *err)
{
    long verify = X509_V_OK;
    curl_easy_getinfo(t->curl, CURLINFO_SSL_VERIFYRESULT, &verify);
    if (*t->seen)
        return rp_fail(err, RP_ERR_AUTH, "%s: its certificate is not the pinned one, its SHA-256 is %s", t->name,
                       t->seen);
    // libcurl looks at the name before it asks for the chain's result, and that is "unspecified" until then
    if (verify == X509_V_OK || verify == X509_V_ERR_UNSPECIFIED)
        return rp_fail(err, RP_ERR_AUTH, "%s: its certificate is for another host name", t->name);
    if (verify == X509_V_ERR_CERT_HAS_EXPIRED || verify == X509_V_ERR_CERT_NOT_YET_VALID)
        return rp_fail(err, RP_ERR_AUTH, "%s: its certificate is out of date (%s)", t->name,
                       X509_verify_cert_error_string(verify));
    return rp_fail(err, RP_ERR_AUTH, "%s: its certificate is from no CA that is trusted here (%s)", t->name,
                   X509_verify_cert_error_string(verify));
}

static int failed(const struct rp_wsman_transport *t, const struct rp_http_exchange *exchange, CURLcode code,
                  struct rp_error *err)
{
    long sys = 0;
    curl_easy_getinfo(t->curl, CURLINFO_OS_ERRNO, &sys);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return rp_fail(err, RP_ERR_IO, "%s: no host of that name is known", t->name);
    case CURLE_COULDNT_CONNECT:
        return rp_fail_sys(err, sys ? (int)sys : ECONNREFUSED, "connect to %s", t->socket ? t->socket : t->url);
    case CURLE_OPERATION_TIMEDOUT:
        return rp_fail(err, RP_ERR_IO, "%s: no answer within %.1f s", t->name, rp_wsman_transport_timeout(t) / 1000.0);
    case CURLE_PEER_FAILED_VERIFICATION:
        return tls_failed(t, err);
    case CURLE_SSL_CACERT_BADFILE:
        return rp_fail(err, RP_ERR_INVALID, "CA file %s: cannot be used",
                       t->options.ca_file ? t->options.ca_file : "of the system");
    case CURLE_WRITE_ERROR:
        if (exchange->too_large)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: an answer of more than %d MiB", t->name,
                           RP_TRANSPORT_MAX_ANSWER >> 20);
        break;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_PARTIAL_FILE:
        return rp_fail(err, RP_ERR_IO, "%s: the connection was lost before the answer came", t->name);
    case CURLE_SSL_CONNECT_ERROR:
        return rp_fail(err, RP_ERR_IO, "%s: TLS cannot be set up (%s)", t->name, t->curl_error);
    default:
        break;
    }
    return rp_fail(err, RP_ERR_IO, "%s: %s", t->name, *t->curl_error ? t->curl_error : curl_easy_strerror(code));
}

static struct curl_slist *header(struct curl_slist *list, const char *name, const char *value)
{
    RP_AUTO_FREE char *line = rp_xasprintf("%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(list, line);
    explicit_bzero(line, strlen(line)); // Basic has a password in it
    return longer ? longer : list;
}

int rp_http_post(struct rp_wsman_transport *t, struct rp_http_exchange *exchange, struct rp_error *err)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    headers = curl_slist_append(headers, "Accept:");
    headers = header(headers, "User-Agent", "refpoint/" RP_VERSION);
    if (exchange->content_type)
        headers = header(headers, "Content-Type", exchange->content_type);
    else
        headers = curl_slist_append(headers, "Content-Type:");
    if (exchange->authorization)
        headers = header(headers, "Authorization", exchange->authorization);
    *t->seen = *t->curl_error = '\0';
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(t->curl, CURLOPT_READDATA, exchange);
    curl_easy_setopt(t->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)exchange->size);
    CURLcode code = curl_easy_perform(t->curl);
    long status = 0, connects = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->curl, CURLINFO_NUM_CONNECTS, &connects);
    exchange->status = (unsigned)status;
    exchange->new_connection = connects > 0;
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, NULL);
    for (struct curl_slist *h = headers; h; h = h->next)
        if (!strncmp(h->data, "Authorization:", 14))
            explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(headers);
    return code == CURLE_OK ? 0 : failed(t, exchange, code, err);
}

// Challenges may share a line, with commas between them that also separate the parameters of one.
static const char *next_challenge(const char *text, size_t *word)
{
    for (;;) {
        text += strspn(text, " \t,");
        if (!*text)
            return NULL;
        *word = strcspn(text, " \t,=");
        const char *after = text + *word;
        if (*after != '=')
            return text;
        const char *quote = after[1] == '"' ? strchr(after + 2, '"') : NULL; // name="value, with commas"
        text = quote ? quote + 1 : after + strcspn(after, ",");
    }
}

char *rp_http_schemes(const struct rp_http_exchange *exchange)
{
    struct rp_buf list = {0};
    for (size_t i = 0; i < exchange->challenge_count; i++) {
        size_t word;
        const char *at = exchange->challenges[i];
        while ((at = next_challenge(at, &word))) {
            rp_buf_printf(&list, "%s%.*s", list.size ? ", " : "", (int)word, at);
            at += word;
            at += strcspn(at, ",");
        }
    }
    rp_buf_text(&list);
    return (char *)list.data;
}

char *rp_http_challenge(const struct rp_http_exchange *exchange, const char *scheme)
{
    char *found = NULL;
    for (size_t i = 0; i < exchange->challenge_count && !found; i++) {
        size_t word;
        const char *at = exchange->challenges[i];
        while (!found && (at = next_challenge(at, &word))) {
            const char *token = at + word + strspn(at + word, " \t");
            size_t length = strcspn(token, ", \t");
            if (word == strlen(scheme) && !strncasecmp(at, scheme, word))
                found = strndup(token, length);
            at += word;
            at += strcspn(at, ",");
        }
    }
    return found;
}
