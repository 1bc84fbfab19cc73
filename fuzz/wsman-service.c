// Hostile clients: messages with lines of "%%" between them, sent one after the other to a service over a small host.
// Whatever comes back is a message that relates to its request, or a fault.
#include <stdlib.h>
#include <string.h>

#include "cim/xml.h"
#include "inventory.h"
#include "wsman/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_one(struct site *site, const char *message, size_t size)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    unsigned status = site_send(site, message, size, &answer);
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(answer.data, answer.size, answer.size, NULL, NULL);
    const xmlNode *body = document ? rp_xml_child(xmlDocGetRootElement(document), RP_NS_SOAP, "Body") : NULL;
    bool fault = rp_xml_child(body, RP_NS_SOAP, "Fault");
    if (!body || fault != (status != 200) || answer.size > 520000)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct site site; // its classes are read once
    const char *p = (const char *)data, *end = p + size;
    if (!site.service)
        site_open(&site, NULL);
    rp_wsman_service_free(site.service);
    site.service = site_service(site.v2, site.cimv2, NULL);
    inventory_reset(site.v2);
    inventory_reset(site.cimv2);
    for (int i = 0; i < 8 && p < end; i++) {
        const char *next = memmem(p, (size_t)(end - p), "%%\n", 3);
        send_one(&site, p, (size_t)((next ? next : end) - p));
        p = next ? next + 3 : end;
    }
    return 0;
}
