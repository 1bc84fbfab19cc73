#!/usr/bin/env bash
# The program as a person uses it: help, misuse, passphrases, JSON, names that are meant to hurt.
. "$(dirname "$0")/../person.sh" "$1"
verbs() { rp --help | sed -n '/^Global/q; s/^  \([a-z]\+\( [a-z]\+\)\?\)   *[^ ].*/\1/p'; }

every_verb_has_help()
{
    local verb count=0 dry=
    while read -r verb; do
        # shellcheck disable=SC2086
        rp $verb --help >help
        grep -q "^Usage: refpoint $verb" help
        grep -q "^Examples:" help
        grep -q "^  refpoint $verb" help
        grep -q "^Exit status" help
        awk 'length($0) > 130 { print; bad = 1 } END { exit bad }' help
        grep -q -- --dry-run help && dry="$dry, $verb"
        count=$((count + 1))
    done < <(verbs)
    [ $count -ge 18 ]
    rp --help | grep -q -- "--dry-run .*(${dry#, })$"
}
behaviour "every verb has a help text with usage and examples" every_verb_has_help
behaviour "a noun alone shows its commands" eval 'rp vm --help | grep -q "vm create" && rp repo --help | grep -q "repo init"'
behaviour "the version is printed" eval 'rp --version | grep -q "^refpoint [0-9]"'

misuse()
{
    says "no command" 3 rp
    says "unknown command" 3 rp frobnicate
    says "unknown option --frob" 3 rp list --frob
    says "which VM" 3 rp backup -r x
    says "to DIR" 3 rp restore web1
    says "which of them" 3 rp restore web1 --to x --to-host here
    says "goes with --to-host" 3 rp restore web1 --to x --new-id
    says "goes with --boot-check" 3 rp restore web1 --to-host here --boot-limit 9
    says "nothing would ever be written" 3 rp restore web1 --to x --limit-rate 0
    says "which of them" 3 rp list web1 --vm web1
    says "goes with --to:" 3 rp restore web1 --to-host here -O raw
    says "none of virtual-disk" 3 rp backup web1 --reader smb
    says "neither vhdx nor raw" 3 rp restore web1 --to x -O qcow2
    says "not a size" 3 rp backup web1 --limit-rate fast
    says "is not a number" 3 rp backup web1 --threads 0
    says "none of crash, application and application-only" 3 rp backup web1 --consistency always
    says "too many arguments" 3 rp check now
    says "no dry run" 3 rp repo init --dry-run
    says "no dry run" 3 rp check --dry-run # it marks damage
    says "not an address" 3 rp vm list -H ssh://somewhere
    ( unset REFPOINT_REPOSITORY; says "no repository named" 3 rp list )
}
behaviour "wrong usage is told in one line, with exit status 3" misuse

no_host()
{
    says "there is no host" 2 rp vm list -H "local:$scratch/typo"
    says "there is no host" 2 rp vm show "local:$scratch/typo/web1"
    test ! -e typo
    truncate -s 1M made.raw
    rp vm create made -H "local:$scratch/fresh" --disk made.raw
    rp vm list -H "local:$scratch/fresh" | grep -q ^made
    says "and no host" 3 rp vm list -H "local:$scratch/fresh/made"
    says "and no host" 3 rp vm create other -H "local:$scratch/fresh/made" --disk made.raw
    test ! -e fresh/made
}
behaviour "a folder with no host in it does not become one by looking at it, nor by a VM's name in its place" no_host

no_repository()
{
    says "repo" 2 rp list
    test ! -e repo
    says "repo" 2 rp check
}
behaviour "a repository that is not there is an error, and is not made" no_repository

passphrases()
{
    printf 'secret\nsecond line\n' >pass
    printf '\n' >empty
    says "passphrase is empty" 2 rp repo init --password-file empty
    says "passphrase is empty" 2 env REFPOINT_PASSWORD= "$refpoint" repo init
    says "No such file" 2 rp repo init --password-file nosuch
    says "passphrase" 3 setsid -w "$refpoint" repo init </dev/null
    [ ! -e repo/config ]
    rp repo init --password-file pass >out
    grep -q encrypted out
    says "already" 2 rp repo init --password-file pass
    rp repo info --password-file pass >/dev/null
    REFPOINT_PASSWORD_FILE=pass rp repo info >/dev/null
    REFPOINT_PASSWORD=secret rp repo info >/dev/null
    says "assphrase" 2 env REFPOINT_PASSWORD=wrong "$refpoint" repo info
    # the file on the command line wins over the environment
    REFPOINT_PASSWORD=wrong REFPOINT_PASSWORD_FILE=nosuch rp repo info --password-file pass >/dev/null
    absent secret $(find repo cache -type f)
}
behaviour "a passphrase comes from a file or the environment, never empty, and is stored nowhere" passphrases

prompt()
{
    # script gives the program a terminal of its own; what is typed must not come back
    types secret "$refpoint repo info --json"
    grep -q '"encrypted": true' typed
    grep -q 'Passphrase:' typed
    absent secret typed
}
if command -v script >/dev/null; then
    behaviour "a passphrase that is typed is not shown" prompt
else
    skip "a passphrase that is typed is not shown" "script is not installed"
fi

plain()
{
    rp repo init -r plain --no-encryption --json | jq -e '.encrypted == false and (.id | length == 36)'
    rp repo info -r plain --json | jq -e '.encrypted == false and .points == 0'
    rp list -r plain --json | jq -e '. == []'
    rp check -r plain
    rp check -r plain --json | tail -1 | jq -e '.type == "summary" and .problems == 0'
}
behaviour "an unencrypted repository is an explicit choice" plain

# Somebody who can write to the folder puts a repository in the clear where the encrypted one was.
swapped()
{
    says "not encrypted" 2 env REFPOINT_PASSWORD=secret "$refpoint" list -r plain
    says "not encrypted" 2 env REFPOINT_PASSWORD_FILE=pass "$refpoint" list -r plain
    says "not encrypted" 2 rp list -r plain --password-file pass
    rp list -r plain >/dev/null
}
behaviour "who gives a passphrase is not served by a repository in the clear" swapped

# Whoever can write to the folder chooses the names in it.
hostile_object()
{
    mkdir -p plain/points
    echo x >"plain/points/$(printf 'x\033]0;owned\007')"
    status 1 rp list -r plain 2>message
    rm plain/points/x*
    cat -v message
    grep -q 'x\\x1b' message
    absent "$(printf '\033')" message
}
behaviour "names of objects in a repository cannot write to the terminal" hostile_object
export REFPOINT_REPOSITORY=$scratch/plain # from here on: quicker without scrypt

# ---- a VM whose name is meant to hurt, and a day of backups ----------------------------------------------------------
hostile=$(printf '../../x@1:2 "q"\xe2\x80\xae')
make_vms()
{
    truncate -s 8M a.raw
    seq 1 200000 | dd of=a.raw conv=notrunc bs=64k seek=16 2>/dev/null
    rp vm create web1 --disk a.raw --disk a.raw
    rp vm create "$hostile" --disk a.raw
}
behaviour "VMs are made for the tests that follow" make_vms

day()
{
    says "no VM\|not found\|nosuch" 2 rp backup nosuch
    rp repo init -r several --no-encryption
    for other in nosuch "--vm nosuch"; do
        # shellcheck disable=SC2086
        status 2 rp backup -r several "$hostile" $other >out 2>message
        cat message
        equal "$(wc -l <message)" 2
        grep -q "^refpoint: backup nosuch: " message
        grep -qx "refpoint: backup: 1 of 2 backups failed" message
    done
    rm -r several
    rp backup web1 --dry-run | grep -q "disk 1 .* in full: first backup"
    rp list --json | jq -e '. == []'
    rp backup web1 >out
    cat out
    grep -q "^web1: full backup .* read" out
    rp backup web1 --json >out
    tail -1 out | jq -e '.type == "summary" and .kind == "incremental" and .bytes_read == 0 and .reason == null and .merge_pending == false'
    rp backup web1 -q >out
    [ ! -s out ]
    rp backup --vm web1 --full >/dev/null
    rp backup web1 "$hostile" >out
    equal "$(grep -c "backup .* in .* s: read" out)" 2
    absent $'[\001-\011\013-\037\177]' out
    absent $'\xe2\x80\xae' out
}
behaviour "backups are full, then incremental, say so, and are quiet when asked" day

listing()
{
    rp list --json | jq -e 'length == 6 and all(.[]; has("id") and has("vm") and has("time") and has("kind") and has("reason"))
        and .[0].kind == "full" and .[0].reason == "first backup of this VM" and .[1].kind == "incremental" and .[1].reason == null'
    rp list web1 --json | jq -e 'length == 5 and all(.[]; .vm == "web1")'
    rp list --vm "$hostile" --json | jq -e --arg name "$hostile" 'length == 1 and .[0].vm == $name'
    rp list >out
    equal "$(wc -l <out)" 7
    absent $'[\001-\011\013-\037\177]' out
    absent $'\xe2\x80\xae' out
    grep -qF '../../x@1:2 "q"\u{202e}' out
    says "nosuch" 2 rp list nosuch
    rp show web1 | grep -q "reference point"
    rp show web1@-1 --json | jq -e '.disks | length == 2'
    rp show web1@-1 --json | jq -e '.notes == [] and has("settings") and .consistency_reached == "crash"'
    id=$(rp list --json | jq -r '.[0].id')
    equal "$(rp show "@$id" --json | jq -r .id)" "$id"
    equal "$(rp show "web1@${id:0:8}" --json | jq -r .id)" "$id"
}
behaviour "list and show have the fields that scripts need, and no control characters" listing

differences()
{
    rp diff web1 --json | jq -e '.disks | length == 2 and all(.[]; .state == "unchanged" and .ranges == [])'
    rp diff web1@-4 "web1@latest" | grep -q "disk 1, 8.0 MiB: unchanged"
    local words
    for words in "web1@-4 web1@latest:1" "web1@-4:1 web1@latest" "web1:1" "web1@-4:1 web1@latest:1 --disk 1" "web1 --disk 1"; do
        # shellcheck disable=SC2086
        rp diff $words --json | jq -e '.disks | map(.number) == [1]'
    done
    for words in "web1@-4:0 web1@latest:1" "web1:0 --disk 1" "web1@-4 web1@latest:0 --disk 1"; do
        # shellcheck disable=SC2086
        says "disk [01] and disk [01]: which of them" 3 rp diff $words
    done
    says "one restore point only" 2 rp diff --vm "$hostile"
    says "no restore point" 2 rp diff web1@ffffffffffffffffffffffffffffffffffffffff
}
behaviour "diff compares two points, since one, and the last two" differences

restores()
{
    rp restore web1 --to out1 --dry-run | grep -q "would write out1/web1-disk1.vhdx"
    [ ! -e out1 ]
    rp restore web1@-1 --to out1 >/dev/null
    equal "$(cd out1 && echo *)" "web1-disk0.vhdx web1-disk1.vhdx"
    qemu-img compare -f raw -F vhdx a.raw out1/web1-disk1.vhdx
    says "never overwritten" 2 rp restore web1 --to out1
    rp restore web1:1 --to out1 -O raw --json | tail -1 | jq -e '.type == "summary" and (.files | length) == 1 and .files[0].disk == 1'
    cmp a.raw out1/web1-disk1.raw
    says "no disk 9" 2 rp restore web1 --disk 9 --to out1
    local text
    for text in "" :1 @latest @-1 "@$(date -u +%Y-%m-%d)" @latest:1; do
        says "which VM" 3 rp restore "$text" --to out9
        [ ! -e out9 ]
    done
    rp restore "@$(rp show web1 --json | jq -r .id)" --to out9 --dry-run >/dev/null
    rp restore --vm web1 @latest --to out9 --dry-run >/dev/null
    rp restore --vm "$hostile" --to out2 -O raw >/dev/null
    equal "$(ls out2)" "_._.._x_1_2__q__-disk0.raw"
    cmp a.raw out2/*
}
behaviour "restores write safe names, never over anything, and the very same bytes, of a VM or an id that was named" restores

running()
{
    REFPOINT_PASSWORD=hush-hush rp vm start web1
    grep -lsa hush-hush /proc/[0-9]*/environ >out || true
    status=0
    rp backup web1 --json | tail -1 | jq -e '.kind == "incremental"' || status=1
    rp vm stop web1
    test ! -s out -a $status -eq 0
}
behaviour "a running VM is backed up, and its disk service has inherited no passphrase" running

errors_as_json()
{
    status 2 rp list nosuch --json 2>message
    jq -e '.type == "error" and .code == "not-found" and .exit == 2' message
    status 3 rp list --frob --json 2>message
    jq -e '.code == "usage" and .exit == 3' message
    status 2 rp list >/dev/full 2>message
    grep -q "standard output" message
    status 2 rp backup web1 --json >/dev/full 2>message
    grep -q "standard output" message
}
behaviour "errors are JSON when asked, and output that is lost is an error" errors_as_json

# nobody_reads COMMAND…: its exit status when its reader is gone before it writes.
nobody_reads()
{
    mkfifo pipe
    exec 7<>pipe 8>pipe 7>&-
    rm pipe
    "$@" >&8
}

reader_gone()
{
    status 0 nobody_reads rp backup web1 --json 2>message
    status 0 nobody_reads rp list
    status 0 nobody_reads rp list --json
    [ ! -s message ]
}
behaviour "a reader that goes away does not make a good backup a failed one" reader_gone

damage()
{
    rp check --read-data
    cp -a plain damaged
    pack=$(find damaged -type f -size +40k -printf '%s %p\n' | sort -n | tail -1 | cut -d ' ' -f 2)
    chmod u+w "$pack"
    printf '\377\000\377\000' | dd of="$pack" bs=1 seek=30000 conv=notrunc 2>/dev/null
    status 2 rp check -r damaged --read-data >out 2>message
    cat out message
    grep -q "VM web1, restore point .*, disk 0, bytes" out
    grep -q "problems\? found" message
    status 2 rp check -r damaged --read-data --json >out 2>message
    jq -s -e 'map(select(.type == "problem" and .vm == "web1")) | length > 0 and (.[0].ranges | length > 0)' out
}
behaviour "check names the VM, the point, the disk and the ranges that some wrong bytes damage" damage

salvaged()
{
    says "; --salvage restores the rest" 2 rp restore web1 -r damaged --to rest -O raw
    [ ! -e rest ]
    status 1 rp -q restore web1 -r damaged --to rest -O raw --salvage 2>message
    cat message
    grep -q "web1-disk0.raw: .* could not be read and are zeros; web1-disk0.raw.lost lists them" message
    rp restore web1 --to sound -O raw
    # Outside what is listed the disk is what it was.
    grep -v '^#' rest/web1-disk0.raw.lost >list
    [ -s list ]
    while read -r offset length; do
        head -c "$length" /dev/zero | dd of=sound/web1-disk0.raw bs=65536 seek=$((offset / 65536)) conv=notrunc 2>/dev/null
    done <list
    cmp rest/web1-disk0.raw sound/web1-disk0.raw
    status 1 rp restore web1 -r damaged --to rest2 --salvage --json >out
    cat out
    equal "$(tail -1 out | jq '.files[] | select(.disk == 0).lost')" "$(awk '{ sum += $2 } END { print sum }' list)"
    says "goes with --to:" 3 rp restore web1 --to-host here --salvage
    rm -r rest rest2 sound
}
behaviour "of a damaged backup, a salvage restores all that can be read, and lists the rest" salvaged

healed()
{
    # "damaged" is a copy of "plain": here is what an administrator sees after the check above.
    status 1 rp backup web1 -r damaged >out 2>message
    cat message
    grep -q "disk 0 is read in full: .*damaged" message
    rp restore web1 -r damaged --to healed -O raw
    rp restore web1 --to sound -O raw
    cmp healed/web1-disk0.raw sound/web1-disk0.raw
    equal "$(rp backup web1 -r damaged --json | tail -1 | jq -r .kind)" incremental
    rm -r damaged healed sound
}
behaviour "after a check that found damage, the next backup is full, says why, and can be restored" healed

unreadable_point()
{
    local newest older
    cp -a plain torn
    newest=$(rp list web1 -r torn --json | jq -r '.[-1].id')
    older=$(rp list web1 -r torn --json | jq -r '.[-2].id')
    chmod u+w "torn/points/$newest"
    printf '\377\000\377\000' | dd of="torn/points/$newest" bs=1 seek=100 conv=notrunc 2>/dev/null
    says "remark: 1 restore point cannot be read (see refpoint check): there may be a newer one" 1 rp -q restore web1 -r torn --to last -O raw
    says "remark: 1 restore point cannot be read" 1 rp -q show web1@latest -r torn
    says "remark: 1 restore point cannot be read" 1 rp -q diff "web1@-1" -r torn
    says "remark: 1 restore point cannot be read, and is not listed" 1 rp -q list web1 -r torn
    says "remark: 1 restore point cannot be read (see refpoint check): a VM may have a newer backup" 1 rp -q vm list -r torn
    says "1 restore point cannot be read" 2 rp -q list nobody -r torn
    rp -q restore "web1@$older" -r torn --to named -O raw 2>message
    [ ! -s message ]
    cmp last/web1-disk0.raw named/web1-disk0.raw
    rm -r torn last named
}
behaviour "where a restore point cannot be read, who asks for the newest is told so, also with -q" unreadable_point

# begins [OPTION…]: a slow full backup that has its lock and its checkpoint, and reads, as $first
begins()
{
    # bash has SIGINT ignored
    env --default-signal=INT "$refpoint" backup web1 --full --limit-rate 500K "$@" >out 2>message.first &
    first=$!
    wait_for 60 eval 'rp checkpoint list web1 --json | jq -e "length > 0"'
    sleep 0.3
}

# stands_still: $first does not end, however long the rest takes, until it is continued, or the behaviour ends
stands_still()
{
    kill -STOP "$first"
    # shellcheck disable=SC2064
    trap "kill -CONT $first 2>/dev/null || true" EXIT
}

two_at_once()
{
    local first
    begins
    stands_still
    says "in use by a backup of VM web1 on .* (process $first) since" 2 rp backup web1
    kill -CONT "$first"
    wait "$first"
}
behaviour "a second backup of the same VM names the first and stops" two_at_once

boot_checks()
{
    local host=$REFPOINT_HOST
    says '"console" is neither agent nor serial:TEXT' 3 rp restore web1 --to-host "$host" --boot-check=console
    says "a text of 1 to 200 bytes" 3 rp restore web1 --to-host "$host" --folder "$scratch/check" --boot-check=serial:
    says "0x09" 3 rp restore web1 --to-host "$host" --folder "$scratch/check" "--boot-check=serial:a	b"
    says "nothing stands behind the =" 3 rp restore web1 --to-host "$host" --boot-check=
    says "stands behind a =: --boot-check=serial:TEXT: .*too many" 3 \
        rp restore web1 --to-host "$host" --boot-check serial:login:
    # A dry run tells of the check, not of a restore.
    says '"console" is neither agent nor serial:TEXT' 3 rp restore web1 --to-host "$host" --boot-check=console -n
    says "are not for it" 3 rp restore web1 --to-host "$host" --boot-check --new-id -n
    says "a VM needs a name" 3 rp restore web1 --to-host "$host" --name '' --new-id
    says "different names: which" 3 rp restore web1 --to-host here/a --name b --new-id
    says "are not for it" 3 rp restore web1 --to-host here/a --boot-check
    says "0x09" 3 rp restore web1 --to-host "$host" --folder "$scratch/check" "--boot-check=serial:a	b" -n
    rp restore web1 --to-host "$host" --folder "$scratch/check" --boot-check -n >out
    grep -q "^would make VM boot check of web1 on .*, with a new id" out
    grep -q "to $scratch/check-boot-check-[0-9a-f]*/" out
    grep -q "would start it, without a network, and remove it again" out
    says "--boot-check goes with --to-host" 3 rp restore web1 --to x --boot-check=serial:a
    equal "$(find . -maxdepth 1 -name 'check*')" ""
}
behaviour "a boot check waits for its agent, or for a text that can come" boot_checks

killed_and_again()
{
    local first
    begins
    kill -9 "$first"
    wait "$first" || true
    rp backup web1 --json >out 2>message
    grep -q "took over from a backup of VM web1 on .* (process $first) since .*: that process is gone" message
    tail -1 out | jq -e '.kind == "incremental"'
}
behaviour "after a killed backup the next one does not wait, and says from whom it took over" killed_and_again

unlocked()
{
    local first points who
    points=$(rp list --json | jq length)
    begins
    stands_still
    who="the lock of a backup of VM web1 on .* (process $first) since"
    rp repo unlock web1 --dry-run | grep -q "^would end $who"
    says "in use by a backup of VM web1 on" 2 rp backup web1
    says "still at work, as far as can be seen: a backup of VM web1 on .*: .*use --yes" 3 rp repo unlock web1 </dev/null
    rp repo unlock web1 --dry-run --json | jq -e '.held and .lives'
    rp repo unlock web1 --yes | grep -q "^ended $who.* stops before it writes its restore point"
    rp repo unlock web1 | grep -q "^nobody is at work on web1$"
    rp repo unlock web1 --json | jq -e '.held == false and .holder == null'
    kill -CONT "$first"
    status 2 wait "$first"
    grep "lost the lock on the VM" message.first
    equal "$(rp list --json | jq length)" "$points"
    says "no restore point of a VM \"nosuch\"" 2 rp repo unlock nosuch
    equal "$(rp backup web1 --json | tail -1 | jq -r .kind)" incremental
}
behaviour "a lock that is ended on purpose stops the backup that had it, and lets the next one begin" unlocked

unlocked_by_guid()
{
    local id first
    id=$(rp vm show web1 --json | jq -r .id)
    rp repo init -r first --no-encryption
    begins -r first
    stands_still
    says "no restore point of a VM" 2 rp repo unlock web1 -r first --yes
    rp repo unlock "{${id,,}}" -r first --dry-run | grep -q "^would end the lock of a backup of VM web1"
    rp repo unlock "${id,,}" -r first --yes | grep -q "^ended the lock of a backup of VM web1"
    kill -CONT "$first"
    status 2 wait "$first"
    rm -r first
}
behaviour "the lock of a first backup is found by the GUID, however it is typed" unlocked_by_guid

interrupted()
{
    local points first
    points=$(rp list --json | jq length)
    begins
    kill -INT "$first"
    status 2 wait "$first"
    cat message.first
    equal "$(rp list --json | jq length)" "$points"
    rp checkpoint list web1 --json | jq -e '. == []'
    rp refpoint list web1 --json | jq -e 'length == 1'
    equal "$(rp backup web1 --json | tail -1 | jq -r .kind)" incremental
}

behaviour "an interrupted backup ends with status 2 and leaves nothing" interrupted

# A line that drops, systemd, timeout(1): several signals are one event.
hung_up()
{
    local first
    begins
    kill -STOP "$first"
    kill -HUP "$first"
    kill -TERM "$first"
    kill -CONT "$first"
    sleep 0.02
    kill -HUP "$first" || true
    status 2 wait "$first"
    cat message.first
    rp checkpoint list web1 --json | jq -e '. == []'
}
behaviour "a hang-up together with a SIGTERM interrupts a backup, and does not kill it" hung_up

killed()
{
    local job n
    for n in 1 2 3 4; do
        "$refpoint" backup web1 --full --limit-rate 1M >/dev/null 2>&1 &
        job=$!
        sleep 0.$n
        kill -9 $job
        wait $job || true
    done
    rp backup web1 --json >out
    tail -1 out | jq -e '.kind == "incremental"'
    rp checkpoint list web1 --json | jq -e '. == []'
    rp refpoint list web1 --json | jq -e 'length == 1'
    rp check --read-data
    rp restore web1@-2 --to out3 -O raw >/dev/null
    cmp a.raw out3/web1-disk0.raw
}
behaviour "after killed backups the next one cleans up and every point is intact" killed
