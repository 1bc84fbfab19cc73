#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

#define SAME_EVENT_NS UINT64_C(1000000000)

static atomic_int stopped, interrupts; // signals; those of them that a person sent
static _Atomic uint64_t first_ns;
static _Atomic(const char *) last_words;
static bool terminal;

// In a handler (signal-safety(7)): nobody can do anything about it when it fails.
static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

// One event may send several signals: a line that drops SIGHUP twice, systemd SIGTERM and SIGHUP, timeout(1) SIGTERM to the group as
// well. Whoever means it says so: by Ctrl-C again, or by a SIGTERM that comes later.
static bool is_meant(int number)
{
    if (number == SIGINT)
        return atomic_fetch_add(&interrupts, 1) > 0;
    return number == SIGTERM && rp_clock_monotonic_ns() - atomic_load(&first_ns) > SAME_EVENT_NS;
}

static void on_signal(int number)
{
    int saved = errno;
    const char *text = atomic_load(&last_words);
    bool first = !atomic_fetch_add(&stopped, 1);
    if (first)
        atomic_store(&first_ns, rp_clock_monotonic_ns());
    bool meant = is_meant(number);
    if (first && text && terminal) // it may take a while, and a person would wonder
        say("\nrefpoint: stopping, and removing what was made on the host; Ctrl-C again ends at once\n");
    errno = saved;
    if (first || !meant)
        return;
    if (text)
        say(text);
    signal(number, SIG_DFL);
    raise(number);
}

void rp_cli_signals_last_words(const char *text) { atomic_store(&last_words, text); }

void rp_cli_signals_init(void)
{
    terminal = isatty(STDERR_FILENO);
    struct sigaction action = {.sa_handler = on_signal}; // without SA_RESTART: a prompt must end
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&action.sa_mask, numbers[i]); // one after the other
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        if (!sigaction(numbers[i], NULL, &old) && old.sa_handler == SIG_IGN)
            continue; // nohup, and jobs in the background of a script
        sigaction(numbers[i], &action, NULL);
    }
}

bool rp_cli_stopped(void) { return atomic_load(&stopped) != 0; }

int rp_cli_stop(void *unused)
{
    (void)unused;
    return rp_cli_stopped();
}
