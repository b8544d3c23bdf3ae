/* meta/segment.c: spans against a model (S1), what is said to be clean reads
 * zero (S2), memory goes back to the kernel, places are drawn at random. */
#include "base/bits.h"
#include "bulkhead.h"
#include "harden/guard.h"
#include "invariants.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"
#include "support.h"

#include <string.h>

static void start(void)
{
    ck_assert_ptr_nonnull(bh_malloc(1));
}

static void lock(void)
{
    bhi_lock_take(&bhi_state->lock);
}

static void unlock(void)
{
    bhi_lock_give(&bhi_state->lock);
}

/* A span without a page: its bit in `heads` would send the invariant checker
 * to a descriptor that is not set up, so the model is checked here instead. */
#define SPANS 200
static struct {
    bhi_span_t span;
    unsigned n;
    bool wrote;
} held[SPANS];
static unsigned count;

static void spans_partition(const bhi_segment_t *s)
{
    uint64_t used = 0;
    for (unsigned i = 0; i < count; i++) {
        if (held[i].span.segment != s)
            continue;
        uint64_t range = bhi_bit_range(held[i].span.slot, held[i].n);
        ck_assert((used & range) == 0);
        ck_assert((s->heads >> held[i].span.slot & 1) == 1);
        used |= range;
    }
    ck_assert((used & s->free) == 0);
    ck_assert((s->dirty & ~s->free) == 0);
    unsigned longest = bhi_bit_longest_run(s->free);
    ck_assert_uint_eq(s->bucket, longest == 0 ? BHI_BUCKETS : bhi_bit_last(longest));
}

static bool reads_zero(uintptr_t from, size_t size)
{
    for (size_t i = 0; i < size; i += 64) {
        if (*(volatile uint64_t *)(from + i) != 0)
            return false;
    }
    return true;
}

static int refuse_purges; /* one in so many */
static uint64_t refuse_seed;
static int refuse_advice(bhi_os_call_t call)
{
    if (refuse_purges == 0 || (call != BHI_OS_MADVISE && call != BHI_OS_MMAP))
        return 0;
    return unit_below(&refuse_seed, (uint32_t)refuse_purges) == 0 ? EINVAL : 0;
}

static void random_spans(uint64_t seed, int rounds)
{
    start();
    lock();
    for (int round = 0; round < rounds; round++) {
        uint32_t what = unit_below(&seed, 100);
        if (what < 50 && count < SPANS) {
            unsigned n = 1 + unit_below(&seed, unit_below(&seed, 5) == 0 ? 40 : 4);
            unsigned align = 1u << (unit_below(&seed, 4) == 0 ? unit_below(&seed, 5) : 0);
            bhi_span_t span = bhi_span_take(n, align);
            if (span.segment == NULL) {
                ck_assert_int_ne(refuse_purges, 0);
                continue;
            }
            ck_assert_uint_eq(span.slot % align, 0);
            ck_assert_uint_le(span.slot + n, BH_SEGMENT_SLOTS);
            if (!bhi_guard_fit(span.segment, span.slot, n, BH_SLOT_OS_PAGES - 1)) {
                ck_assert_int_ne(refuse_purges, 0);
                bhi_span_give(span.segment, span.slot, n, true);
                continue;
            }
            uintptr_t at = bhi_segment_base(span.segment) + span.slot * BH_SLOT_SIZE;
            if (span.zero)
                ck_assert_msg(reads_zero(at, n * BH_SLOT_SIZE - BH_OS_PAGE_SIZE), "a span of slot %u is not zero", span.slot);
            held[count].span = span;
            held[count].n = n;
            held[count].wrote = unit_below(&seed, 4) != 0;
            if (held[count].wrote)
                memset((void *)at, 0xa5, n * BH_SLOT_SIZE - BH_OS_PAGE_SIZE);
            count++;
        } else if (what < 97 && count > 0) {
            unsigned i = unit_below(&seed, count);
            bhi_segment_t *s = held[i].span.segment;
            bool dirty = held[i].wrote || !held[i].span.zero;
            unsigned slot = held[i].span.slot, n = held[i].n;
            held[i] = held[--count];
            bhi_span_give(s, slot, n, dirty);
            spans_partition(s);
        } else {
            bhi_purge(bhi_os_now_ms(), unit_below(&seed, 2) == 0, unit_below(&seed, 3));
        }
        if (count > 0)
            spans_partition(held[count - 1].span.segment);
    }
    unlock();
}

START_TEST(spans_against_a_model)
{
    random_spans(unit_seed("spans"), 4000);
}
END_TEST

START_TEST(spans_with_refused_purges)
{
    uint64_t seed = unit_seed("refused");
    refuse_seed = seed;
    start();
    refuse_purges = 2;
    bhi_os_fail_hook = refuse_advice;
    random_spans(seed, 4000);
    bhi_os_fail_hook = NULL;
}
END_TEST

START_TEST(a_purge_returns_memory_and_an_empty_segment)
{
    start();
    lock();
    bhi_span_t span = bhi_span_take_in_new_segment(20, 1);
    ck_assert(span.segment != NULL && bhi_guard_fit(span.segment, span.slot, 20, BH_SLOT_OS_PAGES - 1));
    bhi_span_t other = bhi_span_take(1, 1); /* keeps some segment busy */
    volatile char *p = (volatile char *)(bhi_segment_base(span.segment) + span.slot * BH_SLOT_SIZE);
    for (size_t i = 0; i < 20 * BH_SLOT_SIZE - BH_OS_PAGE_SIZE; i += 512)
        p[i] = 1;
    bhi_span_give(span.segment, span.slot, 20, true);
    ck_assert(span.segment->purge_at != 0 && span.segment->dirty != 0);
    ck_assert_uint_eq(bhi_purge(span.segment->purge_at - 1, false, 10), 0); /* not due yet */
    ck_assert_int_eq(p[0], 1);
    ck_assert(atomic_load(&bhi_state->purge_next_at) != 0);
    ck_assert_uint_eq(bhi_purge(span.segment->purge_at, false, 1), 0); /* the first look */
    ck_assert_int_eq(p[0], 1);
    ck_assert_uint_eq(span.segment->aged, span.segment->dirty);
    size_t bytes = bhi_purge(span.segment->purge_at, false, 1);
    ck_assert_uint_ge(bytes, 20 * BH_SLOT_SIZE);
    if (other.segment == span.segment) {
        ck_assert_uint_eq(span.segment->dirty, 0);
        ck_assert_int_eq(p[0], 0);
    } else {
        ck_assert(span.segment->in_run && span.segment->kind == BHI_SEGMENT_NONE);
        ck_assert(!unit_readable((uintptr_t)p));
    }
    ck_assert_uint_eq(atomic_load(&bhi_state->purge_next_at), 0);
    unlock();
}
END_TEST

/* What the program used since the last look stays: it would fault it in again. */
START_TEST(a_purge_takes_what_nobody_used_for_the_delay)
{
    start();
    lock();
    bhi_segment_t *s;
    bhi_span_t used, idle;
    do { /* until there is something between the two */
        s = bhi_span_take_in_new_segment(1, 1).segment; /* keeps the segment busy */
        used = bhi_span_take(30, 1), idle = bhi_span_take(10, 1);
    } while (used.segment != s || idle.segment != s || used.slot + 30 == idle.slot || idle.slot + 10 == used.slot);
    uint64_t idle_slots = bhi_bit_range(idle.slot, 10), used_slots = bhi_bit_range(used.slot, 30);
    bhi_span_give(s, used.slot, 30, true);
    bhi_span_give(s, idle.slot, 10, true);
    bhi_purge(s->purge_at, false, 1);
    ck_assert_uint_eq(s->aged, idle_slots | used_slots);
    bhi_span_t again = bhi_span_take(30, 1);
    ck_assert(again.segment == s && again.slot == used.slot && !again.zero); /* warm, and no other fits */
    ck_assert_uint_eq(s->aged, idle_slots);
    bhi_span_give(s, again.slot, 30, true);
    ck_assert_uint_eq(bhi_purge(s->purge_at, false, 1), 10 * BH_SLOT_SIZE);
    ck_assert(s->dirty == used_slots && s->aged == used_slots && s->purge_at != 0);
    ck_assert_uint_eq(bhi_purge(s->purge_at, false, 1), 30 * BH_SLOT_SIZE);
    ck_assert(s->dirty == 0 && s->purge_at == 0);
    unlock();
}
END_TEST

/* Of two warm places the one whose guards are in place, so that no kernel call
 * is needed for it. */
START_TEST(a_place_with_its_guards_comes_first)
{
    if (!BH_HARDEN_GUARDS)
        return;
    start();
    lock();
    bhi_span_t spans[4]; /* wherever they lie, the next one fits */
    for (unsigned i = 0; i < 4; i++) {
        spans[i] = i == 0 ? bhi_span_take_in_new_segment(5, 1) : bhi_span_take(5, 1);
        ck_assert(spans[i].segment == spans[0].segment);
        ck_assert(bhi_guard_fit(spans[i].segment, spans[i].slot, 5, i == 3 ? BH_SLOT_OS_PAGES - 1 : 2));
    }
    for (unsigned i = 0; i < 4; i++)
        bhi_span_give(spans[i].segment, spans[i].slot, 5, true);
    bhi_span_t span = bhi_span_take(5, 1);
    ck_assert(span.segment == spans[3].segment && span.slot == spans[3].slot);
    unlock();
}
END_TEST

static int refuse_both(bhi_os_call_t call)
{
    return call == BHI_OS_MADVISE || call == BHI_OS_MMAP ? EINVAL : 0;
}

START_TEST(a_refused_purge_leaves_the_slots_dirty)
{
    start();
    lock();
    bhi_span_t span = bhi_span_take_in_new_segment(3, 1);
    ck_assert(span.segment != NULL && bhi_guard_fit(span.segment, span.slot, 3, BH_SLOT_OS_PAGES - 1));
    uint64_t range = bhi_bit_range(span.slot, 3);
    *(volatile char *)(bhi_segment_base(span.segment) + span.slot * BH_SLOT_SIZE) = 1;
    bhi_span_give(span.segment, span.slot, 3, true);
    uint64_t refused = atomic_load(&bhi_state->advice_refused);
    bhi_os_fail_hook = refuse_both;
    ck_assert_uint_eq(bhi_purge(0, true, 10), 0);
    bhi_os_fail_hook = NULL;
    ck_assert((span.segment->dirty & range) == range && (span.segment->free & range) == range);
    ck_assert_uint_gt(atomic_load(&bhi_state->advice_refused), refused);
    unlock();
}
END_TEST

static unsigned purges, purges_of_many;
static bool many_refused;

static int count_purges(bhi_os_call_t call)
{
    purges += call == BHI_OS_MADVISE;
    purges_of_many += call == BHI_OS_PROCESS_MADVISE;
    return call == BHI_OS_PROCESS_MADVISE && many_refused ? EPERM : 0;
}

/* One call for all of a segment, since each interrupts other processors; and one for
 * each run of slots where the kernel refuses that. Either leaves them zero. */
START_TEST(runs_of_a_segment_are_purged_together)
{
    start();
    many_refused = _i != 0 || !bhi_process.guards_by_madvise;
    lock();
    bhi_span_t all = bhi_span_take_in_new_segment(BH_SEGMENT_SLOTS - 1, 1); /* so that not all of it is free */
    bhi_segment_t *s = all.segment;
    ck_assert(s != NULL && bhi_guard_fit(s, all.slot, BH_SEGMENT_SLOTS - 1, BH_SLOT_OS_PAGES - 1));
    uint64_t given = 0;
    for (unsigned slot = all.slot + 1; slot < all.slot + 40; slot += 4) {
        memset((void *)(bhi_segment_base(s) + slot * BH_SLOT_SIZE), 7, 2 * BH_SLOT_SIZE);
        bhi_span_give(s, slot, 2, true);
        given |= bhi_bit_range(slot, 2);
    }
    purges = purges_of_many = 0;
    bhi_os_fail_hook = count_purges;
    ck_assert_uint_eq(bhi_purge(0, true, 1), 20 * BH_SLOT_SIZE);
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(purges_of_many, bhi_process.guards_by_madvise);
    ck_assert_uint_eq(purges, many_refused ? 10 : 0);
    ck_assert((s->free & given) == given && s->dirty == 0);
    for (uint64_t set = given; set != 0; set &= set - 1)
        ck_assert(unit_is((const void *)(bhi_segment_base(s) + bhi_bit_first(set) * BH_SLOT_SIZE), BH_SLOT_SIZE, 0));
    unlock();
}
END_TEST

/* Slots without memory, though others have some. */
START_TEST(a_clean_span_is_clean)
{
    start();
    lock();
    bhi_span_t span = bhi_span_take_in_new_segment(40, 1);
    ck_assert(span.segment != NULL && bhi_guard_fit(span.segment, span.slot, 40, BH_SLOT_OS_PAGES - 1));
    bhi_span_give(span.segment, span.slot, 40, true);
    for (unsigned n = 0; n < 4; n++) {
        bhi_span_t clean = bhi_span_take_clean(4);
        ck_assert(clean.segment == NULL || (clean.zero && clean.dirty == 0));
        ck_assert(clean.segment != NULL || n > 0); /* 24 slots, 40 in the middle: the larger part has 12 */
    }
    unlock();
}
END_TEST

/* One in 64 draws each: 20 segments whose first spans all agree do not happen. */
START_TEST(places_are_random)
{
    start();
    lock();
    unsigned first = 0, seen[BH_SEGMENT_SLOTS] = {0}, distinct = 0;
    for (int i = 0; i < 20; i++) {
        bhi_span_t span = bhi_span_take_in_new_segment(1, 1);
        ck_assert_ptr_nonnull(span.segment);
        first = span.slot;
        distinct += seen[first]++ == 0;
    }
    unlock();
    ck_assert_uint_ge(distinct, 8);
}
END_TEST

START_TEST(a_huge_span_becomes_slots)
{
    start();
    lock();
    bhi_segment_t *s = bhi_arena_take_run(3, 1);
    ck_assert_ptr_nonnull(s);
    size_t open = BH_SEGMENT_SIZE + 5 * BH_SLOT_SIZE + 3 * BH_OS_PAGE_SIZE;
    ck_assert_int_eq(bhi_os_open(bhi_segment_base(s), open), 0);
    memset((void *)bhi_segment_base(s), 0x77, open);
    bhi_segment_adopt_huge(s, 3, open, true);
    unlock();
    for (int i = 0; i < 3; i++) {
        const char *text = inv_segment(&s[i], true, true);
        ck_assert_msg(text == NULL, "%s", text);
    }
    ck_assert(s[0].dirty == ~(uint64_t)0 && s[1].dirty == 0x3f && s[2].dirty == 0);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("segment");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, spans_against_a_model);
    tcase_add_test(c, spans_with_refused_purges);
    tcase_add_test(c, a_purge_returns_memory_and_an_empty_segment);
    tcase_add_test(c, a_purge_takes_what_nobody_used_for_the_delay);
    tcase_add_test(c, a_place_with_its_guards_comes_first);
    tcase_add_test(c, a_refused_purge_leaves_the_slots_dirty);
    tcase_add_loop_test(c, runs_of_a_segment_are_purged_together, 0, 2);
    tcase_add_test(c, a_clean_span_is_clean);
    tcase_add_test(c, places_are_random);
    tcase_add_test(c, a_huge_span_becomes_slots);
    suite_add_tcase(s, c);
    return unit_main(s);
}
