#!/usr/bin/python3
"""test-boot-check.py BOOT-FOLDER BUILD: a boot check of a guest without an agent, for which a text on its serial port decides."""

import json, os, sys

import guest
from stage import Stage
from tap import behaviour, equal

stage = Stage('boot-check', *sys.argv[1:3])


def boot_check(text, limit, **how):
    words = ('restore', 'web', '--to-host', 'local:' + stage.path('host'), '--folder', stage.path('check'), '--json',
             f'--boot-check=serial:{text}', '--boot-limit', str(limit))
    return stage.rp(*words, seconds=600, **how)


def notes():
    return sum(len(files) for _, _, files in os.walk(stage.path('repository', 'notes')))


def nothing_stays():
    equal([vm['name'] for vm in json.loads(stage.local('vm', 'list', '--json').stdout)], ['web'])
    equal([name for name in os.listdir(stage.folder) if name.startswith('check')], [])
    equal(stage.virsh('list', '--all', '--name').split(), ['web'])
    equal(stage.processes('qemu-system'), {})


@behaviour
def a_guest_without_an_agent_is_backed_up():
    stage.take_in('web', stage.disks('web', 'ext4'), agent='none')
    stage.start_hostd() # says what runs the VMs that are made here
    stage.end_hostd()
    stage.rp('repo', 'init')
    stage.local('backup', 'web')


@behaviour
def it_boots_when_the_text_comes_on_its_serial_port():
    outcome = json.loads(boot_check(guest.READY, 420).stdout.splitlines()[-1])
    assert outcome['booted'] and not outcome['remarks'], outcome
    print(f'# the restored guest said so {outcome["seconds"]:.0f} s after its start')
    equal(notes(), 1)
    nothing_stays()


@behaviour
def it_does_not_when_another_one_was_to_come():
    failed = boot_check('nobody says this', 20, good=(2,))
    assert 'it does not boot: \\"nobody says this\\" did not come on its serial port' in failed.stderr, failed.stderr
    equal(notes(), 2)
    nothing_stays()


sys.exit(stage.run())
