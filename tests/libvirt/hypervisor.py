"""Our module over a libvirt (the program hv), and services for the disks of its domains."""

import os, queue, signal, subprocess, threading, time


class Refused(Exception):
    """What the module says: code and text."""

    def __init__(self, line):
        self.code, _, self.text = line.partition(' ')
        super().__init__(line)


class Hypervisor:
    """hv, for one URI. Every call has a deadline; a call that fails raises Refused."""

    def __init__(self, program, uri):
        self.process = subprocess.Popen([program, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.answers, self.events, self.late, self.noise = queue.Queue(), [], [], []
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.listen, daemon=True).start()
        self.answer(60)

    def read(self):
        for line in self.process.stdout:
            if line.startswith('event '):
                self.events.append(tuple(line.split()[1:]))
            elif line.startswith('late '):
                self.late.append(line.rstrip('\n').partition(' ')[2])
            else:
                self.answers.put(line.rstrip('\n'))
        self.answers.put('failed end hv has ended')

    def listen(self):
        self.noise += self.process.stderr

    def answer(self, seconds):
        try:
            word, _, rest = self.answers.get(timeout=seconds).partition(' ')
        except queue.Empty:
            raise AssertionError(f'no answer within {seconds} s') from None
        if word != 'ok':
            raise Refused(rest)
        return rest

    def ask(self, *words):
        self.process.stdin.write(' '.join(map(str, words)) + '\n')
        self.process.stdin.flush()

    def __call__(self, *words, seconds=150):
        self.ask(*words)
        return self.answer(seconds)

    def end(self):
        """Its exit status: that of a sanitizer, too."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.returncode


class Service:
    """nbdkit with a file, as the export disk0 of a socket."""

    def __init__(self, socket, image):
        self.socket, self.image, self.process = socket, image, None

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.process = subprocess.Popen(['nbdkit', '-f', '-U', self.socket, '-e', 'disk0', 'file', self.image],
                                        stdin=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not os.path.exists(self.socket):
            assert time.monotonic() < end and self.process.poll() is None, 'nbdkit does not start'
            time.sleep(0.02)
        return self

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(30)
