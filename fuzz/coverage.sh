#!/bin/sh
# Lines and branches of src/ that a replay of the seeds, of past findings' inputs and of
# the campaign's corpus reaches, by gcovr.
#
#   coverage.sh ROOT
set -eu
root=$1
build=$root/build-coverage
export AFL_NOOPT=1
cmake -S "$root" --preset fuzz -B "$build" -DCMAKE_C_COMPILER=gcc -DCMAKE_C_FLAGS='--coverage -O0 -Wno-error' >/dev/null
cmake --build "$build" >"$build/log" 2>&1 || {
    tail -n 20 "$build/log" >&2
    exit 1
}
find "$build" -name '*.gcda' -delete
for target in api inband badfree control arith options report process; do
    set -- "$build/fuzz/seeds/$target"
    for more in "$root/fuzz/regressions/$target" "$root/build-fuzz/findings/$target/default/queue"; do
        [ ! -d "$more" ] || set -- "$@" "$more"
    done
    "$build/fuzz/fuzz-replay-$target" "$@"
done
cd "$build"
gcovr --gcov-ignore-parse-errors -r "$root" --filter "$root/src/" --exclude-unreachable-branches --print-summary .
