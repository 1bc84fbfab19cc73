#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// One row per code: everything the outside world calls it.
static const struct {
    const char *name;
    uint32_t win32;
    int exit_status;
} codes[RP_CODE_COUNT] = {
    [RP_OK] = {"ok", 0, 0},
    [RP_ERR_IO] = {"io", 1117, 2},                  // ERROR_IO_DEVICE
    [RP_ERR_NO_MEMORY] = {"no-memory", 8, 2},       // ERROR_NOT_ENOUGH_MEMORY
    [RP_ERR_NO_SPACE] = {"no-space", 112, 2},       // ERROR_DISK_FULL
    [RP_ERR_NOT_FOUND] = {"not-found", 2, 2},       // ERROR_FILE_NOT_FOUND
    [RP_ERR_EXISTS] = {"exists", 80, 2},            // ERROR_FILE_EXISTS
    [RP_ERR_PERMISSION] = {"permission", 5, 2},     // ERROR_ACCESS_DENIED
    [RP_ERR_INVALID] = {"invalid", 87, 2},          // ERROR_INVALID_PARAMETER
    [RP_ERR_CORRUPT] = {"corrupt", 1392, 2},        // ERROR_FILE_CORRUPT
    [RP_ERR_UNSUPPORTED] = {"unsupported", 50, 2},  // ERROR_NOT_SUPPORTED
    [RP_ERR_BUSY] = {"busy", 32, 2},                // ERROR_SHARING_VIOLATION
    [RP_ERR_STATE] = {"state", 0xC03A001Cu, 2},     // ERROR_VHD_INVALID_STATE
    [RP_ERR_PARENT_NOT_FOUND] = {"parent-not-found", 0xC03A000Du, 2},
    [RP_ERR_PARENT_MISMATCH] = {"parent-mismatch", 0xC03A000Eu, 2},
    [RP_ERR_TRACKING_ID] = {"tracking-id", 0xC03A0030u, 2},
    [RP_ERR_TRACKING_SYNTAX] = {"tracking-syntax", 0xC03A0029u, 2},
    [RP_ERR_TRACKING_OFF] = {"tracking-off", 0xC03A002Au, 2},
    [RP_ERR_AUTH] = {"auth", 1326, 2},              // ERROR_LOGON_FAILURE
    [RP_ERR_CANCELLED] = {"cancelled", 1223, 2},    // ERROR_CANCELLED
    [RP_ERR_USAGE] = {"usage", 87, 3},
};

static void set_text(struct rp_error *err, const char *format, va_list args, int sys)
{
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    if (sys && n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(sys));
}

int rp_fail(struct rp_error *err, enum rp_code code, const char *format, ...)
{
    if (!err || err->code != RP_OK)
        return -1;
    err->code = code;
    err->sys = 0;
    err->sync = false;
    va_list args;
    va_start(args, format);
    set_text(err, format, args, 0);
    va_end(args);
    return -1;
}

int rp_fail_sys(struct rp_error *err, int sys, const char *format, ...)
{
    if (!err || err->code != RP_OK)
        return -1;
    err->code = rp_code_from_errno(sys);
    err->sys = sys;
    err->sync = false;
    va_list args;
    va_start(args, format);
    set_text(err, format, args, sys);
    va_end(args);
    return -1;
}

int rp_fail_as(struct rp_error *err, const struct rp_error *why)
{
    if (err && err->code == RP_OK)
        *err = *why;
    return -1;
}

int rp_context(struct rp_error *err, const char *format, ...)
{
    if (!err)
        return -1;
    char cause[RP_ERROR_TEXT];
    memcpy(cause, err->text, sizeof cause);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", cause);
    return -1;
}

void rp_error_clear(struct rp_error *err)
{
    if (err)
        *err = (struct rp_error){0};
}

enum rp_code rp_code_from_errno(int sys)
{
    switch (sys) {
    case 0: return RP_OK;
    case ENOENT: case ENOTDIR: return RP_ERR_NOT_FOUND;
    case EEXIST: return RP_ERR_EXISTS;
    case EACCES: case EPERM: case EROFS: return RP_ERR_PERMISSION;
    case ENOSPC: case EDQUOT: case EFBIG: return RP_ERR_NO_SPACE;
    case ENOMEM: return RP_ERR_NO_MEMORY;
    case EINVAL: case EISDIR: case ENAMETOOLONG: return RP_ERR_INVALID;
    case EBUSY: case EAGAIN: case ETXTBSY: return RP_ERR_BUSY;
    case EOPNOTSUPP: case ENOSYS: return RP_ERR_UNSUPPORTED;
    case ECANCELED: case EINTR: return RP_ERR_CANCELLED;
    default: return RP_ERR_IO;
    }
}

const char *rp_code_name(enum rp_code code)
{
    return (unsigned)code < RP_CODE_COUNT ? codes[code].name : "io";
}

enum rp_code rp_code_from_name(const char *name)
{
    for (int i = 0; i < RP_CODE_COUNT; i++)
        if (!strcmp(codes[i].name, name))
            return (enum rp_code)i;
    return RP_ERR_IO;
}

uint32_t rp_code_win32(enum rp_code code)
{
    return (unsigned)code < RP_CODE_COUNT ? codes[code].win32 : codes[RP_ERR_IO].win32;
}

int rp_code_exit(enum rp_code code)
{
    return (unsigned)code < RP_CODE_COUNT ? codes[code].exit_status : 2;
}
