"""Service: the disk service, tracking on, under fio's nbd engine, beside the servers that people have now: steady work on
an allocated disk, writes into a fresh differencing leaf, reads through one and three levels."""

from measure import in_turns, run, say
import servers

LOADS = [('4 KiB random reads', 'randread', '4k', 32), ('4 KiB random writes', 'randwrite', '4k', 32),
         ('1 MiB sequential reads', 'read', '1m', 4), ('1 MiB sequential writes', 'write', '1m', 4)]
NAMES = {'threads': 'qemu-nbd {}', 'io_uring': 'qemu-nbd {}, io_uring'}
PEERS = [('nbdkit file', 0.85), ('qemu-nbd qcow2', 2.5), ('qemu-nbd vhdx', 3),
         ('qemu-nbd qcow2, io_uring', None), ('qemu-nbd vhdx, io_uring', None)]
MIB = 512
LEAF_REQUESTS = 40000 # of 131072 blocks: the leaf stays fresh


def measure(bench):
    bench.table.note(f'{MIB} MiB disk, allocated everywhere, incompressible; one connection on a unix socket, depth '
                     f'32 for 4 KiB '
                     'and 4 for 1 MiB. All go through the page cache, and start with everything in it: qemu-nbd with '
                     'cache=writeback and aio=threads, its defaults; with aio=io_uring where it says so.')
    for place in bench.both():
        data = bench.noise(place, 'data.raw', MIB)
        steady(bench, place, data)
        levels(bench, place, data)
        place.remove('data.raw')


def steady(bench, place, data):
    say(f'service, {place.name}: the same bytes as VHDX, raw, qcow2')
    place.create('service', data)
    sides = [servers.of_vm(place, 'service'), servers.nbdkit_file(place, data)]
    images = []
    for aio in ('threads', 'io_uring'): # each server has its image for itself
        for kind in ('qcow2', 'vhdx'):
            images.append(f'{aio}.{kind}')
            run(['qemu-img', 'convert', '-f', 'raw', '-O', kind, data, place.path(images[-1])])
            sides.append(servers.qemu_nbd(place, place.path(images[-1]), kind, aio, NAMES[aio].format(kind)))
    warm(sides)
    for what, kind, block, depth in LOADS:
        say(f'service, {place.name}: {what}')

        def load(server):
            place.settle()
            return servers.fio(server, kind, block, depth, bench.seconds)

        seen = in_turns({server.name: (lambda server=server: load(server)) for server in sides}, bench.runs)
        for peer, goal in PEERS:
            compare(bench, f'{what}, {place.name}', seen, peer, block, goal)
    for server in sides[1:]:
        server.end()
    place.delete('service')
    place.remove(*images)


def warm(sides):
    """Everything is in the page cache: refpoint writes what it makes past it, the others do not."""
    for server in sides:
        servers.fio(server, 'read', '1m', 4, requests=MIB)


def compare(bench, what, seen, peer, block, goal):
    def rate(load):
        return load.iops if block == '4k' else load.mib

    bench.table.ratio(what, [rate(one) for one in seen['refpoint']], [rate(one) for one in seen[peer]], peer,
                      'IOPS' if block == '4k' else 'MiB/s', at_least=goal)
    bench.table.ratio(f'{what}: CPU of server and client per request', [one.cpu for one in seen['refpoint']],
                      [one.cpu for one in seen[peer]], peer, 'us')


def levels(bench, place, data):
    peer = 'qcow2 with backing'
    run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', data, place.path('level0.qcow2')])
    for level in (1, 2, 3):
        run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', place.path(f'level{level - 1}.qcow2'),
             place.path(f'level{level}.qcow2')])
    place.create('levels', data)

    def fresh(kind, block, depth, requests):
        """Writes into a leaf that nobody has written to yet; the leaf is merged or deleted afterwards."""
        def ours():
            checkpoint = place.json('checkpoint', 'create', 'fresh')['id']
            place.settle()
            load = servers.fio(server, kind, block, depth, requests=requests)
            place.rp('checkpoint', 'delete', 'fresh', checkpoint, '--yes')
            return load

        def theirs():
            run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', place.path('level0.qcow2'),
                 place.path('fresh.qcow2')])
            server = servers.qemu_nbd(place, place.path('fresh.qcow2'), 'qcow2')
            place.settle()
            load = servers.fio(server, kind, block, depth, requests=requests)
            server.end()
            place.remove('fresh.qcow2')
            return load

        place.create('fresh', data)
        server = servers.of_vm(place, 'fresh')
        seen = in_turns({'refpoint': ours, peer: theirs}, bench.runs)
        place.delete('fresh')
        return seen

    for what, kind, block, depth in LOADS:
        if 'write' in kind:
            say(f'service, {place.name}: {what} into a fresh leaf')
            seen = fresh(kind, block, depth, LEAF_REQUESTS if block == '4k' else MIB)
            compare(bench, f'{what} into a fresh leaf, {place.name}', seen, peer, block, 1.5)

    ours = servers.of_vm(place, 'levels')
    made = 0
    for level in (1, 3):
        while made < level:
            place.rp('checkpoint', 'create', 'levels')
            made += 1
        theirs = servers.qemu_nbd(place, place.path(f'level{level}.qcow2'), 'qcow2')
        warm((ours, theirs))
        for what, kind, block, depth in LOADS:
            if 'read' in kind:
                through = f'{what} through {level} level{"s" * (level > 1)}, {place.name}'
                say(f'service: {through}')
                seen = in_turns({'refpoint': lambda: servers.fio(ours, kind, block, depth, bench.seconds),
                                 peer: lambda: servers.fio(theirs, kind, block, depth, bench.seconds)}, bench.runs)
                compare(bench, through, seen, peer, block, 1.5)
        theirs.end()
    for checkpoint in place.json('checkpoint', 'list', 'levels')[::-1]:
        place.rp('checkpoint', 'delete', 'levels', checkpoint['id'], '--yes')
    place.delete('levels')
    place.remove(*(f'level{level}.qcow2' for level in range(4)))
