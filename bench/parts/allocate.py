"""Allocate: writes of 4 KiB that each need a new block of the disk file, and what the first touch of a region costs."""

import json, statistics

from measure import cpu_of, in_turns, run, say
import servers, syscalls

BLOCK = 2 << 20
DISK = 64 << 30
REGION = 4 << 20
GOALS = (('qemu-nbd vhdx', 20), ('qemu-nbd qcow2', 1))


def measure(bench):
    bench.table.note(f'An empty disk of {DISK >> 30} GiB; each write goes to another block of 2 MiB (VHDX, both) or '
                     f'cluster of 64 KiB '
                     '(qcow2), in a shuffled order, 32 on their way at a time. The time runs until the last is '
                     'acknowledged; '
                     'another row counts the flush at the end, too.')
    for place in bench.both():
        blocks(bench, place)
        first_touch(bench, place)


def storm(bench, server, stride, count, seed, seconds=60):
    before = cpu_of(server.pid)
    seen = json.loads(run([bench.program('bench-storm'), server.uri, stride, count, 32, seed, seconds])[1])
    seen['cpu_us'] = (cpu_of(server.pid) - before) / seen['writes'] * 1e6
    return seen


def blocks(bench, place):
    seed = iter(range(1, 1000))
    count, longest = 16384, 4 # qemu-nbd with VHDX would need minutes: a few seconds tell its rate

    def ours():
        image = bench.empty(place, 'empty.raw', DISK)
        place.create('allocate', image)
        server = servers.of_vm(place, 'allocate')
        seen = storm(bench, server, BLOCK, count, next(seed), longest)
        place.delete('allocate')
        return seen

    def theirs(kind, *options):
        run(['qemu-img', 'create', '-q', '-f', kind, *options, place.path(f'new.{kind}'), DISK])
        server = servers.qemu_nbd(place, place.path(f'new.{kind}'), kind)
        place.settle()
        seen = storm(bench, server, BLOCK, count, next(seed), longest)
        server.end()
        place.remove(f'new.{kind}')
        return seen

    say(f'allocate, {place.name}: every write a new block')
    seen = in_turns({'refpoint': ours, 'qemu-nbd qcow2': lambda: theirs('qcow2'),
                     'qemu-nbd vhdx': lambda: theirs('vhdx', '-o', f'block_size={BLOCK}')}, bench.runs)

    def rates(side, clock):
        return [one['writes'] / one[clock] for one in seen[side]]

    for peer, goal in GOALS:
        bench.table.ratio(f'a new block with every 4 KiB, {place.name}', rates('refpoint', 'seconds'),
                          rates(peer, 'seconds'), peer,
                          'IOPS', at_least=goal)
    for peer, _ in GOALS:
        bench.table.ratio(f'… with the flush at the end, {place.name}', rates('refpoint', 'durable_seconds'),
                          rates(peer, 'durable_seconds'), peer, 'IOPS')
    for peer, _ in GOALS:
        bench.table.ratio(f'… CPU of the server per write, {place.name}', [one['cpu_us'] for one in seen['refpoint']],
                          [one['cpu_us'] for one in seen[peer]], peer, 'us')


def first_touch(bench, place):
    """All blocks are there already; after a restart tracking knows no region yet. Then the same again: steady."""
    say(f'allocate, {place.name}: the first touch of every region')
    touches = DISK // REGION // 4
    rates, again, p99, syncs = [], [], [], []
    for i in range(bench.runs):
        place.create('touch', bench.empty(place, 'empty.raw', DISK))
        server = servers.of_vm(place, 'touch')
        storm(bench, server, REGION, touches, 1)
        place.stop('touch')
        server = servers.of_vm(place, 'touch')
        seen = storm(bench, server, REGION, touches, 1)
        rates.append(touches / seen['seconds'])
        p99.append(seen['p99_us'] / 1000)
        again.append(touches / storm(bench, server, REGION, touches, 1)['seconds'])
        if i == 0:
            place.stop('touch')
            server = servers.of_vm(place, 'touch')
            names = syscalls.traced(server.pid, place.path('trace'), lambda: storm(bench, server, REGION, touches, 1))
            syncs = sum(n for name, n in names.items() if name in syscalls.SYNCS)
        place.delete('touch')
    bench.table.figure(f'first touches of {REGION >> 20} MiB regions, shuffled, {place.name}', rates, 'IOPS',
                       detail=f'{statistics.median(again):,.0f} when touched again; '
                              f'99 % within {statistics.median(p99):.1f} ms; '
                              f'{syncs} syncs for {touches}')
