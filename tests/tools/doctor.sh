#!/bin/sh
# doctor.sh LIBRARY DOCTOR: everything fires here, under other limits and with other
# guards too; what is in force is told with where it comes from; and an allocator that
# detects nothing is not taken for one that does.
set -eu

library=$(readlink -f -- "$1")
doctor=$(readlink -f -- "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_PRELOAD BULKHEAD_OPTIONS BULKHEAD_PROFILE BULKHEAD_GUARD
cd "$work"
failed=0

# expect NAME STATUS COMMAND...: its output is in out.
expect() {
    name=$1 wanted=$2
    shift 2
    status=0
    "$@" >out 2>&1 || status=$?
    if [ $status = "$wanted" ]; then
        echo "ok $name"
    else
        echo "FAIL $name: exit code $status, wanted $wanted"
        cat out
        failed=1
    fi
}

has() { # has PATTERN...
    for pattern; do
        grep -qE -- "$pattern" out || {
            echo "FAIL $name: nothing like '$pattern'"
            cat out
            failed=1
        }
    done
}

expect here 0 "$doctor" --library "$library"
has '^  ok   double free  *SIGABRT, double-free$' '^  ok   guarded: use after free  *SIGSEGV, use-after-free$' \
    '^  profile  *secure  *from profile$' '^everything that this kernel makes possible has fired$'
expect mprotect 0 env BULKHEAD_GUARD=mprotect "$doctor" --library "$library"
has '^  guards  *mprotect$' '^  guard  *mprotect  *from environment$' 'weaker than the default: guards are limited'
# shellcheck disable=SC3045 # every shell that is /bin/sh has it
expect address-space 0 sh -c 'ulimit -v 1500000 && exec "$@"' - "$doctor" --library "$library"
has '^  address space \(RLIMIT_AS\)  *1536000000$'
expect options 0 env BULKHEAD_OPTIONS=profile=fuzz:seed=7:nonsense=1 BULKHEAD_PURGE_DELAY=3 "$doctor" --options --library "$library"
has '^  profile  *fuzz  *from environment$' '^  seed  *7  *from environment$' '^  purge_delay  *3  *from environment$' \
    '^  guarded_sample_rate  *1  *from profile$' 'WARNING: option nonsense is unknown'
expect json 0 "$doctor" --json --library "$library"
python3 - out >judged <<'END' || failed=1
import json, sys
report = json.load(open(sys.argv[1]))
assert report["ok"] is True and len(report["tests"]) > 20 and report["in_force"]["guards"]
assert {o["option"] for o in report["in_force"]["options"]} >= {"profile", "guard", "seed"}
assert all(t["ok"] is not False for t in report["tests"])
END
expect no-library 1 "$doctor" --library "$work/none.so"

# The names, and nothing behind them.
cat >nothing.c <<'END'
#include <malloc.h>
#include <stdlib.h>
size_t bh_usable_size(void *p) { return malloc_usable_size(p); }
void bh_free_sized(void *p, size_t size) { (void)size; free(p); }
void *bh_heap_new(void) { return malloc(1); }
void bh_heap_delete(void *heap) { free(heap); }
void *bh_heap_malloc(void *heap, size_t size) { (void)heap; return malloc(size); }
size_t bh_verify(void) { return 0; }
END
gcc -shared -fPIC -o nothing.so nothing.c
expect nothing 1 "$doctor" --json --library "$work/nothing.so"
python3 - out <<'END' || failed=1
import json, sys
report = json.load(open(sys.argv[1]))
assert report["ok"] is False and report["in_force"]["options"] == []
wrong = [t["name"] for t in report["tests"] if t["ok"] and ("," in t["wanted"] or "overflow out of" in t["name"])]
assert not wrong, "taken for detected: %s" % wrong
END
[ $failed = 0 ] && echo "all passed"
exit $failed
