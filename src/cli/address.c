#include "cli/address.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/open_host.h"

#define MAX_LISTED 8

// What one address selects, while it is being understood.
struct selection {
    const char *host;  // NULL: any
    const char *vm;    // name or GUID; NULL: any
    const char *point; // NULL: latest
    int64_t disk;
};

static bool is_vm(const struct rp_point *point, const char *vm)
{
    return (point->vm_name && !strcmp(point->vm_name, vm)) || (point->vm_id && !strcasecmp(point->vm_id, vm));
}

static bool selected(const struct rp_point *point, const struct selection *selection)
{
    if (selection->host && (!point->host || strcmp(point->host, selection->host)))
        return false;
    return !selection->vm || is_vm(point, selection->vm);
}

void rp_address_split_host(const char *text, char **host, const char **vm)
{
    bool local = !strncmp(text, "local:", 6);
    const char *slash = local ? strrchr(text, '/') : strchr(text, '/');
    *host = slash ? strndup(text, (size_t)(slash - text)) : NULL;
    *vm = slash ? slash + 1 : text;
    if (!slash || local || rp_cli_is_host(*host))
        return;
    free(*host); // a VM's name with a slash in it
    *host = NULL;
    *vm = text;
}

// A host that points of the repository come from counts too, whether it is still in the hosts file or not.
static void split_host_of(const struct rp_points *points, const char *text, char **host, const char **vm)
{
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : 0;
    for (size_t i = 0; length && i < points->count; i++) {
        const char *known = points->items[i].host;
        if (!known || strlen(known) != length || strncmp(known, text, length))
            continue;
        *host = strndup(text, length);
        *vm = slash + 1;
        return;
    }
    rp_address_split_host(text, host, vm);
}

// ---- which VM -------------------------------------------------------------------------------------------------------

// What is not found may be among the points that cannot be read.
static int name_unreadable(const struct rp_points *points, struct rp_error *err)
{
    if (!points->unreadable || !err || err->code != RP_ERR_NOT_FOUND)
        return -1;
    struct rp_error why = *err;
    rp_error_clear(err);
    return rp_fail(err, why.code, "%s; %zu restore point%s cannot be read (see refpoint check)", why.text, points->unreadable,
                   points->unreadable == 1 ? "" : "s");
}

// One name may stand for several VMs (GUIDs): then a person must say which.
static int check_one_vm(const struct rp_points *points, const struct selection *selection, const char **vm_id, struct rp_error *err)
{
    const char *ids[MAX_LISTED];
    size_t count = 0;
    for (size_t i = 0; i < points->count; i++) {
        const char *id = points->items[i].vm_id;
        bool known = !id || !selected(&points->items[i], selection);
        for (size_t j = 0; j < count && !known; j++)
            known = !strcmp(ids[j], id);
        if (!known && count < MAX_LISTED)
            ids[count++] = id;
    }
    if (!count) {
        rp_fail(err, RP_ERR_NOT_FOUND, "no restore point of a VM \"%.128s\" in the repository (see refpoint list)", selection->vm);
        return name_unreadable(points, err);
    }
    if (count == 1) {
        *vm_id = ids[0];
        return 0;
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf list = {0};
    for (size_t i = 0; i < count; i++)
        rp_buf_printf(&list, "%s%s", i ? ", " : "", ids[i]);
    return rp_fail(err, RP_ERR_INVALID, "\"%.128s\" names several VMs, use a GUID: %s", selection->vm, rp_buf_text(&list));
}

int rp_address_choose_vm(const struct rp_points *points, const char *text, const char **vm_id, struct rp_error *err)
{
    struct selection selection = {.vm = text};
    for (size_t i = 0; i < points->count; i++)
        if (is_vm(&points->items[i], text))
            return check_one_vm(points, &selection, vm_id, err);
    RP_AUTO_FREE char *host = NULL;
    split_host_of(points, text, &host, &selection.vm);
    selection.host = host;
    return check_one_vm(points, &selection, vm_id, err);
}

// ---- which point ----------------------------------------------------------------------------------------------------

// To the end of the day, or of what the last digit stands for: "list" shows whole seconds, "show" milliseconds, and a point that was
// made within them is meant.
static bool parse_date(const char *text, int64_t *moment)
{
    if (rp_time_parse(text, moment, NULL))
        return false;
    const char *dot = strchr(text, '.');
    int64_t length = strpbrk(text, "T ") ? 1000000000 : INT64_C(86400) * 1000000000;
    for (size_t digits = dot ? strspn(dot + 1, "0123456789") : 0; digits && length > 1; digits--)
        length /= 10;
    *moment += length - 1;
    return true;
}

static const struct rp_point *newest(const struct rp_points *points, const struct selection *selection, uint64_t skip, int64_t moment)
{
    for (size_t i = points->count; i-- > 0;) {
        const struct rp_point *point = &points->items[i];
        if (selected(point, selection) && point->order_ns <= moment && !skip--)
            return point;
    }
    return NULL;
}

static int by_id(const struct rp_points *points, const struct selection *selection, const struct rp_point **found, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf list = {0};
    size_t count = 0, length = strlen(selection->point);
    for (size_t i = 0; i < points->count; i++) {
        const struct rp_point *point = &points->items[i];
        if (!selected(point, selection) || strncasecmp(point->id, selection->point, length))
            continue;
        *found = point;
        if (count++ < MAX_LISTED)
            rp_buf_printf(&list, "%s%.16s", count > 1 ? ", " : "", point->id);
    }
    if (count > 1)
        return rp_fail(err, RP_ERR_INVALID, "several restore points begin with \"%.64s\": %s", selection->point, rp_buf_text(&list));
    return count ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "no restore point \"%.64s\"%s%.128s (see refpoint list)", selection->point,
                               selection->vm ? " of " : "", selection->vm ? selection->vm : "");
}

static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits && digits < 10 && !text[digits];
}

static int choose_point(const struct rp_points *points, const struct selection *selection, struct rp_choice *choice, struct rp_error *err)
{
    const char *text = selection->point;
    int64_t moment = INT64_MAX;
    uint64_t skip = 0;
    if (text && !*text)
        return rp_fail(err, RP_ERR_USAGE, "nothing after '@': a restore point is meant");
    if (text && text[0] == '-' && is_number(text + 1))
        skip = strtoull(text + 1, NULL, 10);
    else if (text && strcmp(text, "latest") && !parse_date(text, &moment))
        return by_id(points, selection, &choice->point, err);
    choice->of_any_vm = !selection->vm;
    choice->point = newest(points, selection, skip, moment);
    if (choice->point)
        return 0;
    if (moment != INT64_MAX)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no restore point up to %s", text);
    return rp_fail(err, RP_ERR_NOT_FOUND, skip ? "there are not so many restore points" : "no restore point");
}

// ---- the whole address ----------------------------------------------------------------------------------------------

static int finish(const struct rp_points *points, struct selection *selection, struct rp_choice *choice, struct rp_error *err)
{
    const char *vm_id;
    if (selection->vm) {
        if (check_one_vm(points, selection, &vm_id, err))
            return -1;
        selection->vm = vm_id; // from here on: this VM also under the names that it had before
    }
    *choice = (struct rp_choice){.disk = selection->disk};
    return choose_point(points, selection, choice, err) ? name_unreadable(points, err) : 0;
}

// Takes ":DISK" off the end of `text`, unless it belongs to a date.
static void cut_disk(char *text, struct selection *selection)
{
    char *at = strrchr(text, '@'), *colon = strrchr(text, ':');
    int64_t moment;
    if (!colon || colon < at || !is_number(colon + 1) || (at && parse_date(at + 1, &moment)))
        return;
    selection->disk = (int64_t)strtoull(colon + 1, NULL, 10);
    *colon = 0;
}

int rp_address_choose(const struct rp_cli *cli, const struct rp_points *points, const char *text, struct rp_choice *choice,
                      struct rp_error *err)
{
    struct selection selection = {.vm = rp_cli_value(cli, "vm"), .disk = -1};
    if (!text && !selection.vm)
        return rp_fail(err, RP_ERR_USAGE, "which VM? Give [HOST/]VM[@POINT][:DISK], or --vm NAME");
    if (!text)
        return finish(points, &selection, choice, err);
    if (selection.vm && *text != '@')
        return rp_fail(err, RP_ERR_USAGE, "with --vm, the argument is @POINT[:DISK], not \"%.64s\"", text);
    if (!selection.vm)
        for (size_t i = 0; i < points->count; i++)
            if (is_vm(&points->items[i], text)) { // a name as a whole, whatever it contains
                selection.vm = text;
                return finish(points, &selection, choice, err);
            }
    RP_AUTO_FREE char *copy = rp_xstrdup(text), *host = NULL;
    cut_disk(copy, &selection);
    char *at = strrchr(copy, '@');
    if (at) {
        *at = 0;
        selection.point = at + 1;
    }
    if (!selection.vm && !*copy && !at)
        return rp_fail(err, RP_ERR_USAGE, "the address is empty: which VM? Give [HOST/]VM[@POINT][:DISK]");
    if (!selection.vm && *copy) {
        split_host_of(points, copy, &host, &selection.vm);
        selection.host = host;
    }
    return finish(points, &selection, choice, err);
}

// ---- points that cannot be read -------------------------------------------------------------------------------------

static bool names_place(const char *point)
{
    int64_t moment;
    return !point || !strcmp(point, "latest") || (*point == '-' && is_number(point + 1)) || parse_date(point, &moment);
}

static bool chooses_by_place(const struct rp_cli *cli, const struct rp_points *points, const char *text)
{
    struct selection unused;
    for (size_t i = 0; text && !rp_cli_value(cli, "vm") && i < points->count; i++)
        if (is_vm(&points->items[i], text)) // as rp_address_choose
            text = NULL;
    if (!text)
        return true;
    RP_AUTO_FREE char *copy = rp_xstrdup(text);
    cut_disk(copy, &unused);
    const char *at = strrchr(copy, '@');
    return names_place(at ? at + 1 : NULL);
}

int rp_address_remark(const struct rp_cli *cli, const struct rp_points *points, const char *text)
{
    if (!points->unreadable || !chooses_by_place(cli, points, text))
        return 0;
    rp_cli_remark(cli, "%zu restore point%s cannot be read (see refpoint check): there may be a newer one than this",
                  points->unreadable, points->unreadable == 1 ? "" : "s");
    return 1;
}
