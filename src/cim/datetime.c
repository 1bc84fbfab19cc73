// Times in the two forms that management knows: CIM's 25 characters (DSP0004 5.2.4) and those of XML Schema, which
// WS-Management carries (DSP0230 7.2).
#include <stdio.h>
#include <string.h>

#include "cim/value.h"

#define SECOND 1000000LL
#define MINUTE (60 * SECOND)
#define DAY (86400 * SECOND)
#define FIRST_DAY (-719528LL) // 0000-01-01
#define END_DAY 2932897LL     // the day after 9999-12-31
#define MAX_OFFSET 999        // what three digits hold
#define MAX_INTERVAL_DAYS 99999999LL

// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, and back: years begin in March, so that the day
// that comes and goes is their last.
static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100), m = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

struct parts {
    int64_t days; // of an interval
    int year, month, day, hour, minute, second, micro, offset;
};

// Takes a time apart; what the 25 characters cannot say becomes the nearest that they can.
static struct parts parts_of(const struct rp_cim_datetime *t)
{
    struct parts p = {0};
    p.offset = t->offset > MAX_OFFSET ? MAX_OFFSET : t->offset < -MAX_OFFSET ? -MAX_OFFSET : t->offset;
    int64_t first = t->interval ? 0 : FIRST_DAY * DAY, us;
    int64_t last = (t->interval ? MAX_INTERVAL_DAYS + 1 : END_DAY) * DAY - 1;
    if (__builtin_add_overflow(t->microseconds, t->interval ? 0 : p.offset * MINUTE, &us))
        us = t->microseconds;
    us = us < first ? first : us > last ? last : us;
    int64_t days = us / DAY - (us % DAY < 0), rest = us - days * DAY;
    if (t->interval)
        p.days = days;
    else
        date_of(days, &p.year, &p.month, &p.day);
    p.hour = (int)(rest / (60 * MINUTE));
    p.minute = (int)(rest / MINUTE % 60);
    p.second = (int)(rest / SECOND % 60);
    p.micro = (int)(rest % SECOND);
    return p;
}

const char *rp_cim_datetime_format(const struct rp_cim_datetime *t, char out[RP_CIM_DATETIME_TEXT])
{
    struct parts p = parts_of(t);
    if (t->interval)
        snprintf(out, RP_CIM_DATETIME_TEXT, "%08u%02u%02u%02u.%06u:000", (unsigned)p.days % 100000000u,
                 (unsigned)p.hour % 100u, (unsigned)p.minute % 100u, (unsigned)p.second % 100u,
                 (unsigned)p.micro % 1000000u);
    else
        snprintf(out, RP_CIM_DATETIME_TEXT, "%04u%02u%02u%02u%02u%02u.%06u%+04d", (unsigned)p.year % 10000u,
                 (unsigned)p.month % 100u, (unsigned)p.day % 100u, (unsigned)p.hour % 100u, (unsigned)p.minute % 100u,
                 (unsigned)p.second % 100u, (unsigned)p.micro % 1000000u, p.offset);
    return out;
}

const char *rp_cim_datetime_format_xml(const struct rp_cim_datetime *t, char out[RP_CIM_DATETIME_TEXT])
{
    struct parts p = parts_of(t);
    char fraction[16] = "", zone[12] = "Z";
    int width = 6;
    unsigned micro = (unsigned)p.micro % 1000000u;
    for (; micro && micro % 10 == 0; micro /= 10)
        width--;
    if (micro)
        snprintf(fraction, sizeof fraction, ".%0*u", width, micro);
    unsigned east = (unsigned)(p.offset < 0 ? -p.offset : p.offset) % 1000u;
    if (east)
        snprintf(zone, sizeof zone, "%c%02u:%02u", p.offset < 0 ? '-' : '+', east / 60, east % 60);
    if (t->interval)
        snprintf(out, RP_CIM_DATETIME_TEXT, "P%uDT%uH%uM%u%sS", (unsigned)p.days % 100000000u, (unsigned)p.hour % 100u,
                 (unsigned)p.minute % 100u, (unsigned)p.second % 100u, fraction);
    else
        snprintf(out, RP_CIM_DATETIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u%s%s", (unsigned)p.year % 10000u,
                 (unsigned)p.month % 100u, (unsigned)p.day % 100u, (unsigned)p.hour % 100u, (unsigned)p.minute % 100u,
                 (unsigned)p.second % 100u, fraction, zone);
    return out;
}

// Exactly `width` digits into `out`; '*' counts as 0 when `stars`.
static bool digits(const char **p, int width, bool stars, int64_t *out)
{
    *out = 0;
    for (; width; width--, (*p)++) {
        if ((**p < '0' || **p > '9') && !(stars && **p == '*'))
            return false;
        *out = *out * 10 + (**p == '*' ? 0 : **p - '0');
    }
    return true;
}

static bool literal(const char **p, char c)
{
    return **p == c && (*p)++;
}

// ".5" and longer, as microseconds; what is finer is cut off.
static bool fraction(const char **p, int64_t *micro)
{
    int64_t scale = SECOND / 10;
    *micro = 0;
    if (!literal(p, '.'))
        return true;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
        *micro += scale * (**p - '0');
    return *p != start;
}

static bool moment(int64_t year, int64_t month, int64_t day, int64_t seconds, int64_t micro, int64_t offset,
                   struct rp_cim_datetime *t)
{
    static const int8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (month < 1 || month > 12 || day < 1 || day > lengths[month - 1] + (month == 2 && leap) || seconds > 86400 ||
        offset < -MAX_OFFSET || offset > MAX_OFFSET)
        return false;
    int64_t local = days_of(year, (int)month, (int)day) * DAY + seconds * SECOND + micro;
    *t = (struct rp_cim_datetime){false, (int16_t)offset, local - offset * MINUTE};
    return true;
}

static bool clock_time(int64_t hour, int64_t minute, int64_t second)
{
    return hour < 24 && minute < 60 && second < 60;
}

static bool parse_cim(const char *p, struct rp_cim_datetime *t)
{
    bool interval = p[21] == ':';
    int64_t days = 0, year = 0, month = 0, day = 0, hour, minute, second, micro, offset;
    // a month or day that was left open is the first
    bool any_month = p[4] == '*', any_day = p[6] == '*';
    if (interval ? !digits(&p, 8, true, &days)
                 : !digits(&p, 4, true, &year) || !digits(&p, 2, true, &month) || !digits(&p, 2, true, &day))
        return false;
    if (!digits(&p, 2, true, &hour) || !digits(&p, 2, true, &minute) || !digits(&p, 2, true, &second) ||
        !literal(&p, '.') || !digits(&p, 6, true, &micro) || !clock_time(hour, minute, second))
        return false;
    bool west = *p++ == '-';
    if (!digits(&p, 3, true, &offset))
        return false;
    int64_t seconds = (hour * 60 + minute) * 60 + second;
    if (!interval)
        return moment(year, any_month ? 1 : month, any_day ? 1 : day, seconds, micro, west ? -offset : offset, t);
    *t = (struct rp_cim_datetime){true, 0, days * DAY + seconds * SECOND + micro};
    return offset == 0;
}

static bool parse_xml_moment(const char *p, struct rp_cim_datetime *t)
{
    int64_t year, month, day, hour, minute, second, micro, zone_hours = 0, zone_minutes = 0;
    if (!digits(&p, 4, false, &year) || !literal(&p, '-') || !digits(&p, 2, false, &month) || !literal(&p, '-') ||
        !digits(&p, 2, false, &day) || !literal(&p, 'T') || !digits(&p, 2, false, &hour) || !literal(&p, ':') ||
        !digits(&p, 2, false, &minute) || !literal(&p, ':') || !digits(&p, 2, false, &second) || !fraction(&p, &micro))
        return false;
    bool west = *p == '-', zoned = west || *p == '+';
    if (zoned) {
        p++;
        if (!digits(&p, 2, false, &zone_hours) || !literal(&p, ':') || !digits(&p, 2, false, &zone_minutes))
            return false;
    } else if (*p == 'Z') {
        p++;
    }
    bool midnight = hour == 24 && !minute && !second && !micro; // the end of the day (XML Schema 3.2.7)
    if (*p || zone_minutes > 59 || (!midnight && !clock_time(hour, minute, second)))
        return false;
    int64_t offset = zone_hours * 60 + zone_minutes;
    return moment(year, month, day, (hour * 60 + minute) * 60 + second, micro, west ? -offset : offset, t);
}

// P[nY][nM][nD][T[nH][nM][n[.n]S]], at least one part, in this order.
static bool parse_duration(const char *p, struct rp_cim_datetime *t)
{
    static const struct { char unit; bool time; int64_t worth; } units[] = {
        {'Y', false, 365 * DAY}, {'M', false, 30 * DAY}, {'D', false, DAY},
        {'H', true, 60 * MINUTE}, {'M', true, MINUTE}, {'S', true, SECOND},
    };
    int64_t total = 0;
    bool in_time = false, some = false;
    size_t next = 0;
    p++;
    while (*p) {
        if (!in_time && literal(&p, 'T')) {
            in_time = true;
            some = false;
        }
        int64_t number = 0, micro = 0, worth;
        const char *start = p;
        for (; *p >= '0' && *p <= '9'; p++)
            if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *p - '0', &number))
                return false;
        if (p == start || !fraction(&p, &micro))
            return false;
        while (next < 6 && (units[next].unit != *p || units[next].time != in_time))
            next++;
        if (next == 6 || (micro && *p != 'S') || __builtin_mul_overflow(number, units[next].worth, &worth) ||
            __builtin_add_overflow(worth, micro, &worth) || __builtin_add_overflow(total, worth, &total))
            return false;
        next++;
        p++;
        some = true;
    }
    *t = (struct rp_cim_datetime){true, 0, total};
    return some && total < (MAX_INTERVAL_DAYS + 1) * DAY;
}

int rp_cim_datetime_parse(const char *text, struct rp_cim_datetime *t, struct rp_error *err)
{
    bool good = false;
    if (*text == 'P')
        good = parse_duration(text, t);
    else if (strlen(text) == 25 && text[14] == '.' && strchr("+-:", text[21]))
        good = parse_cim(text, t);
    else
        good = parse_xml_moment(text, t);
    return good ? 0 : rp_fail(err, RP_ERR_INVALID, "\"%.40s\" is no datetime", text);
}
