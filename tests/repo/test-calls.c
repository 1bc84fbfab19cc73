// What the directory backend asks of the file system, call by call: writes, syncs and renames fail, or are cut short;
// and nothing gets a name that a power cut could leave without its content. The calls are wrapped by the linker.
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "faulty.h"
#include "repo/backend.h"
#include "repo/core.h"
#include "repo/extract.h"
#include "repo/object.h"

#define SIZE ((uint64_t)20 * RP_REPO_BLOCK) // random bytes: its pack is large enough for O_DIRECT
#define MAX_FILES 4096

enum call { NO_CALL, CALL_WRITE, CALL_SYNC, CALL_RENAME };

// ---- what the calls do ----------------------------------------------------------------------------------------------

static struct {
    pthread_mutex_t lock;
    const char *folder;    // calls on files in it are ours; NULL: none are
    enum call failing;     // of these the one that `left` counts down to fails, and none after it
    int left;
    int sync_sys;          // what a sync fails with; 0: EIO
    bool short_writes;
    enum { RENAMES, LINKS, LINK_LOST, LINK_LATE } file_system; // links only, as NFS; its answer is lost; another was faster
    unsigned writes, renames;
    struct unsynced { dev_t device; ino_t inode; } unsynced[MAX_FILES];
    size_t unsynced_count;
    char wrong[256];       // the first that got its name too early
    ino_t synced[64];      // folders, the last ones
    unsigned syncs;        // of folders
    const char *lost;      // a name that the file system finds broken
    int passes;            // after so many calls; 0: never
    bool all_lost;         // and it gives nothing else either
    unsigned pauses;
    int64_t slept;         // seconds that the machine has slept
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_ours(int fd)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = calls.folder ? readlink(link, path, sizeof path - 1) : -1;
    return n > 0 && !strncmp(path, calls.folder, strlen(calls.folder));
}

static bool fails(enum call call) { return calls.failing == call && calls.left-- == 0; }

// Its place among the files that were changed and not synced since; their count: it is none of them.
static size_t find(const struct stat *st)
{
    size_t i = 0;
    const struct unsynced *files = calls.unsynced;
    while (i < calls.unsynced_count && (files[i].device != st->st_dev || files[i].inode != st->st_ino))
        i++;
    return i;
}

static void note(const struct stat *st, bool synced)
{
    size_t i = find(st);
    if (synced && i < calls.unsynced_count)
        calls.unsynced[i] = calls.unsynced[--calls.unsynced_count];
    else if (!synced && i == calls.unsynced_count && i < MAX_FILES)
        calls.unsynced[calls.unsynced_count++] = (struct unsynced){st->st_dev, st->st_ino};
}

static int fail_with(int sys)
{
    errno = sys;
    return -1;
}

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    struct stat st;
    if (!is_ours(fd) || fstat(fd, &st))
        return __real_write(fd, data, size);
    pthread_mutex_lock(&calls.lock);
    note(&st, false);
    bool failed = fails(CALL_WRITE), interrupted = calls.short_writes && calls.writes++ % 3 == 2;
    if (calls.short_writes && size > 100000)
        size = fcntl(fd, F_GETFL) & O_DIRECT && calls.writes < 4 ? 65536 : 99999; // whole pages, then others
    pthread_mutex_unlock(&calls.lock);
    return failed ? fail_with(ENOSPC) : interrupted ? fail_with(EINTR) : __real_write(fd, data, size);
}

// Nothing is synced in truth. When a sync fails the content is lost, and the next sync knows nothing of it.
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;
    if (!is_ours(fd) || fstat(fd, &st))
        return 0;
    pthread_mutex_lock(&calls.lock);
    bool failed = fails(CALL_SYNC);
    note(&st, true);
    if (S_ISDIR(st.st_mode))
        calls.synced[calls.syncs++ % 64] = st.st_ino;
    pthread_mutex_unlock(&calls.lock);
    if (failed && S_ISREG(st.st_mode) && (ftruncate(fd, 0) || ftruncate(fd, st.st_size)))
        abort();
    return failed ? fail_with(calls.sync_sys ? calls.sync_sys : EIO) : 0;
}

int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (!is_ours(from_fd))
        return __real_renameat2(from_fd, from, to_fd, to, flags);
    if (calls.file_system != RENAMES)
        return fail_with(EINVAL);
    struct stat file, folder;
    char name[256];
    snprintf(name, sizeof name, "%s", to);
    char *slash = strrchr(name, '/');
    if (slash)
        *slash = 0;
    pthread_mutex_lock(&calls.lock);
    bool failed = fails(CALL_RENAME);
    bool early = !fstatat(from_fd, from, &file, 0) && find(&file) < calls.unsynced_count;
    // A point needs all that was written before it.
    if (early || (!strncmp(to, "points/", 7) && calls.unsynced_count))
        snprintf(calls.wrong, sizeof calls.wrong, "%s gets its name, and %s is not synced", to,
                 early ? "its content" : "what it needs");
    calls.renames++;
    if (!failed && !fstatat(to_fd, slash ? name : ".", &folder, 0))
        note(&folder, false);
    pthread_mutex_unlock(&calls.lock);
    return failed ? fail_with(EIO) : __real_renameat2(from_fd, from, to_fd, to, flags);
}

int __real_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (is_ours(from_fd) && calls.file_system == LINK_LATE)
        close(openat(to_fd, to, O_WRONLY | O_CREAT, 0600));
    if (is_ours(from_fd) && calls.file_system == LINK_LOST)
        __real_linkat(from_fd, from, to_fd, to, flags);
    return __real_linkat(from_fd, from, to_fd, to, flags);
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = __real_clock_gettime(clock, now);
    if (clock == CLOCK_BOOTTIME)
        now->tv_sec += calls.slept;
    return result;
}

static bool is_lost(const char *name)
{
    if (!calls.lost || (strcmp(name, calls.lost) != 0 && !(calls.all_lost && !strcmp(name, "config"))))
        return false;
    if (calls.passes && !--calls.passes)
        calls.lost = NULL;
    return true;
}

int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
    calls.pauses += us > 0;
    return 0;
}

int __real_fstatat64(int fd, const char *name, struct stat *st, int flags);
int __wrap_fstatat64(int fd, const char *name, struct stat *st, int flags);
int __wrap_fstatat64(int fd, const char *name, struct stat *st, int flags)
{
    return is_lost(name) ? fail_with(EUCLEAN) : __real_fstatat64(fd, name, st, flags);
}

int __real_openat64(int fd, const char *name, int flags, ...);
int __wrap_openat64(int fd, const char *name, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *name, int flags, mode_t mode)
{
    return is_lost(name) ? fail_with(EUCLEAN) : __real_openat64(fd, name, flags, mode);
}

static void begin(const struct place *place, enum call failing, int left)
{
    calls.folder = place->repository;
    calls.failing = failing;
    calls.left = left;
    calls.short_writes = false;
    calls.writes = calls.renames = 0;
    calls.unsynced_count = 0;
    calls.wrong[0] = 0;
    calls.syncs = 0;
}

static void end(void)
{
    calls.folder = NULL;
    calls.failing = NO_CALL;
    calls.file_system = RENAMES;
}

// ---- tests ----------------------------------------------------------------------------------------------------------

static void fill(uint8_t *data, uint32_t seed)
{
    for (uint32_t block = 0; block < SIZE / RP_REPO_BLOCK; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, (seed * 1000 + block) * 3); // kind 0: random bytes
}

// Returns whether it came to that call; `failed`: and the backup to nothing.
static bool fails_once(enum call call, int at, bool *failed)
{
    struct place *place;
    struct rp_error err = {0};
    uint8_t *first = malloc(SIZE), *second = malloc(SIZE);
    fill(first, 1);
    fill(second, 2);
    place_setup((void **)&place);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, first, SIZE, "vm", NULL);
    rp_repo_close(repo);
    repo = place_open(place);
    begin(place, call, at);
    *failed = try_backup(repo, second, SIZE, &err) != 0;
    bool reached = calls.left < 0;
    end();
    rp_repo_close(repo);
    if (*failed)
        assert_int_equal(err.code, call == CALL_WRITE ? RP_ERR_NO_SPACE : RP_ERR_IO);
    repo = place_open(place);
    size_t points = count_points(repo);
    // The name of a point whose folder could not be synced is there.
    assert_true(points == 2 || (*failed && points == 1));
    assert_clean(repo, true);
    assert_disk(repo, &root, first);
    // The same once more finds what the first one stored, and nothing that it only meant to store.
    rp_error_clear(&err);
    assert_ok(try_backup(repo, second, SIZE, &err), err);
    assert_int_equal(count_points(repo), points + 1);
    assert_clean(repo, true);
    rp_repo_close(repo);
    place_teardown((void **)&place);
    free(first);
    free(second);
    return reached;
}

static void fails_at_every_call(enum call call)
{
    unsigned failures = 0;
    bool failed;
    for (int at = 0; fails_once(call, at, &failed); at++)
        failures += failed;
    assert_true(failures >= 4); // session, pack, index, point
}

static void a_failed_sync_fails_the_backup_and_its_bytes_are_not_relied_on(void **state)
{
    (void)state;
    fails_at_every_call(CALL_SYNC);
}

static void a_failed_write_fails_the_backup_and_nothing_else(void **state)
{
    (void)state;
    fails_at_every_call(CALL_WRITE);
}

static void a_failed_rename_fails_the_backup_and_nothing_else(void **state)
{
    (void)state;
    fails_at_every_call(CALL_RENAME);
}

static void a_folder_that_cannot_be_synced_for_want_of_room_is_not_called_full(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    assert_ok(backend->ops->put(backend, "points/a", "x", 1, &err), err);
    unsigned there = 0;
    for (int at = 0; !there; at++) { // until it is the sync after the name was given
        uint64_t size;
        rp_error_clear(&err);
        begin(place, CALL_SYNC, at);
        calls.sync_sys = ENOSPC;
        assert_int_equal(backend->ops->put(backend, "points/b", "x", 1, &err), -1);
        calls.sync_sys = 0;
        end();
        there = backend->ops->size(backend, "points/b", &size, NULL) == 0;
        if (there)
            assert_int_equal(err.code, RP_ERR_IO); // RP_ERR_NO_SPACE: it is not there
    }
}

static unsigned syncs_of(const char *folder)
{
    struct stat st;
    unsigned count = 0;
    assert_int_equal(stat(folder, &st), 0);
    for (unsigned i = 0; i < calls.syncs && i < 64; i++)
        count += calls.synced[i] == st.st_ino;
    return count;
}

static void the_folders_above_a_new_repository_are_durable(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char path[220], above[200];
    snprintf(above, sizeof above, "%s/new", place->folder);
    snprintf(path, sizeof path, "%s/repository/", above);
    begin(place, NO_CALL, 0);
    calls.folder = place->folder;
    rp_backend_close(rp_backend_directory_open(path, true, &err));
    end();
    assert_int_equal(err.code, RP_OK);
    assert_true(syncs_of(place->folder) && syncs_of(above));
}

static void a_folder_that_a_killed_writer_made_is_durable_before_anything_in_it(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    static const char *const folders[] = {"points", "packs", "packs/ab"};
    for (int i = 0; i < 3; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/%s", place->repository, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    static const char *const names[] = {"points/a", "packs/ab/cd", "points/b", "packs/ab/ef"};
    for (unsigned i = 0; i < 4; i++) {
        begin(place, NO_CALL, 0);
        assert_ok(backend->ops->put(backend, names[i], "x", 1, &err), err);
        end();
        assert_int_equal(syncs_of(place->repository), i < 2); // and then no more: each costs a wait for the disk
    }
}

static void a_write_that_is_cut_short_is_gone_on_with(void **state)
{
    struct place *place = *state;
    uint8_t *data = malloc(SIZE);
    fill(data, 1);
    struct rp_repo *repo = place_open(place);
    begin(place, NO_CALL, 0);
    calls.short_writes = true;
    struct rp_repo_root root = store_disk(repo, NULL, data, SIZE, "vm", NULL);
    assert_true(calls.writes > SIZE / 99999);
    end();
    assert_disk(repo, &root, data);
    assert_clean(repo, true);
    rp_repo_close(repo);
    free(data);
}

static void nothing_has_a_name_before_what_it_stands_for_is_durable(void **state)
{
    struct place *place = *state;
    uint8_t *data = malloc(SIZE);
    for (uint32_t seed = 1; seed < 4; seed++) {
        fill(data, seed);
        struct rp_repo *repo = place_open(place);
        begin(place, NO_CALL, 0);
        store_disk(repo, NULL, data, SIZE, "vm", NULL);
        assert_true(calls.renames >= 4);
        assert_string_equal(calls.wrong, "");
        assert_int_equal(calls.unsynced_count, 0); // the name of the point, too, when the commit says that it is one
        end();
        rp_repo_close(repo);
    }
    free(data);
}

static int count_one(void *context, const char *name, uint64_t size)
{
    (void)name;
    (void)size;
    ++*(unsigned *)context;
    return 0;
}

// A broken inode: of a pack, of the folder that it is in, of a point.
static void what_the_file_system_has_lost_hides_no_more_than_itself(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t *lost = malloc(SIZE), *whole = malloc(SIZE);
    char pack[256], point[RP_POINT_ID], name[128], other[RP_POINT_ID];
    uint64_t problems;
    fill(lost, 1);
    fill(whole, 2);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root lost_root = store_disk(repo, NULL, lost, SIZE, "lost", point);
    first_pack(place, pack);
    struct rp_repo_root root = store_disk(repo, NULL, whole, SIZE, "vm", other);
    rp_repo_close(repo);
    const char *relative = strstr(pack, "/packs/") + 1;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s", relative);
        if (i == 1)
            *strrchr(name, '/') = 0;
        if (i == 3)
            snprintf(name, sizeof name, "points/%s", point);
        if (i != 2) // with a cache, too
            place_remove_cache(place);
        calls.lost = name;
        repo = place_open(place);
        assert_disk(repo, &root, whole);
        struct rp_points points;
        assert_ok(rp_repo_points(repo, &points, &err), err);
        assert_int_equal(points.count, i == 3 ? 1 : 2);
        assert_int_equal(points.unreadable, i == 3);
        rp_points_clear(&points);
        assert_int_equal(rp_repo_read(repo, &lost_root, 0, lost, RP_REPO_BLOCK, NULL), i == 3 ? 0 : -1);
        assert_ok(rp_repo_check(repo, false, NULL, NULL, NULL, NULL, &problems, &err), err);
        assert_true(problems > 0);
        rp_repo_close(repo);
        calls.lost = NULL;
    }
    repo = place_open(place);
    assert_ok(rp_repo_check(repo, true, NULL, NULL, NULL, NULL, &problems, &err), err); // it was marked; now it is whole
    assert_clean(repo, true);
    rp_repo_close(repo);
    free(lost);
    free(whole);
}

static void nobody_decides_by_a_listing_that_is_not_whole(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    static const char *const names[][3] = {{"sessions/", "sessions/a", "sessions/a/1"}, {"locks/", "locks/a", "locks/a/1"},
                                           {"points/", "points/a", "points/a"}, {"tombstones/", "tombstones/a", "tombstones/a"}};
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    for (unsigned i = 0; i < 4; i++) {
        unsigned found = 0;
        assert_ok(backend->ops->put(backend, names[i][2], "x", 1, &err), err);
        assert_ok(backend->ops->list(backend, names[i][0], count_one, &found, &err), err);
        assert_int_equal(found, 1);
        for (unsigned n = 1; n < 3; n++) {
            calls.lost = names[i][n];
            assert_int_equal(backend->ops->list(backend, names[i][0], count_one, &found, NULL), i >= 2 ? 0 : -1);
            calls.lost = NULL;
        }
        assert_int_equal(found, i >= 2 ? 3 : 1); // by its name, which is all that counts of a tombstone
    }
}

static int sum_up(void *context, const char *name, uint64_t size)
{
    uint64_t *sum = context;
    sum[0]++;
    sum[1] += size;
    sum[2] += !strcmp(name, "packs/ab");
    return 0;
}

static void what_passes_is_asked_for_again_by_a_listing(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    static const char *const objects[] = {"packs/ab/1", "packs/ab/2", "packs/cd/3"};
    static const char *const names[] = {"packs", "packs/ab", "packs/ab/1"}; // the one that the list begins with, too
    for (unsigned i = 0; i < 3; i++)
        assert_ok(backend->ops->put(backend, objects[i], "x", 1, &err), err);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t sum[3] = {0};
        calls.lost = names[i];
        calls.passes = 1;
        calls.pauses = 0;
        assert_ok(backend->ops->list(backend, "packs/", sum_up, sum, &err), err);
        assert_null(calls.lost);
        assert_int_equal(calls.pauses, 1);
        assert_int_equal(sum[0], 3);
        assert_int_equal(sum[1], 3);
        // While nothing else can be read it is not lost; and if it is, one pause was enough.
        for (int all = 0; all < 2; all++) {
            memset(sum, 0, sizeof sum);
            calls.lost = names[i];
            calls.all_lost = all;
            calls.pauses = 0;
            assert_int_equal(backend->ops->list(backend, "packs/", sum_up, sum, NULL), all || i == 0 ? -1 : 0);
            assert_int_equal(calls.pauses, 1);
            assert_int_equal(sum[0], all ? sum[1] : i == 0 ? 0 : i == 1 ? 2 : 3);
            assert_int_equal(sum[2], i == 1 && !all);
            calls.lost = NULL;
            calls.all_lost = false;
        }
    }
}

static int ignore(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    (void)context;
    (void)offset;
    (void)data;
    (void)size;
    (void)err;
    return 0;
}

static void a_salvage_does_not_wait_for_each_frame_that_is_lost(void **state)
{
    enum { MANY = 200 }; // seven frames
    struct place *place = *state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    uint64_t size = MANY * RP_REPO_BLOCK, bytes;
    uint8_t *data = malloc(size);
    char pack[256];
    for (uint32_t block = 0; block < MANY; block++)
        fill_block(data + (uint64_t)block * RP_REPO_BLOCK, 3 * (block + 1));
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "vm", NULL);
    first_pack(place, pack);
    fill_block(data, 3 * (MANY + 1));
    root = store_disk(repo, &root, data, size, "vm", NULL); // the node is in another pack
    repo->patience_ms = 1000;
    calls.pauses = 0;
    calls.lost = strstr(pack, "/packs/") + 1;
    struct rp_extract *extract = rp_extract_new(repo, &root, &lost, NULL, NULL);
    struct rp_extract_job *job;
    while (rp_extract_next(extract, &job, &bytes, &err) == 1)
        assert_ok(rp_extract_run(extract, job, ignore, NULL, &err), err);
    calls.lost = NULL;
    assert_ok(err.code ? -1 : 0, err);
    rp_extract_free(extract);
    rp_ranges_normalize(&lost);
    assert_int_equal(rp_ranges_total(&lost), size - RP_REPO_BLOCK);
    assert_int_equal(calls.pauses, 1);
    rp_repo_close(repo);
    free(data);
}

// The inode of a tombstone is broken: readers need none, and a writer goes by its name.
static void a_tombstone_that_cannot_be_read_keeps_nobody_from_a_restore_and_still_counts(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    uint8_t *data = malloc(SIZE), id[RP_PACK_ID];
    char pack[256], name[RP_OBJECT_NAME], hex[RP_HEX(RP_PACK_ID)];
    struct rp_location places[RP_INDEX_MAX_COPIES];
    fill(data, 1);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, SIZE, "vm", NULL);
    first_pack(place, pack);
    assert_true(rp_pack_parse_name(strstr(pack, "/packs/") + 1, id));
    snprintf(name, sizeof name, "tombstones/%s", rp_hex(id, RP_PACK_ID, hex));
    assert_ok(repo->backend->ops->put(repo->backend, name, "x", 1, &err), err);
    rp_repo_close(repo);
    calls.lost = name;
    repo = place_open(place);
    assert_disk(repo, &root, data);
    assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_READ, places), 1);
    assert_int_equal(rp_index_find(repo->index, root.id, RP_INDEX_WRITE, places), 0);
    assert_refused_base(repo, &root);
    // The folder itself may hide any number of them.
    calls.lost = "tombstones";
    assert_int_equal(rp_index_refresh(repo->index, &err), -1);
    calls.lost = NULL;
    rp_repo_close(repo);
    free(data);
}

// The machine sleeps at the first few renewals of the lock, which is the last thing before the point.
struct sleeper {
    int sleeps, seconds;
    int sessions, at_point; // puts of sessions; and how many of them when the point was put
};

static void maybe_sleep(void *context, const char *name)
{
    struct sleeper *sleeper = context;
    sleeper->sessions += !strncmp(name, "sessions/", 9);
    if (!strncmp(name, "points/", 7))
        sleeper->at_point = sleeper->sessions;
    if (!strncmp(name, "locks/", 6) && sleeper->sleeps && sleeper->sleeps--)
        calls.slept += sleeper->seconds;
}

static void a_point_is_put_soon_after_its_session_was_renewed_or_not_at_all(void **state)
{
    struct place *place = *state;
    static const struct {
        int sleeps, seconds, renewals;
    } cases[] = {{0, 0, 1}, {1, 299, 1}, {1, 302, 2}, {3, 3600, 4}, {100, 3600, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rp_error err = {0};
        struct sleeper sleeper = {0};
        struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
        struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
        assert_ok(repo ? 0 : -1, err);
        struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "a backup", &err);
        struct rp_repo_session *session = rp_repo_session_begin(repo, "test", NULL, 0, &err);
        assert_ok(lock && session ? 0 : -1, err);
        rp_repo_session_under(session, lock);
        struct rp_repo_root root = {.size = 512};
        struct rp_point point;
        point_of(&point, "vm", &root);
        sleeper.sleeps = cases[i].sleeps;
        sleeper.seconds = cases[i].seconds;
        faulty->before_put = maybe_sleep;
        faulty->context = &sleeper;
        int failed = rp_repo_commit(session, &point, &err);
        assert_int_equal(failed, cases[i].renewals ? 0 : -1);
        if (failed)
            assert_int_equal(err.code, RP_ERR_STATE);
        assert_int_equal(sleeper.at_point, cases[i].renewals);
        faulty->before_put = NULL;
        rp_point_clear(&point);
        rp_repo_session_end(session);
        rp_repo_lock_release(lock);
        rp_repo_close(repo);
        calls.slept = 0;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

static void a_link_whose_answer_was_lost_is_made_and_one_that_came_too_late_is_not(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char temporary[256], text[2];
    snprintf(temporary, sizeof temporary, "%s/tmp", place->repository);
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_backend_directory_open(place->repository, false, &err);
    static const char *const names[] = {[LINKS] = "notes/1", [LINK_LOST] = "notes/2", [LINK_LATE] = "notes/3"};
    for (int file_system = LINKS; file_system <= LINK_LATE; file_system++) {
        begin(place, NO_CALL, 0);
        calls.file_system = file_system;
        int failed = backend->ops->put(backend, names[file_system], "me", 2, &err);
        end();
        assert_int_equal(err.code, file_system == LINK_LATE ? RP_ERR_EXISTS : RP_OK);
        assert_int_equal(backend->ops->get(backend, names[file_system], 0, text, 2, NULL), failed); // the other's is empty
        assert_int_equal(count_files(temporary), 0);
    }
}

int main(void)
{
    log_off();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_sync_fails_the_backup_and_its_bytes_are_not_relied_on),
        cmocka_unit_test(a_failed_write_fails_the_backup_and_nothing_else),
        cmocka_unit_test(a_failed_rename_fails_the_backup_and_nothing_else),
        TEST(a_folder_that_cannot_be_synced_for_want_of_room_is_not_called_full),
        TEST(the_folders_above_a_new_repository_are_durable),
        TEST(a_folder_that_a_killed_writer_made_is_durable_before_anything_in_it),
        TEST(a_write_that_is_cut_short_is_gone_on_with),
        TEST(a_link_whose_answer_was_lost_is_made_and_one_that_came_too_late_is_not),
        TEST(nothing_has_a_name_before_what_it_stands_for_is_durable),
        TEST(what_the_file_system_has_lost_hides_no_more_than_itself),
        TEST(nobody_decides_by_a_listing_that_is_not_whole),
        TEST(what_passes_is_asked_for_again_by_a_listing),
        TEST(a_salvage_does_not_wait_for_each_frame_that_is_lost),
        TEST(a_tombstone_that_cannot_be_read_keeps_nobody_from_a_restore_and_still_counts),
        TEST(a_point_is_put_soon_after_its_session_was_renewed_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
