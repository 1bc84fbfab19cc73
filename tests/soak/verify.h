// Looks at a host and a repository after a power cut, through public interfaces, and compares with what the oracle knows.
#ifndef RP_TESTS_SOAK_VERIFY_H
#define RP_TESTS_SOAK_VERIFY_H

#include "oracle.h"

struct verify {
    const struct oracle *oracle;
    uint64_t at;          // the cut
    const char *root;     // where the folder stands, as recorded
    const char *scratch;  // a folder for restores and caches
    bool full;            // also the repository: check, every restore point, and the next incremental
    bool service;         // full: with the disk service running
    bool clean;           // nothing was lost: ids must answer exactly
    bool restarted;       // the machine was: nobody can be certain that who held a session then is dead, so that it stays for hours
    uint64_t seed;
    bool verbose;         // show what the libraries log
    void (*found)(void *context, uint32_t disk, uint64_t size, const uint32_t *values); // what good disks hold, or NULL
    void *context;
};

// Where the disk service of a VM keeps what a kill must not lose (docs/formats/chain-record.md). -1: there is no such VM.
int verify_memory_of(const char *vm_directory, char *path, size_t room);

// In a process of its own: it may be killed by its deadline. 0 good, 1 wrong: `wrong` says what.
int verify_run(const struct verify *verify, char *wrong, size_t size);

#endif
