// refpoint repo init | info | unlock
#include <ctype.h>

#include "base/clock.h"
#include "base/guid.h"
#include "base/num.h"
#include "cli/address.h"

static int run_init(struct rp_cli *cli, struct rp_error *err)
{
    bool encrypted = !rp_cli_flag(cli, "no-encryption");
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_cli_open_backend(cli, true, err);
    if (!backend)
        return -1;
    RP_CLEANUP(rp_cli_wipe) char *passphrase = encrypted ? rp_cli_passphrase(cli, true, err) : NULL;
    if (encrypted && !passphrase)
        return -1;
    struct rp_repo_options options = {.passphrase = passphrase};
    if (rp_repo_init(backend, &options, err))
        return -1;
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_repo_open(backend, passphrase, NULL, err);
    backend = NULL;
    struct rp_repo_info info;
    if (!repo || rp_repo_info(repo, &info, err))
        return -1;
    char id[RP_GUID_TEXT];
    rp_guid_format(&info.id, id);
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:b}", "id", id, "location", rp_cli_json_text(cli->repository), "encrypted",
                                    (int)encrypted));
    rp_cli_say(cli, "repository %s made in %s, %s\n", id, cli->repository,
               encrypted ? "encrypted: without the passphrase nothing in it can be read" : "not encrypted");
    return 0;
}

static int run_info(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    struct rp_repo_info info;
    if (!repo || rp_repo_info(repo, &info, err))
        return -1;
    char id[RP_GUID_TEXT], created[RP_TIME_TEXT], size[RP_SIZE_TEXT];
    rp_guid_format(&info.id, id);
    rp_time_format(info.created_ns, created);
    if (cli->json) {
        rp_cli_print_json(json_pack("{s:s, s:o, s:b, s:s, s:I, s:I, s:I, s:I}", "id", id, "location",
                                    rp_cli_json_text(cli->repository), "encrypted", (int)info.encrypted, "created", created,
                                    "points", (json_int_t)info.points, "packs", (json_int_t)info.packs, "pack_bytes",
                                    (json_int_t)info.pack_bytes, "blocks", (json_int_t)info.blocks));
        return 0;
    }
    rp_cli_print("location   %s\nid         %s\ncreated    %s\nencrypted  %s\npoints     %llu\npacks      %llu, %s\nblocks     %llu\n",
                 rp_cli_safe(cli->repository), id, created, info.encrypted ? "yes" : "no", (unsigned long long)info.points,
                 (unsigned long long)info.packs, rp_format_size(info.pack_bytes, size), (unsigned long long)info.blocks);
    return 0;
}

// The lock has the VM's GUID for a name, in capitals, as hosts write it. One whose first backup was cut off is in no
// restore point yet.
static char *vm_id_of(struct rp_repo *repo, const char *text, struct rp_error *err)
{
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    struct rp_error why = {0};
    struct rp_guid guid;
    const char *vm_id;
    char id[RP_GUID_TEXT];
    if (rp_repo_points(repo, &points, err))
        return NULL;
    if (!rp_address_choose_vm(&points, text, &vm_id, &why))
        return rp_xstrdup(vm_id);
    if (why.code == RP_ERR_NOT_FOUND && !rp_guid_parse(text, &guid, NULL)) {
        rp_guid_format(&guid, id);
        for (char *p = id; *p; p++)
            *p = (char)toupper((unsigned char)*p);
        return rp_xstrdup(id);
    }
    rp_fail_as(err, &why);
    return NULL;
}

static void print_unlock(const struct rp_cli *cli, const char *vm_id, const struct rp_repo_lock_holder *was)
{
    static const char lives[] = ": as far as can be seen it is still at work, and stops before it writes its restore "
                                "point";
    if (cli->json)
        rp_cli_print_json(json_pack("{s:o, s:b, s:b, s:o, s:b}", "vm_id", rp_cli_json_text(vm_id), "held",
                                    (int)was->held, "lives", (int)was->lives, "holder", rp_cli_json_text(was->held ? was->text : NULL),
                                    "dry_run", (int)cli->dry_run));
    else if (!was->held)
        rp_cli_say(cli, "nobody is at work on %s\n", rp_cli_safe(cli->args[0]));
    else
        rp_cli_say(cli, "%s the lock of %s%s\n", cli->dry_run ? "would end" : "ended", rp_cli_safe(was->text),
                   was->lives ? lives : "");
}

static int run_unlock(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    RP_AUTO_FREE char *vm_id = repo ? vm_id_of(repo, cli->args[0], err) : NULL;
    struct rp_repo_lock_holder holder;
    if (!vm_id || rp_repo_lock_look(repo, vm_id, &holder, err))
        return -1;
    if (holder.held && !cli->dry_run) {
        if (holder.lives && rp_cli_confirm(cli, err, "It is still at work, as far as can be seen: %s. End its lock?",
                                           holder.text))
            return rp_context(err, "it is still at work, as far as can be seen: %s", holder.text);
        if (rp_repo_lock_end(repo, vm_id, "refpoint repo unlock", &holder, err))
            return -1;
    }
    print_unlock(cli, vm_id, &holder);
    return 0;
}

static const struct rp_cli_option init_options[] = {
    {0, "no-encryption", NULL, "store everything readable by whoever can read the folder"},
    {0},
};

const struct rp_cli_verb rp_cli_repo_verbs[] = {
    {
        .name = "repo init",
        .arguments = "",
        .summary = "make an empty repository",
        .details = "Encrypted, unless --no-encryption: the passphrase comes from a file, the\n"
                   "environment or the terminal. It cannot be recovered by anybody.\n",
        .examples = "refpoint repo init -r /backup/repo\n"
                    "refpoint repo init -r /backup/repo --password-file /root/repo.pass\n",
        .options = init_options,
        .run = run_init,
    },
    {
        .name = "repo info",
        .arguments = "",
        .summary = "show what a repository is and holds",
        .examples = "refpoint repo info -r /backup/repo\n"
                    "refpoint repo info -r /backup/repo --json\n",
        .flags = RP_CLI_READS,
        .run = run_info,
    },
    {
        .name = "repo unlock",
        .arguments = "VM",
        .summary = "end the lock of a backup that no longer runs, on another machine",
        .details = "A backup is alone with its VM in a repository. What holds the lock of one that\n"
                   "was killed, or whose machine was, is taken over by the next backup from the same\n"
                   "machine at once; from another machine after three minutes, or after this.\n"
                   "Asks first when the backup may still run (in scripts, give --yes); one that does\n"
                   "stops before it writes its restore point.\n"
                   "VM: its name or GUID; the GUID if it has no restore point yet.\n",
        .examples = "refpoint repo unlock web1 --dry-run\n"
                    "refpoint repo unlock web1 -r /backup/repo --yes\n",
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run_unlock,
    },
    {0},
};
