#!/bin/sh
# hardening-docs/techniques.md against the tests: each row of its tables names at
# least one that shows it, each test that is named exists, and each of the attack
# table's rows on links and of how2heap is named.
#
#   check-techniques.sh [SOURCE]    checks
#   check-techniques.sh --selftest  checks that it notices
#
# In the last column: `tests/...` is a file or folder, with or without its ending;
# a name behind such a file and a colon is a row of that file's table; any other
# name is a row of the attack table (tests/attack/table).
#
# shellcheck disable=SC2016 # backticks are Markdown's
set -eu

table_rows() { # table_rows SOURCE PATTERN-OF-FILES
    # shellcheck disable=SC2086
    (cd "$1/tests/attack/table" && sed -n 's/^    \(ROW(\|{\)"\([a-z0-9-]*\)".*/\2/p' $2)
}

# Prints one line for each thing that is wrong.
offences() { # offences SOURCE
    page=$1/hardening-docs/techniques.md
    rows=$(table_rows "$1" 'rows_*.c')
    [ -n "$rows" ] || echo "no row of the attack table was read"
    awk '/^\|/ && !/^\|---/ && !/^\| technique / {
             n = split($0, column, / *\| */)
             print column[2]; print column[n - 1] }' "$page" >"$work/cells"
    [ -s "$work/cells" ] || echo "no table was read"
    while read -r technique && read -r shown; do
        file='' any=''
        # A comma inside a name is none between names.
        printf '%s\n' "$shown" | grep -o '`[^`]*`:\{0,1\}' >"$work/names" || true
        while read -r name; do
            any=1 colon=${name##*\`}
            name=${name#\`} name=${name%\`*}
            case $name in
            tests/*)
                file=
                for ending in '' .c .sh; do
                    [ ! -e "$1/$name$ending" ] || file=$1/$name$ending
                done
                [ -n "$file" ] || echo "$technique: there is no $name"
                [ -n "$colon" ] || file=
                ;;
            *)
                if [ -n "$file" ]; then
                    grep -qF "{\"$name\"," "$file" || echo "$technique: ${file#"$1"/} has no row '$name'"
                else
                    printf '%s\n' "$rows" | grep -qxF -e "$name" || echo "$technique: the attack table has no row '$name'"
                fi
                ;;
            esac
        done <"$work/names"
        [ -n "$any" ] || echo "$technique: no test shows it"
    done <"$work/cells"
    for name in $(table_rows "$1" 'rows_how2heap.c rows_links.c'); do
        grep -qF "\`$name\`" "$work/cells" || echo "the page does not name the row $name"
    done
}

selftest() { # selftest SOURCE
    mkdir -p "$work/tree/hardening-docs"
    cp -r "$1/tests" "$work/tree/"
    broken=$work/tree/hardening-docs/techniques.md
    notices() { # notices PATTERN SED-SCRIPT
        sed "$2" "$1/hardening-docs/techniques.md" >"$broken"
        offences "$work/tree" | grep -q "$3" || {
            echo "does not notice: $3" >&2
            exit 1
        }
    }
    notices "$1" 's/`fastbin-dup`/`fastbin-dupe`/' "no row 'fastbin-dupe'"
    notices "$1" 's/`fastbin-dup`, //' 'does not name the row fastbin-dup'
    notices "$1" 's/`forge: to a live block`/`forge: to nothing`/' "lists.c has no row 'forge: to nothing'"
    notices "$1" 's/`tests\/attack\/guards`/`tests\/attack\/guardians`/' 'there is no tests/attack/guardians'
    notices "$1" 's/| `holes-in-order` |/| |/' 'holes made to order: no test shows it'
    notices "$1" '/^|/d' 'no table was read'
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(dirname -- "$0")/..
if [ "${1:-}" = --selftest ]; then
    selftest "$here"
    exit
fi
found=$(offences "${1:-$here}")
[ -n "$found" ] || exit 0
printf 'check-techniques: %s\n' "$found" >&2
exit 1
