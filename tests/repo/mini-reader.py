#!/usr/bin/env python3
"""A second reader of the repository format, written from docs/formats/repository.md alone; it shares no code with src/repo.

mini-reader.py REPOSITORY VM-NAME OUTPUT     restores disk 0 of the newest point of that VM
The passphrase is in the environment variable PASSPHRASE; without it the repository must be unencrypted."""

import ctypes, hashlib, hmac, json, os, struct, sys

crypto = ctypes.CDLL('libcrypto.so.3')
zstd = ctypes.CDLL('libzstd.so.1')
for name in 'EVP_CIPHER_CTX_new', 'EVP_aes_256_gcm':
    getattr(crypto, name).restype = ctypes.c_void_p
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]


def gcm_open(key, nonce, aad, sealed):
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    data, tag = sealed[:-16], sealed[-16:]
    out, size = ctypes.create_string_buffer(len(data) + 16), ctypes.c_int()
    cipher = ctypes.c_void_p(crypto.EVP_aes_256_gcm())
    good = crypto.EVP_DecryptInit_ex(context, cipher, None, key, nonce) == 1
    good &= crypto.EVP_DecryptUpdate(context, None, ctypes.byref(size), aad, len(aad)) == 1
    good &= crypto.EVP_DecryptUpdate(context, out, ctypes.byref(size), data, len(data)) == 1
    good &= crypto.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, tag) == 1  # EVP_CTRL_AEAD_SET_TAG
    rest = ctypes.create_string_buffer(16)
    good &= crypto.EVP_DecryptFinal_ex(context, rest, ctypes.byref(size)) == 1
    crypto.EVP_CIPHER_CTX_free(context)
    if not good:
        raise ValueError('authentication failed')
    return out.raw[:len(data)]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


class Repository:
    def __init__(self, path, passphrase):
        self.path = path
        config = self.get('config')
        self.config = json.loads(config)
        assert self.config['format'] == 'refpoint repository' and self.config['version'] == 1
        self.encrypted = self.config['encrypted']
        assert self.encrypted == (passphrase is not None)
        if self.encrypted:
            key = self.unlock(config, passphrase.encode())
        else:
            key = bytes.fromhex(self.config['key'])
        self.prk = mac(bytes(32), key)
        self.id_key = self.derive(b'refpoint 1 id', b'')
        self.units = {}   # id: (pack name, pack id, frame number, frame, slot)
        self.frames = {}  # the last decoded ones
        for name in self.names('packs'):
            self.read_index(name)

    def get(self, name):
        with open(os.path.join(self.path, name), 'rb') as file:
            return file.read()

    def names(self, folder):
        for directory, _, files in os.walk(os.path.join(self.path, folder)):
            for file in files:
                yield os.path.relpath(os.path.join(directory, file), self.path)

    def unlock(self, config, passphrase):
        for name in self.names('keys'):
            slot = json.loads(self.get(name))
            assert slot['kdf'] == 'scrypt'
            n = 1 << slot['log_n']
            kek = hashlib.scrypt(passphrase, salt=bytes.fromhex(slot['salt']), n=n, r=slot['r'], p=slot['p'],
                                 maxmem=n * 8 * 128 + (1 << 20), dklen=32)
            try:
                return gcm_open(kek, bytes(12), b'refpoint 1 slot' + hashlib.sha256(config).digest(),
                                bytes.fromhex(slot['wrapped']))
            except ValueError:
                pass
        raise ValueError('wrong passphrase')

    def derive(self, label, salt):
        return mac(self.prk, label + salt + b'\1')

    def identify(self, kind, content):
        return mac(self.id_key, bytes([kind]) + content)

    def open(self, key, counter, aad, sealed):
        if self.encrypted:
            return gcm_open(key, struct.pack('<I8x', counter), aad, sealed)
        if hashlib.sha256(aad + sealed[:-16]).digest()[:16] != sealed[-16:]:
            raise ValueError('wrong checksum')
        return sealed[:-16]

    def read_index(self, name):
        data = self.get(name)
        header, footer = data[:32], data[-32:]
        pack_id = bytes.fromhex(os.path.basename(name))
        assert header == b'RPPACK\r\n' + struct.pack('<II', 1, self.encrypted) + pack_id
        assert name == f'packs/{pack_id.hex()[:2]}/{pack_id.hex()}'
        offset, size, frame_count, id_count, crc = struct.unpack('<QIIII', footer[:24])
        assert footer[24:] == b'RPPKEND\n' and crc == crc32c(footer[:20]) and offset + size + 32 == len(data)
        key = self.derive(b'refpoint 1 pack', pack_id)
        index = self.open(key, 0xFFFFFFFF, header + footer, data[offset:offset + size])
        assert len(index) == 8 * frame_count + 32 * id_count
        at, ids = 32, index[8 * frame_count:]
        for number in range(frame_count):
            stored, level, compression, count = struct.unpack_from('<IBBH', index, 8 * number)
            for slot in range(count):
                self.units[ids[:32]] = name, pack_id, number, (at, stored, level, compression, count), slot
                ids = ids[32:]
            at += stored
        assert at == offset and not ids

    def unit(self, identity, level):
        name, pack_id, number, frame, slot = self.units[identity]
        at, stored, frame_level, compression, count = frame
        assert frame_level == level
        size = 65536 if level == 0 else 8192
        if (name, number) not in self.frames:
            with open(os.path.join(self.path, name), 'rb') as file:
                file.seek(at)
                sealed = file.read(stored)
            aad = pack_id + struct.pack('<IBBH', number, level, compression, count)
            data = self.open(self.derive(b'refpoint 1 pack', pack_id), number, aad, sealed)
            if compression == 1:
                out = ctypes.create_string_buffer(size * count)
                assert zstd.ZSTD_decompress(out, size * count, data, len(data)) == size * count
                data = out.raw
            assert len(data) == size * count
            if len(self.frames) > 8:
                self.frames.pop(next(iter(self.frames)))
            self.frames[name, number] = data
        content = self.frames[name, number][slot * size:(slot + 1) * size]
        assert self.identify(level, content) == identity
        return content

    def small_object(self, name):
        data = self.get(name)
        header = data[:32]
        assert header[:16] == b'RPOBJECT' + struct.pack('<II', 1, self.encrypted)
        return self.open(self.derive(b'refpoint 1 object', header[16:]), 0, header + name.encode(), data[32:])

    def points(self):
        for name in self.names('points'):
            document = self.small_object(name)
            assert name == 'points/' + self.identify(ord('P'), document).hex()
            yield json.loads(document)

    def restore(self, disk, path):
        size, root = disk['size'], bytes.fromhex(disk['root'])
        blocks = (size + 65535) // 65536
        level = 1
        while 256 ** level < blocks:
            level += 1
        with open(path, 'wb') as out:
            self.restore_below(root, level, 0, out)
            out.truncate(size)

    def restore_below(self, identity, level, block, out):
        if identity == bytes(32):
            return
        content = self.unit(identity, level)
        if level == 0:
            out.seek(block * 65536)
            out.write(content)
            return
        for i in range(256):
            self.restore_below(content[32 * i:32 * i + 32], level - 1, block + i * 256 ** (level - 1), out)


def main():
    repository = Repository(sys.argv[1], os.environ.get('PASSPHRASE'))
    points = [point for point in repository.points() if point.get('vm_name') == sys.argv[2]]
    newest = max(points, key=lambda point: (point.get('sequence', 0), point['time_ns']))
    repository.restore(newest['disks'][0], sys.argv[3])


if __name__ == '__main__':
    main()
