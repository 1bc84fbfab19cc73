"""VM: a guest on our disk service beside the same guest on qcow2 and on raw, how long it stands still at a checkpoint,
taking a large disk in, and its backups beside virtnbdbackup. Without KVM: the guest's processor is emulated (TCG), and
what that can ask for is the bound of what is measured inside, so the processor time of the disk's side is told too."""

import json, os, shutil, sys

from measure import Failure, cpu_of, in_turns, run, say
import places, servers, virt, vmbackup
from virt import domain, guest

MIB, SECONDS, TURNS = 512, 2, 5
THREADED = 'qcow2 with an iothread'
# inside: what, fio's name of it, block, depth, and for how many requests the processor time is told
LOADS = [('4 KiB random reads', 'randread', '4k', 32, 'per 10,000', 10000),
         ('4 KiB random writes', 'randwrite', '4k', 32, 'per 10,000', 10000),
         ('1 MiB sequential reads', 'read', '1m', 4, 'per GiB', 1024),
         ('1 MiB sequential writes', 'write', '1m', 4, 'per GiB', 1024)]
# outside: block, depth, requests, the step between two of them
OUTSIDE = [('4 KiB', 4096, 32, 20000, 33 << 12), ('4 KiB', 4096, 1, 5000, 33 << 12),
           ('1 MiB', 1 << 20, 4, 1000, 1 << 20)]


def measure(bench):
    """Its steps have nothing of each other: one that fails leaves the others alone."""
    for step, programs in ((disks, ['qemu-system-x86_64']), (adopt, ['virsh', '/usr/sbin/libvirtd']),
                           (vmbackup.measure, list(virt.PROGRAMS))):
        why = virt.missing(*programs) or (places.can_loop('ext4') if step is not disks else '')
        if why:
            bench.table.skip(step.__doc__.partition('.')[0], why)
            continue
        try:
            step(bench)
        except Failure as failure:
            print(f'bench: {failure}', file=sys.stderr)
            bench.table.fail(step.__doc__.partition('.')[0], str(failure).strip().splitlines()[-1])
            bench.tidy()


class Side:
    """A disk of the guest: what it is called, where it is, who serves it beside QEMU, whether it has an iothread."""

    def __init__(self, name, source, form, service=None, iothread=False):
        self.name, self.source, self.form, self.service, self.iothread = name, source, form, service, iothread
        self.serial = 'bench-' + name.replace(' ', '-')[:14]
        self.device = None # in the guest

    def arguments(self):
        # ours as in a domain that was adopted, theirs as libvirt's domains have it
        more = ',werror=stop,rerror=stop' if self.service else ''
        words = ['-drive', f'file={self.source},format={self.form},if=none,id={self.serial},cache=none,discard=unmap']
        if self.iothread:
            words += ['-object', f'iothread,id=io-{self.serial}']
            more += f',iothread=io-{self.serial}'
        return words + ['-device', f'virtio-blk-pci,drive={self.serial},serial={self.serial}{more}']


def disks(bench):
    """Disks of a guest. The same bytes four times, all in one guest."""
    place = bench.disk()
    bench.table.note(f'Inside: one guest (TCG, one processor, virtio) with disks of {MIB} MiB, each '
                     f'allocated everywhere; fio, libaio, direct, depth 32 for 4 KiB and 4 for 1 MiB, {SECONDS} s '
                     f'each, in turns, {TURNS} times after one that is not counted. The disk\'s side is QEMU without '
                     'the thread of its emulated processor, and our disk service. Ours has an iothread, as vm adopt '
                     'gives it one; qcow2 and raw have none, as virt-install makes them, and one more row has qcow2 '
                     'with one. Outside: the same disks by '
                     '`qemu-img bench`, without a guest. All have cache=none. For qcow2 and raw this means past the '
                     'page cache of the host; for ours it means nothing: the disk service works through the page '
                     'cache.')
    say(f'vm, {place.name}: the same bytes as VHDX, qcow2 and raw')
    data, qcow2 = bench.noise(place, 'data.raw', MIB), place.path('guest.qcow2')
    place.create('guest', data)
    run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', data, qcow2])
    shutil.copy(qcow2, place.path('second.qcow2'))
    server = servers.of_vm(place, 'guest')
    sides = [Side('refpoint', server.uri, 'raw', server.pid, iothread=True), Side('qcow2', qcow2, 'qcow2'),
             Side('raw', data, 'raw')]
    inside(bench, place, sides + [Side(THREADED, place.path('second.qcow2'), 'qcow2', iothread=True)])
    outside(bench, place, sides)
    place.delete('guest')
    place.remove('data.raw', 'guest.qcow2', 'second.qcow2', 'run')


def inside(bench, place, sides):
    boot = os.path.join(bench.build, 'bench', 'guest-fio')
    virt.boot_files(boot, shutil.which('fio') + ':/bin/fio')
    folder, extra = place.path('run'), ['-name', 'bench,debug-threads=on']
    console = os.path.join(folder, 'console')
    with virt.failures(console), guest.Guest(folder, boot, [], memory=768,
                                             arguments=sum((side.arguments() for side in sides), extra)) as vm:
        vm.wait_ready(180)
        found = dict(line.split() for line in vm.shell.run(
            'for disk in /sys/block/vd*; do echo $(cat $disk/serial) ${disk##*/}; done').splitlines())
        for side in sides:
            side.device = found[side.serial]
        for what, kind, block, depth, per, count in LOADS:
            say(f'vm, {place.name}: {what} inside the guest')
            seen = in_turns({side.name: (lambda side=side: fio(vm, place, side, kind, block, depth)) for side in sides},
                            TURNS)
            for peer in ('qcow2', THREADED, 'raw'):
                compare(bench, f'{what} inside a guest', seen, peer, goal=1.0 if peer == 'qcow2' else None)
                compare(bench, f'{what} inside a guest: CPU of the disk\'s side {per}', seen, peer, count)
        wrong = vm.complaints()
        if wrong:
            raise Failure(f'the guest complains: {wrong[0]}')


def compare(bench, what, seen, peer, count=None, goal=None):
    """The requests per second of what was seen, or the CPU seconds of so many requests."""
    ours, theirs = ([cpu * count if count else iops for iops, cpu in seen[name]] for name in ('refpoint', peer))
    bench.table.ratio(what, ours, theirs, peer, 'CPU s' if count else 'IOPS', at_least=goal)


def fio(vm, place, side, kind, block, depth):
    """Requests per second, and CPU seconds of the disk's side per request."""
    place.settle()
    before = virt.processor_left_out(vm.process.pid) + cpu_of(side.service)
    text = vm.shell.run(f'fio --name=load --filename=/dev/{side.device} --direct=1 --ioengine=libaio --rw={kind} '
                        f'--bs={block} --iodepth={depth} --time_based --runtime={SECONDS} --norandommap --randrepeat=0 '
                        '--output-format=json', SECONDS + 120)
    used = virt.processor_left_out(vm.process.pid) + cpu_of(side.service) - before
    job = json.loads(text[text.index('{\n'):])['jobs'][0]
    half = job['read' if 'read' in kind else 'write']
    if job['error'] or not half['total_ios']:
        raise Failure(f'fio inside the guest, {side.name}: {text}')
    return half['iops'], used / half['total_ios']


def outside(bench, place, sides):
    for size, block, depth, requests, step in OUTSIDE:
        for verb, words in (('reads', []), ('writes', ['-w'])):
            what = f'{size} {verb}, depth {depth}, without a guest'
            say(f'vm, {place.name}: {what}')

            def load(side):
                place.settle()
                cost = run(['qemu-img', 'bench', '-t', 'none', '-f', side.form, '-s', block, '-d', depth,
                            '-c', requests, '-S', step, *words, side.source], service=side.service)[0]
                return requests / cost.seconds, cost.cpu / requests

            seen = in_turns({side.name: (lambda side=side: load(side)) for side in sides}, bench.runs)
            for peer in ('qcow2', 'raw'):
                compare(bench, what, seen, peer)
                compare(bench, f'{what}: CPU per 10,000', seen, peer, 10000)


def adopt(bench):
    """Taking in a raw disk of 64 GiB with 4 GiB of data, on XFS. From the tool's start to its end."""
    say('vm: taking a large disk in')
    place = bench.loop('xfs', 'adopt', 7 << 30)
    image = place.path('large.raw')
    with open(image, 'wb') as file:
        file.truncate(64 << 30)
        for i in range(1024):
            file.seek(i * (64 << 20))
            file.write(os.urandom(1 << 20) * 4)
    daemon = virt.Libvirt(place.path('libvirt'), bench.tmpfs().path('libvirt'))
    seconds = []
    try:
        daemon.start()
        xml = place.path('large.xml')
        with open(xml, 'w') as file:
            file.write(domain.domain_xml('large', place.path('large'), bench.build, [guest.Disk(image)]))
        daemon('define', xml)
        for _ in range(bench.runs):
            place.settle()
            seconds.append(place.rp('vm', 'adopt', 'large', '--connect', daemon.uri)[0].seconds)
            place.rp('vm', 'release', 'large', '--yes')
    finally:
        daemon.die()
    bench.table.figure(adopt.__doc__.partition('.')[0], seconds, 's', at_most=2)
    place.end()
