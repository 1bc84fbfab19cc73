# Sourced by the shell tests. They print TAP: one `behaviour "name" command…` per behaviour, then nothing: the plan comes at
# the end. The test works in $scratch, a fresh folder, which is removed again together with every process given to
# `stop_at_end PID`.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/refpoint-test.XXXXXX")
tap_count=0
tap_pids=
export RP_TEST_PROGRAM=${RP_TEST_PROGRAM:-$scratch} # the mark of tests/run on all that we start

# behaviour NAME COMMAND…: the command's success is the result; its output is shown when it fails.
behaviour()
{
    local name=$1
    shift
    tap_count=$((tap_count + 1))
    local status=0
    # Not as the condition of an if or an ||: there, bash ignores set -e in all that is called.
    set +e
    ( set -e; "$@" ) >"$scratch/.output" 2>&1 </dev/null
    status=$?
    if [ $status -eq 0 ]; then
        echo "ok $tap_count - $name"
    else
        echo "not ok $tap_count - $name"
        sed 's/^/# /' "$scratch/.output"
    fi
}

# skip NAME REASON
skip()
{
    tap_count=$((tap_count + 1))
    echo "ok $tap_count - $1 # SKIP $2"
}

stop_at_end() { tap_pids="$tap_pids $1"; }

# is_ours PID: this test has started it. Numbers of processes that have ended are given to others.
is_ours() { grep -qszxF "RP_TEST_PROGRAM=$RP_TEST_PROGRAM" "/proc/$1/environ"; }

# For programs that log in by GSSAPI, under the address sanitizer: what gss-ntlmssp and MIT krb5 lose (see tests/wsman/kdc.c).
ignore_leaks_of_gssapi()
{
    printf 'leak:libcrypto.so\nleak:libkrb5.so\n' >"$scratch/leaks"
    export LSAN_OPTIONS=suppressions=$scratch/leaks:print_suppressions=0
}

# fails COMMAND…: true when the command fails in an orderly way (an exit status below 128: no signal).
fails()
{
    local status=0
    "$@" || status=$?
    if [ $status -eq 0 ] || [ $status -ge 128 ]; then
        echo "expected an orderly failure, got exit status $status: $*"
        return 1
    fi
}

# absent PATTERN FILE…: no line matches. (set -e does not see a failing `! grep`.)
absent()
{
    local pattern=$1 status=0
    shift
    grep -e "$pattern" -- "$@" || status=$?
    [ $status -eq 1 ]
}

# equal A B: texts
equal()
{
    [ "$1" = "$2" ] && return 0
    printf 'expected: %s\n     got: %s\n' "$2" "$1"
    return 1
}

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for()
{
    local end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt $end ] || { echo "still not: $*"; return 1; }
        sleep 0.05
    done
}

tap_end()
{
    local pid
    for pid in $tap_pids; do
        is_ours "$pid" && kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    rm -rf "$scratch"
    echo "1..$tap_count"
}
trap tap_end EXIT
