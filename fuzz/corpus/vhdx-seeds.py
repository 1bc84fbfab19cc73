#!/usr/bin/env python3
"""Writes the seeds of fuzz/corpus/vhdx: patches to the images that fuzz/vhdx.c makes."""
import os, struct

AREAS = dict(header1=0, header2=1, regions1=2, regions2=3, log=4, entry1=5, table=8, items=9, locator=10, bat=11, data=12)


def patch(area, offset, data):
    return bytes([AREAS[area]]) + struct.pack('<HB', offset, len(data)) + data


def seed(name, *patches, child=False, raw=False):
    flags = bytes([child | raw << 1])
    with open(os.path.join(os.path.dirname(__file__), 'vhdx', name), 'wb') as out:
        out.write(flags + b''.join(patches))


u32, u64 = struct.Struct('<I').pack, struct.Struct('<Q').pack
seed('valid-dynamic')
seed('valid-differencing', child=True)
seed('header-clean-log', *(patch(h, 48, bytes(16)) for h in ('header1', 'header2')))
seed('header-log-huge', *(patch(h, 68, u32(0xFFF00000)) for h in ('header1', 'header2')))
seed('header-sequences-equal', *(patch(h, 8, u64(7)) for h in ('header1', 'header2')))
seed('header-checksum', patch('header1', 100, b'x'), patch('header2', 100, b'x'), raw=True)
seed('regions-many', patch('regions1', 8, u32(2048)), patch('regions2', 8, u32(2047)))
seed('regions-overlap', *(patch(r, 16 + 16, u64(1 << 20)) for r in ('regions1', 'regions2')))
seed('regions-huge', *(patch(r, 16 + 24, u32(0xFFF00000)) for r in ('regions1', 'regions2')))
seed('regions-required', *(patch(r, 8, u32(3)) + patch(r, 16 + 64, b'unknown region!!' + u64(1 << 30) + u32(1 << 20) + u32(1))
                           for r in ('regions1', 'regions2')))
seed('items-many', patch('table', 10, b'\xff\x07'))
seed('items-outside', patch('table', 32 + 16, u32(0xFFFFFFF0)))
seed('block-size-0', patch('items', 0, u32(0)))
seed('block-size-256m', patch('items', 0, u32(256 << 20)))
seed('disk-size-64t', patch('items', 8, u64(64 << 40)))
seed('sector-4096', patch('items', 32, u32(4096)))
seed('locator-pairs', patch('locator', 18, b'\xff\xff'), child=True)
seed('locator-offsets', patch('locator', 20, u32(0xFFFFFFFF) + u32(0x7FFFFFFF) + b'\xff\xff\xff\xff'), child=True)
seed('entry-length', patch('entry1', 8, u32(0x800000)))
seed('entry-descriptors', patch('entry1', 24, u32(0xFFFFFFFF)))
seed('entry-tail', patch('entry1', 12, u32(0x7FF000)))
seed('entry-sizes', patch('entry1', 48, u64(1 << 62) + u64(1 << 62)))
seed('entry-grows-file', patch('entry1', 56, u64(1 << 46)))
seed('entry-into-header', patch('entry1', 64 + 16, u64(0x10000)))
seed('entry-zeroes', patch('entry1', 64, b'zero' + u32(0) + u64(1 << 40) + u64(0x900000)))
seed('bat-same-place', patch('bat', 0, u64(0xC00000 + 6)), patch('bat', 8, u64(0xC00000 + 6)))
seed('bat-on-log', patch('bat', 8, u64(0x100000 + 6)))
seed('bat-far-away', patch('bat', 8, u64((1 << 63) + 6)))
seed('bat-states', patch('bat', 0, b''.join(u64(s) for s in range(7))))
seed('bat-partial-without-bitmap', patch('bat', 8, u64(0xC00000 + 7)), child=True)
