// Commands that leave the guest alone and may be killed in the middle: a second VM is made, gets and loses a disk, and
// restore points are restored. Afterwards what was to come is there whole, or not at all, and can be done again.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life.h"

#define OTHER "other"
enum { OTHER_SIZE = 1 << 20, OTHER_VALUE = 7 };

static bool other_image(struct life *l, uint32_t number, char *path, size_t room)
{
    uint8_t *data = malloc(OTHER_SIZE);
    snprintf(path, room, "%s/" OTHER "%u.raw", l->setting->directory, number);
    content_fill(data, number, OTHER_VALUE, 0, OTHER_SIZE);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool good = fd >= 0 && pwrite(fd, data, OTHER_SIZE, 0) == OTHER_SIZE;
    if (fd >= 0)
        close(fd);
    free(data);
    return good || life_bad(l, "%s: %s", path, strerror(errno));
}

static bool delete_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    return !rmdir(path) || errno == ENOENT;
}

// ---- a second VM ----------------------------------------------------------------------------------------------------

static bool other_line(struct life *l, enum job job, char *line, size_t room)
{
    char path[300];
    if (!other_image(l, job == JOB_ADD, path, sizeof path))
        return false;
    if (job == JOB_REMOVE)
        snprintf(line, room, "disk remove " OTHER " disk1 --yes");
    else
        snprintf(line, room, job == JOB_CREATE ? "vm create " OTHER " --disk %s" : "disk add " OTHER " %s", path);
    return true;
}

static bool other_disk_is_whole(struct life *l, const char *path, uint32_t number)
{
    char line[900], raw[300];
    uint32_t *values = NULL;
    uint64_t size = 0;
    snprintf(raw, sizeof raw, "%s/" OTHER ".check", l->setting->directory);
    snprintf(line, sizeof line, "disk convert %s %s -O raw", path, raw);
    unlink(raw);
    bool good = life_refpoint(l, line) && !image_values(raw, number, &size, &values);
    for (uint64_t i = 0; good && i < size / SECTOR; i++)
        good = values[i] == OTHER_VALUE;
    free(values);
    unlink(raw);
    return (good && size == OTHER_SIZE) || life_bad(l, "%s, a disk that a killed command left, is not its image", path);
}

// How many disks it has, each of them looked at; -1: it is not there, -2: something is wrong.
static int other_look(struct life *l)
{
    json_t *vms = life_refpoint_json(l, "vm list --json"), *vm = NULL, *item;
    size_t i;
    int found = 0, disks = -1;
    json_array_foreach(vms, i, item)
        found += !strcmp(json_string_value(json_object_get(item, "name")), OTHER);
    json_decref(vms);
    if (!vms || found > 1)
        return life_bad(l, "%d VMs are called " OTHER, found), -2;
    if (found && (vm = life_refpoint_json(l, "vm show " OTHER " --json"))) {
        disks = 0;
        json_array_foreach(json_object_get(vm, "disks"), i, item) {
            if (!other_disk_is_whole(l, json_string_value(json_object_get(item, "path")), (uint32_t)i))
                disks = -2;
            disks += disks >= 0;
        }
        json_decref(vm);
    }
    return disks;
}

// ---- restores -------------------------------------------------------------------------------------------------------

static void restored(struct life *l, char *folder, size_t room)
{
    snprintf(folder, room, "%s/killed", l->setting->directory);
}

static bool restore_line(struct life *l, char *line, size_t room)
{
    char folder[300];
    restored(l, folder, sizeof folder);
    snprintf(line, room, "restore " VM "@%s --to %s -O raw", l->points[l->chosen_point], folder);
    return true;
}

// What has its name is whole. `all`: and nothing is missing.
static bool restored_is_whole(struct life *l, bool all)
{
    struct oracle *o = oracle_new(l->log);
    const char *id = l->points[l->chosen_point], *wrong = NULL;
    uint32_t *values[MAX_DISKS] = {0};
    uint64_t sizes[MAX_DISKS] = {0};
    char folder[300], path[400];
    restored(l, folder, sizeof folder);
    for (uint32_t d = 0; d < DISKS && !wrong; d++) {
        snprintf(path, sizeof path, "%s/" VM "-disk%u.raw", folder, d);
        if (image_values(path, d, &sizes[d], &values[d]) && all)
            wrong = "a file is missing";
        unlink(path);
    }
    for (size_t i = 0; i < o->point_count && !wrong; i++)
        if (!strcmp(o->points[i].id, id))
            wrong = oracle_check_moment(o, (const uint32_t *const *)values, sizes, o->points[i].span);
    for (uint32_t d = 0; d < DISKS; d++)
        free(values[d]);
    oracle_free(o);
    return !wrong || life_bad(l, "restore point %s, its restore killed: %s", id, wrong);
}

// ---- jobs -----------------------------------------------------------------------------------------------------------

bool other_prepare(struct life *l, enum job job)
{
    char line[700];
    if (job == JOB_RESTORE) {
        if (!l->point_count && !step_backup(l, ""))
            return false;
        l->chosen_point = life_chance(l, l->point_count);
        return true;
    }
    for (enum job before = JOB_CREATE; before < job; before++)
        if (!other_line(l, before, line, sizeof line) || !life_refpoint(l, line))
            return false;
    return true;
}

bool other_command(struct life *l, enum job job, char *line, size_t room)
{
    return job == JOB_RESTORE ? restore_line(l, line, room) : other_line(l, job, line, room);
}

bool other_check(struct life *l, enum job job, bool killed)
{
    char line[700];
    if (job == JOB_RESTORE) {
        char folder[300];
        restored(l, folder, sizeof folder);
        bool good = restored_is_whole(l, !killed) && restore_line(l, line, sizeof line) && life_refpoint(l, line) &&
                    restored_is_whole(l, true);
        return delete_folder(folder) && good;
    }
    int least = job == JOB_CREATE ? -1 : 1, most = job == JOB_CREATE ? 1 : 2, done = job == JOB_ADD ? 2 : 1;
    int disks = other_look(l);
    if (disks < least || disks > most || (!killed && disks != done))
        return life_bad(l, "job %d %s: " OTHER " has %d disks", (int)job, killed ? "was killed" : "is done", disks);
    // Again: what was not done is done now, what was done is refused.
    struct command c = {0};
    if (!other_line(l, job, line, sizeof line) || (disks != done && !life_refpoint(l, line)))
        return false;
    if (disks == done && job == JOB_REMOVE && life_refpoint_with(l, &c, line) != 2)
        return life_bad(l, "a disk that is gone is removed once more: %.500s", c.output);
    return other_look(l) == done ? life_refpoint(l, "vm delete " OTHER " --delete-disks --yes")
                                 : life_bad(l, "job %d, done again: " OTHER " is not as it should be", (int)job);
}
