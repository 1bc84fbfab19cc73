#!/usr/bin/python3
"""test-tool-faults.py HOSTD REFPOINT: what goes wrong on a host during a backup by the tool (facts 1.5 E, F), as the
lab's script orders it. After each failure nothing may be left there, and the next backup must be as good as ever."""

import os, sys

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
from tap import behaviour
from tool_stage import Stage

stage = Stage(*sys.argv[1:])
good_backup, failed_backup = stage.good_backup, stage.failed_backup


@behaviour
def a_method_that_is_refused_fails_the_backup():
    good_backup('share/vm1')
    good_backup('export/vm2')
    failed_backup('share/vm1', 'every CreateSnapshot: returns 32775', why='32775') # also for the crash-consistent one
    good_backup('share/vm1')


@behaviour
def a_job_that_fails_in_the_middle_fails_the_backup_with_its_text():
    why = 'The device is not ready. (0x80070015)'
    for address, method in (('share/vm1', 'CreateSnapshot'), ('share/vm1', 'ConvertToReferencePoint'),
                            ('export/vm2', 'CreateSnapshot'), ('export/vm2', 'ExportSystemDefinition')):
        # an export of changes that fails is tried once more, of everything
        failed_backup(address, f'every {method}: job fails at 40 %: {why}', why=why)
        good_backup(address)


@behaviour
def a_full_export_folder_fails_the_backup():
    failed_backup('export/vm2', 'next ExportSystemDefinition: disk full at 60 %', why='not enough space')
    good_backup('export/vm2')


@behaviour
def a_job_that_takes_its_time_is_waited_for():
    for address, method in (('share/vm1', 'CreateSnapshot'), ('share/vm1', 'ConvertToReferencePoint'),
                            ('export/vm2', 'ExportSystemDefinition')):
        stage.lab.say(f'next {method}: job hangs at 60 % for 1 s')
        good_backup(address)


@behaviour
def a_refused_freeze_fails_unless_crash_consistency_will_do():
    failed_backup('share/vm1', 'next CreateSnapshot: freeze refused', why='freeze',
                  options=('--consistency', 'application-only'))
    stage.lab.say('next CreateSnapshot: freeze refused')
    out, complaints = good_backup('share/vm1', '--consistency', 'application', good=(0, 1))
    assert 'crash' in out + complaints, out + complaints


@behaviour
def a_reference_point_that_vanished_makes_the_backup_a_full_one():
    for address in 'share/vm1', 'export/vm2':
        stage.lab.say('now: lose every point of ' + address.split('/')[1])
        out, complaints = good_backup(address, good=(0, 1))
        assert 'full' in out + complaints, out + complaints
        # In the middle of a backup, which has chosen it already. (The host still knows the tracking id alone.)
        stage.lab.say('next CreateSnapshot: loses every point')
        good_backup(address, good=(0, 1))


sys.exit(stage.run_all())
