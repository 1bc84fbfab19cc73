// What happens to a VM in its life.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life.h"

// Every backup but the first is incremental, whatever was killed, cut or failed before, unless somebody asked for a full one. And
// it leaves one reference point, its own.
static bool judge_backup(struct life *l, const json_t *point, bool full)
{
    json_t *disk;
    size_t i;
    json_array_foreach(json_object_get(point, "disks"), i, disk) {
        const char *kind = json_string_value(json_object_get(disk, "kind")), *reason = json_string_value(json_object_get(disk, "reason"));
        if (!kind || (l->point_count && !full && strcmp(kind, "incremental")))
            return life_bad(l, "backup %zu reads disk%zu in full: %s", l->point_count + 1, i, reason ? reason : "?");
    }
    json_t *vm = life_refpoint_json(l, "vm show " VM " --json");
    json_int_t left = json_integer_value(json_object_get(vm, "reference_points"));
    json_decref(vm);
    return left == 1 || life_bad(l, "a backup leaves %lld reference points", (long long)left);
}

bool step_backup(struct life *l, const char *more)
{
    char line[128];
    snprintf(line, sizeof line, "backup " VM " --json --merge-timeout 60%s", more);
    uint64_t begin = life_note(l, NOTE_BACKUP_BEGIN, (struct note){0});
    struct command c = {0};
    int status = life_refpoint_with(l, &c, line);
    json_t *json = status == 0 ? life_last_object(c.output) : NULL;
    const char *id = json_string_value(json_object_get(json, "id"));
    bool good = (id || life_bad(l, "refpoint %s: exit status %d: %.1500s", line, status, c.output)) && judge_backup(l, json, *more);
    if (good) {
        struct note n = life_named(id);
        n.ok = 1;
        n.offset = begin;
        life_note(l, NOTE_BACKUP, n);
        snprintf(l->points[l->point_count++], sizeof *l->points, "%s", id);
        l->counts->backups++;
    }
    json_decref(json);
    return good;
}

bool step_checkpoint(struct life *l)
{
    char *name = l->checkpoints[l->checkpoint_count];
    snprintf(name, sizeof *l->checkpoints, "c%zu", l->checkpoint_number++);
    struct note n = life_named(name);
    n.offset = life_note(l, NOTE_CHECKPOINT_BEGIN, n);
    n.ok = 1;
    struct command c = {0};
    int status = life_checkpoint(l, &c, name);
    if (status)
        return life_bad(l, "refpoint checkpoint create %s: exit status %d: %.1500s", name, status, c.output);
    life_note(l, NOTE_CHECKPOINT, n);
    l->checkpoint_count++;
    l->counts->checkpoints++;
    return true;
}

bool step_delete(struct life *l)
{
    if (!l->checkpoint_count)
        return step_checkpoint(l);
    size_t which = life_chance(l, l->checkpoint_count);
    char line[128];
    struct note n = life_named(l->checkpoints[which]);
    life_note(l, NOTE_DELETE_BEGIN, n);
    snprintf(line, sizeof line, "checkpoint delete " VM " %s", n.text);
    memmove(l->checkpoints[which], l->checkpoints[which + 1], (--l->checkpoint_count - which) * sizeof *l->checkpoints);
    if (!life_refpoint(l, line))
        return false;
    n.ok = 1;
    life_note(l, NOTE_DELETE, n);
    l->counts->merges++;
    return true;
}

bool step_restart(struct life *l)
{
    l->counts->restarts++;
    return life_stop(l) && life_start(l);
}

bool step_grow(struct life *l)
{
    uint32_t d = (uint32_t)life_chance(l, DISKS);
    struct client_disk *disk = &l->disks[d];
    uint64_t size = disk->size + ((1 + life_chance(l, 3)) << 20) + (life_chance(l, 2) ? 65536 * life_chance(l, 16) : 0);
    char line[128];
    if (!life_stop(l))
        return false;
    struct note n = {.disk = d, .length = size};
    life_note(l, NOTE_SIZE_BEGIN, n);
    snprintf(line, sizeof line, "disk grow " VM " disk%u %llu", d, (unsigned long long)size);
    if (!life_refpoint(l, line))
        return false;
    life_note(l, NOTE_SIZE, n);
    client_disk_resize(disk, size);
    l->counts->grows++;
    return life_start(l);
}

int image_values(const char *path, uint32_t disk, uint64_t *size, uint32_t **values)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum { PIECE = 1 << 20 };
    uint8_t *data = malloc(PIECE);
    int rc = fd < 0 || fstat(fd, &st) ? -1 : 0;
    if (!rc)
        *values = calloc((size_t)st.st_size / SECTOR + 1, sizeof **values);
    *size = rc ? 0 : (uint64_t)st.st_size;
    for (uint64_t at = 0; !rc && at < *size; at += PIECE) {
        size_t length = *size - at < PIECE ? (size_t)(*size - at) : PIECE;
        rc = pread(fd, data, length, (off_t)at) != (ssize_t)length;
        if (!rc)
            content_values(data, disk, at, length, *values + at / SECTOR);
    }
    free(data);
    if (fd >= 0)
        close(fd);
    return rc;
}

// Restores the points that were not looked at yet. What they hold must be one moment during their backup; it is noted.
bool step_look_at_points(struct life *l)
{
    struct oracle *o = oracle_new(l->log);
    bool good = true;
    for (; good && l->points_seen < l->point_count; l->points_seen++) {
        const char *id = l->points[l->points_seen];
        char line[512], path[512];
        uint32_t *values[MAX_DISKS] = {0};
        uint64_t sizes[MAX_DISKS] = {0};
        const struct point *point = NULL;
        for (size_t i = 0; i < o->point_count; i++)
            if (!strcmp(o->points[i].id, id))
                point = &o->points[i];
        snprintf(line, sizeof line, "show " VM "@%s --json", id);
        json_t *json = life_refpoint_json(l, line);
        snprintf(line, sizeof line, "restore " VM "@%s --to %s/restored -O raw", id, l->setting->directory);
        struct command c = {0};
        if (!json || !point || life_refpoint_with(l, &c, line)) {
            good = life_bad(l, "refpoint %s: %.1500s", line, c.output);
            json_decref(json);
            break;
        }
        for (uint32_t d = 0; d < DISKS && good; d++) {
            snprintf(path, sizeof path, "%s/restored/" VM "-disk%u.raw", l->setting->directory, d);
            if (image_values(path, d, &sizes[d], &values[d]))
                good = life_bad(l, "%s cannot be read", path);
            unlink(path);
        }
        const char *wrong = good ? oracle_check_moment(o, (const uint32_t *const *)values, sizes, point->span) : NULL;
        if (wrong)
            good = life_bad(l, "restore point %s: %s", id, wrong);
        json_t *disks = json_object_get(json, "disks");
        for (uint32_t d = 0; d < DISKS && good; d++) {
            struct note n = life_named(id);
            const char *rct = json_string_value(json_object_get(json_array_get(disks, d), "rct_id"));
            snprintf(n.other, sizeof n.other, "%s", rct ? rct : "");
            n.disk = d;
            n.length = sizes[d];
            if (!rct)
                good = life_bad(l, "restore point %s: disk%u has no tracking id", id, d);
            life_note_values(l, NOTE_POINT, &n, values[d]);
        }
        for (uint32_t d = 0; d < DISKS; d++)
            free(values[d]);
        json_decref(json);
        l->counts->restores++;
    }
    oracle_free(o);
    return good;
}
