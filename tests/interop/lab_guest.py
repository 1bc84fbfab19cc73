#!/usr/bin/python3
"""lab_guest.py IMAGE…: what the lab's guests have written (docs/lab.md), computed without any code of ours. Of each raw
image of a disk: how many writes it holds, if it shows exactly one moment of that disk; else what is wrong, and exit
status 1."""

import functools, os, re, sys

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
from splitmix import WORD, mix

BLOCK = 4096
MARK = re.compile(rb'refpoint lab disk, key ([0-9a-f]{16}), (\d+) writes\n')


def value(seed, i):
    return mix(seed + i * 0x9e3779b97f4a7c15 & WORD)


def key_of(seed, vm, disk):
    number = 0xcbf29ce484222325
    for byte in f'{vm}/{disk}'.encode():
        number = (number ^ byte) * 0x100000001b3 & WORD
    return mix(number ^ seed)


def block_of(key, number, blocks):
    return 1 + value(key, number) % (blocks - 1)


@functools.lru_cache(4096) # the same writes are in one image after the other
def content(key, number, block):
    seed = value(~key & WORD, number)
    return (f'write {number}, block {block}\n'.encode().ljust(64, b'\0') +
            b''.join(value(seed, i // 8).to_bytes(8, 'little') for i in range(64, BLOCK, 8)))


class Wrong(Exception):
    pass


def moment(data):
    """The number of the last write in an image. Wrong when it is not the disk as it was after that write: one that is
    missing, torn, or later than that."""
    mark = MARK.match(data)
    if not mark:
        raise Wrong('block 0 has no mark of a guest')
    key, marked, blocks = int(mark[1], 16), int(mark[2]), len(data) // BLOCK
    if data[mark.end():BLOCK].strip(b'\0'):
        raise Wrong('block 0 has more than its mark')
    numbers = {i: int(re.match(rb'write (\d+),', data[i * BLOCK:i * BLOCK + 64])[1]) for i in range(1, blocks)
               if data.startswith(b'write ', i * BLOCK)}
    last = max(numbers.values(), default=0)
    if last < marked:
        raise Wrong(f'{marked} writes were counted, {last} is the last one there')
    expected = {block_of(key, number, blocks): number for number in range(1, last + 1)}
    for i in range(1, blocks):
        number = expected.get(i)
        if data[i * BLOCK:(i + 1) * BLOCK] != (content(key, number, i) if number else bytes(BLOCK)):
            raise Wrong(f'block {i} is not as write {number} of {last} left it' if number else
                        f'block {i}, which nobody has written, is not empty')
    return last


def main():
    status = 0
    for path in sys.argv[1:]:
        try:
            with open(path, 'rb') as file:
                print(f'{path}: {moment(file.read())} writes')
        except Wrong as error:
            print(f'{path}: {error}')
            status = 1
    return status


if __name__ == '__main__':
    sys.exit(main())
