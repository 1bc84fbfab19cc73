#include "hostd/lab_script.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MOST_CALLS 1000000u
#define MOST_SECONDS 86400

// The rest of a line. Words are separated by blanks; ':' and '%' are words of their own wherever they stand.
struct reader {
    const char *at;
    char word[RP_LAB_NAME]; // the last one that next() gave; "" at the end
};

static const char *skip_blanks(const char *p)
{
    while (isspace((unsigned char)*p))
        p++;
    return p;
}

static bool next(struct reader *r)
{
    const char *p = skip_blanks(r->at);
    size_t length = *p == ':' || *p == '%' ? 1 : strcspn(p, " \t\r\n:%");
    snprintf(r->word, sizeof r->word, "%.*s", (int)(length < sizeof r->word ? length : sizeof r->word - 1), p);
    r->at = p + length;
    return length;
}

// The next word, if it is this one; otherwise it stays.
static bool take(struct reader *r, const char *word)
{
    const char *before = r->at;
    if (next(r) && !strcasecmp(r->word, word))
        return true;
    r->at = before;
    return false;
}

static int expect(struct reader *r, const char *word, struct rp_error *err)
{
    if (take(r, word))
        return 0;
    next(r);
    if (!*r->word)
        return rp_fail(err, RP_ERR_INVALID, "the line ends where \"%s\" should follow", word);
    return rp_fail(err, RP_ERR_INVALID, "\"%s\" stands where \"%s\" should", r->word, word);
}

static int at_end(struct reader *r, struct rp_error *err)
{
    return next(r) ? rp_fail(err, RP_ERR_INVALID, "\"%s\" after the end of what the line says", r->word) : 0;
}

static bool number(const char *word, unsigned most, unsigned *value, const char **rest)
{
    char *end;
    if (!isdigit((unsigned char)*word))
        return false;
    unsigned long n = strtoul(word, &end, 10);
    *value = (unsigned)n;
    *rest = end;
    return n <= most;
}

static int read_number(struct reader *r, const char *what, unsigned least, unsigned most, unsigned *value,
                       struct rp_error *err)
{
    const char *rest;
    next(r);
    if (number(r->word, most, value, &rest) && !*rest && *value >= least)
        return 0;
    return rp_fail(err, RP_ERR_INVALID, "\"%s\" is no %s from %u to %u", r->word, what, least, most);
}

// "10 s", "0.5 s", "10s"
static int read_seconds(struct reader *r, double *seconds, struct rp_error *err)
{
    char *end = r->word;
    next(r);
    *seconds = isdigit((unsigned char)*r->word) ? strtod(r->word, &end) : -1;
    if (!(*seconds > 0 && *seconds <= MOST_SECONDS) || (*end && strcmp(end, "s")))
        return rp_fail(err, RP_ERR_INVALID, "\"%s\" is no time in seconds up to a day", r->word);
    return *end ? 0 : expect(r, "s", err);
}

static int read_percent(struct reader *r, unsigned *percent, struct rp_error *err)
{
    return expect(r, "at", err) || read_number(r, "percentage", 0, 100, percent, err) || expect(r, "%", err) ? -1 : 0;
}

// ": TEXT" to the end of the line, else `otherwise` (NULL: there must be one).
static int read_text(struct reader *r, const char *otherwise, char text[RP_LAB_TEXT], struct rp_error *err)
{
    if (otherwise && !*skip_blanks(r->at)) {
        snprintf(text, RP_LAB_TEXT, "%s", otherwise);
        return 0;
    }
    if (expect(r, ":", err))
        return -1;
    const char *start = skip_blanks(r->at);
    size_t length = strlen(start);
    while (length && isspace((unsigned char)start[length - 1]))
        length--;
    r->at = start + strlen(start);
    if (!length || length >= RP_LAB_TEXT)
        return rp_fail(err, RP_ERR_INVALID, length ? "the text is longer than %d bytes" : "the text is missing",
                       RP_LAB_TEXT - 1);
    memcpy(text, start, length);
    text[length] = '\0';
    return 0;
}

// A name with blanks or colons stands in double quotes.
static int read_vm(struct reader *r, char vm[RP_LAB_NAME], struct rp_error *err)
{
    const char *p = skip_blanks(r->at);
    if (*p != '"') {
        if (!next(r) || strlen(r->word) == RP_LAB_NAME - 1)
            return rp_fail(err, RP_ERR_INVALID, "the name of a VM should follow \"of\"");
        memcpy(vm, r->word, RP_LAB_NAME);
        return 0;
    }
    const char *end = strchr(p + 1, '"');
    if (!end || end == p + 1 || end - p - 1 >= RP_LAB_NAME)
        return rp_fail(err, RP_ERR_INVALID, "the name of the VM has no end, or is none");
    snprintf(vm, RP_LAB_NAME, "%.*s", (int)(end - p - 1), p + 1);
    r->at = end + 1;
    return 0;
}

static int read_of(struct reader *r, char vm[RP_LAB_NAME], struct rp_error *err)
{
    return take(r, "of") ? read_vm(r, vm, err) : 0;
}

static int read_which(struct reader *r, enum rp_lab_which *which, struct rp_error *err)
{
    static const char *const words[] = {"newest", "oldest", "every"};
    for (unsigned i = 0; i < 3; i++) {
        if (!take(r, words[i]))
            continue;
        *which = (enum rp_lab_which)i;
        return expect(r, "point", err);
    }
    next(r);
    return rp_fail(err, RP_ERR_INVALID, "\"%s\" stands where \"newest\", \"oldest\" or \"every\" should", r->word);
}

// "next", "next 3", "every", "2nd"
static int read_when(struct reader *r, struct rp_lab_fault *fault, struct rp_error *err)
{
    const char *rest;
    unsigned n;
    fault->times = 1;
    if (take(r, "every")) {
        fault->times = 0;
        return 0;
    }
    if (take(r, "next")) {
        struct reader ahead = *r;
        if (next(&ahead) && isdigit((unsigned char)*ahead.word))
            return read_number(r, "number of calls", 1, MOST_CALLS, &fault->times, err);
        return 0;
    }
    next(r);
    if (number(r->word, MOST_CALLS, &n, &rest) && n && strlen(rest) == 2 && strcasestr("st nd rd th", rest)) {
        fault->skip = n - 1;
        return 0;
    }
    return rp_fail(err, RP_ERR_INVALID, "\"%s\" stands where \"next\", \"every\", \"2nd\" or \"now\" should", r->word);
}

static int read_job_action(struct reader *r, struct rp_lab_fault *fault, struct rp_error *err)
{
    fault->action = RP_LAB_FAILS;
    if (take(r, "fails"))
        return read_percent(r, &fault->percent, err) || read_text(r, NULL, fault->text, err) ? -1 : 0;
    fault->action = RP_LAB_HANGS;
    if (expect(r, "hangs", err) || read_percent(r, &fault->percent, err))
        return -1;
    return take(r, "for") ? read_seconds(r, &fault->seconds, err) : 0;
}

static int read_action(struct reader *r, struct rp_lab_fault *fault, struct rp_error *err)
{
    if (take(r, "job"))
        return read_job_action(r, fault, err);
    next(r);
    static const struct { const char *word; enum rp_lab_action action; } words[] = {
        {"returns", RP_LAB_RETURNS}, {"drops", RP_LAB_DROPS}, {"waits", RP_LAB_WAITS},
        {"disk", RP_LAB_FULL}, {"freeze", RP_LAB_FREEZE}, {"loses", RP_LAB_LOSES}};
    size_t i = 0, count = sizeof words / sizeof *words;
    while (i < count && strcasecmp(r->word, words[i].word))
        i++;
    if (i == count)
        return rp_fail(err, RP_ERR_INVALID, "\"%s\" is nothing that can happen: returns, drops, waits, "
                                            "job hangs, job fails, disk full, freeze refused, loses", r->word);
    fault->action = words[i].action;
    switch (fault->action) {
    case RP_LAB_RETURNS:
        return read_number(r, "return value", 0, 0xffffffffu, &fault->code, err);
    case RP_LAB_WAITS:
        return read_seconds(r, &fault->seconds, err);
    case RP_LAB_FULL:
        snprintf(fault->text, sizeof fault->text, "There is not enough space on the disk. (0x80070070)");
        return expect(r, "full", err) || read_percent(r, &fault->percent, err) ? -1 : 0;
    case RP_LAB_FREEZE:
        return expect(r, "refused", err) ||
               read_text(r, "the guest's VSS writers refused to freeze (0x800423F4)", fault->text, err) ? -1 : 0;
    case RP_LAB_LOSES:
        return read_which(r, &fault->which, err);
    default:
        return 0;
    }
}

static int read_fault(struct reader *r, const char *(*method)(const char *name), struct rp_lab_fault *fault,
                      struct rp_error *err)
{
    if (read_when(r, fault, err))
        return -1;
    if (take(r, "answer"))
        return expect(r, ":", err) || expect(r, "drops", err) ? -1 : (fault->action = RP_LAB_DROPS, 0);
    next(r);
    const char *name = method(r->word);
    if (!name)
        return rp_fail(err, RP_ERR_INVALID, "\"%s\" is no method that this host has", r->word);
    snprintf(fault->method, sizeof fault->method, "%s", name);
    return read_of(r, fault->vm, err) || expect(r, ":", err) || read_action(r, fault, err) ? -1 : 0;
}

static int read_deed(struct reader *r, struct rp_lab_line *line, struct rp_error *err)
{
    static const struct { const char *words[2]; enum rp_lab_deed deed; } deeds[] = {
        {{"stop", "writing"}, RP_LAB_STOP}, {{"start", "writing"}, RP_LAB_GO}, {{"release", "jobs"}, RP_LAB_RELEASE},
        {{"forget", "faults"}, RP_LAB_FORGET}, {{"list", "faults"}, RP_LAB_LIST}};
    if (expect(r, ":", err))
        return -1;
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        if (!take(r, deeds[i].words[0]))
            continue;
        line->deed = deeds[i].deed;
        return expect(r, deeds[i].words[1], err);
    }
    if (take(r, "lose")) {
        line->deed = RP_LAB_LOSE;
        return read_which(r, &line->fault.which, err) || read_of(r, line->fault.vm, err) ? -1 : 0;
    }
    if (!take(r, "write")) {
        next(r);
        return rp_fail(err, RP_ERR_INVALID, "\"%s\" is nothing that can be done now: write, stop writing, start "
                                            "writing, lose, release jobs, forget faults, list faults", r->word);
    }
    line->deed = RP_LAB_WRITE;
    return read_number(r, "number of blocks", 1, MOST_CALLS, &line->count, err) ||
           read_of(r, line->fault.vm, err) ? -1 : 0;
}

int rp_lab_parse(const char *text, const char *(*method)(const char *name), struct rp_lab_line *line,
                 struct rp_error *err)
{
    struct reader r = {.at = skip_blanks(text)};
    *line = (struct rp_lab_line){.deed = RP_LAB_NOTHING};
    if (!*r.at || *r.at == '#')
        return 0;
    if (take(&r, "now"))
        return read_deed(&r, line, err) || at_end(&r, err) ? -1 : 0;
    line->deed = RP_LAB_FAULT;
    return read_fault(&r, method, &line->fault, err) || at_end(&r, err) ? -1 : 0;
}
