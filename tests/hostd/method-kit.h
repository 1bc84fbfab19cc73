// A host behind its provider, without HTTP: what tests of the methods share. Every call goes through the class
// declarations as a request would, every result is found the way a client finds it (WQL, associators of a job).
#ifndef RP_TESTS_METHOD_KIT_H
#define RP_TESTS_METHOD_KIT_H

#include "../host/host-kit.h"
#include "hostd/hostd.h"

struct mk {
    char *folder, *files;        // files: where clients may name files
    struct rp_hostd *hostd;
    struct rp_cim_provider *provider;
    struct rp_cim_caller caller; // an administrator
};
void mk_start(struct mk *mk);
void mk_start_in(struct mk *mk, char *folder); // of an earlier life; taken
void mk_stop(struct mk *mk);

// ---- values for the calls below: name, value, …, NULL ---------------------------------------------------------------

struct rp_cim_value mk_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct rp_cim_value mk_texts(const char *first, ...);  // an array; ends with NULL
struct rp_cim_value mk_number(uint64_t number);
struct rp_cim_value mk_flag(bool flag);
struct rp_cim_value mk_ref(const struct rp_cim_path *path); // a copy
struct rp_cim_value mk_refs(size_t count, const struct rp_cim_path *const *paths);
char *mk_embed(const char *class_name, ...);           // CIM-XML, to be freed
char *mk_path_text(const struct rp_cim_path *path);

// ---- methods --------------------------------------------------------------------------------------------------------

#define SNAPSHOTS "Msvm_VirtualSystemSnapshotService"
#define POINTS "Msvm_VirtualSystemReferencePointService"
#define MANAGEMENT "Msvm_VirtualSystemManagementService"
#define IMAGES "Msvm_ImageManagementService"

// ReturnValue. *out (may be NULL) gets the out parameters, typed.
uint32_t mk_call(struct mk *mk, const char *class_name, const char *method, struct rp_cim_instance **out, ...);
uint32_t mk_call_on(struct mk *mk, const struct rp_cim_path *object, const char *method, struct rp_cim_instance **out,
                    ...);
// The call must start a job; waits for its end and gives the job. Frees *out.
struct rp_cim_instance *mk_wait(struct mk *mk, uint32_t status, struct rp_cim_instance **out);
// And the job must succeed; the path of the one instance of `result_class` that it affects (NULL class: none is asked
// for).
struct rp_cim_path *mk_made(struct mk *mk, uint32_t status, struct rp_cim_instance **out, const char *result_class);
// And it must fail with a text that holds `word`.
void mk_failed(struct mk *mk, uint32_t status, struct rp_cim_instance **out, const char *word);

// ---- objects --------------------------------------------------------------------------------------------------------

struct rp_cim_instances mk_query(struct mk *mk, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct rp_cim_instance *mk_one(struct mk *mk, const char *format, ...)
    __attribute__((format(printf, 2, 3))); // exactly one
size_t mk_count(struct mk *mk, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct rp_cim_path *mk_settings(struct mk *mk, const char *vm_id);  // of a VM, by its id
char *mk_file(struct mk *mk, const char *name);                     // a path in `files`

// A VM with `count` empty disks in `files`: defined through the service. Its id.
void mk_define(struct mk *mk, const char *name, size_t count, uint64_t size, char id[RP_HOST_ID]);
struct rp_cim_path *mk_vm(struct mk *mk, const char *id);
struct rp_cim_path *mk_snapshot(struct mk *mk, const char *vm_id, unsigned type, const char *name);
struct rp_cim_path *mk_convert(struct mk *mk, const struct rp_cim_path *snapshot);
void mk_wait_merged(struct mk *mk, const char *vm_id);
// The guest of a VM that is off writes units of 64 KiB: every `step`-th, `count` of them, from unit `first` on.
void mk_write(struct mk *mk, const char *vm_id, unsigned disk, uint64_t first, uint64_t count, uint64_t step,
              uint8_t byte);
// HostResource[0] of disk `index` in settings, as a client finds it.
char *mk_disk_path(struct mk *mk, const struct rp_cim_path *settings, size_t index);

#endif
