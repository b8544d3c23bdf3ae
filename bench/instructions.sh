#!/bin/sh
# Counts the instructions of one malloc and free of 64 bytes under a library:
#
#     instructions.sh [--build DIR] LIBRARY|- [BOUND]
#
# Prints the number; "-" is the system allocator. Ends with 1 if the number is
# above BOUND, 2 if it cannot count. DIR is the build folder (default: build).
#
# Two runs of different length under callgrind, so that start and end of the
# process cancel; the same with a loop that calls nothing is taken off. What is
# left are malloc, free and the jumps to them through the program's link table.
set -eu

short=20000
long=120000

die() {
    echo "instructions.sh: $*" >&2
    exit 2
}

build=$(dirname "$0")/../build
if [ "${1:-}" = --build ]; then
    [ $# -ge 2 ] || die "--build needs a folder"
    build=$2
    shift 2
fi
[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: instructions.sh [--build DIR] LIBRARY|- [BOUND]"
library=$1
bound=${2:-}
program=$build/bench/pair_count
[ -x "$program" ] || die "there is no $program: build with -DBULKHEAD_BENCH=ON"
[ "$library" = - ] || [ -f "$library" ] || die "there is no $library"
command -v valgrind >/dev/null 2>&1 || die "needs valgrind"
case $bound in *[!0-9.]*) die "the bound is a number, not '$bound'" ;; esac
if [ "$library" = - ]; then library=; fi

# Names are bound at the start: else the first call would be dearer.
count() { # count malloc|nothing N
    said=$(env -u BULKHEAD_OPTIONS LD_BIND_NOW=1 LD_PRELOAD="$library" \
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1) ||
        die "$program $1 $2: $(printf '%s\n' "$said" | tail -n 3)"
    number=$(printf '%s\n' "$said" | sed -n 's/.*Collected : \([0-9]*\)$/\1/p')
    [ -n "$number" ] || die "callgrind gave no number"
    echo "$number"
}

# A failed count in a substitution must end all.
with_long=$(count malloc "$long")
with_short=$(count malloc "$short")
without_long=$(count nothing "$long")
without_short=$(count nothing "$short")
result=$(awk -v a="$with_long" -v b="$with_short" -v c="$without_long" -v d="$without_short" -v n=$((long - short)) \
    'BEGIN { printf "%.1f", ((a - b) - (c - d)) / n }')
echo "$result"
[ -z "$bound" ] || awk -v r="$result" -v b="$bound" 'BEGIN { exit !(r <= b) }' || {
    echo "instructions.sh: $result instructions are above $bound" >&2
    exit 1
}
