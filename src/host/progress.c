// The progress of several files as one.
#include "host/internal.h"

struct rp_local_progress rp_local_progress_of(const struct rp_local *local)
{
    return (struct rp_local_progress){.progress = local->host.progress, .context = local->host.progress_context};
}

int rp_local_progress_call(void *progress, uint64_t done, uint64_t total)
{
    struct rp_local_progress *p = progress;
    (void)total;
    return p->progress ? p->progress(p->context, p->before + done, p->total) : 0;
}
