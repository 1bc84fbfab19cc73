// Firmware state as settings.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "host/cim_text.h"
#include "host/domain_state.h"
#include "wsman/base64.h"

#define SHORTEST_RUN 32 // of equal bytes: shorter ones are not worth the nine bytes that they cost

void rp_domain_state_clear(struct rp_domain_state_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        rp_buf_clear(&files->items[i].content);
    files->count = 0;
}

// ---- packing: most of a firmware's store is one byte over and over --------------------------------------------------

static size_t run_at(const struct rp_buf *from, size_t at)
{
    size_t end = at;
    while (end < from->size && from->data[end] == from->data[at])
        end++;
    return end - at;
}

// Again and again: a length (32 bits, little-endian) and so many bytes as they are, then a length and the byte that
// comes so often.
static void pack(const struct rp_buf *from, struct rp_buf *to)
{
    for (size_t at = 0; at < from->size;) {
        size_t start = at, run = run_at(from, at);
        while (run < SHORTEST_RUN && at < from->size) {
            at += run;
            run = run_at(from, at);
        }
        rp_buf_append_le32(to, (uint32_t)(at - start));
        rp_buf_append(to, from->data + start, at - start);
        rp_buf_append_le32(to, (uint32_t)run);
        rp_buf_append_u8(to, run ? from->data[at] : 0);
        at += run;
    }
}

static int unpack(const struct rp_buf *from, uint64_t size, struct rp_buf *to, struct rp_error *err)
{
    struct rp_cursor c = rp_cursor_of(from->data, from->size);
    while (!c.failed && rp_cursor_left(&c)) {
        uint32_t length = rp_cursor_le32(&c);
        const uint8_t *bytes = rp_cursor_bytes(&c, length);
        uint32_t run = rp_cursor_le32(&c);
        uint8_t byte = rp_cursor_u8(&c);
        if (c.failed || length > size - to->size || run > size - to->size - length)
            break;
        if (length)
            rp_buf_append(to, bytes, length);
        if (run)
            memset(rp_buf_extend(to, run), byte, run);
        if (!length && !run)
            break;
    }
    return !c.failed && !rp_cursor_left(&c) && to->size == size
               ? 0
               : rp_fail(err, RP_ERR_CORRUPT,
                         "settings: the state of a firmware that is cut off, or of another size than it says");
}

// ---- instances ------------------------------------------------------------------------------------------------------

int rp_domain_state_to_text(const struct rp_domain_state_files *files, struct rp_buf *extras, struct rp_error *err)
{
    size_t before = extras->size;
    for (size_t i = 0; i < files->count; i++) {
        const struct rp_domain_state_file *file = &files->items[i];
        RP_CLEANUP(rp_buf_clear) struct rp_buf packed = {0}, content = {0};
        RP_CLEANUP(rp_cim_instance_free_p)
        struct rp_cim_instance *instance = rp_cim_instance_new(NULL, RP_DOMAIN_STATE_CLASS);
        RP_AUTO_FREE char *id = rp_xasprintf("\\refpoint\\state\\%zu", i);
        pack(&file->content, &packed);
        rp_base64_encode(packed.data, packed.size, &content);
        rp_cim_set(instance, "InstanceID", rp_cim_string(id));
        rp_cim_set(instance, "Kind", rp_cim_string(file->tpm ? "tpm" : "nvram"));
        rp_cim_set(instance, "Name", rp_cim_string(file->name));
        rp_cim_set(instance, "Size", rp_cim_unsigned(RP_CIM_UINT64, file->content.size));
        rp_cim_set(instance, "Content", rp_cim_string(rp_buf_text(&content)));
        rp_cimxml_write(instance, extras);
        rp_buf_append_u8(extras, '\n');
    }
    if (extras->size <= RP_LOCAL_EXTRAS_MAX)
        return 0;
    extras->size = before;
    return rp_fail(err, RP_ERR_UNSUPPORTED,
                   "the state of the firmware is too big for the settings of a VM (%zu bytes of text)",
                   RP_LOCAL_EXTRAS_MAX);
}

// swtpm's: "tpm2-00.permall". Nothing that leads elsewhere, and nothing hidden.
static bool is_file_name(const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return *name && *name != '.' && strlen(name) < sizeof((struct rp_domain_state_file *)0)->name &&
           !name[strspn(name, plain)];
}

static int take(const struct rp_cim_instance *from, struct rp_domain_state_files *files, size_t *total,
                struct rp_error *err)
{
    const char *kind = rp_cim_get_text(from, "Kind"), *name = rp_cim_get_text(from, "Name"),
               *content = rp_cim_get_text(from, "Content");
    uint64_t size = rp_cim_get_unsigned(from, "Size", UINT64_MAX);
    bool tpm = kind && !strcmp(kind, "tpm");
    RP_CLEANUP(rp_buf_clear) struct rp_buf packed = {0};
    if (!kind || (!tpm && strcmp(kind, "nvram")) || !content || (tpm && (!name || !is_file_name(name))))
        return rp_fail(err, RP_ERR_CORRUPT, "settings: the state of a firmware that does not say which");
    if (files->count == RP_DOMAIN_STATE_FILES || size > RP_DOMAIN_STATE_MAX - *total)
        return rp_fail(err, RP_ERR_CORRUPT, "settings: the state of a firmware of more than %d files, or %zu MiB",
                       RP_DOMAIN_STATE_FILES, RP_DOMAIN_STATE_MAX >> 20);
    for (size_t i = 0; i < files->count; i++)
        if (files->items[i].tpm == tpm && (!tpm || !strcmp(files->items[i].name, name)))
            return rp_fail(err, RP_ERR_CORRUPT, "settings: the state of a firmware twice");
    if (rp_base64_decode(content, strlen(content), &packed, err))
        return rp_context(err, "settings: the state of a firmware");
    struct rp_domain_state_file *file = &files->items[files->count++];
    *file = (struct rp_domain_state_file){.tpm = tpm};
    snprintf(file->name, sizeof file->name, "%s", tpm ? name : "");
    *total += size;
    return unpack(&packed, size, &file->content, err);
}

int rp_domain_state_of_text(const char *extras, struct rp_domain_state_files *files, char **rest, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = {0};
    size_t left = 0, total = 0;
    *files = (struct rp_domain_state_files){0};
    *rest = NULL;
    int rc = rp_cim_text_parse(extras, &all, err);
    for (size_t i = 0; !rc && i < all.count; i++)
        if (!strcasecmp(all.items[i]->class_name, RP_DOMAIN_STATE_CLASS))
            rc = take(all.items[i], files, &total, err);
    for (size_t i = 0; !rc && i < all.count; i++) {
        if (!strcasecmp(all.items[i]->class_name, RP_DOMAIN_STATE_CLASS))
            rp_cim_instance_free(all.items[i]);
        else
            all.items[left++] = all.items[i];
    }
    if (!rc) {
        all.count = left;
        *rest = rp_cim_text_format(&all, err);
    }
    if (*rest)
        return 0;
    rp_domain_state_clear(files);
    return -1;
}
