"""Where the benchmarks work: a folder per file system, each with a host of its own."""

import json, os, shutil, subprocess, sys, tempfile

from measure import run
import syscalls


class Place:
    """A folder on one file system. `name` is that file system: tmpfs, ext4, xfs."""

    def __init__(self, refpoint, name, folder):
        self.refpoint, self.name, self.folder, self.running = refpoint, name, folder, {}
        self.environment = dict(os.environ, REFPOINT_HOST='local:' + self.path('host'), LC_ALL='C.UTF-8',
                                XDG_CACHE_HOME=self.path('cache'))

    def path(self, name):
        return os.path.join(self.folder, name)

    def remove(self, *names):
        for name in names:
            path = self.path(name)
            shutil.rmtree(path) if os.path.isdir(path) else os.path.lexists(path) and os.unlink(path)

    def free(self):
        return shutil.disk_usage(self.folder).free

    def rp(self, *arguments, **options):
        return run([self.refpoint, *arguments], env=self.environment, **options)

    def json(self, *arguments):
        return json.loads(self.rp(*arguments, '--json')[1])

    def settle(self):
        """What others wrote before is on the disk: it does not slow down what comes next."""
        run(['sync', '-f', self.folder])

    def create(self, vm, image):
        return self.rp('vm', 'create', vm, '--disk', image)[0]

    def start(self, vm):
        """Starts a VM; returns the URI of its first disk and the pid of its disk service."""
        self.rp('vm', 'start', vm)
        uri = self.uris(vm)[0]
        self.running[vm] = syscalls.server_of(uri)
        return uri, self.running[vm]

    def uris(self, vm):
        return [disk['nbd_uri'] for disk in self.json('vm', 'show', vm)['disks']]

    def disk(self, vm):
        """The file that the VM's first disk writes to now."""
        return self.json('vm', 'show', vm)['disks'][0]['path']

    def stop(self, vm):
        self.running.pop(vm, None)
        self.rp('vm', 'stop', vm)

    def delete(self, vm):
        if vm in self.running:
            self.stop(vm)
        self.rp('vm', 'delete', vm, '--delete-disks', '--yes')

    def end(self):
        for vm in list(self.running):
            subprocess.run([self.refpoint, 'vm', 'stop', vm], stdin=subprocess.DEVNULL, env=self.environment)
        self.running.clear()


class LoopPlace(Place):
    """A file system of its own kind in a file of another. Needs root. Its backing file is what a power cut leaves."""

    def __init__(self, refpoint, kind, name, size, backing):
        self.image, folder = os.path.join(backing, name + '.img'), os.path.join(backing, name)
        with open(self.image, 'wb') as file:
            file.truncate(size)
        make = {'xfs': ['mkfs.xfs', '-q', '-m', 'reflink=1'], 'ext4': ['mke2fs', '-q', '-F', '-t', 'ext4']}[kind]
        run(make + [self.image])
        os.makedirs(folder)
        self.mounted = False
        super().__init__(refpoint, kind, folder)
        self.mount(self.image)

    def mount(self, image):
        run(['mount', '-o', 'loop', image, self.folder])
        self.mounted = True

    def unmount(self):
        run(['umount', self.folder])
        self.mounted = False

    def end(self):
        super().end()
        if self.mounted and subprocess.run(['umount', self.folder]).returncode:
            sys.stderr.write(f'bench: {self.folder} is still mounted\n')
        self.mounted = False


def can_loop(kind):
    """Why a loop mount is not possible here; empty: it is."""
    if os.geteuid():
        return 'needs root, for a loop device'
    if not os.path.exists('/dev/loop-control'):
        return 'no loop devices here'
    maker = {'xfs': 'mkfs.xfs', 'ext4': 'mke2fs'}[kind]
    return '' if shutil.which(maker) else f'{maker} is missing (make deps)'


def kind_of(folder):
    """The file system that a folder is on."""
    kind = run(['stat', '-f', '-c', '%T', folder])[1].strip()
    return {'ext2/ext3': 'ext4'}.get(kind, kind)


def make_folder(parent):
    os.makedirs(parent, exist_ok=True)
    return tempfile.mkdtemp(prefix='refpoint-bench.', dir=parent)
