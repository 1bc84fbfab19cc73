# Sourced after person.sh by tests that need a host behind WMI: `. lab.sh HOSTD OPTION…` starts the lab of refpoint-hostd
# (docs/lab.md), which ends with the test, however that does.
unset REFPOINT_HOST
export REFPOINT_HOSTS=$scratch/conf/hosts
ignore_leaks_of_gssapi
mkfifo alive
TMPDIR=/tmp "$@" --lab --rate 0 --until-eof >lab.json 2>lab.err <alive & # sockets want a short path
stop_at_end $!
exec 9>alive
behaviour "the lab is ready" wait_for 120 test -s lab.json
[ -s lab.json ] || exit

# What it said of itself, by a filter of jq.
lab() { jq -r "$1" lab.json; }

# A line of its script.
order()
{
    python3 - "$(lab .control)" "$1" <<'PYTHON'
import socket, sys
with socket.socket(socket.AF_UNIX) as end:
    end.settimeout(60)
    end.connect(sys.argv[1])
    end.sendall(sys.argv[2].encode() + b'\n')
    answer = end.makefile().readline()
print(answer)
sys.exit(not answer.startswith('ok'))
PYTHON
}
