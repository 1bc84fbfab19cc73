#include "repo/pack_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

// Pack ids are random: their first bytes are a good hash.
static uint32_t *bucket_of(const struct rp_pack_table *table, const uint8_t *id)
{
    uint32_t mask = table->bucket_count - 1, i = rp_get_le32(id) & mask;
    while (table->buckets[i] && memcmp(table->items[table->buckets[i] - 1].id, id, RP_PACK_ID))
        i = (i + 1) & mask;
    return &table->buckets[i];
}

uint32_t rp_pack_table_number(struct rp_pack_table *table, const uint8_t id[RP_PACK_ID])
{
    if (2 * (table->count + 1) > table->bucket_count) {
        table->bucket_count = table->bucket_count ? 2 * table->bucket_count : 256;
        free(table->buckets);
        table->buckets = rp_xcalloc(table->bucket_count, sizeof *table->buckets);
        for (uint32_t i = 0; i < table->count; i++)
            *bucket_of(table, table->items[i].id) = i + 1;
    }
    uint32_t *bucket = bucket_of(table, id);
    if (!*bucket) {
        if (table->count == table->capacity) {
            table->capacity = table->capacity ? 2 * table->capacity : 128;
            table->items = rp_xrealloc(table->items, table->capacity * sizeof *table->items);
        }
        table->items[table->count] = (struct rp_pack_state){0};
        memcpy(table->items[table->count].id, id, RP_PACK_ID);
        *bucket = ++table->count;
    }
    return *bucket - 1;
}

struct rp_pack_state *rp_pack_table_get(struct rp_pack_table *table, const uint8_t id[RP_PACK_ID])
{
    uint32_t number = rp_pack_table_number(table, id); // may move the items
    return &table->items[number];
}

void rp_pack_table_clear(struct rp_pack_table *table)
{
    free(table->items);
    free(table->buckets);
    *table = (struct rp_pack_table){0};
}
