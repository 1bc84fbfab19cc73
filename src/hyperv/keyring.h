// Passwords of hosts: $REFPOINT_KEYRING or `keyring` beside the hosts file, mode 0600. One line for each host: its
// name, a colon, the password to the line's end. Refused when others may read it.
#ifndef RP_HYPERV_KEYRING_H
#define RP_HYPERV_KEYRING_H

#include "base/error.h"

#define RP_KEYRING_MAX_PASSWORD 1024

char *rp_keyring_path(void); // malloc'ed
// The password of a host, malloc'ed, to be wiped; NULL with no error (`err` left alone): it has none.
char *rp_keyring_get(const char *path, const char *host, struct rp_error *err);
// Sets one, or, `password` NULL, removes it. RP_ERR_INVALID: empty, too long, or with a line end.
int rp_keyring_set(const char *path, const char *host, const char *password, struct rp_error *err);
void rp_keyring_wipe(char **password); // overwrites and frees; usable with RP_CLEANUP

#endif
