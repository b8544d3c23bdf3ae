#!/bin/sh
# What each mechanism is good for: the attack tables with every mechanism on and
# with exactly one off. Prints each row that is red anywhere, and demands of each
# mechanism a row that is red without it and green in all other builds.
#
#   off.sh SOURCE [CMAKE ARGUMENT...]
set -u

source=${1:?usage: off.sh SOURCE [CMAKE ARGUMENT...]}
shift
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

# One seed for all, so that the builds differ in the mechanism alone.
ATTACK_SEED=${ATTACK_SEED:-20240229}
export ATTACK_SEED
echo "off: seed $ATTACK_SEED"

# Fewer of them for a first look.
mechanisms=${ATTACK_MECHANISMS:-map lists random clear guards canaries wipe quarantine large settings sampled}
programs=${ATTACK_PROGRAMS-bad_free lists guards settings large guarded}
runs=${ATTACK_RUNS:-2}

# A row's name ends where its figures begin.
programs() {
    for program in $programs; do
        case $program in
            bad_free) arguments=1 ;;
            lists) arguments=2000 ;;
            guards | large) arguments=here ;;
            settings) arguments= ;;
            guarded) arguments=1 ;;
        esac
        # shellcheck disable=SC2086
        "$build/tests/attack/attack_$program" $arguments 2>&1 |
            sed -n -e 's/  *[0-9][0-9]* of [0-9].*//' -e 's/   *[0-9].*//' -e 's/: [0-9].*//' \
                -e "s/^ok   */ok|$program: /p" -e "s/^FAIL  */FAIL|$program: /p" | sed 's/   */ - /g'
    done
}

# The table's rows that fall short of a promise are red. Without the map nothing
# tells profile hardened which blocks it has handed out: it does not work at all.
table() {
    profiles='--profile secure --profile hardened'
    [ "$name" = map ] && profiles='--profile secure'
    # shellcheck disable=SC2086
    python3 "$source/tools/attack.py" --build "$build" --allocator bulkhead $profiles --runs "$runs" --seed "$ATTACK_SEED" \
        --csv "$work/table.csv" >"$work/log" 2>&1
    if [ $? -gt 1 ]; then
        tail -n 20 "$work/log" >&2
        return
    fi
    awk -F, 'NR > 1 { sub(/\r$/, ""); print ($NF == "!" ? "FAIL" : "ok") "|" substr($3, 10) ": " $2 }' "$work/table.csv"
}

# variant NAME FLAGS [CMAKE ARGUMENT...]: leaves the rows of all programs in
# rows.NAME, one "ok|program: row" or "FAIL|program: row" a line.
variant() {
    name=$1 flags=$2
    shift 2
    build=$work/$name
    begun=$(date +%s)
    if ! cmake -S "$source" -B "$build" -DCMAKE_C_FLAGS="$flags" -DBULKHEAD_TESTS=ON "$@" >"$work/log" 2>&1 ||
       ! cmake --build "$build" --target attack_bad_free attack_lists attack_guards attack_settings attack_large \
            bulkhead_shared bulkhead-attack-table >"$work/log" 2>&1; then
        tail -n 20 "$work/log"
        echo "off: the build without '$name' failed" >&2
        exit 2
    fi
    programs >"$work/rows"
    table >>"$work/rows"
    awk -F'|' '{ if (!($2 in at)) order[++n] = $2; at[$2] = $1 == "FAIL" ? $1 : ($2 in at ? at[$2] : $1) }
               END { for (i = 1; i <= n; i++) print at[order[i]] "|" order[i] }' "$work/rows" >"$work/rows.$name"
    if ! grep -q '|secure: ' "$work/rows.$name"; then
        echo "off: no row of '$name' was read" >&2
        exit 2
    fi
    rm -rf "$build"
    echo "off: $name: $(grep -c '^FAIL' "$work/rows.$name") of $(wc -l <"$work/rows.$name") rows are red, $(($(date +%s) - begun)) s"
}

variant on '' "$@"
files=$work/rows.on
for mechanism in $mechanisms; do
    variant "$mechanism" "-DBH_HARDEN_$(echo "$mechanism" | tr '[:lower:]' '[:upper:]')=0" "$@"
    files="$files $work/rows.$mechanism"
done

# shellcheck disable=SC2086
awk -F'|' -v names="- $mechanisms" '
    BEGIN { files = split(names, name, " ") }
    FNR == 1 { file++ }
    { if (!($2 in seen)) { seen[$2] = 1; row[++n] = $2 }
      red[$2, file] = $1 == "FAIL" }
    END {
        for (i = 1; i <= n; i++) {
            r = row[i]
            reds = 0
            for (f = 1; f <= files; f++) {
                if (!red[r, f]) continue
                reds++
                list = (reds == 1 ? "" : list ", ") (f == 1 ? "nothing (red in the full build)" : name[f])
                last = f
            }
            if (reds == 0) continue
            only[last] += reds == 1
            printf "%-64s red without %s\n", r, list
        }
        print ""
        for (i = 1; i <= n; i++) {
            any = 0
            for (f = 1; f <= files; f++) any += red[row[i], f]
            if (any) continue
            green++
        }
        printf "%d rows of %d are green whichever mechanism is off: others stand behind it\n", green, n
        bad = 0
        for (f = 2; f <= files; f++) {
            printf "%-4s off: without %s alone %d rows are red that nothing else turns red\n", only[f] ? "ok" : "FAIL", name[f], only[f]
            bad += !only[f]
        }
        exit bad != 0
    }' $files
