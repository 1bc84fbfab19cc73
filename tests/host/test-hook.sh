#!/bin/bash
# test-hook.sh REFPOINT HOOK UNIT: disks are served for who starts the VM himself: libvirt's hook, and systemd.
. "$(dirname "$0")/../lib.sh"
refpoint=$(realpath "$1")
hook=$(realpath "$2")
unit=$(realpath "$3")
export REFPOINT=$refpoint REFPOINT_HOST=local:$scratch/host
cd "$scratch" || exit 1
rp() { "$refpoint" "$@"; }
truncate -s 4M a.raw
rp vm create web1 --disk a.raw >/dev/null
id=$(rp vm list --json | jq -r '.[0].id')
folder=$scratch/host/vms/$id

uuid=0f5f4d7c-8b1f-4a6e-9d50-3f2a7b1c0d11
definition() # SOCKET…
{
    echo "<domain type='kvm'><name>web1</name>"
    echo "  <uuid>$uuid</uuid><devices>"
    local socket
    for socket in "$@"; do
        echo "<disk type='network' device='disk'><source protocol='nbd' name='disk0'><host transport='unix' socket='$socket'/></source></disk>"
    done
    echo "</devices></domain>"
}
is_served() { test "$(nbdinfo --size "nbd+unix:///disk0?socket=$folder/nbd.sock")" = 4194304; }
is_not_served() { fails nbdinfo --size "nbd+unix:///disk0?socket=$folder/nbd.sock"; }

hooked()
{
    definition "$folder/nbd.sock" | "$hook" web1 prepare begin -
    is_served
    definition "$folder/nbd.sock" | "$hook" web1 start begin - # is none of its business
    definition "$folder/nbd.sock" | "$hook" web1 prepare begin - # served already: fine
    is_served
    definition "$folder/nbd.sock" | "$hook" web1 release end -
    is_not_served
    definition "$folder/nbd.sock" | "$hook" web1 release end -
}

not_ours()
{
    export REFPOINT=/bin/false # whoever were asked would fail
    definition | "$hook" other prepare begin -
    definition /run/nbd.sock "$scratch/host/vms/../nbd.sock" "/srv/vms/$id/nbd.socket" | "$hook" other prepare begin -
    definition "$folder/nbd.sock" | "$hook" web1 started begin -
    fails "$hook" web1 prepare begin - < <(definition "$folder/nbd.sock")
    local start
    start=$(date +%s%N)
    for _ in 1 2 3 4 5 6 7 8 9 10; do definition | "$hook" other prepare begin -; done
    echo "# ten domains that are not ours: $((($(date +%s%N) - start) / 1000000)) ms"
}

# The VM is one that a hypervisor runs (of files: domain $uuid), and served. $1: what it is in its database.
becomes_a_domains()
{
    mkdir -p hv/fail
    definition "$folder/nbd.sock" >"hv/$uuid.xml"
    python3 - "$scratch" "$uuid" "$1" <<'END'
import sqlite3, sys
scratch, uuid, state = sys.argv[1:]
db = sqlite3.connect(scratch + '/host/host.db', timeout=20)
db.execute('UPDATE vm SET hypervisor = ?, domain = ?, state = ?', ('fake:' + scratch + '/hv', uuid, state))
db.execute("INSERT OR REPLACE INTO domain_disk (vm, number, target, source, format) SELECT row, 0, 'vda', '', '' FROM vm")
db.commit()
END
}

another_domain()
{
    becomes_a_domains ready
    local ours=$uuid uuid=77777777-8b1f-4a6e-9d50-3f2a7b1c0d11
    fails "$hook" web2 prepare begin - < <(definition "$folder/nbd.sock") 2>err
    grep -q "disks are those of domain $ours, and not for domain $uuid" err
    is_not_served
    uuid=${ours^^} definition "$folder/nbd.sock" | "$hook" web1 prepare begin -
    is_served
    fails "$hook" web2 prepare begin - < <(definition "$folder/nbd.sock") 2>err
    fails "$hook" web2 release end - < <(definition "$folder/nbd.sock") 2>err
    fails "$hook" web2 release end - < <(definition "$folder/nbd.sock" | grep -v uuid) 2>err
    is_served
    fails rp vm serve "$id" --for "$uuid" --check 2>err
    rp vm serve "$id" --for "$ours" --check
    uuid=$ours definition "$folder/nbd.sock" | "$hook" web1 release end -
    is_not_served
}

sql()
{
    python3 - "$1" <<'END'
import sqlite3, sys
db = sqlite3.connect('host/host.db', timeout=20)
db.execute(sys.argv[1])
db.commit()
END
}

# As libvirt, which does not answer before its hook has: whoever asks it anything is late.
asks_nothing()
{
    becomes_a_domains creating
    sql "UPDATE vm SET domain_xml = '<domain/>'" # taken in, but for the note that it is
    mkdir hv/slow
    for call in open find state running_xml define; do echo 120000 >hv/slow/$call; done
    SECONDS=0
    definition "$folder/nbd.sock" | "$hook" web1 prepare begin -
    is_served
    definition "$folder/nbd.sock" | "$hook" web1 release end -
    is_not_served
    # A checkpoint that was killed.
    sql "UPDATE vm SET state = 'ready'"
    sql "INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state)
         SELECT '0f5f4d7c', row, 'x', 0, 0, 0, '77777777-8b1f-4a6e-9d50-3f2a7b1c0d11', 'creating' FROM vm"
    definition "$folder/nbd.sock" | "$hook" web1 prepare begin -
    is_served
    definition "$folder/nbd.sock" | "$hook" web1 release end -
    # What only the hypervisor can say more of is refused at once.
    sql "INSERT INTO disk SELECT vm, 5, path || 5, disk_id, own, size, logical, physical, block, 'removing' FROM disk"
    fails "$hook" web1 prepare begin - < <(definition "$folder/nbd.sock") 2>err
    grep -q "was interrupted, which refpoint-hostd finishes" err
    is_not_served
    sql "DELETE FROM disk WHERE number = 5"
    sql "UPDATE vm SET state = 'deleting'"
    fails "$hook" web1 prepare begin - < <(definition "$folder/nbd.sock") 2>err
    grep -q "no VM" err
    [ $SECONDS -lt 100 ]
    rm -r hv/slow
}

mixed()
{
    fails "$hook" web1 prepare begin - < <(definition "$folder/nbd.sock" "$scratch/host/vms/${id//[0-9]/0}/nbd.sock") 2>err
    grep -q "several virtual machines" err
}

missing()
{
    fails "$hook" web1 prepare begin - < <(definition "${folder%/*}/00000000-0000-0000-0000-000000000000/nbd.sock") 2>err
    grep -q "no VM 0000" err
}

# What systemd does with the unit: waits for READY=1, ends by SIGTERM, starts again after a failure.
as_a_unit()
{
    python3 - "$refpoint" "$id" "$folder" <<'END'
import json, os, signal, socket, subprocess, sys
refpoint, vm, folder = sys.argv[1:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind('notify.sock')
notify.settimeout(60)
environment = dict(os.environ, NOTIFY_SOCKET=os.path.abspath('notify.sock'))

def service_pid():
    control = socket.socket(socket.AF_UNIX)
    control.connect(folder + '/control.sock')
    return int.from_bytes(control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)

def start():
    unit = subprocess.Popen([refpoint, 'vm', 'serve', vm], env=environment)
    assert notify.recv(100) == b'READY=1'
    return unit

unit = start()
assert unit.poll() is None
os.kill(service_pid(), signal.SIGKILL)
assert unit.wait(60) == 2, unit.returncode
unit = start() # by Restart=on-failure
unit.send_signal(signal.SIGKILL) # only that one: the disks are served on
unit.wait(30)
before = service_pid()
unit = start()
assert service_pid() == before
unit.send_signal(signal.SIGTERM)
assert unit.wait(60) == 0, unit.returncode
END
    is_not_served
    rp vm serve "$id" --background
    python3 - "$refpoint" "$id" <<'END'
import os, socket, subprocess, sys
refpoint, vm = sys.argv[1:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind('found.sock')
notify.settimeout(60)
environment = dict(os.environ, NOTIFY_SOCKET=os.path.abspath('found.sock'))
unit = subprocess.Popen([refpoint, 'vm', 'serve', vm], env=environment)
assert notify.recv(100) == b'READY=1' # it has found it running
subprocess.run([refpoint, '-q', 'vm', 'stop', vm], check=True) # ended in order by somebody else: nothing to start again
assert unit.wait(60) == 0, unit.returncode
END
}

is_valid()
{
    mkdir -p units
    sed "s|^ExecStart=.*refpoint |ExecStart=$refpoint |" "$unit" >"units/refpoint-disks@.service"
    cp "units/refpoint-disks@.service" "units/refpoint-disks@$id.service"
    systemd-analyze verify --man=no "units/refpoint-disks@$id.service" 2>verify || { cat verify; return 1; }
    absent "refpoint-disks" verify
}

behaviour "libvirt's hook serves the disks of a domain before it starts and ends that after it" hooked
behaviour "a domain that is not ours is none of the hook's business" not_ours
behaviour "a domain with disks of several VMs does not start" mixed
behaviour "a domain whose VM is gone does not start" missing
behaviour "a unit is ready when the disks are served, ends in order, and fails when its service is killed" as_a_unit
behaviour "another domain neither gets the disks of a domain nor ends their service" another_domain
behaviour "libvirt, which waits for its hook, is asked nothing, also after changes that were interrupted" asks_nothing
if systemd-analyze --version >/dev/null 2>&1; then behaviour "the unit is one that systemd takes" is_valid; fi
