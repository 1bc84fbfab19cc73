#include "backup/boot_marker.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/utf16.h"

enum { AGAIN_MS = 3000, LOOK_MS = 500 };
#define PART 65536u

enum answer { FAILED = -1, NOT_YET, BOOTED, NEVER };

// What was said on the serial port, in parts: the end of each stays for a text that goes on in the next.
struct console {
    char text[RP_BOOT_TEXT_MAX + PART];
    size_t kept;
    uint64_t said;
    struct rp_console_place place;
};

// ---- the agent ------------------------------------------------------------------------------------------------------

// A checkpoint for which the guest brought its file systems to rest.
static enum answer ask_guest(const struct rp_boot_wait *wait, char why[RP_ERROR_TEXT], struct rp_error *err)
{
    struct rp_host_connection *host = wait->host;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    char job[RP_HOST_ID] = "", id[RP_HOST_ID] = "", unused[RP_HOST_ID] = "";
    struct rp_error refused = {0};
    if (host->ops->create_snapshot(host, wait->vm_id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION,
                                   "refpoint: boot check", job, id, &refused) ||
        rp_host_wait(host, job, id, NULL, NULL, &refused)) {
        snprintf(why, RP_ERROR_TEXT, "%s", refused.text);
        return NOT_YET;
    }
    enum answer answer = NOT_YET;
    if (host->ops->list_snapshots(host, wait->vm_id, &snapshots, err))
        return FAILED;
    for (size_t i = 0; i < snapshots.count; i++)
        if (!strcmp(snapshots.items[i].id, id) && snapshots.items[i].consistency == RP_CONSISTENCY_APPLICATION)
            answer = BOOTED;
    job[0] = '\0';
    if (!host->ops->destroy_snapshot(host, id, job, unused, NULL))
        rp_host_wait(host, job, unused, NULL, NULL, NULL);
    rp_host_wait_merge(host, wait->vm_id, 60000, NULL);
    snprintf(why, RP_ERROR_TEXT, "its guest's agent does not answer");
    return answer;
}

// ---- the serial port ------------------------------------------------------------------------------------------------

int rp_boot_serial_check(const struct rp_host_connection *host, const char *text, struct rp_error *err)
{
    size_t length = strlen(text);
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (!length || length > RP_BOOT_TEXT_MAX)
        return rp_fail(err, RP_ERR_USAGE, "serial: a text of 1 to %u bytes is needed, this one has %zu",
                       RP_BOOT_TEXT_MAX, length);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p < ' ' || *p == 0x7f)
            return rp_fail(err, RP_ERR_USAGE, "serial: a control character (0x%02x) is in the text: a part of one "
                           "line of the console is needed", *p);
    if (rp_utf16_append(&utf16, text, NULL))
        return rp_fail(err, RP_ERR_USAGE, "serial: the text is not UTF-8");
    if (host->ops->console_keep)
        return 0;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: the serial ports of its VMs cannot be read from here: that can be "
                   "done on the machine itself, as local:DIR", host->address);
}

static enum answer look_at_console(const struct rp_boot_wait *wait, struct console *console, char why[RP_ERROR_TEXT],
                                   struct rp_error *err)
{
    struct rp_host_connection *host = wait->host;
    size_t length = strlen(wait->serial), got;
    snprintf(why, RP_ERROR_TEXT, "\"%s\" did not come on its serial port", wait->serial);
    do {
        if (host->ops->console_read(host, wait->vm_id, &console->place, console->text + console->kept, PART, &got, err))
            return FAILED;
        size_t all = console->kept + got;
        console->said += got;
        if (memmem(console->text, all, wait->serial, length))
            return BOOTED;
        console->kept = rp_min64(all, length - 1);
        memmove(console->text, console->text + all - console->kept, console->kept);
    } while (got && console->said < RP_BOOT_CONSOLE_MAX);
    if (console->said < RP_BOOT_CONSOLE_MAX)
        return NOT_YET;
    char size[RP_SIZE_TEXT];
    snprintf(why, RP_ERROR_TEXT, "\"%s\" is not in the first %s that it said on its serial port", wait->serial,
             rp_format_size(console->said, size));
    return NEVER;
}

// ---- waiting --------------------------------------------------------------------------------------------------------

static enum answer ask(const struct rp_boot_wait *wait, struct console *console, char why[RP_ERROR_TEXT],
                       struct rp_error *err)
{
    return wait->serial ? look_at_console(wait, console, why, err) : ask_guest(wait, why, err);
}

static int start(const struct rp_boot_wait *wait, struct rp_error *err)
{
    struct rp_host_connection *host = wait->host;
    char job[RP_HOST_ID] = "", unused[RP_HOST_ID] = "";
    if (wait->serial && host->ops->console_keep(host, wait->vm_id, err))
        return -1;
    return host->ops->request_state(host, wait->vm_id, RP_VM_RUNNING, job, unused, err) ||
                   rp_host_wait(host, job, unused, NULL, NULL, err)
               ? rp_context(err, "start the restored VM")
               : 0;
}

static int is_off(const struct rp_boot_wait *wait, bool *off, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    if (wait->host->ops->find_vm(wait->host, wait->vm_id, &vm, err))
        return -1;
    *off = vm.state == RP_VM_OFF;
    return 0;
}

static int wait_for(const struct rp_boot_wait *wait, struct console *console, struct rp_boot_outcome *outcome,
                    struct rp_error *err)
{
    unsigned pause_ms = wait->serial ? LOOK_MS : AGAIN_MS;
    uint64_t began = rp_clock_monotonic_ns();
    for (bool off = false;;) {
        // What it said last is looked at when it can say no more. But one that is off cannot answer: a checkpoint of it
        // is at rest because nobody writes.
        bool was_off = off;
        enum answer answer = off && !wait->serial ? NOT_YET : ask(wait, console, outcome->why, err);
        if (answer == BOOTED && !wait->serial) {
            if (is_off(wait, &was_off, err)) // it may have gone off since we looked
                return -1;
            answer = was_off ? NOT_YET : BOOTED;
        }
        outcome->seconds = (double)(rp_clock_monotonic_ns() - began) / 1e9;
        outcome->booted = answer == BOOTED;
        if (answer == BOOTED)
            outcome->why[0] = '\0';
        if (answer)
            return answer == FAILED ? -1 : 0;
        if (was_off) {
            snprintf(outcome->why, sizeof outcome->why, "it was off again after %.0f s", outcome->seconds);
            return 0;
        }
        if (wait->stop && wait->stop(wait->context))
            return rp_fail(err, RP_ERR_CANCELLED, "stopped");
        if (is_off(wait, &off, err))
            return -1;
        if (off)
            continue;
        if (outcome->seconds > wait->limit_s)
            return 0;
        nanosleep(&(struct timespec){.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000L}, NULL);
    }
}

int rp_boot_wait(const struct rp_boot_wait *wait, struct rp_boot_outcome *outcome, struct rp_error *err)
{
    *outcome = (struct rp_boot_outcome){0};
    if (start(wait, err))
        return -1;
    struct console *console = rp_xcalloc(1, sizeof *console);
    int result = wait_for(wait, console, outcome, err);
    free(console);
    return result;
}
