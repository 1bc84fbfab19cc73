#!/usr/bin/env bash
# Somebody else changes the files of a VM's disk, on real files and by the programs that people have: the next backup reads all of
# the disk, says why, and what it restores is what the disk holds, as QEMU reads it. And they read a file that is being merged.
. "$(dirname "$0")/../person.sh" "$1"
size=50331648
data=6291456 # of it, in three blocks of 2 MiB

{
    head -c $((data - 1000000)) /dev/urandom >web1.raw
    truncate -s $size web1.raw
    cp web1.raw other.raw
    rp repo init --no-encryption
    rp vm create web1 --disk web1.raw
    rp vm create other --disk other.raw
} >/dev/null
file=$(rp vm show web1 --json | jq -r '.disks[0].path')
other=$(rp vm show other --json | jq -r '.disks[0].path')
last_block=$(($(stat -c %s "$file") - 2097152)) # the VHDX writer puts a block behind the others

start() { rp vm start web1; uri=$(rp vm show web1 --json | jq -r '.disks[0].nbd_uri'); }
summary() { tail -1 out.json | jq -r "$1"; }
backup() { rp backup web1 --json >out.json 2>said; }

# restores_exactly: the last point is what the disk holds.
restores_exactly()
{
    rm -rf restored
    rp restore web1 --to restored -O raw
    case $file in
        *.vhdx) qemu-img compare -f raw restored/web1-disk0.raw -F vhdx "$file" ;;
        *) # QEMU reads no differencing disks
            start
            qemu-img compare -f raw -F raw restored/web1-disk0.raw "$uri"
            rp vm stop web1
            ;;
    esac
}

# A change is missed when this is read and nothing else.
based()
{
    backup
    equal "$(summary .kind) $(summary .bytes_read)" "incremental 0"
}

# noticed STATUS PATTERN: the next backup has read all that the disk has, and says or records why.
noticed()
{
    status "$1" backup || { cat said; false; }
    cat said
    grep -q -- "$2" said out.json
    equal "$(summary .bytes_read)" $data
    restores_exactly
}

written_into()
{
    based
    head -c 4096 /dev/urandom | dd of="$file" bs=4096 seek=$((last_block / 4096 + 7)) conv=notrunc status=none
    status 1 qemu-img compare -f raw restored/web1-disk0.raw -F vhdx "$file"
    noticed 0 "not as it was left"
    based
}
behaviour "a backup that nothing is wrong with says nothing" eval 'backup; restores_exactly; based; equal "$(cat said)" ""'
behaviour "dd into a block of a stopped VM's disk" written_into

written_with_its_times_put_back()
{
    based
    touch -r "$file" times
    head -c 4096 /dev/urandom | dd of="$file" bs=4096 seek=$((last_block / 4096 + 9)) conv=notrunc status=none
    touch -r times "$file"
    noticed 0 "not as it was left"
}
behaviour "dd, and the file's modification time put back" written_with_its_times_put_back

put_back()
{
    based
    cp -p "$file" older.vhdx
    start
    qemu-io -f raw -c 'write -P 7 1M 2M' -c flush "$uri"
    rp vm stop web1
    backup
    equal "$(summary '.disks[0].bytes_changed')" 2097152
    cp -p older.vhdx "$file"
    noticed 0 "not as it was left"
}
behaviour "an older copy of the disk put back, its tracking left" put_back

by_loop_device()
{
    local loop
    based
    loop=$(losetup -f --show -o $last_block "$file")
    head -c 4096 /dev/urandom | dd of="$loop" bs=4096 seek=11 conv=fsync status=none || { losetup -d "$loop"; false; }
    losetup -d "$loop"
    noticed 0 "not as it was left"
}
why_not=
if [ "$(id -u)" != 0 ]; then
    why_not="needs root"
elif ! loop=$(losetup -f --show web1.raw 2>&1); then
    why_not="no loop device: ${loop##*$'\n'}"
else
    losetup -d "$loop"
fi
if [ "$why_not" ]; then
    skip "a write through a loop device over a part of the file" "$why_not"
else
    behaviour "a write through a loop device over a part of the file" by_loop_device
fi

# QEMU's programs lock bytes of the file, and the disk service has all of it.
second_writer()
{
    based
    start
    says "lock" 1 timeout 60 qemu-io -f vhdx -c 'write -P 9 0 64k' "$file"
    says "lock" 1 timeout 60 qemu-nbd -f vhdx -k "$scratch/second" "$file"
    says "lock" 2 qemu-img compare -f vhdx -F vhdx "$file" "$other" # not even to read
    rp vm stop web1
    backup
    equal "$(summary .bytes_read)" 0
    restores_exactly
}
behaviour "a second writer on the disk of a running VM is refused" second_writer

under_a_checkpoint()
{
    local parent=$file
    rp checkpoint create web1
    file=$(rp vm show web1 --json | jq -r '.disks[0].path')
    [ "$file" != "$parent" ]
    based
    head -c 4096 /dev/urandom | dd of="$parent" bs=4096 seek=$((last_block / 4096 + 13)) conv=notrunc status=none
    noticed 0 "not as it was left"
    rp checkpoint delete web1 "$(rp checkpoint list web1 --json | jq -r '.[0].id')"
    rp vm start web1
    wait_for 60 eval 'file=$(rp vm show web1 --json | jq -r ".disks[0].path"); [ "$file" = '"$parent"' ]'
    rp vm stop web1
    backup
    restores_exactly
}
behaviour "dd into the file under a checkpoint" under_a_checkpoint
file=$(rp vm show web1 --json | jq -r '.disks[0].path')

# ---- readers of a file that is to be merged into

# a_checkpoint_and_more: $parent is under the leaf from now on, and `expected` has the disk.
a_checkpoint_and_more()
{
    parent=$file
    rp checkpoint create web1
    qemu-img convert -f vhdx -O raw "$parent" frozen.raw
    cp --sparse=always frozen.raw expected
    head -c 65536 /dev/zero | tr '\0' "$1" | dd of=expected bs=64k seek=19 conv=notrunc status=none
}
serve() # a socket, as qemu-nbd is told of the file
{
    rm -f "$1"
    qemu-nbd -r -t -k "$PWD/$1" "${@:2}" &
    reader=$!
    wait_for 60 test -S "$1"
}
# change_and_merge STATUS LETTER: the checkpoint goes, while the VM runs.
change_and_merge()
{
    start
    head -c 65536 /dev/zero | tr '\0' "$2" >piece
    qemu-io -f raw -c "write -s piece $((19 * 65536)) 64k" -c flush "$uri"
    status "$1" rp checkpoint delete web1 "$(rp checkpoint list web1 --json | jq -r '.[0].id')" 2>said || { cat said; false; }
}
merged() { [ "$(rp vm show web1 --json | jq -r '.disks[0].path')" = "$parent" ]; }
merged_right()
{
    wait_for 60 merged
    qemu-img compare -f raw -F raw expected "$uri"
    rp vm stop web1
    qemu-img compare -f raw -F vhdx expected "$parent"
    backup
    restores_exactly
}

read_under_a_merge()
{
    a_checkpoint_and_more A
    serve reader.sock -f vhdx "$parent"
    change_and_merge 1 A
    cat said
    grep -q "$(basename "$parent"): is being read by pid $reader (qemu-nbd)" said
    fails merged
    qemu-img compare -f raw -F raw frozen.raw "nbd+unix:///?socket=$PWD/reader.sock" # it reads what was frozen
    qemu-img compare -f raw -F raw expected "$uri"
    kill $reader
    wait $reader || true
    merged_right
}
behaviour "a reader of the file under a checkpoint is named, and the merge waits until it is closed" read_under_a_merge

# It is not seen, and what it reads is anybody's guess: but the disk is right.
read_without_locks()
{
    a_checkpoint_and_more B
    serve reader.sock --image-opts "driver=vhdx,read-only=on,file.driver=file,file.locking=off,file.filename=$parent"
    change_and_merge 0 B
    kill $reader
    wait $reader || true
    merged_right
}
behaviour "a reader that takes no lock does no harm to a merge" read_without_locks

tracking_of_another_disk()
{
    local kind
    rp backup other
    rp backup other
    based
    for kind in rct mrt; do cp -p "$other.$kind" "$file.$kind"; done
    noticed 1 "starts anew"
    based # its own tracking has begun again
}
behaviour "the tracking files of another disk beside this one" tracking_of_another_disk

tracking_of_another_program()
{
    local kind
    based
    for kind in rct mrt; do
        head -c 70000 /dev/urandom >"their.$kind"
        cp "their.$kind" "$file.$kind"
    done
    noticed 1 "not a tracking file of ours"
    start
    qemu-io -f raw -c 'write -P 3 2M 1M' -c flush "$uri"
    rp vm stop web1
    noticed 0 "left alone"
    for kind in rct mrt; do cmp "their.$kind" "$file.$kind"; done
    rm "$file.rct"
    noticed 0 "was not tracked at the last backup"
    based # the .mrt that is still there stands in nobody's way
    cmp their.mrt "$file.mrt"
}
behaviour "tracking files of another program are left alone" tracking_of_another_program
for vm in web1 other; do rp vm stop $vm || true; done >/dev/null 2>&1 # should a behaviour have failed before that
