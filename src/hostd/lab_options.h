// The command line of the lab.
#ifndef RP_HOSTD_LAB_OPTIONS_H
#define RP_HOSTD_LAB_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { RP_LAB_ADMINISTRATORS = 16 };

struct rp_lab_options {
    const char *directory;         // NULL: a temporary one
    uint64_t vms, disks, size, written, running, rate, seed;
    uint64_t http, https;          // 0: a free port
    uint64_t job_seconds;          // 0: the default
    const char *script, *machine, *keytab;
    const char *administrators[RP_LAB_ADMINISTRATORS];
    size_t administrator_count;
    bool basic_in_clear, until_eof, verbose, help;
};
extern const char rp_lab_help[];
// Of main's arguments, "--lab" among them. Strings are borrowed. RP_ERR_USAGE.
int rp_lab_options_read(int argc, char **argv, struct rp_lab_options *lab, struct rp_error *err);

#endif
