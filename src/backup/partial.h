// Files that are being written, under a name that says who writes them: "<path>.partial.<pid>".
#ifndef RP_BACKUP_PARTIAL_H
#define RP_BACKUP_PARTIAL_H

char *rp_partial_name(const char *path); // ours; malloc'ed
// Removes those of `path` whose writer is dead: its process is gone, and nobody holds a lock on the file (a writer on
// another machine does). What cannot be removed stays, and harms nobody.
void rp_partial_remove_stale(const char *path);

#endif
