"""What the benchmarks share: running a program and knowing what it cost, pairs that take turns, and the table."""

import json, os, signal, statistics, subprocess, threading, time

TICKS = os.sysconf('SC_CLK_TCK')


def say(text):
    print(f'[{time.strftime("%H:%M:%S")}] {text}', flush=True)


class Failure(Exception):
    """A part cannot go on; the others can."""


class Cost:
    """Wall-clock seconds, CPU seconds (user + system, of every process that took part), what the program's calls to read
    have returned, in bytes, its exit status and, where asked for, the most anonymous memory that it had at once, in
    bytes."""

    def __init__(self, seconds, cpu, returned=0, status=0, anonymous=0):
        self.seconds, self.cpu, self.returned, self.status, self.anonymous = seconds, cpu, returned, status, anonymous


def cpu_of(pid):
    """CPU seconds that a process and its threads have used; for services that work beside the measured program."""
    if not pid:
        return 0.0
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def returned_to(pid):
    """The bytes that a process's calls to read have returned, of a pipe and of the page cache as well."""
    try:
        with open(f'/proc/{pid}/io') as file:
            return int(file.readline().removeprefix('rchar:'))
    except OSError: # another user's
        return 0


def memory_of(pid):
    """Its anonymous memory, and the files on tmpfs that it has mapped and touched."""
    try:
        with open(f'/proc/{pid}/status') as file:
            sizes = dict(line.split(':', 1) for line in file if line.startswith('Rss'))
        return tuple(int(sizes.get(name, '0').split()[0]) << 10 for name in ('RssAnon', 'RssShmem'))
    except OSError: # it has ended
        return 0, 0


class Watch(threading.Thread):
    """Looks every few milliseconds how much anonymous memory a process has, and how much with its shared memory: the
    kernel keeps no peak of that."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.peak_with_shared, self.over = pid, 0, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.003):
            anonymous, shared = memory_of(self.pid)
            self.peak, self.peak_with_shared = max(self.peak, anonymous), max(self.peak_with_shared, anonymous + shared)

    def stop(self):
        self.over.set()
        self.join()
        return self.peak


def run(command, service=None, good=(0,), watch=False, timeout=None, **options):
    """Runs to the end; a status outside `good` is a Failure with the output. After `timeout` seconds the program and
    what it started is killed, and the cost is None."""
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=bool(timeout), **options) as process:
        watching = Watch(process.pid) if watch else None
        alarm = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL)) if timeout else None
        before, start = cpu_of(service), time.monotonic()
        for helper in filter(None, (watching, alarm)):
            helper.start()
        output = process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) # what it read is told until it is waited for
        returned = returned_to(process.pid)
        _, status, usage = os.wait4(process.pid, 0) # usage includes the children that it waited for
        seconds, beside = time.monotonic() - start, cpu_of(service) - before
        process.returncode = os.waitstatus_to_exitcode(status)
        if alarm:
            alarm.cancel()
        anonymous = watching.stop() if watching else 0
    if timeout and seconds >= timeout:
        return None, output
    if process.returncode not in good:
        raise Failure(f'{output}\nexit status {process.returncode}: {" ".join(map(str, command))}')
    cpu = usage.ru_utime + usage.ru_stime + beside
    return Cost(seconds, cpu, returned, process.returncode, anonymous), output


def in_turns(sides, runs, warm_up=1):
    """Calls every side in turn, in alternating order: {name: results}. The first round is not counted: whoever is first
    to fill memory that the machine has not lately used pays for it, several times the work itself on a virtual machine."""
    results = {name: [] for name in sides}
    for i in range(runs + warm_up):
        for name in list(sides)[::1 if i % 2 else -1]:
            result = sides[name]()
            if i >= warm_up:
                results[name].append(result)
    return results


def bytes_in(folder):
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def number(value):
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f'{value:,.0f}'
    digits = 2 if abs(value) < 10 else 1
    return f'{value:.{digits}f}' if abs(value) >= 0.1 else f'{value:.2g}'


def spread(values, unit):
    middle = number(statistics.median(values))
    return f'{middle} {unit}' + (f' ({number(min(values))} to {number(max(values))})' if len(values) > 1 else '')


class Table:
    """The rows, as plain dictionaries: bench/report and bench/plot.py read them back from JSON."""

    def __init__(self):
        self.rows, self.notes, self.part = [], {}, ''

    def note(self, text):
        """How a part was measured; told once, below its rows."""
        if text not in self.notes.setdefault(self.part, []):
            self.notes[self.part].append(text)

    def ratio(self, what, ours, theirs, peer, unit, at_least=None, at_most=None):
        """Two lists of one pair each. With `at_least`, how many times better we are (faster where the unit is a time);
        with `at_most`, how much of the peer's we need. Judged by the medians; neither: a figure without a goal."""
        less_is_better = unit in ('s', 'ms', 'us', 'CPU s', 'MiB')
        inverse = less_is_better and at_most is None

        def divide(a, b):
            a, b = (b, a) if inverse else (a, b)
            return a / b if b else float('inf')

        each = [divide(a, b) for a, b in zip(ours, theirs)]
        best = min if less_is_better else max
        value = divide(statistics.median(ours), statistics.median(theirs))
        # what the machine makes of the same work: each run of the peer against the one before
        again = [max(a, b) / min(a, b) for a, b in zip(theirs, theirs[1:]) if min(a, b)]
        self.rows.append(dict(
            part=self.part, what=what, peer=peer, unit=unit, at_least=at_least, at_most=at_most, value=value,
            low=min(each), high=max(each), best=divide(best(ours), best(theirs)), ours=ours, theirs=theirs,
            noise=max(again) - 1 if again else None,
            good=value >= at_least if at_least is not None else value <= at_most if at_most is not None else None))

    def figure(self, what, values, unit, at_least=None, at_most=None, detail=''):
        """A measurement of ours alone."""
        value = statistics.median(values)
        self.rows.append(dict(
            part=self.part, what=what, peer=None, unit=unit, at_least=at_least, at_most=at_most, value=value,
            low=min(values), high=max(values), ours=list(values), detail=detail,
            good=value >= at_least if at_least is not None else value <= at_most if at_most is not None else None))

    def skip(self, what, why):
        self.rows.append(dict(part=self.part, what=what, skipped=why, good=None))

    def fail(self, what, why):
        self.rows.append(dict(part=self.part, what=what, skipped=why, good=False))

    def missed(self):
        return sum(row['good'] is False for row in self.rows)

    def save(self, path, machine):
        with open(path, 'w') as file:
            json.dump(dict(machine=machine, rows=self.rows, notes=self.notes), file, indent=1)


def cells(row):
    """A row as texts: what, goal, measured, verdict, medians, noise."""
    if 'skipped' in row:
        return row['what'], '', '', 'FAILED' if row['good'] is False else 'not measured', row['skipped'], ''
    verdict = {True: 'pass', False: 'MISSED', None: ''}[row['good']]
    unit, least, most = row['unit'], row['at_least'], row['at_most']
    goal = ''
    if not row['peer']:
        if least is not None:
            goal = f'at least {number(least)} {unit}'
        elif most is not None:
            goal = f'at most {number(most)} {unit}'
        detail = row['detail'] or spread(row['ours'], unit)
        return row['what'], goal, f'{number(row["value"])} {unit}', verdict, detail, ''
    if least is not None:
        goal = f'≥ {least:g} × {row["peer"]}'
    elif most is not None:
        goal = f'≤ {most:g} of {row["peer"]}'
    measured = f'{number(row["value"])} of it' if most is not None else f'{number(row["value"])} ×'
    if not goal: # which has not named the peer
        measured += ' ' + row['peer']
    detail = f'{spread(row["ours"], unit)} against {spread(row["theirs"], unit)}'
    noise = f'{row["noise"] * 100:.0f} %' if row['noise'] is not None else ''
    return row['what'], goal, measured, verdict, detail, noise


HEADINGS = ('what', 'goal', 'measured', '', 'medians (least to most)', 'noise')


def print_table(rows):
    lines = [HEADINGS] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    for line in lines:
        print('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
