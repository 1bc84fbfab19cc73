// The messages of the control socket, as bytes and back: one line of JSON each. Pure functions. docs/formats/control.md.
#ifndef RP_DISKSERVICE_CONTROL_H
#define RP_DISKSERVICE_CONTROL_H

#include "base/buf.h"
#include "diskservice/service.h"

#define RP_CONTROL_VERSION 2
#define RP_CONTROL_MAX_REQUEST ((size_t)512 << 10) // bytes of a line
#define RP_CONTROL_MAX_REPLY ((size_t)2 << 20)
#define RP_CONTROL_MAX_RANGES 16384                // in one reply to "changes"
#define RP_CONTROL_MAX_PATHS 128

enum rp_control_verb {
    RP_CONTROL_INFO,
    RP_CONTROL_CHECKPOINT,
    RP_CONTROL_MERGE,
    RP_CONTROL_CHANGES,
    RP_CONTROL_FLUSH,
    RP_CONTROL_GROW,
};

struct rp_control_request {
    enum rp_control_verb verb;
    struct rp_guid operation;
    size_t path_count; // merge: any number; changes: one
    char **paths;
    bool tell_switched; // checkpoint: an interim line when the pause is over
    bool has_rate; // merge
    uint64_t rate; // bytes per second; 0: no limit
    struct rp_rct_id id; // changes
    uint64_t offset, length;
    char disk[32]; // grow
    uint64_t size;
};
// The line comes without its line end. UNSUPPORTED: of another version; INVALID: not a request.
int rp_control_parse_request(const char *line, size_t size, struct rp_control_request *request, struct rp_error *err);
int rp_control_format_request(const struct rp_control_request *request, struct rp_buf *line, struct rp_error *err);
void rp_control_request_clear(struct rp_control_request *request);

// What a request brought about; which fields count depends on the verb.
struct rp_control_reply {
    struct rp_error error; // code RP_OK: it was done
    struct rp_service_info info;
    struct rp_engine_checkpoint checkpoint;
    struct rp_ranges changed; // changes: within [offset, offset + processed)
    uint64_t processed;
};
// Lines include the line end. A reply that has no form in JSON (a path that is not UTF-8) becomes an error reply.
void rp_control_format_reply(const struct rp_control_request *request, const struct rp_control_reply *reply, struct rp_buf *line);
// The interim line of a checkpoint, before its reply. For requests with tell_switched only.
void rp_control_format_switched(const struct rp_control_request *request, struct rp_buf *line);
// Whether the line is the interim one of this request. Anything else is the reply, or none.
bool rp_control_is_switched(const char *line, size_t size, const struct rp_control_request *request);
// For a line that is no request.
void rp_control_format_refusal(const struct rp_error *why, struct rp_buf *line);
// 0: a well-formed reply to this request, which may carry an error; -1: it is not.
int rp_control_parse_reply(const char *line, size_t size, const struct rp_control_request *request,
                           struct rp_control_reply *reply, struct rp_error *err);
void rp_control_reply_clear(struct rp_control_reply *reply);

#endif
