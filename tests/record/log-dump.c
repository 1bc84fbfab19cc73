// log-dump LOG [FROM TO]: the entries of a log, one per line, for people.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static const char *const kinds[] = {"hole", "write", "zero", "allocate", "truncate", "end", "sync", "sync-all", "sync-end", "create",
                                    "folder", "socket", "link", "unlink", "rmdir", "rename", "note"};

// The last name that an inode had before entry `at`.
static const char *name_of(const struct log *log, uint64_t inode, uint64_t at)
{
    if (inode == log->header->root_inode)
        return "/";
    for (uint64_t i = at; i-- > 0;) {
        const struct log_entry *entry = &log->entries[i];
        enum log_kind kind = log_kind(log, i);
        const char *text = log_data(log, entry);
        if (entry->inode == inode && kind >= LOG_CREATE && kind <= LOG_RENAME)
            return kind == LOG_RENAME ? text + strlen(text) + 1 : text;
    }
    return "?";
}

int main(int argc, char **argv)
{
    struct log log;
    if (argc < 2 || log_open(&log, argv[1], false)) {
        fprintf(stderr, "usage: log-dump LOG [FROM TO]\n");
        return 2;
    }
    uint64_t from = argc > 2 ? strtoull(argv[2], NULL, 10) : 0, to = argc > 3 ? strtoull(argv[3], NULL, 10) : UINT64_MAX;
    for (uint64_t i = from; i < log_count(&log) && i < to; i++) {
        const struct log_entry *e = &log.entries[i];
        enum log_kind kind = log_kind(&log, i);
        const char *text = log_data(&log, e);
        printf("%llu [%u] %s ", (unsigned long long)i, e->pid, kinds[kind]);
        if (kind >= LOG_WRITE && kind <= LOG_TRUNCATE)
            printf("%s at %llu, %llu bytes\n", name_of(&log, e->inode, i), (unsigned long long)e->offset, (unsigned long long)e->length);
        else if (kind == LOG_END || kind == LOG_SYNC_END)
            printf("of %llu (%s)\n", (unsigned long long)e->other, name_of(&log, e->inode, i));
        else if (kind == LOG_SYNC || kind == LOG_SYNC_ALL)
            printf("%s%s\n", name_of(&log, e->inode, i), e->length ? "" : " (data)");
        else if (kind == LOG_RENAME)
            printf("%s in %s to %s in %s\n", text, name_of(&log, e->directory, i), text + strlen(text) + 1, name_of(&log, e->other, i));
        else if (kind == LOG_NOTE)
            printf("%llu\n", (unsigned long long)e->offset);
        else
            printf("%s in %s\n", kind == LOG_HOLE ? "" : text, name_of(&log, e->directory, i));
    }
    return 0;
}
