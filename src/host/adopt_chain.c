// The images behind an image: what the definition says of them, against what the files themselves say.
#include <string.h>

#include <jansson.h>

#include "host/adopt.h"

RP_DEFINE_CLEANUP(json_t, json_decref)

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static bool is_same_file(const char *a, const char *b)
{
    RP_AUTO_FREE char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
    return real_a && real_b && !strcmp(real_a, real_b);
}

// `files`: of the image and all those behind it, the first being itself.
static char *compare(const struct rp_domain_xml_disk *disk, const json_t *files)
{
    static const char advice[] = "which of both its guest sees is not certain: make them agree (qemu-img rebase -u), or take <backingStore> "
                                 "out of the definition";
    size_t count = json_array_size(files) - 1;
    for (size_t i = 0; i < disk->backing_count; i++) {
        const struct rp_domain_xml_backing *said = &disk->backing[i];
        const json_t *file = json_array_get(files, i + 1);
        if (!file)
            return rp_xasprintf("is said to lie on %s, its file says that there is nothing behind %s; %s", said->path,
                                text_of(json_array_get(files, i), "filename"), advice);
        if (!is_same_file(said->path, text_of(file, "filename")))
            return rp_xasprintf("is said to lie on %s, its file says %s; %s", said->path, text_of(file, "filename"), advice);
        if (strcmp(said->format, text_of(file, "format")))
            return rp_xasprintf("is said to lie on %s of the format \"%.32s\", its file says %s; %s", said->path, said->format,
                                text_of(file, "format"), advice);
    }
    if (disk->backing_ends && count > disk->backing_count)
        return rp_xasprintf("is said to have nothing behind %s (an empty <backingStore>), the file says %s; %s",
                            text_of(json_array_get(files, disk->backing_count), "filename"),
                            text_of(json_array_get(files, disk->backing_count + 1), "filename"), advice);
    return NULL;
}

int rp_adopt_check_chain(const struct rp_domain_xml_disk *disk, const char *path, char **reason, struct rp_error *err)
{
    const char *const info[] = {"qemu-img", "info", "--output=json", "--backing-chain", "-f", "qcow2", path, NULL};
    *reason = NULL;
    if (!disk->backing_count && !disk->backing_ends) // libvirt asks the files, too
        return 0;
    RP_CLEANUP(json_decref_p) json_t *files = rp_adopt_tool_ask(info, err);
    if (!files)
        return -1;
    *reason = json_array_size(files) ? compare(disk, files) : rp_xstrdup("qemu-img does not know it");
    return 0;
}
