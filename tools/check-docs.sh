#!/bin/sh
# SECURITY.md and hardening-docs/ against the tree: links lead somewhere, files,
# functions and constants that are named exist, and the index hardening-docs/README.md
# has every page and names only rows that the attack table has.
#
#   check-docs.sh [SOURCE]    checks
#   check-docs.sh --selftest  checks that it notices
#
# shellcheck disable=SC2016 # backticks are Markdown's
set -eu

# A heading as the anchor that it gets.
anchors() { # anchors PAGE
    sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'
}

check_links() { # check_links NAME PAGE
    grep -o '](\([^)]*\))' "$2" | sed -e 's/^](//' -e 's/)$//' | sort -u | while read -r link; do
        file=${link%%#*} anchor=
        case $link in
        http*) continue ;;
        *'#'*) anchor=${link#*#} ;;
        esac
        target=$(dirname "$2")/$file
        [ -n "$file" ] || target=$2
        if [ ! -e "$target" ]; then
            echo "$1: links to $file, which does not exist"
        elif [ -n "$anchor" ] && ! anchors "$target" | grep -qxF -e "$anchor"; then
            echo "$1: $file has no heading $anchor"
        fi
    done
}

# What stands in backticks: files, and names of our code.
check_names() { # check_names SOURCE NAME PAGE
    tr '\n' ' ' <"$3" | grep -o '`[^`]*`' | tr -d '`' | sort -u | while read -r name; do
        case $name in
        *[\ *]* | *...*) continue ;;
        src/* | tests/* | tools/* | bench/* | include/*)
            [ -e "$1/$name" ] || [ -e "$1/$name.c" ] || [ -e "$1/$name.h" ] || [ -e "$1/$name.sh" ] ||
                echo "$2: there is no $name"
            ;;
        bhi_?* | bh_?* | BH_?* | BHI_?*)
            grep -qxF -e "${name%%[!A-Za-z0-9_]*}" "$work/words" || echo "$2: nothing in the code is called $name"
            ;;
        esac
    done
    # `tests/unit` (map, page): those of src/ files of that name.
    tr '\n' ' ' <"$3" | grep -o '`tests/unit` ([a-z_, ]*)' | sed -e 's/.*(//' -e 's/)//' -e 's/,//g' | tr ' ' '\n' | sort -u |
        while read -r unit; do
            [ -z "$unit" ] || [ -e "$1/tests/unit/test_$unit.c" ] || echo "$2: there is no unit test of $unit"
        done
}

check_index() { # check_index SOURCE
    index=$1/hardening-docs/README.md
    for page in "$1"/hardening-docs/*.md; do
        name=$(basename "$page")
        [ "$name" = README.md ] || grep -qF "]($name)" "$index" || echo "README.md: $name is not in the index"
    done
    awk -F' *[|] *' '/^\| / && NF == 8 && !/^\| bug / { print $6 }' "$index" | grep -o '`[^`]*`' | tr -d '`' >"$work/shown" || true
    [ -s "$work/shown" ] || echo "README.md: no table was read"
    while read -r row; do
        grep -qF "(\"$row\"," "$1"/tests/attack/table/rows_*.c || grep -qF "{\"$row\"," "$1"/tests/attack/table/rows_*.c ||
            echo "README.md: the attack table has no row '$row'"
    done <"$work/shown"
}

offences() { # offences SOURCE
    (cd "$1" && grep -rohE --include='*.[ch]' --include='*.def' --include='*.txt' '\<(bhi?|BHI?)_[A-Za-z0-9_]+' src include CMakeLists.txt) |
        sort -u >"$work/words"
    for page in "$1/SECURITY.md" "$1"/hardening-docs/*.md; do
        name=${page#"$1"/}
        check_links "$name" "$page"
        check_names "$1" "$name" "$page"
    done
    check_index "$1"
}

selftest() { # selftest SOURCE
    tree=$work/tree
    mkdir "$tree"
    (cd "$1" && cp -r SECURITY.md CMakeLists.txt hardening-docs src include tests tools bench "$tree/" && mkdir "$tree/fuzz" && cp fuzz/README.md "$tree/fuzz/")
    notices() { # notices PAGE SED-SCRIPT PATTERN
        cp "$tree/$1" "$work/kept"
        sed "$2" "$work/kept" >"$tree/$1"
        offences "$tree" | grep -q "$3" || {
            echo "does not notice: $3" >&2
            exit 1
        }
        cp "$work/kept" "$tree/$1"
    }
    found=$(offences "$tree")
    [ -z "$found" ] || {
        echo "accuses pages that are in order: $found" >&2
        exit 1
    }
    notices SECURITY.md 's/costs\.md/cost.md/; s/(hardening-docs\/canaries\.md)/(hardening-docs\/canary.md)/' 'canary.md, which does not exist'
    notices SECURITY.md 's/#exceptions-options/#exception-options/' 'no heading'
    notices hardening-docs/no-residue.md 's/bhi_page_grow/bhi_page_grows/' 'nothing in the code is called bhi_page_grows'
    notices hardening-docs/zero-size.md 's/src\/core\/zero\.c/src\/core\/none.c/' 'there is no src/core/none.c'
    notices hardening-docs/large-blocks.md 's/(guard, chunk/(guards, chunk/' 'no unit test of guards'
    notices hardening-docs/README.md 's/(no-residue\.md)/(zero-size.md)/' 'no-residue.md is not in the index'
    notices hardening-docs/README.md 's/`walk-up`/`walk-on`/' "no row 'walk-on'"
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
printf '%s\n' "$found" >&2
exit 1
