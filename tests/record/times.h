// Inode numbers and times of files that were built from a log, as their programs knew them: a file that is bound to another
// one by those is then still bound to it. A file that is changed after it was built shows its real times from then on.
//
// The table is a file; times-shim.c is the library to preload (TIMES_TABLE names the file), and part of programs that look
// at such folders themselves.
#ifndef RP_TESTS_RECORD_TIMES_H
#define RP_TESTS_RECORD_TIMES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct times_row {
    uint64_t inode;
    int64_t ctime_ns;          // what the file system says, as long as nobody changes the file
    uint64_t shown_inode;
    int64_t shown_mtime_ns, shown_ctime_ns;
};
#define TIMES_ROWS 4096
struct times {
    uint64_t device;
    size_t count;
    struct times_row rows[TIMES_ROWS];
};

struct times *times_open(const char *path); // maps it, making it when there is none
void times_close(struct times *times);
void times_add(struct times *times, const struct stat *now, uint64_t inode, int64_t mtime_ns, int64_t ctime_ns);
void times_apply(const struct times *times, struct stat *st);

// In programs with times-shim.c: what stat() and its kin show from now on; NULL: the truth.
void times_show(const struct times *times);

#endif
