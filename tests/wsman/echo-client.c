// Our transport as a program: echo-client URL negotiate|kerberos|ntlm USER PASSWORD MESSAGE… prints the answers.
#include <stdio.h>
#include <string.h>

#include "wsman/transport.h"

int main(int argc, char **argv)
{
    if (argc < 5)
        return 3;
    struct rp_wsman_options options = {.url = argv[1], .timeout_ms = 20000};
    options.auth = !strcmp(argv[2], "ntlm")       ? RP_AUTH_NTLM
                   : !strcmp(argv[2], "kerberos") ? RP_AUTH_KERBEROS
                                                  : RP_AUTH_NEGOTIATE;
    options.credentials = (struct rp_login_credentials){argv[3], argv[4], NULL, NULL};
    struct rp_error err = {0};
    RP_CLEANUP(rp_wsman_transport_free_p) struct rp_wsman_transport *transport = rp_wsman_transport_new(&options, &err);
    for (int i = 5; transport && !err.code && i < argc; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
        char charset[32];
        unsigned status;
        if (!rp_wsman_transport_exchange(transport, argv[i], strlen(argv[i]), &answer, charset, &status, &err))
            printf("%u %s\n", status, rp_buf_text(&answer));
    }
    if (err.code)
        fprintf(stderr, "%s\n", err.text);
    return err.code ? 2 : 0;
}
