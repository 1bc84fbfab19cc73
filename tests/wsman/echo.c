// The echo of kit.h, in the place of the service.
#include <string.h>
#include <unistd.h>

#include "kit.h"

unsigned (*kit_service)(const char *request, size_t size, struct rp_buf *out);
unsigned kit_sleeping;

unsigned rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                 const char *charset, const void *request, size_t size, struct rp_buf *out)
{
    (void)service;
    if (kit_service)
        return kit_service(request, size, out);
    if (memmem(request, size, "<sleep/>", 8)) {
        __atomic_fetch_add(&kit_sleeping, 1, __ATOMIC_SEQ_CST);
        usleep(1000000);
    }
    rp_buf_printf(out, "<echo user=\"%s\" access=\"%d\" address=\"%s\" charset=\"%s\">",
                  caller ? caller->user : "nobody", caller ? caller->access : 0, caller ? caller->address : "",
                  charset ? charset : "");
    rp_buf_append(out, request, size);
    rp_buf_append(out, "</echo>", 7);
    return memmem(request, size, "<fault/>", 8) ? 500 : 200;
}
