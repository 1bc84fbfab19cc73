"""What a program has left running, in whatever session: a disk service has one of its own. Whoever starts a program gives
it a mark, NAME=VALUE in its environment, which all that comes from it has as well."""

import os, signal, time


def with_mark(mark):
    """The processes that have it: {pid: command}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as environ, open(f'/proc/{pid}/cmdline', 'rb') as command:
                if mark.encode() in environ.read().split(b'\0'):
                    found[int(pid)] = command.read().replace(b'\0', b' ').decode(errors='replace').strip()
        except OSError:
            pass # ended, or another user's
    return found


def end_leftovers(mark, seconds):
    """What has the mark is given so long to end and then killed, with what it starts meanwhile; returns what was."""
    deadline = time.monotonic() + seconds
    while (left := with_mark(mark)) and time.monotonic() < deadline:
        time.sleep(.05)
    found, deadline = dict(left), time.monotonic() + 10
    while left and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(.02)
        left = with_mark(mark)
        found |= left
    return found
