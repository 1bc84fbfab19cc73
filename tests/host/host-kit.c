#include "host-kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <libnbd.h>
#include <sys/stat.h>
#include <unistd.h>

char *kit_folder(void)
{
    // Memory where it can be: a killed process leaves the same there as on a disk, and syncs cost nothing, so that far
    // more happens between two kills. (Paths stay short: sockets are in the folder.)
    const char *base = getenv("TMPDIR");
    base = base && strlen(base) < 30 ? base : !access("/dev/shm", W_OK | X_OK) ? "/dev/shm" : "/tmp";
    char *folder = rp_xasprintf("%s/host-XXXXXX", base);
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        return;
    if (S_ISDIR(st.st_mode)) {
        DIR *folder = opendir(path);
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            RP_AUTO_FREE char *name = rp_path_join(path, entry->d_name);
            remove_tree(name);
        }
        if (folder)
            closedir(folder);
    }
    remove(path);
}

void kit_remove_folder(char *folder)
{
    remove_tree(folder);
    free(folder);
}

char *kit_path(const char *format, ...)
{
    char *path;
    va_list args;
    va_start(args, format);
    assert_true(vasprintf(&path, format, args) >= 0);
    va_end(args);
    return path;
}

uint64_t kit_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

uint64_t kit_seed(void)
{
    const char *text = getenv("RP_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1;
    return seed ? seed : 1;
}

void kit_fill(uint8_t *data, size_t size, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t value = kit_random(&state);
        memcpy(data + i, &value, 8);
    }
}

void kit_write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void kit_raw(const char *path, size_t size, uint64_t seed)
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(size);
    kit_fill(data, size, seed);
    kit_write_file(path, data, size);
}

void kit_vhdx(const char *path, size_t size)
{
    struct rp_error err = {0};
    struct rp_vhdx_create create = {.size = size};
    kit_ok(rp_vhdx_create(rp_fs_posix(), path, &create, &err), err);
}

static struct nbd_handle *nbd_open(const char *uri)
{
    struct nbd_handle *nbd = nbd_create();
    assert_non_null(nbd);
    if (nbd_connect_uri(nbd, uri))
        fail_msg("%s: %s", uri, nbd_get_error());
    return nbd;
}

static void nbd_end(struct nbd_handle *nbd)
{
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);
}

void kit_nbd_write(const char *uri, const void *data, size_t size, uint64_t offset)
{
    struct nbd_handle *nbd = nbd_open(uri);
    if (nbd_pwrite(nbd, data, size, offset, 0) || nbd_flush(nbd, 0))
        fail_msg("%s: write: %s", uri, nbd_get_error());
    nbd_end(nbd);
}

void kit_nbd_zero(const char *uri, size_t size, uint64_t offset)
{
    struct nbd_handle *nbd = nbd_open(uri);
    if (nbd_zero(nbd, size, offset, 0) || nbd_flush(nbd, 0))
        fail_msg("%s: zero: %s", uri, nbd_get_error());
    nbd_end(nbd);
}

void kit_nbd_read(const char *uri, void *data, size_t size, uint64_t offset)
{
    struct nbd_handle *nbd = nbd_open(uri);
    if (nbd_pread(nbd, data, size, offset, 0))
        fail_msg("%s: read: %s", uri, nbd_get_error());
    nbd_end(nbd);
}

void kit_chain_read(const char *path, void *data, size_t size)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    kit_ok(rp_chain_open(rp_fs_posix(), path, &chain, &err), err);
    kit_ok(rp_vhdx_read(chain.layers[0], data, (uint32_t)size, 0, &err), err);
}
