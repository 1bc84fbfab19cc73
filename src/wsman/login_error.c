// What GSSAPI reports, as one line that an administrator can act upon.
#include <krb5.h>
#include <stdio.h>
#include <string.h>

#include "wsman/login_impl.h"

// Appends what GSSAPI says about a status, on one line.
static void describe(OM_uint32 status, int type, gss_OID mechanism, char *text, size_t size)
{
    OM_uint32 minor, more = 0;
    do {
        gss_buffer_desc part = GSS_C_EMPTY_BUFFER;
        if (GSS_ERROR(gss_display_status(&minor, status, type, mechanism, &more, &part)))
            return;
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%.*s", used ? "; " : "", (int)part.length, (const char *)part.value);
        gss_release_buffer(&minor, &part);
    } while (more);
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
}

// The mechanism glue hands on Kerberos's codes as they are, unless another mechanism has the same.
static bool is_code(OM_uint32 minor, krb5_error_code code)
{
    return minor == (OM_uint32)code;
}

static int client_side(const struct rp_login *login, OM_uint32 major, OM_uint32 minor, struct rp_error *err)
{
    const char *host = login->host, *user = login->user ? login->user : "the ticket's user";
#define IS(code) is_code(minor, code)
    if (IS(KRB5KRB_AP_ERR_TKT_EXPIRED) || IS(KRB5_CC_NOTFOUND) || IS(KRB5_FCC_NOFILE) ||
        GSS_ROUTINE_ERROR(major) == GSS_S_CREDENTIALS_EXPIRED) {
        bool expired = !IS(KRB5_CC_NOTFOUND) && !IS(KRB5_FCC_NOFILE);
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: %s (kinit gets one)", host,
                       expired ? "the Kerberos ticket has expired" : "there is no Kerberos ticket");
    }
    if (IS(KRB5KDC_ERR_PREAUTH_FAILED) || IS(KRB5KRB_AP_ERR_BAD_INTEGRITY))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: wrong password for %s", host, user);
    if (IS(KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: Kerberos knows no user %s", host, user);
    if (IS(KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN))
        return rp_fail(err, RP_ERR_AUTH,
                       "log in to %s: Kerberos knows no service HTTP/%s; use the name that the domain has for the host",
                       host, host);
    if (IS(KRB5KDC_ERR_KEY_EXP))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: the password of %s has expired", host, user);
    if (IS(KRB5KDC_ERR_CLIENT_REVOKED))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: the account of %s is locked", host, user);
    if (IS(KRB5KRB_AP_ERR_SKEW))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: the clocks differ too much for Kerberos", host);
    if (IS(KRB5_KDC_UNREACH) || IS(KRB5_REALM_UNKNOWN) || IS(KRB5_CONFIG_NODEFREALM) || IS(KRB5_REALM_CANT_RESOLVE))
        return rp_fail(err, RP_ERR_AUTH, "log in to %s: no KDC of the Kerberos realm can be reached", host);
#undef IS
    return 0;
}

int rp_login_refused(const struct rp_login *login, const char *what, OM_uint32 major, OM_uint32 minor,
                     struct rp_error *err)
{
    if (login->initiator && client_side(login, major, minor, err))
        return -1;
    // gss-ntlmssp has no words for it: EINVAL, ENOENT
    if (!login->initiator && login->ntlm && login->context && !login->done)
        return rp_fail(err, RP_ERR_AUTH, "%s: NTLM: wrong user name or password", what);
    char text[512] = "";
    gss_OID mechanism = login->mechanism;
    // "Unspecified GSS failure" says nothing beside the mechanism's own words
    if (GSS_ROUTINE_ERROR(major) == GSS_S_FAILURE && minor)
        describe(minor, GSS_C_MECH_CODE, mechanism, text, sizeof text);
    else
        describe(major, GSS_C_GSS_CODE, mechanism, text, sizeof text);
    if (GSS_ROUTINE_ERROR(major) != GSS_S_FAILURE && minor)
        describe(minor, GSS_C_MECH_CODE, mechanism, text, sizeof text);
    return login->initiator ? rp_fail(err, RP_ERR_AUTH, "log in to %s: %s", login->host, text)
                            : rp_fail(err, RP_ERR_AUTH, "%s: %s", what, text);
}
