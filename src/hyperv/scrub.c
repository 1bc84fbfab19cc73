#include "hyperv/scrub.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/guid.h"
#include "hostd/schema/schema.h"
#include "wsman/fault.h"
#include "wsman/names.h"

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
    struct words stay, texts, guids, others; // texts: properties that are strings, where a number may be a name
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

static int learn_schema(struct rp_scrub *scrub, const char *name_space, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_schema_free_p) struct rp_cim_schema *schema = rp_hostd_schema(name_space, err);
    for (size_t i = 0; schema && i < rp_cim_schema_count(schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(schema, i);
        number_of(&scrub->stay, class->name, strlen(class->name));
        for (size_t k = 0; k < class->property_count; k++) {
            const struct rp_cim_declaration *property = &class->properties[k];
            number_of(&scrub->stay, property->name, strlen(property->name));
            if (property->type == RP_CIM_STRING)
                number_of(&scrub->texts, property->name, strlen(property->name));
        }
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
        "version", "encoding", "utf-8", "utf-16", "http", "https", "wsman", "uuid", "EnumerateEPR",
        "EnumerateObjectAndEPR", "OK", "The", "service", "is", "running", "normally", "Operating",
    };
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_xcalloc(1, sizeof *scrub);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        number_of(&scrub->stay, known[i], strlen(known[i]));
    if (learn_schema(scrub, RP_HOSTD_VIRTUALIZATION, err) || learn_schema(scrub, RP_HOSTD_CIMV2, err))
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
    words_clear(&scrub->texts);
    words_clear(&scrub->guids);
    words_clear(&scrub->others);
    free(scrub);
}

// ---- words ----------------------------------------------------------------------------------------------------------

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) { return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f'); }
static bool in_word(char c)
{
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '-' || (c & 0x80);
}

static size_t digits(const char *text, size_t size)
{
    size_t length = 0;
    while (length < size && is_digit(text[length]))
        length++;
    return length;
}

// "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001" at the beginning of a text: its length, or 0.
static size_t tracking_id(const char *text, size_t size)
{
    static const unsigned groups[] = {8, 4, 4, 4, 12, 8};
    size_t at = 4;
    if (size < 4 || strncasecmp(text, "rct", 3) || !in_word(text[3]))
        return 0;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (at + 1 + groups[i] > size || text[at++] != ':')
            return 0;
        for (unsigned k = 0; k < groups[i]; k++)
            if (!is_hex(text[at++]))
                return 0;
    }
    return at;
}

// An address of a network at the beginning of a text, its length or 0: 192.0.2.1, 2001:db8::1, 00:15:5D:01:02:03.
static size_t network_address(const char *text, size_t size)
{
    size_t at = 0, groups = 0, colons = 0, length = 0;
    while (groups < 4) {
        size_t group = digits(text + at, size - at);
        if (!group || group > 3)
            break;
        at += group;
        if (++groups == 4 || at == size || text[at] != '.')
            break;
        at++;
    }
    if (groups == 4 && (at == size || !in_word(text[at])))
        return at;
    for (; length < size && (is_hex(text[length]) || text[length] == ':'); length++)
        colons += text[length] == ':';
    return colons > 1 && length > colons && (length == size || !in_word(text[length])) ? length : 0;
}

// `numbers`: those stay, since they are no part of a name.
static void put_word(struct rp_scrub *scrub, const char *text, size_t size, bool numbers, struct rp_buf *out)
{
    bool stays;
    place(&scrub->stay, text, size, &stays);
    char guid[RP_GUID_TEXT] = "";
    struct rp_guid parsed;
    if (size == RP_GUID_TEXT - 1)
        memcpy(guid, text, size);
    if (*guid && !rp_guid_parse(guid, &parsed, NULL))
        rp_buf_printf(out, "00000000-0000-4000-8000-%012X", number_of(&scrub->guids, text, size));
    else if (stays || (size == 1 && !(*text & 0x80)) || (digits(text, size) == size && (numbers || size < 4)))
        rp_buf_append(out, text, size);
    else
        rp_buf_printf(out, "x%u", number_of(&scrub->others, text, size));
}

// What TYPE="…" at a word says of the values that follow, in an instance in a text: 1 numbers, 0 text, -1 nothing.
static int numbers_follow(const char *word, size_t left)
{
    static const char *const quotes[] = {"TYPE=\"", "TYPE=&quot;", "TYPE='", "TYPE=&apos;"};
    for (size_t i = 0; i < sizeof quotes / sizeof *quotes; i++) {
        size_t length = strlen(quotes[i]);
        if (left > length + 6 && !memcmp(word, quotes[i], length))
            return strncasecmp(word + length, "string", 6) != 0 && strncasecmp(word + length, "char16", 6) != 0;
    }
    return -1;
}

static void put_words(struct rp_scrub *scrub, const char *text, size_t size, struct rp_buf *out)
{
    bool numbers = false;
    for (size_t i = 0; i < size;) {
        bool begins = !i || !(in_word(text[i - 1]) || text[i - 1] == ':');
        size_t length = begins ? tracking_id(text + i, size - i) : 0;
        if (length) {
            rp_buf_printf(out, "%.4s:00000000:0000:4000:8000:%012x%.9s", text + i,
                          number_of(&scrub->guids, text + i + 5, 36), text + i + length - 9);
        } else if (begins && (length = network_address(text + i, size - i))) {
            rp_buf_printf(out, "x%u", number_of(&scrub->others, text + i, length));
        } else {
            while (i + length < size && in_word(text[i + length]))
                length++;
            int follow = length == 4 ? numbers_follow(text + i, size - i) : -1;
            if (follow >= 0 || (length == 8 && !memcmp(text + i, "PROPERTY", 8)))
                numbers = follow > 0;
            if (length)
                put_word(scrub, text + i, length, numbers, out);
            else
                rp_buf_append(out, text + i, length = 1);
        }
        i += length;
    }
}

// ---- messages -------------------------------------------------------------------------------------------------------

static bool is_one_of(const char *const *list, size_t count, const char *name, size_t size)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) == size && !memcmp(list[i], name, size))
            return true;
    return false;
}
#define IS_ONE_OF(list, name, size) is_one_of(list, sizeof list / sizeof *list, name, size)

static bool is_moment(const char *text, size_t size)
{
    char copy[64] = "";
    struct rp_cim_datetime ignored;
    if (size && size < sizeof copy)
        memcpy(copy, text, size);
    return *copy && strlen(copy) == size && !rp_cim_datetime_parse(copy, &ignored, NULL);
}

static bool is_number(const char *text, size_t size)
{
    size_t sign = size && (*text == '-' || *text == '+');
    return size > sign && digits(text + sign, size - sign) == size - sign;
}

static bool consists_of(const char *text, size_t size, const char *characters)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(characters, text[i]))
            return false;
    return size;
}

static bool begins_with(const char *text, size_t size, const char *prefix)
{
    return size >= strlen(prefix) && !memcmp(text, prefix, strlen(prefix));
}

// "w:InvalidSelectors", with one of the prefixes that services use.
static bool is_fault_code(const char *text, size_t size)
{
    static const char *const codes[] = {"Sender", "Receiver"};
    static const char *const prefixes[] = {"s", "env", "SOAP-ENV", "soap", "a", "wsa", "w", "wsman", "n", "wsen", "p"};
    const char *colon = memchr(text, ':', size), *name = colon ? colon + 1 : text;
    if (colon && !IS_ONE_OF(prefixes, text, (size_t)(colon - text)))
        return false;
    size -= (size_t)(name - text);
    for (int i = RP_FAULT_NONE + 1; i < RP_FAULT_COUNT; i++) {
        const char *known = strchr(rp_fault_subcode((enum rp_fault_code)i), ':') + 1;
        if (strlen(known) == size && !memcmp(known, name, size))
            return true;
    }
    return IS_ONE_OF(codes, name, size);
}

// Text that tells nothing of whose host it is, by the element that it is in and by itself.
static bool stays_whole(const struct rp_scrub *scrub, const char *name, size_t name_size, const char *text,
                        size_t size)
{
    static const char *const kept[] = {
        "Action", "ResourceURI", "VirtualSystemType", "VirtualSystemSubType", "ResourceSubType", "AllocationUnits",
        "VirtualQuantityUnits", "ProductVendor", "ProductVersion", "ProtocolVersion", "Version",
    };
    static const char *const ids[] = {"MessageID", "RelatesTo"};
    if (IS_ONE_OF(kept, name, name_size))
        return true;
    if (IS_ONE_OF(ids, name, name_size)) // of a message; where properties are called like this, of ours
        return begins_with(text, size, "uuid:") && consists_of(text + 5, size - 5, "0123456789abcdefABCDEF-");
    if (name_size == 7 && !memcmp(name, "Address", 7))
        return size == strlen(RP_ADDRESS_ANONYMOUS) && begins_with(text, size, RP_ADDRESS_ANONYMOUS);
    if (name_size == 5 && !memcmp(name, "Value", 5))
        return is_fault_code(text, size);
    if (name_size == 11 && !memcmp(name, "FaultDetail", 11))
        return begins_with(text, size, RP_FAULT_DETAIL);
    bool is_text;
    place(&scrub->texts, name, name_size, &is_text);
    return !is_text && (is_number(text, size) || is_moment(text, size));
}

// A tag: of its attributes only those stay whose values WS-Management, SOAP or the classes give.
static void put_tag(struct rp_scrub *scrub, const char *tag, size_t size, struct rp_buf *out)
{
    static const char *const kept[] = {"type", "nil", "Name", "mustUnderstand", "lang", "Code", "Dialect", "version",
                                       "encoding", "MustComply"};
    size_t name = 0, i = 0;
    while (i < size) {
        char c = tag[i];
        rp_buf_append_u8(out, (uint8_t)c);
        i++;
        if (c != '"' && c != '\'') {
            if (memchr(" \t\r\n:", c, 5)) // attributes with a prefix go by what follows it
                name = i;
            continue;
        }
        const char *end = memchr(tag + i, c, size - i);
        size_t length = end ? (size_t)(end - tag) - i : size - i, name_size = 0;
        while (name + name_size < i && (in_word(tag[name + name_size])))
            name_size++;
        size_t before = name >= 6 ? name - 6 : 0; // "xmlns:p", "xmlns"
        bool declares = (name_size == 5 && !memcmp(tag + name, "xmlns", 5)) ||
                        (name - before == 6 && !memcmp(tag + before, "xmlns:", 6));
        if (declares || IS_ONE_OF(kept, tag + name, name_size))
            rp_buf_append(out, tag + i, length);
        else
            put_words(scrub, tag + i, length, out);
        i += length;
        if (end)
            rp_buf_append_u8(out, (uint8_t)tag[i++]);
    }
}

// The local name of the element that a tag begins; 0: it ends one.
static size_t name_of(const char *tag, size_t size, const char **name)
{
    size_t length = 0, start = 1;
    if (size < 3 || tag[1] == '/' || tag[1] == '?')
        return 0;
    while (1 + length < size && !memchr(" \t\r\n/>", tag[1 + length], 6)) {
        length++;
        if (tag[length] == ':')
            start = 1 + length;
    }
    *name = tag + start;
    return 1 + length - start;
}

// Where something ends that begins at p: after `mark`, or at the end of all.
static const char *after(const char *p, const char *end, const char *mark)
{
    const char *at = memmem(p, (size_t)(end - p), mark, strlen(mark));
    return at ? at + strlen(mark) : end;
}

static void put_text(struct rp_scrub *scrub, const char *name, size_t name_size, const char *text, size_t size,
                     struct rp_buf *out)
{
    if (name_size == 2 && !memcmp(name, "To", 2))
        rp_buf_printf(out, "http://host/wsman");
    else if (stays_whole(scrub, name, name_size, text, size))
        rp_buf_append(out, text, size);
    else
        put_words(scrub, text, size, out);
}

void rp_scrub_message(struct rp_scrub *scrub, const void *data, size_t size, struct rp_buf *out)
{
    static const char cdata[] = "<![CDATA[";
    const char *p = data, *end = p + size, *next, *name = "";
    size_t name_size = 0;
    if (memchr(data, 0, size)) { // UTF-16: no word would be seen as one
        rp_buf_printf(out, "<!-- a message that is not in UTF-8 -->");
        return;
    }
    for (; p < end; p = next) {
        size_t left = (size_t)(end - p);
        if (begins_with(p, left, cdata)) {
            next = after(p, end, "]]>");
            size_t tail = next - p >= 12 && !memcmp(next - 3, "]]>", 3) ? 3 : 0;
            rp_buf_append(out, p, strlen(cdata));
            put_text(scrub, name, name_size, p + strlen(cdata), (size_t)(next - p) - strlen(cdata) - tail, out);
            rp_buf_append(out, next - tail, tail);
        } else if (begins_with(p, left, "<!")) { // comments and the like go
            next = after(p, end, begins_with(p, left, "<!--") ? "-->" : ">");
        } else if (*p == '<') {
            next = after(p, end, ">");
            put_tag(scrub, p, (size_t)(next - p), out);
            name_size = name_of(p, (size_t)(next - p), &name);
        } else {
            next = memchr(p, '<', left);
            next = next ? next : end;
            put_text(scrub, name, name_size, p, (size_t)(next - p), out);
        }
    }
}
