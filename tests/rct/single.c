#include "single.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"

struct rp_fs *fs;

int set_up(void **state)
{
    (void)state;
    fs = rp_fs_memory_new();
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    rp_fs_memory_free(fs);
    return 0;
}

struct disk new_disk(const char *path)
{
    struct disk d = {.path = path};
    struct rp_guid disk_id = rp_guid_new();
    fake_disk_new(&d.facts, SIZE, &disk_id);
    return d;
}

enum rp_rct_verdict open_disk(struct disk *d)
{
    struct rp_vhdx_session session = fake_session();
    struct rp_error err = {0};
    enum rp_rct_verdict verdict;
    d->rct = rp_rct_open_write(fs, d->path, &d->facts, &session, &verdict, &err);
    if (!d->rct)
        fail_msg("%s", err.text);
    fake_disk_written(&d->facts, &session);
    return verdict;
}

void close_disk(struct disk *d)
{
    struct rp_error err = {0};
    if (rp_rct_close(d->rct, &d->facts, &err))
        fail_msg("%s", err.text);
    d->rct = NULL;
}

void crash_disk(struct disk *d)
{
    rp_rct_abandon(d->rct);
    d->rct = NULL;
}

struct rp_rct_id seal_disk(struct disk *d)
{
    struct disk child = {.path = "child"};
    fake_disk_new(&child.facts, d->facts.virtual_size, &d->facts.disk_id);
    struct rp_vhdx_session session = fake_session();
    assert_non_null(child.rct = rp_rct_prepare_child(d->rct, child.path, &child.facts, &session, NULL));
    struct rp_rct_id id = rp_rct_seal(d->rct);
    assert_int_equal(rp_rct_freeze(d->rct, &d->facts, NULL), 0);
    session = fake_session();
    assert_int_equal(rp_rct_merge(child.rct, d->rct, &d->facts, &session, NULL), 0);
    fake_disk_written(&d->facts, &session);
    rp_rct_merged(d->rct);
    assert_int_equal(rp_rct_thaw(d->rct, NULL), 0);
    rp_rct_abandon(child.rct);
    return id;
}

int changed(struct rp_rct *rct, const struct rp_rct_id *id)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    struct rp_error err = {0};
    if (rp_rct_query(&rct, 1, id, 0, SIZE, &found, &err))
        return -(int)err.code;
    return (int)rp_div_up(rp_ranges_total(&found), UNIT);
}
struct rp_buf read_file(const char *path)
{
    struct rp_buf content = {0};
    assert_int_equal(rp_fs_read_file(fs, path, 64 * RP_MIB, &content, NULL), 0);
    return content;
}

void write_file(const char *path, const void *data, size_t size)
{
    assert_int_equal(rp_fs_replace_file(fs, path, data, size, NULL), 0);
}
