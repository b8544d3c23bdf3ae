/* core/stats.c against a count of what the test did. */
#include "bulkhead.h"
#include "core/stats.h"
#include "harden/large.h"
#include "core/thread.h"
#include "support.h"

START_TEST(nothing_at_first)
{
    static bhi_stats_t s;
    bhi_stats_collect(&s);
    ck_assert(s.used_bytes == 0 && s.page_count == 0 && s.large_count == 0);
}
END_TEST

START_TEST(counts)
{
    static bhi_stats_t a, b;
    bh_free(bh_malloc(1));
    bh_collect(true);
    bhi_stats_collect(&a);
    ck_assert_uint_eq(a.used_bytes, 0);
    ck_assert_uint_gt(a.reserved_bytes, 0);
    ck_assert_uint_gt(a.control_bytes, 0);
    static void *p[500];
    size_t used = 0, large = 0, large_count = 0;
    uint64_t seed = unit_seed("stats");
    for (int i = 0; i < 500; i++) {
        p[i] = bh_malloc(unit_below(&seed, i % 20 == 0 ? 9000000 : 30000));
        size_t n = bh_usable_size(p[i]);
        used += n;
        if (n > (size_t)128 << 10) {
            large += n;
            large_count++;
        }
    }
    bhi_stats_collect(&b);
    ck_assert_uint_eq(b.used_bytes, used);
    ck_assert_uint_eq(b.large_bytes, large);
    ck_assert_uint_eq(b.large_count, large_count);
    ck_assert_uint_eq(b.page_count, bhi_thread_heap->page_count);
    ck_assert(b.open_bytes >= used && b.open_bytes <= b.reserved_bytes && b.free_slot_bytes < b.open_bytes);
    ck_assert_uint_eq(b.open_bytes, b.segment_count << BH_SEGMENT_SHIFT);
    for (int i = 0; i < 500; i++)
        bh_free(p[i]);
    bh_collect(true);
    bhi_stats_collect(&b);
    ck_assert(b.used_bytes == 0 && b.page_count == 0 && b.large_count == 0);
    if (BH_HARDEN_LARGE)
        ck_assert(b.quarantined_bytes > 0 && b.quarantined_bytes <= bhi_process.options.large_quarantine_bytes);
    bhi_state_lock();
    bhi_large_empty();
    bhi_state_unlock();
    bh_collect(true);
    bhi_stats_collect(&b);
    ck_assert(b.quarantined_bytes == 0 && b.segment_count == 0);
}
END_TEST

/* Control data stay near 0.2 % of the memory in use, the map apart. */
START_TEST(control_data_are_small)
{
    static bhi_stats_t s;
    for (int i = 0; i < 200000; i++)
        ck_assert_ptr_nonnull(bh_malloc(1024));
    bhi_stats_collect(&s);
    ck_assert_msg(s.control_bytes * 100 < s.used_bytes, "%zu control bytes for %zu", s.control_bytes, s.used_bytes);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stats");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, nothing_at_first);
    tcase_add_test(c, counts);
    tcase_add_test(c, control_data_are_small);
    suite_add_tcase(s, c);
    return unit_main(s);
}
