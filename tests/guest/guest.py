"""The test guest: its boot files, its disks, what it says and is told, and a runner that needs nothing but QEMU.
Everything that waits has a deadline. The guest's own switches (rp.writer= and so on) are told in init.

    boot = guest.boot_files('/tmp/boot')                  # built once, then found
    disks = [guest.make_disk('/tmp/1.raw', 1, 'ext4'), guest.make_disk('/tmp/2.raw', 2, 'xfs')]
    with guest.Guest('/tmp/run', boot, disks, writer='each') as vm:
        vm.wait_ready()
        vm.agent('guest-fsfreeze-freeze')
        vm.inside('cat /proc/uptime')"""

import json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, '..')) # whoever imports this module finds tap as well
from tap import wait_for

AGENT_PORT = 'org.qemu.guest_agent.0'
ACKS_PORT, SHELL_PORT = 'org.refpoint.test.0', 'org.refpoint.test.shell'
FIRMWARE, FIRMWARE_VARIABLES = '/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/OVMF/OVMF_VARS_4M.fd'
READY = 'refpoint guest ready'
KERNEL_COMPLAINTS = re.compile(r'I/O error|EXT4-fs (error|warning)|Remounting filesystem'
                               r'|XFS.*(orruption|[Ee]rror|shut ?down)|Kernel panic|Oops|BUG:|blocked for more than'
                               r'|refpoint guest (error|cannot)')

# What a disk is made of: a path, or a URI of NBD (nbd+unix:///disk0?socket=PATH); its format;
# its serial number; virtio, scsi (virtio's) or ide (machine pc).
Disk = namedtuple('Disk', 'source format serial bus', defaults=('raw', None, 'virtio'))


class GuestError(Exception):
    pass


def boot_files(folder, *added):
    """The folder, with vmlinuz and initramfs in it; added: FILE[:PATH] that the guest needs besides."""
    options = [word for file in added for word in ('--add', file)]
    subprocess.run([os.path.join(HERE, 'build'), folder, *options], check=True, timeout=300)
    return folder


def make_disk(path, number, kind='ext4', size='128M'):
    """A raw disk with the file system of data disk `number`. XFS is not made smaller than 320 MiB."""
    if kind == 'xfs' and size == '128M':
        size = '320M'
    open(path, 'wb').close() # nothing of an earlier one
    subprocess.run(['truncate', '--size=' + size, path], check=True)
    options = {'ext4': ['-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0'], 'xfs': ['-q']}[kind]
    subprocess.run(['mkfs.' + kind, *options, '-L', f'data{number}', path], stdin=subprocess.DEVNULL, check=True,
                   timeout=60)
    return Disk(path, 'raw', f'data{number}')


def make_boot_disk(path, boot, **switches):
    """A raw disk from which UEFI starts the guest by itself, as one program of kernel, initramfs and command line."""
    with tempfile.TemporaryDirectory(prefix='guest-boot-disk-') as scratch:
        program, words = os.path.join(scratch, 'guest.efi'), os.path.join(scratch, 'words')
        with open(words, 'w') as file:
            file.write(command_line(**switches))
        sections = []
        for name, source, address in (('.cmdline', words, 0x30000), ('.linux', f'{boot}/vmlinuz', 0x2000000),
                                      ('.initrd', f'{boot}/initramfs', 0x4000000)):
            sections += ['--add-section', f'{name}={source}', '--change-section-vma', f'{name}={address:#x}']
        open(path, 'wb').close()
        os.truncate(path, 64 << 20)
        for command in (['objcopy', *sections, '/usr/lib/systemd/boot/efi/linuxx64.efi.stub', program],
                        ['mformat', '-i', path, '-F', '-v', 'BOOT', '::'], ['mmd', '-i', path, '::/EFI', '::/EFI/BOOT'],
                        ['mcopy', '-i', path, program, '::/EFI/BOOT/BOOTX64.EFI']):
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)
    return Disk(path, 'raw', 'boot')


def command_line(writer='off', pause=20, disks=0, agent='run', hook='none', extra=''):
    """The kernel's. `quiet`: each line on the serial port costs an emulated machine time, and so does what keeps other
    processors' secrets."""
    words = ['console=ttyS0', 'quiet', 'loglevel=4', 'nokaslr', 'mitigations=off', 'panic=1']
    words += [f'rp.disks={disks}'] * bool(disks)
    words += [f'rp.writer={writer}', f'rp.pause={pause}', f'rp.agent={agent}', f'rp.hook={hook}', extra]
    return ' '.join(words).strip()


# ---- what a guest has said, wherever it runs -------------------------------------------------------------------------


def text_of(path):
    try:
        with open(path, errors='replace') as file:
            return file.read()
    except FileNotFoundError:
        return ''


def acknowledged(path):
    """{disk: the highest sequence number that must be found on it}, of a file of acknowledgements. A writer that began
    again says from where."""
    highest = {}
    for line in text_of(path).splitlines(keepends=True):
        words = line.split()
        if line.endswith('\n') and len(words) >= 3 and words[0] in ('begin', 'ack', 'end'):
            highest[int(words[1])] = int(words[2])
    return highest


def longest_step(path):
    """Milliseconds that the slowest step of a writer took, by the guest's clock."""
    return max(map(int, re.findall(r'^ack \d+ \d+ (\d+)$', text_of(path), re.M)), default=0)


def complaints(console, acks=None):
    """What the guest's kernel and writers did not like: lines about failed I/O, broken file systems, hung tasks."""
    found = [line.strip() for line in text_of(console).splitlines() if KERNEL_COMPLAINTS.search(line)]
    return found + [line for line in text_of(acks).splitlines() if line.startswith('error ')] if acks else found


def judge(*disks, application=False, acks=None):
    """What tests/guest/check finds: good, problems, disks. acks: a file of acknowledgements, or {disk: number}."""
    options = ['--application'] * application
    if acks is not None:
        options += ['--acks', acks if isinstance(acks, str) else json.dumps(acks)]
    done = subprocess.run([os.path.join(HERE, 'check'), *options, *disks], stdout=subprocess.PIPE, timeout=300)
    verdict = json.loads(done.stdout)
    assert done.returncode == (0 if verdict['good'] else 1), done
    return verdict


def judged_good(*disks, **how):
    """What was found of each disk, when nothing is wrong."""
    verdict = judge(*disks, **how)
    assert verdict['good'], '\n'.join(verdict['problems'])
    return verdict['disks']


# ---- what a guest is told, wherever it runs --------------------------------------------------------------------------


class Shell:
    """A shell inside, at the other end of a unix socket; it needs no agent, and nothing of the data disks."""

    def __init__(self, path):
        self.path, self.socket, self.count = path, None, 0

    def receive(self, pattern, seconds):
        """What was said up to a pattern, and its match; None when it does not come in time."""
        end, said = time.monotonic() + seconds, b''
        while not (found := re.search(pattern, said)):
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                return None
            if not piece:
                raise ConnectionError('the guest has ended')
            said += piece
        return said[:found.start()].decode(errors='replace'), found

    def answers(self):
        """Whether a shell is there. Asked again and again: what is sent while the guest opens its port is lost."""
        try:
            if self.socket is None:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(self.path)
            self.count += 1
            self.socket.sendall(b'echo here $((%d * 2))\n' % self.count)
            return self.receive(b'here %d\n' % (self.count * 2), 0.5)
        except OSError:
            self.close() # its QEMU has ended, or is not there yet
            return False

    def run(self, script, seconds=120):
        """What the script says. GuestError when it fails."""
        wait_for(self.answers, seconds, f'{self.path}: the shell of a guest')
        self.socket.sendall(f"( {script}\n) </dev/null 2>&1; echo \"end of {self.count}: $?\"\n".encode())
        answer = self.receive(rb'end of %d: (\d+)\n' % self.count, seconds)
        if not answer:
            self.close()
            raise GuestError(f'{script}: no end within {seconds:g} s')
        said, found = answer
        if found[1] != b'0':
            raise GuestError(f'{script}: exit status {found[1].decode()}: {said}')
        return said

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None


# ---- QEMU by itself --------------------------------------------------------------------------------------------------


class Lines:
    """JSON objects, one per line, over a unix socket: QMP and the agent speak so."""

    def __init__(self, path, seconds):
        self.socket, self.rest = socket.socket(socket.AF_UNIX), b''
        self.socket.settimeout(seconds)
        self.socket.connect(path)

    def send(self, message, before=b''):
        self.socket.sendall(before + json.dumps(message).encode() + b'\n')

    def receive(self, seconds):
        end = time.monotonic() + seconds
        while b'\n' not in self.rest:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                raise GuestError(f'no answer within {seconds:g} s') from None
            if not piece:
                raise GuestError('the other end is gone')
            self.rest += piece
        line, _, self.rest = self.rest.partition(b'\n')
        return json.loads(line.lstrip(b'\xff'))

    def close(self):
        self.socket.close()


class Guest:
    """A guest in a QEMU of its own. In `folder` are its console (console), acknowledgements (acks) and what QEMU said
    (qemu.log), which go on where an earlier guest in the same folder ended."""

    def __init__(self, folder, boot, disks, memory=256, machine='pc', arguments=(), **switches):
        """boot: the folder of its boot files, or None: UEFI starts the disk of make_boot_disk(), which has its own
        switches, on machine q35 with 512 MiB or more. switches: those of command_line(). arguments: more of QEMU's."""
        self.folder, self.disks, self.process, self.control, self.channel = folder, list(disks), None, None, None
        os.makedirs(folder, exist_ok=True)
        # sockets have short names only
        self.sockets = tempfile.TemporaryDirectory(prefix='rp-guest-')
        self.shell = Shell(self.sockets.name + '/shell')
        path = self.path
        self.arguments = [
            'qemu-system-x86_64', '-machine', machine, '-accel', 'tcg', '-cpu', 'max', '-m', str(memory), '-nodefaults',
            '-display', 'none', '-no-reboot',
            '-chardev', f'file,id=console,path={path("console")},append=on', '-serial', 'chardev:console',
            '-device', 'virtio-serial-pci', '-chardev', f'file,id=acks,path={path("acks")},append=on',
            '-device', f'virtserialport,chardev=acks,name={ACKS_PORT}',
            '-chardev', f'socket,id=shell,path={self.sockets.name}/shell,server=on,wait=off',
            '-device', f'virtserialport,chardev=shell,name={SHELL_PORT}',
            '-chardev', f'socket,id=agent,path={self.sockets.name}/agent,server=on,wait=off',
            '-device', f'virtserialport,chardev=agent,name={AGENT_PORT}',
            '-qmp', f'unix:{self.sockets.name}/qmp,server=on,wait=off']
        if boot:
            self.arguments += ['-kernel', os.path.join(boot, 'vmlinuz'), '-initrd', os.path.join(boot, 'initramfs'),
                               '-append', command_line(**switches)]
        else:
            if not os.path.exists(path('nvram')):
                shutil.copyfile(FIRMWARE_VARIABLES, path('nvram'))
            self.arguments += ['-drive', f'if=pflash,format=raw,readonly=on,file={FIRMWARE}',
                               '-drive', f'if=pflash,format=raw,file={path("nvram")}']
        if any(disk.bus == 'scsi' for disk in self.disks):
            self.arguments += ['-device', 'virtio-scsi-pci']
        for number, disk in enumerate(self.disks):
            device = {'virtio': 'virtio-blk-pci', 'scsi': 'scsi-hd', 'ide': 'ide-hd'}[disk.bus]
            serial = f',serial={disk.serial}' if disk.serial else ''
            source = disk.source.replace(',', ',,')
            self.arguments += ['-device', f'{device},id=vd{number},drive=disk{number}{serial}', '-drive',
                               f'file={source},format={disk.format},if=none,id=disk{number},cache=none,discard=unmap']
        self.arguments += arguments

    def path(self, name):
        return os.path.join(self.folder, name)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        self.sockets.cleanup()

    def start(self):
        self.began = {name: len(text_of(self.path(name))) for name in ('console', 'acks')}
        with open(self.path('qemu.log'), 'ab') as log:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def console(self):
        """Since the last start."""
        return text_of(self.path('console'))[self.began['console']:]

    def wait_console(self, text, seconds=60):
        def seen():
            if not self.running() and text not in self.console():
                raise GuestError(f'QEMU ended with {self.process.returncode} before "{text}": '
                                 + text_of(self.path('qemu.log'))[-500:])
            return text in self.console()
        return wait_for(seen, seconds, f'"{text}" on the console')

    def wait_ready(self, seconds=180):
        self.wait_console(READY, seconds)

    def acknowledged(self):
        return acknowledged(self.path('acks'))

    def wait_acknowledged(self, more, seconds=120):
        """Until `more` steps beyond now are acknowledged on every disk that has a writer; they, as acknowledged()."""
        before = self.acknowledged()

        def grown():
            now = self.acknowledged()
            return now if now and all(now[disk] >= before.get(disk, 0) + more for disk in now) else None
        return wait_for(grown, seconds, f'{more} more steps of the writers')

    def complaints(self):
        return complaints(self.path('console'), self.path('acks'))

    def qmp(self, command, seconds=30, **arguments):
        """What the command returns. Events are not kept."""
        if self.control is None:
            self.control = wait_for(self.connect_control, seconds, 'QMP')
            self.control.receive(seconds)
            self.qmp('qmp_capabilities', seconds)
        self.control.send({'execute': command, 'arguments': arguments})
        while True:
            answer = self.control.receive(seconds)
            if 'return' in answer:
                return answer['return']
            if 'error' in answer:
                raise GuestError(f'{command}: {answer["error"]["desc"]}')

    def connect_control(self):
        try:
            return Lines(self.sockets.name + '/qmp', 5)
        except OSError:
            return None

    def agent(self, command, seconds=30, **arguments):
        """What the agent returns; GuestError for its errors and when it does not answer in time. The connection is made
        anew each time, because what an earlier request left behind must not be taken for an answer."""
        try:
            with_agent = Lines(self.sockets.name + '/agent', seconds)
        except OSError as error:
            raise GuestError(f'{command}: no connection: {error}') from None
        try:
            number = time.monotonic_ns() % (1 << 31)
            with_agent.send({'execute': 'guest-sync-delimited', 'arguments': {'id': number}}, before=b'\xff')
            end = time.monotonic() + seconds
            while True:
                try:
                    if with_agent.receive(end - time.monotonic()).get('return') == number:
                        break
                except ValueError:
                    pass # the tail of an earlier answer
            with_agent.send({'execute': command, 'arguments': arguments})
            answer = with_agent.receive(end - time.monotonic())
        except GuestError as error:
            raise GuestError(f'{command}: {error}') from None
        finally:
            with_agent.close()
        if 'error' in answer:
            raise GuestError(f'{command}: {answer["error"]["desc"]}')
        return answer['return']

    def inside(self, script, seconds=120):
        """What a script says that the guest's shell runs, whoever has the agent."""
        return self.shell.run(script, seconds)

    def power_button(self):
        self.qmp('system_powerdown')

    def wait_end(self, seconds=60):
        """Until QEMU has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GuestError(f'QEMU did not end within {seconds:g} s') from None

    def kill(self):
        """SIGKILL: what the guest has not flushed is lost."""
        self.shell.close()
        if self.control:
            self.control.close()
            self.control = None
        if self.running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
