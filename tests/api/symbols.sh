#!/bin/sh
# usage: symbols.sh LIBRARY
# The dynamic symbol table of libbulkhead.so against its two lists beside this
# script: symbols.txt, all that it exports, and imports.txt, all that it may ask
# of others. A name too many is a clash with some program; a name too few is a
# hole in the interposition; an import too many is a new run-time dependency or
# a libc function that is not safe where an allocator runs.
set -eu
library=$1
here=$(dirname -- "$0")
LC_ALL=C
export LC_ALL
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# One name a line, without comments and symbol versions.
names() {
    sed -e 's/#.*//' -e 's/@.*//' | awk 'NF { print $NF }' | sort -u
}

nm -D --defined-only "$library" | names > "$work/exported"
names < "$here/symbols.txt" > "$work/documented"
if ! diff "$work/documented" "$work/exported" > "$work/diff"; then
    echo "exports differ from symbols.txt (< documented, > exported):" >&2
    grep '^[<>]' "$work/diff" >&2
    failed=1
fi

# Versioned exports would not interpose; see src/api/bulkhead.map.
if nm -D --defined-only "$library" | grep '@'; then
    echo "exports carry a version" >&2
    failed=1
fi

nm -D --undefined-only "$library" | names > "$work/imported"
names < "$here/imports.txt" > "$work/allowed"
if comm -13 "$work/allowed" "$work/imported" | grep .; then
    echo "imports that imports.txt does not allow" >&2
    failed=1
fi

# C++ and its runtime are optional: weak references only.
if nm -D --undefined-only "$library" | awk '$1 == "U" { print $2 }' | grep -E '^(_Z|__cxa_(begin|end)_|_Unwind_)'; then
    echo "strong references to a C++ library" >&2
    failed=1
fi

libc='libc\.so\.6|ld-linux-[a-z0-9_-]+\.so\.[0-9]|libdl\.so\.2|libpthread\.so\.0|libc\.musl-'
if readelf -d "$library" | grep NEEDED | grep -vE "$libc"; then
    echo "libraries needed at run time beyond libc" >&2
    failed=1
fi

exit $failed
