"""Backup: full, incremental, restore and check against restic; full against qemu-img convert to compressed qcow2."""

import json, os, random, statistics

import nbd

from measure import Failure, bytes_in, in_turns, run, say

CHANGED = 100 # one in so many bytes


def measure(bench):
    place = bench.disk()
    image = bench.image(place)
    bench.table.note(f'The {bench.gib} GiB image of convert, as the disk of a VM that runs; the CPU seconds of its '
                     f'disk service are ours. '
                     'Both repositories are encrypted. What changes: 1 % in extents of 4 to 64 KiB, '
                     'scattered over what is allocated. Before each run what it reads is in the page cache: refpoint drops '
                     'there what it has read, and would be the only one to wait for the disk. Backups, restores and '
                     'checks have no round before that is not counted; each full backup goes into a new repository, '
                     'and qemu-img comes after the two.')
    say('backup: the VM')
    place.create('bench', image)
    uri, service = place.start('bench')
    seen = rounds(bench, place, image, uri, service)
    say('backup: is the last restored exactly?')
    restores(bench, place, image)
    checks(bench, place)
    place.delete('bench')
    place.remove('ours', 'restic', 'cache')
    add(bench, seen)


def rounds(bench, place, image, uri, service):
    seen = {name: ([], []) for name in ('full', 'incremental', 'stored')}
    seen['nothing'], seen['qcow2'] = [], []
    ours, theirs = place.path('ours'), place.path('restic')

    def warm(*files):
        place.settle()
        for file in files:
            read(file)

    def backup():
        warm(*chain(place, 'bench'))
        return place.rp('-r', ours, 'backup', 'bench', service=service)[0]

    def restic(*words):
        warm(image)
        return run(['restic', '--quiet', '--repo', theirs, *words], env=place.environment)[0]

    def both(name, i):
        for side in (0, 1) if i % 2 else (1, 0):
            seen[name][side].append(restic('backup', image) if side else backup())

    for i in range(bench.runs):
        place.remove('ours', 'restic', 'cache')
        place.rp('-r', ours, 'repo', 'init')
        restic('init')
        say(f'backup: full {i + 1} of {bench.runs}')
        both('full', i)
        for side, folder in enumerate((ours, theirs)):
            seen['stored'][side].append(bytes_in(folder) / (1 << 20))
        warm(image)
        target = place.path('backup.qcow2')
        seen['qcow2'].append(run(['sh', '-c', 'qemu-img convert -c -O qcow2 -o compression_type=zstd "$1" "$2" && '
                                              'sync "$2"', 'sh',
                                  image, target])[0])
        place.remove('backup.qcow2')
        changed = apply(image, uri, bench.gib, seed=i)
        say(f'backup: incremental {i + 1} of {bench.runs} ({changed >> 20} MiB changed)')
        both('incremental', i)
        seen['nothing'].append(backup())
        kinds = [point['kind'] for point in place.json('-r', ours, 'list')]
        if kinds != ['full', 'incremental', 'incremental']:
            raise Failure(f'these were not a full and two incremental backups: {kinds}')
    return seen


def chain(place, vm):
    """The files of the VM's disks; the tracking is not among them."""
    folder = os.path.dirname(place.disk(vm))
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith('.vhdx')]


def read(file):
    """All of it, and nothing of its holes."""
    fd, at, size = os.open(file, os.O_RDONLY), 0, os.stat(file).st_size
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError: # the rest is a hole
            break
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            at += len(os.pread(fd, min(1 << 20, end - at), at))
    os.close(fd)


def changes(image, size, seed):
    """(offset, data), scattered over what is allocated."""
    rng, segments, place = random.Random(seed), [], 0
    fd = os.open(image, os.O_RDONLY)
    while place < size:
        try:
            data = os.lseek(fd, place, os.SEEK_DATA)
        except OSError:
            break
        place = os.lseek(fd, data, os.SEEK_HOLE)
        segments.append((data // 4096, (place - data) // 4096))
    os.close(fd)
    weights, taken, left = [count for _, count in segments], set(), size // CHANGED
    while left > 0:
        first, count = rng.choices(segments, weights)[0]
        length = rng.choice((1, 2, 4, 8, 16))
        if count < length:
            continue
        block = first + rng.randrange(count - length + 1)
        blocks = range(block, block + length)
        if not taken.isdisjoint(blocks):
            continue
        taken.update(blocks)
        left -= length * 4096
        yield block * 4096, rng.randbytes(length * 4096)


def apply(image, uri, gib, seed):
    """The same changes to the VM's disk and to the image that restic reads."""
    client, fd, total = nbd.NBD(), os.open(image, os.O_WRONLY), 0
    client.connect_uri(uri)
    for offset, data in changes(image, gib << 30, seed):
        client.pwrite(data, offset)
        os.pwrite(fd, data, offset)
        total += len(data)
    client.flush()
    client.shutdown()
    os.fsync(fd)
    os.close(fd)
    return total


def restores(bench, place, image):
    ours, theirs = place.path('restored'), place.path('restic-restored')
    sparse = ['--sparse'] if '--sparse' in run(['restic', 'restore', '--help'])[1] else []
    bench.table.note('What was never written is a hole in what refpoint restores, and ' +
                     ('in what restic restores with --sparse.' if sparse else
                      'zeros that are written in what this restic restores: it has no --sparse.'))

    def restore():
        place.remove('restored')
        place.settle()
        return place.rp('-r', place.path('ours'), 'restore', 'bench', '--to', ours, '-O', 'raw')[0]

    def restic(): # ours is durable when it returns; so theirs must be as well
        place.remove('restic-restored')
        place.settle()
        return run(['sh', '-c', 'restic --quiet --repo "$1" restore latest --target "$2" $3 && sync -f "$2"', 'sh',
                    place.path('restic'), theirs, *sparse],
                   env=place.environment)[0]

    say('backup: restore')
    seen = in_turns({'refpoint': restore, 'restic': restic}, bench.runs, warm_up=0)
    run(['cmp', image, os.path.join(ours, 'bench-disk0.raw')])
    bench.table.ratio('restore to raw', [cost.seconds for cost in seen['refpoint']],
                      [cost.seconds for cost in seen['restic']], 'restic', 's',
                      at_least=2)
    place.remove('restored', 'restic-restored')


def checks(bench, place):
    stored, raw = bytes_in(place.path('ours')), 0
    for point in place.json('-r', place.path('ours'), 'list'):
        raw += place.json('-r', place.path('ours'), 'show', f'bench@{point["id"]}')['bytes_read']
    for name, options, amount, what, goal, reads in (
            ('quick', (), stored, 'whole repository', 1.5, "packs' headers and indexes are read"),
            ('deep', ('--read-data',), raw, 'raw bytes', 0.4, 'all packs are read')):
        say(f'backup: {name} check')
        costs = [place.rp('-r', place.path('ours'), 'check', *options)[0] for _ in range(bench.runs)]
        bench.table.figure(f'{name} check, {what} per second of CPU',
                           [amount / 1e9 / cost.cpu for cost in costs], 'GB/s',
                           at_least=goal, detail=f'{amount / 1e9:.2f} GB in '
                                  f'{statistics.median(cost.seconds for cost in costs):.2f} s; {reads}, '
                                  f'{statistics.median(cost.returned for cost in costs) / 1e6:,.0f} MB')


def add(bench, seen):
    def seconds(costs):
        return [cost.seconds for cost in costs]

    def cpu(costs):
        return [cost.cpu for cost in costs]

    table, full, incremental = bench.table, seen['full'], seen['incremental']
    table.ratio('full backup, CPU', cpu(full[0]), cpu(full[1]), 'restic', 'CPU s', at_most=0.333)
    table.ratio('full backup, time', seconds(full[0]), seconds(seen['qcow2']), 'qemu-img -c zstd', 's', at_most=0.7)
    table.ratio('full backup, time', seconds(full[0]), seconds(full[1]), 'restic', 's')
    table.ratio('full backup, stored', *seen['stored'], 'restic', 'MiB', at_most=1)
    table.ratio('incremental after 1 %, whole job', seconds(incremental[0]), seconds(incremental[1]), 'restic', 's',
                at_least=25)
    table.ratio('incremental after 1 %, CPU', cpu(incremental[0]), cpu(incremental[1]), 'restic', 'CPU s')
    table.figure('incremental without changes', seconds(seen['nothing']), 's', at_most=0.5)
