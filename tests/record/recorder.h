// What the parts of the recorder share: record.c (which files, faults, syncs), record-content.c, record-names.c.
#ifndef RP_TESTS_RECORDER_H
#define RP_TESTS_RECORDER_H

#include <stdbool.h>
#include <sys/stat.h>

#include "log.h"

#define EXPORT __attribute__((visibility("default")))
#pragma GCC visibility push(hidden) // nothing else gets in the way of the programs' own names

extern struct log the_log;
extern bool on;

// Whether the file is recorded; fills `st`. Remembers the answer by descriptor and inode.
bool tracked(int fd, struct stat *st);
// Before step(): a fault may wait for this.
void renames(const char *to);
// Counts a changing call; returns the fault that is due at this one. FAULT_KILL_BEFORE does not return.
enum log_fault step(void);
// A call failed, or was cut short.
void came(void);
// For calls that cannot be cut short. True: fail, errno is set.
bool fails(enum log_fault fault);
// After the call.
void survive(enum log_fault fault);
// The change of content that `begun` told of is over; `length`: so much of it was done.
void ended(int fd, uint64_t begun, uint64_t inode, uint64_t length);

#pragma GCC visibility pop
#endif
