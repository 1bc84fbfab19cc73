#!/usr/bin/python3
"""test-guest.py FOLDER: the test guest and its judge, without anything of refpoint: what all other tests with a guest
rely on. The boot files are kept in FOLDER."""

import os, struct, subprocess, sys, tempfile, time

import guest, records
from guest import HERE, judged_good as good
from tap import behaviour, equal, run_all, skip_all, wait_for

scratch = tempfile.TemporaryDirectory(prefix='guest-test-', dir=os.environ.get('TMPDIR', '/tmp'))
path = lambda *names: os.path.join(scratch.name, *names)
boot = sys.argv[1]
state = {}


def bad(why, *disks, **how):
    problems = '\n'.join(guest.judge(*disks, **how)['problems'])
    assert why in problems, f'"{why}" expected, not: {problems or "nothing wrong"}'


def copy(source, target):
    subprocess.run(['cp', '--sparse=always', '--reflink=auto', path(source), path(target)], check=True, timeout=60)
    return path(target)


def frozen_copies(vm, suffix, *names):
    """Copies of disks while they are frozen, and what had been acknowledged."""
    equal(vm.agent('guest-fsfreeze-freeze'), len(names))
    try:
        equal(vm.agent('guest-fsfreeze-status'), 'frozen')
        acks = vm.acknowledged()
        copies = [copy(name, name + suffix) for name in names]
        time.sleep(0.5)
        equal(vm.acknowledged(), acks)
    finally:
        equal(vm.agent('guest-fsfreeze-thaw'), len(names))
    return copies, acks


def agent_is_open(vm):
    return next(port['frontend-open'] for port in vm.qmp('query-chardev') if port['label'] == 'agent')


def blocks_of(image, kind):
    """{(sequence, position): offset} of blocks that the writer has left in an image."""
    with open(image, 'rb') as file:
        data = file.read()
    found, offset = {}, data.find(struct.pack('<Q', records.MAGIC))
    while offset >= 0:
        block = records.Block(*records.HEAD.unpack_from(data, offset))
        if offset % records.BLOCK == 0 and block.kind == kind:
            found[block.sequence, block.position] = offset
        offset = data.find(struct.pack('<Q', records.MAGIC), offset + 8)
    return found


def patch(image, offset, data):
    with open(image, 'r+b') as file:
        file.seek(offset)
        before = file.read(len(data))
        file.seek(offset)
        file.write(data)
    return before


@behaviour
def the_guest_is_built_once_and_found_afterwards():
    own = guest.boot_files(path('once')) # from `boot` other tests start their guests meanwhile
    names = [os.path.join(own, name) for name in ('vmlinuz', 'initramfs')]
    before = [os.stat(name).st_mtime_ns for name in names]
    guest.boot_files(own)
    equal([os.stat(name).st_mtime_ns for name in names], before)
    os.unlink(names[1])
    guest.boot_files(own)
    assert os.path.getsize(names[1]) > 1 << 20


@behaviour
def the_writer_rotates_its_log_and_each_life_goes_on_where_another_ended():
    # here, in memory, where a sync costs nothing and there is no file system to trim
    with tempfile.TemporaryDirectory(prefix='guest-test-', dir='/dev/shm') as memory:
        folder = os.path.join(memory, '1')
        os.mkdir(folder)
        for steps, first, last in ((4090, 1, 4090), (5, 1, 4095), (1, 1, 4096), (9000, 1, 13096), (7000, 4096, 20096)):
            subprocess.run([os.path.join(boot, 'writer'), '-p', '0', '-n', str(steps), folder], check=True, timeout=120)
            found = records.judge(folder, 1, tail_may_be_lost=False)
            equal((found.first, found.last, found.begun, found.problems), (first, last, last, []))
        os.unlink(os.path.join(folder, 'log.2'))
        assert 'segments of the log are missing' in str(records.judge(folder, 1).problems)


@behaviour
def it_boots_and_writes_on_ext4_and_xfs_and_its_agent_answers():
    state['disks'] = [guest.make_disk(path('ext4'), 1, 'ext4'), guest.make_disk(path('xfs'), 2, 'xfs')]
    begin = time.monotonic()
    vm = state['vm'] = guest.Guest(path('each'), boot, state['disks'], writer='each', hook='ok')
    vm.start().wait_ready()
    print(f'# ready after {time.monotonic() - begin:.1f} s')
    equal(vm.agent('guest-ping'), {})
    equal({(one['mountpoint'], one['type']) for one in vm.agent('guest-get-fsinfo')},
          {('/data/1', 'ext4'), ('/data/2', 'xfs')})
    equal(set(vm.wait_acknowledged(70)), {1, 2})
    for name in 'vda', 'vdb':
        counters = vm.inside(f'cat /sys/block/{name}/stat')
        assert int(counters.split()[11]) > 0, f'{name} was never discarded: {counters}'


@behaviour
def what_is_copied_while_frozen_needs_no_replay_and_has_every_record():
    vm = state['vm']
    begin = time.monotonic()
    vm.agent('guest-fsfreeze-freeze')
    frozen = time.monotonic() - begin
    vm.agent('guest-fsfreeze-thaw')
    print(f'# freeze {frozen:.2f} s, with thaw {time.monotonic() - begin:.2f} s')
    state['frozen'], acks = frozen_copies(vm, '.frozen', 'ext4', 'xfs')
    found = good(*state['frozen'], application=True, acks=acks)
    for disk in found:
        # the step that the freeze stopped may be there, its acknowledgement not yet
        assert disk['last'] - acks[disk['disk']] in (0, 1), (disk, acks)
    equal([disk['journal'] for disk in found], ['none', 'superblock'])
    assert 'hook ok: freeze' in vm.console() and 'hook ok: thaw' in vm.console(), vm.console()
    state['frozen acks'] = acks


@behaviour
def a_killed_machine_has_every_acknowledged_record_after_a_replay():
    vm = state['vm']
    vm.wait_acknowledged(70)
    equal(vm.complaints(), [])
    vm.kill()
    state['acks'] = vm.acknowledged()
    found = good(path('ext4'), path('xfs'), acks=state['acks'])
    equal([disk['journal'] for disk in found], ['dirty', 'dirty'])
    bad('the journal must be replayed', path('ext4'), application=True)
    bad('the journal must be replayed', path('xfs'), application=True)


@behaviour
def an_older_disk_than_was_acknowledged_is_noticed():
    bad('was acknowledged', *state['frozen'], acks=state['acks'])
    bad('was acknowledged', path('ext4'), acks=state['acks'])


@behaviour
def a_damaged_a_missing_and_a_stale_block_are_noticed():
    for name in 'ext4', 'xfs':
        image = copy(name + '.frozen', 'damaged')
        last = state['frozen acks'][1 if name == 'ext4' else 2]
        log, blocks = blocks_of(image, records.RECORD), blocks_of(image, records.OVERWRITTEN)
        bulk = blocks_of(image, records.BULK_BLOCK)
        # of the step that the freeze stopped, nothing need be there
        block = blocks[max(key for key in blocks if key[0] <= last)]
        newest = last // 32 * 32
        for offset, data, why in (
                (log[last // 2, last // 2] + 300, None, f'record {last // 2}: wrong checksum'),
                (log[last // 2, last // 2], bytes(512), f'record {last // 2}: empty'),
                (log[last - 1, last - 1], bytes(512), f'record {last - 1}: empty'),
                (bulk[newest, 200] + 511, None, f'bulk.{newest}, block 200: wrong checksum'),
                (block + 40, None, 'wrong checksum'),
                (block, bytes(512), 'empty')):
            if data is None:
                with open(image, 'rb') as file:
                    file.seek(offset)
                    data = bytes([file.read(1)[0] ^ 1])
            before = patch(image, offset, data)
            bad(why, image)
            patch(image, offset, before)
        good(image, application=True)
    # where ext4 has overwritten in place, what was there before is as well made as what is there now
    older = {position: (sequence, offset) for (sequence, position), offset in blocks_of(path('ext4.frozen'), 2).items()}
    newer = {position: (sequence, offset) for (sequence, position), offset in blocks_of(path('ext4'), 2).items()}
    position = next(position for position in older if older[position][0] < newer[position][0]
                    and older[position][1] == newer[position][1] and newer[position][0] <= state['acks'][1])
    sequence, offset = older[position]
    with open(path('ext4.frozen'), 'rb') as file:
        file.seek(offset)
        stale = file.read(512)
    patch(copy('ext4', 'damaged'), offset, stale)
    bad(f'block {position}: as step {sequence} left it, not step {newer[position][0]}', path('damaged'))


@behaviour
def a_writer_over_three_disks_keeps_its_order_through_a_freeze_and_a_kill():
    state['three'] = [guest.make_disk(path(str(number)), number, kind)
                      for number, kind in ((1, 'ext4'), (2, 'xfs'), (3, 'ext4'))]
    own = guest.boot_files(path('boot'), os.path.join(HERE, 'freeze-hook') + ':/etc/added', '/usr/bin/cmp:/bin/started')
    with guest.Guest(path('ordered'), own, state['three'], writer='ordered', pause=0, hook='ok',
                     extra='rp.start=/bin/started') as vm:
        vm.wait_ready()
        # a program that was added, with its libraries, ran (and complains that it got no files)
        vm.wait_console('missing operand')
        equal(vm.inside('started /etc/added /etc/freeze-hook'), '')
        vm.wait_acknowledged(30)
        copies, acks = frozen_copies(vm, '.frozen', '1', '2', '3')
        good(*copies, application=True, acks=acks)
        vm.wait_acknowledged(30)
        equal(vm.complaints(), [])
        vm.kill()
        good(path('1'), path('2'), path('3'), acks=vm.acknowledged())
    bad('later without earlier', path('1.frozen'), path('2'), path('3'))
    bad('later without earlier', path('1'), path('2.frozen'), path('3'))
    bad('later without earlier', path('1'), path('2'), path('3.frozen'))
    bad('3 disks are written in order, 2 are here', path('1'), path('3'))


@behaviour
def after_a_kill_the_writer_goes_on_also_on_other_controllers_and_with_a_disk_that_comes_later():
    # a disk comes at the address that it has, by whatever controller
    state['vm'].kill() # if it runs, because something above has failed
    disks = [disk._replace(bus=bus) for disk, bus in zip(state['three'], ('ide', 'scsi', 'virtio'))]
    state['vm'] = vm = guest.Guest(path('ordered'), boot, disks, writer='ordered', hook='fail')
    before = vm.acknowledged()
    vm.start().wait_ready()
    now = vm.wait_acknowledged(30)
    assert all(now[disk] >= before[disk] + 30 for disk in before), (before, now)
    equal({(one['mountpoint'], one['disk'][0]['bus-type']) for one in vm.agent('guest-get-fsinfo')},
          {('/data/1', 'ide'), ('/data/2', 'scsi'), ('/data/3', 'virtio')})
    guest.make_disk(path('hot'), 4)
    vm.qmp('blockdev-add', driver='file', filename=path('hot'), **{'node-name': 'hot'})
    vm.qmp('device_add', driver='virtio-blk-pci', drive='hot', id='hot')
    vm.wait_console('disk 4 is')


@behaviour
def a_hook_that_fails_or_hangs_and_an_agent_that_died_leave_it_writing():
    vm = state['vm']
    try:
        vm.agent('guest-fsfreeze-freeze')
        raise AssertionError('the freeze was not refused')
    except guest.GuestError as error:
        assert 'fsfreeze hook has failed' in str(error), error
    equal(vm.agent('guest-fsfreeze-status'), 'thawed')
    vm.wait_acknowledged(5)
    equal(vm.inside('echo hang >/run/hook; cat /run/hook'), 'hang\n')
    try:
        vm.agent('guest-fsfreeze-freeze', seconds=3)
        raise AssertionError('the freeze did not hang')
    except guest.GuestError as error:
        assert 'no answer' in str(error), error
    vm.wait_acknowledged(5)
    assert agent_is_open(vm)
    vm.inside('kill -KILL $(cat /run/qemu-ga.pid)')
    wait_for(lambda: not agent_is_open(vm), 60, 'the death of the agent')
    vm.inside('echo ok >/run/hook; agent')
    equal(vm.agent('guest-ping', seconds=60), {})
    vm.wait_acknowledged(5)


@behaviour
def the_power_button_ends_it_cleanly():
    vm = state['vm']
    vm.power_button()
    equal(vm.wait_end(), 0)
    equal(vm.complaints(), [])
    found = good(path('1'), path('2'), path('3'), application=True, acks=vm.acknowledged())
    equal([disk['journal'] for disk in found], ['none'] * 3)
    equal(len({disk['last'] for disk in found}), 1)


if os.geteuid() != 0:
    sys.exit(skip_all('the test guest', 'only root may mount its disks'))
try:
    guest.boot_files(boot)
    sys.exit(run_all())
finally:
    if 'vm' in state:
        state['vm'].__exit__()
    scratch.cleanup()
