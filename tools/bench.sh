# shellcheck shell=sh disable=SC2154 # ../bulkhead sets $root
# `bulkhead bench [latency|memory|lines]`: sets up what the benchmark needs and runs
# bench/run.py, or the script in bench/ of that name.
# Sourced by ../bulkhead after setup.sh; provides run_bench.

has_library() { # has_library SONAME
    for folder in /usr/lib/*-linux-gnu* /usr/local/lib /usr/lib64 /usr/lib; do
        [ ! -e "$folder/$1" ] || return 0
    done
    return 1
}

has_scudo() {
    find /usr/lib/llvm-* /usr/lib/clang -name "libclang_rt.scudo_standalone-$(uname -m).so" 2>/dev/null | grep -q .
}

has_redis_server() {
    command -v redis-benchmark && { command -v redis-server || command -v redis-check-rdb; }
}

need_to_bench() { # need_to_bench SCRIPT
    need_to_build
    need python3 python3 -c 'import csv, statistics, socket'
    if [ "$1" = lines ]; then # no other allocators
        need binutils command -v addr2line
        return
    fi
    need libmimalloc2.0 has_library libmimalloc.so.2
    need libjemalloc2 has_library libjemalloc.so.2
    need libtcmalloc-minimal4 has_library libtcmalloc_minimal.so.4
    need "$(clang_runtime_package)" has_scudo
    need redis-tools has_redis_server
    need sqlite3 command -v sqlite3
}

# build_to_bench PRESET FOLDER TARGET...: what is up to date stays as it is.
build_to_bench() {
    preset=$1
    folder=$2
    shift 2
    forget_moved_cache "$folder"
    mkdir -p "$folder"
    # Measuring needs no tests; a build that has them keeps them.
    tests=
    [ -f "$folder/build.ninja" ] || tests=-DBULKHEAD_TESTS=OFF
    if ! {
        cmake -S "$root" --preset "$preset" -DBULKHEAD_BENCH=ON ${tests:+"$tests"} &&
            cmake --build "$folder" --target "$@"
    } >"$folder/bulkhead-bench.log" 2>&1 </dev/null 9>&-; then
        tail -n 40 "$folder/bulkhead-bench.log" >&2
        die 1 "the build failed (log: $folder/bulkhead-bench.log)"
    fi
}

run_bench() {
    # Nothing may reach the allocators from the caller's own use of one.
    unset LD_PRELOAD BULKHEAD_PROFILE BULKHEAD_OPTIONS
    script=run
    case ${1-} in
    latency | memory | lines)
        script=$1
        shift
        ;;
    esac
    lock_setup
    need_to_bench "$script"
    case " $* " in
    *" --plot"[=\ ]*) need gnuplot-nox command -v gnuplot ;;
    esac
    install_missing
    build_to_bench release "$root/build" bulkhead_shared bench_programs
    case " $* " in
    *bulkhead-off*) build_to_bench off "$root/build-off" bulkhead_shared ;;
    esac
    unlock_setup
    exec python3 "$root/bench/$script.py" "$@"
}
