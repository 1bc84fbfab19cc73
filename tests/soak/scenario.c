#include "scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life.h"

bool life_step(struct life *l)
{
    if (l->setting->kills && life_chance(l, 100) < 70)
        return l->setting->faults || life_chance(l, 10) == 0 ? step_fault(l) : life_chance(l, 2) ? step_kill_service(l) : step_kill_command(l);
    life_pause(20000 + life_chance(l, l->setting->kills ? 60000 : 150000));
    unsigned dice = (unsigned)life_chance(l, 100);
    if (dice < 35)
        return step_backup(l, "");
    if (dice < 40)
        return step_backup(l, " --full");
    if (dice < 58)
        return l->checkpoint_count < 4 ? step_checkpoint(l) : step_delete(l);
    if (dice < 78)
        return step_delete(l);
    if (dice < 90)
        return step_restart(l);
    return step_grow(l);
}

static bool every_step(struct life *l)
{
    static const char *const jobs[] = {"backup", "checkpoint", "delete", "grow", "stop", "start", "create", "add", "remove"};
    static const char *const wheres[WHERES] = {"command", "service", "off", "packs"};
    const char *colon = strchr(l->setting->every, ':');
    for (enum job job = JOB_BACKUP; colon && job < JOB_RESTORE; job++)
        for (enum where where = 0; where < WHERES; where++)
            if (!strncmp(jobs[job], l->setting->every, (size_t)(colon - l->setting->every)) && !strcmp(wheres[where], colon + 1))
                return step_every(l, job, where, l->setting->stride ? l->setting->stride : 1);
    return life_bad(l, "--every %s: what?", l->setting->every);
}

// ---- the beginning and the end --------------------------------------------------------------------------------------

// The folder and the log that this life is recorded in.
static bool begin(struct life *l)
{
    char path[300];
    snprintf(path, sizeof path, "%s/root", l->setting->directory);
    mkdir(path, 0700);
    char *log;
    if (asprintf(&log, "%s/log", l->setting->directory) < 0)
        abort();
    bool good = !log_create(l->log, log, path, 4u << 20, (uint64_t)2 << 30) || life_bad(l, "%s: %s", log, strerror(errno));
    free(log);
    return good;
}

bool life_prepare(struct life *l)
{
    const struct setting *s = l->setting;
    char path[300], line[700];
    life_use(l);

    // disk0 begins with content, disk1 is an empty VHDX that somebody else made.
    static const uint64_t sizes[DISKS] = {(uint64_t)12 << 20, (uint64_t)96 << 20};
    for (uint32_t d = 0; d < DISKS; d++)
        client_disk_resize(&l->disks[d], sizes[d]);
    uint8_t *data = malloc(2 << 20);
    content_fill(data, 0, 1, 0, 2 << 20);
    snprintf(path, sizeof path, "%s/disk0.raw", s->directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool made = fd >= 0 && pwrite(fd, data, 2 << 20, 0) == 2 << 20 && !ftruncate(fd, (off_t)sizes[0]);
    close(fd);
    free(data);
    for (size_t i = 0; i < (2 << 20) / SECTOR; i++)
        l->disks[0].now[i] = 1;
    l->disks[0].next = 2;
    memset(l->disks[0].used, 1, 2);
    struct note first = {.disk = 0, .number = 1, .what = OP_WRITE, .length = 2 << 20};
    life_note(l, NOTE_ISSUE, first);
    life_note(l, NOTE_ACK, first);
    for (uint32_t d = 0; d < DISKS; d++)
        life_note(l, NOTE_SIZE_BEGIN, (struct note){.disk = d, .length = sizes[d]});
    struct command init = {.environment = l->environment, .deadline_s = 60};
    command_run(&init, (char *[]){(char *)s->self, "init-repository", l->repo, NULL});
    if (!made || init.status)
        return life_bad(l, "the repository cannot be made: %s", init.output);
    snprintf(path, sizeof path, "%s/disk1.raw", s->directory);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    made = fd >= 0 && !ftruncate(fd, (off_t)sizes[1]);
    close(fd);
    uint64_t begin = life_note(l, NOTE_FLUSH_BEGIN, (struct note){.disk = UINT32_MAX});
    snprintf(line, sizeof line, "vm create " VM " --disk %s/disk0.raw --disk %s/disk1.raw", s->directory, s->directory);
    if (!made || !life_refpoint(l, line))
        return false;
    for (uint32_t d = 0; d < DISKS; d++)
        life_note(l, NOTE_SIZE, (struct note){.disk = d, .length = sizes[d]});
    life_note(l, NOTE_FLUSH, (struct note){.disk = UINT32_MAX, .offset = begin});
    json_t *json = life_refpoint_json(l, "vm show " VM " --json");
    const char *id = json_string_value(json_object_get(json, "id"));
    if (!id)
        return life_bad(l, "vm show: no id");
    life_note(l, NOTE_VM, life_named(id));
    life_use_vm(l, id);
    json_decref(json);
    return true;
}

void life_end(struct life *l)
{
    if (l->clients)
        life_guest_stop(l);
    pid_t pid = l->vm_directory[0] ? life_service(l) : 0;
    if (pid > 0)
        kill(pid, SIGKILL);
    free(l->environment);
    for (size_t d = 0; d < DISKS; d++) {
        free(l->disks[d].now);
        free(l->disks[d].busy);
        free(l->disks[d].used);
    }
}

const char *scenario_run(const struct setting *setting, struct log *log, struct counts *counts)
{
    static struct life l;
    l = (struct life){.setting = setting, .log = log, .counts = counts, .random = setting->seed};
    bool good = begin(&l) && life_prepare(&l) && life_start(&l);
    if (good && setting->every)
        good = every_step(&l);
    for (unsigned i = 0; good && !setting->every && i < setting->steps && life_has_room(&l); i++)
        good = life_step(&l);
    if (good)
        good = (!l.running || life_stop(&l)) && step_look_at_points(&l) && (!setting->kills || step_verify(&l));
    if (good && atomic_load(&log->header->overflow))
        good = life_bad(&l, "the log is full");
    if (good && atomic_load(&log->header->mapped))
        good = life_bad(&l, "somebody writes to a file through memory, which the recorder cannot see");
    life_end(&l);
    return good ? NULL : l.wrong;
}
