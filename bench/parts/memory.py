"""Memory: the most anonymous memory of any command and of the disk service, with a huge sparse disk, a huge repository."""

import os, re

from measure import Failure, Watch, run, say
import servers

LIMIT = 300
TIB = 64
SECONDS = 400 # for the repository


def measure(bench):
    bench.table.note('RssAnon of the process, looked at every 3 ms; one run of each command.')
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
        peaks[name] = place.rp(*arguments, watch=True, good=(0, 1))[0].anonymous # 1: the repository might not fit

    rp('vm create', 'vm', 'create', 'huge', '--disk', bench.empty(place, 'huge.raw', (TIB << 40) - (1 << 30), 1000))
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
    rp('vm stop', 'vm', 'stop', 'huge')
    place.running.pop('huge')
    rp('disk grow', 'disk', 'grow', 'huge', 'disk0', str(TIB << 40))
    rp('disk compact', 'disk', 'compact', place.disk('huge'))
    rp('disk convert', 'disk', 'convert', place.disk('huge'), place.path('huge.raw'))
    rp('disk add', 'disk', 'add', 'huge', place.path('huge.raw'))
    place.remove('huge.raw')
    place.delete('huge')
    place.remove('memory-repository', 'memory-restored')
    service = peaks.pop('disk service')
    bench.table.note('10 million blocks: tests/repo/test-large.c.')
    add(bench, f'disk service, sparse disk of {TIB} TiB', service,
        f'{watch.peak_with_shared / (1 << 20):.0f} MiB with its shared memory on tmpfs')
    most = max(peaks, key=peaks.get)
    add(bench, f'the greediest command, sparse disk of {TIB} TiB', peaks[most],
        f'{most}; ' + others(peaks, most))


def others(peaks, most):
    return ', '.join(f'{name} {peak / (1 << 20):.0f}' for name, peak in peaks.items() if name != most)


def storm(bench, server, count, seed):
    run([bench.program('bench-storm'), server.uri, 1 << 30, count, 32, seed, 60])


def huge_repository(bench):
    """tests/repo/test-large.c makes 10 million blocks and does the work of every command in a process of its own."""
    program = os.path.join(bench.build, 'tests/repo/test-repo-large')
    if not os.path.exists(program):
        bench.table.skip('every command, 10 million blocks in the repository',
                         'tests/repo/test-repo-large is not built')
        return
    say('memory: 10 million blocks in the repository')
    cost, output = run([program], good=(0, 1), timeout=SECONDS, env=dict(os.environ, CMOCKA_MESSAGE_OUTPUT='TAP',
                                                  TMPDIR=bench.disk().folder))
    if not cost:
        bench.table.fail('every command, 10 million blocks in the repository', f'not done after {SECONDS} s')
        return
    peaks = {name: int(mib) << 20 for name, mib in re.findall(r'^# (.*): (\d+) MiB$', output, re.M)}
    if not peaks:
        raise Failure(f'{program} told no figures:\n{output}')
    if cost.status and max(peaks.values()) < LIMIT << 20: # it judges by the same limit
        raise Failure(f'{program} failed, and not for its memory:\n{output}')
    most = max(peaks, key=peaks.get)
    add(bench, 'the greediest command, 10 million blocks in the repository', peaks[most],
        f'{most}; ' + others(peaks, most))
