#include "faulty.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static struct faulty *of(struct rp_backend *backend) { return (struct faulty *)backend; }

static int put(struct rp_backend *backend, const char *name, const void *data, size_t size, struct rp_error *err)
{
    struct faulty *faulty = of(backend);
    if (faulty->before_put)
        faulty->before_put(faulty->context, name);
    __atomic_add_fetch(&faulty->puts, 1, __ATOMIC_RELAXED);
    bool ours = !faulty->prefix || !strncmp(name, faulty->prefix, strlen(faulty->prefix));
    if (ours && faulty->fault != FAULT_NONE && __atomic_sub_fetch(&faulty->puts_left, 1, __ATOMIC_RELAXED) < 0) {
        if (faulty->fault == FAULT_NO_SPACE)
            return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space left (on purpose)", name);
        if (faulty->fault == FAULT_AFTER || faulty->fault == FAULT_EXISTS)
            faulty->inner->ops->put(faulty->inner, name, data, size, NULL);
        if (faulty->fault == FAULT_EXISTS)
            return rp_fail(err, RP_ERR_EXISTS, "%s: exists (on purpose)", name);
        return rp_fail(err, RP_ERR_IO, "%s: failed (on purpose)", name);
    }
    return faulty->inner->ops->put(faulty->inner, name, data, size, err);
}

static int get(struct rp_backend *backend, const char *name, uint64_t offset, void *data, size_t size, struct rp_error *err)
{
    struct faulty *faulty = of(backend);
    __atomic_add_fetch(&faulty->gets, 1, __ATOMIC_RELAXED);
    int sys = faulty->get_fails ? faulty->get_fails(faulty->context, name, offset) : 0;
    if (sys)
        return rp_fail_sys(err, sys, "%s: read (on purpose)", name);
    return faulty->inner->ops->get(faulty->inner, name, offset, data, size, err);
}

static int size_of(struct rp_backend *backend, const char *name, uint64_t *size, struct rp_error *err)
{
    struct faulty *faulty = of(backend);
    int sys = faulty->size_fails ? faulty->size_fails(faulty->context, name) : 0;
    if (sys)
        return rp_fail_sys(err, sys, "%s: look up (on purpose)", name);
    return faulty->inner->ops->size(faulty->inner, name, size, err);
}

struct each {
    struct faulty *faulty;
    rp_backend_list_fn *each;
    void *context;
};

static int show(void *context, const char *name, uint64_t size)
{
    struct each *each = context;
    char folder[256];
    enum seen seen = each->faulty->seen ? each->faulty->seen(each->faulty->context, name) : SEEN_WHOLE;
    snprintf(folder, sizeof folder, "%s", name);
    if (seen == SEEN_BY_FOLDER)
        *strrchr(folder, '/') = 0;
    return each->each(each->context, folder, seen == SEEN_WHOLE ? size : 0);
}

static int list(struct rp_backend *backend, const char *prefix, rp_backend_list_fn *each, void *context, struct rp_error *err)
{
    struct faulty *faulty = of(backend);
    __atomic_add_fetch(&faulty->lists, 1, __ATOMIC_RELAXED);
    int sys = faulty->list_fails ? faulty->list_fails(faulty->context, prefix) : 0;
    if (sys)
        return rp_fail_sys(err, sys, "%s: list (on purpose)", prefix);
    struct each of_them = {faulty, each, context};
    return faulty->inner->ops->list(faulty->inner, prefix, show, &of_them, err);
}

static int remove_object(struct rp_backend *backend, const char *name, struct rp_error *err)
{
    return of(backend)->inner->ops->remove(of(backend)->inner, name, err);
}

static int room(struct rp_backend *backend, uint64_t *bytes, struct rp_error *err)
{
    return of(backend)->inner->ops->room(of(backend)->inner, bytes, err);
}

static void close_both(struct rp_backend *backend)
{
    rp_backend_close(of(backend)->inner);
    free(backend->location);
    free(backend);
}

static const struct rp_backend_ops ops = {put, get, size_of, list, remove_object, room, close_both};

struct faulty *faulty_new(struct rp_backend *inner)
{
    struct faulty *faulty = rp_xcalloc(1, sizeof *faulty);
    faulty->backend = (struct rp_backend){&ops, rp_xstrdup(inner->location)};
    faulty->inner = inner;
    return faulty;
}
