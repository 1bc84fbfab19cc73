// Restore: the disks of one restore point as image files.
#ifndef RP_BACKUP_RESTORE_H
#define RP_BACKUP_RESTORE_H

#include "disk/convert.h"
#include "repo/repo.h"

struct rp_restore_options {
    const char *directory;       // made when missing
    enum rp_image_format format;
    int64_t disk;                // number of the only disk wanted; -1: all
    bool salvage;                // what is damaged is left out: it is zeros in the image, and in the list <image>.lost
    bool same_content;           // a VHDX gets the DataWriteGuid of the exported file, where the point knows it: it is for a host
                                 // that is to know it again
    unsigned threads;            // 0: as many as fit the machine
    uint64_t rate;               // bytes per second; 0: no limit
    int (*progress)(void *context, uint64_t done, uint64_t total); // bytes; non-zero stops; may be NULL
    void *context;
};
struct rp_restore_file {
    char *path;
    uint32_t number;
    uint64_t size, data;         // bytes of the disk, and those that are not zero
    char *list;                  // of what could not be read (salvage.h); NULL: there is nothing
    struct rp_ranges lost;       // that, in bytes of the disk; ascending. Of a preview: what is known beforehand
};
struct rp_restore_result {
    struct rp_restore_file *files;
    size_t count;
    bool damaged; // it failed because data in the repository is lost: a salvage may restore the rest
};

// Writes <vm>-disk<number>.vhdx or .raw, under temporary names until every one of them is complete and durable. A file
// that is there is never overwritten: RP_ERR_EXISTS. On failure nothing is left. What a killed one left under temporary
// names the next one removes; what had its name by then stays. RP_ERR_NO_SPACE before the first byte when the folder's file
// system has too little. A restored VHDX keeps the disk's id and sector sizes.
// Data that is damaged fails it, unless to salvage is asked for; then whatever can be read is written.
int rp_restore_run(struct rp_repo *repo, const struct rp_point *point, const struct rp_restore_options *options,
                   struct rp_restore_result *result, struct rp_error *err);
// What would be written, without doing it: names and sizes.
int rp_restore_preview(struct rp_repo *repo, const struct rp_point *point, const struct rp_restore_options *options,
                       struct rp_restore_result *result, struct rp_error *err);
void rp_restore_result_clear(struct rp_restore_result *result);

// RP_ERR_EXISTS: a file is there that would be overwritten.
int rp_restore_check_free(const char *path, struct rp_error *err);
// Bytes that the file of a disk takes, with `data` bytes that are not zero.
uint64_t rp_restore_room(uint64_t size, uint64_t data, enum rp_image_format format);
// RP_ERR_NO_SPACE: the folder's file system has less than that.
int rp_restore_check_room(const char *folder, uint64_t needed, struct rp_error *err);

// A VM's name as part of a file name: letters, digits, '.', '_' and '-' stay, every other character becomes '_', none
// is hidden, looks like an option or leads elsewhere. Never empty, at most 100 bytes. Malloc'ed.
char *rp_restore_safe_name(const char *vm_name);

#endif
