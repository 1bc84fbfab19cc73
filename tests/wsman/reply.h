// Answers of the service, looked at the way libvirt does: literal XPath in which only those prefixes mean something
// that the envelope or the first element in its body declares (libvirt, hyperv_wmi.c; facts/wmi.md 2.2).
#ifndef TEST_WSMAN_REPLY_H
#define TEST_WSMAN_REPLY_H

#include <libxml/tree.h>

#include "inventory.h"

struct reply {
    unsigned status;
    struct rp_buf bytes;
    xmlDoc *document;     // NULL: the bytes are no XML
};
void reply_clear(struct reply *reply); // usable with RP_CLEANUP
void reply_to(struct site *site, const char *request, size_t size, struct reply *reply); // clears it first
// A request of the plain kind: action, resource URI, selectors ("Name=value;…"), further headers, body.
void reply_to_message(struct site *site, const char *action, const char *uri, const char *selectors,
                      const char *headers, const char *body, struct reply *reply);
// How many nodes an expression finds, and the text of the first ("" when there is none; malloc'ed). A prefix that is
// not declared finds nothing.
int reply_count(const struct reply *reply, const char *xpath);
char *reply_text(const struct reply *reply, const char *xpath);
bool reply_is(const struct reply *reply, const char *xpath, const char *text);
// "w:InvalidSelectors UnexpectedSelectors 500", or "200" when it is no fault; malloc'ed. Fails the test when the fault
// is not as DSP0226 14.6 wants it: action, code, reason, RelatesTo.
char *reply_fault(const struct reply *reply);

#define V2_URI "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
#define CIMV2_URI "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/"

#endif
