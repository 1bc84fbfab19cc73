#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cli/cli.h"

static atomic_int stopped;

static void on_signal(int number)
{
    if (atomic_fetch_add(&stopped, 1)) { // asked twice: the next run cleans up what this one leaves
        signal(number, SIG_DFL);
        raise(number);
    }
}

void rp_cli_signals_init(void)
{
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
