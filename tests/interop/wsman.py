"""WS-Management as a client speaks it: messages as text, answers as trees, and a client that sends them by whatever can
send bytes. It follows the public documents (DSP0226, DSP0227, MS-WSMV), not our code."""

import time, uuid
import xml.etree.ElementTree as xml
from xml.sax.saxutils import escape

from tap import equal

SOAP = 'http://www.w3.org/2003/05/soap-envelope'
ADDRESSING = 'http://schemas.xmlsoap.org/ws/2004/08/addressing'
WSMAN = 'http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd'
ENUMERATION = 'http://schemas.xmlsoap.org/ws/2004/09/enumeration'
TRANSFER = 'http://schemas.xmlsoap.org/ws/2004/09/transfer'
XSI = 'http://www.w3.org/2001/XMLSchema-instance'
WQL = 'http://schemas.microsoft.com/wbem/wsman/1/WQL'
ANONYMOUS = ADDRESSING + '/role/anonymous'
WMI = 'http://schemas.microsoft.com/wbem/wsman/1/wmi/'
V2 = 'root/virtualization/v2'
NAMES = {'s': SOAP, 'a': ADDRESSING, 'w': WSMAN, 'n': ENUMERATION}

# ---- messages --------------------------------------------------------------------------------------------------------


def selector_set(selectors):
    if not selectors:
        return ''
    return '<w:SelectorSet>' + ''.join(f'<w:Selector Name="{name}">{escape(value)}</w:Selector>'
                                       for name, value in selectors.items()) + '</w:SelectorSet>'


def envelope(url, action, resource, body, selectors=None):
    """As python3-winrm and Windows write it."""
    return f'''<?xml version="1.0" encoding="utf-8"?>
<env:Envelope xmlns:env="{SOAP}" xmlns:a="{ADDRESSING}" xmlns:n="{ENUMERATION}" xmlns:w="{WSMAN}"
 xmlns:x="{TRANSFER}" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd" xmlns:xsi="{XSI}"><env:Header>
 <a:To>{url}</a:To><a:ReplyTo><a:Address mustUnderstand="true">{ANONYMOUS}</a:Address></a:ReplyTo>
 <w:MaxEnvelopeSize mustUnderstand="true">512000</w:MaxEnvelopeSize><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>
 <w:Locale mustUnderstand="false" xml:lang="en-US"/><p:DataLocale mustUnderstand="false" xml:lang="en-US"/>
 <w:OperationTimeout>PT20S</w:OperationTimeout><w:ResourceURI mustUnderstand="true">{resource}</w:ResourceURI>
 <a:Action mustUnderstand="true">{action}</a:Action>{selector_set(selectors)}</env:Header>
 <env:Body>{body}</env:Body></env:Envelope>'''


def reference(name, class_name, keys):
    """A REF parameter."""
    return (f'<p:{name}><a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><w:ResourceURI>{WMI}{V2}/{class_name}'
            f'</w:ResourceURI>{selector_set(dict({"__cimnamespace": V2}, **keys))}</a:ReferenceParameters></p:{name}>')


def text(name, value):
    return f'<p:{name}>{escape(str(value))}</p:{name}>'


def embedded(class_name, **properties):
    """An instance as CIM-XML; ints are what the host makes of them, lists arrays."""
    def item(name, value):
        if isinstance(value, list):
            return (f'<PROPERTY.ARRAY NAME="{name}" TYPE="string"><VALUE.ARRAY>' +
                    ''.join(f'<VALUE>{escape(one)}</VALUE>' for one in value) + '</VALUE.ARRAY></PROPERTY.ARRAY>')
        kind = 'boolean' if isinstance(value, bool) else 'uint8' if isinstance(value, int) else 'string'
        return f'<PROPERTY NAME="{name}" TYPE="{kind}"><VALUE>{escape(str(value))}</VALUE></PROPERTY>'

    return f'<INSTANCE CLASSNAME="{class_name}">' + ''.join(item(*pair) for pair in properties.items()) + '</INSTANCE>'


# ---- answers ---------------------------------------------------------------------------------------------------------


def local(element):
    return element.tag.rpartition('}')[2]


def plain(element):
    """An element's value: None, text, or the selectors of a reference."""
    if element.get(f'{{{XSI}}}nil') == 'true':
        return None
    selectors = element.findall('.//w:SelectorSet/w:Selector', NAMES)
    if selectors:
        return {one.get('Name'): one.text or '' for one in selectors}
    return ''.join(element.itertext())


class Object(dict):
    """An instance: scalars, and arrays as lists. `kind`: its class."""

    def __init__(self, element):
        super().__init__()
        self.kind = local(element)
        for child in element:
            name, value = local(child), plain(child)
            if name in self:
                self[name] = (self[name] if isinstance(self[name], list) else [self[name]]) + [value]
            else:
                self[name] = value

    def array(self, name):
        value = self.get(name)
        return [] if value is None else value if isinstance(value, list) else [value]


class Fault(Exception):
    """`code`: its subcode, "n:InvalidEnumerationContext"."""

    def __init__(self, root):
        self.code = root.findtext('.//s:Subcode/s:Value', '', NAMES)
        super().__init__(f'{self.code}: {root.findtext(".//s:Reason/s:Text", "", NAMES)}')


class Refused(Exception):
    """A method that returned neither 0 nor 4096."""

    def __init__(self, method, value):
        self.value = int(value)
        super().__init__(f'{method} returned {value}')


class JobFailed(Exception):
    def __init__(self, job):
        self.job = job
        super().__init__(job['ErrorDescription'])


class Client:
    """`send(text)` gives (HTTP status, text)."""

    def __init__(self, url, send):
        self.url, self.send = url, send

    def ask(self, *message):
        status, answer = self.send(envelope(self.url, *message))
        root = xml.fromstring(answer)
        if root.find('s:Body/s:Fault', NAMES) is not None:
            raise Fault(root)
        equal(status, 200)
        return root

    def query(self, wql, space=V2, batch=50):
        """Enumerate and as many Pulls as it takes."""
        resource = f'{WMI}{space}/*'
        body = (f'<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>{batch}</w:MaxElements>'
                f'<w:Filter Dialect="{WQL}">{escape(wql)}</w:Filter></n:Enumerate>')
        root, found = self.ask(ENUMERATION + '/Enumerate', resource, body), []
        while True:
            body = root.find('s:Body', NAMES)[0]
            for items in body.findall('w:Items', NAMES) + body.findall('n:Items', NAMES):
                found += map(Object, items)
            if body.find('w:EndOfSequence', NAMES) is not None or body.find('n:EndOfSequence', NAMES) is not None:
                return found
            context = escape(body.findtext('n:EnumerationContext', '', NAMES))
            root = self.ask(ENUMERATION + '/Pull', resource,
                            f'<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>'
                            f'<n:MaxElements>{batch}</n:MaxElements></n:Pull>')

    def one(self, wql):
        found = self.query(wql)
        equal(len(found), 1)
        return found[0]

    def invoke(self, class_name, selectors, method, *parameters):
        """The out parameters. A reference is its selectors."""
        resource = f'{WMI}{V2}/{class_name}'
        body = f'<p:{method}_INPUT xmlns:p="{resource}">{"".join(parameters)}</p:{method}_INPUT>'
        root = self.ask(f'{resource}/{method}', resource, body, selectors)
        out = Object(root.find('s:Body', NAMES)[0])
        equal(out.kind, f'{method}_OUTPUT')
        if out['ReturnValue'] not in ('0', '4096'):
            raise Refused(method, out['ReturnValue'])
        return out

    def service(self, class_name, method, *parameters):
        """A method of a singleton, whose name a client gets to know by asking. Its job is waited for. Returns the out
        parameters and the job."""
        keys = {name: self.one(f'SELECT * FROM {class_name}')[name]
                for name in ('CreationClassName', 'Name', 'SystemCreationClassName', 'SystemName')}
        out = self.invoke(class_name, keys, method, *parameters)
        return out, self.wait(out['Job']['InstanceID']) if out['ReturnValue'] == '4096' else None

    def job(self, instance):
        return self.one(f"SELECT * FROM CIM_ConcreteJob WHERE InstanceID = '{instance}'")

    def wait(self, instance, seconds=60):
        """As xHyper-VBackup polls: while JobState is 4."""
        end = time.monotonic() + seconds
        while (job := self.job(instance))['JobState'] == '4':
            assert time.monotonic() < end, f'the job {instance} does not end: {dict(job)}'
            time.sleep(0.05)
        if job['JobState'] not in ('7', '32768'):
            raise JobFailed(job)
        return job

    def result(self, job, class_name):
        """What a job made: exactly one (bareos insists on it)."""
        path = f'{job.kind}.InstanceID="{job["InstanceID"]}"'
        return self.one(f'ASSOCIATORS OF {{{path}}} WHERE ResultClass = {class_name}')


def vm_keys(vm_id):
    return {'CreationClassName': 'Msvm_ComputerSystem', 'Name': vm_id}


def vm_path(vm_id):
    return f'Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="{vm_id}"'


def quoted(instance):
    """An id within a path."""
    return instance.replace('\\', '\\\\')


def full_path(class_name, instance):
    """As xHyper-VBackup writes paths into string properties."""
    return f'\\\\LABHOST\\root\\virtualization\\v2:{class_name}.InstanceID="{quoted(instance)}"'
