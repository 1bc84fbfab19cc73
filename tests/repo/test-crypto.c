// The cryptography against libcrypto and published vectors.
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "place.h"
#include "repo/crypto.h"
#include "repo/scrypt.h"

// RFC 7914, section 12, the vector with r = 8 and p = 1; the first 32 of its 64 bytes.
static void scrypt_gives_what_the_standard_says(void **state)
{
    (void)state;
    uint8_t key[32];
    char hex[RP_HEX(32)];
    assert_int_equal(rp_scrypt("pleaseletmein", "SodiumChloride", 14, 14, key), 0);
    assert_string_equal(rp_hex(key, 32, hex), "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

static void scrypt_agrees_with_libcrypto(void **state)
{
    (void)state;
    uint32_t random = test_seed();
    for (uint32_t log_n = 10; log_n <= 16; log_n++) {
        uint8_t salt[32], ours[32], theirs[32];
        char passphrase[128] = {0};
        for (size_t i = 0; i < sizeof salt; i++)
            salt[i] = (uint8_t)next_random(&random);
        for (uint32_t i = 0, length = next_random(&random) % 127; i < length; i++)
            passphrase[i] = (char)(1 + next_random(&random) % 255);
        assert_int_equal(rp_scrypt(passphrase, salt, sizeof salt, log_n, ours), 0);
        assert_int_equal(EVP_PBE_scrypt(passphrase, strlen(passphrase), salt, sizeof salt, (uint64_t)1 << log_n, 8, 1,
                                        (uint64_t)2 << 30, theirs, sizeof theirs), 1);
        assert_memory_equal(ours, theirs, 32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scrypt_gives_what_the_standard_says),
        cmocka_unit_test(scrypt_agrees_with_libcrypto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
