/* api/statistics.c: structures of other lengths, buffers of any length, and the
 * report at the end of the process. That the figures are right is for
 * test_stats.c and test_visit.c; that the JSON is JSON, for tests/api. */
#include "bulkhead.h"
#include "core/thread.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(structures_of_any_version)
{
    struct {
        bh_stats_t s;
        unsigned char more[64];
    } out;
    for (size_t size = 0; size <= sizeof out; size++) {
        memset(&out, 0xa5, sizeof out);
        out.s.struct_size = size;
        errno = 0;
        bool ok = bh_stats_get(&out.s);
        /* The first version ended before this field. */
        ck_assert(ok == (size >= offsetof(bh_stats_t, quarantined_bytes)) && (ok || errno == EINVAL));
        ck_assert_uint_eq(out.s.struct_size, size);
        ck_assert(!ok || (out.s.version == BH_STATS_VERSION && out.s.reserved_bytes == bhi_process.block_size));
        size_t over = size > sizeof(bh_stats_t) ? size - sizeof(bh_stats_t) : 0;
        ck_assert(unit_is(out.more, over, 0) && unit_is(out.more + over, sizeof out.more - over, 0xa5));
    }
    bh_heap_stats_t h = {.struct_size = sizeof h - 1};
    ck_assert(!bh_heap_stats_get(NULL, &h) && errno == EINVAL);
}
END_TEST

START_TEST(buffers_of_any_length)
{
    bh_free(bh_malloc(100));
    static char whole[4096], part[4096];
    size_t length = bh_stats_json(whole, sizeof whole);
    ck_assert_uint_eq(length, strlen(whole));
    ck_assert(whole[0] == '{' && whole[length - 1] == '}');
    ck_assert_uint_eq(bh_stats_json(NULL, 0), length);
    for (size_t size = 1; size < length + 10; size++) {
        memset(part, 0x5a, sizeof part);
        ck_assert_uint_eq(bh_stats_json(part, size), length);
        size_t n = size <= length ? size - 1 : length;
        ck_assert(memcmp(part, whole, n) == 0 && part[n] == '\0');
        ck_assert(unit_is(part + n + 1, sizeof part - n - 1, 0x5a));
    }
    bh_heap_t *heap = bh_heap_new();
    ck_assert_ptr_nonnull(bh_heap_malloc(heap, 1000));
    length = bh_heap_stats_json(heap, whole, sizeof whole);
    ck_assert_uint_eq(length, strlen(whole));
    ck_assert_ptr_nonnull(strstr(whole, "\"used_count\": 1,"));
    ck_assert_ptr_nonnull(strstr(whole, "\"used_bytes\": 1024,"));
    bh_heap_destroy(heap);
}
END_TEST

typedef struct lines {
    size_t count;
    char last[256];
} lines_t;

static void keep(const char *line, void *arg)
{
    lines_t *l = arg;
    l->count++;
    ck_assert(strncmp(line, "bulkhead: ", 10) == 0 && strchr(line, '\n') == line + strlen(line) - 1);
    snprintf(l->last, sizeof l->last, "%s", line);
}

static void print_all(void *arg)
{
    (void)arg;
    bh_stats_print(NULL, NULL);
    bh_heap_stats_print(NULL, NULL, NULL);
}

START_TEST(text)
{
    lines_t l = {0};
    bh_free(bh_malloc(100));
    bh_stats_print(keep, &l);
    ck_assert_uint_eq(l.count, sizeof(bh_stats_t) / sizeof(size_t) - 2);
    ck_assert_str_eq(l.last, "bulkhead: stats: guarded_refused = 0\n");
    size_t before = l.count;
    bh_heap_stats_print(NULL, keep, &l);
    ck_assert_uint_eq(l.count - before, sizeof(bh_heap_stats_t) / sizeof(size_t) - 2);
    static unit_child_t child;
    unit_fork(print_all, NULL, &child);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: stats: "), before);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: heap stats: "), l.count - before);
}
END_TEST

/* --------------------------------------------------- at the end of a process */

static void *left;

static void last(void)
{
    bh_free(left);
}

/* What the child does after the suite's own main handed over to it. */
static int end(bool allocate)
{
    if (allocate) {
        atexit(last);
        left = bh_malloc((size_t)1 << 20);
        if (left == NULL)
            return 1;
    }
    return 0;
}

START_TEST(shown_at_exit_if_wanted)
{
    static unit_child_t child;
    static const char *const on[] = {"BULKHEAD_SHOW_STATS=1", NULL}, *const off[] = {"BULKHEAD_SHOW_STATS=0", NULL};
    unit_exec("end", on, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: stats: "), sizeof(bh_stats_t) / sizeof(size_t) - 2);
    ck_assert_ptr_nonnull(strstr(child.err, "bulkhead: stats: large_count = 0\n")); /* after atexit's */
    unit_exec("end", off, &child);
    ck_assert(WIFEXITED(child.status) && child.length == 0);
    unit_exec("idle", on, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0);
}
END_TEST

static void *sleeper(void *arg)
{
    (void)arg;
    bh_free(bh_malloc(10));
    return NULL;
}

START_TEST(heaps_and_threads)
{
    bh_stats_t a = {.struct_size = sizeof a}, b = a;
    bh_free(bh_malloc(10));
    ck_assert(bh_stats_get(&a));
    ck_assert(a.thread_count == 1 && a.heap_count == 0 && a.orphan_count == 0);
    bh_heap_t *heap = bh_heap_new();
    void *huge = bh_malloc(5 * BH_SEGMENT_SIZE), *large = bh_malloc((size_t)1 << 20);
    unit_thread(sleeper, NULL);
    ck_assert(bh_stats_get(&b));
    ck_assert(b.thread_count == 1 && b.heap_count == 1 && b.orphan_count <= 1);
    ck_assert(b.huge_count == 1 && b.huge_bytes == 5 * BH_SEGMENT_SIZE && b.large_count == 2);
    ck_assert_uint_eq(b.used_bytes - a.used_bytes, 5 * BH_SEGMENT_SIZE + bh_usable_size(large));
    bh_free(huge);
    bh_free(large);
    bh_heap_delete(heap);
    ck_assert(bh_stats_get(&b));
    ck_assert(b.huge_count == 0 && b.large_count == 0 && b.heap_count == 0 && b.used_bytes == a.used_bytes);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1)
        return end(strcmp(argv[1], "end") == 0);
    Suite *s = suite_create("statistics");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, structures_of_any_version);
    tcase_add_test(c, buffers_of_any_length);
    tcase_add_test(c, text);
    tcase_add_test(c, shown_at_exit_if_wanted);
    tcase_add_test(c, heaps_and_threads);
    suite_add_tcase(s, c);
    return unit_main(s);
}
