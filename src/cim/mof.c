// The reader of MOF, DSP0004 annex A: declarations of classes, by recursive descent.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/name.h"
#include "cim/schema_internal.h"

#define MAX_PROPERTIES 4096 // of a class, or parameters of a method

enum token { END, WORD, TEXT, NUMBER, SIGN, BROKEN };

struct reader {
    struct rp_cim_schema *schema;
    const char *origin, *p, *end;
    unsigned line;
    enum token token;
    struct rp_buf text; // of the token
    struct rp_error *err;
};

static int fail(struct reader *r, const char *expected)
{
    return rp_fail(r->err, RP_ERR_INVALID, "%s:%u: expected %s, found %s%.60s%s", r->origin, r->line, expected,
                   r->token == END ? "the end" : r->token == BROKEN ? "what is no token" : "\"",
                   r->token == END || r->token == BROKEN ? "" : rp_buf_text(&r->text),
                   r->token == END || r->token == BROKEN ? "" : "\"");
}

static bool at(const struct reader *r, const char *text)
{
    return (size_t)(r->end - r->p) >= strlen(text) && !memcmp(r->p, text, strlen(text));
}

static bool skip_to(struct reader *r, const char *stop)
{
    for (; r->p < r->end && !at(r, stop); r->p++)
        r->line += *r->p == '\n';
    return r->p < r->end;
}

static bool skip_blanks(struct reader *r)
{
    while (r->p < r->end) {
        if (strchr(" \t\r\n\f", *r->p) && *r->p) {
            r->line += *r->p++ == '\n';
        } else if (at(r, "//")) {
            skip_to(r, "\n");
        } else if (at(r, "/*")) {
            r->p += 2;
            if (!skip_to(r, "*/"))
                return false;
            r->p += 2;
        } else {
            break;
        }
    }
    return true;
}

static bool read_escape(struct reader *r)
{
    static const char names[] = "btnfr\"'\\", values[] = "\b\t\n\f\r\"'\\";
    if (r->p == r->end || !*r->p)
        return false;
    const char *name = strchr(names, *r->p);
    if (name) {
        rp_buf_append_u8(&r->text, (uint8_t)values[name - names]);
        r->p++;
        return true;
    }
    if ((*r->p | 32) != 'x')
        return false;
    unsigned code = 0, digits = 0;
    for (r->p++; digits < 4 && r->p < r->end; digits++, r->p++) {
        char c = *r->p;
        if (c >= '0' && c <= '9')
            code = code * 16 + (unsigned)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            code = code * 16 + (unsigned)((c | 32) - 'a' + 10);
        else
            break;
    }
    if (!code || (code >= 0xD800 && code < 0xE000))
        return false;
    if (code >= 0x800) {
        rp_buf_append_u8(&r->text, (uint8_t)(0xE0 | code >> 12));
        rp_buf_append_u8(&r->text, (uint8_t)(0x80 | (code >> 6 & 0x3F)));
    } else if (code >= 0x80) {
        rp_buf_append_u8(&r->text, (uint8_t)(0xC0 | code >> 6));
    }
    rp_buf_append_u8(&r->text, (uint8_t)(code < 0x80 ? code : 0x80 | (code & 0x3F)));
    return true;
}

// Texts that stand side by side are one.
static enum token read_text(struct reader *r)
{
    do {
        for (r->p++;; r->p++) {
            if (r->p == r->end || *r->p == '\n' || !*r->p)
                return BROKEN;
            if (*r->p == '"')
                break;
            if (*r->p != '\\')
                rp_buf_append_u8(&r->text, (uint8_t)*r->p);
            else if (r->p++, !read_escape(r))
                return BROKEN;
            else
                r->p--;
        }
        r->p++;
        if (!skip_blanks(r))
            return BROKEN;
    } while (r->p < r->end && *r->p == '"');
    return TEXT;
}

static void next(struct reader *r)
{
    rp_buf_reset(&r->text);
    if (!skip_blanks(r)) {
        r->token = BROKEN;
    } else if (r->p == r->end) {
        r->token = END;
    } else if (*r->p == '"') {
        r->token = read_text(r);
    } else {
        const char *start = r->p;
        bool sign = *r->p == '-' || *r->p == '+', number = sign || (*r->p >= '0' && *r->p <= '9');
        r->p += sign;
        while (r->p < r->end && (rp_cim_in_name(*r->p) || (number && *r->p == '.')))
            r->p++;
        r->token = number ? NUMBER : r->p > start ? WORD : *start && strchr("#[](){};:,=$", *start) ? SIGN : BROKEN;
        r->p += r->token == SIGN;
        rp_buf_append(&r->text, start, (size_t)(r->p - start));
    }
}

static bool is(struct reader *r, const char *text)
{
    return (r->token == SIGN || r->token == WORD) && !strcasecmp(rp_buf_text(&r->text), text);
}

static bool accept(struct reader *r, const char *text)
{
    bool there = is(r, text);
    if (there)
        next(r);
    return there;
}

static int require(struct reader *r, const char *text)
{
    char expected[32];
    if (accept(r, text))
        return 0;
    snprintf(expected, sizeof expected, "\"%s\"", text);
    return fail(r, expected);
}

static char *take(struct reader *r, enum token token, const char *expected)
{
    if (r->token != token) {
        fail(r, expected);
        return NULL;
    }
    char *text = rp_xstrdup(rp_buf_text(&r->text));
    next(r);
    return text;
}

// The qualifiers that mean something here.
struct qualifiers {
    bool key, abstract, association, singleton, in, out, in_said;
};

static int read_constant(struct reader *r)
{
    if (r->token != WORD && r->token != TEXT && r->token != NUMBER)
        return fail(r, "a value");
    next(r);
    return 0;
}

static int read_qualifier(struct reader *r, struct qualifiers *q)
{
    RP_AUTO_FREE char *name = take(r, WORD, "a qualifier");
    if (!name)
        return -1;
    bool value = true;
    if (accept(r, "(")) {
        value = !is(r, "false");
        if (read_constant(r) || require(r, ")"))
            return -1;
    } else if (accept(r, "{")) {
        do
            if (read_constant(r))
                return -1;
        while (accept(r, ","));
        if (require(r, "}"))
            return -1;
    }
    if (accept(r, ":"))
        while (r->token == WORD) // flavors
            next(r);
    const struct { const char *name; bool *flag; } known[] = {
        {"key", &q->key}, {"abstract", &q->abstract}, {"association", &q->association}, {"singleton", &q->singleton},
        {"in", &q->in}, {"out", &q->out},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(known[i].name, name))
            *known[i].flag = value;
    q->in_said |= !strcasecmp(name, "in");
    return 0;
}

static int read_qualifiers(struct reader *r, struct qualifiers *q)
{
    *q = (struct qualifiers){0};
    if (!accept(r, "["))
        return 0;
    do
        if (read_qualifier(r, q))
            return -1;
    while (accept(r, ","));
    return require(r, "]");
}

// "uint16", "Class REF" or "Class".
static int read_type(struct reader *r, struct rp_cim_declaration *d)
{
    RP_AUTO_FREE char *name = take(r, WORD, "a type");
    if (!name)
        return -1;
    d->type = rp_cim_type_from_name(name);
    bool known = d->type != RP_CIM_NONE && d->type != RP_CIM_REFERENCE;
    bool reference = accept(r, "ref");
    if (reference || !known)
        d->type = reference ? RP_CIM_REFERENCE : RP_CIM_OBJECT;
    if (!known || (reference && strcasecmp(name, "object"))) {
        d->object_class = name;
        name = NULL;
    }
    return 0;
}

static int read_array(struct reader *r, struct rp_cim_declaration *d)
{
    if (!accept(r, "["))
        return 0;
    d->array = true;
    if (r->token == NUMBER)
        next(r);
    return require(r, "]");
}

static int read_element(struct reader *r, struct rp_cim_declaration *d)
{
    struct rp_cim_value element = {0};
    if (r->token != WORD && r->token != TEXT && r->token != NUMBER)
        return fail(r, "a value");
    bool text = d->type == RP_CIM_STRING || d->type == RP_CIM_DATETIME || d->type == RP_CIM_REFERENCE;
    if (text != (r->token == TEXT))
        return fail(r, text ? "a text" : "a value without quotes");
    if (rp_cim_value_parse(d->type, rp_buf_text(&r->text), &element, NULL))
        return fail(r, rp_cim_type_name(d->type));
    if (d->array)
        rp_cim_value_push(&d->value, &element);
    else
        d->value = element;
    next(r);
    return 0;
}

static int read_default(struct reader *r, struct rp_cim_declaration *d)
{
    d->value = rp_cim_null(d->type, d->array);
    if (!accept(r, "=") || accept(r, "null"))
        return 0;
    if (!d->array)
        return read_element(r, d);
    if (require(r, "{"))
        return -1;
    d->value.null = false;
    if (accept(r, "}"))
        return 0;
    do
        if (read_element(r, d))
            return -1;
    while (accept(r, ","));
    return require(r, "}");
}

static int read_parameter(struct reader *r, struct rp_cim_method *method)
{
    struct qualifiers q;
    RP_CLEANUP(rp_cim_declaration_clear) struct rp_cim_declaration d = {0};
    if (read_qualifiers(r, &q) || read_type(r, &d) || !(d.name = take(r, WORD, "the name of a parameter")) ||
        read_array(r, &d))
        return -1;
    for (size_t i = 0; i < method->parameter_count; i++)
        if (!strcasecmp(method->parameters[i].name, d.name))
            return fail(r, "each parameter once");
    if (method->parameter_count == MAX_PROPERTIES)
        return fail(r, "fewer parameters");
    d.in = q.in || !(q.in_said || q.out); // DSP0004 5.6.3.24: in, unless something else is said
    d.out = q.out;
    d.value = rp_cim_null(d.type, d.array);
    method->parameters = rp_xrealloc(method->parameters, (method->parameter_count + 1) * sizeof *method->parameters);
    method->parameters[method->parameter_count++] = d;
    d = (struct rp_cim_declaration){0};
    return 0;
}

static int read_method(struct reader *r, struct rp_cim_class *class, struct rp_cim_declaration *result)
{
    RP_CLEANUP(rp_cim_method_clear) struct rp_cim_method method = {.schema = r->schema, .type = result->type};
    method.name = result->name;
    result->name = NULL;
    if (!accept(r, ")")) {
        do
            if (read_parameter(r, &method))
                return -1;
        while (accept(r, ","));
        if (require(r, ")"))
            return -1;
    }
    rp_cim_class_add_method(class, &method);
    return require(r, ";");
}

static int read_member(struct reader *r, struct rp_cim_class *class)
{
    struct qualifiers q;
    RP_CLEANUP(rp_cim_declaration_clear) struct rp_cim_declaration d = {0};
    if (read_qualifiers(r, &q) || read_type(r, &d) || !(d.name = take(r, WORD, "the name of a property or method")))
        return -1;
    if (accept(r, "("))
        return read_method(r, class, &d);
    if (read_array(r, &d) || read_default(r, &d) || require(r, ";"))
        return -1;
    if (class->property_count == MAX_PROPERTIES)
        return fail(r, "fewer properties");
    d.key = q.key;
    rp_cim_class_add_property(class, &d);
    return 0;
}

static int read_class(struct reader *r)
{
    struct qualifiers q;
    if (read_qualifiers(r, &q) || require(r, "class"))
        return -1;
    if (r->token == WORD && rp_cim_schema_class(r->schema, rp_buf_text(&r->text)))
        return fail(r, "a class that is not declared yet");
    RP_AUTO_FREE char *name = take(r, WORD, "the name of a class");
    if (!name)
        return -1;
    const struct rp_cim_class *super = NULL;
    if (accept(r, ":")) {
        super = r->token == WORD ? rp_cim_schema_class(r->schema, rp_buf_text(&r->text)) : NULL;
        if (!super)
            return fail(r, "a superclass that is declared already");
        next(r);
    }
    if (require(r, "{"))
        return -1;
    RP_CLEANUP(rp_cim_class_free_p) struct rp_cim_class *class = rp_cim_class_new(r->schema, name, super);
    class->abstract = q.abstract;
    class->association |= q.association;
    class->singleton |= q.singleton;
    while (!accept(r, "}"))
        if (read_member(r, class))
            return -1;
    if (require(r, ";"))
        return -1;
    rp_cim_schema_add(r->schema, class);
    class = NULL;
    return 0;
}

// #pragma namespace("…") has to be that of the schema; others are passed over.
static int read_pragma(struct reader *r)
{
    if (require(r, "pragma"))
        return -1;
    bool place = is(r, "namespace");
    RP_AUTO_FREE char *name = take(r, WORD, "the name of a pragma");
    if (!name || require(r, "("))
        return -1;
    if (place && (r->token != TEXT || strcasecmp(rp_buf_text(&r->text), r->schema->name_space)))
        return fail(r, r->schema->name_space);
    return read_constant(r) || require(r, ")") ? -1 : 0;
}

int rp_mof_read(struct rp_cim_schema *schema, const char *mof, size_t size, const char *origin, struct rp_error *err)
{
    struct reader r = {.schema = schema, .origin = origin, .p = mof, .end = mof + size, .line = 1, .err = err};
    int result = 0;
    next(&r);
    while (!result && r.token != END)
        result = accept(&r, "#") ? read_pragma(&r) : read_class(&r);
    rp_buf_clear(&r.text);
    return result;
}
