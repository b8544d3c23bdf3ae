#!/bin/sh
# Counts the instructions of the mechanisms of profile hardened, per block:
#
#     count_harden.sh [BUILD]
#
# prints a line for each. BUILD is the build folder (default: build). Two runs of
# different length under callgrind, so that start and end of the process cancel;
# the same loop without the mechanism is taken off. Ends with 2 if it cannot count.
set -eu

program=${1:-$(dirname "$0")/../../build}/tests/unit/count_harden
short=1000
long=11000

die() {
    echo "count_harden.sh: $*" >&2
    exit 2
}

[ -x "$program" ] || die "there is no $program: build with the tests"
command -v valgrind >/dev/null 2>&1 || die "needs valgrind"

count() { # count WHAT SIZE SLACK N
    said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1) ||
        die "$*: $(printf '%s\n' "$said" | tail -n 3)"
    number=$(printf '%s\n' "$said" | sed -n 's/.*Collected : \([0-9]*\)$/\1/p')
    [ -n "$number" ] || die "callgrind gave no number"
    echo "$number"
}

row() { # row WHAT SIZE SLACK TEXT
    a=$(count "$1" "$2" "$3" "$long")
    b=$(count "$1" "$2" "$3" "$short")
    awk -v a="$a" -v b="$b" -v c="$idle_long" -v d="$idle_short" -v n=$((long - short)) -v text="$4" \
        'BEGIN { printf "%-34s %6.1f\n", text, ((a - b) - (c - d)) / n }'
}

idle_long=$(count nothing 64 16 "$long")
idle_short=$(count nothing 64 16 "$short")
row canary 64 16 "canary written, checked: slack to 24"
row canary 128 100 "canary written, checked: slack 100"
row wipe 64 8 "wiped, checked: 64 B"
row wipe 1024 8 "wiped, checked: 1 KiB"
