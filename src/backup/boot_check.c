#include "backup/boot_check.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backup/remark.h"
#include "base/buf.h"
#include "io/fs.h"

struct check {
    struct rp_host_connection *host;
    const struct rp_restore_host_options *options;
    struct rp_restore_host_result restored;
    char *local; // its folder, here
};

#define remark(check, ...) rp_remark((check)->options->remark, (check)->options->context, __VA_ARGS__)

static bool is_in(const char *begin, const char *end, const char *word)
{
    const char *found = strstr(begin, word);
    return found && found < end;
}

// What would connect a second machine to what the first one works with: adapters, ports to a storage network, devices and disks
// that are passed through. The first by their class, physical drives by their ResourceSubType.
static bool leads_outside(const char *instance, const char *end_of_tag, const char *end)
{
    static const char *const classes[] = {"EthernetPort", "SyntheticFcPort", "PciExpress"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (is_in(instance, end_of_tag, classes[i]))
            return true;
    return is_in(instance, end, "Microsoft:Hyper-V:Physical ");
}

// Instances stand one after the other, in a text of their own or in a string of a JSON document, and nowhere inside
// another one.
char *rp_boot_check_isolate(const char *settings)
{
    static const char begin[] = "<INSTANCE ", end[] = "</INSTANCE>";
    RP_CLEANUP(rp_buf_clear) struct rp_buf left = {0};
    for (const char *next; (next = strstr(settings, begin)); ) {
        const char *stop = strstr(next, end), *head = strchr(next, '>');
        if (!stop || !head)
            break;
        stop += strlen(end);
        rp_buf_append(&left, settings, (size_t)(next - settings));
        if (!leads_outside(next, head, stop))
            rp_buf_append(&left, next, (size_t)(stop - next));
        settings = stop;
    }
    rp_buf_append(&left, settings, strlen(settings));
    return rp_xstrdup(rp_buf_text(&left));
}

// ---- and away with it -----------------------------------------------------------------------------------------------

// The folder is the check's own: all that is in it is of the VM. Not deeper than a restore makes them.
static void remove_folder(struct check *check, const char *path, unsigned depth)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        RP_AUTO_FREE char *inside = rp_path_join(path, entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (unlink(inside) && depth && (errno == EISDIR || errno == EPERM))
            remove_folder(check, inside, depth - 1);
    }
    if (folder)
        closedir(folder);
    if (rmdir(path) && errno != ENOENT)
        remark(check, "the folder of the boot check stays, remove it: %s: %s", path, strerror(errno));
}

static void clean_up(struct check *check)
{
    struct rp_host_connection *host = check->host;
    struct rp_error err = {0};
    char job[RP_HOST_ID] = "", unused[RP_HOST_ID] = "";
    if (!host->ops->request_state(host, check->restored.vm_id, RP_VM_OFF, job, unused, NULL))
        rp_host_wait(host, job, unused, NULL, NULL, NULL);
    job[0] = '\0';
    if ((host->ops->destroy_system(host, check->restored.vm_id, false, job, unused, &err) ||
         rp_host_wait(host, job, unused, NULL, NULL, &err)) && err.code != RP_ERR_NOT_FOUND) {
        remark(check, "the VM of the boot check stays, %s (refpoint vm delete removes it): %s", check->restored.vm_id,
               err.text);
        return; // with its files
    }
    if (check->local)
        remove_folder(check, check->local, 1);
}

static int note(struct rp_repo *repo, const struct check *check, const struct rp_point *point,
                const char *serial, const struct rp_boot_outcome *outcome, struct rp_error *err)
{
    json_t *json = json_pack("{s:{s:b, s:s, s:s, s:s*, s:f, s:s}}", "boot_check", "booted", (int)outcome->booted,
                             "host", check->host->address, "marker", serial ? "serial" : "agent", "text", serial, "seconds",
                             outcome->seconds, "why", outcome->why);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    int rc = text ? rp_repo_note_add(repo, point->id, text, err)
                  : rp_fail(err, RP_ERR_INVALID, "the outcome is no valid text");
    free(text);
    return rc ? rp_context(err, "the outcome of the boot check") : 0;
}

int rp_boot_check_plan(const struct rp_host_connection *host, const struct rp_point *point,
                       const struct rp_restore_host_options *options, const struct rp_boot_check_how *how,
                       struct rp_boot_check_plan *plan, struct rp_error *err)
{
    struct rp_guid guid = rp_guid_new();
    char text[RP_GUID_TEXT];
    *plan = (struct rp_boot_check_plan){.options = *options};
    if (how->serial && rp_boot_serial_check(host, how->serial, err))
        return -1;
    RP_AUTO_FREE char *parent = rp_restore_host_folder(host, point, options, err);
    if (!parent)
        return -1;
    plan->folder = rp_xasprintf("%s-boot-check-%.8s", parent, rp_guid_format(&guid, text));
    plan->name = rp_xasprintf("boot check of %.200s", point->vm_name ? point->vm_name : point->vm_id);
    plan->options.folder = plan->folder;
    plan->options.vm_name = plan->name;
    plan->options.identity = RP_IDENTITY_NEW;
    plan->options.start = false;
    plan->options.isolated = true;
    return 0;
}

void rp_boot_check_plan_clear(struct rp_boot_check_plan *plan)
{
    free(plan->folder);
    free(plan->name);
    *plan = (struct rp_boot_check_plan){0};
}

int rp_boot_check_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                      const struct rp_restore_host_options *options, const struct rp_boot_check_how *how,
                      struct rp_boot_outcome *outcome, struct rp_error *err)
{
    struct check check = {.host = host, .options = options};
    RP_CLEANUP(rp_boot_check_plan_clear) struct rp_boot_check_plan plan = {0};
    *outcome = (struct rp_boot_outcome){0};
    if (rp_boot_check_plan(host, point, options, how, &plan, err) ||
        rp_restore_host_run(host, repo, point, &plan.options, &check.restored, err))
        return -1;
    check.local = rp_host_local_path(host, check.restored.folder, NULL);
    const struct rp_boot_wait wait = {.host = host, .vm_id = check.restored.vm_id, .serial = how->serial,
                                      .limit_s = how->limit_s, .stop = options->stop, .context = options->context};
    int rc = rp_boot_wait(&wait, outcome, err);
    clean_up(&check);
    if (!rc)
        rc = note(repo, &check, point, how->serial, outcome, err);
    free(check.local);
    rp_restore_host_result_clear(&check.restored);
    return rc;
}
