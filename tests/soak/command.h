// Runs a program under the recorder, with a deadline.
#ifndef RP_TESTS_SOAK_COMMAND_H
#define RP_TESTS_SOAK_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct command {
    char **environment; // NULL: ours
    int deadline_s;
    int kill_after_us;  // SIGKILL then; 0: never
    // results
    int status;         // exit status; 128 + signal; -1: it could not be started, -2: it did not end
    pid_t pid;
    char output[65536]; // of both streams, cut short
};

void command_run(struct command *command, char *const argv[]);

#endif
