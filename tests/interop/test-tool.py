#!/usr/bin/python3
"""test-tool.py HOSTD REFPOINT: the tool and the host with WS-Management between them, every row of a backup's flows
(facts 1.5 A to F), and what goes wrong in them, as the lab's script orders it. What is restored is judged by guest.py,
and after each failure nothing may be left on the host and the next backup must be as good as ever."""

import json, os, signal, socket, subprocess, sys, tempfile, time

import nbd

import guest
from kit import Lab, behaviour, equal, run_all

hostd, tool = sys.argv[1:]
scratch = tempfile.TemporaryDirectory(prefix='lab-tool-')
OPTIONS = ('--size', '16M', '--written', '256K', '--rate', '0')


def path(name):
    return os.path.join(scratch.name, name)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return str(listener.getsockname()[1])


port = free_port()


def start_lab():
    return Lab(hostd, path('lab'), *OPTIONS, '--https', port)


lab = start_lab()
environment = dict(os.environ, REFPOINT_PASSWORD_FILE=path('passphrase'), REFPOINT_HOSTS=path('hosts'),
                   REFPOINT_KEYRING=path('keyring'), REFPOINT_REPOSITORY=path('repository'), LC_ALL='C.UTF-8')
with open(path('passphrase'), 'w') as secret:
    secret.write('of the test\n')


def start(*words):
    return subprocess.Popen([tool, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment)


def finish(process, good=(0,)):
    """(stdout, stderr)"""
    try:
        out, complaints = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode in good, f'exit status {process.returncode}: {out}{complaints}'
    return out, complaints


def rp(*words, good=(0,)):
    return finish(start(*words), good)


def ask(*words):
    return json.loads(rp(*words, '--json')[0])


def add_host(name, user='admin', *options):
    password = next(one['password'] for one in lab.users if one['user'] == 'LAB\\' + user)
    with open(path('password'), 'w', opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(password + '\n')
    rp('host', 'add', name, lab.https, '--user', 'LAB\\' + user, '--password-file', path('password'), '--ca', lab.ca,
       *options)


def add_hosts():
    """share reads the host's own files, export lets the host make copies."""
    folders = [word for folder in lab.folders.values() for word in ('--map', f'{folder} = {folder}')]
    add_host('share', 'admin', *folders)
    add_host('export', 'admin', '--export-folder', lab.folders['export'],
             '--map', f'{lab.folders["export"]} = {lab.folders["export"]}',
             '--map', f'{lab.folders["disks"]} = {lab.folders["disks"]}')


def backup(address, *options, good=(0,)):
    kind = ('--reader', address.split('/')[0])
    return rp('backup', address, *kind, *options, good=good)


def restored(vm, moment):
    """The newest point of a VM has exactly that moment of every disk."""
    folder = tempfile.mkdtemp(dir=scratch.name)
    rp('restore', vm, '--to', folder, '-O', 'raw')
    names = sorted(os.listdir(folder))
    assert names
    for name in names:
        with open(os.path.join(folder, name), 'rb') as file:
            equal(guest.moment(file.read()), moment)
        os.unlink(os.path.join(folder, name))


def left(vm):
    """(checkpoints, reference points, files in the export folder)"""
    host = 'local:' + lab.host
    return (len(ask('checkpoint', 'list', vm, '-H', host)), len(ask('refpoint', 'list', vm, '-H', host)),
            sum(len(files) for _, _, files in os.walk(lab.folders['export'])))


def wait_until_left(vm, expected):
    """A checkpoint that was given up is merged after its job."""
    end = time.monotonic() + 20
    while left(vm) != expected:
        assert time.monotonic() < end, f'{left(vm)} are left, not {expected}'
        time.sleep(0.1)


written = {'vm1': 64, 'vm2': 64, 'vm3': 64}


def write(vm, count=9):
    lab.say(f'now: write {count} of {vm}')
    written[vm] += count


def good_backup(address, *options, good=(0,)):
    """A backup after some writes, which is exact and leaves one reference point."""
    vm = address.split('/')[1]
    write(vm)
    out = backup(address, *options, good=good)
    restored(vm, written[vm])
    equal(left(vm), (0, 1, 0))
    return out


def failed_backup(address, *lines, why, options=()):
    """A backup that fails for the reason given, with one line, and leaves the host as it was."""
    vm = address.split('/')[1]
    write(vm)
    before = left(vm)
    for line in lines:
        lab.say(line)
    _, complaints = backup(address, *options, good=(2,))
    assert why in complaints, complaints
    if any(line.startswith('every') for line in lines):
        lab.say('now: forget faults')
    equal(lab.say('now: list faults'), [])
    wait_until_left(vm, before)


# ---- hosts -----------------------------------------------------------------------------------------------------------


@behaviour
def a_host_is_added_tested_and_listed():
    rp('repo', 'init')
    add_hosts()
    out, _ = rp('host', 'test', 'share', good=(0, 1))
    assert 'LABHOST' in out, out
    equal(sorted(vm['name'] for vm in ask('vm', 'list', '-H', 'share')), ['vm1', 'vm2', 'vm3'])


@behaviour
def who_cannot_come_in_is_told_so_in_one_line():
    with open(path('password'), 'w') as file:
        file.write('wrong\n')
    rp('host', 'add', 'wrong', lab.https, '--user', 'LAB\\admin', '--password-file', path('password'), '--ca', lab.ca)
    _, complaints = rp('vm', 'list', '-H', 'wrong', good=(2,))
    equal(complaints.count('\n'), 1)
    rp('host', 'remove', 'wrong')
    rp('host', 'add', 'stranger', lab.https, '--user', 'LAB\\admin', '--password-file', path('password'))
    _, complaints = rp('vm', 'list', '-H', 'stranger', good=(2,))
    equal(complaints.count('\n'), 1)
    assert 'certificate' in complaints, complaints
    rp('host', 'remove', 'stranger')


@behaviour
def who_may_only_read_cannot_back_up_and_leaves_nothing():
    folders = [word for folder in lab.folders.values() for word in ('--map', f'{folder} = {folder}')]
    add_host('reader', 'reader', *folders)
    equal(len(ask('vm', 'list', '-H', 'reader')), 3)
    _, complaints = rp('backup', 'reader/vm3', good=(2,))
    assert 'denied' in complaints or 'right' in complaints or 'permission' in complaints, complaints
    equal(left('vm3'), (0, 0, 0))


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
        write(vm)
        out = json.loads(backup(address, '--json')[0].splitlines()[-1])
        text = json.dumps(out)
        assert '"incremental"' in text or out.get('incremental') is True, text
        equal(left(vm), (0, 1, 0))


@behaviour
def readers_take_turns_on_one_machine():
    for reader in 'share', 'export', 'share':
        good_backup(f'{reader}/vm3')


@behaviour
def a_backup_while_the_guest_writes_shows_one_moment():
    busy = Lab(hostd, '--size', '16M', '--written', '256K', '--rate', '2M', '--vms', '1', '--disks', '1')
    try:
        with open(path('password'), 'w') as file:
            file.write(busy.password + '\n')
        folders = [word for folder in busy.folders.values() for word in ('--map', f'{folder} = {folder}')]
        rp('host', 'add', 'busy', busy.http, '--user', 'LAB\\admin', '--password-file', path('password'),
           '--export-folder', busy.folders['export'], *folders)
        last = 63
        for reader in 'share', 'export', 'share':
            rp('-r', path('busy'), *(('repo', 'init') if last == 63 else ('list',)))
            rp('-r', path('busy'), 'backup', 'busy/vm1', '--reader', reader)
            folder = tempfile.mkdtemp(dir=scratch.name)
            rp('-r', path('busy'), 'restore', 'vm1', '--to', folder, '-O', 'raw')
            with open(os.path.join(folder, os.listdir(folder)[0]), 'rb') as file:
                moment = guest.moment(file.read())
            assert moment > last, (moment, last)
            last = moment
    finally:
        equal(busy.end(), (0, False))


@behaviour
def a_point_becomes_a_machine_of_the_host_that_starts():
    rp('restore', 'vm1', '--to-host', 'share/again', '--new-id', '--start', good=(1,)) # its next backup will be full
    shown = ask('vm', 'show', 'again', '-H', 'local:' + lab.host)
    for disk in shown['disks']:
        handle = nbd.NBD()
        handle.connect_uri(disk['nbd_uri'])
        equal(guest.moment(bytes(handle.pread(handle.get_size(), 0))), written['vm1'])
        handle.shutdown()
    rp('vm', 'stop', 'share/again')
    rp('vm', 'delete', 'share/again', '--yes')
    equal(len(ask('vm', 'list', '-H', 'share')), 3)


# ---- E and F ---------------------------------------------------------------------------------------------------------


@behaviour
def a_method_that_is_refused_fails_the_backup():
    failed_backup('share/vm1', 'next CreateSnapshot: returns 32775', why='32775')
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
        lab.say(f'next {method}: job hangs at 60 % for 1 s')
        good_backup(address)


@behaviour
def a_refused_freeze_fails_unless_crash_consistency_will_do():
    failed_backup('share/vm1', 'next CreateSnapshot: freeze refused', why='freeze',
                  options=('--consistency', 'application'))
    lab.say('next CreateSnapshot: freeze refused')
    out, complaints = good_backup('share/vm1', '--consistency', 'application', '--allow-crash', good=(0, 1))
    assert 'crash' in out + complaints, out + complaints


@behaviour
def a_reference_point_that_vanished_makes_the_backup_a_full_one():
    for address in 'share/vm1', 'export/vm2':
        lab.say('now: lose every point of ' + address.split('/')[1])
        out, complaints = good_backup(address, good=(0, 1))
        assert 'full' in out + complaints, out + complaints
        # In the middle of a backup, which has chosen it already. (The host still knows the tracking id alone.)
        lab.say('next CreateSnapshot: loses every point')
        good_backup(address, good=(0, 1))


@behaviour
def a_lost_answer_leaves_nothing_that_the_next_backup_does_not_remove():
    for address, method in (('share/vm1', 'CreateSnapshot'), ('share/vm1', 'ConvertToReferencePoint'),
                            ('share/vm1', 'DestroyReferencePoint'), ('export/vm2', 'ExportSystemDefinition'),
                            ('share/vm1', 'GetVirtualDiskChanges')):
        write(address.split('/')[1])
        lab.say(f'next {method}: drops')
        backup(address, good=(0, 1, 2))
        equal(lab.say('now: list faults'), [])
        good_backup(address, good=(0, 1))


@behaviour
def a_connection_that_is_lost_anywhere_leaves_nothing_either():
    for number in 1, 5, 9, 14, 20, 27:
        write('vm1')
        lab.say(f'{number}th answer: drops')
        backup('share/vm1', good=(0, 1, 2))
        lab.say('now: forget faults')
        good_backup('share/vm1', good=(0, 1))


@behaviour
def an_interrupted_backup_cleans_up():
    for address, method in (('share/vm1', 'CreateSnapshot'), ('export/vm2', 'ExportSystemDefinition')):
        vm = address.split('/')[1]
        write(vm)
        before = left(vm)
        lab.say(f'next {method}: job hangs at 50 % for 2 s')
        process = start('backup', address, '--reader', address.split('/')[0])
        wait_until_hit()
        process.send_signal(signal.SIGINT) # what the host makes is waited for, so that it can be removed
        finish(process, (2, 130))
        wait_until_left(vm, before)
        good_backup(address)


def wait_until_hit():
    end = time.monotonic() + 30
    while lab.say('now: list faults'):
        assert time.monotonic() < end, 'the fault does not happen'
        time.sleep(0.05)
    time.sleep(0.3)


@behaviour
def a_killed_host_goes_on_where_it_was():
    global lab
    for address, method in (('share/vm1', 'CreateSnapshot'), ('export/vm2', 'ExportSystemDefinition'),
                            ('share/vm1', 'ConvertToReferencePoint')):
        vm = address.split('/')[1]
        write(vm)
        lab.say(f'next {method}: job hangs at 50 %')
        process = start('backup', address, '--reader', address.split('/')[0])
        wait_until_hit()
        lab.process.kill()
        lab.process.wait(60)
        finish(process, (2,))
        lab = start_lab()
        for name in 'share', 'export': # their password is new
            rp('host', 'remove', name)
        add_hosts()
        good_backup(address, good=(0, 1))


@behaviour
def a_killed_backup_is_cleaned_up_by_the_next():
    for address, method in (('share/vm1', 'ConvertToReferencePoint'), ('export/vm2', 'ExportSystemDefinition')):
        lab.say(f'next {method}: job hangs at 50 % for 1 s')
        process = start('backup', address, '--reader', address.split('/')[0])
        wait_until_hit()
        process.kill()
        process.communicate(timeout=60)
        time.sleep(1)
        good_backup(address, good=(0, 1))


@behaviour
def a_disk_that_is_added_is_read_in_full_and_one_that_is_gone_is_no_more():
    image = os.path.join(lab.folders['disks'], 'more.vhdx')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'vhdx', image, '16M'], check=True, timeout=60)
    local = 'local:' + lab.host
    rp('vm', 'stop', 'share/vm1')
    rp('disk', 'add', 'vm1', image, '-H', local)
    rp('vm', 'start', 'share/vm1')
    backup('share/vm1', good=(0, 1))
    equal(left('vm1'), (0, 1, 0))
    rp('vm', 'stop', 'share/vm1')
    rp('disk', 'remove', 'vm1', 'disk2', '-H', local)
    rp('vm', 'start', 'share/vm1')
    good_backup('share/vm1', good=(0, 1))


@behaviour
def the_repository_is_sound():
    rp('check', '--read-data')


@behaviour
def the_lab_ends():
    equal(lab.end(), (0, True))


sys.exit(run_all())
