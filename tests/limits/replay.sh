#!/bin/sh
# replay.sh LIBRARY PROGRAM [RUNS]: with profile fuzz the same input gives the same
# layout, the same report and the same end, RUNS times (20 unless told) of each of ten
# inputs; and other seeds give other layouts. Run with 100 for a thousand.
set -eu
library=$1 program=$2 runs=${3:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset BULKHEAD_OPTIONS
failed=0

# Numbers of threads and processes, and where the kernel puts code, are not the input's.
outcome() { # outcome SEED INPUT FILE
    status=0
    env LD_PRELOAD="$library" BULKHEAD_PROFILE=fuzz BULKHEAD_SEED="$1" "$program" "$2" >"$3" 2>"$3.err" || status=$?
    sed 's/thread [0-9]*/thread N/' "$3.err" | grep -v 'bulkhead:     #' >>"$3" || true
    echo "status $status" >>"$3"
}

# shellcheck disable=SC3045 # every shell that is /bin/sh has it
ulimit -c 0
for input in 0 1 2 3 4 5 6 7 8 9; do
    outcome 1 $input "$work/first"
    case $((input % 5)) in
    0) want='status 0' ;;
    *) want='status 134' ;;
    esac
    if ! grep -qx "$want" "$work/first"; then
        echo "FAIL replay-$input: $want was expected: $(cat "$work/first")"
        failed=1
    fi
    same=1
    i=1
    while [ $i -lt "$runs" ]; do
        outcome 1 $input "$work/again"
        if cmp -s "$work/first" "$work/again"; then same=$((same + 1)); else diff "$work/first" "$work/again" || true; fi
        i=$((i + 1))
    done
    echo "replay-$input: $same of $runs the same, $want"
    [ $same = "$runs" ] || failed=1
    outcome 2 $input "$work/other"
    if [ "$(head -n 1 "$work/first")" = "$(head -n 1 "$work/other")" ]; then
        echo "FAIL replay-$input: seed 2 gives the same layout"
        failed=1
    fi
done
exit $failed
