// All verbs, in the order of `refpoint --help`.
#include "cli/cli.h"

const struct rp_cli_group rp_cli_groups[] = {
    {"Backups", rp_cli_backup_verbs},
    {"", rp_cli_list_verbs},
    {"", rp_cli_show_verbs},
    {"", rp_cli_diff_verbs},
    {"", rp_cli_restore_verbs},
    {"", rp_cli_check_verbs},
    {"Repositories", rp_cli_repo_verbs},
    {"Hosts", rp_cli_host_verbs},
    {"Virtual machines", rp_cli_vm_verbs},
    {"", rp_cli_vm_adopt_verbs},
    {"", rp_cli_vm_run_verbs},
    {"", rp_cli_disk_verbs},
    {"", rp_cli_checkpoint_verbs},
    {"", rp_cli_refpoint_verbs},
    {0},
};
