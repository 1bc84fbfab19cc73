// Memory for the lowest nodes of a disk that is being written: 8 KiB each, the first ones from the heap, the rest in an
// unlinked file that is mapped, so that a disk of any size is written with bounded anonymous memory. Thread safe.
#ifndef RP_REPO_ID_NODES_H
#define RP_REPO_ID_NODES_H

#include <stdint.h>

#include "base/error.h"

struct rp_id_nodes;
// `folder`: where the file is made when it is needed.
struct rp_id_nodes *rp_id_nodes_new(const char *folder);
void rp_id_nodes_free(struct rp_id_nodes *nodes); // NULL is fine; all memory goes with it
// RP_NODE_BYTES of undefined content; NULL without space, which is RP_ERR_IO: it is not the repository that is full.
uint8_t *rp_id_nodes_take(struct rp_id_nodes *nodes, struct rp_error *err);

#endif
