#!/usr/bin/env bash
# Clients that others wrote, against our server: curl with Negotiate and a real KDC, python3-winrm with sealed NTLM. And
# what tshark makes of our client's traffic with our server.
. "$(dirname "$0")/../lib.sh"
server=$(realpath "$1") client=$(realpath "$2")
folder=$(realpath "$(dirname "$0")")
export LC_ALL=C.UTF-8
cd "$scratch" || exit 1
ignore_leaks_of_gssapi

mkfifo input
"$server" <input >variables 2>log &
stop_at_end $!
exec 9>input # the server ends, and removes its folder, when this is closed
behaviour "the server and its KDC start" wait_for 30 grep -q realm_folder variables
. ./variables
export KRB5_CONFIG=$config KRB5CCNAME=$ticket

# answers PATTERN STATUS CURL-ARGUMENTS…
answers()
{
    local pattern=$1 status=$2 got
    shift 2
    got=$(curl --silent --max-time 20 --dump-header headers --output body --write-out '%{http_code}' "$@") || return 1
    cat headers body
    equal "$got" "$status" && grep -q -- "$pattern" headers body
}
alice='user="alice@REFPOINT.TEST" access="3" address="127.0.0.1"'
negotiate=(--negotiate --user : --data '<x/>' --header 'Content-Type: application/soap+xml;charset=UTF-8')
behaviour "curl logs in with Kerberos over TLS" \
    answers "$alice charset=\"UTF-8\"><x/></echo>" 200 "${negotiate[@]}" --cacert "$ca" "https://localhost:$tls/wsman"
behaviour "curl logs in with Kerberos where messages may be in clear" \
    answers "$alice" 200 "${negotiate[@]}" "http://localhost:$clear/wsman/"
behaviour "a message in clear is refused where it must be sealed, also from somebody logged in" \
    answers 'must be sealed' 403 "${negotiate[@]}" "http://localhost:$sealed/wsman"
two_requests()
{
    curl --silent --max-time 20 "${negotiate[@]}" --cacert "$ca" "https://localhost:$tls/wsman" "https://localhost:$tls/wsman" \
        --verbose >body 2>verbose
    cat verbose body
    equal "$(grep -o "$alice" body | wc -l)" 2 && grep -q 'Re-using existing connection' verbose
}
behaviour "a connection stays logged in" two_requests
by_ntlm() { local -x KRB5CCNAME=/nonexistent NTLM_USER_FILE=$realm_folder/users; answers "$@"; }
behaviour "curl logs in with NTLM in SPNEGO, without a ticket" \
    by_ntlm 'user="LAB\\admin" access="3"' 200 "${negotiate[@]}" --cacert "$ca" "https://localhost:$tls/wsman"
behaviour "without a ticket it is a 401" env KRB5CCNAME=/nonexistent \
    bash -c 'test "$(curl --silent --max-time 20 --negotiate --user : --data x --output body --write-out "%{http_code}" "$0")" = 401' "http://localhost:$sealed/wsman"
behaviour "Basic is taken over TLS" \
    answers 'user="basic" access="1"' 200 --user basic:clear --data '<x/>' --cacert "$ca" "https://localhost:$tls/wsman"
behaviour "Basic with a wrong password is a 401 that names the schemes" \
    answers 'WWW-Authenticate: Basic realm="WSMAN"' 401 --user basic:guess --data '<x/>' --cacert "$ca" "https://localhost:$tls/wsman"
behaviour "Basic without TLS is refused, and not offered" answers 'WWW-Authenticate: Kerberos' 401 --user basic:clear --data '<x/>' "http://localhost:$sealed/wsman"
behaviour "and is not offered there" absent Basic headers
behaviour "a unix socket knows who is at its other end" \
    answers "user=\"uid $(id -u)\" access=\"3\"" 200 --unix-socket "$socket" --data '<x/>' http://localhost/wsman
behaviour "an empty POST gets its 401" \
    answers 'WWW-Authenticate: Negotiate' 401 --request POST --header 'Content-Length: 0' "http://localhost:$sealed/wsman"
behaviour "Identify needs no login" \
    answers 'user="nobody" access="0"' 200 --header 'WSMANIDENTIFY: unauthenticated' --data '<x/>' "http://localhost:$sealed/wsman"
behaviour "another path is not found" answers '' 404 --data '<x/>' "http://localhost:$sealed/other"
behaviour "another method is not allowed" answers 'Allow: POST' 405 "http://localhost:$sealed/wsman"
head -c 600000 /dev/zero >large
behaviour "a body above the envelope's limit is too large" \
    answers '' 413 --data-binary @large --header 'Expect:' --user basic:clear "http://localhost:$clear/wsman"
behaviour "and so is one that does not say its length" \
    answers '' 413 --data-binary @large --header 'Transfer-Encoding: chunked' --user basic:clear "http://localhost:$clear/wsman"

winrm() { /usr/bin/python3 "$folder/winrm-client.py" "$@" "$ca" >output 2>&1 || { cat output; return 1; }; cat output; }
good_winrm()
{
    local user='user="LAB\\admin" access="3"'
    winrm "$@" && equal "$(grep -c "$user" output)" 4 && grep -q '^fault 500 True$' output
}
behaviour "python3-winrm talks NTLM, sealed" good_winrm "http://localhost:$sealed/wsman" ntlm 'LAB\admin' secret
behaviour "python3-winrm talks NTLM over TLS" good_winrm "https://localhost:$tls/wsman" ntlm 'LAB\admin' secret
kerberos_winrm() { winrm "https://localhost:$tls/wsman" kerberos alice@REFPOINT.TEST unused && equal "$(grep -c "$alice" output)" 4; }
behaviour "python3-winrm talks Kerberos over TLS" kerberos_winrm
wrong_winrm() { fails winrm "$@" && grep -q InvalidCredentialsError output; }
behaviour "python3-winrm with a wrong password is refused" wrong_winrm "http://localhost:$sealed/wsman" ntlm 'LAB\admin' guess
nobody_winrm() { fails winrm "$@" && grep -q 403 output; }
behaviour "who has no rights is told so, not that the password is wrong" nobody_winrm "http://localhost:$sealed/wsman" ntlm 'OTHER\bob' b0b
# captured NAME LOGIN USER PASSWORD: two messages of our client, in NAME
captured()
{
    mkfifo "$1.input"
    /usr/bin/python3 "$folder/tap.py" "$sealed" "$1" <"$1.input" >"$1.port" &
    exec 8>"$1.input"
    wait_for 60 test -s "$1.port"
    "$client" "http://localhost:$(cat "$1.port")/wsman" "${@:2}" '<Envelope-one/>' '<Envelope-two/>' >output
    exec 8>&-
    wait $!
    cat output
    equal "$(grep -c '<echo user=.*<Envelope-' output)" 2
}
# shark NAME FILTER FIELDS…: the lines of the frames that match
shark()
{
    local arguments=() field
    for field in "${@:3}"; do arguments+=(-e "$field"); done
    tshark -r "$1" -K keytab -o kerberos.decrypt:TRUE -Y "$2" -T fields "${arguments[@]}" 2>/dev/null
}
cp "$realm_folder/keytab" .
two_sealed_messages()
{
    equal "$(shark "$1" _ws.malformed frame.number)" "" || return 1
    equal "$(shark "$1" mime_multipart http.content_type | sort | uniq -c | sed 's/^ *//')" \
        "4 multipart/encrypted;protocol=\"application/HTTP-$2-session-encrypted\";boundary=\"Encrypted Boundary\"" || return 1
    # every body has its two parts, and in no frame is anything in clear
    equal "$(tshark -r "$1" -Y mime_multipart -V 2>/dev/null | grep -c '^    Encapsulated multipart part')" 8 || return 1
    absent Envelope- "$1"
}
behaviour "our client talks sealed NTLM" captured ntlm ntlm 'LAB\admin' secret
behaviour "tshark sees its three NTLM messages, bare" equal "$(shark ntlm ntlmssp ntlmssp.messagetype | tr '\n' ' ')" '0x00000001 0x00000002 0x00000003 '
behaviour "and who logs in" equal "$(shark ntlm ntlmssp.auth.username ntlmssp.auth.domain ntlmssp.auth.username)" "$(printf 'LAB\tadmin')"
behaviour "and two sealed requests with two sealed answers" two_sealed_messages ntlm SPNEGO
behaviour "our client talks sealed NTLM in SPNEGO" captured spnego negotiate 'LAB\admin' secret
behaviour "tshark finds NTLM offered and chosen" grep -q 1.3.6.1.4.1.311.2.2.10 <(shark spnego spnego.supportedMech spnego.supportedMech)
behaviour "and the sealed messages" two_sealed_messages spnego SPNEGO
behaviour "our client talks sealed Kerberos" captured kerberos kerberos alice@REFPOINT.TEST wonderland
behaviour "tshark opens its ticket with the host's key" grep -qw alice <(shark kerberos 'http.request and kerberos.encTicketPart_element' kerberos.CNameString)
behaviour "and sees the sealed messages" two_sealed_messages kerberos Kerberos
# RFC 4121 4.2.4: a header of 60 bytes, 05 04, flags, no extra count, rotated right by 28, as SSPI makes it
behaviour "Kerberos's tokens are of SSPI's form" equal \
    "$(shark kerberos mime_multipart data.data | sed 's/^\(.\{12\}\)..\(.\{10\}\).*/\1 \2/' | sort -u)" '3c0000000504 ff0000001c'

behaviour "the server says whom it refused, and why" grep -q 'warning: 127.0.0.1: login: NTLM: wrong user name or password' log
exec 9>&-
gone() { [ ! -e "$realm_folder" ]; }
behaviour "the server ends at once, and leaves nothing" wait_for 10 gone
