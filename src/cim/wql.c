// The parser: recursive descent over the text, no token is kept.
#include "cim/wql.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cim/name.h"
#include "cim/wql_internal.h"

#define MAX_DEPTH 64
#define MAX_COLUMNS 256
#define MAX_COMPARISONS 1000
#define MAX_PATTERN 1024 // bytes: matching costs their product with those of the value

struct parser {
    const char *start, *p, *end;
    unsigned depth, comparisons;
    struct rp_error *err;
};

static int fail(struct parser *s, const char *expected)
{
    size_t left = (size_t)(s->end - s->p);
    return rp_fail(s->err, RP_ERR_INVALID, "WQL: at character %zu: expected %s, found %s%.*s",
                   (size_t)(s->p - s->start) + 1, expected, left ? "" : "the end", (int)(left < 40 ? left : 40), s->p);
}

static void skip_blanks(struct parser *s)
{
    while (s->p < s->end && *s->p && strchr(" \t\r\n", *s->p))
        s->p++;
}

static size_t name_length(const struct parser *s)
{
    size_t length = 0;
    while (s->p + length < s->end && rp_cim_in_name(s->p[length]))
        length++;
    return length && s->p[0] >= '0' && s->p[0] <= '9' ? 0 : length;
}

static bool accept_word(struct parser *s, const char *word)
{
    skip_blanks(s);
    size_t length = strlen(word);
    if (name_length(s) != length || strncasecmp(s->p, word, length))
        return false;
    s->p += length;
    return true;
}

static bool accept_sign(struct parser *s, const char *sign)
{
    skip_blanks(s);
    size_t length = strlen(sign);
    if ((size_t)(s->end - s->p) < length || memcmp(s->p, sign, length))
        return false;
    s->p += length;
    return true;
}

static char *cut(const char *from, size_t length)
{
    char *text = rp_xmalloc(length + 1);
    memcpy(text, from, length);
    text[length] = 0;
    return text;
}

static char *read_name(struct parser *s, const char *expected)
{
    skip_blanks(s);
    size_t length = name_length(s);
    if (!length) {
        fail(s, expected);
        return NULL;
    }
    s->p += length;
    return cut(s->p - length, length);
}

// A backslash escapes itself and quotes; before anything else it is one that a client forgot to double.
static char *read_string(struct parser *s)
{
    const char *start = s->p;
    char quote = *s->p++;
    struct rp_buf text = {0};
    for (; s->p < s->end && *s->p && *s->p != quote; s->p++) {
        if (*s->p == '\\' && s->p + 1 < s->end && s->p[1] && strchr("\\\"'", s->p[1]))
            s->p++;
        rp_buf_append_u8(&text, (uint8_t)*s->p);
    }
    if (s->p == s->end || !*s->p) {
        s->p = start;
        rp_buf_clear(&text);
        fail(s, "a text that ends");
        return NULL;
    }
    s->p++;
    rp_buf_text(&text);
    return (char *)text.data;
}

static bool at_quote(struct parser *s)
{
    skip_blanks(s);
    return s->p < s->end && (*s->p == '"' || *s->p == '\'');
}

// A property, a text, a number, TRUE, FALSE, or NULL (text NULL).
static int read_operand(struct parser *s, struct rp_wql_operand *operand)
{
    *operand = (struct rp_wql_operand){.literal = true};
    if (at_quote(s))
        return (operand->text = read_string(s)) ? 0 : -1;
    size_t length = 0;
    while (s->p + length < s->end && s->p[length] && strchr("+-.0123456789abcdefABCDEFxX", s->p[length]))
        length++;
    if (length && strchr("+-.0123456789", *s->p)) {
        operand->text = cut(s->p, length);
        s->p += length;
        return 0;
    }
    if (accept_word(s, "null"))
        return 0;
    if (!(operand->text = read_name(s, "a property or a value")))
        return -1;
    operand->literal = !strcasecmp(operand->text, "true") || !strcasecmp(operand->text, "false");
    return 0;
}

static void clear_operand(struct rp_wql_operand *operand)
{
    free(operand->text);
    rp_cim_path_free(operand->path);
}

static void free_condition(struct rp_wql_condition *condition)
{
    if (!condition)
        return;
    for (size_t i = 0; i < condition->count; i++)
        free_condition(condition->parts[i]);
    free(condition->parts);
    clear_operand(&condition->left);
    clear_operand(&condition->right);
    free(condition);
}
RP_DEFINE_CLEANUP(struct rp_wql_condition, free_condition)

static int read_operator(struct parser *s, enum rp_wql_op *op)
{
    static const struct { const char *sign; enum rp_wql_op op; } signs[] = {
        {"!=", RP_WQL_NOT_EQUAL}, {"<>", RP_WQL_NOT_EQUAL}, {"<=", RP_WQL_LESS_EQUAL}, {">=", RP_WQL_GREATER_EQUAL},
        {"=", RP_WQL_EQUAL}, {"<", RP_WQL_LESS}, {">", RP_WQL_GREATER},
    };
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (accept_sign(s, signs[i].sign)) {
            *op = signs[i].op;
            return 0;
        }
    if (accept_word(s, "like"))
        *op = RP_WQL_LIKE;
    else if (accept_word(s, "isa"))
        *op = RP_WQL_ISA;
    else if (accept_word(s, "is"))
        *op = RP_WQL_IS_NULL;
    else
        return fail(s, "a comparison");
    return 0;
}

static struct rp_wql_condition *new_condition(enum rp_wql_op op)
{
    struct rp_wql_condition *condition = rp_xcalloc(1, sizeof *condition);
    condition->op = op;
    return condition;
}

static void add_part(struct rp_wql_condition *whole, struct rp_wql_condition *part)
{
    if (!(whole->count & (whole->count - 1)))
        whole->parts = rp_xrealloc(whole->parts, (whole->count ? whole->count * 2 : 1) * sizeof *whole->parts);
    whole->parts[whole->count++] = part;
}

static struct rp_wql_condition *negated(struct rp_wql_condition *condition)
{
    struct rp_wql_condition *not = new_condition(RP_WQL_NOT);
    add_part(not, condition);
    return not;
}

// LIKE 'pattern', ISA "Class", ISA Class.
static int read_right_text(struct parser *s, struct rp_wql_condition *c)
{
    c->right.literal = true;
    if (at_quote(s))
        c->right.text = read_string(s);
    else if (c->op == RP_WQL_ISA)
        c->right.text = read_name(s, "the name of a class");
    else
        return fail(s, "a pattern in quotes");
    if (c->op == RP_WQL_LIKE && c->right.text && strlen(c->right.text) > MAX_PATTERN)
        return fail(s, "a shorter pattern");
    return c->right.text ? 0 : -1;
}

// "5 < x" is "x > 5".
static void turn(struct rp_wql_condition *c)
{
    static const enum rp_wql_op turned[] = {
        [RP_WQL_EQUAL] = RP_WQL_EQUAL, [RP_WQL_NOT_EQUAL] = RP_WQL_NOT_EQUAL, [RP_WQL_LESS] = RP_WQL_GREATER,
        [RP_WQL_LESS_EQUAL] = RP_WQL_GREATER_EQUAL, [RP_WQL_GREATER] = RP_WQL_LESS,
        [RP_WQL_GREATER_EQUAL] = RP_WQL_LESS_EQUAL,
    };
    struct rp_wql_operand left = c->left;
    c->left = c->right;
    c->right = left;
    c->op = turned[c->op];
}

static struct rp_wql_condition *read_comparison(struct parser *s)
{
    RP_CLEANUP(free_condition_p) struct rp_wql_condition *c = new_condition(RP_WQL_EQUAL);
    struct rp_wql_condition *done = NULL;
    bool not = false;
    if (++s->comparisons > MAX_COMPARISONS) {
        fail(s, "fewer comparisons");
        return NULL;
    }
    if (read_operand(s, &c->left) || read_operator(s, &c->op))
        return NULL;
    if (c->op == RP_WQL_IS_NULL) {
        not = accept_word(s, "not");
        if (!accept_word(s, "null")) {
            fail(s, "NULL");
            return NULL;
        }
    } else if (c->op == RP_WQL_LIKE || c->op == RP_WQL_ISA) {
        if (read_right_text(s, c))
            return NULL;
    } else if (read_operand(s, &c->right)) {
        return NULL;
    }
    if (c->left.literal && !c->right.literal && c->op >= RP_WQL_EQUAL && c->op <= RP_WQL_GREATER_EQUAL)
        turn(c);
    if (c->left.literal) {
        fail(s, "a property in the comparison");
        return NULL;
    }
    if (c->right.literal && !c->right.text) { // = NULL and != NULL are taken as IS [NOT] NULL
        if (c->op != RP_WQL_EQUAL && c->op != RP_WQL_NOT_EQUAL) {
            fail(s, "IS NULL");
            return NULL;
        }
        not = c->op == RP_WQL_NOT_EQUAL;
        c->op = RP_WQL_IS_NULL;
    }
    if (c->right.literal && (c->op == RP_WQL_EQUAL || c->op == RP_WQL_NOT_EQUAL))
        c->right.path = rp_cim_path_parse(c->right.text, NULL);
    done = not ? negated(c) : c;
    c = NULL;
    return done;
}

static struct rp_wql_condition *read_or(struct parser *s);

static struct rp_wql_condition *read_nested(struct parser *s, bool not)
{
    if (s->depth == MAX_DEPTH) {
        fail(s, "less nesting");
        return NULL;
    }
    s->depth++;
    struct rp_wql_condition *inner;
    if (not) {
        bool parenthesis = accept_sign(s, "(");
        inner = parenthesis ? read_nested(s, false) : accept_word(s, "not") ? read_nested(s, true) : read_comparison(s);
        inner = inner ? negated(inner) : NULL;
    } else {
        inner = read_or(s);
        if (inner && !accept_sign(s, ")")) {
            fail(s, "\")\"");
            free_condition(inner);
            inner = NULL;
        }
    }
    s->depth--;
    return inner;
}

static struct rp_wql_condition *read_term(struct parser *s)
{
    if (accept_sign(s, "("))
        return read_nested(s, false);
    return accept_word(s, "not") ? read_nested(s, true) : read_comparison(s);
}

static struct rp_wql_condition *read_chain(struct parser *s, const char *word, enum rp_wql_op op,
                                           struct rp_wql_condition *(*part)(struct parser *))
{
    RP_CLEANUP(free_condition_p) struct rp_wql_condition *first = part(s);
    if (first && accept_word(s, word)) {
        struct rp_wql_condition *whole = new_condition(op);
        add_part(whole, first);
        first = whole;
        do {
            struct rp_wql_condition *next = part(s);
            if (!next)
                return NULL;
            add_part(whole, next);
        } while (accept_word(s, word));
    }
    struct rp_wql_condition *done = first;
    first = NULL;
    return done;
}

static struct rp_wql_condition *read_and(struct parser *s)
{
    return read_chain(s, "and", RP_WQL_AND, read_term);
}

static struct rp_wql_condition *read_or(struct parser *s)
{
    return read_chain(s, "or", RP_WQL_OR, read_and);
}

static int read_select(struct parser *s, struct rp_wql *query)
{
    if (!accept_sign(s, "*")) {
        do {
            char *column = read_name(s, "a column or *");
            if (!column)
                return -1;
            if (!(query->column_count & (query->column_count - 1)))
                query->columns = rp_xrealloc(query->columns, (query->column_count ? query->column_count * 2 : 1) *
                                                                 sizeof *query->columns);
            query->columns[query->column_count++] = column;
            if (query->column_count == MAX_COLUMNS)
                return fail(s, "fewer columns");
        } while (accept_sign(s, ","));
    }
    if (!accept_word(s, "from"))
        return fail(s, "FROM");
    if (!(query->class_name = read_name(s, "the name of a class")))
        return -1;
    if (accept_word(s, "where") && !(query->condition = read_or(s)))
        return -1;
    return 0;
}

// {path}: up to the brace that is outside of quotes.
static int read_source(struct parser *s, struct rp_wql *query)
{
    if (!accept_word(s, "of"))
        return fail(s, "OF");
    if (!accept_sign(s, "{"))
        return fail(s, "\"{\"");
    const char *start = s->p;
    char quote = 0;
    for (; s->p < s->end && *s->p && (quote || *s->p != '}'); s->p++) {
        if (quote && *s->p == '\\' && s->p + 1 < s->end)
            s->p++;
        else if (quote)
            quote = *s->p == quote ? 0 : quote;
        else if (*s->p == '"' || *s->p == '\'')
            quote = *s->p;
    }
    if (s->p >= s->end || !*s->p) {
        s->p = start;
        return fail(s, "\"}\" after the path");
    }
    RP_AUTO_FREE char *text = cut(start, (size_t)(s->p - start));
    s->p++;
    query->source = rp_cim_path_parse(text, s->err);
    return query->source ? 0 : rp_context(s->err, "WQL");
}

// [WHERE] term term …, in any order, without AND between them.
static int read_terms(struct parser *s, struct rp_wql *query)
{
    bool associators = query->kind == RP_WQL_ASSOCIATORS;
    const struct { const char *name; bool always; char **value; } terms[] = {
        {"ResultClass", true, &query->result_class}, {"Role", true, &query->role},
        {"AssocClass", false, &query->assoc_class}, {"ResultRole", false, &query->result_role},
    };
    if (!accept_word(s, "where"))
        return 0;
    for (;;) {
        skip_blanks(s);
        if (s->p == s->end)
            return 0;
        if (accept_word(s, "ClassDefsOnly")) {
            query->class_defs_only = true;
            continue;
        }
        if (accept_word(s, "KeysOnly")) {
            query->keys_only = true;
            continue;
        }
        size_t i = 0;
        while (i < 4 && !((terms[i].always || associators) && accept_word(s, terms[i].name)))
            i++;
        if (i == 4)
            return fail(s, associators ? "AssocClass, ResultClass, Role, ResultRole, ClassDefsOnly or KeysOnly"
                                       : "ResultClass, Role, ClassDefsOnly or KeysOnly");
        if (!accept_sign(s, "="))
            return fail(s, "\"=\"");
        free(*terms[i].value);
        if (!(*terms[i].value = at_quote(s) ? read_string(s) : read_name(s, "a name")))
            return -1;
    }
}

struct rp_wql *rp_wql_parse(const char *text, size_t size, struct rp_error *err)
{
    if (size > RP_WQL_MAX_TEXT) {
        rp_fail(err, RP_ERR_INVALID, "WQL: %zu bytes are more than the %d accepted", size, RP_WQL_MAX_TEXT);
        return NULL;
    }
    struct parser s = {.start = text, .p = text, .end = text + size, .err = err};
    struct rp_wql *query = rp_xcalloc(1, sizeof *query);
    bool associators;
    int result;
    if (accept_word(&s, "select")) {
        query->kind = RP_WQL_SELECT;
        result = read_select(&s, query);
    } else if ((associators = accept_word(&s, "associators")) || accept_word(&s, "references")) {
        query->kind = associators ? RP_WQL_ASSOCIATORS : RP_WQL_REFERENCES;
        result = read_source(&s, query) || read_terms(&s, query) ? -1 : 0;
    } else {
        result = fail(&s, "SELECT, ASSOCIATORS or REFERENCES");
    }
    skip_blanks(&s);
    if (!result && s.p != s.end)
        result = fail(&s, "the end");
    if (!result)
        return query;
    rp_wql_free(query);
    return NULL;
}

void rp_wql_free(struct rp_wql *query)
{
    if (!query)
        return;
    for (size_t i = 0; i < query->column_count; i++)
        free(query->columns[i]);
    free(query->columns);
    free_condition(query->condition);
    rp_cim_path_free(query->source);
    free(query->class_name);
    free(query->assoc_class);
    free(query->result_class);
    free(query->role);
    free(query->result_role);
    free(query);
}
