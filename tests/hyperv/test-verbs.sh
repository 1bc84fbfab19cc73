#!/usr/bin/env bash
# host add, list, test, remove, and HOST/VM, as a person uses them, against the lab of refpoint-hostd.
hostd=$(realpath "$2")
. "$(dirname "$0")/../person.sh" "$1"
. "$top/tests/lab.sh" "$hostd" --vms 2 --size 16M --machine SECRETHOST
lab .password >password
folder=$(dirname "$(lab .ca)")

add_and_list()
{
    rp host add lab "$(lab .http)" --user 'LAB\admin' --password-file password
    rp host add tls "$(lab .https)" --user 'LAB\reader' --fingerprint "$(lab .fingerprint)" --password-file <(lab '.users[2].password')
    rp host add here "$(lab .unix)" --map "$folder = $folder"
    rp host list
    rp host list --json | jq -e 'length == 3 and .[0].name == "lab" and .[0].password and .[2].password == false and .[2].auth == "peer"'
    absent "$(cat password)" conf/hosts
    equal "$(stat -c %a conf/keyring) $(stat -c %a conf/hosts)" "600 600"
    grep -q "^lab:$(cat password)$" conf/keyring
    ! rp host list --json | grep -q "$(cat password)"
}
behaviour "hosts get names; passwords stand in a file of their own that nobody else reads" add_and_list

misuse()
{
    says "no name for a host" 3 rp host add 'a b' http://x
    says "no name for a host" 3 rp host add local http://x
    says "there already" 2 rp host add LAB http://x --no-password
    says "neither\|no way to log in" 3 rp host add new http://x --auth magic
    says "needs --user" 3 rp host add new http://x --auth ntlm
    says "Basic without TLS" 2 rp host add new http://x --auth basic --user a --password-file password
    says "not the SHA-256" 2 rp host add new https://x --fingerprint 12:34
    says "not the URL" 2 rp host add new ftp://x
    says "map" 3 rp host add new http://x --map nonsense
    says "password is empty" 2 rp host add new http://x --user a --password-file /dev/null
    says "no host" 2 rp host test nowhere
    says "no host" 2 rp host remove nowhere
    says "no host" 2 rp vm list -H nowhere
    says "not an address" 3 rp vm list -H ssh://x
    rp host list --json | jq -e 'length == 3'
    absent "^new:" conf/keyring
}
behaviour "what cannot be is refused in one line, and nothing of it is kept" misuse

prompt()
{
    types "$(cat password)" "$refpoint host add typed $(lab .http) --user LAB\\\\admin"
    grep -q 'Password of LAB' typed
    absent "$(cat password)" typed
    rp vm list -H typed | grep -q vm1
    rp host remove typed
    absent "^typed:" conf/keyring
    says "use --password-file" 3 setsid -w "$refpoint" host add typed http://x --user a </dev/null
}
if command -v script >/dev/null; then
    behaviour "a password that is typed is not shown" prompt
else
    skip "a password that is typed is not shown" "script is not installed"
fi

tests()
{
    status 1 rp host test lab >out # no folder is mapped
    cat out
    grep -q '^login  *good .*LAB.admin' out
    grep -q '^permissions  *good ' out
    grep -q '^change tracking  *good  *there, for 2 VMs' out
    grep -q '^leftovers  *good  *none' out
    grep -q '^folder  *remark' out
    status 0 rp host test here
    rp host test here --json | jq -e 'map(select(.finding != "good")) == []'
    status 1 rp host test tls # who may read can see all of that
}
behaviour "a host that is well is told so, check by check" tests

troubles()
{
    echo wrong >bad-password
    rp host add bad "$(lab .http)" --user 'LAB\admin' --password-file bad-password
    status 2 rp host test bad >out 2>error
    cat out error
    grep -q '^login  *bad' out
    grep -q 'fix: .*password' out
    equal "$(wc -l <error)" 1
    rp host remove bad
    rp host add bad "$(lab .https)" --user 'LAB\admin' --password-file password # the system's certificates do not know it
    status 2 rp host test bad >out
    grep -q 'fix: .*--fingerprint' out
    rp host remove bad
    rp host add bad "$(lab .https)" --user 'LAB\admin' --password-file password \
        --fingerprint "$(printf '%064d' 7)"
    status 2 rp host test bad >out
    grep -q '^login  *bad .*not the pinned one' out
    grep -q 'fix: if the host has a new certificate' out
    rp host remove bad
    rp host add bad "$(lab .http | sed 's/^http:/https:/')" --user 'LAB\admin' --password-file password
    status 2 rp host test bad >out
    grep -q '^connection  *bad .*TLS cannot be set up' out
    grep -q 'fix: port 5986 is for https' out
    rp host remove bad
    rp host add bad "$(lab .http | sed 's|/wsman|/elsewhere|')" --user 'LAB\admin' --password-file password
    status 2 rp host test bad >out
    grep -q '^connection  *bad .*no WS-Management service' out
    grep -q 'fix: the path of the URL is /wsman' out
    rp host remove bad
    rp host add bad http://127.0.0.1:9 --user a --password-file password
    status 2 rp host test bad >out
    grep -q '^connection  *bad' out
    grep -q 'fix: .*winrm quickconfig' out
    rp host remove bad
    chmod 640 conf/keyring
    says "chmod 600" 2 rp vm list -H lab
    chmod 600 conf/keyring
}
behaviour "a wrong password, a strange certificate, nobody there, an open keyring: what is wrong and what to do" troubles

leftovers()
{
    rp checkpoint create lab/vm2 --name mine
    status 0 rp host test here
    rp checkpoint delete lab/vm2 mine --yes
}
behaviour "checkpoints of users are no leftovers" leftovers

recording()
{
    status 1 rp host test lab --record rec
    says "something in it" 2 rp host test lab --record rec
    [ "$(ls rec | wc -l)" -ge 20 ]
    local word
    for word in SECRETHOST vm1 vm2 "$(basename "$folder")" "$(lab '.vms[0].id')" "$(lab '.vms[0].id' | tr A-Z a-z)" "$(cat password)"; do
        ! grep -rqiF -- "$word" rec || { echo "$word is in the recording"; return 1; }
    done
    grep -rq Msvm_StorageAllocationSettingData rec
    xmllint --noout rec/*.xml 2>/dev/null || python3 -c 'import sys, xml.dom.minidom as m; [m.parse(f) for f in sys.argv[1:]]' rec/*.xml
}
behaviour "a recording holds the exchange, and no names" recording

verbs()
{
    rp vm list -H lab | grep -q '^vm1 *running'
    REFPOINT_HOST=lab rp vm show vm1 | grep -q '^disk1'
    rp vm show lab/vm1 --json | jq -e '.disks | length == 2 and .[0].size == 16777216'
    rp vm show "lab/$(lab '.vms[0].id')" >/dev/null
    says 'no VM "none"' 2 rp vm show lab/none
    says 'no VM "nowhere/vm1"' 2 rp vm show -H lab nowhere/vm1
    rp checkpoint create lab/vm1 --name one
    rp checkpoint list lab/vm1 | grep -q one
    rp checkpoint delete lab/vm1 one --yes
    rp refpoint list lab/vm1
    rp vm stop lab/vm2
    says "not possible in this state\|(0x" 2 rp vm stop lab/vm2
    rp vm start lab/vm2
    says "access denied" 2 rp vm stop tls/vm2
}
behaviour "verbs take HOST/VM" verbs

backups()
{
    rp repo init --no-encryption
    rp backup here/vm1 --json | tail -1 | jq -e '.kind == "full"'
    rp backup here/vm1 --json | tail -1 | jq -e '.kind == "incremental"'
    rp list here/vm1 --json | jq -e 'length == 2'
    rp vm list -H here -r "$REFPOINT_REPOSITORY" | grep -q "^vm1 *running .* 2  *32.0 MiB  $(date -u +%Y)"
    rp vm list -H here -r "$REFPOINT_REPOSITORY" --json | jq -e 'map(select(.last_backup)) | length == 1 and .[0].disks == 2 and .[0].size == 33554432'
    rp vm list -H here | head -1 | grep -q 'DISKS  *SIZE  ACTIVITY'
    rp host remove here
    rp list here/vm1 --json | jq -e 'length == 2' # the points know where they come from
    rp show here/vm1 >/dev/null
}
behaviour "backups of HOST/VM; their points are found after the host has been forgotten" backups
