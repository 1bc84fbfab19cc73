// Hostile lines on the control socket, on both sides. What is understood must survive being written again.
#include <stdlib.h>

#include "diskservice/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

static void try_request(const char *line, size_t size)
{
    struct rp_control_request request, again;
    if (rp_control_parse_request(line, size, &request, NULL))
        return;
    RP_CLEANUP(rp_buf_clear) struct rp_buf copy = {0};
    check(!rp_control_format_request(&request, &copy, NULL));
    check(!rp_control_parse_request((const char *)copy.data, copy.size - 1, &again, NULL));
    check(again.verb == request.verb && again.path_count == request.path_count && again.size == request.size &&
          again.tell_switched == request.tell_switched);
    rp_control_request_clear(&again);
    rp_control_request_clear(&request);
}

static void try_reply(const char *line, size_t size, enum rp_control_verb verb)
{
    struct rp_control_request request = {.verb = verb, .offset = 65536, .length = 1 << 30};
    RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply), *again = rp_xcalloc(1, sizeof *again);
    for (uint8_t i = 0; i < 16; i++)
        request.operation.bytes[i] = i;
    request.tell_switched = true;
    bool switched = rp_control_is_switched(line, size, &request);
    if (rp_control_parse_reply(line, size, &request, reply, NULL))
        return;
    check(!switched); // no line is both
    RP_CLEANUP(rp_buf_clear) struct rp_buf copy = {0};
    rp_control_format_reply(&request, reply, &copy);
    check(!rp_control_parse_reply((const char *)copy.data, copy.size - 1, &request, again, NULL));
    check(again->info.count == reply->info.count && again->changed.count == reply->changed.count &&
          again->checkpoint.count == reply->checkpoint.count && again->error.code == reply->error.code);
    rp_control_reply_clear(again);
    rp_control_reply_clear(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const char *line = (const char *)data;
    try_request(line, size);
    for (int verb = RP_CONTROL_INFO; verb <= RP_CONTROL_GROW; verb++)
        try_reply(line, size, (enum rp_control_verb)verb);
    return 0;
}
