#!/usr/bin/env bash
# Clients that others wrote, against our server: curl with Negotiate and a real KDC, python3-winrm with sealed NTLM.
. "$(dirname "$0")/../lib.sh"
server=$(realpath "$1")
folder=$(realpath "$(dirname "$0")")
export LC_ALL=C.UTF-8
cd "$scratch" || exit 1

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
behaviour "the server says whom it refused, and why" grep -q 'warning: 127.0.0.1: login: NTLM: wrong user name or password' log
exec 9>&-
gone() { [ ! -e "$realm_folder" ]; }
behaviour "the server ends at once, and leaves nothing" wait_for 10 gone
