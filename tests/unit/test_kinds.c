/* api/kinds.c: blocks of the operators are malloc's, with a kind. In profile debug. */
#include "api/kinds.h"
#include "bulkhead.h"
#include "core/free.h"
#include "core/record.h"
#include "harden/guarded.h"
#include "support.h"

#include <string.h>

static bhi_kind_t kind_of(const void *p)
{
    if (bhi_guarded_contains((uintptr_t)p))
        return bhi_origin_kind(bhi_guarded_at((uintptr_t)p)->origin);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_QUERY);
    return bhi_origin_kind(bhi_record_of(block.page, block.index)->origin);
}

START_TEST(each_function_gives_its_kind)
{
    for (size_t size = 1; size < 500000; size += size / 3 + 1) {
        void *p[] = {bhi_new(size), bhi_new_aligned(64, size), bhi_as_new(bh_malloc(size)),
                     bhi_new_array(size), bhi_new_array_aligned(256, size), bhi_as_new_array(bh_malloc(size))};
        for (size_t i = 0; i < 6; i++) {
            ck_assert_ptr_nonnull(p[i]);
            ck_assert_uint_eq(kind_of(p[i]), i < 3 ? BHI_KIND_NEW : BHI_KIND_NEW_ARRAY);
            ck_assert_uint_eq(bh_usable_size(p[i]), size);
            memset(p[i], 1, size);
        }
        ck_assert_uint_eq((uintptr_t)p[1] % 64 + (uintptr_t)p[4] % 256, 0);
        bhi_delete(p[0]);
        bhi_delete_aligned_sized(p[1], 64, size);
        bhi_delete_sized(p[2], size);
        bhi_delete_array(p[3]);
        bhi_delete_array_aligned_sized(p[4], 256, size);
        bhi_delete_array_sized(p[5], size);
    }
    ck_assert_ptr_null(bhi_as_new(NULL));
    ck_assert_ptr_null(bhi_new_aligned(3, 10));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kinds");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, UNIT_TIMEOUT);
    tcase_add_test(tc, each_function_gives_its_kind);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
