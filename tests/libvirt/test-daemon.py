#!/usr/bin/python3
"""test-daemon.py HV: the module over a libvirtd of its own, which is killed. The daemon is one of a session and serves libvirt's test
driver."""

import os, signal, subprocess, sys, tempfile, time

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
from hypervisor import Hypervisor, Refused
from tap import behaviour, equal, run_all

scratch = tempfile.TemporaryDirectory(prefix='libvirtd-test-', dir='/tmp')
SOCKET = os.path.join(scratch.name, 'libvirt', 'libvirt-sock')
NOBODY = 65534
DOMAIN = """<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>{0}</name><uuid>{1}</uuid>
<memory>8192</memory><vcpu>1</vcpu><os><type>hvm</type></os><test:runstate>{2}</test:runstate></domain>"""
ON, OFF = '11111111-2222-3333-4444-555555555555', '22222222-2222-3333-4444-555555555555'
NODE = os.path.join(scratch.name, 'node.xml')
URI = f'test+unix://{NODE}?socket={SOCKET}'
os.chmod(scratch.name, 0o777)
with open(NODE, 'w') as file:
    file.write('<node>' + DOMAIN.format('on', ON, 1) + DOMAIN.format('off', OFF, 5) + '</node>')
hv = daemon = None
# About one time in a hundred libvirt 9.0 keeps an object of its own (a virNetClient, with an eventfd) of a daemon that was killed; the
# socket is closed, and nobody has the connection any more. Two may come together. Of what we kept there would be one for
# each of the three losses.
LIBVIRTS = 2
SUPPRESSED = os.path.join(scratch.name, 'suppressed')
with open(SUPPRESSED, 'w') as file:
    file.write('leak:libglib-2.0\n')


def start_daemon():
    """A daemon of root's would be the machine's."""
    global daemon
    user = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []} if os.getuid() == 0 else {}
    home = {name: scratch.name for name in ('HOME', 'XDG_RUNTIME_DIR', 'XDG_CONFIG_HOME', 'XDG_CACHE_HOME')}
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    with open(os.path.join(scratch.name, 'log'), 'a') as log:
        daemon = subprocess.Popen(['/usr/sbin/libvirtd'], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd='/',
                                  env={'PATH': os.environ['PATH'], **home}, **user)
    wait_for(lambda: os.path.exists(SOCKET), 'libvirtd does not start')


def kill_daemon():
    if daemon and daemon.poll() is None:
        daemon.kill()
        daemon.wait(30)


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def finds_it():
    try:
        return hv('find', 'on')
    except Refused:
        return None # a daemon that has just begun


def held():
    """Of what hv has open."""
    return len(os.listdir(f'/proc/{hv.process.pid}/fd'))


@behaviour
def domains_are_reached_through_a_daemon():
    global hv
    start_daemon()
    os.environ['LSAN_OPTIONS'] = f'suppressions={SUPPRESSED}:print_suppressions=0'
    hv = Hypervisor(sys.argv[1], URI)
    equal(hv('find', 'on'), ON)
    equal(hv('state', ON), 'running')
    equal(hv('state', OFF), 'off')


@behaviour
def while_the_daemon_is_gone_calls_fail_and_the_next_one_after_its_return_connects_again():
    for _ in range(3):
        kill_daemon()
        try:
            hv('find', 'on')
            raise AssertionError('found without a daemon')
        except Refused as why:
            equal(why.code, 'io') # not: there is no such domain
        start_daemon()
        wait_for(finds_it, 'no new connection')


@behaviour
def a_watcher_connects_again_by_itself_and_is_told_what_runs_as_started_and_that_the_rest_may_have_changed():
    hv('watch')
    hv('pause', ON)
    wait_for(lambda: hv.events == [(ON, 'changed')], 'no event')
    for round in range(3):
        hv.events.clear()
        kill_daemon()
        if round == 2: # it is a call that finds the connection broken, and opens the next
            start_daemon()
            wait_for(finds_it, 'no new connection')
        else:
            time.sleep(0.5)
            start_daemon() # which has lost what was done: the driver keeps nothing
        wait_for(lambda: len(hv.events) >= 2, 'no event after the return')
        equal(sorted(hv.events), [(ON, 'started'), (OFF, 'changed')])
    hv('turn-off', ON)
    wait_for(lambda: (ON, 'stopped') in hv.events, 'no event over the new connection')
    hv('unwatch')


@behaviour
def lost_connections_are_not_kept():
    hv('watch')
    before = held()
    for _ in range(3):
        hv.events.clear()
        kill_daemon()
        start_daemon()
        wait_for(lambda: len(hv.events) >= 2, 'no event after the return')
    wait_for(lambda: held() <= before + LIBVIRTS, f'{before} descriptors, then {held()}')
    kill_daemon()
    hv('unwatch') # over a connection that is broken
    start_daemon()
    wait_for(finds_it, 'no new connection')
    wait_for(lambda: held() <= before + LIBVIRTS, f'{before} descriptors, then {held()}')


@behaviour
def a_daemon_that_hangs_holds_nobody_for_ever():
    daemon.send_signal(signal.SIGSTOP)
    try:
        hv('find', 'on')
        raise AssertionError('found without a daemon')
    except Refused as why:
        assert why.code in ('busy', 'io'), why
    finally:
        daemon.send_signal(signal.SIGCONT)
    wait_for(finds_it, 'no new connection')


@behaviour
def it_ends_well_and_nothing_was_printed():
    equal(hv.end(), 0)
    equal(hv.noise, [])


status = 1
try:
    status = run_all()
finally:
    if hv:
        hv.end()
    kill_daemon()
sys.exit(status)
