#!/bin/sh
# Breaks the allocator on purpose, one fault at a time, in a copy of the source, and lets
# each target look for it: prints which one noticed first, after how many seconds and
# executions. A fault that nobody notices is a hole in the harness.
#
#   plant.sh ROOT [FAULT]...     PLANT_SECONDS each target and fault (default 30)
#   plant.sh ROOT --list
set -u

root=$1
shift
seconds=${PLANT_SECONDS:-30}

# NAME @ FILE @ SED-SCRIPT @ TARGETS, most likely first. A FILE of "-": a definition for the compiler.
plants() {
    cat <<'END'
skipped-live-test@src/harden/map.h@/^BH_INLINE bool bhi_map_set_live/,/^}/s/!bhi_map_has(map, index, BHI_MAP_FREE)/bhi_map_pair(map, index) >> 8 != 0/@inband
skipped-held-test@src/harden/map.h@/^BH_INLINE bool bhi_map_clear_live/,/^}/s/!bhi_map_has(map, index, BHI_MAP_LIVE)/(uint8_t)bhi_map_pair(map, index) == 0/@badfree
lost-remote-free@src/core/free.c@s/    if ((atomic_load(&page->remote) & want) == want)/    if ((atomic_load(\&page->remote) \& want) != 0)/@api
forgotten-remote-group@src/core/page.c@/^void bhi_page_collect(/,/^}/s/^        groups &= groups - 1;$/        groups = 0;/@api
class-too-small@src/meta/size_class.h@s/(unsigned)((n - 1) >> (b - 3)) - 8;/(unsigned)((n - 2) >> (b - 3)) - 8;/@api
class-off-by-one@src/meta/size_class.h@s/return (unsigned)((n + 15) >> 4);/return (unsigned)((n + 14) >> 4);/@api
one-block-too-many@src/meta/size_class.h@s/BH_SLOT_SIZE - BH_OS_PAGE_SIZE) \/ bhi_class_size(c))/BH_SLOT_SIZE - BH_OS_PAGE_SIZE) \/ bhi_class_size(c) + 1)/@api
kept-from-elsewhere@src/harden/list.h@s/bhi_list(page, page->kept_from), n/bhi_list(page, page->kept_from - 1u), n/@process
fresh-not-marked@src/core/refill.c@s/^    page->fresh &= ~listed;$/    page->fresh \&= ~(listed \& (listed - 1));/@inband api
riffle-doubles@src/rt/order.c@s/c = q.c ^ swap_a,/c = q.c,/;s/c_d = _mm256_blendv_epi8(h.second, h.first, coins)/c_d = h.second/@inband api
missing-guard-note@src/harden/guard.c@s/            s->regions\[slot\] |= region_bit(os_page);/            (void)os_page;/@api inband
guard-one-page-late@src/core/page.c@s/return (unsigned)((bytes_in_span >> BH_OS_PAGE_SHIFT)/return (unsigned)(((bytes_in_span >> BH_OS_PAGE_SHIFT) + 1)/@inband api
no-guard-before-large@src/harden/guard.c@s/^    close_before(s, slot);$//@api inband
dirty-called-zero@src/meta/segment.c@s/(s->dirty & range) == 0, (s->dirty & range) >> slot};/true, 0};/@api
unreached-left@src/core/residue.c@s/(bhi_memory_t)page->memory}/BHI_MEMORY_ZERO}/@api
growth-not-cleared@src/core/page.c@s/^        if (dirty != 0)$/        if (false)/@api
claimed-of-others@src/core/residue.c@s/is_own = (first\[i\].residue & ~PAGES) == own && marked >= want;/is_own = own != 0;/@api
usable-too-large@src/core/page.h@s/return page->size_class != BHI_CLASS_ZERO ? page->block_size : 0;/return page->size_class != BHI_CLASS_ZERO ? page->block_size + 8 : 0;/@api
stale-capacity@src/core/page.c@s/atomic_store_explicit(&page->capacity, 0, memory_order_relaxed);//@badfree api
heap-without-generation@src/core/owner.c@s/^    heap->generation++;$//@badfree
generation-of-deleted@src/core/owner.c@s/^        heap->generation++;$//@badfree
age-ended-by-any-list@src/harden/age.h@s/^    if (age->used >= age->length \&\& age->mark != 0)$/    if (age->mark != 0)/@api
age-before-not-young@src/core/hardened.h@s/^    young\[1\] = age->mark != 0 ? age->before :/    young[1] = age->mark != 0 ? age->mark :/@api
canary-one-byte-short@src/harden/canary.h@s/ ^ bhi_canary_tail(canary)) & shown.last\()*\);$/ ^ bhi_canary_tail(canary)) \& shown.last \& UINT64_MAX >> 8\1;/;s/return ((last ^ canary.last) & /last[1] = (last[1] \& UINT64_MAX >> 8) | (canary.last[1] \& ~(UINT64_MAX >> 8)); &/@inband
neighbour-not-checked@src/core/hardened_free.c@s/^    if (bh_likely(index != 0))$/    if (false)/@inband
neighbour-not-checked-soon@src/core/hardened_free.c@s/^            damage |= damage_of(p - bytes, page, bytes, size, index - 1);$/            (void)size;/@inband
written-not-found@src/core/hardened.c@/^BH_NOINLINE void .bhi_hard_give(/,/^}/s/(at != BH_WIPE_CLEAN)/(false)/@inband
written-not-found-soon@src/core/hardened.c@s/bh_unlikely(!bhi_wipe_is_clean_soon(block, bytes)) ||/false ||/@inband
written-not-found-middle@src/core/hardened.c@s/bh_unlikely(!bhi_wipe_is_clean_middle(block, bytes)) ||/false ||/@inband
pages-not-verified@src/core/hardened_look.c@s/^                verify_page(page, true);$/                (void)page;/@inband
size-check-loose@src/core/realloc.c@s/    if (size > usable)/    if (size > usable + 16)/@badfree
realloc-keeps-too-little@src/core/realloc.c@s/memcpy(moved, p, size < bytes ? size : bytes);/memcpy(moved, p, size < bytes ? size : bytes - 1);/@api
product-wraps@src/api/api.h@s/return bh_likely(bhi_mul_ok(count, size, &total)) ? total : SIZE_MAX;/bhi_mul_ok(count, size, \&total); return total;/@arith api
alignment-ignored@src/meta/size_class.h@s/while (c < BHI_CLASSES \&\& (bhi_class_size(c) \& (align - 1)) != 0)/while (c < BHI_CLASSES \&\& (bhi_class_size(c) \& (align - 1)) > 64)/@api arith
option-out-of-range@src/rt/options.c@s/if (length == 0 || n > most >> shift || n << shift < least)/if (length == 0 || n << shift < least)/@options
unescaped-json@src/rt/report.c@s/bool escape = \*s == .". || \*s == .*;/bool escape = false;/@report
unchecked-header@src/core/describe.c@s/^    if (!fetch(&s, (const bhi_segment_t \*)g->headers + segment, sizeof s))$/    s = ((const bhi_segment_t *)g->headers)[segment]; if (0)/;s/(i == 0 || (uintptr_t)&in\[i\] % OS_PAGE_LEAST == 0) \&\& !bhi_os_readable((uintptr_t)&in\[i\])/false/@report control
no-map-test@-@BH_HARDEN_MAP=0@badfree inband
entry-not-bounded@src/core/page.h@s/    return bh_likely((uint32_t)index < bhi_page_own_capacity(page)) \&\& /    return index != UINT32_MAX \&\& /@inband
place-not-compared@src/core/page.h@s/ && bh_likely((uint32_t)index \* page->block_size == page->top_place);/;/@inband
no-guards@-@BH_HARDEN_GUARDS=0@inband
no-clearing@-@BH_HARDEN_CLEAR=0@api inband
no-canaries@-@BH_HARDEN_CANARIES=0@inband
no-wiping@-@BH_HARDEN_WIPE=0@inband api
no-quarantine@-@BH_HARDEN_QUARANTINE=0@api
END
}

if [ "${1:-}" = --list ]; then
    plants | cut -d@ -f1,4
    exit
fi

export AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_NO_UI=1 AFL_FAST_CAL=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1
export AFL_BENCH_UNTIL_CRASH=1
# AFL++ refuses seeds that crash; here they may, and then the corpus alone has noticed.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
missed=0
planted=

build_plant() { # build_plant FILE SCRIPT TARGETS
    for part in CMakeLists.txt CMakePresets.json cmake include fuzz src tests; do
        rm -rf "${work:?}/tree/$part"
        mkdir -p "$work/tree"
        cp -rp "$root/$part" "$work/tree/$part"
    done
    # What was planted before is older again than what was built of it.
    for old in $planted; do touch "$work/tree/$old"; done
    # A mechanism that is gone leaves functions without a use.
    sed -i 's/ -Werror)/)/' "$work/tree/CMakeLists.txt"
    flags=
    if [ "$1" = - ]; then
        flags="-D$2"
    else
        planted="$planted $1"
        sed -i.kept "$2" "$work/tree/$1"
        if cmp -s "$work/tree/$1" "$work/tree/$1.kept"; then
            return 2
        fi
    fi
    names=
    for target in $3; do names="$names fuzz-afl-$target fuzz-replay-$target"; done
    # shellcheck disable=SC2086 # lists of words
    cmake -S "$work/tree" --preset fuzz -DCMAKE_C_FLAGS="$flags" >"$work/log" 2>&1 &&
        cmake --build "$work/tree/build-fuzz" --target $names fuzz_seeds fuzz_mutate >>"$work/log" 2>&1
}

# Prints how it was noticed.
hunt() { # hunt TARGET
    folder=$work/tree/build-fuzz/fuzz
    said=$( ("$folder/fuzz-replay-$1" "$folder/seeds/$1") 2>&1 | sed -n 's/^fuzz: FINDING: //p' | head -n 1)
    if [ -n "$said" ]; then
        echo "at once, by a seed: $said"
        return 0
    fi
    rm -rf "$work/out" "$work/findings"
    [ "$1" = options ] || [ "$1" = report ] || export AFL_CUSTOM_MUTATOR_LIBRARY="$folder/libfuzz_mutate.so" AFL_CUSTOM_MUTATOR_ONLY=1
    FUZZ_LOG=$work/findings timeout $((seconds + 60)) afl-fuzz -i "$folder/seeds/$1" -o "$work/out" -V "$seconds" -t 5000 -- \
        "$folder/fuzz-afl-$1" >"$work/log" 2>&1 </dev/null
    found=$(find "$work/out" -path '*crashes/id*' 2>/dev/null | sort | head -n 1)
    [ -n "$found" ] || return 1
    ms=${found##*time:}
    execs=${found##*execs:}
    echo "${ms%%,*} ms, ${execs%%,*} executions: $(head -n 1 "$work/findings" 2>/dev/null)"
}

: >"$work/table"
plants >"$work/plants"
wanted=" $* "
while IFS=@ read -r name file script targets; do
    case $wanted in
    '  ') ;;
    *" $name "*) ;;
    *) continue ;;
    esac
    build_plant "$file" "$script" "$targets" </dev/null
    case $? in
    0) ;;
    2)
        echo "$name: NOT PLANTED: the source has changed"
        missed=$((missed + 1))
        continue
        ;;
    *)
        echo "$name: DOES NOT BUILD: $(grep -m 1 error "$work/log")"
        missed=$((missed + 1))
        continue
        ;;
    esac
    noticed=
    for target in $targets; do
        if noticed=$(hunt "$target"); then
            echo "$name: $target: $noticed"
            break
        fi
        noticed=
    done
    if [ -z "$noticed" ]; then
        echo "$name: NOT NOTICED by $targets in $seconds s each"
        missed=$((missed + 1))
    fi
done <"$work/plants"
[ "$missed" -eq 0 ]
