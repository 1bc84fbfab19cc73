// What `host test` looks at, and what an administrator can do about each thing that is not right.
#ifndef RP_CLI_HOST_CHECK_H
#define RP_CLI_HOST_CHECK_H

#include "hyperv/hosts_file.h"
#include "hyperv/wmi.h"

enum rp_host_finding { RP_HOST_GOOD, RP_HOST_REMARK, RP_HOST_BAD };
struct rp_host_check {
    const char *name;            // "login"
    enum rp_host_finding finding;
    char *text;                  // one line
    char *fix;                   // what to do, with the commands; NULL: nothing
};
struct rp_host_checks {
    struct rp_host_check items[16];
    size_t count;
};
void rp_host_checks_clear(struct rp_host_checks *checks); // usable with RP_CLEANUP

// From what the host said. `failure` NULL: everything could be asked; else the error that ended the questions.
void rp_host_check(const struct rp_hosts_entry *entry, const struct rp_wmi_facts *facts, const struct rp_error *failure,
                   struct rp_host_checks *checks);

#endif
