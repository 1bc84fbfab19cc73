// What the programs that write over NBD share.
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <libnbd.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline _Noreturn void die(const char *what)
{
    const char *why = nbd_get_error();
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why ? why : "failed");
    exit(1);
}

static inline uint64_t next_random(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

#endif
