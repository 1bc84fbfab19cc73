#!/bin/bash
# test-host-verbs.sh REFPOINT: the verbs of VMs, disks, checkpoints and reference points, as an administrator types them.
. "$(dirname "$0")/../lib.sh"
refpoint=$(realpath "$1")
export REFPOINT_HOST=local:$scratch/host
cd "$scratch" || exit 1
rp() { "$refpoint" "$@"; }

# says STATUS TEXT VERB…: that exit status, and one line on standard error with that text.
says()
{
    local status=0 wanted=$1 text=$2
    shift 2
    rp "$@" >says.out 2>says.err || status=$?
    equal "$status" "$wanted" && equal "$(wc -l <says.err)" 1 && grep -qF -e "$text" says.err || { cat says.err; return 1; }
}

truncate -s 4M a.raw
printf 'some content' | dd of=a.raw conv=notrunc status=none
qemu-img create -q -f qcow2 a.qcow2 1M

life()
{
    rp vm create web1 --disk a.raw | grep -q "VM web1 made"
    rp vm list | grep -q "^web1 *off"
    rp vm show web1 --json | jq -e '.state == "off" and .disks[0].size == 4194304 and .disks[0].nbd_uri == null'
    rp vm start web1
    rp vm list --json | jq -e '.[0].state == "running" and .[0].activity == null'
    local uri
    uri=$(rp vm show web1 --json | jq -r '.disks[0].nbd_uri')
    qemu-img compare -f raw -F raw a.raw "$uri"
    says 2 "is running already" vm start web1
    says 2 "stop it first" vm delete web1 --yes
    rp vm stop web1
    says 2 "is off already" vm stop web1
}

checkpoints()
{
    rp vm start web1
    rp checkpoint create web1 --name "before the upgrade"
    rp checkpoint create web1 --json | jq -e '.id | startswith("Microsoft:")'
    rp checkpoint list web1 --json | jq -e 'length == 2 and .[0].name == "before the upgrade" and .[0].type == "production"'
    says 2 "no checkpoint fits" checkpoint delete web1 nothing
    local id
    id=$(rp checkpoint list web1 --json | jq -r '.[1].id')
    id=${id#Microsoft:}
    rp checkpoint delete web1 "${id:0:8}"
    rp checkpoint delete web1 "before the upgrade"
    rp checkpoint list web1 --json | jq -e '. == []'
    rp vm show web1 --json | jq -e '.disks[0].path | endswith("/disk0.vhdx")'
    rp vm stop web1
}

disks()
{
    rp disk add web1 a.raw | grep -q "^disk1 added"
    says 2 "disks only grow" disk grow web1 disk1 1M
    rp disk grow web1 disk1 8M
    rp vm show web1 --json | jq -e '.disks[1].size == 8388608'
    says 3 "names no disk" disk grow web1 first 8M
    says 3 "is no size" disk grow web1 disk1 big
    says 2 "has no disk7" disk remove web1 disk7
    rp disk remove web1 1
    rp vm show web1 --json | jq -e '.disks | length == 1'
}

misuse()
{
    says 3 "usage" vm create
    says 2 "No such file" vm create x --disk nowhere.raw
    says 2 "qcow2" vm create x --disk a.qcow2
    says 2 "control character" vm create $'two\nlines'
    says 2 "needs a name" vm create ""
    says 2 "no VM" vm show nobody
    says 2 "no reference point fits" refpoint delete web1 1234
    says 3 "--yes" vm delete web1
    says 3 "no dry run" vm create x --dry-run
    rp vm list --json | jq -e 'length == 1'
}

hostile()
{
    local name=$'%s%n; DROP TABLE vm; \'--" \xe2\x80\xae'
    rp vm create "$name" >out
    rp vm list >>out
    rp vm show "$name" >>out
    absent $'\xe2\x80\xae' out # a character that turns the text around is shown, not obeyed
    rp vm list --json | jq -e --arg name "$name" 'any(.[]; .name == $name)'
    rp vm delete "$name" --yes
}

deletion()
{
    rp vm delete web1 --delete-disks --yes
    rp vm list --json | jq -e '. == []'
    equal "$(ls host/vms)" ""
}

behaviour "a VM is made, started, served, stopped" life
behaviour "checkpoints are made, listed, and deleted by name or by the beginning of their id" checkpoints
behaviour "disks are added, grown, removed" disks
behaviour "each misuse is one clear line and its exit status" misuse
behaviour "hostile names are shown harmlessly and kept exactly" hostile
behaviour "a deleted VM leaves nothing in the host's folder" deletion
for verb in "vm create" "vm list" "vm show" "vm start" "vm stop" "vm delete" "disk add" "disk remove" "disk grow" \
            "checkpoint create" "checkpoint list" "checkpoint delete" "refpoint list" "refpoint delete"; do
    behaviour "$verb has help with examples" eval "rp $verb --help | grep -q 'refpoint $verb '"
done
