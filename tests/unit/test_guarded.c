/* harden/guarded.c: slots directly. The program runs with guarded_sample_rate=2^32-1,
 * so that there are slots and no block of its own takes one, and a small budget. */
#include "bulkhead.h"
#include "core/thread.h"
#include "harden/guard.h"
#include "harden/guarded.h"
#include "meta/arena.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

static bhi_heap_t *heap;
static bhi_guarded_pool_t *pool;

static void start(void)
{
    bh_free(bh_malloc(1));
    heap = bhi_thread_heap;
    pool = bhi_process.guarded;
    ck_assert_ptr_nonnull(pool);
}

static bhi_guarded_t *take(size_t size)
{
    bhi_guarded_t *g = bhi_guarded_take(heap, size);
    if (g == NULL)
        return NULL;
    ck_assert_uint_eq(bhi_guarded_state(g), BHI_GUARDED_OPENING);
    g->block = bhi_guarded_data(g) + ((bhi_guarded_bytes(g) - size) & ~(size_t)15);
    bhi_guarded_fill(g);
    bhi_guarded_publish(g);
    return g;
}

static void give(bhi_guarded_t *g)
{
    ck_assert(bhi_guarded_claim(g));
    ck_assert(!bhi_guarded_claim(g));
    bhi_guarded_give(g);
    ck_assert_uint_eq(bhi_guarded_state(g), BHI_GUARDED_FREED);
    ck_assert(!bhi_guarded_claim(g));
}

static bool closed(uintptr_t from, size_t size)
{
    for (size_t i = 0; i < size; i += 4096) {
        if (unit_readable(from + i))
            return false;
    }
    return true;
}

static bool open(uintptr_t from, size_t size)
{
    for (size_t i = 0; i < size; i += 4096) {
        if (!unit_readable(from + i))
            return false;
    }
    return true;
}

/* D2, and the guards on both sides. */
static void assert_slot(const bhi_guarded_t *g)
{
    uintptr_t data = bhi_guarded_data(g);
    size_t size = bhi_guarded_bytes(g);
    ck_assert(bhi_guarded_contains(data) && bhi_guarded_contains(data + size));
    ck_assert(closed(data - BH_OS_PAGE_SIZE, BH_OS_PAGE_SIZE));
    ck_assert(closed(data + size, BH_OS_PAGE_SIZE));
    if (bhi_guarded_state(g) == BHI_GUARDED_LIVE)
        ck_assert(open(data, size));
    else
        ck_assert(closed(data, size));
}

START_TEST(slots_open_and_trap)
{
    start();
    static const size_t sizes[] = {1, 100, 4096, 4097, 10000, 20000, 65535, 65536, 65537, 131072};
    bhi_guarded_t *g[10];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 10; i++) {
            g[i] = take(sizes[i]);
            ck_assert_ptr_nonnull(g[i]);
            ck_assert_uint_ge(bhi_guarded_bytes(g[i]), sizes[i]);
            ck_assert(unit_is((void *)g[i]->block, sizes[i], 0)); /* also when used again */
            memset((void *)g[i]->block, 0x55, sizes[i]);
            ck_assert_uint_eq(bhi_guarded_damage(g[i]), 0);
        }
        for (int i = 0; i < 10; i++) {
            assert_slot(g[i]);
            for (size_t at = 0; at < bhi_guarded_bytes(g[i]) + BH_OS_PAGE_SIZE; at += 1000)
                ck_assert_ptr_eq(bhi_guarded_at(bhi_guarded_data(g[i]) + at), g[i]);
        }
        for (int i = 0; i < 10; i++) {
            give(g[i]);
            assert_slot(g[i]);
        }
    }
    ck_assert_uint_eq(pool->live, 0);
    ck_assert_uint_eq(pool->live_bytes + pool->live_data, 0);
}
END_TEST

START_TEST(each_changed_byte_is_seen)
{
    start();
    for (size_t size = 1; size < 200; size += 13) {
        bhi_guarded_t *g = take(size);
        size_t behind = bhi_guarded_data(g) + bhi_guarded_bytes(g) - (g->block + size);
        for (size_t i = 0; i < behind + BHI_GUARDED_FRONT; i++) {
            unsigned char *at = (unsigned char *)g->block + (i < behind ? size + i : i - behind - BHI_GUARDED_FRONT), was = *at;
            ck_assert_uint_ne(was, 0); /* one NUL too many changes it */
            *at ^= (unsigned char)(1u << i % 8);
            ck_assert_uint_eq(bhi_guarded_damage(g), (uintptr_t)at);
            *at = was;
        }
        ck_assert_uint_eq(bhi_guarded_damage(g), 0);
        give(g);
    }
}
END_TEST

/* Wherever in a word the block and the patterns begin and end: each byte of a pattern
 * counts, and no other; filling leaves the block as it is. */
static void check_place(bhi_guarded_t *g, size_t from_start, size_t size)
{
    unsigned char *data = (unsigned char *)bhi_guarded_data(g), *block = data + from_start, *end = data + bhi_guarded_bytes(g);
    size_t front = from_start < BHI_GUARDED_FRONT ? from_start : BHI_GUARDED_FRONT, left = (size_t)(end - block) - size;
    size_t behind = left < BHI_GUARDED_BEHIND ? left : BHI_GUARDED_BEHIND, shown = front + size + behind;
    memset(data, 0, bhi_guarded_bytes(g));
    g->block = (uintptr_t)block;
    g->size = (uint32_t)size;
    bhi_guarded_fill(g);
    ck_assert(unit_is(data, from_start - front, 0) && unit_is(block, size, 0) && unit_is(block + size + behind, left - behind, 0));
    for (unsigned char *at = block - front; at < block - front + shown; at++) {
        bool pattern = at < block || at >= block + size;
        *at ^= 0x80;
        ck_assert_uint_eq(bhi_guarded_damage(g), pattern ? (uintptr_t)at : 0);
        *at ^= 0x80;
    }
    if (left > behind) {
        block[size + behind] = 1;
        ck_assert_uint_eq(bhi_guarded_damage(g), 0);
    }
}

START_TEST(patterns_end_at_any_byte)
{
    start();
    bhi_guarded_t *g = take(100);
    size_t bytes = bhi_guarded_bytes(g);
    for (size_t size = 1; size < 24; size++) {
        check_place(g, 0, size);
        for (size_t back = 0; back < 10; back++)
            check_place(g, bytes - size - back, size);
        check_place(g, bytes / 2 - size, size);
        check_place(g, 7 + size, size);
    }
    g->size = 100;
    g->block = bhi_guarded_data(g);
    give(g);
}
END_TEST

/* With a budget of 64 slots, four a class its own at least; large OS pages have one
 * class. */
START_TEST(the_budget_holds)
{
    start();
    bhi_guarded_t *g[100], *last = NULL;
    unsigned n = 0, more = 0;
    while (n < 100 && (g[n] = take(10)) != NULL)
        n++;
    ck_assert_msg(n >= 40 && n <= 64, "%u slots", n);
    ck_assert_uint_gt(pool->refused, 0);
    while ((last = take(65000)) != NULL) /* others have their share */
        more++;
    ck_assert((more >= 4 || BH_OS_PAGE_SIZE > 65000) && n + more <= 64);
    ck_assert_ptr_null(take(10));
    for (unsigned i = 0; i < n; i++)
        give(g[i]);
    last = take(10);
    ck_assert_ptr_nonnull(last);
    ck_assert_uint_eq(pool->classes[0].slots, n); /* an address again */
}
END_TEST

/* With all slots used once, the one that comes back is one of the oldest. */
START_TEST(addresses_come_back_late)
{
    start();
    bhi_guarded_t *g[64];
    unsigned n = 0, at[64] = {0}, differ = 0;
    while (n < 64 && (g[n] = take(10)) != NULL)
        n++;
    for (unsigned i = 0; i < n; i++)
        give(g[i]);
    for (unsigned i = 0; i < 2000; i++) {
        bhi_guarded_t *again = take(10);
        ck_assert_ptr_nonnull(again);
        unsigned k = 0;
        while (g[k] != again)
            k++;
        ck_assert_uint_le(k, n / 2); /* of the older half */
        at[k]++;
        memmove(&g[k], &g[k + 1], (n - 1 - k) * sizeof *g);
        g[n - 1] = again;
        give(again);
    }
    for (unsigned k = 0; k < 64; k++)
        differ += at[k] != 0;
    ck_assert_uint_ge(differ, n / 3);
}
END_TEST

/* What a child skips is taken later, before there is another chunk, and once. */
START_TEST(a_child_forgets_no_slot)
{
    start();
    bhi_guarded_t *g[41];
    g[0] = take(BH_GUARDED_MOST);
    ck_assert_ptr_nonnull(g[0]);
    const bhi_guarded_class_t *class = &pool->classes[g[0]->size_class];
    size_t left = (size_t)(class->end - class->fresh);
    if (left > 40) /* more than the budget: large OS pages */
        return;
    for (unsigned i = 0; i < 1000; i++)
        bhi_guarded_after_fork();
    ck_assert_int_eq(class->end - class->fresh, 1);
    ck_assert_ptr_nonnull(class->skipped);
    for (size_t i = 1; i <= left; i++) {
        g[i] = take(BH_GUARDED_MOST);
        ck_assert_ptr_nonnull(g[i]);
        for (size_t k = 0; k < i; k++)
            ck_assert_ptr_ne(g[i], g[k]);
    }
    ck_assert_uint_eq(class->chunks, 1);
    ck_assert_ptr_null(class->skipped);
    for (size_t i = 0; i <= left; i++)
        give(g[i]);
}
END_TEST

START_TEST(wild_addresses_have_no_slot)
{
    start();
    bhi_guarded_t *g = take(10);
    uintptr_t base = bhi_process.guarded_base;
    size_t size = bhi_process.guarded_size;
    for (uintptr_t at = base; at < base + size; at += 4095 * 3) {
        const bhi_guarded_t *found = bhi_guarded_at(at);
        ck_assert(found == NULL || bhi_guarded_contains(bhi_guarded_data(found)));
        ck_assert(found != NULL || at - base >= BHI_GUARDED_CHUNK - BH_OS_PAGE_SIZE); /* the rest of a chunk */
    }
    ck_assert(!bhi_guarded_contains(base - 1) && !bhi_guarded_contains(base + size) && !bhi_guarded_contains(0));
    unsigned n = 0;
    for (const bhi_guarded_t *i = bhi_guarded_next(NULL); i != NULL; i = bhi_guarded_next(i))
        n += i == g;
    ck_assert_uint_eq(n, 1);
    give(g);
}
END_TEST

/* ------------------------------------------------------------- what is refused */

static bhi_os_call_t refused;
static int refuse(bhi_os_call_t call)
{
    return call == refused ? EPERM : 0;
}

static int refuse_all(bhi_os_call_t call)
{
    return call == BHI_OS_GUARD || call == BHI_OS_MPROTECT || call == BHI_OS_MMAP ? EPERM : 0;
}

/* A sandbox that came late: nothing is guarded, or closed in another way; a block
 * that was live stays so, and what was freed shows nothing. */
START_TEST(refusals_are_survived)
{
    start();
    static const bhi_os_call_t calls[] = {BHI_OS_GUARD, BHI_OS_MPROTECT, BHI_OS_MMAP};
    for (size_t i = 0; i < 3; i++) {
        bhi_guarded_t *g = take(100);
        ck_assert_ptr_nonnull(g);
        memset((void *)g->block, 0x77, 100);
        refused = calls[i];
        bhi_os_fail_hook = refuse;
        give(g);
        bhi_guarded_t *other = take(5000);
        bhi_os_fail_hook = NULL;
        if (other != NULL)
            give(other);
        uintptr_t data = bhi_guarded_data(g);
        ck_assert(!unit_readable(data) || unit_is((void *)data, BH_OS_PAGE_SIZE, 0));
        for (unsigned k = 0; k < 200; k++) { /* the same slots, opened as they should be */
            g = take(100);
            ck_assert_ptr_nonnull(g);
            ck_assert(unit_is((void *)g->block, 100, 0));
            memset((void *)g->block, 1, 100);
            give(g);
            assert_slot(g);
        }
    }
    size_t missed = bhi_state->guard_missed;
    bhi_guarded_t *g = take(100);
    memset((void *)g->block, 0x77, 100);
    bhi_os_fail_hook = refuse_all;
    give(g);
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(bhi_state->guard_missed, missed + 1);
    ck_assert(unit_is((void *)bhi_guarded_data(g), BH_OS_PAGE_SIZE, 0));
}
END_TEST

/* Guard regions cost no mapping; slots opened by mprotect are counted. */
START_TEST(mappings_are_few_or_counted)
{
    start();
    bhi_guarded_t *g[40];
    size_t before = bhi_state->mappings, maps = unit_mappings(bhi_process.guarded_base, bhi_process.guarded_size);
    unsigned n = 0;
    while (n < 40 && (g[n] = take(10)) != NULL)
        n++;
    size_t more = unit_mappings(bhi_process.guarded_base, bhi_process.guarded_size) - maps;
    if (bhi_process.guards_by_madvise) {
        ck_assert_uint_le(more, 2);
        ck_assert_uint_eq(bhi_state->mappings, before);
    } else {
        ck_assert_uint_ge(bhi_state->mappings - before + 2, more);
    }
    for (unsigned i = 0; i < n; i++)
        give(g[i]);
    ck_assert_uint_eq(bhi_state->mappings, before);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("guarded");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, slots_open_and_trap);
    tcase_add_test(all, each_changed_byte_is_seen);
    tcase_add_test(all, patterns_end_at_any_byte);
    tcase_add_test(all, the_budget_holds);
    tcase_add_test(all, addresses_come_back_late);
    tcase_add_test(all, a_child_forgets_no_slot);
    tcase_add_test(all, wild_addresses_have_no_slot);
    tcase_add_test(all, refusals_are_survived);
    tcase_add_test(all, mappings_are_few_or_counted);
    suite_add_tcase(s, all);
    return unit_main(s);
}
