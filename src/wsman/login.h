// Logins: one security context of GSSAPI (SPNEGO, Kerberos, NTLM by gss-ntlmssp), or a name and password. Either side. Not thread safe: a connection has
// its own.
#ifndef RP_WSMAN_LOGIN_H
#define RP_WSMAN_LOGIN_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

struct rp_login;
enum rp_login_scheme { RP_LOGIN_NEGOTIATE = 1, RP_LOGIN_KERBEROS = 2, RP_LOGIN_NTLM = 4 }; // NTLM: raw NTLMSSP under "Negotiate"

struct rp_login_credentials {
    const char *user;      // "alice", "DOMAIN\\alice", "alice@REALM"; NULL: that of the ccache
    const char *password;  // NULL: ccache or keytab. Wiped by its owner
    const char *ccache, *keytab; // paths, NULL: the default ones
};
// The client's side of a login to "HTTP/host". RP_LOGIN_NEGOTIATE lets GSSAPI choose.
struct rp_login *rp_login_client(enum rp_login_scheme scheme, const char *host, const struct rp_login_credentials *credentials,
                                 struct rp_error *err);
struct rp_login_acceptor {
    const char *keytab;        // for Kerberos; NULL: none
    const char *ntlm_users;    // file of DOMAIN:user:password, 0600; NULL: no NTLM
};
struct rp_login *rp_login_server(const struct rp_login_acceptor *acceptor, struct rp_error *err);
void rp_login_free(struct rp_login *login); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_login, rp_login_free)

// One step: takes the other side's token (none at a client's start) and appends ours. 1: done (our token may still have to be
// sent), 0: goes on with another, -1: refused: RP_ERR_AUTH with one clear line (wrong password, expired ticket, clock, unknown host).
int rp_login_step(struct rp_login *login, const void *token, size_t size, struct rp_buf *answer, struct rp_error *err);
bool rp_login_done(const struct rp_login *login);
const char *rp_login_user(const struct rp_login *login);      // who it is, once done ("LAB\\admin", "alice@EXAMPLE.ORG")
const char *rp_login_protocol(const struct rp_login *login);  // "application/HTTP-SPNEGO-session-encrypted" or "…Kerberos…"

// Seals or opens one message: header (signature or token) and data apart, as many bytes of data as there were. Messages have an order,
// which opening checks. RP_ERR_AUTH.
int rp_login_wrap(struct rp_login *login, const void *plain, size_t size, struct rp_buf *header, struct rp_buf *sealed,
                  struct rp_error *err);
int rp_login_unwrap(struct rp_login *login, const void *header, size_t header_size, const void *sealed, size_t size,
                    struct rp_buf *plain, struct rp_error *err);

#endif
