#!/usr/bin/python3
"""test-winrm.py HOSTD: backup products' flows A to F (facts 1.5) against the lab, sent by python3-winrm: NTLM, every
body sealed. Disks are read with qemu-img and libvhdi, and what they hold is judged by lab_guest.py."""

import os, re, subprocess, sys, tempfile, time

# python3-winrm's NTLM needs MD4, which OpenSSL 3 has in a provider of its own; it reads its configuration when loaded.
settings = tempfile.NamedTemporaryFile('w', suffix='.cnf')
settings.write('openssl_conf = init\n[init]\nproviders = all\n[all]\ndefault = on\nlegacy = on\n[on]\nactivate = 1\n')
settings.flush()
os.environ['OPENSSL_CONF'] = settings.name

import pyvhdi
from winrm.exceptions import WinRMTransportError
from winrm.transport import Transport

sys.path.append(os.path.join(os.path.dirname(__file__), '..'))
import lab_guest
from lab import Lab
from tap import behaviour, equal, run_all, wait_for
from wsman import *

lab = Lab(sys.argv[1], '--rate', '0', '--disks', '2', '--size', '16M', '--written', '256K')
scratch = tempfile.TemporaryDirectory(prefix='lab-winrm-')
SNAPSHOTS, POINTS = 'Msvm_VirtualSystemSnapshotService', 'Msvm_VirtualSystemReferencePointService'
MANAGEMENT, IMAGES = 'Msvm_VirtualSystemManagementService', 'Msvm_ImageManagementService'
SETTINGS = 'Msvm_VirtualSystemSettingData'
VM = lab.vm('vm1')['id']


def sender(user, password):
    transport = Transport(lab.http, username=user, password=password, auth_method='ntlm', message_encryption='always',
                          read_timeout_sec=60)

    def send(message):
        try:
            return 200, transport.send_message(message)
        except WinRMTransportError as error:
            return error.code, error.response_text

    return send


host = Client(lab.http, sender(lab.user, lab.password))
state = {} # what one behaviour leaves for the next


# ---- steps of the flows ----------------------------------------------------------------------------------------------


def snapshots(vm=VM):
    return host.query(f'ASSOCIATORS OF {{{vm_path(vm)}}} WHERE AssocClass=Msvm_SnapshotOfVirtualSystem '
                      f'ResultClass=CIM_VirtualSystemSettingData')


def snapshot(consistency=2, vm=VM):
    wanted = embedded('Msvm_VirtualSystemSnapshotSettingData', ConsistencyLevel=consistency, GuestBackupType=1,
                      IgnoreNonSnapshottableDisks=True)
    out, job = host.service(SNAPSHOTS, 'CreateSnapshot',
                            reference('AffectedSystem', 'Msvm_ComputerSystem', vm_keys(vm)),
                            text('SnapshotSettings', wanted), text('SnapshotType', 32768))
    equal(out['ReturnValue'], '4096')
    equal(out['ResultingSnapshot'], None)
    return host.result(job, SETTINGS)


def disks(instance):
    """The disk images of settings, by the slot that their names end with."""
    found = host.query(f'ASSOCIATORS OF {{{SETTINGS}.InstanceID="{quoted(instance)}"}} WHERE '
                       f'AssocClass=Msvm_VirtualSystemSettingDataComponent '
                       f'ResultClass=Msvm_StorageAllocationSettingData')
    images = [one for one in found if one['ResourceType'] == '31' and
              one['ResourceSubType'] == 'Microsoft:Hyper-V:Virtual Hard Disk']
    return sorted(images, key=lambda one: one['InstanceID'].split('\\')[-2])


def convert(frozen):
    _, job = host.service(SNAPSHOTS, 'ConvertToReferencePoint',
                          reference('AffectedSnapshot', SETTINGS, {'InstanceID': frozen['InstanceID']}),
                          text('ReferencePointSettings', ''))
    point = host.result(job, 'Msvm_VirtualSystemReferencePoint')
    wait_merge()
    return point


def destroy(service, method, parameter, class_name, instance):
    host.service(service, method, reference(parameter, class_name, {'InstanceID': instance}))


def destroy_point(point):
    destroy(POINTS, 'DestroyReferencePoint', 'AffectedReferencePoint', 'Msvm_VirtualSystemReferencePoint',
            point['InstanceID'])


def destroy_snapshot(one, vm=VM):
    destroy(SNAPSHOTS, 'DestroySnapshot', 'AffectedSnapshot', SETTINGS, one['InstanceID'])
    wait_merge(vm)


def points(vm=VM):
    return host.query(f'ASSOCIATORS OF {{{vm_path(vm)}}} WHERE AssocClass=Msvm_ReferencePointOfVirtualSystem')


def activity(vm=VM):
    status = host.one(f"SELECT * FROM Msvm_ComputerSystem WHERE Name = '{vm.lower()}'").array('OperationalStatus')
    return status[1] if len(status) > 1 else '0'


def wait_merge(vm=VM):
    """The job's end is not the merge's: OperationalStatus[1] is 32772 until then."""
    wait_for(lambda: activity(vm) == '0', 60, 'the end of a merge')


def read(path):
    """Everything that a dynamic VHDX file holds, by qemu-img. Its host keeps it open, for reading."""
    raw = os.path.join(scratch.name, 'disk.raw')
    subprocess.run(['qemu-img', 'convert', '--image-opts', '-O', 'raw',
                    f'driver=vhdx,file.driver=file,file.locking=off,file.filename={path}', raw], check=True, timeout=60)
    with open(raw, 'rb') as file:
        return file.read()


def read_chain(path, parent):
    """Everything that a differencing VHDX file holds above its parent, by libvhdi."""
    base, top = pyvhdi.file(), pyvhdi.file()
    base.open(parent)
    top.open(path)
    top.set_parent(base)
    data = top.read_buffer_at_offset(top.get_media_size(), 0)
    top.close()
    base.close()
    return data


def changes(path, limit):
    """Ranges, as products ask for them: until the whole size is processed."""
    size, at, ranges = 16 << 20, 0, []
    while at < size:
        out, _ = host.service(IMAGES, 'GetVirtualDiskChanges', text('Path', path), text('LimitId', limit),
                              text('ByteOffset', at), text('ByteLength', size - at))
        starts, lengths = out.array('ChangedByteOffsets'), out.array('ChangedByteLengths')
        equal(len(starts), len(lengths))
        ranges += [(int(a), int(b)) for a, b in zip(starts, lengths)]
        assert int(out['ProcessedByteLength']) > 0
        at += int(out['ProcessedByteLength'])
    return ranges


def export(folder, frozen, base=None):
    defaults = host.one(f'ASSOCIATORS OF {{{vm_path(VM)}}} WHERE AssocClass=Msvm_SystemExportSettingData '
                        f'ResultClass=Msvm_VirtualSystemExportSettingData')
    wanted = dict(InstanceID=defaults['InstanceID'] or '', CopySnapshotConfiguration=3, CopyVmRuntimeInformation=False,
                  CopyVmStorage=True, CreateVmExportSubdirectory=False, BackupIntent=0,
                  SnapshotVirtualSystem=full_path(SETTINGS, frozen['InstanceID']))
    if base:
        wanted['DifferentialBackupBase'] = full_path('Msvm_VirtualSystemReferencePoint', base['InstanceID'])
    os.makedirs(folder)
    host.service(MANAGEMENT, 'ExportSystemDefinition', reference('ComputerSystem', 'Msvm_ComputerSystem', vm_keys(VM)),
                 text('ExportDirectory', folder),
                 text('ExportSettingData', embedded('Msvm_VirtualSystemExportSettingData', **wanted)))


def files(folder, ending):
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
                  if name.lower().endswith(ending))


# ---- A: full backup --------------------------------------------------------------------------------------------------


@behaviour
def a_host_is_asked_for_a_machine_by_its_name_and_for_leftovers():
    equal(host.one("SELECT * FROM Msvm_ComputerSystem WHERE ElementName='vm1'")['Name'], VM)
    equal(host.one(f"select * from msvm_computersystem where name='{VM.lower()}'")['ElementName'], 'vm1')
    equal([one for one in snapshots() if one['VirtualSystemType'].endswith('Snapshot:Recovery')], [])


@behaviour
def a_snapshot_for_backup_is_the_only_result_of_its_job():
    frozen = state['frozen'] = snapshot()
    equal(frozen['VirtualSystemType'], 'Microsoft:Hyper-V:Snapshot:Recovery')
    equal(frozen['VirtualSystemIdentifier'], VM)
    equal([one['InstanceID'] for one in snapshots()], [frozen['InstanceID']])


@behaviour
def a_snapshot_is_renamed_by_an_instance_as_text():
    name = 'backup <1> & "more"'
    host.service(MANAGEMENT, 'ModifySystemSettings',
                 text('SystemSettings', embedded(SETTINGS, InstanceID=state['frozen']['InstanceID'], ElementName=name)))
    equal(snapshots()[0]['ElementName'], name)


@behaviour
def the_frozen_disks_show_one_moment_whatever_the_guest_writes_later():
    lab.say('now: write 10 of vm1')
    images = disks(state['frozen']['InstanceID'])
    equal(len(images), 2)
    state['full'] = [read(one.array('HostResource')[0]) for one in images]
    equal([lab_guest.moment(data) for data in state['full']], [64, 64])


@behaviour
def a_snapshot_becomes_a_reference_point_with_an_id_for_every_disk():
    point = state['point'] = convert(state['frozen'])
    equal(point['VirtualSystemIdentifier'], VM)
    equal(len(point.array('VirtualDiskIdentifiers')), 2)
    for one in point.array('ResilientChangeTrackingIdentifiers'):
        assert re.fullmatch(r'rctX:[0-9a-f]{8}(:[0-9a-f]{4}){3}:[0-9a-f]{12}:[0-9a-f]{8}', one), one
    equal(len(point.array('ResilientChangeTrackingIdentifiers')), 2)
    equal(snapshots(), [])
    for one in point.array('VirtualDiskIdentifiers'):
        found = host.one(f"SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID='{quoted(one)}'")
        equal(found['InstanceID'], one)


# ---- B: incremental --------------------------------------------------------------------------------------------------


@behaviour
def what_changed_since_a_reference_point_and_no_more_makes_the_new_state_of_the_old():
    lab.say('now: write 7 of vm1')
    frozen = state['frozen'] = snapshot()
    images = disks(frozen['InstanceID'])
    for i, one in enumerate(images):
        path = one.array('HostResource')[0]
        now, copy = read(path), bytearray(state['full'][i])
        ranges = changes(path, state['point'].array('ResilientChangeTrackingIdentifiers')[i])
        assert 0 < sum(length for _, length in ranges) <= 18 * 65536, ranges # 17 writes and the mark
        for start, length in ranges:
            copy[start:start + length] = now[start:start + length]
        equal(lab_guest.moment(copy), 64 + 17)
        assert copy == now


@behaviour
def an_unknown_id_makes_the_client_fall_back():
    path = disks(state['frozen']['InstanceID'])[0].array('HostResource')[0]
    known = state['point'].array('ResilientChangeTrackingIdentifiers')[0]
    for limit in (known[:5] + '00000000' + known[13:], 'rctX:nonsense'):
        try:
            changes(path, limit)
        except (Refused, JobFailed):
            continue
        raise AssertionError(f'{limit} was taken')


@behaviour
def the_older_reference_point_goes_after_the_newer_is_there():
    newer = convert(state['frozen'])
    equal(len(points()), 2)
    destroy_point(state['point'])
    equal([one['InstanceID'] for one in points()], [newer['InstanceID']])
    state['point'] = newer


# ---- C: export -------------------------------------------------------------------------------------------------------


@behaviour
def an_export_has_whole_disks():
    frozen = state['frozen'] = snapshot()
    folder = state['exported'] = os.path.join(lab.folders['export'], 'full')
    export(folder, frozen)
    exported = files(folder, '.vhdx')
    equal(len(exported), 2)
    equal([lab_guest.moment(read(path)) for path in exported], [81, 81])
    equal(len(files(folder, '.vmcx')), 1)
    state['point'] = convert(frozen)


@behaviour
def a_differential_export_has_disks_that_hold_what_changed():
    lab.say('now: write 5 of vm1')
    frozen = snapshot()
    folder = os.path.join(lab.folders['export'], 'differential')
    export(folder, frozen, state['point'])
    tops = [path for path in files(folder, 'vhdx')]
    equal(len(tops), 2)
    bases = files(state['exported'], '.vhdx')
    moments = [lab_guest.moment(read_chain(top, base)) for top, base in zip(tops, bases)]
    equal(moments, [86, 86])
    for top in tops:
        assert os.path.getsize(top) < os.path.getsize(bases[0]) + (4 << 20)
    destroy_snapshot(frozen)


# ---- D: import -------------------------------------------------------------------------------------------------------


@behaviour
def an_exported_machine_is_planned_corrected_checked_and_realized():
    definition = files(state['exported'], '.vmcx')[0]
    _, job = host.service(MANAGEMENT, 'ImportSystemDefinition', text('SystemDefinitionFile', definition),
                          text('GenerateNewSystemIdentifier', 'true'))
    planned = host.result(job, 'Msvm_PlannedComputerSystem')
    assert planned['Name'] != VM
    path = f'Msvm_PlannedComputerSystem.CreationClassName="Msvm_PlannedComputerSystem",Name="{planned["Name"]}"'
    own = host.one(f'ASSOCIATORS OF {{{path}}} WHERE AssocClass=Msvm_SettingsDefineState ResultClass={SETTINGS}')
    moved = os.path.join(lab.folders['disks'], 'restored')
    os.makedirs(moved)
    for one in disks(own['InstanceID']):
        old = one.array('HostResource')[0]
        new = os.path.join(moved, os.path.basename(old))
        os.rename(files(state['exported'], os.path.basename(old).lower())[0], new)
        wanted = embedded('Msvm_StorageAllocationSettingData', InstanceID=one['InstanceID'], HostResource=[new])
        host.service(MANAGEMENT, 'ModifyResourceSettings', text('ResourceSettings', wanted))
    host.service(MANAGEMENT, 'ModifySystemSettings',
                 text('SystemSettings', embedded(SETTINGS, InstanceID=own['InstanceID'], ElementName='restored')))
    plan = reference('PlannedSystem', 'Msvm_PlannedComputerSystem',
                     {'CreationClassName': 'Msvm_PlannedComputerSystem', 'Name': planned['Name']})
    host.service(MANAGEMENT, 'ValidatePlannedSystem', plan)
    _, job = host.service(MANAGEMENT, 'RealizePlannedSystem', plan)
    made = host.result(job, 'Msvm_ComputerSystem') if job else \
        host.one("SELECT * FROM Msvm_ComputerSystem WHERE ElementName='restored'")
    equal(made['ElementName'], 'restored')
    equal(host.query('SELECT * FROM Msvm_PlannedComputerSystem'), [])
    equal([lab_guest.moment(read(path)) for path in files(moved, '.vhdx')], [81, 81])
    state['restored'] = made['Name']


@behaviour
def a_restored_machine_starts_and_is_destroyed_with_what_belongs_to_it():
    name = state['restored']
    for requested, reached in ((2, '2'), (3, '3')):
        out = host.invoke('Msvm_ComputerSystem', vm_keys(name), 'RequestStateChange', text('RequestedState', requested))
        if out['ReturnValue'] == '4096':
            host.wait(out['Job']['InstanceID'])
        equal(host.one(f"SELECT * FROM Msvm_ComputerSystem WHERE Name='{name}'")['EnabledState'], reached)
    host.service(MANAGEMENT, 'DestroySystem', reference('AffectedSystem', 'Msvm_ComputerSystem', vm_keys(name)))
    equal(host.query("SELECT * FROM Msvm_ComputerSystem WHERE ElementName='restored'"), [])


# ---- E and F: what goes wrong ----------------------------------------------------------------------------------------


@behaviour
def a_guest_that_refuses_to_freeze_is_backed_up_crash_consistently():
    lab.say('next CreateSnapshot: freeze refused')
    try:
        snapshot(consistency=1)
        raise AssertionError('it froze')
    except JobFailed as error:
        assert 'refused to freeze' in error.job['ErrorDescription'], dict(error.job)
    equal(snapshots(), [])
    destroy_snapshot(snapshot(consistency=2))


@behaviour
def a_job_that_fails_in_the_middle_tells_why_and_leaves_nothing():
    lab.say('next ExportSystemDefinition: job fails at 30 %: The device <D:> & "it" are not ready. (0x80070015)')
    frozen = state['frozen'] = snapshot()
    folder = os.path.join(lab.folders['export'], 'failed')
    try:
        export(folder, frozen)
        raise AssertionError('it was exported')
    except JobFailed as error:
        job = error.job
    equal(job['JobState'], '10')
    assert int(job['ErrorCode']) != 0
    assert 'The device <D:> & "it" are not ready. (0x80070015)' in job['ErrorDescription'], dict(job)
    assert job['ErrorSummaryDescription']
    out = host.invoke(job.kind, {'InstanceID': job['InstanceID']}, 'GetErrorEx')
    details = Object(xml.fromstring(out.array('Errors')[0]))
    assert any('not ready' in (value or '') for value in details.values()) or 'not ready' in out.array('Errors')[0]
    equal(files(folder, ''), [])
    destroy_snapshot(frozen)


@behaviour
def a_full_folder_fails_the_export_and_leaves_nothing():
    lab.say('next ExportSystemDefinition: disk full at 50 %')
    frozen = snapshot()
    folder = os.path.join(lab.folders['export'], 'too-small')
    try:
        export(folder, frozen)
        raise AssertionError('it was exported')
    except JobFailed as error:
        assert 'not enough space' in error.job['ErrorDescription'], dict(error.job)
    equal(files(folder, ''), [])
    destroy_snapshot(frozen)


@behaviour
def a_method_is_refused_when_the_script_says_so_once():
    lab.say('next CreateSnapshot of vm1: returns 32775')
    destroy_snapshot(snapshot(vm=lab.vm('vm2')['id']), lab.vm('vm2')['id']) # another machine is not meant
    try:
        snapshot()
        raise AssertionError('it was made')
    except Refused as error:
        equal(error.value, 32775)
    destroy_snapshot(snapshot())


@behaviour
def a_job_hangs_where_it_should_and_is_cancelled():
    lab.say('next CreateSnapshot: job hangs at 60 %')
    lab.say('next CreateSnapshot: job hangs at 60 % for 0.3 s')
    wanted = embedded('Msvm_VirtualSystemSnapshotSettingData', ConsistencyLevel=2)
    service = host.one(f'SELECT * FROM {SNAPSHOTS}')
    out = host.invoke(SNAPSHOTS, {'Name': service['Name']}, 'CreateSnapshot',
                      reference('AffectedSystem', 'Msvm_ComputerSystem', vm_keys(VM)), text('SnapshotSettings', wanted),
                      text('SnapshotType', 32768))
    job = out['Job']['InstanceID']
    end = time.monotonic() + 60
    while (seen := host.job(job))['PercentComplete'] != '60':
        assert time.monotonic() < end, dict(seen)
        time.sleep(0.05)
    time.sleep(0.3)
    seen = host.job(job) # it stays there
    equal((seen['JobState'], seen['PercentComplete']), ('4', '60'))
    out = host.invoke(seen.kind, {'InstanceID': job}, 'RequestStateChange', text('RequestedState', 4))
    end = time.monotonic() + 60
    while (seen := host.job(job))['JobState'] == '4':
        assert time.monotonic() < end, dict(seen)
        time.sleep(0.05)
    equal(snapshots(), [])
    destroy_snapshot(snapshot()) # the second fault ends by itself


@behaviour
def a_reference_point_that_vanished_is_found_missing_and_a_full_backup_follows():
    lab.say('next CreateSnapshot: loses every point')
    assert points()
    frozen = snapshot()
    equal(points(), [])
    state['point'] = convert(frozen)


@behaviour
def after_a_lost_answer_the_snapshot_is_found_by_its_type_and_removed():
    lab.say('next CreateSnapshot: drops')
    try:
        snapshot()
        raise AssertionError('the connection was not dropped')
    except (Fault, Refused, JobFailed):
        raise
    except Exception as error: # whatever requests makes of it
        assert 'onnection' in repr(error), repr(error)
    global host
    host = Client(lab.http, sender(lab.user, lab.password))
    end = time.monotonic() + 60
    while not (left := [one for one in snapshots() if one['VirtualSystemType'].endswith('Snapshot:Recovery')]):
        assert time.monotonic() < end, 'it was not carried out'
        time.sleep(0.05)
    wait_merge()
    destroy_snapshot(left[0])
    equal(snapshots(), [])


@behaviour
def who_may_only_read_is_told_access_denied():
    reader = next(user for user in lab.users if user['access'] == 'read')
    limited = Client(lab.http, sender(reader['user'], reader['password']))
    equal(len(limited.query('SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER')), 3)
    try:
        limited.service(SNAPSHOTS, 'CreateSnapshot', reference('AffectedSystem', 'Msvm_ComputerSystem', vm_keys(VM)),
                        text('SnapshotType', 32768))
        raise AssertionError('it was made')
    except Refused as error:
        equal(error.value, 32769)
    equal(snapshots(), [])


@behaviour
def a_wrong_query_is_a_fault_and_the_connection_goes_on():
    for wrong, code in (('SELECT FROM', 'CannotProcessFilter'), ('SELECT * FROM Msvm_Nothing', '')):
        try:
            host.query(wrong)
            raise AssertionError(f'{wrong} was answered')
        except Fault as fault:
            assert code in fault.code, fault
    equal(len(host.query('SELECT Name FROM Msvm_ComputerSystem')), 4)


@behaviour
def nothing_that_should_have_happened_has_not():
    equal(lab.say('now: list faults'), [])


@behaviour
def the_lab_ends_with_its_input_and_leaves_nothing():
    equal(lab.end(), (0, False))


sys.exit(run_all())
