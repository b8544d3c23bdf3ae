#!/bin/sh
# One phase of one program: one.sh PHASE FILE, started by run.sh, which sets
#   PT_LIB      the library to preload, empty for the system allocator
#   PT_OPTIONS  options of the library
#   PT_OUT      results, compared between the allocators
#   PT_LOG      messages, searched for reports
#   PT_TMP      scratch, the same path in every run
#   PT_DATA     what the prepare phase made, the same for every run
#   PT_SCRIPTS  a readable copy of data/
#   PT_SCALE    1 in CI, 10 with --full
#   PT_ROOT     the source tree
# FILE defines run, and prepare where there is data to make.
set -eu
umask 022
export LC_ALL=C TZ=UTC

die() {
    echo "$*" >&2
    exit 1
}

# bh COMMAND...: runs it with the allocator under test.
bh() {
    if [ -n "$PT_LIB" ]; then
        env LD_PRELOAD="$PT_LIB" BULKHEAD_OPTIONS="$PT_OPTIONS" "$@"
    else
        "$@"
    fi
}

# expect STATUS NAME COMMAND...: output to PT_OUT/NAME, messages to PT_LOG.
expect() {
    wanted=$1
    what=$2
    shift 2
    got=0
    bh "$@" >"$PT_OUT/$what" 2>"$PT_LOG/$what.stderr" || got=$?
    [ "$got" -eq "$wanted" ] || die "$what: exit code $got: $(tail -n 1 "$PT_LOG/$what.stderr")"
}

record() { # record NAME COMMAND...: expect 0
    expect 0 "$@"
}

# quiet NAME COMMAND...: demands 0, keeps output that is not for comparing.
quiet() {
    what=$1
    shift
    bh "$@" >"$PT_LOG/$what.stdout" 2>"$PT_LOG/$what.stderr" ||
        die "$what: exit code $?: $(tail -n 1 "$PT_LOG/$what.stderr")"
}

# Where the tests run as root, what refuses root runs as nobody: a prefix.
unprivileged=
if [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2034 # for the program files
    unprivileged='setpriv --reuid=65534 --regid=65534 --clear-groups'
fi

# start NAME COMMAND...: a server, stopped at the end whatever happens. Not
# through bh: the shell gives the process id of a function's subshell.
servers=
start() {
    what=$1
    shift
    if [ -n "$PT_LIB" ]; then
        env LD_PRELOAD="$PT_LIB" BULKHEAD_OPTIONS="$PT_OPTIONS" "$@" >>"$PT_LOG/$what.server" 2>&1 &
    else
        "$@" >>"$PT_LOG/$what.server" 2>&1 &
    fi
    server=$!
    servers="$servers $server"
}

# stop PID [SIGNAL]: and demands a clean exit.
stop() {
    kill "-${2:-TERM}" "$1"
    wait "$1" || die "the server ended with $?"
    servers=$(echo " $servers " | sed "s/ $1 / /")
}

loaded() { # loaded PID: demands that the library is in that process
    [ -z "$PT_LIB" ] || grep -qF "$PT_LIB" "/proc/$1/maps" || die "process $1 runs without the library"
}

children() { # children PID
    grep -lsE "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | cut -d / -f 3
}

# until_ready COMMAND...: waits, 30 seconds at most, until it succeeds.
until_ready() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || die "not ready after 30 s: $*"
        sleep 0.1
    done
}

digest() { # of standard input
    sha256sum | cut -d ' ' -f 1
}

cleanup() {
    for server in $servers; do
        kill -TERM "$server" 2>/dev/null || continue
        tries=0
        while grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$server/status" 2>/dev/null && [ "$tries" -lt 50 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
        kill -KILL "$server" 2>/dev/null || true
    done
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP

prepare() { :; }
run() { die "defines no run"; }
# shellcheck source=/dev/null
. "$2"

if [ -n "$PT_LIB" ] && ! bh cat /proc/self/maps | grep -qF "$PT_LIB"; then
    die "the loader does not load $PT_LIB"
fi
cd "$PT_TMP"
"$1"
