#!/usr/bin/python3
"""tap.py PORT FILE: listens on a free port of 127.0.0.1, which it prints, hands every connection on to PORT, and writes what
passes to FILE as a capture that tshark reads, made-up TCP on port 5985: no rights are needed for that. Ends when its input
ends."""

import socket, struct, sys, threading, time

target, name = int(sys.argv[1]), sys.argv[2]
lock = threading.Lock()
capture = open(name, 'wb')
capture.write(struct.pack('<IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 262144, 101))  # LINKTYPE_RAW


class Conversation:
    def __init__(self, port):
        self.ports, self.sequence = (port, 5985), [1000, 5000]
        self.packet(0, b'', 2)
        self.packet(1, b'', 18)
        self.packet(0, b'', 16)

    def packet(self, way, data, flags):
        """Sequence numbers count data, and SYN (2) and FIN (1) as one byte."""
        tcp = struct.pack('>HHIIBBHHH', self.ports[way], self.ports[1 - way], self.sequence[way], self.sequence[1 - way],
                          0x50, flags, 65535, 0, 0) + data
        a, b = b'\x0a\0\0\1', b'\x0a\0\0\2'
        ip = struct.pack('>BBHHHBBH', 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + (b + a if way else a + b)
        self.sequence[way] += len(data) + (flags & 3 != 0)
        with lock:
            now = time.time()
            size = len(ip) + len(tcp)
            capture.write(struct.pack('<IIII', int(now), int(now % 1 * 1e6), size, size) + ip + tcp)
            capture.flush()

    def data(self, way, data):
        for start in range(0, len(data), 1400):
            self.packet(way, data[start:start + 1400], 24)


def pump(source, sink, conversation, way):
    while data := source.recv(65536):
        conversation.data(way, data)
        sink.sendall(data)
    conversation.packet(way, b'', 17)
    sink.shutdown(socket.SHUT_WR)


def serve(listener):
    while True:
        client, address = listener.accept()
        server = socket.create_connection(('127.0.0.1', target))
        for end in client, server:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = Conversation(address[1])
        for arguments in ((client, server, conversation, 0), (server, client, conversation, 1)):
            threading.Thread(target=pump, args=arguments, daemon=True).start()


listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=serve, args=(listener,), daemon=True).start()
sys.stdin.read()
