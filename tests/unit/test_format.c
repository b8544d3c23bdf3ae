/* rt/format.c: digits, and text that does not fit. */
#include "rt/format.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bhi_format_t f;

static void same(const char *expected)
{
    ck_assert_uint_eq(f.length, strlen(expected));
    ck_assert_mem_eq(f.text, expected, f.length);
}

START_TEST(numbers)
{
    uint64_t seed = unit_seed("format");
    for (int i = 0; i < 20000; i++) {
        uint64_t n = i < 300 ? (uint64_t)i : unit_random(&seed) >> unit_below(&seed, 64);
        char expected[64];
        bhi_format_start(&f);
        bhi_format_number(&f, n);
        bhi_format_text(&f, " ");
        bhi_format_hex(&f, (uintptr_t)n);
        snprintf(expected, sizeof expected, "%" PRIu64 " 0x%" PRIx64, n, n);
        same(expected);
    }
    bhi_format_start(&f);
    bhi_format_number(&f, UINT64_MAX);
    bhi_format_hex(&f, UINTPTR_MAX);
    same("184467440737095516150xffffffffffffffff");
}
END_TEST

START_TEST(bytes)
{
    bhi_format_start(&f);
    bhi_format_bytes(&f, "abcdef", 3);
    bhi_format_bytes(&f, "", 0);
    bhi_format_text(&f, "");
    bhi_format_text(&f, "x");
    same("abcx");
}
END_TEST

START_TEST(cut_text_keeps_its_newline)
{
    for (size_t fill = BH_FORMAT_MAX - 4; fill < BH_FORMAT_MAX + 40; fill++) {
        struct {
            bhi_format_t format;
            unsigned char after[16];
        } box;
        memset(box.after, 0xee, sizeof box.after);
        bhi_format_start(&box.format);
        for (size_t i = 0; i < fill; i++)
            bhi_format_text(&box.format, "z");
        bhi_format_hex(&box.format, 0x1234);
        bhi_format_number(&box.format, 987654321);
        bhi_format_text(&box.format, "\n");
        ck_assert_uint_eq(box.format.length, BH_FORMAT_MAX);
        ck_assert_int_eq(box.format.text[BH_FORMAT_MAX - 1], '\n');
        ck_assert_ptr_null(memchr(box.format.text, '\n', BH_FORMAT_MAX - 1));
        for (size_t i = 0; i < sizeof box.after; i++)
            ck_assert_uint_eq(box.after[i], 0xee);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("format");
    TCase *c = tcase_create("all");
    tcase_add_test(c, numbers);
    tcase_add_test(c, bytes);
    tcase_add_test(c, cut_text_keeps_its_newline);
    suite_add_tcase(s, c);
    return unit_main(s);
}
