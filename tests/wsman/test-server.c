// What clients do that are slow, many, dishonest or gone: none of it hinders the others.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "kit.h"
#include "wsman/seal.h"
#include "wsman/transport_impl.h"

#define BASIC "Authorization: Basic YmFzaWM6Y2xlYXI=\r\n" // basic:clear

enum { OF_USER = 6 };

static struct kit kit;
static int start_with(struct rp_wsman_server_limits limits)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &limit);
    return kit_start(&kit, false, limits);
}
static int start_impatient(void **state)
{
    (void)state;
    return start_with((struct rp_wsman_server_limits){.stranger_seconds = 2, .transfer_seconds = 2, .idle_seconds = 4});
}
// Nothing ends because a busy machine took its time.
static int start_patient(void **state)
{
    (void)state;
    return start_with((struct rp_wsman_server_limits){.of_user = OF_USER});
}
static int stop(void **state) { (void)state; kit_stop(&kit); return 0; }

static int dial(int listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)kit.port[listener])};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

// Whether the other side has ended the connection, within so many milliseconds; what came before that is ignored.
static bool ended(int fd, int milliseconds)
{
    char buffer[4096];
    uint64_t until = rp_clock_monotonic_ns() + (uint64_t)milliseconds * 1000000;
    for (;;) {
        uint64_t now = rp_clock_monotonic_ns();
        struct pollfd p = {fd, POLLIN, 0};
        if (now >= until || poll(&p, 1, (int)((until - now) / 1000000) + 1) <= 0)
            return false;
        if (recv(fd, buffer, sizeof buffer, 0) <= 0)
            return true;
    }
}

// Reads one answer with a Content-Length; its status, or -1 when the connection ends before it is whole.
static int hear(int fd, char answer[4096])
{
    size_t size = 0;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 5000) <= 0)
            return -1;
        ssize_t n = recv(fd, answer + size, 4095 - size, 0);
        if (n <= 0)
            return -1;
        size += (size_t)n;
        answer[size] = '\0';
        const char *body = strstr(answer, "\r\n\r\n"), *length = strstr(answer, "Content-Length: ");
        if (body && length && size >= (size_t)(body + 4 - answer) + strtoul(length + 16, NULL, 10))
            return atoi(answer + 9);
    }
}

static void post(int fd, const char *headers, const char *body)
{
    RP_AUTO_FREE char *text = rp_xasprintf("POST /wsman HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n%s",
                                           headers, strlen(body), body);
    say(fd, text);
}

static struct rp_wsman_transport *client(void)
{
    char url[64];
    struct rp_wsman_options o = {.url = url, .auth = RP_AUTH_NTLM, .timeout_ms = 20000};
    o.credentials = (struct rp_login_credentials){"LAB\\admin", "secret", NULL, NULL};
    snprintf(url, sizeof url, "http://127.0.0.1:%d/wsman", kit.port[KIT_SEALED]);
    return rp_wsman_transport_new(&o, NULL);
}

static int exchange(struct rp_wsman_transport *transport, const char *message, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    char charset[32];
    unsigned status;
    if (rp_wsman_transport_exchange(transport, message, strlen(message), &answer, charset, &status, err))
        return -1;
    assert_int_equal(status, 200);
    assert_non_null(strstr(rp_buf_text(&answer), message));
    return 0;
}

static void others_are_served(void)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = client();
    if (exchange(transport, "<hello/>", &err))
        fail_msg("%s", err.text);
}

static void a_slow_client_is_ended_and_hinders_nobody(void **state)
{
    (void)state;
    static const char head[] = "POST /wsman HTTP/1.1\r\nHost: x\r\nX-Long: ";
    uint64_t began = rp_clock_monotonic_ns(), took = 0;
    RP_AUTO_FD int fd = dial(KIT_SEALED);
    for (size_t i = 0; i < 150; i++) {
        send(fd, i < sizeof head - 1 ? head + i : "x", 1, MSG_NOSIGNAL);
        if (i == 3)
            others_are_served();
        if (ended(fd, 100)) {
            took = rp_clock_monotonic_ns() - began;
            break;
        }
    }
    assert_in_range(took, 1900000000ull, 30000000000ull);
}

static void a_slow_body_is_ended_too_even_from_somebody_known(void **state)
{
    (void)state;
    char answer[4096];
    RP_AUTO_FD int fd = dial(KIT_CLEAR);
    post(fd, BASIC, "<quick/>");
    assert_int_equal(hear(fd, answer), 200);
    uint64_t began = rp_clock_monotonic_ns(), took = 0;
    say(fd, "POST /wsman HTTP/1.1\r\nHost: x\r\n" BASIC "Content-Length: 100000\r\n\r\n");
    for (size_t i = 0; i < 150 && !took; i++) {
        say(fd, "y");
        if (ended(fd, 100))
            took = rp_clock_monotonic_ns() - began;
    }
    assert_in_range(took, 1900000000ull, 30000000000ull);
}

static void an_idle_connection_ends_and_its_client_logs_in_again(void **state)
{
    (void)state;
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = client();
    assert_int_equal(exchange(transport, "<one/>", NULL), 0);
    struct rp_login *login = transport->login;
    sleep(1);
    assert_int_equal(exchange(transport, "<two/>", NULL), 0);
    assert_ptr_equal(transport->login, login);
    RP_AUTO_FD int stranger = dial(KIT_SEALED);
    assert_true(ended(stranger, 12000));
    sleep(3);
    struct rp_error err = {0};
    if (exchange(transport, "<three/>", &err))
        fail_msg("%s", err.text);
}

static void a_thousand_idle_connections_keep_nobody_out_and_end_nobody_who_is_known(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static int fds[MANY];
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *known = client();
    assert_int_equal(exchange(known, "<before/>", NULL), 0);
    struct rp_login *login = known->login;
    for (size_t i = 0; i < MANY; i++)
        fds[i] = dial(i % 2 ? KIT_SEALED : KIT_TLS);
    // Until all are accepted: while more than eight are on their way, who comes from the same address may have to try again.
    size_t open = MANY;
    for (int tries = 0; open > 8 && tries < 300; tries++) {
        usleep(100000);
        open = 0;
        for (size_t i = 0; i < MANY; i++)
            open += !ended(fds[i], 1);
    }
    assert_in_range(open, 1, 8);
    others_are_served();
    assert_int_equal(exchange(known, "<after/>", NULL), 0);
    assert_ptr_equal(known->login, login);
    for (size_t i = 0; i < MANY; i++)
        close(fds[i]);
}

static void the_oldest_stranger_of_an_address_makes_room_for_the_newest(void **state)
{
    (void)state;
    int fds[9];
    char answer[4096];
    for (size_t i = 0; i < 9; i++) {
        fds[i] = dial(KIT_SEALED);
        usleep(20000);
    }
    assert_true(ended(fds[0], 30000));
    for (size_t i = 1; i < 9; i++) {
        post(fds[i], "", "");
        assert_int_equal(hear(fds[i], answer), 401);
    }
    for (size_t i = 0; i < 9; i++)
        close(fds[i]);
}

static void who_logs_in_too_often_ends_his_own_connections(void **state)
{
    (void)state;
    int fds[OF_USER + 1];
    char answer[4096];
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *other = client();
    assert_int_equal(exchange(other, "<before/>", NULL), 0);
    struct rp_login *login = other->login;
    for (size_t i = 0; i <= OF_USER; i++) {
        fds[i] = dial(KIT_CLEAR);
        post(fds[i], BASIC, i ? "<x/>" : "<sleep/>"); // the first one is at work until all are there
        for (unsigned tries = 0; !i && !__atomic_load_n(&kit_sleeping, __ATOMIC_SEQ_CST) && tries < 500; tries++)
            usleep(10000);
        if (i)
            assert_int_equal(hear(fds[i], answer), 200);
    }
    assert_true(ended(fds[1], 30000));
    for (size_t i = 0; i <= OF_USER; i++) {
        if (i > 1)
            post(fds[i], BASIC, "<again/>");
        if (i != 1)
            assert_int_equal(hear(fds[i], answer), 200);
        close(fds[i]);
    }
    assert_int_equal(exchange(other, "<after/>", NULL), 0);
    assert_ptr_equal(other->login, login);
}

static void truncated_bodies_and_headers_that_are_none_hinder_nobody(void **state)
{
    (void)state;
    char answer[4096];
    for (int i = 0; i < 20; i++) {
        RP_AUTO_FD int fd = dial(KIT_CLEAR);
        say(fd, "POST /wsman HTTP/1.1\r\nHost: x\r\n" BASIC "Content-Length: 5000\r\n\r\n<truncated");
    }
    RP_AUTO_FD int garbage = dial(KIT_SEALED);
    say(garbage, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n");
    assert_true(ended(garbage, 30000));
    RP_AUTO_FD int large = dial(KIT_SEALED);
    RP_AUTO_FREE char *value = rp_xcalloc(1, 200001);
    memset(value, 'A', 200000);
    say(large, "POST /wsman HTTP/1.1\r\nHost: x\r\nAuthorization: Negotiate ");
    say(large, value);
    say(large, "\r\nContent-Length: 0\r\n\r\n");
    int status = hear(large, answer);
    assert_true(status == 431 || status == 413 || status == -1);
    others_are_served();
    // and those who have nothing more to say make room for many who come at once
    usleep(1200000);
    int fds[8];
    for (size_t i = 0; i < 8; i++)
        fds[i] = dial(KIT_CLEAR);
    for (size_t i = 0; i < 8; i++) {
        post(fds[i], BASIC, "<x/>");
        assert_int_equal(hear(fds[i], answer), 200);
        close(fds[i]);
    }
}

static void what_is_not_a_token_is_a_401_and_the_third_ends_the_connection(void **state)
{
    (void)state;
    char answer[4096];
    RP_AUTO_FD int fd = dial(KIT_SEALED);
    post(fd, "Authorization: Negotiate ????\r\n", "");
    assert_int_equal(hear(fd, answer), 401);
    assert_non_null(strstr(answer, "WWW-Authenticate: Negotiate\r\n"));
    post(fd, "Authorization: Negotiate TlRMTVNTUAADAAAA\r\n", "");
    assert_int_equal(hear(fd, answer), 401);
    post(fd, "Authorization: Digest x\r\n", "");
    assert_int_equal(hear(fd, answer), 401);
    post(fd, "Authorization: Negotiate YIIB\r\n", "");
    assert_int_equal(hear(fd, answer), 401);
    assert_true(ended(fd, 30000));
}

// A message that the client's login seals, sent by hand.
static unsigned send_sealed(struct rp_wsman_transport *transport, const char *type, const struct rp_buf *body,
                            bool *new_connection)
{
    RP_CLEANUP(rp_http_exchange_clear) struct rp_http_exchange exchange = {
        .content_type = type, .body = body->data, .size = body->size};
    assert_int_equal(rp_http_post(transport, &exchange, NULL), 0);
    *new_connection = exchange.new_connection;
    return exchange.status;
}

static void a_replayed_reordered_or_borrowed_seal_ends_the_login(void **state)
{
    (void)state;
    enum { REPLAY, REORDER, BORROW, CASES };
    for (int which = 0; which < CASES; which++) {
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *one = client();
        RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *two = client();
        RP_CLEANUP(rp_buf_clear) struct rp_buf first = {0};
        RP_CLEANUP(rp_buf_clear) struct rp_buf second = {0};
        char type[256];
        bool moved;
        assert_int_equal(exchange(one, "<hello/>", NULL), 0);
        assert_int_equal(exchange(two, "<hello/>", NULL), 0);
        assert_int_equal(rp_seal(one->login, "<first/>", 8, type, &first, NULL), 0);
        assert_int_equal(rp_seal(one->login, "<second/>", 9, type, &second, NULL), 0);
        if (which == REPLAY)
            assert_int_equal(send_sealed(one, type, &first, &moved), 200);
        struct rp_wsman_transport *by = which == BORROW ? two : one;
        assert_int_equal(send_sealed(by, type, which == REORDER ? &second : &first, &moved), 400);
        assert_false(moved);
        // the connection is gone, and with it the login: the host does not look at the next one
        assert_int_equal(send_sealed(by, type, &second, &moved), 401);
        assert_true(moved);
    }
}

static void a_login_is_good_for_its_connection_only(void **state)
{
    (void)state;
    char answer[4096];
    RP_AUTO_FD int one = dial(KIT_CLEAR), two = dial(KIT_CLEAR);
    post(one, BASIC, "<x/>");
    assert_int_equal(hear(one, answer), 200);
    post(two, "", "<x/>");
    assert_int_equal(hear(two, answer), 401);
    post(one, "", "<x/>"); // and Basic for its request only
    assert_int_equal(hear(one, answer), 401);
    post(one, "Content-Type: multipart/encrypted\r\n" BASIC, "<x/>");
    assert_int_equal(hear(one, answer), 401);
}

static void *ask(void *argument)
{
    struct rp_error *err = argument;
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = client();
    if (exchange(transport, "<sleep/>", err) && !err->code)
        err->code = RP_ERR_IO;
    return NULL;
}

static void who_is_being_answered_gets_it_before_the_server_stops(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct rp_error errs[THREADS] = {0};
    unsigned before = __atomic_load_n(&kit_sleeping, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &errs[i]), 0);
    for (unsigned tries = 0; tries < 500; tries++) {
        if (__atomic_load_n(&kit_sleeping, __ATOMIC_SEQ_CST) >= before + THREADS)
            break;
        usleep(10000);
    }
    uint64_t began = rp_clock_monotonic_ns();
    rp_wsman_server_stop(kit.server);
    kit.server = NULL;
    assert_true(rp_clock_monotonic_ns() - began < 30000000000);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (errs[i].code)
            fail_msg("%s", errs[i].text);
    }
}

static void listeners_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct rp_wsman_server_ops ops = {0};
    char own[96];
    snprintf(own, sizeof own, "%s/busy", kit.kdc.folder);
    const struct rp_wsman_listener busy = {.socket = own};
    struct rp_wsman_server *server = rp_wsman_server_start(NULL, &busy, 1, NULL, &ops, NULL, NULL);
    assert_non_null(server);
    const struct rp_wsman_listener bad[] = {
        {.socket = own}, {.address = "example"}, {.address = "127.0.0.1", .socket = own},
        {.address = "127.0.0.1", .key = own},
        {.address = "127.0.0.1", .certificate = "/nonexistent", .key = "/nonexistent"},
        {.address = "127.0.0.1", .certificate = kit.kdc.users, .key = kit.kdc.users},
        {.address = "192.0.2.1"}, {0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_error err = {0};
        assert_null(rp_wsman_server_start(NULL, &bad[i], 1, NULL, &ops, NULL, &err));
        assert_int_not_equal(err.code, RP_OK);
    }
    rp_wsman_server_stop(server);
    assert_int_equal(access(own, F_OK), -1);
}

#define PATIENT(test) cmocka_unit_test_setup_teardown(test, start_patient, stop)
#define IMPATIENT(test) cmocka_unit_test_setup_teardown(test, start_impatient, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IMPATIENT(a_slow_client_is_ended_and_hinders_nobody),
        IMPATIENT(a_slow_body_is_ended_too_even_from_somebody_known),
        IMPATIENT(an_idle_connection_ends_and_its_client_logs_in_again),
        IMPATIENT(truncated_bodies_and_headers_that_are_none_hinder_nobody),
        PATIENT(a_thousand_idle_connections_keep_nobody_out_and_end_nobody_who_is_known),
        PATIENT(the_oldest_stranger_of_an_address_makes_room_for_the_newest),
        PATIENT(who_logs_in_too_often_ends_his_own_connections),
        PATIENT(what_is_not_a_token_is_a_401_and_the_third_ends_the_connection),
        PATIENT(a_replayed_reordered_or_borrowed_seal_ends_the_login),
        PATIENT(a_login_is_good_for_its_connection_only),
        PATIENT(listeners_that_cannot_be_are_refused),
        PATIENT(who_is_being_answered_gets_it_before_the_server_stops),
    };
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
