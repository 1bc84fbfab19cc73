"""Convert: images between raw and VHDX against qemu-img and cp, sequential reads against libvhdi, maps of empty disks."""

import json, os, statistics

from measure import in_turns, run, say

MAP_SECONDS = 20 # qemu-img gets no longer


def measure(bench):
    bench.table.note('Both sides are durable when the clock stops: refpoint syncs what it makes, `sync` follows '
                     'qemu-img and cp. '
                     'The image: half never written, a quarter files of /usr, a quarter incompressible; '
                     'read from the page cache.')
    for place in bench.both():
        convert(bench, place)
    share(bench)
    read(bench)
    maps(bench)


def durably(*command):
    """A command whose last word is the file that it makes, and a sync of that file."""
    return run(['sh', '-c', '"$@" && for made; do :; done && sync "$made"', 'sh', *command])[0]


def pairs(bench, place, what, sides):
    """Sides: functions that make a file `target` and return their cost."""
    target = place.path('target')

    def once(make):
        place.settle()
        cost = make(target)
        os.unlink(target)
        return cost

    say(f'convert, {what}')
    return in_turns({name: (lambda make=make: once(make)) for name, make in sides.items()}, bench.runs)


def add(bench, what, seen, peer, goal, cpu_goal=None):
    bench.table.ratio(what, [cost.seconds for cost in seen['refpoint']], [cost.seconds for cost in seen[peer]], peer,
                      's', at_least=goal)
    if cpu_goal:
        bench.table.ratio(f'{what}, CPU', [cost.cpu for cost in seen['refpoint']], [cost.cpu for cost in seen[peer]],
                          peer, 'CPU s',
                          at_most=cpu_goal)


def convert(bench, place):
    raw, vhdx = bench.image(place), place.path('source.vhdx')
    place.rp('disk', 'convert', raw, vhdx)
    for name, source, before, after in (('raw to VHDX', raw, 'raw', 'vhdx'), ('VHDX to raw', vhdx, 'vhdx', 'raw')):
        what = f'{name}, {place.name}'
        seen = pairs(bench, place, what, {
            'refpoint': lambda target: place.rp('disk', 'convert', '-f', before, '-O', after, source, target)[0],
            'qemu-img': lambda target: durably('qemu-img', 'convert', '-f', before, '-O', after, source, target)})
        add(bench, what, seen, 'qemu-img', 1.5, 1.0)
    place.remove('source.vhdx')


def share(bench):
    """Where the file system can share, a conversion moves no data."""
    place, why = bench.xfs()
    if not place:
        bench.table.skip('raw to VHDX, xfs', why)
        return
    raw = bench.image(place)
    # reflink=never: what cp costs where it copies. With its own reflink cp makes no VHDX either.
    seen = pairs(bench, place, 'raw to VHDX, xfs', {
        'refpoint': lambda target: place.rp('disk', 'convert', '-f', 'raw', '-O', 'vhdx', raw, target)[0],
        'cp': lambda target: durably('cp', '--sparse=auto', '--reflink=never', raw, target)})
    add(bench, 'raw to VHDX with shared extents, xfs', seen, 'cp', 20)
    bench.table.note('xfs is a loop device over a file; cp runs with --reflink=never, since with its own reflink it '
                     'copies nothing, but '
                     'makes no VHDX either.')


def read(bench):
    place = bench.tmpfs()
    if not os.path.exists(bench.program('bench-vhdi')):
        bench.table.skip('sequential read of a VHDX', 'libvhdi-dev was missing when refpoint was built')
        return
    data, vhdx = bench.noise(place, 'read.raw', 1024), place.path('read.vhdx')
    run(['qemu-img', 'convert', '-f', 'raw', '-O', 'vhdx', data, vhdx])
    say('convert: sequential reads of a VHDX')

    def seconds(*command):
        return json.loads(run(command)[1])['seconds']

    ours, theirs = bench.program('bench-vhdx'), bench.program('bench-vhdi')
    seen = in_turns({'one': lambda: seconds(ours, 'read', vhdx, 1), 'two': lambda: seconds(ours, 'read', vhdx, 2),
                     'plain': lambda: seconds(ours, 'plain', data, 2), 'libvhdi': lambda: seconds(theirs, vhdx)},
                    max(bench.runs, 5))
    bench.table.ratio('sequential read of a VHDX, one thread', seen['one'], seen['libvhdi'], 'libvhdi', 's', at_least=1)
    bench.table.ratio('sequential read of a VHDX, two threads', seen['two'], seen['libvhdi'], 'libvhdi', 's',
                      at_least=1.7)
    bench.table.ratio('the same bytes by plain pread, two threads', seen['plain'], seen['libvhdi'], 'libvhdi', 's')
    bench.table.note('Plain pread reads the raw file that the VHDX was made of, without our library: what the machine '
                     'gives two threads at that moment is the ceiling for ours.')
    bench.table.note('libvhdi reads the same file, made by qemu-img, with pieces of 1 MiB and one thread, through its '
                     f'C library. All of these reads: {max(bench.runs, 5)} rounds.')
    place.remove('read.raw', 'read.vhdx')


def maps(bench):
    place = bench.disk()
    for what, size, writes in (('an empty disk of 64 GiB', 64 << 30, 0), ('a sparse disk of 4 TiB', 4 << 40, 1000)):
        say(f'convert: the map of {what}')
        vhdx = place.path('map.vhdx')
        place.rp('disk', 'convert', '-f', 'raw', '-O', 'vhdx', bench.empty(place, 'map.raw', size, writes), vhdx)
        ours = [json.loads(run([bench.program('bench-vhdx'), 'map',
                                vhdx])[1])['seconds'] * 1000 for _ in range(bench.runs)]
        cost, _ = run(['qemu-img', 'map', '--output=json', '-f', 'vhdx', vhdx], timeout=MAP_SECONDS)
        theirs = f'{cost.seconds:.2f} s' if cost else f'nothing after {MAP_SECONDS} s'
        bench.table.figure(f'map of {what}', ours, 'ms', at_most=100,
                           detail=f'{statistics.median(ours):.2f} ms; qemu-img map: {theirs}')
        place.remove('map.vhdx', 'map.raw')
