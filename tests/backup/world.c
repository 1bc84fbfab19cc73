#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/num.h"

static int world_stop(void *context) { return ((struct world *)context)->stop; }
static int world_progress(void *context, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    return ((struct world *)context)->stop;
}
static void world_remark(void *context, const char *text)
{
    struct world *world = context;
    world->remarks++;
    snprintf(world->last_remark, sizeof world->last_remark, "%s", text);
}

uint64_t world_seed(void)
{
    const char *text = getenv("RP_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 1;
    fprintf(stderr, "# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint64_t world_random(struct world *world, uint64_t limit)
{
    world->random = world->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (world->random >> 20) % limit;
}

struct rp_repo *world_open_repo(struct world *world, const char *name, struct fake_backend **backend)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", world->folder, name), *cache = rp_xasprintf("%s/cache", world->folder);
    struct rp_backend *directory = rp_backend_directory_open(path, true, &err);
    assert_non_null(directory);
    struct rp_repo_options options = {0};
    if (rp_repo_init(directory, &options, &err) && err.code != RP_ERR_EXISTS)
        fail_msg("%s", err.text);
    rp_error_clear(&err);
    struct rp_repo *repo = rp_repo_open(fake_backend_new(directory, backend), NULL, cache, &err);
    if (!repo)
        fail_msg("%s", err.text);
    return repo;
}

void world_init(struct world *world)
{
    *world = (struct world){.random = world_seed()};
    // In memory where that is possible: the thousands of syncs of these tests are not what they test.
    strcpy(world->folder, access("/dev/shm", W_OK) ? "/tmp/refpoint-backup-XXXXXX" : "/dev/shm/refpoint-backup-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    RP_AUTO_FREE char *cache = rp_xasprintf("%s/cache", world->folder);
    mkdir(cache, 0700);
    fake_init(&world->fake);
    world->repo = world_open_repo(world, "repo", &world->backend);
    world->options = (struct rp_backup_options){
        .open_reader = fake_reader_open,
        .stop = world_stop,
        .progress = world_progress,
        .progress_context = world,
        .remark = world_remark,
        .context = world,
        .threads = 2,
    };
}

void world_clear(struct world *world)
{
    for (size_t i = 0; i < world->expected_count; i++)
        for (size_t d = 0; d < FAKE_MAX; d++)
            free(world->expected[i].disks[d].data);
    free(world->expected);
    rp_backup_result_clear(&world->last);
    rp_repo_close(world->repo);
    fake_clear(&world->fake);
    RP_AUTO_FREE char *command = rp_xasprintf("rm -rf %s", world->folder);
    if (system(command))
        fail_msg("%s", command);
}

void world_write(struct world *world, unsigned slot, uint64_t offset, uint64_t length)
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(length);
    for (uint64_t i = 0; i < length; i++)
        data[i] = (uint8_t)(world_random(world, 256));
    fake_write(&world->fake, slot, offset, data, length);
}

void world_small_disk(struct world *world, uint64_t size)
{
    struct fake_disk *disk = fake_add_disk(&world->fake, size);
    unsigned slot = (unsigned)(disk - world->fake.disks);
    for (unsigned i = 0; i < 4; i++)
        world_write(world, slot, world_random(world, size - 20000), 1 + world_random(world, 20000));
}

int world_backup_to(struct world *world, struct rp_repo *repo)
{
    struct rp_vm vm = world->fake.vm;
    struct expected expected = {0};
    for (size_t i = 0; i < FAKE_MAX; i++) {
        const struct fake_disk *disk = &world->fake.disks[i];
        if (!disk->present)
            continue;
        expected.disks[i].size = disk->size;
        expected.disks[i].data = memcpy(rp_xmalloc(disk->size), disk->data, disk->size);
    }
    rp_backup_result_clear(&world->last);
    rp_error_clear(&world->error);
    world->remarks = 0;
    world->fake.calls = 0;
    world->fake.bytes_read = 0;
    int result = rp_backup_run(&world->fake.host, repo, &vm, &world->options, &world->last, &world->error);
    if (!result && repo == world->repo) {
        memcpy(expected.point, world->last.point.id, sizeof expected.point);
        world->expected = rp_xrealloc(world->expected, (world->expected_count + 1) * sizeof expected);
        world->expected[world->expected_count++] = expected;
    } else {
        for (size_t d = 0; d < FAKE_MAX; d++)
            free(expected.disks[d].data);
    }
    assert_int_equal(world->fake.readers, 0);
    return result;
}

int world_backup(struct world *world) { return world_backup_to(world, world->repo); }

const struct rp_point *world_must_backup(struct world *world)
{
    if (world_backup(world))
        fail_msg("%s", world->error.text);
    return &world->last.point;
}

static void verify_point(struct world *world, const struct rp_point *point, const struct expected *expected)
{
    size_t disks = 0;
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *disk = &point->disks[i];
        const struct image *image = &expected->disks[disk->number];
        assert_int_equal(disk->root.size, image->size);
        RP_AUTO_FREE uint8_t *data = rp_xmalloc(image->size);
        struct rp_error err = {0};
        if (rp_repo_read(world->repo, &disk->root, 0, data, image->size, &err))
            fail_msg("%s", err.text);
        if (memcmp(data, image->data, image->size))
            for (uint64_t at = 0; at < image->size; at++)
                if (data[at] != image->data[at])
                    fail_msg("point %s disk %u differs first at %llu", point->id, disk->number, (unsigned long long)at);
        disks++;
    }
    for (size_t i = 0; i < FAKE_MAX; i++)
        disks -= expected->disks[i].data != NULL;
    assert_int_equal(disks, 0);
}

void world_verify(struct world *world)
{
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    assert_int_equal(rp_repo_points(world->repo, &points, NULL), 0);
    assert_int_equal(points.count, world->expected_count);
    for (size_t i = 0; i < points.count; i++) {
        const struct expected *expected = NULL;
        for (size_t j = 0; j < world->expected_count; j++)
            if (!strcmp(world->expected[j].point, points.items[i].id))
                expected = &world->expected[j];
        assert_non_null(expected);
        verify_point(world, &points.items[i], expected);
    }
}

char *world_output_of(const char *command)
{
    char text[16384];
    FILE *output = popen(command, "r");
    text[fread(text, 1, sizeof text - 1, output)] = 0;
    assert_int_equal(pclose(output), 0);
    return rp_xstrdup(text);
}

unsigned world_files_below(struct world *world, const char *folder)
{
    RP_AUTO_FREE char *command = rp_xasprintf("find %s/repo/%s -type f 2>/dev/null | wc -l", world->folder, folder);
    RP_AUTO_FREE char *line = world_output_of(command);
    return (unsigned)atoi(line);
}
