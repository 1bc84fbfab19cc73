"""What all test programs in Python share: behaviours, told as TAP. They are in folders beside this file, and find it
with sys.path.append(os.path.join(os.path.dirname(__file__), '..'))."""

import os, time, traceback

behaviours = []


def behaviour(function):
    """A behaviour; its name is the sentence. In the order of the file."""
    behaviours.append(function)
    return function


def equal(got, expected):
    assert got == expected, f'expected {expected!r}, got {got!r}'


def wait_for(condition, seconds, what):
    """What `condition` returns, once that is something."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() <= end, f'{what}: not within {seconds:g} s'
        time.sleep(0.05)


def skip_all(what, why):
    """The exit status of a program that can test nothing here."""
    print(f'1..1\nok 1 - {what} # SKIP {why}', flush=True)
    return 0


def run_all():
    """The exit status. Later behaviours go on from where earlier ones left off. RP_ONLY=text,… picks some by name."""
    failed, only = 0, os.environ.get('RP_ONLY', '').split(',')
    behaviours[:] = [function for function in behaviours if any(word in function.__name__ for word in only)]
    print(f'1..{len(behaviours)}', flush=True)
    for number, function in enumerate(behaviours, 1):
        start = time.monotonic()
        try:
            function()
            print(f'ok {number} - {function.__name__}', flush=True)
            print(f'# {time.monotonic() - start:.1f} s', flush=True)
        except Exception:
            failed += 1
            print(f'not ok {number} - {function.__name__}', flush=True)
            print(*('# ' + line for line in traceback.format_exc().splitlines()), sep='\n', flush=True)
    return failed > 0
