// What tests of hosts share: folders, images, and clients of the disks that a host serves.
#ifndef RP_TESTS_HOST_KIT_H
#define RP_TESTS_HOST_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/num.h"
#include "disk/chain.h"
#include "hyperv/host_connection.h"

#define KIT_UNIT (64 * RP_KIB) // of change tracking

// Fails the test with the error's text.
#define kit_ok(call, err)                                                                                              \
    do {                                                                                                               \
        if (call)                                                                                                      \
            fail_msg("%s: %s", #call, (err).text);                                                                     \
    } while (0)
// The call must fail with this code and a text.
#define kit_fails(call, err, expected)                                                                                 \
    do {                                                                                                               \
        rp_error_clear(&(err));                                                                                        \
        if (!(call))                                                                                                   \
            fail_msg("%s: did not fail", #call);                                                                       \
        if ((err).code != (expected) || !(err).text[0])                                                                \
            fail_msg("%s: expected %s, got %s: %s", #call, rp_code_name(expected), rp_code_name((err).code), (err).text); \
        rp_error_clear(&(err));                                                                                        \
    } while (0)

char *kit_folder(void);              // a new one under TMPDIR; malloc'ed
void kit_remove_folder(char *folder); // with all in it; frees
char *kit_path(const char *format, ...) __attribute__((format(printf, 1, 2))); // malloc'ed

uint64_t kit_random(uint64_t *state); // from a seed that is not 0
uint64_t kit_seed(void);              // RP_TEST_SEED, or 1

void kit_fill(uint8_t *data, size_t size, uint64_t seed);
void kit_write_file(const char *path, const void *data, size_t size);
// A raw image of kit_fill(seed).
void kit_raw(const char *path, size_t size, uint64_t seed);
void kit_vhdx(const char *path, size_t size);

// A client of an NBD address; every write is flushed.
void kit_nbd_write(const char *uri, const void *data, size_t size, uint64_t offset);
void kit_nbd_zero(const char *uri, size_t size, uint64_t offset); // what the disk need not store
void kit_nbd_read(const char *uri, void *data, size_t size, uint64_t offset);
// Everything that the chain of a file holds, opened read-only.
void kit_chain_read(const char *path, void *data, size_t size);

#endif
