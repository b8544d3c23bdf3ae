#!/bin/sh
# usage: leaks.sh LIBRARY_DIR
# The leak report of profile debug on whole programs, preloaded: nothing for clean ones
# in C and C++, and the functions that leak, by their names, for one that does. 77: no
# C++ compiler, or no addr2line.
set -eu
libraries=$(readlink -f -- "$1")
here=$(readlink -f -- "$(dirname -- "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v addr2line > /dev/null || exit 77
cc -g -O1 -Wall -Wextra -Werror -pthread "$here/clean.c" -o "$work/clean" -ldl || exit 77
g++ -g -O1 -Wall -Wextra -Werror -std=c++17 -pthread "$here/leaks.cc" -o "$work/leaks" || exit 77

run() { # run OPTIONS PROGRAM ARGUMENTS...
    options=$1
    shift
    LD_PRELOAD=$libraries/libbulkhead.so BULKHEAD_PROFILE=debug BULKHEAD_OPTIONS=$options timeout 60 "$@" > "$work/out" 2> "$work/err" || {
        cat "$work/err" >&2
        echo "leaks.sh: failed with '$options': $*" >&2
        exit 1
    }
}

for options in verbose=0 guarded_sample_rate=1 guarded_sample_rate=0:guarded_first=0 stacks=fp; do
    for program in clean leaks; do
        run $options "$work/$program"
        if [ -s "$work/err" ]; then
            cat "$work/err" >&2
            echo "leaks.sh: $program is clean, $options" >&2
            exit 1
        fi
    done
done

run verbose=0 "$work/leaks" leak
fail() {
    cat "$work/err" >&2
    echo "leaks.sh: $1" >&2
    exit 1
}
grep -qx 'bulkhead: LEAKS: 11 blocks, 423 bytes, allocated in 2 ways' "$work/err" || fail "other sums"
grep -qx 'bulkhead: LEAK: 10 blocks, 400 bytes, average 40, allocated by new\[\]:' "$work/err" || fail "no group of ten"
sed -n "s|^bulkhead:     #[01] $work/leaks+\(0x[0-9a-f]*\) .*|\1|p" "$work/err" | xargs addr2line -f -e "$work/leaks" > "$work/names"
for name in leak_nodes leak_text; do
    grep -q "$name" "$work/names" || fail "$name is not named"
done
