// A segment of the index cache: opened, searched, read through.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "repo/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("segment", MFD_CLOEXEC);
    struct rp_guid repository = {{0}};
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        return 0;
    if (size >= 40)
        memcpy(repository.bytes, data + 24, 16);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct rp_segment *segment = rp_segment_open(path, &repository, NULL);
    if (segment) {
        struct rp_entry entry;
        struct rp_location found[8];
        bool damaged;
        for (uint64_t i = 0; i < rp_segment_count(segment); i++)
            if (rp_segment_get(segment, i, &entry)) {
                rp_segment_find(segment, entry.prefix, found, 8, &damaged);
                entry.prefix[i % 16] ^= (uint8_t)(1 + i);
                rp_segment_find(segment, entry.prefix, found, 8, &damaged);
            }
        for (uint32_t i = 0; i < rp_segment_pack_count(segment); i++)
            if (rp_segment_pack(segment, i)->id[15] == 255)
                damaged = true;
        rp_segment_close(segment);
    }
    close(fd);
    return 0;
}
