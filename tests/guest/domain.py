"""The test guest as a domain of libvirt, and a libvirt to run it."""

import os
from xml.sax.saxutils import escape, quoteattr

import guest

# of a libvirt that root runs: no daemons besides, no other users, no namespaces
QEMU_CONF = '''stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
user = "root"
group = "root"
swtpm_user = "root"
swtpm_group = "root"
'''


def disk_xml(disk, number):
    driver = f'<driver name="qemu" type={quoteattr(disk.format)} cache="none" discard="unmap"/>'
    if disk.source.startswith('nbd+unix:'):
        name, _, path = disk.source[len('nbd+unix:///'):].partition('?socket=')
        host = f'<host transport="unix" socket={quoteattr(path)}/>'
        source, kind = f'<source protocol="nbd" name={quoteattr(name)}>{host}</source>', 'network'
    else:
        source, kind = f'<source file={quoteattr(os.path.abspath(disk.source))}/>', 'file'
    serial = f'<serial>{escape(disk.serial)}</serial>' if disk.serial else ''
    letters = {'virtio': 'vd', 'scsi': 'sd', 'ide': 'hd'}[disk.bus]
    return (f'    <disk type="{kind}" device="disk">{driver}{source}'
            f'<target dev="{letters}{"abcdefgh"[number]}" bus="{disk.bus}"/>{serial}</disk>')


def embedded_libvirt(folder):
    """The URI of a libvirt of its own in a folder: its embedded driver, which one process at a time can have open."""
    os.makedirs(os.path.join(folder, 'etc'), exist_ok=True)
    with open(os.path.join(folder, 'etc', 'qemu.conf'), 'w') as file:
        file.write(QEMU_CONF)
    return 'qemu:///embed?root=' + os.path.abspath(folder)


def domain_xml(name, folder, boot, images, memory=256, uuid=None, machine='pc', **switches):
    """Its definition; console, acks and the socket of its shell are in `folder`. boot and switches: see guest.Guest."""
    folder = os.path.abspath(folder)
    os.makedirs(folder, exist_ok=True)
    if boot:
        boot = os.path.abspath(boot)
        start = (f'<kernel>{escape(boot)}/vmlinuz</kernel><initrd>{escape(boot)}/initramfs</initrd>\n'
                 f'    <cmdline>{escape(guest.command_line(**switches))}</cmdline>')
    else:
        start = (f'<loader readonly="yes" type="pflash">{guest.FIRMWARE}</loader>\n    <nvram '
                 f'template="{guest.FIRMWARE_VARIABLES}">{escape(folder)}/nvram</nvram><boot dev="hd"/>')
    scsi = '<controller type="scsi" model="virtio-scsi"/>' if any(disk.bus == 'scsi' for disk in images) else ''
    return f'''<domain type="qemu">
  <name>{escape(name)}</name>{f"<uuid>{uuid}</uuid>" if uuid else ""}
  <memory unit="MiB">{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine={quoteattr(machine)}>hvm</type>
    {start}
  </os>
  <features><acpi/></features>
  <cpu mode="maximum"/>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices>
{chr(10).join(disk_xml(disk, number) for number, disk in enumerate(images))}
    <controller type="usb" model="none"/>{scsi}
    <serial type="file"><source path={quoteattr(folder + "/console")} append="on"/><target port="0"/></serial>
    <channel type="unix"><target type="virtio" name="{guest.AGENT_PORT}"/></channel>
    <channel type="file">
      <source path={quoteattr(folder + "/acks")} append="on"/><target type="virtio" name="{guest.ACKS_PORT}"/>
    </channel>
    <channel type="unix">
      <source mode="bind" path={quoteattr(folder + "/shell")}/><target type="virtio" name="{guest.SHELL_PORT}"/>
    </channel>
    <memballoon model="none"/>
  </devices>
</domain>
'''
