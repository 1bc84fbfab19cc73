// What the files of a login share.
#ifndef RP_WSMAN_LOGIN_IMPL_H
#define RP_WSMAN_LOGIN_IMPL_H

#include <gssapi/gssapi.h>
#include <gssapi/gssapi_ext.h>

#include "wsman/login.h"

enum { RP_LOGIN_MAX_TOKEN = 96 << 10, RP_LOGIN_MAX_MESSAGE = 64 << 20 };

struct rp_login {
    bool initiator, done, broken;
    enum rp_login_scheme scheme;
    bool ntlm;                    // what it is going to be (acceptor), and what it turned out to be
    bool seals;                   // both sides want confidentiality, with a whole key
    bool kerberos_only;           // a client's: no other mechanism was possible
    gss_ctx_id_t context;
    gss_cred_id_t credential;
    gss_name_t target;
    gss_OID mechanism;
    struct rp_buf binding;        // of the channel; empty: none
    char *host, *user;            // user of a client before it is done: as it was given, may be NULL
    char *keytab, *ntlm_users;    // acceptor
    bool sequenced;               // next_sequence is known: that of the next Kerberos token (RFC 4121 4.2.6.2)
    uint64_t next_sequence;
};

extern const gss_OID_desc rp_login_oid_spnego, rp_login_oid_kerberos, rp_login_oid_ntlm;

// Credentials of either side into login->credential, and login->mechanism.
int rp_login_acquire_initiator(struct rp_login *login, const struct rp_login_credentials *credentials,
                               struct rp_error *err);
// By what the first token asks for.
int rp_login_acquire_acceptor(struct rp_login *login, const uint8_t *token, size_t size, struct rp_error *err);
// RP_ERR_AUTH: GSSAPI's status as one line that says what to do. Always -1.
int rp_login_refused(const struct rp_login *login, const char *what, OM_uint32 major, OM_uint32 minor,
                     struct rp_error *err);

#endif
