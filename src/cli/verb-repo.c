// refpoint repo init | info
#include "base/clock.h"
#include "base/num.h"
#include "cli/cli.h"

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
    {0},
};
