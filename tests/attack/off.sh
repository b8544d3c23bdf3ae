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

# variant NAME FLAGS [CMAKE ARGUMENT...]: leaves the rows of all programs in
# rows.NAME, one "ok|program: row" or "FAIL|program: row" a line.
variant() {
    name=$1 flags=$2
    shift 2
    build=$work/$name
    if ! cmake -S "$source" -B "$build" -DCMAKE_C_FLAGS="$flags" -DBULKHEAD_OVERRIDE=OFF -DBULKHEAD_TESTS=ON "$@" \
            >"$work/log" 2>&1 ||
       ! cmake --build "$build" --target attack_bad_free attack_links attack_guards attack_settings attack_large >"$work/log" 2>&1; then
        tail -n 20 "$work/log"
        echo "off: the build without '$name' failed" >&2
        exit 2
    fi
    for program in bad_free links guards settings large; do
        case $program in
            bad_free) arguments=1 ;;
            links) arguments='2000 1000000' ;;
            guards | large) arguments=here ;;
            settings) arguments= ;;
        esac
        # A row's name ends where its figures begin.
        # shellcheck disable=SC2086
        "$build/tests/attack/attack_$program" $arguments 2>&1 |
            sed -n -e 's/  *[0-9][0-9]* of [0-9].*//' -e 's/   *[0-9].*//' -e 's/: [0-9].*//' \
                -e "s/^ok   */ok|$program: /p" -e "s/^FAIL  */FAIL|$program: /p" | sed 's/   */ - /g'
    done | awk -F'|' '{ if (!($2 in at)) order[++n] = $2; at[$2] = $1 == "FAIL" ? $1 : ($2 in at ? at[$2] : $1) }
                      END { for (i = 1; i <= n; i++) print at[order[i]] "|" order[i] }' >"$work/rows.$name"
    if ! [ -s "$work/rows.$name" ]; then
        echo "off: no row of '$name' was read" >&2
        exit 2
    fi
}

variant on '' "$@"
variant map -DBH_HARDEN_MAP=0 "$@"
variant links -DBH_HARDEN_LINKS=0 "$@"
variant guards -DBH_HARDEN_GUARDS=0 "$@"
variant settings -DBH_HARDEN_SETTINGS=0 "$@"
variant large -DBH_HARDEN_LARGE=0 "$@"

awk -F'|' '
    BEGIN { printf "%-60s %8s %8s %8s %8s %8s %8s\n", "without:", "-", "map", "links", "guards", "settings", "large"; split("on map links guards settings large", v, " ") }
    FNR == 1 { file++ }
    { if (!($2 in seen)) { seen[$2] = 1; row[++n] = $2 }
      red[$2, file] = $1 == "FAIL" }
    END {
        for (i = 1; i <= n; i++) {
            r = row[i]
            reds = 0
            for (f = 1; f <= 6; f++) reds += red[r, f]
            if (reds == 0) continue
            for (f = 1; f <= 6; f++) only[f] += reds == 1 && red[r, f]
            printf "%-60s", r
            for (f = 1; f <= 6; f++) printf " %8s", red[r, f] ? "RED" : "ok"
            print ""
        }
        bad = 0
        for (f = 2; f <= 6; f++) {
            printf "%-4s off: without %s alone %d rows are red that nothing else turns red\n", only[f] ? "ok" : "FAIL", v[f], only[f]
            bad += !only[f]
        }
        exit bad != 0
    }' "$work/rows.on" "$work/rows.map" "$work/rows.links" "$work/rows.guards" "$work/rows.settings" "$work/rows.large"
