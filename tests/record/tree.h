// A folder as a power cut at some point of a log could leave it.
//
// The model. Nothing is durable but by a sync: fsync and fdatasync of a file make durable what had ended, in that file, before
// the sync began; fsync of a folder the same of the names in it; fdatasync leaves a file's times in memory. What is not
// durable at the cut is decided change by change, by the seed:
//   content  each write, hole, size is there, not there, or (writes) there in any subset of its 512-byte sectors. Later ones
//            may be there and earlier ones not. New size and new bytes go separate ways; a file's times can be those after any
//            change since they last were durable.
//   names    ORDERED, as a journalling file system: all changes of names up to some moment are there and no later one; any
//            sync of anything carries all names before it along. LOOSE: each name in each folder for itself is as some change
//            since the folder's last sync left it; the two halves of a rename may part.
// Two more cuts are not random: SYNCED (nothing but what is durable) and ALL (every change: what a mere kill would leave).
// Calls that were under way at the cut count as changes that are not durable. Renames of folders are not known here.
//
// A folder is built anew for each cut, in the place where the recorded one was (paths in the files are absolute). Inode
// numbers and times cannot be chosen when files are made: times.h lets the programs see those of the log.
#ifndef RP_TESTS_RECORD_TREE_H
#define RP_TESTS_RECORD_TREE_H

#include "log.h"
#include "times.h"

enum cut_mode { CUT_SYNCED, CUT_ALL, CUT_ORDERED, CUT_LOOSE };
const char *cut_mode_name(enum cut_mode mode);
struct cut {
    uint64_t at; // how many entries of the log came before
    enum cut_mode mode;
    uint64_t seed; // of ORDERED and LOOSE
};

struct tree;
struct tree *tree_new(const struct log *log);
void tree_free(struct tree *tree);
// Syncs that are taken out of the log on purpose, so that a test can show that it notices: the one that begins at entry
// `sync` (UINT64_MAX: none), and all those of files or folders whose last name ends with `suffix` (NULL: none).
void tree_forget_syncs(struct tree *tree, uint64_t sync, const char *suffix);
// fdatasync writes a file's times as well, as most file systems do when the size changed.
void tree_keep_times(struct tree *tree);
// Goes forward in the log, never back.
void tree_advance(struct tree *tree, uint64_t at);
// Makes `folder` (which is emptied first) what a cut at the place where the tree stands would leave. `times` may be NULL.
int tree_build(struct tree *tree, const struct cut *cut, const char *folder, struct times *times);
int tree_empty_folder(const char *folder);

#endif
