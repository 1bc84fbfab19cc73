// The config file, and who may do what.
#ifndef RP_HOSTD_CONFIG_H
#define RP_HOSTD_CONFIG_H

#include <pthread.h>

#include "hostd/hostd.h"

// ---- access.c -------------------------------------------------------------------------------------------------------

struct rp_hostd_rule {
    enum rp_cim_access access;
    bool group;                      // of the operating system
    char *name;
};
struct rp_hostd_access {
    pthread_rwlock_t lock;           // of the rules; all zeros is an open one (PTHREAD_RWLOCK_INITIALIZER)
    struct rp_hostd_rule *rules;
    size_t count;
    const struct rp_login_acceptor *acceptor; // whose NTLM users' passwords Basic may use; NULL: no Basic
};
// "alice@EXAMPLE.ORG, LAB\bob, carol, @operators": users as they log in, groups of the operating system after an '@'.
// RP_ERR_INVALID.
int rp_hostd_access_add(struct rp_hostd_access *rules, enum rp_cim_access access, const char *names,
                        struct rp_error *err);
void rp_hostd_access_clear(struct rp_hostd_access *rules);
// From now on the rules are those of `by`, which gets the old ones. Others may be asking meanwhile.
void rp_hostd_access_replace(struct rp_hostd_access *rules, struct rp_hostd_access *by);
// The callbacks of wsman/server.h; `context` is the rules. The highest of all rules that fit counts. Names of Kerberos
// (with an '@') are compared exactly, those of NTLM and of this machine without regard to case. A rule for a group fits
// whom the operating system knows by the very name of his login (as winbind and sssd make it), and local users. By the
// unix socket, root and the user that the service runs as may administer.
int rp_hostd_access_authorize(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err);
bool rp_hostd_access_password(void *context, const char *user, const char *password);
int rp_hostd_access_peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                         struct rp_error *err);

// ---- config.c -------------------------------------------------------------------------------------------------------

struct rp_hostd_config {
    char *directory, *machine, *audit, *keytab, *users; // NULL: not said
    char *hypervisor, *network, *accelerator;
    unsigned freeze_limit_ms;                           // 0: not said
    char **folders;
    size_t folder_count;
    struct rp_wsman_listener *listeners;                // their strings are owned
    size_t listener_count;
    struct rp_login_acceptor acceptor;
    struct rp_hostd_access access;
};
// Reads "name = value" lines (refpoint-hostd(8)). One error, with file and line: "hostd.conf:7: …", RP_ERR_INVALID. A
// file that others may write to, or that belongs to somebody else than root and us, is RP_ERR_PERMISSION: it says who
// may do what.
int rp_hostd_config_read(const char *path, struct rp_hostd_config *config, struct rp_error *err);
int rp_hostd_config_parse(const char *text, const char *name, struct rp_hostd_config *config, struct rp_error *err);
// The files that it names: keytab, users, keys of TLS. They are there and can be used, and secrets are nobody else's.
int rp_hostd_config_check(const struct rp_hostd_config *config, struct rp_error *err);
// What differs between two of them beside the rules, which alone can be replaced while a host is served; NULL: nothing.
const char *rp_hostd_config_difference(const struct rp_hostd_config *a, const struct rp_hostd_config *b);
void rp_hostd_config_clear(struct rp_hostd_config *config); // usable with RP_CLEANUP
// What rp_hostd_start takes; borrows everything from `config`.
struct rp_hostd_options rp_hostd_config_options(struct rp_hostd_config *config);

#endif
