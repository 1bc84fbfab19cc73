// A VM of a host that the hypervisor of files runs (fake-hypervisor.c has the files).
#ifndef RP_TESTS_DOMAIN_KIT_H
#define RP_TESTS_DOMAIN_KIT_H

#include <sys/types.h>

#include "host-kit.h"

struct dk {
    const char *host;          // folder of the host
    char *folder;              // of the hypervisor
    char vm[RP_HOST_ID];
    char uuid[RP_GUID_TEXT];   // of the domain, lower case
    char *directory;           // of the VM
};
// Gives the VM, which is off, to a hypervisor of its own; its disks become vda, vdb, …
void dk_adopt(struct dk *dk, const char *host, const char *vm_id);
void dk_clear(struct dk *dk);
void dk_sql(const struct dk *dk, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The domain's file `suffix` ("state", "running"); dk_event adds a line for it to the events.
void dk_put(const struct dk *dk, const char *suffix, const char *text);
void dk_event(const struct dk *dk, const char *event);
void dk_fail(const struct dk *dk, const char *call, const char *what); // "pause", "pause.always"; NULL: no longer
void dk_slow(const struct dk *dk, const char *call, const char *ms);   // what it takes from now on; NULL: nothing any more
void dk_then(const struct dk *dk, const char *call, const char *state); // what somebody else makes of the domain right after it
bool dk_is(const struct dk *dk, const char *state);
unsigned dk_count(const struct dk *dk, const char *text);              // lines of the log that hold it
bool dk_serves(const struct dk *dk);                                   // its disk service answers
void dk_kill(const struct dk *dk);                                     // SIGKILL, and gone
// Waits at most 20 s until it holds; false: it does not.
#define dk_until(condition) \
    ({ bool dk_true = false; \
       for (unsigned dk_i = 0; !(dk_true = (condition)) && dk_i < 2000; dk_i++) usleep(10000); \
       dk_true; })

#endif
