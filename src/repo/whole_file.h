// Files of a directory that are written or read as a whole. What is large, and lies in memory as rp_pages_new gives it,
// goes around the page cache: it is not read again soon, and the memory belongs to the VMs.
#ifndef RP_REPO_WHOLE_FILE_H
#define RP_REPO_WHOLE_FILE_H

#include <stddef.h>
#include <stdint.h>

// Creates the file, writes and syncs it. 0, or an errno; then nothing is left.
int rp_whole_file_write(int directory, const char *name, const void *data, size_t size);
// Exactly `size` bytes from `offset`. 0, an errno, or -1: the file ends before (`*got` bytes were there).
int rp_whole_file_read(int directory, const char *name, uint64_t offset, void *data, size_t size, size_t *got);

#endif
