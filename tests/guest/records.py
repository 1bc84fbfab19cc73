"""What writer.c leaves on one file system, judged: judge(folder, number). The constants and the layout are the
writer's; the computation is done anew."""

import os, re, struct, zlib
from collections import namedtuple

from splitmix import WORD, mix

BLOCK, BLOCKS, RUN_MAX, SEGMENT, SEGMENTS = 512, 8192, 64, 4096, 4
BULK, BULK_EVERY, BULK_KEPT = 512, 32, 4
MAGIC = 0x314b434f4c425052
RECORD, OVERWRITTEN, BULK_BLOCK = 1, 2, 3
HEAD = struct.Struct('<QIIQIIQQII')

Block = namedtuple('Block', 'magic checksum kind sequence disk position life time previous disks')

# disk: its number. first, last: sequence numbers of the records that are there (0: none). begun: the last step of which
# there is any trace. disks: how many are written in order with it. problems: what should not be.
Findings = namedtuple('Findings', 'disk first last begun disks problems')


def run_of(disk, sequence):
    """The blocks that step `sequence` overwrites."""
    choice = mix(disk * 0x9e3779b97f4a7c15 + sequence & WORD)
    start = choice % BLOCKS
    return range(start, min(start + 1 + (choice >> 32) % RUN_MAX, BLOCKS))


class Judge:
    def __init__(self, folder):
        self.folder, self.problems, self.suppressed = folder, [], 0
        self.records, self.disk = {}, None

    def wrong(self, text):
        if len(self.problems) < 20:
            self.problems.append(text)
        else:
            self.suppressed += 1

    def block(self, data, what, **expected):
        """A block that is whole and is what it should be, or None."""
        if len(data) < BLOCK:
            return self.wrong(f'{what}: cut off')
        block = Block(*HEAD.unpack_from(data))
        if block.magic != MAGIC:
            return self.wrong(f'{what}: ' + ('empty' if not data.strip(b'\0') else 'not written by the writer'))
        if block.checksum != zlib.crc32(data[12:BLOCK]):
            return self.wrong(f'{what}: wrong checksum (of sequence {block.sequence})')
        for field, value in {'disk': self.disk, **expected}.items():
            if value is not None and getattr(block, field) != value:
                return self.wrong(f'{what}: {field} is {getattr(block, field)}, not {value}')
        return block

    def read(self, name):
        with open(os.path.join(self.folder, name), 'rb') as file:
            return file.read()

    def numbers(self, stem):
        matches = (re.fullmatch(stem + r'\.(\d+)', name) for name in os.listdir(self.folder))
        return sorted(int(match[1]) for match in matches if match)

    def log(self, tail_may_be_lost):
        """Every record from the first to the last one, each chained to the one before it."""
        segments = self.numbers('log')
        if not segments:
            return
        newest = segments[-1]
        if segments != list(range(segments[0], newest + 1)) or segments[0] > max(0, newest - SEGMENTS + 1):
            self.wrong(f'segments of the log are missing: there are {segments}')
        previous = 0 if segments[0] == 0 else None
        for segment in segments:
            data = self.read(f'log.{segment}')
            if segment == newest:
                # an append that was never synced may leave zeros behind, where ext4 had the length already
                kept = (len(data.rstrip(b'\0')) + BLOCK - 1) // BLOCK * BLOCK
                nothing = len(data) - max(kept, BLOCK if segment == 0 else 0) # there is no record 0
                if nothing > (BLOCK if tail_may_be_lost else 0):
                    self.wrong(f'log.{segment}: {nothing} bytes of nothing at its end')
                data = data[:kept]
            elif len(data) != SEGMENT * BLOCK:
                self.wrong(f'log.{segment}: {len(data)} bytes, not {SEGMENT * BLOCK}')
            for position in range(segment == 0, len(data) // BLOCK + (len(data) % BLOCK > 0)):
                sequence = segment * SEGMENT + position
                record = self.block(data[position * BLOCK:(position + 1) * BLOCK], f'record {sequence}', kind=RECORD,
                                    sequence=sequence, position=position)
                if record:
                    self.disk = record.disk
                    self.records[sequence] = record
                    if previous is not None and record.previous != previous:
                        self.wrong(f'record {sequence}: does not follow the record {sequence - 1} that is there')
                previous = record.checksum if record else None

    def overwritten(self, last):
        """Each block as the last step that chose it left it; the step that was under way may have come to some."""
        data = self.read('blocks')
        if len(data) != BLOCKS * BLOCK:
            self.wrong(f'blocks: {len(data)} bytes, not {BLOCKS * BLOCK}')
        begun, expected = last, {}
        for sequence in range(last, 0, -1):
            for position in run_of(self.disk, sequence):
                expected.setdefault(position, sequence)
            if len(expected) == BLOCKS:
                break
        under_way = run_of(self.disk, last + 1)
        for position in range(len(data) // BLOCK):
            content, sequence = data[position * BLOCK:(position + 1) * BLOCK], expected.get(position)
            what = f'block {position}'
            if not sequence and not content.strip(b'\0'):
                continue
            block = self.block(content, what, kind=OVERWRITTEN, position=position)
            if not block:
                continue
            if position in under_way and block.sequence == last + 1:
                begun = last + 1
            elif block.sequence != sequence:
                self.wrong(f'{what}: as step {block.sequence} left it, not step {sequence or "none"}')
            elif sequence in self.records and self.records[sequence].life != block.life:
                self.wrong(f'{what}: of another life of step {sequence} than its record')
        return begun

    def bulk(self, last):
        """The files that step last + 1 cannot have deleted are there and whole."""
        there = self.numbers('bulk')
        for sequence in range(BULK_EVERY, last + 1, BULK_EVERY):
            if sequence <= last + 1 - BULK_KEPT * BULK_EVERY:
                continue
            if sequence not in there:
                self.wrong(f'bulk.{sequence}: missing')
                continue
            data = self.read(f'bulk.{sequence}')
            if len(data) != BULK * BLOCK:
                self.wrong(f'bulk.{sequence}: {len(data)} bytes, not {BULK * BLOCK}')
            for position in range(len(data) // BLOCK):
                self.block(data[position * BLOCK:(position + 1) * BLOCK], f'bulk.{sequence}, block {position}',
                           kind=BULK_BLOCK, sequence=sequence, position=position,
                           life=self.records[sequence].life if sequence in self.records else None)


def judge(folder, number=None, tail_may_be_lost=True):
    """number: of the disk, when it is known by its label. tail_may_be_lost: the machine died; else it was at rest."""
    judge = Judge(folder)
    judge.disk = number
    judge.log(tail_may_be_lost)
    first, last = min(judge.records, default=0), max(judge.records, default=0)
    begun = last
    if judge.disk is not None and os.path.exists(os.path.join(folder, 'blocks')):
        begun = judge.overwritten(last)
        judge.bulk(last)
    elif last:
        judge.wrong('the file of blocks is missing')
    lost = os.path.join(folder, 'lost+found')
    if os.path.isdir(lost) and os.listdir(lost):
        judge.wrong(f'lost+found has {len(os.listdir(lost))} entries')
    if judge.suppressed:
        judge.problems.append(f'and {judge.suppressed} more')
    return Findings(judge.disk, first, last, begun, judge.records[last].disks if last else 0, judge.problems)
