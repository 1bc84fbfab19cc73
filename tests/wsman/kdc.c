#include "kdc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <krb5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// What LeakSanitizer shall not report: gss-ntlmssp 1.2 loses what it loads of libcrypto to hash a password, MIT krb5
// 1.20 the principal of an acceptor that it has no key for.
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcrypto.so\nleak:libkrb5.so\n";
}

static int write_file(const struct kdc *kdc, const char *name, const char *text, char path[96])
{
    snprintf(path, 96, "%s/%s", kdc->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    size_t size = strlen(text);
    int result = write(fd, text, size) == (ssize_t)size ? 0 : -1;
    close(fd);
    return result;
}

static int spawn(struct kdc *kdc, const char *const arguments[])
{
    char log[96];
    snprintf(log, sizeof log, "%s/log", kdc->folder);
    int parent = getpid(), pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, 0);
    dup2(fd, 1);
    dup2(fd, 2);
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
}

int kdc_run(struct kdc *kdc, const char *const arguments[])
{
    int pid = spawn(kdc, arguments), status;
    for (unsigned tries = 0; tries < 3000; tries++, usleep(10000))
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, size) || getsockname(fd, (struct sockaddr *)&address, &size))
        abort();
    close(fd);
    return ntohs(address.sin_port);
}

static int answers(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return !result;
}

static void set_path(const struct kdc *kdc, const char *variable, const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", kdc->folder, name);
    setenv(variable, path, 1);
}

// The last line is smbpasswd's: the NT hash of "secret" instead of the word itself.
static const char users[] = "LAB:admin:secret\nLAB:alice:wonderland\nOTHER:bob:b0b\n"
                            "LAB\\hashed:0:XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX:878D8014606CDA29677A44EFA1353FC7:[U]:\n";

static int prepare(struct kdc *kdc, const char *settings)
{
    *kdc = (struct kdc){.port = free_port()};
    snprintf(kdc->folder, sizeof kdc->folder, "/tmp/refpoint-kdc.XXXXXX");
    char path[96], text[2048];
    if (!mkdtemp(kdc->folder))
        return -1;
    snprintf(kdc->keytab, sizeof kdc->keytab, "%s/keytab", kdc->folder);
    snprintf(kdc->other_keytab, sizeof kdc->other_keytab, "%s/other-keytab", kdc->folder);
    snprintf(text, sizeof text, settings, kdc->folder, kdc->port, kdc->port);
    set_path(kdc, "KRB5_CONFIG", "krb5.conf");
    set_path(kdc, "KRB5_KDC_PROFILE", "krb5.conf");
    set_path(kdc, "KRB5CCNAME", "no-ccache");
    set_path(kdc, "KRB5_KTNAME", "no-keytab");
    setenv("KRB5RCACHEDIR", kdc->folder, 1);
    unsetenv("NTLM_USER_FILE");
    return write_file(kdc, "krb5.conf", text, path) ||
           write_file(kdc, "users", users, kdc->users);
}

int kdc_without(struct kdc *kdc)
{
    return prepare(kdc, "[libdefaults]\ndns_lookup_kdc = false\n# %s %d %d\n");
}

static const char settings[] =
    "[libdefaults]\ndefault_realm = REFPOINT.TEST\ndns_lookup_kdc = false\ndns_lookup_realm = false\n"
    "dns_canonicalize_hostname = false\nrdns = false\nudp_preference_limit = 1\n"
    "[realms]\nREFPOINT.TEST = {\n database_name = %1$s/principal\n key_stash_file = %1$s/stash\n"
    " acl_file = %1$s/acl\n kdc_listen = 127.0.0.1:%2$d\n kdc_tcp_listen = 127.0.0.1:%2$d\n"
    " kdc = 127.0.0.1:%2$d\n max_life = 1h\n}\n[domain_realm]\nlocalhost = REFPOINT.TEST\n"
    "[logging]\nkdc = FILE:%1$s/kdc.log\n";

int kdc_start(struct kdc *kdc)
{
    if (prepare(kdc, settings))
        return -1;
    char add[160], copy[160];
    snprintf(add, sizeof add, "ktadd -k %s HTTP/localhost HTTP/alias.refpoint.test", kdc->keytab);
    snprintf(copy, sizeof copy, "ktadd -k %s HTTP/localhost", kdc->other_keytab);
    const char *const create[] = {"kdb5_util", "create", "-s", "-P", "master", NULL};
    const char *const commands[] = {"addprinc -pw wonderland alice", "addprinc -randkey HTTP/localhost",
                                    "addprinc -randkey HTTP/alias.refpoint.test", copy, add};
    if (kdc_run(kdc, create))
        return -1;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *const run[] = {"kadmin.local", "-q", commands[i], NULL};
        if (kdc_run(kdc, run))
            return -1;
    }
    const char *const daemon[] = {"krb5kdc", "-n", NULL};
    kdc->pid = spawn(kdc, daemon);
    for (unsigned tries = 0; tries < 1000; tries++, usleep(10000))
        if (answers(kdc->port))
            return 0;
    return -1;
}

void kdc_stop(struct kdc *kdc)
{
    if (kdc->pid > 0) {
        kill(kdc->pid, SIGKILL);
        waitpid(kdc->pid, NULL, 0);
    }
    if (*kdc->folder) {
        const char *const run[] = {"rm", "-rf", kdc->folder, NULL};
        kdc_run(kdc, run);
    }
}

int kdc_ticket(struct kdc *kdc, const char *name, int seconds, char path[128])
{
    krb5_context context;
    krb5_principal alice = NULL;
    krb5_creds creds = {0};
    krb5_get_init_creds_opt *options = NULL;
    krb5_ccache cache = NULL;
    snprintf(path, 128, "%s/%s", kdc->folder, name);
    if (krb5_init_context(&context))
        return -1;
    int result = krb5_parse_name(context, "alice@REFPOINT.TEST", &alice) ||
                 krb5_get_init_creds_opt_alloc(context, &options);
    if (!result) {
        krb5_get_init_creds_opt_set_tkt_life(options, seconds);
        result = krb5_get_init_creds_password(context, &creds, alice, "wonderland", NULL, NULL, 0, NULL, options) ||
                 krb5_cc_resolve(context, path, &cache) || krb5_cc_initialize(context, cache, alice) ||
                 krb5_cc_store_cred(context, cache, &creds);
    }
    krb5_free_cred_contents(context, &creds);
    if (cache)
        krb5_cc_close(context, cache);
    krb5_get_init_creds_opt_free(context, options);
    krb5_free_principal(context, alice);
    krb5_free_context(context);
    return result ? -1 : 0;
}
