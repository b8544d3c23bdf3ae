#!/bin/sh
# planted.sh LIBRARY: each of the twelve bugs of parser.c is found under profile fuzz,
# by itself, with the id that belongs to it; and a document without a bug is not.
set -eu
library=$(readlink -f -- "$1")
here=$(readlink -f -- "$(dirname -- "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset BULKHEAD_OPTIONS
# shellcheck disable=SC3045 # every shell that is /bin/sh has it
ulimit -c 0
gcc -O1 -fno-builtin -Wall -Wextra -Werror -o "$work/parser" "$here/parser.c"
failed=0

# found NUMBER IDS DOCUMENT: in printf's notation.
found() {
    # shellcheck disable=SC2059 # that is what it is
    printf "$3" >"$work/document"
    status=0
    env LD_PRELOAD="$library" BULKHEAD_PROFILE=fuzz PLANTED_FD=1 "$work/parser" "$work/document" >"$work/out" 2>"$work/err" || status=$?
    id=$(sed -n 's/^bulkhead: ERROR: \([a-z-]*\): .*/\1/p' "$work/err")
    case "$1 $status $(cat "$work/out") $2" in
    "$1 134 planted $1 "*" $id "* | "0 0  "*) echo "ok planted $1 ${id:-(nothing)}" ;;
    *)
        echo "FAIL planted $1: status $status, '$(cat "$work/out")', id '$id', wanted$2"
        failed=1
        ;;
    esac
}

found 1 ' overflow guard-overflow ' 'S\000z'
found 2 ' guard-overflow overflow ' 'I\000\010i'
found 3 ' underflow guard-underflow ' 'T                t'
found 4 ' use-after-free ' 'N\001\000D\001r'
found 5 ' use-after-free ' 'N\001\000D\001w'
found 6 ' double-free ' 'N\001\000D\001f'
found 7 ' invalid-free ' 'B                b'
found 8 ' use-after-free ' 'G+g'
found 9 ' guard-overflow overflow ' 'M\177\177m'
found 10 ' foreign-free ' 'F\010fr'
found 11 ' guard-overflow ' 'O\001\000o'
found 12 ' use-after-free ' 'V\000vt'
found 0 '' 'S\001xI\001\001T  a             xN\001\001D\001xB  b             xG+x+x+xM\002\002F\100O\000\001V\001x'
exit $failed
