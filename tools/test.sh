# shellcheck shell=sh disable=SC2154 # ../bulkhead sets $root
# ./bulkhead test: stages, each with its log in .setup/. Sourced by ../bulkhead
# after setup.sh; provides run_tests.

stages='lint unit command debug clang off os16k os64k aarch64 asan ubsan tsan consumer fuzz preload'

describe() {
    cat <<'END'
lint      shellcheck, and the order of the layers of src/
unit      preset release: build and test, and test that the tests can fail
command   ./bulkhead run: what it starts, what it refuses, and how
debug     preset debug: build and test
clang     preset clang: build without a warning, and test
off       all hardening compiled out: build and test
os16k     a build for OS pages of up to 16 KiB: build and test
os64k     a build for OS pages of up to 64 KiB: build and test
aarch64   compile for another processor
asan      address sanitizer, on the bh_ names
ubsan     undefined-behaviour sanitizer, on the bh_ names
tsan      thread sanitizer, on the bh_ names
consumer  install, move, and build a program against it
fuzz      the fuzzing harness: replays its corpus, then fuzzes each target for a while
preload   real programs, compared with the system allocator
END
}

# --------------------------------------------------------------------- packages

has_postgresql() {
    command -v initdb || ls /usr/lib/postgresql/*/bin/initdb
}

has_nginx() {
    command -v nginx || [ -x /usr/sbin/nginx ]
}

has_redis() {
    command -v redis-cli && command -v redis-benchmark && command -v redis-check-rdb
}

has_clang_runtime() {
    printf 'int main(void) { return 0; }\n' | clang -x c -fsanitize=address,undefined -o /dev/null -
}

need_for_stage() { # need_for_stage STAGE
    case $1 in
    fuzz)
        need_to_fuzz
        return
        ;;
    lint)
        need shellcheck command -v shellcheck
        return
        ;;
    esac
    need_to_build
    case $1 in
    aarch64)
        need gcc-aarch64-linux-gnu command -v aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross compiles aarch64-linux-gnu-gcc c stdlib.h
        return
        ;;
    esac
    [ "$1" != command ] || return 0
    need pkg-config command -v pkg-config
    need check pkg-config --exists check
    need python3 python3 -c 'import json, multiprocessing, xml.etree, zlib'
    need g++ compiles g++ c++ string
    case $1 in
    clang | asan | ubsan | tsan | preload) need clang command -v clang++ ;;
    esac
    case $1 in
    asan | ubsan | tsan) need "$(clang_runtime_package)" has_clang_runtime ;;
    preload)
        need perl perl -e 'use threads; use Digest::SHA;'
        need sqlite3 command -v sqlite3
        need git command -v git
        need redis-tools has_redis
        need postgresql has_postgresql
        need nginx has_nginx
        need apache2-utils command -v ab
        need openssl command -v openssl
        need nodejs command -v node
        ;;
    esac
}

# --------------------------------------------------------------------- counting

all_passed=0
all_failed=0
passed=0
failed=0
log=/dev/null

count() { # count PASSED FAILED
    passed=$((passed + $1))
    failed=$((failed + $2))
}

# complain TEXT: a failure of this stage.
complain() {
    count 0 1
    echo "   $*"
}

# attempt TEXT COMMAND...: one thing to count, with its output in the log.
attempt() {
    text=$1
    shift
    if "$@" >>"$log" 2>&1 </dev/null; then
        count 1 0
    else
        complain "$text"
        tail -n 40 "$log" | sed 's/^/   | /'
        return 1
    fi
}

# count_last_line TEXT COMMAND...: a script that ends with "N passed, M failed".
count_last_line() {
    text=$1
    shift
    {
        status=0
        "$@" 2>&1 </dev/null || status=$?
        echo "$status" >"$log.status"
    } | tee "$log.part" | sed -u '/^[0-9]* passed, .* failed$/d; s/^/   /'
    status=$(cat "$log.status")
    cat "$log.part" >>"$log"
    counts=$(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log.part")
    # shellcheck disable=SC2086 # two numbers
    [ -z "$counts" ] || count $counts
    if [ -z "$counts" ] || [ "$counts" = '0 0' ]; then
        complain "$text ended with $status and counted nothing"
    elif [ "$status" -ne 0 ] && [ "${counts#* }" = 0 ]; then
        complain "$text ended with $status"
    fi
    rm -f "$log.part" "$log.status"
}

# ----------------------------------------------------------------------- stages

jobs=$(nproc 2>/dev/null || echo 2)

build_preset() { # build_preset PRESET [CMAKE_ARGUMENT...]
    preset=$1
    shift
    folder=$root/build-$preset
    [ "$preset" != release ] || folder=$root/build
    forget_moved_cache "$folder"
    attempt "$preset: does not configure" cmake -S "$root" --preset "$preset" "$@" || return 1
    attempt "$preset: does not build" cmake --build "$folder" -j "$jobs" || return 1
    if grep -qE 'warning:' "$log"; then
        complain "$preset: the build prints warnings: $(grep -E 'warning:' "$log" | head -n 1)"
    fi
}

test_preset() { # test_preset PRESET [PREFIX...]
    # The benchmarks' own tests run in one preset: they link nothing of the library.
    bench=OFF
    [ "$1" != release ] || bench=ON
    build_preset "$1" -DBULKHEAD_TESTS=ON -DBULKHEAD_BENCH=$bench || return 0
    # Tests of the tests, which plant a fault and demand that it is found, run in
    # one preset. Tests labelled slow take hours and are run by hand, and the
    # consumer has a stage of its own.
    without='^consumer$'
    [ "$1" = release ] || without='^consumer$|-can-fail-|-plant-'
    # Everything runs on the release build. The other builds run what a compiler,
    # a sanitizer or a page size can change, so that all of it stays short.
    with=.
    case $1 in
    release) without="$without|^api_clang_" ;; # each compiler's operators with its own library
    debug)
        # Code without optimisation, and as other modes have it as well.
        with='^(unit|api)'
        without="$without|-mprotect$|-purge-at-once$|-hardened$|-debug$|-without-aes$|^api_(g_|clang)"
        ;;
    clang)
        with='^(unit|api)'
        without="$without|-mprotect$|-purge-at-once$|-debug$|-without-aes$|^api_g_"
        ;;
    asan | ubsan | tsan | off) with='^stress' ;;
    os16k | os64k)
        with='^unit'
        without="$without|-purge-at-once$|-hardened$|-debug$|-without-aes$"
        # Tables of these tests are made for pages of 64 KiB.
        without="$without|^unit-page|^unit-heap_full|^unit-hardened_reuse"
        case $1 in
        os16k) without="$without|-mprotect$" ;; # as of 64 KiB
        os64k) without="$without|^unit-large" ;;
        esac
        ;;
    esac
    shift
    status=0
    "$@" ctest --test-dir "$folder" --output-on-failure --no-tests=error --timeout 600 -LE '^slow$' -R "$with" -E "$without" -j "$jobs" >"$log.ctest" 2>&1 </dev/null || status=$?
    cat "$log.ctest" >>"$log"
    # "NN% tests passed, F tests failed out of T"
    counts=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\1 \2/p' "$log.ctest")
    if [ -z "$counts" ] || [ "${counts#* }" = 0 ]; then
        complain "$preset: no tests ran"
    else
        not_run=$(grep -c '\*\*\*Skipped' "$log.ctest") || true
        count $((${counts#* } - ${counts% *} - not_run)) "${counts% *}"
        [ "$not_run" = 0 ] || echo "   $not_run skipped: $(sed -n 's/.* - \(.*\) (Skipped)$/\1/p' "$log.ctest" | tr '\n' ' ')"
        if [ "$status" -ne 0 ] && [ "${counts% *}" = 0 ]; then complain "$preset: ctest ended with $status"; fi
    fi
    # What failed and what it printed, which lies between the tests that passed.
    if [ "$status" -ne 0 ]; then
        grep -vE '^ +Start +[0-9]+: |^ *[0-9]+/[0-9]+ Test .* Passed ' "$log.ctest" | tail -n 100 | sed 's/^/   | /'
    fi
    rm -f "$log.ctest"
}

# Some kernels place more at random than a sanitizer's shadow memory allows for.
without_random_addresses() {
    bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0)
    if [ "$bits" -gt 28 ] && setarch -R true 2>/dev/null; then echo 'setarch -R'; fi
}

stage_unit() { test_preset release; }
stage_debug() { test_preset debug; }
stage_clang() { test_preset clang; }
stage_off() { test_preset off; }
stage_os16k() { test_preset os16k; }
stage_os64k() { test_preset os64k; }
stage_aarch64() { build_preset aarch64 || true; }
stage_ubsan() { test_preset ubsan; }
# shellcheck disable=SC2046 # a prefix of words, or none
stage_asan() { test_preset asan $(without_random_addresses); }
# shellcheck disable=SC2046
stage_tsan() { test_preset tsan $(without_random_addresses); }

stage_lint() {
    files=$(cd "$root" && find . \( -name '.?*' ! -name .ci -o -name 'build*' -type d \) -prune -o -type f \
        \( -name '*.sh' -o -path ./bulkhead -o -path './.ci/*' \) -print | sort)
    [ -n "$files" ] || complain "there are no scripts to check"
    for file in $files; do
        attempt "shellcheck: $file" shellcheck -x "$root/$file" || true
    done
    attempt "the layers of src/ are out of order" sh "$root/tools/check-layers.sh" "$root/src" || true
    attempt "options and their documents differ" sh "$root/tools/check-options.sh" "$root" || true
    attempt "violations and the table of SECURITY.md differ" sh "$root/tools/guarantees.sh" --check "$root" || true
    attempt "techniques and their tests differ" sh "$root/tools/check-techniques.sh" "$root" || true
    attempt "documents name what is not there" sh "$root/tools/check-docs.sh" "$root" || true
    attempt "check-layers.sh does not notice" sh "$root/tools/check-layers.sh" --selftest || true
}

stage_consumer() {
    if [ ! -f "$root/tests/consumer/run.sh" ]; then
        complain "there is no tests/consumer/run.sh"
        return
    fi
    build_preset release || return 0
    attempt "consumer: failed" sh "$root/tests/consumer/run.sh" "$root/build" || true
}

# The corpus by ctest, which is the same each time and runs the same whatever ran before;
# then AFL++, ten seconds for each target, two at a time.
stage_fuzz() {
    attempt "the harness does not build" build_fuzz_apart || return 0
    attempt "the corpus has findings" ctest --test-dir "$fuzz_build" -L '^fuzz$' --no-tests=error --output-on-failure -j "$jobs" || return 0
    rm -rf "$fuzz_out"
    fuzz_environment
    # shellcheck disable=SC2086 # a list of words
    fuzz_all "${BULKHEAD_FUZZ_SECONDS:-10}" $fuzz_targets
    # shellcheck disable=SC2086
    fuzz_status $fuzz_targets >"$log.status"
    tee -a "$log" <"$log.status" | sed 's/^/   /'
    # shellcheck disable=SC2086
    fuzz_status $fuzz_targets >/dev/null
    for target in $fuzz_targets; do
        case " $fuzz_lost " in
        *" $target "*) complain "$target did not run (log: build-fuzz/findings/$target.log)" ;;
        *) count 1 0 ;;
        esac
    done
    [ "$fuzz_findings" = 0 ] || complain "$fuzz_findings findings, in build-fuzz/findings"
    rm -f "$log.status"
}

# It ends the shell that it runs in when it fails.
build_fuzz_apart() { (build_fuzz); }

stage_command() {
    (setup_library) || {
        complain "there is no library to preload"
        return
    }
    count_last_line "tools/test-command.sh" sh "$root/tools/test-command.sh"
}

stage_preload() {
    (setup_library) || {
        complain "there is no library to preload"
        return
    }
    count_last_line "tests/preload/selftest.sh" sh "$root/tests/preload/selftest.sh"
    # All of them in all modes take minutes more; by hand. The longest first.
    count_last_line "tests/preload/run.sh" sh "$root/tests/preload/run.sh" --jobs "$jobs" "$root/build/libbulkhead.so" \
        gcc:auto sqlite3:auto git:auto,mprotect,hardened redis:auto,hardened postgresql:auto,mprotect python3:auto \
        nginx:auto,hardened perl:auto,hardened node:auto openssl:auto
}

# ------------------------------------------------------------------------- main

run_tests() {
    case ${1:-} in
    --list)
        describe
        return
        ;;
    -*) die 2 "test: unknown option $1 (see 'bulkhead help')" ;;
    esac
    for stage; do
        case " $stages " in
        *" $stage "*) ;;
        *) die 2 "test: there is no stage '$stage'; there are: $stages" ;;
        esac
    done
    # shellcheck disable=SC2086 # a list of words
    [ $# -gt 0 ] || set -- $stages

    # Nothing may reach the tests from the caller's own use of the allocator.
    unset LD_PRELOAD BULKHEAD_PROFILE BULKHEAD_OPTIONS
    export BULKHEAD_TEST_SECONDS="${BULKHEAD_TEST_SECONDS:-20}"
    lock_setup
    for stage; do need_for_stage "$stage"; done
    install_missing
    unlock_setup

    for stage; do
        passed=0
        failed=0
        log=$root/.setup/$stage.log
        : >"$log"
        echo "== $stage"
        began=$(date +%s)
        "stage_$stage"
        echo "   $passed passed, $failed failed ($(($(date +%s) - began)) s, log: .setup/$stage.log)"
        all_passed=$((all_passed + passed))
        all_failed=$((all_failed + failed))
    done
    echo "$all_passed passed, $all_failed failed"
    [ "$all_failed" -eq 0 ]
}
