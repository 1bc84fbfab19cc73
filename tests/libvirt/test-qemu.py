#!/usr/bin/python3
"""test-qemu.py HV BOOT: the module with a real QEMU and the real guest (tests/guest), by libvirt's embedded driver. The disk service
is nbdkit with a file: what happens to a connection does not depend on who serves it. Boot files are kept in BOOT."""

import os, random, signal, subprocess, sys, tempfile, time

sys.path += [os.path.join(os.path.dirname(__file__), '..', name) for name in ('.', 'guest')]
import domain as test_domain, guest
from hypervisor import Hypervisor, Refused, Service
from tap import behaviour, equal, run_all

program, boot = sys.argv[1], guest.boot_files(sys.argv[2])
scratch = tempfile.TemporaryDirectory(prefix='libvirt-test-', dir=os.environ.get('TMPDIR', '/tmp'))
path = lambda *names: os.path.join(scratch.name, *names)
URI = test_domain.embedded_libvirt(path('root'))
VM = '11111111-2222-3333-4444-555555555555'
PLAIN = '22222222-2222-3333-4444-555555555555'
seed = int(os.environ.get('RP_TEST_SEED', random.randrange(1 << 31)))
random.seed(seed)
print(f'# RP_TEST_SEED={seed}')
hv = Hypervisor(program, URI)
services = [Service(path('s1'), path('1.raw')), Service(path('s2'), path('2.raw'))]
DISKS = [f'vda=disk0@{path("s1")}', f'vdb=disk0@{path("s2")}']


def definition(name, uuid, iothread=False, channel=True, **switches):
    """Of a domain with both disks, as a file."""
    disks = [guest.Disk(f'nbd+unix:///disk0?socket={service.socket}') for service in services]
    xml = test_domain.domain_xml(name, path(name), boot, disks, uuid=uuid, **switches)
    driver = 'discard="unmap" error_policy="stop" rerror_policy="stop" detect_zeroes="unmap"'
    xml = xml.replace('discard="unmap"', driver + (' iothread="1"' if iothread else ''))
    if iothread:
        xml = xml.replace('<vcpu>', '<iothreads>1</iothreads><vcpu>')
    if not channel:
        begin = xml.index('<channel type="unix">')
        xml = xml[:begin] + xml[xml.index('</channel>', begin) + len('</channel>'):]
    with open(path(name + '.xml'), 'w') as file:
        file.write(xml)
    return file.name


def refused(code, *words, seconds=150):
    """What the module says against it, in one line that names the domain."""
    try:
        hv(*words, seconds=seconds)
    except Refused as why:
        equal(why.code, code)
        return why.text
    raise AssertionError(f'{words[0]}: was not refused')


def acknowledged(name='main'):
    return guest.acknowledged(path(name, 'acks'))


def goes_on(name='main', more=10):
    before = acknowledged(name)
    guest.wait_for(lambda: all(acknowledged(name).get(disk, 0) >= before.get(disk, 0) + more for disk in (1, 2)), 90,
                   f'the guest does not go on from {before}')


def wait_state(domain, state, seconds=60):
    guest.wait_for(lambda: hv('state', domain) == state, seconds, f'{domain} is not {state}')


def wait_event(begin, event, domain=VM):
    guest.wait_for(lambda: (domain, event) in hv.events[begin:], 60, f'no event {event}')


def wait_ready(name, seconds=120):
    began = len(guest.text_of(path(name, 'console')))
    return lambda: guest.wait_for(lambda: guest.READY in guest.text_of(path(name, 'console'))[began:], seconds, f'{name} is not ready')


def unharmed(name='main'):
    equal(guest.complaints(path(name, 'console'), path(name, 'acks')), [])


def kill_both():
    for service in services:
        service.kill()


def start_both():
    for service in services:
        service.start()


def qemu_of(name):
    with open(path('root', 'run', 'qemu', name + '.pid')) as file:
        return int(file.read())


@behaviour
def a_domain_starts_over_its_disk_services_and_its_events_arrive():
    guest.make_disk(path('1.raw'), 1), guest.make_disk(path('2.raw'), 2)
    start_both()
    hv('watch')
    hv('define', definition('main', VM, iothread=True, writer='each', hook='ok', extra='loglevel=7'))
    equal(hv('find', 'main'), VM)
    equal(hv('state', VM), 'off')
    ready = wait_ready('main')
    hv('start', VM, *DISKS)
    equal(hv('state', VM), 'running')
    wait_event(0, 'started')
    assert 'main' in refused('state', 'start', VM, *DISKS)
    assert 'main' in refused('state', 'undefine', VM)
    assert 'not connected' in refused('unsupported', 'freeze', VM, 3000)
    ready()
    goes_on()


@behaviour
def a_service_that_is_away_for_seconds_only_stalls_the_guest():
    for service in services:
        service.kill()
    time.sleep(3)
    equal(hv('state', VM), 'running')
    start_both()
    goes_on()
    unharmed()


@behaviour
def a_longer_absence_pauses_it_until_it_is_resumed_and_the_guest_sees_no_error():
    hv('reconnect', VM, 2, *DISKS)
    begin = len(hv.events)
    services[1].kill()
    wait_event(begin, 'disk-failed')
    wait_state(VM, 'waiting for a disk')
    assert 'disk vdb of domain main' in refused('io', 'resume', VM)
    equal(hv('state', VM), 'waiting for a disk')
    services[1].start()
    hv('resume', VM)
    goes_on()
    equal(hv('state', VM), 'running')
    unharmed()


@behaviour
def disks_are_reconnected_while_the_guest_writes_and_whoever_is_killed_in_it_leaves_a_guest_that_goes_on():
    global hv
    hv('reconnect', VM, 30, *DISKS)
    begin = time.monotonic()
    for _ in range(5):
        hv('reconnect', VM, 30, *DISKS)
    print(f'# two disks: {(time.monotonic() - begin) / 5 * 1000:.0f} ms')
    for _ in range(6):
        hv.ask('reconnect', VM, 30, *DISKS)
        time.sleep(random.uniform(0, 0.25))
        hv.process.kill()
        hv.process.wait(30)
        hv = Hypervisor(program, URI)
        equal(hv('state', VM), 'running')
        hv('reconnect', VM, 30, *DISKS)
        goes_on()
    hv('watch')
    kill_both()
    time.sleep(2)
    start_both()
    goes_on()
    unharmed()


@behaviour
def a_grown_disk_is_seen_by_the_guest_at_once_with_exactly_its_size():
    services[0].kill()
    os.truncate(path('1.raw'), 256 << 20)
    services[0].start()
    hv('reconnect', VM, 30, *DISKS)
    hv('resize', VM, 'vda', 256 << 20)
    guest.wait_for(lambda: 'new size: 524288 512-byte' in guest.text_of(path('main', 'console')), 60, 'no new size in the guest')
    assert 'disk vda of domain main' in refused('io', 'resize', VM, 'vda', 512 << 20)
    goes_on()


def at_rest(name='main'):
    """What a frozen guest has acknowledged, once nothing of it is on its way any more."""
    inside(name, ':')
    seen = [acknowledged(name), time.monotonic()]

    def for_a_while():
        now = acknowledged(name)
        if now != seen[0]:
            seen[:] = [now, time.monotonic()]
        return time.monotonic() - seen[1] >= 0.5
    guest.wait_for(for_a_while, 60, f'{name} stands still')
    return seen[0]


@behaviour
def a_frozen_guest_stands_still_and_goes_on_when_thawed():
    times = []
    for _ in range(5):
        begin = time.monotonic()
        equal(hv('freeze', VM, 20000), '2')
        times.append(time.monotonic() - begin)
        before = at_rest()
        time.sleep(0.5)
        equal(acknowledged(), before)
        begin = time.monotonic()
        hv('thaw', VM, 20000)
        times[-1] += time.monotonic() - begin
        goes_on(more=5)
    print(f'# freeze and thaw: median {sorted(times)[2] * 1000:.0f} ms')
    hv('thaw', VM, 20000)
    hv('freeze', VM, 20000)
    assert 'frozen' in refused('state', 'freeze', VM, 20000)
    goes_on() # what could not be frozen was thawed


def inside(name, script):
    shell = guest.Shell(path(name, 'shell'))
    try:
        return shell.run(script, 60)
    finally:
        shell.close()


def let_hook_go(name):
    """What hangs in the freeze hook goes on, and ends well."""
    inside(name, 'echo ok >/run/hook; : >/run/go')


def thaws(domain, thawed):
    try:
        thawed[:] = [hv('thaw', domain, 20000)]
        return thawed != ['0']
    except Refused:
        return False


@behaviour
def a_freeze_whose_time_passed_while_others_had_the_agent_is_not_done_and_does_not_undo_theirs():
    inside('main', 'echo hang >/run/hook')
    hooked = guest.text_of(path('main', 'console')).count('hook hang: freeze')
    hv('later', 'freeze', VM, 30000)
    guest.wait_for(lambda: guest.text_of(path('main', 'console')).count('hook hang: freeze') > hooked, 30, 'the hook is not called')
    hv('later', 'freeze', VM, 1000)
    time.sleep(4)
    equal(hv.late, [])
    let_hook_go('main')
    guest.wait_for(lambda: len(hv.late) == 2, 30, f'no answers: {hv.late}')
    assert 'ok 2' in hv.late, hv.late
    assert any(answer.startswith('failed busy ') and 'was not free' in answer for answer in hv.late), hv.late
    before = at_rest()
    time.sleep(1)
    equal(acknowledged(), before)
    equal(hv('thaw', VM, 20000), '2')
    goes_on()


@behaviour
def a_paused_guest_is_not_frozen_and_a_reset_one_boots_again():
    hv('pause', VM)
    equal(hv('state', VM), 'paused')
    refused('state', 'freeze', VM, 3000)
    hv('reconnect', VM, 30, *DISKS)
    equal(hv('state', VM), 'paused')
    hv('resume', VM)
    ready = wait_ready('main')
    hv('reset', VM)
    ready()
    goes_on()


@behaviour
def saved_memory_is_restored_and_kept_when_the_disk_service_is_away():
    begin = len(hv.events)
    hv('save', VM)
    equal(hv('state', VM), 'saved')
    wait_event(begin, 'stopped')
    refused('state', 'thaw', VM, 3000)
    kill_both()
    refused('io', 'start', VM, *DISKS)
    equal(hv('state', VM), 'saved')
    start_both()
    # the node below the device comes, but not the new one: restored, and saved again
    assert 'was not started' in refused('io', 'start', VM, DISKS[0], DISKS[1] + '.away')
    equal(hv('state', VM), 'saved')
    hv('start', VM, *DISKS)
    equal(hv('state', VM), 'running')
    goes_on()
    assert guest.text_of(path('main', 'console')).count(guest.READY) == 2, 'it has booted'


@behaviour
def a_qemu_that_hangs_holds_nobody_for_ever():
    os.kill(qemu_of('main'), signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert 'has not answered' in refused('busy', 'pause', VM)
        assert 25 < time.monotonic() - begin < 120
        equal(hv('state', VM), 'running') # asks libvirt only
    finally:
        os.kill(qemu_of('main'), signal.SIGCONT)
    wait_state(VM, 'paused') # the late one
    hv('resume', VM)
    goes_on()


@behaviour
def a_guest_is_asked_to_shut_down_and_does():
    begin = len(hv.events)
    hv('shut-down', VM)
    wait_state(VM, 'off', 90)
    wait_event(begin, 'stopped')
    unharmed()
    hv('thaw', VM, 1000) # off: nothing of it is frozen


@behaviour
def without_its_disk_service_a_domain_does_not_start_and_is_off():
    kill_both()
    refused('io', 'start', VM, *DISKS)
    equal(hv('state', VM), 'off')
    start_both()
    assert 'disk vdb of domain main' in refused('io', 'start', VM, DISKS[0], DISKS[1] + '.away')
    equal(hv('state', VM), 'off')


@behaviour
def a_domain_that_somebody_else_started_is_healed_after_its_service_died():
    ready = wait_ready('plain')
    hv('define', definition('plain', PLAIN, writer='each', agent='hang'))
    hv('start', PLAIN) # as virsh does it: QEMU's connections have no patience
    ready()
    goes_on('plain')
    kill_both()
    wait_state(PLAIN, 'waiting for a disk')
    start_both()
    hv('reconnect', PLAIN, 30, *DISKS)
    equal(hv('state', PLAIN), 'waiting for a disk')
    hv('resume', PLAIN)
    goes_on('plain')
    kill_both()
    time.sleep(2)
    start_both()
    goes_on('plain')
    unharmed('plain')


@behaviour
def a_disk_taken_out_of_the_running_domain_keeps_the_others_from_nothing():
    hv('turn-off', PLAIN)
    ready = wait_ready('plain')
    hv('start', PLAIN)
    ready()
    goes_on('plain')
    # the first cannot be had; the second is connected all the same
    assert 'disk vda of domain plain' in refused('io', 'reconnect', PLAIN, 30, DISKS[0] + '.away', DISKS[1])
    services[1].kill()
    time.sleep(2)
    equal(hv('state', PLAIN), 'running')
    services[1].start()
    goes_on('plain')
    with open(path('vdb.xml'), 'w') as file:
        file.write('<disk type="network" device="disk"><source protocol="nbd" name="disk0"><host transport="unix" socket="'
                   f'{services[1].socket}"/></source><target dev="vdb" bus="virtio"/></disk>')
    hv('detach', PLAIN, file.name)
    guest.wait_for(lambda: not has_disk(PLAIN, 'vdb'), 60, 'the disk is not given back')
    hv('reconnect', PLAIN, 30, *DISKS)
    services[0].kill()
    time.sleep(2)
    equal(hv('state', PLAIN), 'running')
    services[0].start()
    before = acknowledged('plain')[1]
    guest.wait_for(lambda: acknowledged('plain')[1] > before + 10, 90, 'the disk that stayed does not go on')


def has_disk(domain, target):
    hv('running-xml', domain, path('running.xml'))
    return f"<target dev='{target}'" in guest.text_of(path('running.xml'))


@behaviour
def a_reconnect_that_is_killed_while_the_guest_stands_still_leaves_one_that_goes_on_with_those_that_wait():
    global hv
    hv('turn-off', PLAIN)
    before = guest.complaints(path('plain', 'console')) # about the disk that was taken out
    ready = wait_ready('plain')
    hv('define', definition('plain', PLAIN, iothread=True))
    hv('start', PLAIN)
    ready()
    caught = 0
    for tried in range(60):
        hv('reconnect', PLAIN, 0, *DISKS) # without patience: a service that ends leaves a client that has given up
        equal(hv('state', PLAIN), 'running')
        kill_both()
        start_both()
        begin = len(hv.events)
        hv.ask('reconnect', PLAIN, 30, *DISKS)
        end = time.monotonic() + 60
        while (PLAIN, 'changed') not in hv.events[begin:] and hv.answers.empty() and time.monotonic() < end:
            pass
        hv.process.kill()
        hv.process.wait(30)
        hv = Hypervisor(program, URI)
        hv('watch')
        state = hv('state', PLAIN)
        print(f'# {state}')
        assert state in ('running', 'waiting for a disk'), state
        caught += state != 'running'
        hv('resume', PLAIN, 'waiting')
        equal(hv('state', PLAIN), 'running')
        if caught == 3 or (caught and tried >= 11):
            break
    assert caught, 'the moment was never met'
    hv('pause', PLAIN)
    hv('resume', PLAIN, 'waiting')
    equal(hv('state', PLAIN), 'paused') # by its user
    hv('resume', PLAIN)
    inside('plain', 'echo x >/data/1/x && echo x >/data/2/x && sync')
    equal(guest.complaints(path('plain', 'console')), before)
    hv('turn-off', PLAIN)
    ready = wait_ready('plain')
    hv('define', definition('plain', PLAIN, writer='each', agent='hang'))
    hv('start', PLAIN, *DISKS)
    ready()
    goes_on('plain')


@behaviour
def an_agent_that_hangs_is_found_out_within_its_time():
    begin = time.monotonic()
    assert 'plain' in refused('unsupported', 'freeze', PLAIN, 3000)
    assert time.monotonic() - begin < 100
    goes_on('plain', 5)
    hv('turn-off', PLAIN)
    equal(hv('state', PLAIN), 'off')


@behaviour
def a_hook_that_refuses_leaves_nothing_frozen():
    ready = wait_ready('plain')
    hv('define', definition('plain', PLAIN, writer='each', hook='fail'))
    hv('start', PLAIN, *DISKS)
    ready()
    goes_on('plain')
    assert 'plain' in refused('state', 'freeze', PLAIN, 20000)
    goes_on('plain')
    hv('turn-off', PLAIN)


@behaviour
def a_hook_that_hangs_is_told_as_not_known():
    ready = wait_ready('plain')
    hv('define', definition('plain', PLAIN, writer='each', hook='hang'))
    hv('start', PLAIN, *DISKS)
    ready()
    goes_on('plain')
    begin = time.monotonic()
    assert 'nobody knows' in refused('io', 'freeze', PLAIN, 2000)
    print(f'# told after {time.monotonic() - begin:.1f} s')
    assert time.monotonic() - begin < 30
    refused('unsupported', 'thaw', PLAIN, 2000) # it still hangs in the hook
    let_hook_go('plain') # and now the agent freezes after all, for nobody
    thawed = []
    guest.wait_for(lambda: thaws(PLAIN, thawed), 60, 'it is not thawed')
    equal(thawed, ['2'])
    goes_on('plain')
    hv('turn-off', PLAIN)


@behaviour
def without_an_agent_in_its_definition_a_guest_is_told_to_have_none():
    hv('define', definition('plain', PLAIN, channel=False))
    hv('start', PLAIN, *DISKS)
    assert 'not configured' in refused('unsupported', 'freeze', PLAIN, 3000)
    hv('turn-off', PLAIN)


@behaviour
def domains_are_undefined_and_nothing_was_printed():
    hv('undefine', PLAIN)
    hv('undefine', VM, 'state')
    refused('not-found', 'state', VM)
    equal(hv.noise, [])


status = 1
try:
    status = run_all()
finally:
    for domain in VM, PLAIN:
        try:
            hv('turn-off', domain)
        except (Refused, OSError):
            pass
    hv.end()
    kill_both()
sys.exit(status)
