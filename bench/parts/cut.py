"""Cut: after a power cut, how much the next incremental backup reads, beside QEMU's persistent bitmap."""

import json, os, random, signal, subprocess

import nbd

from measure import Failure, run, say
import places, servers

GIB, CHANGED = 2, 100
HERE = os.path.dirname(os.path.abspath(__file__))


def measure(bench):
    why = places.can_loop('ext4')
    if why:
        bench.table.skip('the next incremental after a power cut', why)
        return
    bench.table.note(f'A {GIB} GiB disk, allocated to a half, on an ext4 of its own (a loop device). 1 % of what is '
                     f'allocated is written right '
                     'after a backup, and flushed; then the disk service is killed with SIGKILL and the power is cut as '
                     'demo/power-cut '
                     'does it: only what has reached the device is kept, the page cache and all shared memory are gone. '
                     'The same for '
                     'qemu-nbd and a qcow2 with a persistent bitmap. One run of each.')
    raw = bench.noise(bench.disk(), 'cut.raw', GIB * 512)
    with open(raw, 'r+b') as file:
        file.truncate(GIB << 30)
    for name in ('clustered', 'scattered'):
        say(f'cut: 1 % changed, {name}')
        after(bench, raw, name)
    bench.disk().remove('cut.raw')


def writes(name):
    """1 % of what is allocated: in 4 stretches, or in blocks of 4 KiB anywhere."""
    rng, amount, allocated = random.Random(7), (GIB << 29) // CHANGED, GIB << 29
    if name == 'clustered':
        piece = 128 << 10
        for stretch in range(4):
            start = rng.randrange((allocated - amount) // piece) * piece
            yield from ((start + i * piece, piece) for i in range(amount // 4 // piece))
    else:
        yield from ((block * 4096, 4096) for block in rng.sample(range(allocated // 4096), amount // 4096))


def write(uri, name):
    client, data, total = nbd.NBD(), os.urandom(128 << 10), 0
    client.connect_uri(uri)
    for offset, length in writes(name):
        client.pwrite(data[:length], offset)
        total += length
    client.flush()
    return client, total


def after(bench, raw, name):
    """The bytes that ours reads, and theirs."""
    place = bench.loop('ext4', f'cut-{name}', 3 * GIB << 30)
    repository = bench.disk().path('cut-repository')
    place.rp('-r', repository, 'repo', 'init')
    place.create('cut', raw)
    ours = servers.of_vm(place, 'cut')
    place.rp('-r', repository, 'backup', 'cut')

    qcow2 = place.path('cut.qcow2')
    run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
    run(['qemu-img', 'bitmap', '--add', qcow2, 'since'])
    theirs = servers.qemu_nbd(place, qcow2, 'qcow2')

    place.settle()
    connected = [write(server.uri, name) for server in (ours, theirs)] # nobody says goodbye before the cut
    os.kill(ours.pid, signal.SIGKILL)
    theirs.end(hard=True)
    place.running.clear()
    run([os.path.join(HERE, '../../demo/power-cut'), place.folder])

    place.start('cut')
    place.rp('-r', repository, 'backup', 'cut')
    point = place.json('-r', repository, 'list')[-1]
    read = place.json('-r', repository, 'show', f'cut@{point["id"]}')['bytes_read']
    usable, theirs_read = qcow2_reads(qcow2)
    bench.table.figure(f'read after a power cut, 1 % {name}', [read / (1 << 20)], 'MiB',
                       detail=f'{point["kind"]}; {connected[0][1] / (1 << 20):.0f} MiB were written. '
                              f'qcow2: the bitmap is '
                              f'{"usable" if usable else "inconsistent"}, {theirs_read / (1 << 20):,.0f} MiB to read')
    place.delete('cut')
    place.end()
    bench.disk().remove('cut-repository')


def qcow2_reads(image):
    """Whether QEMU can still use the bitmap, and how many bytes a backup has to read without it."""
    # --merge is refused for a bitmap that was in use when its writer died
    copy = subprocess.run(['qemu-img', 'bitmap', '--add', '--merge', 'since', image, 'copy'], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if copy.returncode and 'inconsistent' not in copy.stdout:
        raise Failure(f'qemu-img bitmap: {copy.stdout}')
    extents = json.loads(run(['qemu-img', 'map', '--output=json', '-f', 'qcow2', image])[1])
    return copy.returncode == 0, sum(one['length'] for one in extents if one['data'])
