// A gate that I/O passes and that a checkpoint closes: enter → mark → I/O → leave is one critical section against it.
#ifndef RP_BASE_GATE_H
#define RP_BASE_GATE_H

struct rp_gate;

struct rp_gate *rp_gate_new(void);
// Waits while the gate is closed. Cheap and scalable when it is open. Returns a token for rp_gate_leave.
unsigned rp_gate_enter(struct rp_gate *gate);
void rp_gate_leave(struct rp_gate *gate, unsigned token);
// Closes the gate and waits until everybody inside has left. Closers are served one at a time.
void rp_gate_close(struct rp_gate *gate);
void rp_gate_open(struct rp_gate *gate);
// Waits until everybody who is inside now has left, and lets others pass meanwhile: whoever is inside afterwards
// entered after this call began, and sees everything that the caller stored before it. Not from inside the gate.
void rp_gate_wait(struct rp_gate *gate);
void rp_gate_free(struct rp_gate *gate);

#endif
