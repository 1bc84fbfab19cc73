"""Tracking: what Resilient Change Tracking costs a write that finds everything in place."""

import json, math, os, statistics

from measure import Failure, run, say
import servers, syscalls
from stall import control

PAIRS = 20
STUDENT = 2.093 # two-sided 95 % with 19 degrees of freedom
MIB = 256


def measure(bench):
    place = bench.tmpfs()
    data = bench.noise(place, 'small.raw', MIB)
    sides = {}
    for vm in ('on', 'off'):
        place.create(vm, data)
        if vm == 'off':
            syscalls.switch_tracking_off(place.disk(vm))
        sides[vm] = servers.of_vm(place, vm)
        seen = control(os.path.join(os.path.dirname(syscalls.socket_of(sides[vm].uri)), 'control.sock'), 'info')
        if seen['disks'][0]['tracked'] != (vm == 'on'): # else two that are the same would be compared
            raise Failure(f'tracking should be {vm}, and is not')
        servers.fio(sides[vm], 'write', '1m', 4, requests=MIB) # every block is there, every region known
    bench.table.note(f'Off: a foreign file stands where the tracking file should be, so refpoint tracks nothing. '
                     f'{MIB} MiB disk on '
                     f'{place.name}; the pairs are 4 KiB random writes at depth 32, both disks in turns of 40 ms. '
                     'One mark: the median of seven rounds of 4 million.')
    counted(bench, place, sides)
    marks(bench)
    on_and_off(bench, sides)
    for vm in sides:
        place.delete(vm)
    place.remove('small.raw')


def counted(bench, place, sides):
    counts = {}
    for vm, server in sides.items():
        say(f'tracking: system calls of 2000 steady-state writes, tracking {vm}')
        counts[vm] = syscalls.steady_writes(server.uri, server.pid, place.path('trace'))
    for what in ('system calls', 'syncs'):
        on, off = counts['on'][what], counts['off'][what]
        bench.table.figure(f'{what} that tracking adds to a steady write', [on - off], 'more', at_most=0.005,
                           detail=f'{on:.3f} against {off:.3f}')


def marks(bench):
    say('tracking: what one mark costs')
    seen = [json.loads(run([bench.program('bench-mark'), bench.tmpfs().folder])[1]) for _ in range(bench.runs)]
    bench.table.figure('one mark of 4 KiB, with the look whether its region is covered',
                       [one['steady_ns'] for one in seen], 'ns', at_most=100,
                       detail=f'{statistics.median(one["first_ns"] for one in seen):.0f} ns where it makes '
                              'the first pages')


def on_and_off(bench, sides):
    say(f'tracking: {PAIRS} pairs')
    rates = json.loads(run([bench.program('bench-pairs'), sides['on'].uri, sides['off'].uri, PAIRS])[1])
    lost = [math.log(off / on) for on, off in rates]
    middle, error = statistics.mean(lost), STUDENT * statistics.stdev(lost) / math.sqrt(PAIRS)
    percent = [(math.exp(value) - 1) * 100 for value in (middle - error, middle, middle + error)]
    bench.table.figure(f'writes that tracking costs, at most (95 %, {PAIRS} pairs)', [percent[2]], '%', at_most=5,
                       detail=f'mean {percent[1]:+.1f} %, 95 % of it between {percent[0]:+.1f} and {percent[2]:+.1f} %')
