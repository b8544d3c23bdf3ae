#!/bin/sh
# two_processes.sh REPLAY FILE-OR-FOLDER...: every input runs the same in two processes, of
# which the second takes them in another order: how it ends, and all addresses that it got.
set -eu

replay=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$replay" -v "$@" >"$work/out.1"
"$replay" -v -s "${FUZZ_SHUFFLE:-$(date +%s)}" "$@" >"$work/out.2"
for i in 1 2; do
    sed -n 's/: [0-9]* us each, / /p' "$work/out.$i" | sort >"$work/ends.$i"
done
all=$(wc -l <"$work/ends.1")
same=$(comm -12 "$work/ends.1" "$work/ends.2" | wc -l)
echo "$same of $all inputs the same in two processes"
[ "$all" -gt 0 ] || exit 1
diff "$work/ends.1" "$work/ends.2" >"$work/differ" || {
    head -n 20 "$work/differ"
    exit 1
}
