#!/bin/sh
# usage: options.sh LIBRARY_DIR INCLUDE_DIR program|secure|file
# Where options come from, in whole programs.
#   program  its array bh_program_options, in every way to get at the library
#   secure   a set-uid program: the environment is ignored, its own options count
#   file     /etc/bulkhead.conf, in a mount namespace with an /etc of its own
# Exit status 77: not possible here (no root, no such mount).
set -eu
libraries=$(readlink -f -- "$1")
include=$(readlink -f -- "$2")
what=$3
here=$(readlink -f -- "$(dirname -- "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
unset BULKHEAD_OPTIONS BULKHEAD_PROFILE

shared="-L$libraries -Wl,-rpath,$libraries -Wl,--no-as-needed -lbulkhead"
archive="$libraries/libbulkhead.a"
flags="-O2 -Wall -Wextra -Werror -I$include -I$here"

# compile NAME COMPILER ARGUMENTS...
compile() {
    output=$1
    shift
    if ! "$@" -o "$work/$output" 2> "$work/log"; then
        cat "$work/log" >&2
        echo "options.sh: $output does not compile" >&2
        exit 1
    fi
}

# expect WHAT TEXT COMMAND...: all that the command prints, on both outputs.
expect() {
    name=$1
    text=$2
    shift 2
    status=0
    got=$(timeout 60 "$@" 2>&1) || status=$?
    if [ "$status" = 0 ] && [ "$got" = "$text" ]; then
        echo "ok   $name"
    else
        printf 'FAIL %s: status %s\n  wanted %s\n  got    %s\n' "$name" "$status" "$text" "$got"
        failed=1
    fi
}

own='purge_delay=33 show_stats=0 trap_from=65536 changes=no secure=0'
none='purge_delay=10 show_stats=0 trap_from=524288 changes=yes secure=0'

# both NAME PREFIX...: the program's options, and the environment's above them
both() {
    name=$1
    shift
    expect "$name" "$own" "$@"
    expect "$name, environment" 'purge_delay=44 show_stats=0 trap_from=65536 changes=no secure=0' env BULKHEAD_PURGE_DELAY=44 "$@"
    expect "$name, list" 'purge_delay=34 show_stats=0 trap_from=65536 changes=yes secure=0' env BULKHEAD_OPTIONS=seal=0:purge_delay=34 "$@"
}

# shellcheck disable=SC2086 # lists of flags
program() {
    # What static or shared linking, position independence, hidden visibility and
    # dropped sections could do to a name that the program itself never uses.
    for language in c cc; do
        compiler=${CC:-cc}
        [ $language = c ] || compiler="${CXX:-c++} -std=c++17"
        source=$here/program_options.$language
        for form in '' '-no-pie -fno-pie' '-fvisibility=hidden -ffunction-sections -fdata-sections -Wl,--gc-sections' -flto; do
            compile linked $compiler $flags $form "$source" $shared
            both "$language linked $form" "$work/linked"
        done
        compile archived $compiler $flags "$source" $archive
        both "$language archived" "$work/archived"
        for form in -static -static-pie; do
            compile static $compiler $flags $form "$source" $archive
            both "$language $form" "$work/static"
        done
        compile plain $compiler $flags -DPRELOADED -rdynamic "$source" -ldl
        both "$language preloaded" env LD_PRELOAD="$libraries/libbulkhead.so" "$work/plain"
        # Not exported, so nobody sees it: ignored, no harm.
        compile plain $compiler $flags -DPRELOADED "$source" -ldl
        [ $language = cc ] ||
            expect "$language preloaded, not exported" "$none" env LD_PRELOAD="$libraries/libbulkhead.so" "$work/plain"
    done
    for form in '' -static; do
        if [ -z "$form" ]; then how=$shared; else how=$archive; fi
        compile without ${CC:-cc} $flags -DNO_OPTIONS $form "$here/program_options.c" $how
        expect "without options of its own $form" "$none" "$work/without"
    done
}

skip() {
    echo "options.sh: $*: skipped"
    exit 77
}

# Archived: the loader of a privileged program would not look where the library is.
# shellcheck disable=SC2086
privileged() {
    [ "$(id -u)" = 0 ] || skip "not root"
    command -v setpriv > /dev/null || skip "no setpriv"
    chmod 755 "$work"
    compile archived ${CC:-cc} $flags "$here/program_options.c" $archive
    compile without ${CC:-cc} $flags -DNO_OPTIONS "$here/program_options.c" $archive
    chmod 4755 "$work/archived" "$work/without"
    other='setpriv --reuid=65534 --regid=65534 --clear-groups'
    case $($other "$work/archived") in
    *secure=1) ;;
    *) skip "$work is mounted nosuid" ;;
    esac
    environment='env BULKHEAD_PURGE_DELAY=44 BULKHEAD_OPTIONS=show_stats=1:nonsense=1 BULKHEAD_FOREIGN=ignore BULKHEAD_NONSENSE=1'
    expect "set-uid, own options" "${own%0}1" $environment $other "$work/archived"
    expect "set-uid, no options" 'purge_delay=10 show_stats=0 trap_from=524288 changes=yes secure=1' \
        $environment $other "$work/without"
    chmod 755 "$work/without"
    expect "the same without set-uid" 'purge_delay=44 show_stats=0 trap_from=524288 changes=yes secure=0' \
        env BULKHEAD_PURGE_DELAY=44 $other "$work/without"
    with_file 'purge_delay=55'
    chmod 4755 "$work/without"
    expect "set-uid, file" 'purge_delay=55 show_stats=0 trap_from=524288 changes=yes secure=1' \
        "$work/own-etc" $environment $other "$work/without"
}

# An /etc that holds this file and what the loader wants.
with_file() { # with_file TEXT
    unshare -m true 2> /dev/null || skip "no mount namespace"
    mkdir -p "$work/etc"
    cp /etc/ld.so.cache "$work/etc/" 2> /dev/null || true
    printf '%s\n' "$1" > "$work/etc/bulkhead.conf"
    chown 0:0 "$work/etc/bulkhead.conf"
    chmod 644 "$work/etc/bulkhead.conf"
}

# own-etc COMMAND...
cat > "$work/own-etc" << END
#!/bin/sh
exec unshare -m sh -c 'mount --bind "$work/etc" /etc && exec "\$@"' own-etc "\$@"
END
chmod +x "$work/own-etc"

# shellcheck disable=SC2086
configuration() {
    [ "$(id -u)" = 0 ] || skip "not root"
    with_file 'purge_delay=55'
    "$work/own-etc" true 2> /dev/null || skip "no bind mount"
    compile without ${CC:-cc} $flags -DNO_OPTIONS "$here/program_options.c" $shared
    compile linked ${CC:-cc} $flags "$here/program_options.c" $shared
    expect "file" 'purge_delay=55 show_stats=0 trap_from=524288 changes=yes secure=0' "$work/own-etc" "$work/without"
    with_file '# of this machine
 seal = 1
purge_delay=55
trap_from=4k'
    expect "file, more lines" 'purge_delay=55 show_stats=0 trap_from=4096 changes=no secure=0' "$work/own-etc" "$work/without"
    expect "file below the program" "$own" "$work/own-etc" "$work/linked"
    expect "file below the environment" 'purge_delay=44 show_stats=0 trap_from=4096 changes=no secure=0' \
        "$work/own-etc" env BULKHEAD_PURGE_DELAY=44 "$work/without"
    with_file 'nonsense'
    text="bulkhead: WARNING: option nonsense in /etc/bulkhead.conf is unknown; known are"
    # shellcheck disable=SC2016 # for the inner shell
    expect "file with a mistake" "$text" "$work/own-etc" sh -c '"$0" 2>&1 > /dev/null | sed "s/ known are.*/ known are/"' "$work/without"
    with_file 'purge_delay=55'
    chmod 664 "$work/etc/bulkhead.conf"
    text="bulkhead: WARNING: /etc/bulkhead.conf is ignored: it is not a regular file that root owns and only root may write
$none"
    expect "file that a group may write" "$text" "$work/own-etc" "$work/without"
    chmod 644 "$work/etc/bulkhead.conf"
    chown 65534 "$work/etc/bulkhead.conf"
    expect "file that root does not own" "$text" "$work/own-etc" "$work/without"
    if command -v setpriv > /dev/null; then
        chown 0 "$work/etc/bulkhead.conf"
        chmod 600 "$work/etc/bulkhead.conf"
        chmod 755 "$work"
        compile archived ${CC:-cc} $flags -DNO_OPTIONS "$here/program_options.c" $archive
        expect "file that the process may not read" "bulkhead: WARNING: /etc/bulkhead.conf is ignored: it cannot be read
$none" "$work/own-etc" setpriv --reuid=65534 --regid=65534 --clear-groups "$work/archived"
    fi
}

case $what in
program) program ;;
secure) privileged ;;
file) configuration ;;
*) echo "usage: options.sh LIBRARY_DIR INCLUDE_DIR program|secure|file" >&2; exit 2 ;;
esac
exit $failed
