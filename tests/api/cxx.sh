#!/bin/sh
# usage: cxx.sh LIBRARY_DIR COMPILER [FLAG...]
# Compiles the C++ tests beside this script with one C++ compiler (and C++
# library, by its flags) and runs them four ways: linked with libbulkhead.so,
# without it but preloaded, linked with libbulkhead.a, and with no shared library
# at all. Exit status 77 when the compiler cannot build a C++ program here, which
# ctest reports as skipped.
# BULKHEAD_STATIC_LIBS: what libbulkhead.a needs besides libc.
set -eu
libraries=$(readlink -f -- "$1")
shift
here=$(readlink -f -- "$(dirname -- "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

printf '#include <new>\nint main() { return std::get_new_handler() != nullptr; }\n' > "$work/probe.cc"
if ! "$@" "$work/probe.cc" -o "$work/probe" 2> "$work/log" || ! "$work/probe" 2>> "$work/log"; then
    echo "cxx.sh: $* builds no C++ program here: $(head -n 1 "$work/log")" >&2
    exit 77
fi

# Not every C++ library comes as an archive.
static=no
if "$@" -static "$work/probe.cc" -o "$work/probe" 2> /dev/null && "$work/probe"; then
    static=yes
fi

compile() { # compile OUTPUT COMPILER ARGUMENTS...
    output=$1
    shift
    if ! "$@" -o "$work/$output" 2> "$work/log"; then
        cat "$work/log" >&2
        echo "cxx.sh: $output does not compile" >&2
        exit 1
    fi
}

run() { # run COMMAND...
    if ! timeout 120 "$@"; then
        echo "cxx.sh: failed: $*" >&2
        failed=1
    fi
}

shared="-L$libraries -Wl,-rpath,$libraries -Wl,--no-as-needed -lbulkhead -Wl,--as-needed"
preload="$libraries/libbulkhead.so"
archive="$libraries/libbulkhead.a ${BULKHEAD_STATIC_LIBS:-}"

flags="-std=c++17 -fsized-deallocation -g -Wall -Wextra -Werror -pthread"

# Without optimisation nothing is elided, with it the compiler's knowledge of
# the operators is put to the test.
# shellcheck disable=SC2086  # lists of flags
for level in -O0 -O2; do
    for program in operators before_main replaced "replaced -DREPLACE_NEW_ONLY"; do
        name=${program%% *}
        define=${program#"$name"}
        compile object.o "$@" $flags $level $define -c "$here/$name.cc"
        compile linked "$@" -pthread "$work/object.o" $shared
        run "$work/linked"
        compile plain "$@" -pthread "$work/object.o"
        run env LD_PRELOAD="$preload" "$work/plain"
        # With every release compared with its block's kind.
        run env LD_PRELOAD="$preload" BULKHEAD_PROFILE=debug "$work/plain"
        if [ -f "$libraries/libbulkhead.a" ]; then
            compile archived "$@" -pthread "$work/object.o" $archive
            run "$work/archived" archive
            if [ $static = yes ]; then
                compile static "$@" -pthread -static "$work/object.o" $archive
                run "$work/static" archive
                run env BULKHEAD_PROFILE=debug "$work/static" archive
            fi
        fi
    done
done

# shellcheck disable=SC2086
if [ $static = yes ] && [ -f "$libraries/libbulkhead.a" ]; then
    compile minimal "$@" $flags -static -O2 "$here/static_minimal.cc" $archive
    run "$work/minimal"
fi

# A plugin for a C program; late_main is built without C++ in sight.
# shellcheck disable=SC2086
compile plugin.so "$@" $flags -O2 -fPIC -shared "$here/late_plugin.cc"
# shellcheck disable=SC2086
${CC:-cc} -O2 "$here/late_main.c" -o "$work/late" -ldl $shared
run "$work/late" "$work/plugin.so"
${CC:-cc} -O2 "$here/late_main.c" -o "$work/late_plain" -ldl
run env LD_PRELOAD="$preload" "$work/late_plain" "$work/plugin.so"

exit $failed
