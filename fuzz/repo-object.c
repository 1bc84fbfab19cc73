// A small sealed object, in an unencrypted and in an encrypted repository.
#include "repo/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t master[RP_KEY_BYTES];
    for (int encrypted = 0; encrypted < 2; encrypted++) {
        struct rp_crypto *crypto = rp_crypto_new(master, encrypted);
        struct rp_buf payload = {0};
        rp_object_open(crypto, "points/x", data, size, &payload, NULL);
        rp_buf_clear(&payload);
        rp_crypto_free(crypto);
    }
    return 0;
}
