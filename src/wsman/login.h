// Logins: one security context of GSSAPI (SPNEGO, Kerberos, NTLM by gss-ntlmssp), of either side (RFC 4559, MS-NLMP;
// facts/wmi.md 2.9). Not thread safe: a connection has its own.
#ifndef RP_WSMAN_LOGIN_H
#define RP_WSMAN_LOGIN_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

struct rp_login;
// What HTTP calls "Negotiate" carries SPNEGO, a bare Kerberos token or a bare NTLMSSP message; "Kerberos" carries
// Kerberos only.
enum rp_login_scheme { RP_LOGIN_NEGOTIATE = 1, RP_LOGIN_KERBEROS = 2, RP_LOGIN_NTLM = 4 };

struct rp_login_credentials {
    const char *user;      // "alice", "DOMAIN\\alice", "alice@REALM"; NULL: that of the ccache
    const char *password;  // NULL: ccache or keytab. Wiped by its owner
    const char *ccache, *keytab; // paths, NULL: the default ones
};
// The client's side of a login to "HTTP/host". RP_LOGIN_NEGOTIATE lets GSSAPI choose: Kerberos and NTLM, of which
// only NTLM understands "DOMAIN\\alice", and only Kerberos works without a password. RP_LOGIN_NTLM sends bare NTLMSSP
// messages, as WinRM's own clients do.
struct rp_login *rp_login_client(enum rp_login_scheme scheme, const char *host,
                                 const struct rp_login_credentials *credentials, struct rp_error *err);
struct rp_login_acceptor {
    const char *keytab;        // for Kerberos; NULL: none
    // File that nobody else may read; NULL: no NTLM. Lines of DOMAIN:user:password, or, better for a service that
    // runs for long, as smbpasswd has them, DOMAIN\user:0:LM hash (32 X):NT hash: (gss-ntlmssp 1.2 loses 6 KiB
    // whenever it hashes a password).
    const char *ntlm_users;
};
// The host's side. `scheme` is the word of the Authorization header: RP_LOGIN_NEGOTIATE takes whatever the acceptor
// has, RP_LOGIN_KERBEROS only Kerberos.
struct rp_login *rp_login_server(enum rp_login_scheme scheme, const struct rp_login_acceptor *acceptor,
                                 struct rp_error *err);
// Whether logins of these kinds can succeed at all: the keytab has keys, the users' file is there and private.
int rp_login_check(const struct rp_login_acceptor *acceptor, struct rp_error *err);
void rp_login_free(struct rp_login *login); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_login, rp_login_free)

// The channel binding of the TLS connection below (binding.h), before the first step. The other side may have none;
// one that is another is refused, by the host.
void rp_login_bind(struct rp_login *login, const void *binding, size_t size);

// One step: takes the other side's token (none at a client's start) and appends ours. 1: done (our token may still have
// to be sent), 0: goes on with another, -1: refused: RP_ERR_AUTH with one clear line (wrong password, expired ticket,
// clock, unknown host).
int rp_login_step(struct rp_login *login, const void *token, size_t size, struct rp_buf *answer, struct rp_error *err);
bool rp_login_done(const struct rp_login *login);
// Who it is, once done: "LAB\\admin", "alice@EXAMPLE.ORG". Of NTLM as the client spelt it, in any case, and without a
// domain when it said none (then the first line of the users' file with that name counted). NULL before.
const char *rp_login_user(const struct rp_login *login);
// Whether a name may stand in a log and in an answer: not empty, at most 512 bytes, no control characters. Others are
// refused.
bool rp_login_is_name(const char *text);
const char *rp_login_mechanism(const struct rp_login *login); // "Kerberos", "NTLM", once done; NULL before
// What sealed bodies are called: by the scheme, not by what SPNEGO chose (MS-WSMV 2.2.9.1.1.1, 2.2.9.1.2.1).
const char *rp_login_protocol(const struct rp_login *login);

// Seals or opens one message: header (signature or token) and data apart, as many bytes of data as there were. Messages
// have an order, which opening checks; after one that failed nothing is opened any more. Both append. RP_ERR_AUTH.
int rp_login_wrap(struct rp_login *login, const void *plain, size_t size, struct rp_buf *header, struct rp_buf *sealed,
                  struct rp_error *err);
int rp_login_unwrap(struct rp_login *login, const void *header, size_t header_size, const void *sealed, size_t size,
                    struct rp_buf *plain, struct rp_error *err);

#endif
