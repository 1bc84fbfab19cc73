// Unix sockets of the VM's folder, and lines over them.
#ifndef RP_DISKSERVICE_SOCKET_H
#define RP_DISKSERVICE_SOCKET_H

#include "base/buf.h"

// A listening socket that only its owner may connect to; replaces what stands at the path.
int rp_socket_listen(const char *path, struct rp_error *err);
// NOT_FOUND: nobody listens there (no socket, or one left over). BUSY: who does has taken nobody for ten seconds. Returns the
// descriptor.
int rp_socket_connect(const char *path, struct rp_error *err);

// The connections of this process that came in through the socket at `path`, whoever in the process accepted them, hear the end of
// what the other side sends, after what it has sent already; what is being answered can still be written.
void rp_socket_hang_up(const char *path);
// They get a send buffer of 2 MiB: an answer of 1 MiB goes out at once, where the default of 208 KiB wakes the other side for each
// part of it.
void rp_socket_widen(const char *path);

int rp_socket_write(int fd, const void *data, size_t size, struct rp_error *err);
// Moves the next line, without its end, from the connection into `line`; `rest` keeps what came behind it. 1 a line, 0 the
// other side has closed, -1 error, RP_ERR_INVALID for a line longer than `limit`.
int rp_socket_read_line(int fd, size_t limit, struct rp_buf *rest, struct rp_buf *line, struct rp_error *err);

#endif
