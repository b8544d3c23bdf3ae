#!/bin/sh
# Shows that the stress test can fail: plants one fault and demands exit status
# 1 and a finding of the right kind.
#
#   plant_test.sh STRESS PLANT KIND [OPTIONS...]
#
# A plant acts at random moments; three tries are more than enough, and one that
# ends in a finding of another kind is a failure at once.
set -u
stress=$1 plant=$2 kind=$3
shift 3
for try in 1 2 3; do
    output=$("$stress" --plant "$plant" --seconds 4 --grace 5 "$@" 2>&1)
    status=$?
    if [ "$status" -eq 1 ] && printf '%s\n' "$output" | grep -q "^stress: FINDING: $kind:"; then
        printf 'plant %s (try %s): %s\n' "$plant" "$try" \
            "$(printf '%s\n' "$output" | grep 'FINDING' | tr '\n' ' ')"
        exit 0
    fi
    if [ "$status" -ne 0 ]; then
        break
    fi
done
printf 'plant %s: expected exit status 1 and "FINDING: %s:", got status %s and\n%s\n' \
    "$plant" "$kind" "$status" "$output"
exit 1
