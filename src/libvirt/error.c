// libvirt's errors as ours.
#include "libvirt/libvirt_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// That there is no such file must not read as that there is no such domain.
static enum rp_code code_of_system(int sys)
{
    enum rp_code code = sys > 0 ? rp_code_from_errno(sys) : RP_ERR_IO;
    return code == RP_ERR_NOT_FOUND ? RP_ERR_IO : code;
}

static enum rp_code code_of(const virError *error)
{
    switch (error->code) {
    case VIR_ERR_NO_DOMAIN:
        return RP_ERR_NOT_FOUND;
    case VIR_ERR_OPERATION_INVALID:
        return RP_ERR_STATE;
    case VIR_ERR_DOM_EXIST:
        return RP_ERR_EXISTS;
    case VIR_ERR_OPERATION_TIMEOUT: // another job of libvirt's has the domain
    case VIR_ERR_RESOURCE_BUSY:
        return RP_ERR_BUSY;
    case VIR_ERR_OPERATION_ABORTED:
        return RP_ERR_CANCELLED;
    case VIR_ERR_AGENT_UNRESPONSIVE:
    case VIR_ERR_AGENT_UNSYNCED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_CONFIG_UNSUPPORTED:
    case VIR_ERR_OPERATION_UNSUPPORTED:
    case VIR_ERR_NO_SUPPORT:
        return RP_ERR_UNSUPPORTED;
    case VIR_ERR_INVALID_ARG:
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
    case VIR_ERR_XML_INVALID_SCHEMA:
        return RP_ERR_INVALID;
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_AUTH_UNAVAILABLE:
    case VIR_ERR_OPERATION_DENIED:
    case VIR_ERR_ACCESS_DENIED:
        return RP_ERR_PERMISSION;
    case VIR_ERR_NO_MEMORY:
        return RP_ERR_NO_MEMORY;
    case VIR_ERR_SYSTEM_ERROR:
        return code_of_system(error->int1);
    default:
        return RP_ERR_IO;
    }
}

// QEMU's own words come with line ends in them.
static void one_line(char *text)
{
    char *end = text;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p > ' ' && *p != 127)
            *end++ = *p;
        else if (end > text && end[-1] != ' ')
            *end++ = ' ';
    while (end > text && end[-1] == ' ')
        end--;
    *end = 0;
}

int rp_libvirt_fail(struct rp_error *err, const char *format, ...)
{
    char what[256], why[RP_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const virError *error = virGetLastError();
    snprintf(why, sizeof why, "%s", error && error->message ? error->message : "libvirt does not say why");
    one_line(what);
    one_line(why);
    return rp_fail(err, error ? code_of(error) : RP_ERR_IO, "%s: %s", what, why);
}

static void say_nothing(void *context, virErrorPtr error)
{
    (void)context;
    (void)error;
}

void rp_libvirt_be_quiet(void)
{
    virSetErrorFunc(NULL, say_nothing);
    // libvirt's log goes to stderr as well, where a client says nothing else; processes that the embedded driver forks keep only
    // the level. An administrator's choice stays.
    setenv("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null", 0);
    setenv("LIBVIRT_DEBUG", "4", 0);
}
