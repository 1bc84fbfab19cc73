// The guest: threads that write, zero, trim, flush and read the disks over NBD and note in the log what they sent and what was
// acknowledged. No two requests that are under way at the same time touch the same sector, so that for each sector there is
// one order.
#ifndef RP_TESTS_SOAK_CLIENTS_H
#define RP_TESTS_SOAK_CLIENTS_H

#include "content.h"
#include "notes.h"

#define MAX_CLIENTS 8
#define ANY_VALUE (UINT32_MAX - 1) // nobody can say

struct client_disk {
    uint64_t size;
    uint32_t next;      // number of the next request
    uint32_t *now;      // per sector: what it holds if everything acknowledged is there, or ANY_VALUE
    uint8_t *busy;      // per sector
    uint8_t *used;      // per MiB: something was sent there, ever
};
struct clients;
struct clients_counts {
    uint64_t requests, bytes, flushes, reads;
};

// `socket`: nbd.sock of the VM. `pace`: microseconds between two requests of a client, on average.
struct clients *clients_start(struct log *log, struct client_disk *disks, size_t disk_count, const char *socket, unsigned per_disk,
                              unsigned pace, uint64_t seed);
// Ends them after their requests under way; at once when the service is gone. NULL, or what was wrong with the answers (static).
const char *clients_stop(struct clients *clients, struct clients_counts *counts);

// Grows or makes the arrays of a disk.
void client_disk_resize(struct client_disk *disk, uint64_t size);
// Reads a disk over NBD; unless `whole`, only where something was ever sent. 0, or -1.
int clients_read_disk(const char *socket, uint32_t number, const struct client_disk *disk, bool whole, uint32_t *values);
// Flushes a disk. 0, or -1.
int clients_flush(const char *socket, uint32_t number);
// Whether the service answers. 0, or -1.
int clients_peek(const char *socket);

#endif
