// A host for the tests of the WMI connection: the real service (src/wsman) over instances that a test puts there,
// methods that a test answers, and answers that can be made to look as other services write them, lost, or replayed
// from files.
#ifndef TEST_HYPERV_FAKE_H
#define TEST_HYPERV_FAKE_H

#include "cim/provider.h"
#include "hyperv/wmi.h"
#include "wsman/server.h"

#define FAKE_A "A1B2C3D4-0000-4000-8000-00000000000A"
#define FAKE_B "A1B2C3D4-0000-4000-8000-00000000000B"
#define FAKE_JOB "0B0B0B0B-0000-4000-8000-000000000001"
#define FAKE_PATH "\\\\HV1\\root\\virtualization\\v2:"
#define FAKE_SETTINGS(id) "Msvm_VirtualSystemSettingData.InstanceID=\"Microsoft:" id "\""
#define FAKE_SYSTEM(id) "Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"" id "\""

enum fake_form {
    FAKE_OTHER_PREFIXES = 1, // none of the prefixes that ours has
    FAKE_NIL_ARRAYS = 2,     // an empty array is an element that is nil, as the specification has it
    FAKE_CIM_DATES = 4,      // 25 characters, without an element around them
    FAKE_DMTF_ITEMS = 8,     // Items in the namespace of enumerations
};
struct fake;
typedef void fake_method(struct fake *fake, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                         struct rp_cim_instance *out, uint32_t *status);
struct fake_answer {
    const char *method;
    fake_method *call;       // NULL: answers `status` and nothing else
    uint32_t status;
};
struct fake {
    struct rp_cim_provider v2, cimv2; // of one kind; the first is first
    struct rp_cim_schema *schemas[2];
    struct rp_cim_instances objects[2];
    const struct fake_answer *answers; // of a test, ended by a NULL method; others answer 32770
    struct rp_cim_instance *in;        // what the last method was given
    char log[4096];                    // "Method " of each call
    unsigned form;
    unsigned enumerations;             // requests that begin one
    int drop;                          // so many answers from now on are lost, after they were carried out
    const char *drop_method;           // the answer to this method is lost, once
    unsigned busy;                     // so many queries from now on are over a quota
    bool no_references;                // a query that wants references beside objects is a fault
    bool no_cimv2;                     // the user may not look into root/cimv2
    bool refuse;                       // requests are lost before anybody looks at them
    const char *replay;                // answers come from the recording in this folder
    char folder[96], socket[128], url[160];
    struct rp_wsman_service *service;
    struct rp_wsman_server *server;
};
struct fake *fake_start(void);         // with the services, Win32_OperatingSystem and the VM "web1", FAKE_A
void fake_stop(struct fake *fake);
struct rp_host_connection *fake_connect(struct fake *fake);
struct rp_host_connection *fake_connect_traced(struct fake *fake,
                                               void (*trace)(void *context, bool sent, const void *data, size_t size),
                                               void *context);
// "Name=value;Other=value" over the defaults of the class. Returns what was added.
struct rp_cim_instance *fake_add(struct fake *fake, const char *class_name, const char *properties);
void fake_set(struct rp_cim_instance *object, const struct fake *fake, const char *name, const char *value);
struct rp_cim_instance *fake_find(struct fake *fake, const char *class_name, const char *instance_id); // NULL
void fake_remove(struct fake *fake, const char *class_name, const char *instance_id);
void fake_vm(struct fake *fake, const char *guid, const char *name);
void fake_part(struct fake *fake, const char *guid, const char *place, const char *class_name, const char *properties);
void fake_disk(struct fake *fake, const char *guid, const char *place, const char *file); // "ctrl\\0\\1"
void fake_snapshot(struct fake *fake, const char *vm, const char *guid, const char *name);
void fake_point(struct fake *fake, const char *vm, const char *id, const char *name);
// A job in a state, and, `element` not NULL, what it made (the text of a path).
void fake_job(struct fake *fake, unsigned state, const char *element);
void fake_start_job(struct fake *fake, struct rp_cim_instance *out, uint32_t *status); // answers with FAKE_JOB

#endif
