#!/bin/sh
# Every option of src/rt/options.def has a row in README.md's table, in the same
# order, and the table has no other; every option that bhi_options_weaker names is
# in the list of exceptions of hardening-docs/settings.md, and the other way round.
# usage: check-options.sh SOURCE
set -eu
source=${1:-$(dirname -- "$0")/..}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# same WHAT FILE FILE: lines of both must be equal, and some.
same() {
    if [ ! -s "$2" ]; then
        echo "check-options: nothing was read for $1" >&2
        failed=1
    elif ! diff "$2" "$3" > "$work/diff"; then
        echo "check-options: $1 (< code, > document):" >&2
        grep '^[<>]' "$work/diff" >&2
        failed=1
    fi
}

# Keys in the first column of the table behind a heading.
keys_in() { # keys_in HEADING FILE
    awk -v heading="$1" '$0 == heading { on = 1; next } /^#/ { on = 0 } on && /^\| `/ {
        sub(/^\| `/, ""); sub(/[`=].*/, ""); print }' "$2"
}

sed -n 's/^BH_OPTION(\([a-z_]*\),.*/\1/p' "$source/src/rt/options.def" > "$work/code"
keys_in '## Options' "$source/README.md" > "$work/readme"
same "the options of README.md" "$work/code" "$work/readme"

sed -n 's/^ *say("\([a-z_]*\)", .*/\1/p' "$source/src/rt/options.c" | sort -u > "$work/weaker"
keys_in '### Exceptions: options that weaken' "$source/hardening-docs/settings.md" | sort -u > "$work/listed"
same "the options that weaken" "$work/weaker" "$work/listed"
exit $failed
