// refpoint host add | list | test | remove
#include <string.h>

#include "base/buf.h"
#include "cli/host_check.h"
#include "cli/open_host.h"
#include "hyperv/keyring.h"
#include "hyperv/scrub.h"

// ---- add ------------------------------------------------------------------------------------------------------------

static char *copy(const char *text) { return text ? rp_xstrdup(text) : NULL; }

static int parse(const struct rp_cli *cli, struct rp_hosts_entry *entry, struct rp_error *err)
{
    struct rp_error why = {0};
    const char *auth = rp_cli_value(cli, "auth"), *value;
    entry->name = rp_xstrdup(cli->args[0]);
    entry->url = rp_xstrdup(cli->args[1]);
    entry->user = copy(rp_cli_value(cli, "user"));
    entry->ca_file = copy(rp_cli_value(cli, "ca"));
    entry->fingerprint = copy(rp_cli_value(cli, "fingerprint"));
    entry->export_folder = copy(rp_cli_value(cli, "export-folder"));
    entry->basic_in_clear = rp_cli_flag(cli, "basic-in-clear");
    entry->auth = strncmp(entry->url, "unix:", 5) ? RP_AUTH_NEGOTIATE : RP_AUTH_PEER;
    if (!rp_hosts_is_name(entry->name))
        return rp_fail(err, RP_ERR_USAGE, "\"%.64s\" is no name for a host: letters, digits, '.', '-' and '_'",
                       entry->name);
    if (auth && rp_hosts_auth_parse(auth, &entry->auth, &why))
        return rp_fail(err, RP_ERR_USAGE, "--auth: %s", why.text);
    for (size_t i = 0; (value = rp_cli_value_at(cli, "map", i)); i++)
        if (rp_path_map_add_line(&entry->paths, value, &why))
            return rp_fail(err, RP_ERR_USAGE, "--map: %s", why.text);
    return 0;
}

// Kerberos has a ticket; so has Negotiate where nobody is named.
static bool needs_password(const struct rp_cli *cli, const struct rp_hosts_entry *entry)
{
    if (entry->auth == RP_AUTH_PEER || rp_cli_flag(cli, "no-password"))
        return false;
    if (rp_cli_value(cli, "password-file"))
        return true;
    return entry->auth == RP_AUTH_NTLM || entry->auth == RP_AUTH_BASIC ||
           (entry->auth == RP_AUTH_NEGOTIATE && entry->user);
}

static int check_new(const struct rp_hosts_entry *entry, const char *path, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    if (rp_hosts_file_read(path, &hosts, err))
        return -1;
    return rp_hosts_find(&hosts, entry->name)
               ? rp_fail(err, RP_ERR_EXISTS, "%s: host %s is there already", path, entry->name)
               : 0;
}

static int run_add(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry entry = {0};
    RP_AUTO_FREE char *path = rp_hosts_file_path(), *keyring = rp_keyring_path();
    if (parse(cli, &entry, err) || check_new(&entry, path, err))
        return -1;
    if ((entry.auth == RP_AUTH_NTLM || entry.auth == RP_AUTH_BASIC) && !entry.user)
        return rp_fail(err, RP_ERR_USAGE, "--auth %s needs --user", rp_hosts_auth_name(entry.auth));
    bool with_password = needs_password(cli, &entry);
    RP_AUTO_FREE char *prompt = rp_xasprintf(
        "Password of %s on %s: ", entry.user ? rp_cli_safe(entry.user) : "the user", entry.name);
    RP_CLEANUP(rp_cli_wipe) char *password = with_password ? rp_cli_password(cli, prompt, err) : NULL;
    if (with_password && !password)
        return -1;
    struct rp_wsman_options options;
    rp_cli_host_options(&entry, password, &options);
    // What cannot be is refused before anything is kept.
    RP_CLEANUP(rp_wsman_client_free_p) struct rp_wsman_client *client = rp_wsman_client_new(&options, err);
    if (!client || (password && rp_keyring_set(keyring, entry.name, password, err)))
        return -1;
    if (rp_hosts_file_add(path, &entry, err)) {
        rp_keyring_set(keyring, entry.name, NULL, NULL);
        return -1;
    }
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o}", "name", entry.name, "url", rp_cli_json_text(entry.url)));
    rp_cli_say(cli, "host %s added; now: refpoint host test %s\n", entry.name, entry.name);
    return 0;
}

static const struct rp_cli_option add_options[] = {
    {0, "auth", "KIND", "negotiate (default), kerberos, ntlm, basic; peer for a unix socket"},
    {0, "user", "NAME", "DOMAIN\\user or user@REALM; without it the Kerberos ticket's"},
    {0, "no-password", NULL, "store no password: a Kerberos ticket will be there"},
    {0, "ca", "FILE", "certificates (PEM) that may sign the host's, instead of the system's"},
    {0, "fingerprint", "SHA256", "believe exactly this certificate of the host"},
    {0, "basic-in-clear", NULL, "allow basic without TLS, which shows the password to the network"},
    {0, "map", "MAPPING", "a folder of the host and where it is mounted: 'D:\\VMs = /mnt/vms'; may be repeated"},
    {0, "export-folder", "FOLDER", "a folder of the host for exports, as the host calls it"},
    {0},
};

// ---- list -----------------------------------------------------------------------------------------------------------

static bool has_password(const char *keyring, const struct rp_hosts_entry *entry)
{
    RP_CLEANUP(rp_keyring_wipe) char *password = rp_keyring_get(keyring, entry->name, NULL);
    return password != NULL;
}

static json_t *entry_json(const struct rp_hosts_entry *entry, bool password)
{
    json_t *folders = json_array();
    for (size_t i = 0; i < entry->paths.count; i++)
        json_array_append_new(folders, json_pack("{s:o, s:o}", "host", rp_cli_json_text(entry->paths.items[i].host),
                                                 "local", rp_cli_json_text(entry->paths.items[i].local)));
    return json_pack("{s:s, s:o, s:s, s:o, s:b, s:o, s:o}", "name", entry->name, "url", rp_cli_json_text(entry->url),
                     "auth", rp_hosts_auth_name(entry->auth), "user", rp_cli_json_text(entry->user), "password",
                     (int)password, "export_folder", rp_cli_json_text(entry->export_folder), "folders", folders);
}

static int run_list(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    RP_AUTO_FREE char *path = rp_hosts_file_path(), *keyring = rp_keyring_path();
    if (rp_hosts_file_read(path, &hosts, err))
        return -1;
    json_t *list = json_array();
    struct rp_cli_table *table = rp_cli_table_new("NAME|URL|LOGIN|USER|PASSWORD|>FOLDERS");
    for (size_t i = 0; i < hosts.count; i++) {
        const struct rp_hosts_entry *entry = &hosts.items[i];
        bool password = has_password(keyring, entry);
        json_array_append_new(list, entry_json(entry, password));
        rp_cli_cell(table, "%s", entry->name);
        rp_cli_cell(table, "%s", entry->url);
        rp_cli_cell(table, "%s", rp_hosts_auth_name(entry->auth));
        rp_cli_cell(table, "%s", entry->user ? entry->user : "-");
        rp_cli_cell(table, "%s", password ? "stored" : "-");
        rp_cli_cell(table, "%zu", entry->paths.count);
    }
    if (cli->json) {
        rp_cli_table_drop(table);
        rp_cli_print_json(list);
        return 0;
    }
    json_decref(list);
    rp_cli_table_print(table);
    return 0;
}

// ---- test -----------------------------------------------------------------------------------------------------------

static const char *const findings[] = {[RP_HOST_GOOD] = "good", [RP_HOST_REMARK] = "remark", [RP_HOST_BAD] = "bad"};

static void print_checks(const struct rp_cli *cli, const struct rp_host_checks *checks)
{
    json_t *list = json_array();
    for (size_t i = 0; i < checks->count; i++) {
        const struct rp_host_check *check = &checks->items[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "check", check->name, "finding",
                                              findings[check->finding], "text", rp_cli_json_text(check->text), "fix",
                                              rp_cli_json_text(check->fix)));
        rp_cli_say(cli, "%-16s %-7s %s\n", check->name, findings[check->finding], rp_cli_safe(check->text));
        if (check->fix)
            rp_cli_say(cli, "%-24s fix: %s\n", "", rp_cli_safe(check->fix));
    }
    if (cli->json)
        rp_cli_print_json(list);
    else
        json_decref(list);
}

// For --record: what backups read of a VM, of the first few.
static int read_vms(struct rp_host_connection *host, struct rp_error *err)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    if (host->ops->list_vms(host, &vms, err))
        return -1;
    for (size_t i = 0; i < vms.count && i < 3; i++) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
        RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
        if (host->ops->find_vm(host, vms.items[i].id, &vm, err) ||
            host->ops->vm_settings(host, vm.id, &settings, err) ||
            host->ops->list_snapshots(host, vm.id, &snapshots, err) ||
            host->ops->list_reference_points(host, vm.id, &points, err))
            return -1;
    }
    return 0;
}

static int run_test(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry entry = {0};
    RP_CLEANUP(rp_wmi_facts_clear) struct rp_wmi_facts facts = {0};
    RP_CLEANUP(rp_host_checks_clear) struct rp_host_checks checks = {0};
    const char *folder = rp_cli_value(cli, "record");
    struct rp_error failure = {0}, recording = {0};
    if (rp_cli_host_entry(cli->args[0], &entry, err))
        return -1;
    struct rp_record *record = folder ? rp_record_new(folder, err) : NULL;
    if (folder && !record)
        return -1;
    struct rp_host_connection *host = rp_cli_connect(&entry, record ? rp_record_trace : NULL, record, &failure);
    if (host && !rp_host_wmi_facts(host, &facts, &failure) && record)
        read_vms(host, &failure);
    rp_host_close(host);
    int exchanges = record ? rp_record_end(record, &recording) : 0;
    rp_host_check(&entry, &facts, failure.code ? &failure : NULL, &checks);
    print_checks(cli, &checks);
    if (record && exchanges >= 0)
        rp_cli_say(cli, "%d exchanges recorded in %s, without names: look at them before you give them away\n",
                   exchanges, folder);
    if (failure.code)
        return rp_fail_as(err, &failure);
    if (exchanges < 0)
        return rp_fail_as(err, &recording);
    int result = 0;
    for (size_t i = 0; i < checks.count; i++) {
        if (checks.items[i].finding == RP_HOST_BAD)
            return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: %s", checks.items[i].name, checks.items[i].text);
        result |= checks.items[i].finding == RP_HOST_REMARK;
    }
    return result;
}

static const struct rp_cli_option test_options[] = {
    {0, "record", "DIR", "write what is asked and answered into a new folder, names and secrets replaced"},
    {0},
};

// ---- remove ---------------------------------------------------------------------------------------------------------

static int run_remove(struct rp_cli *cli, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_hosts_file_path(), *keyring = rp_keyring_path();
    if (rp_hosts_file_remove(path, cli->args[0], err) || rp_keyring_set(keyring, cli->args[0], NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s}", "removed", cli->args[0]));
    rp_cli_say(cli, "host %s removed, and its password; nothing was changed on it\n", cli->args[0]);
    return 0;
}

const struct rp_cli_verb rp_cli_host_verbs[] = {
    {
        .name = "host add",
        .arguments = "NAME URL",
        .summary = "name a host: a Hyper-V host, or one with refpoint-hostd",
        .details = "URL is https://HOST[:5986], http://HOST[:5985] (messages are sealed by the\n"
                   "login), or unix:/run/refpoint/hostd.sock. The name goes before a VM's:\n"
                   "NAME/VM. The password is asked for, or read from --password-file, and kept in\n"
                   "a file that nobody else can read, beside the list of hosts\n"
                   "(~/.config/refpoint/hosts, REFPOINT_HOSTS; keyring, REFPOINT_KEYRING).\n"
                   "Nothing is installed on the host, and nothing is changed there.\n",
        .examples = "refpoint host add hv1 https://hv1.example.org --user 'LAB\\backup'\n"
                    "refpoint host add hv2 http://hv2.example.org --auth kerberos --map 'D:\\VMs = /mnt/hv2'\n"
                    "refpoint host add here unix:/run/refpoint/hostd.sock\n",
        .options = add_options,
        .min_args = 2,
        .max_args = 2,
        .run = run_add,
    },
    {
        .name = "host list",
        .arguments = "",
        .summary = "list the hosts that have a name",
        .examples = "refpoint host list\n"
                    "refpoint host list --json | jq -r '.[].name'\n",
        .flags = RP_CLI_READS,
        .run = run_list,
    },
    {
        .name = "host test",
        .arguments = "NAME [--record DIR]",
        .summary = "see whether backups of a host can work, and what to do if not",
        .details = "Asks the host who it is, whether the login is good, what the user may see,\n"
                   "which version it has, whether it tracks changes, and whether earlier backups\n"
                   "left checkpoints behind. Each finding that is not good comes with what to do.\n"
                   "It only reads. A recording helps developers: names of machines, users and VMs,\n"
                   "paths and GUIDs are replaced in it.\n",
        .examples = "refpoint host test hv1\n"
                    "refpoint host test hv1 --record hv1-recording\n",
        .options = test_options,
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run_test,
    },
    {
        .name = "host remove",
        .arguments = "NAME",
        .summary = "forget a host and its password",
        .details = "Backups of its VMs stay, and so does everything on the host.\n",
        .examples = "refpoint host remove hv1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_remove,
    },
    {0},
};
