// rebuild IMAGE LOG RESTORED FROM TO: brings IMAGE, a copy of the raw image that the VM began with, to the state that the
// restored disk claims by its counter, from the writer's own log; then compares the two, byte by byte.
// FROM and TO (ns) enclose the checkpoint. Writes acknowledged before FROM must be in the restored disk, writes issued
// after TO must not. The one write that was on its way at the cut may be there in full or not at all.
//
// rebuild IMAGE LOG RESTORED flushed: the disk has gone through a power cut, and nothing was written since. Every write up to the
// last flush must be there; of those after it each sector may be there or not, as of any disk, but nothing else may.
// Exit status: 0 equal, 1 different, 2 could not tell.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "entry.h"

#define CHUNK (1u << 20)
enum { SECTOR = 512 };

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void read_at(int fd, void *data, size_t size, uint64_t offset, const char *name)
{
    if (pread(fd, data, size, (off_t)offset) != (ssize_t)size)
        die(name);
}

static void apply(int image, const struct entry *entry, const char *name)
{
    static uint8_t data[ENTRY_UNIT];
    entry_content(entry, data);
    if (pwrite(image, data, entry->length, (off_t)entry->offset) != (ssize_t)entry->length)
        die(name);
}

// Does the disk hold this write, whole?
static bool holds(int disk, const struct entry *entry, const char *name)
{
    static uint8_t wanted[ENTRY_UNIT], found[ENTRY_UNIT];
    entry_content(entry, wanted);
    read_at(disk, found, entry->length, entry->offset, name);
    return !memcmp(wanted, found, entry->length);
}

static bool parse(const char *line, struct entry *e)
{
    return sscanf(line, ENTRY_SCAN, &e->number, &e->issued, &e->acknowledged, &e->offset, &e->length, &e->seed) == 6 &&
           e->length <= ENTRY_UNIT;
}

// The write that a killed writer had on its way.
static bool read_next(const char *path, uint64_t number, struct entry *entry)
{
    char next[PATH_MAX], line[ENTRY_LINE + 1] = "";
    snprintf(next, sizeof next, "%s.next", path);
    FILE *file = fopen(next, "r");
    bool there = file && fgets(line, sizeof line, file) && strchr(line, '\n') && parse(line, entry) && entry->number == number;
    if (file)
        fclose(file);
    return there;
}

static struct entry *read_log(const char *path, size_t *count)
{
    FILE *file = fopen(path, "r");
    struct entry *entries = NULL;
    size_t room = 0;
    char line[ENTRY_LINE + 1];
    if (!file)
        die(path);
    for (*count = 0;; ++*count) {
        if (*count == room && !(entries = realloc(entries, (room = room * 2 + 4096) * sizeof *entries)))
            die(path);
        if (!fgets(line, sizeof line, file) || !strchr(line, '\n')) // the end, or the writer is at this line just now
            break;
        if (!parse(line, &entries[*count]) || entries[*count].number != *count + 1) {
            fprintf(stderr, "rebuild: %s: line %zu is damaged\n", path, *count + 1);
            exit(2);
        }
    }
    fclose(file);
    *count += read_next(path, *count + 1, &entries[*count]);
    return entries;
}

// Where the next data of either file begins, at or after `offset`.
static uint64_t next_data(int a, int b, uint64_t offset, uint64_t size)
{
    uint64_t next = size;
    int files[] = {a, b};
    for (int i = 0; i < 2; i++) {
        off_t data = lseek(files[i], (off_t)offset, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            die("SEEK_DATA");
        if (data >= 0 && (uint64_t)data < next)
            next = (uint64_t)data;
    }
    return next / ENTRY_BLOCK * ENTRY_BLOCK;
}

// Counts blocks that differ outside [skip, skip + skip_length); tells about the first.
static uint64_t compare(int image, int restored, uint64_t size, uint64_t *first)
{
    static uint8_t a[CHUNK], b[CHUNK];
    uint64_t different = 0;
    for (uint64_t offset = 0; (offset = next_data(image, restored, offset, size)) < size;) {
        size_t length = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;
        read_at(image, a, length, offset, "rebuilt image");
        read_at(restored, b, length, offset, "restored disk");
        if (memcmp(a, b, length))
            for (size_t i = 0; i < length; i += ENTRY_BLOCK)
                if (memcmp(a + i, b + i, ENTRY_BLOCK) && !different++)
                    *first = offset + i;
        offset += length;
    }
    return different;
}

// Up to the last flush, and of what came later the sectors that the disk has; `found` counts the writes that left any.
static uint64_t apply_flushed(int image, int restored, const struct entry *log, size_t count, char *const names[], uint64_t rebuilt,
                              uint64_t *found)
{
    static uint8_t wanted[ENTRY_UNIT], there[ENTRY_UNIT];
    uint64_t flushed = 0;
    for (size_t i = 0; i < count; i++)
        if (log[i].acknowledged != ENTRY_NEVER && log[i].number % ENTRY_FLUSH == 0)
            flushed = log[i].number;
    for (uint64_t i = rebuilt; i < flushed; i++)
        apply(image, &log[i], names[1]);
    *found = 0;
    for (uint64_t i = flushed; i < count; i++) {
        bool any = false;
        entry_content(&log[i], wanted);
        read_at(restored, there, log[i].length, log[i].offset, names[3]);
        for (uint32_t at = 0; at < log[i].length; at += SECTOR)
            if (!memcmp(wanted + at, there + at, SECTOR)) {
                any = true;
                if (pwrite(image, wanted + at, SECTOR, (off_t)(log[i].offset + at)) != SECTOR)
                    die(names[1]);
            }
        *found += any;
    }
    return flushed;
}

// Compares, and says which of the first `count` writes are lost. The exit status.
static int judge(int image, int restored, const struct entry *log, uint64_t count, uint64_t size, const char *name)
{
    uint64_t first = 0, different = compare(image, restored, size, &first);
    unsigned lost = 0;
    if (!different)
        return 0;
    printf("different: %" PRIu64 " blocks of 4 KiB, the first at offset %" PRIu64 "\n", different, first);
    for (uint64_t i = 0; i < count; i++)
        if (log[i].number % 2 && !holds(restored, &log[i], name) && lost++ < 5)
            printf("  write %" PRIu64 " (%" PRIu32 " bytes at %" PRIu64 "), acknowledged before, is lost\n", log[i].number,
                   log[i].length, log[i].offset);
    return 1;
}

int main(int argc, char **argv)
{
    bool power_cut = argc == 5 && !strcmp(argv[4], "flushed");
    if (argc != 6 && !power_cut) {
        fprintf(stderr, "usage: rebuild IMAGE LOG RESTORED FROM_NS TO_NS | rebuild IMAGE LOG RESTORED flushed\n");
        return 2;
    }
    int image = open(argv[1], O_RDWR), restored = open(argv[3], O_RDONLY);
    struct stat ours, theirs;
    if (image < 0 || fstat(image, &ours))
        die(argv[1]);
    if (restored < 0 || fstat(restored, &theirs))
        die(argv[3]);
    if (ours.st_size != theirs.st_size) {
        printf("different: %lld bytes were backed up, %lld restored\n", (long long)ours.st_size, (long long)theirs.st_size);
        return 1;
    }
    uint64_t size = (uint64_t)ours.st_size;
    size_t count;
    static struct entry *log; // needed to the end
    log = read_log(argv[2], &count);

    uint8_t block[ENTRY_BLOCK];
    read_at(image, block, sizeof block, entry_counter_offset(size), argv[1]);
    uint64_t rebuilt = entry_number(block), found;
    if (power_cut) {
        uint64_t flushed = apply_flushed(image, restored, log, count, argv, rebuilt, &found);
        int status = judge(image, restored, log, flushed, size, argv[3]);
        if (!status)
            printf("equal, all %" PRIu64 " bytes: every write up to %" PRIu64 ", the last flush, and of the %" PRIu64
                   " after it %" PRIu64 "\n", size, flushed, (uint64_t)count - flushed, found);
        return status;
    }

    int64_t from = strtoll(argv[4], NULL, 10), to = strtoll(argv[5], NULL, 10);
    read_at(restored, block, sizeof block, entry_counter_offset(size), argv[3]);
    uint64_t cut = entry_number(block);
    uint64_t at_least = 0, at_most = 0;
    for (size_t i = 0; i < count; i++) {
        if (log[i].acknowledged < from)
            at_least = log[i].number;
        if (log[i].issued <= to)
            at_most = log[i].number;
    }
    // an odd last write is a data write, which the counter does not show yet
    if (cut < at_least / 2 * 2 || cut > at_most || cut % 2) {
        printf("different: the restored counter is %" PRIu64 "; by the log it must be between %" PRIu64 " and %" PRIu64 "\n",
               cut, at_least / 2 * 2, at_most);
        return 1;
    }
    if (rebuilt > cut) {
        fprintf(stderr, "rebuild: the image is at write %" PRIu64 " already, later than %" PRIu64 "\n", rebuilt, cut);
        return 2;
    }
    for (uint64_t i = rebuilt; i < cut; i++)
        apply(image, &log[i], argv[1]);
    bool one_more = cut < count && log[cut].issued <= to && holds(restored, &log[cut], argv[3]);
    if (cut + 1 == at_least && !one_more) {
        printf("different: write %" PRIu64 " was acknowledged before the checkpoint and is not there\n", cut + 1);
        return 1;
    }
    if (one_more)
        apply(image, &log[cut], argv[1]);

    int status = judge(image, restored, log, cut, size, argv[3]);
    if (!status)
        printf("equal, all %" PRIu64 " bytes, at write %" PRIu64 " (between %" PRIu64 " and %" PRIu64 " by the log's clock)\n", size,
               cut + one_more, at_least, at_most);
    return status;
}
