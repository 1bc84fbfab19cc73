// The messages of the control socket.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diskservice/control.h"

static int parse(const char *line, struct rp_control_request *request, struct rp_error *err)
{
    return rp_control_parse_request(line, strlen(line), request, err);
}

static void round_trip(const struct rp_control_request *request, struct rp_control_request *back)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    assert_int_equal(rp_control_format_request(request, &line, NULL), 0);
    assert_int_equal(line.data[line.size - 1], '\n');
    assert_null(memchr(line.data, '\n', line.size - 1));
    assert_int_equal(rp_control_parse_request((const char *)line.data, line.size - 1, back, NULL), 0);
    assert_int_equal(back->verb, request->verb);
    assert_true(rp_guid_equal(&back->operation, &request->operation));
}

static void requests_survive_the_wire(void **state)
{
    (void)state;
    struct rp_control_request back;
    char *paths[] = {"/vm/a \"quoted\".vhdx", "/vm/ümläut\n.avhdx"};
    struct rp_control_request merge = {RP_CONTROL_MERGE, rp_guid_new(), .paths = paths, .path_count = 2};
    round_trip(&merge, &back);
    assert_int_equal(back.path_count, 2);
    assert_string_equal(back.paths[0], paths[0]);
    assert_string_equal(back.paths[1], paths[1]);
    rp_control_request_clear(&back);

    struct rp_control_request changes = {RP_CONTROL_CHANGES, rp_guid_new(), .paths = paths, .path_count = 1,
                                         .id = {rp_guid_new(), 77}, .offset = 1ull << 45, .length = 1ull << 46};
    round_trip(&changes, &back);
    assert_true(rp_guid_equal(&back.id.tracking, &changes.id.tracking));
    assert_int_equal(back.id.epoch, 77);
    assert_int_equal(back.offset, changes.offset);
    assert_int_equal(back.length, changes.length);
    rp_control_request_clear(&back);

    struct rp_control_request grow = {RP_CONTROL_GROW, rp_guid_new(), .disk = "disk3", .size = 5 << 20};
    round_trip(&grow, &back);
    assert_string_equal(back.disk, "disk3");
    assert_int_equal(back.size, 5 << 20);
    rp_control_request_clear(&back);
}

static void whoever_asks_to_be_told_gets_a_line_that_is_no_reply(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    struct rp_control_request back, asked = {RP_CONTROL_CHECKPOINT, rp_guid_new(), .tell_switched = true};
    round_trip(&asked, &back);
    assert_true(back.tell_switched);
    rp_control_format_switched(&asked, &line);
    const char *text = (const char *)line.data;
    RP_AUTO_FREE struct rp_control_reply *reply = calloc(1, sizeof *reply);
    assert_true(rp_control_is_switched(text, line.size - 1, &asked));
    assert_int_equal(rp_control_parse_reply(text, line.size - 1, &asked, reply, NULL), -1);

    // of another operation, not asked for, an answer, cut short
    struct rp_control_request other = asked, silent = asked;
    other.operation = rp_guid_new();
    silent.tell_switched = false;
    assert_false(rp_control_is_switched(text, line.size - 1, &other));
    assert_false(rp_control_is_switched(text, line.size - 1, &silent));
    assert_false(rp_control_is_switched(text, line.size - 2, &asked));
    rp_buf_reset(&line);
    rp_control_format_reply(&asked, reply, &line);
    assert_false(rp_control_is_switched((const char *)line.data, line.size - 1, &asked));

    round_trip(&silent, &back); // what older clients ask
    assert_false(back.tell_switched);
}

static void what_is_no_request_is_refused_with_a_reason(void **state)
{
    (void)state;
#define OP "\"operation\":\"00000000-0000-4000-8000-000000000001\""
    static const char *const lines[] = {
        "", "x", "{", "[]", "null", "{}", "{\"refpoint\":2}",
        "{\"refpoint\":2,\"request\":\"info\"}",
        "{\"refpoint\":2,\"operation\":\"no\",\"request\":\"info\"}",
        "{\"refpoint\":2," OP ",\"request\":\"format\"}",
        "{\"refpoint\":2," OP ",\"request\":7}",
        "{\"refpoint\":2," OP ",\"request\":\"info\",\"request\":\"flush\"}",
        "{\"refpoint\":2," OP ",\"request\":\"checkpoint\",\"tell_switched\":1}",
        "{\"refpoint\":2," OP ",\"request\":\"merge\"}",
        "{\"refpoint\":2," OP ",\"request\":\"merge\",\"paths\":[1]}",
        "{\"refpoint\":2," OP ",\"request\":\"changes\",\"path\":\"/x\",\"id\":\"rctX:1\",\"offset\":0,\"length\":1}",
        "{\"refpoint\":2," OP ",\"request\":\"grow\",\"disk\":\"disk0\",\"size\":-1}",
        "{\"refpoint\":2," OP ",\"request\":\"grow\",\"disk\":\"disk0123456789012345678901234567890\",\"size\":1}",
        "{\"refpoint\":2," OP ",\"request\":\"grow\",\"disk\":\"disk0\",\"size\":99999999999999999999}",
        "{\"refpoint\":2," OP ",\"request\":\"info\"} trailing",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct rp_control_request request;
        struct rp_error err = {0};
        assert_int_equal(parse(lines[i], &request, &err), -1);
        assert_int_equal(err.code, RP_ERR_INVALID);
        assert_true(strlen(err.text) > 0);
        RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
        rp_control_format_refusal(&err, &line);
        struct rp_control_request asked = {RP_CONTROL_INFO, rp_guid_new(), .path_count = 0};
        struct rp_control_reply reply;
        assert_int_equal(rp_control_parse_reply((const char *)line.data, line.size - 1, &asked, &reply, NULL), 0);
        assert_int_equal(reply.error.code, RP_ERR_INVALID);
    }
}

static void another_version_is_said_at_once_by_either_side(void **state)
{
    (void)state;
    struct rp_control_request request, asked = {RP_CONTROL_INFO, rp_guid_new(), .path_count = 0};
    struct rp_control_reply reply;
    struct rp_error err = {0};
    assert_int_equal(parse("{\"refpoint\":1," OP ",\"request\":\"info\"}", &request, &err), -1);
    assert_int_equal(err.code, RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "version 1"));
    // what a service of then answers to a request of now
    static const char old[] = "{\"refpoint\":1," OP ",\"error\":{\"code\":\"invalid\",\"errno\":0,\"text\":\"not of version 1\"}}";
    err = (struct rp_error){0};
    assert_int_equal(rp_control_parse_reply(old, strlen(old), &asked, &reply, &err), -1);
    assert_int_equal(err.code, RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "stop the VM and start it again"));
}

static struct rp_control_reply *reply_trip(const struct rp_control_request *request, const struct rp_control_reply *reply)
{
    struct rp_control_reply *back = calloc(1, sizeof *back);
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_control_format_reply(request, reply, &line);
    assert_true(line.size <= RP_CONTROL_MAX_REPLY);
    assert_int_equal(rp_control_parse_reply((const char *)line.data, line.size - 1, request, back, NULL), 0);
    // another request's reply is no reply
    struct rp_control_request other = *request;
    struct rp_control_reply *no = calloc(1, sizeof *no);
    other.operation = rp_guid_new();
    if (!back->error.code)
        assert_int_equal(rp_control_parse_reply((const char *)line.data, line.size - 1, &other, no, NULL), -1);
    free(no);
    return back;
}

static void replies_survive_the_wire(void **state)
{
    (void)state;
    struct rp_control_request request = {RP_CONTROL_INFO, rp_guid_new(), .path_count = 0};
    struct rp_control_reply *reply = calloc(1, sizeof *reply), *back;
    reply->info = (struct rp_service_info){.pid = 4711, .generation = 9, .count = 1};
    reply->info.disks[0] = (struct rp_engine_disk){.name = "disk0", .disk_id = rp_guid_new(), .size = 64ull << 40,
        .logical_sector = 512, .physical_sector = 4096, .block_size = 256 << 20, .leaf_path = "/vm/x", .verdict = RP_RCT_FOREIGN,
        .tracked = true};
    reply->info.merge = (struct rp_engine_merge){.phase = RP_MERGE_FAILED, .operation = rp_guid_new(), .done = 5, .total = 10, .pause_ns = 99, .error = {.code = RP_ERR_BUSY, .text = "in use"}};
    back = reply_trip(&request, reply);
    assert_int_equal(back->info.pid, 4711);
    assert_int_equal(back->info.generation, 9);
    assert_int_equal(back->info.count, 1);
    assert_int_equal(back->info.disks[0].size, 64ull << 40);
    assert_int_equal(back->info.disks[0].verdict, RP_RCT_FOREIGN);
    assert_string_equal(back->info.disks[0].leaf_path, "/vm/x");
    assert_int_equal(back->info.merge.phase, RP_MERGE_FAILED);
    assert_int_equal(back->info.merge.error.code, RP_ERR_BUSY);
    assert_string_equal(back->info.merge.error.text, "in use");
    rp_control_reply_clear(back);
    free(back);

    request.verb = RP_CONTROL_CHECKPOINT;
    memset(reply, 0, sizeof *reply);
    reply->checkpoint = (struct rp_engine_checkpoint){request.operation, 2, .pause_ns = 12};
    reply->checkpoint.disks[0] = (struct rp_engine_frozen){rp_guid_new(), "/vm/p", "/vm/c", true, {rp_guid_new(), 3}};
    reply->checkpoint.disks[1] = (struct rp_engine_frozen){rp_guid_new(), "/vm/q", "/vm/d", false, {{{0}}, 0}};
    back = reply_trip(&request, reply);
    assert_int_equal(back->checkpoint.count, 2);
    assert_true(back->checkpoint.disks[0].tracked);
    assert_int_equal(back->checkpoint.disks[0].id.epoch, 3);
    assert_false(back->checkpoint.disks[1].tracked);
    assert_string_equal(back->checkpoint.disks[1].path, "/vm/q");
    rp_control_reply_clear(back);

    free(back);
    // a path that JSON cannot say becomes an error, not a wrong path
    reply->checkpoint.disks[1].path = "/vm/\xff";
    back = reply_trip(&request, reply);
    assert_int_equal(back->error.code, RP_ERR_INVALID);
    free(back);

    request.verb = RP_CONTROL_CHANGES;
    request.offset = 1 << 20;
    request.length = 1 << 30;
    memset(reply, 0, sizeof *reply);
    reply->processed = 1 << 29;
    rp_ranges_add(&reply->changed, 1 << 20, 65536);
    rp_ranges_add(&reply->changed, 9 << 20, 65536);
    back = reply_trip(&request, reply);
    assert_int_equal(back->processed, 1 << 29);
    assert_int_equal(back->changed.count, 2);
    assert_int_equal(back->changed.items[1].offset, 9 << 20);
    rp_control_reply_clear(back);
    rp_ranges_clear(&reply->changed);
    free(back);
    free(reply);
}

static void ranges_that_were_not_asked_for_are_refused(void **state)
{
    (void)state;
    struct rp_control_request request = {RP_CONTROL_CHANGES, rp_guid_new(), .offset = 65536, .length = 131072};
    static const char *const results[] = {
        "{\"processed\":0,\"ranges\":[]}",                              // no progress: the client would ask for ever
        "{\"processed\":131073,\"ranges\":[]}",
        "{\"processed\":131072,\"ranges\":[[0,65536]]}",
        "{\"processed\":131072,\"ranges\":[[65536,131073]]}",
        "{\"processed\":131072,\"ranges\":[[65536,0]]}",
        "{\"processed\":131072,\"ranges\":[[131072,512],[65536,512]]}",
        "{\"processed\":131072,\"ranges\":[[65536,-1]]}",
        "{\"processed\":131072,\"ranges\":[7]}",
        "{\"processed\":131072}",
    };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        char guid[RP_GUID_TEXT];
        RP_AUTO_FREE char *line = rp_xasprintf("{\"refpoint\":2,\"operation\":\"%s\",\"result\":%s}",
                                               rp_guid_format(&request.operation, guid), results[i]);
        struct rp_control_reply reply;
        assert_int_equal(rp_control_parse_reply(line, strlen(line), &request, &reply, NULL), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_survive_the_wire),
        cmocka_unit_test(whoever_asks_to_be_told_gets_a_line_that_is_no_reply),
        cmocka_unit_test(what_is_no_request_is_refused_with_a_reason),
        cmocka_unit_test(another_version_is_said_at_once_by_either_side),
        cmocka_unit_test(replies_survive_the_wire),
        cmocka_unit_test(ranges_that_were_not_asked_for_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
