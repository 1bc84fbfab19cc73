#include "host/cim_text.h"

#include <string.h>

#define MAX_TEXT ((size_t)1 << 20)
#define MAX_INSTANCES 256
#define END "</INSTANCE>"

// Embedded instances stand escaped in their values, so the end of an instance is the end of one at the top.
int rp_cim_text_parse(const char *text, struct rp_cim_instances *instances, struct rp_error *err)
{
    if (strlen(text) > MAX_TEXT)
        return rp_fail(err, RP_ERR_CORRUPT, "settings of more than 1 MiB");
    for (size_t count = 0; text[strspn(text, " \t\r\n")]; count++) {
        const char *end = strstr(text, END);
        if (!end || count == MAX_INSTANCES)
            return rp_fail(err, RP_ERR_CORRUPT, "settings: not a list of at most %d instances", MAX_INSTANCES);
        end += strlen(END);
        struct rp_cim_instance *instance = rp_cimxml_parse(text, (size_t)(end - text), err);
        if (!instance)
            return rp_context(err, "settings");
        rp_cim_instances_push(instances, instance);
        text = end;
    }
    return 0;
}

char *rp_cim_text_format(const struct rp_cim_instances *instances, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances again = {0};
    struct rp_error why = {0};
    for (size_t i = 0; i < instances->count; i++) {
        rp_cimxml_write(instances->items[i], &text);
        rp_buf_printf(&text, "\n");
    }
    if (!rp_cim_text_parse(rp_buf_text(&text), &again, &why))
        return rp_xstrdup(rp_buf_text(&text));
    rp_fail(err, RP_ERR_INVALID, "more, or other settings than this host keeps: %s", why.text);
    return NULL;
}
