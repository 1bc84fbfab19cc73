// Resource URIs (facts/wmi.md 2.3).
#include "wsman/names.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/name.h"
#include "wsman/item.h"

#define MAX_URI 1024
#define DEFAULT_NAMESPACE "root/cimv2" // MS-WSMV says root/hardware, where nobody finds anything

static bool has_prefix(const char *uri, const char *prefix)
{
    return !strncasecmp(uri, prefix, strlen(prefix));
}

// "root\virtualization\v2" and "/root/virtualization/v2/" alike.
static char *normal_namespace(const char *text, size_t length)
{
    while (length && (*text == '/' || *text == '\\'))
        text++, length--;
    while (length && (text[length - 1] == '/' || text[length - 1] == '\\'))
        length--;
    char *name = rp_xmalloc(length + 1);
    for (size_t i = 0; i < length; i++)
        name[i] = text[i] == '\\' ? '/' : text[i];
    name[length] = 0;
    return name;
}

int rp_wsman_uri_parse(const char *uri, const char *selector_namespace, enum rp_uri_style *style, char **name_space,
                       char **class_name, struct rp_error *err)
{
    if (strlen(uri) > MAX_URI)
        return rp_fail(err, RP_ERR_INVALID, "the resource URI is longer than %d bytes", MAX_URI);
    const char *class = NULL;
    RP_AUTO_FREE char *said = selector_namespace ? normal_namespace(selector_namespace,
                                                                    strlen(selector_namespace)) : NULL;
    RP_AUTO_FREE char *own = NULL;
    if (has_prefix(uri, RP_URI_WMI)) {
        const char *rest = uri + strlen(RP_URI_WMI), *slash = strrchr(rest, '/');
        class = slash ? slash + 1 : rest;
        own = slash ? normal_namespace(rest, (size_t)(slash - rest)) : NULL;
        *style = RP_URI_STYLE_WMI;
    } else if (!strcasecmp(uri, RP_URI_DMTF_ALL)) {
        class = "*";
        *style = RP_URI_STYLE_DMTF;
    } else if (has_prefix(uri, RP_URI_DMTF)) {
        class = uri + strlen(RP_URI_DMTF);
        *style = RP_URI_STYLE_DMTF;
    }
    if (!class || (strcmp(class, "*") && !rp_cim_is_name(class)))
        return rp_fail(err, RP_ERR_INVALID, "\"%.200s\" is no resource URI of a class", uri);
    if (own && *own && said && strcasecmp(own, said))
        return rp_fail(err, RP_ERR_INVALID, "the resource URI is in namespace %.100s, but __cimnamespace is %.100s",
                       own, said);
    *name_space = rp_xstrdup(own && *own ? own : said && *said ? said : DEFAULT_NAMESPACE);
    *class_name = rp_xstrdup(class);
    return 0;
}

void rp_wsman_uri(struct rp_buf *out, enum rp_uri_style style, const char *name_space, const char *class_name)
{
    if (style == RP_URI_STYLE_WMI)
        rp_buf_printf(out, RP_URI_WMI "%s/%s", name_space ? name_space : DEFAULT_NAMESPACE, class_name);
    else if (!strcmp(class_name, "*"))
        rp_buf_printf(out, RP_URI_DMTF_ALL);
    else
        rp_buf_printf(out, RP_URI_DMTF "%s", class_name);
}
