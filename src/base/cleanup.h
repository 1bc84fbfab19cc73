// Cleanup attributes for locals: `RP_CLEANUP(rp_buf_clear) struct rp_buf b = {0};`
#ifndef RP_BASE_CLEANUP_H
#define RP_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define RP_CLEANUP(function) __attribute__((cleanup(function)))

// For a type whose destructor takes the pointer itself: defines `NAME_p`, usable as RP_CLEANUP(NAME_p).
#define RP_DEFINE_CLEANUP(type, function)                                                                              \
    __attribute__((unused)) static inline void function##_p(type **p)                                                  \
    {                                                                                                                  \
        if (*p)                                                                                                        \
            function(*p);                                                                                              \
    }

static inline void rp_free_p(void *p) { free(*(void **)p); }
static inline void rp_fd_p(int *fd) { if (*fd >= 0) close(*fd); }

#define RP_AUTO_FREE RP_CLEANUP(rp_free_p)
#define RP_AUTO_FD RP_CLEANUP(rp_fd_p)

#endif
