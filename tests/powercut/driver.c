// powercut-driver BUILD SEED STEP: what goes on in the machine until its power is cut. BUILD holds the programs in the places of a
// build folder.
//
// The log (record/log.h) is memory that the machine shares with the one that emulates it: what is noted there outlives the cut, at
// no cost and in order. The life of the VM goes on where the notes say it was; everything else is on the machine's disk.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../soak/life.h"

#define DEVICES "/sys/bus/pci/devices"

static char *text_at(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text_at(const char *format, ...)
{
    char *text;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0)
        abort();
    va_end(list);
    return text;
}

static bool has_number(const char *device, const char *name, unsigned number)
{
    unsigned found = 0;
    char *path = text_at(DEVICES "/%s/%s", device, name);
    FILE *file = fopen(path, "re");
    bool same = file && fscanf(file, "%x", &found) == 1 && found == number;
    if (file)
        fclose(file);
    free(path);
    return same;
}

// The shared memory is a device of QEMU's (ivshmem-plain).
static int open_shared_log(struct log *log)
{
    int rc = -1;
    DIR *dir = opendir(DEVICES);
    for (struct dirent *entry; rc && dir && (entry = readdir(dir));) {
        if (!has_number(entry->d_name, "vendor", 0x1af4) || !has_number(entry->d_name, "device", 0x1110))
            continue;
        char *enable = text_at(DEVICES "/%s/enable", entry->d_name), *memory = text_at(DEVICES "/%s/resource2", entry->d_name);
        int fd = open(enable, O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && write(fd, "1", 1) == 1)
            rc = log_open(log, memory, true);
        if (fd >= 0)
            close(fd);
        free(enable);
        free(memory);
    }
    if (dir)
        closedir(dir);
    return rc;
}

// The life so far, as it was noted; the judge noted what the disks held after the last cut.
static void remember(struct life *l)
{
    uint64_t count = log_count(l->log);
    for (uint64_t i = 0; i < count; i++) {
        const struct log_entry *entry = &l->log->entries[i];
        const struct note *n = log_data(l->log, entry);
        if (log_kind(l->log, i) != LOG_NOTE)
            continue;
        struct client_disk *disk = n->disk < DISKS ? &l->disks[n->disk] : NULL;
        switch ((enum note_kind)entry->offset) {
        case NOTE_VM:
            life_use_vm(l, n->text);
            break;
        case NOTE_SIZE:
            client_disk_resize(disk, n->length);
            break;
        case NOTE_ISSUE:
            disk->next = n->number >= disk->next ? n->number + 1 : disk->next;
            break;
        case NOTE_CHECKPOINT_BEGIN:
            l->checkpoint_number++;
            break;
        case NOTE_FOUND:
            memcpy(disk->now, n + 1, disk->size / SECTOR * sizeof *disk->now);
            break;
        default:
            break;
        }
    }
}

// Of a checkpoint that users have for sure.
static bool delete_one(struct life *l) { return (l->checkpoint_count || step_checkpoint(l)) && step_delete(l); }

static bool first_step(struct life *l, const char *step)
{
    static const struct {
        const char *name;
        bool (*run)(struct life *l);
    } steps[] = {{"checkpoint", step_checkpoint}, {"delete", delete_one}, {"restart", step_restart}, {"grow", step_grow}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (!strcmp(step, steps[i].name))
            return steps[i].run(l);
    return strcmp(step, "backup") || step_backup(l, "");
}

int main(int argc, char **argv)
{
    struct log log;
    struct counts counts = {0};
    static struct life l;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 4 || open_shared_log(&log)) {
        printf("powercut wrong: no shared log: %s\n", strerror(errno));
        return 2;
    }
    char *directory = strndup(log.header->root, strlen(log.header->root) - strlen("/root"));
    struct setting setting = {.refpoint = text_at("%s/src/cli/refpoint", argv[1]),
                              .plugin = text_at("%s/src/diskservice/nbdkit-refpoint-plugin.so", argv[1]),
                              .directory = directory, .pace = 50000};
    l = (struct life){.setting = &setting, .log = &log, .counts = &counts, .random = strtoull(argv[2], NULL, 10)};
    life_use(&l);
    remember(&l);
    life_note(&l, NOTE_START, (struct note){0});
    bool good = life_refpoint(&l, "vm start " VM) && life_take_stock(&l);
    if (good) {
        l.running = true;
        life_guest_start(&l);
        good = first_step(&l, argv[3]);
    }
    while (good && life_has_room(&l))
        good = life_step(&l);
    if (!good)
        printf("powercut wrong: %s\n", l.wrong);
    for (;;) // until the cut
        pause();
}
