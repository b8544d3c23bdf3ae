# shellcheck shell=sh disable=SC2154 # ../bulkhead sets $root
# `bulkhead attack`: sets up what the attack table needs and runs attack.py.
# Sourced by ../bulkhead after setup.sh and bench.sh; provides run_attack.

need_to_attack() {
    need_to_build
    need python3 python3 -c 'import argparse, csv, concurrent.futures'
    case " $* " in
    *' --all '* | *mimalloc* | *jemalloc* | *tcmalloc* | *scudo*)
        need libmimalloc2.0 has_library libmimalloc.so.2
        need libjemalloc2 has_library libjemalloc.so.2
        need libtcmalloc-minimal4 has_library libtcmalloc_minimal.so.4
        need "$(clang_runtime_package)" has_scudo
        ;;
    esac
}

build_to_attack() {
    forget_moved_cache "$root/build"
    mkdir -p "$root/build"
    # The table needs no other tests; a build that has them keeps them.
    tests=
    [ -f "$root/build/build.ninja" ] || tests=-DBULKHEAD_TESTS=OFF
    if ! {
        cmake -S "$root" --preset release -DBULKHEAD_ATTACK=ON ${tests:+"$tests"} &&
            cmake --build "$root/build" --target bulkhead_shared bulkhead-attack-table
    } >"$root/build/bulkhead-attack.log" 2>&1 </dev/null 9>&-; then
        tail -n 40 "$root/build/bulkhead-attack.log" >&2
        die 1 "the build failed (log: $root/build/bulkhead-attack.log)"
    fi
}

run_attack() {
    # Nothing may reach the allocators from the caller's own use of one.
    unset LD_PRELOAD BULKHEAD_PROFILE BULKHEAD_OPTIONS
    lock_setup
    need_to_attack "$@"
    install_missing
    build_to_attack
    unlock_setup
    exec python3 "$root/tools/attack.py" "$@"
}
