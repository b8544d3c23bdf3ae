/* harden/guard.c: S3 as the kernel sees it, in every mode, also when guard
 * calls fail now and then and from some moment on. */
#include "bulkhead.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "invariants.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"
#include "support.h"

#define SPANS 48
static struct {
    bhi_span_t span;
    unsigned n, last_from;
} held[SPANS];
static unsigned count;
static uint64_t seed;

static uint32_t failing; /* set of kinds that may fail */
static uint32_t one_in;  /* how often */
static uint64_t fail_seed;

static int fail_some(bhi_os_call_t call)
{
    return (failing >> call & 1) != 0 && unit_below(&fail_seed, one_in) == 0 ? EPERM : 0;
}

static void may_fail(uint32_t kinds, uint32_t rarely)
{
    failing = kinds;
    one_in = rarely;
    fail_seed = seed;
    bhi_os_fail_hook = kinds != 0 ? fail_some : NULL;
}

#define KIND(k) ((uint32_t)1 << (k))

/* ----------------------------------------------------------------- checks */

static void open_pages_are_open(const bhi_segment_t *s)
{
    ck_assert_msg(inv_open_is_open(s), "S3: an OS page that the header calls accessible is not");
}

static void exact(const bhi_segment_t *s)
{
    uintptr_t base = bhi_segment_base(s);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++) {
            bool open = unit_readable(base + i * BH_SLOT_SIZE + ((size_t)os << BH_OS_PAGE_SHIFT));
            ck_assert_msg(open == inv_is_open(s, i, os), "S3: slot %u, OS page %u is %s, open_to %u, regions %x", i, os,
                          open ? "open" : "closed", s->open_to[i], s->regions[i]);
        }
    }
}

static void take_one(bool may_refuse)
{
    unsigned n = 1 + unit_below(&seed, unit_below(&seed, 3) == 0 ? 12 : 2);
    unsigned from = unit_below(&seed, 3) == 0 ? unit_below(&seed, BH_SLOT_OS_PAGES) : BH_SLOT_OS_PAGES - 1;
    if (n == 1 && from == 0)
        from = 1;
    bool closed = n == 1 && unit_below(&seed, 3) == 0;
    bhi_span_t span = bhi_span_take(n, 1);
    ck_assert(may_refuse || span.segment != NULL);
    if (span.segment == NULL)
        return;
    if (closed) {
        bhi_guard_close(span.segment, span.slot);
        from = 0;
    } else if (!bhi_guard_fit(span.segment, span.slot, n, from)) {
        ck_assert(may_refuse);
        bhi_span_give(span.segment, span.slot, n, !span.zero);
        return;
    }
    held[count].span = span;
    held[count].n = n;
    held[count].last_from = from;
    count++;
    if (unit_below(&seed, 6) == 0)
        bhi_guard_batch(span.segment);
}

static void give_one(void)
{
    unsigned i = unit_below(&seed, count);
    if (unit_below(&seed, 3) == 0)
        bhi_large_span(held[i].span.segment, held[i].span.slot, held[i].n, BHI_LARGE_OPEN);
    else
        bhi_span_give(held[i].span.segment, held[i].span.slot, held[i].n, true);
    held[i] = held[--count];
    if (unit_below(&seed, 10) == 0)
        bhi_large_empty();
}

static void churn(int rounds, void (*check)(const bhi_segment_t *), bool may_refuse)
{
    bhi_lock_take(&bhi_state->lock);
    for (int round = 0; round < rounds; round++) {
        if (count < SPANS && (count == 0 || unit_below(&seed, 100) < 55))
            take_one(may_refuse);
        else
            give_one();
        if (unit_below(&seed, 40) == 0)
            bhi_purge(0, true, 1 + unit_below(&seed, 2));
        for (unsigned i = 0; i < count; i++) {
            const bhi_segment_t *s = held[i].span.segment;
            unsigned last = held[i].span.slot + held[i].n - 1;
            for (unsigned at = 0; at < (held[i].n - 1) * BH_SLOT_OS_PAGES + held[i].last_from; at++)
                ck_assert(inv_is_open(s, held[i].span.slot + at / BH_SLOT_OS_PAGES, at % BH_SLOT_OS_PAGES));
            if (!may_refuse && BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE) {
                ck_assert(!inv_is_open(s, last, held[i].last_from) && !inv_is_open(s, last, BH_SLOT_OS_PAGES - 1));
                unsigned slot = held[i].span.slot; /* a guard below it too */
                ck_assert(slot == 0 || !inv_is_open(s, slot - 1, BH_SLOT_OS_PAGES - 1) || (s->purging >> (slot - 1) & 1) != 0);
            }
        }
        if (count > 0 && round % 8 == 0)
            check(held[unit_below(&seed, count)].span.segment);
    }
    bhi_lock_give(&bhi_state->lock);
}

static void start(const char *name)
{
    ck_assert_ptr_nonnull(bh_malloc(1));
    seed = unit_seed(name);
}

/* ------------------------------------------------------------------ tests */

START_TEST(access_is_what_the_header_says)
{
    start("exact");
    churn(2500, exact, false);
    if (BH_HARDEN_GUARDS) /* otherwise no slot is ever closed */
        ck_assert_uint_eq(atomic_load(&bhi_state->guard_missed), 0);
}
END_TEST

/* One test for each set of calls that fail, each from the start of the churn
 * and after a quiet time (a sandbox that arrives late). */
static const uint32_t kinds[] = {
    KIND(BHI_OS_GUARD),
    KIND(BHI_OS_PROCESS_MADVISE),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_PROCESS_MADVISE),
    KIND(BHI_OS_MPROTECT),
    KIND(BHI_OS_MMAP),
    KIND(BHI_OS_MADVISE),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MPROTECT),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MMAP),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MMAP) | KIND(BHI_OS_MPROTECT) | KIND(BHI_OS_MADVISE) | KIND(BHI_OS_PROCESS_MADVISE),
};
static const uint32_t rarities[] = {1, 2, 8};
#define CASES (int)(sizeof kinds / sizeof kinds[0] * 3)

static void with_failures(int i, void (*check)(const bhi_segment_t *))
{
    start("failures");
    uint32_t set = kinds[i / 3];
    churn(100, check, true);
    may_fail(set, rarities[i % 3]);
    churn(500, check, true);
    may_fail(0, 1);
    churn(150, check, true);
}

START_TEST(open_stays_open_when_calls_fail)
{
    with_failures(_i, open_pages_are_open);
}
END_TEST

START_TEST(closed_stays_closed_when_calls_fail)
{
    with_failures(_i, exact);
}
END_TEST

/* Slots behind a block that are all guard, whatever state they were in. */
START_TEST(a_distance_is_closed)
{
    if (!BH_HARDEN_GUARDS)
        return;
    start("distance");
    churn(300, exact, false);
    bhi_lock_take(&bhi_state->lock);
    for (int i = 0; i < 60; i++) {
        unsigned n = 1 + unit_below(&seed, 8), more = 1 + unit_below(&seed, 8);
        bhi_span_t span = bhi_span_take(n + more, 1);
        ck_assert(span.segment != NULL && bhi_guard_fit(span.segment, span.slot, n, BH_SLOT_OS_PAGES - 1));
        bhi_guard_distance(span.segment, span.slot + n, more);
        for (unsigned at = 0; at < more * BH_SLOT_OS_PAGES; at++)
            ck_assert(!inv_is_open(span.segment, span.slot + n + at / BH_SLOT_OS_PAGES, at % BH_SLOT_OS_PAGES));
        exact(span.segment);
        bhi_span_give(span.segment, span.slot, n + more, true);
    }
    bhi_lock_give(&bhi_state->lock);
    churn(300, exact, false);
}
END_TEST

/* A guard that is refused costs no allocation, and is counted. */
START_TEST(refused_guards_cost_no_memory)
{
    if (!BH_HARDEN_GUARDS)
        return;
    start("refused");
    if (bhi_process.options.guard == BHI_GUARD_MPROTECT)
        return;
    churn(200, open_pages_are_open, true);
    may_fail(KIND(BHI_OS_GUARD) | KIND(BHI_OS_PROCESS_MADVISE), 1);
    bhi_lock_take(&bhi_state->lock);
    while (count < SPANS) {
        unsigned before = count;
        take_one(true);
        ck_assert_uint_eq(count, before + 1);
    }
    bhi_lock_give(&bhi_state->lock);
    may_fail(0, 1);
}
END_TEST

/* A huge span whose memory could not be taken away becomes slots that mprotect
 * closed; the batch of guard regions must not mix with that. */
START_TEST(slots_of_a_former_huge_span)
{
    start("huge");
    bhi_lock_take(&bhi_state->lock);
    for (int i = 0; i < 4; i++) {
        bhi_segment_t *s = bhi_arena_take_run(2, 1);
        ck_assert_ptr_nonnull(s);
        size_t open = BH_SEGMENT_SIZE + unit_below(&seed, 60) * BH_SLOT_SIZE + unit_below(&seed, 16) * BH_OS_PAGE_SIZE;
        ck_assert_int_eq(bhi_os_open(bhi_segment_base(s), open), 0);
        bhi_segment_adopt_huge(s, 2, open, true);
    }
    bhi_lock_give(&bhi_state->lock);
    churn(2500, exact, false);
}
END_TEST

/* The estimate that keeps our mappings within half of the limit must not fall
 * behind what the kernel counts. */
START_TEST(mappings_stay_within_the_budget)
{
    start("budget");
    if (!BH_HARDEN_GUARDS || bhi_process.options.guard != BHI_GUARD_MPROTECT)
        return;
    const bhi_arena_t *arena = &bhi_state->arenas[0];
    static bhi_span_t spans[4000];
    bhi_lock_take(&bhi_state->lock);
    bhi_state->mappings_budget = 400;
    for (int i = 0; i < 4000; i++) { /* one page of small blocks, one of large ones */
        unsigned n = i % 2 == 0 ? 1 : BH_SPAN_SLOTS_LARGE;
        spans[i] = bhi_span_take(n, 1);
        ck_assert_ptr_nonnull(spans[i].segment);
        ck_assert(bhi_guard_fit(spans[i].segment, spans[i].slot, n, BH_SLOT_OS_PAGES - 1));
    }
    size_t estimate = bhi_state->mappings;
    bhi_lock_give(&bhi_state->lock);
    size_t real = unit_mappings(arena->base, arena->size);
    ck_assert_msg(real <= 2 * 400, "%zu mappings with a budget of 400 (estimate %zu)", real, estimate);
}
END_TEST

START_TEST(the_probe_finds_out_about_this_kernel)
{
    start("probe");
    uintptr_t probe = bhi_process.block_base + bhi_process.block_size - BH_SEGMENT_SIZE;
    ck_assert(!unit_readable(probe)); /* it cleaned up */
    intptr_t at = bhi_os_reserve(0, BH_OS_PAGE_SIZE);
    ck_assert(!bhi_os_failed(at) && bhi_os_open((uintptr_t)at, BH_OS_PAGE_SIZE) == 0);
    bool works = bhi_os_guard_install((uintptr_t)at, BH_OS_PAGE_SIZE) == 0 && bhi_os_guard_traps((uintptr_t)at);
    bool wanted = BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_MPROTECT && bhi_process.options.guard != BHI_GUARD_NONE;
    ck_assert(bhi_process.guards_by_madvise == (works && wanted));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("guard");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, access_is_what_the_header_says);
    tcase_add_loop_test(c, open_stays_open_when_calls_fail, 0, CASES);
    tcase_add_loop_test(c, closed_stays_closed_when_calls_fail, 0, CASES);
    tcase_add_test(c, a_distance_is_closed);
    tcase_add_test(c, refused_guards_cost_no_memory);
    tcase_add_test(c, slots_of_a_former_huge_span);
    tcase_add_test(c, mappings_stay_within_the_budget);
    tcase_add_test(c, the_probe_finds_out_about_this_kernel);
    suite_add_tcase(s, c);
    return unit_main(s);
}
