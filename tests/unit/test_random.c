/* rt/random.c: no stream is ever continued by a copy of the process, nothing
 * that was drawn stays in memory, numbers below a bound are uniform. */
#include "core/thread.h"
#include "meta/types.h"
#include "rt/random.h"
#include "support.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bhi_random_t r;

static void start(void)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    bhi_random_init(&r);
}

/* ------------------------------------------------------------------ copies */

typedef pid_t copy_t(void);

static pid_t copy_fork(void)
{
    return fork();
}

/* Neither runs a fork handler. */
static pid_t copy_raw(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
static pid_t copy_no_handlers(void)
{
    return _Fork();
}
#endif

#define DRAWS 96

/* Draws in two copies; returns at how many places they drew the same. */
static unsigned same_draws(copy_t *copy, bhi_random_t *from, unsigned skip)
{
    uint64_t mine[DRAWS], theirs[DRAWS];
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = copy();
    ck_assert_int_ge(pid, 0);
    for (unsigned i = 0; i < DRAWS; i++)
        mine[i] = bhi_random_u64(from);
    if (pid == 0)
        _exit(write(ends[1], mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
    ck_assert_int_eq(read(ends[0], theirs, sizeof theirs), (ssize_t)sizeof theirs);
    waitpid(pid, NULL, 0);
    unsigned same = 0;
    for (unsigned i = skip; i < DRAWS; i++)
        same += mine[i] == theirs[i];
    return same;
}

#define BUFFERED 32 /* draws of one buffer */

START_TEST(copies_differ_after_the_buffer)
{
    start();
    ck_assert_uint_eq(same_draws(copy_fork, &r, BUFFERED), 0);
    ck_assert_uint_eq(same_draws(copy_raw, &r, BUFFERED), 0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    ck_assert_uint_eq(same_draws(copy_no_handlers, &r, BUFFERED), 0);
#endif
    bhi_process.random_root->wiped_page_works = false; /* by process id then */
    ck_assert_uint_eq(same_draws(copy_fork, &r, BUFFERED), 0);
    ck_assert_uint_eq(same_draws(copy_raw, &r, BUFFERED), 0);
}
END_TEST

static int no_entropy(bhi_os_call_t call)
{
    return call == BHI_OS_GETRANDOM || call == BHI_OS_OPEN ? EPERM : 0;
}

START_TEST(copies_differ_without_the_kernels_help)
{
    start();
    bhi_os_fail_hook = no_entropy;
    ck_assert_uint_eq(same_draws(copy_fork, &r, BUFFERED), 0);
    ck_assert_uint_eq(same_draws(copy_raw, &r, BUFFERED), 0);
    bhi_os_fail_hook = NULL;
}
END_TEST

/* What was drawn ahead before the fork must not serve both. */
START_TEST(a_forked_child_differs_from_the_first_draw_on)
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    (void)bhi_random_u64(&heap->random);
    (void)bhi_random_u64(&bhi_state->random);
    ck_assert_uint_eq(same_draws(copy_fork, &heap->random, 0), 0);
    ck_assert_uint_eq(same_draws(copy_fork, &bhi_state->random, 0), 0);
}
END_TEST

START_TEST(an_unforked_copy_differs_from_the_first_draw_on)
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    (void)bhi_random_u64(&heap->random);
    ck_assert_uint_eq(same_draws(copy_raw, &heap->random, 0), 0);
}
END_TEST

START_TEST(generators_differ)
{
    start();
    bhi_random_t other;
    memset(&other, 0, sizeof other);
    bhi_random_init(&other);
    unsigned same = 0;
    for (int i = 0; i < 200; i++)
        same += bhi_random_u64(&r) == bhi_random_u64(&other);
    ck_assert_uint_eq(same, 0);
    bhi_random_init(&other);
    ck_assert(memcmp(other.key, r.key, sizeof r.key) != 0);
}
END_TEST

/* ---------------------------------------------------------------- erasure */

START_TEST(what_was_read_is_gone)
{
    start();
    uint8_t key[32];
    for (int i = 0; i < 1000; i++) {
        memcpy(key, r.key, sizeof key);
        uint32_t at = r.at;
        uint64_t drawn = bhi_random_u64(&r);
        for (uint32_t k = 0; k < r.at; k++)
            ck_assert_msg(r.buf[k] == 0, "byte %u before %u", k, r.at);
        ck_assert_ptr_null(memmem(&r, sizeof r, &drawn, sizeof drawn));
        if (at + 8 > sizeof r.buf) /* a refill: the key that made the old numbers is gone */
            ck_assert(memcmp(key, r.key, sizeof key) != 0);
    }
}
END_TEST

START_TEST(stirring_erases_the_buffer)
{
    start();
    (void)bhi_random_u64(&r);
    uint8_t buf[256];
    memcpy(buf, r.buf, sizeof buf);
    uint8_t key[32];
    memcpy(key, r.key, sizeof key);
    bhi_random_init(&r);
    ck_assert(memcmp(key, r.key, sizeof key) != 0);
    ck_assert_uint_eq(r.at, sizeof r.buf);
    for (size_t i = 0; i < sizeof r.buf; i++)
        ck_assert_uint_eq(r.buf[i], 0);
    bhi_random_root_t *root = bhi_process.random_root;
    memcpy(key, root->state.key, sizeof key);
    uint64_t epoch = atomic_load(&root->epoch);
    bhi_random_after_fork();
    ck_assert(memcmp(key, root->state.key, sizeof key) != 0);
    ck_assert(atomic_load(&root->epoch) != epoch);
}
END_TEST

/* ------------------------------------------------------------ distribution */

START_TEST(below_is_in_bounds_and_uniform)
{
    start();
    static const uint32_t bounds[] = {1, 2, 3, 5, 7, 10, 63, 64, 65, 1000, (1u << 31) - 1, 1u << 31, (1u << 31) + 1, UINT32_MAX};
    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++) {
        for (int i = 0; i < 20000; i++)
            ck_assert_uint_lt(bhi_random_below(&r, bounds[b]), bounds[b]);
    }
    static const uint32_t small[] = {2, 3, 10, 63};
    for (size_t b = 0; b < 4; b++) {
        unsigned seen[64] = {0};
        const unsigned rounds = 200000;
        for (unsigned i = 0; i < rounds; i++)
            seen[bhi_random_below(&r, small[b])]++;
        double expected = (double)rounds / small[b], chi = 0;
        for (uint32_t i = 0; i < small[b]; i++)
            chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        /* mean small - 1, variance 2 (small - 1): eight deviations never happen */
        double free_degrees = small[b] - 1;
        ck_assert_msg(chi < free_degrees + 8 * 1.5 * (free_degrees < 4 ? 2 : free_degrees / 2 + 2), "bound %u: %f", small[b], chi);
    }
    /* The bias that multiply-shift without rejection would have: a third of all
     * values of the lowest third. */
    unsigned low = 0;
    const uint32_t bound = 3u << 30;
    for (int i = 0; i < 60000; i++)
        low += bhi_random_below(&r, bound) % 3 == 0;
    ck_assert_msg(low > 19000 && low < 21000, "%u of 60000", low);
}
END_TEST

START_TEST(every_bit_takes_both_values)
{
    start();
    unsigned ones[64] = {0};
    for (int i = 0; i < 4000; i++) {
        uint64_t x = bhi_random_u64(&r);
        for (int k = 0; k < 64; k++)
            ones[k] += (unsigned)(x >> k & 1);
    }
    for (int k = 0; k < 64; k++)
        ck_assert_msg(ones[k] > 1700 && ones[k] < 2300, "bit %d: %u of 4000", k, ones[k]);
}
END_TEST

/* Draws of a few bits, in pairs, so that a bit that served twice would show. */
START_TEST(bits_are_in_bounds_and_uniform)
{
    start();
    for (unsigned n = 0; n <= 15; n++) {
        enum { MOST = 1 << 15 };
        static unsigned seen[MOST];
        memset(seen, 0, sizeof seen);
        const unsigned values = 2 * n <= 15 ? 1u << 2 * n : 1u << n, rounds = 16 * MOST;
        for (unsigned i = 0; i < rounds; i++) {
            uint32_t x = bhi_random_bits(&r, n);
            ck_assert_uint_lt(x, 1u << n);
            if (2 * n <= 15)
                x |= bhi_random_bits(&r, n) << n;
            seen[x]++;
        }
        double chi = 0, df = values, expected = (double)rounds / values;
        for (uint32_t i = 0; i < values; i++)
            chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        /* mean df - 1, variance 2 (df - 1): eight deviations, and more where the
         * tail is long */
        ck_assert_msg(chi < df + 8 * sqrt(2 * df) + 20, "%u bits: %f", n, chi);
    }
}
END_TEST

START_TEST(a_copy_does_not_go_on_with_the_bits)
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    unsigned same = 0;
    for (unsigned round = 0; round < 20; round++) {
        (void)bhi_random_bits(&heap->random, 1);
        uint32_t theirs, left = heap->random.bits;
        ck_assert_uint_ge(left, 1u << 15); /* some are left to go on with */
        int ends[2];
        ck_assert_int_eq(pipe(ends), 0);
        pid_t pid = copy_raw();
        uint32_t mine = bhi_random_bits(&heap->random, 15);
        if (pid == 0)
            _exit(write(ends[1], &mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
        ck_assert_int_eq(read(ends[0], &theirs, sizeof theirs), (ssize_t)sizeof theirs);
        waitpid(pid, NULL, 0);
        close(ends[0]);
        close(ends[1]);
        same += mine == theirs;
        bhi_random_init(&heap->random);
        ck_assert_uint_eq(heap->random.bits, 0);
    }
    ck_assert_uint_le(same, 3);
}
END_TEST

/* -------------------------------------------------------------------- root */

START_TEST(root_seeds)
{
    start();
    static bhi_random_root_t a, b;
    unsigned char sixteen[16] = {1, 2, 3}, other[16] = {4, 5, 6};
    ck_assert(bhi_random_init_root(&a, NULL) && bhi_random_init_root(&b, NULL));
    ck_assert(memcmp(a.state.key, b.state.key, 32) != 0);
    bhi_os_fail_hook = no_entropy;
    ck_assert(!bhi_random_init_root(&a, NULL));
    ck_assert(bhi_random_init_root(&a, sixteen));
    ck_assert(bhi_random_init_root(&b, other));
    bhi_os_fail_hook = NULL;
    ck_assert(memcmp(a.state.key, b.state.key, 32) != 0);
    ck_assert_ptr_null(memmem(&a, sizeof a, sixteen, sizeof sixteen)); /* a key, never output */
}
END_TEST

START_TEST(root_lies_with_control_data)
{
    start();
    uintptr_t root = (uintptr_t)bhi_process.random_root;
    ck_assert(root - bhi_process.block_base >= bhi_process.block_size);
    ck_assert(atomic_load(bhi_process.random_root->alive) == 1);
    ck_assert((uintptr_t)bhi_process.random_root->alive % BH_OS_PAGE_SIZE == 0);
}
END_TEST

/* Every position of an item, and of four items every order, comes up as often as
 * chance has it: chi-square with a false alarm once in 10^6. */
static double shuffled_positions(uint32_t n, uint32_t rounds)
{
    static uint32_t seen[128];
    memset(seen, 0, sizeof seen);
    for (uint32_t k = 0; k < rounds; k++) {
        bhi_index_t items[128], from[128];
        uint64_t all[2] = {0, 0};
        for (uint32_t i = 0; i < n; i++)
            from[i] = (bhi_index_t)i;
        bhi_random_choose(&r, from, n, n, items);
        for (uint32_t i = 0; i < n; i++) {
            all[items[i] / 64] |= (uint64_t)1 << (items[i] % 64);
            seen[i] += items[i] == k % n;
        }
        ck_assert_int_eq(__builtin_popcountll(all[0]) + __builtin_popcountll(all[1]), n);
    }
    double sum = 0, expected = (double)rounds / n;
    for (uint32_t i = 0; i < n; i++)
        sum += (seen[i] - expected) * (seen[i] - expected) / expected;
    return sum;
}

START_TEST(every_order_is_as_likely)
{
    start();
    unsigned orders[256] = {0}, rounds = 240000;
    for (unsigned k = 0; k < rounds; k++) {
        bhi_index_t from[4] = {0, 1, 2, 3}, items[4];
        bhi_random_choose(&r, from, 4, 4, items);
        orders[items[0] << 6 | items[1] << 4 | items[2] << 2 | items[3]]++;
    }
    double sum = 0, expected = rounds / 24.0;
    for (unsigned i = 0; i < 256; i++)
        sum += orders[i] != 0 ? (orders[i] - expected) * (orders[i] - expected) / expected : 0;
    ck_assert_double_lt(sum, 72); /* 23 degrees of freedom */
    ck_assert_double_lt(shuffled_positions(9, 90000), 43);    /* 8 */
    ck_assert_double_lt(shuffled_positions(64, 128000), 138); /* 63 */
    ck_assert_double_lt(shuffled_positions(127, 127000), 223); /* 126 */
}
END_TEST

/* Where the block that was at a place of one list is on the next: at each place as often
 * as chance has it, whoever knows all of the list before. And of two blocks, who comes first. */
START_TEST(one_order_does_not_tell_the_next)
{
    start();
    static unsigned place[2][BH_ORDER_PLACES];
    unsigned first = 0, rounds = 128000;
    bhi_index_t before[64], from[64], items[64];
    memset(place, 0, sizeof place);
    for (unsigned i = 0; i < 64; i++)
        from[i] = (bhi_index_t)i;
    bhi_random_choose(&r, from, 64, 64, before);
    for (unsigned k = 0; k < rounds; k++) {
        unsigned at[2] = {0, 0};
        for (unsigned i = 0; i < 64; i++)
            from[i] = (bhi_index_t)i;
        bhi_random_choose(&r, from, 64, 64, items);
        for (unsigned i = 0; i < 64; i++) {
            at[0] = items[i] == before[k % 64] ? i : at[0];
            at[1] = items[i] == before[(k + 1) % 64] ? i : at[1];
        }
        place[0][at[0]]++;
        place[1][(at[1] - at[0]) % 64]++;
        first += at[0] < at[1];
        memcpy(before, items, sizeof before);
    }
    double sums[2] = {0, 0}, expected[2] = {rounds / 64.0, rounds / 63.0};
    ck_assert_uint_eq(place[1][0], 0);
    for (unsigned i = 0; i < 64; i++) {
        for (unsigned which = 0; which < 2; which++)
            sums[which] += i >= which ? (place[which][i] - expected[which]) * (place[which][i] - expected[which]) / expected[which] : 0;
    }
    ck_assert_double_lt(sums[0], 138); /* 63 degrees of freedom */
    ck_assert_double_lt(sums[1], 137); /* 62 */
    ck_assert_double_lt(first > rounds / 2.0 ? first - rounds / 2.0 : rounds / 2.0 - first, 4.9 * 178.9);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("random");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, copies_differ_after_the_buffer);
    tcase_add_test(c, copies_differ_without_the_kernels_help);
    tcase_add_test(c, a_forked_child_differs_from_the_first_draw_on);
    tcase_add_test(c, an_unforked_copy_differs_from_the_first_draw_on);
    tcase_add_test(c, generators_differ);
    tcase_add_test(c, what_was_read_is_gone);
    tcase_add_test(c, stirring_erases_the_buffer);
    tcase_add_test(c, below_is_in_bounds_and_uniform);
    tcase_add_test(c, every_bit_takes_both_values);
    tcase_add_test(c, bits_are_in_bounds_and_uniform);
    tcase_add_test(c, a_copy_does_not_go_on_with_the_bits);
    tcase_add_test(c, every_order_is_as_likely);
    tcase_add_test(c, one_order_does_not_tell_the_next);
    tcase_add_test(c, root_seeds);
    tcase_add_test(c, root_lies_with_control_data);
    suite_add_tcase(s, c);
    return unit_main(s);
}
