#!/usr/bin/python3
"""test-tool-kills.py HOSTD REFPOINT: answers and connections that are lost, and hosts and backups that are killed, in the
middle of a backup by the tool (facts 1.5 F). Nothing of it may be left on the host after the next backup, which must be
as good as ever."""

import os, signal, sys, time

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
from tap import behaviour, equal
from tool_stage import Stage

stage = Stage(*sys.argv[1:])
good_backup = stage.good_backup
# One that is killed now, and looked at in the end: meanwhile its backup waits.
stage_of_the_dead = Stage(*sys.argv[1:])
away = stage_of_the_dead.interrupted_backup('share/vm1', 'next CreateSnapshot: job hangs at 50 %')
stage_of_the_dead.kill_lab()
away_since = time.monotonic()


@behaviour
def a_lost_answer_leaves_nothing_that_the_next_backup_does_not_remove():
    good_backup('share/vm1')
    good_backup('export/vm2')
    for address, method in (('share/vm1', 'CreateSnapshot'), ('share/vm1', 'ConvertToReferencePoint'),
                            ('share/vm1', 'DestroyReferencePoint'), ('export/vm2', 'ExportSystemDefinition'),
                            ('share/vm1', 'GetVirtualDiskChanges')):
        stage.write(address.split('/')[1])
        stage.lab.say(f'next {method}: drops')
        stage.backup(address, good=(0, 1, 2))
        equal(stage.lab.say('now: list faults'), [])
        good_backup(address, good=(0, 1))


@behaviour
def a_connection_that_is_lost_anywhere_leaves_nothing_either():
    for number in 1, 5, 9, 14, 20, 27:
        stage.write('vm1')
        stage.lab.say(f'{number}th answer: drops')
        stage.backup('share/vm1', good=(0, 1, 2))
        stage.lab.say('now: forget faults')
        good_backup('share/vm1', good=(0, 1))


@behaviour
def an_interrupted_backup_cleans_up():
    for address, method in (('share/vm1', 'CreateSnapshot'), ('export/vm2', 'ExportSystemDefinition')):
        vm = address.split('/')[1]
        before = stage.left(vm)
        process = stage.interrupted_backup(address, f'next {method}: job hangs at 50 % for 10 s')
        process.send_signal(signal.SIGINT) # what the host makes is waited for, so that it can be removed
        stage.finish(process, (2, 130))
        stage.wait_until_left(vm, before)
        good_backup(address)


@behaviour
def a_killed_host_goes_on_where_it_was_and_is_found_again():
    # by its socket: the lab has new passwords each time
    stage.rp('host', 'add', 'here', stage.lab.unix, *stage.maps())
    stage.rp('host', 'add', 'export-here', stage.lab.unix, '--export-folder', stage.lab.folders['export'], *stage.maps())
    for address, method in (('here/vm1', 'CreateSnapshot'), ('export-here/vm2', 'ExportSystemDefinition'),
                            ('here/vm1', 'ConvertToReferencePoint')):
        process = stage.interrupted_backup(address, f'next {method}: job hangs at 50 %')
        stage.kill_lab()
        stage.restart_lab()
        _, complaints = stage.finish(process, (0, 1, 2))
        assert 'lost' not in complaints, complaints # how the job ended was told by the host that came back
        good_backup(address, good=(0, 1))


@behaviour
def a_killed_backup_is_cleaned_up_by_the_next():
    for address, method in (('share/vm1', 'ConvertToReferencePoint'), ('export/vm2', 'ExportSystemDefinition')):
        process = stage.interrupted_backup(address, f'next {method}: job hangs at 50 %')
        process.kill()
        process.communicate(timeout=60)
        stage.lab.say('now: release jobs')
        stage.wait_until_idle()
        good_backup(address, good=(0, 1))


@behaviour
def a_host_that_stays_away_is_given_up_after_a_minute():
    stage_of_the_dead.finish(away, (2,))
    assert time.monotonic() - away_since > 55
    stage_of_the_dead.restart_lab()
    stage_of_the_dead.good_backup('share/vm1', good=(0, 1))
    stage_of_the_dead.end()


sys.exit(stage.run_all())
