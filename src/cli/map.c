#include "cli/map.h"

#include <langinfo.h>
#include <string.h>

#include "base/buf.h"
#include "base/num.h"
#include "cli/cli.h"

#define COLUMNS 64
#define ROWS 16
#define LEAST_CELL (64 * RP_KIB)

static const char *const unicode[] = {"·", "░", "▒", "▓", "█"};
static const char *const ascii[] = {".", ":", "+", "%", "#"};

// Which of the five signs: nothing, up to a quarter, up to half, more, all.
static unsigned level(uint64_t filled, uint64_t length)
{
    if (!filled)
        return 0;
    if (filled >= length)
        return 4;
    return filled * 4 <= length ? 1 : filled * 2 <= length ? 2 : 3;
}

// Bytes of [start, end) that are in the ranges; `*i` remembers where to go on.
static uint64_t filled_in(const struct rp_ranges *ranges, size_t *i, uint64_t start, uint64_t end)
{
    uint64_t filled = 0;
    while (*i < ranges->count) {
        uint64_t from = ranges->items[*i].offset, to = from + ranges->items[*i].length;
        if (from >= end)
            break;
        filled += rp_min64(to, end) - rp_max64(from, start);
        if (to > end)
            break;
        ++*i;
    }
    return filled;
}

void rp_map_draw(const struct rp_ranges *ranges, uint64_t size)
{
    const char *const *signs = strcmp(nl_langinfo(CODESET), "UTF-8") ? ascii : unicode;
    bool plain = signs == ascii;
    uint64_t cell = rp_max64(rp_align_up(rp_div_up(size, COLUMNS * ROWS), LEAST_CELL), LEAST_CELL);
    char text[RP_SIZE_TEXT];
    size_t i = 0;
    for (uint64_t line = 0; line < size; line += cell * COLUMNS) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf cells = {0};
        for (unsigned column = 0; column < COLUMNS; column++) {
            uint64_t start = line + column * cell, end = rp_min64(start + cell, size);
            rp_buf_printf(&cells, "%s", start < size ? signs[level(filled_in(ranges, &i, start, end), end - start)] : " ");
        }
        rp_cli_print("  %10s %s%s%s\n", rp_format_size(line, text), plain ? "|" : "▕", rp_buf_text(&cells), plain ? "|" : "▏");
    }
    rp_cli_print("  %10s  each sign is %s: %s unchanged  %s up to 1/4  %s up to 1/2  %s more  %s all of it changed\n", "",
                 rp_format_size(cell, text), signs[0], signs[1], signs[2], signs[3], signs[4]);
}
