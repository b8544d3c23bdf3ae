#!/bin/sh
# The table of guarantees in SECURITY.md: ids, texts and whose fault it is from
# src/rt/violations.def, how sure and the page from hardening-docs/guarantees.list.
#
#   guarantees.sh [SOURCE]          prints the table
#   guarantees.sh --check [SOURCE]  compares it with SECURITY.md's
#   guarantees.sh --write [SOURCE]  puts it there
set -eu

mode=--print
case ${1:-} in --check | --write) mode=$1 && shift ;; esac
source=${1:-$(dirname -- "$0")/..}
list=$source/hardening-docs/guarantees.list
page=$source/SECURITY.md
begin='<!-- guarantees: written by tools/guarantees.sh --write -->'
end='<!-- end of the guarantees -->'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    echo "guarantees: $*" >&2
    exit 1
}

# id|fault|text
sed -n 's/^BH_VIOLATION([A-Z_]*, "\([^"]*\)", \([A-Z]*\), "\([^"]*\)")$/\1|\2|\3/p' "$source/src/rt/violations.def" >"$work/code"
[ "$(grep -c '^BH_VIOLATION(' "$source/src/rt/violations.def")" = "$(grep -c . "$work/code")" ] ||
    die "not every line of violations.def was understood"
sed -e '/^#/d' -e 's/ | /|/g' "$list" >"$work/list"

cut -d'|' -f1 "$work/code" >"$work/ids"
cut -d'|' -f1 "$work/list" | diff "$work/ids" - >"$work/diff" ||
    die "the ids of violations.def (<) and guarantees.list (>) differ:
$(grep '^[<>]' "$work/diff")"

: >"$work/titles"
while IFS='|' read -r id sure where; do
    if [ -z "$sure" ] || [ -z "$where" ]; then die "$id: guarantees.list does not say how sure, or which page"; fi
    title=
    if [ "$where" != - ]; then
        grep -qF "\`$id\`" "$source/hardening-docs/$where" || die "$where does not name $id"
        title=$(sed -n '1s/^# //p' "$source/hardening-docs/$where")
    fi
    echo "$title" >>"$work/titles"
done <"$work/list"

paste -d'|' "$work/code" "$work/list" "$work/titles" | awk -F'|' '
    BEGIN { print "| id | what it says | at fault | found | page |"; print "|---|---|---|---|---|" }
    { fault = $2 == "PROGRAM" ? "the program" : "overwritten memory"
      if ($1 == "unsupported-system" || $1 == "no-entropy") fault = "the system"
      page = $6 == "-" ? "" : " [" $7 "](hardening-docs/" $6 ")"
      printf "| `%s` | %s | %s | %s |%s |\n", $1, $3, fault, $5, page }' >"$work/table"

if [ "$mode" = --print ]; then
    cat "$work/table"
    exit
fi
for mark in "$begin" "$end"; do
    [ "$(grep -cxF -e "$mark" "$page")" = 1 ] || die "SECURITY.md needs one line: $mark"
done
awk -v begin="$begin" -v end="$end" -v table="$work/table" '
    $0 == end { inside = 0 }
    !inside { print }
    $0 == begin { inside = 1; while ((getline line < table) > 0) print line }' "$page" >"$work/page"
if [ "$mode" = --write ]; then
    cat "$work/page" >"$page"
elif ! diff "$page" "$work/page" >"$work/diff"; then
    die "SECURITY.md (<) and the table (>) differ; guarantees.sh --write makes it:
$(grep '^[<>]' "$work/diff")"
fi
