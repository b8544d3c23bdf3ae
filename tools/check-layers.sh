#!/bin/sh
# Each folder of src/ is a layer, and a file includes only its own layer, those
# before it, and the public header.
#
#   check-layers.sh [SRC]       checks, default src/ beside tools/
#   check-layers.sh --selftest  checks that it notices
set -eu

layers='base os rt meta harden core api'

# Prints one line for each include that breaks the order.
offences() { # offences SRC
    for folder in "$1"/*/; do
        layer=$(basename "$folder")
        case " $layers " in
        *" $layer "*) ;;
        *) echo "$folder: is no layer; the layers are: $layers" ;;
        esac
    done
    find "$1" -type f \( -name '*.c' -o -name '*.h' -o -name '*.def' -o -name '*.cc' \) | sort | while read -r file; do
        layer=${file#"$1"/}
        case $layer in
        */*) layer=${layer%%/*} ;;
        *)
            echo "$file: lies in no layer"
            continue
            ;;
        esac
        allowed=
        for known in $layers; do
            allowed="$allowed $known"
            [ "$known" != "$layer" ] || break
        done
        # Every include in quotes, and ours in angle brackets.
        sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1 &/p' "$file" | while read -r target line; do
            case $target in
            bulkhead.h | bulkhead-new-delete.h) continue ;;
            esac
            case $line in
            *'<'*)
                # A system header, unless it names one of our folders.
                [ -f "$1/$target" ] || continue
                ;;
            esac
            case $target in
            *..*) echo "$file: includes $target: name it from src/" ;;
            */*)
                case " $allowed " in
                *" ${target%%/*} "*)
                    [ -f "$1/$target" ] || echo "$file: includes $target, which does not exist"
                    ;;
                *) echo "$file: includes $target: $layer comes before ${target%%/*}" ;;
                esac
                ;;
            *) [ -f "$(dirname "$file")/$target" ] || echo "$file: includes $target, which is not in its folder" ;;
            esac
        done
    done
}

selftest() {
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    mkdir "$tree/base" "$tree/core" "$tree/api"
    echo '#include <stddef.h>' >"$tree/base/bits.h"
    printf '#include "core/page.h"\n#include "base/bits.h"\n#include "page.h"\n#include <bulkhead.h>\n' >"$tree/core/page.c"
    : >"$tree/core/page.h"
    [ -z "$(offences "$tree")" ] || {
        echo "accuses a tree that is in order: $(offences "$tree")" >&2
        return 1
    }
    notices() { # notices PATTERN
        offences "$tree" | grep -q "$1" || {
            echo "does not notice: $1" >&2
            return 1
        }
    }
    echo ' #  include "api/api.h" // up' >"$tree/core/up.c"
    : >"$tree/api/api.h"
    notices 'core comes before api' || return 1
    echo '#include <core/page.h>' >"$tree/base/angle.h"
    notices 'base comes before core' || return 1
    echo '#include "../base/bits.h"' >"$tree/api/dots.c"
    notices 'name it from src/' || return 1
    mkdir "$tree/other"
    notices 'is no layer' || return 1
}

if [ "${1:-}" = --selftest ]; then
    selftest
    exit
fi
src=${1:-$(dirname "$0")/../src}
if [ ! -d "$src" ]; then
    echo "check-layers.sh: $src: no such folder" >&2
    exit 2
fi
found=$(offences "${src%/}")
[ -n "$found" ] || exit 0
printf '%s\n' "$found"
exit 1
