#!/usr/bin/python3
"""test-kills.py BOOT-FOLDER BUILD [--rounds N] [--seed N] [--folder DIR]: a guest whose backups, checkpoints,
conversions and merges are killed in the middle: the tool, refpoint-hostd, the disk service or QEMU, by SIGKILL.

It runs under refpoint-hostd and libvirt's embedded driver, and writes to its disks in order. A round begins an
operation, kills one of the four, at a moment of its length, in the freeze, or at a system call of its own (strace),
starts again what a service manager would, and judges: the guest has only waited; what it was told is on the restored
disks; nothing is left over; every reference point still answers, and the next incremental is right. At the end the VM
is off, and the restored disks are what QEMU reads in the VHDX files, byte for byte.

Without --rounds: one round for each of the four, as TAP. With it (make soak): so many rounds of one seed; the folder
is copied to DIR when something was wrong; the last line is what was done, as JSON. Exit status 0 good, 1 wrong."""

import argparse, glob, json, os, random, shutil, signal, subprocess, sys, threading, time, traceback

import guest # puts tests/ on sys.path
from stage import Stage
from tap import behaviour, equal, wait_for

KINDS = ['ext4', 'xfs', 'ext4']
VICTIMS = ('tool', 'hostd', 'service', 'qemu')
FREEZE_LIMIT = 10
# What a watchdog may need besides to notice, to connect and to be heard, on a machine where the guest is emulated.
THAW_GRACE = 20
PAUSE_LIMIT = 120 # seconds until the guest writes again: a busy machine, and hostd looks for its hypervisor every 10 s
CALLS = {'tool': ('fsync,fdatasync', 'rename,renameat2,linkat', 'pwrite64', 'openat', 'sendto,sendmsg,write'),
         'hostd': ('fsync,fdatasync', 'pwrite64', 'openat', 'sendto,sendmsg', 'write', 'unlink,unlinkat'),
         'service': ('fsync,fdatasync', 'pwrite64', 'openat', 'sendto,sendmsg', 'ftruncate', 'unlink,unlinkat')}

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument('boot')
arguments.add_argument('build')
arguments.add_argument('--rounds', type=int)
arguments.add_argument('--seed', type=int, default=int(os.environ.get('RP_TEST_SEED', time.time_ns() % 1000000)))
arguments.add_argument('--folder')
args = arguments.parse_args()
build = os.path.realpath(args.build)


class Wrong(Exception):
    pass


def must(condition, text):
    if not condition:
        raise Wrong(text)


class Host(Stage):
    """The host, its VM, and two repositories: each round backs up to the first, some to the second, whose reference
    points grow old."""

    def __init__(self):
        super().__init__('kills', args.boot, build)
        self.environment['REFPOINT_REPOSITORY'] = self.path('often')

    def prepare(self):
        self.take_in('vm', self.disks('vm', *KINDS), writer='ordered', hook='ok', extra=f'rp.disks={len(KINDS)}')
        self.start_hostd()
        self.vm_id = self.vm('vm')['id']
        for repository in 'often', 'seldom':
            self.rp('repo', 'init', '-r', self.path(repository))
        self.start_vm()

    def start_vm(self):
        self.boots('vm', lambda: self.rp('vm', 'start', 'h/vm'))

    def wait_for_watchdog(self):
        """One process at a time has the embedded driver: refpoint-hostd cannot start while a watchdog thaws by it."""
        wait_for(lambda: not self.processes('refpoint-thaw'), PAUSE_LIMIT, 'the end of the watchdog')

    def start_hostd(self):
        self.wait_for_watchdog()
        super().start_hostd()

    def pid(self, victim):
        """Of the tool nothing is known yet."""
        return {'tool': lambda: None, 'hostd': lambda: self.hostd.pid, 'service': lambda: self.service(self.vm_id),
                'qemu': lambda: next(iter(self.processes('guest=vm,')), None)}[victim]()

    def close(self):
        self.reaper.stdin.close()
        self.reaper.wait(60)


class FreezeWatch(threading.Thread):
    """How long the guest was frozen at most, by when its hook says so on the console."""

    def __init__(self, console):
        super().__init__(daemon=True)
        self.console, self.longest, self.count, self.since, self.stopping = console, 0, 0, None, threading.Event()
        self.start()

    def run(self):
        at, rest = 0, ''
        while not self.stopping.wait(0.02):
            try:
                with open(self.console, 'rb') as file:
                    file.seek(at)
                    news = file.read()
            except FileNotFoundError:
                continue
            at += len(news)
            *lines, rest = (rest + news.decode(errors='replace')).split('\n')
            for line in lines:
                if 'hook ok: freeze' in line:
                    self.since, self.count = time.monotonic(), self.count + 1
                elif self.since and ('hook ok: thaw' in line or guest.READY in line): # or it was killed, and has booted
                    if 'thaw' in line:
                        self.longest = max(self.longest, time.monotonic() - self.since)
                    self.since = None


class Killer:
    """Kills one process while an operation runs, where the chooser says."""

    def __init__(self, stage, watch, victim, chooser, freezes, length):
        self.stage, self.watch, self.victim, self.tracer, self.hit = stage, watch, victim, None, None
        way = chooser.choice(('time', 'time', 'call', 'call', 'freeze') if freezes else ('time', 'call', 'call'))
        if victim == 'qemu' and way == 'call': # the threads of an emulated processor are not to be traced
            way = 'time'
        self.delay = chooser.random() * (length if way == 'time' else 0.4)
        self.calls, self.nth = chooser.choice(CALLS.get(victim, ('none',))), 1 + int(chooser.random() ** 2 * 8)
        self.way = way
        self.where = {'time': f'{self.delay:.2f} s into it', 'freeze': f'{self.delay:.2f} s into the freeze',
                      'call': f'at call {self.nth} of {self.calls}'}[way]

    def inject(self):
        return ['-qq', '-f', '-o', '/dev/null', '-e', 'trace=' + self.calls,
                '-e', f'inject={self.calls}:signal=SIGKILL:when={self.nth}']

    def begin(self, words):
        """Starts the tool."""
        before, self.pid = [], self.stage.pid(self.victim)
        if self.way == 'call' and self.victim == 'tool':
            before = ['strace', '--seccomp-bpf', *self.inject()]
        elif self.way == 'call':
            self.tracer = subprocess.Popen(['strace', *self.inject(), '-p', str(self.pid)], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            traced = lambda: 'TracerPid:\t0\n' not in guest.text_of(f'/proc/{self.pid}/status')
            wait_for(lambda: traced() or self.tracer.poll() is not None, 30, 'strace')
        frozen, began = self.watch.count, time.monotonic()
        with open(self.stage.path('said'), 'wb') as said:
            self.tool = subprocess.Popen([*before, f'{build}/src/cli/refpoint', *words], env=self.stage.environment,
                                         stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        if self.way == 'freeze':
            while self.watch.count == frozen and self.tool.poll() is None and time.monotonic() < began + 60:
                time.sleep(0.002)
        if self.way != 'call':
            try:
                self.tool.wait(self.delay)
            except subprocess.TimeoutExpired:
                self.hit = 'in it'
            self.kill()

    def alive(self):
        try: # one that nobody has waited for yet is dead as well
            return self.pid and guest.text_of(f'/proc/{self.pid}/stat').rpartition(')')[2].split()[0] not in 'ZX'
        except (ProcessLookupError, IndexError):
            return False

    def kill(self):
        if self.victim == 'tool':
            self.tool.kill()
        elif self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def finish(self, seconds=300):
        """The exit status of the tool, when it and the victim have ended; who was not hit by his call is killed now."""
        gone = lambda: self.tool.poll() is not None or (self.victim != 'tool' and not self.alive())
        wait_for(gone, seconds, 'the end of the tool, or of who is killed')
        if self.way == 'call':
            if self.victim == 'tool':
                self.hit = 'in it' if self.tool.poll() == -signal.SIGKILL else None
            else:
                self.hit = 'in it' if not self.alive() else None
                self.end_tracer()
                if not self.hit:
                    self.kill()
        self.where += '' if self.hit else ', after it'

    def end_tracer(self):
        self.tracer.terminate()
        try:
            self.tracer.wait(5)
        except subprocess.TimeoutExpired: # one of whom it traces sleeps in the kernel; without it they go on
            self.tracer.kill()
            self.tracer.wait(30)

    def status(self, seconds=300):
        """The tool, which others' death ends as well, sooner or later."""
        try:
            return self.tool.wait(seconds)
        except subprocess.TimeoutExpired:
            self.tool.kill()
            raise Wrong(f'the tool does not end within {seconds} s after a kill of {self.victim}') from None


class Life:
    def __init__(self, stage, seed):
        self.stage, self.seed, self.rounds, self.watch = stage, seed, 0, None
        self.lengths = {}
        self.counts = dict.fromkeys(('guest_kills', 'guest_backups', 'guest_restores'), 0)
        self.counts |= {'kills_' + victim: 0 for victim in VICTIMS}

    def say(self, text):
        print(f'# {text}', flush=True)

    def begin(self):
        self.watch = FreezeWatch(self.stage.path('vm', 'console'))
        for repository in 'often', 'seldom':
            self.backup(repository, kind='full')
        for work, words in ('checkpoint', 'create h/vm --name mine'), ('merge', 'delete h/vm mine'):
            begin = time.monotonic()
            self.stage.rp('checkpoint', *words.split())
            self.lengths[work] = time.monotonic() - begin

    def points(self):
        return {point['id'] for point in self.stage.ask('refpoint', 'list', 'h/vm')}

    def newest(self, repository):
        points = self.stage.ask('list', 'vm', '-r', self.stage.path(repository))
        return points[-1]['id'] if points else None

    def backup(self, repository='often', kind='incremental', exact=False):
        """One that nobody disturbs: incremental, and right."""
        stage, acks = self.stage, self.stage.acknowledged('vm')
        begin = time.monotonic()
        stage.rp('backup', 'h/vm', '-r', stage.path(repository), '--consistency', 'application-only', good=(0, 1))
        self.lengths['backup'] = self.lengths['crash'] = time.monotonic() - begin
        self.counts['guest_backups'] += 1
        point = stage.ask('show', 'vm', '-r', stage.path(repository))
        kinds = [(disk['kind'], disk['reason']) for disk in point['disks']]
        must(all(of == kind for of, _ in kinds), f'the next backup to "{repository}" is not {kind}: {kinds}')
        equal(point['consistency_reached'], 'application')
        self.restore(repository, acks, exact, application=not exact)

    def restore(self, repository, acks, exact, application):
        stage, to = self.stage, self.stage.path('restored')
        shutil.rmtree(to, ignore_errors=True)
        stage.rp('restore', 'vm', '-r', stage.path(repository), '--to', to, '-O', 'raw')
        images = sorted(glob.glob(to + '/*.raw'))
        equal(len(images), len(KINDS))
        guest.judged_good(*images, acks=acks, application=application)
        if exact:
            for image, disk in zip(images, stage.vm('vm')['disks']):
                subprocess.run(['qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'vhdx', image, disk['path']],
                               check=True, timeout=300)
        self.counts['guest_restores'] += 1
        shutil.rmtree(to)

    # ---- a round -----------------------------------------------------------------------------------------------------

    def round(self, victim=None, last=False):
        """last: the VM stays off when its QEMU is killed, and end() judges."""
        chooser = random.Random(f'{self.seed}.{self.rounds}')
        self.rounds += 1
        stage, began = self.stage, time.monotonic()
        victim = victim or chooser.choice(('tool', 'hostd', 'service', 'hostd', 'service', 'qemu'))
        work = chooser.choice(('backup', 'backup', 'backup', 'crash', 'checkpoint', 'merge'))
        before, newest, acks = self.points(), self.newest('often'), stage.acknowledged('vm')
        command = {'backup': ['backup', 'h/vm', '--consistency', 'application'],
                   'crash': ['backup', 'h/vm', '--consistency', 'crash'],
                   'checkpoint': ['checkpoint', 'create', 'h/vm', '--name', 'mine'],
                   'merge': ['checkpoint', 'delete', 'h/vm', 'mine']}[work]
        if work == 'merge' or chooser.random() < 0.1: # a user's checkpoint does not disturb backups
            stage.rp('checkpoint', 'create', 'h/vm', '--name', 'mine' if work == 'merge' else 'other')
            stage.goes_on('vm', PAUSE_LIMIT)
        killer = Killer(stage, self.watch, victim, chooser, work == 'backup', self.lengths[work])
        try:
            killer.begin(command)
            killer.finish()
            status = self.bring_up(killer, chooser)
            told = 'the VM is off'
            if victim != 'qemu':
                told = f'the guest wrote {stage.goes_on("vm", PAUSE_LIMIT):.1f} s after it was all up'
            self.judge_outcome(work, victim, status, before, newest, acks)
            if not last:
                if victim == 'qemu':
                    self.start_again(chooser)
                self.judge_guest()
                self.clean_up()
                self.backup()
                if self.rounds % 3 == 0:
                    self.backup('seldom')
                self.no_leftovers()
        except Exception as error:
            raise Wrong(f'{self.name(work, killer)}: {error!r}\n{guest.text_of(stage.path("said"))[-1500:]}') from error
        self.counts['guest_kills'] += 1
        self.counts['kills_' + victim] += 1
        self.say(f'{self.name(work, killer)}; tool: {status}; {told}; {time.monotonic() - began:.0f} s')

    def name(self, work, killer):
        return f'round {self.rounds} of seed {self.seed}: {work}, {killer.victim} killed {killer.where}'

    def bring_up(self, killer, chooser):
        """What a service manager does, or an administrator. The exit status of the tool."""
        stage = self.stage
        if killer.victim == 'hostd':
            stage.hostd.wait(60)
            if chooser.random() < 0.25: # nobody is there who would start it again
                stage.wait_for_watchdog() # who needs the disks, and keeps hostd out
                os.kill(stage.pid('service'), signal.SIGKILL)
                killer.where += ', and the disk service after it'
                self.counts['kills_service'] += 1
            time.sleep(chooser.random())
            stage.start_hostd()
        status = killer.status()
        if killer.victim == 'qemu':
            wait_for(lambda: stage.state('vm') == 'off', PAUSE_LIMIT, 'a VM that is off when QEMU is killed')
        return status

    def start_again(self, chooser):
        """Perhaps after a backup of disks that nobody writes to: what QEMU got through is exactly what is restored."""
        if chooser.random() < 0.5:
            self.clean_up()
            self.backup(exact=True)
        self.stage.start_vm()

    def clean_up(self):
        """The user's own checkpoints go, also one that its killed tool did not come to name; what a killed job left is for the
        next one."""
        stage = self.stage
        for checkpoint in stage.ask('checkpoint', 'list', 'h/vm'):
            if checkpoint['type'] == 'production':
                stage.rp('checkpoint', 'delete', 'h/vm', checkpoint['id'], good=(0, 1))

    def judge_guest(self):
        self.stage.no_complaints('vm')
        equal(self.stage.state('vm'), 'running')
        must(self.watch.longest <= FREEZE_LIMIT + THAW_GRACE, f'the guest was frozen for {self.watch.longest:.1f} s')

    def judge_outcome(self, work, victim, status, before, newest, acks):
        """What is there of the operation, whatever became of it."""
        stage, after = self.stage, self.points()
        if work not in ('backup', 'crash'):
            equal(after, before)
            there = any(checkpoint['name'] == 'mine' for checkpoint in stage.ask('checkpoint', 'list', 'h/vm'))
            must(status not in (0, 1) or there == (work == 'checkpoint'),
                 f'exit status {status}, and the checkpoint is there: {there}')
            return
        committed = self.newest('often') != newest
        must(committed or status not in (0, 1), f'the backup ended with {status}, and no restore point is there')
        must(committed or before <= after, f'reference points are gone: {before - after}') # else the older one may go
        if committed: # made in the middle of a kill; a VM that is off because its QEMU was killed is not at rest
            reached = stage.ask('show', 'vm')['consistency_reached']
            at_rest = work == 'backup' and victim != 'qemu' and reached == 'application'
            self.restore('often', acks, exact=False, application=at_rest)

    def no_leftovers(self):
        """Files, checkpoints, reference points and processes are those of a VM that nothing happened to."""
        stage = self.stage
        equal(stage.ask('checkpoint', 'list', 'h/vm'), [])
        equal(len(self.points()), 2) # one for each repository
        expected = {disk['path'] for disk in stage.vm('vm')['disks']}
        leaves = lambda: set(glob.glob(stage.folder + '/**/*.vhdx', recursive=True))
        wait_for(lambda: leaves() == expected, 30, f'only the disks {sorted(expected)}: there are {sorted(leaves())}')
        tracking = {file for file in glob.glob(stage.folder + '/**/*.[rm][ct]t', recursive=True)}
        strays = {file for file in tracking if file[:-4] not in expected}
        must(not strays, f'tracking files of no disk: {sorted(strays)}')
        files = [file for _, _, names in os.walk(stage.folder) for file in names]
        new = [file for file in files if file.endswith(('.new', '.tmp', '.part', '.partial'))]
        must(not new, f'temporary files: {new}')
        expected = {stage.pid(victim) for victim in VICTIMS}
        extra = lambda: {pid: words for pid, words in stage.processes().items() if pid not in expected}
        wait_for(lambda: not extra(), 60, f'no process but hostd, disk service and QEMU: {extra()}')

    def end(self):
        """Off, backed up to both repositories: from reference points of just now, and from older ones."""
        stage = self.stage
        if stage.state('vm') != 'off':
            stage.rp('vm', 'shutdown', 'h/vm', '--timeout', '240')
        equal((stage.state('vm'), stage.service(stage.vm_id)), ('off', None))
        self.clean_up()
        for repository in 'seldom', 'often':
            self.backup(repository, exact=True)
            stage.rp('check', '--read-data', '-r', stage.path(repository))
        stage.no_complaints('vm')
        stage.end_hostd()
        equal(stage.hostd.returncode, 0)
        equal(stage.processes(), {})
        self.say(f'{stage.records("vm")} records; frozen for {self.watch.longest:.1f} s at most, {self.watch.count} '
                 f'times; {stage.console("vm").count(guest.READY)} boots')


def soak(life):
    """So many rounds; what is wrong is told, and the folder kept."""
    status = 0
    try:
        guest.boot_files(args.boot)
        life.stage.prepare()
        life.begin()
        for _ in range(args.rounds):
            life.round()
        life.end()
    except Exception as error:
        status = 1
        print(f'{error}' if isinstance(error, Wrong) else traceback.format_exc())
        if args.folder: # as it is, without those who change it
            for pid in life.stage.processes():
                os.kill(pid, signal.SIGKILL)
            subprocess.run(['cp', '-a', '--sparse=always', life.stage.folder, args.folder], timeout=600)
    finally:
        life.stage.close()
    print(json.dumps(dict(life.counts, seed=args.seed, good=not status)))
    return status


def slice_of_rounds(life):
    @behaviour
    def a_guest_runs_and_is_backed_up():
        life.say(f'seed {args.seed}')
        life.begin()

    @behaviour
    def the_tool_is_killed():
        life.round('tool')

    @behaviour
    def refpoint_hostd_is_killed():
        life.round('hostd')

    @behaviour
    def the_disk_service_is_killed():
        life.round('service')

    @behaviour
    def qemu_is_killed_and_what_is_restored_is_what_it_left():
        life.round('qemu', last=True)
        life.end()
    return life.stage.run(life.stage.prepare)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
life = Life(Host(), args.seed)
sys.exit(soak(life) if args.rounds is not None else slice_of_rounds(life))
