// Sources whose disks have nothing to do with each other.
#include <stdlib.h>

#include "backup/reader.h"
#include "base/buf.h"

struct plain {
    struct rp_source source;
    struct rp_host_connection *host;
    struct rp_reader *(*open)(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err);
};

static struct rp_reader *open_disk(struct rp_source *source, const struct rp_plan_disk *disk, struct rp_error *err)
{
    struct plain *plain = (struct plain *)source;
    return plain->open(plain->host, disk->disk, err);
}

static int close_plain(struct rp_source *source, struct rp_error *err)
{
    (void)err;
    free(source);
    return 0;
}

struct rp_source *rp_source_of(struct rp_host_connection *host,
                               struct rp_reader *(*open)(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                                         struct rp_error *err))
{
    static const struct rp_source_ops ops = {.open = open_disk, .close = close_plain};
    struct plain *plain = rp_xcalloc(1, sizeof *plain);
    *plain = (struct plain){{&ops}, host, open};
    return &plain->source;
}

struct rp_source *rp_source_new(enum rp_reader_kind kind, const struct rp_source_job *job)
{
    switch (kind) {
    case RP_READER_SHARE: return rp_source_of(job->host, rp_reader_share);
    case RP_READER_EXPORT: return rp_source_export(job);
    case RP_READER_ANY:
    case RP_READER_VIRTUAL_DISK: break;
    }
    return rp_source_of(job->host, rp_reader_virtual_disk);
}

int rp_source_close(struct rp_source *source, struct rp_error *err)
{
    return source ? source->ops->close(source, err) : 0;
}
