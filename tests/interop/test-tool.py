#!/usr/bin/python3
"""test-tool.py HOSTD REFPOINT: the tool and the host with WS-Management between them, every row of a backup's flows
(facts 1.5 A to D) that goes well. What goes wrong in them: test-tool-faults.py, test-tool-kills.py."""

import json, os, subprocess, sys

import nbd

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
import lab_guest
from lab import Lab
from tap import behaviour, equal
from tool_stage import Stage

stage = Stage(*sys.argv[1:])
rp, ask, good_backup = stage.rp, stage.ask, stage.good_backup


# ---- hosts -----------------------------------------------------------------------------------------------------------


@behaviour
def a_host_is_tested_and_listed():
    out, _ = rp('host', 'test', 'share', good=(0, 1))
    assert 'LABHOST' in out, out
    equal(sorted(vm['name'] for vm in ask('vm', 'list', '-H', 'share')), ['vm1', 'vm2', 'vm3'])


@behaviour
def who_cannot_come_in_is_told_so_in_one_line():
    stage.add_host('wrong', password='wrong')
    _, complaints = rp('vm', 'list', '-H', 'wrong', good=(2,))
    equal(complaints.count('\n'), 1)
    rp('host', 'remove', 'wrong')
    rp('host', 'add', 'stranger', stage.lab.https, '--user', 'LAB\\admin', '--password-file', stage.path('password'))
    _, complaints = rp('vm', 'list', '-H', 'stranger', good=(2,))
    equal(complaints.count('\n'), 1)
    assert 'certificate' in complaints, complaints
    rp('host', 'remove', 'stranger')


@behaviour
def who_may_only_read_cannot_back_up_and_leaves_nothing():
    stage.add_host('reader', 'reader', *stage.maps())
    equal(len(ask('vm', 'list', '-H', 'reader')), 3)
    _, complaints = rp('backup', 'reader/vm3', good=(2,))
    assert 'denied' in complaints or 'right' in complaints or 'permission' in complaints, complaints
    equal(stage.left('vm3'), (0, 0, 0))


# ---- A to D ----------------------------------------------------------------------------------------------------------


@behaviour
def a_full_backup_and_incrementals_by_share_are_exact():
    for _ in range(3):
        good_backup('share/vm1')


@behaviour
def a_full_backup_and_incrementals_by_export_are_exact():
    for _ in range(3):
        good_backup('export/vm2')


@behaviour
def an_incremental_backup_reads_what_changed_and_no_more():
    for address in 'share/vm1', 'export/vm2':
        vm = address.split('/')[1]
        stage.write(vm)
        out = json.loads(stage.backup(address, '--json')[0].splitlines()[-1])
        text = json.dumps(out)
        assert '"incremental"' in text or out.get('incremental') is True, text
        equal(stage.left(vm), (0, 1, 0))


@behaviour
def readers_take_turns_on_one_machine():
    for reader in 'share', 'export', 'share':
        good_backup(f'{reader}/vm3')


@behaviour
def a_backup_while_the_guest_writes_shows_one_moment():
    busy = Lab(stage.hostd, '--size', '16M', '--written', '256K', '--rate', '2M', '--vms', '1', '--disks', '1')
    repository = ('-r', stage.path('busy'))
    try:
        with open(stage.path('password'), 'w') as file:
            file.write(busy.password + '\n')
        folders = [word for folder in busy.folders.values() for word in ('--map', f'{folder} = {folder}')]
        rp('host', 'add', 'busy', busy.http, '--user', 'LAB\\admin', '--password-file', stage.path('password'),
           '--export-folder', busy.folders['export'], *folders)
        rp(*repository, 'repo', 'init', '--no-encryption')
        last = 63
        for reader in 'share', 'export', 'share':
            rp(*repository, 'backup', 'busy/vm1', '--reader', reader)
            moment = stage.moment('vm1', *repository)
            assert moment > last, (moment, last)
            last = moment
    finally:
        equal(busy.end(), (0, False))


@behaviour
def a_point_becomes_a_machine_of_the_host_that_starts():
    rp('restore', 'vm1', '--to-host', 'share/again', '--new-id', '--start', good=(1,)) # its next backup will be full
    shown = ask('vm', 'show', 'again', '-H', 'local:' + stage.lab.host)
    for disk in shown['disks']:
        handle = nbd.NBD()
        handle.connect_uri(disk['nbd_uri'])
        equal(lab_guest.moment(bytes(handle.pread(handle.get_size(), 0))), stage.written['vm1'])
        handle.shutdown()
    rp('vm', 'stop', 'share/again')
    rp('vm', 'delete', 'share/again', '--yes')
    equal(len(ask('vm', 'list', '-H', 'share')), 3)


@behaviour
def a_disk_that_is_added_is_read_in_full_and_one_that_is_gone_is_no_more():
    image = os.path.join(stage.lab.folders['disks'], 'more.vhdx')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'vhdx', image, '16M'], check=True, timeout=60)
    local = 'local:' + stage.lab.host
    rp('vm', 'stop', 'share/vm1')
    rp('disk', 'add', 'vm1', image, '-H', local)
    rp('vm', 'start', 'share/vm1')
    stage.backup('share/vm1', good=(0, 1))
    equal(stage.left('vm1'), (0, 1, 0))
    rp('vm', 'stop', 'share/vm1')
    rp('disk', 'remove', 'vm1', 'disk2', '-H', local)
    rp('vm', 'start', 'share/vm1')
    good_backup('share/vm1', good=(0, 1))


sys.exit(stage.run_all())
