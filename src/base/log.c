#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static _Atomic enum rp_log_level log_level = RP_LOG_WARNING;
static void (*_Atomic log_sink)(enum rp_log_level, const char *);

void rp_log_set_level(enum rp_log_level level) { log_level = level; }
void rp_log_set_sink(void (*sink)(enum rp_log_level, const char *)) { log_sink = sink; }

void rp_log(enum rp_log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    if (level > log_level)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    void (*sink)(enum rp_log_level, const char *) = log_sink;
    if (sink) { // which writes it as its place needs it
        sink(level, text);
        return;
    }
    for (char *p = text; *p; p++) // a name with an end of a line in it must not begin another message
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    fprintf(stderr, "refpoint: %s: %s\n", names[level], text);
}
