#include "cli/host_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"

#define FIRST_WITH_TRACKING 14393 // build of Windows Server 2016

void rp_host_checks_clear(struct rp_host_checks *checks)
{
    for (size_t i = 0; i < checks->count; i++) {
        free(checks->items[i].text);
        free(checks->items[i].fix);
    }
    checks->count = 0;
}

static void add(struct rp_host_checks *checks, const char *name, enum rp_host_finding finding, char *text, char *fix)
{
    if (checks->count < sizeof checks->items / sizeof *checks->items)
        checks->items[checks->count++] = (struct rp_host_check){name, finding, text, fix};
}

// What is wrong, by what was asked when it went wrong: each question needs those before it.
static void add_failure(const struct rp_hosts_entry *entry, const struct rp_wmi_facts *facts,
                        const struct rp_error *failure, struct rp_host_checks *checks)
{
    char *text = rp_xstrdup(failure->text);
    const char *user = entry->user ? entry->user : "USER";
    switch (failure->code) {
    case RP_ERR_AUTH:
        add(checks, "login", RP_HOST_BAD, text,
            rp_xasprintf(
                "a password: refpoint host remove %s, then host add again; Kerberos: kinit %s; a certificate that "
                "is not known: --ca FILE, or --fingerprint with what the host shows for: Get-ChildItem "
                "Cert:\\LocalMachine\\My",
                entry->name, user));
        return;
    case RP_ERR_PERMISSION:
        add(checks, "permissions", RP_HOST_BAD, text,
            rp_xasprintf(
                "on the host: Add-LocalGroupMember -Group 'Remote Management Users' -Member '%s'; "
                "Add-LocalGroupMember -Group 'Hyper-V Administrators' -Member '%s'; and root\\virtualization\\v2 must "
                "be allowed for remote use (wmimgmt.msc, Security, Remote Enable)",
                user, user));
        return;
    case RP_ERR_NOT_FOUND:
    case RP_ERR_INVALID:
        if (facts->os_version && !facts->services) {
            add(checks, "Hyper-V", RP_HOST_BAD, text,
                rp_xstrdup("on the host: Install-WindowsFeature Hyper-V -IncludeManagementTools"));
            return;
        }
        break;
    case RP_ERR_IO:
        add(checks, facts->vendor ? "answers" : "connection", RP_HOST_BAD, text,
            rp_xstrdup(
                "on the host: winrm quickconfig (HTTP, port 5985), for HTTPS winrm quickconfig -transport:https (port "
                "5986); in the firewall: Enable-NetFirewallRule -DisplayGroup 'Windows Remote Management'"));
        return;
    default:
        break;
    }
    add(checks, "answers", RP_HOST_BAD, text, NULL);
}

static void check_version(const struct rp_wmi_facts *facts, struct rp_host_checks *checks)
{
    unsigned major = 0, minor = 0, build = 0;
    bool windows = facts->vendor && !strncmp(facts->vendor, "Microsoft", 9);
    bool known = sscanf(facts->os_version, "%5u.%5u.%7u", &major, &minor, &build) == 3;
    bool old = known && windows && (major < 10 || (major == 10 && build < FIRST_WITH_TRACKING));
    add(checks, "version", old || !known ? RP_HOST_REMARK : RP_HOST_GOOD,
        rp_xasprintf("%s %s", windows ? "Windows" : facts->vendor,
                     known ? facts->os_version : "of a version that it does not tell"),
        old ? rp_xstrdup("Hyper-V before Windows Server 2016 tracks no changes: every backup reads whole disks")
            : NULL);
}

static void check_tracking(const struct rp_wmi_facts *facts, struct rp_host_checks *checks)
{
    if (!facts->reference_points)
        add(checks, "change tracking", RP_HOST_BAD, rp_xstrdup("the host has no reference points"),
            rp_xstrdup("refpoint needs Hyper-V of Windows Server 2016 or later, or refpoint-hostd"));
    else if (*facts->old_vms)
        add(checks, "change tracking", RP_HOST_REMARK,
            rp_xasprintf("there, but the configuration of these VMs is too old for it: %s", facts->old_vms),
            rp_xstrdup("on the host, with the VM off: Update-VMVersion -Name VM"));
    else
        add(checks, "change tracking", RP_HOST_GOOD,
            rp_xasprintf("there, for %zu VM%s", facts->vms, facts->vms == 1 ? "" : "s"), NULL);
}

static void check_leftovers(const struct rp_hosts_entry *entry, const struct rp_wmi_facts *facts,
                            struct rp_host_checks *checks)
{
    if (facts->our_snapshots)
        add(checks, "leftovers", RP_HOST_REMARK,
            rp_xasprintf("%zu checkpoint%s of refpoint: %s (a backup may be running)", facts->our_snapshots,
                         facts->our_snapshots == 1 ? "" : "s", facts->our_vms),
            rp_xasprintf(
                "when no backup is running: the next backup of the VM removes what its repository left; otherwise "
                "refpoint checkpoint delete %s/VM CHECKPOINT",
                entry->name));
    if (facts->other_snapshots)
        add(checks, "leftovers", RP_HOST_REMARK,
            rp_xasprintf("%zu backup checkpoint%s of other programs: %s", facts->other_snapshots,
                         facts->other_snapshots == 1 ? "" : "s", facts->other_vms),
            rp_xstrdup("when no backup is running, on the host: Get-VMSnapshot -VMName VM -SnapshotType Recovery | "
                       "Remove-VMSnapshot"));
    if (!facts->our_snapshots && !facts->other_snapshots)
        add(checks, "leftovers", RP_HOST_GOOD, rp_xstrdup("none"), NULL);
}

static void check_folders(const struct rp_hosts_entry *entry, struct rp_host_checks *checks)
{
    struct stat st;
    for (size_t i = 0; i < entry->paths.count; i++) {
        const struct rp_path_mapping *one = &entry->paths.items[i];
        bool there = !stat(one->local, &st) && S_ISDIR(st.st_mode);
        add(checks, "folder", there ? RP_HOST_GOOD : RP_HOST_REMARK,
            rp_xasprintf("%s = %s%s", one->host, one->local, there ? "" : " is not there"),
            there ? NULL
                  : rp_xasprintf("mount the share: mount -t cifs //HOST/SHARE %s -o credentials=FILE,ro", one->local));
    }
    if (!entry->paths.count)
        add(checks, "folder", RP_HOST_REMARK,
            rp_xstrdup("no folder of the host is mapped: disks can only be read by an export"),
            rp_xasprintf("share the folder of the VMs, mount it here, and give host add --map 'D:\\VMs = /mnt/%s'",
                         entry->name));
    if (entry->export_folder && !rp_path_map_knows(&entry->paths, entry->export_folder))
        add(checks, "export", RP_HOST_REMARK, rp_xasprintf("%s is in no mapped folder", entry->export_folder),
            rp_xstrdup("give it with host add --map, so that what is exported can be read"));
}

void rp_host_check(const struct rp_hosts_entry *entry, const struct rp_wmi_facts *facts, const struct rp_error *failure,
                   struct rp_host_checks *checks)
{
    *checks = (struct rp_host_checks){0};
    bool windows = facts->vendor && !strncmp(facts->vendor, "Microsoft", 9);
    if (facts->vendor)
        add(checks, "connection", RP_HOST_GOOD, rp_xasprintf("%s, %s", facts->vendor, facts->product), NULL);
    if (facts->os_version) {
        add(checks, "login", RP_HOST_GOOD,
            rp_xasprintf("%s%s%s", rp_hosts_auth_name(entry->auth), entry->user ? ", " : "",
                         entry->user ? entry->user : ""),
            NULL);
        check_version(facts, checks);
    }
    if (facts->services)
        add(checks, "permissions", RP_HOST_GOOD,
            rp_xasprintf("%s's services on %s answer", windows ? "Hyper-V" : "the host", facts->machine), NULL);
    if (failure) {
        add_failure(entry, facts, failure, checks);
        return;
    }
    check_tracking(facts, checks);
    check_leftovers(entry, facts, checks);
    check_folders(entry, checks);
}
