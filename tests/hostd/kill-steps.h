// Kills at a chosen step (kill-steps.c): a sync, a write at an offset, a truncation, a name that is made, changed or
// removed, by whatever thread.
#ifndef RP_TESTS_KILL_STEPS_H
#define RP_TESTS_KILL_STEPS_H

void kill_at_step(long step); // from now on the first step is number 1; the process is dead before that one is done
long kill_never(void);        // so many steps have been taken since

#endif
