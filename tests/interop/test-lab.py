#!/usr/bin/python3
"""test-lab.py HOSTD: the lab as its user meets it: how it starts and ends, its guests, its folder. What disks hold is
judged by lab_guest.py."""

import os, re, signal, subprocess, sys, tempfile, threading, time, urllib.parse

import nbd

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
import lab_guest
from lab import Lab
from tap import behaviour, equal, run_all, wait_for

hostd = sys.argv[1]
scratch = tempfile.TemporaryDirectory(prefix='lab-test-')
SMALL = ('--size', '8M', '--written', '64K')


def disk(lab, vm='vm1', number=0):
    """All that a running VM's disk holds."""
    handle = nbd.NBD()
    handle.connect_uri(lab.vm(vm)['disks'][number]['nbd'])
    data = bytes(handle.pread(handle.get_size(), 0))
    handle.shutdown()
    return data


def nbd_socket(lab, vm):
    """Where a running VM's disks are served."""
    uri = urllib.parse.urlsplit(lab.vm(vm)['disks'][0]['nbd'])
    return urllib.parse.parse_qs(uri.query)['socket'][0]


def counted(lab):
    """How many writes the mark of a running VM's disk counts, to which others may follow."""
    return int(lab_guest.MARK.match(disk(lab))[2])


def fails(*arguments):
    """The one line that it complains with."""
    done = subprocess.run([hostd, '--lab', *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, env=dict(os.environ, TMPDIR=scratch.name))
    assert done.returncode in (2, 3) and not done.stdout, done
    equal(done.stderr.count('\n'), 1)
    return done.stderr


def refused(lab, line):
    """Why a line of the script is not carried out."""
    try:
        lab.say(line)
    except AssertionError as error:
        assert 'error: line 1: ' in str(error), error
        return str(error)
    raise RuntimeError(f'{line}: done')


def services(folder):
    """The disk services of a lab."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                if f'vm={folder}/'.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


@behaviour
def it_has_three_machines_of_two_disks():
    start = time.monotonic()
    lab = Lab(hostd)
    print(f'# ready after {time.monotonic() - start:.2f} s', flush=True)
    try:
        equal([vm['name'] for vm in lab.vms], ['vm1', 'vm2', 'vm3'])
        assert all(len(vm['disks']) == 2 and vm['state'] == 'running' for vm in lab.vms)
        assert all(one['size'] == 64 << 20 for vm in lab.vms for one in vm['disks'])
        equal(len({user['password'] for user in lab.users}), 3)
        folder = os.path.dirname(lab.ca)
        equal(len(services(folder)), 3)
        for name in 'key.pem', 'ntlm-users', 'lab.sock':
            equal(os.stat(os.path.join(folder, name)).st_mode & 0o77, 0)
    finally:
        equal(lab.end(), (0, False))
    equal(services(folder), [])


@behaviour
def disks_change_by_themselves_and_always_show_one_moment():
    start = time.monotonic()
    lab = Lab(hostd, *SMALL, '--vms', '1', '--rate', '1M', '--seed', '7')
    try:
        assert lab_guest.MARK.match(disk(lab))[1] == b'%016x' % lab_guest.key_of(7, 'vm1', 0)
        lab.say('now: stop writing')
        first = lab_guest.moment(disk(lab))
        lab.say('now: start writing')
        wait_for(lambda: counted(lab) > first + 256, 60, 'a second of writing')
        lab.say('now: stop writing')
        most = 16 + 256 * (time.monotonic() - start) # a megabyte a second is 256 writes; 16 were there before
        second = lab_guest.moment(disk(lab))
        assert first + 256 < second <= most, (first, second, most)
        equal(lab_guest.moment(disk(lab)), second)
    finally:
        equal(lab.end(), (0, False))


@behaviour
def a_guest_writes_what_it_is_told_to():
    lab = Lab(hostd, *SMALL, '--vms', '2', '--rate', '0')
    try:
        lab.say('now: write 10 of vm1')
        lab.say(f'now: write 5 of {lab.vm("vm1")["id"].lower()}')
        lab.say('now: write 1')
        equal([lab_guest.moment(disk(lab, vm, i)) for vm in ('vm1', 'vm2') for i in (0, 1)], [32, 32, 17, 17])
        for line, why in (('now: write 1 of vm3', 'no VM vm3 runs'), ('now: lose newest point', 'no reference point'),
                          ('now: write', 'is no number of blocks')):
            assert why in refused(lab, line)
    finally:
        equal(lab.end(), (0, False))


@behaviour
def a_guest_writes_whatever_another_ones_disks_are_at():
    lab = Lab(hostd, *SMALL, '--vms', '2', '--disks', '1', '--rate', '0')
    try:
        way = nbd_socket(lab, 'vm2')
        os.rename(way, way + '.away') # the VM runs, and nobody gets through to its disks
        lab.say('now: write 1 of vm1')
        assert 'vm2, disk0: not connected' in refused(lab, 'now: write 1 of vm2')
        os.rename(way + '.away', way)
        lab.say('now: write 1 of vm2')
        equal([lab_guest.moment(disk(lab, vm)) for vm in ('vm1', 'vm2')], [17, 17])
    finally:
        equal(lab.end(), (0, False))


@behaviour
def a_guest_whose_machine_ends_while_it_writes_says_so():
    lab = Lab(hostd, *SMALL, '--vms', '1', '--disks', '1', '--rate', '0')
    try:
        service, answers = services(os.path.dirname(lab.ca)), []
        writing = threading.Thread(target=lambda: answers.append(refused(lab, 'now: write 1000000 of vm1')))
        writing.start()
        wait_for(lambda: re.search(rb'write 1[7-9]\d*,', disk(lab)), 60, 'the first of many writes')
        os.unlink(os.path.join(os.path.dirname(nbd_socket(lab, 'vm1')), 'control.sock')) # it is off, for whoever asks
        os.kill(service[0], signal.SIGKILL)
        writing.join(60)
        assert answers and 'vm1, disk0: not connected' in answers[0], answers
        assert 'no VM vm1 runs' in refused(lab, 'now: write 1 of vm1')
    finally:
        equal(lab.end(), (0, False))


@behaviour
def a_folder_that_is_given_is_kept_and_gone_on_with():
    folder = os.path.join(scratch.name, 'kept')
    lab = Lab(hostd, folder, *SMALL, '--vms', '1', '--rate', '0')
    lab.say('now: write 10')
    before = lab.about
    equal(lab.end(), (0, True))
    equal(services(folder), [])
    lab = Lab(hostd, folder, '--rate', '0')
    equal([vm['id'] for vm in lab.vms], [vm['id'] for vm in before['vms']])
    equal(lab.fingerprint, before['fingerprint'])
    assert lab.password != before['password']
    assert 'another lab runs there' in fails(folder)
    lab.say('now: write 1')
    equal(lab_guest.moment(disk(lab)), 27)
    equal(lab.end(), (0, True))


@behaviour
def a_killed_lab_leaves_machines_that_the_next_one_takes_over():
    folder = os.path.join(scratch.name, 'killed')
    lab = Lab(hostd, folder, *SMALL, '--vms', '1', '--rate', '2M')
    wait_for(lambda: counted(lab) > 16, 60, 'the first writes')
    lab.process.kill()
    lab.process.wait(60)
    equal(len(services(folder)), 1)
    lab = Lab(hostd, folder, '--rate', '0')
    marked, between = counted(lab), lab_guest.moment(disk(lab))
    assert between >= marked > 16, (between, marked)
    # it goes on behind the mark, with the same writes again where there are more: 4096 at most (lab_guest.c)
    lab.say('now: write 5000')
    equal(lab_guest.moment(disk(lab)), marked + 5000)
    equal(lab.end(), (0, True))
    equal(services(folder), [])


@behaviour
def it_ends_at_a_signal():
    for number in signal.SIGTERM, signal.SIGINT:
        process = subprocess.Popen([hostd, '--lab', *SMALL, '--vms', '1'], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE)
        assert process.stdout.readline().startswith(b'{"pid":%d,' % process.pid)
        process.send_signal(number)
        equal(process.wait(60), 0)


@behaviour
def mistakes_are_one_clear_line_and_leave_nothing():
    script = os.path.join(scratch.name, 'script')
    with open(script, 'w') as file:
        file.write('# a comment\nnext CreateSnapshot: drops\nnext CreateSnapshot: explodes\n')
    assert f'{script}: line 3: "explodes" is nothing that can happen' in fails(*SMALL, '--vms', '1', '--script', script)
    assert '--vms: "many" is no number' in fails('--vms', 'many')
    assert '--size: "1X" is no size' in fails('--size', '1X')
    assert 'unknown option --no-such' in fails('--no-such')
    assert '--seed needs a value' in fails('--seed')
    assert 'one folder is enough' in fails('a', 'b')
    assert 'needs --keytab' in fails('--administrator', 'alice')
    assert '/no/such/place' in fails('/no/such/place/lab')
    assert not any(name.startswith('refpoint-lab-') for name in os.listdir(scratch.name))


@behaviour
def several_run_beside_each_other():
    labs = [Lab(hostd, *SMALL, '--vms', '1') for _ in range(3)]
    equal(len({lab.http for lab in labs} | {lab.https for lab in labs}), 6)
    for lab in labs:
        equal(lab.end(), (0, False))


sys.exit(run_all())
