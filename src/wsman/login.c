#include "wsman/login_impl.h"

#include <string.h>

#include "base/bytes.h"

const gss_OID_desc rp_login_oid_spnego = {6, "\x2b\x06\x01\x05\x05\x02"};
const gss_OID_desc rp_login_oid_kerberos = {9, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"};
const gss_OID_desc rp_login_oid_ntlm = {10, "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"};

enum { FLAGS = GSS_C_MUTUAL_FLAG | GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG | GSS_C_CONF_FLAG | GSS_C_INTEG_FLAG };
enum { NTLM_SIGNATURE = 16 }; // MS-NLMP 2.2.2.9

struct rp_login *rp_login_client(enum rp_login_scheme scheme, const char *host,
                                 const struct rp_login_credentials *credentials, struct rp_error *err)
{
    RP_CLEANUP(rp_login_free_p) struct rp_login *login = rp_xcalloc(1, sizeof *login);
    login->initiator = true;
    login->scheme = scheme;
    login->host = rp_xstrdup(host);
    login->user = credentials->user ? rp_xstrdup(credentials->user) : NULL;
    if (rp_login_acquire_initiator(login, credentials, err))
        return NULL;
    struct rp_login *result = login;
    login = NULL;
    return result;
}

struct rp_login *rp_login_server(enum rp_login_scheme scheme, const struct rp_login_acceptor *acceptor,
                                 struct rp_error *err)
{
    bool kerberos_only = scheme == RP_LOGIN_KERBEROS;
    if (!acceptor->keytab && (kerberos_only || !acceptor->ntlm_users)) {
        rp_fail(err, RP_ERR_AUTH, "login: this host does not offer %s", kerberos_only ? "Kerberos" : "Negotiate");
        return NULL;
    }
    struct rp_login *login = rp_xcalloc(1, sizeof *login);
    login->scheme = scheme;
    login->kerberos_only = kerberos_only;
    login->keytab = acceptor->keytab ? rp_xstrdup(acceptor->keytab) : NULL;
    login->ntlm_users = acceptor->ntlm_users && !kerberos_only ? rp_xstrdup(acceptor->ntlm_users) : NULL;
    return login;
}

void rp_login_free(struct rp_login *login)
{
    if (!login)
        return;
    OM_uint32 minor;
    if (login->context)
        gss_delete_sec_context(&minor, &login->context, GSS_C_NO_BUFFER);
    gss_release_cred(&minor, &login->credential);
    gss_release_name(&minor, &login->target);
    rp_buf_clear(&login->binding);
    free(login->host);
    free(login->user);
    free(login->keytab);
    free(login->ntlm_users);
    free(login);
}

bool rp_login_is_name(const char *text)
{
    size_t size = 0;
    for (; text[size]; size++)
        if ((unsigned char)text[size] < ' ' || text[size] == 0x7f)
            return false;
    return size && size <= 512;
}

// NTLM counts the terminating NUL of a name, Kerberos does not.
static char *name_text(gss_name_t name)
{
    OM_uint32 minor;
    gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
    if (!name || GSS_ERROR(gss_display_name(&minor, name, &text, NULL)) || !text.length)
        return NULL;
    char *copy = rp_xmalloc(text.length + 1);
    memcpy(copy, text.value, text.length);
    copy[text.length] = '\0';
    size_t end = text.length - !copy[text.length - 1];
    gss_release_buffer(&minor, &text);
    if (strlen(copy) != end || !rp_login_is_name(copy)) { // a NUL inside would let one name pass for another
        free(copy);
        return NULL;
    }
    return copy;
}

// NTLM may have been talked down to keys of 40 bits (MS-NLMP 3.4.5.3). RC4 with all 128 counts as 64 in GSSAPI.
static bool is_strong(struct rp_login *login)
{
    OM_uint32 minor;
    gss_buffer_set_t set = GSS_C_NO_BUFFER_SET;
    if (GSS_ERROR(gss_inquire_sec_context_by_oid(&minor, login->context, GSS_C_SEC_CONTEXT_SASL_SSF, &set)))
        return false;
    bool strong = set && set->count && set->elements[0].length == 4 && rp_get_be32(set->elements[0].value) >= 64;
    gss_release_buffer_set(&minor, &set);
    return strong;
}

static int established(struct rp_login *login, gss_name_t source, struct rp_error *err)
{
    OM_uint32 minor, flags = 0, major;
    gss_OID mechanism = GSS_C_NO_OID;
    int open = 0;
    major = gss_inquire_context(&minor, login->context, NULL, NULL, NULL, &mechanism, &flags, NULL, &open);
    if (GSS_ERROR(major) || !open || !mechanism)
        return rp_login_refused(login, "login", major, minor, err);
    login->ntlm = mechanism->length == rp_login_oid_ntlm.length &&
                  !memcmp(mechanism->elements, rp_login_oid_ntlm.elements, mechanism->length);
    // Who comes over TLS need not be able to seal (curl does not ask for it).
    login->seals = flags & GSS_C_CONF_FLAG && flags & GSS_C_INTEG_FLAG && (!login->ntlm || is_strong(login));
    if (login->initiator && !login->ntlm && !(flags & GSS_C_MUTUAL_FLAG))
        return rp_fail(err, RP_ERR_AUTH, "login: %s did not prove who it is", login->host);
    if (!login->initiator) {
        login->user = name_text(source);
        if (!login->user)
            return rp_fail(err, RP_ERR_AUTH, "login: the user has no name, or none that can be one");
    }
    login->done = true;
    return 1;
}

void rp_login_bind(struct rp_login *login, const void *binding, size_t size)
{
    rp_buf_reset(&login->binding);
    rp_buf_append(&login->binding, binding, size);
}

static int step(struct rp_login *login, gss_buffer_t input, struct rp_buf *answer, struct rp_error *err)
{
    OM_uint32 major, minor, ignored;
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    gss_name_t source = GSS_C_NO_NAME;
    struct gss_channel_bindings_struct channel = {.application_data = {login->binding.size, login->binding.data}};
    gss_channel_bindings_t binding = login->binding.size ? &channel : GSS_C_NO_CHANNEL_BINDINGS;
    if (login->initiator)
        major = gss_init_sec_context(&minor, login->credential, &login->context, login->target, login->mechanism, FLAGS,
                                     0, binding, input, NULL, &output, NULL, NULL);
    else
        major = gss_accept_sec_context(&minor, &login->context, login->credential, input, binding, &source, NULL,
                                       &output, NULL, NULL, NULL);
    int result = -1;
    if (GSS_ERROR(major)) {
        rp_login_refused(login, "login", major, minor, err);
    } else if (output.length > RP_LOGIN_MAX_TOKEN) {
        rp_fail(err, RP_ERR_AUTH, "login: a token of %zu bytes, %d are allowed", output.length, RP_LOGIN_MAX_TOKEN);
    } else {
        rp_buf_append(answer, output.value, output.length);
        result = major & GSS_S_CONTINUE_NEEDED ? 0 : established(login, source, err);
    }
    gss_release_buffer(&ignored, &output);
    gss_release_name(&ignored, &source);
    return result;
}

int rp_login_step(struct rp_login *login, const void *token, size_t size, struct rp_buf *answer, struct rp_error *err)
{
    if (login->done || login->broken)
        return rp_fail(err, RP_ERR_AUTH, "login: a token after its end");
    int result = -1;
    gss_buffer_desc input = {size, (void *)(uintptr_t)token};
    if (size > RP_LOGIN_MAX_TOKEN)
        rp_fail(err, RP_ERR_AUTH, "login: a token of %zu bytes, %d are allowed", size, RP_LOGIN_MAX_TOKEN);
    else if (!size && (!login->initiator || login->context))
        rp_fail(err, RP_ERR_AUTH, "login: an empty token");
    else if (login->initiator || login->credential || !rp_login_acquire_acceptor(login, token, size, err))
        result = step(login, size ? &input : GSS_C_NO_BUFFER, answer, err);
    login->broken = result < 0;
    return result;
}

bool rp_login_done(const struct rp_login *login)
{
    return login->done;
}

const char *rp_login_user(const struct rp_login *login)
{
    return login->done ? login->user : NULL;
}

const char *rp_login_mechanism(const struct rp_login *login)
{
    return !login->done ? NULL : login->ntlm ? "NTLM" : "Kerberos";
}

const char *rp_login_protocol(const struct rp_login *login)
{
    return login->scheme == RP_LOGIN_KERBEROS ? "application/HTTP-Kerberos-session-encrypted"
                                              : "application/HTTP-SPNEGO-session-encrypted";
}

// NTLM has no gss_wrap_iov here; its token is the signature and, behind it, as many bytes as there were.
static int wrap_ntlm(struct rp_login *login, const void *plain, size_t size, struct rp_buf *header,
                     struct rp_buf *sealed, struct rp_error *err)
{
    OM_uint32 minor, major;
    int sealed_state = 0;
    gss_buffer_desc input = {size, (void *)(uintptr_t)plain}, output = GSS_C_EMPTY_BUFFER;
    major = gss_wrap(&minor, login->context, 1, GSS_C_QOP_DEFAULT, &input, &sealed_state, &output);
    if (GSS_ERROR(major))
        return rp_login_refused(login, "seal a message", major, minor, err);
    int result = 0;
    if (!sealed_state || output.length != size + NTLM_SIGNATURE) {
        result = rp_fail(err, RP_ERR_AUTH, "seal a message: NTLM made %zu bytes of %zu", output.length, size);
    } else {
        rp_buf_append(header, output.value, NTLM_SIGNATURE);
        rp_buf_append(sealed, (const uint8_t *)output.value + NTLM_SIGNATURE, size);
    }
    gss_release_buffer(&minor, &output);
    return result;
}

// RFC 4121's token in a header of its own, its trailer rotated to the front, as SSPI's EncryptMessage has it. Padding
// is of no length with AES (MS-WSMV 2.2.9.1.2.2.2); where a cipher has some it belongs to the data.
static int wrap_kerberos(struct rp_login *login, const void *plain, size_t size, struct rp_buf *header,
                         struct rp_buf *sealed, struct rp_error *err)
{
    OM_uint32 minor, major;
    int sealed_state = 0;
    size_t before = sealed->size;
    rp_buf_append(sealed, plain, size);
    gss_iov_buffer_desc iov[3] = {
        {GSS_IOV_BUFFER_TYPE_HEADER | GSS_IOV_BUFFER_FLAG_ALLOCATE, GSS_C_EMPTY_BUFFER},
        {GSS_IOV_BUFFER_TYPE_DATA, {size, sealed->data + before}},
        {GSS_IOV_BUFFER_TYPE_PADDING | GSS_IOV_BUFFER_FLAG_ALLOCATE, GSS_C_EMPTY_BUFFER},
    };
    major = gss_wrap_iov(&minor, login->context, 1, GSS_C_QOP_DEFAULT, &sealed_state, iov, 3);
    int result = 0;
    if (GSS_ERROR(major)) {
        result = rp_login_refused(login, "seal a message", major, minor, err);
    } else if (!sealed_state) {
        result = rp_fail(err, RP_ERR_AUTH, "seal a message: Kerberos did not encrypt it");
    } else {
        rp_buf_append(header, iov[0].buffer.value, iov[0].buffer.length);
        rp_buf_append(sealed, iov[2].buffer.value, iov[2].buffer.length);
    }
    if (result)
        sealed->size = before;
    gss_release_iov_buffer(&minor, iov, 3);
    return result;
}

int rp_login_wrap(struct rp_login *login, const void *plain, size_t size, struct rp_buf *header, struct rp_buf *sealed,
                  struct rp_error *err)
{
    if (!login->done || login->broken)
        return rp_fail(err, RP_ERR_AUTH, "seal a message: nobody is logged in");
    if (!login->seals)
        return rp_fail(err, RP_ERR_AUTH, "seal a message: the other side allows no encryption, or only a weak one");
    if (!size || size > RP_LOGIN_MAX_MESSAGE)
        return rp_fail(err, RP_ERR_INVALID, "seal a message: it has %zu bytes", size);
    return login->ntlm ? wrap_ntlm(login, plain, size, header, sealed, err)
                       : wrap_kerberos(login, plain, size, header, sealed, err);
}

// Of RFC 1964 (02 01), which has the mechanism in front of it.
static bool is_old_token(const uint8_t *header, size_t size)
{
    struct rp_cursor c = rp_cursor_of(header, size);
    if (rp_cursor_u8(&c) != 0x60)
        return false;
    uint8_t length = rp_cursor_u8(&c);
    if (length & 0x80)
        rp_cursor_bytes(&c, length & 0x7f);
    if (rp_cursor_u8(&c) != 6)
        return false;
    rp_cursor_bytes(&c, rp_cursor_u8(&c));
    uint8_t first = rp_cursor_u8(&c), second = rp_cursor_u8(&c);
    return !c.failed && first == 2 && second == 1;
}

// The acceptor's context looks for replays only as the initiator asked for it, so this does not rely on that. A token
// of RFC 4121 (05 04) carries its number in clear but authenticated; who comes first says where the numbers start.
static int check_sequence(struct rp_login *login, const uint8_t *header, size_t size, struct rp_error *err)
{
    if (size < 16 || header[0] != 5 || header[1] != 4) // Kerberos would also open one of RFC 4121 with the mechanism in front
        return is_old_token(header, size) && !login->sequenced
                   ? 0
                   : rp_fail(err, RP_ERR_AUTH, "open a message: it is sealed in a way that nobody uses");
    uint64_t number = rp_get_be64(header + 8);
    if (login->sequenced && number != login->next_sequence)
        return rp_fail(err, RP_ERR_AUTH, "open a message: it is not in its turn (replayed, reordered or one is lost)");
    login->sequenced = true;
    login->next_sequence = number + 1;
    return 0;
}

static int unwrap(struct rp_login *login, gss_buffer_t token, size_t size, struct rp_buf *plain, struct rp_error *err)
{
    OM_uint32 minor, major;
    int sealed_state = 0, result = 0;
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    major = gss_unwrap(&minor, login->context, token, &output, &sealed_state, NULL);
    if (GSS_ERROR(major))
        return rp_fail(err, RP_ERR_AUTH, "open a message: it is not what was sealed, or not in its turn");
    if (GSS_SUPPLEMENTARY_INFO(major))
        result = rp_fail(err, RP_ERR_AUTH,
                         "open a message: it is not in its turn (replayed, reordered or one is lost)");
    else if (!sealed_state)
        result = rp_fail(err, RP_ERR_AUTH, "open a message: it is signed, but not encrypted");
    else if (output.length > size)
        result = rp_fail(err, RP_ERR_AUTH, "open a message: more came out than went in");
    else
        rp_buf_append(plain, output.value, output.length);
    gss_release_buffer(&minor, &output);
    return result;
}

int rp_login_unwrap(struct rp_login *login, const void *header, size_t header_size, const void *sealed, size_t size,
                    struct rp_buf *plain, struct rp_error *err)
{
    if (!login->done || login->broken)
        return rp_fail(err, RP_ERR_AUTH, "open a message: nobody is logged in");
    if (!login->seals)
        return rp_fail(err, RP_ERR_AUTH, "open a message: the other side allows no encryption, or only a weak one");
    // gss-ntlmssp takes the signature's length for granted
    if (login->ntlm ? header_size != NTLM_SIGNATURE : header_size < NTLM_SIGNATURE || header_size > RP_LOGIN_MAX_TOKEN)
        return rp_fail(err, RP_ERR_AUTH, "open a message: a signature of %zu bytes", header_size);
    if (!size || size > RP_LOGIN_MAX_MESSAGE)
        return rp_fail(err, RP_ERR_AUTH, "open a message: it has %zu bytes", size);
    RP_CLEANUP(rp_buf_clear) struct rp_buf whole = {0};
    rp_buf_reserve(&whole, header_size + size);
    rp_buf_append(&whole, header, header_size);
    rp_buf_append(&whole, sealed, size);
    gss_buffer_desc token = {whole.size, whole.data};
    int result = !login->ntlm && check_sequence(login, header, header_size, err)
                     ? -1
                     : unwrap(login, &token, size, plain, err);
    login->broken = result != 0;
    return result;
}
