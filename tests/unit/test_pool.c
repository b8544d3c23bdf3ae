/* meta/pool.c: chunks of control data. */
#include "bulkhead.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "os/os.h"
#include "support.h"

#include <string.h>

static void start(void)
{
    ck_assert_ptr_nonnull(bh_malloc(1));
    bhi_lock_take(&bhi_state->lock);
}

static void is_zero(const unsigned char *p, size_t n)
{
    ck_assert(unit_is(p, n, 0));
}

#define CHUNKS 4000

START_TEST(chunks_are_aligned_zeroed_and_apart)
{
    start();
    uint64_t seed = unit_seed("pool");
    static struct {
        unsigned char *at;
        size_t size;
        unsigned char tag;
    } c[CHUNKS];
    unsigned n = 0;
    for (int round = 0; round < 60000; round++) {
        if (n == CHUNKS || (n > 0 && unit_below(&seed, 3) == 0)) {
            unsigned i = unit_below(&seed, n);
            ck_assert(unit_is(c[i].at, c[i].size, c[i].tag));
            bhi_pool_give(c[i].at, c[i].size);
            c[i] = c[--n];
            continue;
        }
        size_t size = 1 + unit_below(&seed, unit_below(&seed, 50) == 0 ? 5000 : unit_below(&seed, 3) == 0 ? 2048 : 70);
        unsigned char *p = bhi_pool_take(size);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % 64, 0);
        ck_assert_ptr_null(bhi_arena_of((uintptr_t)p)); /* never among blocks */
        is_zero(p, size);
        c[n].at = p;
        c[n].size = size;
        c[n].tag = (unsigned char)(1 + unit_below(&seed, 255));
        memset(p, c[n].tag, size);
        n++;
    }
    while (n-- > 0)
        ck_assert(unit_is(c[n].at, c[n].size, c[n].tag));
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

START_TEST(chunks_are_reused)
{
    start();
    static const size_t sizes[] = {1, 16, 32, 33, 65, 1000, 2048, 2049, 4096, 4097, 30720, 32768};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *p = bhi_pool_take(sizes[i]);
        memset(p, 0xff, sizes[i]);
        bhi_pool_give(p, sizes[i]);
        ck_assert_ptr_eq(bhi_pool_take(sizes[i]), p);
        is_zero(p, sizes[i]);
        bhi_pool_give(p, sizes[i]);
    }
    size_t bytes = bhi_state->pool.bytes;
    for (int i = 0; i < 100000; i++)
        bhi_pool_give(bhi_pool_take(sizes[i % 12]), sizes[i % 12]);
    ck_assert_uint_eq(bhi_state->pool.bytes, bytes);
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

START_TEST(a_used_up_region_is_followed_by_another)
{
    start();
    bhi_pool_t *pool = &bhi_state->pool;
    uintptr_t end = pool->end;
    pool->end = pool->open_end; /* as if the region were nearly used up */
    for (int i = 0; i < 1000; i++) {
        unsigned char *p = bhi_pool_take(3000);
        ck_assert_ptr_nonnull(p);
        is_zero(p, 3000);
        memset(p, 1, 3000);
    }
    ck_assert_uint_ne(pool->end, end);
    unsigned char *big = bhi_pool_take((size_t)3 << 20);
    ck_assert_ptr_nonnull(big);
    memset(big, 1, (size_t)3 << 20);
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

static int refuse_all(bhi_os_call_t call)
{
    return call == BHI_OS_MMAP || call == BHI_OS_MPROTECT ? ENOMEM : 0;
}

START_TEST(refused_memory_gives_null_and_recovers)
{
    start();
    bhi_os_fail_hook = refuse_all;
    unsigned given = 0;
    while (bhi_pool_take(4096) != NULL)
        given++;
    for (int i = 0; i < 10; i++)
        ck_assert_ptr_null(bhi_pool_take(4096));
    ck_assert_uint_lt(given, 100);
    bhi_os_fail_hook = NULL;
    unsigned char *p = bhi_pool_take(4096);
    ck_assert_ptr_nonnull(p);
    memset(p, 1, 4096);
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pool");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, chunks_are_aligned_zeroed_and_apart);
    tcase_add_test(c, chunks_are_reused);
    tcase_add_test(c, a_used_up_region_is_followed_by_another);
    tcase_add_test(c, refused_memory_gives_null_and_recovers);
    suite_add_tcase(s, c);
    return unit_main(s);
}
