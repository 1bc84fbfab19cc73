// Folders as a whole.
#ifndef RP_BACKUP_FOLDER_H
#define RP_BACKUP_FOLDER_H

#include "base/error.h"

// Removes the folder with all that is in it, following no link, at most 16 folders deep. What is gone already is fine.
int rp_folder_remove(const char *path, struct rp_error *err);

#endif
