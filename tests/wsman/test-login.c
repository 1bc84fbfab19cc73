// Logins: our client and our host in one process, with a real KDC and with a file of NTLM users; and what an attacker
// between them may try.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "kdc.h"
#include "wsman/login.h"

static struct kdc kdc;

static int start(void **state) { (void)state; return kdc_start(&kdc); }
static int stop(void **state) { (void)state; kdc_stop(&kdc); return 0; }

struct pair {
    struct rp_login *client, *server;
    struct rp_error err;
};
static void pair_clear(struct pair *pair)
{
    rp_login_free(pair->client);
    rp_login_free(pair->server);
}

static const struct rp_login_credentials lab_admin = {"LAB\\admin", "secret", NULL, NULL};
static const struct rp_login_credentials alice = {"alice@REFPOINT.TEST", "wonderland", NULL, NULL};

static const char *client_binding, *server_binding;

// Takes both to the end. 0 when both are done.
static int shake_hands(struct pair *pair, enum rp_login_scheme scheme, const char *host,
                       const struct rp_login_credentials *credentials, const struct rp_login_acceptor *acceptor)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf ours = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf theirs = {0};
    enum rp_login_scheme header = scheme == RP_LOGIN_KERBEROS ? RP_LOGIN_KERBEROS : RP_LOGIN_NEGOTIATE;
    memset(pair, 0, sizeof *pair);
    pair->client = rp_login_client(scheme, host, credentials, &pair->err);
    pair->server = pair->client ? rp_login_server(header, acceptor, &pair->err) : NULL;
    if (pair->server && client_binding)
        rp_login_bind(pair->client, client_binding, strlen(client_binding));
    if (pair->server && server_binding)
        rp_login_bind(pair->server, server_binding, strlen(server_binding));
    for (unsigned round = 0; pair->server && round < 5; round++) {
        rp_buf_reset(&ours);
        if (!rp_login_done(pair->client) &&
            rp_login_step(pair->client, theirs.data, theirs.size, &ours, &pair->err) < 0)
            return -1;
        if (rp_login_done(pair->client) && rp_login_done(pair->server))
            return 0;
        rp_buf_reset(&theirs);
        if (rp_login_done(pair->server) ? ours.size != 0
                                        : rp_login_step(pair->server, ours.data, ours.size, &theirs, &pair->err) < 0)
            return -1;
    }
    return pair->server && rp_login_done(pair->client) && rp_login_done(pair->server) ? 0 : -1;
}

struct message {
    struct rp_buf header, sealed;
};
static void message_clear(struct message *message)
{
    rp_buf_clear(&message->header);
    rp_buf_clear(&message->sealed);
}
static void seal(struct rp_login *login, const char *text, struct message *message)
{
    memset(message, 0, sizeof *message);
    assert_int_equal(rp_login_wrap(login, text, strlen(text), &message->header, &message->sealed, NULL), 0);
    assert_int_equal(message->sealed.size, strlen(text));
    assert_null(memmem(message->sealed.data, message->sealed.size, text, strlen(text)));
}
static int open_as(struct rp_login *login, const struct message *message, const char *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    struct rp_error err = {0};
    if (rp_login_unwrap(login, message->header.data, message->header.size, message->sealed.data, message->sealed.size,
                        &plain, &err)) {
        assert_int_equal(err.code, RP_ERR_AUTH);
        return -1;
    }
    assert_string_equal(rp_buf_text(&plain), text);
    return 0;
}

static void exchange(struct pair *pair)
{
    for (int i = 0; i < 20; i++) {
        RP_CLEANUP(message_clear) struct message request;
        RP_CLEANUP(message_clear) struct message answer;
        seal(pair->client, "<a request, long enough to be seen/>", &request);
        assert_int_equal(open_as(pair->server, &request, "<a request, long enough to be seen/>"), 0);
        seal(pair->server, "<the answer to it, which is another/>", &answer);
        assert_int_equal(open_as(pair->client, &answer, "<the answer to it, which is another/>"), 0);
    }
}

static void good(enum rp_login_scheme scheme, const char *host, const struct rp_login_credentials *credentials,
                 const struct rp_login_acceptor *acceptor, const char *mechanism, const char *user)
{
    RP_CLEANUP(pair_clear) struct pair pair;
    if (shake_hands(&pair, scheme, host, credentials, acceptor))
        fail_msg("%s", pair.err.text);
    assert_string_equal(rp_login_user(pair.server), user);
    assert_string_equal(rp_login_mechanism(pair.client), mechanism);
    assert_string_equal(rp_login_mechanism(pair.server), mechanism);
    assert_string_equal(rp_login_protocol(pair.server), scheme == RP_LOGIN_KERBEROS
                                                            ? "application/HTTP-Kerberos-session-encrypted"
                                                            : "application/HTTP-SPNEGO-session-encrypted");
    exchange(&pair);
}

static void refused(enum rp_login_scheme scheme, const char *host, const struct rp_login_credentials *credentials,
                    const struct rp_login_acceptor *acceptor, const char *why)
{
    RP_CLEANUP(pair_clear) struct pair pair;
    assert_int_not_equal(shake_hands(&pair, scheme, host, credentials, acceptor), 0);
    if (!strstr(pair.err.text, why) || pair.err.code != RP_ERR_AUTH)
        fail_msg("'%s' is not in: %s", why, pair.err.text);
    assert_null(strchr(pair.err.text, '\n'));
    assert_true(!pair.server || !rp_login_user(pair.server));
}

static void ntlm_logs_in_and_seals_bare_and_in_spnego(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    good(RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
    good(RP_LOGIN_NEGOTIATE, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
    acceptor.keytab = kdc.keytab;
    good(RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
    good(RP_LOGIN_NEGOTIATE, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
}

static void a_user_without_a_domain_logs_in_under_the_bare_name(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    struct rp_login_credentials bare = {"admin", "secret", NULL, NULL};
    good(RP_LOGIN_NTLM, "localhost", &bare, &acceptor, "NTLM", "admin");
}

static void a_users_file_may_have_hashes_instead_of_passwords(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    struct rp_login_credentials hashed = {"LAB\\hashed", "secret", NULL, NULL}, wrong = hashed;
    good(RP_LOGIN_NEGOTIATE, "localhost", &hashed, &acceptor, "NTLM", "LAB\\hashed");
    wrong.password = "Secret";
    refused(RP_LOGIN_NTLM, "localhost", &wrong, &acceptor, "wrong user name or password");
}

static void kerberos_logs_in_with_a_password_and_seals_bare_and_in_spnego(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    good(RP_LOGIN_KERBEROS, "localhost", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    good(RP_LOGIN_NEGOTIATE, "localhost", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    acceptor.ntlm_users = NULL;
    good(RP_LOGIN_NEGOTIATE, "localhost", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
}

static void kerberos_logs_in_with_a_ticket_and_with_a_keytab(void **state)
{
    (void)state;
    char path[128];
    struct rp_login_acceptor acceptor = {kdc.keytab, NULL};
    assert_int_equal(kdc_ticket(&kdc, "ccache", 600, path), 0);
    struct rp_login_credentials ticket = {NULL, NULL, path, NULL}, named = {"alice", NULL, path, NULL};
    good(RP_LOGIN_NEGOTIATE, "localhost", &ticket, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    good(RP_LOGIN_KERBEROS, "localhost", &named, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    struct rp_login_credentials keytab = {"HTTP/localhost@REFPOINT.TEST", NULL, NULL, kdc.keytab};
    good(RP_LOGIN_KERBEROS, "localhost", &keytab, &acceptor, "Kerberos", "HTTP/localhost@REFPOINT.TEST");
}

static void any_key_of_the_keytab_is_good_so_that_aliases_work(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    good(RP_LOGIN_NEGOTIATE, "alias.refpoint.test", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
}

static void a_user_of_ntlm_without_kerberos_falls_back_by_himself(void **state)
{
    (void)state;
    // no such principal; the name and password are in the users' file
    struct rp_login_credentials bob = {"bob@OTHER", "b0b", NULL, NULL};
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    good(RP_LOGIN_NEGOTIATE, "localhost", &bob, &acceptor, "NTLM", "OTHER\\bob");
}

static void a_wrong_password_is_refused_in_one_line(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    struct rp_login_credentials wrong = lab_admin, kerberos = alice;
    wrong.password = kerberos.password = "guess";
    refused(RP_LOGIN_NTLM, "localhost", &wrong, &acceptor, "wrong user name or password");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &wrong, &acceptor, "wrong user name or password");
    refused(RP_LOGIN_KERBEROS, "localhost", &kerberos, &acceptor, "wrong password for alice@REFPOINT.TEST");
    kerberos.user = "nobody@REFPOINT.TEST";
    refused(RP_LOGIN_KERBEROS, "localhost", &kerberos, &acceptor, "knows no user nobody@REFPOINT.TEST");
    wrong = (struct rp_login_credentials){"ELSEWHERE\\admin", "secret", NULL, NULL};
    refused(RP_LOGIN_NTLM, "localhost", &wrong, &acceptor, "wrong user name or password");
}

static void an_expired_ticket_a_missing_one_and_an_unknown_host_are_told_apart(void **state)
{
    (void)state;
    char path[128];
    struct rp_login_acceptor acceptor = {kdc.keytab, NULL};
    assert_int_equal(kdc_ticket(&kdc, "short", 1, path), 0);
    struct rp_login_credentials ticket = {NULL, NULL, path, NULL};
    sleep(2);
    refused(RP_LOGIN_KERBEROS, "localhost", &ticket, &acceptor, "the Kerberos ticket has expired");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &ticket, &acceptor, "the Kerberos ticket has expired");
    ticket.ccache = "/nonexistent/ccache";
    refused(RP_LOGIN_KERBEROS, "localhost", &ticket, &acceptor, "there is no Kerberos ticket");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &ticket, &acceptor, "there is no Kerberos ticket");
    refused(RP_LOGIN_KERBEROS, "other.refpoint.test", &alice, &acceptor, "knows no service HTTP/other.refpoint.test");
}

static void a_login_meant_for_another_tls_connection_is_refused(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    server_binding = client_binding = "tls-server-end-point:0123456789abcdef0123456789abcdef";
    good(RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
    good(RP_LOGIN_NEGOTIATE, "localhost", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    client_binding = "tls-server-end-point:another";
    refused(RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor, "login: ");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &lab_admin, &acceptor, "login: ");
    refused(RP_LOGIN_KERBEROS, "localhost", &alice, &acceptor, "login: ");
    client_binding = NULL; // a client that knows nothing of this is let in, as Windows does by default
    good(RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor, "NTLM", "LAB\\admin");
    good(RP_LOGIN_NEGOTIATE, "localhost", &alice, &acceptor, "Kerberos", "alice@REFPOINT.TEST");
    server_binding = NULL;
}

static void a_host_with_another_key_or_none_refuses(void **state)
{
    (void)state;
    struct rp_login_acceptor other = {kdc.other_keytab, NULL}, missing = {"/nonexistent", NULL}, none = {NULL, NULL};
    refused(RP_LOGIN_KERBEROS, "localhost", &alice, &other, "login: ");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &alice, &missing, "login: ");
    refused(RP_LOGIN_NEGOTIATE, "localhost", &alice, &none, "does not offer Negotiate");
    struct rp_login_acceptor ntlm = {NULL, kdc.users}, kerberos = {kdc.keytab, NULL};
    refused(RP_LOGIN_KERBEROS, "localhost", &alice, &ntlm, "does not offer Kerberos");
    refused(RP_LOGIN_NTLM, "localhost", &lab_admin, &kerberos, "does not offer NTLM");
    struct rp_error err = {0};
    assert_int_equal(rp_login_check(&missing, &err), -1);
    assert_non_null(strstr(err.text, "/nonexistent"));
    assert_int_equal(rp_login_check(&kerberos, NULL), 0);
}

static void a_file_of_users_that_others_may_read_is_not_used(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    struct rp_error err = {0};
    assert_int_equal(rp_login_check(&acceptor, NULL), 0);
    assert_int_equal(chmod(kdc.users, 0640), 0);
    assert_int_equal(rp_login_check(&acceptor, &err), -1);
    assert_int_equal(err.code, RP_ERR_PERMISSION);
    RP_CLEANUP(pair_clear) struct pair pair;
    int result = shake_hands(&pair, RP_LOGIN_NTLM, "localhost", &lab_admin, &acceptor);
    assert_int_equal(chmod(kdc.users, 0600), 0);
    assert_int_equal(result, -1);
}

// What somebody does to sealed messages on their way, and what has to come of it.
static void attack(enum rp_login_scheme scheme, const struct rp_login_credentials *credentials,
                   const struct rp_login_acceptor *acceptor)
{
    enum { REPLAY, REORDER, LOSE, CHANGE_DATA, CHANGE_HEADER, TRUNCATE, REFLECT, SHORT_HEADER, ATTACKS };
    for (int which = 0; which < ATTACKS; which++) {
        RP_CLEANUP(pair_clear) struct pair pair;
        RP_CLEANUP(message_clear) struct message m0, m1, m2;
        assert_int_equal(shake_hands(&pair, scheme, "localhost", credentials, acceptor), 0);
        seal(pair.client, "number zero", &m0);
        seal(pair.client, "number one", &m1);
        seal(pair.client, "number two", &m2);
        assert_int_equal(open_as(pair.server, &m0, "number zero"), 0);
        struct message *hit = &m1;
        switch (which) {
        case REPLAY: hit = &m0; break;
        case REORDER: hit = &m2; break;
        case LOSE: hit = &m2; break;
        case CHANGE_DATA: m1.sealed.data[3] ^= 1; break;
        case CHANGE_HEADER: m1.header.data[m1.header.size - 6] ^= 1; break;
        case TRUNCATE: m1.sealed.size--; break;
        case SHORT_HEADER: m1.header.size = 9; break;
        default: break;
        }
        struct rp_login *opener = which == REFLECT ? pair.client : pair.server;
        assert_int_equal(open_as(opener, hit, ""), -1);
        // and nothing is believed any more, not even what would have been right
        assert_int_equal(open_as(opener, &m1, "number one"), -1);
        assert_int_equal(open_as(opener, &m2, "number two"), -1);
    }
}

// The mechanism in front of a token, as GSS-API begins a login; Kerberos opens such a one as well.
static void put_mechanism_in_front(struct message *m)
{
    static const uint8_t mechanism[] = {6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2};
    RP_CLEANUP(rp_buf_clear) struct rp_buf whole = {0};
    size_t size = sizeof mechanism + m->header.size + m->sealed.size;
    const uint8_t front[] = {0x60, 0x82, (uint8_t)(size >> 8), (uint8_t)size};
    rp_buf_append(&whole, front, sizeof front);
    rp_buf_append(&whole, mechanism, sizeof mechanism);
    rp_buf_append(&whole, m->header.data, m->header.size);
    m->header.size = 0;
    rp_buf_append(&m->header, whole.data, whole.size);
}

// Its number is not where replays are noticed by it, so it is refused also where it is none.
static void a_message_with_the_mechanism_in_front_is_refused(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    RP_CLEANUP(pair_clear) struct pair pair;
    RP_CLEANUP(message_clear) struct message m0, m1;
    assert_int_equal(shake_hands(&pair, RP_LOGIN_KERBEROS, "localhost", &alice, &acceptor), 0);
    seal(pair.client, "number zero", &m0);
    seal(pair.client, "number one", &m1);
    assert_int_equal(open_as(pair.server, &m0, "number zero"), 0);
    put_mechanism_in_front(&m1);
    assert_int_equal(open_as(pair.server, &m1, ""), -1);
}

static void replayed_reordered_lost_and_changed_messages_end_the_login(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    attack(RP_LOGIN_NTLM, &lab_admin, &acceptor);
    attack(RP_LOGIN_NEGOTIATE, &lab_admin, &acceptor);
    attack(RP_LOGIN_KERBEROS, &alice, &acceptor);
    attack(RP_LOGIN_NEGOTIATE, &alice, &acceptor);
}

static void garbage_instead_of_tokens_is_refused(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {kdc.keytab, kdc.users};
    static const struct { const char *token; size_t size; } tokens[] = {
        {"", 0}, {"x", 1}, {"NTLMSSP", 8}, {"NTLMSSP\0\3\0\0\0", 12}, {"\x60\x06\x06\x04xyzw", 8},
        {"\x60\x48\x06\x06\x2b\x06\x01\x05\x05\x02", 10}, {"\x60\x0b\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", 13},
    };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        RP_CLEANUP(rp_login_free_p) struct rp_login *login = rp_login_server(RP_LOGIN_NEGOTIATE, &acceptor, NULL);
        RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
        struct rp_error err = {0};
        assert_int_equal(rp_login_step(login, tokens[i].token, tokens[i].size, &answer, &err), -1);
        assert_int_equal(err.code, RP_ERR_AUTH);
        assert_int_equal(rp_login_step(login, "NTLMSSP\0\1", 9, &answer, NULL), -1);
    }
}

static void names_with_control_characters_are_none(void **state)
{
    (void)state;
    assert_true(rp_login_is_name("LAB\\ädmin"));
    assert_false(rp_login_is_name(""));
    assert_false(rp_login_is_name("admin\nrefpoint: warning: all is well"));
    assert_false(rp_login_is_name("admin\x7f"));
    char text[514];
    memset(text, 'x', 513);
    text[513] = '\0';
    assert_false(rp_login_is_name(text));
    assert_true(rp_login_is_name(text + 1));
}

static void nothing_is_sealed_before_the_end_of_a_login(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    RP_CLEANUP(rp_login_free_p) struct rp_login *login = rp_login_server(RP_LOGIN_NEGOTIATE, &acceptor, NULL);
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    assert_int_equal(rp_login_wrap(login, "x", 1, &buf, &buf, NULL), -1);
    assert_int_equal(rp_login_unwrap(login, "0123456789abcdef", 16, "x", 1, &buf, NULL), -1);
    assert_int_equal(buf.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ntlm_logs_in_and_seals_bare_and_in_spnego),
        cmocka_unit_test(a_user_without_a_domain_logs_in_under_the_bare_name),
        cmocka_unit_test(a_users_file_may_have_hashes_instead_of_passwords),
        cmocka_unit_test(kerberos_logs_in_with_a_password_and_seals_bare_and_in_spnego),
        cmocka_unit_test(kerberos_logs_in_with_a_ticket_and_with_a_keytab),
        cmocka_unit_test(any_key_of_the_keytab_is_good_so_that_aliases_work),
        cmocka_unit_test(a_user_of_ntlm_without_kerberos_falls_back_by_himself),
        cmocka_unit_test(a_wrong_password_is_refused_in_one_line),
        cmocka_unit_test(an_expired_ticket_a_missing_one_and_an_unknown_host_are_told_apart),
        cmocka_unit_test(a_login_meant_for_another_tls_connection_is_refused),
        cmocka_unit_test(a_host_with_another_key_or_none_refuses),
        cmocka_unit_test(a_file_of_users_that_others_may_read_is_not_used),
        cmocka_unit_test(replayed_reordered_lost_and_changed_messages_end_the_login),
        cmocka_unit_test(a_message_with_the_mechanism_in_front_is_refused),
        cmocka_unit_test(garbage_instead_of_tokens_is_refused),
        cmocka_unit_test(names_with_control_characters_are_none),
        cmocka_unit_test(nothing_is_sealed_before_the_end_of_a_login),
    };
    return cmocka_run_group_tests_name("login", tests, start, stop);
}
