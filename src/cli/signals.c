#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static atomic_int stopped;
static _Atomic(const char *) last_words;
static bool terminal;

// In a handler (signal-safety(7)): nobody can do anything about it when it fails.
static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void on_signal(int number)
{
    const char *text = atomic_load(&last_words);
    if (!atomic_fetch_add(&stopped, 1)) {
        int saved = errno;
        if (text && terminal) // it may take a while, and a person would wonder
            say("\nrefpoint: stopping, and removing what was made on the host; Ctrl-C again ends at once\n");
        errno = saved;
        return;
    }
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
    sigemptyset(&action.sa_mask);
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
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
