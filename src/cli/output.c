// Output that hostile names cannot abuse, tables, JSON.
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

// Decodes one UTF-8 character. Returns its length, or 0 when the bytes are not valid UTF-8.
static size_t decode(const unsigned char *p, uint32_t *out)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    uint32_t c = length == 1 ? p[0] : length ? p[0] & (0x7fu >> length) : 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    bool overlong = (length == 3 && c < 0x800) || (length == 4 && (c < 0x10000 || c > 0x10ffff));
    if (overlong || (c >= 0xd800 && c < 0xe000))
        return 0;
    *out = c;
    return length;
}

// Characters that a terminal obeys instead of showing, or that make text look like something else.
static bool is_unsafe(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

static void append_safe(struct rp_buf *out, const char *text, bool keep_lines)
{
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        uint32_t c;
        size_t length = decode(p, &c);
        if (!length) {
            rp_buf_printf(out, "\\x%02x", *p++);
            continue;
        }
        if (!is_unsafe(c) || (keep_lines && c == '\n'))
            rp_buf_append(out, p, length);
        else if (c < 0x100)
            rp_buf_printf(out, "\\x%02x", c);
        else
            rp_buf_printf(out, "\\u{%x}", c);
        p += length;
    }
}

const char *rp_cli_safe(const char *text)
{
    static struct kept { // freed by nobody: a program that prints names and ends
        struct kept *next;
        char text[];
    } *all;
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    append_safe(&buf, text ? text : "", false);
    const char *safe = rp_buf_text(&buf);
    struct kept *kept = rp_xmalloc(sizeof *kept + strlen(safe) + 1);
    strcpy(kept->text, safe);
    kept->next = all;
    all = kept;
    return kept->text;
}

static void print_safe(FILE *file, const char *before, bool keep_lines, const char *after, const char *format, va_list args)
{
    RP_AUTO_FREE char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        text = rp_xstrdup("");
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    rp_buf_printf(&buf, "%s", before);
    append_safe(&buf, text, keep_lines);
    rp_buf_printf(&buf, "%s", after);
    fwrite(buf.data, 1, buf.size, file);
}

void rp_cli_print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_safe(stdout, "", true, "", format, args);
    va_end(args);
}

void rp_cli_say(const struct rp_cli *cli, const char *format, ...)
{
    if (cli->quiet || cli->json)
        return;
    va_list args;
    va_start(args, format);
    print_safe(stdout, "", true, "", format, args);
    va_end(args);
}

void rp_cli_remark(const struct rp_cli *cli, const char *format, ...)
{
    (void)cli;
    va_list args;
    va_start(args, format);
    print_safe(stderr, "refpoint: remark: ", false, "\n", format, args);
    va_end(args);
}

static void print_plain(FILE *file, const char *before, const char *after, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_safe(file, before, false, after, format, args);
    va_end(args);
}

void rp_cli_log(enum rp_log_level level, const char *text)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    print_plain(stderr, "refpoint: ", "\n", "%s: %s", names[level], text);
}

// What a flush could not write is gone, and the next one knows nothing of it but that there was an error.
int rp_cli_flush(void)
{
    static int lost;
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && !lost)
        lost = errno ? errno : EIO;
    return lost;
}

void rp_cli_print_error(const struct rp_cli *cli, const struct rp_error *err)
{
    rp_cli_flush();
    if (!cli->json) {
        print_plain(stderr, "refpoint: ", "\n", "%s", err->text);
        return;
    }
    json_t *line = json_pack("{s:s, s:s, s:o, s:i}", "type", "error", "code", rp_code_name(err->code), "text",
                             rp_cli_json_text(err->text), "exit", rp_code_exit(err->code));
    json_dumpf(line, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(line);
}

void rp_cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    json_decref(value);
}

void rp_cli_print_json_item(json_t *value, bool first)
{
    fputs(first ? "[\n" : ",\n", stdout);
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(value);
}

void rp_cli_print_json_end(bool empty) { fputs(empty ? "[]\n" : "\n]\n", stdout); }

void rp_cli_print_json_line(json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    rp_cli_flush();
    json_decref(value);
}

json_t *rp_cli_json_text(const char *text)
{
    if (!text)
        return json_null();
    json_t *value = json_string(text);
    if (value)
        return value;
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        uint32_t c;
        size_t length = decode(p, &c);
        if (length)
            rp_buf_append(&buf, p, length);
        else
            rp_buf_append(&buf, "\xef\xbf\xbd", 3);
        p += length ? length : 1;
    }
    return json_string(rp_buf_text(&buf));
}

// ---- tables ---------------------------------------------------------------------------------------------------------

#define MAX_COLUMNS 16

struct rp_cli_table {
    size_t columns, cell_count;
    bool right[MAX_COLUMNS];
    char **cells; // the headings first
};

static void add_cell(struct rp_cli_table *table, char *text)
{
    table->cells = rp_xrealloc(table->cells, (table->cell_count + 1) * sizeof *table->cells);
    table->cells[table->cell_count++] = text;
}

struct rp_cli_table *rp_cli_table_new(const char *headings)
{
    struct rp_cli_table *table = rp_xcalloc(1, sizeof *table);
    while (table->columns < MAX_COLUMNS) {
        if (*headings == '>') {
            table->right[table->columns] = true;
            headings++;
        }
        size_t length = strcspn(headings, "|");
        table->columns++;
        add_cell(table, rp_xasprintf("%.*s", (int)length, headings));
        if (!headings[length])
            break;
        headings += length + 1;
    }
    return table;
}

void rp_cli_cell(struct rp_cli_table *table, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    RP_AUTO_FREE char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        text = rp_xstrdup("");
    va_end(args);
    RP_CLEANUP(rp_buf_clear) struct rp_buf buf = {0};
    append_safe(&buf, text, false);
    add_cell(table, rp_xstrdup(rp_buf_text(&buf)));
}

static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += (*text & 0xc0) != 0x80; // characters; the text is valid UTF-8
    return width;
}

void rp_cli_table_print(struct rp_cli_table *table)
{
    size_t width[MAX_COLUMNS] = {0};
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t w = width_of(table->cells[i]);
        if (w > width[i % table->columns])
            width[i % table->columns] = w;
    }
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t column = i % table->columns;
        int pad = (int)(width[column] - width_of(table->cells[i]));
        bool last = column + 1 == table->columns;
        if (table->right[column])
            printf("%*s%s", pad, "", table->cells[i]);
        else
            printf("%s%*s", table->cells[i], last ? 0 : pad, "");
        fputs(last ? "\n" : "  ", stdout);
    }
    rp_cli_table_drop(table);
}

void rp_cli_table_drop(struct rp_cli_table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}
