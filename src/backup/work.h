// What a host takes long for, and what becomes of it when the user wants to stop: the host is asked to end it, and how
// it really ended is waited for, for a while. Whoever only gave up would leave behind what the host makes a moment
// later, under a name that nobody has given it yet (facts/wmi.md 1.5 F).
#ifndef RP_BACKUP_WORK_H
#define RP_BACKUP_WORK_H

#include "hyperv/host_connection.h"

enum rp_work_end {
    RP_WORK_NOT_ASKED,  // nobody wanted to stop while the host was at work
    RP_WORK_ENDED,      // it ended when it was asked to, and was not done
    RP_WORK_DONE,       // it was done all the same
    RP_WORK_GOES_ON,    // it had not ended when the time was up, or nobody could tell: the host may still finish it
};
struct rp_work {
    struct rp_host_connection *host;
    int (*stop)(void *context);  // NULL is fine
    void *context;
    unsigned patience_ms;        // how long a host may take to end what it was asked to end; 0: a minute
    // Of the last one that was interrupted, for the message at the end.
    const char *what;            // a literal: "the checkpoint"
    enum rp_work_end end;
};
bool rp_work_stopped(const struct rp_work *work);

// As rp_host_wait, for what makes something. RP_ERR_CANCELLED: interrupted, and whatever else the host said of it. When
// it was done all the same, it is done: 0.
int rp_work_make(struct rp_work *work, const char *what, const char *job, char result[RP_HOST_ID],
                 struct rp_error *err);
// The same for what removes or checks something: never asked to end, but not waited for longer than the patience once
// somebody wants to stop (then RP_ERR_CANCELLED).
int rp_work_finish(struct rp_work *work, const char *job, char result[RP_HOST_ID], struct rp_error *err);

// The one line that an interrupted backup ends with: what was done about it, and what stays on the host. `made`: something
// may have been made there; `removed`: how much of it was; `left`: why not all (code RP_OK: all was).
void rp_work_explain(const struct rp_work *work, bool made, unsigned removed, const struct rp_error *left,
                     struct rp_error *err);

#endif
