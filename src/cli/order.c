#include "cli/order.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    const struct rp_inventory_vm *x = a, *y = b;
    int order = strverscmp(x->vm.name ? x->vm.name : "", y->vm.name ? y->vm.name : "");
    return order ? order : strcmp(x->vm.id, y->vm.id);
}

static int by_time(int64_t x, int64_t y, const char *x_id, const char *y_id)
{
    return x != y ? (x > y) - (x < y) : strcmp(x_id, y_id);
}

static int snapshots_by_time(const void *a, const void *b)
{
    const struct rp_snapshot *x = a, *y = b;
    return by_time(x->time_ns, y->time_ns, x->id, y->id);
}

static int points_by_time(const void *a, const void *b)
{
    const struct rp_reference_point *x = a, *y = b;
    return by_time(x->time_ns, y->time_ns, x->id, y->id);
}

static void order(void *items, size_t count, size_t size, int (*compare)(const void *a, const void *b))
{
    if (count)
        qsort(items, count, size, compare);
}

void rp_cli_order_vms(struct rp_inventory *inventory)
{
    order(inventory->items, inventory->count, sizeof *inventory->items, by_name);
}

void rp_cli_order_snapshots(struct rp_snapshots *snapshots)
{
    order(snapshots->items, snapshots->count, sizeof *snapshots->items, snapshots_by_time);
}

void rp_cli_order_points(struct rp_reference_points *points)
{
    order(points->items, points->count, sizeof *points->items, points_by_time);
}
