// What goes wrong on the host, in words. Two families of codes (facts/wmi.md 1.1), which do not overlap.
#include <stdlib.h>
#include <string.h>

#include "base/utf16.h"
#include "hyperv/wmi_internal.h"

static const struct {
    uint32_t value;
    enum rp_code code;
    const char *words;
} codes[] = {
    {1, RP_ERR_UNSUPPORTED, "not supported"},
    {2, RP_ERR_IO, "failed"},
    {3, RP_ERR_IO, "timed out"},
    {4, RP_ERR_INVALID, "invalid parameter"},
    {5, RP_ERR_STATE, "not possible in this state"},
    {6, RP_ERR_INVALID, "incompatible type"},
    {32768, RP_ERR_IO, "failed"},
    {32769, RP_ERR_PERMISSION, "access denied"},
    {32770, RP_ERR_UNSUPPORTED, "not supported"},
    {32771, RP_ERR_IO, "status unknown"},
    {32772, RP_ERR_IO, "timed out"},
    {32773, RP_ERR_INVALID, "invalid parameter"},
    {32774, RP_ERR_BUSY, "in use"},
    {32775, RP_ERR_STATE, "not possible in this state"},
    {32776, RP_ERR_INVALID, "incorrect data type"},
    {32777, RP_ERR_STATE, "the system is not available"},
    {32778, RP_ERR_NO_MEMORY, "the host is out of memory"},
    {32779, RP_ERR_NOT_FOUND, "file not found"},
    {32789, RP_ERR_NOT_FOUND, "object not found"},
};

const char *rp_wmi_code_words(uint32_t code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].value == code)
            return codes[i].words;
    return "an unknown code";
}

enum rp_code rp_wmi_code_error(uint32_t code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].value == code)
            return codes[i].code;
    return RP_ERR_IO;
}

int rp_wmi_fail(struct rp_error *err, uint32_t code, const struct rp_wmi_call *call)
{
    return rp_fail(err, rp_wmi_code_error(code), "%s: %s: %s (%u)", call->what, call->method, rp_wmi_code_words(code),
                   code);
}

// HRESULTs and Win32 errors as Windows quotes them in its messages: "(0x80070050)", "('0xC03A0030')".
enum rp_code rp_wmi_code_in_text(const char *text)
{
    static const struct {
        uint32_t value;
        enum rp_code code;
    } known[] = {
        {0x80070002, RP_ERR_NOT_FOUND}, {0x80070003, RP_ERR_NOT_FOUND}, {0x80070005, RP_ERR_PERMISSION},
        {0x80070020, RP_ERR_BUSY}, {0x80070050, RP_ERR_EXISTS}, {0x800700b7, RP_ERR_EXISTS},
        {0x80070070, RP_ERR_NO_SPACE}, {0x80070027, RP_ERR_NO_SPACE}, {0x8007000e, RP_ERR_NO_MEMORY},
        {0x80070057, RP_ERR_INVALID}, {0x800704c7, RP_ERR_CANCELLED}, {0xc03a0014, RP_ERR_PARENT_NOT_FOUND},
        {0xc03a000e, RP_ERR_PARENT_MISMATCH}, {0xc03a0029, RP_ERR_TRACKING_SYNTAX}, {0xc03a0030, RP_ERR_TRACKING_ID},
        {0xc03a002a, RP_ERR_TRACKING_OFF},
    };
    for (const char *p = text; p && (p = strstr(p, "0x")); p += 2) {
        char *end;
        unsigned long long value = strtoull(p, &end, 16);
        for (size_t i = 0; end == p + 10 && i < sizeof known / sizeof *known; i++)
            if (known[i].value == value)
                return known[i].code;
        for (int code = 1; end == p + 10 && code < RP_CODE_COUNT; code++)
            if (rp_code_win32((enum rp_code)code) == value || (0x80070000 | rp_code_win32((enum rp_code)code)) == value)
                return (enum rp_code)code;
    }
    return RP_OK;
}

void rp_wmi_one_line(struct rp_buf *out, const char *text)
{
    size_t before = out->size;
    rp_utf8_append_valid(out, text, RP_ERROR_TEXT);
    for (size_t i = before; i < out->size; i++)
        if (out->data[i] < 0x20)
            out->data[i] = ' ';
    while (out->size > before && (out->data[out->size - 1] == ' '))
        out->size--;
}
