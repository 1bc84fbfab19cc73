#include "cli/text_diff.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum { AROUND = 3, MOST = 2000 }; // lines; beyond, their product would be too much memory

struct lines {
    const char **start;
    size_t *length;
    size_t count;
};

static struct lines split(const char *text)
{
    struct lines lines = {0};
    while (*text) {
        size_t length = strcspn(text, "\n");
        if (lines.count % 256 == 0) {
            lines.start = rp_xrealloc(lines.start, (lines.count + 256) * sizeof *lines.start);
            lines.length = rp_xrealloc(lines.length, (lines.count + 256) * sizeof *lines.length);
        }
        lines.start[lines.count] = text;
        lines.length[lines.count++] = length;
        text += length + (text[length] == '\n');
    }
    return lines;
}

static void clear(struct lines *lines)
{
    free(lines->start);
    free(lines->length);
}

static bool same(const struct lines *a, size_t i, const struct lines *b, size_t j)
{
    return a->length[i] == b->length[j] && !memcmp(a->start[i], b->start[j], a->length[i]);
}

// kept[i]: the line of `b` that line i of `a` is, plus 1; 0: it goes.
static void match(const struct lines *a, const struct lines *b, size_t *kept)
{
    size_t first = 0, last = 0;
    while (first < a->count && first < b->count && same(a, first, b, first)) {
        kept[first] = first + 1;
        first++;
    }
    while (last < a->count - first && last < b->count - first && same(a, a->count - 1 - last, b, b->count - 1 - last)) {
        kept[a->count - 1 - last] = b->count - last;
        last++;
    }
    size_t n = a->count - first - last, m = b->count - first - last;
    if (!n || !m || n > MOST || m > MOST)
        return;
    // The longest common subsequence of what is between.
    RP_AUTO_FREE unsigned short *best = rp_xcalloc((n + 1) * (m + 1), sizeof *best);
    for (size_t i = n; i-- > 0;)
        for (size_t j = m; j-- > 0;) {
            unsigned short skip_a = best[(i + 1) * (m + 1) + j], skip_b = best[i * (m + 1) + j + 1];
            unsigned short longest = skip_a > skip_b ? skip_a : skip_b;
            best[i * (m + 1) + j] =
                same(a, first + i, b, first + j) ? (unsigned short)(best[(i + 1) * (m + 1) + j + 1] + 1) : longest;
        }
    for (size_t i = 0, j = 0; i < n && j < m;) {
        if (same(a, first + i, b, first + j))
            kept[first + i++] = first + j++ + 1;
        else if (best[(i + 1) * (m + 1) + j] >= best[i * (m + 1) + j + 1])
            i++;
        else
            j++;
    }
}

static void put(struct rp_buf *out, char mark, const struct lines *lines, size_t i)
{
    rp_buf_printf(out, "%c%.*s\n", mark, (int)lines->length[i], lines->start[i]);
}

// The lines i.. of `a` and j.. of `b` as one hunk, up to where nothing changes for a while.
static void hunk(const struct lines *a, const struct lines *b, const size_t *kept, size_t *i, size_t *j, struct rp_buf *out)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    size_t back = *i < AROUND ? *i : AROUND, start_a = *i - back, start_b = *j - back, quiet = 0;
    for (size_t k = start_a; k < *i; k++)
        put(&body, ' ', a, k);
    while ((*i < a->count || *j < b->count) && quiet < 2 * AROUND) {
        if (*i < a->count && kept[*i] == *j + 1) {
            put(&body, ' ', a, (*i)++);
            (*j)++;
            quiet++;
        } else if (*i < a->count && !kept[*i]) {
            put(&body, '-', a, (*i)++);
            quiet = 0;
        } else {
            put(&body, '+', b, (*j)++);
            quiet = 0;
        }
    }
    // Of the quiet lines at the end only some.
    for (size_t drop = quiet > AROUND ? quiet - AROUND : 0; drop; drop--) {
        (*i)--;
        (*j)--;
        body.size--;
        while (body.size && body.data[body.size - 1] != '\n')
            body.size--;
    }
    rp_buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", start_a + 1, *i - start_a, start_b + 1, *j - start_b);
    rp_buf_append(out, body.data, body.size);
}

void rp_cli_text_diff(const char *before, const char *after, struct rp_buf *out)
{
    RP_CLEANUP(clear) struct lines a = split(before), b = split(after);
    RP_AUTO_FREE size_t *kept = rp_xcalloc(a.count + 1, sizeof *kept);
    match(&a, &b, kept);
    for (size_t i = 0, j = 0; i < a.count || j < b.count;) {
        if (i < a.count && kept[i] == j + 1) {
            i++;
            j++;
        } else {
            hunk(&a, &b, kept, &i, &j, out);
        }
    }
}
