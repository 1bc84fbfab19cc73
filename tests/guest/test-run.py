#!/usr/bin/python3
"""test-run.py BOOT-FOLDER BUILD: a real guest under refpoint-hostd and libvirt's embedded driver: disk services and
hostd are killed while it writes, a disk grows, space is given back, the host runs out of room. It never sees an I/O
error, and what it was told is on its disks."""

import os, signal, subprocess, sys, time

import guest
from stage import Stage
from tap import behaviour, equal, wait_for

stage = Stage('run', *sys.argv[1:3])
# Its disks are on a file system that is small enough to be filled.
ROOM = stage.path('room')
vm_id = None


def service():
    return stage.service(vm_id)


def kill_service():
    pid = service()
    os.kill(pid, signal.SIGKILL)
    return pid


def is_well():
    """It writes, runs, and has not seen anything."""
    seconds = stage.goes_on('vm')
    equal(stage.state('vm'), 'running')
    stage.no_complaints('vm')
    return seconds


def used():
    """Bytes that the first disk takes of the host."""
    return os.stat(stage.vm('vm')['disks'][0]['path']).st_blocks * 512


@behaviour
def an_adopted_guest_is_started_over_wmi_and_writes():
    global vm_id
    os.mkdir(ROOM)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=320M', 'refpoint-test', ROOM], check=True)
    stage.take_in('vm', stage.disks('vm', 'ext4', 'xfs'), '--disks', ROOM, writer='each')
    stage.start_hostd()
    vm_id = stage.vm('vm')['id']
    stage.boots('vm', lambda: stage.rp('vm', 'start', 'h/vm'))
    is_well()


@behaviour
def a_killed_disk_service_is_a_pause_for_the_guest():
    took = []
    for _ in range(4):
        killed = kill_service()
        took.append(stage.goes_on('vm'))
        assert service() != killed
    print('# the guest wrote again after ' + ', '.join(f'{seconds:.1f}' for seconds in took) + ' s')
    is_well()


@behaviour
def a_guest_that_its_user_paused_stays_paused():
    stage.rp('vm', 'pause', 'h/vm')
    before = stage.records('vm')
    killed = kill_service()
    wait_for(lambda: service() not in (None, killed), 60, 'the disk service')
    time.sleep(1)
    equal((stage.state('vm'), stage.records('vm')), ('paused', before))
    stage.rp('vm', 'resume', 'h/vm')
    is_well()


@behaviour
def a_disk_grows_while_the_guest_writes_and_the_guest_uses_the_new_room():
    stage.rp('disk', 'grow', 'h/vm', 'disk0', '256M')
    equal(stage.vm('vm')['disks'][0]['size'], 256 << 20)
    equal(int(stage.inside('vm', 'cat /sys/block/vda/size')) * 512, 256 << 20)
    stage.inside('vm', 'resize2fs /dev/vda')
    size = int(stage.inside('vm', 'stat -f -c "%b %S" /data/1 | { read blocks size; echo $((blocks * size)); }'))
    assert size > 200 << 20, size
    is_well()


@behaviour
def what_the_guest_trims_is_given_back_to_the_host():
    before = used()
    stage.inside('vm', 'dd if=/dev/urandom of=/data/1/large bs=1M count=48 2>/dev/null && sync')
    full = used()
    assert full > before + (40 << 20), (before, full)
    stage.inside('vm', 'rm /data/1/large && sync && fstrim /data/1')
    # Its writer goes on meanwhile, and a block of the VHDX that is needed in part is kept.
    wait_for(lambda: used() < full - (24 << 20), 60, f'48 MiB of {full} bytes are not needed any more')
    print(f'# {before >> 20} MiB, then {full >> 20} MiB, then {used() >> 20} MiB')
    is_well()


@behaviour
def the_guest_goes_on_without_hostd_which_takes_it_up_again():
    stage.end_hostd(signal.SIGKILL)
    stage.goes_on('vm')
    stage.start_hostd()
    begin = time.monotonic()
    kill_service()
    stage.goes_on('vm')
    print(f'# after a start of hostd and a kill of the disk service at once: {time.monotonic() - begin:.1f} s')
    # A disk service that dies while nobody supervises it: the guest stands still until somebody does.
    pid = service()
    stage.end_hostd(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    time.sleep(2)
    stage.start_hostd()
    is_well()


@behaviour
def it_is_saved_and_goes_on_from_there():
    stage.rp('vm', 'save', 'h/vm')
    equal((stage.state('vm'), service()), ('saved', None))
    stage.rp('vm', 'start', 'h/vm')
    stage.goes_on('vm')
    equal(stage.console('vm').count(guest.READY), 1) # it has not booted again
    is_well()


@behaviour
def a_host_without_room_pauses_the_guest_until_there_is_some():
    filler = os.path.join(ROOM, 'filler')
    with open(filler, 'wb', 0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    wait_for(lambda: stage.vm('vm')['waits'], 240, 'the pause')
    wait_for(lambda: 'is full' in (stage.vm('vm')['remark'] or ''), 60, 'the reason')
    print('# ' + stage.vm('vm')['remark'])
    before = stage.records('vm')
    time.sleep(2)
    equal(stage.records('vm'), before)
    equal(stage.hostd_log().count('the file system of its disks is full'), 1)
    os.unlink(filler)
    print(f'# it went on {is_well():.1f} s after there was room')


@behaviour
def it_shuts_down_and_every_acknowledged_record_is_there():
    stage.rp('vm', 'shutdown', 'h/vm', '--timeout', '200')
    equal((stage.state('vm'), service()), ('off', None))
    disks = [disk['path'] for disk in stage.vm('vm')['disks']]
    guest.judged_good(*disks, application=True, acks=stage.acknowledged('vm'))
    print(f'# {stage.records("vm")} records')
    stage.end_hostd()


sys.exit(stage.run())
