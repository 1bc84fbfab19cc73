#include "wsman/media.h"

#include <string.h>
#include <strings.h>

bool rp_media_is(const char *media, const char *type)
{
    size_t length = strlen(type);
    media += strspn(media, " \t");
    return !strncasecmp(media, type, length) && strchr("; \t", media[length]); // or at its end
}

bool rp_media_parameter(const char *media, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);
    while ((media = strchr(media, ';'))) {
        media++;
        media += strspn(media, " \t");
        if (strncasecmp(media, name, length) || media[length] != '=') {
            size_t word = strcspn(media, ";\"");
            const char *quote = media[word] == '"' ? strchr(media + word + 1, '"') : NULL;
            if (media[word] == '"' && !quote)
                return false;
            media = quote ? quote : media; // a semicolon inside quotes is not one
            continue;
        }
        media += length + 1;
        bool quoted = *media == '"';
        media += quoted;
        size_t end = strcspn(media, quoted ? "\"" : "; \t");
        if ((quoted && media[end] != '"') || !end || end >= size)
            return false;
        memcpy(value, media, end);
        value[end] = '\0';
        return true;
    }
    return false;
}
