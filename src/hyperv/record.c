// What went over the wire, as files.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyperv/scrub.h"

struct rp_record {
    char *folder;
    struct rp_scrub *scrub;
    int sent;
    struct rp_error err; // the first
};

static int make_folder(const char *folder, struct rp_error *err)
{
    if (!mkdir(folder, 0700))
        return 0;
    if (errno != EEXIST)
        return rp_fail_sys(err, errno, "%s", folder);
    DIR *directory = opendir(folder);
    if (!directory)
        return rp_fail_sys(err, errno, "%s", folder);
    bool empty = true;
    for (struct dirent *entry; (entry = readdir(directory));)
        empty &= !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(directory);
    return empty ? 0 : rp_fail(err, RP_ERR_EXISTS, "%s: there is something in it already", folder);
}

struct rp_record *rp_record_new(const char *folder, struct rp_error *err)
{
    struct rp_scrub *scrub = make_folder(folder, err) ? NULL : rp_scrub_new(err);
    if (!scrub)
        return NULL;
    struct rp_record *record = rp_xcalloc(1, sizeof *record);
    record->folder = rp_xstrdup(folder);
    record->scrub = scrub;
    return record;
}

void rp_record_trace(void *context, bool sent, const void *data, size_t size)
{
    struct rp_record *record = context;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    record->sent += sent;
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%03d-%s.xml", record->folder, record->sent, sent ? "sent" : "received");
    rp_scrub_message(record->scrub, data, size, &text);
    RP_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    for (size_t done = 0; fd >= 0 && done < text.size;) {
        ssize_t n = write(fd, text.data + done, text.size - done);
        if (n < 0 && errno != EINTR) {
            rp_fail_sys(&record->err, errno, "%s", path);
            return;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd < 0)
        rp_fail_sys(&record->err, errno, "%s", path);
}

int rp_record_end(struct rp_record *record, struct rp_error *err)
{
    int count = record->err.code ? rp_fail_as(err, &record->err) : record->sent;
    rp_scrub_free(record->scrub);
    free(record->folder);
    free(record);
    return count;
}
