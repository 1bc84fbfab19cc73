// Hostile queries: parsed, and evaluated against an instance with properties of every type.
#include <stdlib.h>
#include <string.h>

#include "cim/wql.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char mof[] =
    "class Base { [key] string Id; }; class Thing : Base { string Name; string None; uint16 State; sint32 Low;"
    " uint64 Large; boolean On; real64 Part; datetime When; Base REF Other; uint16 List[]; Base Object; };";

static struct rp_cim_schema *schema;
static struct rp_cim_instance *thing;

static void setup(void)
{
    schema = rp_cim_schema_new("root/test");
    if (rp_cim_schema_load(schema, mof, sizeof mof - 1, "mof", NULL))
        abort();
    thing = rp_cim_class_instance(rp_cim_schema_class(schema, "Thing"));
    static const struct { const char *name, *text; } values[] = {
        {"Id", "Microsoft:A\\0"}, {"Name", "VM_1 50% [x] \xC3\xBC"}, {"State", "9"}, {"Low", "-5"},
        {"Large", "18446744073709551615"}, {"On", "true"}, {"Part", "1.5"}, {"When", "2026-01-02T03:04:05Z"},
        {"Other", "Base.Id='1'"}, {"List", "3"},
        {"Object", "<INSTANCE CLASSNAME='Base'/>"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        rp_cim_set(thing, values[i].name, rp_cim_string(values[i].text));
    if (rp_cim_class_type(rp_cim_schema_class(schema, "Thing"), thing, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!schema)
        setup();
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_wql_parse((const char *)data, size, NULL);
    if (!query)
        return 0;
    const struct rp_cim_class *class = rp_cim_schema_class(schema, "Thing");
    bool match = rp_wql_match(query, class, thing, "HV1");
    // whoever is told what a match must have may leave out all others
    const char *state = rp_wql_required(query, "State");
    struct rp_cim_value number = {0};
    if (match && state && (rp_cim_value_parse(RP_CIM_REAL64, state, &number, NULL) || number.one.real != 9) &&
        (rp_cim_value_parse(RP_CIM_UINT64, state, &number, NULL) || number.one.u != 9))
        abort();
    rp_wql_match(query, NULL, thing, NULL);
    return 0;
}
