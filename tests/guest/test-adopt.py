#!/usr/bin/python3
"""test-adopt.py BOOT-FOLDER BUILD: a real guest with three disks (raw, qcow2 on another one, VHDX), whose writer goes
over them in order, is taken in, runs, is backed up over WMI while it writes, is restored as another VM, is given back and
runs again, in the end on VHDX files alone. Every restore shows one moment of all disks with all that had been
acknowledged, and boots; given back the guest's definition is what it was, and every record is on its disks."""

import json, os, subprocess, sys

import guest
from stage import DEADLINE, Stage
from tap import behaviour, equal, wait_for

stage = Stage('adopt', *sys.argv[1:3])
images = lambda: sorted(os.listdir(stage.path('images')))
ORIGINALS = ['1.raw', '2.qcow2', '3.vhdx']
VHDX = ['1.vhdx', '2.vhdx', '3.vhdx']
before = None # the definition
restored_to = 0 # the last step in the newest backup


def definition():
    return stage.virsh('dumpxml', '--inactive', '--security-info', 'vm')


def shut_down():
    stage.virsh('shutdown', 'vm', '--mode', 'acpi')
    wait_for(lambda: stage.virsh('domstate', 'vm').strip() == 'shut off', DEADLINE, 'the end of the guest')


def in_images(*names):
    return [stage.path('images', name) for name in names]


def judged(*names):
    """All that the guest was told anywhere is there, at rest."""
    guest.judged_good(*in_images(*names), application=True, acks=stage.acknowledged('vm'))


def backed_up(kind, asked, *options):
    """A backup while it writes, and what its restore shows."""
    global restored_to
    acks = stage.acknowledged('vm')
    stage.rp('backup', 'h/vm', '--consistency', asked, *options)
    point = stage.ask('show', 'vm')
    reached = asked.removesuffix('-only')
    equal((point['kind'], point['consistency_reached'], point['consistency_reason']), (kind, reached, None))
    folder = stage.path('restored')
    stage.rp('restore', 'vm', '--to', folder, '-O', 'raw')
    disks = guest.judged_good(*(os.path.join(folder, name) for name in os.listdir(folder)),
                              application=reached == 'application', acks=acks)
    subprocess.run(['rm', '-r', folder], check=True)
    equal(len(disks), 3)
    restored_to = max(disk['last'] for disk in disks)
    stage.goes_on('vm')
    print(f'# {kind}, {reached}-consistent: {point["bytes_read"] >> 20} MiB read, the last step on each disk: '
          + ', '.join(str(disk['last']) for disk in sorted(disks, key=lambda disk: disk['disk'])))


@behaviour
def a_guest_runs_before_it_is_adopted():
    global before
    os.mkdir(stage.path('images'))
    disks = []
    for number, kind, name in ((1, 'ext4', '1.raw'), (2, 'xfs', '2.qcow2'), (3, 'ext4', '3.vhdx')):
        plain = guest.make_disk(stage.path('plain.raw'), number, kind)
        image, form = stage.path('images', name), name.partition('.')[2]
        if form == 'vhdx': # one of ours, for QEMU to read and write
            stage.rp('disk', 'convert', plain.source, image)
        elif form == 'qcow2': # the guest's writes are in it, the rest in the image behind it
            base = stage.path('base.qcow2')
            subprocess.run(['qemu-img', 'convert', '-O', form, plain.source, base], check=True, timeout=60)
            subprocess.run(['qemu-img', 'create', '-q', '-f', form, '-b', base, '-F', form, image], check=True, timeout=60)
        else:
            os.rename(plain.source, image)
        disks.append(guest.Disk(image, 'vhd' if form == 'vhdx' else form, plain.serial)) # as libvirt calls it
    stage.define('vm', disks, writer='ordered', disks=3)
    before = definition()
    stage.boots('vm', lambda: stage.virsh('start', 'vm'))
    assert 'shut it down' in stage.local('vm', 'adopt', 'vm', '--connect', stage.uri, good=(2,)).stderr
    shut_down()
    equal(definition(), before)


@behaviour
def a_dry_run_leaves_definition_and_files_as_they_are():
    said = json.loads(stage.local('vm', 'adopt', 'vm', '--connect', stage.uri, '--dry-run', '--json').stdout)
    equal([item['verdict'] for item in said['items']], ['taken'] * 3)
    equal((definition(), images()), (before, ORIGINALS))


@behaviour
def the_adopted_guest_runs_on_its_disk_service():
    stage.local('vm', 'adopt', 'vm', '--connect', stage.uri)
    now = definition()
    assert "name='disk2'" in now and '1.raw' not in now and '3.vhdx' not in now, now
    stage.start_hostd()
    stage.boots('vm', lambda: stage.rp('vm', 'start', 'h/vm'))


@behaviour
def every_backup_of_the_writing_guest_shows_one_moment_of_three_disks():
    stage.rp('repo', 'init')
    backed_up('full', 'application-only')
    backed_up('incremental', 'application-only')
    for _ in range(3):
        backed_up('incremental', 'crash')
    backed_up('full', 'application-only', '--full')
    stage.rp('check', '--read-data')
    stage.no_complaints('vm')


@behaviour
def restored_as_another_vm_it_boots_and_goes_on_writing():
    stage.rp('vm', 'shutdown', 'h/vm', '--timeout', str(DEADLINE)) # one guest at a time without KVM
    stage.rp('restore', 'vm', '--to-host', 'h/copy', '--new-id', '--folder', stage.path('copy'), '--start', good=(0, 1))
    # when its agent answers, it can be brought to rest
    at_rest = lambda: stage.rp('backup', 'h/copy', '--consistency', 'application-only', good=(0, 1, 2)).returncode < 2
    wait_for(at_rest, DEADLINE, 'the agent of the restored guest')
    stage.rp('vm', 'stop', 'h/copy', '--now')
    found = guest.judged_good(*(disk['path'] for disk in stage.vm('copy')['disks']))
    assert all(disk['last'] > restored_to for disk in found), (found, restored_to)


@behaviour
def given_back_a_vm_that_was_made_here_leaves_a_domain_on_its_vhdx_files():
    stage.end_hostd()
    paths = [disk['path'] for disk in stage.local_vm('copy')['disks']]
    stage.local('vm', 'release', 'copy', '--yes')
    now = stage.virsh('dumpxml', '--inactive', 'copy')
    equal((now.count("type='vhd'"), all(f"<source file='{path}'/>" in now for path in paths)), (3, True))
    assert all(map(os.path.exists, paths)), paths
    stage.virsh('undefine', 'copy')


@behaviour
def given_back_its_definition_is_what_it_was_and_no_file_of_ours_is_left():
    judged(*VHDX)
    stage.local('vm', 'release', 'vm', '--yes')
    equal((definition(), images()), (before, ORIGINALS))
    equal(os.listdir(stage.path('host', 'vms')), [])
    judged(*ORIGINALS)


@behaviour
def the_released_guest_runs_again():
    stage.boots('vm', lambda: stage.virsh('start', 'vm'))
    shut_down()
    judged(*ORIGINALS)
    stage.no_complaints('vm')


@behaviour
def it_is_adopted_once_more_and_given_back_as_vhdx_on_which_it_runs():
    stage.local('vm', 'adopt', 'vm', '--connect', stage.uri)
    stage.local('vm', 'release', 'vm', '--format', 'vhdx', '--yes')
    now = definition()
    equal((now.count("type='vhd'"), all(f"<source file='{path}'/>" in now for path in in_images(*VHDX))), (3, True))
    judged(*VHDX)
    stage.boots('vm', lambda: stage.virsh('start', 'vm'))
    shut_down()
    judged(*VHDX)
    stage.no_complaints('vm')


sys.exit(stage.run())
