// Our client against our server, with every login; and what it says when something is wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kit.h"
#include "wsman/transport.h"

static struct kit kit;
static int start(void **state) { (void)state; return kit_start(&kit, true, (struct rp_wsman_server_limits){0}); }
static int stop(void **state) { (void)state; kit_stop(&kit); return 0; }

static const struct rp_login_credentials lab_admin = {"LAB\\admin", "secret", NULL, NULL};
static const struct rp_login_credentials alice = {"alice@REFPOINT.TEST", "wonderland", NULL, NULL};
static const struct rp_login_credentials reader = {"basic", "clear", NULL, NULL};
static const struct rp_login_credentials bob = {"OTHER\\bob", "b0b", NULL, NULL};

static char *url(int listener)
{
    static char text[128];
    if (listener == KIT_UNIX)
        snprintf(text, sizeof text, "unix:%s", kit.socket);
    else
        snprintf(text, sizeof text, "http%s://localhost:%d/wsman", listener == KIT_TLS ? "s" : "", kit.port[listener]);
    return text;
}

static struct rp_wsman_options options(int listener, enum rp_wsman_auth auth,
                                       const struct rp_login_credentials *credentials)
{
    struct rp_wsman_options o = {.url = url(listener), .auth = auth, .timeout_ms = 20000};
    o.credentials = credentials ? *credentials : (struct rp_login_credentials){0};
    o.ca_file = listener == KIT_TLS ? kit.certificate : NULL;
    return o;
}

static int exchange(struct rp_wsman_transport *transport, const char *message, struct rp_buf *answer, unsigned *status,
                    struct rp_error *err)
{
    char charset[32];
    rp_buf_reset(answer);
    int result = rp_wsman_transport_exchange(transport, message, strlen(message), answer, charset, status, err);
    if (!result)
        assert_string_equal(charset, "UTF-8");
    return result;
}

static void works(struct rp_wsman_options o, const char *user)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_error err = {0};
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = rp_wsman_transport_new(&o, &err);
    for (int i = 0; transport && i < 5; i++) {
        unsigned status = 0;
        char message[64], expected[64];
        snprintf(message, sizeof message, "<number-%d/>%s", i, i == 3 ? "<fault/>" : "");
        if (exchange(transport, message, &answer, &status, &err))
            break;
        assert_int_equal(status, i == 3 ? 500 : 200);
        snprintf(expected, sizeof expected, "<echo user=\"%s", user);
        assert_non_null(strstr(rp_buf_text(&answer), expected));
        assert_non_null(strstr(rp_buf_text(&answer), message));
    }
    if (err.code)
        fail_msg("%s", err.text);
}

static void every_login_reaches_the_service(void **state)
{
    (void)state;
    works(options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin), "LAB\\admin");
    works(options(KIT_SEALED, RP_AUTH_NEGOTIATE, &lab_admin), "LAB\\admin");
    works(options(KIT_SEALED, RP_AUTH_NEGOTIATE, &alice), "alice@REFPOINT.TEST");
    works(options(KIT_SEALED, RP_AUTH_KERBEROS, &alice), "alice@REFPOINT.TEST");
    works(options(KIT_TLS, RP_AUTH_NTLM, &lab_admin), "LAB\\admin");
    works(options(KIT_TLS, RP_AUTH_NEGOTIATE, &alice), "alice@REFPOINT.TEST");
    works(options(KIT_TLS, RP_AUTH_KERBEROS, &alice), "alice@REFPOINT.TEST");
    works(options(KIT_TLS, RP_AUTH_BASIC, &reader), "basic");
    works(options(KIT_UNIX, RP_AUTH_PEER, NULL), "uid ");
    struct rp_wsman_options clear = options(KIT_CLEAR, RP_AUTH_BASIC, &reader);
    clear.basic_in_clear = true;
    works(clear, "basic");
}

static void long_messages_pass_sealed(void **state)
{
    (void)state;
    struct rp_wsman_options o = options(KIT_SEALED, RP_AUTH_KERBEROS, &alice);
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = rp_wsman_transport_new(&o, NULL);
    RP_AUTO_FREE char *message = malloc(512001);
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_error err = {0};
    unsigned status;
    memset(message, 'x', 512000);
    message[512000] = '\0';
    assert_int_equal(exchange(transport, message, &answer, &status, NULL), 0);
    assert_non_null(strstr(rp_buf_text(&answer), message));
    message = realloc(message, 600001);
    memset(message, 'x', 600000);
    message[600000] = '\0';
    assert_int_equal(exchange(transport, message, &answer, &status, &err), -1);
    assert_non_null(strstr(err.text, "too large"));
    assert_int_equal(exchange(transport, "<after/>", &answer, &status, NULL), 0);
}

static void says(struct rp_wsman_options o, const char *message, enum rp_code code, const char *why)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_error err = {0};
    unsigned status;
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = rp_wsman_transport_new(&o, &err);
    if (transport && !exchange(transport, message, &answer, &status, &err))
        fail_msg("it works, instead of: %s", why);
    if (!strstr(err.text, why) || err.code != code || strchr(err.text, '\n'))
        fail_msg("'%s' (%s) is not: %s (%s)", why, rp_code_name(code), err.text, rp_code_name(err.code));
    assert_int_equal(answer.size, 0);
}

static void a_wrong_password_is_one_line_whatever_the_login(void **state)
{
    (void)state;
    struct rp_login_credentials admin = lab_admin, kerberos = alice, basic = reader;
    admin.password = kerberos.password = basic.password = "guess";
    says(options(KIT_SEALED, RP_AUTH_NTLM, &admin), "x", RP_ERR_AUTH, "as LAB\\admin: refused, wrong user name or");
    says(options(KIT_SEALED, RP_AUTH_NEGOTIATE, &admin), "x", RP_ERR_AUTH, "refused, wrong user name or password");
    says(options(KIT_TLS, RP_AUTH_BASIC, &basic), "x", RP_ERR_AUTH, "as basic: refused, wrong user name or password");
    says(options(KIT_SEALED, RP_AUTH_KERBEROS, &kerberos), "x", RP_ERR_AUTH, "wrong password for alice@REFPOINT.TEST");
    says(options(KIT_SEALED, RP_AUTH_NTLM, &bob), "x", RP_ERR_PERMISSION, "OTHER\\bob has no rights");
}

static void an_expired_ticket_and_a_service_that_kerberos_does_not_know_are_named(void **state)
{
    (void)state;
    char path[128], other[128];
    assert_int_equal(kdc_ticket(&kit.kdc, "short", 1, path), 0);
    struct rp_login_credentials ticket = {NULL, NULL, path, NULL};
    sleep(2);
    says(options(KIT_SEALED, RP_AUTH_NEGOTIATE, &ticket), "x", RP_ERR_AUTH, "the Kerberos ticket has expired");
    ticket.ccache = "/nonexistent";
    says(options(KIT_SEALED, RP_AUTH_KERBEROS, &ticket), "x", RP_ERR_AUTH, "there is no Kerberos ticket");
    struct rp_wsman_options o = options(KIT_SEALED, RP_AUTH_KERBEROS, &alice);
    snprintf(other, sizeof other, "http://127.0.0.1:%d", kit.port[KIT_SEALED]);
    o.url = other;
    says(o, "x", RP_ERR_AUTH, "knows no service HTTP/127.0.0.1");
}

// The fingerprint as an administrator gets it: openssl x509 -fingerprint -sha256.
static void fingerprint(const char *certificate, char text[128])
{
    char command[256];
    snprintf(command, sizeof command, "openssl x509 -in %s -noout -fingerprint -sha256 | cut -d= -f2", certificate);
    FILE *pipe = popen(command, "r");
    assert_non_null(fgets(text, 128, pipe));
    pclose(pipe);
    text[strcspn(text, "\n")] = '\0';
}

static void a_wrong_host_name_a_wrong_ca_and_a_wrong_pin_are_told_apart(void **state)
{
    (void)state;
    char other[128], pin[128], wrong_pin[128];
    struct rp_wsman_options o = options(KIT_TLS, RP_AUTH_BASIC, &reader);
    snprintf(other, sizeof other, "https://127.0.0.2:%d/wsman", kit.port[KIT_TLS]);
    o.url = other;
    says(o, "x", RP_ERR_AUTH, "127.0.0.2: its certificate is for another host name");
    o.url = url(KIT_TLS);
    o.ca_file = kit.other_certificate;
    says(o, "x", RP_ERR_AUTH, "from no CA that is trusted here");
    o.ca_file = NULL;
    says(o, "x", RP_ERR_AUTH, "from no CA that is trusted here");
    o.ca_file = "/nonexistent";
    says(o, "x", RP_ERR_INVALID, "CA file /nonexistent");
    fingerprint(kit.certificate, pin);
    fingerprint(kit.other_certificate, wrong_pin);
    o.ca_file = NULL;
    o.fingerprint = wrong_pin;
    says(o, "x", RP_ERR_AUTH, "not the pinned one");
    o.fingerprint = pin;
    works(o, "basic");
    o.url = other; // whatever it calls itself
    works(o, "basic");
}

static void hosts_that_do_not_answer_are_told_apart(void **state)
{
    (void)state;
    struct rp_wsman_options o = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
    o.url = "http://localhost:1/wsman";
    says(o, "x", RP_ERR_IO, "Connection refused");
    o.url = "http://no-such-host.invalid/";
    says(o, "x", RP_ERR_IO, "no-such-host.invalid: no host of that name is known");
    char plain[128];
    snprintf(plain, sizeof plain, "https://localhost:%d/", kit.port[KIT_SEALED]);
    o.url = plain;
    says(o, "x", RP_ERR_IO, "TLS cannot be set up");
    snprintf(plain, sizeof plain, "http://localhost:%d/other", kit.port[KIT_SEALED]);
    says(o, "x", RP_ERR_IO, "there is no WS-Management service");
    o = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
    o.timeout_ms = 150;
    says(o, "<sleep/>", RP_ERR_IO, "no answer within 0.1 s");
    o = options(KIT_SEALED, RP_AUTH_BASIC, &reader);
    o.basic_in_clear = true;
    says(o, "x", RP_ERR_AUTH, "refused");
    o = options(KIT_UNIX, RP_AUTH_PEER, NULL);
    o.url = "unix:/nonexistent";
    says(o, "x", RP_ERR_NOT_FOUND, "connect to /nonexistent");
}

static void what_cannot_be_is_refused_beforehand(void **state)
{
    (void)state;
    struct rp_wsman_options o = options(KIT_CLEAR, RP_AUTH_BASIC, &reader);
    says(o, "x", RP_ERR_INVALID, "would send the password in clear");
    o = options(KIT_UNIX, RP_AUTH_NTLM, &lab_admin);
    says(o, "x", RP_ERR_INVALID, "unix socket");
    o = options(KIT_SEALED, RP_AUTH_PEER, NULL);
    says(o, "x", RP_ERR_INVALID, "unix socket");
    o = options(KIT_TLS, RP_AUTH_BASIC, &reader);
    o.fingerprint = "12:34";
    says(o, "x", RP_ERR_INVALID, "64 hexadecimal digits");
    static const char *const urls[] = {"hv1", "ftp://hv1/", "", "http://user@hv1/", "unix:relative"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        o = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
        o.url = urls[i];
        says(o, "x", RP_ERR_INVALID, "");
    }
    // what somebody puts into a URL is not shown to everybody who sees the error
    static const char *const secrets[] = {"http://user:hush@hv1/", "https://:hush@hv1", "ftp://u:hush@hv1/",
                                          "u:hush@hv1", "http://u:hush@hv1:port/"};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        struct rp_error err = {0};
        o = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
        o.url = secrets[i];
        assert_null(rp_wsman_transport_new(&o, &err));
        assert_int_equal(err.code, RP_ERR_INVALID);
        assert_null(strstr(err.text, "hush"));
    }
    struct rp_wsman_options bare = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
    static const char *const complete[][2] = {{"https://hv1", "https://hv1:5986/wsman"},
                                              {"http://hv1/", "http://hv1:5985/wsman"},
                                              {"http://[::1]:80/x", "http://[::1]:80/x"}};
    for (size_t i = 0; i < 3; i++) {
        bare.url = complete[i][0];
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport =
            rp_wsman_transport_new(&bare, NULL);
        assert_string_equal(rp_wsman_transport_url(transport), complete[i][1]);
    }
}

static void a_lost_connection_is_an_error_and_the_next_message_logs_in_again(void **state)
{
    (void)state;
    struct rp_wsman_options all[] = {
        options(KIT_SEALED, RP_AUTH_KERBEROS, &alice), options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin),
    };
    for (size_t i = 0; i < 2; i++) {
        all[i].url = url(KIT_SEALED);
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport =
            rp_wsman_transport_new(&all[i], NULL);
        RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
        struct rp_error err = {0};
        unsigned status;
        assert_int_equal(exchange(transport, "<one/>", &answer, &status, NULL), 0);
        __atomic_store_n(&kit.drop_next, true, __ATOMIC_SEQ_CST);
        assert_int_equal(exchange(transport, "<two/>", &answer, &status, &err), -1);
        assert_int_equal(err.code, RP_ERR_IO);
        assert_non_null(strstr(err.text, "the connection was lost before the answer came"));
        assert_int_equal(exchange(transport, "<three/>", &answer, &status, NULL), 0);
    }
}

static void remember(void *context, bool sent, const void *data, size_t size)
{
    rp_buf_printf(context, "%c%.*s\n", sent ? '>' : '<', (int)size, (const char *)data);
}

static void a_trace_sees_messages_in_clear_and_no_logins(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf seen = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_wsman_options o = options(KIT_SEALED, RP_AUTH_NTLM, &lab_admin);
    unsigned status;
    o.trace = remember;
    o.trace_context = &seen;
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = rp_wsman_transport_new(&o, NULL);
    assert_int_equal(exchange(transport, "<one/>", &answer, &status, NULL), 0);
    assert_string_equal(rp_buf_text(&seen), "><one/>\n<<echo user=\"LAB\\admin\" access=\"3\" address=\"127.0.0.1\" "
                                            "charset=\"UTF-8\"><one/></echo>\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_login_reaches_the_service),
        cmocka_unit_test(long_messages_pass_sealed),
        cmocka_unit_test(a_wrong_password_is_one_line_whatever_the_login),
        cmocka_unit_test(an_expired_ticket_and_a_service_that_kerberos_does_not_know_are_named),
        cmocka_unit_test(a_wrong_host_name_a_wrong_ca_and_a_wrong_pin_are_told_apart),
        cmocka_unit_test(hosts_that_do_not_answer_are_told_apart),
        cmocka_unit_test(what_cannot_be_is_refused_beforehand),
        cmocka_unit_test(a_lost_connection_is_an_error_and_the_next_message_logs_in_again),
        cmocka_unit_test(a_trace_sees_messages_in_clear_and_no_logins),
    };
    return cmocka_run_group_tests_name("transport", tests, start, stop);
}
