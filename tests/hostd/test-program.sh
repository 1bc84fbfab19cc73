#!/bin/bash
# test-program.sh REFPOINT-HOSTD: the program as an administrator runs it: options, config, listeners, logins, signals.
. "$(dirname "$0")/../lib.sh"
hostd=$(realpath "$1")
cd "$scratch" || exit 1
umask 022
export LC_ALL=C.UTF-8
ignore_leaks_of_gssapi
: >pids
finish()
{
    local pid
    while read -r pid; do is_ours "$pid" && kill "$pid"; done <pids
    tap_end
}
trap finish EXIT

# says STATUS TEXT ARGUMENT…: that exit status, and one line on standard error with that text.
says()
{
    local status=0 wanted=$1 text=$2
    shift 2
    timeout 30 "$hostd" "$@" >says.out 2>says.err || status=$?
    equal "$status" "$wanted" && equal "$(wc -l <says.err)" 1 && grep -qF -e "$text" says.err || { cat says.err; return 1; }
}

config() # LINE…
{
    { echo "directory = $scratch/host"; echo "name = hv1"; printf '%s\n' "$@"; } >conf
}

# starts it and waits until its socket answers; the pid is in $pid and ./pid
start()
{
    "$hostd" -c conf >>out 2>>err &
    pid=$!
    echo $pid | tee -a pids >pid
    for _ in $(seq 3000); do
        [ -S sock ] && curl -s --max-time 5 --unix-socket sock -o /dev/null http://h/wsman && return
        kill -0 $pid 2>/dev/null || break
        sleep 0.02
    done
    cat err
    return 1
}

# ends PID: it has ended within 20 seconds, with status 0
ends()
{
    local status=0
    for _ in $(seq 400); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.05
    done
    wait "$1" || status=$?
    equal "$status" 0
}

envelope() # RESOURCE-URI ACTION BODY [HEADERS]
{
    cat <<END
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Header>
<a:To>http://h/wsman</a:To><w:ResourceURI s:mustUnderstand="true">$1</w:ResourceURI>
<a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>
<a:Action s:mustUnderstand="true">$2</a:Action><a:MessageID>uuid:1</a:MessageID>$4</s:Header><s:Body>$3</s:Body></s:Envelope>
END
}
v2=http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2
ask() # curl's arguments; the envelope on standard input
{
    curl -s --max-time 20 -H 'Content-Type: application/soap+xml;charset=UTF-8' --data-binary @- "$@"
}
query() # WQL, curl's arguments
{
    local wql=$1
    shift
    envelope "$v2/*" http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate "<n:Enumerate><w:OptimizeEnumeration/>
<w:MaxElements>100</w:MaxElements><w:Filter Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">$wql</w:Filter></n:Enumerate>" '' |
        ask "$@"
}

options()
{
    "$hostd" --help | grep -q "^Usage: refpoint-hostd"
    "$hostd" --version | grep -q "^refpoint-hostd [0-9]"
    says 3 '"--wrong" is no option' --wrong
    says 3 "--config needs a file" --config
    says 2 "no-such-file: No such file" -c no-such-file
    config "listen = unix:$scratch/sock" "foo = bar"
    says 2 "refpoint-hostd: conf:4: there is no setting \"foo\"" -c conf
    config "listen = unix:$scratch/sock" "folder = $scratch/none"
    says 2 "folder $scratch/none: No such file" -c conf
    config "listen = http://127.0.0.1" "ntlm-users = $scratch/none"
    says 2 "conf: " -c conf
    config "listen = unix:$scratch/sock"
    "$hostd" -c conf --check | grep -q "^conf: no mistakes"
    [ ! -e sock ]
}

peer()
{
    config "listen = unix:$scratch/sock" "audit = $scratch/audit"
    start
    echo '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>' |
        ask --unix-socket sock http://h/wsman | grep -q "Microsoft Corporation"
    query "SELECT Name FROM Msvm_ComputerSystem" --unix-socket sock http://h/wsman | grep -q ">HV1</p:Name>"
    config "listen = unix:$scratch/sock2"
    says 2 "another refpoint-hostd serves this folder" -c conf
}

audited()
{
    pid=$(cat pid)
    call() # a call that is refused is audited, too
    {
        envelope "$v2/Msvm_VirtualSystemSnapshotService" "$v2/Msvm_VirtualSystemSnapshotService/CreateSnapshot" \
            "<p:CreateSnapshot_INPUT xmlns:p=\"$v2/Msvm_VirtualSystemSnapshotService\"><p:SnapshotType>32768</p:SnapshotType></p:CreateSnapshot_INPUT>" '' |
            ask --unix-socket sock http://h/wsman
    }
    call | grep -q "<p:ReturnValue>4</p:ReturnValue>"
    equal "$(wc -l <audit)" 1
    grep -q "Z user=$(id -un) address=local method=Msvm_VirtualSystemSnapshotService.CreateSnapshot SnapshotType=32768 status=4 error=" audit
    mv audit audit.1
    kill -HUP "$pid"
    wait_for 60 test -e audit
    call >/dev/null
    equal "$(wc -l <audit)" 1
    equal "$(wc -l <audit.1)" 1
}

signals()
{
    pid=$(cat pid)
    kill -TERM "$pid"
    for _ in $(seq 400); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    [ ! -e sock ]
    config "listen = unix:$scratch/sock"
    start
    kill -INT $pid
    ends $pid
    start
    kill -KILL $pid
    wait $pid || true
    start # the socket that it left is no hindrance
    query "SELECT Name FROM Msvm_ComputerSystem" --unix-socket sock http://h/wsman | grep -q ">HV1</p:Name>"
    kill -TERM $pid
    ends $pid
}

rights()
{
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost 2>/dev/null
    printf 'LAB:reader:one\nLAB:admin:two\nLAB:nobody:three\n' >users
    chmod 600 users
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    config "listen = unix:$scratch/sock" "listen = https://127.0.0.1:$port $scratch/cert.pem $scratch/key.pem" \
        "ntlm-users = $scratch/users" 'read = LAB\reader' 'administer = LAB\admin' "audit = $scratch/audit2"
    start
    local url=https://localhost:$port/wsman
    query "SELECT Name FROM Msvm_ComputerSystem" --cacert cert.pem -u 'LAB\reader:one' $url | grep -q ">HV1</p:Name>"
    query "SELECT Name FROM Msvm_ComputerSystem" --cacert cert.pem -u 'LAB\admin:two' $url | grep -q ">HV1</p:Name>"
    equal "$(query "SELECT * FROM Msvm_ComputerSystem" --cacert cert.pem -u 'LAB\reader:two' -o no -w '%{http_code}' $url)" 401
    equal "$(query "SELECT * FROM Msvm_ComputerSystem" --cacert cert.pem -u 'LAB\nobody:three' -o no -w '%{http_code}' $url)" 403
    envelope "$v2/Msvm_VirtualSystemSnapshotService" "$v2/Msvm_VirtualSystemSnapshotService/CreateSnapshot" \
        "<p:CreateSnapshot_INPUT xmlns:p=\"$v2/Msvm_VirtualSystemSnapshotService\"/>" '' |
        ask --cacert cert.pem -u 'LAB\reader:one' $url | grep -q "<p:ReturnValue>32769</p:ReturnValue>"
    grep -q 'user="LAB\\\\reader" address=127.0.0.1 method=Msvm_VirtualSystemSnapshotService.CreateSnapshot status=32769' audit2
    kill -TERM $pid
    ends $pid
}

reload()
{
    local port url pid
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=https://localhost:$port/wsman
    with() # LINE…
    {
        config "listen = unix:$scratch/sock" "listen = https://127.0.0.1:$port $scratch/cert.pem $scratch/key.pem" \
            "ntlm-users = $scratch/users" "audit = $scratch/audit3" "$@"
    }
    is() # STATUS USER:PASSWORD: within some seconds
    {
        local got
        for _ in $(seq 200); do
            got=$(query "SELECT Name FROM Msvm_ComputerSystem" --cacert cert.pem -u "LAB\\$2" -o no -w '%{http_code}' $url)
            [ "$got" = "$1" ] && return
            sleep 0.05
        done
        equal "$got" "$1"
    }
    with 'read = LAB\reader'
    : >err
    start
    is 200 reader:one
    is 403 admin:two
    with 'administer = LAB\admin'
    kill -HUP $pid
    is 403 reader:one
    is 200 admin:two
    with 'administer = LAB\admin' nonsense # a mistake changes nothing, and is told
    kill -HUP $pid
    wait_for 60 grep -q 'conf:8: "name = value" is needed, not "nonsense"; rights stay as they were' err
    is 200 admin:two
    with 'read = LAB\reader' "folder = $scratch"
    kill -HUP $pid
    is 200 reader:one
    is 403 admin:two
    wait_for 60 grep -q 'conf: "folder" has changed: that takes a restart' err
    kill -TERM $pid
    ends $pid
}

secrets()
{
    config "listen = unix:$scratch/sock" "listen = https://127.0.0.1 $scratch/cert.pem $scratch/key.pem" "ntlm-users = $scratch/users"
    "$hostd" -c conf --check | grep -q "^conf: no mistakes"
    chmod g+w conf
    says 2 "conf: others may write to it" -c conf
    chmod g-w conf
    chmod o+r key.pem
    says 2 "conf: $scratch/key.pem: everybody may read the secret in it" -c conf --check
    chmod o-r key.pem
    chmod g+r users
    says 2 "others may read the passwords in it" -c conf --check
    chmod g-r users
}

# The lab's line of JSON is in the file; its pid is the lab's.
lab() # FILE ARGUMENT…
{
    local file=$1
    shift
    "$hostd" --lab "$@" >"$file" 2>lab.err &
    echo $! >lab.pid
    for _ in $(seq 1200); do
        [ -s "$file" ] && return
        kill -0 "$(cat lab.pid)" 2>/dev/null || break
        sleep 0.05
    done
    cat lab.err
    return 1
}
of() { python3 -c "import json, sys; print(eval('json.load(open(sys.argv[1]))' + sys.argv[2]))" "$1" "$2"; }

# gone FOLDER SOCKET: within 30 seconds the folder is not there, and nobody answers on the socket
gone()
{
    for _ in $(seq 600); do
        [ ! -e "$1" ] && return
        sleep 0.05
    done
    find "$1" | head
    return 1
}

lab_killed()
{
    local folder nbd
    lab killed.json --vms 2 --disks 1
    folder=$(dirname "$(of killed.json "['control']")")
    nbd=$(of killed.json "['vms'][0]['disks'][0]['path']")
    [ -e "$nbd" ]
    pgrep -f -- "$folder/host/vms" >services
    equal "$(wc -l <services)" 2
    kill -KILL "$(cat lab.pid)"
    wait "$(cat lab.pid)" || true
    gone "$folder"
    for _ in $(seq 200); do pgrep -f -- "$folder/host/vms" >services || break; sleep 0.05; done
    equal "$(wc -l <services)" 0
}

lab_ended()
{
    local folder before
    lab ended.json --vms 1
    folder=$(dirname "$(of ended.json "['control']")")
    kill -TERM "$(cat lab.pid)"
    ends "$(cat lab.pid)"
    [ ! -e "$folder" ]
    # asked to end while it still makes its VMs
    "$hostd" --lab "$scratch/many" --vms 5000 --running 0 >many.json 2>many.err &
    before=$!
    echo $before >>pids
    for _ in $(seq 400); do [ -e "$scratch/many/disks/vm3" ] && break; sleep 0.05; done
    kill -TERM $before
    local status=0
    wait $before || status=$?
    equal "$status" 2
    equal "$(cat many.err)" "refpoint-hostd: lab: ended before it was ready"
}

lab_usage()
{
    says 3 "--vms: \"x\" is no number from 1 to 10000" --lab --vms x
    says 3 "unknown option --wrong" --lab --wrong
    says 3 "--seed needs a value" --lab --seed
    says 3 "one folder is enough" --lab a b
    says 3 "--size: at least 1M" --lab --size 1K
    says 3 "needs --keytab" --lab --administrator a@B
    says 2 "no-such-file: open: No such file" --lab --script no-such-file --vms 1 --running 0
    echo 'next CreateSnapshoot: drops' >script
    says 2 'script: line 1: "CreateSnapshoot" is no method that this host has' --lab --script script --vms 1 --running 0
    says 2 "Not a directory" --lab script
}

behaviour "options and mistakes in the config are told in one line" options
behaviour "by the unix socket the operating system says who it is, and one service has a folder" peer
behaviour "a change is a line of the audit, whose file is opened anew on SIGHUP" audited
behaviour "signals end it in order, and a kill is no hindrance to the next start" signals
behaviour "readers read, administrators administer, others are refused" rights
behaviour "SIGHUP reads who may do what, and a config with a mistake changes nothing" reload
behaviour "a lab that ends leaves nothing behind, and can be ended while it starts" lab_ended
behaviour "a lab that is killed leaves nothing behind either" lab_killed
behaviour "wrong usage of the lab is one line" lab_usage
behaviour "files that others could write to or read secrets in are refused" secrets
