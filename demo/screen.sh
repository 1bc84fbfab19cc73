# What the demo shows. Sourced by demo/run.
# On a terminal the writer's counter stays on the last line, below everything else; elsewhere it is told at each step.
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\033[1m' dim=$'\033[2m' red=$'\033[31;1m' green=$'\033[32m' plain=$'\033[0m'
    rows=$(tput lines 2>/dev/null || stty size 2>/dev/null | cut -d ' ' -f 1 || echo 0)
else
    bold='' dim='' red='' green='' plain='' rows=0
fi
step=0

title() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" $step "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }

# run COMMAND…: shown, then run
run()
{
    printf '   %s$ %s%s\n' "$dim" "${*/#$dir\//}" "$plain"
    "$@"
}

# The last row is taken out of what scrolls.
screen_begin() { [ "$rows" -lt 10 ] || printf '\n\0337\033[1;%dr\0338\033[1A' $((rows - 1)); }
screen_end() { [ "$rows" -lt 10 ] || printf '\0337\033[r\033[%d;1H\033[2K\0338' "$rows"; }

# Reads the writer's lines and keeps the latest, on the screen and in a file.
counter()
{
    local line
    while read -r line; do
        printf '%s\n' "$line" >counter.new && mv counter.new counter
        [ "$rows" -lt 10 ] || printf '\0337\033[%d;1H\033[2K%sthe writer: %s%s\0338' "$rows" "$bold" "$line" "$plain"
    done
}
written() { printf 'the writer: %s' "$(cat counter)"; }

flip_bit() # FILE OFFSET
{
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# The closing table, from the restore points themselves.
figures()
{
    local first=0 i read
    printf '   %-30s %12s %12s %12s %9s %14s\n' backup 'disk holds' read stored seconds 'of the full'
    for i in "${!points[@]}"; do
        refpoint show "demo@${points[i]}" --json >point.json
        read=$(jq .bytes_read point.json)
        [ "$i" != 0 ] || first=$read
        printf '   %-30s %8d MiB %8d MiB %8d MiB %9s %12s %%\n' "$(jq -r .kind point.json)${after[i]:+ after ${after[i]}}" $((held[i] >> 20)) \
            $((read >> 20)) $(($(jq .bytes_stored point.json) >> 20)) \
            "$(awk "BEGIN { printf \"%.2f\", (${tos[i]} - ${froms[i]}) / 1e9 }")" "$(awk "BEGIN { printf \"%.1f\", 100 * $read / $first }")"
    done
    printf '   %-30s %12s %8d MiB %35s %%\n' 'qcow2 after a SIGKILL' '' $((qemu_reads >> 20)) \
        "$(awk "BEGIN { printf \"%.1f\", 100 * $qemu_reads / $first }")"
}

# What the VM's disk files take of the host's disk.
disk_bytes() { du -B1 "$disk"/host/vms/*/*.*vhdx | awk '{ sum += $1 } END { print sum }'; }
