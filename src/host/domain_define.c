#include "host/domain_define.h"
#include "host/domain_xml.h"

#include <ctype.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/domain_settings.h"
#include "host/domain_state.h"
#include "host/local.h"

// ---- the host's settings --------------------------------------------------------------------------------------------

static int load_setting(struct rp_db *db, const char *name, char **value, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(db, err, "SELECT value FROM setting WHERE name = ?", "t", name);
    int rc = query ? rp_db_step(db, query, err) : -1;
    *value = rc < 0 ? NULL : rp_xstrdup(rc ? rp_db_text(query, 0) : "");
    return rc < 0 ? -1 : 0;
}

void rp_local_hosting_clear(struct rp_local_hosting *hosting)
{
    free(hosting->hypervisor);
    free(hosting->network);
    *hosting = (struct rp_local_hosting){0};
}

int rp_local_hosting_load(struct rp_local *local, struct rp_local_hosting *hosting, struct rp_error *err)
{
    RP_AUTO_FREE char *accelerator = NULL;
    *hosting = (struct rp_local_hosting){0};
    if (load_setting(local->db, "hypervisor", &hosting->hypervisor, err) ||
        load_setting(local->db, "network", &hosting->network, err) ||
        load_setting(local->db, "accelerator", &accelerator, err)) {
        rp_local_hosting_clear(hosting);
        return -1;
    }
    hosting->emulated = !strcmp(accelerator, "tcg") || (strcmp(accelerator, "kvm") && access("/dev/kvm", R_OK | W_OK));
    return 0;
}

static bool is_plain(const char *text, size_t most)
{
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~' || strchr("\"'<>&", *c))
            return false;
    return strlen(text) <= most;
}

int rp_host_local_set_hypervisor(struct rp_host_connection *host, const char *uri, const char *network,
                                 const char *accelerator, struct rp_error *err)
{
    struct rp_db *db = rp_local_of(host)->db;
    const char *const values[][2] = {{"hypervisor", uri}, {"network", network}, {"accelerator", accelerator}};
    if (uri && *uri && (!is_plain(uri, 1024) || !strstr(uri, ":/")))
        return rp_fail(err, RP_ERR_INVALID, "hypervisor \"%.200s\": give a URI of libvirt's, such as qemu:///system",
                       uri);
    if (network && !is_plain(network, 64))
        return rp_fail(err, RP_ERR_INVALID,
                       "network \"%.100s\": give the name of one of libvirt's networks, or \"user\"", network);
    if (accelerator && *accelerator && strcmp(accelerator, "kvm") && strcmp(accelerator, "tcg"))
        return rp_fail(err, RP_ERR_INVALID, "accelerator \"%.40s\": kvm or tcg", accelerator);
    bool same = true;
    for (size_t i = 0; same && i < sizeof values / sizeof *values; i++) {
        RP_AUTO_FREE char *now = NULL;
        if (load_setting(db, values[i][0], &now, err))
            return -1;
        same = !strcmp(now, values[i][1] ? values[i][1] : "");
    }
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (same) // at each start of a service
        return 0;
    if (rp_transaction_begin(&t, db, err))
        return -1;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (rp_db_run(db, err,
                      "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
                      "tt", values[i][0], values[i][1] ? values[i][1] : ""))
            return -1;
    return rp_transaction_commit(&t, err);
}

// ---- a VM is made ---------------------------------------------------------------------------------------------------

static const struct rp_hypervisor_ops *ops(void) { return rp_hypervisor_ops(); }

// 1 there is a domain of that name or UUID, 0 none, -1 error.
static int domain_is_there(struct rp_hypervisor *hv, const char *name, char uuid[RP_GUID_TEXT], struct rp_error *err)
{
    struct rp_error why = {0};
    if (!ops()->find(hv, name, uuid, NULL, &why))
        return 1;
    return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
}

int rp_local_domain_check_free(const struct rp_local_hosting *hosting, const char *id, struct rp_error *err)
{
    char uuid[RP_GUID_TEXT];
    if (!*hosting->hypervisor)
        return 0;
    struct rp_hypervisor *hv = rp_local_domain_open_uri(hosting->hypervisor, err);
    int rc = hv ? domain_is_there(hv, id, uuid, err) : -1;
    return rc <= 0
               ? rc
               : rp_fail(
                     err, RP_ERR_EXISTS,
                     "%s has a domain with the UUID %s already: make the VM with a new identity, or undefine that one",
                     hosting->hypervisor, id);
}

int rp_local_domain_announce(struct rp_local_vm *vm, const struct rp_local_hosting *hosting, struct rp_error *err)
{
    if (rp_db_run(vm->local->db, err, "UPDATE vm SET hypervisor = ?, domain = ? WHERE row = ?", "tti",
                  hosting->hypervisor, *hosting->hypervisor ? vm->id : "", vm->row))
        return -1;
    return rp_local_vm_load_row(vm->local, vm->row, vm, err) == 1 ? 0 : -1;
}

static void log_remark(void *context, const char *text)
{
    const struct rp_local_vm *vm = context;
    rp_log(RP_LOG_WARNING, "VM %s (%s): %s", vm->name, vm->id, text);
}

// The VM's name, unless another domain has it.
static char *free_name(const struct rp_local_vm *vm, struct rp_hypervisor *hv, struct rp_error *err)
{
    char uuid[RP_GUID_TEXT];
    int rc = domain_is_there(hv, vm->name, uuid, err);
    if (rc < 0)
        return NULL;
    return rc == 0 || !strcasecmp(uuid, vm->id) ? rp_xstrdup(vm->name) : rp_xasprintf("%s (%.8s)", vm->name, vm->id);
}

// Two adapters of one address on a network cut each other off: a copy of a VM that is here too gets other ones.
static int check_macs(const struct rp_local_vm *vm, const struct rp_domain_settings *settings, bool *taken,
                      struct rp_error *err)
{
    *taken = false;
    for (size_t i = 0; i < settings->nic_count && !*taken; i++) {
        const uint8_t *mac = settings->nics[i].mac;
        RP_AUTO_FREE char *text =
            rp_xasprintf("%02X%02X%02X%02X%02X%02X", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
        int64_t others = 0;
        if (settings->nics[i].has_mac &&
            rp_db_number(vm->local->db, err, &others,
                         "SELECT count(*) FROM vm WHERE row <> ? AND hypervisor <> '' AND instr(upper(extras), ?)",
                         "it", vm->row, text))
            return -1;
        *taken = others > 0;
    }
    if (*taken)
        rp_log(RP_LOG_WARNING, "VM %s (%s): another VM has its adapters' addresses: it gets new ones", vm->name,
               vm->id);
    return 0;
}

// A file that its settings name is given to the guest: only one that an administrator of this host has given to one
// before.
static int check_kernel(const struct rp_local_vm *vm, const struct rp_domain_settings *settings, bool *fine,
                        struct rp_error *err)
{
    RP_AUTO_FREE char *kernel = rp_xasprintf("<kernel>%s</kernel>", settings->kernel),
                      *initrd =
                          *settings->initrd ? rp_xasprintf("<initrd>%s</initrd>", settings->initrd) : rp_xstrdup("");
    int64_t known = 0;
    *fine = false;
    if (*settings->kernel && rp_db_number(vm->local->db, err, &known,
                                          "SELECT count(*) FROM vm WHERE hypervisor = ? AND state = 'ready' AND "
                                          "instr(domain_xml, ?) AND instr(domain_xml, ?)",
                                          "ttt", vm->hypervisor, kernel, *initrd ? initrd : kernel))
        return -1;
    *fine = known > 0;
    return 0;
}

static uint64_t host_memory_mib(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? ((uint64_t)pages * (uint64_t)size) >> 20 : 0;
}

static char *definition(const struct rp_local_vm *vm, const struct rp_local_hosting *hosting,
                        const struct rp_local_new_vm *facts, const char *extras, size_t disk_count,
                        struct rp_domain_target *targets, struct rp_error *err)
{
    const struct rp_domain_remarks remarks = {log_remark, (void *)vm};
    struct rp_domain_settings settings;
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    RP_AUTO_FREE char *name = hv ? free_name(vm, hv, err) : NULL, *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    RP_AUTO_FREE char *nvram = rp_domain_state_nvram(vm->hypervisor, vm->id);
    bool new_macs, host_kernel;
    if (!name || rp_domain_settings_of_extras(extras, &settings, &remarks, err) ||
        check_macs(vm, &settings, &new_macs, err) || check_kernel(vm, &settings, &host_kernel, err))
        return NULL;
    if (!settings.generation)
        settings.generation = (unsigned)facts->generation;
    const struct rp_domain_xml_options options = {.name = name,
                                                  .id = vm->id,
                                                  .socket = socket,
                                                  .numbers = facts->numbers,
                                                  .disk_count = disk_count,
                                                  .emulated = hosting->emulated,
                                                  .network = *hosting->network ? hosting->network : NULL,
                                                  .new_macs = new_macs,
                                                  .host_kernel = host_kernel,
                                                  .nvram = nvram,
                                                  .memory_limit_mib = host_memory_mib()};
    return rp_domain_settings_to_xml(&settings, &options, targets, &remarks, err);
}

// Its first start finds the firmware's variables and the TPM as they were.
static int put_state(const struct rp_local_vm *vm, struct rp_hypervisor *hv, const struct rp_domain_state_files *state,
                     struct rp_error *err)
{
    RP_CLEANUP(rp_domain_state_places_clear) struct rp_domain_state_places places = {0};
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_AUTO_FREE char *text = NULL;
    char uuid[RP_GUID_TEXT];
    unsigned left_out = 0;
    if (!state->count)
        return 0;
    if (ops()->find(hv, vm->domain, uuid, &text, err) || rp_domain_xml_parse(text, &xml, err))
        return -1;
    rp_domain_state_places(vm->hypervisor, &xml, &places);
    if (rp_domain_state_write(&places, state, &left_out, err))
        return -1;
    if (left_out)
        rp_log(RP_LOG_WARNING, "VM %s (%s): its domain has no place for %u files of its firmware's state", vm->name,
               vm->id, left_out);
    return 0;
}

static int note(const struct rp_local_vm *vm, const char *extras, const struct rp_domain_target *targets, size_t count,
                struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) ||
        rp_db_run(db, err, "UPDATE vm SET extras = ? WHERE row = ?", "ti", extras, vm->row) ||
        rp_db_run(db, err, "DELETE FROM domain_disk WHERE vm = ?", "i", vm->row))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (rp_db_run(db, err, "INSERT INTO domain_disk (vm, number, target, source, format) VALUES (?, ?, ?, '', '')",
                      "iit", vm->row, (int64_t)targets[i].number, targets[i].target))
            return -1;
    return rp_transaction_commit(&t, err);
}

int rp_local_domain_make(struct rp_local_vm *vm, const struct rp_local_hosting *hosting,
                         const struct rp_local_new_vm *facts, size_t disk_count, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files state = {0};
    RP_AUTO_FREE char *extras = NULL;
    struct rp_domain_target targets[RP_ENGINE_MAX_DISKS] = {0};
    if (!*hosting->hypervisor)
        return 0;
    if (rp_domain_state_of_text(facts->extras, &state, &extras, err))
        return -1;
    RP_AUTO_FREE char *xml = definition(vm, hosting, facts, extras, disk_count, targets, err);
    struct rp_hypervisor *hv = xml ? rp_local_domain_open(vm, err) : NULL;
    if (!hv)
        return -1;
    // Its disks have been copied since check_free: whoever has defined one meanwhile keeps it.
    char uuid[RP_GUID_TEXT];
    int there = domain_is_there(hv, vm->domain, uuid, err), ours = there > 0 ? rp_local_domain_is_ours(vm, err) : there;
    if (there < 0 || ours < 0)
        return -1;
    if (there && !ours)
        return rp_fail(err, RP_ERR_EXISTS, "%s: somebody has defined a domain with the UUID %s meanwhile", hosting->hypervisor, vm->id);
    struct rp_error why = {0};
    if (note(vm, extras, targets, disk_count, err))
        return -1;
    if (ops()->define(hv, xml, &why)) {
        vm->awaited = rp_local_domain_may_come(&why);
        rp_fail_as(err, &why);
    }
    return why.code || put_state(vm, hv, &state, err) ? rp_context(err, "VM %s: make its domain", vm->id) : 0;
}

bool rp_local_domain_names_us(const struct rp_local_vm *vm, const char *text)
{
    RP_AUTO_FREE char *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    return rp_domain_xml_parse(text, &xml, NULL) || rp_domain_xml_names(&xml, socket);
}

bool rp_local_domain_may_come(const struct rp_error *why)
{
    return why->code == RP_ERR_BUSY || why->code == RP_ERR_IO || why->code == RP_ERR_CANCELLED;
}

int rp_local_domain_is_ours(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    struct rp_error why = {0};
    RP_AUTO_FREE char *xml = NULL;
    char uuid[RP_GUID_TEXT];
    int64_t disks = 0;
    if (!hv || rp_db_number(vm->local->db, err, &disks, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm->row))
        return -1;
    if (ops()->find(hv, vm->domain, uuid, &xml, &why)) {
        if (why.code == RP_ERR_NOT_FOUND)
            return 0;
        rp_fail_as(err, &why);
        return rp_context(err, "VM %s", vm->id);
    }
    return !disks || rp_local_domain_names_us(vm, xml);
}

// 1: the domain of the VM's UUID is what overtake asked for, by somebody who did not come to undefine it; 0; -1.
static int is_placeholder(const struct rp_local_vm *vm, struct rp_hypervisor *hv, struct rp_error *err)
{
    RP_AUTO_FREE char *text = NULL;
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    struct rp_error why = {0};
    char uuid[RP_GUID_TEXT];
    if (ops()->find(hv, vm->domain, uuid, &text, &why))
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    return rp_domain_xml_parse(text, &xml, err) ? -1 : !strcmp(xml.name, vm->id) && !xml.disk_count;
}

// A domain that the hypervisor was asked for may still be on its way. One without disks of the same UUID is asked for behind it: when
// that is there, the other has come before, or cannot come. 1: there is something to undefine; 0; -1.
static int overtake(const struct rp_local_vm *vm, struct rp_hypervisor *hv, struct rp_error *err)
{
    RP_AUTO_FREE char *xml = rp_xasprintf("<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><os><type>hvm</type>"
                                          "</os></domain>", vm->id, vm->id);
    struct rp_error why = {0};
    char uuid[RP_GUID_TEXT];
    int64_t asked = 0; // (note)
    if (rp_db_number(vm->local->db, err, &asked, "SELECT count(*) FROM domain_disk WHERE vm = ?", "i", vm->row))
        return -1;
    if (!asked)
        return 0;
    int there = domain_is_there(hv, vm->domain, uuid, err);
    if (there)
        return there < 0 ? -1 : is_placeholder(vm, hv, err);
    if (!ops()->define(hv, xml, &why))
        return 1;
    return rp_local_domain_may_come(&why) ? rp_fail_as(err, &why) : rp_local_domain_is_ours(vm, err);
}

int rp_local_domain_undo(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_error why = {0};
    int64_t adopted = 0;
    if (!rp_local_domain_is(vm))
        return 0;
    if (vm->awaited)
        return rp_fail(err, RP_ERR_BUSY, "VM %s: its domain may still be defined; the next use of the host looks", vm->id);
    if (rp_db_number(vm->local->db, err, &adopted, "SELECT domain_xml <> '' FROM vm WHERE row = ?", "i", vm->row))
        return -1;
    struct rp_hypervisor *hv = adopted ? NULL : rp_local_domain_open(vm, err);
    if (!hv)
        return adopted ? 0 : -1;
    int ours = rp_local_domain_is_ours(vm, err); // somebody may have defined his own meanwhile
    if (!ours)
        ours = overtake(vm, hv, err);
    if (ours < 1)
        return ours;
    if (!ops()->undefine(hv, vm->domain, true, &why) || why.code == RP_ERR_NOT_FOUND)
        return 0;
    rp_fail_as(err, &why);
    return rp_context(err, "VM %s: undefine the domain that was made for it", vm->id);
}
