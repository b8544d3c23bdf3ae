#!/bin/sh
# What each mechanism costs in instructions: counts a malloc and free of 64 bytes
# (instructions.sh) in the default build, with all mechanisms compiled out, and
# with exactly one of them compiled out. The table of hardening-docs/costs.md:
#
#     costs.sh [DIR]
#
# prints it as Markdown, for the profile in BULKHEAD_PROFILE. DIR takes the builds (default: a folder that is removed at
# the end); those that are there already are brought up to date. Ends with 2 if a
# build or the first count fails.
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    work=$(cd "$1" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
trap 'exit 2' HUP INT TERM

build() { # build NAME TARGETS CMAKE-ARGUMENT...
    name=$1 targets=$2
    shift 2
    # shellcheck disable=SC2086
    if ! cmake -S "$source" -B "$work/$name" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBULKHEAD_TESTS=OFF -DBULKHEAD_BENCH=ON \
            "$@" >"$work/log" 2>&1 ||
       ! cmake --build "$work/$name" -j2 --target $targets >>"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        echo "costs.sh: the build '$name' failed" >&2
        exit 2
    fi
}

count() { # count NAME
    "$source/bench/instructions.sh" --build "$work/all" "$work/$1/libbulkhead.so"
}

build all "bulkhead_shared bench_pair_count"
all=$(count all)
echo "| build | instructions | less |"
echo "|---|---|---|"
echo "| all mechanisms | $all | |"

row() { # row NAME TEXT CMAKE-ARGUMENT...
    name=$1 text=$2
    shift 2
    build "$name" bulkhead_shared "$@"
    # hardened rests on the map: without it the program ends.
    if ! number=$(count "$name" 2>"$work/log"); then
        echo "| $text | does not run | |"
        return
    fi
    awk -v text="$text" -v a="$all" -v n="$number" 'BEGIN { printf "| %s | %.1f | %.1f |\n", text, n, a - n }'
}

# Every constant of src/base/constants.h: one more there is one more row here.
# shellcheck disable=SC2013
for mechanism in $(sed -n 's/^#define BH_HARDEN_\([A-Z]*\) 1.*/\1/p' "$source/src/base/constants.h"); do
    name=$(echo "$mechanism" | tr '[:upper:]' '[:lower:]')
    row "$name" "without \`BH_HARDEN_$mechanism\`" "-DCMAKE_C_FLAGS=-DBH_HARDEN_$mechanism=0"
done
row off "without all of them" -DBULKHEAD_HARDENING_OFF=ON -DBULKHEAD_ALLOW_GUARD_NONE=ON
