// vhdi FILE: reads the whole disk through libvhdi, in pieces of 1 MiB, as `vhdx read FILE 1` does through ours.
// Prints one line of JSON.
#include <libvhdi.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PIECE = 1 << 20 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    libvhdi_file_t *file = NULL;
    libvhdi_error_t *error = NULL;
    size64_t size = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: vhdi FILE\n");
        return 3;
    }
    double start = now();
    unsigned char *data = aligned_alloc(4096, PIECE);
    if (!data || libvhdi_file_initialize(&file, &error) != 1 ||
        libvhdi_file_open(file, argv[1], libvhdi_get_access_flags_read(), &error) != 1 ||
        libvhdi_file_get_media_size(file, &size, &error) != 1) {
        libvhdi_error_backtrace_fprint(error, stderr);
        return 2;
    }
    for (size64_t offset = 0; offset < size;) {
        size_t length = size - offset < PIECE ? (size_t)(size - offset) : PIECE;
        ssize_t n = libvhdi_file_read_buffer_at_offset(file, data, length, (off64_t)offset, &error);
        if (n <= 0) {
            libvhdi_error_backtrace_fprint(error, stderr);
            return 2;
        }
        offset += (size64_t)n;
    }
    printf("{\"seconds\": %.6f, \"bytes\": %llu}\n", now() - start, (unsigned long long)size);
    libvhdi_file_close(file, NULL);
    libvhdi_file_free(&file, NULL);
    free(data);
    return 0;
}
