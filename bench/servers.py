"""NBD servers that are compared, and the load that they get."""

import atexit, json, os, signal, subprocess, time

from measure import Failure, cpu_of, run

servers = set()


class Server:
    """A server with one disk on a unix socket."""

    def __init__(self, name, uri, pid, process=None):
        self.name, self.uri, self.pid, self.process = name, uri, pid, process
        if process:
            servers.add(self)

    def end(self, hard=False):
        if self.process:
            self.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
            self.process.wait()
            servers.discard(self)


def end_all():
    for server in list(servers):
        server.end(hard=True)


atexit.register(end_all)


def spawn(name, socket, command):
    if os.path.lexists(socket):
        os.unlink(socket)
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    server = Server(name, f'nbd+unix:///?socket={socket}', process.pid, process)
    deadline = time.monotonic() + 20
    while not os.path.exists(socket):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failure(f'{command[0]} did not start: {process.stderr.read().decode()}')
        time.sleep(0.01)
    return server


def nbdkit_file(place, image):
    return spawn('nbdkit file', place.path('file.sock'), ['nbdkit', '-f', '--exit-with-parent', '-U',
                                                          place.path('file.sock'), 'file', image])


def qemu_nbd(place, image, kind, aio='threads', name=None):
    """As people run it: the page cache in between (cache=writeback, its default), trims passed on."""
    socket = place.path((name or kind).replace(',', '').replace(' ', '-') + '.sock')
    return spawn(name or f'qemu-nbd {kind}', socket, ['qemu-nbd', '--persistent', '--shared=4', '--socket', socket,
                                                      '--format', kind,
                                                     '--cache=writeback', f'--aio={aio}', '--discard=unmap', image])


def of_vm(place, vm):
    uri, pid = place.start(vm)
    return Server('refpoint', uri, pid)


class Load:
    """What fio saw: requests per second, MiB per second, and the CPU microseconds of server and client per request."""

    def __init__(self, iops, mib, cpu):
        self.iops, self.mib, self.cpu = iops, mib, cpu


def fio(server, kind, block, depth, seconds=1.0, requests=None):
    """kind: fio's randread, randwrite, read or write. Ends after so many seconds, or after so many requests."""
    limit = [f'--number_ios={requests}'] if requests else ['--time_based', f'--runtime={int(seconds * 1000)}ms',
                                                           '--norandommap']
    before = cpu_of(server.pid)
    cost, text = run(['fio', '--name=load', '--ioengine=nbd', f'--uri={server.uri}', f'--rw={kind}', f'--bs={block}',
                      f'--iodepth={depth}', '--randrepeat=0', '--output-format=json', *limit])
    cpu = cost.cpu + cpu_of(server.pid) - before
    job = json.loads(text[text.index('{\n'):])['jobs'][0]
    half = job['read' if 'read' in kind else 'write']
    if job['error'] or not half['total_ios']:
        raise Failure(f'fio failed on {server.name}:\n{text}')
    return Load(half['iops'], half['bw_bytes'] / (1 << 20), cpu / half['total_ios'] * 1e6)
