#include "hyperv/scrub.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/guid.h"
#include "hostd/schema/schema.h"

#define MAX_WORDS 1000000

// Words as a sorted list: those that stay, and those that have become others (`number` of them so far).
struct words {
    struct word {
        char *text;
        unsigned number;
    } *items;
    size_t count, capacity;
};
struct rp_scrub {
    struct words stay, guids, others;
};

static size_t place(const struct words *words, const char *text, size_t size, bool *found)
{
    size_t low = 0, high = words->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const char *has = words->items[middle].text;
        int order = strncasecmp(has, text, size);
        if (!order)
            order = has[size] != 0;
        if (!order) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

static unsigned number_of(struct words *words, const char *text, size_t size)
{
    bool found;
    size_t at = place(words, text, size, &found);
    if (found)
        return words->items[at].number;
    if (words->count == MAX_WORDS)
        return 0;
    if (words->count == words->capacity) {
        words->capacity = words->capacity ? 2 * words->capacity : 64;
        words->items = rp_xrealloc(words->items, words->capacity * sizeof *words->items);
    }
    memmove(words->items + at + 1, words->items + at, (words->count - at) * sizeof *words->items);
    words->items[at] = (struct word){strndup(text, size), (unsigned)words->count + 1};
    words->count++;
    return words->items[at].number;
}

static void words_clear(struct words *words)
{
    for (size_t i = 0; i < words->count; i++)
        free(words->items[i].text);
    free(words->items);
}

static int learn_schema(struct words *stay, const char *name_space, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_schema_free_p) struct rp_cim_schema *schema = rp_hostd_schema(name_space, err);
    for (size_t i = 0; schema && i < rp_cim_schema_count(schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(schema, i);
        number_of(stay, class->name, strlen(class->name));
        for (size_t k = 0; k < class->property_count; k++)
            number_of(stay, class->properties[k].name, strlen(class->properties[k].name));
    }
    return schema ? 0 : -1;
}

struct rp_scrub *rp_scrub_new(struct rp_error *err)
{
    static const char *const known[] = {
        "Microsoft", "Hyper-V", "root", "virtualization", "v2", "cimv2", "SELECT", "FROM", "WHERE", "ASSOCIATORS",
        "REFERENCES", "OF", "AssocClass", "ResultClass", "AND", "OR", "NOT", "LIKE", "IS", "NULL", "refpoint", "vmms",
        "vssnapsvc", "vhdsvc", "vsrefpointsvc", "Definition", "Default", "Maximum", "INSTANCE", "CLASSNAME",
        "PROPERTY", "ARRAY", "NAME", "TYPE", "VALUE", "vhdx", "avhdx", "vhd", "avhd", "vhds", "vmcx", "vmrs", "vmgs",
        "iso", "string", "uint8", "uint16", "uint32", "uint64", "sint32", "boolean", "datetime", "TRUE", "FALSE",
        "Virtual", "Machine", "Disk", "Hard", "Physical", "Drive", "Synthetic", "SCSI", "IDE", "Controller",
        "Snapshot", "Recovery", "System", "Realized", "Planned", "SubType", "lt", "gt", "amp", "quot", "apos", "xml",
        "version", "encoding", "utf-8", "utf-16", "http", "https", "wsman",
    };
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_xcalloc(1, sizeof *scrub);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        number_of(&scrub->stay, known[i], strlen(known[i]));
    if (learn_schema(&scrub->stay, RP_HOSTD_VIRTUALIZATION, err) || learn_schema(&scrub->stay, RP_HOSTD_CIMV2, err))
        return NULL;
    struct rp_scrub *result = scrub;
    scrub = NULL;
    return result;
}

void rp_scrub_free(struct rp_scrub *scrub)
{
    if (!scrub)
        return;
    words_clear(&scrub->stay);
    words_clear(&scrub->guids);
    words_clear(&scrub->others);
    free(scrub);
}

// ---- words ----------------------------------------------------------------------------------------------------------

static bool in_word(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '-' || (c & 0x80);
}

static bool is_number(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!(text[i] >= '0' && text[i] <= '9') && text[i] != '-')
            return false;
    return true;
}

static void put_word(struct rp_scrub *scrub, const char *text, size_t size, struct rp_buf *out)
{
    bool stays;
    place(&scrub->stay, text, size, &stays);
    char guid[RP_GUID_TEXT] = "";
    struct rp_guid parsed;
    if (size == RP_GUID_TEXT - 1)
        memcpy(guid, text, size);
    if (*guid && !rp_guid_parse(guid, &parsed, NULL)) {
        rp_buf_printf(out, "00000000-0000-4000-8000-%012X", number_of(&scrub->guids, text, size));
        return;
    }
    if (stays || is_number(text, size) || (size == 1 && !(*text & 0x80))) {
        rp_buf_append(out, text, size);
        return;
    }
    rp_buf_printf(out, "x%u", number_of(&scrub->others, text, size));
}

static void put_words(struct rp_scrub *scrub, const char *text, size_t size, struct rp_buf *out)
{
    if (size > 3 && !strncasecmp(text, "rct", 3) && memchr(text, ':', size)) { // an id of change tracking
        rp_buf_append(out, text, size);
        return;
    }
    for (size_t i = 0; i < size;) {
        size_t length = 0;
        while (i + length < size && in_word(text[i + length]))
            length++;
        if (length)
            put_word(scrub, text + i, length, out);
        else
            rp_buf_append(out, text + i, length = 1);
        i += length;
    }
}

// ---- messages -------------------------------------------------------------------------------------------------------

static bool is_moment(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!memchr("0123456789-+:.TZPDHMSY*", text[i], 23))
            return false;
    return size && memchr("0123456789P", *text, 11);
}

// Elements whose text tells nothing of whose host it is.
static bool stays_whole(const char *name, size_t size)
{
    static const char *const kept[] = {
        "Action", "ResourceURI", "Address", "MessageID", "RelatesTo", "EnumerationContext", "EnumerationMode",
        "CreationClassName", "SystemCreationClassName", "VirtualSystemType", "VirtualSystemSubType", "ResourceSubType",
        "AllocationUnits", "VirtualQuantityUnits", "ProductVendor", "ProductVersion", "ProtocolVersion", "Version",
        "StatusDescriptions", "Status", "JobStatus", "Value", "FaultDetail", "OperationTimeout",
    };
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strlen(kept[i]) == size && !memcmp(kept[i], name, size))
            return true;
    return false;
}

// A tag, in which only the machine of a fault is a name.
static void put_tag(struct rp_scrub *scrub, const char *tag, size_t size, struct rp_buf *out)
{
    static const char attribute[] = " Machine=\"";
    const char *machine = memmem(tag, size, attribute, sizeof attribute - 1);
    const char *end = machine ? memchr(machine + sizeof attribute - 1, '"',
                                       size - (size_t)(machine - tag) - sizeof attribute + 1)
                              : NULL;
    if (!end) {
        rp_buf_append(out, tag, size);
        return;
    }
    machine += sizeof attribute - 1;
    rp_buf_append(out, tag, (size_t)(machine - tag));
    put_words(scrub, machine, (size_t)(end - machine), out);
    rp_buf_append(out, end, size - (size_t)(end - tag));
}

// The local name of the element that a tag begins; 0: it ends one.
static size_t name_of(const char *tag, size_t size, const char **name)
{
    size_t length = 0, start = 1;
    if (size < 3 || tag[1] == '/' || tag[1] == '?' || tag[1] == '!')
        return 0;
    while (1 + length < size && !memchr(" \t\r\n/>", tag[1 + length], 6)) {
        length++;
        if (tag[length] == ':')
            start = 1 + length;
    }
    *name = tag + start;
    return 1 + length - start;
}

void rp_scrub_message(struct rp_scrub *scrub, const void *data, size_t size, struct rp_buf *out)
{
    const char *p = data, *end = p + size, *name = "";
    size_t name_size = 0;
    while (p < end) {
        const char *next;
        if (*p == '<') {
            next = memchr(p, '>', (size_t)(end - p));
            next = next ? next + 1 : end;
            put_tag(scrub, p, (size_t)(next - p), out);
            name_size = name_of(p, (size_t)(next - p), &name);
        } else {
            next = memchr(p, '<', (size_t)(end - p));
            next = next ? next : end;
            size_t length = (size_t)(next - p);
            if (name_size == 2 && !memcmp(name, "To", 2))
                rp_buf_printf(out, "http://host/wsman");
            else if (stays_whole(name, name_size) || is_moment(p, length))
                rp_buf_append(out, p, length);
            else
                put_words(scrub, p, length, out);
        }
        p = next;
    }
}
