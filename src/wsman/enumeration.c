#include "wsman/enumeration.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/guid.h"

struct rp_enumeration_holder {
    struct rp_enumeration_holder *next;
    char *user;
    size_t enumerations;
    _Atomic uint64_t held;
};

struct rp_enumerations {
    size_t most, most_of_user;
    uint64_t timeout_ns, most_bytes;
    _Atomic uint64_t held;
    pthread_mutex_t mutex;
    struct rp_enumeration **open;
    size_t count;
    pthread_mutex_t holders_mutex;
    struct rp_enumeration_holder *holders; // who has an enumeration, also one that is not kept yet
};

struct rp_enumerations *rp_enumerations_new(size_t most, size_t most_of_user, uint32_t timeout_ms, uint64_t most_bytes)
{
    struct rp_enumerations *all = rp_xcalloc(1, sizeof *all);
    all->most = most;
    all->most_of_user = most_of_user;
    all->timeout_ns = (uint64_t)timeout_ms * 1000000;
    all->most_bytes = most_bytes;
    all->open = rp_xcalloc(most, sizeof *all->open);
    pthread_mutex_init(&all->mutex, NULL);
    pthread_mutex_init(&all->holders_mutex, NULL);
    return all;
}

void rp_enumerations_free(struct rp_enumerations *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++)
        rp_enumeration_free(all->open[i]);
    free(all->open);
    pthread_mutex_destroy(&all->mutex);
    pthread_mutex_destroy(&all->holders_mutex);
    free(all);
}

size_t rp_enumerations_count(struct rp_enumerations *all)
{
    pthread_mutex_lock(&all->mutex);
    size_t count = all->count;
    pthread_mutex_unlock(&all->mutex);
    return count;
}

static struct rp_enumeration_holder *join(struct rp_enumerations *all, const char *user)
{
    pthread_mutex_lock(&all->holders_mutex);
    struct rp_enumeration_holder *holder = all->holders;
    while (holder && strcasecmp(holder->user, user)) // NTLM's come in any case
        holder = holder->next;
    if (!holder) {
        holder = rp_xcalloc(1, sizeof *holder);
        holder->user = rp_xstrdup(user);
        holder->next = all->holders;
        all->holders = holder;
    }
    holder->enumerations++;
    pthread_mutex_unlock(&all->holders_mutex);
    return holder;
}

static void leave(struct rp_enumerations *all, struct rp_enumeration_holder *holder)
{
    pthread_mutex_lock(&all->holders_mutex);
    struct rp_enumeration_holder **at = &all->holders;
    bool last = !--holder->enumerations;
    while (last && *at != holder)
        at = &(*at)->next;
    if (last)
        *at = holder->next;
    pthread_mutex_unlock(&all->holders_mutex);
    if (last) {
        free(holder->user);
        free(holder);
    }
}

static void hold(struct rp_enumeration *enumeration, uint64_t size)
{
    enumeration->held += size;
    atomic_fetch_add(&enumeration->holder->held, size);
    atomic_fetch_add(&enumeration->owner->held, size);
}

static void let_go(struct rp_enumeration *enumeration, uint64_t size)
{
    enumeration->held -= size;
    atomic_fetch_sub(&enumeration->holder->held, size);
    atomic_fetch_sub(&enumeration->owner->held, size);
}

struct rp_enumeration *rp_enumeration_new(struct rp_enumerations *owner, const char *user)
{
    struct rp_enumeration *enumeration = rp_xcalloc(1, sizeof *enumeration);
    enumeration->owner = owner;
    enumeration->user = rp_xstrdup(user);
    enumeration->holder = join(owner, user);
    return enumeration;
}

void rp_enumeration_free(struct rp_enumeration *enumeration)
{
    if (!enumeration)
        return;
    let_go(enumeration, enumeration->held);
    leave(enumeration->owner, enumeration->holder);
    rp_cim_instances_clear(&enumeration->items);
    for (size_t i = 0; i < enumeration->column_count; i++)
        free(enumeration->columns[i]);
    free(enumeration->columns);
    free(enumeration->user);
    free(enumeration);
}

static uint64_t size_of_text(const char *text)
{
    return text ? strlen(text) + 17 : 0; // and what malloc adds
}

static uint64_t size_of_path(const struct rp_cim_path *path)
{
    if (!path)
        return 0;
    uint64_t size = sizeof *path + size_of_text(path->host) + size_of_text(path->name_space) +
                    size_of_text(path->class_name);
    for (size_t i = 0; i < path->key_count; i++)
        size += sizeof *path->keys + size_of_text(path->keys[i].name) + size_of_text(path->keys[i].value);
    return size;
}

static uint64_t size_of_instance(const struct rp_cim_instance *instance)
{
    uint64_t size = sizeof *instance + size_of_text(instance->class_name) + size_of_text(instance->name_space) +
                    size_of_path(instance->path) + instance->capacity * sizeof *instance->properties;
    for (size_t i = 0; i < instance->count; i++) {
        const struct rp_cim_value *value = &instance->properties[i].value;
        size += size_of_text(instance->properties[i].name) + (value->array ? value->capacity * sizeof *value->many : 0);
        for (size_t j = 0; !rp_cim_value_is_null(value) && j < (value->array ? value->count : 1); j++) {
            struct rp_cim_value scalar = rp_cim_value_at(value, j);
            if (scalar.type == RP_CIM_STRING || scalar.type == RP_CIM_NONE)
                size += size_of_text(scalar.one.text);
            else if (scalar.type == RP_CIM_REFERENCE)
                size += size_of_path(scalar.one.path);
            else if (scalar.type == RP_CIM_OBJECT)
                size += size_of_instance(scalar.one.object);
        }
    }
    return size;
}

static struct rp_cim_instance *path_only(struct rp_cim_instance *whole)
{
    struct rp_cim_instance *instance = rp_cim_instance_new(whole->name_space, whole->class_name);
    instance->path = whole->path;
    whole->path = NULL;
    rp_cim_instance_free(whole);
    return instance;
}

// Most properties of most objects are NULL. Those of a class that is known are written anyway.
static void drop_nulls(struct rp_cim_instance *instance)
{
    size_t kept = 0;
    for (size_t i = 0; i < instance->count; i++) {
        struct rp_cim_property *property = &instance->properties[i];
        if (!rp_cim_value_is_null(&property->value)) {
            instance->properties[kept++] = *property;
            continue;
        }
        free(property->name);
        rp_cim_value_clear(&property->value);
    }
    instance->count = instance->capacity = kept;
    instance->properties = rp_xrealloc(instance->properties, kept * sizeof *instance->properties);
}

// Under the mutex.
static void drop(struct rp_enumerations *all, size_t i)
{
    rp_enumeration_free(all->open[i]);
    all->open[i] = all->open[--all->count];
}

static void drop_forgotten(struct rp_enumerations *all, uint64_t now)
{
    for (size_t i = all->count; i-- > 0;)
        if (!all->open[i]->busy && now - all->open[i]->used_ns > all->timeout_ns)
            drop(all, i);
}

// Whether all of them, or this one's user's, hold too much.
static bool is_overfull(const struct rp_enumeration *enumeration)
{
    const struct rp_enumerations *all = enumeration->owner;
    return atomic_load(&all->held) > all->most_bytes || atomic_load(&enumeration->holder->held) > all->most_bytes / 3;
}

// Room is what those give that nobody pulls any more.
static int make_room(const struct rp_enumeration *enumeration, struct rp_fault *fault)
{
    struct rp_enumerations *all = enumeration->owner;
    if (!is_overfull(enumeration))
        return 0;
    pthread_mutex_lock(&all->mutex);
    drop_forgotten(all, rp_clock_monotonic_ns());
    pthread_mutex_unlock(&all->mutex);
    if (!is_overfull(enumeration))
        return 0;
    return rp_fault_set(fault, RP_FAULT_QUOTA_LIMIT, NULL,
                        "the enumerations under way hold more than %llu bytes, or this user's more than a third of that",
                        (unsigned long long)all->most_bytes);
}

int rp_enumeration_add(struct rp_enumeration *enumeration, struct rp_cim_instance *instance, struct rp_fault *fault)
{
    if (enumeration->mode != RP_ENUMERATE_OBJECTS && !instance->path) {
        rp_fault_set(fault, RP_FAULT_UNSUPPORTED_FEATURE, "EnumerationMode", "instances of %.100s have no path",
                     instance->class_name);
        rp_cim_instance_free(instance);
        return -1;
    }
    if (enumeration->mode == RP_ENUMERATE_EPRS)
        instance = path_only(instance);
    else if (rp_cim_schema_class(enumeration->schema, instance->class_name))
        drop_nulls(instance);
    uint64_t size = size_of_instance(instance) + sizeof instance;
    hold(enumeration, size);
    rp_cim_instances_push(&enumeration->items, instance);
    return make_room(enumeration, fault);
}

void rp_enumeration_advance(struct rp_enumeration *enumeration, size_t count)
{
    uint64_t freed = 0;
    for (size_t i = 0; i < count; i++) {
        struct rp_cim_instance **item = &enumeration->items.items[enumeration->next++];
        freed += size_of_instance(*item) + sizeof *item;
        rp_cim_instance_free(*item);
        *item = NULL;
    }
    let_go(enumeration, freed);
}

int rp_enumerations_keep(struct rp_enumerations *all, struct rp_enumeration *enumeration, struct rp_fault *fault)
{
    struct rp_guid id = rp_guid_new();
    char text[RP_GUID_TEXT];
    snprintf(enumeration->id, sizeof enumeration->id, "uuid:%s", rp_guid_format(&id, text));
    enumeration->used_ns = rp_clock_monotonic_ns();
    pthread_mutex_lock(&all->mutex);
    drop_forgotten(all, enumeration->used_ns);
    size_t own = 0;
    for (size_t i = 0; i < all->count; i++)
        own += all->open[i]->holder == enumeration->holder;
    bool full = all->count >= all->most || own >= all->most_of_user;
    if (!full)
        all->open[all->count++] = enumeration;
    pthread_mutex_unlock(&all->mutex);
    return full ? rp_fault_set(fault, RP_FAULT_QUOTA_LIMIT, NULL, "too many enumerations are under way") : 0;
}

// Under the mutex. The number of open ones when there is none.
static size_t find(struct rp_enumerations *all, const char *id, const char *user, struct rp_fault *fault)
{
    drop_forgotten(all, rp_clock_monotonic_ns());
    size_t i = 0;
    while (i < all->count && (strcmp(all->open[i]->id, id) || strcmp(all->open[i]->user, user) ||
                              all->open[i]->released))
        i++;
    if (i == all->count)
        rp_fault_set(fault, RP_FAULT_INVALID_ENUMERATION_CONTEXT, NULL,
                     "there is no such enumeration: it has ended, or has not been used for too long");
    return i;
}

struct rp_enumeration *rp_enumerations_take(struct rp_enumerations *all, const char *id, const char *user,
                                            struct rp_fault *fault)
{
    struct rp_enumeration *enumeration = NULL;
    pthread_mutex_lock(&all->mutex);
    size_t i = find(all, id, user, fault);
    if (i < all->count && all->open[i]->busy)
        rp_fault_set(fault, RP_FAULT_CONCURRENCY, NULL, "this enumeration is being pulled already");
    else if (i < all->count)
        enumeration = all->open[i];
    if (enumeration)
        enumeration->busy = true;
    pthread_mutex_unlock(&all->mutex);
    return enumeration;
}

void rp_enumerations_give_back(struct rp_enumerations *all, struct rp_enumeration *enumeration, bool done)
{
    pthread_mutex_lock(&all->mutex);
    enumeration->busy = false;
    enumeration->used_ns = rp_clock_monotonic_ns();
    size_t i = 0;
    while (all->open[i] != enumeration)
        i++;
    if (done || enumeration->released)
        drop(all, i);
    pthread_mutex_unlock(&all->mutex);
}

int rp_enumerations_release(struct rp_enumerations *all, const char *id, const char *user, struct rp_fault *fault)
{
    pthread_mutex_lock(&all->mutex);
    size_t i = find(all, id, user, fault);
    bool found = i < all->count;
    if (found && all->open[i]->busy)
        all->open[i]->released = true; // whoever pulls ends it
    else if (found)
        drop(all, i);
    pthread_mutex_unlock(&all->mutex);
    return found ? 0 : -1;
}
