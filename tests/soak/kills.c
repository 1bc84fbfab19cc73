// Processes of the VM die: at random moments, or at a chosen call (before it, after it, in the middle of a write).
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "life.h"

// ---- faults ---------------------------------------------------------------------------------------------------------

static void arm_at(struct life *l, const char *program, enum log_fault kind, uint64_t call)
{
    struct log_header *h = l->log->header;
    snprintf(h->fault_program, sizeof h->fault_program, "%s", program);
    atomic_store(&h->fault_countdown, (int64_t)call);
    atomic_store(&h->fault, kind);
}
// The next fault that is armed counts its calls from the first rename to a path that begins so.
static void wait_for_rename(struct life *l, const char *path)
{
    struct log_header *h = l->log->header;
    snprintf(h->fault_from, sizeof h->fault_from, "%s", path);
    atomic_store(&h->fault_waits, 1);
}
static const enum log_fault kill_kinds[] = {FAULT_KILL_BEFORE, FAULT_KILL_AFTER, FAULT_KILL_WITHIN};
static void arm(struct life *l, const char *program, uint64_t calls)
{
    arm_at(l, program, kill_kinds[life_chance(l, 3)], 1 + life_chance(l, calls));
}
// Whether it came to that.
static bool disarm(struct life *l)
{
    atomic_store(&l->log->header->fault, FAULT_NONE);
    atomic_store(&l->log->header->fault_waits, 0);
    atomic_store(&l->log->header->fault_lasts, 0);
    return atomic_load(&l->log->header->fault_countdown) <= 0;
}

static bool has_ended(int pidfd, int timeout_ms)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};
    return pidfd < 0 || poll(&fd, 1, timeout_ms) > 0;
}

static void note_kill(struct life *l, const char *what)
{
    struct note n = life_named(what);
    life_note(l, NOTE_KILLED, n);
    l->counts->kills++;
}

// ---- what must be true afterwards -----------------------------------------------------------------------------------

// What stands in the disks after a kill must be all that was acknowledged; after a failed sync, that was flushed.
static bool look_after_kill(struct life *l, bool sync_failed)
{
    struct oracle *o = oracle_new(l->log);
    uint64_t now = log_count(l->log);
    bool good = true;
    for (uint32_t d = 0; d < DISKS && good; d++) {
        struct client_disk *disk = &l->disks[d];
        uint32_t *values = calloc(disk->size / SECTOR, sizeof *values);
        const char *wrong = NULL;
        if (clients_read_disk(l->socket, d, disk, life_chance(l, 8) == 0, values))
            good = life_bad(l, "disk%u cannot be read after a kill", d);
        else if ((wrong = (sync_failed ? oracle_check_cut : oracle_check_now)(o, d, values, disk->size, now)))
            good = life_bad(l, "after %s: %s", sync_failed ? "a failed sync" : "a kill", wrong);
        if (good) {
            life_note_values(l, NOTE_FOUND, &(struct note){.disk = d, .length = disk->size}, values);
            memcpy(disk->now, values, disk->size / SECTOR * sizeof *values);
            memset(disk->busy, 0, disk->size / SECTOR);
        }
        free(values);
    }
    oracle_free(o);
    return good;
}

// A command that was killed may have left the service starting, ending, or as it was. `again`: the next service is killed
// too while it takes over.
static bool ensure_running(struct life *l, bool again)
{
    uint64_t until = rp_clock_monotonic_ns() + 60000000000;
    for (bool last = false; !last;) {
        last = rp_clock_monotonic_ns() >= until;
        pid_t before = life_service(l);
        life_pause(before ? 20000 : 0);
        if (before && before == life_service(l) && !clients_peek(l->socket))
            return l->running = true;
        if (!before) {
            struct command c = {0};
            life_note(l, NOTE_START, (struct note){0});
            if (again)
                arm(l, "nbdkit", 60);
            int status = life_refpoint_with(l, &c, "vm start " VM);
            if (again && disarm(l))
                note_kill(l, "nbdkit, starting");
            again = false;
            if (log_mend(l->log))
                return life_bad(l, "the traces of a killed disk service cannot be mended");
            if (status && last)
                return life_bad(l, "after a kill, vm start: exit status %d: %.1500s", status, c.output);
            life_pause(status ? 50000 : 0);
        }
    }
    return life_bad(l, "after a kill, no disk service comes up");
}

static bool ensure_off(struct life *l)
{
    for (int i = 0; i < 100 && life_service(l); i++) {
        struct command c = {0};
        life_refpoint_with(l, &c, "vm stop " VM);
    }
    l->running = false;
    return !life_service(l) || life_bad(l, "after a kill, vm stop does not stop it");
}

bool step_verify(struct life *l)
{
    // With the guest at rest; the next process sees what this one left.
    bool guest = l->clients != NULL;
    if (guest && !life_guest_stop(l))
        return false;
    struct command c = {.environment = l->environment, .deadline_s = 120};
    command_run(&c, (char *[]){(char *)l->setting->self, "verify", (char *)l->setting->directory, NULL});
    if (c.status)
        return life_bad(l, "verify: exit status %d: %.1500s", c.status, c.output);
    if (guest)
        life_guest_start(l);
    return true;
}

// ---- jobs to be killed in -------------------------------------------------------------------------------------------

// Starts a job, of which nobody will know how far it got. Returns the exit status; a negative one is wrong.
static int run_job(struct life *l, enum job job, struct command *c)
{
    struct note n = {0};
    char line[512] = "";
    switch (job) {
    case JOB_BACKUP:
        life_note(l, NOTE_BACKUP_BEGIN, n);
        snprintf(line, sizeof line, "backup " VM " --json --merge-timeout %d", l->broken ? 5 : 60);
        break;
    case JOB_DELETE:
        if (l->checkpoint_count) {
            n = life_named(l->checkpoints[life_chance(l, l->checkpoint_count)]);
            life_note(l, NOTE_DELETE_BEGIN, n);
            // When a sync has failed, the disk service merges nothing until it is started again.
            snprintf(line, sizeof line, "checkpoint delete " VM " %s%s", n.text, l->broken && l->running ? " --no-wait" : "");
            break;
        } // fall through
    case JOB_CHECKPOINT:
        snprintf(n.text, sizeof n.text, "c%zu", l->checkpoint_number++);
        life_note(l, NOTE_CHECKPOINT_BEGIN, n);
        return life_checkpoint(l, c, n.text);
    case JOB_GROW:
        n.disk = (uint32_t)life_chance(l, DISKS);
        n.length = l->disks[n.disk].size + (1 << 20);
        life_note(l, NOTE_SIZE_BEGIN, n);
        snprintf(line, sizeof line, "disk grow " VM " disk%u %llu", n.disk, (unsigned long long)n.length);
        break;
    case JOB_STOP:
    case JOB_START:
        snprintf(line, sizeof line, "vm %s " VM, job == JOB_STOP ? "stop" : "start");
        break;
    default:
        if (!other_command(l, job, line, sizeof line))
            return -1;
    }
    return life_refpoint_with(l, c, line);
}

// ---- the disk service -----------------------------------------------------------------------------------------------

// A sync failed: the disks are opened again as they were last made durable.
static bool note_lost(struct life *l)
{
    life_note(l, NOTE_KILLED, life_named("power"));
    return l->broken || life_bad(l, "a sync of the disks failed, and nobody had made it fail");
}

// The service dies now, unless it has: of a fault (`shot`), or in an orderly way.
static bool bury_service(struct life *l, int pidfd, bool shot, bool again)
{
    bool killed = shot || !has_ended(pidfd, 0), ended = command_kill(l->log, pidfd);
    close(pidfd);
    if (!ended)
        return life_bad(l, "the disk service survives SIGKILL");
    if (l->clients && !life_guest_stop(l))
        return false;
    if (log_mend(l->log))
        return life_bad(l, "the traces of a killed disk service cannot be mended");
    if (killed)
        note_kill(l, "nbdkit");
    l->running = false;
    bool sync_failed = life_sync_failed(l);
    if (sync_failed && !note_lost(l))
        return false;
    return ensure_running(l, again) && look_after_kill(l, sync_failed) && life_take_stock(l);
}

static int find_service(struct life *l)
{
    pid_t pid = life_service(l);
    int pidfd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd < 0)
        life_bad(l, "there is no disk service to kill");
    return pidfd;
}

bool step_kill_service(struct life *l)
{
    int pidfd = find_service(l);
    bool shot = false;
    struct command c = {0};
    if (pidfd < 0)
        return false;
    if (life_chance(l, 8) == 0) { // while it ends
        if (!life_guest_stop(l))
            return false;
        arm(l, "nbdkit", 40);
        run_job(l, JOB_STOP, &c);
        shot = disarm(l);
    } else if (life_chance(l, 2)) {
        arm(l, "nbdkit", life_chance(l, 2) ? 30 : 300);
        if (life_chance(l, 5) < 3)
            run_job(l, (enum job[]){JOB_BACKUP, JOB_CHECKPOINT, JOB_DELETE}[life_chance(l, 3)], &c);
        for (int i = 0; i < 20 && !has_ended(pidfd, 10); i++)
            ;
        shot = disarm(l);
    } else {
        life_pause(life_chance(l, 30000));
    }
    if (!bury_service(l, pidfd, shot, life_chance(l, 3) == 0) || (life_chance(l, 4) == 0 && !step_verify(l)))
        return false;
    life_guest_start(l);
    return true;
}

// ---- commands -------------------------------------------------------------------------------------------------------

// `where`: of a command. `call` 0: at a random moment.
static bool kill_command(struct life *l, enum job job, enum where where, enum log_fault kind, uint64_t call, bool *killed)
{
    bool off = where == WHERE_OFF, quiet = off || job == JOB_STOP;
    struct command c = {0};
    if (job >= JOB_CREATE && !other_prepare(l, job))
        return false;
    if (off ? !life_stop(l) : quiet && !life_guest_stop(l))
        return false;
    if (call) {
        if (where == WHERE_PACKS) // what it renames to is relative to the repository
            wait_for_rename(l, "packs/");
        arm_at(l, "refpoint", kind, call);
    } else {
        c.kill_after_us = (int)(1000 + life_chance(l, job == JOB_BACKUP ? 150000 : 60000));
        c.log = l->log;
    }
    int status = run_job(l, job, &c);
    disarm(l);
    *killed = status == 128 + SIGKILL;
    l->counts->kills_at_call += *killed && call;
    if (*killed)
        note_kill(l, "refpoint");
    else if (status > 1)
        return life_bad(l, "a job that was not killed: exit status %d: %.1500s", status, c.output);
    if (job >= JOB_CREATE)
        return !l->wrong[0] && other_check(l, job, *killed);
    // Start and stop again: what is half way must not be in the way.
    return !l->wrong[0] && ensure_running(l, false) && (!quiet || ensure_off(l)) && life_take_stock(l) && (!quiet || life_start(l));
}

bool step_kill_command(struct life *l)
{
    enum job job = (enum job)life_chance(l, JOBS);
    bool off = job == JOB_START || job == JOB_GROW || (job < JOB_GROW && life_chance(l, 3) == 0), killed;
    uint64_t calls = job == JOB_BACKUP ? 400 : off ? 150 : 60, call = life_chance(l, 2) ? 1 + life_chance(l, calls) : 0;
    return kill_command(l, job, off ? WHERE_OFF : WHERE_COMMAND, kill_kinds[life_chance(l, 3)], call, &killed) && (life_chance(l, 6) || step_verify(l));
}

// ---- calls that fail ------------------------------------------------------------------------------------------------

static const struct trouble {
    enum log_fault fault;
    int error;
} troubles[] = {{FAULT_ERROR, ENOSPC}, {FAULT_ERROR, ENOSPC}, {FAULT_SHORT, ENOSPC}, {FAULT_ERROR, EIO}, {FAULT_ERROR, EIO}, {FAULT_SYNC, EIO},
                {FAULT_SYNC, EIO}};

// How many calls had failed before.
static uint64_t arm_trouble(struct life *l, const char *program)
{
    const struct trouble *t = &troubles[life_chance(l, sizeof troubles / sizeof *troubles)];
    atomic_store(&l->log->header->fault_errno, (uint32_t)t->error);
    atomic_store(&l->log->header->fault_lasts, t->error == EIO && life_chance(l, 2) ? 1 + life_chance(l, 30) : 0);
    arm_at(l, program, t->fault, 1 + life_chance(l, t->fault == FAULT_SYNC ? 20 : 150));
    l->broken = t->error == EIO;
    l->told_lost = false;
    return atomic_load(&l->log->header->faults);
}

static unsigned count_errors(const char *output)
{
    static const char *const others[] = {"remark: ", "warning: ", "error: "}; // the last two: of the log
    unsigned errors = 0;
    for (const char *line = output; line; line = strchr(line, '\n'), line += line != NULL) {
        bool is = !strncmp(line, "{\"type\":\"error\"", 15);
        if (!strncmp(line, "refpoint: ", 10)) {
            is = true;
            for (size_t i = 0; i < sizeof others / sizeof *others; i++)
                is &= strncmp(line + 10, others[i], strlen(others[i])) != 0;
        }
        errors += is;
    }
    return errors;
}

// A job may fail when a call did, and says so once.
static bool judge_job(struct life *l, const struct command *c, bool came)
{
    if (c->status < 0 || c->status > 2 || (c->status == 2 && !came))
        return life_bad(l, "a job in which %s failed: exit status %d: %.1500s", came ? "a call" : "nothing", c->status, c->output);
    if (count_errors(c->output) != (c->status == 2))
        return life_bad(l, "a job in which a call failed: exit status %d, and %u errors: %.1500s", c->status, count_errors(c->output), c->output);
    return true;
}

// A failed sync is final: no flush succeeds until the disks are opened again.
static bool no_flush_succeeds(struct life *l)
{
    for (uint32_t d = 0; d < DISKS; d++)
        if (!clients_flush(l->socket, d))
            return life_bad(l, "disk%u: a flush succeeds after a sync failed", d);
    return true;
}

static bool fault_in_service(struct life *l)
{
    enum job job = (enum job[]){JOB_BACKUP, JOB_CHECKPOINT, JOB_DELETE, JOB_STOP}[life_chance(l, 4)];
    struct command c = {0};
    int pidfd = find_service(l);
    if (pidfd < 0 || (job == JOB_STOP && !life_guest_stop(l)))
        return false;
    uint64_t before = arm_trouble(l, "nbdkit");
    run_job(l, job, &c);
    for (int i = 0; i < 20 && atomic_load(&l->log->header->faults) == before && !has_ended(pidfd, 10); i++)
        ;
    bool came = atomic_load(&l->log->header->faults) != before; // while the guest ran, perhaps
    l->broken &= came;
    bool good = judge_job(l, &c, came) && (has_ended(pidfd, 0) || !life_sync_failed(l) || no_flush_succeeds(l));
    disarm(l);
    l->counts->faults += came;
    if (good && life_chance(l, 2)) // what was flushed is not lost by a stop either
        good = (!l->clients || life_guest_stop(l)) &&
               ((ensure_off(l) && has_ended(pidfd, 120000)) || life_bad(l, "the disk service does not end after a call failed"));
    if (!good || !bury_service(l, pidfd, false, false) || !step_verify(l))
        return false;
    life_guest_start(l);
    return true;
}

// `off`: with the VM stopped, so that the disks are opened in the command's own process.
static bool fault_in_command(struct life *l, bool off)
{
    enum job job = (enum job[]){JOB_BACKUP, JOB_CHECKPOINT, JOB_DELETE, JOB_GROW}[life_chance(l, off ? 4 : 3)];
    struct command c = {0};
    if (off && !life_stop(l))
        return false;
    uint64_t before = arm_trouble(l, "refpoint");
    run_job(l, job, &c);
    disarm(l);
    bool came = atomic_load(&l->log->header->faults) != before;
    l->counts->faults += came;
    if (!judge_job(l, &c, came))
        return false;
    l->broken &= came && off;
    if (life_sync_failed(l) && !note_lost(l))
        return false;
    return (!off || ensure_off(l)) && life_take_stock(l) && (!off || life_start(l)) && (life_chance(l, 3) || step_verify(l));
}

// A call of the disk service, or of the command (the tool and the host's code in it), finds no room, is cut short, or fails as
// on a broken disk, once or some times; or a sync does. The job may fail. What was acknowledged is there; after a
// failed sync of the disks, what was flushed.
bool step_fault(struct life *l)
{
    bool good = life_chance(l, 2) ? fault_in_service(l) : fault_in_command(l, life_chance(l, 2));
    l->broken = l->told_lost = false;
    return good;
}

// ---- every step -----------------------------------------------------------------------------------------------------

bool step_every(struct life *l, enum job job, enum where where, unsigned stride)
{
    bool killed = true;
    const struct setting *s = l->setting;
    uint64_t call = s->first ? s->first : 1 + life_chance(l, stride);
    for (unsigned i = 0; killed && life_has_room(l) && (!s->count || i < s->count); i++, call += stride) {
        if (where != WHERE_SERVICE) {
            if (!kill_command(l, job, where, kill_kinds[call % 3], call, &killed))
                return false;
        } else {
            int pidfd = find_service(l);
            struct command c = {0};
            if (pidfd < 0 || (job == JOB_STOP && !life_guest_stop(l)))
                return false;
            arm_at(l, "nbdkit", kill_kinds[call % 3], call);
            run_job(l, job, &c);
            killed = disarm(l);
            l->counts->kills_at_call += killed;
            if (!bury_service(l, pidfd, killed, false))
                return false;
            life_guest_start(l);
        }
        // The next backup finds what the killed one had stored, and builds on it.
        if (job == JOB_BACKUP && !step_backup(l, ""))
            return false;
        // A few checkpoints to delete, and not too long a chain.
        while (job == JOB_DELETE ? !l->checkpoint_count : l->checkpoint_count > 3)
            if (job == JOB_DELETE ? !step_checkpoint(l) : !step_delete(l))
                return false;
    }
    return step_verify(l);
}
