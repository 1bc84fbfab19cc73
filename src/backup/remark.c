#include "backup/remark.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"

void rp_remark(void (*remark)(void *context, const char *text), void *context, const char *format, ...)
{
    char text[RP_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (remark)
        remark(context, text);
    else
        rp_log(RP_LOG_WARNING, "%s", text);
}
