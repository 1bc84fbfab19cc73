// What a domain is at a checkpoint: its settings, its firmware's and its TPM's state.
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "host/domain_settings.h"
#include "host/domain_state.h"
#include "host/domain_xml.h"
#include "host/local.h"

// ---- its definition -------------------------------------------------------------------------------------------------

static int definition_of(const struct rp_local_vm *vm, struct rp_domain_xml *xml, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    RP_AUTO_FREE char *text = NULL;
    char uuid[RP_GUID_TEXT];
    if (!hv)
        return -1;
    if (rp_hypervisor_ops()->find(hv, vm->domain, uuid, &text, err) || rp_domain_xml_parse(text, xml, err))
        return rp_context(err, "VM %s: its domain", vm->id);
    return 0;
}

// The VM's settings become what its domain has now: who changed it did that with libvirt's tools.
static int refresh(const struct rp_local_vm *vm, int64_t snapshot, const struct rp_domain_xml *xml, struct rp_error *err)
{
    RP_CLEANUP(rp_local_domain_disks_clear) struct rp_local_domain_disks disks = {0};
    struct rp_domain_target targets[RP_ENGINE_MAX_DISKS] = {0};
    struct rp_domain_settings settings;
    RP_AUTO_FREE char *before = NULL;
    if (rp_local_domain_disks(vm, &disks, err))
        return -1;
    for (size_t i = 0; i < disks.count; i++) {
        targets[i].number = disks.numbers[i];
        memcpy(targets[i].target, disks.items[i].target, sizeof targets[i].target);
    }
    if (rp_domain_settings_of_xml(xml, targets, disks.count, &settings, NULL, err) ||
        rp_host_local_extras(&vm->local->host, vm->id, &before, err))
        return -1;
    RP_AUTO_FREE char *now = rp_domain_settings_to_extras(&settings, before, err);
    if (!now)
        return -1;
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) ||
        rp_db_run(db, err, "UPDATE vm SET extras = ?, generation = ? WHERE row = ?", "tii", now,
                  (int64_t)settings.generation, vm->row) ||
        rp_db_run(db, err, "UPDATE snapshot SET extras = ? WHERE row = ?", "ti", now, snapshot))
        return -1;
    return rp_transaction_commit(&t, err);
}

// ---- its state ------------------------------------------------------------------------------------------------------

static int insert(struct rp_db *db, int64_t snapshot, const struct rp_domain_state_files *files, struct rp_error *err)
{
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) ||
        rp_db_run(db, err, "DELETE FROM snapshot_state WHERE snapshot = ?", "i", snapshot))
        return -1;
    for (size_t i = 0; i < files->count; i++)
        if (rp_db_run(db, err, "INSERT INTO snapshot_state (snapshot, kind, name, content) VALUES (?, ?, ?, ?)", "ittb",
                      snapshot, files->items[i].tpm ? "tpm" : "nvram", files->items[i].name, &files->items[i].content))
            return -1;
    return rp_transaction_commit(&t, err);
}

static int keep_state(const struct rp_local_vm *vm, int64_t snapshot, const struct rp_domain_xml *xml, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_state_places_clear) struct rp_domain_state_places places = {0};
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {0};
    rp_domain_state_places(vm->hypervisor, xml, &places);
    if (rp_domain_state_read(&places, &files, err))
        return -1;
    return files.count ? insert(vm->local->db, snapshot, &files, err) : 0;
}

static int load(struct rp_db *db, int64_t snapshot, struct rp_domain_state_files *files, struct rp_error *err)
{
    RP_AUTO_QUERY *query =
        rp_db_query(db, err, "SELECT kind, name, content FROM snapshot_state WHERE snapshot = ? ORDER BY kind, name",
                    "i", snapshot);
    int rc = query ? 1 : -1;
    while (rc > 0 && files->count < RP_DOMAIN_STATE_FILES && (rc = rp_db_step(db, query, err)) == 1) {
        struct rp_domain_state_file *file = &files->items[files->count++];
        *file = (struct rp_domain_state_file){.tpm = !strcmp(rp_db_text(query, 0), "tpm")};
        rp_db_copy(query, 1, file->name, sizeof file->name);
        rp_buf_append(&file->content, sqlite3_column_blob(query, 2), (size_t)sqlite3_column_bytes(query, 2));
    }
    return rc < 0 ? -1 : 0;
}

void rp_local_domain_record(const struct rp_local_vm *vm, int64_t snapshot)
{
    if (!rp_local_domain_is(vm))
        return;
    struct rp_error why = {0};
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    bool known = !definition_of(vm, &xml, &why);
    if (!known || refresh(vm, snapshot, &xml, &why))
        rp_log(RP_LOG_WARNING, "VM %s: the checkpoint has the settings as they were before: %s", vm->id, why.text);
    rp_error_clear(&why);
    if (known && keep_state(vm, snapshot, &xml, &why))
        rp_log(RP_LOG_WARNING, "VM %s: the checkpoint is without the state of its firmware and its TPM: %s", vm->id,
               why.text);
    rp_error_clear(&why);
}

int rp_local_domain_put_back(const struct rp_local_vm *vm, int64_t snapshot, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_state_places_clear) struct rp_domain_state_places places = {0};
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {0};
    unsigned left_out = 0;
    if (!rp_local_domain_is(vm) || load(vm->local->db, snapshot, &files, err))
        return rp_local_domain_is(vm) ? -1 : 0;
    if (!files.count)
        return 0;
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    struct rp_error why = {0};
    if (definition_of(vm, &xml, &why)) // a domain that was undefined has no firmware
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    rp_domain_state_places(vm->hypervisor, &xml, &places);
    if (rp_domain_state_write(&places, &files, &left_out, err))
        return rp_context(err, "VM %s: put its firmware's state back", vm->id);
    if (left_out)
        rp_log(RP_LOG_WARNING, "VM %s: its domain has no place any more for %u files of its firmware's state", vm->id,
               left_out);
    return 0;
}

char *rp_local_domain_extras(struct rp_local *local, int64_t snapshot, const char *extras, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_state_clear) struct rp_domain_state_files files = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    struct rp_error why = {0};
    if (load(local->db, snapshot, &files, err))
        return NULL;
    rp_buf_append(&text, extras, strlen(extras));
    if (rp_domain_state_to_text(&files, &text, &why))
        rp_log(RP_LOG_WARNING, "what is saved of the VM is without its firmware's state: %s", why.text);
    return rp_xstrdup(rp_buf_text(&text));
}

int rp_host_local_firmware(struct rp_host_connection *host, const char *snapshot_id, char **text, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    int64_t row = -1;
    *text = NULL;
    if (!rp_db_number(local->db, err, &row, "SELECT row FROM snapshot WHERE id = ?", "t", snapshot_id))
        *text = rp_local_domain_extras(local, row, "", err);
    return *text ? 0 : -1;
}
