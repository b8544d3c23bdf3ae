#!/bin/sh
# Does run.sh notice? Each library here does one thing that a broken allocator
# might do, and run.sh must fail for that reason, and pass for a harmless one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-selftest.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
failed=0
passed=0

# demand NAME PROGRAM STATUS PATTERN: run.sh on library NAME, made from the C
# code on standard input, ends with STATUS and prints a line that has PATTERN.
demand() {
    {
        printf '#define _GNU_SOURCE\n#include <errno.h>\n#include <string.h>\n#include <unistd.h>\n'
        printf '#define SAY(fd, s) (void)!write(fd, s, sizeof(s) - 1)\n'
        cat
    } >"$work/$1.c"
    gcc -shared -fPIC -o "$work/lib$1.so" "$work/$1.c"
    check "$@"
}

check() { # check NAME PROGRAM STATUS PATTERN
    status=0
    BULKHEAD_GUARD=auto "$here/run.sh" "$work/lib$1.so" "$2" >"$work/said" 2>&1 || status=$?
    if [ "$status" -eq "$3" ] && grep -qE -- "$4" "$work/said"; then
        passed=$((passed + 1))
        echo "ok selftest/$1"
    else
        failed=$((failed + 1))
        echo "FAIL selftest/$1: status $status, wanted $3 and '$4': $(head -n 1 "$work/said")"
    fi
}

demand harmless openssl 0 '^ok openssl/auto' <<'END'
int bulkhead_selftest;
END
demand warning perl 1 '^FAIL perl/auto: bulkhead: WARNING: selftest' <<'END'
__attribute__((constructor)) static void start(void) { SAY(2, "bulkhead: WARNING: selftest\n"); }
END
demand output perl 1 '^FAIL perl/auto: differs from the system allocator' <<'END'
__attribute__((constructor)) static void start(void)
{
    if (strcmp(program_invocation_short_name, "perl") == 0)
        SAY(1, "x");
}
END
demand status perl 1 '^FAIL perl/auto: run ended with 1: script: exit code 9' <<'END'
__attribute__((destructor)) static void end(void)
{
    if (strcmp(program_invocation_short_name, "perl") == 0)
        _exit(9);
}
END
demand server redis 1 '^FAIL redis/auto: bulkhead: ERROR: selftest' <<'END'
__attribute__((destructor)) static void end(void)
{
    if (strcmp(program_invocation_short_name, "redis-server") == 0)
        SAY(2, "bulkhead: ERROR: selftest: in the log of a server\n");
}
END
echo "this is no library" >"$work/libtext.so"
check text perl 1 '^FAIL perl/auto: .*the loader does not load'
check absent perl 2 'no such library'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
