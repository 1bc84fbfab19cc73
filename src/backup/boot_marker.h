// By what a VM that was started is known to have booted: its guest's agent, or a text that it says on its serial port.
#ifndef RP_BACKUP_BOOT_MARKER_H
#define RP_BACKUP_BOOT_MARKER_H

#include "hyperv/host_connection.h"

#define RP_BOOT_TEXT_MAX 200u                       // bytes of the text that is waited for
#define RP_BOOT_CONSOLE_MAX (UINT64_C(64) * 1048576) // bytes that a guest may say without it

struct rp_boot_wait {
    struct rp_host_connection *host;
    const char *vm_id;
    const char *serial;             // NULL: the agent
    unsigned limit_s;
    int (*stop)(void *context);     // NULL is fine
    void *context;
};
struct rp_boot_outcome {
    bool booted;
    double seconds;                 // from the start on
    char why[RP_ERROR_TEXT];        // why not
};
// Whether that text can be waited for on that host, to know it before anything is made. RP_ERR_USAGE: it is not 1 to
// RP_BOOT_TEXT_MAX bytes of UTF-8 without control characters; RP_ERR_UNSUPPORTED: serial ports cannot be read there.
int rp_boot_serial_check(const struct rp_host_connection *host, const char *text, struct rp_error *err);
// Starts the VM and waits. 0: it was found out. `serial` is one that was checked.
int rp_boot_wait(const struct rp_boot_wait *wait, struct rp_boot_outcome *outcome, struct rp_error *err);

#endif
