#!/bin/sh
# Runs real programs twice, with the system allocator and with LIB preloaded,
# and demands the same exit codes, output, query results and files, and not one
# line of a report.
#
#   run.sh [--full] [--keep] [--jobs N] LIB [PROGRAM[:MODE,...]...]
#
# --full   more of everything (about ten times the work); default: what CI runs
# --keep   leave the work folder and print its name
# --jobs   run N programs at a time
# PROGRAM  names of files in programs/, and in which modes only; default: all of them
#
# BULKHEAD_MODES  guard modes, or profiles, or "guarded" for every block with pages
#                 of its own; default "auto mprotect hardened" (guarded takes ten times as long,
#                 debug five times)
#
# Exit status: 0 all passed, 1 some failed, 2 wrong usage.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
    echo "usage: run.sh [--full] [--keep] [--jobs N] LIB [PROGRAM[:MODE,...]...]" >&2
    exit 2
}

scale=1
limit=300
keep=
jobs=1
passed_on=
while [ $# -gt 0 ]; do
    case $1 in
    --full)
        scale=10
        limit=1800
        passed_on="$passed_on $1"
        ;;
    --keep)
        keep=yes
        passed_on="$passed_on $1"
        ;;
    --jobs)
        [ $# -ge 2 ] || usage
        jobs=$2
        shift
        ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
[ $# -ge 1 ] || usage
lib=$1
shift
if [ ! -f "$lib" ]; then
    echo "run.sh: $lib: no such library" >&2
    exit 2
fi
if [ $# -eq 0 ]; then
    for file in "$here"/programs/*.sh; do
        name=$(basename "$file" .sh)
        set -- "$@" "$name"
    done
fi
for name; do
    name=${name%%:*}
    if [ ! -f "$here/programs/$name.sh" ]; then
        echo "run.sh: there is no program $name; there are:" "$(cd "$here/programs" && echo *.sh | sed 's/\.sh//g')" >&2
        exit 2
    fi
done
if [ "$jobs" -gt 1 ]; then
    # shellcheck disable=SC2086 # a list of options
    printf '%s\n' "$@" | xargs -P "$jobs" -n 1 sh "$0" $passed_on "$lib" | awk '
        /^[0-9]+ passed, [0-9]+ failed$/ { runs++; passed += $1; failed += $3; next }
        { print; fflush() }
        END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || runs != programs }' programs=$#
    exit
fi
modes=${BULKHEAD_MODES:-auto mprotect hardened}
# The library reads every BULKHEAD_ variable; the runs below set their own.
unset BULKHEAD_MODES BULKHEAD_GUARD BULKHEAD_OPTIONS BULKHEAD_PROFILE LD_PRELOAD

# A server that must not be root runs as another user, who has to get at the
# library, the scripts and the work folder.
work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-preload.XXXXXX")
chmod 755 "$work"
running=
finish() {
    # One kill reaches all of a run: timeout(1) leads a process group of its own.
    [ -z "$running" ] || kill -TERM "$running" 2>/dev/null || true
    [ -z "$running" ] || wait "$running" || true
    if [ -n "$keep" ]; then echo "work folder: $work"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$work/lib"
cp "$lib" "$work/lib/$(basename "$lib")"
chmod 755 "$work/lib/$(basename "$lib")"
lib=$work/lib/$(basename "$lib")
cp -R "$here/data" "$work/scripts"
chmod -R a+rX "$work/scripts"

now() { # hundredths of a second since boot
    read -r up _ </proc/uptime
    echo "${up%.*}${up#*.}"
}

seconds() { # seconds HUNDREDTHS
    awk -v t="$1" 'BEGIN { printf "%.1f", t / 100 }'
}

# one PHASE NAME MODE: runs a phase of a program; MODE is "system", a guard
# mode or a profile. Leaves results in out.MODE, messages in log.MODE and the time in $took.
one() {
    preload=
    [ "$3" = system ] || preload=$lib
    case $3 in
    hardened) options=profile=hardened ;;
    debug) options=profile=debug:leaks=0 ;; # leaks would be among the messages
    guarded) options=guarded_sample_rate=1 ;;
    fuzz) options=profile=fuzz ;;
    *) options=guard=$3 ;;
    esac
    dir=$work/$2
    rm -rf "$dir/tmp"
    mkdir -p "$dir/tmp" "$dir/data" "$dir/out.$3" "$dir/log.$3"
    # Part of the paths is compared, so they must not tell the modes apart.
    chmod 755 "$dir" "$dir/tmp" "$dir/data" "$dir/out.$3" "$dir/log.$3"
    start=$(now)
    status=0
    env PT_LIB="$preload" PT_OPTIONS="$options" PT_OUT="$dir/out.$3" PT_LOG="$dir/log.$3" PT_TMP="$dir/tmp" \
        PT_DATA="$dir/data" PT_SCRIPTS="$work/scripts" PT_SCALE="$scale" PT_ROOT="$root" HOME="$dir/tmp" \
        timeout -k 10 "$limit" sh "$here/one.sh" "$1" "$here/programs/$2.sh" \
        >"$dir/log.$3/$1.stdout" 2>"$dir/log.$3/$1.stderr" </dev/null &
    running=$!
    wait "$running" || status=$?
    running=
    took=$(($(now) - start))
    return "$status"
}

# why NAME MODE PHASE STATUS: one line on a run that failed
why() {
    case $4 in
    124 | 137) echo "$3 took more than $limit s" ;;
    *)
        report=$(grep -rhaE 'bulkhead: (ERROR|WARNING)' "$work/$1/log.$2" 2>/dev/null | head -n 1)
        if [ -n "$report" ]; then
            echo "$report"
        else
            echo "$3 ended with $4: $(tail -n 1 "$work/$1/log.$2/$3.stderr")"
        fi
        ;;
    esac
}

passed=0
failed=0
fail() { # fail NAME TEXT
    failed=$((failed + 1))
    echo "FAIL $1: $2"
}

check() { # check NAME MODE SYSTEM_TIME
    dir=$work/$1
    status=0
    one run "$1" "$2" || status=$?
    if [ "$status" -ne 0 ]; then
        fail "$1/$2" "$(why "$1" "$2" run "$status")"
        return
    fi
    # The loader only complains when it cannot load the library, and goes on.
    # one.sh has made sure that it is loaded; this is for the children.
    said=$(grep -rhaE 'bulkhead: (ERROR|WARNING)|from LD_PRELOAD cannot be preloaded' "$dir/log.$2" "$dir/out.$2" | head -n 1) || true
    if [ -n "$said" ]; then
        fail "$1/$2" "$said"
        return
    fi
    differing=$(diff -rq "$dir/out.system" "$dir/out.$2" | head -n 1) || true
    if [ -n "$differing" ]; then
        fail "$1/$2" "differs from the system allocator: $differing"
        return
    fi
    passed=$((passed + 1))
    echo "ok $1/$2 ($(seconds "$took") s, $(awk -v a="$took" -v b="$3" 'BEGIN { printf "%.2f", (b > 0 ? a / b : 0) }') of the system allocator)"
}

for program; do
    name=${program%%:*}
    case $program in
    *:*) its_modes=$(echo "${program#*:}" | tr , ' ') ;;
    *) its_modes=$modes ;;
    esac
    status=0
    one prepare "$name" system || status=$?
    if [ "$status" -ne 0 ]; then
        fail "$name" "$(why "$name" system prepare "$status")"
        continue
    fi
    one run "$name" system || status=$?
    if [ "$status" -ne 0 ]; then
        fail "$name" "with the system allocator: $(why "$name" system run "$status")"
        continue
    fi
    if [ -z "$(ls "$work/$name/out.system")" ]; then
        fail "$name" "leaves nothing to compare"
        continue
    fi
    system=$took
    for mode in $its_modes; do
        check "$name" "$mode" "$system"
    done
    [ -n "$keep" ] || rm -rf "${work:?}/$name"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
