/* core/describe.c: what is said of every kind of address, and that no garbage in
 * descriptors makes it fault. */
#include "bulkhead.h"
#include "core/describe.h"
#include "core/free.h"
#include "meta/arena.h"
#include "support.h"

#include <string.h>
#include <sys/wait.h>

static bh_report_t describe(const void *p)
{
    bh_report_t r;
    memset(&r, 0, sizeof r);
    r.address = p;
    r.size_class = r.slot = r.heap = -1;
    bhi_describe(&r);
    return r;
}

static void *free_it(void *p)
{
    bh_free(p);
    return NULL;
}

START_TEST(blocks)
{
    char *p = bh_malloc(200);
    bh_report_t r = describe(p + 7);
    ck_assert_str_eq(r.place, "block");
    ck_assert_ptr_eq(r.block, p);
    ck_assert(r.offset == 7 && r.block_size == bh_usable_size(p) && r.usable_size == r.block_size && r.size_class >= 0);
    ck_assert_str_eq(r.state, "live");
    ck_assert_str_eq(r.owner, "this thread");
    ck_assert_str_eq(r.heap_kind, "thread");
    ck_assert_ptr_null(r.damage);
    unit_thread(free_it, p);
    ck_assert_str_eq(describe(p).state, "held");
    p = bh_malloc(200);
    bh_free(p);
    ck_assert_str_eq(describe(p).state, "free");
    ck_assert_str_eq(describe((const char *)r.page + (r.page_blocks - 1) * r.block_size).state, "never handed out");
}
END_TEST

START_TEST(large_and_huge_blocks)
{
    static const size_t sizes[] = {300000, 5u << 20, 70u << 20, (size_t)1 << 40};
    for (int i = 0; i < 4; i++) {
        char *p = bh_malloc(sizes[i]);
        if (p == NULL)
            return; /* address space is short */
        for (size_t at = 0; at < sizes[i]; at += sizes[i] / 100)
            ck_assert_ptr_eq(describe(p + at).block, p);
        bh_report_t r = describe(p + sizes[i] - 1);
        ck_assert_str_eq(r.place, "block");
        ck_assert_ptr_eq(r.block, p);
        ck_assert(r.offset == (ptrdiff_t)sizes[i] - 1 && r.size_class == -1 && r.page_blocks == 1);
        ck_assert_str_eq(r.left, "none");
        bh_free(p);
        ck_assert_str_ne(describe(p).place, "block");
    }
}
END_TEST

START_TEST(user_heaps_and_other_places)
{
    bh_heap_t *heap = bh_heap_new();
    void *p = bh_heap_malloc(heap, 50);
    int local;
    ck_assert_str_eq(describe(p).heap_kind, "user");
    bh_heap_delete(heap);
    ck_assert_str_eq(describe(p).heap_kind, "deleted");
    ck_assert_str_eq(describe(p).owner, "none");
    ck_assert_ptr_null(describe(&local).place);
    ck_assert_ptr_null(describe(NULL).place);
    ck_assert_ptr_null(describe((void *)UINTPTR_MAX).place);
    ck_assert_str_eq(describe((void *)bhi_process.descs).place, "control data");
    ck_assert_str_eq(describe((void *)(bhi_process.block_base + bhi_process.block_size - 1)).place, "unused");
}
END_TEST

START_TEST(contradictions_are_named)
{
    char *p = bh_malloc(64);
    bhi_page_t *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, (uintptr_t)p - bhi_process.block_base)), was = *page;
    ck_assert_ptr_null(describe(p).damage);
    page->span_slots = 0;
    ck_assert_str_eq(describe(p).damage, "span");
    *page = was;
    page->reserved *= 2;
    ck_assert_str_eq(describe(p).damage, "number of blocks");
    *page = was;
    page->size_class++;
    ck_assert_str_eq(describe(p).damage, "size class");
    ck_assert_ptr_null(describe(p).block);
    *page = was;
    /* The right place for a heap, but none of ours. */
    atomic_store(&page->heap, (bhi_heap_t *)(((uintptr_t)p + 4095) & ~(uintptr_t)63));
    ck_assert_str_eq(describe(p).damage, "heap");
    *page = was;
}
END_TEST

/* Descriptors, headers, maps and the heap overwritten at random. */
static void garbage(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    char *taken[3] = {bh_malloc(64), bh_malloc(300000), bh_malloc(9u << 20)};
    for (int round = 0; round < 20000; round++) {
        char *p = taken[round % 3];
        bhi_page_t *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, (uintptr_t)p - bhi_process.block_base));
        bhi_segment_t *header = &bhi_state->arenas[0].headers[((uintptr_t)p - bhi_process.block_base) >> BH_SEGMENT_SHIFT];
        bhi_page_t page_was = *page;
        bhi_segment_t header_was = *header;
        for (uint32_t n = 1 + unit_below(&seed, 4); n > 0; n--) {
            uint64_t value = unit_random(&seed) >> unit_below(&seed, 64);
            if (unit_below(&seed, 4) == 0)
                memcpy((char *)header + unit_below(&seed, sizeof *header / 4) * 4, &value, 4);
            else
                memcpy((char *)page + unit_below(&seed, sizeof *page / 4) * 4, &value, unit_below(&seed, 2) != 0 ? 4 : 1);
        }
        describe(p + unit_below(&seed, 100));
        *page = page_was;
        *header = header_was;
    }
}

START_TEST(garbage_in_control_data)
{
    uint64_t seed = unit_seed("describe");
    unit_assert_quiet(garbage, &seed);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("describe");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, blocks);
    tcase_add_test(c, large_and_huge_blocks);
    tcase_add_test(c, user_heaps_and_other_places);
    tcase_add_test(c, contradictions_are_named);
    tcase_add_test(c, garbage_in_control_data);
    suite_add_tcase(s, c);
    return unit_main(s);
}
