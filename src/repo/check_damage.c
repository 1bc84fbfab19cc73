#include "repo/check_damage.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"

#define MAX_BLOCKS (1u << 20) // 48 MiB; beyond that, whole packs count as lost

struct damage {
    char *object, *text;
};
struct lost {
    uint8_t prefix[RP_PREFIX_BYTES];
    uint32_t pack, number; // number of the damage + 1; 0: empty
};

struct rp_damages {
    pthread_mutex_t lock;
    struct damage *items;
    uint32_t count, capacity;
    struct lost *blocks; // open addressing
    size_t block_capacity, block_count;
    uint32_t *packs; // number of the damage + 1
    size_t pack_count;
};

struct rp_damages *rp_damages_new(void)
{
    struct rp_damages *damages = rp_xcalloc(1, sizeof *damages);
    pthread_mutex_init(&damages->lock, NULL);
    return damages;
}

void rp_damages_free(struct rp_damages *damages)
{
    if (!damages)
        return;
    for (uint32_t i = 0; i < damages->count; i++) {
        free(damages->items[i].object);
        free(damages->items[i].text);
    }
    free(damages->items);
    free(damages->blocks);
    free(damages->packs);
    pthread_mutex_destroy(&damages->lock);
    free(damages);
}

uint32_t rp_damages_add(struct rp_damages *damages, const char *object, const char *text)
{
    pthread_mutex_lock(&damages->lock);
    if (damages->count == damages->capacity) {
        damages->capacity = damages->capacity ? 2 * damages->capacity : 16;
        damages->items = rp_xrealloc(damages->items, damages->capacity * sizeof *damages->items);
    }
    uint32_t number = damages->count++;
    damages->items[number] = (struct damage){object ? rp_xstrdup(object) : NULL, rp_xstrdup(text)};
    pthread_mutex_unlock(&damages->lock);
    return number;
}

uint32_t rp_damages_count(struct rp_damages *damages)
{
    pthread_mutex_lock(&damages->lock);
    uint32_t count = damages->count;
    pthread_mutex_unlock(&damages->lock);
    return count;
}

const char *rp_damages_object(struct rp_damages *damages, uint32_t number)
{
    pthread_mutex_lock(&damages->lock);
    const char *object = damages->items[number].object;
    pthread_mutex_unlock(&damages->lock);
    return object;
}

const char *rp_damages_text(struct rp_damages *damages, uint32_t number)
{
    pthread_mutex_lock(&damages->lock);
    const char *text = damages->items[number].text;
    pthread_mutex_unlock(&damages->lock);
    return text;
}

uint32_t rp_damages_of_object(struct rp_damages *damages, const char *object)
{
    uint32_t number = RP_NO_DAMAGE;
    pthread_mutex_lock(&damages->lock);
    for (uint32_t i = 0; i < damages->count && number == RP_NO_DAMAGE; i++)
        if (damages->items[i].object && !strcmp(damages->items[i].object, object))
            number = i;
    pthread_mutex_unlock(&damages->lock);
    return number;
}

static struct lost *find(const struct rp_damages *damages, const uint8_t *id, uint32_t pack)
{
    size_t mask = damages->block_capacity - 1, i = ((size_t)rp_get_le64(id) ^ pack) & mask;
    while (damages->blocks[i].number &&
           (damages->blocks[i].pack != pack || memcmp(damages->blocks[i].prefix, id, RP_PREFIX_BYTES)))
        i = (i + 1) & mask;
    return &damages->blocks[i];
}

static void set_pack(struct rp_damages *damages, uint32_t pack, uint32_t number)
{
    if (pack >= damages->pack_count) {
        size_t count = (size_t)pack + 256;
        damages->packs = rp_xrealloc(damages->packs, count * sizeof *damages->packs);
        memset(damages->packs + damages->pack_count, 0, (count - damages->pack_count) * sizeof *damages->packs);
        damages->pack_count = count;
    }
    if (!damages->packs[pack])
        damages->packs[pack] = number + 1;
}

void rp_damages_pack(struct rp_damages *damages, uint32_t pack, uint32_t number)
{
    pthread_mutex_lock(&damages->lock);
    set_pack(damages, pack, number);
    pthread_mutex_unlock(&damages->lock);
}

void rp_damages_block(struct rp_damages *damages, const uint8_t id[RP_ID_BYTES], uint32_t pack, uint32_t number)
{
    pthread_mutex_lock(&damages->lock);
    if (damages->block_count == MAX_BLOCKS) {
        set_pack(damages, pack, number);
        pthread_mutex_unlock(&damages->lock);
        return;
    }
    if (2 * (damages->block_count + 1) > damages->block_capacity) {
        struct lost *old = damages->blocks;
        size_t old_capacity = damages->block_capacity;
        damages->block_capacity = old_capacity ? 2 * old_capacity : 1024;
        damages->blocks = rp_xcalloc(damages->block_capacity, sizeof *damages->blocks);
        for (size_t i = 0; i < old_capacity; i++)
            if (old[i].number)
                *find(damages, old[i].prefix, old[i].pack) = old[i];
        free(old);
    }
    struct lost *slot = find(damages, id, pack);
    if (!slot->number) {
        memcpy(slot->prefix, id, RP_PREFIX_BYTES);
        slot->pack = pack;
        slot->number = number + 1;
        damages->block_count++;
    }
    pthread_mutex_unlock(&damages->lock);
}

uint32_t rp_damages_of(struct rp_damages *damages, const uint8_t id[RP_ID_BYTES], uint32_t pack)
{
    pthread_mutex_lock(&damages->lock);
    uint32_t number = pack < damages->pack_count ? damages->packs[pack] : 0;
    if (!number && damages->block_capacity)
        number = find(damages, id, pack)->number;
    pthread_mutex_unlock(&damages->lock);
    return number - 1; // 0 becomes RP_NO_DAMAGE
}
