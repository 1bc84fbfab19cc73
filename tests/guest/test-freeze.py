#!/usr/bin/python3
"""test-freeze.py BOOT-FOLDER BUILD: checkpoints of a real guest under libvirt's embedded driver, consistent inside the
guest: how long it was frozen is printed; whatever in the guest or here is missing, hangs, fails, dies or is turned off
in the middle, it is thawed, and the checkpoint ends as its options say."""

import json, os, re, signal, statistics, sys, time

import guest
from stage import DEADLINE, Stage
from tap import behaviour, equal, wait_for

stage = Stage('freeze', *sys.argv[1:3])
ONLY = ('checkpoint', 'create', 'vm', '--consistency', 'application-only')
AGENT = '$(cat /run/qemu-ga.pid)'
made = None # how many checkpoints there must be


def checkpoints():
    return json.loads(stage.local('checkpoint', 'list', 'vm', '--json').stdout)


def is_refused(why, *options):
    """Asked for an application-consistent checkpoint and nothing else, there is none, and the guest goes on."""
    before = checkpoints()
    said = stage.local(*ONLY, *options, good=(2,)).stderr
    assert why in said, said
    equal(checkpoints(), before)
    stage.goes_on('vm')
    no_watchdog()


def falls_back(why):
    """Where it may, it is crash-consistent, and says why."""
    made = json.loads(stage.local('checkpoint', 'create', 'vm', '--json', good=(0, 1)).stdout)
    equal((made['consistency'], why in made['consistency_reason']), ('crash', True))
    stage.goes_on('vm')
    no_watchdog()


def no_watchdog():
    wait_for(lambda: not stage.processes('refpoint-thaw'), 60, 'the end of the watchdog')


def hook(kind):
    stage.inside('vm', f'echo {kind} >/run/hook')


def freezing(*options):
    """The tool, in the middle of a checkpoint: it has asked the guest to freeze."""
    before = stage.console('vm').count('hook ok: freeze')
    tool = stage.start('-H', 'local:' + stage.path('host'), *ONLY, *options)
    end = time.monotonic() + 60
    while stage.console('vm').count('hook ok: freeze') == before:
        assert tool.poll() is None and time.monotonic() < end, guest.text_of(stage.path('tool.log'))
        time.sleep(0.001)
    return tool


def stopped_in_the_freeze(act, *options, again=lambda: None):
    """Something happens while the tool stands still in the middle of a checkpoint, which it cannot end then. How many
    checkpoints there must be afterwards; None: one more may be there. Where the tool was through before it stood still,
    again() makes the guest ready for the next try."""
    for _ in range(20):
        before = len(checkpoints())
        tool = freezing(*options)
        tool.send_signal(signal.SIGSTOP)
        act()
        tool.send_signal(signal.SIGCONT)
        status = tool.wait(120)
        if status:
            # One process at a time has the embedded driver: a watchdog has to end the one that has it. What that had
            # made while the guest was frozen, may stay.
            assert status in (2, -signal.SIGKILL), guest.text_of(stage.path('tool.log'))
            return before if status == 2 else None
        again()
    raise AssertionError('the tool was through with it each time before it was stopped')


@behaviour
def an_idle_guest_is_frozen_for_less_than_a_second():
    stage.take_in('vm', stage.disks('vm', 'ext4', 'xfs'), writer='each', hook='ok')
    stage.boots('vm', lambda: stage.local('vm', 'start', 'vm'))
    stage.inside('vm', 'kill -STOP $(pidof writer) && sync')
    times = []
    for number in range(5):
        said = stage.local('-v', *ONLY, '--name', str(number)).stderr
        times.append(int(re.search(r'guest was frozen for (\d+) ms', said)[1]))
    stage.inside('vm', 'kill -CONT $(pidof writer)')
    print(f'# frozen for {statistics.median(times):.0f} ms (median of {len(times)}; {min(times)} to {max(times)})')
    busy = os.getloadavg()[0] > 2 * os.cpu_count() # with others' guests, who are emulated as well
    assert busy or min(times) < 1000, times # what took longer may have waited for the processor
    equal([(item['consistency'], item['consistency_reason']) for item in checkpoints()], [('application', None)] * 5)
    stage.goes_on('vm')
    no_watchdog()


@behaviour
def a_guest_without_an_agent_is_taken_as_it_is_when_that_may_be():
    stage.inside('vm', f'kill -KILL {AGENT}')
    is_refused('agent')
    falls_back('agent')
    stage.inside('vm', 'agent')


@behaviour
def an_agent_that_does_not_answer_is_given_up():
    stage.inside('vm', f'kill -STOP {AGENT}')
    begin = time.monotonic()
    is_refused('agent')
    falls_back('agent')
    print(f'# twice: {time.monotonic() - begin:.1f} s')
    stage.inside('vm', f'kill -CONT {AGENT}')


def made_when_nothing_is_merged():
    """A checkpoint, as soon as those that were deleted before are gone."""
    def tried():
        done = stage.local('checkpoint', 'create', 'vm', '--json', good=(0, 1, 2))
        assert done.returncode < 2 or 'is being merged' in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode < 2 and json.loads(done.stdout)
    return wait_for(tried, 60, 'the merge does not end')


@behaviour
def one_that_is_paused_is_not_asked():
    stage.local('vm', 'pause', 'vm')
    try:
        said = stage.local(*ONLY, good=(2,)).stderr
        assert 'paused' in said, said
        made = made_when_nothing_is_merged()
        equal((made['consistency'], 'paused' in made['consistency_reason']), ('crash', True))
    finally:
        stage.local('vm', 'resume', 'vm')
    stage.goes_on('vm')
    no_watchdog()


@behaviour
def a_hook_that_fails_leaves_nothing_frozen_and_is_the_reason_in_the_restore_point():
    hook('fail')
    is_refused('hook')
    stage.rp('repo', 'init')
    stage.local('backup', 'vm', good=(1,)) # with a remark: the agent is there, and refused
    point = stage.ask('show', 'vm')
    equal((point['consistency_asked'], point['consistency_reached']), ('application', 'crash'))
    assert 'hook' in point['consistency_reason'], point
    stage.goes_on('vm')
    hook('ok')


@behaviour
def a_tool_that_is_killed_in_the_freeze_leaves_the_guest_writing():
    longest = thawed = 0
    for delay in 0, 0.06, 0.12, 0.25:
        tool = freezing()
        time.sleep(delay)
        tool.kill()
        tool.wait(60)
        longest = max(longest, stage.goes_on('vm'))
        no_watchdog()
        thawed += 'was left frozen and has been thawed' in guest.text_of(stage.path('tool.log'))
    print(f'# {thawed} of 4 were thawed by the watchdog; the guest wrote again within {longest:.1f} s of the kill')
    stage.no_complaints('vm')


@behaviour
def a_tool_that_stands_still_in_the_freeze_does_not_hold_the_guest_beyond_the_limit():
    stopped_in_the_freeze(lambda: stage.goes_on('vm'), '--freeze-limit', '2')
    no_watchdog()
    longest = guest.longest_step(stage.path('vm', 'acks'))
    print(f'# until now, the longest step of a writer took {longest} ms by the clock of the guest')
    assert longest < 30000, longest # the limit, and what a watchdog needs on a busy machine
    stage.no_complaints('vm')


@behaviour
def an_agent_that_hangs_in_the_freeze_is_given_up_and_when_it_freezes_after_all_it_is_thawed():
    hook('hang')
    begin = time.monotonic()
    said = stage.local(*ONLY, '--freeze-limit', '3', good=(2,)).stderr
    print(f'# given up after {time.monotonic() - begin:.1f} s: {said.strip().splitlines()[-1]}')
    stage.goes_on('vm')
    assert stage.processes('refpoint-thaw')
    stage.inside('vm', 'touch /run/go')
    no_watchdog()
    stage.goes_on('vm')
    hook('ok')


@behaviour
def a_guest_that_is_reset_while_it_is_frozen_has_no_application_consistent_checkpoint():
    global made
    ready = 0

    def reset():
        nonlocal ready
        ready = stage.console('vm').count(guest.READY)
        said = stage.console('vm').count('it is reset')
        stage.inside('vm', "(sleep 0.2; echo '<3>it is reset' >/dev/kmsg; echo b >/proc/sysrq-trigger) &")
        wait_for(lambda: stage.console('vm').count('it is reset') > said, 60, 'the word of the reset')
        wait_for(lambda: not stage.shells['vm'].answers(), 60, 'the reset')

    def is_up():
        wait_for(lambda: stage.console('vm').count(guest.READY) > ready, DEADLINE, 'the guest after its reset')
        stage.goes_on('vm')
    made = stopped_in_the_freeze(reset, again=is_up)
    is_up()


@behaviour
def a_guest_that_is_turned_off_meanwhile_needs_nobody_any_more():
    # The watchdog goes on: a freeze may still come, for all that it knows. Not when there is no guest any more.
    stage.inside('vm', '(sleep 0.2; echo o >/proc/sysrq-trigger) &')
    no_watchdog()
    wait_for(lambda: stage.local_vm('vm')['state'] == 'off', 60, 'the end of the guest')
    assert made is None or len(checkpoints()) == made, (made, checkpoints())


@behaviour
def one_that_is_off_is_consistent():
    told = json.loads(stage.local(*ONLY, '--json').stdout)
    equal((told['consistency'], told['consistency_reason']), ('application', 'it is off, nobody writes'))


@behaviour
def every_acknowledged_record_is_there():
    stage.local('backup', 'vm', good=(0, 1))
    stage.rp('restore', 'vm', '--to', stage.path('restored'), '-O', 'raw')
    images = [stage.path('restored', name) for name in os.listdir(stage.path('restored'))]
    guest.judged_good(*images, acks=stage.acknowledged('vm'))


sys.exit(stage.run())
