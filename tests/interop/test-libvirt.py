#!/usr/bin/python3
"""test-libvirt.py HOSTD SCHEMA: what libvirt's Hyper-V driver sends (facts 3.1: 9.0's src/hyperv over openwsman,
recorded), one virsh command after the other, against the lab; and the answers judged as its code does, which takes less than the
standards allow. SCHEMA is the folder of class declarations: libvirt's own are generated from such."""

import base64, glob, http.client, os, re, sys, urllib.parse, uuid
import xml.etree.ElementTree as xml

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
from lab import Lab
from tap import behaviour, equal, run_all

lab = Lab(sys.argv[1], '--basic-in-clear', '--rate', '0', '--size', '16M', '--running', '2')
CIMV2, V2 = (f'http://schemas.microsoft.com/wbem/wsman/1/wmi/{space}/' for space in
             ('root/cimv2', 'root/virtualization/v2'))
NIL = '{http://www.w3.org/2001/XMLSchema-instance}nil'
N = '{http://schemas.xmlsoap.org/ws/2004/09/enumeration}'
WSMAN_PREFIX = 'http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd'
VM1, VM3 = lab.vm('vm1')['id'].lower(), lab.vm('vm3')['id'].lower() # virsh asks with lower case


# ---- openwsman: one connection, Basic; the first request goes out whole, without Authorization, and again after a 401


class Wire:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        self.path, self.headers = parts.path, {'Content-Type': 'application/soap+xml;charset=utf-8',
                                               'User-Agent': 'Openwsman 2.6'}

    def post(self, body, login=None):
        headers = dict(self.headers)
        if login:
            headers['Authorization'] = 'Basic ' + base64.b64encode(':'.join(login).encode()).decode()
        self.connection.request('POST', self.path, body.encode(), headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode(), answer


wire = Wire(lab.clear)
login = (lab.user, lab.password)


def message(action, resource, body, selectors=()):
    chosen = ''.join(f'<wsman:Selector Name="{name}">{value}</wsman:Selector>' for name, value in selectors)
    chosen = f'<wsman:SelectorSet>{chosen}</wsman:SelectorSet>' if chosen else ''
    return f'''<?xml version="1.0" encoding="UTF-8"?>
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:wsman="{WSMAN_PREFIX}">
  <s:Header>
    <wsa:Action s:mustUnderstand="true">{action}</wsa:Action>
    <wsa:To s:mustUnderstand="true">{lab.clear}</wsa:To>
    <wsman:ResourceURI s:mustUnderstand="true">{resource}</wsman:ResourceURI>
    <wsa:MessageID s:mustUnderstand="true">uuid:{uuid.uuid4()}</wsa:MessageID>
    <wsa:ReplyTo>
      <wsa:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</wsa:Address>
    </wsa:ReplyTo>
    {chosen}
  </s:Header>
  <s:Body>
    {body}
  </s:Body>
</s:Envelope>'''


def exchange(*arguments):
    """hypervVerifyResponse: 200, 400 and 500 have a message; a fault in it is an error."""
    status, text, _ = wire.post(message(*arguments), login)
    assert status in (200, 400, 500) and text, f'HTTP status {status}'
    assert ':Fault>' not in text, text
    return text


# ---- hyperv_wmi.c ----------------------------------------------------------------------------------------------------


def declarations(folder):
    """{class: {property: is an array}}, of its superclasses too."""
    bare = {}
    for path in glob.glob(folder + '/*.mof'):
        with open(path) as file:
            text = re.sub(r'//.*', '', file.read())
        space = re.search(r'#pragma namespace\("([^"]*)"\)', text)
        for name, above, body in re.findall(r'class (\w+)(?: : (\w+))?\s*\{(.*?)\};', text, re.S):
            body = re.sub(r'"(\\.|[^"\\])*"|\{[^{}]*\}', '', body)
            found = {}
            for statement in body.split(';'):
                words = re.match(r'\s*(?:\[[^\]]*\]\s*)?\w+\s+(?:REF\s+)?(\w+)\s*(\[\])?\s*(=|$)', statement)
                if words and '(' not in statement:
                    found[words[1]] = bool(words[2])
            bare[name, space and space[1]] = (above, found)

    def whole(name, space):
        above, found = bare.get((name, space), (None, None))
        if found is None:
            above, found = bare.get((name, None), (None, {}))
        return dict(whole(above, space) if above else {}, **found)

    return {name: whole(name, space) for name, space in bare}


classes = declarations(sys.argv[2])


def deserialize(element, space, class_name):
    """The generated structures: every scalar exactly once, in the namespace that is the class's URI, byte for byte; of
    arrays any number, but a nil element of one is dereferenced (dumpxml crashes)."""
    uri = f'{{{space}{class_name}}}'
    equal(element.tag, uri + class_name)
    found = {}
    for name, array in classes[class_name].items():
        items = element.findall(uri + name)
        if array:
            assert not any(item.get(NIL) == 'true' for item in items), f'{name}[] is nil'
        else:
            assert len(items) == 1, f'not enough ({len(items)} < 1) instances of element {name}'
        values = [None if item.get(NIL) == 'true' else ''.join(item.itertext()) for item in items]
        found[name] = values if array else values[0]
    return found


def enumerate_pull(query, space, class_name, pull_class=None, mode=''):
    """hypervEnumAndPull: WQL without MaxElements; then Pulls, which name another resource, each of which must bring
    exactly one item: it reads only the first and would lose the rest."""
    text = exchange('http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate', space + '*', f'''<wsen:Enumerate xmlns:wsen="http://schemas.xmlsoap.org/ws/2004/09/enumeration">{mode}
      <wsman:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">{query.replace('"', '&quot;')}</wsman:Filter>
    </wsen:Enumerate>''')
    context = xml.fromstring(text).findtext(f'.//{N}EnumerationContext')
    items = []
    while context:
        text = exchange('http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull', space + (pull_class or class_name),
                        f'''<wsen:Pull xmlns:wsen="http://schemas.xmlsoap.org/ws/2004/09/enumeration">
      <wsen:EnumerationContext>{context}</wsen:EnumerationContext>
    </wsen:Pull>''')
        response = xml.fromstring(text).find(f'.//{N}PullResponse')
        pulled = response.find(f'{N}Items')
        assert len(pulled) <= 1, f'{len(pulled)} items in one Pull'
        items += list(pulled)
        context = response.findtext(f'{N}EnumerationContext') # hypervGetEnumContext: NULL ends
        assert (response.find(f'{N}EndOfSequence') is None) == bool(context)
    return items if mode else [deserialize(item, space, class_name) for item in items]


def xpath(text, path):
    """ws_xml_* with only those prefixes that the Envelope and the first child of its Body declare, in the message's
    spelling."""
    envelope = re.search(r'<[\w:]*Envelope\b[^>]*>', text)[0]
    first = re.search(r'<[\w:]*Body\b[^>]*>\s*(<[^>]*>)', text)[1]
    prefixes = dict(re.findall(r'xmlns:(\w+)="([^"]*)"', envelope + first))
    root = xml.fromstring(text)
    assert path.startswith('/s:Envelope/')
    equal(root.tag, f'{{{prefixes["s"]}}}Envelope')
    return root.find(path[len('/s:Envelope/'):], prefixes)


def invoke(class_name, selectors, method, parameters, space=V2):
    """hypervInvokeMethod; returns the job's id when there is one."""
    text = exchange(f'{space}{class_name}/{method}', space + class_name,
                    f'<p:{method}_INPUT xmlns:p="{space}{class_name}">{parameters}</p:{method}_INPUT>', selectors)
    value = xpath(text, f'/s:Envelope/s:Body/p:{method}_OUTPUT/p:ReturnValue')
    assert value is not None, f'Could not lookup ReturnValue for {method} invocation'
    if value.text == '0':
        return None
    equal(value.text, '4096')
    job = xpath(text, f'/s:Envelope/s:Body/p:{method}_OUTPUT/p:Job/a:ReferenceParameters/w:SelectorSet/'
                      f"w:Selector[@Name='InstanceID']")
    assert job is not None, 'Could not lookup Job'
    while True:
        jobs = enumerate_pull(f"SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '{job.text}'", V2, 'Msvm_ConcreteJob')
        equal(len(jobs), 1)
        if jobs[0]['JobState'] not in ('2', '3', '4', '6'):
            break
    equal(jobs[0]['JobState'], '7')
    return job.text


def one(query, class_name, space=V2):
    found = enumerate_pull(query, space, class_name)
    equal(len(found), 1)
    return found[0]


def machine(vm_id):
    return one(f"SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER AND Name = '{vm_id}'", 'Msvm_ComputerSystem')


def settings(vm_id):
    return one(f'ASSOCIATORS OF {{Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="{vm_id}"}} WHERE '
               f'AssocClass = Msvm_SettingsDefineState ResultClass = Msvm_VirtualSystemSettingData',
               'Msvm_VirtualSystemSettingData')


def components(instance, class_name):
    return enumerate_pull(f'ASSOCIATORS OF {{Msvm_VirtualSystemSettingData.InstanceID="{instance}"}} WHERE AssocClass = '
                          f'Msvm_VirtualSystemSettingDataComponent ResultClass = {class_name}', V2, class_name)


# ---- virsh -----------------------------------------------------------------------------------------------------------


@behaviour
def the_first_request_without_authorization_gets_401_and_goes_through_when_repeated():
    query = message('http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate', CIMV2 + '*', '<wsen:Enumerate '
                    'xmlns:wsen="http://schemas.xmlsoap.org/ws/2004/09/enumeration"><wsman:Filter Dialect="http://schemas.'
                    'microsoft.com/wbem/wsman/1/WQL">SELECT * FROM Win32_OperatingSystem </wsman:Filter></wsen:Enumerate>')
    status, _, answer = wire.post(query)
    equal(status, 401)
    assert 'Basic realm="WSMAN"' in answer.headers.get_all('WWW-Authenticate')
    equal(wire.post(query, login)[0], 200)


@behaviour
def an_empty_post_gets_401():
    status, _, answer = Wire(lab.http).post('')
    equal(status, 401)
    assert 'Negotiate' in answer.headers.get_all('WWW-Authenticate')


@behaviour
def basic_is_neither_offered_nor_taken_in_clear_where_nobody_asked_for_it():
    status, _, answer = Wire(lab.http).post('<x/>', login)
    equal(status, 401)
    assert not any(one.startswith('Basic') for one in answer.headers.get_all('WWW-Authenticate'))


@behaviour
def connect_learns_the_version_and_the_host():
    product = one('SELECT * FROM Win32_ComputerSystemProduct ', 'Win32_ComputerSystemProduct', CIMV2)
    assert uuid.UUID(product['UUID']).int
    system = one('SELECT * FROM Win32_OperatingSystem ', 'Win32_OperatingSystem', CIMV2)
    assert re.fullmatch(r'10\.0\.\d+', system['Version']), system['Version']


@behaviour
def hostname_and_nodeinfo():
    host = one('SELECT * FROM Win32_ComputerSystem ', 'Win32_ComputerSystem', CIMV2)
    assert host['Name'] and int(host['TotalPhysicalMemory']) > 0
    cpus = enumerate_pull(f"ASSOCIATORS OF {{Win32_ComputerSystem.Name='{host['Name']}'}} WHERE AssocClass = "
                          f"Win32_ComputerSystemProcessor ResultClass = Win32_Processor", CIMV2, 'Win32_Processor')
    assert cpus and all(int(cpu['NumberOfCores']) > 0 for cpu in cpus)


@behaviour
def list_all_has_every_machine_and_not_the_host():
    found = enumerate_pull('SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER ', V2, 'Msvm_ComputerSystem')
    equal(sorted(vm['ElementName'] for vm in found), ['vm1', 'vm2', 'vm3'])
    equal({vm['Name'] for vm in found}, {vm['id'] for vm in lab.vms})


@behaviour
def list_has_those_that_run():
    found = enumerate_pull('SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER AND (EnabledState != 0 and '
                           'EnabledState != 3 and EnabledState != 32769) ', V2, 'Msvm_ComputerSystem')
    equal(sorted(vm['ElementName'] for vm in found), ['vm1', 'vm2'])


@behaviour
def domstate_asks_by_name_and_by_id_in_lower_case():
    by_name = one("SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER AND ElementName = 'vm1'",
                  'Msvm_ComputerSystem')
    equal(by_name['Name'], VM1.upper())
    equal(machine(VM1), by_name)
    equal(machine(VM3)['EnabledState'], '3')


@behaviour
def dominfo_finds_settings_processors_and_memory():
    own = settings(VM1)
    equal(own['InstanceID'].lower(), f'microsoft:{VM1}')
    cpus, memory = (components(own['InstanceID'], f'Msvm_{kind}SettingData') for kind in ('Processor', 'Memory'))
    equal((len(cpus), len(memory)), (1, 1))
    assert int(cpus[0]['VirtualQuantity']) > 0 and int(memory[0]['VirtualQuantity']) > 0


@behaviour
def dumpxml_finds_controllers_drives_and_images():
    instance = settings(VM1)['InstanceID']
    resources = components(instance, 'Msvm_ResourceAllocationSettingData')
    images = [image for image in components(instance, 'Msvm_StorageAllocationSettingData')
              if image['ResourceType'] == '31']
    equal(len(images), 2)

    def parent(child):
        return next(one for one in resources
                    if child['Parent'].endswith('"' + one['InstanceID'].replace('\\', '\\\\') + '"'))

    for image in images: # hypervDomainDefParseStorageExtent, …: an image's Parent is a drive, a drive's a controller
        drive = parent(image)
        equal(drive['ResourceType'], '17')
        assert drive['AddressOnParent'].isdigit()
        equal(parent(drive)['ResourceType'], '6')
        assert image['HostResource'][0].endswith('.vhdx')
    for kind in ('SerialPort', 'EthernetPortAllocation'):
        components(instance, f'Msvm_{kind}SettingData')


@behaviour
def start_and_destroy_wait_for_their_jobs():
    for state in ('2', '3'):
        invoke('Msvm_ComputerSystem', (('CreationClassName', 'Msvm_ComputerSystem'), ('Name', VM3)),
               'RequestStateChange', f'<p:RequestedState>{state}</p:RequestedState>')
        equal(machine(VM3)['EnabledState'], state)
        if state == '2':
            lab.say('now: write 1 of vm3') # its guest does not keep it from ending


@behaviour
def autostart_gives_one_key_of_four_and_an_instance_in_cdata():
    invoke('Msvm_VirtualSystemManagementService', (('CreationClassName', 'Msvm_VirtualSystemManagementService'),),
           'ModifySystemSettings', f'<p:SystemSettings><![CDATA[<?xml version="1.0"?><INSTANCE CLASSNAME='
           f'"Msvm_VirtualSystemSettingData"><PROPERTY NAME="InstanceID" TYPE="string"><VALUE>'
           f'{settings(VM3)["InstanceID"]}</VALUE></PROPERTY><PROPERTY NAME="AutomaticStartupAction" TYPE="uint16"><VALUE>4'
           f'</VALUE></PROPERTY></INSTANCE>]]></p:SystemSettings>')
    equal(settings(VM3)['AutomaticStartupAction'], '4')


@behaviour
def vcpucount_gets_an_answer():
    for found in enumerate_pull("SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE "
                                "'Microsoft:Definition%Maximum'", V2, 'Msvm_ProcessorSettingData'):
        assert int(found['VirtualQuantity']) > 0


@behaviour
def undefine_gives_the_reference_back_as_it_came():
    items = enumerate_pull(f"SELECT * FROM Msvm_ComputerSystem WHERE Name = '{VM3}' ", V2, 'Msvm_ComputerSystem',
                           'Msvm_VirtualSystemManagementService',
                           '<wsman:EnumerationMode>EnumerateEPR</wsman:EnumerationMode>')
    equal(len(items), 1)
    own = {'a': 'http://schemas.xmlsoap.org/ws/2004/08/addressing'}
    address, parameters = items[0].find('a:Address', own), items[0].find('a:ReferenceParameters', own)
    invoke('Msvm_VirtualSystemManagementService', (('CreationClassName', 'Msvm_VirtualSystemManagementService'),),
           'DestroySystem', '<p:AffectedSystem>' + xml.tostring(address, 'unicode') + xml.tostring(parameters, 'unicode') +
           '</p:AffectedSystem>')
    equal(enumerate_pull(f"SELECT * FROM Msvm_ComputerSystem WHERE Name = '{VM3}' ", V2, 'Msvm_ComputerSystem'), [])


@behaviour
def the_lab_ends():
    equal(lab.end(), (0, False))


sys.exit(run_all())
