// powercut-judge BUILD DIRECTORY prepare [OPTION…]: makes a host, a repository and a VM below DIRECTORY/root, and the log DIRECTORY/log.
// powercut-judge BUILD DIRECTORY look [OPTION…]: DIRECTORY/root is what a power cut left (a copy: it is worked with); the log is
//     what users had been told. What is found good is noted in the log: the next cut is judged from there.
// powercut-judge BUILD DIRECTORY wait --for WHAT --more N: says so when that begins (start, backup, checkpoint, delete,
//     restart, grow) or was acknowledged (backup-end and so on), and ends N notes later.
//     --size N       bytes of the log's file (prepare)
//     --seed N       chooses how closely to look, and what is done
//     --verbose
// Exit status: 0 good, 1 something is wrong (the first line says what), 2 it could not be done.
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../soak/life.h"
#include "../soak/verify.h"

#define DEADLINE_S 170
#define WAIT_S 1000 // whoever waits ends it sooner
#define SLOT_SHARE 4 // of the log's file

static char *in(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        abort();
    return path;
}

static const struct note *note_at(const struct log *log, uint64_t i) { return log_data(log, &log->entries[i]); }
static enum note_kind note_kind_at(const struct log *log, uint64_t i)
{
    return log_kind(log, i) == LOG_NOTE ? (enum note_kind)log->entries[i].offset : (enum note_kind)0;
}

// Restore points that users know of, and of which it is not noted yet what they hold: each look sees all.
static void points_to_see(struct life *l)
{
    uint64_t count = log_count(l->log);
    for (uint64_t i = 0; i < count; i++) {
        const struct note *n = note_at(l->log, i);
        enum note_kind kind = note_kind_at(l->log, i);
        if (kind == NOTE_BACKUP && n->ok && l->point_count < sizeof l->points / sizeof *l->points)
            snprintf(l->points[l->point_count++], sizeof *l->points, "%s", n->text);
        for (size_t k = l->points_seen; kind == NOTE_POINT && k < l->point_count; k++)
            if (!strcmp(l->points[k], n->text))
                l->points_seen = k + 1;
    }
}

// From now on this is what the disk holds, and it is durable.
static void note_found(void *context, uint32_t disk, uint64_t size, const uint32_t *values)
{
    struct life *l = context;
    life_note(l, NOTE_SIZE, (struct note){.disk = disk, .length = size});
    life_note_values(l, NOTE_FOUND, &(struct note){.disk = disk, .length = size}, values);
    life_note(l, NOTE_FLUSH, (struct note){.disk = disk, .offset = log_count(l->log)});
}

static bool look(struct life *l, uint64_t seed, bool verbose)
{
    char wrong[1500] = "", *scratch = in(l->setting->directory, "scratch");
    uint64_t at = log_count(l->log);
    life_note(l, NOTE_KILLED, life_named("power"));
    points_to_see(l);
    mkdir(scratch, 0700);
    bool good = step_look_at_points(l);
    struct oracle *oracle = oracle_new(l->log);
    struct verify verify = {.oracle = oracle, .at = at, .root = l->root, .scratch = scratch, .full = seed % 2 == 0, .service = seed % 4 == 0,
                            .restarted = true, .seed = seed, .verbose = verbose, .found = note_found, .context = l};
    if (good && verify_run(&verify, wrong, sizeof wrong))
        good = life_bad(l, "%s", wrong);
    oracle_free(oracle);
    free(scratch);
    return good;
}

// What was done in all of the life.
static void count_all(struct life *l)
{
    struct counts *c = l->counts;
    uint64_t count = log_count(l->log);
    *c = (struct counts){0};
    for (uint64_t i = 0; i < count; i++) {
        const struct note *n = note_at(l->log, i);
        switch (note_kind_at(l->log, i)) {
        case NOTE_ACK: c->requests++, c->bytes += n->length; break;
        case NOTE_FLUSH_BEGIN: c->flushes++; break;
        case NOTE_BACKUP: c->backups += n->ok; break;
        case NOTE_CHECKPOINT: c->checkpoints++; break;
        case NOTE_DELETE: c->merges++; break;
        case NOTE_SIZE_BEGIN: c->grows++; break;
        case NOTE_KILLED: c->cuts++; break;
        default: break;
        }
    }
    printf("{\"requests\":%llu,\"bytes\":%llu,\"flushes\":%llu,\"backups\":%llu,\"checkpoints\":%llu,\"merges\":%llu,\"restores\":%llu,"
           "\"grows\":%llu,\"machine_cuts\":%llu}\n", (unsigned long long)c->requests, (unsigned long long)c->bytes,
           (unsigned long long)c->flushes, (unsigned long long)c->backups, (unsigned long long)c->checkpoints, (unsigned long long)c->merges,
           (unsigned long long)c->backups, (unsigned long long)c->grows, (unsigned long long)c->cuts);
}

// ---- the moment of a cut --------------------------------------------------------------------------------------------

// A flush of the whole VM is a stop of it.
static bool is_for_all(const struct log *log, uint64_t i, enum note_kind kind)
{
    return (kind != NOTE_FLUSH_BEGIN && kind != NOTE_FLUSH) || note_at(log, i)->disk == UINT32_MAX;
}

// Until something begins that has not yet begun when this is called, and so many more notes are made. It ends with its deadline, or
// is ended.
static int wait_for(struct log *log, const char *what, uint64_t more)
{
    static const struct {
        const char *name;
        enum note_kind kind;
    } names[] = {{"start", NOTE_START}, {"backup", NOTE_BACKUP_BEGIN}, {"checkpoint", NOTE_CHECKPOINT_BEGIN}, {"delete", NOTE_DELETE_BEGIN},
                 {"restart", NOTE_FLUSH_BEGIN}, {"grow", NOTE_SIZE_BEGIN}, {"backup-end", NOTE_BACKUP}, {"checkpoint-end", NOTE_CHECKPOINT},
                 {"delete-end", NOTE_DELETE}, {"restart-end", NOTE_FLUSH}, {"grow-end", NOTE_SIZE}};
    enum note_kind kind = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        kind = strcmp(names[i].name, what) ? kind : names[i].kind;
    if (!kind)
        return 2;
    uint64_t end = UINT64_MAX;
    for (uint64_t i = log_count(log); i < end; life_pause(2000))
        for (; i < log_count(log) && i < end; i++)
            if (end == UINT64_MAX && note_kind_at(log, i) == kind && is_for_all(log, i, kind)) {
                end = i + more;
                printf("%s\n", what);
                fflush(stdout);
            }
    return 0;
}

// Everything that a later backup builds on is there from the beginning: an id, a restore point, a checkpoint.
static bool prepare(struct life *l)
{
    bool good = life_prepare(l) && step_backup(l, "") && step_checkpoint(l);
    for (uint32_t d = 0; good && d < DISKS; d++)
        note_found(l, d, l->disks[d].size, l->disks[d].now);
    return good;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, size = 64 << 20, more = 0;
    const char *what = "start";
    bool verbose = false;
    for (int i = 4; i < argc; i++) {
        if (!strcmp(argv[i], "--verbose"))
            verbose = true;
        else if (i + 1 < argc && !strcmp(argv[i], "--for"))
            what = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--more"))
            more = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && (!strcmp(argv[i], "--seed") || !strcmp(argv[i], "--size")))
            *(argv[i][3] == 'e' ? &seed : &size) = strtoull(argv[i + 1], NULL, 10), i++;
        else
            argc = 0;
    }
    char *build = argc > 3 ? realpath(argv[1], NULL) : NULL, *directory = build ? realpath(argv[2], NULL) : NULL;
    if (!directory || (strcmp(argv[3], "prepare") && strcmp(argv[3], "look") && strcmp(argv[3], "wait"))) {
        fprintf(stderr, "usage: powercut-judge BUILD DIRECTORY prepare|look|wait [--for WHAT --more N] [--size N] [--seed N] [--verbose]\n");
        return 2;
    }
    bool fresh = argv[3][0] == 'p';
    struct setting setting = {.refpoint = in(build, "src/cli/refpoint"), .plugin = in(build, "src/diskservice/nbdkit-refpoint-plugin.so"),
                              .self = in(build, "tests/soak/soak-round"), .directory = directory, .verbose = verbose};
    struct log log;
    struct counts counts = {0};
    static struct life l;
    char *path = in(directory, "log"), *root = in(directory, "root");
    uint64_t slots = size / SLOT_SHARE / sizeof(struct log_entry);
    if (fresh ? log_create(&log, path, root, slots, size - size / SLOT_SHARE - 8192) || truncate(path, (off_t)size)
              : log_open(&log, path, true)) {
        fprintf(stderr, "powercut-judge: %s: %s\n", path, strerror(errno));
        return 2;
    }
    alarm(argv[3][0] == 'w' ? WAIT_S : DEADLINE_S);
    if (argv[3][0] == 'w')
        return wait_for(&log, what, more);
    signal(SIGPIPE, SIG_IGN);
    setenv("REFPOINT_PLUGIN", setting.plugin, 1);
    l = (struct life){.setting = &setting, .log = &log, .counts = &counts, .random = seed};
    life_use(&l);
    bool good = fresh ? prepare(&l) : look(&l, seed, verbose);
    if (good && atomic_load(&log.header->overflow))
        good = life_bad(&l, "the log is full");
    if (!good)
        printf("%s\n", l.wrong);
    count_all(&l);
    life_end(&l);
    return good ? 0 : fresh ? 2 : 1;
}
