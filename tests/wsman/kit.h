// A server of ours for the tests, with every kind of listener. Instead of the WMI service an echo (echo.c), where
// that is linked. It answers
//     <echo user="…" access="…" address="…" charset="…">the request</echo>
// with status 200, or 500 when the request contains "<fault/>"; "<sleep/>" takes it a second.
#ifndef TEST_WSMAN_KIT_H
#define TEST_WSMAN_KIT_H

#include "kdc.h"
#include "wsman/server.h"

enum { KIT_SEALED, KIT_CLEAR, KIT_TLS, KIT_UNIX, KIT_LISTENERS };

struct kit {
    struct kdc kdc;
    char certificate[96], key[96], other_certificate[96]; // for "localhost" and 127.0.0.1, self-signed; another one
    char socket[96];
    struct rp_wsman_server *server;
    int port[KIT_LISTENERS];
    struct rp_wsman_server_limits limits;
    bool drop_next;                       // drops the next answer
};
extern unsigned kit_sleeping; // how many requests have begun to; atomic
// The service, for tests that have the real one.
extern struct rp_wsman_service *kit_real;
// What answers instead of the echo; NULL: the echo.
extern unsigned (*kit_service)(const char *request, size_t size, struct rp_buf *out);
// With a KDC, or with NTLM only. LAB\admin and alice@REFPOINT.TEST may administer, root and we may by the unix
// socket; "basic" with the password "clear" is a reader. OTHER\bob has no rights.
int kit_start(struct kit *kit, bool with_kdc, struct rp_wsman_server_limits limits);
void kit_stop(struct kit *kit);

#endif
