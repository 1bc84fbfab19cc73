#include "repo/points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "repo/core.h"
#include "repo/damage.h"
#include "repo/json.h"
#include "repo/object.h"

#define NOTE_VERSION 1

static void document_id(struct rp_repo *repo, const struct rp_buf *json, char out[RP_POINT_ID])
{
    uint8_t id[RP_ID_BYTES];
    struct rp_scratch *scratch = rp_scratch_take(repo);
    rp_cipher_id(scratch->cipher, 'P', json->data, json->size, id);
    rp_scratch_give(repo, scratch);
    rp_hex(id, sizeof id, out);
}

int rp_points_put(struct rp_repo *repo, struct rp_point *point, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_point again;
    struct rp_error why = {0};
    char name[RP_OBJECT_NAME];
    // What could not be read back must not be written.
    if (rp_point_encode(point, &json, err) || rp_point_decode(json.data, json.size, &again, err))
        return -1;
    rp_point_clear(&again);
    document_id(repo, &json, point->id);
    snprintf(name, sizeof name, RP_POINTS_PREFIX "%s", point->id);
    if (rp_object_put(repo->backend, repo->crypto, name, json.data, json.size, &why) && why.code != RP_ERR_EXISTS) {
        point->id[0] = 0;
        rp_fail_as(err, &why);
        return rp_context(err, "write the restore point");
    }
    return 0;
}

int rp_points_get(struct rp_repo *repo, const char *name, struct rp_point *point, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    char id[RP_POINT_ID];
    *point = (struct rp_point){0};
    if (rp_object_get(repo->backend, repo->crypto, name, &json, err))
        return -1;
    if (rp_point_decode(json.data, json.size, point, err))
        return rp_context(err, "%s", name);
    document_id(repo, &json, id);
    if (strncmp(name, RP_POINTS_PREFIX, strlen(RP_POINTS_PREFIX)) || strcmp(name + strlen(RP_POINTS_PREFIX), id)) {
        rp_point_clear(point);
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the document's id is %s", name, id);
    }
    memcpy(point->id, id, sizeof id);
    return 0;
}

// ---- lists ----------------------------------------------------------------------------------------------------------

struct names {
    char **items;
    size_t count;
};

static int add_name(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct names *names = context;
    if (names->count % 64 == 0)
        names->items = rp_xrealloc(names->items, (names->count + 64) * sizeof *names->items);
    names->items[names->count++] = rp_xstrdup(name);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_clear(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
}

static int list_names(struct rp_repo *repo, const char *prefix, struct names *names, struct rp_error *err)
{
    if (repo->backend->ops->list(repo->backend, prefix, add_name, names, err))
        return -1;
    if (names->count)
        qsort(names->items, names->count, sizeof *names->items, by_name);
    return 0;
}

#define COMPARE(x, y) \
    if ((x) != (y)) \
    return (x) < (y) ? -1 : 1

static int by_commit(const void *a, const void *b)
{
    const struct rp_point *x = a, *y = b;
    int order = strcmp(x->vm_id, y->vm_id);
    if (order)
        return order;
    COMPARE(x->sequence, y->sequence);
    COMPARE(x->time_ns, y->time_ns);
    return strcmp(x->id, y->id);
}

static int older_first(const void *a, const void *b)
{
    const struct rp_point *x = a, *y = b;
    COMPARE(x->order_ns, y->order_ns);
    return by_commit(a, b);
}

// A clock that was wrong for a while must not keep its point the latest one for ever: no point is younger than those of its VM
// that were committed after it.
static void put_in_order(struct rp_points *points)
{
    qsort(points->items, points->count, sizeof *points->items, by_commit);
    for (size_t i = points->count; i-- > 1;) {
        struct rp_point *earlier = &points->items[i - 1], *later = &points->items[i];
        if (!strcmp(earlier->vm_id, later->vm_id) && earlier->order_ns > later->order_ns)
            earlier->order_ns = later->order_ns;
    }
    qsort(points->items, points->count, sizeof *points->items, older_first);
}

int rp_repo_point(struct rp_repo *repo, const char *point_id, struct rp_point *point, struct rp_error *err)
{
    char name[RP_OBJECT_NAME];
    snprintf(name, sizeof name, RP_POINTS_PREFIX "%s", point_id);
    return rp_points_get(repo, name, point, err);
}

// One that is damaged must not keep the others out of reach; a check counts it as a problem.
static bool is_passed_over(const struct rp_error *why, const char *what)
{
    if (!rp_damage_is(why) && why->code != RP_ERR_UNSUPPORTED)
        return false;
    rp_log(RP_LOG_WARNING, "a %s cannot be read: %s; run refpoint check", what, why->text);
    return true;
}

int rp_repo_points(struct rp_repo *repo, struct rp_points *points, struct rp_error *err)
{
    return rp_repo_points_of(repo, NULL, points, err);
}

int rp_repo_points_of(struct rp_repo *repo, const char *vm_id, struct rp_points *points, struct rp_error *err)
{
    RP_CLEANUP(names_clear) struct names names = {0};
    *points = (struct rp_points){0};
    if (list_names(repo, RP_POINTS_PREFIX, &names, err))
        return -1;
    points->items = rp_xcalloc(1, sizeof *points->items);
    for (size_t i = 0, capacity = 1; i < names.count; i++) {
        struct rp_error why = {0};
        if (points->count == capacity)
            points->items = rp_xrealloc(points->items, (capacity *= 2) * sizeof *points->items);
        struct rp_point *point = &points->items[points->count];
        if (rp_points_get(repo, names.items[i], point, &why) == 0) {
            free(point->settings);
            point->settings = NULL;
            rp_point_clear_files(point);
            if (vm_id && strcmp(point->vm_id, vm_id))
                rp_point_clear(point);
            else
                points->count++;
        } else if (is_passed_over(&why, "restore point")) {
            points->unreadable++;
        } else if (why.code != RP_ERR_NOT_FOUND) {
            rp_points_clear(points);
            return rp_fail_as(err, &why);
        }
    }
    put_in_order(points);
    return 0;
}

void rp_points_clear(struct rp_points *points)
{
    for (size_t i = 0; i < points->count; i++)
        rp_point_clear(&points->items[i]);
    free(points->items);
    *points = (struct rp_points){0};
}

// ---- notes ----------------------------------------------------------------------------------------------------------

static int check_point_id(const char *point_id, struct rp_error *err)
{
    uint8_t id[RP_ID_BYTES];
    if (!rp_unhex(point_id, id, sizeof id))
        return rp_fail(err, RP_ERR_INVALID, "\"%s\" is not the id of a restore point", point_id);
    return 0;
}

int rp_repo_note_add(struct rp_repo *repo, const char *point_id, const char *text, struct rp_error *err)
{
    char name[RP_OBJECT_NAME], hex[RP_HEX(8)];
    uint8_t random[8];
    if (check_point_id(point_id, err))
        return -1;
    json_t *note = rp_json_parse(text, strlen(text), "note", err);
    if (!note)
        return -1;
    int64_t now = rp_clock_wall_ns();
    RP_AUTO_JSON json_t *json = json_object();
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_json_set_number(json, "version", NOTE_VERSION);
    rp_json_set_number(json, "time_ns", (uint64_t)now);
    json_object_set_new(json, "note", note);
    rp_json_write(json, &out);
    // The time in front: names sort in the order of the notes.
    rp_crypto_random(random, sizeof random);
    snprintf(name, sizeof name, RP_NOTES_PREFIX "%s/%016" PRIx64 "-%s", point_id, (uint64_t)now,
             rp_hex(random, sizeof random, hex));
    return rp_object_put(repo->backend, repo->crypto, name, out.data, out.size, err);
}

int rp_points_get_note(struct rp_repo *repo, const char *name, int64_t *time_ns, struct rp_buf *out, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (rp_object_get(repo->backend, repo->crypto, name, &text, err))
        return -1;
    RP_AUTO_JSON json_t *root = rp_json_parse(text.data, text.size, name, err);
    if (!root)
        return -1;
    struct rp_json json = {root, name, err, false};
    uint64_t version = rp_json_number(&json, "version", INT64_MAX, true);
    if (!json.failed && version != NOTE_VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: version %" PRIu64 " of the format of notes", name, version);
    const json_t *note = json_object_get(root, "note");
    *time_ns = (int64_t)rp_json_number(&json, "time_ns", INT64_MAX, true);
    if (!json_is_object(note))
        rp_json_fail(&json, "note", "is not an object");
    if (json.failed)
        return -1;
    rp_json_write(note, out);
    return 0;
}

int rp_repo_notes(struct rp_repo *repo, const char *point_id, rp_repo_note_fn *each, void *context, struct rp_error *err)
{
    RP_CLEANUP(names_clear) struct names names = {0};
    char prefix[RP_OBJECT_NAME];
    if (check_point_id(point_id, err))
        return -1;
    snprintf(prefix, sizeof prefix, RP_NOTES_PREFIX "%s/", point_id);
    if (list_names(repo, prefix, &names, err))
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
        int64_t time_ns;
        struct rp_error why = {0};
        if (rp_points_get_note(repo, names.items[i], &time_ns, &json, &why)) {
            if (is_passed_over(&why, "note"))
                continue;
            return rp_fail_as(err, &why);
        }
        if (each(context, time_ns, rp_buf_text(&json)))
            return 0;
    }
    return 0;
}
