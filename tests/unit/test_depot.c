/* harden/depot.c: what goes in comes out, each stack once, and never more than fits. */
#include "harden/depot.h"
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bhi_depot_t *depot;

static void make(void)
{
    free(depot);
    depot = calloc(1, sizeof *depot);
    ck_assert_ptr_nonnull(depot);
}

/* Near each other as a program's, or anywhere. */
static unsigned some_frames(uint64_t *seed, uintptr_t *frames)
{
    unsigned n = 1 + unit_below(seed, BH_STACK_DEPTH);
    uintptr_t base = (uintptr_t)unit_random(seed) >> 17;
    for (unsigned i = 0; i < n; i++) {
        switch (unit_below(seed, 4)) {
        case 0: base = (uintptr_t)unit_random(seed) >> 17; break;
        case 1: base -= unit_below(seed, 1u << 30); break;
        default: base += unit_below(seed, 100000);
        }
        frames[i] = base;
    }
    return n;
}

START_TEST(stacks_come_back)
{
    uint64_t seed = unit_seed("back");
    uintptr_t in[BH_STACK_DEPTH], out[BH_STACK_DEPTH];
    make();
    for (int i = 0; i < 20000; i++) {
        unsigned n = some_frames(&seed, in);
        uint32_t id = bhi_depot_put(depot, in, n);
        ck_assert_uint_ne(id, 0);
        ck_assert_uint_eq(bhi_depot_get(depot, id, out), n);
        ck_assert_int_eq(memcmp(in, out, n * sizeof *in), 0);
        uint32_t used = depot->used;
        ck_assert_uint_eq(bhi_depot_put(depot, in, n), id);
        ck_assert_uint_eq(depot->used, used);
        if (n > 1)
            ck_assert_uint_ne(bhi_depot_put(depot, in, n - 1), id);
    }
}
END_TEST

START_TEST(extreme_differences)
{
    static const uintptr_t in[] = {1,          (uintptr_t)1 << 30, ((uintptr_t)1 << 30) + (((uintptr_t)1 << 30) - 1), 0,
                                   UINTPTR_MAX >> 2, 5, 6, 6, 5, ((uintptr_t)1 << 62) - 1, 2};
    uintptr_t out[BH_STACK_DEPTH];
    make();
    unsigned n = sizeof in / sizeof in[0];
    ck_assert_uint_eq(bhi_depot_get(depot, bhi_depot_put(depot, in, n), out), n);
    ck_assert_int_eq(memcmp(in, out, sizeof in), 0);
}
END_TEST

/* What a walk of broken frame pointers may find: kept but for its highest bit, and once. */
START_TEST(no_frame_is_kept_twice)
{
    static const uintptr_t in[] = {UINTPTR_MAX, 5, UINTPTR_MAX - 7, UINTPTR_MAX / 2 + 1, 1, UINTPTR_MAX / 3 * 2};
    uintptr_t out[BH_STACK_DEPTH];
    unsigned n = sizeof in / sizeof in[0];
    make();
    uint32_t id = bhi_depot_put(depot, in, n);
    ck_assert_uint_ne(id, 0);
    ck_assert_uint_eq(bhi_depot_put(depot, in, n), id);
    ck_assert_uint_eq(bhi_depot_get(depot, id, out), n);
    for (unsigned i = 0; i < n; i++)
        ck_assert_uint_eq(out[i] << 1, in[i] << 1);
}
END_TEST

START_TEST(nothing_is_no_entry)
{
    uintptr_t out[BH_STACK_DEPTH] = {4};
    make();
    ck_assert_uint_eq(bhi_depot_put(depot, out, 0), 0);
    ck_assert_uint_eq(bhi_depot_put(NULL, out, 1), 0);
    ck_assert_uint_eq(bhi_depot_get(NULL, 1, out), 0);
    ck_assert_uint_eq(bhi_depot_get(depot, 0, out), 0);
    ck_assert_uint_eq(bhi_depot_get(depot, UINT32_MAX, out), 0);
    for (uint32_t id = 1; id < 1000; id++)
        ck_assert_uint_le(bhi_depot_get(depot, id, out), BH_STACK_DEPTH);
}
END_TEST

START_TEST(full_it_keeps_what_it_has)
{
    uint64_t seed = unit_seed("full");
    uintptr_t in[BH_STACK_DEPTH], out[BH_STACK_DEPTH], first[BH_STACK_DEPTH];
    make();
    unsigned n = some_frames(&seed, first), refused = 0;
    uint32_t id = bhi_depot_put(depot, first, n);
    while (refused < 100)
        refused += bhi_depot_put(depot, in, some_frames(&seed, in)) == 0;
    ck_assert_uint_le(depot->used, BHI_DEPOT_WORDS);
    ck_assert_uint_eq(bhi_depot_put(depot, first, n), id);
    ck_assert_uint_eq(bhi_depot_get(depot, id, out), n);
    ck_assert_int_eq(memcmp(first, out, n * sizeof *out), 0);
}
END_TEST

enum { THREADS = 4, STACKS = 3000 };

/* All threads put the same stacks, and each finds what it put. */
static void *put_all(void *arg)
{
    uint64_t seed = 42;
    uintptr_t in[BH_STACK_DEPTH], out[BH_STACK_DEPTH];
    bool *good = arg;
    *good = true;
    for (int i = 0; i < STACKS; i++) {
        unsigned n = some_frames(&seed, in);
        uint32_t id = bhi_depot_put(depot, in, n);
        *good &= id != 0 && bhi_depot_get(depot, id, out) == n && memcmp(in, out, n * sizeof *in) == 0;
    }
    return NULL;
}

START_TEST(threads_at_once)
{
    pthread_t thread[THREADS];
    bool good[THREADS];
    make();
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, put_all, &good[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        ck_assert(good[i]);
    }
    uint32_t used = depot->used;
    put_all(&good[0]);
    ck_assert(good[0] && depot->used == used); /* by now each is there */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("depot");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, stacks_come_back);
    tcase_add_test(all, extreme_differences);
    tcase_add_test(all, no_frame_is_kept_twice);
    tcase_add_test(all, nothing_is_no_entry);
    tcase_add_test(all, full_it_keeps_what_it_has);
    tcase_add_test(all, threads_at_once);
    suite_add_tcase(s, all);
    return unit_main(s);
}
