"""What tests with guests under libvirt share: an embedded libvirt in a folder of its own, the tool, refpoint-hostd, and
guests that are taken in. Whatever still runs of it when the test ends, however that ends, is killed, and the folder is
removed.

One process at a time has the embedded driver: the tool (local), virsh, or refpoint-hostd, which is asked by rp."""

import json, os, shutil, signal, socket, subprocess, sys, tempfile, time

import domain, guest
from tap import run_all, skip_all, wait_for

DEADLINE = 300


class Stage:
    def __init__(self, name, boot, build, configuration=''):
        """boot: a folder for boot files; build: ours. configuration: more lines of refpoint-hostd's."""
        self.name, self.boot, self.build, self.hostd = name, boot, build, None
        self.folder = tempfile.mkdtemp(prefix=name + '-', dir=os.environ.get('TMPDIR', '/tmp'))
        self.reaper = subprocess.Popen([sys.executable, __file__, self.folder], stdin=subprocess.PIPE,
                                       start_new_session=True)
        self.uri = domain.embedded_libvirt(self.path('libvirt'))
        self.environment = dict(
            os.environ, LC_ALL='C.UTF-8', REFPOINT_PLUGIN=f'{build}/src/diskservice/nbdkit-refpoint-plugin.so',
            REFPOINT_LIBVIRT=f'{build}/src/libvirt/refpoint-libvirt.so',
            REFPOINT_THAW=f'{build}/src/host/refpoint-thaw', REFPOINT_HOSTS=self.path('hosts'),
            REFPOINT_KEYRING=self.path('keyring'), XDG_CACHE_HOME=self.path('cache'),
            REFPOINT_REPOSITORY=self.path('repository'), REFPOINT_PASSWORD_FILE=self.path('passphrase'))
        self.shells = {}
        self.write('four words nobody guesses\n', 'passphrase')
        self.write(f'directory = {self.path("host")}\nname = hv1\nlisten = unix:{self.path("hostd.sock")}\n'
                   f'folder = {self.folder}\nhypervisor = {self.uri}\nhypervisor-network = user\n'
                   'hypervisor-accelerator = tcg\n' + configuration, 'hostd.conf')

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, text, *names):
        with open(self.path(*names), 'w') as file:
            file.write(text)

    # ---- programs ----------------------------------------------------------------------------------------------------

    def start(self, *words, log=None):
        """The tool, which goes on by itself; its output goes to the file `log`."""
        with open(self.path(log or 'tool.log'), 'wb') as file:
            return subprocess.Popen([f'{self.build}/src/cli/refpoint', *words], stdin=subprocess.DEVNULL,
                                    stdout=file, stderr=file, env=self.environment)

    def rp(self, *words, good=(0,), seconds=DEADLINE):
        """The tool, to its end: stdout and stderr of what is returned are text."""
        done = subprocess.run([f'{self.build}/src/cli/refpoint', *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
                              timeout=seconds)
        assert done.returncode in good, f'{words}: exit status {done.returncode}: {done.stdout}{done.stderr}'
        return done

    def local(self, *words, **how):
        """The tool with the host's folder, without refpoint-hostd."""
        return self.rp('-H', 'local:' + self.path('host'), *words, **how)

    def ask(self, *words, **how):
        return json.loads(self.rp(*words, '--json', **how).stdout)

    def virsh(self, *words):
        # libvirt's own log, which the embedded driver writes to stderr, is not the answer
        done = subprocess.run(['virsh', '-q', '-c', self.uri, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 0, f'virsh {words}: {done.stderr}'
        return done.stdout

    def start_hostd(self):
        """Its name as a host is h."""
        with open(self.path('hostd.log'), 'ab') as log:
            self.hostd = subprocess.Popen(
                [f'{self.build}/src/hostd/refpoint-hostd', '-c', self.path('hostd.conf'), '-v'], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers():
            assert self.hostd.poll() is None, self.hostd_log()[-2000:]
            with socket.socket(socket.AF_UNIX) as s:
                return s.connect_ex(self.path('hostd.sock')) == 0
        wait_for(answers, 120, 'refpoint-hostd')
        if not os.path.exists(self.path('hosts')):
            self.rp('host', 'add', 'h', 'unix:' + self.path('hostd.sock'), '--auth', 'peer', '--map',
                    f'{self.folder} = {self.folder}')

    def end_hostd(self, how=signal.SIGTERM):
        self.hostd.send_signal(how)
        self.hostd.wait(120)

    def hostd_log(self):
        return guest.text_of(self.path('hostd.log'))

    def processes(self, *words):
        """{process: its command line} of what still runs of ours, which has the folder in it, and the words."""
        found = {}
        for pid, line in processes(self.folder).items():
            if all(word in line for word in words):
                found[pid] = line
        return found

    # ---- guests ------------------------------------------------------------------------------------------------------

    def define(self, name, images, boot=True, change=lambda xml: xml, **switches):
        """A domain of the test guest, which has its console and its acknowledgements in a folder of its name."""
        xml = domain.domain_xml(name, self.path(name), self.boot if boot else None, images, **switches)
        self.write(change(xml), name + '.xml')
        self.virsh('define', self.path(name + '.xml'))

    def take_in(self, name, images, *options, **switches):
        """Defines it and adopts it. No refpoint-hostd may run."""
        self.define(name, images, **switches)
        self.local('vm', 'adopt', name, '--connect', self.uri, *options)

    def disks(self, name, *kinds):
        """Raw disks with file systems, numbered from 1."""
        return [guest.make_disk(self.path(f'{name}{number}.raw'), number, kind) for number, kind in enumerate(kinds, 1)]

    def vm(self, name):
        return self.ask('vm', 'show', 'h/' + name)

    def local_vm(self, name):
        """Without refpoint-hostd."""
        return json.loads(self.local('vm', 'show', name, '--json').stdout)

    def state(self, name):
        return self.vm(name)['state']

    def console(self, name):
        return guest.text_of(self.path(name, 'console'))

    def acknowledged(self, name):
        return guest.acknowledged(self.path(name, 'acks'))

    def records(self, name):
        return sum(self.acknowledged(name).values())

    def boots(self, name, begin):
        """Until the guest is up and its writers write; begin() starts it."""
        ready = self.console(name).count(guest.READY)
        begin()
        wait_for(lambda: self.console(name).count(guest.READY) > ready, DEADLINE, f'the guest of {name}')
        self.goes_on(name)

    def goes_on(self, name, seconds=120):
        """Seconds until every writer of the guest has written again."""
        begin, before = time.monotonic(), self.acknowledged(name)

        def wrote():
            now = self.acknowledged(name)
            return now and all(now[disk] >= before.get(disk, 0) + 3 for disk in now)
        wait_for(wrote, seconds, f'records of {name}: it stands still')
        return time.monotonic() - begin

    def inside(self, name, script, seconds=120):
        """What a script says that the guest's shell runs, whoever has the agent."""
        if name not in self.shells:
            self.shells[name] = guest.Shell(self.path(name, 'shell'))
        return self.shells[name].run(script, seconds)

    def no_complaints(self, name):
        found = guest.complaints(self.path(name, 'console'), self.path(name, 'acks'))
        assert not found, found

    def service(self, vm_id):
        """The process of a VM's disk service; None: there is none."""
        with socket.socket(socket.AF_UNIX) as s:
            if s.connect_ex(self.path('host', 'vms', vm_id, 'control.sock')):
                return None
            return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def run(self, prepare=lambda: None):
        """All behaviours; the exit status. prepare() is called when they can be run."""
        try:
            if os.geteuid() != 0:
                return skip_all(self.name, 'only root may mount the disks of guests')
            guest.boot_files(self.boot)
            prepare()
            return run_all()
        finally:
            if os.environ.get('RP_TEST_KEEP'):
                print(self.hostd_log(), file=sys.stderr)
            self.reaper.stdin.close()
            self.reaper.wait(60)


def processes(folder):
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = guest.text_of(f'/proc/{pid}/cmdline').replace('\0', ' ')
        except ProcessLookupError: # it has ended meanwhile
            continue
        if int(pid) != os.getpid() and folder + '/' in words:
            found[int(pid)] = words
    return found


def reap(folder):
    """Ends all that a stage has started, also what was started by what is being ended."""
    for _ in range(5):
        for pid in processes(folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.2)
    mounts = [line.split()[1] for line in guest.text_of('/proc/self/mounts').splitlines()]
    for place in sorted((place for place in mounts if place.startswith(folder + '/')), reverse=True):
        subprocess.run(['umount', '-l', place])
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    sys.stdin.read() # until the test has ended
    reap(sys.argv[1])
