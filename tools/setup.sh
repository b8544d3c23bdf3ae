# shellcheck shell=sh disable=SC2154 # ../bulkhead sets $root
# What the bulkhead command needs in a source tree: packages and the built
# library. Sourced by ../bulkhead, which provides $root, say and die.
#
# $root/.setup holds the lock, the stamp of the last build and the logs of
# package installation; $root/build holds the build and its log.

stamp=$root/.setup/built
packages_log=$root/.setup/packages.log
build_log=$root/build/bulkhead-build.log

# --------------------------------------------------------------------- packages

missing=

# need PACKAGE TEST...: notes PACKAGE as missing unless the command TEST succeeds.
# Programs are looked for, not packages, so that another source of them will do.
need() {
    package=$1
    shift
    case "$missing " in *" $package "*) return ;; esac
    "$@" >/dev/null 2>&1 </dev/null || missing="$missing $package"
}

compiles() { # compiles COMPILER LANGUAGE HEADER
    printf '#include <%s>\n' "$3" | "$1" -x "$2" -fsyntax-only -
}

# A compiler that finds no such library prints the bare name.
has_static_sodium() {
    compiles gcc c sodium.h && [ -f "$(gcc -print-file-name=libsodium.a)" ]
}

# The run-time of the sanitizers, and Scudo with it, is packaged by version only.
clang_runtime_package() {
    version=$(clang -dumpversion 2>/dev/null || apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
    version=${version%%.*}
    echo "libclang-rt-${version:-14}-dev"
}

need_to_build() {
    need cmake command -v cmake
    need ninja-build command -v ninja
    need gcc command -v gcc
    need libc6-dev compiles gcc c stdlib.h
    need libsodium-dev has_static_sodium
}

# Installs what `need` found missing. Asks nothing, starts no service.
install_missing() {
    [ -n "$missing" ] || return 0
    missing=${missing# }
    command -v apt-get >/dev/null 2>&1 ||
        die 1 "missing, and there is no apt-get to install it (Debian's names): $missing"
    as_root='env'
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
            die 1 "missing packages need root: apt-get install --no-install-recommends $missing"
        fi
        as_root='sudo -n env'
    fi
    say "installing packages: $missing"
    policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        # Debian's own way to keep maintainer scripts from starting servers.
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
        trap '$as_root rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
    fi
    tries=0
    # shellcheck disable=SC2086 # lists of words
    until {
        $as_root apt-get -q -o Acquire::Retries=3 update &&
            $as_root DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
                -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install $missing
    } >>"$packages_log" 2>&1 </dev/null 9>&-; do
        tries=$((tries + 1))
        if [ "$tries" -ge 3 ]; then
            tail -n 20 "$packages_log" >&2
            die 1 "could not install packages (log: $packages_log)"
        fi
        sleep $((tries * 5))
    done
    # Nor at the next boot.
    for service in nginx postgresql; do
        case " $missing " in
        *" $service "*) $as_root update-rc.d "$service" disable >>"$packages_log" 2>&1 || true ;;
        esac
    done
    if [ -n "$policy" ]; then
        $as_root rm -f "$policy"
        trap - EXIT HUP INT TERM
    fi
    missing=
}

# ------------------------------------------------------------------------ build

# Nothing that the library is made of is newer than its last build. Folders
# count too: they change when a file is removed.
library_is_current() {
    [ -f "$root/build/libbulkhead.so" ] && [ -f "$stamp" ] &&
        [ -z "$(find "$root/src" "$root/include" "$root/cmake" "$root/CMakeLists.txt" "$root/CMakePresets.json" \
            -newer "$stamp" 2>/dev/null | head -n 1)" ]
}

# One process at a time sets up; the others wait and then find nothing to do.
# Descriptor 9 holds the lock and is closed in children: a server that some
# package starts would keep it.
lock_setup() {
    mkdir -p "$root/.setup" "$root/build" 2>/dev/null ||
        die 1 "cannot write to $root to set up"
    exec 9>"$root/.setup/lock"
    flock 9
}

unlock_setup() {
    exec 9>&-
}

# A build folder that was copied or moved along with the tree names its old place.
forget_moved_cache() { # forget_moved_cache FOLDER
    if [ -f "$1/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$1/CMakeCache.txt"; then
        rm -rf "$1/CMakeCache.txt" "$1/CMakeFiles"
    fi
}

setup_library() {
    ! library_is_current || return 0
    lock_setup
    if ! library_is_current; then
        need_to_build
        install_missing
        say "building $root/build/libbulkhead.so"
        forget_moved_cache "$root/build"
        # Taken before the build, so that a change during it is not missed.
        : >"$stamp.new"
        # Running a program needs no tests; a build that has them keeps them.
        tests=
        [ -f "$root/build/build.ninja" ] || tests=-DBULKHEAD_TESTS=OFF
        if ! {
            cmake -S "$root" --preset release ${tests:+"$tests"} &&
                cmake --build "$root/build" --target bulkhead_shared
        } >"$build_log" 2>&1 </dev/null 9>&-; then
            tail -n 40 "$build_log" >&2
            die 1 "the build failed (log: $build_log)"
        fi
        [ -f "$root/build/libbulkhead.so" ] || die 1 "the build made no build/libbulkhead.so (log: $build_log)"
        mv "$stamp.new" "$stamp"
    fi
    unlock_setup
}
