"""Of the part vm: how long a guest stands still at a checkpoint, and its backups beside those of virtnbdbackup: full,
incremental, and incremental after a power cut of the host. Two guests of the same content under one libvirtd, both idle
but for what is measured."""

import os, re

from measure import Failure, bytes_in, cpu_of, run, say
import syscalls, virt
from virt import guest

PEER, GIB, CHANGED, CHECKPOINTS = 'virtnbdbackup', 2, 160, 10 # pieces of 64 KiB: 1 % of what is allocated
CHANGE = '''i=0
while [ $i -lt {count} ]; do
    at=$(((i * 7919 + {seed}) % {pieces}))
    dd if=/dev/urandom of=/data/1/noise/1 bs=64k count=1 seek=$at conv=notrunc 2>/dev/null || exit 1
    i=$((i + 1))
done
sync'''


def measure(bench):
    """Checkpoints and backups of a guest. Under a libvirtd of our own."""
    bench.table.note(f'Backups: two guests of the same content, a disk of {GIB} GiB of which half is allocated; ours '
                     f'adopted from raw, the other on qcow2, whose persistent bitmaps {PEER} needs; both by QEMU and '
                     f'one libvirtd as root. Between backups, {CHANGED} pieces of 64 KiB of a file are written inside. '
                     'Guest agents freeze and thaw. CPU: the program, libvirtd, QEMU without its emulated processor, '
                     'our disk service. Ours is encrypted and compressed, theirs neither; both are durable when the '
                     'clock stops. The power cut: libvirtd, both QEMUs, and the disk service are killed with SIGKILL '
                     'after the changes were synced inside, and what had not reached the device of the host\'s file '
                     'system is lost (demo/power-cut); then everything is started again. No round goes before '
                     'those that count.')
    place = bench.loop('ext4', 'vm', (GIB * 8) << 30)
    pair = Pair(bench, place)
    try:
        pair.begin()
        frozen(bench, pair)
        rounds(bench, pair)
        after_a_cut(bench, pair)
    finally:
        pair.die()
    place.end()
    bench.disk().remove('ours', 'theirs')


class Pair:
    """The two guests, and how each is backed up: a cost, and the bytes that were read and written."""

    def __init__(self, bench, place):
        self.bench, self.place, self.service = bench, place, None
        self.libvirt = virt.Libvirt(place.path('libvirt'), bench.tmpfs().path('libvirt'))
        self.repository, self.output = bench.disk().path('ours'), bench.disk().path('theirs')

    def begin(self):
        place, boot = self.place, os.path.join(self.bench.build, 'bench', 'guest')
        say('vm: two guests under libvirtd')
        raw, qcow2 = place.path('ours.raw'), place.path('theirs.qcow2')
        run([os.path.join(os.path.dirname(__file__), 'make-image'), raw, GIB * 1024, GIB * 256, GIB * 256])
        run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
        virt.boot_files(boot)
        self.libvirt.start()
        self.ours = virt.Machine(self.libvirt, 'ours', place.path('ours'), boot, guest.Disk(raw, 'raw', 'bench'))
        self.theirs = virt.Machine(self.libvirt, 'theirs', place.path('theirs'), boot,
                                   guest.Disk(qcow2, 'qcow2', 'bench'))
        place.rp('vm', 'adopt', 'ours', '--connect', self.libvirt.uri)
        self.start()

    def start(self):
        self.place.rp('vm', 'start', 'ours')
        self.service = syscalls.server_of(self.place.uris('ours')[0])
        self.libvirt('start', 'theirs')
        self.ours.wait_ready()
        self.theirs.wait_ready()

    def die(self):
        self.libvirt.die()
        if self.service:
            virt.kill(self.service)
            self.service = None

    def change(self, seed):
        for machine in (self.ours, self.theirs):
            machine.inside(CHANGE.format(count=CHANGED, seed=seed, pieces=GIB * 1024))

    def cold(self):
        """Nobody finds in the page cache what the other has to read."""
        self.place.settle()
        for folder, _, names in os.walk(self.place.folder):
            for name in names:
                if name.endswith(('.vhdx', '.qcow2')):
                    with open(os.path.join(folder, name), 'rb') as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def beside(self, machine):
        """CPU seconds of everybody who has a part in it beside the program that makes the backup."""
        return cpu_of(self.libvirt.process.pid) + machine.cpu() + (cpu_of(self.service) if machine is self.ours else 0)

    def back_up_ours(self):
        self.cold()
        stored, before = bytes_in(self.repository), self.beside(self.ours)
        cost = self.place.rp('-r', self.repository, 'backup', 'ours')[0]
        cost.cpu += self.beside(self.ours) - before
        made = self.place.json('-r', self.repository, 'list')[-1]['id']
        point = self.place.json('-r', self.repository, 'show', f'ours@{made}')
        if point['consistency_reached'] != 'application':
            raise Failure(f'the guest did not come to rest for the backup: {point["consistency_reason"]}')
        cost.kind, cost.read = point['kind'], point['bytes_read'] / (1 << 20)
        cost.written = (bytes_in(self.repository) - stored) / (1 << 20)
        return cost

    def back_up_theirs(self, level, output, good=(0,)):
        """As qemu:///system, which in the namespace of our libvirtd is that one. What it wrote: its data, without the
        copies of kernel and initramfs that it makes of a guest that is started from those."""
        def stored():
            names = os.listdir(output) if os.path.isdir(output) else ()
            return sum(os.stat(os.path.join(output, name)).st_size for name in names if name.endswith('.data'))
        self.cold()
        had, before = stored(), self.beside(self.theirs)
        cost, text = run(['nsenter', '-t', self.libvirt.process.pid, '-m', 'timeout', '-k', 5, 300, 'sh', '-c',
                          'virtnbdbackup "$@" && sync -f "$out"', 'sh', '-d', 'theirs', '-l', level, '-n', '-o', output,
                          '-S', self.place.folder, '-f', self.place.path('backup.sock')], good=good,
                         env=dict(os.environ, out=output))
        cost.cpu += self.beside(self.theirs) - before
        cost.kind, cost.read = level, (stored() - had) / (1 << 20)
        cost.written = cost.read # its stream is not compressed
        return cost, text


def frozen(bench, pair):
    say('vm: checkpoints of an idle guest')
    times = []
    for _ in range(CHECKPOINTS):
        said = pair.place.rp('-v', 'checkpoint', 'create', 'ours', '--consistency', 'application-only')[1]
        times.append(int(re.search(r'guest was frozen for (\d+) ms', said)[1]))
        made = pair.place.json('checkpoint', 'list', 'ours')[-1]['id']
        pair.place.rp('checkpoint', 'delete', 'ours', made, '--yes')
    bench.table.figure('an idle guest stands still at a checkpoint, with the agent\'s answers', times, 'ms',
                       at_most=1000, detail=f'median of {CHECKPOINTS}; {min(times)} to {max(times)} ms')


def rounds(bench, pair):
    seen = {kind: ([], []) for kind in ('full', 'incremental')}

    def both(kind, i):
        say(f'vm: {kind} backup {i + 1} of {bench.runs}')
        level = 'full' if kind == 'full' else 'inc'
        for side in (0, 1) if i % 2 else (1, 0):
            made = pair.back_up_theirs(level, pair.output)[0] if side else pair.back_up_ours()
            if made.kind not in (kind, level):
                raise Failure(f'this should have been a {kind} backup: {made.kind}')
            seen[kind][side].append(made)

    for i in range(bench.runs):
        bench.disk().remove('ours', 'theirs')
        pair.place.rp('-r', pair.repository, 'repo', 'init')
        both('full', i)
        pair.change(i)
        both('incremental', i)
    for kind, sides in seen.items():
        compare(bench, f'{kind} backup of a guest', *sides)


def compare(bench, what, ours, theirs):
    for name, unit, value in (('time', 's', 'seconds'), ('CPU', 'CPU s', 'cpu'), ('read', 'MiB', 'read'),
                              ('written', 'MiB', 'written')):
        values = ([getattr(one, value) for one in side] for side in (ours, theirs))
        bench.table.ratio(f'{what}, {name}', *values, PEER, unit)


def after_a_cut(bench, pair):
    """What the first backup after a power cut takes; theirs until there is one."""
    say('vm: a power cut of the host')
    pair.change(bench.runs)
    pair.die()
    run([os.path.join(os.path.dirname(__file__), '../demo/power-cut'), pair.place.folder])
    pair.libvirt.start()
    pair.start()
    say('vm: the first backups after it')
    ours = pair.back_up_ours()
    theirs, tried = recover(pair)
    compare(bench, 'the first backup after a power cut', [ours], [theirs])
    bench.table.note(f'After the power cut, refpoint made {"a full" if ours.kind == "full" else "an incremental"} '
                     f'backup; with {PEER}: {tried}. Its rows have the cost of all of that.')


def recover(pair):
    """What an administrator does until there is a backup again; all costs together, and the story."""
    cost, text = pair.back_up_theirs('inc', pair.output, good=range(256))
    if cost.written:
        return cost, 'the incremental backup was made'
    story, total = f'the incremental backup failed ("{complaint(text)}")', cost
    output = pair.output + '-again'
    for attempt in ('a full backup', 'a full backup after its checkpoints had been deleted by hand (metadata only)'):
        cost, text = pair.back_up_theirs('full', output, good=range(256))
        total.seconds, total.cpu = total.seconds + cost.seconds, total.cpu + cost.cpu
        total.read, total.written = total.read + cost.read, total.written + cost.written
        if cost.written:
            return total, f'{story}, then {attempt} was made'
        story += f', {attempt} failed as well ("{complaint(text)}")'
        for name in pair.libvirt('checkpoint-list', 'theirs', '--name').split():
            pair.libvirt('checkpoint-delete', 'theirs', name, '--metadata')
        pair.bench.disk().remove(os.path.basename(output))
    raise Failure(f'{PEER}: {story}')


def complaint(text):
    """The first error that it names, without what a log puts before it."""
    lines = text.strip().splitlines() or ['']
    errors = [line for line in lines if re.search(r'ERROR|CRITICAL', line)] or lines
    return errors[0].rpartition(']: ')[2].strip(' []')
