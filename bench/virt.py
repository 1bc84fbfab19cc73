"""A libvirtd of the benchmark's own, as an administrator runs it (root, qemu:///system) and beside the machine's, if
there is one: it has a mount namespace in which libvirt's folders are ours. And guests under it, with what they cost."""

import contextlib, os, shutil, signal, subprocess, sys, time

from measure import TICKS, Failure, cpu_of, run

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../tests/guest'))
import domain, guest

# its folders of libvirt's, by our names for them
FOLDERS = {'etc': '/etc/libvirt', 'lib': '/var/lib/libvirt', 'log': '/var/log/libvirt', 'cache': '/var/cache/libvirt',
           'run': '/run/libvirt'}
PROGRAMS = {'qemu-system-x86_64': 'qemu-system-x86', '/usr/sbin/libvirtd': 'libvirt-daemon', 'virsh': 'libvirt-clients',
            'virtnbdbackup': 'virtnbdbackup'}


def missing(*programs):
    """What a guest needs and is not here; empty: nothing."""
    return next((f'{program} is missing (package {PROGRAMS[program]})' for program in programs
                 if not shutil.which(program)), '')


def processor_left_out(pid):
    """CPU seconds of QEMU without its emulated processors, whose threads are named so (debug-threads=on). Of a thread that
    has ended, as those for I/O do, the process keeps what it used."""
    emulated = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        try:
            with open(f'/proc/{pid}/task/{task}/stat') as file:
                name, _, rest = file.read().rpartition(') ')
        except OSError: # it has ended
            continue
        if '(CPU ' in name:
            emulated += sum(map(int, rest.split()[11:13]))
    return cpu_of(pid) - emulated / TICKS


def boot_files(folder, *added):
    with failures(''):
        guest.boot_files(folder, *added)


class Libvirt:
    """In `folder`, whose part `run` is memory: lost with the power."""

    def __init__(self, folder, memory):
        self.folders = {name: os.path.join(memory if name == 'run' else folder, name) for name in FOLDERS}
        self.uri = f'qemu+unix:///system?socket={self.folders["run"]}/libvirt-sock'
        self.process, self.log = None, os.path.join(folder, 'libvirtd.log')

    def start(self):
        for path in self.folders.values():
            os.makedirs(path, exist_ok=True)
        with open(os.path.join(self.folders['etc'], 'qemu.conf'), 'w') as file:
            file.write(domain.QEMU_CONF)
        script = ['set -e']
        for name, place in FOLDERS.items():
            os.makedirs(place, exist_ok=True) # an empty folder does no harm where libvirt has never run
            script.append(f'mount --bind "{self.folders[name]}" {place}')
        script.append(f'exec /usr/sbin/libvirtd --pid-file "{self.folders["run"]}/libvirtd.pid"')
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(['unshare', '--mount', '--propagation', 'slave', 'sh', '-c',
                                             '\n'.join(script)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 120 # the first time it asks QEMU what that can do
        while subprocess.run(self.virsh('list'), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log) as file:
                    raise Failure('libvirtd does not start: ' + file.read()[-500:])
            time.sleep(0.1)

    def virsh(self, *words):
        return ['timeout', '-k', '5', '60', 'virsh', '-q', '-c', self.uri, *words]

    def __call__(self, *words):
        return run(self.virsh(*words))[1]

    def machines(self):
        """The QEMUs that run under it: {domain: pid}."""
        folder, found = os.path.join(self.folders['run'], 'qemu'), {}
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.endswith('.pid'):
                with open(os.path.join(folder, name)) as file:
                    pid = int(file.read())
                if f'guest={name[:-4]},'.encode() in command_of(pid):
                    found[name[:-4]] = pid
        return found

    def die(self):
        """SIGKILL for the daemon and its guests, and what they held in memory."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.machines().values():
            kill(pid)
        self.process = None
        shutil.rmtree(self.folders['run'], ignore_errors=True)


def command_of(pid):
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as file:
            return file.read()
    except OSError:
        return b''


def kill(pid):
    """With SIGKILL; returns when it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while command_of(pid): # nothing is left of it but its number
        if time.monotonic() > deadline:
            raise Failure(f'process {pid} does not end')
        time.sleep(0.01)
    os.close(handle)


class Machine:
    """The test guest as a domain with one disk. Its console, and the socket of its shell, are in `folder`."""

    def __init__(self, libvirt, name, folder, boot, disk):
        self.libvirt, self.name, self.folder, self.starts = libvirt, name, folder, 0
        text, xml = domain.domain_xml(name, folder, boot, [disk], memory=768), os.path.join(folder, 'domain.xml')
        with open(xml, 'w') as file:
            file.write(text)
        libvirt('define', xml)
        self.shell = guest.Shell(os.path.join(folder, 'shell'))

    def wait_ready(self):
        """Until it has booted once more than before, and its agent answers."""
        self.starts += 1
        console = os.path.join(self.folder, 'console')
        with failures(console):
            guest.wait_for(lambda: guest.text_of(console).count(guest.READY) >= self.starts, 180,
                           f'the guest {self.name}')
            guest.wait_for(self.answers, 60, f'the agent of {self.name}')
        # Where nobody is connected to its shell, the guest opens that port again and again. libvirt 9.0 waits with the
        # event of that until a backup is over, and with that of the backup's end behind it.
        self.inside('true')

    def answers(self):
        ping = self.libvirt.virsh('qemu-agent-command', self.name, '{"execute": "guest-ping"}')
        return not subprocess.run(ping, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL).returncode

    def inside(self, script):
        with failures(os.path.join(self.folder, 'console')):
            return self.shell.run(script, 300)

    def cpu(self):
        """CPU seconds of its QEMU, the emulated processor left out."""
        return processor_left_out(self.libvirt.machines()[self.name])


@contextlib.contextmanager
def failures(console):
    """What goes wrong with a guest is a Failure of the part, with what the guest said last."""
    try:
        yield
    except (guest.GuestError, AssertionError, OSError, subprocess.SubprocessError) as error:
        raise Failure(f'{guest.text_of(console)[-500:]}\n{error}') from None
