#include "place.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "repo/core.h"
#include "repo/object.h"

void assert_ok_(int result, const struct rp_error *err, const char *call, const char *file, int line)
{
    if (result == 0)
        return;
    print_error("%s: %s\n", call, err->text);
    _fail(file, line);
}

static int setup(void **state, bool encrypted)
{
    struct place *place = calloc(1, sizeof *place);
    place->encrypted = encrypted;
    strcpy(place->folder, "/tmp/repo-test-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    snprintf(place->repository, sizeof place->repository, "%s/repository", place->folder);
    snprintf(place->cache, sizeof place->cache, "%s/cache", place->folder);
    struct rp_error err = {0};
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, true, &err);
    struct rp_repo_options options = {.passphrase = encrypted ? PASSPHRASE : NULL, .scrypt_log_n = 10};
    assert_ok(rp_repo_init(backend, &options, &err), err);
    *state = place;
    return 0;
}

int place_setup(void **state) { return setup(state, true); }
int place_setup_unencrypted(void **state) { return setup(state, false); }

static void remove_tree(const char *path)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf -- '%s'", path);
    if (system(command))
        print_error("%s: not removed\n", path);
}

int place_teardown(void **state)
{
    struct place *place = *state;
    remove_tree(place->folder);
    free(place);
    return 0;
}

struct rp_repo *place_open(const struct place *place)
{
    struct rp_error err = {0};
    struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    assert_ok(backend ? 0 : -1, err);
    struct rp_repo *repo = rp_repo_open(backend, place->encrypted ? PASSPHRASE : NULL, place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    repo->patience_ms = 0;
    return repo;
}

void place_remove_cache(const struct place *place) { remove_tree(place->cache); }

static void drop(enum rp_log_level level, const char *text)
{
    (void)level;
    (void)text;
}

void log_off(void) { rp_log_set_sink(drop); }

uint32_t test_seed(void)
{
    static uint32_t seed;
    const char *given = getenv("RP_TEST_SEED");
    if (!seed) {
        seed = given ? (uint32_t)strtoul(given, NULL, 0) : (uint32_t)time(NULL) ^ (uint32_t)getpid() << 16;
        seed |= 1;
        printf("# RP_TEST_SEED=%u\n", seed);
    }
    return seed;
}

uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

void fill_block(uint8_t *block, uint32_t seed)
{
    uint32_t random = seed * 2654435761u | 1, kind = seed % 3;
    for (size_t i = 0; i < RP_REPO_BLOCK; i += 4) {
        uint32_t value = next_random(&random);
        if (kind == 1)
            value = 0x20202020 | (value & 0x0F0F0F0F);
        if (kind == 2 && i % 1024 >= 64)
            memcpy(&value, block + i % 64, 4);
        memcpy(block + i, &value, 4);
    }
    memcpy(block, &seed, 4);
    block[4] = 1;
}

void point_of(struct rp_point *point, const char *name, const struct rp_repo_root *root)
{
    *point = (struct rp_point){.time_ns = 1, .vm_id = strdup("vm"), .vm_name = strdup(name), .disk_count = 1};
    point->disks = calloc(1, sizeof *point->disks);
    point->disks[0].number = 0;
    point->disks[0].disk_id = rp_guid_new();
    point->disks[0].root = *root;
}

int try_backup(struct rp_repo *repo, const uint8_t *data, uint64_t size, struct rp_error *err)
{
    struct rp_repo_root root;
    struct rp_point point;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, err);
    if (!session)
        return -1;
    struct rp_disk_writer *writer = rp_disk_writer_new(session, NULL, size, err);
    int result = 0;
    for (uint64_t at = 0; at < size && result == 0; at += 16 * RP_REPO_BLOCK)
        result = rp_disk_writer_put(writer, at, data + at, rp_min64(16 * RP_REPO_BLOCK, size - at), err);
    if (result == 0) {
        result = rp_disk_writer_finish(writer, &root, err);
    } else {
        rp_disk_writer_abandon(writer);
    }
    if (result == 0) {
        point_of(&point, "vm", &root);
        result = rp_repo_commit(session, &point, err);
        rp_point_clear(&point);
    }
    rp_repo_session_end(session);
    return result;
}

size_t count_points(struct rp_repo *repo)
{
    struct rp_error err = {0};
    struct rp_points points;
    assert_ok(rp_repo_points(repo, &points, &err), err);
    size_t count = points.count;
    rp_points_clear(&points);
    return count;
}

struct rp_repo_root store_disk(struct rp_repo *repo, const struct rp_repo_root *base, const uint8_t *data, uint64_t size,
                               const char *name, char point_id[RP_POINT_ID])
{
    struct rp_error err = {0};
    struct rp_repo_root root;
    struct rp_point point;
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", base, base ? 1 : 0, &err);
    assert_ok(session ? 0 : -1, err);
    struct rp_disk_writer *writer = rp_disk_writer_new(session, base, size, &err);
    assert_ok(writer ? 0 : -1, err);
    for (uint64_t offset = 0; offset < size; offset += 1 << 20) {
        size_t length = size - offset < 1 << 20 ? size - offset : 1 << 20;
        assert_ok(rp_disk_writer_put(writer, offset, data + offset, length, &err), err);
    }
    assert_ok(rp_disk_writer_finish(writer, &root, &err), err);
    point_of(&point, name, &root);
    assert_ok(rp_repo_commit(session, &point, &err), err);
    if (point_id)
        memcpy(point_id, point.id, RP_POINT_ID);
    rp_point_clear(&point);
    rp_repo_session_end(session);
    return root;
}

void assert_disk(struct rp_repo *repo, const struct rp_repo_root *root, const uint8_t *data)
{
    struct rp_error err = {0};
    size_t chunk = 3 << 20;
    uint8_t *read = malloc(chunk);
    for (uint64_t offset = 0; offset < root->size; offset += chunk) {
        size_t length = root->size - offset < chunk ? root->size - offset : chunk;
        assert_ok(rp_repo_read(repo, root, offset, read, length, &err), err);
        assert_memory_equal(read, data + offset, length);
    }
    free(read);
}

static void print_problem(void *context, const struct rp_repo_problem *problem)
{
    (void)context;
    print_error("problem: %s: %s\n", problem->object ? problem->object : "-", problem->text);
}

void assert_clean(struct rp_repo *repo, bool read_data)
{
    struct rp_error err = {0};
    uint64_t problems = 0;
    assert_ok(rp_repo_check(repo, read_data, print_problem, NULL, NULL, NULL, &problems, &err), err);
    assert_int_equal(problems, 0);
}

void assert_refused_base(struct rp_repo *repo, const struct rp_repo_root *root)
{
    struct rp_error err = {0};
    struct rp_repo_session *session = rp_repo_session_begin(repo, "test", root, 1, &err);
    assert_ok(session ? 0 : -1, err);
    assert_null(rp_disk_writer_new(session, root, root->size, &err));
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_repo_session_end(session);
}

static bool find_file(const char *folder, char path[256])
{
    DIR *dir = opendir(folder);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char name[600];
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        assert_int_equal(stat(name, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            found = find_file(name, path);
        } else {
            strcpy(path, name);
            found = true;
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

void first_pack(const struct place *place, char path[256])
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s/packs", place->repository);
    assert_true(find_file(folder, path));
}

void largest_segment(const struct place *place, char path[300])
{
    char command[300];
    snprintf(command, sizeof command, "find '%s' -name '*.segment' -exec ls -S {} +", place->cache);
    FILE *list = popen(command, "r");
    assert_non_null(fgets(path, 300, list));
    pclose(list);
    path[strcspn(path, "\n")] = 0;
}

unsigned count_files(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char name[600];
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        if (stat(name, &st) == 0)
            count += S_ISDIR(st.st_mode) ? count_files(name) : 1;
    }
    if (dir)
        closedir(dir);
    return count;
}

void flip_bit(const char *path, uint64_t bit)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)(bit / 8)), 1);
    byte ^= (uint8_t)(1 << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
    close(fd);
}

uint64_t file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void place_put_lease(struct rp_repo *repo, const char *folder, const char *generation, const char *status, int age)
{
    struct rp_error err = {0};
    char name[128];
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    snprintf(name, sizeof name, "%s/%s", folder, generation);
    long long now = rp_clock_wall_ns() - age * 1000000000ll;
    rp_buf_printf(&json, "{\"version\":1,\"state\":\"%s\",\"owner\":\"stranger\",\"host\":\"far\",\"machine\":\"m\",\"pid\":1,"
                  "\"pid_started\":1,\"token\":\"00000000000000000000000000000000\",\"since_ns\":%lld,\"renewed_ns\":%lld,\"seconds\":120}",
                  status, now, now);
    assert_ok(rp_object_put(repo->backend, repo->crypto, name, json.data, json.size, &err), err);
}
