/* core/alloc.c: every size and alignment, zeroed memory, errno, the heartbeat,
 * and what happens when memory is short. */
#include "bulkhead.h"
#include "core/alloc.h"
#include "invariants.h"
#include "meta/arena.h"
#include "meta/size_class.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

START_TEST(every_size_to_the_largest_class)
{
    for (size_t n = 0; n <= BH_CLASS_MAX_SIZE + 20000; n += n < 1200 ? 1 : 1 + n / 300) {
        errno = 77;
        unsigned char *p = bh_malloc(n);
        ck_assert(p != NULL && errno == 77);
        ck_assert_uint_eq((uintptr_t)p % (n <= 8 ? 8 : 16), 0);
        size_t usable = bh_usable_size(p);
        ck_assert(usable >= n && (n <= 128 ? usable <= n + 15 : n > BH_CLASS_MAX_SIZE || usable <= n + n / 8));
        memset(p, 0xaa, usable);
        bh_free(p);
        ck_assert_int_eq(errno, 77);
    }
    ck_assert_invariants();
}
END_TEST

/* An empty block is unique and cannot run into another. */
START_TEST(size_zero_is_unique)
{
    void *p[100];
    for (int i = 0; i < 100; i++) {
        p[i] = bh_malloc(0);
        ck_assert_ptr_nonnull(p[i]);
        for (int k = 0; k < i; k++)
            ck_assert_ptr_ne(p[i], p[k]);
    }
    for (int i = 0; i < 100; i++)
        bh_free(p[i]);
}
END_TEST

/* Memory that was used before is zeroed for calloc; all ways of getting it. */
static void dirty_then_zero(void)
{
    static const size_t sizes[] = {1, 8, 24, 100, 1000, 1024, 1025, 5000, 8192, 20000, 33000, 131072, 140000, 700000, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i], count = n < 2000 ? 300 : n < 200000 ? 12 : 2;
        unsigned char *p[300];
        for (int round = 0; round < 4; round++) {
            for (size_t k = 0; k < count; k++) {
                p[k] = round == 3 ? bh_aligned_zalloc(k % 2 != 0 ? 4096 : 64, n) : bh_zalloc(n);
                ck_assert_ptr_nonnull(p[k]);
                ck_assert_msg(unit_is(p[k], n, 0), "%zu bytes, round %d", n, round);
                memset(p[k], 0xdd, bh_usable_size(p[k]));
            }
            for (size_t k = 0; k < count; k++)
                bh_free(p[k]);
            if (round % 2 != 0)
                bh_collect(round == 1);
        }
    }
}

static int refuse_purges(bhi_os_call_t call)
{
    return call == BHI_OS_MADVISE || call == BHI_OS_MMAP || call == BHI_OS_GUARD ? EINVAL : 0;
}

START_TEST(zeroed_memory_is_zero)
{
    dirty_then_zero();
    ck_assert_invariants();
}
END_TEST

START_TEST(zeroed_memory_is_zero_where_purges_are_refused)
{
    bh_free(bh_malloc(1));
    bhi_os_fail_hook = refuse_purges;
    dirty_then_zero();
    bhi_os_fail_hook = NULL;
    dirty_then_zero();
}
END_TEST

START_TEST(alignments)
{
    for (size_t align = 1; align <= (size_t)32 << 20; align *= 2) {
        static const size_t sizes[] = {0, 1, 8, 9, 17, 100, 1000, 5000, 65536, 70000, 131072, 200000, 3000000};
        void *p[sizeof sizes / sizeof sizes[0]];
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            errno = 77;
            p[i] = bh_aligned_alloc(align, sizes[i]);
            ck_assert_msg(p[i] != NULL && errno == 77, "%zu aligned to %zu", sizes[i], align);
            ck_assert_uint_eq((uintptr_t)p[i] % align, 0);
            memset(p[i], 1, bh_usable_size(p[i]));
        }
        ck_assert_ptr_null(inv_all(false, false));
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            bh_free(p[i]);
    }
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

START_TEST(the_impossible)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, (size_t)1 << 62, (size_t)1 << 50};
    void *keep = bh_malloc(100);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        errno = 0;
        void *p = bh_malloc(sizes[i]);
        ck_assert(p == NULL && errno == ENOMEM);
        errno = 0;
        p = bh_zalloc(sizes[i]);
        ck_assert(p == NULL && errno == ENOMEM);
        errno = 0;
        p = bh_realloc(keep, sizes[i]);
        ck_assert(p == NULL && errno == ENOMEM);
        errno = 0;
        p = bh_aligned_alloc((size_t)1 << 20, sizes[i]);
        ck_assert(p == NULL && errno == ENOMEM);
    }
    for (size_t align = (size_t)1 << 48; align != 0; align *= 2) {
        errno = 0;
        void *p = bh_aligned_alloc(align, 1);
        ck_assert(p == NULL && errno == ENOMEM);
    }
    bh_free(keep);
    ck_assert_invariants();
}
END_TEST

/* ---------------------------------------------------------------- heartbeat */

static unsigned long long last_beat, beats;
static bool inside;
static bool forced;

static void on_beat(bool force, unsigned long long heartbeat, void *arg)
{
    ck_assert_ptr_eq(arg, &beats);
    ck_assert(!inside);
    ck_assert(heartbeat > last_beat);
    inside = true;
    bh_free(bh_malloc((size_t)200 << 10)); /* may come through here again: no second call */
    inside = false;
    last_beat = heartbeat;
    forced |= force;
    beats++;
}

START_TEST(deferred_free_comes_in_time)
{
    bh_register_deferred_free(on_beat, &beats);
    static const size_t sizes[] = {8, 64, 1000, 3000, 40000, 200000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t blocks = sizes[i] <= BH_CLASS_MAX_SIZE ? bhi_class_blocks(bhi_class_of(sizes[i])) : 1, since = 0;
        for (int k = 0; k < 30000 / (int)(1 + sizes[i] / 500); k++) {
            unsigned long long before = beats;
            bh_free(bh_malloc(sizes[i]));
            since = beats != before ? 0 : since + 1;
            ck_assert_msg(since <= blocks, "size %zu: %zu allocations without a call", sizes[i], since);
        }
    }
    unsigned long long before = beats;
    bh_collect(false);
    ck_assert(beats == before + 1 && !forced);
    bh_collect(true);
    ck_assert(beats == before + 2 && forced);
    bh_register_deferred_free(NULL, NULL);
    bh_collect(true);
    ck_assert(beats == before + 2);
}
END_TEST

/* ------------------------------------------------------------------- short */

static bool short_of_memory;
static int no_more(bhi_os_call_t call)
{
    return short_of_memory && (call == BHI_OS_MMAP || call == BHI_OS_MPROTECT) ? ENOMEM : 0;
}

START_TEST(exhaustion_and_recovery)
{
    static void *p[40000];
    size_t n = 0;
    bh_free(bh_malloc(1));
    short_of_memory = true;
    bhi_os_fail_hook = no_more;
    errno = 0;
    while (n < 40000 && (p[n] = bh_malloc(20000)) != NULL)
        memset(p[n++], 0x11, 20000);
    ck_assert(n < 40000 && errno == ENOMEM);
    for (size_t i = 0; i < n; i++)
        ck_assert(unit_is(p[i], 20000, 0x11));
    for (size_t i = 0; i < n; i++)
        bh_free(p[i]);
    void *again = bh_malloc(20000); /* what was freed serves again, still without the kernel */
    ck_assert(n == 0 || again != NULL);
    bh_free(again);
    short_of_memory = false;
    again = bh_malloc((size_t)50 << 20);
    ck_assert_ptr_nonnull(again);
    memset(again, 1, (size_t)50 << 20);
    bh_free(again);
    bhi_os_fail_hook = NULL;
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

/* Which slot a page takes and where blocks lie differs between processes. */
static void tell_places(void *arg)
{
    (void)arg;
    for (int i = 0; i < 8; i++) {
        uintptr_t p = (uintptr_t)bh_malloc((size_t)1000 << i);
        fprintf(stderr, "%u ", (unsigned)((p - bhi_process.block_base) >> BH_SLOT_SHIFT) % BH_SEGMENT_SLOTS);
    }
    fprintf(stderr, "\n");
}

START_TEST(forked_children_lay_out_differently)
{
    static unit_child_t a, b;
    bh_free(bh_malloc(1));
    unit_fork(tell_places, NULL, &a);
    unit_fork(tell_places, NULL, &b);
    ck_assert_str_ne(a.err, b.err);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("alloc");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, every_size_to_the_largest_class);
    tcase_add_test(c, size_zero_is_unique);
    tcase_add_test(c, zeroed_memory_is_zero);
    tcase_add_test(c, zeroed_memory_is_zero_where_purges_are_refused);
    tcase_add_test(c, alignments);
    tcase_add_test(c, the_impossible);
    tcase_add_test(c, deferred_free_comes_in_time);
    tcase_add_test(c, exhaustion_and_recovery);
    tcase_add_test(c, forked_children_lay_out_differently);
    suite_add_tcase(s, c);
    return unit_main(s);
}
