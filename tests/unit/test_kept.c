/* What a list was cut by for the next guarded allocation (core/sampled.h, harden/list.h):
 * it comes on the list behind that one. Run with several rates. */
#include "bulkhead.h"
#include "core/page.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "harden/list.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "support.h"

#include <string.h>
#include <unistd.h>

enum { SIZE = 64, BLOCKS = 600, BEFORE = 10 };

static void *block[BLOCKS];

static long rate(void)
{
    return bh_option_get_long("guarded_sample_rate");
}

static unsigned class(void)
{
    return bhi_class_of(SIZE);
}

static bhi_page_t *page(void)
{
    return bhi_thread_heap->queues[class()].first;
}

/* The next n - 1 allocations are not guarded, the one behind them is. */
static void choose(uint32_t n)
{
    bhi_thread_heap->sample[class()] = n;
}

static void *allocate(void)
{
    void *p = bh_malloc(SIZE);
    ck_assert_ptr_nonnull(p);
    return p;
}

static bool is_guarded(const void *p)
{
    return bhi_guarded_contains((uintptr_t)p);
}

/* An empty list and enough free blocks to make another. */
static void empty_the_list(void)
{
    bh_free(allocate());
    choose(100000);
    for (int i = 0; i < BLOCKS; i++)
        block[i] = allocate();
    for (int i = 0; i < BLOCKS; i++)
        bh_free(block[i]);
    choose(100000);
    do
        allocate();
    while (page()->listed != 0);
}

/* Cuts a list to BEFORE blocks, of which one is handed out; the number of those kept. */
static uint32_t cut(void)
{
    empty_the_list();
    choose(BEFORE + 1);
    allocate();
    ck_assert_uint_eq(page()->listed, BEFORE - 1);
    ck_assert_uint_eq(page()->kept, BH_LIST_MOST - BEFORE);
    ck_assert_invariants();
    return page()->kept;
}

static bool take_out(uintptr_t *from, uint32_t n, uintptr_t p)
{
    for (uint32_t i = 0; i < n; i++) {
        if (from[i] == p) {
            from[i] = 0;
            return true;
        }
    }
    return false;
}

START_TEST(what_is_kept_comes_next)
{
    if (rate() == 0)
        return;
    uint32_t n = cut(), guarded = 1;
    uintptr_t kept[BH_LIST_MOST];
    for (uint32_t i = 0; i < n; i++)
        kept[i] = bhi_page_block(page(), bhi_list_index(page(), page()->kept_from + i));
    for (unsigned i = 1; i < BEFORE; i++) {
        void *p = allocate();
        ck_assert(!is_guarded(p) && !take_out(kept, n, (uintptr_t)p));
    }
    ck_assert(is_guarded(allocate()));
    ck_assert_invariants();
    uint32_t served = 0;
    while (page()->listed + page()->kept != 0) {
        void *p = allocate();
        guarded += is_guarded(p);
        served += !is_guarded(p);
        ck_assert(is_guarded(p) || take_out(kept, n, (uintptr_t)p));
    }
    ck_assert_uint_le(n - served, guarded); /* each has taken the place of one */
    ck_assert_invariants();
    ck_assert(rate() > 100 || guarded > 5);
}
END_TEST

static void *end_with_some(void *arg)
{
    cut();
    for (unsigned i = 1; i < BEFORE; i++)
        allocate();
    ck_assert_uint_ne(page()->kept, 0);
    return arg;
}

/* A page that ends takes it with it, and one that gets another owner. */
START_TEST(it_is_forgotten_with_the_list)
{
    if (rate() == 0)
        return;
    static void *more[4 * BLOCKS];
    unit_thread(end_with_some, NULL); /* this thread takes its pages over */
    ck_assert_invariants();
    for (int i = 0; i < 4 * BLOCKS; i++) {
        more[i] = allocate();
        memset(more[i], i, SIZE);
    }
    ck_assert_invariants();
    for (int i = 0; i < 4 * BLOCKS; i++) {
        ck_assert(unit_is(more[i], SIZE, (unsigned char)i));
        bh_free(more[i]);
    }
    cut();
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

/* A child makes its own list: parent and child do not hand out the same blocks in the
 * same order. */
static void no_list(void *arg)
{
    (void)arg;
    if (page()->listed != 0 || page()->kept != 0)
        _exit(1);
}

START_TEST(a_child_forgets_it)
{
    if (rate() == 0)
        return;
    cut();
    for (unsigned i = 1; i < BEFORE; i++)
        allocate();
    ck_assert_uint_eq(page()->listed, 0);
    ck_assert_uint_ne(page()->kept, 0);
    unit_child_t child;
    unit_fork(no_list, NULL, &child);
    ck_assert_int_eq(child.status, 0);
}
END_TEST

/* Control data that somebody has written to leads no further than the list's own room. */
static void resume_damaged(void *arg)
{
    const uint16_t *to = arg;
    for (unsigned i = 1; i < BEFORE; i++)
        allocate();
    page()->kept = to[0];
    page()->kept_from = to[1];
    for (uint32_t i = 0; i < 2 * BH_LIST_MOST; i++)
        allocate();
}

START_TEST(damage_is_told)
{
    if (rate() == 0)
        return;
    cut();
    static uint16_t wrong[][2] = {{65, 0}, {UINT16_MAX, 10}, {55, 10}, {1, 64}, {10, UINT16_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        unit_assert_violation(resume_damaged, wrong[i], "corrupt-list");
}
END_TEST

/* Where nothing is guarded, blocks are counted all the same. */
START_TEST(no_count_comes_to_an_end)
{
    if (rate() != 0)
        return;
    for (uint32_t n = 0; n <= 2 * BH_LIST_MOST + 2; n++) {
        bh_free(allocate());
        choose(n);
        for (int i = 0; i < BLOCKS; i++)
            block[i] = allocate();
        ck_assert_uint_eq(page()->kept, 0);
        for (int i = 0; i < BLOCKS; i++)
            bh_free(block[i]);
    }
    for (uint32_t n = 0; n <= 2; n++) {
        empty_the_list();
        choose(n);
        bh_free(bh_zalloc(SIZE)); /* asks itself whether it is due */
    }
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kept");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, what_is_kept_comes_next);
    tcase_add_test(all, it_is_forgotten_with_the_list);
    tcase_add_test(all, a_child_forgets_it);
    tcase_add_test(all, damage_is_told);
    tcase_add_test(all, no_count_comes_to_an_end);
    suite_add_tcase(s, all);
    return unit_main(s);
}
