// Hostile object paths. What is understood is the same path when it is written and read again.
#include <stdlib.h>
#include <string.h>

#include "cim/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct rp_cim_path *path, const struct rp_buf *text)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *again = rp_cim_path_parse((const char *)text->data, NULL);
    if (!again || !rp_cim_path_equal(path, again) || path->key_count != again->key_count)
        abort();
    for (size_t i = 0; i < path->key_count; i++)
        if (strcmp(path->keys[i].name, again->keys[i].name) || strcmp(path->keys[i].value, again->keys[i].value))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf input = {0}, full = {0}, relative = {0};
    rp_buf_append(&input, data, size);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_parse(rp_buf_text(&input), NULL);
    if (!path)
        return 0;
    rp_cim_path_format(path, &full);
    rp_cim_path_format_relative(path, &relative);
    rp_buf_text(&full);
    rp_buf_text(&relative);
    check(path, &full);
    check(path, &relative);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *copy = rp_cim_path_copy(path);
    if (!rp_cim_path_equal(path, copy))
        abort();
    return 0;
}
