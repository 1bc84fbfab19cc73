// Reading fields of a JSON object strictly: decode the whole object, then test `failed` once.
// Unknown fields are ignored.
#ifndef RP_REPO_JSON_H
#define RP_REPO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/guid.h"

#define RP_JSON_TEXT 4096u // bytes of an ordinary text field

struct rp_json {
    const json_t *object;
    const char *what;     // the document, for messages
    struct rp_error *err;
    bool failed;
};

static inline void rp_json_p(json_t **json) { json_decref(*json); }
#define RP_AUTO_JSON RP_CLEANUP(rp_json_p)

// The document: one object, UTF-8, no repeated keys, nothing after it. The caller decrefs. NULL on failure.
json_t *rp_json_parse(const void *text, size_t size, const char *what, struct rp_error *err);
// Compact text of the object, keys in the order they were set.
void rp_json_write(const json_t *object, struct rp_buf *out);

// A malloc'ed text of at most `limit` bytes; NULL when absent (then a failure if `required`).
char *rp_json_text(struct rp_json *json, const char *field, size_t limit, bool required);
// A whole number of 0 to INT64_MAX, at most `limit`; absent is a failure if `required`, else 0.
uint64_t rp_json_number(struct rp_json *json, const char *field, uint64_t limit, bool required);
bool rp_json_flag(struct rp_json *json, const char *field);
void rp_json_guid(struct rp_json *json, const char *field, struct rp_guid *guid);
// Exactly `size` bytes as lower-case hex.
void rp_json_hex(struct rp_json *json, const char *field, void *data, size_t size);
// Sets `failed` and the error "what: field: why".
void rp_json_fail(struct rp_json *json, const char *field, const char *why);

// Writers that skip what is absent.
void rp_json_set_text(json_t *object, const char *field, const char *text);
void rp_json_set_number(json_t *object, const char *field, uint64_t value);
void rp_json_set_hex(json_t *object, const char *field, const void *data, size_t size);

#endif
