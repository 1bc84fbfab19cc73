#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096u
#define SECTOR 512u
enum { BUCKETS = 4096 };

struct moment {
    uint64_t index; // of the entry
    int64_t mtime_ns, ctime_ns;
};
struct change {
    uint64_t index, end; // entries; `end` UINT64_MAX: under way
    uint64_t length;
};
struct name;
struct inode {
    struct inode *next;
    uint64_t number;
    enum log_kind kind; // CREATE (a file), FOLDER or SOCKET
    // durable
    uint8_t **pages;
    size_t page_count;
    uint64_t size;
    int64_t mtime_ns, ctime_ns;
    // not durable
    struct change *changes;
    size_t change_count, change_room;
    struct moment *moments;
    size_t moment_count, moment_room;
    // a folder's
    struct name *names;
    char last_name[NAME_MAX + 1];
    // of the folder being built
    uint64_t built;
    char *path;
};
struct event {
    uint64_t index;
    struct inode *inode; // NULL: no such name
    int64_t ctime_ns;
};
struct name {
    struct name *next;
    char *text;
    struct inode *durable;
    struct event *events;
    size_t count, room;
};

struct tree {
    const struct log *log;
    uint64_t at;
    uint64_t committed; // a journal would have carried all names before this entry along
    struct inode *buckets[BUCKETS];
    struct inode *root;
    uint64_t *mended; // by entry: the END that log_mend put for a process that was killed in that call; 0: none
    uint64_t builds;
    uint64_t forget;
    const char *forget_suffix;
    bool keep_times;
};

const char *cut_mode_name(enum cut_mode mode)
{
    static const char *const names[] = {"synced", "all", "ordered", "loose"};
    return names[mode];
}

static void *grow(void *array, size_t count, size_t *room, size_t item)
{
    if (count < *room)
        return array;
    *room = *room ? *room * 2 : 8;
    array = realloc(array, *room * item);
    if (!array)
        abort();
    return array;
}

// ---- inodes and names -----------------------------------------------------------------------------------------------

static struct inode **bucket(struct tree *tree, uint64_t number) { return &tree->buckets[number * 0x9e3779b97f4a7c15u >> 52]; }

static struct inode *add_inode(struct tree *tree, uint64_t number, enum log_kind kind)
{
    struct inode *inode = calloc(1, sizeof *inode), **head = bucket(tree, number);
    inode->number = number;
    inode->kind = kind;
    inode->next = *head; // one that had the number before is not found any more, but names may still lead to it
    *head = inode;
    return inode;
}

static struct inode *find_inode(struct tree *tree, uint64_t number)
{
    for (struct inode *inode = *bucket(tree, number); inode; inode = inode->next)
        if (inode->number == number)
            return inode;
    return add_inode(tree, number, LOG_CREATE);
}

static void set_name(struct inode *folder, const char *text, uint64_t index, struct inode *inode, int64_t ctime_ns)
{
    struct name *name = folder->names;
    while (name && strcmp(name->text, text))
        name = name->next;
    if (!name) {
        name = calloc(1, sizeof *name);
        name->text = strdup(text);
        name->next = folder->names;
        folder->names = name;
    }
    name->events = grow(name->events, name->count, &name->room, sizeof *name->events);
    name->events[name->count++] = (struct event){index, inode, ctime_ns};
    if (inode)
        snprintf(inode->last_name, sizeof inode->last_name, "%s", text);
}

static void add_moment(struct inode *inode, uint64_t index, int64_t mtime_ns, int64_t ctime_ns)
{
    inode->moments = grow(inode->moments, inode->moment_count, &inode->moment_room, sizeof *inode->moments);
    inode->moments[inode->moment_count++] = (struct moment){index, mtime_ns, ctime_ns};
}

// ---- durable content ------------------------------------------------------------------------------------------------

static void need_pages(struct inode *inode, uint64_t size)
{
    size_t count = (size_t)((size + PAGE - 1) / PAGE);
    if (count <= inode->page_count)
        return;
    count += count / 2;
    inode->pages = realloc(inode->pages, count * sizeof *inode->pages);
    memset(inode->pages + inode->page_count, 0, (count - inode->page_count) * sizeof *inode->pages);
    inode->page_count = count;
}

// `data` NULL: zeros, and whole pages become holes.
static void put(struct inode *inode, uint64_t offset, const uint8_t *data, uint64_t length)
{
    need_pages(inode, data ? offset + length : 0);
    for (uint64_t end = offset + length; offset < end;) {
        uint64_t page = offset / PAGE, skip = offset % PAGE, piece = PAGE - skip < end - offset ? PAGE - skip : end - offset;
        if (page >= inode->page_count)
            return;
        uint8_t **p = &inode->pages[page];
        if (!data && piece == PAGE) {
            free(*p);
            *p = NULL;
        } else if (data || *p) {
            if (!*p)
                *p = calloc(1, PAGE);
            if (data)
                memcpy(*p + skip, data, piece);
            else
                memset(*p + skip, 0, piece);
        }
        data = data ? data + piece : NULL;
        offset += piece;
    }
}

static void make_durable(struct tree *tree, struct inode *inode, const struct change *change)
{
    const struct log_entry *entry = &tree->log->entries[change->index];
    uint64_t end = entry->offset + change->length;
    switch (log_kind(tree->log, change->index)) {
    case LOG_WRITE:
        put(inode, entry->offset, log_data(tree->log, entry), change->length);
        inode->size = end > inode->size ? end : inode->size;
        break;
    case LOG_ZERO:
        put(inode, entry->offset, NULL, change->length);
        break;
    case LOG_ALLOCATE:
        inode->size = end > inode->size ? end : inode->size;
        break;
    default: // LOG_TRUNCATE
        if (entry->length < inode->size)
            put(inode, entry->length, NULL, inode->size - entry->length);
        inode->size = entry->length;
    }
}

// What log_mend found of a call of a killed process: the entry after the END that it put is a write of what stands there.
enum { NOTHING_DONE, ALL_DONE, UNKNOWN };
static int look_at_killed(const struct log *log, uint64_t index, uint64_t end)
{
    const struct log_entry *planned = &log->entries[index], *mender = &log->entries[end];
    for (uint64_t i = end + 1; i < log_count(log); i++) {
        const struct log_entry *found = &log->entries[i];
        if (found->pid != mender->pid || found->inode != planned->inode)
            continue;
        if (log_kind(log, index) != LOG_WRITE || log_kind(log, i) != LOG_WRITE)
            break;
        bool same = found->offset == planned->offset && found->length == planned->length &&
                    !memcmp(log_data(log, found), log_data(log, planned), planned->length);
        return same ? ALL_DONE : found->offset == planned->offset ? UNKNOWN : NOTHING_DONE;
    }
    return log_kind(log, index) == LOG_TRUNCATE ? UNKNOWN : NOTHING_DONE;
}

// Whoever syncs the file of a killed process comes after its end (they take turns by locks). What it was doing had been done then,
// or was never: the log learns that late.
static void end_killed(struct tree *tree, struct inode *inode, uint64_t began)
{
    const struct log_entry *entries = tree->log->entries;
    for (size_t i = inode->change_count; i-- > 0;) {
        struct change *change = &inode->changes[i];
        uint64_t end = tree->mended[change->index];
        if (change->end != UINT64_MAX || !end || entries[change->index].pid == entries[began].pid)
            continue;
        int what = look_at_killed(tree->log, change->index, end);
        if (what == ALL_DONE)
            change->end = change->index;
        else if (what == NOTHING_DONE)
            memmove(change, change + 1, (--inode->change_count - i) * sizeof *change);
    }
}

// `begin`: the entry of a sync that makes the file's times durable as well; NULL: of one that does not.
static void sync_content(struct tree *tree, struct inode *inode, uint64_t began, const struct log_entry *begin)
{
    size_t kept = 0;
    end_killed(tree, inode, began);
    for (size_t i = 0; i < inode->change_count; i++) {
        if (inode->changes[i].end < began)
            make_durable(tree, inode, &inode->changes[i]);
        else
            inode->changes[kept++] = inode->changes[i];
    }
    inode->change_count = kept;
    for (kept = 0; begin && kept < inode->moment_count && inode->moments[kept].index < began; kept++) {
        inode->mtime_ns = inode->moments[kept].mtime_ns;
        inode->ctime_ns = inode->moments[kept].ctime_ns;
    }
    if (kept)
        memmove(inode->moments, inode->moments + kept, (inode->moment_count -= kept) * sizeof *inode->moments);
    // Of a process that was killed in a call, the log learns late that the call had ended: the file has known it all the time.
    if (begin && begin->inode == inode->number && begin->mtime_ns > inode->mtime_ns) {
        inode->mtime_ns = begin->mtime_ns;
        inode->ctime_ns = begin->ctime_ns;
    }
}

static void sync_names(struct inode *folder, uint64_t began)
{
    for (struct name *name = folder->names; name; name = name->next) {
        size_t kept = 0;
        for (; kept < name->count && name->events[kept].index < began; kept++) {
            const struct event *event = &name->events[kept];
            name->durable = event->inode;
            if (event->inode && event->ctime_ns > event->inode->ctime_ns && !event->inode->moment_count)
                event->inode->ctime_ns = event->ctime_ns;
        }
        if (kept)
            memmove(name->events, name->events + kept, (name->count -= kept) * sizeof *name->events);
    }
}

static bool forgotten(const struct tree *tree, const struct inode *inode, uint64_t began)
{
    if (began == tree->forget)
        return true;
    size_t length = tree->forget_suffix ? strlen(tree->forget_suffix) : 0, have = strlen(inode->last_name);
    return length && have >= length && !strcmp(inode->last_name + have - length, tree->forget_suffix);
}

static void sync_end(struct tree *tree, const struct log_entry *end)
{
    uint64_t began = end->other;
    const struct log_entry *begin = &tree->log->entries[began];
    struct inode *inode = find_inode(tree, begin->inode);
    if (forgotten(tree, inode, began))
        return;
    if (began > tree->committed)
        tree->committed = began;
    if (log_kind(tree->log, began) == LOG_SYNC_ALL) {
        for (size_t i = 0; i < BUCKETS; i++)
            for (struct inode *each = tree->buckets[i]; each; each = each->next) {
                sync_content(tree, each, began, begin);
                sync_names(each, began);
            }
    } else if (inode->kind == LOG_FOLDER) {
        sync_names(inode, began);
    } else {
        sync_content(tree, inode, began, begin->length || tree->keep_times ? begin : NULL);
    }
}

// ---- going through the log ------------------------------------------------------------------------------------------

static void change_end(struct tree *tree, uint64_t index, const struct log_entry *end)
{
    struct inode *inode = find_inode(tree, end->inode);
    for (size_t i = inode->change_count; i-- > 0;) {
        struct change *change = &inode->changes[i];
        if (change->index != end->other)
            continue;
        if (!end->length) { // failed
            memmove(change, change + 1, (--inode->change_count - i) * sizeof *change);
            return;
        }
        change->end = index;
        if (log_kind(tree->log, change->index) != LOG_TRUNCATE)
            change->length = end->length;
        add_moment(inode, index, end->mtime_ns, end->ctime_ns);
        return;
    }
}

static void take(struct tree *tree, uint64_t index)
{
    const struct log_entry *entry = &tree->log->entries[index];
    enum log_kind kind = log_kind(tree->log, index);
    const char *text = log_data(tree->log, entry);
    struct inode *inode, *folder;
    switch (kind) {
    case LOG_WRITE:
    case LOG_ZERO:
    case LOG_ALLOCATE:
    case LOG_TRUNCATE:
        inode = find_inode(tree, entry->inode);
        inode->changes = grow(inode->changes, inode->change_count, &inode->change_room, sizeof *inode->changes);
        inode->changes[inode->change_count++] = (struct change){index, UINT64_MAX, entry->length};
        break;
    case LOG_END:
        change_end(tree, index, entry);
        break;
    case LOG_SYNC_END:
        sync_end(tree, entry);
        break;
    case LOG_CREATE:
    case LOG_FOLDER:
    case LOG_SOCKET:
        inode = add_inode(tree, entry->inode, kind);
        inode->mtime_ns = entry->mtime_ns;
        inode->ctime_ns = entry->ctime_ns;
        set_name(find_inode(tree, entry->directory), text, index, inode, entry->ctime_ns);
        break;
    case LOG_LINK:
        inode = find_inode(tree, entry->inode);
        add_moment(inode, index, entry->mtime_ns, entry->ctime_ns);
        set_name(find_inode(tree, entry->directory), text, index, inode, entry->ctime_ns);
        break;
    case LOG_UNLINK:
    case LOG_REMOVE_FOLDER:
        set_name(find_inode(tree, entry->directory), text, index, NULL, 0);
        break;
    case LOG_RENAME:
        inode = find_inode(tree, entry->inode);
        folder = find_inode(tree, entry->other);
        add_moment(inode, index, entry->mtime_ns, entry->ctime_ns);
        set_name(find_inode(tree, entry->directory), text, index, NULL, 0);
        set_name(folder, text + strlen(text) + 1, index, inode, entry->ctime_ns);
        break;
    default:
        break;
    }
}

struct tree *tree_new(const struct log *log)
{
    struct tree *tree = calloc(1, sizeof *tree);
    tree->log = log;
    tree->forget = UINT64_MAX;
    tree->root = add_inode(tree, log->header->root_inode, LOG_FOLDER);
    tree->mended = calloc(log_count(log) + 1, sizeof *tree->mended);
    for (uint64_t i = 0; i < log_count(log); i++)
        if (log_kind(log, i) == LOG_END && log->entries[i].pid != log->entries[log->entries[i].other].pid)
            tree->mended[log->entries[i].other] = i;
    return tree;
}

void tree_forget_syncs(struct tree *tree, uint64_t sync, const char *suffix)
{
    tree->forget = sync;
    tree->forget_suffix = suffix;
}

void tree_keep_times(struct tree *tree) { tree->keep_times = true; }

void tree_advance(struct tree *tree, uint64_t at)
{
    while (tree->at < at)
        take(tree, tree->at++);
}

void tree_free(struct tree *tree)
{
    for (size_t i = 0; tree && i < BUCKETS; i++)
        for (struct inode *inode = tree->buckets[i], *next; inode; inode = next) {
            next = inode->next;
            for (size_t p = 0; p < inode->page_count; p++)
                free(inode->pages[p]);
            for (struct name *name = inode->names, *after; name; name = after) {
                after = name->next;
                free(name->text);
                free(name->events);
                free(name);
            }
            free(inode->pages);
            free(inode->changes);
            free(inode->moments);
            free(inode->path);
            free(inode);
        }
    if (tree)
        free(tree->mended);
    free(tree);
}

// ---- building -------------------------------------------------------------------------------------------------------

static uint64_t draw(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct build {
    struct tree *tree;
    const struct cut *cut;
    struct times *times;
    uint64_t random;
    uint64_t journal; // ORDERED: names changed before this entry are there
};

static bool is_random(const struct build *b) { return b->cut->mode == CUT_ORDERED || b->cut->mode == CUT_LOOSE; }

static int write_pages(int fd, const struct inode *inode)
{
    struct iovec parts[256];
    size_t pages = (size_t)((inode->size + PAGE - 1) / PAGE);
    for (size_t i = 0; i < pages && i < inode->page_count;) {
        int count = 0;
        size_t first = i;
        for (; i < pages && i < inode->page_count && inode->pages[i] && count < 256; i++)
            parts[count++] = (struct iovec){inode->pages[i], PAGE};
        if (!count) {
            i++;
            continue;
        }
        if (pwritev(fd, parts, count, (off_t)first * PAGE) != (ssize_t)count * PAGE)
            return -1;
    }
    return ftruncate(fd, (off_t)inode->size);
}

static int write_torn(int fd, const uint8_t *data, uint64_t offset, uint64_t length, uint64_t *random)
{
    unsigned way = draw(random) % 3; // any sectors, a beginning, an end
    uint64_t sectors = (offset + length + SECTOR - 1) / SECTOR - offset / SECTOR, edge = draw(random) % (sectors + 1), n = 0;
    for (uint64_t at = offset; at < offset + length; n++) {
        uint64_t next = (at / SECTOR + 1) * SECTOR;
        if (next > offset + length)
            next = offset + length;
        bool there = way == 0 ? draw(random) & 1 : way == 1 ? n < edge : n >= edge;
        if (there && pwrite(fd, data + (at - offset), next - at, (off_t)at) != (ssize_t)(next - at))
            return -1;
        at = next;
    }
    return 0;
}

static int apply(struct build *b, int fd, const struct change *change, unsigned keep, uint64_t *size)
{
    const struct log_entry *entry = &b->tree->log->entries[change->index];
    uint64_t end = entry->offset + change->length;
    bool torn = is_random(b) && draw(&b->random) % 100 < 15, there = !is_random(b) || draw(&b->random) % 100 < keep;
    if (!there && !torn)
        return 0;
    bool longer = end > *size && (!is_random(b) || draw(&b->random) % 100 < 90);
    switch (log_kind(b->tree->log, change->index)) {
    case LOG_WRITE: {
        const uint8_t *data = log_data(b->tree->log, entry);
        if (torn ? write_torn(fd, data, entry->offset, change->length, &b->random)
                 : pwrite(fd, data, change->length, (off_t)entry->offset) != (ssize_t)change->length)
            return -1;
        break;
    }
    case LOG_ZERO:
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)entry->offset, (off_t)change->length);
    case LOG_ALLOCATE:
        break;
    default: // LOG_TRUNCATE
        *size = entry->length;
        return ftruncate(fd, (off_t)*size);
    }
    if (longer)
        *size = end;
    return 0;
}

static int build_file(struct build *b, struct inode *inode, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    static const unsigned chances[] = {0, 20, 50, 80, 100};
    unsigned keep = chances[draw(&b->random) % 5];
    uint64_t size = inode->size;
    int failed = write_pages(fd, inode);
    for (size_t i = 0; !failed && b->cut->mode != CUT_SYNCED && i < inode->change_count; i++)
        failed = apply(b, fd, &inode->changes[i], keep, &size);
    struct stat st;
    failed = failed || ftruncate(fd, (off_t)size) || fstat(fd, &st);
    close(fd);
    int64_t mtime = inode->mtime_ns, ctime = inode->ctime_ns;
    size_t moments = b->cut->mode == CUT_ALL ? inode->moment_count : is_random(b) ? draw(&b->random) % (inode->moment_count + 1) : 0;
    if (moments) {
        mtime = inode->moments[moments - 1].mtime_ns;
        ctime = inode->moments[moments - 1].ctime_ns;
    }
    if (!failed && b->times)
        times_add(b->times, &st, inode->number, mtime, ctime);
    return failed ? -1 : 0;
}

static struct inode *choose(struct build *b, const struct name *name)
{
    size_t count = 0;
    switch (b->cut->mode) {
    case CUT_SYNCED:
        break;
    case CUT_ALL:
        count = name->count;
        break;
    case CUT_ORDERED:
        while (count < name->count && name->events[count].index < b->journal)
            count++;
        break;
    case CUT_LOOSE:
        count = draw(&b->random) % (name->count + 1);
    }
    return count ? name->events[count - 1].inode : name->durable;
}

static int build_folder(struct build *b, struct inode *folder, const char *path)
{
    int failed = 0;
    for (struct name *name = folder->names; name && !failed; name = name->next) {
        struct inode *inode = choose(b, name);
        if (!inode)
            continue;
        char *whole;
        if (asprintf(&whole, "%s/%s", path, name->text) < 0)
            abort();
        if (inode->kind == LOG_CREATE && inode->built == b->tree->builds) { // a second name
            failed = link(inode->path, whole);
        } else if (inode->kind == LOG_CREATE) {
            inode->built = b->tree->builds;
            free(inode->path);
            inode->path = strdup(whole);
            failed = build_file(b, inode, whole);
        } else if (inode->kind == LOG_SOCKET) {
            failed = mknod(whole, S_IFSOCK | 0600, 0);
        } else {
            failed = mkdir(whole, 0700) || build_folder(b, inode, whole);
        }
        free(whole);
    }
    return failed;
}

int tree_build(struct tree *tree, const struct cut *cut, const char *folder, struct times *times)
{
    struct build b = {.tree = tree, .cut = cut, .times = times, .random = cut->seed};
    tree->builds++;
    if (times)
        times->count = 0;
    b.journal = tree->committed + draw(&b.random) % (tree->at - tree->committed + 1);
    return tree_empty_folder(folder) || build_folder(&b, tree->root, folder) ? -1 : 0;
}

int tree_empty_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    int failed = !dir;
    for (struct dirent *entry; !failed && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        char *path;
        if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
            abort();
        if (entry->d_type == DT_DIR)
            failed = tree_empty_folder(path) || rmdir(path);
        else
            failed = unlink(path);
        free(path);
    }
    if (dir)
        closedir(dir);
    return failed ? -1 : 0;
}
