// The echo server of kit.h as a program, for tests that are not in C: prints shell assignments, serves until its
// input ends.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "kit.h"

int main(void)
{
    static struct kit kit;
    char byte, ticket[128] = "";
    rp_log_set_level(RP_LOG_INFO);
    if (kit_start(&kit, true, (struct rp_wsman_server_limits){0}) || kdc_ticket(&kit.kdc, "alice", 600, ticket)) {
        kit_stop(&kit);
        return 1;
    }
    printf("sealed=%d clear=%d tls=%d socket=%s ca=%s ticket=%s config=%s realm_folder=%s\n", kit.port[KIT_SEALED],
           kit.port[KIT_CLEAR], kit.port[KIT_TLS], kit.socket, kit.certificate, ticket, getenv("KRB5_CONFIG"), kit.kdc.folder);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        continue;
    kit_stop(&kit);
    return 0;
}
