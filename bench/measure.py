"""What the benchmarks share: running a program and knowing what it cost, pairs, medians, the table."""

import os, statistics, subprocess, sys, time

TICKS = os.sysconf('SC_CLK_TCK')


class Cost:
    """Wall-clock seconds and CPU seconds (user + system, of every process that took part)."""

    def __init__(self, seconds, cpu):
        self.seconds, self.cpu = seconds, cpu


def cpu_of(pid):
    """CPU seconds that a running process and its threads have used; for services that work beside the measured program."""
    if not pid:
        return 0.0
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run(command, service=None, good=(0,), **options):
    """Runs to the end; a status outside `good` stops the benchmark and shows the output."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **options) as process:
        before, start = cpu_of(service), time.monotonic()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # usage includes the children that it waited for
        seconds, beside = time.monotonic() - start, cpu_of(service) - before
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in good:
        sys.exit(f'{output}\nbench: exit status {process.returncode}: {" ".join(map(str, command))}')
    return Cost(seconds, usage.ru_utime + usage.ru_stime + beside), output


def median(values):
    return statistics.median(values)


def bytes_in(folder):
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def spread(values):
    return f'{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})'


class Table:
    def __init__(self):
        self.rows, self.missed = [], 0

    def add(self, what, goal, measured, good, detail=''):
        """`good` None: a figure without a goal."""
        self.missed += good is False
        verdict = {True: 'pass', False: 'MISSED', None: ''}[good]
        self.rows.append((what, goal, measured, verdict, detail))

    def print(self):
        headings = ('what', 'goal', 'measured', '', 'medians (least to most)')
        widths = [max(len(row[i]) for row in self.rows + [headings]) for i in range(len(headings))]
        for row in [headings] + self.rows:
            print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
