#include "base/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t rp_clock_wall_ns(void) { return read_clock(CLOCK_REALTIME); }
uint64_t rp_clock_monotonic_ns(void) { return (uint64_t)read_clock(CLOCK_MONOTONIC); }

const char *rp_time_format(int64_t wall_ns, char out[RP_TIME_TEXT])
{
    time_t seconds = (time_t)(wall_ns / 1000000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t n = strftime(out, RP_TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, RP_TIME_TEXT - n, ".%03dZ", (int)(wall_ns / 1000000 % 1000));
    return out;
}

int rp_time_parse(const char *text, int64_t *wall_ns, struct rp_error *err)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm tm = {0};
        const char *rest = strptime(text, forms[i], &tm);
        if (!rest)
            continue;
        int64_t fraction = 0;
        if (*rest == '.') {
            int64_t scale = 100000000;
            for (rest++; *rest >= '0' && *rest <= '9'; rest++, scale /= 10)
                fraction += (*rest - '0') * scale;
        }
        if (*rest == 'Z')
            rest++;
        struct tm normal = tm; // 31 November is no 1 December
        int64_t seconds = (int64_t)timegm(&normal);
        bool fits = tm.tm_year + 1900 > 1677 && tm.tm_year + 1900 < 2262; // years whose nanoseconds do
        if (*rest || !fits || normal.tm_sec != tm.tm_sec || normal.tm_mday != tm.tm_mday)
            continue;
        *wall_ns = seconds * 1000000000 + fraction;
        return 0;
    }
    return rp_fail(err, RP_ERR_INVALID, "\"%.64s\" is not a date (YYYY-MM-DD[THH:MM[:SS]])", text);
}
