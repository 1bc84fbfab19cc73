#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cim/xml.h"

static xmlDoc *parse(const char *text)
{
    struct rp_error err = {0};
    xmlDoc *document = rp_xml_parse(text, strlen(text), 1 << 20, NULL, &err);
    if (!document)
        fail_msg("%s", err.text);
    return document;
}

static void refused(const void *data, size_t size, const char *why)
{
    struct rp_error err = {0};
    assert_null(rp_xml_parse(data, size, 1 << 20, NULL, &err));
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void refused_text(const char *text, const char *why)
{
    refused(text, strlen(text), why);
}

static void elements_are_found_by_namespace_whatever_their_prefix(void **state)
{
    (void)state;
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document =
        parse("<q:a xmlns:q='urn:1' xmlns='urn:2'> <!-- c --> <q:b>1</q:b><b x='&lt;' q:x='3'> 2\n</b>t</q:a>");
    xmlNode *root = xmlDocGetRootElement(document);
    assert_true(rp_xml_is(root, "urn:1", "a") && rp_xml_is(root, NULL, "a"));
    assert_false(rp_xml_is(root, "urn:2", "a") || rp_xml_is(root, "urn:1", "b"));
    xmlNode *b = rp_xml_child(root, "urn:2", "b");
    assert_ptr_equal(b, rp_xml_next(rp_xml_first(root)));
    assert_null(rp_xml_next(b));
    assert_null(rp_xml_first(NULL));
    RP_AUTO_FREE char *trimmed = rp_xml_text(b), *exact = rp_xml_text_exact(b), *own = rp_xml_text(root);
    RP_AUTO_FREE char *plain = rp_xml_attribute(b, NULL, "x"), *with = rp_xml_attribute(b, "urn:1", "x");
    assert_string_equal(trimmed, "2");
    assert_string_equal(exact, " 2\n");
    assert_string_equal(own, "t");
    assert_string_equal(plain, "<");
    assert_string_equal(with, "3");
    assert_null(rp_xml_attribute(b, NULL, "y"));
}

static void nil_is_seen_in_both_namespaces_that_clients_use(void **state)
{
    (void)state;
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = parse(
        "<a xmlns:i='http://www.w3.org/2001/XMLSchema-instance' xmlns:o='http://www.w3.org/2001/XMLSchema'>"
        "<b i:nil='true'/><b o:nil='1'/><b i:nil='false'/><b nil='true'/><b/></a>");
    xmlNode *b = rp_xml_first(xmlDocGetRootElement(document));
    for (int i = 0; i < 5; i++, b = rp_xml_next(b))
        assert_int_equal(rp_xml_is_nil(b), i < 2);
}

static void utf16_is_read_by_its_mark_or_by_the_charset(void **state)
{
    (void)state;
    // <a>ü😀</a>
    static const uint8_t little[] = {0xFF, 0xFE, '<', 0, 'a', 0, '>', 0, 0xFC, 0, 0x3D, 0xD8, 0x00, 0xDE,
                                     '<', 0, '/', 0, 'a', 0, '>', 0};
    uint8_t big[sizeof little];
    for (size_t i = 0; i < sizeof little; i++)
        big[i] = little[i ^ 1];
    struct { const uint8_t *data; size_t size; const char *charset; } ways[] = {
        {little, sizeof little, NULL}, {little, sizeof little, "UTF-8"}, {little + 2, sizeof little - 2, "UTF-16"},
        {little + 2, sizeof little - 2, "utf-16le"}, {big, sizeof big, NULL}, {big + 2, sizeof big - 2, "UTF-16"},
        {big + 2, sizeof big - 2, "UTF-16BE"},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct rp_error err = {0};
        RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document =
            rp_xml_parse(ways[i].data, ways[i].size, 1 << 20, ways[i].charset, &err);
        if (!document)
            fail_msg("way %zu: %s", i, err.text);
        RP_AUTO_FREE char *text = rp_xml_text(xmlDocGetRootElement(document));
        assert_string_equal(text, "\xC3\xBC\xF0\x9F\x98\x80");
    }
    refused(little, sizeof little - 1, "XML");
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *claims =
        parse("\xEF\xBB\xBF<?xml version='1.0' encoding='utf-16'?><a>\xC3\xBC</a>");
    RP_AUTO_FREE char *text = rp_xml_text(xmlDocGetRootElement(claims));
    assert_string_equal(text, "\xC3\xBC");
}

static void what_is_not_well_formed_is_refused_with_a_line(void **state)
{
    (void)state;
    refused_text("<a>\n<b></a>", "line 2");
    refused_text("<a>&unknown;</a>", "unknown");
    refused_text("<a>\xFF\xFE</a>", "XML: ");
    refused_text("<a>\x01</a>", "XML: ");
    refused_text("", "empty");
    refused_text("text", "XML: ");
    refused_text("<a/><b/>", "XML: ");
    refused("<a>\0</a>", 8, "XML: ");
    struct rp_error err = {0};
    assert_null(rp_xml_parse("<a/>", 4, 3, NULL, &err));
    assert_non_null(strstr(err.text, "4 bytes"));
}

static void bombs_and_external_entities_are_refused_before_anything_is_expanded(void **state)
{
    (void)state;
    refused_text("<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;&b;'>]><a>&c;</a>", "DOCTYPE");
    refused_text("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "DOCTYPE");
    refused_text("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "DOCTYPE");
    refused_text("<!DOCTYPE a PUBLIC 'x' 'http://127.0.0.1:1/x.dtd'><a/>", "DOCTYPE");
}

static void nest(struct rp_buf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        rp_buf_printf(out, "<a>");
    for (unsigned i = 0; i < depth; i++)
        rp_buf_printf(out, "</a>");
}

static void depth_attributes_and_namespaces_are_bounded(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf deepest = {0}, deeper = {0}, wide = {0}, wider = {0}, scope = {0};
    nest(&deepest, RP_XML_MAX_DEPTH);
    xmlFreeDoc(parse(rp_buf_text(&deepest)));
    nest(&deeper, RP_XML_MAX_DEPTH + 1);
    refused(deeper.data, deeper.size, "deep");

    rp_buf_printf(&wide, "<!-- \" < --><a><![CDATA[<']]><b");
    for (int i = 0; i < RP_XML_MAX_ATTRIBUTES; i++)
        rp_buf_printf(&wide, " a%d='>\"'", i);
    rp_buf_append(&wider, wide.data, wide.size);
    rp_buf_printf(&wide, "/></a>");
    xmlFreeDoc(parse(rp_buf_text(&wide)));
    rp_buf_printf(&wider, " z='1'/></a>");
    refused(wider.data, wider.size, "attributes");

    for (int i = 0; i <= RP_XML_MAX_NAMESPACES / 32; i++) {
        rp_buf_printf(&scope, "<a");
        for (int j = 0; j < 32; j++)
            rp_buf_printf(&scope, " xmlns:n%d='u%d'", i * 32 + j, j);
        rp_buf_printf(&scope, ">");
    }
    for (int i = 0; i <= RP_XML_MAX_NAMESPACES / 32; i++)
        rp_buf_printf(&scope, "</a>");
    refused(scope.data, scope.size, "namespaces");
}

static void half_a_megabyte_of_anything_is_decided_in_a_second(void **state)
{
    (void)state;
    static const struct { const char *start, *again; } patterns[] = {
        {"<a", " b%d=''"}, {"<a xmlns:x='u'", " x:b%d=''"}, {"<a>", "<b>%d</b>"}, {"", "<a%d>"},
        {"<a>", "<b xmlns:x='%d'/>"},
        {"<a>", "<!--%d"}, {"<a>", "<?%d"}, {"<a>", "&#%d;"}, {"<a b='", "&amp;%d"}, {"<a>", "<b c%d='"},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        rp_buf_printf(&text, "%s", patterns[i].start);
        _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"")
        for (int n = 0; text.size < 512000; n++)
            rp_buf_printf(&text, patterns[i].again, n);
        _Pragma("GCC diagnostic pop")
        uint64_t start = rp_clock_monotonic_ns();
        assert_null(rp_xml_parse(text.data, text.size, 1 << 20, NULL, NULL));
        uint64_t spent = rp_clock_monotonic_ns() - start;
        if (spent > 1000 * 1000 * 1000)
            fail_msg("pattern %zu took %llu ms", i, (unsigned long long)spent / 1000000);
    }
}

static void text_is_escaped_so_that_it_reads_back_and_never_breaks_the_document(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_xml_element(&out, NULL, "a", "<&>\"'\r\n\t ]]> \xC3\xBC");
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = parse(rp_buf_text(&out));
    RP_AUTO_FREE char *text = rp_xml_text_exact(xmlDocGetRootElement(document));
    assert_string_equal(text, "<&>\"'\r\n\t ]]> \xC3\xBC");
    rp_buf_reset(&out);
    rp_xml_escape(&out, "a\x01\xFF\xED\xA0\x80\xEF\xBF\xBF" "b");
    assert_string_equal(rp_buf_text(&out),
        "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" "b");
    rp_buf_reset(&out);
    rp_xml_element(&out, "p", "b", "");
    rp_xml_element(&out, "p", "c", "x");
    assert_string_equal(rp_buf_text(&out), "<p:b/><p:c>x</p:c>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements_are_found_by_namespace_whatever_their_prefix),
        cmocka_unit_test(nil_is_seen_in_both_namespaces_that_clients_use),
        cmocka_unit_test(utf16_is_read_by_its_mark_or_by_the_charset),
        cmocka_unit_test(what_is_not_well_formed_is_refused_with_a_line),
        cmocka_unit_test(bombs_and_external_entities_are_refused_before_anything_is_expanded),
        cmocka_unit_test(depth_attributes_and_namespaces_are_bounded),
        cmocka_unit_test(half_a_megabyte_of_anything_is_decided_in_a_second),
        cmocka_unit_test(text_is_escaped_so_that_it_reads_back_and_never_breaks_the_document),
    };
    return cmocka_run_group_tests_name("xml", tests, NULL, NULL);
}
