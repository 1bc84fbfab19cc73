// SOAP messages of WS-Management: their headers, read and written.
#ifndef RP_WSMAN_MESSAGE_H
#define RP_WSMAN_MESSAGE_H

#include "wsman/fault.h"
#include "wsman/item.h"

struct rp_message {
    xmlDoc *document;
    xmlNode *body;                // s:Body
    char *action, *message_id, *relates_to, *to;
    char *resource_uri;           // NULL: not said
    enum rp_uri_style style;
    char *name_space, *class_name; // of the resource URI; NULL: it says no resource
    char *uri_problem;            // why, then; NULL when there is no resource URI at all
    struct rp_cim_path *selectors; // class and keys: the selectors but __cimnamespace; NULL without a class
    uint64_t max_envelope_size;   // bytes; 0: not said
    int64_t operation_timeout_ms; // -1: not said
    bool identify;                // wsmid:Identify, which has no headers
};
void rp_message_clear(struct rp_message *message); // usable with RP_CLEANUP

// A request (facts 2.4): unknown headers with mustUnderstand, missing MessageID, Action, To or ReplyTo, a ReplyTo that
// is not anonymous are faults, and so are a MessageID of more than 1 KiB and more than 64 selectors. Whether it needs a
// resource is left to who knows the action. Fills what it can even then, so that the fault can relate to it.
int rp_message_read_request(const void *data, size_t size, size_t limit, const char *charset,
                            struct rp_message *message, struct rp_fault *fault);
// A response, any prefixes. A fault in it is left to the caller (body's first child).
int rp_message_read_response(const void *data, size_t size, size_t limit, const char *charset,
                             struct rp_message *message, struct rp_error *err);

// What an Enumerate, a Pull or their answers have of this name, in WS-Enumeration's namespace or in WS-Management's
// (what that adds, and the first batch of optimized answers: facts 2.5). NULL: nothing.
xmlNode *rp_message_enumeration(const xmlNode *parent, const char *name);

// Writes <s:Envelope> up to and with <s:Body>; end it with rp_message_end. Declares s a w n x cim b xsi, and p as
// `p_namespace` (NULL: not). `relates_to` NULL: the request's MessageID is not known.
void rp_message_begin_response(struct rp_buf *out, const char *action, const char *relates_to, const char *p_namespace);
struct rp_message_request {
    const char *url, *action, *resource_uri;
    const struct rp_cim_path *selectors; // NULL: none; its keys become selectors, and the namespace in DMTF style
    enum rp_uri_style style;
    uint64_t max_envelope_size; // 0: not said
    unsigned timeout_ms;        // 0: not said
};
void rp_message_begin_request(struct rp_buf *out, const struct rp_message_request *request, char message_id[48]);
void rp_message_end(struct rp_buf *out);

#endif
