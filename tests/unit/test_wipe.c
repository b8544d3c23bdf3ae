/* harden/wipe.c: all of a block becomes zero and nothing else, and every bit
 * that is not zero is seen. */
#include "harden/wipe.h"
#include "meta/size_class.h"
#include "rt/process.h"
#include "support.h"

enum { FRONT = 64, LARGEST = 128 * 1024 };

static unsigned char area[FRONT + LARGEST + FRONT] BH_ALIGNED(64);
static uint64_t seed;
static unsigned char *bytes;
static uintptr_t block;

static void start(void)
{
    seed = unit_seed("wipe");
    bytes = area + FRONT;
    block = (uintptr_t)bytes;
}

static void assert_wiped(size_t size)
{
    ck_assert(unit_is(bytes, size, 0));
    ck_assert(unit_is(bytes - FRONT, FRONT, 0x77));
    ck_assert(unit_is(bytes + size, FRONT, 0x77));
}

START_TEST(all_of_the_block_and_nothing_else)
{
    if (!BH_HARDEN_WIPE)
        return;
    start();
    for (size_t size = 8; size <= 200; size += 8) {
        for (size_t requested = 0; requested <= size; requested++) {
            memset(area, 0x77, FRONT + size + FRONT);
            bhi_wipe_block(block, requested, size);
            assert_wiped(size);
        }
    }
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        memset(area, 0x77, FRONT + size + FRONT);
        bhi_wipe(block, size);
        assert_wiped(size);
        memset(area, 0x77, FRONT + size + FRONT);
        bhi_wipe_block(block, size - 1 - unit_below(&seed, (uint32_t)(size - 1)), size);
        assert_wiped(size);
    }
    for (size_t size = 16; size <= 1024; size += 16) {
        memset(area, 0x77, FRONT + size + FRONT);
        bhi_wipe_own(block, size);
        assert_wiped(size);
    }
}
END_TEST

#if defined(__x86_64__)
BH_WIDE static void wipe_soon(size_t size)
{
    if (size <= 256)
        bhi_wipe_own_soon(block, size);
    else
        bhi_wipe_own_middle(block, size);
}

BH_WIDE static bool is_clean_soon(size_t size)
{
    return size <= 256 ? bhi_wipe_is_clean_soon(block, size) : bhi_wipe_is_clean_middle(block, size);
}

/* The same of what malloc and free do by themselves; and each byte is seen. */
START_TEST(all_of_the_block_by_the_short_ways)
{
    if (!BH_HARDEN_WIPE || !bhi_wipe_knows_avx2())
        return;
    start();
    for (size_t size = 16; size <= 1024; size += 16) {
        memset(area, 0x77, FRONT + size + FRONT);
        wipe_soon(size);
        assert_wiped(size);
        ck_assert(is_clean_soon(size));
        for (size_t at = 0; at < size; at++) {
            bytes[at] = 1;
            ck_assert_msg(!is_clean_soon(size), "byte %zu of %zu", at, size);
            bytes[at] = 0;
        }
    }
}
END_TEST
#endif

/* Found from any start: blocks of the smallest class are aligned to 8, all
 * others to 16. */
START_TEST(every_changed_bit_of_small_blocks)
{
    if (!BH_HARDEN_WIPE)
        return;
    start();
    memset(area, 0, sizeof area);
    ck_assert_uint_eq(bhi_wipe_check(block, 0), BH_WIPE_CLEAN);
    for (size_t from = 0; from <= 8; from += 8) {
        for (size_t size = 8; size <= 400; size += 8) {
            area[FRONT + from - 1] = area[FRONT + from + size] = 1; /* neighbours are not looked at */
            ck_assert_uint_eq(bhi_wipe_check(block + from, size), BH_WIPE_CLEAN);
            for (size_t at = 0; at < size; at++) {
                for (unsigned bit = 0; bit < 8; bit++) {
                    bytes[from + at] = (unsigned char)(1u << bit);
                    ck_assert_uint_eq(bhi_wipe_check(block + from, size), at);
                }
                bytes[from + at] = 0;
            }
            area[FRONT + from - 1] = area[FRONT + from + size] = 0;
        }
    }
}
END_TEST

/* Blocks of which one byte was written, or all, or any; with the vectors of this processor,
 * and without them. */
START_TEST(what_was_written_of_every_class)
{
    if (!BH_HARDEN_WIPE)
        return;
    start();
    bhi_process.has_avx2 = _i != 0 && bhi_wipe_knows_avx2();
    for (unsigned c = 1; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        memset(area, 0x77, FRONT + size + FRONT);
        bhi_wipe_own(block, size);
        assert_wiped(size);
        for (unsigned round = 0; round < 300; round++) {
            size_t at = round < 70 && round < size ? round : round < 140 && round - 70 < size ? size - 1 - (round - 70) : unit_below(&seed, (uint32_t)size);
            size_t n = round % 3 != 0 ? 1 : 1 + unit_below(&seed, (uint32_t)(size - at));
            memset(bytes + at, 1 << unit_below(&seed, 8), n);
            bhi_wipe_own(block, size);
            ck_assert(unit_is(bytes + at, n, 0));
        }
        assert_wiped(size);
    }
}
END_TEST

/* With the vectors of this processor, and without them. */
START_TEST(any_byte_of_every_class)
{
    if (!BH_HARDEN_WIPE)
        return;
    start();
    bhi_process.has_avx2 = _i != 0 && bhi_wipe_knows_avx2();
    memset(area, 0, sizeof area);
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        area[FRONT + size] = 1;
        ck_assert_uint_eq(bhi_wipe_check(block, size), BH_WIPE_CLEAN);
        for (unsigned round = 0; round < 300; round++) {
            /* Both ends of the block, then anywhere; a second byte behind it. */
            size_t at = round < 70 && round < size ? round : round < 140 && round - 70 < size ? size - 1 - (round - 70) : unit_below(&seed, (uint32_t)size);
            size_t behind = at + unit_below(&seed, (uint32_t)(size - at));
            bytes[at] = bytes[behind] = (unsigned char)(1u << unit_below(&seed, 8));
            ck_assert_uint_eq(bhi_wipe_check(block, size), at);
            bytes[at] = bytes[behind] = 0;
        }
        area[FRONT + size] = 0;
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("wipe");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, all_of_the_block_and_nothing_else);
#if defined(__x86_64__)
    tcase_add_test(c, all_of_the_block_by_the_short_ways);
#endif
    tcase_add_test(c, every_changed_bit_of_small_blocks);
    tcase_add_loop_test(c, what_was_written_of_every_class, 0, 2);
    tcase_add_loop_test(c, any_byte_of_every_class, 0, 2);
    suite_add_tcase(s, c);
    return unit_main(s);
}
