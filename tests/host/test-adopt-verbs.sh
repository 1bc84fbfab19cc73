#!/bin/bash
# test-adopt-verbs.sh REFPOINT: vm adopt and vm release, as an administrator types them. The hypervisor is one of files.
. "$(dirname "$0")/../lib.sh"
refpoint=$(realpath "$1")
export REFPOINT_HOST=local:$scratch/host
cd "$scratch" || exit 1
tools=$PATH # where refpoint finds other programs
rp() { env PATH="$tools" "$refpoint" "$@"; }
uuid=4dea22b3-1d52-d8f3-2516-782e98ab3fa0

# says STATUS TEXT VERB…: that exit status, and one line on standard error with that text.
says()
{
    local status=0 wanted=$1 text=$2
    shift 2
    rp "$@" >says.out 2>says.err || status=$?
    equal "$status" "$wanted" && equal "$(wc -l <says.err)" 1 && grep -qF -e "$text" says.err || { cat says.err; return 1; }
}

mkdir hv images
truncate -s 4M images/a.raw
printf 'some content' | dd of=images/a.raw conv=notrunc status=none
cat >hv/$uuid.xml <<END
<domain type='kvm'>
  <name>web1</name>
  <uuid>$uuid</uuid>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='$scratch/images/a.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
    </disk>
  </devices>
</domain>
END
cp hv/$uuid.xml before.xml

dry_run()
{
    rp vm adopt web1 --connect "fake:$scratch/hv" --dry-run >said
    grep -q "^disk vda *taken *$scratch/images/a.raw (raw, 4.0 MiB)" said
    grep -q "becomes $scratch/images/a.vhdx" said
    grep -q "^cdrom sda *left" said
    rp vm adopt web1 --connect "fake:$scratch/hv" --dry-run --json >json
    jq -e '.adopted == false and .items[0].verdict == "taken" and .items[1].verdict == "left"' json
    equal "$(ls images)" a.raw
    cmp hv/$uuid.xml before.xml
    equal "$(rp vm list --json | jq length)" 0
}

# As diff -u shows them.
shown()
{
    jq -rj .before json >one
    jq -rj .after json >two
    cmp one before.xml
    diff -u one two | tail -n +3 >expected
    sed -n '/^@@/,$p' said | diff - expected
}

adopt_and_release()
{
    rp vm adopt web1 --connect "fake:$scratch/hv" --name web | grep -q "domain web1 is VM web now"
    says 2 "there is a VM" vm adopt web1 --connect "fake:$scratch/hv"
    rp vm list --json | jq -e '.[0].name == "web"'
    qemu-img compare -f raw -F vhdx images/a.raw images/a.vhdx
    rp vm release web --dry-run | grep -q "becomes $scratch/images/a.raw (raw), which has its old content now"
    says 3 "--yes" vm release web
    rp vm release web --yes --json | jq -e '.released and .disks[0].format == "raw"'
    cmp hv/$uuid.xml before.xml
    equal "$(ls images)" a.raw
}

refusals()
{
    says 2 "no domain nobody" vm adopt nobody --connect "fake:$scratch/hv"
    says 2 "cannot be reached" vm adopt web1 --connect "fake:$scratch/nowhere"
    sed -i "s/<target dev='vda'/<shareable\/>&/" hv/$uuid.xml
    says 2 "disk vda $scratch/images/a.raw: is shared by several VMs" vm adopt web1 --connect "fake:$scratch/hv"
    says 2 "is shared by several VMs" vm adopt web1 --connect "fake:$scratch/hv" --dry-run
    grep -q "^disk vda *refused" says.out
    cp before.xml hv/$uuid.xml
    rp vm adopt web1 --connect "fake:$scratch/hv" -q
    says 2 "no format for a release" vm release web1 --format vmdk
    echo running >hv/$uuid.state
    says 2 "is running: shut it down" vm release web1
    rm hv/$uuid.state
    rp vm create plain --disk images/a.raw -q
    says 2 "no hypervisor runs it" vm release plain
}

without_qemu_img()
{
    mkdir bin
    qemu-img convert -q -f raw -O qcow2 images/a.raw images/b.qcow2
    sed "s/$uuid/${uuid/4/5}/; s/web1/web2/; s/type='raw'/type='qcow2'/; s/a.raw/b.qcow2/" before.xml >"hv/${uuid/4/5}.xml"
    tools=$scratch/bin
    says 2 "qemu-img is not installed: qcow2 images need it (Debian: qemu-utils)" vm adopt web2 --connect "fake:$scratch/hv"
}

behaviour "a dry run tells what becomes of each disk, and changes nothing" dry_run
behaviour "the change of the definition is shown as diff shows it" shown
behaviour "a domain is adopted under a name and released" adopt_and_release
behaviour "what cannot be done is one line that says why" refusals
behaviour "without qemu-img the message names the package" without_qemu_img
