/* mallinfo, mallinfo2, malloc_info, malloc_stats, malloc_trim: figures that fit
 * what the test has allocated. With the argument "xml": allocates a known
 * amount and writes malloc_info to standard output, for malloc_info.sh; with
 * "json" the same for stats_json.sh. */
#define _GNU_SOURCE
#include <bulkhead.h>
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SMALL_BLOCKS = 20000,
    SMALL_SIZE = 1000,
    LARGE_BLOCKS = 10,
    LARGE_SIZE = 1 << 20,
};

static void *small[SMALL_BLOCKS], *large[LARGE_BLOCKS];

static void *filled(size_t size)
{
    void *p = malloc(size);
    if (p != NULL)
        memset(p, 0x77, size);
    return p;
}

static void allocate_small(void)
{
    for (int i = 0; i < SMALL_BLOCKS; i++)
        small[i] = filled(SMALL_SIZE);
}

static void free_small(void)
{
    for (int i = 0; i < SMALL_BLOCKS; i++)
        free(small[i]);
}

static void allocate_large(void)
{
    for (int i = 0; i < LARGE_BLOCKS; i++)
        large[i] = filled(LARGE_SIZE);
}

static void free_large(void)
{
    for (int i = 0; i < LARGE_BLOCKS; i++)
        free(large[i]);
}

/* Grown by what was allocated: at least that, at most an eighth and some
 * allocations of the test library more. */
static void expect_growth(const char *what, size_t before, size_t after, size_t allocated)
{
    size_t most = allocated + allocated / 8 + 100000;
    ck_assert_msg(after >= before + allocated && after <= before + most, "%s: %zu, then %zu with %zu more allocated",
                  what, before, after, allocated);
}

static size_t resident_bytes(void)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    unsigned long total = 0, resident = 0;
    ck_assert_ptr_nonnull(statm);
    ck_assert_int_eq(fscanf(statm, "%lu %lu", &total, &resident), 2);
    fclose(statm);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#ifdef __GLIBC__

START_TEST(small_blocks_are_in_uordblks)
{
    struct mallinfo2 before = mallinfo2();
    allocate_small();
    struct mallinfo2 during = mallinfo2();
    free_small();
    struct mallinfo2 after = mallinfo2();
    size_t allocated = (size_t)SMALL_BLOCKS * SMALL_SIZE;
    expect_growth("uordblks", before.uordblks, during.uordblks, allocated);
    ck_assert_uint_eq(during.hblks, before.hblks);
    ck_assert_uint_ge(during.arena, during.uordblks);
    ck_assert_uint_eq(during.fordblks, during.arena - during.uordblks);
    ck_assert_uint_le(after.uordblks, before.uordblks + 100000);
}
END_TEST

START_TEST(large_blocks_are_in_hblkhd)
{
    struct mallinfo2 before = mallinfo2();
    allocate_large();
    struct mallinfo2 during = mallinfo2();
    free_large();
    struct mallinfo2 after = mallinfo2();
    ck_assert_uint_eq(during.hblks, before.hblks + LARGE_BLOCKS);
    expect_growth("hblkhd", before.hblkhd, during.hblkhd, (size_t)LARGE_BLOCKS * LARGE_SIZE);
    ck_assert_uint_eq(after.hblks, before.hblks);
    ck_assert_uint_eq(after.hblkhd, before.hblkhd);
}
END_TEST

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* mallinfo itself */

static int clamped(size_t n)
{
    return n > INT_MAX ? INT_MAX : (int)n;
}

START_TEST(mallinfo_is_mallinfo2_in_ints)
{
    allocate_large();
    void *huge = malloc((size_t)3 << 30); /* not touched */
    struct mallinfo2 wide = mallinfo2();
    struct mallinfo narrow = mallinfo();
    ck_assert_int_eq(narrow.arena, clamped(wide.arena));
    ck_assert_int_eq(narrow.hblks, clamped(wide.hblks));
    ck_assert_int_eq(narrow.hblkhd, clamped(wide.hblkhd));
    ck_assert_int_eq(narrow.uordblks, clamped(wide.uordblks));
    ck_assert_int_eq(narrow.fordblks, clamped(wide.fordblks));
    ck_assert_int_eq(narrow.keepcost, clamped(wide.keepcost));
    if (huge != NULL) /* NULL under strict overcommit */
        ck_assert_int_eq(narrow.hblkhd, INT_MAX);
    free(huge);
    free_large();
}
END_TEST

#endif

START_TEST(malloc_info_takes_no_options)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    ck_assert_int_eq(malloc_info(1, stream), EINVAL);
    fflush(stream);
    ck_assert_uint_eq(length, 0);
    ck_assert_int_eq(malloc_info(0, stream), 0);
    fclose(stream);
    ck_assert_ptr_nonnull(strstr(text, "<malloc version=\"bulkhead-1\">"));
    free(text);
}
END_TEST

START_TEST(malloc_info_reports_a_failing_stream)
{
    FILE *full = fopen("/dev/full", "w");
    ck_assert_ptr_nonnull(full);
    setvbuf(full, NULL, _IONBF, 0);
    ck_assert_int_ne(malloc_info(0, full), 0);
    fclose(full);
}
END_TEST

START_TEST(malloc_stats_writes_to_standard_error)
{
    int fds[2], saved = dup(2);
    ck_assert_int_eq(pipe(fds), 0);
    dup2(fds[1], 2);
    malloc_stats();
    dup2(saved, 2);
    close(fds[1]);
    char text[4096];
    ssize_t n, length = 0;
    while ((n = read(fds[0], text + length, sizeof text - 1 - (size_t)length)) > 0)
        length += n;
    close(fds[0]);
    ck_assert_int_gt(length, 0);
    text[length] = '\0';
    ck_assert_ptr_nonnull(strstr(text, "used bytes = "));
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
        ck_assert_int_eq(strncmp(line, "bulkhead: ", 10), 0);
}
END_TEST

START_TEST(malloc_trim_gives_memory_back)
{
    malloc_trim(0);
    size_t before = resident_bytes();
    allocate_small();
    ck_assert_uint_ge(resident_bytes(), before + (size_t)SMALL_BLOCKS * SMALL_SIZE / 2);
    free_small();
    int first = malloc_trim(0), second = malloc_trim(0), third = malloc_trim(1 << 30);
    ck_assert_int_eq(first, 1);
    ck_assert_int_eq(second, 0);
    ck_assert_int_eq(third, 0);
    ck_assert_uint_le(resident_bytes(), before + 2000000);
}
END_TEST

static int write_xml(void)
{
    allocate_small();
    allocate_large();
    return malloc_info(0, stdout) == 0 && fflush(stdout) == 0 ? 0 : 1;
}

static int write_json(void)
{
    static char process[4096], of_heap[4096];
    allocate_small();
    allocate_large();
    bh_heap_t *heap = bh_heap_new();
    for (int i = 0; i < 1000; i++) {
        if (bh_heap_malloc(heap, 100) == NULL)
            return 1;
    }
    if (bh_stats_json(process, sizeof process) >= sizeof process ||
        bh_heap_stats_json(heap, of_heap, sizeof of_heap) >= sizeof of_heap)
        return 1;
    return printf("%s\n%s\n", process, of_heap) > 0 && fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "json") == 0)
        return write_json();
    if (argc == 2 && strcmp(argv[1], "xml") == 0)
        return write_xml();
    TCase *tests = tcase_create("info");
#ifdef __GLIBC__
    tcase_add_test(tests, small_blocks_are_in_uordblks);
    tcase_add_test(tests, large_blocks_are_in_hblkhd);
    tcase_add_test(tests, mallinfo_is_mallinfo2_in_ints);
#endif
    tcase_add_test(tests, malloc_info_takes_no_options);
    tcase_add_test(tests, malloc_info_reports_a_failing_stream);
    tcase_add_test(tests, malloc_stats_writes_to_standard_error);
    tcase_add_test(tests, malloc_trim_gives_memory_back);
    Suite *suite = suite_create("info");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
