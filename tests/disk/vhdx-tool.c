// The disk code from a shell, for tests: vhdx-tool COMMAND FILE …; several commands on one open file are separated by
// commas. The parents of a differencing disk are opened read-only.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/chain.h"
#include "disk/convert.h"

static struct rp_error err;

static int die(void)
{
    fprintf(stderr, "vhdx-tool: %s (%s)\n", err.text, rp_code_name(err.code));
    exit(1);
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;
    if (!text || rp_parse_size(text, &value, &err)) {
        fprintf(stderr, "vhdx-tool: a size is missing or wrong\n");
        exit(3);
    }
    return value;
}

// Bytes that depend on seed and place, so that a misplaced sector shows.
static void pattern(uint8_t *data, uint64_t size, uint64_t offset, uint64_t seed)
{
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t x = (offset + i) * 0x9E3779B97F4A7C15u ^ seed * 0xD1B54A32D192ED03u;
        x ^= x >> 29;
        memcpy(data + i, &x, 8);
    }
}

static int print_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    static const char *const names[] = {"data", "zero", "unmapped", "parent"};
    (void)context;
    printf("%llu %llu %s\n", (unsigned long long)offset, (unsigned long long)length, names[state]);
    return 0;
}

static void create(char **args)
{
    struct rp_vhdx_create c = {.size = number(args[1])};
    if (args[2])
        c.block_size = (uint32_t)number(args[2]);
    if (args[2] && args[3])
        c.logical_sector = (uint32_t)number(args[3]);
    if (rp_vhdx_create(rp_fs_posix(), args[0], &c, &err))
        die();
}

static void create_child(char **args)
{
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), args[1], RP_VHDX_READ, NULL,
                                                                        &err);
    if (!parent)
        die();
    const struct rp_vhdx_info *p = rp_vhdx_info(parent);
    struct rp_vhdx_create c = {p->size, p->block_size, p->logical_sector, p->physical_sector, p->disk_id, args[1],
                               p->data_write_guid, {{0}}};
    if (args[2])
        c.block_size = (uint32_t)number(args[2]);
    if (rp_vhdx_create(rp_fs_posix(), args[0], &c, &err))
        die();
}

static void read_out(struct rp_vhdx *v, uint64_t offset, uint64_t length)
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(length);
    if (rp_vhdx_read(v, data, (uint32_t)length, offset, &err))
        die();
    fwrite(data, 1, length, stdout);
}

// One command on an open disk; returns how many arguments it took, or -1 for "abandon".
static int step(struct rp_vhdx *v, char **args)
{
    const char *verb = args[0];
    if (!strcmp(verb, "write")) { // OFFSET LENGTH SEED
        uint64_t offset = number(args[1]), length = number(args[2]);
        RP_AUTO_FREE uint8_t *data = rp_xmalloc(length + 8);
        pattern(data, length, offset, number(args[3]));
        if (rp_vhdx_write(v, data, (uint32_t)length, offset, &err))
            die();
        return 4;
    }
    if (!strcmp(verb, "zero") || !strcmp(verb, "trim")) { // OFFSET LENGTH
        if ((*verb == 'z' ? rp_vhdx_zero : rp_vhdx_trim)(v, number(args[1]), number(args[2]), NULL, &err))
            die();
        return 3;
    }
    if (!strcmp(verb, "read")) { // OFFSET LENGTH
        read_out(v, number(args[1]), number(args[2]));
        return 3;
    }
    if (!strcmp(verb, "grow")) { // SIZE
        if (rp_vhdx_grow(v, number(args[1]), &err))
            die();
        return 2;
    }
    if (!strcmp(verb, "flush")) {
        if (rp_vhdx_flush(v, &err))
            die();
        return 1;
    }
    if (!strcmp(verb, "abandon"))
        return -1;
    fprintf(stderr, "vhdx-tool: unknown command %s\n", verb);
    exit(3);
}

// Opens a file for writing, with its parents linked below it.
static struct rp_vhdx *open_leaf(const char *path, struct rp_chain *parents)
{
    struct rp_vhdx *v = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_WRITE, NULL, &err);
    if (!v)
        die();
    const struct rp_vhdx_info *info = rp_vhdx_info(v);
    if (info->has_parent && (rp_chain_open(rp_fs_posix(), info->parent_path, parents, &err) ||
                             rp_vhdx_set_parent(v, parents->layers[0], &err)))
        die();
    return v;
}

// FILE COMMAND … [, COMMAND …]: writes through the leaf.
static void edit(char **args)
{
    struct rp_chain parents = {0};
    struct rp_vhdx *v = open_leaf(args[0], &parents);
    int taken = 0;
    for (char **at = args + 1; *at && taken >= 0; at += taken + (at[taken] && !strcmp(at[taken], ",")))
        if ((taken = step(v, at)) < 0)
            break;
    if (taken < 0)
        rp_vhdx_abandon(v);
    else if (rp_vhdx_close(v, &err))
        die();
    rp_chain_close(&parents);
}

static void with_chain(const char *verb, char **args)
{
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    if (rp_chain_open(rp_fs_posix(), args[0], &chain, &err))
        die();
    struct rp_vhdx *leaf = chain.layers[0];
    const struct rp_vhdx_info *info = rp_vhdx_info(leaf);
    int failed = 0;
    if (!strcmp(verb, "map"))
        failed = rp_vhdx_extents(leaf, 0, info->size, print_extent, NULL, &err);
    else if (!strcmp(verb, "chain-map"))
        failed = rp_vhdx_chain_extents(leaf, 0, info->size, print_extent, NULL, &err);
    else if (!strcmp(verb, "read"))
        read_out(leaf, number(args[1]), number(args[2]));
    else
        printf("size %llu block %u dirty %d depth %zu parent %s\n", (unsigned long long)info->size, info->block_size,
               info->dirty_log, chain.depth, info->parent_path ? info->parent_path : "-");
    if (failed)
        die();
}

static void merge(char **args) // CHILD
{
    struct rp_vhdx *child = rp_vhdx_open(rp_fs_posix(), args[0], RP_VHDX_READ, NULL, &err);
    if (!child)
        die();
    struct rp_chain parents = {0};
    struct rp_vhdx *parent = open_leaf(rp_vhdx_info(child)->parent_path, &parents);
    if (rp_vhdx_merge(child, parent, NULL, NULL, &err) || rp_vhdx_close(parent, &err))
        die();
    rp_chain_close(&parents);
    rp_vhdx_abandon(child);
}

static void compact(char **args) // FILE
{
    uint64_t before = 0, after = 0;
    struct rp_vhdx *v = rp_vhdx_open(rp_fs_posix(), args[0], RP_VHDX_WRITE, NULL, &err);
    if (!v || rp_vhdx_compact(v, true, &before, &after, NULL, NULL, &err) || rp_vhdx_close(v, &err))
        die();
    printf("%llu %llu\n", (unsigned long long)before, (unsigned long long)after);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: vhdx-tool create|child|edit|info|map|chain-map|read|merge|compact|to-raw|from-raw FILE …\n");
        return 3;
    }
    const char *verb = argv[1];
    char **args = argv + 2;
    if (!strcmp(verb, "create"))
        create(args);
    else if (!strcmp(verb, "child"))
        create_child(args);
    else if (!strcmp(verb, "edit"))
        edit(args);
    else if (!strcmp(verb, "merge"))
        merge(args);
    else if (!strcmp(verb, "compact"))
        compact(args);
    else if (!strcmp(verb, "to-raw") && rp_convert_vhdx_to_raw(rp_fs_posix(), args[0], args[1], NULL, NULL, &err))
        die();
    else if (!strcmp(verb, "from-raw") && rp_convert_raw_to_vhdx(rp_fs_posix(), args[0], args[1], NULL, NULL, NULL,
                                                                 &err))
        die();
    else if (strcmp(verb, "to-raw") && strcmp(verb, "from-raw"))
        with_chain(verb, args);
    return 0;
}
