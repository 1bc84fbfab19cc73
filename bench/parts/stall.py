"""Stall: how long guest writes stand still at a checkpoint of four disks, and at the end of a merge, all under load."""

import json, math, os, signal, socket, statistics, subprocess, time, uuid

from measure import Failure, say
import syscalls

DISKS, CHECKPOINTS, MIB = 4, 100, 128
SECONDS = 90 # at each place: a busy disk makes fewer checkpoints


def measure(bench):
    for place in bench.both():
        stalls(bench, place)
    bench.table.note(f'{DISKS} disks of {MIB} MiB in one VM, each under 4 KiB random writes at depth 32 from a '
                     f'program of its own; '
                     f'up to {CHECKPOINTS} checkpoints in {SECONDS} s, each followed by its merge. The pause is what the '
                     'disk service measured itself: from '
                     'closing the gate until it is open again. One run at each place.')


def control(socket_path, request, **arguments):
    """One request to the disk service (docs/formats/control.md)."""
    line = dict(refpoint=2, operation=str(uuid.uuid4()), request=request, **arguments)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(120)
        client.connect(socket_path)
        client.sendall(json.dumps(line).encode() + b'\n')
        with client.makefile() as answers:
            reply = json.loads(answers.readline())
    if 'error' in reply:
        raise Failure(f'{request}: {reply["error"]}')
    return reply['result']


def stalls(bench, place):
    image = bench.noise(place, 'stall.raw', MIB)
    place.rp('vm', 'create', 'stall', *(word for _ in range(DISKS) for word in ('--disk', image)))
    uri, _ = place.start('stall')
    path = os.path.join(os.path.dirname(syscalls.socket_of(uri)), 'control.sock')
    load = [subprocess.Popen([bench.program('bench-storm'), one, '4096', '0', '32', str(i), '900'],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            for i, one in enumerate(place.uris('stall'))]
    pauses, merges, waits, deadline = [], [], [], time.monotonic() + SECONDS
    say(f'stall, {place.name}: checkpoints and merges under load')
    try:
        while len(pauses) < CHECKPOINTS and time.monotonic() < deadline:
            result = control(path, 'checkpoint')
            pauses.append(result['pause_ns'] / 1e6)
            control(path, 'merge', paths=[disk['leaf'] for disk in result['disks']])
            start = time.monotonic()
            while (merge := control(path, 'info')['merge'])['phase'] == 'running':
                time.sleep(0.01)
                if time.monotonic() - start > 300:
                    raise Failure('a merge does not end')
            if merge['phase'] != 'done':
                raise Failure(f'the merge failed: {merge}')
            waits.append(time.monotonic() - start)
            merges.append(merge['longest_pause_ns'] / 1e6)
    finally:
        for process in load:
            process.send_signal(signal.SIGTERM)
        seen = [json.loads(process.communicate(timeout=60)[0]) for process in load]
        place.delete('stall')
        place.remove('stall.raw')
    pauses.sort()
    enough = len(pauses) >= CHECKPOINTS # of a few, a percentile is nothing but the longest
    which = '99th percentile' if enough else f'the longest of {len(pauses)}'
    writes = sum(one['writes'] for one in seen)
    bench.table.figure(f'pause of a checkpoint, {which}, {place.name}',
                       [pauses[math.ceil(len(pauses) * 0.99) - 1]], 'ms', at_most=10,
                       detail=f'{len(pauses)} checkpoints, median {statistics.median(pauses):.2f} ms, '
                              f'longest {pauses[-1]:.2f} ms')
    bench.table.figure(f'longest pause of a merge, {place.name}', [max(merges)], 'ms', at_most=50,
                       detail=f'median {statistics.median(merges):.2f} ms; a merge took '
                              f'{statistics.median(waits):.2f} s')
    bench.table.figure(f'the slowest write meanwhile, {place.name}', [max(one['longest_us'] for one in seen) / 1000],
                       'ms',
                       detail=f'{writes:,} writes; 99 % within {max(one["p99_us"] for one in seen) / 1000:.1f} ms')
