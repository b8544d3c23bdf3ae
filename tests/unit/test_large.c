/* harden/large.c: Q1 to Q3, how long addresses wait, that what comes back
 * reads zero and can be used, in every mode and while kernel calls fail. */
#include "base/bits.h"
#include "bulkhead.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "invariants.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"
#include "support.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define ALL (~(uint64_t)0)

static const bhi_large_quarantine_t *ring(void)
{
    return &bhi_state->quarantine;
}

/* Where in the ring the span that starts at p is, or count. */
static uint32_t find(uintptr_t p)
{
    const bhi_large_quarantine_t *q = ring();
    for (uint32_t i = 0; i < q->count; i++) {
        const bhi_quarantined_t *e = &q->ring[(q->first + i) % BHI_QUARANTINE_MOST];
        if (bhi_segment_base(e->segment) + e->slot * BH_SLOT_SIZE == p)
            return i;
    }
    return q->count;
}

static bool waits(uintptr_t p)
{
    return find(p) < ring()->count;
}

static uintptr_t take(size_t size)
{
    void *p = bh_malloc(size);
    ck_assert_ptr_nonnull(p);
    return (uintptr_t)p;
}

static void give(uintptr_t p)
{
    bh_free((void *)p); /* NOLINT: an address on purpose */
}

static bool trapped(uintptr_t p, size_t size)
{
    return !unit_readable(p) && !unit_readable(p + size / 2) && !unit_readable(p + size - 1);
}

START_TEST(from_the_threshold_on_blocks_trap)
{
    static const size_t sizes[] = {512 * 1024, MIB, MIB + 1, 4 * MIB - 65536, 4 * MIB, 16 * MIB + 5, 100 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uintptr_t p = take(sizes[i]);
        memset((void *)p, 0x5a, sizes[i]); /* NOLINT */
        give(p);
        ck_assert_msg(trapped(p, sizes[i]) && waits(p), "%zu bytes", sizes[i]);
    }
    uintptr_t small = take(512 * 1024 - BH_OS_PAGE_SIZE);
    give(small);
    ck_assert(!waits(small));
    uintptr_t larger = take((size_t)300 * MIB); /* than all that may wait */
    give(larger);
    ck_assert(trapped(larger, (size_t)300 * MIB) && !waits(larger) && ring()->count == sizeof sizes / sizeof sizes[0]);
    ck_assert_invariants();
}
END_TEST

/* At least half as many others leave first as were there. */
START_TEST(each_waits_for_half_of_the_others)
{
    static uint32_t stay[4000], there[4000]; /* by order of freeing */
    static uintptr_t at[4000];
    size_t distinct[BHI_QUARANTINE_MOST * 2 + 1] = {0}, seen = 0;
    for (uint32_t i = 0; i < 4000; i++) {
        at[i] = take(600 * 1024);
        there[i] = ring()->count;
        give(at[i]);
        ck_assert(waits(at[i]) && ring()->bytes <= bhi_process.options.large_quarantine_bytes);
        for (uint32_t k = i < 600 ? 0 : i - 600; k < i; k++) {
            if (at[k] == 0 || waits(at[k]))
                continue;
            stay[k] = i - k;
            at[k] = 0;
            ck_assert_msg(stay[k] >= there[k] / 2, "the %u-th of %u left after %u", k, there[k], stay[k]);
            if (k > 1000 && distinct[stay[k] < 512 ? stay[k] : 512]++ == 0)
                seen++;
        }
    }
    ck_assert_uint_eq(ring()->count, BHI_QUARANTINE_MOST);
    ck_assert_msg(seen > 100, "only %zu different distances", seen);
    ck_assert_invariants();
}
END_TEST

START_TEST(bytes_are_bounded)
{
    uint64_t seed = unit_seed("bytes");
    for (int i = 0; i < 300; i++) {
        size_t size = 512 * 1024 + unit_below(&seed, unit_below(&seed, 4) == 0 ? 60 * MIB : 4 * MIB);
        give(take(size));
        ck_assert(ring()->bytes <= bhi_process.options.large_quarantine_bytes && ring()->count <= BHI_QUARANTINE_MOST);
    }
    ck_assert_invariants();
    bhi_state_lock();
    bhi_large_empty();
    bhi_state_unlock();
    ck_assert(ring()->bytes == 0 && ring()->count == 0);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------- use again */

static uint32_t failing, one_in;
static uint64_t fail_seed;
static int fail_some(bhi_os_call_t call)
{
    return (failing >> call & 1) != 0 && unit_below(&fail_seed, one_in) == 0 ? (unit_below(&fail_seed, 2) == 0 ? EPERM : ENOMEM) : 0;
}

#define KIND(k) ((uint32_t)1 << (k))
static const uint32_t kinds[] = {
    0,
    KIND(BHI_OS_GUARD),
    KIND(BHI_OS_MMAP),
    KIND(BHI_OS_MADVISE),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MADVISE),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MMAP) | KIND(BHI_OS_MADVISE),
    KIND(BHI_OS_GUARD) | KIND(BHI_OS_MMAP) | KIND(BHI_OS_MADVISE) | KIND(BHI_OS_MPROTECT) | KIND(BHI_OS_PROCESS_MADVISE),
};
#define CASES ((int)(sizeof kinds / sizeof kinds[0]) * 2)

/* Blocks of all large sizes, written full; zeroed ones must read zero. Whatever
 * fails, a block that is handed out can be used. */
static void churn(uint64_t *seed, int rounds, bool may_refuse)
{
    static struct { unsigned char *p; size_t size; } held[40];
    for (int round = 0; round < rounds; round++) {
        unsigned i = unit_below(seed, 40);
        if (held[i].p != NULL) {
            ck_assert(held[i].p[0] == i && held[i].p[held[i].size - 1] == i);
            bh_free(held[i].p);
            held[i].p = NULL;
            continue;
        }
        held[i].size = 140 * 1024 + unit_below(seed, unit_below(seed, 10) == 0 ? 9 * MIB : 2 * MIB);
        bool zero = unit_below(seed, 2) == 0;
        held[i].p = zero ? bh_calloc(1, held[i].size) : bh_malloc(held[i].size);
        ck_assert(held[i].p != NULL || may_refuse);
        if (held[i].p == NULL)
            continue;
        ck_assert_msg(!zero || unit_is(held[i].p, held[i].size, 0), "round %d: %zu bytes are not zero", round, held[i].size);
        memset(held[i].p, (int)i, held[i].size);
        if (unit_below(seed, 50) == 0) {
            bhi_state_lock();
            bhi_large_empty();
            bhi_state_unlock();
        }
    }
}

START_TEST(what_comes_back_is_zero_and_usable)
{
    uint64_t seed = unit_seed("churn");
    give(take(1));
    fail_seed = seed;
    churn(&seed, 150, false);
    failing = kinds[_i / 2];
    one_in = _i % 2 == 0 ? 1 : 3;
    bhi_os_fail_hook = failing != 0 ? fail_some : NULL;
    churn(&seed, 400, failing != 0);
    bhi_os_fail_hook = NULL;
    const char *text = inv_all_open_is_open();
    ck_assert_msg(text == NULL, "%s", text);
    churn(&seed, 150, failing != 0);
    if (failing == 0)
        ck_assert_invariants();
}
END_TEST

/* Slots that mprotect closed in part, then a guard region over all of them: no
 * part of it may be left behind when they become the inside of a longer span. */
START_TEST(a_region_over_partly_closed_slots)
{
    uint64_t seed = unit_seed("mixed");
    give(take(1));
    bhi_state_lock();
    bhi_segment_t *s = bhi_arena_take_run(1, 1);
    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq(bhi_os_open(bhi_segment_base(s), BH_SEGMENT_SIZE), 0);
    bhi_segment_adopt_huge(s, 1, BH_SEGMENT_SIZE, false);
    bhi_state_unlock();
    for (int round = 0; round < 60; round++) {
        unsigned n = 1 + unit_below(&seed, 10), slot = unit_below(&seed, BH_SEGMENT_SLOTS - n);
        bhi_state_lock();
        s->free &= ~bhi_bit_range(slot, n);
        s->heads |= (uint64_t)1 << slot;
        failing = round % 3 == 0 ? KIND(BHI_OS_GUARD) : 0; /* then mprotect closes */
        one_in = 1;
        bhi_os_fail_hook = fail_some;
        bool fits = bhi_guard_fit(s, slot, n, BH_SLOT_OS_PAGES - 1 - unit_below(&seed, 3));
        ck_assert(fits || failing != 0);
        ck_assert_msg(inv_open_is_open(s), "round %d: what the header calls accessible is not", round);
        failing = KIND(BHI_OS_MMAP);
        bhi_large_span(s, slot, n, BHI_LARGE_OPEN);
        bhi_os_fail_hook = NULL;
        bhi_large_empty();
        bhi_state_unlock();
        ck_assert(s->free == ALL);
    }
}
END_TEST

/* A refused guard leaves the memory returned, and is counted. */
START_TEST(a_refused_trap_is_counted)
{
    uintptr_t p = take(MIB);
    *(volatile char *)p = 1; /* NOLINT */
    size_t missed = atomic_load(&bhi_state->guard_missed);
    failing = KIND(BHI_OS_GUARD) | KIND(BHI_OS_MMAP);
    one_in = 1;
    bhi_os_fail_hook = fail_some;
    give(p);
    bhi_os_fail_hook = NULL;
    ck_assert(waits(p) && atomic_load(&bhi_state->guard_missed) == missed + 1);
    ck_assert(unit_readable(p) && *(volatile char *)p == 0); /* NOLINT */
    bhi_state_lock();
    bhi_large_empty();
    bhi_state_unlock();
    ck_assert_invariants();
}
END_TEST

/* Addresses that wait are worth less than an allocation that would fail. */
START_TEST(no_memory_lets_all_addresses_go)
{
    for (int i = 0; i < 20; i++)
        give(take(MIB));
    ck_assert_uint_eq(ring()->count, 20);
    failing = KIND(BHI_OS_MMAP) | KIND(BHI_OS_MPROTECT);
    one_in = 1;
    bhi_os_fail_hook = fail_some;
    ck_assert_ptr_null(bh_malloc(20 * MIB));
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(ring()->count, 0);
    ck_assert_invariants();
}
END_TEST

/* --------------------------------------------------------- threads and forks */

static void free_again(void *p)
{
    give((uintptr_t)p);
}

/* A huge span that the kernel will not take back costs no control data for each
 * segment; its memory is gone, and its addresses are tried again with the next. */
START_TEST(refused_huge_spans_are_tried_again)
{
    const size_t size = 1024 * MIB;
    give(take(1));
    const bhi_arena_t *arena = &bhi_state->arenas[0];
    if (arena->size < 8 * size)
        return; /* address space is short */
    uintptr_t p[2] = {take(size), take(size)}, next = take(size);
    failing = KIND(BHI_OS_MMAP) | KIND(BHI_OS_GUARD);
    one_in = 1;
    bhi_os_fail_hook = fail_some;
    for (int i = 0; i < 2; i++) {
        *(volatile char *)(p[i] + size / 2) = 1; /* NOLINT */
        give(p[i]);
        ck_assert(!waits(p[i]) && *(volatile char *)(p[i] + size / 2) == 0); /* NOLINT */
        const bhi_segment_t *s = &arena->headers[(p[i] - arena->base) >> BH_SEGMENT_SHIFT];
        ck_assert(bhi_state->huge_refused == s && s[100].kind != BHI_SEGMENT_SLOTS);
    }
    bhi_os_fail_hook = NULL;
    ck_assert_invariants();
    unit_assert_violation(free_again, (void *)p[0], "double-free"); /* NOLINT */
    unit_assert_violation(free_again, (void *)(p[1] + size / 2), "invalid-free"); /* NOLINT */
    give(next);
    ck_assert_ptr_nonnull(bhi_state->huge_refused);
    give(take(size));
    ck_assert_ptr_null(bhi_state->huge_refused);
    ck_assert(trapped(p[0], size) && trapped(p[1], size));
    ck_assert_invariants();
}
END_TEST

START_TEST(a_double_free_is_one_while_the_address_waits)
{
    static const size_t sizes[] = {MIB, 20 * MIB};
    for (size_t i = 0; i < 2; i++) {
        uintptr_t p = take(sizes[i]);
        give(p);
        ck_assert(waits(p));
        unit_assert_violation(free_again, (void *)p, "double-free"); /* NOLINT */
        unit_assert_violation(free_again, (void *)(p + 4096), "invalid-free"); /* NOLINT */
    }
}
END_TEST

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

static void *allocate_there(void *size)
{
    return bh_malloc((size_t)size);
}

START_TEST(freed_by_another_thread)
{
    uintptr_t p = take(2 * MIB), q = take(9 * MIB);
    unit_thread(free_there, (void *)p); /* NOLINT */
    unit_thread(free_there, (void *)q); /* NOLINT */
    bh_collect(false);                  /* the owner takes them in */
    ck_assert(waits(p) && waits(q) && trapped(p, 2 * MIB) && trapped(q, 9 * MIB));
    /* Its thread has ended: whoever frees it is the helper. */
    void *orphan = unit_thread(allocate_there, (void *)(3 * MIB)); /* NOLINT */
    ck_assert_ptr_nonnull(orphan);
    bh_free(orphan);
    ck_assert(waits((uintptr_t)orphan) && trapped((uintptr_t)orphan, 3 * MIB));
    ck_assert_invariants();
}
END_TEST

static _Atomic(bool) stop;
static void *busy(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    while (!atomic_load(&stop)) {
        unsigned char *p = bh_malloc(512 * 1024 + unit_below(&seed, 6 * MIB));
        ck_assert_ptr_nonnull(p);
        p[0] = 1;
        bh_free(p);
    }
    return NULL;
}

START_TEST(children_of_busy_threads_go_on)
{
    uint64_t seed = unit_seed("fork");
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, busy, (void *)(i + 1)), 0); /* NOLINT */
    for (int i = 0; i < 30; i++) {
        uintptr_t mine = take(MIB);
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            give(mine);
            bool ok = waits(mine);
            for (int k = 0; k < 20; k++) {
                size_t size = 512 * 1024 + unit_below(&seed, 6 * MIB);
                memset((void *)take(size), 1, size); /* NOLINT */
            }
            _exit(ok && inv_all_open_is_open() == NULL ? 0 : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: status %x", i, (unsigned)status);
        give(mine);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    bh_collect(false);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quarantine");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    if (!BH_HARDEN_LARGE)
        return 0;
    tcase_add_test(c, from_the_threshold_on_blocks_trap);
    tcase_add_test(c, each_waits_for_half_of_the_others);
    tcase_add_test(c, bytes_are_bounded);
    tcase_add_loop_test(c, what_comes_back_is_zero_and_usable, 0, CASES);
    tcase_add_test(c, a_region_over_partly_closed_slots);
    tcase_add_test(c, a_refused_trap_is_counted);
    tcase_add_test(c, no_memory_lets_all_addresses_go);
    tcase_add_test(c, refused_huge_spans_are_tried_again);
    tcase_add_test(c, a_double_free_is_one_while_the_address_waits);
    tcase_add_test(c, freed_by_another_thread);
    tcase_add_test(c, children_of_busy_threads_go_on);
    suite_add_tcase(s, c);
    return unit_main(s);
}
