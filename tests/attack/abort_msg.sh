#!/bin/sh
# usage: abort_msg.sh ATTACK_REPORT
# The first line of the report, read out of a core file by its name. Exit status
# 77 without gdb, or where it may not trace.
set -u
command -v gdb > /dev/null || exit 77
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ATTACK_PIPE=9 gdb -nx -batch -ex run -ex "generate-core-file $work/core" --args "$1" plain > "$work/run" 2>&1 < /dev/null 9> /dev/null
[ -s "$work/core" ] || {
    cat "$work/run"
    exit 77
}
gdb -nx -batch -ex 'printf "%s\n", (char *)&bh_abort_msg' "$1" "$work/core" > "$work/read" 2>&1
grep -q '^bulkhead: ERROR: double-free: .* (address 0x[0-9a-f]*)$' "$work/read" || {
    cat "$work/read"
    exit 1
}
