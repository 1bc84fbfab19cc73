// The announcement of a switch to new leaves, in shared memory. Inside the engine.
//
// From the pause on the guest writes to leaves that the chain record does not name yet. When the engine is killed then, the next
// one finds here what the record was about to say: that is prepared before the pause and announced, inside it, by one store.
#ifndef RP_DISKSERVICE_SWITCH_H
#define RP_DISKSERVICE_SWITCH_H

#include "diskservice/chains.h"

// Makes the file, over that of a dead engine: when nothing in it is needed any more.
void rp_switch_open(struct rp_engine *engine);
// Closes it; removed when nothing can be announced in it.
void rp_switch_close(struct rp_engine *engine, bool clean);
// `note` makes of the record as it is the one that will be. Without shared memory, a kill counts like a power cut then.
int rp_switch_prepare(struct rp_engine *engine, int (*note)(const void *context, struct rp_record *next, struct rp_error *err),
                      const void *context, struct rp_error *err);
void rp_switch_announce(struct rp_engine *engine); // atomic: what was prepared has happened
void rp_switch_withdraw(struct rp_engine *engine); // the record says so itself now, or it did not happen
// What a dead engine announced and did not finish: 1, `next` holds it; 0 nothing; -1 its owner lives.
int rp_switch_left(struct rp_engine *engine, struct rp_record *next, struct rp_error *err);

#endif
