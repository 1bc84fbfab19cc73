#!/usr/bin/python3
"""test-restore.py BOOT-FOLDER BUILD: a guest that starts by itself (UEFI, TPM) is backed up over WMI while it writes,
and restored to the host as another VM: under libvirt, with its settings, its firmware's variables and its TPM's state.
It boots."""

import json, os, sys

import guest
from stage import Stage
from tap import behaviour, equal

# one algorithm for the TPM's measurements, because an emulated processor takes its time for each
TPM = ('<tpm model="tpm-crb"><backend type="emulator" version="2.0"><active_pcr_banks><sha256/></active_pcr_banks>'
       '</backend></tpm>')
stage = Stage('restore', *sys.argv[1:3])
path = stage.path
backed_up = {}


def content(file):
    with open(file, 'rb') as opened:
        return opened.read()


def nvram(name):
    return path('libvirt', 'lib', 'qemu', 'nvram', stage.vm(name)['id'].lower() + '_VARS.fd')


def tpm(uuid):
    return path('libvirt', 'lib', 'swtpm', uuid.lower(), 'tpm2', 'tpm2-00.permall')


def definition(name):
    return guest.text_of(path('libvirt', 'etc', 'qemu', name + '.xml'))


def names():
    return sorted(vm['name'] for vm in stage.ask('vm', 'list', '-H', 'h'))


@behaviour
def a_guest_with_uefi_and_tpm_is_taken_in_runs_and_is_backed_up():
    disks = [guest.make_boot_disk(path('0.raw'), stage.boot, writer='each'), guest.make_disk(path('1.raw'), 1)]
    stage.take_in('web1', disks, boot=False, memory=512, machine='q35',
                  change=lambda xml: xml.replace('<memballoon', TPM + '<memballoon'))
    stage.start_hostd()
    stage.boots('web1', lambda: stage.rp('vm', 'start', 'h/web1'))
    stage.rp('repo', 'init')
    backed_up['acks'] = stage.acknowledged('web1')
    stage.rp('backup', 'h/web1', '--consistency', 'application-only')
    stage.no_complaints('web1')
    backed_up['nvram'], backed_up['tpm'] = content(path('web1', 'nvram')), content(tpm(stage.vm('web1')['id']))
    stage.rp('vm', 'stop', 'h/web1', '--now') # one guest at a time without KVM


@behaviour
def the_restored_vm_has_settings_firmware_tpm_and_disks_of_the_moment():
    # with the remark that its next backup is full
    said = stage.rp('restore', 'web1', '--to-host', 'h/web2', '--new-id', '--folder', path('web2'), '--json',
                    good=(0, 1))
    result = json.loads(said.stdout.splitlines()[-1])
    equal(content(nvram('web2')), backed_up['nvram'])
    equal(content(tpm(result['vm_id'])), backed_up['tpm'])
    xml = definition('web2')
    for part in ("<memory unit='KiB'>524288</memory>", "secure='no'", "bus='virtio'", "model='tpm-crb'",
                 'org.qemu.guest_agent.0'):
        assert part in xml, f'{part} is not in {xml}'
    data = next(file['path'] for file in result['files'] if file['disk'] == 1)
    guest.judged_good(data, application=True, acks=backed_up['acks'])


@behaviour
def a_boot_check_boots_it_without_a_network_and_leaves_nothing_but_a_note():
    before = names()
    outcome = json.loads(stage.rp('restore', 'web1', '--to-host', 'h', '--boot-check', '--boot-limit', '280', '--json')
                         .stdout.splitlines()[-1])
    assert outcome['booted'] and not outcome['remarks'], outcome
    print(f'# the restored guest answered {outcome["seconds"]:.0f} s after its start')
    equal(names(), before)
    equal([name for name in os.listdir(path()) if 'boot-check' in name], [])
    equal([name for name in os.listdir(path('libvirt', 'etc', 'qemu')) if 'boot check' in name], [])
    equal(sum(len(files) for _, _, files in os.walk(path('repository', 'notes'))), 1)
    stage.end_hostd()


sys.exit(stage.run())
