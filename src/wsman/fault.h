// Faults (DSP0226 14.6, MS-WSMV 2.2.4.43): what went wrong with a message, not with a method.
#ifndef RP_WSMAN_FAULT_H
#define RP_WSMAN_FAULT_H

#include "cim/xml.h"

enum rp_fault_code {
    RP_FAULT_NONE,
    RP_FAULT_ACTION_NOT_SUPPORTED,        // a:ActionNotSupported
    RP_FAULT_DESTINATION_UNREACHABLE,     // a:… with detail InvalidResourceURI or ResourceNotFound
    RP_FAULT_INVALID_HEADER,              // a:InvalidMessageInformationHeader
    RP_FAULT_HEADER_REQUIRED,             // a:MessageInformationHeaderRequired
    RP_FAULT_ACCESS_DENIED, RP_FAULT_ALREADY_EXISTS, RP_FAULT_CONCURRENCY, RP_FAULT_ENCODING_LIMIT,
    RP_FAULT_INTERNAL_ERROR, RP_FAULT_INVALID_OPTIONS, RP_FAULT_INVALID_PARAMETER, RP_FAULT_INVALID_SELECTORS,
    RP_FAULT_QUOTA_LIMIT, RP_FAULT_SCHEMA_VALIDATION, RP_FAULT_TIMED_OUT,
    RP_FAULT_UNSUPPORTED_FEATURE,         // w:…
    RP_FAULT_CANNOT_PROCESS_FILTER, RP_FAULT_INVALID_ENUMERATION_CONTEXT, RP_FAULT_FILTERING_NOT_SUPPORTED,
    RP_FAULT_FILTER_DIALECT,              // n:…
    RP_FAULT_MUST_UNDERSTAND,             // s:MustUnderstand
    RP_FAULT_COUNT,
};

struct rp_fault {
    enum rp_fault_code code;
    const char *detail;       // last part of the FaultDetail URI ("InvalidResourceURI"); NULL: none. Static text
    uint32_t windows_code;    // Code of f:WSManFault, as Windows gives it; 0: none
    char message[1024];       // what the administrator reads
};
// Sets the fault unless one is set already. Always returns -1.
int rp_fault_set(struct rp_fault *fault, enum rp_fault_code code, const char *detail, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
// The fault for an error of a provider: NOT_FOUND, PERMISSION, INVALID, UNSUPPORTED, NO_SPACE, …; anything else is
// InternalError.
int rp_fault_from_error(struct rp_fault *fault, const struct rp_error *err);
const char *rp_fault_subcode(enum rp_fault_code code);   // "w:InvalidSelectors"
const char *rp_fault_action(enum rp_fault_code code);    // the a:Action of a message that carries it
unsigned rp_fault_http_status(enum rp_fault_code code);  // 500, or 400
void rp_fault_write(struct rp_buf *out, const struct rp_fault *fault, const char *machine); // <s:Fault>…</s:Fault>
// From a client's view: reads any s:Fault. Subcodes are told apart by namespace. The code is NONE for one that we do
// not know; `message` has the reason, or the inner text of WSManFault or ProviderFault where that says more.
void rp_fault_read(const xmlNode *element, struct rp_fault *fault);
// RP_ERR_NOT_FOUND, PERMISSION, …, with "what: message".
int rp_fault_to_error(const struct rp_fault *fault, const char *what, struct rp_error *err);

#endif
