// The framing of sealed bodies: what WinRM, OMI and pywinrm send is read, anything else is refused before any
// cryptography.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kdc.h"
#include "wsman/seal.h"

#define TYPE "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";boundary=\"Encrypted Boundary\""
#define META(tab) tab "Content-Type: application/HTTP-SPNEGO-session-encrypted\r\n"
#define ORIGINAL(tab, n) tab "OriginalContent: type=application/soap+xml;charset=UTF-8;Length=" n "\r\n"
#define OCTETS(tab) tab "Content-Type: application/octet-stream\r\n"
#define SIGNATURE "\x10\0\0\0" "0123456789abcdef"
#define BODY(b, tab, n, data, end) b "\r\n" META(tab) ORIGINAL(tab, n) b "\r\n" OCTETS(tab) SIGNATURE data end
#define B "--Encrypted Boundary"

static struct kdc kdc;
static int start(void **state) { (void)state; return kdc_without(&kdc); }
static int stop(void **state) { (void)state; kdc_stop(&kdc); return 0; }

static void reads(const char *type, const char *body, size_t size)
{
    struct rp_sealed sealed;
    struct rp_error err = {0};
    if (rp_seal_parse(type, body, size, &sealed, &err))
        fail_msg("%s", err.text);
    assert_int_equal(sealed.header_size, 16);
    assert_memory_equal(sealed.header, "0123456789abcdef", 16);
    assert_int_equal(sealed.data_size, 5);
    assert_memory_equal(sealed.data, "he\r\no", 5);
    assert_int_equal(sealed.length, 5);
    assert_string_equal(sealed.charset, "UTF-8");
}
#define READS(type, body) reads(type, body, sizeof body - 1)

static void bodies_of_winrm_omi_and_older_windows_are_read(void **state)
{
    (void)state;
    READS(TYPE, BODY(B, "\t", "5", "he\r\no", B "--\r\n"));
    READS(TYPE, BODY(B, "", "5", "he\r\no", B "--\r\n"));
    READS(TYPE, BODY("-- Encrypted Boundary", "\t", "5", "he\r\no", "-- Encrypted Boundary--\r\n"));
    READS(TYPE, BODY(B, "\t", "5", "he\r\no", B "--"));
    READS("Multipart/Encrypted", BODY(B, "\t", "5", "he\r\no", B "--\r\n"));
    READS("multipart/encrypted; boundary=other; protocol=\"a;b\"", BODY("--other", "\t", "5", "he\r\no", "--other--\r\n"));
    READS("multipart/encrypted;protocol=\"x;boundary=no\";boundary=\"yes\"", BODY("--yes", " ", "5", "he\r\no", "--yes--"));
}

static void refuses(const char *type, const char *body, size_t size, enum rp_code code)
{
    struct rp_sealed sealed;
    struct rp_error err = {0};
    if (!rp_seal_parse(type, body, size, &sealed, &err))
        fail_msg("taken: %.*s", (int)size, body);
    assert_int_equal(err.code, code);
}
#define REFUSES(type, body) refuses(type, body, sizeof body - 1, RP_ERR_CORRUPT)

static void what_is_not_of_the_form_is_refused(void **state)
{
    (void)state;
    static const char good[] = BODY(B, "\t", "5", "he\r\no", B "--\r\n");
    for (size_t size = 0; size < sizeof good - 1; size++)
        if (size != sizeof good - 3) // without its last line break it is good
            refuses(TYPE, good, size, RP_ERR_CORRUPT);
    REFUSES(TYPE, BODY(B, "\t", "6", "he\r\no", B "--\r\n"));
    REFUSES(TYPE, BODY(B, "\t", "99999999999", "he\r\no", B "--\r\n"));
    REFUSES(TYPE, BODY(B, "\t", "-5", "he\r\no", B "--\r\n"));
    REFUSES(TYPE, BODY(B, "\t", "", "he\r\no", B "--\r\n"));
    REFUSES(TYPE, BODY(B, "\t", "5", "he\r\no0123456789abcdefg", B "--\r\n"));
    REFUSES(TYPE, BODY(B, "\t", "5", "he\r\no", "--Other--\r\n"));
    REFUSES(TYPE, B "\r\n" META("\t") ORIGINAL("\t", "5") B "\r\n" OCTETS("\t") "\xff\xff\xff\xff" "he\r\no" B "--\r\n");
    REFUSES(TYPE, B "\r\n" META("\t") ORIGINAL("\t", "5") ORIGINAL("\t", "5") B "\r\n" OCTETS("\t") SIGNATURE "he\r\no" B "--\r\n");
    REFUSES(TYPE, B "\r\n" META("\t") B "\r\n" OCTETS("\t") SIGNATURE "he\r\no" B "--\r\n");
    REFUSES(TYPE ";x=\"", BODY(B, "\t", "5", "", B "--\r\n"));
    REFUSES("multipart/encrypted;boundary=\"", BODY(B, "\t", "5", "he\r\no", B "--\r\n"));
    REFUSES("application/soap+xml", BODY(B, "\t", "5", "he\r\no", B "--\r\n"));
    refuses("multipart/x-multi-encrypted;boundary=\"Encrypted Boundary\"", good, sizeof good - 1, RP_ERR_UNSUPPORTED);
}

static void a_sealed_body_is_known_by_its_type(void **state)
{
    (void)state;
    assert_true(rp_seal_is(TYPE));
    assert_true(rp_seal_is("MULTIPART/ENCRYPTED"));
    assert_true(rp_seal_is("multipart/x-multi-encrypted;a=b"));
    assert_false(rp_seal_is(NULL));
    assert_false(rp_seal_is(""));
    assert_false(rp_seal_is("multipart/encryptedx"));
    assert_false(rp_seal_is("application/soap+xml;charset=UTF-8"));
}

static void what_is_sealed_is_opened_by_the_other_side_only(void **state)
{
    (void)state;
    struct rp_login_acceptor acceptor = {NULL, kdc.users};
    struct rp_login_credentials admin = {"LAB\\admin", "secret", NULL, NULL};
    RP_CLEANUP(rp_login_free_p) struct rp_login *client = rp_login_client(RP_LOGIN_NTLM, "localhost", &admin, NULL);
    RP_CLEANUP(rp_login_free_p) struct rp_login *server = rp_login_server(RP_LOGIN_NEGOTIATE, &acceptor, NULL);
    RP_CLEANUP(rp_buf_clear) struct rp_buf a = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf b = {0};
    assert_int_equal(rp_login_step(client, NULL, 0, &a, NULL), 0);
    assert_int_equal(rp_login_step(server, a.data, a.size, &b, NULL), 0);
    rp_buf_reset(&a);
    assert_int_equal(rp_login_step(client, b.data, b.size, &a, NULL), 1);
    rp_buf_reset(&b);
    assert_int_equal(rp_login_step(server, a.data, a.size, &b, NULL), 1);

    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    char type[256], charset[32] = "";
    struct rp_error err = {0};
    assert_int_equal(rp_seal(client, "<Envelope/>", 11, type, &body, NULL), 0);
    assert_string_equal(type, TYPE);
    static const char head[] = B "\r\n" META("\t") ORIGINAL("\t", "11") B "\r\n" OCTETS("\t") "\x10\0\0\0\1\0\0\0";
    assert_int_equal(body.size, sizeof head - 1 + 12 + 11 + strlen(B "--\r\n"));
    assert_memory_equal(body.data, head, sizeof head - 1);
    assert_int_equal(rp_unseal(server, type, body.data, body.size, &plain, charset, NULL), 0);
    assert_string_equal(rp_buf_text(&plain), "<Envelope/>");
    assert_string_equal(charset, "UTF-8");
    assert_int_equal(rp_unseal(server, type, body.data, body.size, &plain, charset, &err), -1);
    assert_int_equal(err.code, RP_ERR_AUTH);
    assert_int_equal(plain.size, 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_of_winrm_omi_and_older_windows_are_read),
        cmocka_unit_test(what_is_not_of_the_form_is_refused),
        cmocka_unit_test(a_sealed_body_is_known_by_its_type),
        cmocka_unit_test(what_is_sealed_is_opened_by_the_other_side_only),
    };
    return cmocka_run_group_tests_name("seal", tests, start, stop);
}
