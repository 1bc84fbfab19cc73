// Errors: one caller-owned structure, filled where the failure happens and explained on the way up.
//
// Convention in the whole project: a function that can fail takes `struct rp_error *err` as its last parameter and
// returns 0 / -1, or a pointer / NULL. `err` may be NULL when the caller does not care. Nothing here allocates.
#ifndef RP_BASE_ERROR_H
#define RP_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum rp_code {
    RP_OK = 0,
    RP_ERR_IO,                // the operating system or a device failed; err->sys has errno
    RP_ERR_NO_MEMORY,
    RP_ERR_NO_SPACE,          // disk or repository full
    RP_ERR_NOT_FOUND,         // no such file, VM, point, object
    RP_ERR_EXISTS,            // already there
    RP_ERR_PERMISSION,
    RP_ERR_INVALID,           // an argument makes no sense
    RP_ERR_CORRUPT,           // bytes from a file or message break their format
    RP_ERR_UNSUPPORTED,       // well formed, but something we do not do
    RP_ERR_BUSY,              // in use by somebody else (Win32: sharing violation)
    RP_ERR_STATE,             // not possible in this state (Hyper-V 32775)
    RP_ERR_PARENT_NOT_FOUND,  // differencing disk: no parent where the locator says
    RP_ERR_PARENT_MISMATCH,   // differencing disk: the parent is not the one it was made from
    RP_ERR_TRACKING_ID,       // change-tracking id is well formed but unknown or too old (Win32 0xC03A0030)
    RP_ERR_TRACKING_SYNTAX,   // change-tracking id is malformed (Win32 0xC03A0029)
    RP_ERR_TRACKING_OFF,      // change tracking is disabled (Win32 0xC03A002A)
    RP_ERR_AUTH,              // wrong passphrase, failed authentication of data
    RP_ERR_CANCELLED,         // the user or a signal asked to stop
    RP_ERR_USAGE,             // command line
    RP_CODE_COUNT,
};

#define RP_ERROR_TEXT 1024

struct rp_error {
    enum rp_code code;
    int sys;                  // errno of the first cause, or 0
    char text[RP_ERROR_TEXT]; // one line: "what, on which object: why"
    bool sync;                // a sync failed: the page cache says what the disk may not hold
};

// Sets the error unless one is set already (the first cause is kept). Always returns -1, so `return rp_fail(...)`.
int rp_fail(struct rp_error *err, enum rp_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

// As rp_fail, with the code derived from an errno value (ENOENT, ENOSPC, …) and ": strerror" appended.
int rp_fail_sys(struct rp_error *err, int sys, const char *format, ...) __attribute__((format(printf, 3, 4)));

// The failure that `why` is: code, cause and text, unless one is set already. Always returns -1.
int rp_fail_as(struct rp_error *err, const struct rp_error *why);

// Puts "text: " in front of an error that is set already. Always returns -1.
int rp_context(struct rp_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

void rp_error_clear(struct rp_error *err);

// The code that rp_fail_sys derives from an errno value.
enum rp_code rp_code_from_errno(int sys);

// Short stable name of a code ("not-found"), used in JSON; and back (unknown name: RP_ERR_IO).
const char *rp_code_name(enum rp_code code);
enum rp_code rp_code_from_name(const char *name);

// The Win32 error that Microsoft's virtual-disk API returns for this code (facts: virtdisk errors).
uint32_t rp_code_win32(enum rp_code code);

// The exit status of the command line: 2 failed, 3 usage; RP_OK gives 0.
int rp_code_exit(enum rp_code code);

#endif
