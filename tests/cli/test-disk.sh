#!/usr/bin/env bash
# refpoint disk convert, judged by qemu-img.
. "$(dirname "$0")/../person.sh" "$1"

truncate -s 70000000 a.raw # not a whole MiB
head -c 9000000 /dev/urandom | dd of=a.raw bs=1M seek=3 conv=notrunc status=none
dd if=/dev/zero of=a.raw bs=1M seek=20 count=10 conv=notrunc status=none
head -c 5000 /dev/urandom | dd of=a.raw bs=1000 seek=69995 conv=notrunc status=none

there_and_back()
{
    rp disk convert a.raw a.vhdx
    qemu-img compare a.raw a.vhdx
    rp disk convert --block-size 8M a.vhdx b.vhdx --json | tail -1 | jq -e '.type == "summary" and .path == "b.vhdx" and .format == "vhdx"'
    qemu-img compare a.raw b.vhdx
    qemu-img info b.vhdx | grep -q 'cluster_size: 8388608'
    rp disk convert -f vhdx -O raw b.vhdx c.raw -q >out
    [ ! -s out ]
    cmp -n 70000000 a.raw c.raw
    equal "$(stat -c %s c.raw)" 70000128 # whole sectors
    [ "$(du -k c.raw | cut -f 1)" -lt 24000 ]
}
behaviour "disk convert makes a VHDX of a raw image, another one of that, and a raw image again" there_and_back

refused()
{
    says "exist" 2 rp disk convert a.raw b.vhdx
    says "neither vhdx nor raw" 3 rp disk convert -O qcow2 a.raw x
    says "nothing to convert" 3 rp disk convert -O raw a.raw x
    says "power of two" 3 rp disk convert --block-size 3M a.raw x
    says "power of two" 3 rp disk convert -O raw --block-size 2M a.vhdx x
    says "No such file" 2 rp disk convert nosuch x
    qemu-img create -q -f qcow2 q.qcow2 1M
    says "qcow2" 2 rp disk convert q.qcow2 x
    says "not a VHDX" 2 rp disk convert -f vhdx a.raw x
    [ ! -e x ]
}
behaviour "disk convert overwrites nothing and takes no image for what it is not" refused

stopped()
{
    local signal got job
    head -c 800M /dev/zero | tr '\0' x >large.raw
    for signal in INT TERM; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            env --default-signal=INT "$refpoint" disk convert large.raw large.vhdx 2>message & # bash has it ignored
            job=$!
            until [ -s large.vhdx ] || ! kill -0 $job 2>/dev/null; do :; done
            kill -s $signal $job || true
            got=0
            wait $job || got=$?
            [ $got -eq 0 ] || break
            rm large.vhdx # it was through before the signal
        done
        cat message
        equal $got 2
        grep -q stopped message
        [ ! -e large.vhdx ]
    done
    rm large.raw
}
# Something of that size takes a while, unless it is shared.
if [ "$(stat -f -c %T .)" != xfs ] && [ "$(stat -f -c %T .)" != btrfs ]; then
    behaviour "a conversion that is interrupted leaves nothing behind" stopped
else
    skip "a conversion that is interrupted leaves nothing behind" "it is over at once on this file system"
fi

used()
{
    rp vm create web1 --disk a.vhdx
    rp vm start web1
    says "in use" 2 rp disk convert -O raw a.vhdx x
    [ ! -e x ]
    rp vm stop web1
    rp disk convert -O raw a.vhdx x
    cmp x c.raw
}
behaviour "a disk that a VM writes to is not converted" used

compacted()
{
    local file uri before
    rp vm create web2 --disk a.raw
    rp vm start web2
    uri=$(rp vm show web2 --json | jq -r '.disks[0].nbd_uri')
    rp repo init -r repo --no-encryption
    rp backup web2 -r repo
    qemu-io -f raw -d unmap -c 'write -P 7 60M 1M' -c 'discard 2M 4M' "$uri"
    file=$(rp vm show web2 --json | jq -r '.disks[0].path')
    says "in use" 2 rp disk compact "$file"
    rp vm stop web2
    rp disk convert -O raw "$file" before.raw
    before=$(stat -c %s "$file")
    rp disk compact "$file" --dry-run | grep -q "would have 4.0 MiB given back"
    equal "$(stat -c %s "$file")" "$before"
    rp disk compact "$file" --json | tail -1 | jq -e ".type == \"summary\" and .before == $before and .after == $((before - 4194304))"
    equal "$(stat -c %s "$file")" $((before - 4194304))
    rp disk compact "$file" | grep -q "nothing to give back"
    qemu-img check "$file"
    qemu-img compare "$file" before.raw
    # its change tracking went along
    rp backup web2 -r repo --json | tail -1 | jq -e '.kind == "incremental" and .bytes_read < 6000000'
    rp restore web2 -r repo --to restored -O raw
    cmp before.raw restored/web2-disk0.raw
}
behaviour "disk compact gives space back, and the next backup is incremental and right" compacted
for vm in web1 web2; do rp vm stop $vm || true; done >/dev/null 2>&1 # should a behaviour have failed before that
