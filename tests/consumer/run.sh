#!/bin/sh
# usage: run.sh BUILD_DIR
# Installs the build, moves the prefix elsewhere, and builds and runs programs
# against it in every way that is promised: find_package with and without a
# version, pkg-config for the shared library and the archive, add_subdirectory,
# and the installed command.
set -eu
# As the project itself: a machine that has only what it installs has no make.
CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}
export CMAKE_GENERATOR
build=$(readlink -f -- "$1")
here=$(readlink -f -- "$(dirname -- "$0")")
source=$(readlink -f -- "$here/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { # step TEXT COMMAND...: quiet unless it fails
    text=$1
    shift
    if ! "$@" > "$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "consumer: failed: $text" >&2
        exit 1
    fi
    echo "consumer: $text"
}

fails() { # fails COMMAND...
    ! "$@"
}

run_all() { # run_all DIRECTORY
    for program in "$1"/consumer_*; do
        case ${program##*/} in *.*) continue ;; esac
        step "run $(basename -- "$1")/$(basename -- "$program")" "$program"
    done
}

step "install" cmake --install "$build" --prefix "$work/first"
mv "$work/first" "$work/moved"
prefix=$work/moved

# Neither where it was built nor where it was first installed. A tree that lies in
# /bulkhead is not meant by bin/bulkhead.
no_paths() {
    for path in "$work/first" "$build" "$source"; do
        escaped=$(printf '%s\n' "$path" | sed 's/[][\.*^$+?(){}|]/\\&/g')
        ! grep -rIE "(^|[^[:alnum:]_.}/-])$escaped([^[:alnum:]_-]|\$)" "$prefix" || return 1
    done
}
step "no paths in installed text files" no_paths

library=$(find "$prefix" -name libbulkhead.so.1)
pc=$(find "$prefix" -name bulkhead.pc)
test -n "$library" && test -n "$pc"

# ------------------------------------------------------------- find_package
for version in "" 0.1 0.1.0; do
    dir=$work/package-${version:-none}
    step "find_package(Bulkhead $version)" cmake -S "$here/package" -B "$dir" \
        -DCMAKE_PREFIX_PATH="$prefix" -DBULKHEAD_WANTED="$version"
    step "build" cmake --build "$dir" -j 2
    run_all "$dir"
done
step "find_package(Bulkhead 99) finds nothing" fails cmake -S "$here/package" -B "$work/package-99" \
    -DCMAKE_PREFIX_PATH="$prefix" -DBULKHEAD_WANTED=99

# --------------------------------------------------------------- pkg-config
PKG_CONFIG_PATH=$(dirname -- "$pc")
export PKG_CONFIG_PATH
step "pkg-config --exists 'bulkhead >= 0.1'" pkg-config --exists "bulkhead >= 0.1"
mkdir "$work/pkg-config"
cd "$work/pkg-config"
# shellcheck disable=SC2046  # pkg-config prints a list of flags
{
    step "pkg-config, C" "${CC:-cc}" "$here/consumer.c" -o consumer_c $(pkg-config --cflags --libs bulkhead)
    step "pkg-config, C++" "${CXX:-c++}" "$here/consumer.cc" -o consumer_cxx $(pkg-config --cflags --libs bulkhead)
    step "pkg-config, C++ with its own operators" "${CXX:-c++}" -std=c++17 -Wall -Wextra -Werror "$here/operators.cc" \
        -o consumer_operators $(pkg-config --cflags --libs bulkhead)
    # A program in C must not be told about dlopen and the like.
    step "pkg-config --static, C" "${CC:-cc}" -static -Wl,--fatal-warnings "$here/consumer.c" -o consumer_c_static \
        $(pkg-config --static --cflags --libs bulkhead)
    step "pkg-config --static, C++" "${CXX:-c++}" -static "$here/consumer.cc" -o consumer_cxx_static \
        $(pkg-config --static --cflags --libs bulkhead)
}
LD_LIBRARY_PATH=$(dirname -- "$library")
export LD_LIBRARY_PATH
run_all "$work/pkg-config"
unset LD_LIBRARY_PATH

# --------------------------------------------------------- add_subdirectory
step "add_subdirectory" cmake -S "$here/subdirectory" -B "$work/subdirectory" -DBULKHEAD_SOURCE="$source"
step "build" cmake --build "$work/subdirectory" -j 2
run_all "$work/subdirectory"

# ------------------------------------------------------------------ command
if [ -x "$prefix/bin/bulkhead" ]; then
    mapped() { # the program that is run sees the moved library
        "$prefix/bin/bulkhead" run cat /proc/self/maps | grep -F "$(readlink -f -- "$library")"
    }
    step "the installed command" mapped
fi
