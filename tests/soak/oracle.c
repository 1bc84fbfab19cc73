#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Per sector: requests that were sent to it, and values that were found there after a kill, newest first.
struct event {
    int32_t before;     // index of the event before it, -1: none
    uint32_t number;    // of the request; or the value
    uint64_t found;     // NEVER: a request
};
struct history {
    int32_t *newest;
    size_t sectors;
    struct event *events;
    size_t count, room;
};

#define GROW(array, count)                                                                                             \
    do {                                                                                                               \
        if (!((count) & ((count)-1)))                                                                                  \
            (array) = realloc((array), ((count) ? (count) * 2 : 1) * sizeof *(array));                                 \
    } while (0)

static void add_event(struct history *h, uint64_t sector, uint32_t number, uint64_t found)
{
    if (sector >= h->sectors) {
        size_t sectors = (sector + 1) * 2;
        h->newest = realloc(h->newest, sectors * sizeof *h->newest);
        memset(h->newest + h->sectors, 0xff, (sectors - h->sectors) * sizeof *h->newest);
        h->sectors = sectors;
    }
    if (h->count == h->room)
        h->events = realloc(h->events, (h->room = h->room * 2 + 65536) * sizeof *h->events);
    h->events[h->count] = (struct event){h->newest[sector], number, found};
    h->newest[sector] = (int32_t)h->count++;
}

static void add_op(struct oracle_disk *disk, const struct note *note, uint64_t at)
{
    while (disk->op_count <= note->number) {
        GROW(disk->ops, disk->op_count);
        disk->ops[disk->op_count++] = (struct op){.issued = NEVER, .acked = NEVER};
    }
    disk->ops[note->number] = (struct op){(enum op_kind)note->what, note->ok, note->offset, note->length, at, NEVER};
    for (uint64_t s = note->offset / SECTOR; s < (note->offset + note->length) / SECTOR; s++)
        add_event(disk->history, s, note->number, NEVER);
}

static struct checkpoint *find_checkpoint(struct oracle *o, const char *name)
{
    for (size_t i = 0; i < o->checkpoint_count; i++)
        if (!strcmp(o->checkpoints[i].name, name))
            return &o->checkpoints[i];
    GROW(o->checkpoints, o->checkpoint_count);
    struct checkpoint *c = &o->checkpoints[o->checkpoint_count++];
    *c = (struct checkpoint){.made = {NEVER, NEVER}, .deleted = {NEVER, NEVER}};
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

static struct point *find_point(struct oracle *o, const char *id)
{
    for (size_t i = 0; i < o->point_count; i++)
        if (!strcmp(o->points[i].id, id))
            return &o->points[i];
    return NULL;
}

static void add_flush(struct oracle_disk *disk, struct span span)
{
    GROW(disk->flushes, disk->flush_count);
    disk->flushes[disk->flush_count++] = span;
}

static void take_size(struct oracle *o, const struct note *note, uint64_t at, bool end)
{
    struct oracle_disk *disk = &o->disks[note->disk];
    if (note->disk >= o->disk_count)
        o->disk_count = note->disk + 1;
    if (end && disk->size_count && disk->sizes[disk->size_count - 1].size == note->length)
        disk->sizes[disk->size_count - 1].span.end = at;
    else
        disk->sizes[disk->size_count++] = (struct size){{at, end ? at : NEVER}, note->length};
}

static void take(struct oracle *o, const struct note *note, const uint32_t *values, enum note_kind kind, uint64_t at)
{
    struct oracle_disk *disk = note->disk < MAX_DISKS ? &o->disks[note->disk] : NULL;
    struct point *point;
    switch (kind) {
    case NOTE_VM:
        o->vm = at;
        snprintf(o->vm_id, sizeof o->vm_id, "%s", note->text);
        break;
    case NOTE_SIZE_BEGIN:
    case NOTE_SIZE:
        take_size(o, note, at, kind == NOTE_SIZE);
        break;
    case NOTE_ISSUE:
        add_op(disk, note, at);
        break;
    case NOTE_ACK:
        disk->ops[note->number].acked = at;
        break;
    case NOTE_FLUSH:
        if (!disk) {
            GROW(o->ends, o->end_count);
            o->ends[o->end_count++] = at;
        }
        for (size_t i = 0; i < o->disk_count; i++)
            if (!disk || disk == &o->disks[i])
                add_flush(&o->disks[i], (struct span){note->offset, at});
        break;
    case NOTE_BACKUP_BEGIN:
        GROW(o->backups, o->backup_count);
        o->backups[o->backup_count++] = (struct span){at, NEVER};
        break;
    case NOTE_BACKUP:
        o->backups[o->backup_count - 1].end = at;
        if (note->ok) {
            GROW(o->points, o->point_count);
            point = &o->points[o->point_count++];
            *point = (struct point){.span = {note->offset, at}};
            snprintf(point->id, sizeof point->id, "%s", note->text);
        }
        break;
    case NOTE_POINT:
        if ((point = find_point(o, note->text)) && disk) {
            struct point_map *map = &point->disks[note->disk];
            snprintf(map->rct_id, sizeof map->rct_id, "%s", note->other);
            map->size = note->length;
            map->values = values;
        }
        break;
    case NOTE_CHECKPOINT_BEGIN:
        find_checkpoint(o, note->text)->made.begin = at;
        break;
    case NOTE_CHECKPOINT:
        if (note->ok)
            find_checkpoint(o, note->text)->made.end = at;
        break;
    case NOTE_DELETE_BEGIN:
        find_checkpoint(o, note->text)->deleted.begin = at;
        break;
    case NOTE_DELETE:
        if (note->ok)
            find_checkpoint(o, note->text)->deleted.end = at;
        break;
    case NOTE_FOUND:
        for (uint64_t s = 0; s < note->length / SECTOR; s++)
            if (s < disk->history->sectors && disk->history->newest[s] >= 0)
                add_event(disk->history, s, values[s], at);
        break;
    case NOTE_KILLED:
        if (!strcmp(note->text, "power")) {
            GROW(o->cuts, o->cut_count);
            o->cuts[o->cut_count++] = at;
        }
        break;
    case NOTE_START:
    case NOTE_FLUSH_BEGIN:
        break;
    }
}

struct oracle *oracle_new(const struct log *log)
{
    struct oracle *o = calloc(1, sizeof *o);
    o->log = log;
    o->vm = NEVER;
    for (size_t i = 0; i < MAX_DISKS; i++)
        o->disks[i].history = calloc(1, sizeof *o->disks[i].history);
    uint64_t count = log_count(log);
    for (uint64_t i = 0; i < count; i++) {
        const struct log_entry *entry = &log->entries[i];
        const void *data = log_data(log, entry);
        if (log_kind(log, i) == LOG_NOTE)
            take(o, data, (const uint32_t *)((const struct note *)data + 1), (enum note_kind)entry->offset, i);
    }
    return o;
}

void oracle_free(struct oracle *o)
{
    for (size_t i = 0; o && i < MAX_DISKS; i++) {
        free(o->disks[i].ops);
        free(o->disks[i].flushes);
        free(o->disks[i].history->newest);
        free(o->disks[i].history->events);
        free(o->disks[i].history);
    }
    if (o) {
        free(o->backups);
        free(o->points);
        free(o->checkpoints);
        free(o->ends);
        free(o->cuts);
    }
    free(o);
}

// ---- content --------------------------------------------------------------------------------------------------------

static _Thread_local char wrong[512];

// What is settled, and can only be replaced by something newer.
struct limits {
    uint64_t settled; // acknowledged before this moment
    uint64_t fua;     // acknowledged before this one, with FUA
    uint64_t sent;    // nothing that was sent later can be there
};

struct instant { // of oracle_check_moment
    uint64_t included, excluded;
    uint32_t included_disk, excluded_disk;
    uint64_t included_sector, excluded_sector;
};

static bool fits(const struct op *op, uint32_t number, uint32_t value)
{
    return op->kind == OP_WRITE ? value == number : value == VALUE_ZERO;
}

static bool value_possible(const struct oracle_disk *disk, uint32_t disk_number, uint64_t sector, uint32_t value,
                           const struct limits *limits, struct instant *instant)
{
    const struct history *h = disk->history;
    for (int32_t i = sector < h->sectors ? h->newest[sector] : -1; i >= 0; i = h->events[i].before) {
        const struct event *event = &h->events[i];
        if (event->found != NEVER) {
            if (event->found >= limits->sent)
                continue;
            if (event->number == value)
                return true;
            if (event->found < limits->settled)
                return false;
            continue;
        }
        const struct op *op = &disk->ops[event->number];
        if (op->issued >= limits->sent)
            continue;
        if (fits(op, event->number, value)) {
            if (instant && op->kind == OP_WRITE && op->issued > instant->included) {
                instant->included = op->issued;
                instant->included_disk = disk_number;
                instant->included_sector = sector;
            }
            return true;
        }
        // A trim is a hint: what was there before it may still be there.
        if (op->kind == OP_TRIM)
            continue;
        if (op->acked < limits->settled || (op->fua && op->acked < limits->fua))
            return false;
        if (instant && value != VALUE_ZERO && op->kind == OP_WRITE && op->acked < instant->excluded) {
            instant->excluded = op->acked;
            instant->excluded_disk = disk_number;
            instant->excluded_sector = sector;
        }
    }
    return value == VALUE_ZERO;
}

static const char *describe(const struct oracle *o, uint32_t disk, uint64_t sector, uint32_t value, const struct limits *limits)
{
    const struct oracle_disk *d = &o->disks[disk];
    int n = value == VALUE_DAMAGED
                ? snprintf(wrong, sizeof wrong, "disk%u sector %llu is damaged;", disk, (unsigned long long)sector)
                : snprintf(wrong, sizeof wrong, "disk%u sector %llu holds %u, which it must not; newest first, up to %llu, settled before %llu:",
                           disk, (unsigned long long)sector, value, (unsigned long long)limits->sent, (unsigned long long)limits->settled);
    int shown = 0;
    for (int32_t i = sector < d->history->sectors ? d->history->newest[sector] : -1; i >= 0 && shown < 6; i = d->history->events[i].before) {
        const struct event *e = &d->history->events[i];
        if ((e->found == NEVER ? d->ops[e->number].issued : e->found) >= limits->sent)
            continue;
        static const char *const kinds[] = {"write", "zero", "trim"};
        if (e->found != NEVER)
            n += snprintf(wrong + n, sizeof wrong - (size_t)n, " [found %u at %llu]", e->number, (unsigned long long)e->found);
        else
            n += snprintf(wrong + n, sizeof wrong - (size_t)n, " [%s %u sent %llu acknowledged %lld%s]", kinds[d->ops[e->number].kind],
                          e->number, (unsigned long long)d->ops[e->number].issued, (long long)d->ops[e->number].acked,
                          d->ops[e->number].fua ? " FUA" : "");
        if (n >= (int)sizeof wrong)
            break;
        shown++;
    }
    return wrong;
}

static const char *check(const struct oracle *o, uint32_t disk, const uint32_t *values, uint64_t size, const struct limits *limits,
                         struct instant *instant)
{
    for (uint64_t s = 0; s < size / SECTOR; s++)
        if (values[s] == VALUE_DAMAGED || !value_possible(&o->disks[disk], disk, s, values[s], limits, instant))
            return describe(o, disk, s, values[s], limits);
    return NULL;
}

const char *oracle_check_cut(const struct oracle *o, uint32_t disk, const uint32_t *values, uint64_t size, uint64_t at)
{
    struct limits limits = {.settled = 0, .fua = at, .sent = at};
    const struct oracle_disk *d = &o->disks[disk];
    for (size_t i = 0; i < d->flush_count; i++)
        if (d->flushes[i].end < at && d->flushes[i].begin > limits.settled)
            limits.settled = d->flushes[i].begin;
    return check(o, disk, values, size, &limits, NULL);
}

const char *oracle_check_now(const struct oracle *o, uint32_t disk, const uint32_t *values, uint64_t size, uint64_t at)
{
    struct limits limits = {at, at, at};
    return check(o, disk, values, size, &limits, NULL);
}

const char *oracle_check_moment(const struct oracle *o, const uint32_t *const *values, const uint64_t *sizes, struct span span)
{
    struct limits limits = {span.begin, span.begin, span.end};
    struct instant instant = {.excluded = NEVER};
    for (uint32_t i = 0; i < o->disk_count; i++) {
        const char *found = values[i] ? check(o, i, values[i], sizes[i], &limits, &instant) : NULL;
        if (found)
            return found;
    }
    if (instant.included <= instant.excluded)
        return NULL;
    snprintf(wrong, sizeof wrong,
             "no single moment: disk%u sector %llu has what was sent at %llu, disk%u sector %llu lacks what was acknowledged at %llu",
             instant.included_disk, (unsigned long long)instant.included_sector, (unsigned long long)instant.included,
             instant.excluded_disk, (unsigned long long)instant.excluded_sector, (unsigned long long)instant.excluded);
    return wrong;
}

bool oracle_size_possible(const struct oracle *o, uint32_t disk, uint64_t size, uint64_t at)
{
    const struct oracle_disk *d = &o->disks[disk];
    for (size_t i = d->size_count; i-- > 0;) {
        if (d->sizes[i].span.begin >= at)
            continue;
        if (d->sizes[i].size == size)
            return true;
        if (d->sizes[i].span.end < at)
            return false;
    }
    return false;
}

static void mark(const struct oracle_disk *d, uint64_t since, uint64_t at, uint64_t unit, uint8_t *units, uint64_t count)
{
    for (size_t i = 1; i < d->op_count; i++) {
        const struct op *op = &d->ops[i];
        if (op->issued >= at || op->acked < since || !op->length)
            continue;
        uint64_t first = op->offset / unit * (unit / UNIT), end = ((op->offset + op->length - 1) / unit + 1) * (unit / UNIT);
        for (uint64_t u = first; u < end && u < count; u++)
            units[u] = 1;
    }
}

// What a power cut adds: regions that something was sent to; and behind each of them as many as there are in a row before it.
static void mark_cut(const struct oracle *o, const struct oracle_disk *d, uint64_t at, uint8_t *units, uint64_t count)
{
    enum { AHEAD_MAX = 64, UNITS = REGION / UNIT };
    uint64_t session = 0, row = 0, end = 0; // of what counts, as far as is known
    for (size_t i = 0; i < o->end_count && o->ends[i] < at; i++)
        session = o->ends[i];
    uint8_t *used = calloc(count + 1, 1);
    mark(d, session, at, REGION, used, count);
    for (uint64_t first = 0; first < count; first += UNITS) {
        uint64_t reach = first + (1 + (row < AHEAD_MAX ? row : AHEAD_MAX)) * UNITS;
        end = used[first] && reach > end ? reach : end;
        row = used[first] ? row + 1 : 0;
        for (uint64_t u = first; u < first + UNITS && u < count && u < end; u++)
            units[u] = 1;
    }
    free(used);
}

void oracle_may_tell(const struct oracle *o, uint32_t disk, uint64_t since, uint64_t at, bool cut, uint8_t *units, uint64_t count)
{
    mark(&o->disks[disk], since, at, UNIT, units, count);
    for (size_t i = 0; i < o->cut_count && o->cuts[i] < at; i++)
        if (o->cuts[i] > since)
            mark_cut(o, &o->disks[disk], o->cuts[i], units, count);
    if (cut)
        mark_cut(o, &o->disks[disk], at, units, count);
}
