"""WMI: a host with 1,000 VMs over WS-Management: listing them over TLS, hostd's memory, the cost of a Pull by its
position, polling a job among 10,000 finished ones, and what WS-Management adds to an incremental backup."""

import base64, http.client, json, os, re, select, socket, ssl, statistics, subprocess, time, urllib.parse
import xml.etree.ElementTree as xml
from xml.sax.saxutils import escape

from measure import Failure, Watch, run, say

VMS, JOBS = int(os.environ.get('BENCH_VMS', 1000)), int(os.environ.get('BENCH_JOBS', 10000))
DISKS = 2
WMI = 'http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/'
WSEN = 'http://schemas.xmlsoap.org/ws/2004/09/enumeration'
WSMAN = 'http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd'
MESSAGE = '''<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration"
 xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Header>
<a:To>http://localhost/wsman</a:To><w:ResourceURI s:mustUnderstand="true">{resource}</w:ResourceURI><a:ReplyTo><a:Address>
http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo><a:Action s:mustUnderstand="true">{action}
</a:Action><a:MessageID>uuid:{number:032x}</a:MessageID><w:MaxEnvelopeSize s:mustUnderstand="true">512000</w:MaxEnvelopeSize>
{selectors}</s:Header><s:Body>{body}</s:Body></s:Envelope>'''


class Lab:
    def __init__(self, bench, place, name, *options):
        self.place, self.name = place, name
        program = os.path.join(bench.build, 'src/hostd/refpoint-hostd')
        self.process = subprocess.Popen([program, '--lab', place.path(name), '--until-eof', '--rate', '0', *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.process.stdout], [], [], 900)
        line = self.process.stdout.readline() if ready else b''
        if not line:
            self.end()
            raise Failure('the lab did not start')
        self.about = json.loads(line)

    def say(self, line):
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(self.about['control'])
            end.sendall(line.encode() + b'\n')
            answer = end.makefile().readline().strip()
        if not answer.startswith('ok'):
            raise Failure(f'{line}: {answer}')

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.place.remove(self.name)


class Client:
    """One connection, TLS, Basic: as little as possible between the clock and the host."""

    def __init__(self, about):
        parts = urllib.parse.urlsplit(about['https'])
        context = ssl.create_default_context(cafile=about['ca'])
        self.connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=300, context=context)
        login = base64.b64encode(f'{about["user"]}:{about["password"]}'.encode()).decode()
        self.headers = {'Content-Type': 'application/soap+xml;charset=UTF-8', 'Authorization': 'Basic ' + login}
        self.number, self.requests = 0, 0

    def ask(self, resource, action, body, selectors=''):
        self.number += 1
        self.requests += 1
        text = MESSAGE.format(resource=WMI + resource, action=action, number=self.number, selectors=selectors,
                              body=body)
        text = re.sub(r'>\n', '>', text).replace('\n<', '<') # values without the breaks that lines have here
        self.connection.request('POST', '/wsman', text.encode(), self.headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Failure(f'HTTP {answer.status}: {data[:2000].decode()}')
        return data

    def enumerate(self, query, batch):
        """The context, and what came at once."""
        extra = f'<w:OptimizeEnumeration/><w:MaxElements>{batch}</w:MaxElements>' if batch else ''
        return self.ask('*', WSEN + '/Enumerate',
                        f'<n:Enumerate>{extra}<w:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">'
                        f'{escape(query)}</w:Filter></n:Enumerate>')

    def pull(self, context, batch=0):
        most = f'<n:MaxElements>{batch}</n:MaxElements>' if batch else ''
        return self.ask('*', WSEN + '/Pull',
                        f'<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{most}</n:Pull>')

    def query(self, query):
        data, found = self.enumerate(query, 32000), []
        while True:
            body = xml.fromstring(data)[1][0]
            context = ''
            for child in body:
                if child.tag.endswith('}Items'):
                    found += list(child)
                elif child.tag.endswith('}EnumerationContext'):
                    context = child.text
            if not context or any(child.tag.endswith('}EndOfSequence') for child in body):
                return found
            data = self.pull(context, 32000)


def context_of(data):
    found = re.search(rb'EnumerationContext>([^<]*)<', data)
    return found and found[1].decode()


def measure(bench):
    if not os.path.exists(os.path.join(bench.build, 'src/hostd/refpoint-hostd')):
        bench.table.skip('everything', 'refpoint-hostd is not built')
        return
    bench.table.note(f'refpoint-hostd --lab with {VMS:,} VMs of {DISKS} disks that do not run. A client in Python, one '
                     f'connection, TLS and Basic, unless the tool is named. The incremental backups take turns in '
                     'alternating order, after a full one and one more that are not counted.')
    place = bench.tmpfs()
    say(f'wmi: {VMS} VMs')
    lab = Lab(bench, place, 'wmi', '--vms', str(VMS), '--disks', str(DISKS), '--size', '16M', '--written', '0',
              '--running', '0', '--job-seconds', '86400')
    try:
        watch = Watch(lab.process.pid)
        watch.start()
        listing(bench, lab)
        pulls(bench, lab)
        bench.table.figure(f"hostd's memory, {VMS:,} VMs", [watch.peak / (1 << 20)], 'MiB', at_most=150)
        polls(bench, lab)
        bench.table.figure(f"hostd's memory, and {JOBS:,} jobs", [watch.stop() / (1 << 20)], 'MiB')
    finally:
        lab.end()
    overhead(bench)


def listing(bench, lab):
    say('wmi: the list')
    seconds, requests = [], 0
    for _ in range(bench.runs + 1):
        client, start = Client(lab.about), time.monotonic()
        machines = client.query('SELECT * FROM Msvm_ComputerSystem')
        settings = client.query('SELECT * FROM Msvm_VirtualSystemSettingData')
        images = client.query('SELECT * FROM Msvm_StorageAllocationSettingData')
        seconds.append(time.monotonic() - start)
        requests = client.requests
        if (len(machines), len(settings)) != (VMS + 1, VMS) or len(images) < VMS * DISKS:
            raise Failure(f'{len(machines)} machines, {len(settings)} settings, {len(images)} images')
    bench.table.figure(f'{VMS:,} VMs with settings and disks, over TLS', seconds[1:], 's', at_most=2,
                       detail=f'3 enumerations, {requests} requests; {statistics.median(seconds[1:]):.2f} s, '
                              f'{seconds[0]:.2f} s at first')
    name, environment = tool_host(bench, lab)
    each = [run([bench.refpoint, 'vm', 'list', '--host', name], env=environment)[0].seconds for _ in range(bench.runs + 1)]
    bench.table.figure('refpoint vm list of that host', each[1:], 's', at_most=2)


def pulls(bench, lab):
    """One item each, from the first to the last."""
    say('wmi: Pulls')
    client = Client(lab.about)
    context = context_of(client.enumerate('SELECT * FROM Msvm_StorageAllocationSettingData', 0))
    times = []
    while context:
        start = time.monotonic()
        data = client.pull(context)
        times.append((time.monotonic() - start) * 1e6)
        context = context_of(data)
    tenth = max(len(times) // 10, 1)
    first, last = times[:tenth], times[-tenth:]
    bench.table.figure('a Pull of one item, the last tenth against the first', [statistics.median(last) /
                       statistics.median(first)], 'times', at_most=1.3,
                       detail=f'{len(times)} Pulls; {statistics.median(first):,.0f} us, then '
                              f'{statistics.median(last):,.0f} us')


def start_job(client, service, vm):
    keys = ''.join(f'<w:Selector Name="{name}">{value}</w:Selector>' for name, value in (
        ('CreationClassName', 'Msvm_ComputerSystem'), ('Name', vm)))
    data = client.ask(service, f'{WMI}{service}/CreateSnapshot',
                      f'<p:CreateSnapshot_INPUT xmlns:p="{WMI}{service}"><p:AffectedSystem><a:Address>http://schemas.xmlsoap.org/'
                      f'ws/2004/08/addressing/role/anonymous</a:Address><a:ReferenceParameters><w:ResourceURI>{WMI}'
                      f'Msvm_ComputerSystem</w:ResourceURI><w:SelectorSet>{keys}</w:SelectorSet></a:ReferenceParameters>'
                      f'</p:AffectedSystem><p:SnapshotType>32768</p:SnapshotType></p:CreateSnapshot_INPUT>',
                      f'<w:SelectorSet><w:Selector Name="CreationClassName">{service}</w:Selector></w:SelectorSet>')
    found = re.search(rb'<w:Selector Name="InstanceID">([^<]*)<', data)
    if not found:
        raise Failure(f'no job: {data[-1000:].decode()}')
    return found[1].decode()


def poll(client, job, times=200):
    """The median of one poll, in microseconds."""
    seen = []
    for _ in range(times):
        start = time.monotonic()
        data = client.enumerate(f"SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '{job}'", 10)
        seen.append((time.monotonic() - start) * 1e6)
        if job.encode() not in data:
            raise Failure(f'the job {job} is gone')
    return statistics.median(seen)


def polls(bench, lab):
    """Jobs that fail at once: nothing of the host is in the measurement."""
    say(f'wmi: {JOBS} jobs')
    lab.say('every CreateSnapshot: job fails at 0 %: one of many')
    client, vm = Client(lab.about), lab.about['vms'][0]['id']
    job = start_job(client, 'Msvm_VirtualSystemSnapshotService', vm)
    before, start = poll(client, job), time.monotonic()
    for _ in range(JOBS):
        job = start_job(client, 'Msvm_VirtualSystemSnapshotService', vm)
    each = (time.monotonic() - start) / max(JOBS, 1)
    time.sleep(0.5)
    after = poll(client, job)
    bench.table.figure(f'a poll among {JOBS:,} finished jobs, against one among one', [after / before], 'times',
                       at_most=1.3, detail=f'{before:,.0f} us, then {after:,.0f} us; a job took {each * 1000:.1f} ms to start')


def tool_host(bench, lab):
    """What --host of the tool takes for the lab, and the environment."""
    environment = dict(os.environ, REFPOINT_HOSTS=lab.place.path('wmi-hosts'), LC_ALL='C.UTF-8',
                       REFPOINT_KEYRING=lab.place.path('wmi-keyring'))
    secret = lab.place.path('wmi-secret')
    lab.place.remove('wmi-hosts', 'wmi-keyring')
    with open(secret, 'w', opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(lab.about['password'] + '\n')
    folders = [word for folder in lab.about['folders'].values() for word in ('--map', f'{folder} = {folder}')]
    run([bench.refpoint, 'host', 'add', 'benchlab', lab.about['https'], '--user', lab.about['user'],
         '--password-file', secret, '--ca', lab.about['ca'], *folders], env=environment)
    return 'benchlab', environment


def overhead(bench):
    """The same incremental backups, once by the in-process connection and once by WS-Management."""
    place = bench.disk()
    say('wmi: incremental backups')
    lab = Lab(bench, place, 'overhead', '--vms', '2', '--disks', '1', '--size', '256M', '--written', '16M')
    try:
        name, environment = tool_host(bench, lab)
        repository, seen = place.path('wmi-repository'), {'local': [], 'wmi': []}
        run([bench.refpoint, '-r', repository, 'repo', 'init'], env=environment)
        sides = {'local': ('vm1', 'local:' + lab.about['host']), 'wmi': ('vm2', name)}
        for turn in range(bench.runs + 2):
            for side in list(sides)[::1 if turn % 2 else -1]:
                vm, host = sides[side]
                lab.say(f'now: write 256 of {vm}')
                cost = run([bench.refpoint, '-r', repository, '--host', host, 'backup', vm], env=environment)[0]
                if turn > 1: # the first is a full one, the second warms up
                    seen[side].append(cost.seconds)
        place.remove('wmi-repository')
        more = [a - b for a, b in zip(seen['wmi'], seen['local'])]
        bench.table.figure('what WS-Management adds to an incremental backup', more, 's', at_most=0.5,
                           detail=f'{statistics.median(seen["wmi"]):.2f} s against '
                                  f'{statistics.median(seen["local"]):.2f} s')
    finally:
        lab.end()
