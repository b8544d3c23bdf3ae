#!/bin/sh
# symbolize.sh LIBRARY SYMBOLIZE: real reports of programs in C and C++, with symbols,
# stripped with a debug link, stripped with a file by build id, stripped without, as
# text and JSON, by each symboliser; then what a hostile report may hold.
# Prints "ok NAME" or "FAIL NAME: why", and at last "N passed, M failed".
set -eu

library=$(readlink -f -- "$1")
symbolize=$(readlink -f -- "$2")
here=$(readlink -f -- "$(dirname -- "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_PRELOAD BULKHEAD_OPTIONS BULKHEAD_PROFILE
cd "$work"
# shellcheck disable=SC3045 # every shell that is /bin/sh has it
ulimit -c 0
passed=0
failed=0

report() { # report FILE OPTIONS PROGRAM
    env LD_PRELOAD="$library" BULKHEAD_OPTIONS="guarded_sample_rate=1:stacks=unwind:$2" "$3" 2>"$1" || true
    grep -q use-after-free "$1" || {
        echo "symbolize.sh: $3 wrote no report: $(cat "$1")" >&2
        exit 1
    }
}

# demand NAME FILE PATTERN...: each matches a line.
demand() {
    name=$1 file=$2
    shift 2
    missing=
    for pattern; do
        grep -qE -- "$pattern" "$file" || missing="$missing '$pattern'"
    done
    if [ -z "$missing" ]; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name: nothing like$missing"
        sed 's/^/   | /' "$file" | head -n 40
    fi
}

tools=addr2line
for tool in llvm-symbolizer llvm-symbolizer-14; do
    ! command -v $tool >/dev/null || tools='llvm addr2line'
done

# ----------------------------------------------------------------- real reports

build='-O1 -g -fno-builtin -Wl,--build-id'
# shellcheck disable=SC2086 # a list of words
gcc $build -o whole "$here/uaf.c"
cp whole linked && objcopy --only-keep-debug linked linked.debug
strip linked && objcopy --add-gnu-debuglink=linked.debug linked
id=$(readelf -n whole | sed -n 's/.*Build ID: //p')
rest=${id#??}
mkdir -p "store/.build-id/${id%"$rest"}" && cp linked.debug "store/.build-id/${id%"$rest"}/$rest.debug"
cp whole by-id && strip by-id
# Where only --debug-dir leads.
cp whole by-path && mkdir -p "paths$work" && objcopy --only-keep-debug by-path "paths$work/by-path.debug"
strip by-path && objcopy --add-gnu-debuglink="paths$work/by-path.debug" by-path
cp whole bare && strip bare
# shellcheck disable=SC2086
g++ $build -DLIBRARY -shared -fPIC -o libshop.so "$here/uaf.cc"
# shellcheck disable=SC2086
g++ $build -o shop "$here/uaf.cc" -L. -lshop -Wl,-rpath,"$work"

stacks() { # stacks NAME FILE: those of uaf.c
    demand "$1" "$2" '^bulkhead: ERROR: use-after-free: ' '#0 touch_block at .*/uaf\.c:24 \(/.*\+0x[0-9a-f]+\)$' \
        '#[0-9] make_block at .*/uaf\.c:11 ' '#[0-9] inlined_free at .*/uaf\.c:6, inlined$' '#[0-9] drop_block at .*/uaf\.c:18 ' \
        '#[0-9] main at .*/uaf\.c:30 '
}

for tool in $tools; do
    for program in whole linked by-id; do
        report text report=text "./$program"
        "$symbolize" --tool "$tool" --debug-dir "$work/store" text >out
        stacks "$tool-$program" out
    done
    report text report=text ./by-path
    "$symbolize" --tool "$tool" --debug-dir "$work/paths" text >out
    stacks "$tool-by-path" out
    report text report=text ./shop
    "$symbolize" --tool "$tool" <text >out
    demand "$tool-cxx" out '#0 shop::Basket<int>::first\(\) const at .*/uaf\.cc:9 \(.*/libshop\.so\+0x' \
        '#[0-9] shop::Basket<int>::Basket\(int\) at .*/uaf\.cc:5 ' '#[0-9] shop::Basket<int>::clear\(\) at .*/uaf\.cc:6 ' \
        '#[0-9] run_shop at .*/uaf\.cc:19 ' '#[0-9] main at .*/uaf\.cc:23 '
    report json report=json ./whole
    "$symbolize" --tool "$tool" json >out
    demand "$tool-json" out '^\{"bulkhead": "ERROR", "id": "use-after-free"'
    python3 - out >judged <<'END' || echo broken >>judged
import json, sys
report = json.loads(open(sys.argv[1]).readline())
flat = {k: [(f["function"], f["line"]) for frame in report[k] for f in frame["frames"]] for k in ("stack", "alloc_stack", "free_stack")}
print("here", flat["stack"][0])
print("allocated", ("make_block", 11) in flat["alloc_stack"])
print("freed", ("inlined_free", 6) in flat["free_stack"] and ("drop_block", 18) in flat["free_stack"])
END
    demand "$tool-json-frames" judged "here \('touch_block', 24\)" 'allocated True' 'freed True'
done

report text report=text ./bare
"$symbolize" text >out
demand bare out '^bulkhead: ERROR: use-after-free: ' '#0 /.*/bare\+0x[0-9a-f]+ \(build id'
report text report=text ./whole
# The first digit becomes another one, whatever it is.
sed -e 's/build id 0/build id @/' -e 's/build id [^@]/build id 0/' -e 's/build id @/build id 1/' text >other
"$symbolize" other >out
demand other-build out '#0 /.*/whole\+0x[0-9a-f]+ \(build id [01].*\[the file here is of another build\]$'
mkdir -p elsewhere"$work" && mv whole elsewhere"$work/"
"$symbolize" text >out
demand no-file out '#0 /.*/whole\+0x.* \[no such file here\]$'
"$symbolize" --root "$work/elsewhere" text >out
stacks other-root out

# -------------------------------------------------------------- hostile reports

mkfifo pipe
# shellcheck disable=SC2016 # not for this shell
{
    printf 'bulkhead: ERROR: use-after-free: \033[2Jtext\a (address 0x1)\n'
    printf 'bulkhead:     #0 /$(touch %s/ran);`touch %s/ran`+0x10\n' "$work" "$work"
    printf 'bulkhead:     #1 --obj=/etc/passwd+0x10\n'
    printf 'bulkhead:     #2 /--version+0x10 (build id 00112233)\n'
    printf 'bulkhead:     #3 %s/pipe+0x10\n' "$work"
    printf 'bulkhead:     #4 /dev/zero+0x10\nbulkhead:     #5 /dev/tty+0x10\nbulkhead:     #6 %s+0x10\n' "$work"
    printf 'bulkhead:     #7 /etc/passwd+0x10\nbulkhead:     #8 /bin/sh+0xffffffffffffffff\nbulkhead:     #99999 /bin/sh+0x10\n'
    printf 'bulkhead:     #9 /bin/sh+0x11112222333344445\n'
    printf 'bulkhead:     #10 /x+0x10 (build id ../../../../etc)\n'
    printf '{"bulkhead":"ERROR","stack":["/bin/sh\\u0000+0x1","/\\ud800+0x1",7,null,{"a":[]}],"alloc_stack":3,"free_stack":{}}\n'
    printf '{"bulkhead":%s1%s}\n' "$(printf '%20000s' '' | tr ' ' '[')" "$(printf '%20000s' '' | tr ' ' ']')"
    printf '{"bulkhead":1%s}\n' "$(printf '%9000s' '' | tr ' ' 7)"
    printf '{"bulkhead"\n'
    head -c 3000000 /dev/zero | tr '\0' 'x'
    printf '\nlast line\n'
    head -c 4096 /dev/urandom
} >hostile
status=0
timeout 60 "$symbolize" hostile >out 2>err || status=$?
{
    echo "status $status"
    [ -e ran ] && echo "a command ran"
    [ -s err ] && echo "complained: $(tail -n 1 err)"
    LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" out && echo "control characters"
    grep -qx 'last line' out && echo "went on to the end"
    [ "$(wc -c <out)" -gt 3000000 ] && echo "all of it"
} >judged || true
demand hostile judged '^status 0$' '^went on to the end$' '^all of it$'
if grep -qE 'ran|complained|control' judged; then
    failed=$((failed + 1))
    echo "FAIL hostile-effects: $(cat judged)"
fi

# A cut file and one whose headers lie: no answer, and no complaint.
head -c 200 linked >./cut
cp linked lies && printf '\377\377\377\377' | dd of=lies bs=1 seek=40 conv=notrunc 2>/dev/null
printf 'bulkhead:     #0 %s/cut+0x10\nbulkhead:     #1 %s/lies+0x10 (build id 0011)\n' "$work" "$work" >broken
"$symbolize" broken >out 2>&1
demand broken-files out '#0 /.*/cut\+0x10 \[no such file here\]' '#1 /.*/lies\+0x10 .*\[(no such file here|the file here is of another build)\]'

# Something that writes on and on: each report is passed on when it ends.
mkfifo live
"$symbolize" live >out &
reader=$!
exec 3>live
cat text >&3
echo 'the program goes on' >&3
waited=0
while ! grep -q 'goes on' out && [ $waited -lt 100 ]; do
    sleep 0.1
    waited=$((waited + 1))
done
demand live out 'use-after-free' 'goes on'
exec 3>&-
wait $reader

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
