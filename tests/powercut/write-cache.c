// A disk with a write cache that loses what it holds when its power is cut (nbdkit-write-cache-plugin):
//     nbdkit nbdkit-write-cache-plugin.so file=IMAGE through=PERCENT seed=N
// So many of a hundred sectors go to the file as they are written, in no order that anybody could rely on; the others are kept, and
// go there with the next flush. SIGKILL is the cut.
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define SECTOR 512u
#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

static char *file_name;
static unsigned through = 50;
static uint64_t random_state = 1, size, first_kept = UINT64_MAX, end_kept;
static uint8_t *kept, *is_kept; // sectors, and which of them are newer than the file
static int fd = -1;

static int config(const char *key, const char *value)
{
    if (!strcmp(key, "file"))
        return (file_name = nbdkit_realpath(value)) ? 0 : -1;
    if (!strcmp(key, "through"))
        return nbdkit_parse_unsigned(key, value, &through);
    if (!strcmp(key, "seed"))
        return nbdkit_parse_uint64_t(key, value, &random_state);
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int get_ready(void)
{
    struct stat st;
    fd = file_name ? open(file_name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || fstat(fd, &st)) {
        nbdkit_error("%s: %s", file_name ? file_name : "file", strerror(errno));
        return -1;
    }
    size = (uint64_t)st.st_size / SECTOR * SECTOR;
    kept = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    is_kept = calloc(size / SECTOR, 1);
    return kept == MAP_FAILED || !is_kept ? -1 : 0;
}

static void *open_disk(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
    (void)handle;
    return (int64_t)size;
}

static int can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int fail(void)
{
    nbdkit_error("%s: %s", file_name, strerror(errno));
    return -1;
}

// xorshift64*
static bool goes_through(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (random_state * 0x2545f4914f6cdd1du >> 32) % 100 < through;
}

static int read_disk(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    if (pread(fd, buffer, count, (off_t)offset) != (ssize_t)count)
        return fail();
    for (uint64_t i = 0; i < count; i += SECTOR)
        if (is_kept[(offset + i) / SECTOR])
            memcpy((uint8_t *)buffer + i, kept + offset + i, SECTOR);
    return 0;
}

static int write_disk(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    for (uint64_t i = 0; i < count; i += SECTOR) {
        uint64_t sector = (offset + i) / SECTOR;
        is_kept[sector] = !(flags & NBDKIT_FLAG_FUA) && !goes_through();
        if (is_kept[sector]) {
            memcpy(kept + offset + i, (const uint8_t *)buffer + i, SECTOR);
            first_kept = sector < first_kept ? sector : first_kept;
            end_kept = sector >= end_kept ? sector + 1 : end_kept;
        } else if (pwrite(fd, (const uint8_t *)buffer + i, SECTOR, (off_t)(offset + i)) != SECTOR) {
            return fail();
        }
    }
    return 0;
}

static int flush_disk(void *handle, uint32_t flags)
{
    (void)handle, (void)flags;
    for (uint64_t s = first_kept; s < end_kept; s++) {
        if (!is_kept[s])
            continue;
        if (pwrite(fd, kept + s * SECTOR, SECTOR, (off_t)(s * SECTOR)) != SECTOR)
            return fail();
        is_kept[s] = 0;
    }
    first_kept = UINT64_MAX;
    end_kept = 0;
    return 0;
}

// Everybody asks for whole sectors.
static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = SECTOR;
    *preferred = 4096;
    *maximum = 32 << 20;
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "write-cache", .config = config, .get_ready = get_ready, .open = open_disk, .get_size = get_size, .can_fua = can_fua,
    .block_size = block_size, .pread = read_disk, .pwrite = write_disk, .flush = flush_disk,
};
NBDKIT_REGISTER_PLUGIN(plugin)
