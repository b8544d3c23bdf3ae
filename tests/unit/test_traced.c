/* core/traced.c and core/record.c: patterns in fresh and freed memory, what is found
 * when they are damaged, records of kinds and stacks. The program runs in profile
 * debug, its blocks are not guarded. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/record.h"
#include "core/traced.h"
#include "harden/wipe.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define LARGEST (BH_CLASS_MAX_SIZE - BH_CANARY_LEAST)

static unsigned char *take(size_t size)
{
    void *p = bh_malloc(size);
    __asm__("" : "+r"(p));
    ck_assert_ptr_nonnull(p);
    return p;
}

static unsigned char *hidden(unsigned char *p)
{
    __asm__("" : "+r"(p));
    return p;
}

START_TEST(fresh_memory_has_its_pattern)
{
    for (size_t size = 1; size <= LARGEST; size += size < 2000 ? 1 : size / 7) {
        for (int i = 0; i < 3; i++) {
            unsigned char *p = take(size);
            ck_assert_msg(unit_is(p, size, BH_FILL_FRESH), "%zu", size);
            memset(p, 0x11, size);
            bh_free(p);
            p = bh_calloc(1, size);
            ck_assert_msg(unit_is(p, size, 0), "%zu", size);
            memset(p, 0x22, size);
            bh_free(p);
        }
    }
    unsigned char *p = take(1 << 20);
    ck_assert(unit_is(p, 1 << 20, 0));
    bh_free(p);
}
END_TEST

START_TEST(freed_memory_has_its_pattern)
{
    for (size_t size = 1; size <= 30000; size += size < 600 ? 1 : size / 7) {
        unsigned char *keep = take(size), *p = take(size);
        memset(p, 0x11, size);
        bh_free(p);
        ck_assert_msg(unit_is(hidden(p), size, BH_FILL_FREED), "%zu", size);
        bh_free(keep);
    }
}
END_TEST

START_TEST(what_a_block_grows_by_is_fresh)
{
    for (size_t size = 1; size < 5000; size++) {
        unsigned char *p = bh_calloc(1, size), *q = bh_realloc(p, size + 40);
        ck_assert(unit_is(q, size, 0) && unit_is(q + size, 40, BH_FILL_FRESH));
        bh_free(q);
    }
    unsigned char *p = bh_rezalloc(bh_malloc(10), 12);
    ck_assert(unit_is(p + 10, 2, 0));
    bh_free(p);
}
END_TEST

START_TEST(damage_of_a_pattern_is_found)
{
    static _Alignas(16) unsigned char block[4096];
    static const size_t sizes[] = {16, 32, 48, 64, 80, 112, 128, 144, 256, 1024, 4096};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        memset(block, 0, sizes[s]);
        ck_assert_uint_eq(bhi_wipe_check((uintptr_t)block, sizes[s]), BH_WIPE_CLEAN);
        bhi_wipe_fill_freed((uintptr_t)block, sizes[s]);
        ck_assert(unit_is(block, sizes[s], BH_FILL_FREED));
        ck_assert_uint_eq(bhi_wipe_check((uintptr_t)block, sizes[s]), BH_WIPE_CLEAN);
        for (size_t at = 0; at < sizes[s]; at++) {
            for (int value = 0; value < 2; value++) {
                block[at] = (unsigned char)value;
                ck_assert_uint_eq(bhi_wipe_check((uintptr_t)block, sizes[s]), at);
                block[at] = BH_FILL_FREED;
            }
        }
    }
}
END_TEST

static const bhi_record_t *record_of(const void *p)
{
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_QUERY);
    ck_assert(bhi_record_has(block.page));
    return bhi_record_of(block.page, block.index);
}

START_TEST(records_tell_kind_and_stacks)
{
    for (size_t size = 1; size < 1000000; size += size / 3 + 1) {
        unsigned char *p = take(size);
        const bhi_record_t *r = record_of(p);
        ck_assert_uint_eq(bhi_origin_kind(r->origin), BHI_KIND_MALLOC);
        ck_assert_uint_ne(bhi_origin_stack(r->origin), 0);
        ck_assert_uint_eq(r->free_stack, 0);
        uint32_t stack = bhi_origin_stack(r->origin);
        bhi_kind_set(p, BHI_KIND_NEW_ARRAY);
        ck_assert(bhi_origin_kind(r->origin) == BHI_KIND_NEW_ARRAY && bhi_origin_stack(r->origin) == stack);
        bhi_kind_free(p, BHI_KIND_NEW_ARRAY);
        if (size < LARGEST)
            ck_assert_uint_ne(r->free_stack, 0);
        p = bh_aligned_alloc(64, size);
        ck_assert_uint_eq(bhi_origin_kind(record_of(p)->origin), BHI_KIND_ALIGNED);
        bh_free(p);
    }
}
END_TEST

/* Records neighbour what profile hardened keeps of a page, and each other. */
START_TEST(records_of_all_blocks_of_a_page_are_apart)
{
    enum { BLOCKS = 20000 };
    static unsigned char *p[BLOCKS];
    for (size_t size = 1; size < 600; size = size * 2 + 7) {
        for (size_t i = 0; i < BLOCKS; i++) {
            p[i] = take(size);
            bhi_kind_set(p[i], (bhi_kind_t)(i % BHI_KINDS));
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            ck_assert_uint_eq(bhi_origin_kind(record_of(p[i])->origin), i % BHI_KINDS);
            ck_assert_uint_eq(bh_usable_size(p[i]), size);
        }
        for (size_t i = 0; i < BLOCKS; i++)
            bhi_kind_free(p[i], (bhi_kind_t)(i % BHI_KINDS));
    }
    ck_assert_uint_eq(bh_verify(), 0);
}
END_TEST

/* The records of pages of small blocks are larger than what else the pool hands out. */
START_TEST(records_are_given_back)
{
    enum { BLOCKS = 100000 };
    static unsigned char *p[BLOCKS];
    size_t bytes = 0;
    for (int round = 0; round < 12; round++) {
        for (size_t i = 0; i < BLOCKS; i++)
            p[i] = take(1);
        for (size_t i = 0; i < BLOCKS; i++)
            bh_free(p[i]);
        bh_collect(true);
        if (round == 3)
            bytes = bhi_state->pool.bytes;
    }
    ck_assert_uint_eq(bhi_state->pool.bytes, bytes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("traced");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, UNIT_TIMEOUT);
    tcase_add_test(tc, fresh_memory_has_its_pattern);
    tcase_add_test(tc, freed_memory_has_its_pattern);
    tcase_add_test(tc, what_a_block_grows_by_is_fresh);
    tcase_add_test(tc, damage_of_a_pattern_is_found);
    tcase_add_test(tc, records_tell_kind_and_stacks);
    tcase_add_test(tc, records_of_all_blocks_of_a_page_are_apart);
    tcase_add_test(tc, records_are_given_back);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
