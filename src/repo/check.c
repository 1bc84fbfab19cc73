#include "repo/core.h"

int rp_repo_check(struct rp_repo *repo, bool read_data, rp_repo_problem_fn *problem, void *context,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *progress_context,
                  uint64_t *problems, struct rp_error *err)
{
    (void)repo, (void)read_data, (void)problem, (void)context, (void)progress, (void)progress_context, (void)problems;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "check");
}
