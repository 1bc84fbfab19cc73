// Hostile embedded instances. What is understood is written in a form that is understood again, and then written alike.
#include <stdlib.h>
#include <string.h>

#include "cim/cimxml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance =
        rp_cimxml_parse((const char *)data, size, NULL);
    if (!instance)
        return 0;
    RP_CLEANUP(rp_buf_clear) struct rp_buf first = {0}, second = {0};
    rp_cimxml_write(instance, &first);
    if (first.size > 1 << 20) // escaping has made it longer than what is read
        return 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *again =
        rp_cimxml_parse((const char *)first.data, first.size, NULL);
    if (!again)
        abort();
    rp_cimxml_write(again, &second);
    if (first.size != second.size || memcmp(first.data, second.data, first.size))
        abort();
    return 0;
}
