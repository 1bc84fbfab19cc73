#!/usr/bin/env bash
# The program with a host behind WMI that takes its time, is interrupted, and is asked for what it cannot do: against the
# lab of refpoint-hostd (docs/lab.md).
hostd=$(realpath "$2")
. "$(dirname "$0")/../person.sh" "$1"
. "$top/tests/lab.sh" "$hostd" --vms 11 --disks 1 --size 16M
vms=$(lab .folders.vms)
exports=$(lab .folders.export)
rp host add share "$(lab .unix)" --map "$vms = $vms" --map "$(lab .folders.disks) = $(lab .folders.disks)" >/dev/null
rp host add export "$(lab .unix)" --map "$exports = $exports" --export-folder "$exports" >/dev/null
rp repo init --no-encryption >/dev/null

in_order()
{
    equal "$(rp vm list -H share --json | jq -c 'map(.name)')" "$(jq -cn '[range(1; 12) | "vm\(.)"]')"
    rp vm list -H share >first
    rp vm list -H share | cmp - first
    rp checkpoint create share/vm11 --name b
    rp checkpoint create share/vm11 --name a
    equal "$(rp checkpoint list share/vm11 --json | jq -c 'map(.name)')" '["b","a"]'
    rp checkpoint delete share/vm11 a --yes
    rp checkpoint delete share/vm11 b --yes
}
behaviour "VMs are listed by name, checkpoints by their time" in_order

on_host() { rp "$1" list "$2" -H "local:$(lab .host)" --json | jq length; }

# hits METHOD: the fault that was ordered has happened.
hits() { order 'now: list faults' | grep -q 'ok \[\]'; }

# idle: all jobs of the host have ended.
idle()
{
    python3 - "$(lab .host)/hostd.db" <<'PYTHON'
import sqlite3, sys
with sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=60) as db:
    sys.exit(db.execute('SELECT count(*) FROM job WHERE ended = 0').fetchone()[0] != 0)
PYTHON
}

# interrupt ADDRESS METHOD FAULT: a backup is interrupted while the host hangs in METHOD; what it says is in `message`.
interrupt()
{
    local job points
    points=$(rp list --json | jq length)
    order "next $2: $3"
    env --default-signal=INT "$refpoint" backup "$1" >out 2>message &
    job=$!
    wait_for 60 hits
    sleep 0.3
    kill -INT $job
    status 2 wait $job
    cat message
    equal "$(wc -l <message)" 1
    equal "$(rp list --json | jq length)" "$points"
}

# Nothing of it is there, and the next backup is as good as ever.
clean()
{
    wait_for 60 eval "[ \$(on_host checkpoint $2) = 0 ]"
    equal "$(on_host refpoint "$2")" "$3"
    equal "$(find "$exports" -mindepth 1 | wc -l)" 0
    rp backup "$1" --json | tail -1 | jq -e ".kind == \"$4\" and .orphans_removed == 0"
}

interrupted()
{
    interrupt share/vm1 CreateSnapshot 'job hangs at 50 %'
    grep -q 'interrupted: the host .* the checkpoint .*, \(nothing of it is on\|what was made on\) the host' message
    clean share/vm1 vm1 0 full
    interrupt share/vm1 CreateSnapshot 'job hangs at 50 %'
    clean share/vm1 vm1 1 incremental
    interrupt export/vm2 ExportSystemDefinition 'job hangs at 50 %'
    grep -q 'interrupted: the host ended the export when it was asked to, what was made on the host was removed' message
    clean export/vm2 vm2 0 full
}
behaviour "interrupted, a backup has the host end what it is at, and says in one line what became of it" interrupted

# The host was done when it was asked: all of it was read, so the backup is good.
too_late()
{
    local job got=0
    order 'next ConvertToReferencePoint: job hangs at 99 %'
    env --default-signal=INT "$refpoint" backup share/vm1 >out 2>message &
    job=$!
    wait_for 60 hits
    sleep 0.3
    kill -INT $job
    wait $job || got=$?
    cat message
    if [ $got = 2 ]; then
        grep -q 'interrupted: the host ended the reference point' message
    else
        [ $got -le 1 ]
    fi
    wait_for 60 eval '[ $(on_host checkpoint vm1) = 0 ]'
    equal "$(on_host refpoint vm1)" 1
    rp backup share/vm1 --json | tail -1 | jq -e '.kind == "incremental" and .orphans_removed == 0'
}
behaviour "interrupted while the checkpoint becomes a reference point, it is undone or kept as a whole" too_late

# taken PID: every signal that was sent to it has been handled, or it has ended.
taken() { ! grep -qs '^S[hi][dg]Pnd:.*[1-9a-f]' "/proc/$1/status"; }

# twice VM STATUS SIGNAL SECONDS SIGNAL…: the signals, and the pauses between them, that end a backup at once with that status.
twice()
{
    local vm=$1 want=$2 job got=0
    shift 2
    order 'next CreateSnapshot: job hangs at 50 %'
    env --default-signal=INT "$refpoint" backup "share/$vm" >out 2>message &
    job=$!
    wait_for 60 hits
    sleep 0.3
    kill -STOP "$(lab .pid)" # so that it cannot answer
    kill -"$1" $job
    shift
    while [ $# -ge 2 ]; do
        wait_for 60 taken $job
        sleep "$1"
        kill -"$2" $job || true # it must come to CONT
        shift 2
    done
    wait $job || got=$?
    kill -CONT "$(lab .pid)"
    cat message
    equal "$got" "$want"
    equal "$(wc -l <message)" 1
    grep -q 'ended at once: .* may be left on the host; the next backup of the VM into this repository removes it' message
    order 'now: release jobs'
    wait_for 60 idle
    rp backup "share/$vm" --json | tail -1 | jq -e '.kind == "full"'
    wait_for 60 eval "[ \$(on_host checkpoint $vm) = 0 ]"
    equal "$(on_host refpoint "$vm")" 1
}
behaviour "interrupted twice, it ends at once and says what may be left, which the next one removes" twice vm3 130 INT 0.3 INT
behaviour "ended by a SIGTERM that comes later it does so too; a hang-up beside the first one is not meant" \
    twice vm5 143 TERM 0.2 HUP 0.2 TERM 0.2 HUP 2 TERM

# The lab's VMs have no guest that could come to rest, and the service says so of the checkpoint that it made all the same.
consistency()
{
    says 'crash-consistent: nothing runs its guest here' 1 rp backup share/vm3 --consistency application >out
    rp show vm3 --json | jq -e '.consistency_asked == "application" and .consistency_reached == "crash" and
        (.consistency_reason | test("nothing runs its guest"))'
    says 'asked for without exception: nothing runs its guest' 2 rp backup share/vm3 --consistency application-only >out
    says 'over WMI nobody can ask how consistent a checkpoint of a user is' 2 rp checkpoint create share/vm2 --consistency application-only >out
    equal "$(on_host checkpoint vm3)" 0
    equal "$(on_host checkpoint vm2)" 0
    # Whether one of a user asks the guest is a setting of the VM on real Hyper-V, and nobody says.
    rp checkpoint create share/vm2 --name by-default --json | jq -e '.consistency == "unknown" and (.consistency_reason | test("nobody can ask"))'
    rp checkpoint create share/vm2 --name second | grep 'the host does not say how consistent it is: .*nobody can ask'
    rp checkpoint create share/vm2 --name third --consistency crash --json | jq -e '.consistency == "unknown" and .consistency_reason == null'
    for name in by-default second third; do rp checkpoint delete share/vm2 $name; done
    says 'none of crash, application and application-only' 3 rp checkpoint create share/vm3 --consistency some
}
behaviour "how consistent a checkpoint is, and why, is told over WMI as well" consistency

no_files()
{
    local disk
    rp vm stop share/vm4
    disk=$(rp vm show share/vm4 --json | jq -r '.disks[0].path')
    says "over WMI no disk file can be deleted: leave out --delete-disks, and delete them on the host: $disk" 2 \
        rp vm delete share/vm4 --delete-disks --yes
    rp vm show share/vm4 >/dev/null
    test -f "$disk"
    rp vm delete share/vm4 --yes
    test -f "$disk"
}
behaviour "disks that nobody can delete are named before the VM is gone" no_files

dry_run()
{
    local before
    before=$(find "$vms" | sort)
    says 'has the id .* already' 2 rp restore vm1 --to-host share --dry-run >out
    cat out
    grep -q '^would make VM vm1 on share, id ' out
    grep -q '^  disk 0: 16.0 MiB, .* of data, to .*/vm1-disk0.vhdx' out
    rp restore vm1 --to-host share/other --new-id --dry-run --json |
        jq -e '.dry_run and .vm == "other" and .vm_id == null and .problems == [] and (.disks | length) == 1'
    says 'none of the host.s folders' 2 rp restore vm1 --to-host share/other --new-id --folder /nowhere/there --dry-run >out
    equal "$(find "$vms" | sort)" "$before"
    equal "$(rp vm list -H share --json | jq 'map(select(.name == "other")) | length')" 0
    status 1 rp restore vm1 --to-host share/other --new-id # its next backup will be full
    rp vm show share/other >/dev/null
}
behaviour "a dry run of a restore to a host says what would be made and what does not fit, and makes nothing" dry_run

named()
{
    rp vm stop share/vm2
    rp vm delete share/vm2 --yes
    rp vm stop share/vm1
    rp vm delete share/vm1 --yes
    status 1 rp restore vm1 --to-host share --folder "$vms/vm1-again"
    rp vm show share/vm1 >/dev/null
}
behaviour "a restored VM has its own name, and not that of the checkpoint it comes from" named
