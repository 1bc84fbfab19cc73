#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "wsman/login_impl.h"

// What gss-ntlmssp calls the file of users in a credential store.
#define NTLM_KEYFILE "ntlmssp_keyfile"

static int import(const char *text, gss_OID type, gss_name_t *name, struct rp_error *err)
{
    OM_uint32 minor;
    gss_buffer_desc buffer = {strlen(text), (void *)(uintptr_t)text};
    if (GSS_ERROR(gss_import_name(&minor, &buffer, type, name)))
        return rp_fail(err, RP_ERR_AUTH, "login: '%s' is not a name", text);
    return 0;
}

static int acquire(struct rp_login *login, gss_name_t name, gss_cred_usage_t usage,
                   gss_key_value_element_desc *elements, OM_uint32 count, struct rp_error *err)
{
    OM_uint32 minor, major;
    gss_OID_set_desc set = {1, login->mechanism};
    gss_key_value_set_desc store = {count, elements};
    major = gss_acquire_cred_from(&minor, name, GSS_C_INDEFINITE, &set, usage, count ? &store : NULL,
                                  &login->credential, NULL, NULL);
    return GSS_ERROR(major) ? rp_login_refused(login, "login", major, minor, err) : 0;
}

// Restricts what SPNEGO may choose.
static int allow(struct rp_login *login, bool kerberos, bool ntlm, struct rp_error *err)
{
    OM_uint32 minor, major;
    gss_OID_desc mechanisms[2] = {kerberos ? rp_login_oid_kerberos : rp_login_oid_ntlm, rp_login_oid_ntlm};
    gss_OID_set_desc set = {kerberos && ntlm ? 2 : 1, mechanisms};
    major = gss_set_neg_mechs(&minor, login->credential, &set);
    return GSS_ERROR(major) ? rp_login_refused(login, "login", major, minor, err) : 0;
}

int rp_login_acquire_initiator(struct rp_login *login, const struct rp_login_credentials *credentials,
                               struct rp_error *err)
{
    const char *user = credentials->user, *password = credentials->password;
    bool ntlm = login->scheme != RP_LOGIN_KERBEROS && user && password;
    bool kerberos = login->scheme != RP_LOGIN_NTLM && !(ntlm && strchr(user, '\\'));
    if (login->scheme == RP_LOGIN_NTLM && !ntlm)
        return rp_fail(err, RP_ERR_INVALID, "login: NTLM needs a user name and a password");
    if (password && !user)
        return rp_fail(err, RP_ERR_INVALID, "login: a password without a user name");
    login->kerberos_only = !ntlm;
    // With nothing to choose Kerberos goes without SPNEGO, which every service takes and which keeps its errors
    // readable.
    const gss_OID_desc *mechanism = login->kerberos_only               ? &rp_login_oid_kerberos
                                    : login->scheme == RP_LOGIN_NTLM   ? &rp_login_oid_ntlm
                                                                       : &rp_login_oid_spnego;
    login->mechanism = (gss_OID)(uintptr_t)mechanism;

    gss_key_value_element_desc store[2];
    OM_uint32 count = 0;
    RP_AUTO_FREE char *memory = NULL;
    if (password) {
        store[count++] = (gss_key_value_element_desc){"password", password};
    } else if (credentials->keytab) {
        // tickets from a keytab go to a cache of our own, not into the user's
        memory = rp_xasprintf("MEMORY:refpoint %s %s", user ? user : "", credentials->keytab);
        store[count++] = (gss_key_value_element_desc){"client_keytab", credentials->keytab};
        store[count++] = (gss_key_value_element_desc){"ccache", credentials->ccache ? credentials->ccache : memory};
    } else if (credentials->ccache) {
        store[count++] = (gss_key_value_element_desc){"ccache", credentials->ccache};
    }
    gss_name_t name = GSS_C_NO_NAME;
    RP_AUTO_FREE char *target = rp_xasprintf("HTTP@%s", login->host);
    if (import(target, GSS_C_NT_HOSTBASED_SERVICE, &login->target, err) ||
        (user && import(user, GSS_C_NT_USER_NAME, &name, err)))
        return -1;
    int result = acquire(login, name, GSS_C_INITIATE, store, count, err);
    if (!result && mechanism == &rp_login_oid_spnego)
        result = allow(login, kerberos, ntlm, err);
    OM_uint32 minor;
    gss_release_name(&minor, &name);
    return result;
}

static int check_users(const char *path, struct rp_error *err)
{
    struct stat s;
    if (stat(path, &s))
        return rp_fail_sys(err, errno, "file of NTLM users %s", path);
    if (s.st_mode & 077)
        return rp_fail(err, RP_ERR_PERMISSION, "file of NTLM users %s: others may read the passwords in it (chmod 600)",
                       path);
    return 0;
}

static int accept_kerberos(struct rp_login *login, struct rp_error *err)
{
    gss_key_value_element_desc store = {"keytab", login->keytab};
    // no name: a ticket for any key of the keytab, so that aliases of the host work
    return acquire(login, GSS_C_NO_NAME, GSS_C_ACCEPT, &store, 1, err);
}

static int accept_ntlm(struct rp_login *login, struct rp_error *err)
{
    char host[256] = "";
    if (check_users(login->ntlm_users, err))
        return -1;
    gethostname(host, sizeof host - 1);
    RP_AUTO_FREE char *text = rp_xasprintf("@%s", *host ? host : "localhost");
    gss_key_value_element_desc store = {NTLM_KEYFILE, login->ntlm_users};
    gss_name_t name = GSS_C_NO_NAME;
    // gss-ntlmssp takes the file of users only beside the name of a host. Without a service in it: the challenge
    // would carry it, and its clients refuse a host that calls itself otherwise than they do; Windows sends none
    // (MS-NLMP 3.2.5.1.1).
    if (import(text, GSS_C_NT_HOSTBASED_SERVICE, &name, err))
        return -1;
    int result = acquire(login, name, GSS_C_ACCEPT, &store, 1, err);
    OM_uint32 minor;
    gss_release_name(&minor, &name);
    return result;
}

static bool contains(const uint8_t *token, size_t size, const void *what, size_t length)
{
    return memmem(token, size, what, length) != NULL;
}

// The one credential of SPNEGO would need one name for both mechanisms: none, for Kerberos to take any key of the
// keytab, and a host's for gss-ntlmssp to look into the file. So the first token decides: an NTLMSSP message in it,
// or no Kerberos among its mechanisms, is for NTLM. A token that lies about this only fails.
int rp_login_acquire_acceptor(struct rp_login *login, const uint8_t *token, size_t size, struct rp_error *err)
{
    bool spnego = size > 2 && token[0] == 0x60 &&
                  contains(token, size < 24 ? size : 24, rp_login_oid_spnego.elements, rp_login_oid_spnego.length);
    bool message = contains(token, size, "NTLMSSP", 8);
    bool offered = contains(token, size, rp_login_oid_kerberos.elements, rp_login_oid_kerberos.length);
    bool ntlm = message || (!offered && login->ntlm_users);
    if (ntlm ? !login->ntlm_users : !login->keytab)
        return rp_fail(err, RP_ERR_AUTH, "login: this host does not offer %s", ntlm ? "NTLM" : "Kerberos");
    const gss_OID_desc *mechanism = spnego ? &rp_login_oid_spnego : ntlm ? &rp_login_oid_ntlm : &rp_login_oid_kerberos;
    if (login->kerberos_only && (ntlm || spnego) && !offered)
        return rp_fail(err, RP_ERR_AUTH, "login: not a token of Kerberos");
    login->mechanism = (gss_OID)(uintptr_t)mechanism;
    login->ntlm = ntlm;
    if (ntlm ? accept_ntlm(login, err) : accept_kerberos(login, err))
        return -1;
    return spnego ? allow(login, !ntlm, ntlm, err) : 0;
}

int rp_login_check(const struct rp_login_acceptor *acceptor, struct rp_error *err)
{
    if (acceptor->ntlm_users && check_users(acceptor->ntlm_users, err))
        return -1;
    if (!acceptor->keytab)
        return 0;
    RP_CLEANUP(rp_login_free_p) struct rp_login *login = rp_login_server(RP_LOGIN_KERBEROS, acceptor, err);
    login->mechanism = (gss_OID)(uintptr_t)&rp_login_oid_kerberos;
    return accept_kerberos(login, err) ? rp_context(err, "keytab %s", acceptor->keytab) : 0;
}
