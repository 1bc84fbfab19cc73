// What the files of the lab share (docs/lab.md).
//
//   lab.c           the host in its folder, the line of JSON, the end      lab_options.c   its options
//   lab_files.c     the folder's files: certificate, NTLM users, a fresh disk
//   lab_guest.c     disks that change by themselves
//   lab_script.c    the language of faults            lab_fault.c     when which one happens
//   lab_control.c   the socket that takes its lines   lab_keeper.c    what cleans up when the lab is killed
#ifndef RP_HOSTD_LAB_H
#define RP_HOSTD_LAB_H

#include "hostd/hostd.h"
#include "hostd/lab_script.h"

// ---- lab_fault.c. Thread safe but for new and free -----------------------------------------------------------------

struct rp_hostd_script *rp_lab_faults_new(void);
void rp_lab_faults_free(struct rp_hostd_script *script); // NULL is fine
// Adds a fault; `text` is its line, for the list. RP_ERR_INVALID: there are a thousand.
int rp_lab_faults_add(struct rp_hostd_script *script, const struct rp_lab_fault *fault, const char *text,
                      struct rp_error *err);
void rp_lab_faults_list(struct rp_hostd_script *script, struct rp_buf *out); // a JSON array of lines
void rp_lab_faults_forget(struct rp_hostd_script *script);
void rp_lab_faults_release(struct rp_hostd_script *script); // jobs that hang now
void rp_lab_faults_stop(struct rp_hostd_script *script);    // nothing waits or hangs any more
// Destroys reference points as if the host had lost them: of a VM ("": of all). RP_ERR_NOT_FOUND: there is none.
int rp_lab_faults_lose(struct rp_hostd *hostd, const char *vm, enum rp_lab_which which, struct rp_error *err);

// ---- lab_guest.c ---------------------------------------------------------------------------------------------------

enum { RP_LAB_BLOCK = 4096 };

struct rp_lab_guests;
// One thread that writes to all disks of the host's running VMs, `rate` bytes per second to each. Its connection to the
// host is its own. Starts writing at once unless the rate is 0.
struct rp_lab_guests *rp_lab_guests_start(const char *directory, uint64_t seed, uint64_t rate, struct rp_error *err);
void rp_lab_guests_stop(struct rp_lab_guests *guests); // NULL is fine
void rp_lab_guests_pause(struct rp_lab_guests *guests, bool pause);
// Writes so many blocks to every disk of a running VM ("": of all), flushes, and returns when that is done.
int rp_lab_guests_write(struct rp_lab_guests *guests, const char *vm, unsigned count, struct rp_error *err);
// What write number `number` (from 1) of a disk puts where; block 0 holds the number of the last one. The key tells
// disks apart.
uint64_t rp_lab_guests_key(uint64_t seed, const char *vm, uint32_t disk);
uint64_t rp_lab_guests_block(uint64_t key, uint64_t number, uint64_t blocks);
void rp_lab_guests_fill(uint64_t key, uint64_t number, uint64_t block, uint8_t data[RP_LAB_BLOCK]);
void rp_lab_guests_mark(uint64_t key, uint64_t number, uint8_t data[RP_LAB_BLOCK]); // block 0

// ---- lab_files.c ---------------------------------------------------------------------------------------------------

// A CA of the lab's own (ca.pem, whose key is not kept) and the service's certificate and key for localhost, 127.0.0.1,
// ::1 and `name`, in `directory`; kept when they are there. `fingerprint`: SHA-256 of the certificate, hex with colons.
int rp_lab_files_certificate(const char *directory, const char *name, char fingerprint[96], struct rp_error *err);
struct rp_lab_user {
    const char *name, *access; // "admin", "administer"
    char password[33];
};
// ntlm-users in smbpasswd's form, of the domain LAB. Passwords are new, and the file with them.
int rp_lab_files_users(const char *directory, struct rp_lab_user *users, size_t count, struct rp_error *err);
// A VHDX file with the guest's first `writes` writes in it.
int rp_lab_files_disk(const char *path, uint64_t size, uint64_t key, uint64_t writes, struct rp_error *err);
int rp_lab_files_folder(const char *path, struct rp_error *err); // 0700, there already is fine
void rp_lab_files_remove(const char *path);                      // with all in it; what cannot be removed stays

// ---- lab_keeper.c --------------------------------------------------------------------------------------------------

struct rp_lab_keeper {
    int pid, pipe;
};
// Forks a process that calls `clean` when this one has ended without rp_lab_keeper_stop. Before any thread is started.
int rp_lab_keeper_start(struct rp_lab_keeper *keeper, void (*clean)(void *context), void *context,
                        struct rp_error *err);
void rp_lab_keeper_stop(struct rp_lab_keeper *keeper); // zeros are fine

// ---- lab_control.c -------------------------------------------------------------------------------------------------

// One line of a script, carried out. Appends what the socket answers: "ok", or "ok " and JSON.
int rp_lab_control_line(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *text, struct rp_buf *answer,
                        struct rp_error *err);
// All lines of a file; errors come with the file's name and the line's number.
int rp_lab_control_file(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *path, struct rp_error *err);
struct rp_lab_control;
// Listens on a unix socket (mode 0600) for lines, each answered by one.
struct rp_lab_control *rp_lab_control_start(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *path,
                                            struct rp_error *err);
void rp_lab_control_stop(struct rp_lab_control *control); // NULL is fine

#endif
