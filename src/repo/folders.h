// Folders on this machine.
#ifndef RP_REPO_FOLDERS_H
#define RP_REPO_FOLDERS_H

#include "base/error.h"

// Makes the folder and those above it, where they are missing, durably; for nobody else's eyes.
int rp_folders_make(const char *path, struct rp_error *err);

#endif
