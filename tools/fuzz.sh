# shellcheck shell=sh disable=SC2154 # ../bulkhead sets $root
# `bulkhead fuzz`: sets up AFL++, builds the harness and runs a campaign. Sourced by
# ../bulkhead after setup.sh, and by test.sh; provides run_fuzz and what a short run needs.

fuzz_targets='api inband badfree control arith options report process'
fuzz_build=$root/build-fuzz
fuzz_out=$fuzz_build/findings

fuzz_usage() {
    cat <<END
usage: bulkhead fuzz [--seconds N] [TARGET]...
       bulkhead fuzz --status | --coverage | --plants [FAULT]...
       bulkhead fuzz --corpus [FINDINGS]... [--only TARGET]
       bulkhead fuzz --print TARGET FILE | --minimise TARGET FILE

Attacks the allocator with AFL++ for N seconds (default 60) each target, two at a time
on two processors, and prints executions, coverage and findings. What was found before
is kept in build-fuzz/findings and gone on from.

--status      the figures of the campaign that runs or ran last
--coverage    lines and branches of src/ that the corpus reaches
--plants      breaks the allocator on purpose, fault by fault, and prints how fast the
              fuzzer notices
--corpus      renews fuzz/corpus/ from what it has and what was found, in build-fuzz/findings
              and in other folders of that kind
--print       the input as a C program of its own
--minimise    the smallest input that AFL++ makes of it, to FILE.min

Targets: $fuzz_targets
END
}

need_to_fuzz() {
    need_to_build
    need afl++ command -v afl-clang-fast
    need clang command -v clang
    need python3 python3 -c 'import struct, subprocess'
    need pkg-config command -v pkg-config
    need check pkg-config --exists check
}

# A sandbox without AFL++'s favourite settings is good enough.
fuzz_environment() {
    export AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_NO_UI=1 AFL_FAST_CAL=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_AUTORESUME=1
    export FUZZ_LOG="$fuzz_out/findings.log"
}

build_fuzz() {
    forget_moved_cache "$fuzz_build"
    mkdir -p "$fuzz_build"
    if ! {
        cmake -S "$root" --preset fuzz && cmake --build "$fuzz_build"
    } >"$fuzz_build/bulkhead-fuzz.log" 2>&1 </dev/null 9>&-; then
        tail -n 40 "$fuzz_build/bulkhead-fuzz.log" >&2
        die 1 "the build failed (log: $fuzz_build/bulkhead-fuzz.log)"
    fi
}

# A command in front of another that keeps it to the Nth of the processors that are ours;
# none where there are fewer.
on_processor() { # on_processor N
    taskset -cp $$ 2>/dev/null | awk -F ': ' -v nth="$1" '{
        n = split($2, range, ",")
        for (i = 1; i <= n; i++) {
            split(range[i], ends, "-")
            for (cpu = ends[1]; cpu <= (ends[2] == "" ? ends[1] : ends[2]); cpu++)
                if (--nth == 0) print "taskset -c " cpu
        }
    }'
}

# The dictionary or the mutator that fits a target. AFL++ and the target take turns: on two
# processors each waits for the other to wake up, which takes several times as long as an
# input does.
fuzz_one() { # fuzz_one TARGET SECONDS N
    mkdir -p "$fuzz_out/$1"
    extra=
    on=$(on_processor "$3")
    case $1 in
    options | report) extra="-x $root/fuzz/$1.dict" ;;
    process) on= ;; # it has threads; and each input has a longer header than the mutator knows
    *) export AFL_CUSTOM_MUTATOR_LIBRARY="$fuzz_build/fuzz/libfuzz_mutate.so" AFL_CUSTOM_MUTATOR_ONLY=1 ;;
    esac
    [ "$1" != api ] || extra='-p exploit' # quick programs more often: a third more of them, and the same edges
    # shellcheck disable=SC2086 # a command and its option, or none; the same
    timeout $(($2 + 120)) $on afl-fuzz -i "$fuzz_build/fuzz/seeds/$1" -o "$fuzz_out/$1" -V "$2" -t 5000 $extra -- \
        "$fuzz_build/fuzz/fuzz-afl-$1" >"$fuzz_out/$1.log" 2>&1 </dev/null
}

# fuzz_all SECONDS TARGET...: two at a time.
fuzz_all() {
    seconds=$1
    shift
    mkdir -p "$fuzz_out"
    while [ $# -gt 0 ]; do
        (fuzz_one "$1" "$seconds" 1) &
        first=$!
        if [ $# -gt 1 ]; then
            (fuzz_one "$2" "$seconds" 2) &
            wait $! || true
            shift
        fi
        wait $first || true
        shift
    done
}

figure() { # figure FILE NAME
    sed -n "s/^$2 *: *//p" "$1"
}

# Prints a table; sets fuzz_findings, and fuzz_lost for targets that did not run.
fuzz_status() { # fuzz_status TARGET...
    fuzz_findings=0
    fuzz_lost=
    printf '%-9s %12s %10s %8s %8s %9s %10s\n' target executions 'a second' corpus edges coverage findings
    for target; do
        stats=$fuzz_out/$target/default/fuzzer_stats
        if [ ! -f "$stats" ] || [ "$(figure "$stats" execs_done)" = 0 ]; then
            fuzz_lost="$fuzz_lost $target"
            continue
        fi
        found=$(find "$fuzz_out/$target/default/crashes" "$fuzz_out/$target/default/hangs" -name 'id*' | wc -l)
        fuzz_findings=$((fuzz_findings + found))
        printf '%-9s %12s %10s %8s %8s %9s %10s\n' "$target" "$(figure "$stats" execs_done)" "$(figure "$stats" execs_per_sec)" \
            "$(figure "$stats" corpus_count)" "$(figure "$stats" edges_found)" "$(figure "$stats" bitmap_cvg)" "$found"
    done
    for target; do
        find "$fuzz_out/$target/default/crashes" "$fuzz_out/$target/default/hangs" -name 'id*' 2>/dev/null | sed 's/^/   /'
    done
    if [ -s "$fuzz_out/findings.log" ]; then
        sort "$fuzz_out/findings.log" | uniq -c | sort -rn | head -n 20
    fi
}

is_target() {
    case " $fuzz_targets " in
    *" $1 "*) ;;
    *) die 2 "fuzz: there is no target '$1'; there are: $fuzz_targets" ;;
    esac
}

run_fuzz() {
    unset LD_PRELOAD BULKHEAD_PROFILE BULKHEAD_OPTIONS
    seconds=60
    case ${1:-} in
    --help | -h)
        fuzz_usage
        return
        ;;
    --status)
        # shellcheck disable=SC2086 # a list of words
        fuzz_status $fuzz_targets
        return
        ;;
    --seconds)
        seconds=${2:-}
        case $seconds in '' | *[!0-9]*) die 2 "fuzz: --seconds wants a number" ;; esac
        shift 2
        ;;
    esac
    lock_setup
    need_to_fuzz
    [ "${1:-}" != --coverage ] || need gcovr command -v gcovr
    install_missing
    build_fuzz
    unlock_setup
    case ${1:-} in
    --coverage) exec sh "$root/fuzz/coverage.sh" "$root" ;;
    --corpus)
        shift
        exec python3 "$root/fuzz/corpus.py" "$root" "$fuzz_out" "$@"
        ;;
    --plants)
        shift
        exec sh "$root/fuzz/plant.sh" "$root" "$@"
        ;;
    --print | --minimise)
        [ $# -eq 3 ] || die 2 "fuzz: $1 wants a target and a file"
        is_target "$2"
        [ -f "$3" ] || die 2 "fuzz: there is no file $3"
        if [ "$1" = --print ]; then
            [ -x "$fuzz_build/fuzz/fuzz-print-$2" ] || die 2 "fuzz: inputs of '$2' are no programs to print"
            exec "$fuzz_build/fuzz/fuzz-print-$2" "$3"
        fi
        fuzz_environment
        exec afl-tmin -i "$3" -o "$3.min" -t 5000 -- "$fuzz_build/fuzz/fuzz-afl-$2"
        ;;
    -*) die 2 "fuzz: unknown option $1 (see 'bulkhead fuzz --help')" ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    [ $# -gt 0 ] || set -- $fuzz_targets
    for target; do is_target "$target"; done
    fuzz_environment
    fuzz_all "$seconds" "$@"
    fuzz_status "$@"
    [ -z "$fuzz_lost" ] || die 1 "fuzz: did not run:$fuzz_lost (logs: build-fuzz/findings/TARGET.log)"
    [ "$fuzz_findings" -eq 0 ]
}
