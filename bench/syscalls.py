"""Counts the system calls that a disk service makes for one write, with strace."""

import collections, os, re, shutil, signal, socket, struct, subprocess, time, urllib.parse

import nbd

from measure import Failure

SYNCS = {'fsync', 'fdatasync', 'sync', 'syncfs', 'sync_file_range', 'msync'}
# waiting for the next request and handing it to a thread: depends on the moment, not on the work
WAITING = {'futex', 'poll', 'ppoll', 'epoll_wait', 'select', 'pselect6', 'restart_syscall', 'sched_yield'}


def socket_of(uri):
    return urllib.parse.parse_qs(urllib.parse.urlparse(uri).query)['socket'][0]


def server_of(uri):
    """The pid of the process that listens on the socket of an nbd+unix URI (asked of the kernel, as the peer's)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(socket_of(uri))
        return struct.unpack('3i', client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def switch_tracking_off(disk):
    """A file that is not ours stands where the tracking file should be: refpoint leaves it alone and tracks nothing."""
    with open(disk + '.rct', 'w') as file:
        file.write('somebody else\'s file\n')


def traced(service, trace, work):
    """Does the work while strace watches the service: how often each system call was made."""
    if not shutil.which('strace'):
        raise Failure('strace is missing (make deps)')
    tracer = subprocess.Popen(['strace', '-f', '-q', '-p', str(service), '-o', trace], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    while not all(is_traced(service, thread) for thread in os.listdir(f'/proc/{service}/task')):
        if tracer.poll() is not None:
            raise Failure(f'strace cannot watch the disk service: {tracer.stderr.read()}')
        time.sleep(0.05)
    work()
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    names = collections.Counter()
    with open(trace) as file:
        for line in file:
            called = re.match(r'\d+\s+(\w+)\(', line)
            if called:
                names[called.group(1)] += 1
    os.unlink(trace)
    return names


def is_traced(pid, thread):
    try:
        with open(f'/proc/{pid}/task/{thread}/status') as file:
            return re.search(r'^TracerPid:\t[1-9]', file.read(), re.M)
    except OSError: # it has ended
        return True


def steady_writes(uri, service, trace, count=2000):
    """System calls and syncs per write of 4 KiB, one at a time, to blocks that were written before. No flushes."""
    client = nbd.NBD()
    client.connect_uri(uri)
    block = os.urandom(4096)
    places = [(i * 7919 % 4096) * 16384 for i in range(count)]

    def write():
        for place in places:
            client.pwrite(block, place)

    write()
    client.flush()
    names = traced(service, trace, write)
    client.shutdown()
    if names['pwrite64'] + names['pwritev'] + names['pwritev2'] < count:
        raise Failure(f'the trace misses writes: {dict(names)}')
    return {'system calls': sum(n for name, n in names.items() if name not in WAITING) / count,
            'syncs': sum(n for name, n in names.items() if name in SYNCS) / count}
