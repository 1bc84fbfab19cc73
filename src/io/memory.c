#include "io/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"

enum { PAGE = 4096 };

// A page is shared by the live and the durable image until the live one is written again.
struct page {
    unsigned references;
    uint8_t bytes[PAGE];
};

struct image {
    struct page **pages; // NULL: zeros
    size_t slots;
    uint64_t size;
};

struct node { // what a POSIX system calls an inode
    unsigned references; // names in either table, and open stores
    uint64_t number;
    int64_t mtime_ns;
    struct image live, durable;
    unsigned readers; // lock holders
    bool writer;
};

struct name {
    char *path;
    struct node *node;
};

struct names {
    struct name *items;
    size_t count;
};

struct memory_fs {
    struct rp_fs fs;
    pthread_mutex_t lock;
    struct names live, durable;
    uint64_t next_inode;
    unsigned long cuts, syncs;
    int64_t last_mtime;
};

struct memory_store {
    struct rp_store store;
    struct memory_fs *fs;
    struct node *node;
    unsigned long cuts; // of the file system when this was opened
    bool own_fs;
    char held; // lock: 0, 'r', 'w'
};

static void page_drop(struct page *page)
{
    if (page && !--page->references)
        free(page);
}

static void image_clear(struct image *image)
{
    for (size_t i = 0; i < image->slots; i++)
        page_drop(image->pages[i]);
    free(image->pages);
    *image = (struct image){0};
}

static void image_copy(struct image *to, const struct image *from)
{
    size_t slots = from->slots;
    struct page **pages = rp_xcalloc(slots, sizeof *pages);
    for (size_t i = 0; i < slots; i++)
        if ((pages[i] = from->pages[i]))
            pages[i]->references++;
    uint64_t size = from->size;
    image_clear(to);
    *to = (struct image){pages, slots, size};
}

static struct page *writable_page(struct image *image, size_t index)
{
    if (index >= image->slots) {
        size_t slots = rp_max64(image->slots * 2, index + 1);
        image->pages = rp_xrealloc(image->pages, slots * sizeof *image->pages);
        memset(image->pages + image->slots, 0, (slots - image->slots) * sizeof *image->pages);
        image->slots = slots;
    }
    struct page *page = image->pages[index];
    if (page && page->references == 1)
        return page;
    struct page *fresh = rp_xcalloc(1, sizeof *fresh);
    fresh->references = 1;
    if (page) {
        memcpy(fresh->bytes, page->bytes, PAGE);
        page_drop(page);
    }
    return image->pages[index] = fresh;
}

static void node_drop(struct node *node)
{
    if (--node->references)
        return;
    image_clear(&node->live);
    image_clear(&node->durable);
    free(node);
}

static struct name *names_find(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->items[i].path, path))
            return &names->items[i];
    return NULL;
}

static void names_remove(struct names *names, struct name *name)
{
    free(name->path);
    node_drop(name->node);
    *name = names->items[--names->count];
}

static void names_add(struct names *names, const char *path, struct node *node)
{
    names->items = rp_xrealloc(names->items, (names->count + 1) * sizeof *names->items);
    node->references++;
    names->items[names->count++] = (struct name){rp_xstrdup(path), node};
}

static void names_clear(struct names *names)
{
    while (names->count)
        names_remove(names, &names->items[names->count - 1]);
    free(names->items);
    names->items = NULL;
}

static void touch(struct memory_fs *fs, struct node *node)
{
    int64_t now = rp_clock_wall_ns();
    node->mtime_ns = fs->last_mtime = now > fs->last_mtime ? now : fs->last_mtime + 1;
}

// Locks the file system and checks that the store survived every power cut; returns -1 unlocked when it did not.
static int enter(struct memory_store *m, struct rp_error *err)
{
    pthread_mutex_lock(&m->fs->lock);
    if (m->cuts == m->fs->cuts)
        return 0;
    pthread_mutex_unlock(&m->fs->lock);
    return rp_fail(err, RP_ERR_IO, "%s: the power was cut", m->store.name);
}

static void leave(struct memory_store *m) { pthread_mutex_unlock(&m->fs->lock); }

static int memory_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    struct image *image = &m->node->live;
    int failed = 0;
    if (!rp_range_ok(offset, size, image->size))
        failed = rp_fail(err, RP_ERR_CORRUPT, "%s: ends at %llu, %zu bytes expected at %llu", store->name,
                         (unsigned long long)image->size, size, (unsigned long long)offset);
    for (size_t done = 0; !failed && done < size;) {
        size_t index = (size_t)((offset + done) / PAGE), within = (size_t)((offset + done) % PAGE);
        size_t n = size - done < PAGE - within ? size - done : PAGE - within;
        struct page *page = index < image->slots ? image->pages[index] : NULL;
        if (page)
            memcpy((uint8_t *)data + done, page->bytes + within, n);
        else
            memset((uint8_t *)data + done, 0, n);
        done += n;
    }
    leave(m);
    return failed;
}

static int memory_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    struct image *image = &m->node->live;
    for (size_t done = 0; done < size;) {
        size_t index = (size_t)((offset + done) / PAGE), within = (size_t)((offset + done) % PAGE);
        size_t n = size - done < PAGE - within ? size - done : PAGE - within;
        memcpy(writable_page(image, index)->bytes + within, (const uint8_t *)data + done, n);
        done += n;
    }
    image->size = rp_max64(image->size, offset + size);
    touch(m->fs, m->node);
    leave(m);
    return 0;
}

static int memory_flush(struct rp_store *store, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    image_copy(&m->node->durable, &m->node->live);
    m->fs->syncs++;
    leave(m);
    return 0;
}

static void clear_range(struct image *image, uint64_t start, uint64_t end)
{
    end = rp_min64(end, (uint64_t)image->slots * PAGE);
    while (start < end) {
        size_t index = (size_t)(start / PAGE), within = (size_t)(start % PAGE);
        size_t n = (size_t)rp_min64(end - start, PAGE - within);
        if (n == PAGE) {
            page_drop(image->pages[index]);
            image->pages[index] = NULL;
        } else if (image->pages[index]) {
            memset(writable_page(image, index)->bytes + within, 0, n);
        }
        start += n;
    }
}

static int memory_truncate(struct rp_store *store, uint64_t size, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    if (size < m->node->live.size)
        clear_range(&m->node->live, size, m->node->live.size);
    m->node->live.size = size;
    touch(m->fs, m->node);
    leave(m);
    return 0;
}

static int memory_size(struct rp_store *store, uint64_t *size, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    *size = m->node->live.size;
    leave(m);
    return 0;
}

static int memory_extents(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    struct image *image = &m->node->live;
    uint64_t end = rp_min64(offset + length, rp_min64(image->size, (uint64_t)image->slots * PAGE));
    while (offset < end) {
        uint64_t stop = rp_min64(rp_align_down(offset, PAGE) + PAGE, end);
        if (image->pages[offset / PAGE])
            rp_ranges_add(data, offset, stop - offset);
        offset = stop;
    }
    leave(m);
    return 0;
}

static int memory_allocate(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    int failed = rp_range_ok(offset, length, m->node->live.size) ? 0 : rp_fail(err, RP_ERR_INVALID, "%s: ends before", store->name);
    leave(m);
    return failed;
}

static int memory_punch(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    clear_range(&m->node->live, offset, offset + length);
    touch(m->fs, m->node);
    leave(m);
    return 0;
}

// The rules of a file system with blocks of a page.
static int memory_clone_range(struct rp_store *to, uint64_t to_offset, struct rp_store *from, uint64_t from_offset,
                              uint64_t length, struct rp_error *err)
{
    struct memory_store *target = (struct memory_store *)to, *source = (struct memory_store *)from;
    if (target->fs != source->fs || !rp_is_aligned(to_offset | from_offset | length, PAGE))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot share blocks with %s", to->name, from->name);
    if (enter(target, err))
        return -1;
    struct image *image = &target->node->live, *other = &source->node->live;
    int failed = 0;
    if (!rp_range_ok(from_offset, length, other->size) || !rp_range_ok(to_offset, length, image->size))
        failed = rp_fail(err, RP_ERR_INVALID, "%s: shares what %s does not have", to->name, from->name);
    for (uint64_t done = 0; !failed && done < length; done += PAGE) {
        size_t index = (size_t)((from_offset + done) / PAGE), at = (size_t)((to_offset + done) / PAGE);
        struct page *page = index < other->slots ? other->pages[index] : NULL;
        if (page)
            page->references++; // also keeps it while the slot below is made
        if (page || at < image->slots) {
            writable_page(image, at);
            page_drop(image->pages[at]);
            image->pages[at] = page;
        }
    }
    if (!failed)
        touch(target->fs, target->node);
    leave(target);
    return failed;
}

static int memory_identity(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    *identity = (struct rp_store_identity){.device = 1,
                                           .inode = m->node->number,
                                           .size = m->node->live.size,
                                           .mtime_ns = m->node->mtime_ns,
                                           .ctime_ns = m->node->mtime_ns};
    leave(m);
    return 0;
}

static void unlock_node(struct memory_store *m)
{
    if (m->held == 'r' && m->cuts == m->fs->cuts)
        m->node->readers--;
    else if (m->held == 'w' && m->cuts == m->fs->cuts)
        m->node->writer = false;
    m->held = 0;
}

static int memory_lock(struct rp_store *store, bool exclusive, struct rp_error *err)
{
    struct memory_store *m = (struct memory_store *)store;
    if (enter(m, err))
        return -1;
    unsigned others = m->node->readers - (m->held == 'r');
    bool writer = m->node->writer && m->held != 'w';
    int failed = 0;
    if (writer || (exclusive && others)) {
        failed = rp_fail(err, RP_ERR_BUSY, "%s: in use by another process", store->name);
    } else {
        unlock_node(m);
        m->held = exclusive ? 'w' : 'r';
        if (exclusive)
            m->node->writer = true;
        else
            m->node->readers++;
    }
    leave(m);
    return failed;
}

static void free_fs(struct memory_fs *fs)
{
    names_clear(&fs->live);
    names_clear(&fs->durable);
    pthread_mutex_destroy(&fs->lock);
    free(fs);
}

static void memory_close(struct rp_store *store)
{
    struct memory_store *m = (struct memory_store *)store;
    pthread_mutex_lock(&m->fs->lock);
    unlock_node(m);
    node_drop(m->node);
    pthread_mutex_unlock(&m->fs->lock);
    if (m->own_fs)
        free_fs(m->fs);
    free(m);
}

static const struct rp_store_ops store_ops = {
    .pread = memory_pread,
    .pwrite = memory_pwrite,
    .flush = memory_flush,
    .truncate = memory_truncate,
    .size = memory_size,
    .extents = memory_extents,
    .allocate = memory_allocate,
    .punch = memory_punch,
    .clone_range = memory_clone_range,
    .identity = memory_identity,
    .lock = memory_lock,
    .close = memory_close,
};

static struct rp_store *memory_open(struct rp_fs *base, const char *path, unsigned flags, struct rp_error *err)
{
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    struct name *name = names_find(&fs->live, path);
    struct memory_store *m = NULL;
    if (name && flags & RP_OPEN_CREATE) {
        rp_fail(err, RP_ERR_EXISTS, "%s: create: already exists", path);
        goto out;
    }
    if (!name && !(flags & RP_OPEN_CREATE)) {
        rp_fail(err, RP_ERR_NOT_FOUND, "%s: open: no such file", path);
        goto out;
    }
    struct node *node = name ? name->node : rp_xcalloc(1, sizeof *node);
    if (!name) {
        node->number = ++fs->next_inode;
        touch(fs, node);
        names_add(&fs->live, path, node);
    }
    m = rp_xcalloc(1, sizeof *m);
    *m = (struct memory_store){{&store_ops, rp_xstrdup(path)}, fs, node, fs->cuts, false, 0};
    node->references++;
out:
    pthread_mutex_unlock(&fs->lock);
    return m ? &m->store : NULL;
}

static int memory_rename(struct rp_fs *base, const char *from, const char *to, struct rp_error *err)
{
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    int failed = 0;
    struct name *source = names_find(&fs->live, from);
    if (!source) {
        failed = rp_fail(err, RP_ERR_NOT_FOUND, "rename %s: no such file", from);
    } else if (strcmp(from, to)) {
        struct name *target = names_find(&fs->live, to);
        if (target)
            names_remove(&fs->live, target);
        source = names_find(&fs->live, from);
        names_add(&fs->live, to, source->node);
        names_remove(&fs->live, names_find(&fs->live, from));
    }
    pthread_mutex_unlock(&fs->lock);
    return failed;
}

static int memory_unlink(struct rp_fs *base, const char *path, struct rp_error *err)
{
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    struct name *name = names_find(&fs->live, path);
    if (name)
        names_remove(&fs->live, name);
    pthread_mutex_unlock(&fs->lock);
    return name ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "%s: delete: no such file", path);
}

static bool is_in(const char *directory, const char *path)
{
    RP_AUTO_FREE char *parent = rp_path_directory(path);
    return !strcmp(parent, directory);
}

static int memory_sync_directory(struct rp_fs *base, const char *directory, struct rp_error *err)
{
    (void)err;
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    for (size_t i = fs->durable.count; i-- > 0;)
        if (is_in(directory, fs->durable.items[i].path))
            names_remove(&fs->durable, &fs->durable.items[i]);
    for (size_t i = 0; i < fs->live.count; i++)
        if (is_in(directory, fs->live.items[i].path))
            names_add(&fs->durable, fs->live.items[i].path, fs->live.items[i].node);
    fs->syncs++;
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

static int memory_exists(struct rp_fs *base, const char *path, bool *exists, struct rp_error *err)
{
    (void)err;
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    *exists = names_find(&fs->live, path) != NULL;
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

struct rp_fs *rp_fs_memory_new(void)
{
    static const struct rp_fs_ops ops = {
        .open = memory_open,
        .rename = memory_rename,
        .unlink = memory_unlink,
        .sync_directory = memory_sync_directory,
        .exists = memory_exists,
    };
    struct memory_fs *fs = rp_xcalloc(1, sizeof *fs);
    fs->fs.ops = &ops;
    pthread_mutex_init(&fs->lock, NULL);
    return &fs->fs;
}

void rp_fs_memory_cut(struct rp_fs *base)
{
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    fs->cuts++;
    names_clear(&fs->live);
    for (size_t i = 0; i < fs->durable.count; i++) {
        struct node *node = fs->durable.items[i].node;
        names_add(&fs->live, fs->durable.items[i].path, node);
        image_copy(&node->live, &node->durable);
        node->readers = 0;
        node->writer = false;
    }
    pthread_mutex_unlock(&fs->lock);
}

unsigned long rp_fs_memory_syncs(struct rp_fs *base)
{
    struct memory_fs *fs = (struct memory_fs *)base;
    pthread_mutex_lock(&fs->lock);
    unsigned long syncs = fs->syncs;
    pthread_mutex_unlock(&fs->lock);
    return syncs;
}

void rp_fs_memory_free(struct rp_fs *base)
{
    if (base)
        free_fs((struct memory_fs *)base);
}

struct rp_store *rp_store_memory_new(const void *data, size_t size, const char *name)
{
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_store *store = rp_fs_open(fs, name, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    ((struct memory_store *)store)->own_fs = true;
    rp_store_pwrite(store, data, size, 0, NULL);
    return store;
}
