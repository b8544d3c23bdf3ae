#!/bin/sh
# Shows that a limit can be exceeded: runs a test on the faulty allocator and
# demands exit status 1 and a result line that failed.
#
#   can_fail.sh FAULTY_LIBRARY FAULT RESULT PROGRAM [ARGS...]
set -u
library=$1 fault=$2 result=$3
shift 3
output=$(LIMITS_ANY_ALLOCATOR=1 FAULTY="$fault" LD_PRELOAD="$library" "$@" 2>&1)
status=$?
printf '%s\n' "$output"
if [ "$status" -eq 77 ]; then
    exit 77
fi
if [ "$status" -ne 1 ] || ! printf '%s\n' "$output" | grep -q "^$result:.*FAIL"; then
    printf 'fault %s: expected exit status 1 and a line "%s: ... FAIL", got status %s\n' \
        "$fault" "$result" "$status"
    exit 1
fi
