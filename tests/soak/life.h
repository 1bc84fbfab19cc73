// A VM's life as its steps see it: the programs, the guest, what was promised.
#ifndef RP_TESTS_SOAK_LIFE_H
#define RP_TESTS_SOAK_LIFE_H

#include <jansson.h>
#include <sys/types.h>

#include "clients.h"
#include "command.h"
#include "oracle.h"
#include "scenario.h"

#define VM "soak"
#define DISKS 2

struct life {
    const struct setting *setting;
    struct log *log;
    struct counts *counts;
    char root[256], host[300], repo[300], vm_directory[400], socket[440];
    char **environment; // with the recorder, if there is one
    struct client_disk disks[DISKS];
    struct clients *clients;
    bool running;
    bool broken;   // in this step calls may fail as on a broken disk, syncs among them
    bool told_lost; // a command said that the disks are taken as they were last made durable
    char checkpoints[64][80];
    size_t checkpoint_count, checkpoint_number;
    char points[256][80];
    size_t point_count, points_seen, chosen_point;
    uint64_t random;
    char wrong[2048];   // empty: nothing yet
};


// What is wrong; the first is kept. Returns false.
bool life_bad(struct life *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t life_chance(struct life *l, uint64_t of); // 0 … of - 1
void life_pause(uint64_t us);
uint64_t life_note(struct life *l, enum note_kind kind, struct note note);
void life_note_values(struct life *l, enum note_kind kind, const struct note *note, const uint32_t *values);
struct note life_named(const char *text);

bool life_has_room(struct life *l); // in the log, for another step

// Runs `refpoint` with the words of `line`; returns its exit status. The traces of one that was killed are mended.
int life_refpoint_with(struct life *l, struct command *command, const char *line);
bool life_refpoint(struct life *l, const char *line); // must succeed
// Makes a checkpoint as a user would: while one is being merged the host refuses, and is asked again, for a minute.
int life_checkpoint(struct life *l, struct command *command, const char *name);
json_t *life_refpoint_json(struct life *l, const char *line);
json_t *life_last_object(char *output); // of the lines of an output
char **life_environment(struct life *l); // of a program under the recorder, if there is one
pid_t life_service(struct life *l); // 0: none
// Whether a sync of the disks failed: a command said so that opened them since; or their shared memory does, until somebody
// opens them (docs/formats/chain-record.md).
bool life_sync_failed(struct life *l);
// The checkpoints and sizes that there really are, after a command of which nobody knows how far it got.
bool life_take_stock(struct life *l);
void life_use(struct life *l); // paths and environment
void life_use_vm(struct life *l, const char *id); // where its sockets are

void life_guest_start(struct life *l);
bool life_guest_stop(struct life *l);
bool life_start(struct life *l);
bool life_stop(struct life *l);

// scenario.c
bool life_prepare(struct life *l); // a host, a repository and a VM of two disks
bool life_step(struct life *l);    // a random one
void life_end(struct life *l);

// steps.c
bool step_backup(struct life *l, const char *more);
bool step_checkpoint(struct life *l);
bool step_delete(struct life *l);
bool step_restart(struct life *l);
bool step_grow(struct life *l);
// Restores the points that were not looked at yet. What they hold must be one moment during their backup; it is noted.
bool step_look_at_points(struct life *l);
// The requests whose sectors a raw image of a disk holds. -1: it cannot be read.
int image_values(const char *path, uint32_t disk, uint64_t *size, uint32_t **values);

// kills.c
enum job {
    JOB_BACKUP, JOB_CHECKPOINT, JOB_DELETE, JOB_GROW, JOB_STOP, JOB_START,
    JOB_CREATE, JOB_ADD, JOB_REMOVE, JOB_RESTORE,
    JOBS
};
bool step_kill_service(struct life *l);
bool step_kill_command(struct life *l);
bool step_fault(struct life *l);
enum where {
    WHERE_COMMAND,
    WHERE_SERVICE, // the disk service meanwhile
    WHERE_OFF,     // the command, with the VM stopped, so that the disks are opened in its own process
    WHERE_PACKS,   // the command; calls are counted from the first pack of the repository that it gives its name
    WHERES
};
// The job again and again, each time killed at a later call (every `stride`th), until it comes to its end.
bool step_every(struct life *l, enum job job, enum where where, unsigned stride);
bool step_verify(struct life *l);

// others.c: jobs from JOB_CREATE on
bool other_prepare(struct life *l, enum job job); // what the job needs
bool other_command(struct life *l, enum job job, char *line, size_t room);
// What is there is whole; then the job again, and all as it was.
bool other_check(struct life *l, enum job job, bool killed);

#endif
