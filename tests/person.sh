# Sourced by the tests of `refpoint` as a person uses it: `. person.sh PROGRAM`. They work in $scratch, with a host, a repository and a
# cache of their own there, and without a passphrase.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
refpoint=$(realpath "$1")
export XDG_CACHE_HOME=$scratch/cache REFPOINT_HOST=local:$scratch/host REFPOINT_REPOSITORY=$scratch/repo LC_ALL=C.UTF-8
unset REFPOINT_PASSWORD REFPOINT_PASSWORD_FILE REFPOINT_KEYRING REFPOINT_HOSTS
mkdir "$XDG_CACHE_HOME"
cd "$scratch" || exit 1

rp() { "$refpoint" "$@"; }

# status N COMMAND…: it must end with exactly this exit status.
status()
{
    local want=$1 got=0
    shift
    "$@" || got=$?
    equal "$got" "$want"
}

# says PATTERN N COMMAND…: one line on standard error, matching, with exit status N.
says()
{
    local pattern=$1 want=$2 got=0
    shift 2
    "$@" 2>message || got=$?
    cat message
    equal "$got" "$want"
    equal "$(wc -l <message)" 1
    grep -q -- "$pattern" message
}

# types TEXT COMMAND…: the command at a terminal, and TEXT typed as soon as it asks for a password; what the terminal shows is in
# `typed`.
types()
{
    local text=$1
    shift
    : >typed
    { wait_for 30 grep -qi 'pass' typed && printf '%s\n' "$text"; sleep 1; } | script -qefc "$*" /dev/null >>typed
}
