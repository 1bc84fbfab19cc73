"""Memory: the most anonymous memory that any command or the disk service takes, with a huge sparse disk and a huge repository."""

import os

from measure import Watch, run, say
import servers

LIMIT = 300
TIB = 64


def measure(bench):
    bench.table.note('RssAnon of the process, looked at every 3 ms.')
    place = bench.tmpfs()
    huge_disk(bench, place)
    huge_repository(bench)


def add(bench, what, peak, detail=''):
    bench.table.figure(what, [peak / (1 << 20)], 'MiB', at_most=LIMIT, detail=detail or ' ')


def huge_disk(bench, place):
    """64 TiB, of which 16384 blocks all over the disk are written."""
    repository, peaks = place.path('memory-repository'), {}

    def rp(name, *arguments):
        say(f'memory: {name}')
        peaks[name] = place.rp(*arguments, watch=True)[0].anonymous

    rp('vm create', 'vm', 'create', 'huge', '--disk', bench.empty(place, 'huge.raw', TIB << 40, 1000))
    place.remove('huge.raw')
    server = servers.of_vm(place, 'huge')
    watch = Watch(server.pid)
    watch.start()
    place.rp('-r', repository, 'repo', 'init')
    storm(bench, server, 16384, 1)
    rp('backup, full', '-r', repository, 'backup', 'huge')
    storm(bench, server, 4096, 2)
    rp('backup, incremental', '-r', repository, 'backup', 'huge')
    rp('list', '-r', repository, 'list')
    rp('show', '-r', repository, 'show', 'huge')
    rp('diff', '-r', repository, 'diff', 'huge')
    rp('check', '-r', repository, 'check')
    rp('check --read-data', '-r', repository, 'check', '--read-data')
    rp('checkpoint create', 'checkpoint', 'create', 'huge', '--name', 'one')
    storm(bench, server, 4096, 3)
    rp('checkpoint delete', 'checkpoint', 'delete', 'huge', 'one')
    rp('restore', '-r', repository, 'restore', 'huge', '--to', place.path('memory-restored'))
    peaks['disk service'] = watch.stop()
    place.delete('huge')
    place.remove('memory-repository', 'memory-restored')
    service = peaks.pop('disk service')
    add(bench, f'disk service, sparse disk of {TIB} TiB', service)
    most = max(peaks, key=peaks.get)
    add(bench, f'the greediest command, sparse disk of {TIB} TiB', peaks[most],
        f'{most}; ' + ', '.join(f'{name} {peak / (1 << 20):.0f}' for name, peak in peaks.items() if name != most))


def storm(bench, server, count, seed):
    run([bench.program('bench-storm'), server.uri, 1 << 30, count, 32, seed, 60])


def huge_repository(bench):
    """What tests/repo makes without the data: a repository whose index knows 10 million blocks."""
    bench.table.skip('every command, 10 million blocks in the repository', 'nothing makes such a repository yet')
