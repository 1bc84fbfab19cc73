#!/usr/bin/env bash
# Readers and restores to a host, as a person uses them.
. "$(dirname "$0")/../person.sh" "$1"
export REFPOINT_PASSWORD_FILE=$scratch/passphrase
mkdir exports
echo secret >passphrase
last() { rp list --json | jq -r ".[-1].$1"; }
reader_of_last() { rp show "web1@$(last id)" --json | jq -r .reader; }

head -c 3M /dev/urandom >web1.raw
truncate -s 32M web1.raw
{ rp repo init && rp vm create web1 --disk web1.raw; } >/dev/null

by_export()
{
    rp backup web1 --reader export --export-folder "$scratch/exports"
    equal "$(last kind) $(reader_of_last)" "full wmi-export"
    rp backup web1 --reader export --export-folder "$scratch/exports = $scratch/exports"
    equal "$(last kind) $(reader_of_last)" "incremental wmi-export"
    equal "$(ls exports)" ""
}
behaviour "a backup by export, and what it exported is gone" by_export

by_share()
{
    rp backup web1 --reader share --map "$scratch = $scratch"
    equal "$(last kind) $(reader_of_last)" "incremental mounted-share"
    rp backup web1
    equal "$(last kind) $(reader_of_last)" "incremental virtual-disk"
    equal "$(rp backup web1 --dry-run --json | jq -r .reader)" virtual-disk
}
behaviour "a backup by mounted share, and the choice of the reader" by_share

refusals()
{
    says "needs a folder" 2 rp backup web1 --reader export
    says "no mapping says where" 2 rp backup web1 --reader share
    says "does not say which folder" 3 rp backup web1 --map D:
    says "No such file" 2 rp backup web1 --reader export --export-folder "$scratch/none"
    says "which of them" 3 rp restore web1 --to-host "$REFPOINT_HOST" --new-id --keep-id
    says "--folder" 2 rp restore web1 --to-host "$REFPOINT_HOST" --new-id
    says "has the id" 2 rp restore web1 --to-host "$REFPOINT_HOST" --folder "$scratch/again"
    equal "$(ls -d again 2>/dev/null)" ""
}
behaviour "what cannot be read or restored is one clear line" refusals

to_host()
{
    local status=0
    rp restore web1 --to-host "$REFPOINT_HOST" --folder "$scratch/beside" --new-id --name web2 --json >out.json || status=$?
    equal $status 1 # a new VM's next backup is full: a remark
    equal "$(jq -r .vm out.json)" web2
    equal "$(rp vm list --json | jq -r '[.[].name] | sort | join(" ")')" "web1 web2"
    rp restore web1 --to raw -O raw
    qemu-img compare -f raw raw/web1-disk0.raw -F vhdx "$(rp vm show web2 --json | jq -r '.disks[0].path')"
    cmp raw/web1-disk0.raw web1.raw
}
behaviour "a restore point becomes a VM of the host" to_host
