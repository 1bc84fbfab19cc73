"""A second reader of what a disk service keeps beside its disks, written from docs/formats/chain-record.md, rct.md, mrt.md and
control.md alone; it shares no code with src. It asserts every rule that it relies on. Of VHDX (MS-VHDX) it reads what it needs."""

import json, os, socket, struct, uuid

NIL = uuid.UUID(int=0)
CRC = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
    CRC.append(byte)


def crc32c(data, skip=None):
    """With the four bytes at `skip` counted as zero."""
    if skip is not None:
        data = data[:skip] + bytes(4) + data[skip + 4:]
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def u16(data, at): return struct.unpack_from('<H', data, at)[0]
def u32(data, at): return struct.unpack_from('<I', data, at)[0]
def u64(data, at): return struct.unpack_from('<Q', data, at)[0]
def guid(data, at): return uuid.UUID(bytes_le=bytes(data[at:at + 16]))


def read(path, at=0, size=-1):
    with open(path, 'rb') as file:
        file.seek(at)
        return file.read(size)


# ---- the chain record

class Record:
    def __init__(self, slot):
        size = u32(slot, 12)
        assert slot[:8] == b'RPCHAIN\0' and 84 <= size <= len(slot), 'no chain record'
        slot = slot[:size]
        assert u32(slot, 8) == crc32c(slot, 8) and u32(slot, 40) == 3, 'a damaged chain record'
        self.generation, self.vm, self.operation = u64(slot, 16), guid(slot, 24), guid(slot, 56)
        self.slot, self.at = slot, 84
        assert u32(slot, 80) == crc32c(slot[12:80]), 'a damaged header'
        disks, frozen, scratch = struct.unpack_from('<3I', slot, 44)
        self.disks = [(self.number(), self.guid(), self.path()) for _ in range(disks)]
        self.frozen = [(self.guid(), self.path(), self.path(), self.bytes(1)[0], self.guid(), self.number()) for _ in range(frozen)]
        self.scratch = [self.path() for _ in range(scratch)]
        self.merging = [self.path() for _ in range(self.number())]
        assert self.at == size and len({disk[0] for disk in self.disks}) == disks

    def bytes(self, size):
        self.at += size
        assert self.at <= len(self.slot)
        return self.slot[self.at - size:self.at]

    def number(self): return u32(self.bytes(4), 0)
    def guid(self): return guid(self.bytes(16), 0)

    def path(self):
        path = self.bytes(u16(self.bytes(2), 0))
        assert path[:1] == b'/' and b'\0' not in path and len(path) < 4096
        return path.decode()


def chain_record(vm):
    """The one that counts. Both slots have to be whole, and one the successor of the other."""
    data = read(vm + '/chain.record')
    slots = [Record(data[at:at + 1048576]) for at in range(0, len(data), 1048576)]
    for index, slot in enumerate(slots):
        assert (slot.generation + 1) % 2 == index, f'generation {slot.generation} in slot {index}'
    assert len(slots) == 1 or abs(slots[0].generation - slots[1].generation) == 1
    return max(slots, key=lambda slot: slot.generation)


def shared_memory(vm):
    stat = os.stat(vm)
    return f'/dev/shm/refpoint-{os.getuid()}/{stat.st_dev:x}-{stat.st_ino:x}'


# ---- VHDX: header, size, Virtual Disk ID, parent

class Disk:
    def __init__(self, path):
        headers = [read(path, at, 4096) for at in (65536, 131072)]
        headers = [h for h in headers if h[:4] == b'head' and u32(h, 4) == crc32c(h, 4)]
        header = max(headers, key=lambda h: u64(h, 8))
        self.path, self.file_write, self.data_write, self.parent = path, guid(header, 16), guid(header, 32), None
        regions = read(path, 196608, 65536)
        entries = {guid(regions, at): u64(regions, at + 16) for at in range(16, 16 + 32 * u32(regions, 8), 32)}
        metadata = read(path, entries[uuid.UUID('8B7CA206-4790-4B9A-B8FE-575F050F886E')], 1048576)
        for at in range(32, 32 + 32 * u16(metadata, 10), 32):
            kind, where = str(guid(metadata, at))[:8], u32(metadata, at + 16)
            if kind == '2fa54224':
                self.size = u64(metadata, where)
            elif kind == 'beca12ab':
                self.id = guid(metadata, where)
            elif kind == 'a8d35f2d':
                self.parent = self.find_parent(metadata, where)

    def find_parent(self, metadata, at):
        for entry in range(at + 20, at + 20 + 12 * u16(metadata, at + 18), 12):
            key, value, key_size, value_size = struct.unpack_from('<IIHH', metadata, entry)
            if metadata[at + key:at + key + key_size].decode('utf-16le') == 'relative_path':
                name = metadata[at + value:at + value + value_size].decode('utf-16le').replace('\\', '/')
                return os.path.normpath(os.path.join(os.path.dirname(self.path), name))
        raise AssertionError('no relative path')


# ---- tracking

class Slot:
    def __init__(self, data, file_size, index):
        head = data[:4096]
        assert head[:8] == b'RPTRACK\0' and u32(head, 8) == crc32c(head, 8) and u32(head, 12) == 2, 'no slot'
        self.sequence, self.size, self.unit, self.flags, self.first, self.epoch = struct.unpack_from('<QQIIII', head, 16)
        self.disk, self.tracking, self.stem = guid(head, 48), guid(head, 64), guid(head, 80)
        self.base = [guid(head, 96 + 16 * i) for i in range(4)]
        self.merging, self.coarse = guid(head, 160), guid(head, 176)
        self.bound, self.identity = (guid(head, 192), guid(head, 208)), struct.unpack_from('<4Q', head, 224)
        self.session = guid(head, 256), guid(head, 272)
        spans, spans_crc, bitmap_size, bitmap_crc, floors = struct.unpack_from('<5I', head, 288)
        lineage, bitmap = data[4096:4096 + 24 * spans], data[32768:32768 + bitmap_size]
        assert crc32c(lineage) == spans_crc and crc32c(bitmap) == bitmap_crc and spans <= 1024 and floors <= 64
        assert self.sequence % 2 == 1 - index and 1 <= self.first <= self.epoch
        self.lineage = [(guid(lineage, at), u32(lineage, at + 16), u32(lineage, at + 20)) for at in range(0, 24 * spans, 24)]
        assert all(1 <= first <= last < self.epoch for _, first, last in self.lineage)
        self.units = -(-self.size // self.unit)
        assert bitmap_size == -(-(-(-self.units // 1008)) // 8)
        self.pages = [i for i in range(8 * bitmap_size) if bitmap[i // 8] >> i % 8 & 1]
        assert all(524288 + 4096 * (i + 1) <= file_size for i in self.pages)
        self.floors = [struct.unpack_from('<QI', head, 308 + 12 * i) for i in range(floors)]
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(self.floors, self.floors[1:]))
        assert not any(head[308 + 12 * floors:])
        self.clean = bool(self.flags & 1)
        assert not self.clean or (self.coarse == NIL and self.session == (NIL, NIL) and not self.flags & 12)


class Tracking:
    """The `since` array of one file, with what counts as changed in addition after an unclean end."""

    def __init__(self, disk):
        path = disk.path + '.rct'
        data, slots = read(path), []
        for index in range(2):
            try:
                slots.append(Slot(data[262144 * index:262144 * (index + 1)], len(data), index))
            except (AssertionError, struct.error):
                pass
        h = self.head = max(slots, key=lambda slot: slot.sequence)
        self.since = [0] * h.units
        for page in h.pages:
            for number in range(8 * page, 8 * page + 8):
                at = 524288 + 512 * number
                sector = data[at:at + 512]
                good = u32(sector, 0) == crc32c(sector, 0) and u32(sector, 4) == number
                values = struct.unpack_from('<126I', sector, 8) if good else (h.epoch,) * 126
                for i, value in enumerate(values[:max(0, h.units - 126 * number)]):
                    self.since[126 * number + i] = value
        for unit, epoch in h.floors:
            self.since[unit:] = [max(value, epoch) for value in self.since[unit:]]
        self.since = [min(value, h.epoch) for value in self.since]
        self.verdict = self.judge(disk)
        regions = set()
        if self.verdict == 'unclean' and h.flags & 4:
            regions = coarse_regions(disk.path + '.mrt', h)
        if self.verdict == 'foreign' or (self.verdict == 'unclean' and h.flags & 8) or regions is None:
            self.since = [h.epoch] * h.units
        for region in regions or ():
            first, end = region * 4194304 // h.unit, (region + 1) * 4194304 // h.unit
            self.since[first:end] = [h.epoch] * len(self.since[first:end])

    def judge(self, disk):
        h, stat = self.head, os.stat(disk.path)
        assert h.disk == disk.id
        if h.clean:
            now = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            return 'clean' if (disk.file_write, disk.data_write) == h.bound and disk.size == h.size and now == h.identity else 'foreign'
        guids = disk.file_write in (h.bound[0], h.session[0]) and disk.data_write in (h.bound[1], h.session[1])
        return 'unclean' if guids and stat.st_ino == h.identity[0] and disk.size <= h.size else 'foreign'

    def knows(self, tracking, epoch):
        if tracking == self.head.tracking:
            return self.head.first <= epoch < self.head.epoch
        return any(tracking == span[0] and span[1] <= epoch <= span[2] for span in self.head.lineage)

    def fits(self, child):
        """This file is the parent of that one, or (None) the one that is asked."""
        h = self.head
        if child is None:
            return h.merging == NIL
        c = child.head
        return h.stem in (*c.base, c.tracking, c.stem) and h.merging in (NIL, c.tracking, *c.base[2:])


def coarse_regions(path, tracking):
    """The regions that count; None: it cannot be used."""
    data, best = read(path) if os.path.exists(path) else b'', None
    for index in range(2):
        h = data[4096 * index:4096 * index + 512]
        if h[:8] == b'RPCOARS\0' and u32(h, 8) == crc32c(h, 8) and (not best or u64(h, 16) > u64(best, 16)):
            assert u32(h, 12) == 1 and u64(h, 16) % 2 == 1 - index and u32(h, 64) == 4194304 and not any(h[72:])
            best = h
    if not best or guid(best, 24) != tracking.coarse or tracking.sequence < u64(best, 56):
        return None
    oldest, newest, sectors = u64(best, 40), u64(best, 48), u32(best, 68)
    area = -(-512 * sectors // 4096) * 4096
    assert 1 <= oldest <= newest <= oldest + 1 and sectors == -(-tracking.size // (3840 * 4194304))
    assert len(data) == 8192 + 2 * area
    regions = set()
    for generation in range(oldest, newest + 1):
        for index in range(sectors):
            at = 8192 + generation % 2 * area + 512 * index
            s = data[at:at + 512]
            bits = (1 << 3840) - 1
            if u32(s, 0) == crc32c(s, 0) and u32(s, 4) == index:
                mine = u64(s, 8) == generation and guid(s, 16) == guid(best, 24)
                bits = int.from_bytes(s[32:], 'little') if mine else 0
            regions |= {3840 * index + bit for bit in range(3840) if bits >> bit & 1}
    return regions


def changed(path, rct_id):
    """Offsets of the 64 KiB units that changed since the id, as the file at `path` and its parents say; None: refused."""
    parts = rct_id.split(':')
    assert parts[0] == 'rctX'
    tracking, epoch = uuid.UUID('-'.join(parts[1:6])), int(parts[6], 16)
    child, units = None, set()
    while path:
        disk = Disk(path)
        now = Tracking(disk)
        if child is None and not now.knows(tracking, epoch):
            return None
        everything = not now.fits(child)
        units |= {unit * now.head.unit for unit, since in enumerate(now.since) if everything or since > epoch}
        child, path = now, disk.parent
    return units


# ---- the control socket

class Control:
    def __init__(self, vm):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(vm + '/control.sock')
        self.lines = self.socket.makefile('rwb')

    def ask(self, request, **arguments):
        operation = arguments.pop('operation', str(uuid.uuid4()))
        message = dict(refpoint=2, operation=operation, request=request, **arguments)
        self.lines.write(json.dumps(message).encode() + b'\n')
        self.lines.flush()
        reply = json.loads(self.lines.readline())
        assert reply['refpoint'] == 2 and reply['operation'] == operation and ('result' in reply) != ('error' in reply), reply
        return reply.get('result', reply.get('error'))

    def changed(self, path, rct_id, size):
        offset, units = 0, set()
        while offset < size:
            answer = self.ask('changes', path=path, id=rct_id, offset=offset, length=size - offset)
            if 'code' in answer:
                assert answer['code'] == 'tracking-id', answer
                return None
            before = offset
            for at, length in answer['ranges']:
                assert before <= at and at + length <= offset + answer['processed']
                before = at + length
                units |= set(range(at // 65536 * 65536, at + length, 65536))
            assert answer['processed'] >= 1
            offset += answer['processed']
        return units
