#!/bin/sh
# The table of hardening-docs/randomness.md: all figures, over 10,000 processes
# each, as Markdown. Takes some minutes.
#
#   measure.sh BUILD [ARGUMENTS OF random_measure...]
#
# Profiles: set BULKHEAD_PROFILE. Exit status: that of random_measure.
set -u
build=${1:?usage: measure.sh BUILD [ARGUMENT...]}
shift
measure=$build/tests/random/random_measure
early=$build/tests/random/random_early
[ -x "$measure" ] || {
    echo "measure.sh: build random_measure first" >&2
    exit 2
}
[ -x "$early" ] && set -- --early "$early" "$@"

out=$(mktemp) || exit 2
trap 'rm -f "$out"' EXIT
"$measure" "$@" >"$out"
status=$?
awk -F' *[|] *' '
    NF == 4 { printf "| %s | %s | %s | %s |\n", $1, $2, $3, $4
              if (!rows++) print "|---|---|---|---|"
              next }
    { print (rows ? "\n" : "") $0 (rows ? "" : "\n") }' "$out"
exit $status
