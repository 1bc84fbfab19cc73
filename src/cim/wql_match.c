// Whether an instance is what a query asks for.
#include <string.h>
#include <strings.h>

#include "cim/wql_internal.h"

struct subject {
    const struct rp_cim_class *class;
    const struct rp_cim_instance *instance;
    const char *server;
};

// Where an instance is; made when it did not come with a path.
static struct rp_cim_path *path_of(const struct subject *s)
{
    struct rp_cim_path *path = s->instance->path ? rp_cim_path_copy(s->instance->path)
                               : s->class ? rp_cim_class_path(s->class, s->instance) : NULL;
    if (path && !path->host && s->server)
        path->host = rp_xstrdup(s->server);
    return path;
}

static struct rp_cim_value text_value(struct rp_buf *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf taken = *text;
    return rp_cim_string(rp_buf_text(&taken));
}

bool rp_wql_system_property(const char *name, const struct rp_cim_class *class, const struct rp_cim_instance *instance,
                            const char *server, struct rp_cim_value *value)
{
    const struct subject s = {class, instance, server};
    struct rp_buf text = {0};
    if (!strcasecmp(name, "__CLASS")) {
        *value = rp_cim_string(instance->class_name);
    } else if (!strcasecmp(name, "__SERVER")) {
        *value = rp_cim_string(server);
    } else if (!strcasecmp(name, "__NAMESPACE")) {
        rp_buf_printf(&text, "%s", class ? rp_cim_schema_namespace(class->schema)
                                   : instance->name_space ? instance->name_space : "");
        for (size_t i = 0; i < text.size; i++)
            text.data[i] = text.data[i] == '/' ? '\\' : text.data[i];
        *value = text_value(&text);
    } else if (!strcasecmp(name, "__PATH") || !strcasecmp(name, "__RELPATH")) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = path_of(&s);
        if (path && strlen(name) == strlen("__PATH"))
            rp_cim_path_format(path, &text);
        else if (path)
            rp_cim_path_format_relative(path, &text);
        *value = path ? text_value(&text) : rp_cim_null(RP_CIM_STRING, false);
    } else {
        return false;
    }
    return true;
}

// The value of an operand, to be cleared; false for a property that there is not.
static bool fetch(const struct subject *s, const struct rp_wql_operand *operand, struct rp_cim_value *value)
{
    if (operand->literal) {
        *value = rp_cim_string(operand->text);
        return true;
    }
    if (rp_wql_system_property(operand->text, s->class, s->instance, s->server, value))
        return true;
    const struct rp_cim_value *stored = rp_cim_get(s->instance, operand->text);
    const struct rp_cim_declaration *declared = s->class ? rp_cim_class_property(s->class, operand->text) : NULL;
    if (stored)
        *value = rp_cim_value_copy(stored);
    else if (declared)
        *value = rp_cim_null(declared->type, declared->array);
    return stored || declared;
}

// Numbers of all types in one that holds them; a fraction only where somebody wrote one.
struct number {
    bool real;
    __int128 integer;
    double value;
};

static bool is_numeric(enum rp_cim_type type)
{
    return type >= RP_CIM_BOOLEAN && type <= RP_CIM_CHAR16;
}

static bool number_of(const struct rp_cim_value *value, struct number *out)
{
    struct rp_cim_value parsed = {0};
    *out = (struct number){0};
    if (value->type == RP_CIM_STRING || value->type == RP_CIM_NONE) {
        static const enum rp_cim_type tries[] = {RP_CIM_SINT64, RP_CIM_UINT64, RP_CIM_BOOLEAN, RP_CIM_REAL64};
        size_t i = 0;
        while (i < 4 && rp_cim_value_parse(tries[i], value->one.text, &parsed, NULL))
            i++;
        if (i == 4)
            return false;
    } else if (is_numeric(value->type)) {
        parsed = *value;
    } else {
        return false;
    }
    out->real = parsed.type == RP_CIM_REAL32 || parsed.type == RP_CIM_REAL64;
    if (out->real)
        out->value = parsed.one.real;
    else if (parsed.type == RP_CIM_BOOLEAN)
        out->integer = parsed.one.boolean;
    else
        out->integer = rp_cim_type_is_signed(parsed.type) ? (__int128)parsed.one.s : (__int128)parsed.one.u;
    if (!out->real)
        out->value = (double)out->integer;
    return true;
}

static bool holds(enum rp_wql_op op, int order)
{
    return op == RP_WQL_EQUAL ? order == 0 : op == RP_WQL_NOT_EQUAL ? order != 0 : op == RP_WQL_LESS ? order < 0
           : op == RP_WQL_LESS_EQUAL ? order <= 0 : op == RP_WQL_GREATER ? order > 0 : order >= 0;
}

static bool compare_numbers(enum rp_wql_op op, const struct rp_cim_value *left, const struct rp_cim_value *right)
{
    struct number a, b;
    if (!number_of(left, &a) || !number_of(right, &b))
        return false;
    if (!a.real && !b.real)
        return holds(op, a.integer < b.integer ? -1 : a.integer > b.integer);
    return a.value == a.value && b.value == b.value && // NaN is like nothing
           holds(op, a.value < b.value ? -1 : a.value > b.value);
}

static bool compare_datetimes(enum rp_wql_op op, const struct rp_cim_value *left, const struct rp_cim_value *right)
{
    struct rp_cim_datetime times[2];
    const struct rp_cim_value *sides[2] = {left, right};
    for (int i = 0; i < 2; i++) {
        bool text = sides[i]->type == RP_CIM_STRING || sides[i]->type == RP_CIM_NONE;
        if (sides[i]->type == RP_CIM_DATETIME)
            times[i] = sides[i]->one.datetime;
        else if (!text || rp_cim_datetime_parse(sides[i]->one.text, &times[i], NULL))
            return false;
    }
    if (times[0].interval != times[1].interval)
        return false;
    int64_t a = times[0].microseconds, b = times[1].microseconds;
    return holds(op, a < b ? -1 : a > b);
}

static bool compare_paths(enum rp_wql_op op, const struct rp_cim_path *left, const struct rp_cim_path *right)
{
    return (op == RP_WQL_EQUAL || op == RP_WQL_NOT_EQUAL) && holds(op, !rp_cim_path_equal(left, right));
}

static bool compare(const struct subject *s, const struct rp_wql_condition *c, const struct rp_cim_value *left,
                    const struct rp_cim_value *right)
{
    bool path = !strcasecmp(c->left.text, "__PATH") || !strcasecmp(c->left.text, "__RELPATH");
    if (c->right.path && path) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *own = path_of(s);
        return own && compare_paths(c->op, own, c->right.path);
    }
    if (left->type == RP_CIM_REFERENCE) {
        const struct rp_cim_path *other = right->type == RP_CIM_REFERENCE ? right->one.path : c->right.path;
        return other && compare_paths(c->op, left->one.path, other);
    }
    if (left->type == RP_CIM_OBJECT || right->type == RP_CIM_OBJECT)
        return false;
    if (is_numeric(left->type) || is_numeric(right->type))
        return compare_numbers(c->op, left, right);
    if (left->type == RP_CIM_DATETIME || right->type == RP_CIM_DATETIME)
        return compare_datetimes(c->op, left, right);
    RP_CLEANUP(rp_buf_clear) struct rp_buf a = {0}, b = {0};
    rp_cim_value_text(left, &a);
    rp_cim_value_text(right, &b);
    return holds(c->op, strcasecmp(rp_buf_text(&a), rp_buf_text(&b)));
}

static unsigned char fold(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c | 32 : c;
}

static size_t character(const char *text) // bytes of one in UTF-8
{
    size_t length = 1;
    while (((unsigned char)text[length] & 0xC0) == 0x80 && (unsigned char)*text >= 0xC0)
        length++;
    return length;
}

// One element of a pattern other than %, against the first character of `text`; what is after it goes to *after.
static bool matches_one(const char *pattern, const char *text, const char **after)
{
    const char *close = *pattern == '[' ? strchr(pattern + 2 - (pattern[1] == 0), ']') : NULL;
    if (!close) {
        size_t length = character(pattern);
        *after = pattern + length;
        if (*pattern == '_')
            return true;
        return length == 1 ? fold((unsigned char)*pattern) == fold((unsigned char)*text)
                           : !strncmp(pattern, text, length);
    }
    *after = close + 1;
    bool inside = false, inverted = pattern[1] == '^';
    const char *p = pattern + 1 + inverted;
    while (p < close) {
        size_t length = character(p);
        // a range of ASCII: a-f, or a=f as the first manuals of WQL have it
        if (length == 1 && (p[1] == '-' || p[1] == '=') && p + 2 < close) {
            inside |= fold((unsigned char)*text) >= fold((unsigned char)p[0]) &&
                      fold((unsigned char)*text) <= fold((unsigned char)p[2]);
            p += 3;
        } else {
            inside |= length == 1 ? fold((unsigned char)*p) == fold((unsigned char)*text) : !strncmp(p, text, length);
            p += length;
        }
    }
    return inside != inverted;
}

static bool like(const char *pattern, const char *text)
{
    const char *resume = NULL, *resume_text = NULL, *after; // behind the last %, and where its rest was tried
    while (*text) {
        if (*pattern == '%') {
            resume = ++pattern;
            resume_text = text;
        } else if (*pattern && matches_one(pattern, text, &after)) {
            pattern = after;
            text += character(text);
        } else if (resume) {
            pattern = resume;
            resume_text += character(resume_text);
            text = resume_text;
        } else {
            return false;
        }
    }
    while (*pattern == '%')
        pattern++;
    return !*pattern;
}

// What a condition is: SQL's three values, so that NOT does not make a match of what nobody knows.
enum truth { NO, UNKNOWN, YES };

static enum truth truth_of(bool holds)
{
    return holds ? YES : NO;
}

static enum truth is_a(const struct subject *s, const struct rp_wql_condition *c)
{
    if (!strcasecmp(c->left.text, "__CLASS") || !strcasecmp(c->left.text, "__THIS"))
        return truth_of(s->class ? rp_cim_class_is_named(s->class, c->right.text)
                                 : !strcasecmp(s->instance->class_name, c->right.text));
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value value = {0};
    if (!fetch(s, &c->left, &value) || rp_cim_value_is_null(&value))
        return UNKNOWN;
    if (value.array)
        return NO;
    const char *name = value.type == RP_CIM_REFERENCE ? value.one.path->class_name
                       : value.type == RP_CIM_OBJECT ? value.one.object->class_name : NULL;
    const struct rp_cim_class *class = name && s->class ? rp_cim_schema_class(s->class->schema, name) : NULL;
    return truth_of(class ? rp_cim_class_is_named(class, c->right.text) : name && !strcasecmp(name, c->right.text));
}

static enum truth comparison(const struct subject *s, const struct rp_wql_condition *c)
{
    RP_CLEANUP(rp_cim_value_clear) struct rp_cim_value left = {0}, right = {0};
    if (!fetch(s, &c->left, &left))
        return UNKNOWN;
    bool null = rp_cim_value_is_null(&left);
    if (c->op == RP_WQL_IS_NULL)
        return truth_of(null);
    if (null || !fetch(s, &c->right, &right) || rp_cim_value_is_null(&right))
        return UNKNOWN;
    if (left.array || right.array)
        return NO;
    if (c->op != RP_WQL_LIKE)
        return truth_of(compare(s, c, &left, &right));
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(&left, &text);
    return truth_of(like(c->right.text, rp_buf_text(&text)));
}

static enum truth evaluate(const struct subject *s, const struct rp_wql_condition *c)
{
    if (c->op == RP_WQL_NOT)
        return YES - evaluate(s, c->parts[0]);
    if (c->op != RP_WQL_AND && c->op != RP_WQL_OR)
        return c->op == RP_WQL_ISA ? is_a(s, c) : comparison(s, c);
    // the least of what an AND joins, the greatest of an OR
    enum truth decided = c->op == RP_WQL_AND ? NO : YES, result = YES - decided;
    for (size_t i = 0; i < c->count && result != decided; i++) {
        enum truth part = evaluate(s, c->parts[i]);
        if (c->op == RP_WQL_AND ? part < result : part > result)
            result = part;
    }
    return result;
}

bool rp_wql_match(const struct rp_wql *query, const struct rp_cim_class *class, const struct rp_cim_instance *instance,
                  const char *server)
{
    const struct subject s = {class, instance, server};
    return !query->condition || evaluate(&s, query->condition) == YES;
}

static const char *required(const struct rp_wql_condition *c, const char *property)
{
    const char *text = NULL;
    for (size_t i = 0; c->op == RP_WQL_AND && i < c->count && !text; i++)
        text = required(c->parts[i], property);
    bool equal = c->op == RP_WQL_EQUAL && c->right.literal && !strcasecmp(c->left.text, property);
    return equal ? c->right.text : text;
}

const char *rp_wql_required(const struct rp_wql *query, const char *property)
{
    return query->condition ? required(query->condition, property) : NULL;
}
