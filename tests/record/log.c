#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

static void lay_out(struct log *log, void *map, const struct log_header *header)
{
    uint64_t slots = round_up(header->slots * sizeof(struct log_entry), PAGE);
    log->header = map;
    log->entries = (struct log_entry *)((uint8_t *)map + PAGE);
    log->bytes = (uint8_t *)map + PAGE + slots;
    log->size = PAGE + slots + header->bytes;
}

int log_create(struct log *log, const char *path, const char *root, uint64_t slots, uint64_t bytes)
{
    struct log_header header = {.magic = LOG_MAGIC, .slots = slots, .bytes = round_up(bytes, PAGE)};
    struct stat st;
    char *real = realpath(root, NULL);
    if (!real || stat(real, &st) || strlen(real) >= sizeof header.root) {
        free(real);
        return -1;
    }
    strcpy(header.root, real);
    free(real);
    header.device = st.st_dev;
    header.root_inode = st.st_ino;
    *log = (struct log){.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    _Static_assert(sizeof(struct log_header) <= PAGE, "the header has a page");
    lay_out(log, NULL, &header);
    if (log->fd < 0 || ftruncate(log->fd, (off_t)log->size))
        return -1;
    void *map = mmap(NULL, log->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, log->fd, 0);
    if (map == MAP_FAILED)
        return -1;
    lay_out(log, map, &header);
    *log->header = header;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    return pthread_mutex_init(&log->header->names, &attributes) ? -1 : 0;
}

int log_open(struct log *log, const char *path, bool writable)
{
    struct log_header header = {0};
    struct stat st;
    *log = (struct log){.fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC)};
    // by mapping alone: it may be the memory of a device, which cannot be read otherwise
    void *map = log->fd >= 0 && !fstat(log->fd, &st) && st.st_size >= (off_t)PAGE
                    ? mmap(NULL, PAGE, PROT_READ, MAP_SHARED, log->fd, 0) : MAP_FAILED;
    if (map != MAP_FAILED) {
        memcpy(&header, map, sizeof header);
        munmap(map, PAGE);
    }
    lay_out(log, NULL, &header);
    map = header.magic == LOG_MAGIC && (off_t)log->size <= st.st_size
              ? mmap(NULL, log->size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE, log->fd, 0)
              : MAP_FAILED;
    if (map == MAP_FAILED) {
        if (log->fd >= 0)
            close(log->fd);
        *log = (struct log){.fd = -1};
        return -1;
    }
    lay_out(log, map, &header);
    return 0;
}

void log_close(struct log *log)
{
    if (log->header)
        munmap(log->header, log->size);
    if (log->fd >= 0)
        close(log->fd);
    *log = (struct log){.fd = -1};
}

void *log_reserve(struct log *log, size_t size, uint64_t *position)
{
    uint64_t align = size >= PAGE ? PAGE : 512, room = round_up(size, 512) + align;
    uint64_t at = atomic_fetch_add(&log->header->used, room);
    if (at + room > log->header->bytes) {
        atomic_store(&log->header->overflow, 1);
        return NULL;
    }
    *position = round_up(at, align);
    return log->bytes + *position;
}

uint64_t log_append(struct log *log, enum log_kind kind, const struct log_entry *entry)
{
    uint64_t index = atomic_fetch_add(&log->header->count, 1);
    if (index >= log->header->slots) {
        atomic_fetch_sub(&log->header->count, 1);
        atomic_store(&log->header->overflow, 1);
        return UINT64_MAX;
    }
    struct log_entry *slot = &log->entries[index];
    slot->pid = (uint32_t)getpid();
    slot->inode = entry->inode;
    slot->directory = entry->directory;
    slot->other = entry->other;
    slot->offset = entry->offset;
    slot->length = entry->length;
    slot->data = entry->data;
    slot->mtime_ns = entry->mtime_ns;
    slot->ctime_ns = entry->ctime_ns;
    atomic_store_explicit(&slot->kind, kind, memory_order_release);
    return index;
}

uint64_t log_note(struct log *log, uint32_t kind, const void *data, size_t size)
{
    struct log_entry entry = {.offset = kind, .length = size};
    void *room = log_reserve(log, size, &entry.data);
    if (!room)
        return UINT64_MAX;
    memcpy(room, data, size);
    return log_append(log, LOG_NOTE, &entry);
}

void log_lock_names(struct log *log)
{
    if (pthread_mutex_lock(&log->header->names) == EOWNERDEAD)
        pthread_mutex_consistent(&log->header->names);
}

void log_unlock_names(struct log *log) { pthread_mutex_unlock(&log->header->names); }

// The path of a file below the root, by its inode; malloc'ed.
static char *find_inode(const char *folder, uint64_t inode)
{
    DIR *dir = opendir(folder);
    char *found = NULL;
    if (!dir)
        return NULL;
    for (struct dirent *entry; !found && (entry = readdir(dir));) {
        char *path;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
            abort();
        if (entry->d_type == DT_DIR)
            found = find_inode(path, inode);
        else if (entry->d_ino == inode && entry->d_type == DT_REG) {
            found = path;
            path = NULL;
        }
        free(path);
    }
    closedir(dir);
    return found;
}

static int mend_one(struct log *log, uint64_t index)
{
    const struct log_entry *entry = &log->entries[index];
    struct log_entry end = {.inode = entry->inode, .other = index};
    struct stat st;
    char *path = find_inode(log->header->root, entry->inode);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    free(path);
    if (fd < 0) { // deleted: nobody will ever ask
        log_append(log, LOG_END, &end);
        return 0;
    }
    // The call as it was planned never took place; instead there was one that wrote what is there, and set the size that is
    // there. Both have ended.
    log_append(log, LOG_END, &end);
    int failed = fstat(fd, &st);
    uint64_t size = (uint64_t)st.st_size, length = entry->length;
    if (!failed && log_kind(log, index) != LOG_TRUNCATE && entry->offset < size) {
        if (entry->offset + length > size)
            length = size - entry->offset;
        struct log_entry write = {.inode = entry->inode, .offset = entry->offset, .length = length};
        void *room = log_reserve(log, length, &write.data);
        failed = !room || pread(fd, room, length, (off_t)entry->offset) != (ssize_t)length;
        end.other = failed ? 0 : log_append(log, LOG_WRITE, &write);
        end.length = length;
        log_set_times(&end, &st);
        if (!failed)
            log_append(log, LOG_END, &end);
    }
    if (!failed && log_kind(log, index) == LOG_TRUNCATE) {
        struct log_entry truncate = {.inode = entry->inode, .length = size};
        end.other = log_append(log, LOG_TRUNCATE, &truncate);
        end.length = 1;
        log_set_times(&end, &st);
        log_append(log, LOG_END, &end);
    }
    close(fd);
    return failed ? -1 : 0;
}

static bool is_dead(uint32_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "re");
    size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[n] = 0;
    const char *state = strrchr(text, ')'); // "(name) S"
    return !state || strlen(state) < 3 || state[2] == 'Z' || state[2] == 'X';
}

int log_mend(struct log *log)
{
    uint64_t count = log_count(log);
    uint8_t *ended = calloc(count + 1, 1);
    int failed = 0;
    for (uint64_t i = 0; i < count; i++)
        if (log_kind(log, i) == LOG_END)
            ended[log->entries[i].other] = 1;
    for (uint64_t i = 0; i < count && !failed; i++) {
        enum log_kind kind = log_kind(log, i);
        if (kind >= LOG_WRITE && kind <= LOG_TRUNCATE && !ended[i] && is_dead(log->entries[i].pid))
            failed = mend_one(log, i);
    }
    free(ended);
    return failed;
}
