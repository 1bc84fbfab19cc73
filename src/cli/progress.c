// Bytes done, rate, time left.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/cli.h"

#define EVERY_NS 100000000u       // redraws
#define EVERY_JSON_NS 500000000u
#define BAR 24

struct rp_cli_progress {
    const struct rp_cli *cli;
    char *title;
    bool terminal, drawn;
    uint64_t started_ns, shown_ns, shown_done;
    double rate; // bytes per second, smoothed
};

struct rp_cli_progress *rp_cli_progress_new(const struct rp_cli *cli, const char *title)
{
    struct rp_cli_progress *progress = rp_xcalloc(1, sizeof *progress);
    progress->cli = cli;
    progress->title = rp_xstrdup(rp_cli_safe(title));
    const char *term = getenv("TERM");
    progress->terminal = !cli->quiet && !cli->json && isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
    progress->started_ns = rp_clock_monotonic_ns();
    return progress;
}

static void update_rate(struct rp_cli_progress *progress, uint64_t done, uint64_t now)
{
    uint64_t since = progress->shown_ns ? progress->shown_ns : progress->started_ns;
    double seconds = (double)(now - since) / 1e9;
    if (seconds <= 0)
        return;
    double rate = (double)(done - rp_min64(done, progress->shown_done)) / seconds;
    progress->rate = progress->shown_ns ? 0.8 * progress->rate + 0.2 * rate : rate;
}

static unsigned terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 20 ? 80 : size.ws_col;
}

static void draw(struct rp_cli_progress *progress, uint64_t done, uint64_t total)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    double part = total ? (double)done / (double)total : 1;
    part = part > 1 ? 1 : part;
    unsigned filled = (unsigned)(part * BAR * 8);
    for (unsigned i = 0; i < filled / 8; i++)
        rp_buf_printf(&line, "█");
    rp_buf_printf(&line, "%s", eighths[filled % 8]);
    for (unsigned i = (filled + 7) / 8; i < BAR; i++)
        rp_buf_printf(&line, " ");
    char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT], c[RP_SIZE_TEXT];
    RP_CLEANUP(rp_buf_clear) struct rp_buf tail = {0};
    rp_buf_printf(&tail, " %3.0f%% %s of %s, %s/s", part * 100, rp_format_size(done, a), rp_format_size(total, b),
                  rp_format_size((uint64_t)progress->rate, c));
    if (progress->rate >= 1 && done < total) {
        uint64_t left = (uint64_t)((double)(total - done) / progress->rate);
        rp_buf_printf(&tail, ", %llu:%02llu left", (unsigned long long)left / 60, (unsigned long long)left % 60);
    }
    // One line only: a wrapped one could not be drawn over.
    unsigned width = terminal_width(), title = (unsigned)strlen(progress->title) + 2;
    rp_buf_text(&tail);
    bool bar = title + BAR + 2 + tail.size < width;
    int room = (int)width - 1 - (int)title - (bar ? BAR + 2 : 0);
    fprintf(stderr, "\r\033[K%s: %s%s%s%.*s", progress->title, bar ? "▕" : "", bar ? rp_buf_text(&line) : "", bar ? "▏" : "",
            room > 0 ? room : 0, rp_buf_text(&tail));
    fflush(stderr);
    progress->drawn = true;
}

static void json_line(struct rp_cli_progress *progress, uint64_t done, uint64_t total)
{
    json_t *line = json_pack("{s:s, s:o, s:I, s:I, s:f, s:f}", "type", "progress", "task", rp_cli_json_text(progress->title),
                             "bytes_done", (json_int_t)done, "bytes_total", (json_int_t)total, "bytes_per_second",
                             progress->rate, "seconds",
                             (double)(rp_clock_monotonic_ns() - progress->started_ns) / 1e9);
    if (progress->rate >= 1)
        json_object_set_new(line, "seconds_left", json_real((double)(total - rp_min64(done, total)) / progress->rate));
    rp_cli_print_json_line(line);
}

int rp_cli_progress_update(void *context, uint64_t done, uint64_t total)
{
    struct rp_cli_progress *progress = context;
    if (rp_cli_stopped())
        return 1;
    if (!progress->terminal && (progress->cli->quiet || !progress->cli->json))
        return 0;
    uint64_t now = rp_clock_monotonic_ns();
    uint64_t last = progress->shown_ns ? progress->shown_ns : progress->started_ns;
    if (now - last < (progress->terminal ? EVERY_NS : EVERY_JSON_NS))
        return 0;
    update_rate(progress, done, now);
    if (progress->terminal)
        draw(progress, done, total);
    else
        json_line(progress, done, total);
    progress->shown_ns = now;
    progress->shown_done = done;
    return 0;
}

void rp_cli_progress_hide(struct rp_cli_progress *progress)
{
    if (!progress->drawn)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->drawn = false;
}

void rp_cli_progress_end(struct rp_cli_progress *progress)
{
    if (!progress)
        return;
    rp_cli_progress_hide(progress);
    free(progress->title);
    free(progress);
}
