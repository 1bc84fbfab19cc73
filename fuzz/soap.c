// Hostile messages, read as requests, as answers, and as the objects, references and faults in them. What was
// understood is written in a form that is understood again, and then written alike.
#include <stdlib.h>
#include <string.h>

#include "wsman/message.h"
#include "wsman/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

static void try_instance(const xmlNode *element)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_wsman_read_instance(element, NULL);
    if (!instance)
        return;
    RP_CLEANUP(rp_buf_clear) struct rp_buf first = {0};
    rp_buf_printf(&first, "<a xmlns:a=\"" RP_NS_ADDRESSING "\" xmlns:cim=\"" RP_NS_CIM "\" xmlns:w=\"" RP_NS_WSMAN
                  "\" xmlns:xsi=\"" RP_NS_XSI "\">");
    rp_wsman_write_instance(&first, RP_URI_STYLE_WMI, NULL, instance, NULL, 0);
    rp_buf_printf(&first, "</a>");
    // reading has bounds that writing has not: an array may become elements beyond them
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *again = rp_xml_parse(first.data, first.size, first.size, NULL, NULL);
    check(again);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *copy =
        rp_wsman_read_instance(rp_xml_first(xmlDocGetRootElement(again)), NULL);
    check(copy && !strcmp(copy->class_name, instance->class_name) && copy->count <= instance->count);
}

static void try_element(const xmlNode *element)
{
    struct rp_fault fault;
    struct rp_error err = {0};
    if (!element)
        return;
    try_instance(element);
    rp_fault_read(element, &fault);
    check(strlen(fault.message) < sizeof fault.message && fault.code < RP_FAULT_COUNT);
    check(rp_fault_to_error(&fault, "test", &err) == -1 && err.code);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wsman_read_epr(element, NULL);
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    if (path)
        rp_wsman_write_epr(&out, RP_URI_STYLE_DMTF, path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RP_CLEANUP(rp_message_clear) struct rp_message request = {0}, answer = {0};
    struct rp_fault fault = {0};
    if (rp_message_read_request(data, size, 1 << 20, NULL, &request, &fault))
        check(fault.code && *fault.message);
    else
        check(request.identify || (request.action && request.message_id));
    if (request.body)
        try_element(rp_xml_first(request.body));
    if (!rp_message_read_response(data, size, 1 << 20, NULL, &answer, NULL))
        check(answer.body);
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(data, size, 1 << 20, NULL, NULL);
    if (document)
        try_element(xmlDocGetRootElement(document));
    return 0;
}
