/* core/sampled.c: which allocations are guarded, and what can be done with those that
 * are. The program is run with several rates; a test says at which it has a meaning.
 *
 *   unit_sampled choice   prints which of its allocations are guarded */
#include "bulkhead.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long rate(void)
{
    return bh_option_get_long("guarded_sample_rate");
}

static bool is_guarded(const void *p)
{
    return bhi_guarded_contains((uintptr_t)p);
}

/* ----------------------------------------------------------------- the choice */

/* n allocations of all small and medium sizes, a third of them kept for a while. */
static unsigned allocate(unsigned n, uint64_t seed)
{
    enum { KEPT = 256 };
    static void *kept[KEPT];
    unsigned guarded = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t size = 1 + unit_below(&seed, unit_below(&seed, 8) == 0 ? 9000 : 300);
        void **at = &kept[unit_below(&seed, KEPT)];
        void *p = i % 7 == 0 ? bh_zalloc(size) : bh_malloc(size);
        guarded += is_guarded(p);
        if (i % 3 == 0) {
            bh_free(*at);
            *at = p;
        } else {
            bh_free(p);
        }
        for (unsigned k = 0; i % 5000 == 4999 && k < KEPT; k++) {
            bh_free(kept[k]);
            kept[k] = NULL;
        }
        if (i % 5000 == 4999)
            bh_collect(true); /* pages end with lists on them */
    }
    for (unsigned i = 0; i < KEPT; i++) {
        bh_free(kept[i]);
        kept[i] = NULL;
    }
    return guarded;
}

static void assert_share(unsigned guarded, unsigned n)
{
    double p = 1.0 / (double)rate(), deviation = sqrt(n * p * (1 - p));
    ck_assert_msg(fabs(guarded - n * p) <= 6 * deviation, "%u of %u at rate %ld", guarded, n, rate());
}

START_TEST(the_share_is_exact)
{
    unsigned n = rate() == 1 ? 20000 : rate() < 100 ? 100000 : 4000000;
    assert_share(allocate(n, unit_seed("share")), n);
}
END_TEST

static void *in_thread(void *arg)
{
    unsigned n = rate() < 100 ? 4000 : 100000;
    *(unsigned *)arg = allocate(n, 99);
    return NULL;
}

static unsigned first_ones(unsigned threads)
{
    unsigned sum = 0, one;
    for (unsigned i = 0; i < threads; i++) {
        unit_thread(in_thread, &one);
        sum += one;
    }
    return sum;
}

/* Threads that end soon: the first allocations of each count as any. */
START_TEST(short_threads_too)
{
    unsigned threads = rate() < 100 ? 10 : 20, n = (rate() < 100 ? 4000 : 100000) * threads;
    assert_share(first_ones(threads), n);
}
END_TEST

/* The very first allocation of a process, over many processes. */
static void first_allocation(void *arg)
{
    (void)arg;
    _exit(is_guarded(bh_malloc(24)) ? 3 : 0);
}

static unsigned forks_with_guarded(unsigned n)
{
    unsigned guarded = 0;
    for (unsigned i = 0; i < n; i++) {
        unit_child_t child;
        unit_fork(first_allocation, NULL, &child);
        guarded += WIFEXITED(child.status) && WEXITSTATUS(child.status) == 3;
    }
    return guarded;
}

START_TEST(from_the_first_on)
{
    if (rate() < 100)
        assert_share(forks_with_guarded(400), 400);
}
END_TEST

/* After it has allocated: a forked child goes on with a choice of its own. */
static void next_choices(void *arg)
{
    (void)arg;
    unsigned set = 0;
    for (int i = 0; i < 8; i++)
        set = set << 1 | is_guarded(bh_malloc(24));
    _exit((int)set);
}

START_TEST(children_choose_for_themselves)
{
    if (rate() != 2)
        return;
    bool seen[256] = {false};
    unsigned differ = 0, first = 0;
    for (int i = 0; i < 20; i++)
        bh_free(bh_malloc(24));
    for (int i = 0; i < 100; i++) {
        unit_child_t child;
        unit_fork(next_choices, NULL, &child);
        first += WEXITSTATUS(child.status) >= 128;
        differ += !seen[WEXITSTATUS(child.status)];
        seen[WEXITSTATUS(child.status)] = true;
    }
    ck_assert_uint_ge(differ, 40); /* 83 are expected */
    ck_assert(first > 15 && first < 85); /* not what their parent had drawn */
}
END_TEST

#define CHOICES 16000

static void print_choice(void)
{
    static char out[CHOICES + 1];
    uint64_t seed = 5;
    static void *kept[CHOICES];
    for (unsigned i = 0; i < CHOICES; i++) {
        kept[i] = bh_malloc(1 + unit_below(&seed, 200));
        out[i] = is_guarded(kept[i]) ? '1' : '0';
        if (i % 200 != 199)
            continue;
        for (unsigned k = i - 199; k <= i; k++)
            bh_free(kept[k]);
        bh_collect(true); /* pages end with lists on them */
    }
    fprintf(stderr, "%s", out);
}

START_TEST(a_seed_repeats_it)
{
    static const char *const envs[][3] = {{"BULKHEAD_GUARDED_SAMPLE_SEED=7", "BULKHEAD_GUARDED_SAMPLE_RATE=60", NULL},
                                          {"BULKHEAD_GUARDED_SAMPLE_SEED=8", "BULKHEAD_GUARDED_SAMPLE_RATE=60", NULL},
                                          {"BULKHEAD_GUARDED_SAMPLE_SEED=0", "BULKHEAD_GUARDED_SAMPLE_RATE=60", NULL}};
    static unit_child_t first, again;
    for (int e = 0; e < 3; e++) {
        unit_exec("choice", envs[e], &first);
        ck_assert_uint_eq(first.length, CHOICES);
        unsigned ones = 0;
        for (size_t i = 0; i < first.length; i++)
            ones += first.err[i] == '1';
        ck_assert(ones > 150 && ones < 420);
        for (int i = 0; i < 5; i++) {
            unit_exec("choice", envs[e], &again);
            ck_assert_int_eq(strcmp(first.err, again.err) == 0, e != 2);
        }
    }
    unit_exec("choice", envs[0], &again);
    ck_assert_str_ne(first.err, again.err);
}
END_TEST

START_TEST(the_first_of_each_class)
{
    static const char *const env[] = {"BULKHEAD_GUARDED_FIRST=3", "BULKHEAD_GUARDED_SAMPLE_RATE=0", NULL};
    static unit_child_t child;
    unit_exec("first", env, &child);
    ck_assert_str_eq(child.err, "20:111000000 24:000000000 33:111000000 9000:111000000 ");
}
END_TEST

static void print_first(void)
{
    static const size_t sizes[] = {20, 24, 33, 9000};
    for (size_t s = 0; s < 4; s++) {
        fprintf(stderr, "%zu:", sizes[s]);
        for (int i = 0; i < 9; i++)
            fprintf(stderr, "%d", is_guarded(bh_malloc(sizes[s])));
        fprintf(stderr, " ");
    }
}

START_TEST(limits_of_size)
{
    static const char *const env[] = {"BULKHEAD_GUARDED_MIN=100", "BULKHEAD_GUARDED_MAX=2000", "BULKHEAD_GUARDED_SAMPLE_RATE=1", NULL};
    static unit_child_t child;
    unit_exec("sizes", env, &child);
    ck_assert_str_eq(child.err, "99:0 100:1 2000:1 2001:0 65536:0 200000:0 ");
}
END_TEST

static void print_sizes(void)
{
    static const size_t sizes[] = {99, 100, 2000, 2001, 65536, 200000};
    for (size_t s = 0; s < 6; s++)
        fprintf(stderr, "%zu:%d ", sizes[s], is_guarded(bh_malloc(sizes[s])));
}

/* ------------------------------------------------------- what can be done with one */

static char *guarded_block(size_t size)
{
    for (;;) {
        char *p = bh_malloc(size);
        ck_assert_ptr_nonnull(p);
        if (is_guarded(p))
            return p;
        bh_free(p);
    }
}

START_TEST(blocks_are_as_others)
{
    if (rate() > 100)
        return;
    for (size_t size = 1; size <= 131072; size = size * 5 / 4 + 1) {
        char *p = guarded_block(size);
        ck_assert_uint_eq((uintptr_t)p % (size <= 8 ? 8 : 16), 0);
        ck_assert_uint_eq(bh_usable_size(p), size);
        ck_assert(bh_check_owned(p) && bh_check_owned(p + size - 1) && !bh_check_owned(p + size) && bh_is_in_heap_region(p));
        ck_assert(bh_heap_contains_block(NULL, p));
        ck_assert(unit_is(p, size, 0));
        memset(p, 3, size);
        char *q = bh_realloc(p, size + 1);
        ck_assert(q != p && unit_is(q, size, 3));
        ck_assert_ptr_eq(bh_realloc(q, bh_usable_size(q)), q);
        q = bh_realloc(q, size / 2 + 1);
        ck_assert(unit_is(q, size / 2 + 1, 3));
        bh_free_sized(q, size / 2 + 1);
        q = bh_rezalloc(guarded_block(size), 2 * size);
        ck_assert(unit_is(q + size, size, 0));
        ck_assert_ptr_null(bh_realloc(q, 0));
    }
}
END_TEST

START_TEST(alignments_hold)
{
    for (size_t align = 1; align <= 65536; align *= 2) {
        for (size_t size = 1; size < 10000; size = size * 3 + 1) {
            char *p = bh_aligned_alloc(align, size);
            ck_assert_ptr_nonnull(p);
            ck_assert_uint_eq((uintptr_t)p % align, 0);
            if (rate() == 1)
                ck_assert(is_guarded(p) == (align <= BH_OS_PAGE_SIZE));
            memset(p, 1, size);
            bh_free_aligned_sized(p, align, size);
        }
    }
    char *p = bh_aligned_alloc_at(64, 1000, 8);
    ck_assert_uint_eq((uintptr_t)(p + 8) % 64, 0);
    bh_free(p);
}
END_TEST

static unsigned visited;
static bool visit(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t size, void *arg)
{
    (void)heap;
    (void)area;
    (void)size;
    visited += block == *(void **)arg;
    return true;
}

START_TEST(heaps_know_theirs)
{
    if (rate() > 100)
        return;
    bh_heap_t *a = bh_heap_new(), *b = bh_heap_new();
    void *p;
    do
        p = bh_heap_malloc(a, 100);
    while (!is_guarded(p));
    ck_assert(bh_heap_contains_block(a, p) && !bh_heap_contains_block(b, p) && !bh_heap_contains_block(NULL, p));
    visited = 0;
    ck_assert(bh_heap_visit_blocks(a, true, visit, &p));
    ck_assert(bh_heap_visit_blocks(b, true, visit, &p));
    ck_assert_uint_eq(visited, 1);
    bh_heap_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_heap_stats_get(a, &s));
    ck_assert(s.used_count >= 1 && s.used_bytes >= 100);
    void *q;
    do
        q = bh_heap_malloc(b, 100);
    while (!is_guarded(q));
    bh_heap_destroy(a);
    ck_assert(!bh_check_owned(p) && !unit_readable((uintptr_t)p));
    bh_heap_delete(b);
    memset(q, 1, 100); /* survives, and is nobody's, nor the next heap's of that structure */
    ck_assert(!bh_check_owned(q));
    bh_heap_t *c[4];
    for (int i = 0; i < 4; i++)
        c[i] = bh_heap_new();
    ck_assert(!bh_check_owned(q));
    for (int i = 0; i < 4; i++)
        bh_heap_destroy(c[i]);
    ck_assert(unit_is(q, 100, 1));
    bh_free(q);
}
END_TEST

static void free_again(void *p) { bh_free(p); }
static void free_destroyed(void *arg)
{
    (void)arg;
    bh_heap_t *a = bh_heap_new();
    void *p;
    do
        p = bh_heap_malloc(a, 100);
    while (!is_guarded(p));
    bh_heap_destroy(a);
    bh_free(p);
}
static void free_inside(void *p) { bh_free((char *)p + 16); }
static void free_guard(void *p) { bh_free((void *)(((uintptr_t)p | (BH_OS_PAGE_SIZE - 1)) + 1)); }
static void ask_again(void *p) { ck_assert_uint_ne(bh_usable_size(p), 1); }
static void resize_again(void *p) { bh_free(bh_realloc(p, 5)); }
static void wrong_size(void *p) { bh_free_sized(p, 99); }
static void verify_end(void *p)
{
    ((char *)p)[100] = 0;
    bh_verify();
}
static void exit_start(void *p)
{
    ((char *)p)[-1] = 0;
    exit(0);
}
static void after_end(void *p)
{
    ((char *)p)[100] = 0;
    bh_free(p);
}
static void before_start(void *p)
{
    ((char *)p)[-1] = 0;
    bh_free(p);
}

/* One that ends a little before its guard, and starts a little behind its OS page's start. */
static char *in_the_middle(void)
{
    for (;;) {
        char *p = guarded_block(100);
        if ((uintptr_t)p % BH_OS_PAGE_SIZE != 0)
            return p;
        bh_free(p);
    }
}

START_TEST(misuse_is_told)
{
    if (rate() > 100)
        return;
    char *p = guarded_block(100);
    unit_assert_violation(free_inside, p, "invalid-free");
    unit_assert_violation(free_guard, p, "invalid-free");
    unit_assert_violation(wrong_size, p, "size-mismatch");
    unit_assert_violation(after_end, in_the_middle(), "overflow");
    unit_assert_violation(before_start, in_the_middle(), "underflow");
    if (unit_is_hardened()) { /* also when it is never freed */
        ck_assert_uint_eq(bh_verify(), 0);
        unit_assert_violation(verify_end, in_the_middle(), "overflow");
        unit_assert_violation(exit_start, in_the_middle(), "underflow");
    }
    bh_free(p);
    unit_assert_violation(free_again, p, "double-free");
    unit_assert_violation(ask_again, p, "query-after-free");
    unit_assert_violation(resize_again, p, "realloc-after-free");
    unit_assert_violation(free_destroyed, NULL, "double-free");
}
END_TEST

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

static void *make_there(void *out)
{
    for (unsigned i = 0; i < 64; i++)
        ((void **)out)[i] = bh_malloc(77);
    return NULL;
}

START_TEST(threads_free_each_others)
{
    void *p[64];
    for (int round = 0; round < 20; round++) {
        unit_thread(make_there, p); /* its owner has ended */
        for (unsigned i = 0; i < 64; i++) {
            memset(p[i], 1, 77);
            if (i % 2 == 0)
                unit_thread(free_there, p[i]);
            else
                bh_free(p[i]);
        }
    }
    if (rate() > 100)
        return;
    char *mine = guarded_block(50);
    unit_thread(free_there, mine);
    ck_assert(!unit_readable((uintptr_t)mine));
}
END_TEST

/* Frees of the parent's blocks in a child, and the other way round. */
static void free_all(void *arg)
{
    void **p = arg;
    for (unsigned i = 0; i < 200; i++)
        bh_free(p[i]);
    for (unsigned i = 0; i < 200; i++)
        bh_free(bh_malloc(100));
}

START_TEST(forks_share_nothing)
{
    void *p[200];
    for (unsigned i = 0; i < 200; i++) {
        p[i] = bh_malloc(100 + i);
        memset(p[i], (int)i, 100 + i);
    }
    unit_assert_quiet(free_all, p);
    for (unsigned i = 0; i < 200; i++)
        ck_assert(unit_is(p[i], 100 + i, (int)i));
    free_all(p);
}
END_TEST

START_TEST(statistics_count_them)
{
    if (rate() > 100)
        return;
    bh_stats_t before = {.struct_size = sizeof before}, after = before;
    ck_assert(bh_stats_get(&before));
    char *p = guarded_block(5000);
    ck_assert(bh_stats_get(&after));
    ck_assert_uint_eq(after.guarded_count, before.guarded_count + 1);
    ck_assert_uint_eq(after.guarded_bytes, before.guarded_bytes + 5000);
    bh_free(p);
    ck_assert(bh_stats_get(&after));
    ck_assert_uint_eq(after.guarded_count, before.guarded_count);
}
END_TEST

/* ---------------------------------------------------------------------- threads */

enum { THREADS = 4, BOX = 64, STEPS = 20000 };
static _Atomic(uintptr_t) box[BOX];

/* All threads put blocks into one box and free what they find there. */
static void *exchange(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    for (int i = 0; i < STEPS; i++) {
        size_t size = 1 + unit_below(&seed, 500);
        unsigned char *p = bh_malloc(size);
        memset(p, 1, size);
        if (i % 16 == 0)
            p = bh_realloc(p, size + 100);
        uintptr_t old = atomic_exchange(&box[unit_below(&seed, BOX)], (uintptr_t)p);
        bh_free((void *)old);
    }
    return NULL;
}

START_TEST(threads_exchange_blocks)
{
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, exchange, (void *)(uintptr_t)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < BOX; i++)
        bh_free((void *)atomic_exchange(&box[i], 0));
    bh_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_stats_get(&s));
    ck_assert_uint_eq(s.guarded_count, 0);
    ck_assert_uint_eq(s.guarded_refused, 0);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct {
        const char *mode;
        void (*run)(void);
    } modes[] = {{"choice", print_choice}, {"first", print_first}, {"sizes", print_sizes}};
    for (size_t i = 0; argc > 1 && i < 3; i++) {
        if (strcmp(argv[1], modes[i].mode) == 0) {
            modes[i].run();
            return 0;
        }
    }
    Suite *s = suite_create("sampled");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, the_share_is_exact);
    tcase_add_test(all, short_threads_too);
    tcase_add_test(all, from_the_first_on);
    tcase_add_test(all, children_choose_for_themselves);
    tcase_add_test(all, a_seed_repeats_it);
    tcase_add_test(all, the_first_of_each_class);
    tcase_add_test(all, limits_of_size);
    tcase_add_test(all, blocks_are_as_others);
    tcase_add_test(all, alignments_hold);
    tcase_add_test(all, heaps_know_theirs);
    tcase_add_test(all, misuse_is_told);
    tcase_add_test(all, threads_free_each_others);
    tcase_add_test(all, forks_share_nothing);
    tcase_add_test(all, statistics_count_them);
    tcase_add_test(all, threads_exchange_blocks);
    suite_add_tcase(s, all);
    return unit_main(s);
}
