/* harden/list.h: what is filled in comes out, and nothing of it lies in blocks. */
#include "base/bits.h"
#include "bulkhead.h"
#include "core/page.h"
#include "core/thread.h"
#include "harden/list.h"
#include "meta/size_class.h"
#include "invariants.h"
#include "support.h"

#include <string.h>

/* A page of that class with something on its list. */
static bhi_page_t *page_with_list(unsigned c)
{
    bh_free(bh_malloc(bhi_class_size(c)));
    bhi_page_t *page = bhi_thread_heap->queues[c].first;
    ck_assert_ptr_nonnull(page);
    return page;
}

START_TEST(what_is_filled_in_comes_out)
{
    for (unsigned c = 0; BH_HARDEN_MAP && c < BHI_CLASSES; c += 3) {
        bhi_page_t *page = page_with_list(c);
        uint32_t most = page->reserved < BH_LIST_MOST ? page->reserved : BH_LIST_MOST, had = page->listed;
        bhi_index_t index[BH_LIST_MOST], kept[BH_LIST_MOST];
        memcpy(kept, bhi_list(page, 0), had * sizeof kept[0]);
        for (uint32_t i = 0; i < most; i++)
            index[i] = bhi_list_code(page, i);
        bhi_list_fill(page, &bhi_thread_heap->random, index, most, most);
        ck_assert_uint_eq(page->listed, most);
        uint64_t seen = 0;
        for (uint32_t i = 0; i < most; i++)
            seen |= (uint64_t)1 << bhi_list_at(page, i);
        ck_assert_uint_eq(seen, bhi_bit_range(0, most));
        memcpy(bhi_list(page, 0), kept, had * sizeof kept[0]);
        page->used -= page->listed;
        bhi_list_lead(page, had);
        ck_assert_invariants();
    }
}
END_TEST

/* Who writes an entry without having read one of the page cannot say which block it
 * is: over the keys of many pages, it is any of the 2^16 as often. */
START_TEST(a_written_entry_is_any_block)
{
    if (!BH_HARDEN_LISTS)
        return;
    enum { pages = 4000, parts = 16 };
    unsigned seen[parts] = {0};
    bhi_page_t *page = page_with_list(bhi_class_of(64));
    bhi_index_t key = (bhi_index_t)page->list_key;
    for (unsigned i = 0; i < pages; i++) {
        page->list_key = bhi_random_u64(&bhi_thread_heap->random) & BH_LIST_ENTRY;
        seen[bhi_list_code(page, 0x4141) % parts]++;
    }
    page->list_key = key & BH_LIST_ENTRY;
    double sum = 0, expected = (double)pages / parts;
    for (unsigned i = 0; i < parts; i++)
        sum += (seen[i] - expected) * (seen[i] - expected) / expected;
    ck_assert_double_lt(sum, 56); /* 15 degrees of freedom: a false alarm once in 10^6 */
}
END_TEST

/* No word of ours lies in free blocks, listed or not: they stay as the program left
 * them until they are handed out, and then too. */
START_TEST(free_blocks_stay_as_they_are)
{
    if (unit_is_hardened() || !BH_HARDEN_CLEAR)
        return;
    enum { n = 500, rounds = 20 };
    static const size_t sizes[] = {8, 16, 64, 200, 1024, 4096};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        static void *blocks[n];
        for (unsigned round = 0; round < rounds; round++) {
            for (unsigned i = 0; i < n; i++) {
                unsigned char *p = blocks[i] = bh_malloc(sizes[s]);
                bool mine = p[0] == 0x5a, zero = p[0] == 0;
                ck_assert_msg(mine || zero, "size %zu: a block begins with 0x%02x", sizes[s], p[0]);
                for (size_t k = 0; k < sizes[s]; k++)
                    ck_assert_msg(p[k] == p[0], "size %zu: byte %zu is 0x%02x, the first 0x%02x", sizes[s], k, p[k], p[0]);
                memset(p, 0x5a, sizes[s]);
            }
            for (unsigned i = 0; i < n; i++)
                bh_free(blocks[i]);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("list");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, what_is_filled_in_comes_out);
    tcase_add_test(c, a_written_entry_is_any_block);
    tcase_add_test(c, free_blocks_stay_as_they_are);
    suite_add_tcase(s, c);
    return unit_main(s);
}
