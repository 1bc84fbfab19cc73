// The definition of an exported VM, and the document of its settings. What is accepted must be safe to use: bare file names,
// numbers that differ, ids that are some.
#include <stdlib.h>
#include <string.h>

#include "host/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rp_local_definition d;
    struct rp_guid guid;
    if (rp_local_definition_parse((const char *)data, size, &d, NULL))
        return 0;
    if (rp_guid_parse(d.id, &guid, NULL) || !*d.name || d.disk_count > RP_ENGINE_MAX_DISKS)
        __builtin_trap();
    for (size_t i = 0; i < d.disk_count; i++) {
        const char *file = d.disks[i].file;
        if (file && (!*file || !strcmp(file, ".") || !strcmp(file, "..") || strchr(file, '/')))
            __builtin_trap();
        for (size_t j = 0; j < i; j++)
            if (d.disks[j].number == d.disks[i].number)
                __builtin_trap();
        rp_local_definition_content(d.disks[i].rct_id);
    }
    rp_local_definition_clear(&d);
    return 0;
}
