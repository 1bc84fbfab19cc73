// Runs a program under the recorder, with a deadline.
#ifndef RP_TESTS_SOAK_COMMAND_H
#define RP_TESTS_SOAK_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "../record/log.h"

struct command {
    char **environment; // NULL: ours
    int deadline_s;
    int kill_after_us;  // SIGKILL then; 0: never
    struct log *log;    // with it: where that is recorded
    // results
    int status;         // exit status; 128 + signal; -1: it could not be started, -2: it did not end
    pid_t pid;
    char output[65536]; // of both streams, cut short
};

// SIGKILL, between two changes of names; waits for the end. False: it did not come.
bool command_kill(struct log *log, int pidfd);
void command_run(struct command *command, char *const argv[]);

#endif
