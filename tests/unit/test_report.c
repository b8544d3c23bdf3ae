/* rt/report.c: the longest reports fit whole, text from outside cannot break out,
 * and what is not known is left out. */
#include "rt/report.h"
#include "support.h"

#include <string.h>

static bhi_report_text_t out;

static bhi_report_t longest(char name)
{
    void *far = (void *)UINTPTR_MAX;
    bhi_report_t r = {
        .struct_size = sizeof r, .id = "realloc-after-free", .text = "sized free with a size or alignment that the block cannot have",
        .address = far, .thread = INT32_MAX, .place = "mapping", .damage = "number of blocks", .block = far,
        .block_size = INT64_MAX, .usable_size = INT64_MAX, .requested_size = INT64_MAX, .offset = INT64_MIN,
        .state = "freed twice at once", .left = "freed twice at once", .right = "freed twice at once", .page = far,
        .page_blocks = UINT32_MAX, .block_index = UINT32_MAX, .size_class = 88, .slot = 63, .heap = INT32_MAX,
        .heap_kind = "not known", .owner = "not in this process", .mapping_start = far, .mapping_end = far,
    };
    memset(r.mapping_access, 'r', sizeof r.mapping_access - 1);
    memset(r.mapping_name, name, sizeof r.mapping_name - 1);
    return r;
}

START_TEST(longest_text_is_whole)
{
    bhi_report_t r = longest('x');
    bhi_format_t first;
    out.length = 0;
    bhi_report_first_line(&r, &first);
    bhi_report_append(&out, &first);
    bhi_report_details(&r, &out);
    ck_assert_uint_lt(out.length, BHI_REPORT_MAX);
    out.text[out.length] = '\0';
    ck_assert_uint_eq(unit_lines(out.text, "bulkhead:   ") + 1, unit_lines(out.text, ""));
    ck_assert_uint_eq(unit_lines(out.text, "bulkhead:   thread 2147483647; the stack of this thread is the finder's"), 1);
    ck_assert_ptr_nonnull(strstr(out.text, "9223372036854775808 bytes before it"));
}
END_TEST

START_TEST(longest_json_is_whole)
{
    static const char names[] = {'"', '\\', '\n', '\x80'};
    for (size_t i = 0; i < sizeof names; i++) {
        bhi_report_t r = longest(names[i]);
        out.length = 0;
        bhi_report_json(&r, &out);
        ck_assert_uint_lt(out.length, BHI_REPORT_MAX);
        out.text[out.length] = '\0';
        ck_assert_str_eq(out.text + out.length - 3, "\"}\n");
        ck_assert_ptr_eq(strchr(out.text, '\n'), out.text + out.length - 1);
        ck_assert_ptr_nonnull(strstr(out.text, "\"offset\":-9223372036854775808,"));
        ck_assert_ptr_nonnull(strstr(out.text, i < 2 ? (i == 0 ? "\\\"\\\"" : "\\\\\\\\") : "???"));
    }
}
END_TEST

START_TEST(unknown_is_left_out)
{
    bhi_report_t r = {.struct_size = sizeof r, .id = "no-entropy", .text = "t", .size_class = -1, .slot = -1, .heap = -1};
    out.length = 0;
    bhi_report_json(&r, &out);
    out.text[out.length] = '\0';
    ck_assert_str_eq(out.text, "{\"bulkhead\":\"ERROR\",\"id\":\"no-entropy\",\"text\":\"t\",\"address\":\"0x0\",\"thread\":0,\"fatal\":false,"
                               "\"culprit\":false}\n");
    out.length = 0;
    r.block = r.page = &r;
    r.usable_size = r.block_size = 16;
    r.offset = 20;
    bhi_report_details(&r, &out);
    out.text[out.length] = '\0';
    ck_assert_ptr_nonnull(strstr(out.text, "requested not recorded; the address is 4 bytes after its end\n"));
    ck_assert_ptr_nonnull(strstr(out.text, "state: not known\n"));
    ck_assert_ptr_null(strstr(out.text, "heap:"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("report");
    TCase *c = tcase_create("all");
    tcase_add_test(c, longest_text_is_whole);
    tcase_add_test(c, longest_json_is_whole);
    tcase_add_test(c, unknown_is_left_out);
    suite_add_tcase(s, c);
    return unit_main(s);
}
