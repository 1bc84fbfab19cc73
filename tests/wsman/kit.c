#include "kit.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

struct rp_wsman_service *kit_real;

static int authorize(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err)
{
    (void)context;
    if (!strcmp(user, "basic"))
        *access = RP_CIM_READ;
    else if (!strcasecmp(user, "LAB\\admin") || !strcmp(user, "alice@REFPOINT.TEST"))
        *access = RP_CIM_ADMINISTER;
    else
        return rp_fail(err, RP_ERR_PERMISSION, "%s has no rights", user);
    return 0;
}

static bool password(void *context, const char *user, const char *text)
{
    (void)context;
    return !strcmp(user, "basic") && !strcmp(text, "clear");
}

static int peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err)
{
    (void)context, (void)gid;
    snprintf(user, 256, "uid %u", uid);
    *access = RP_CIM_ADMINISTER;
    return uid == 0 || uid == getuid() ? 0 : rp_fail(err, RP_ERR_PERMISSION, "%s has no rights", user);
}

static bool drop(void *context)
{
    struct kit *kit = context;
    return __atomic_exchange_n(&kit->drop_next, false, __ATOMIC_SEQ_CST);
}

static int make_certificate(struct kit *kit, const char *name, char certificate[96], char key[96])
{
    snprintf(certificate, 96, "%s/%s.pem", kit->kdc.folder, name);
    snprintf(key, 96, "%s/%s.key", kit->kdc.folder, name);
    const char *const run[] = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                               "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                               "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate, NULL};
    return kdc_run(&kit->kdc, run);
}

int kit_start(struct kit *kit, bool with_kdc, struct rp_wsman_server_limits limits)
{
    char ignored[96];
    struct rp_error err = {0};
    memset(kit, 0, sizeof *kit);
    kit->limits = limits;
    if ((with_kdc ? kdc_start(&kit->kdc) : kdc_without(&kit->kdc)) ||
        make_certificate(kit, "good", kit->certificate, kit->key) ||
        make_certificate(kit, "other", kit->other_certificate, ignored))
        return -1;
    snprintf(kit->socket, sizeof kit->socket, "%s/socket", kit->kdc.folder);
    const struct rp_wsman_listener listeners[KIT_LISTENERS] = {
        [KIT_SEALED] = {.address = "127.0.0.1"},
        [KIT_CLEAR] = {.address = "127.0.0.1", .flags = RP_LISTEN_BASIC_IN_CLEAR},
        [KIT_TLS] = {.address = "0.0.0.0", .certificate = kit->certificate, .key = kit->key},
        [KIT_UNIX] = {.socket = kit->socket},
    };
    struct rp_login_acceptor acceptor = {with_kdc ? kit->kdc.keytab : NULL, kit->kdc.users};
    struct rp_wsman_server_ops ops = {authorize, password, peer, drop, kit};
    kit->server = rp_wsman_server_start(kit_real, listeners, KIT_LISTENERS, &acceptor, &ops, &kit->limits, &err);
    if (!kit->server)
        fprintf(stderr, "# %s\n", err.text);
    for (size_t i = 0; kit->server && i < KIT_LISTENERS; i++)
        kit->port[i] = rp_wsman_server_port(kit->server, i);
    return kit->server ? 0 : -1;
}

void kit_stop(struct kit *kit)
{
    rp_wsman_server_stop(kit->server);
    kdc_stop(&kit->kdc);
}
