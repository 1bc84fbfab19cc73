// scrypt (RFC 7914) with r = 8 and p = 1, as the passphrase of a repository is stretched: libcrypto's result, in half
// its time where the processor has vectors. Whoever guesses passphrases has that speed anyway;
// every command of ours waits for it.
#ifndef RP_REPO_SCRYPT_H
#define RP_REPO_SCRYPT_H

#include <stddef.h>
#include <stdint.h>

// N = 2^log_n; needs N KiB of memory. 0, or -1 without memory.
int rp_scrypt(const char *passphrase, const void *salt, size_t salt_size, uint32_t log_n, uint8_t key[32]);

#endif
