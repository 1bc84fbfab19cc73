/* writer [-p MILLISECONDS] [-n STEPS] /data/N…: leaves records that can be checked later, on one file system or, in
 * order, on several, and goes on from where an earlier one ended. Runs in the test guest; records.py is its judge.
 *
 * Step S on disk N, whose folder is given:
 *   1. blocks     a run of blocks that follows from N and S is overwritten in a file of fixed size; fdatasync
 *   2. bulk.S     every 32nd step, a file of 256 KiB; fsync; the one of 128 steps before is deleted
 *   3. log.K      a record is appended to the segment K = S / 4096; fdatasync; older segments than four are deleted
 *   4. the line "ack N S MILLISECONDS" leaves the guest: from here on, S must be found
 * With several folders, step S is done on each before S + 1 begins on the first. Every 64 steps, FITRIM.
 *
 * All that is written are blocks of 512 bytes, which no disk tears; little-endian, see struct block. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 512,
    BLOCKS = 8192,        /* of the file that is overwritten */
    RUN_MAX = 64,         /* blocks of one overwrite */
    SEGMENT = 4096,       /* records of a segment of the log */
    SEGMENTS = 4,         /* that are kept */
    BULK = 512,           /* blocks of a bulk file */
    BULK_EVERY = 32,
    BULK_KEPT = 4,
    TRIM_EVERY = 64,
    DISKS_MAX = 9,
};

enum kind { RECORD = 1, OVERWRITTEN = 2, BULK_BLOCK = 3 };

#define MAGIC 0x314b434f4c425052 /* "RPBLOCK1" */

/* Never on a machine that is not x86: the guest is. */
struct block {
    uint64_t magic;
    uint32_t checksum; /* CRC-32 of all that follows */
    uint32_t kind;
    uint64_t sequence;
    uint32_t disk;
    uint32_t position; /* block number in its file; of a record, in its segment */
    uint64_t life;     /* random number of the writer's process */
    uint64_t time;     /* microseconds since 1970 */
    uint32_t previous; /* of a record: checksum of the one before it */
    uint32_t disks;    /* how many are written in order, this one included; 1: on its own */
    uint64_t payload[(BLOCK - 56) / 8];
};
_Static_assert(sizeof(struct block) == BLOCK, "a block is a sector");

struct disk {
    const char *folder;
    int directory, blocks, log;
    uint32_t number, previous;
    uint64_t sequence; /* of the last record */
};

static struct disk disks[DISKS_MAX];
static uint32_t disk_count;
static uint64_t life;
static int acks = -1;
static volatile sig_atomic_t told_to_end;

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line to whoever tests. Not waited for: what does not fit is lost, and the next one says more anyway. */
static void tell(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (acks >= 0 && length > 0 && length < (int)sizeof line && write(acks, line, length) < 0 && errno != EAGAIN)
        perror("writer: /run/acks");
}

static void die(const struct disk *disk, const char *what)
{
    int error = errno;
    tell("error %u %s: %s\n", disk->number, what, strerror(error));
    fprintf(stderr, "refpoint guest error on disk %u: %s: %s\n", disk->number, what, strerror(error));
    exit(1);
}

static uint32_t crc32(const void *data, size_t length)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
            table[i] = value;
        }
    }
    uint32_t crc = ~0u;
    for (const uint8_t *byte = data, *end = byte + length; byte < end; byte++)
        crc = crc >> 8 ^ table[(crc ^ *byte) & 0xff];
    return ~crc;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t microseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void fill(struct block *block, const struct disk *disk, enum kind kind, uint64_t sequence, uint32_t position)
{
    *block = (struct block){.magic = MAGIC, .kind = kind, .sequence = sequence, .disk = disk->number, .life = life,
                            .position = position, .disks = disk_count, .time = microseconds(CLOCK_REALTIME)};
    if (kind == RECORD)
        block->previous = disk->previous;
    uint64_t noise = mix(life ^ sequence << 20 ^ (uint64_t)kind << 60 ^ position);
    for (size_t i = 0; i < sizeof block->payload / sizeof *block->payload; i++)
        block->payload[i] = noise += 0x9e3779b97f4a7c15 * (i + 1);
    block->checksum = crc32(&block->kind, BLOCK - offsetof(struct block, kind));
}

static void write_all(const struct disk *disk, int fd, const void *data, size_t length, off_t offset, const char *what)
{
    for (size_t done = 0; done < length;) {
        ssize_t part = pwrite(fd, (const char *)data + done, length - done, offset + (off_t)done);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            die(disk, what);
        done += (size_t)part;
    }
}

static void name(char *text, size_t size, const char *stem, uint64_t number)
{
    snprintf(text, size, "%s.%llu", stem, (unsigned long long)number);
}

static void delete(const struct disk *disk, const char *stem, uint64_t number)
{
    char file[64];
    name(file, sizeof file, stem, number);
    if (unlinkat(disk->directory, file, 0) < 0 && errno != ENOENT)
        die(disk, "delete");
}

static int open_segment(const struct disk *disk, uint64_t segment, int flags)
{
    char file[64];
    name(file, sizeof file, "log", segment);
    return openat(disk->directory, file, flags | O_RDWR | O_CLOEXEC, 0644);
}

/* The last record of a segment. A tail without one is what ext4 may leave of an append that was never synced. */
static bool last_of_segment(struct disk *disk, uint64_t segment)
{
    int fd = open_segment(disk, segment, 0);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        die(disk, "open the log");
    bool found = false;
    for (off_t position = status.st_size / BLOCK - 1; position >= 0 && !found; position--) {
        struct block block;
        if (pread(fd, &block, BLOCK, position * BLOCK) != BLOCK)
            die(disk, "read the log");
        found = block.magic == MAGIC && block.checksum == crc32(&block.kind, BLOCK - offsetof(struct block, kind));
        if (found) {
            disk->sequence = block.sequence;
            disk->previous = block.checksum;
        }
    }
    close(fd);
    return found;
}

static void find_end(struct disk *disk)
{
    uint64_t newest = 0, oldest = UINT64_MAX;
    DIR *folder = opendir(disk->folder);
    if (!folder)
        die(disk, disk->folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        unsigned long long segment;
        if (sscanf(entry->d_name, "log.%llu", &segment) != 1)
            continue;
        newest = segment > newest ? segment : newest;
        oldest = segment < oldest ? segment : oldest;
    }
    closedir(folder);
    for (uint64_t segment = newest + 1; segment-- > oldest;)
        if (last_of_segment(disk, segment))
            return;
}

static void open_disk(struct disk *disk, const char *folder)
{
    const char *number = strrchr(folder, '/');
    *disk = (struct disk){.folder = folder, .log = -1, .number = (uint32_t)atoi(number ? number + 1 : folder)};
    disk->directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->directory < 0)
        die(disk, folder);
    disk->blocks = openat(disk->directory, "blocks", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (disk->blocks < 0 || posix_fallocate(disk->blocks, 0, (off_t)BLOCKS * BLOCK) != 0 || fsync(disk->blocks) < 0 ||
        fsync(disk->directory) < 0)
        die(disk, "make the file of blocks");
    find_end(disk);
    if (disk->sequence % SEGMENT) {
        disk->log = open_segment(disk, disk->sequence / SEGMENT, 0);
        if (disk->log < 0)
            die(disk, "open the log");
    }
}

static void overwrite_blocks(struct disk *disk, uint64_t sequence)
{
    static struct block run[RUN_MAX];
    uint64_t choice = mix(disk->number * 0x9e3779b97f4a7c15 + sequence);
    uint32_t start = choice % BLOCKS, count = 1 + (uint32_t)(choice >> 32) % RUN_MAX;
    if (count > BLOCKS - start)
        count = BLOCKS - start;
    for (uint32_t i = 0; i < count; i++)
        fill(&run[i], disk, OVERWRITTEN, sequence, start + i);
    write_all(disk, disk->blocks, run, count * (size_t)BLOCK, (off_t)start * BLOCK, "overwrite");
    if (fdatasync(disk->blocks) < 0)
        die(disk, "fdatasync of the file of blocks");
}

static void write_bulk(struct disk *disk, uint64_t sequence)
{
    static struct block bulk[BULK];
    char file[64];
    name(file, sizeof file, "bulk", sequence);
    int fd = openat(disk->directory, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        die(disk, "make a bulk file");
    for (uint32_t i = 0; i < BULK; i++)
        fill(&bulk[i], disk, BULK_BLOCK, sequence, i);
    write_all(disk, fd, bulk, sizeof bulk, 0, "write a bulk file");
    if (fsync(fd) < 0 || close(fd) < 0 || fsync(disk->directory) < 0)
        die(disk, "fsync of a bulk file");
    if (sequence > BULK_KEPT * BULK_EVERY)
        delete(disk, "bulk", sequence - BULK_KEPT * BULK_EVERY);
}

/* Records are numbered from 1; record S stands at S % SEGMENT of its segment: segment 0 begins with a hole of one. */
static void append_record(struct disk *disk, uint64_t sequence)
{
    bool first = disk->log < 0 || sequence % SEGMENT == 0;
    if (first) {
        if (disk->log >= 0)
            close(disk->log);
        disk->log = open_segment(disk, sequence / SEGMENT, O_CREAT);
        if (disk->log < 0)
            die(disk, "make a segment of the log");
        if (sequence / SEGMENT >= SEGMENTS)
            delete(disk, "log", sequence / SEGMENT - SEGMENTS);
    }
    struct block record;
    fill(&record, disk, RECORD, sequence, (uint32_t)(sequence % SEGMENT));
    write_all(disk, disk->log, &record, BLOCK, (off_t)(sequence % SEGMENT) * BLOCK, "append to the log");
    if (fdatasync(disk->log) < 0 || (first && fsync(disk->directory) < 0))
        die(disk, "fdatasync of the log");
    disk->sequence = sequence;
    disk->previous = record.checksum;
}

static void step(struct disk *disk, uint64_t sequence)
{
    uint64_t begin = microseconds(CLOCK_MONOTONIC);
    overwrite_blocks(disk, sequence);
    if (sequence % BULK_EVERY == 0)
        write_bulk(disk, sequence);
    append_record(disk, sequence);
    tell("ack %u %llu %llu\n", disk->number, (unsigned long long)sequence,
         (unsigned long long)(microseconds(CLOCK_MONOTONIC) - begin) / 1000);
    struct fstrim_range range = {.len = UINT64_MAX};
    if (sequence % TRIM_EVERY == 0 && ioctl(disk->directory, FITRIM, &range) < 0 &&
        errno != EOPNOTSUPP && errno != ENOTTY) /* the disk takes no discards; this is no file system on a disk */
        die(disk, "FITRIM");
}

static void on_signal(int number)
{
    (void)number;
    told_to_end = 1;
}

int main(int argc, char **argv)
{
    unsigned pause_ms = 20;
    uint64_t steps = UINT64_MAX;
    for (int option; (option = getopt(argc, argv, "p:n:")) != -1;) {
        if (option == 'p')
            pause_ms = (unsigned)atoi(optarg);
        else if (option == 'n')
            steps = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    disk_count = (uint32_t)(argc - optind);
    if (disk_count < 1 || disk_count > DISKS_MAX) {
        fprintf(stderr, "usage: writer [-p MILLISECONDS] [-n STEPS] /data/N…\n");
        return 2;
    }
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    acks = open("/run/acks", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (getrandom(&life, sizeof life, 0) != sizeof life)
        return 1;
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < disk_count; i++) {
        open_disk(&disks[i], argv[optind + (int)i]);
        tell("begin %u %llu\n", disks[i].number, (unsigned long long)disks[i].sequence);
        if (disks[i].sequence < next)
            next = disks[i].sequence;
    }
    for (; !told_to_end && steps; steps--) {
        next++;
        for (uint32_t i = 0; i < disk_count; i++)
            if (disks[i].sequence < next) /* else an earlier life was cut off between two disks */
                step(&disks[i], next);
        usleep(pause_ms * 1000);
    }
    for (uint32_t i = 0; i < disk_count; i++)
        tell("end %u %llu\n", disks[i].number, (unsigned long long)disks[i].sequence);
    return 0;
}
