"""What the tests of the tool against the lab share: a lab with three machines, the tool with two ways to reach it, and
backups whose every restored byte is judged by lab_guest.py."""

import fcntl, json, os, socket, sqlite3, subprocess, tempfile, time

import lab_guest, tap
from lab import Lab
from tap import equal

OPTIONS = ('--size', '16M', '--written', '256K', '--rate', '0')


class Stage:
    def __init__(self, hostd, tool):
        self.hostd, self.tool = hostd, tool
        self.scratch = tempfile.TemporaryDirectory(prefix='lab-tool-')
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.port = str(listener.getsockname()[1])
        self.environment = dict(os.environ, REFPOINT_HOSTS=self.path('hosts'), REFPOINT_KEYRING=self.path('keyring'),
                                REFPOINT_REPOSITORY=self.path('repository'), LC_ALL='C.UTF-8')
        self.written = {'vm1': 64, 'vm2': 64, 'vm3': 64}
        self.start_lab()
        self.rp('repo', 'init', '--no-encryption') # a password is made slow on purpose, and is not what is tested here
        self.add_hosts()

    def path(self, name):
        return os.path.join(self.scratch.name, name)

    # ---- the tool ----------------------------------------------------------------------------------------------------

    def start(self, *words):
        # with Ctrl-C as in a terminal: whoever runs the tests in the background may ignore it, and we would inherit that
        return subprocess.Popen(['env', '--default-signal=INT', self.tool, *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)

    def finish(self, process, good=(0,)):
        """(stdout, stderr)"""
        try:
            out, complaints = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode in good, f'exit status {process.returncode}: {out}{complaints}'
        return out, complaints

    def rp(self, *words, good=(0,)):
        return self.finish(self.start(*words), good)

    def ask(self, *words):
        return json.loads(self.rp(*words, '--json')[0])

    # ---- the lab -----------------------------------------------------------------------------------------------------

    def start_lab(self):
        self.lab = Lab(self.hostd, self.path('lab'), *OPTIONS, '--https', self.port)

    def add_host(self, name, user='admin', *options, password=None):
        known = {one['user']: one['password'] for one in self.lab.users}
        with open(self.path('password'), 'w', opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write((password or known['LAB\\' + user]) + '\n')
        self.rp('host', 'add', name, self.lab.https, '--user', 'LAB\\' + user, '--password-file', self.path('password'),
                '--ca', self.lab.ca, *options)

    def maps(self, *names):
        return [word for name in names or self.lab.folders
                for word in ('--map', f'{self.lab.folders[name]} = {self.lab.folders[name]}')]

    def add_hosts(self):
        """share reads the host's own files, export lets the host make copies."""
        self.add_host('share', 'admin', *self.maps())
        self.add_host('export', 'admin', '--export-folder', self.lab.folders['export'], *self.maps('export', 'disks'))

    def kill_lab(self):
        self.lab.process.kill()
        self.lab.process.wait(60)
        with open(os.path.join(self.path('lab'), 'lab.lock')) as lock: # what it had started ends a little later
            for _ in range(600):
                try:
                    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.1)
        raise AssertionError('the lab does not end')

    def restart_lab(self):
        """After it was killed."""
        self.start_lab()
        for name in 'share', 'export': # their password is new
            self.rp('host', 'remove', name)
        self.add_hosts()

    def write(self, vm, count=9):
        self.lab.say(f'now: write {count} of {vm}')
        self.written[vm] += count

    def wait_until_hit(self):
        """Until all faults have happened."""
        end = time.monotonic() + 60
        while self.lab.say('now: list faults'):
            assert time.monotonic() < end, 'the fault does not happen'
            time.sleep(0.05)
        time.sleep(0.3)

    def wait_until_idle(self):
        """Until all jobs of the host have ended."""
        def idle():
            with sqlite3.connect(f'file:{self.lab.host}/hostd.db?mode=ro', uri=True, timeout=60) as db:
                return db.execute('SELECT count(*) FROM job WHERE ended = 0').fetchone() == (0,)
        tap.wait_for(idle, 60, 'the end of the jobs')

    # ---- backups -----------------------------------------------------------------------------------------------------

    def reader(self, address):
        """As the host is called, or else by share."""
        return 'export' if address.startswith('export') else 'share'

    def backup(self, address, *options, good=(0,)):
        return self.rp('backup', address, '--reader', self.reader(address), *options, good=good)

    def interrupted_backup(self, address, fault):
        """A backup that has come to where a job hangs."""
        self.write(address.split('/')[1])
        self.lab.say(fault)
        process = self.start('backup', address, '--reader', self.reader(address))
        self.wait_until_hit()
        return process

    def moment(self, vm, *options):
        """That of all disks of the newest point of a VM, which is exactly one."""
        folder = tempfile.mkdtemp(dir=self.scratch.name)
        self.rp(*options, 'restore', vm, '--to', folder, '-O', 'raw')
        moments = set()
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), 'rb') as file:
                moments.add(lab_guest.moment(file.read()))
            os.unlink(os.path.join(folder, name))
        equal(len(moments), 1)
        return moments.pop()

    def left(self, vm):
        """(checkpoints, reference points, files in the export folder)"""
        host = 'local:' + self.lab.host
        return (len(self.ask('checkpoint', 'list', vm, '-H', host)), len(self.ask('refpoint', 'list', vm, '-H', host)),
                sum(len(files) for _, _, files in os.walk(self.lab.folders['export'])))

    def wait_until_left(self, vm, expected):
        """A checkpoint that was given up is merged after its job."""
        end = time.monotonic() + 60
        while self.left(vm) != expected:
            assert time.monotonic() < end, f'{self.left(vm)} are left, not {expected}'
            time.sleep(0.1)

    def good_backup(self, address, *options, good=(0,)):
        """A backup after some writes, which is exact and leaves one reference point."""
        vm = address.split('/')[1]
        self.write(vm)
        out = self.backup(address, *options, good=good)
        equal(self.moment(vm), self.written[vm])
        equal(self.left(vm), (0, 1, 0))
        return out

    def failed_backup(self, address, *lines, why, options=()):
        """A backup that fails for the reason given, with one line, and leaves the host as it was."""
        vm = address.split('/')[1]
        self.write(vm)
        before = self.left(vm)
        for line in lines:
            self.lab.say(line)
        _, complaints = self.backup(address, *options, good=(2,))
        assert why in complaints, complaints
        if any(line.startswith('every') for line in lines):
            self.lab.say('now: forget faults')
        equal(self.lab.say('now: list faults'), [])
        self.wait_until_left(vm, before)

    def run_all(self):
        """All behaviours, and the two that are the last everywhere."""
        @tap.behaviour
        def the_repository_is_sound():
            self.rp('check', '--read-data')

        @tap.behaviour
        def the_lab_ends():
            self.end()

        return tap.run_all()

    def end(self):
        equal(self.lab.end(), (0, True))
