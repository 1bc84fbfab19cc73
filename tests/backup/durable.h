// Which names a power cut would leave: the program is linked with --wrap=fsync.
#ifndef TESTS_BACKUP_DURABLE_H
#define TESTS_BACKUP_DURABLE_H

#include <stdbool.h>

void durable_forget(void);
// Was its folder synced with it in it?
bool durable_name(const char *path);

#endif
