#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hostd/schema/schema.h"

static struct rp_cim_schema *virtualization, *cimv2;

static int load(void **state)
{
    (void)state;
    struct rp_error err = {0};
    virtualization = rp_hostd_schema("ROOT/virtualization/v2", &err);
    cimv2 = rp_hostd_schema(RP_HOSTD_CIMV2, &err);
    if (!virtualization || !cimv2)
        fail_msg("%s", err.text);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    rp_cim_schema_free(virtualization);
    rp_cim_schema_free(cimv2);
    return 0;
}

static const struct rp_cim_class *class_of(const char *name)
{
    const struct rp_cim_class *class = rp_cim_schema_class(strncmp(name, "Win32_", 6) ? virtualization : cimv2, name);
    if (!class)
        fail_msg("there is no class %s", name);
    return class;
}

static void both_namespaces_load_and_no_other(void **state)
{
    (void)state;
    struct rp_error err = {0};
    assert_true(rp_cim_schema_count(virtualization) > 90 && rp_cim_schema_count(cimv2) > 15);
    assert_null(rp_hostd_schema("root/default", &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void resolves(const struct rp_cim_class *class, const struct rp_cim_declaration *declaration)
{
    if (declaration->object_class && !rp_cim_schema_class(class->schema, declaration->object_class))
        fail_msg("%s: %s names an unknown class %s", class->name, declaration->name, declaration->object_class);
}

static void every_class_that_a_declaration_names_is_declared(void **state)
{
    (void)state;
    const struct rp_cim_schema *schemas[] = {virtualization, cimv2};
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < rp_cim_schema_count(schemas[s]); i++) {
            const struct rp_cim_class *class = rp_cim_schema_at(schemas[s], i);
            for (size_t p = 0; p < class->property_count; p++)
                resolves(class, &class->properties[p]);
            for (size_t m = 0; m < class->method_count; m++)
                for (size_t p = 0; p < class->methods[m].parameter_count; p++)
                    resolves(class, &class->methods[m].parameters[p]);
        }
    }
}

// The keys of a class in their order, with spaces between.
static void has_keys(const char *name, const char *wanted)
{
    const struct rp_cim_class *class = class_of(name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf keys = {0};
    for (size_t i = 0; i < class->property_count; i++)
        if (class->properties[i].key)
            rp_buf_printf(&keys, "%s%s", keys.size ? " " : "", class->properties[i].name);
    if (strcmp(rp_buf_text(&keys), wanted))
        fail_msg("%s has the keys \"%s\"", name, rp_buf_text(&keys));
}

static void keys_are_those_that_clients_select_by(void **state)
{
    (void)state;
    has_keys("Msvm_ComputerSystem", "CreationClassName Name");
    has_keys("Msvm_PlannedComputerSystem", "CreationClassName Name");
    has_keys("Msvm_VirtualSystemManagementService", "CreationClassName Name SystemCreationClassName SystemName");
    has_keys("Msvm_CollectionReferencePointService", "CreationClassName Name SystemCreationClassName SystemName");
    has_keys("Msvm_ShutdownComponent", "CreationClassName DeviceID SystemCreationClassName SystemName");
    has_keys("Msvm_VirtualSystemSettingData", "InstanceID");
    has_keys("Msvm_StorageAllocationSettingData", "InstanceID");
    has_keys("Msvm_ConcreteJob", "InstanceID");
    has_keys("Msvm_VirtualSystemReferencePoint", "InstanceID VirtualSystemIdentifier");
    has_keys("Msvm_ReferencePointCollection", "CollectionID");
    has_keys("Msvm_SummaryInformation", "InstanceID");
    has_keys("Msvm_AffectedJobElement", "AffectedElement AffectingElement");
    has_keys("Win32_ComputerSystem", "Name");
    has_keys("Win32_Processor", "DeviceID");
    has_keys("Win32_ComputerSystemProduct", "IdentifyingNumber Name Version");
    has_keys("Win32_OperatingSystem", "");
    assert_true(class_of("Win32_OperatingSystem")->singleton);
}

// Those that are only ever embedded have none.
static void every_class_with_instances_can_be_named_by_a_path(void **state)
{
    (void)state;
    static const char *const embedded[] =
        {"Msvm_VirtualHardDiskState", "Msvm_VHDSetInformation", "Msvm_VHDSnapshotInformation",
                                           "Msvm_Error"};
    const struct rp_cim_schema *schemas[] = {virtualization, cimv2};
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < rp_cim_schema_count(schemas[s]); i++) {
            const struct rp_cim_class *class = rp_cim_schema_at(schemas[s], i);
            bool expected = !class->abstract;
            for (size_t e = 0; e < sizeof embedded / sizeof *embedded; e++)
                expected &= strcmp(embedded[e], class->name) != 0;
            RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_class_instance(class);
            RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_class_path(class, instance);
            if (expected && !path)
                fail_msg("%s has no keys", class->name);
        }
    }
}

static void superclasses_are_those_that_queries_match_on(void **state)
{
    (void)state;
    static const struct { const char *class, *ancestor; bool is; } rows[] = {
        {"Msvm_VirtualSystemSettingData", "CIM_VirtualSystemSettingData", true},
        {"Msvm_VirtualSystemSettingData", "CIM_SettingData", true},
        {"Msvm_ComputerSystem", "CIM_ComputerSystem", true},
        {"Msvm_PlannedComputerSystem", "CIM_ComputerSystem", true},
        {"Msvm_PlannedComputerSystem", "Msvm_ComputerSystem", false},
        {"Msvm_ConcreteJob", "CIM_ConcreteJob", true},
        {"Msvm_StorageJob", "CIM_ConcreteJob", true},
        {"Msvm_VirtualSystemReferencePointExportJob", "CIM_ConcreteJob", true},
        {"Msvm_VirtualSystemReferencePointExportJob", "Msvm_ConcreteJob", false},
        {"Msvm_StorageAllocationSettingData", "CIM_ResourceAllocationSettingData", true},
        {"Msvm_StorageAllocationSettingData", "CIM_StorageAllocationSettingData", true},
        {"Msvm_StorageAllocationSettingData", "Msvm_ResourceAllocationSettingData", false},
        {"Msvm_EthernetPortAllocationSettingData", "CIM_ResourceAllocationSettingData", true},
        {"Msvm_SyntheticEthernetPortSettingData", "CIM_EthernetPortAllocationSettingData", true},
        {"Msvm_ProcessorSettingData", "CIM_ResourceAllocationSettingData", true},
        {"Msvm_VirtualSystemReferencePoint", "CIM_ManagedElement", true},
        {"Msvm_VirtualSystemManagementService", "CIM_Service", true},
        {"Msvm_ImageManagementService", "CIM_Service", true},
        {"Msvm_ShutdownComponent", "CIM_LogicalDevice", true},
        {"Msvm_DiskDrive", "CIM_MediaAccessDevice", true},
        {"Msvm_SnapshotOfVirtualSystem", "CIM_Dependency", true},
        {"Msvm_VirtualSystemSettingDataComponent", "CIM_Component", true},
        {"Msvm_SystemExportSettingData", "CIM_ElementSettingData", true},
        {"Win32_ComputerSystem", "CIM_ComputerSystem", true},
        {"Win32_ComputerSystemProcessor", "CIM_SystemDevice", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rp_cim_class_is_named(class_of(rows[i].class), rows[i].ancestor) != rows[i].is)
            fail_msg("%s and %s", rows[i].class, rows[i].ancestor);
}

static void has_signature(const char *class, const char *name, const char *wanted)
{
    const struct rp_cim_method *method = rp_cim_class_method(class_of(class), name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (!method)
        fail_msg("%s has no method %s", class, name);
    assert_int_equal(method->type, RP_CIM_UINT32);
    for (size_t i = 0; i < method->parameter_count; i++) {
        const struct rp_cim_declaration *p = &method->parameters[i];
        rp_buf_printf(&text, "%s%s%s %s%s %s%s", text.size ? ", " : "", p->in ? "in" : "", p->out ? "out" : "",
                      p->object_class ? p->object_class : rp_cim_type_name(p->type),
                      p->type == RP_CIM_REFERENCE ? " REF" : "", p->name, p->array ? "[]" : "");
    }
    if (strcmp(rp_buf_text(&text), wanted))
        fail_msg("%s.%s(%s)", class, name, rp_buf_text(&text));
}

static void methods_have_the_parameters_of_the_documentation(void **state)
{
    (void)state;
    has_signature("Msvm_VirtualSystemSnapshotService", "CreateSnapshot",
                  "in CIM_ComputerSystem REF AffectedSystem, in string SnapshotSettings, in uint16 SnapshotType, "
                  "inout CIM_VirtualSystemSettingData REF ResultingSnapshot, out CIM_ConcreteJob REF Job");
    has_signature("Msvm_VirtualSystemSnapshotService", "ConvertToReferencePoint",
                  "in CIM_VirtualSystemSettingData REF AffectedSnapshot, in string ReferencePointSettings, "
                  "inout Msvm_VirtualSystemReferencePoint REF ResultingReferencePoint, out CIM_ConcreteJob REF Job");
    has_signature("Msvm_VirtualSystemReferencePointService", "ExportReferencePoint",
                  "in Msvm_VirtualSystemReferencePoint REF ReferencePoint, in string ExportDirectory, in string "
                  "ExportSettingData, "
                  "out CIM_ConcreteJob REF Job");
    has_signature("Msvm_ImageManagementService", "GetVirtualDiskChanges",
                  "in string Path, in string LimitId, in string TargetSnapshotId, in uint64 ByteOffset, in uint64 "
                  "ByteLength, "
                  "out uint64 ProcessedByteLength, out uint64 ChangedByteOffsets[], out uint64 ChangedByteLengths[], "
                  "out CIM_ConcreteJob REF Job");
    has_signature("Msvm_VirtualSystemManagementService", "ImportSystemDefinition",
                  "in string SystemDefinitionFile, in string SnapshotFolder, in boolean GenerateNewSystemIdentifier, "
                  "out Msvm_PlannedComputerSystem REF ImportedSystem, out CIM_ConcreteJob REF Job");
    has_signature("Msvm_VirtualSystemManagementService", "AddResourceSettings",
                  "in CIM_VirtualSystemSettingData REF AffectedConfiguration, in string ResourceSettings[], "
                  "out CIM_ResourceAllocationSettingData REF ResultingResourceSettings[], out CIM_ConcreteJob REF Job");
    has_signature("Msvm_VirtualSystemManagementService", "GetSummaryInformation",
                  "in CIM_VirtualSystemSettingData REF SettingData[], in uint32 RequestedInformation[], "
                  "out Msvm_SummaryInformationBase SummaryInformation[]");
    has_signature("Msvm_ComputerSystem", "RequestStateChange",
                  "in uint16 RequestedState, out CIM_ConcreteJob REF Job, in datetime TimeoutPeriod");
    has_signature("Msvm_VirtualSystemSnapshotService", "RequestStateChange",
                  "in uint16 RequestedState, out CIM_ConcreteJob REF Job, in datetime TimeoutPeriod");
    has_signature("Msvm_ConcreteJob", "RequestStateChange", "in uint16 RequestedState, in datetime TimeoutPeriod");
    has_signature("Msvm_ConcreteJob", "GetErrorEx", "out string Errors[]");
    has_signature("Msvm_VirtualSystemReferencePointExportJob", "GetError", "out string Error");
    has_signature("Msvm_ShutdownComponent", "InitiateShutdown", "in boolean Force, in string Reason");
}

// Facts 1.6 counts them; a method that goes missing is noticed here.
static void services_have_all_their_methods(void **state)
{
    (void)state;
    static const struct { const char *class; size_t own; } rows[] = {
        {"Msvm_VirtualSystemSnapshotService", 6}, {"Msvm_VirtualSystemReferencePointService", 5},
        {"Msvm_VirtualSystemManagementService", 15}, {"Msvm_ImageManagementService", 20},
        {"Msvm_CollectionManagementService", 6}, {"Msvm_CollectionSnapshotService", 5},
        {"Msvm_CollectionReferencePointService", 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(class_of(rows[i].class)->method_count - class_of("CIM_Service")->method_count, rows[i].own);
}

// A client that misses one scalar rejects the whole instance (facts 2.6): the numbers are those of the documentation.
static void classes_have_all_their_properties(void **state)
{
    (void)state;
    static const struct { const char *class; size_t properties; } rows[] = {
        {"Msvm_ComputerSystem", 45}, {"Msvm_VirtualSystemSettingData", 60}, {"Msvm_ProcessorSettingData", 32},
        {"Msvm_MemorySettingData", 31}, {"Msvm_StorageAllocationSettingData", 41},
        {"Msvm_ResourceAllocationSettingData", 24},
        {"Msvm_SyntheticEthernetPortSettingData", 30}, {"Msvm_EthernetPortAllocationSettingData", 32},
        {"Msvm_ConcreteJob", 41}, {"Msvm_StorageJob", 44}, {"Msvm_ShutdownComponent", 38}, {"Msvm_Keyboard", 43},
        {"Msvm_VirtualSystemManagementService", 28}, {"Msvm_VirtualSystemExportSettingData", 15},
        {"Msvm_DiskDrive", 62},
        {"Msvm_VirtualSystemReferencePoint", 10}, {"Msvm_VirtualHardDiskSettingData", 18},
        {"Win32_OperatingSystem", 66},
        {"Win32_ComputerSystem", 64}, {"Win32_ComputerSystemProduct", 8}, {"Win32_Processor", 57},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (class_of(rows[i].class)->property_count != rows[i].properties)
            fail_msg("%s has %zu properties", rows[i].class, class_of(rows[i].class)->property_count);
}

static void defaults_are_the_documented_ones_and_no_placeholders(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job =
        rp_cim_class_instance(class_of("Msvm_ConcreteJob"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *service =
        rp_cim_class_instance(class_of("Msvm_VirtualSystemManagementService"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *disk =
        rp_cim_class_instance(class_of("Msvm_StorageAllocationSettingData"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm =
        rp_cim_class_instance(class_of("Msvm_ComputerSystem"));
    struct rp_cim_datetime left;
    assert_true(rp_cim_get_datetime(job, "TimeBeforeRemoval",
        &left) && left.interval && left.microseconds == 300000000);
    assert_int_equal(rp_cim_get_unsigned(job, "HealthState", 0), 5);
    assert_int_equal(rp_cim_get_unsigned(job, "OperationalStatus", 0), 2);
    assert_string_equal(rp_cim_get_text(service, "Name"), "vmms");
    assert_string_equal(rp_cim_get_text(service, "CreationClassName"), "Msvm_VirtualSystemManagementService");
    assert_true(rp_cim_get_boolean(service, "Started", false));
    assert_int_equal(rp_cim_get_unsigned(service, "RequestedState", 0), 12);
    assert_int_equal(rp_cim_get_unsigned(disk, "Limit", 0), 1);
    assert_string_equal(rp_cim_get_text(disk, "VirtualQuantityUnits"), "count(fixed size block)");
    assert_string_equal(rp_cim_get_text(disk, "SnapshotId"), "");
    assert_true(rp_cim_get(vm, "Name")->null);
    assert_string_equal(rp_cim_get_text(vm, "CreationClassName"), "Msvm_ComputerSystem");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_namespaces_load_and_no_other),
        cmocka_unit_test(every_class_that_a_declaration_names_is_declared),
        cmocka_unit_test(keys_are_those_that_clients_select_by),
        cmocka_unit_test(every_class_with_instances_can_be_named_by_a_path),
        cmocka_unit_test(superclasses_are_those_that_queries_match_on),
        cmocka_unit_test(methods_have_the_parameters_of_the_documentation),
        cmocka_unit_test(services_have_all_their_methods),
        cmocka_unit_test(classes_have_all_their_properties),
        cmocka_unit_test(defaults_are_the_documented_ones_and_no_placeholders),
    };
    return cmocka_run_group_tests_name("hostd schema", tests, load, unload);
}
