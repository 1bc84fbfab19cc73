// Takes names and secrets out of recorded messages, so that an administrator can give them away: names of machines,
// users and VMs, paths and GUIDs become others, the same everywhere, so that the messages still fit together. What the
// classes declare, numbers and times stay.
#ifndef RP_HYPERV_SCRUB_H
#define RP_HYPERV_SCRUB_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

struct rp_scrub;
struct rp_scrub *rp_scrub_new(struct rp_error *err);
void rp_scrub_free(struct rp_scrub *scrub); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_scrub, rp_scrub_free)
// Appends the message (XML, as it went over the wire in clear) without what would tell whose it was.
void rp_scrub_message(struct rp_scrub *scrub, const void *data, size_t size, struct rp_buf *out);
// Sees the messages of a connection (rp_wsman_options.trace) and writes them into a folder: 001-sent.xml,
// 001-received.xml, …
struct rp_record;
// Makes the folder; RP_ERR_EXISTS when it is there and not empty.
struct rp_record *rp_record_new(const char *folder, struct rp_error *err);
void rp_record_trace(void *record, bool sent, const void *data, size_t size);
// How many exchanges were written; -1 when one could not be.
int rp_record_end(struct rp_record *record, struct rp_error *err); // and frees it

#endif
