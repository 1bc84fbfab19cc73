#!/usr/bin/env bash
# test-wire.sh HOSTD KDC CORPUS: the lab seen by curl (Negotiate with tickets of a real MIT KDC), openssl and tshark.
# KDC is tests/wsman's echo server, here for its KDC; CORPUS has messages of real clients, word for word.
. "$(dirname "$0")/../lib.sh"
hostd=$(realpath "$1") kdc=$(realpath "$2") corpus=$(realpath "$3") wsman=$(realpath "$(dirname "$0")/../wsman")
export LC_ALL=C.UTF-8
cd "$scratch" || exit 1

mkfifo kdc.input lab.input other.input
"$kdc" <kdc.input >variables 2>kdc.log &
stop_at_end $!
exec 9>kdc.input # it ends, and removes its folder, when this is closed
behaviour "a KDC starts" wait_for 120 grep -q realm_folder variables
. ./variables
export KRB5_CONFIG=$config KRB5CCNAME=$ticket

"$hostd" --lab --until-eof --size 16M --rate 0 --running 1 --basic-in-clear --keytab "$realm_folder/keytab" \
    --administrator alice@REFPOINT.TEST <lab.input >lab.json 2>lab.log &
stop_at_end $!
exec 8>lab.input
lab() { jq -r "$1" lab.json; }
behaviour "the lab starts" wait_for 120 test -s lab.json
http=$(lab .http) https=$(lab .https) clear=$(lab .clear) ca=$(lab .ca) socket=$(lab .unix) password=$(lab .password)

# The first message of a recorded conversation.
awk '/^%%/ { exit } { print }' "$corpus/libvirt-list" >list
# A Pull with the context of the answer before, and nothing else that says what is pulled.
pull()
{
    local context
    context=$(grep -o 'n:EnumerationContext>[^<]*' body | head -n1)
    awk 'n == 1 && !/^%%/ { print } /^%%/ { n++ }' "$corpus/libvirt-list" | sed "s/@CONTEXT@/${context#*>}/" >pull.xml
}

# answers PATTERN STATUS CURL-ARGUMENTS…
answers()
{
    local pattern=$1 status=$2 got
    shift 2
    got=$(curl --silent --max-time 20 --dump-header headers --output body --write-out '%{http_code}' "$@") || return 1
    cat headers body
    equal "$got" "$status" && grep -q -- "$pattern" headers body
}
# all_machines CURL-ARGUMENTS…: enumerates and pulls until the end, one at a time, over one login each.
all_machines()
{
    local names= tries
    answers EnumerateResponse 200 --data-binary @list "${soap[@]}" "$@" || return 1
    for tries in 1 2 3 4; do
        pull
        answers PullResponse 200 --data-binary @pull.xml "${soap[@]}" "$@" || return 1
        names="$names $(sed -n 's/.*<p:ElementName>\([^<]*\)<.*/\1/p' body)"
        grep -q EndOfSequence body && break
    done
    equal "$(echo $names | tr ' ' '\n' | sort | tr '\n' ' ')" 'vm1 vm2 vm3 '
}
soap=(--header 'Content-Type: application/soap+xml;charset=UTF-8')
negotiate=(--negotiate --user :)

behaviour "curl with a ticket lists all machines over TLS" all_machines "${negotiate[@]}" --cacert "$ca" "$https"
behaviour "and in clear where that was asked for" all_machines "${negotiate[@]}" "$clear"
behaviour "but not where messages must be sealed" \
    answers 'must be sealed' 403 "${negotiate[@]}" --data-binary @list "${soap[@]}" "$http"
by_ntlm() { local -x KRB5CCNAME=/nonexistent NTLM_USER_FILE=$PWD/ntlm; "$@"; }
(umask 077; echo "LAB:admin:$password" >ntlm)
behaviour "curl without a ticket falls back to NTLM" by_ntlm all_machines "${negotiate[@]}" --cacert "$ca" "$https"
behaviour "curl with Basic lists them over TLS" all_machines --user "LAB\\admin:$password" --cacert "$ca" "$https"
behaviour "a wrong password is a 401" \
    answers 'WWW-Authenticate: Negotiate' 401 --user 'LAB\admin:wrong' --data-binary @list "${soap[@]}" --cacert "$ca" \
    "$https"
behaviour "a unix socket needs no password" all_machines --unix-socket "${socket#unix:}" http://localhost/wsman
behaviour "who knows another CA does not believe the host" fails curl --silent --max-time 20 "$https"
behaviour "its certificate is the one that was told" equal \
    "$(openssl s_client -connect "localhost:$(echo "$https" | sed 's|.*:\([0-9]*\)/.*|\1|')" </dev/null 2>/dev/null |
        openssl x509 -noout -fingerprint -sha256 | sed 's/.*=//')" "$(lab .fingerprint)"

"$hostd" --lab --until-eof --vms 1 --size 16M --rate 0 --running 0 --keytab "$realm_folder/keytab" \
    <other.input >other.json 2>other.log &
stop_at_end $!
exec 7>other.input
behaviour "another lab starts beside it" wait_for 120 test -s other.json
behaviour "where alice logs in and has no rights" answers '' 403 "${negotiate[@]}" --data-binary @list "${soap[@]}" \
    --cacert "$(jq -r .ca other.json)" "$(jq -r .https other.json)"
other=$(jq -r .ca other.json)
exec 7>&-
behaviour "and ends with its input, with its folder" wait_for 120 eval '[ ! -e "$(dirname "$other")" ]'

# captured NAME PORT COMMAND…: the command with a port behind which what passes is recorded
captured()
{
    local name=$1 port=$2
    shift 2
    mkfifo "$name.input"
    /usr/bin/python3 "$wsman/tap.py" "$port" "$name" <"$name.input" >"$name.port" &
    exec 6>"$name.input"
    wait_for 60 test -s "$name.port"
    "$@" "$(cat "$name.port")"
    local status=$?
    exec 6>&-
    wait $!
    return $status
}
port_of() { echo "$1" | sed 's|.*:\([0-9]*\)/.*|\1|'; }
shark() { tshark -r "$1" -Y "$2" -T fields -e "$3" 2>/dev/null; }
in_clear() { all_machines --user "LAB\\admin:$password" "http://localhost:$1/wsman"; }
behaviour "a conversation in clear is captured" captured clear "$(port_of "$clear")" in_clear
behaviour "tshark finds nothing malformed in it" equal "$(shark clear _ws.malformed frame.number)" ""
behaviour "and four requests with four answers of SOAP" equal \
    "$(shark clear xml http.content_type | sort | uniq -c | sed 's/^ *//')" '8 application/soap+xml;charset=UTF-8'
prefixes()
{
    local seen
    seen=$(shark clear 'http.response and xml' xml.tag)
    [ "$(echo "$seen" | grep -c '<s:Envelope')" -eq 4 ] && [ "$(echo "$seen" | grep -c '<s:Body')" -eq 4 ]
}
behaviour "whose answers have the prefixes that libvirt looks for" prefixes
sealed()
{
    /usr/bin/python3 "$wsman/winrm-query.py" "http://localhost:$1/wsman" 'LAB\admin' "$password" \
        'SELECT * FROM Msvm_ComputerSystem' >answer && grep -q '<p:ElementName>vm1<' answer
}
behaviour "a sealed conversation of python3-winrm is captured" captured sealed "$(port_of "$http")" sealed
behaviour "tshark finds nothing malformed in that either" equal "$(shark sealed _ws.malformed frame.number)" ""
behaviour "and its sealed messages" equal "$(shark sealed mime_multipart http.content_type | sort -u)" \
    'multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"'
behaviour "in which nothing is legible" absent 'ElementName\|Envelope\|vm1' sealed

exec 8>&-
gone() { [ ! -e "$(dirname "$ca")" ]; }
behaviour "the lab ends with its input, and leaves nothing" wait_for 120 gone
exec 9>&-
