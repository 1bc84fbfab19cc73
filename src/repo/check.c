#include "repo/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "repo/blocks.h"
#include "repo/damage.h"
#include "repo/points.h"

#define POINT_WEIGHT (1u << 20) // of one point in the progress, next to bytes of packs

int rp_check_progress(struct rp_check *check, struct rp_error *err)
{
    if (check->progress && check->progress(check->progress_context, check->done, check->total))
        return rp_fail(err, RP_ERR_CANCELLED, "the check was cancelled");
    return 0;
}

// ---- reports --------------------------------------------------------------------------------------------------------

// The ranges that each damage takes from the disk at hand; and which damages were told of already.
struct report {
    struct rp_check *check;
    rp_repo_problem_fn *problem;
    void *context;
    uint64_t *problems;
    struct rp_ranges *ranges; // by number of the damage
    bool *told;
    uint32_t capacity;
};

static void tell(struct report *report, const struct rp_repo_problem *problem)
{
    if (report->problem)
        report->problem(report->context, problem);
    ++*report->problems;
}

static void make_room(struct report *report, uint32_t count)
{
    if (count <= report->capacity)
        return;
    uint32_t capacity = 2 * count;
    report->ranges = rp_xrealloc(report->ranges, capacity * sizeof *report->ranges);
    report->told = rp_xrealloc(report->told, capacity * sizeof *report->told);
    memset(report->ranges + report->capacity, 0, (capacity - report->capacity) * sizeof *report->ranges);
    memset(report->told + report->capacity, 0, (capacity - report->capacity) * sizeof *report->told);
    report->capacity = capacity;
}

static void take_hit(void *context, uint32_t damage, uint64_t offset, uint64_t length)
{
    struct report *report = context;
    make_room(report, damage + 1);
    rp_ranges_add(&report->ranges[damage], offset, length);
}

static void tell_disk(struct report *report, const struct rp_point *point, const struct rp_point_disk *disk)
{
    for (uint32_t i = 0; i < report->capacity; i++) {
        if (!report->ranges[i].count)
            continue;
        struct rp_repo_problem problem = {
            .text = rp_damages_text(report->check->damages, i),
            .object = rp_damages_object(report->check->damages, i),
            .point_id = point->id,
            .vm_name = point->vm_name ? point->vm_name : point->vm_id,
            .disk_number = disk->number,
            .ranges = &report->ranges[i],
        };
        tell(report, &problem);
        report->told[i] = true;
        rp_ranges_clear(&report->ranges[i]);
    }
}

// What takes nothing away from any point; or of which a check that ends early did not find out.
static void tell_rest(struct report *report)
{
    uint32_t count = rp_damages_count(report->check->damages);
    make_room(report, count);
    for (uint32_t i = 0; i < count; i++)
        if (!report->told[i]) {
            struct rp_repo_problem problem = {.text = rp_damages_text(report->check->damages, i),
                                              .object = rp_damages_object(report->check->damages, i)};
            tell(report, &problem);
        }
}

// ---- points ---------------------------------------------------------------------------------------------------------

struct names {
    char **items;
    size_t count;
};

static int add_name(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct names *names = context;
    names->items = rp_xrealloc(names->items, (names->count + 1) * sizeof *names->items);
    names->items[names->count++] = rp_xstrdup(name);
    return 0;
}

static void names_clear(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
}

static int check_points(struct rp_check *check, const struct names *names, struct report *report, struct rp_error *err)
{
    struct rp_check_walk *walk = rp_check_walk_new(check);
    int result = 0;
    for (size_t i = 0; i < names->count && result == 0; i++) {
        struct rp_point point;
        struct rp_error why = {0};
        if (rp_points_get(check->repo, names->items[i], &point, &why)) {
            if (why.code != RP_ERR_NOT_FOUND) // deleted meanwhile is fine
                rp_damages_add(check->damages, names->items[i], why.text);
        } else {
            for (size_t d = 0; d < point.disk_count && result == 0; d++) {
                result = rp_check_walk_disk(walk, &point.disks[d].root, take_hit, report, err);
                tell_disk(report, &point, &point.disks[d]);
            }
            rp_point_clear(&point);
        }
        check->done += POINT_WEIGHT;
        if (result == 0)
            result = rp_check_progress(check, err);
    }
    rp_check_walk_free(walk);
    return result;
}

// What a killed check left in the cache. A day is longer than it needs.
static void remove_leftovers(const struct rp_repo *repo)
{
    DIR *dir = opendir(repo->cache);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat st;
        if (strncmp(entry->d_name, "check-", 6) || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            !S_ISDIR(st.st_mode) || st.st_mtime > time(NULL) - 24 * 3600)
            continue;
        RP_AUTO_FREE char *path = rp_repo_cache_path(repo, entry->d_name);
        DIR *inside = opendir(path);
        for (struct dirent *file; inside && (file = readdir(inside));)
            unlinkat(dirfd(inside), file->d_name, 0);
        if (inside)
            closedir(inside);
        rmdir(path);
    }
    if (dir)
        closedir(dir);
}

// ---- the check ------------------------------------------------------------------------------------------------------

struct bad_pack {
    struct rp_repo *repo;
    uint8_t id[RP_PACK_ID];
};

static int read_index(void *context, struct rp_error *err)
{
    const struct bad_pack *bad = context;
    struct rp_repo *repo = bad->repo;
    RP_CLEANUP(rp_pack_index_clear) struct rp_pack_index content = {0};
    uint64_t size = 0;
    return rp_index_read_pack(repo->backend, repo->crypto, bad->id, &size, &content, err);
}

static void bad_pack(void *context, const char *name, const struct rp_error *why)
{
    struct rp_check *check = context;
    struct bad_pack bad = {.repo = check->repo};
    struct rp_error again = *why;
    rp_damages_add(check->damages, name, why->text); // also what can be read now: this check does not know what it holds
    if (rp_pack_parse_name(name, bad.id) && rp_damage_stays(check->repo, check->repo->patience_ms, &again, read_index, &bad))
        rp_check_mark(check, bad.id, true);
}

static int run(struct rp_check *check, bool read_data, const struct names *points, struct report *report,
               struct rp_error *err)
{
    for (uint32_t i = 0, count = rp_index_pack_count(check->index); i < count && read_data; i++) {
        struct rp_index_pack pack;
        rp_index_pack(check->index, i, &pack);
        check->total += pack.present && !pack.unreadable ? pack.size : 0;
    }
    check->total += points->count * (uint64_t)POINT_WEIGHT;
    // The packs first: then the walk over the points can say what each damage takes away.
    return rp_check_packs(check, read_data, err) || rp_check_objects(check, err) ||
           check_points(check, points, report, err) ? -1 : 0;
}

int rp_repo_check(struct rp_repo *repo, bool read_data, rp_repo_problem_fn *problem, void *context,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *progress_context,
                  uint64_t *problems, struct rp_error *err)
{
    struct rp_check check = {.repo = repo, .progress = progress, .progress_context = progress_context};
    struct report report = {.check = &check, .problem = problem, .context = context, .problems = problems};
    RP_CLEANUP(names_clear) struct names points = {0};
    *problems = 0;
    // The points before the packs: a point that is committed meanwhile needs packs that we do not see.
    if (rp_repo_need_index(repo, NULL, err) || repo->backend->ops->list(repo->backend, RP_POINTS_PREFIX, add_name, &points, err))
        return -1;
    remove_leftovers(repo);
    RP_AUTO_FREE char *folder = rp_repo_cache_path(repo, "check-XXXXXX");
    if (!mkdtemp(folder))
        return rp_fail_sys(err, errno, "%s: make the folder", folder);
    check.damages = rp_damages_new();
    struct rp_index_setup setup = {repo->backend, repo->crypto, repo->config.id, folder, bad_pack, &check};
    check.index = rp_index_open(&setup, err);
    int result = -1;
    if (check.index) {
        check.blocks = rp_blocks_new(repo, check.index, false);
        result = run(&check, read_data, &points, &report, err);
        rp_blocks_free(check.blocks);
        rp_index_discard(check.index);
    }
    rmdir(folder);
    tell_rest(&report);
    for (uint32_t i = 0; i < report.capacity; i++)
        rp_ranges_clear(&report.ranges[i]);
    free(report.ranges);
    free(report.told);
    rp_damages_free(check.damages);
    return result;
}
