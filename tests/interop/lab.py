"""A lab for a test: refpoint-hostd --lab (docs/lab.md)."""

import json, os, select, socket, subprocess


class Lab:
    """refpoint-hostd --lab, which ends with this program, however that ends."""

    def __init__(self, program, *options):
        self.process = subprocess.Popen([program, '--lab', '--until-eof', *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else b''
        if not line:
            self.process.kill()
            raise SystemExit('Bail out! the lab did not start')
        self.about = json.loads(line)

    def __getattr__(self, name):
        return self.about[name]

    def vm(self, name):
        return next(vm for vm in self.about['vms'] if vm['name'] == name)

    def say(self, line):
        """A line of the fault script; what is answered besides "ok", as JSON."""
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(60)
            end.connect(self.about['control'])
            end.sendall(line.encode() + b'\n')
            answer = b''
            while not answer.endswith(b'\n'):
                piece = end.recv(65536)
                assert piece, f'{line}: no answer'
                answer += piece
        answer = answer.decode().rstrip()
        assert answer.startswith('ok'), f'{line}: {answer}'
        return json.loads(answer[3:] or 'null')

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(60)
        return status, os.path.exists(os.path.dirname(self.about['ca']))
