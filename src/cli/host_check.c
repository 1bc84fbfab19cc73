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

// By their SIDs: their names are in the host's language.
#define ADD_GROUPS                                                                                                     \
    "on the host: 'S-1-5-32-580', 'S-1-5-32-578' | ForEach-Object { Add-LocalGroupMember -SID $_ -Member '%s' } "      \
    "(Remote Management Users, Hyper-V Administrators); and root\\virtualization\\v2 must be allowed for remote use "  \
    "(wmimgmt.msc, Security, Remote Enable)"
#define ADD_AGAIN "refpoint host remove %s, then refpoint host add"

// What to do about a failure, by what its text (src/wsman/login_error.c, transport_*.c) says. %s: the host's name.
static const struct {
    enum rp_code code;
    const char *words, *fix;
} fixes[] = {
    {RP_ERR_AUTH, "not the pinned one", "if the host has a new certificate: " ADD_AGAIN " with its new --fingerprint"},
    {RP_ERR_AUTH, "for another host name", ADD_AGAIN " with the name that the certificate has, or with --fingerprint"},
    {RP_ERR_AUTH, "certificate is out of date",
     "on the host: a new certificate for the HTTPS listener; is the clock of this machine right?"},
    {RP_ERR_AUTH, "from no CA", ADD_AGAIN " with --ca FILE (PEM), or with --fingerprint; on the host: Get-ChildItem "
                                "Cert:\\LocalMachine\\My"},
    {RP_ERR_AUTH, "(kinit gets one)", "kinit USER@REALM, or from a keytab: kinit -kt FILE USER@REALM"},
    {RP_ERR_AUTH, "clocks differ", "here: timedatectl set-ntp true; on the host: w32tm /resync"},
    {RP_ERR_AUTH, "knows no service", ADD_AGAIN " with the host's full name in the domain, or with --auth ntlm"},
    {RP_ERR_AUTH, "no KDC", "see [realms] in /etc/krb5.conf, and whether the domain controller answers on port 88"},
    {RP_ERR_AUTH, "does not offer", "on the host: winrm get winrm/config/service/auth; or take another --auth"},
    {RP_ERR_AUTH, "has expired", "set a new password in the domain, then: " ADD_AGAIN},
    {RP_ERR_AUTH, "is locked", "have the account unlocked in the domain"},
    {RP_ERR_IO, "no host of that name", ADD_AGAIN " with the right name in the URL"},
    {RP_ERR_IO, "TLS cannot be set up", "port 5986 is for https, 5985 for http: " ADD_AGAIN " with the right URL"},
    {RP_ERR_IO, "no WS-Management service", "the path of the URL is /wsman: " ADD_AGAIN},
};

static char *known_fix(const struct rp_hosts_entry *entry, const struct rp_error *failure)
{
    for (size_t i = 0; i < sizeof fixes / sizeof *fixes; i++) {
        if (fixes[i].code != failure->code || !strstr(failure->text, fixes[i].words))
            continue;
        RP_CLEANUP(rp_buf_clear) struct rp_buf fix = {0};
        const char *name = strstr(fixes[i].fix, "%s");
        rp_buf_append(&fix, fixes[i].fix, name ? (size_t)(name - fixes[i].fix) : strlen(fixes[i].fix));
        if (name)
            rp_buf_printf(&fix, "%s%s", entry->name, name + 2);
        return rp_xstrdup(rp_buf_text(&fix));
    }
    return NULL;
}

// What is wrong, by what was asked when it went wrong: each question needs those before it.
static void add_failure(const struct rp_hosts_entry *entry, const struct rp_wmi_facts *facts,
                        const struct rp_error *failure, struct rp_host_checks *checks)
{
    char *text = rp_xstrdup(failure->text), *fix = known_fix(entry, failure);
    const char *user = entry->user ? entry->user : "USER";
    switch (failure->code) {
    case RP_ERR_AUTH:
        add(checks, "login", RP_HOST_BAD, text,
            fix ? fix : rp_xasprintf(ADD_AGAIN " with the right user (DOMAIN\\user) and password", entry->name));
        return;
    case RP_ERR_PERMISSION:
        add(checks, "permissions", RP_HOST_BAD, text, rp_xasprintf(ADD_GROUPS, user));
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
            fix ? fix
                : rp_xstrdup("on the host: winrm quickconfig (HTTP, port 5985), for HTTPS winrm quickconfig "
                             "-transport:https (port 5986); in the firewall: Enable-NetFirewallRule -Name "
                             "'WINRM-HTTP-In-TCP*'"));
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
