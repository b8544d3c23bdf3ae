/* meta/size_class.h, for every size there is. */
#include "base/checked.h"
#include "meta/size_class.h"
#include "support.h"

START_TEST(every_size)
{
    unsigned before = 0;
    for (size_t n = 0; n <= BH_CLASS_MAX_SIZE; n++) {
        unsigned c = bhi_class_of(n);
        size_t size = bhi_class_size(c);
        ck_assert_uint_lt(c, BHI_CLASSES);
        ck_assert_uint_ge(size, n);
        ck_assert_uint_ge(c, before);
        ck_assert_uint_le(c, before + 1); /* no class is skipped */
        ck_assert(c == 0 || bhi_class_size(c - 1) < n); /* and none is too large */
        if (n > 128) /* at most 12.5 % of the size asked for, rounding to 16 aside */
            ck_assert_msg((size - n) * 8 <= n, "%zu gets %zu", n, size);
        else if (n > 8)
            ck_assert_uint_lt(size - n, 16);
        before = c;
    }
    ck_assert_uint_eq(before, BHI_CLASSES - 1);
    ck_assert_uint_eq(bhi_class_size(BHI_CLASSES - 1), BH_CLASS_MAX_SIZE);
}
END_TEST

START_TEST(alignment_of_the_classes)
{
    ck_assert_uint_eq(bhi_class_size(0), 8);
    for (unsigned c = 1; c < BHI_CLASSES; c++) {
        ck_assert_uint_eq(bhi_class_size(c) % 16, 0);
        ck_assert_uint_gt(bhi_class_size(c), bhi_class_size(c - 1));
    }
}
END_TEST

START_TEST(blocks_fit_before_the_guard)
{
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t room = bhi_class_span_slots(c) * BH_SLOT_SIZE - BH_OS_PAGE_SIZE;
        ck_assert_uint_ge(bhi_class_blocks(c), 1);
        ck_assert_uint_le(bhi_class_blocks(c) - 1, (bhi_index_t)-1);
        ck_assert(bhi_class_blocks(c) * bhi_class_size(c) <= room);
        ck_assert((bhi_class_blocks(c) + 1) * bhi_class_size(c) > room);
    }
}
END_TEST

/* For every offset inside a span, and for larger and negative ones, with which a
 * wild pointer may come. */
START_TEST(reciprocal_is_exact)
{
    uint64_t seed = unit_seed("reciprocal");
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        uint64_t r = bhi_class_reciprocal(size);
        size_t span = bhi_class_span_slots(c) * BH_SLOT_SIZE, index = 0, next = size;
        uint64_t rest;
        for (size_t offset = 0; offset < span; offset++) {
            if (offset == next) {
                index++;
                next += size;
            }
            ck_assert_msg(bhi_mul_wide(offset, r, &rest) == index, "size %zu, offset %zu", size, offset);
            ck_assert_msg((rest < r) == (index * size == offset), "size %zu, offset %zu is no multiple", size, offset);
        }
        for (int i = 0; i < 100000; i++) {
            uint64_t offset = (unit_random(&seed) >> unit_below(&seed, 64)) / (i % 2 != 0 ? 1 : size) * (i % 2 != 0 ? 1 : size);
            offset = i % 3 == 0 ? 0 - offset : offset;
            uint64_t quotient = bhi_mul_wide(offset, r, &rest);
            if (rest < r && quotient < bhi_class_blocks(c))
                ck_assert_msg(quotient * size == offset, "size %zu, offset %llx", size, (unsigned long long)offset);
        }
    }
}
END_TEST

START_TEST(aligned_classes)
{
    for (size_t align = 1; align <= BH_SLOT_SIZE; align *= 2) {
        for (size_t n = 0; n <= BH_CLASS_MAX_SIZE + 3; n += n < 5000 ? 1 : 37) {
            unsigned c = bhi_class_of_aligned(n, align);
            unsigned expected = 0;
            while (expected < BHI_CLASSES && (bhi_class_size(expected) < n || bhi_class_size(expected) % align != 0))
                expected++;
            if (n > BH_CLASS_MAX_SIZE)
                expected = BHI_CLASSES;
            ck_assert_msg(c == expected, "%zu aligned to %zu: class %u, not %u", n, align, c, expected);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("size_class");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, every_size);
    tcase_add_test(c, alignment_of_the_classes);
    tcase_add_test(c, blocks_fit_before_the_guard);
    tcase_add_test(c, reciprocal_is_exact);
    tcase_add_test(c, aligned_classes);
    suite_add_tcase(s, c);
    return unit_main(s);
}
