#!/bin/sh
# Tests of `bulkhead run`: what it starts, what it refuses, with which words and
# which exit code; in a source tree, and installed. Sets the tree up first where
# that has not been done since the last change of a source.
#
# Prints "ok NAME" or "FAIL NAME: why", and at last "N passed, M failed".
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
bulkhead=$root/bulkhead
work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-command.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
unset LD_PRELOAD BULKHEAD_OPTIONS BULKHEAD_PROFILE BULKHEAD_GUARD
cd "$work"
passed=0
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAIL $*"
}

# check NAME STATUS OUTPUT MESSAGE COMMAND...: demands the exit code, the whole
# of standard output, and of standard error nothing, or one line that has MESSAGE.
check() {
    name=$1 status=$2 output=$3 message=$4
    shift 4
    got=0
    "$@" >out 2>err || got=$?
    if [ "$got" -ne "$status" ]; then
        fail "$name: exit code $got, wanted $status: $(head -n 1 err)"
    elif [ "$(cat out)" != "$output" ]; then
        fail "$name: printed '$(head -n 1 out)', wanted '$output'"
    elif [ -z "$message" ] && [ -s err ]; then
        fail "$name: said '$(head -n 1 err)'"
    elif [ -n "$message" ] && { [ "$(wc -l <err)" -ne 1 ] || ! grep -qE -- "^bulkhead: .*$message" err; }; then
        fail "$name: said '$(cat err)', wanted '$message'"
    else
        passed=$((passed + 1))
        echo "ok $name"
    fi
}

run() {
    "$bulkhead" run "$@"
}

# Else the first check would do it, which demands that nothing is said. A library
# built by hand does not count: only the command's own build leaves its mark.
run true 2>said || {
    cat said >&2
    exit 1
}

# -------------------------------------------------------- programs to be run

cat >program.c <<'END'
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
/* Whether the library is there, for a reader who knows only that. */
int main(int argc, char **argv)
{
    char line[4096];
    const char *loaded = "bare";
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, "/libbulkhead.so") != NULL)
            loaded = "loaded";
    printf("%s", loaded);
    for (int i = 1; i < argc; i++)
        printf(" <%s>", argv[i]);
    puts("");
    return argc > 1 ? atoi(argv[1]) : 0;
}
END
gcc -o dynamic program.c
gcc -no-pie -o fixed program.c
gcc -static -o static program.c
gcc -static-pie -o static-pie program.c
cp dynamic 'a=b c'
cp dynamic narrow && printf '\001' | dd of=narrow bs=1 seek=4 conv=notrunc 2>/dev/null
cp dynamic foreign && printf '\377' | dd of=foreign bs=1 seek=18 conv=notrunc 2>/dev/null
script() { # script NAME LINE...
    name=$1
    shift
    printf '%s\n' "$@" >"$name"
    chmod 755 "$name"
}
# shellcheck disable=SC2016 # for the scripts
script by_sh '#!/bin/sh' 'exec ./dynamic "$@"'
script by_env '#!/usr/bin/env perl' 'print "perl\n"'
script no_line './dynamic 0 script'
script to_nothing '#!/no/such/interpreter -x'
script to_static "#!$work/static"
script env_static '#!/usr/bin/env -S ./static'
printf '\000\001\002' >garbage && chmod 755 garbage
: >plain_file
mkdir folder

check dynamic 0 'loaded <0> <a b> <*>' '' run ./dynamic 0 'a b' '*'
check fixed 0 'loaded' '' run ./fixed
check exit_code 7 'loaded <7>' '' run ./dynamic 7
# shellcheck disable=SC2016
check signal 0 143 '' sh -c '"$1" run sh -c "kill -TERM \$\$" 2>/dev/null; echo $?' - "$bulkhead"
check path 0 'loaded' '' env PATH="$work:$PATH" "$bulkhead" run dynamic
check end_of_options 0 'loaded <--option>' '' run -- ./dynamic --option
check equals_sign 0 'loaded' '' run './a=b c'
check child 0 'loaded' '' run sh -c ./dynamic
check script 0 'loaded <0>' '' run ./by_sh 0
check env_script 0 'perl' '' run ./by_env
check no_line 0 'loaded <0> <script>' '' run ./no_line

# ------------------------------------------------------------------- refusals

check static 126 '' '\./static: statically linked' run ./static
check static_pie 126 '' '\./static-pie: statically linked' run ./static-pie
check narrow 126 '' '\./narrow: a 32-bit program' run ./narrow
check foreign 126 '' '\./foreign: a program for another machine' run ./foreign
check to_static 126 '' 'statically linked' run ./to_static
check env_static 126 '' 'statically linked' run ./env_static
check garbage 126 '' 'garbage: not a program' run ./garbage
check folder 126 '' 'folder: is a directory' run ./folder
check plain_file 126 '' 'plain_file: permission denied' run ./plain_file
check not_in_path 127 '' 'no-such-program: command not found' run no-such-program
check no_file 127 '' 'no-such-file: no such file' run ./no-such-file
check no_interpreter 127 '' '/no/such/interpreter does not exist' run ./to_nothing
check no_program 2 '' 'no program named' run
check unknown_option 2 '' 'unknown option --frob' run --frob ./dynamic
check no_value 2 '' '--option needs a value' run --option
check no_equals 2 '' "KEY=VALUE, not 'guard'" run --option guard ./dynamic
check unknown_key 2 '' 'gaurd' run --option gaurd=auto ./dynamic
check unknown_value 2 '' "'nothing'" run --option guard=nothing ./dynamic
check injected 2 '' 'no option takes' run --option guard=auto:foreign=ignore ./dynamic
check unknown_profile 2 '' "'nothing'" run --profile nothing ./dynamic
check unknown_command 2 '' "unknown command 'walk'" "$bulkhead" walk
check unknown_stage 2 '' "no stage 'walk'" "$bulkhead" test walk

# --------------------------------------------------------------------- options

# shellcheck disable=SC2016 # for the program's shell
show='echo "$BULKHEAD_PROFILE/$BULKHEAD_OPTIONS/$BULKHEAD_GUARD"'
check options 0 'secure/guard=mprotect:purge_delay=5/' '' \
    run --profile secure --option guard=mprotect --option=purge_delay=5 sh -c "$show"
check inherited 0 '/verbose=0:guard=auto/' '' env BULKHEAD_OPTIONS=verbose=0 "$bulkhead" run --option guard=auto sh -c "$show"
check overrides 0 '/guard=mprotect/' '' env BULKHEAD_GUARD=auto "$bulkhead" run --option guard=mprotect sh -c "$show"
# shellcheck disable=SC2016
check preload_kept 0 "$root/build/libbulkhead.so:/nothing/else.so" '' \
    sh -c 'LD_PRELOAD=/nothing/else.so "$1" run sh -c "echo \$LD_PRELOAD" 2>/dev/null' - "$bulkhead"

# ----------------------------------------------------- programs with privileges

# The kernel says which: what AT_SECURE is for the program itself.
cat >secure.c <<'END'
#include <stdio.h>
#include <sys/auxv.h>
int main(void) { return printf("%lu\n", getauxval(AT_SECURE)) < 0; }
END
gcc -o secure secure.c
agree() { # agree FILE PREFIX...
    file=$1
    shift
    case $("$@" "./$file" 2>/dev/null) in
    0) check "$file, $*" 0 0 '' "$@" "$bulkhead" run "./$file" ;;
    1) check "$file, $*" 126 '' 'privileges of its file' "$@" "$bulkhead" run "./$file" ;;
    *) fail "$file, $*: does not run" ;;
    esac
}
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$root/build/libbulkhead.so" 2>/dev/null; then
    special() { # special NAME OWNER MODE
        cp secure "$1"
        chown "$2" "$1"
        chmod "$3" "$1"
    }
    special setuid-root 0:0 4755
    special setuid-other 65534:0 4755
    special setgid-root 0:0 2755
    special setgid-other 0:65534 2755
    special locking 0:65534 2745
    for made in secure setuid-root setuid-other setgid-root setgid-other locking; do
        agree "$made" env
    done
    for made in secure setuid-root setuid-other setgid-root setgid-other; do
        agree "$made" setpriv --reuid=65534 --regid=65534 --clear-groups
        agree "$made" setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs
    done
    if command -v setcap >/dev/null 2>&1; then
        for flags in ep i; do
            cp secure "capable-$flags"
            setcap "cap_net_raw+$flags" "capable-$flags" 2>/dev/null || continue
            agree "capable-$flags" env
            agree "capable-$flags" setpriv --reuid=65534 --regid=65534 --clear-groups
        done
    fi
fi

# ------------------------------------------------------------ set-up, and none

mkdir traps
for tool in cmake ninja apt-get sudo gcc; do
    # shellcheck disable=SC2016
    script "traps/$tool" '#!/bin/sh' 'echo "called: $0" >&2' 'exit 1'
done
check no_setup 0 'loaded' '' env PATH="$work/traps:$PATH" "$bulkhead" run ./dynamic

# A small tree in the place of ours, with a build that counts itself.
mkdir -p tree/tools tree/src tree/include tree/cmake fake
cp "$bulkhead" tree/
cp "$root/tools/setup.sh" tree/tools/
: >tree/CMakeLists.txt
: >tree/CMakePresets.json
# shellcheck disable=SC2016
script fake/cmake '#!/bin/sh' "cd $work/tree" 'case $1 in' '--build) echo built >>builds; sleep 1' \
    "cp -L $root/build/libbulkhead.so build/ ;;" 'esac'
first() {
    for _ in 1 2 3 4; do
        env PATH="$work/fake:$PATH" tree/bulkhead run ./dynamic &
    done
    wait
}
first >first.out 2>first.err
check concurrent 0 '1 4' '' echo "$(wc -l <tree/builds) $(grep -cx loaded first.out)"
check said_once 0 1 '' grep -c '^bulkhead: building' first.err
check second 0 'loaded' '' env PATH="$work/traps:$PATH" tree/bulkhead run ./dynamic
touch tree/src/new.c
check rebuilds 0 'loaded' 'building' env PATH="$work/fake:$PATH" tree/bulkhead run ./dynamic
rm tree/src/new.c
check removed 0 'loaded' 'building' env PATH="$work/fake:$PATH" tree/bulkhead run ./dynamic
touch tree/src/broken.c
script fake/cmake '#!/bin/sh' 'echo some error' 'exit 3'
env PATH="$work/fake:$PATH" tree/bulkhead run ./dynamic >/dev/null 2>said || true
check shows_log 0 'some error' '' grep -x 'some error' said
check broken_build 0 1 '' grep -c 'bulkhead: the build failed' said

# ------------------------------------------------------------------- installed

mkdir -p installed/bin installed/lib/somewhere
cp "$bulkhead" installed/bin/
cp -L "$root/build/libbulkhead.so" installed/lib/somewhere/libbulkhead.so.1
mkdir -p installed/share/bulkhead && cp "$root/tools/symbolize.py" "$root/tools/doctor.py" "$root/tools/doctor_bugs.py" installed/share/bulkhead/
check installed_symbolize 0 'a line' '' sh -c 'echo a line | installed/bin/bulkhead symbolize'
# shellcheck disable=SC2016
check symbolize 0 'a line' '' sh -c 'echo a line | "$1" symbolize' - "$bulkhead"
check symbolize_nothing 1 '' 'symbolize: .*No such file' "$bulkhead" symbolize no-such-report
check installed_doctor 0 '' '' sh -c 'installed/bin/bulkhead doctor >doctor.txt'
check installed 0 'loaded' '' env PATH="$work/traps:$work/installed/bin:$PATH" bulkhead run ./dynamic
ln -s installed/bin/bulkhead link
check linked 0 'loaded' '' ./link run ./dynamic
check no_tests 2 '' 'source tree only' installed/bin/bulkhead test
check no_bench 2 '' 'source tree only' installed/bin/bulkhead bench
check no_attack 2 '' 'source tree only' installed/bin/bulkhead attack
check no_fuzz 2 '' 'source tree only' installed/bin/bulkhead fuzz
rm installed/lib/somewhere/libbulkhead.so.1
check no_library 1 '' 'no libbulkhead.so.1' installed/bin/bulkhead run ./dynamic
mkdir 'with space' && mv installed 'with space/' && cp -L "$root/build/libbulkhead.so" 'with space/installed/lib/libbulkhead.so.1'
check space 1 '' 'a colon or a space' 'with space/installed/bin/bulkhead' run ./dynamic

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
