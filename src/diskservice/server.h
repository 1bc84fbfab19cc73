// The control socket of a running disk service: listens in the VM's folder, answers the requests of control.h.
#ifndef RP_DISKSERVICE_SERVER_H
#define RP_DISKSERVICE_SERVER_H

#include <pthread.h>

#include "diskservice/engine.h"

// How many NBD clients are connected. A disk can only grow while there is none, and none may come meanwhile: NBD tells
// the size at connection and never again.
struct rp_server_clients {
    pthread_mutex_t lock;
    unsigned count;
};

struct rp_server;

// Creates DIR/control.sock (mode 0600; one that a crash left is replaced: who has the engine has the folder) and answers
// from threads of its own. Engine and clients are borrowed.
struct rp_server *rp_server_start(struct rp_engine *engine, const char *vm_directory, struct rp_server_clients *clients,
                                  struct rp_error *err);
// Removes the socket, ends the connections and waits for requests being answered.
void rp_server_stop(struct rp_server *server); // NULL is fine

#endif
