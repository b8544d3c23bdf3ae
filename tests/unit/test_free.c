/* core/free.c: the trust boundary. Every wrong pointer in every use has its
 * violation, decided without touching what it points to. */
#include "bulkhead.h"
#include "core/free.h"
#include "meta/size_class.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void call_free(void *p)
{
    bh_free(p);
}
static void call_realloc(void *p)
{
    if (bh_realloc(p, 10) == NULL)
        return;
}
static void call_usable(void *p)
{
    if (bh_usable_size(p) == 0)
        return;
}

static const struct {
    unit_body_t *call;
    const char *foreign, *invalid, *freed;
} uses[] = {
    {call_free, "foreign-free", "invalid-free", "double-free"},
    {call_realloc, "foreign-realloc", "invalid-realloc", "realloc-after-free"},
    {call_usable, "foreign-query", "invalid-query", "query-after-free"},
};

static void *in_thread(void *p)
{
    call_free(p);
    return NULL;
}
static void call_free_elsewhere(void *p)
{
    unit_thread(in_thread, p);
}

START_TEST(foreign_pointers)
{
    int local = 0;
    static int global;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bh_free(bh_malloc(1));
    uintptr_t base = bhi_process.block_base, size = bhi_process.block_size;
    void *const wrong[] = {&local, &global, mapped, (void *)(uintptr_t)call_free, (void *)1, (void *)4096, (void *)UINTPTR_MAX,
                           (void *)(base - 1), (void *)(base + size), (void *)(uintptr_t)bhi_state, (void *)bhi_process.descs};
    for (size_t u = 0; u < 3; u++) {
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
            unit_assert_violation(uses[u].call, wrong[i], uses[u].foreign);
    }
    unit_assert_violation(call_free_elsewhere, &global, "foreign-free");
}
END_TEST

START_TEST(not_the_start_of_a_block)
{
    static const size_t sizes[] = {8, 16, 48, 100, 1024, 5000, 20000, 100000, 200000, 5000000};
    bh_free(bh_malloc(1));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *p = bh_malloc(sizes[i]);
        for (size_t u = 0; u < 3; u++) {
            unit_assert_violation(uses[u].call, p + 1, uses[u].invalid);
            unit_assert_violation(uses[u].call, p + sizes[i] / 2 + (sizes[i] <= 8 ? 1 : 0), uses[u].invalid);
            unit_assert_violation(uses[u].call, p + sizes[i] - 1, uses[u].invalid);
        }
        unit_assert_violation(call_free_elsewhere, p + 8 - (sizes[i] <= 8), "invalid-free");
        bh_free(p);
    }
    /* Never handed out: a fresh block, the guard, a slot and a segment nobody used. */
    char *p = bh_malloc(4000);
    bhi_page_t *page = bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
    char *fresh = (char *)bhi_page_block(page, bhi_page_capacity(page));
    char *guard = (char *)(page->start + BH_SLOT_SIZE - BH_OS_PAGE_SIZE);
    void *unused = (void *)(bhi_process.block_base + bhi_process.block_size - BH_SEGMENT_SIZE);
    for (size_t u = 0; u < 3; u++) {
        unit_assert_violation(uses[u].call, fresh, uses[u].invalid);
        unit_assert_violation(uses[u].call, guard, uses[u].invalid);
        unit_assert_violation(uses[u].call, guard + 1, uses[u].invalid);
        unit_assert_violation(uses[u].call, unused, uses[u].invalid);
    }
    bh_free(p);
}
END_TEST

START_TEST(freed_blocks)
{
    static const size_t sizes[] = {0, 8, 16, 100, 1024, 5000, 100000, 200000, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *p = bh_malloc(sizes[i]), *other = bh_malloc(sizes[i]);
        bh_free(p);
        for (size_t u = 0; u < 3; u++)
            unit_assert_violation(uses[u].call, p, uses[u].freed);
        unit_assert_violation(call_free_elsewhere, p, "double-free");
        bh_collect(true); /* also when its page is gone */
        for (size_t u = 0; u < 3; u++)
            unit_assert_violation(uses[u].call, p, uses[u].freed);
        unit_thread(in_thread, other); /* freed elsewhere, held */
        for (size_t u = 0; u < 3; u++)
            unit_assert_violation(uses[u].call, other, uses[u].freed);
        unit_assert_violation(call_free_elsewhere, other, "double-free");
        bh_collect(true);
        for (size_t u = 0; u < 3; u++)
            unit_assert_violation(uses[u].call, other, uses[u].freed);
    }
}
END_TEST

/* Nothing is written before the verdict. */
START_TEST(a_wrong_free_touches_nothing)
{
    unsigned char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unit_assert_violation(call_free, page, "foreign-free"); /* not a SIGSEGV */
    void *large = bh_malloc((size_t)1 << 20);
    unit_assert_violation(call_free, (char *)large + ((size_t)1 << 20), "invalid-free"); /* its guard */
    bh_free(large);
}
END_TEST

/* Any integer at all: the right violation or none, never a fault. */
static void wild(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    uintptr_t base = bhi_process.block_base;
    for (int i = 0; i < 200; i++)
        (void)!bh_malloc(unit_below(&seed, 3000));
    for (int i = 0; i < 200000; i++) {
        uintptr_t p = unit_below(&seed, 2) != 0 ? unit_random(&seed) : base + unit_random(&seed) % (16 * BH_SEGMENT_SIZE);
        bhi_arena_t *arena = bhi_arena_of(p);
        if (arena == NULL || p - arena->base >= atomic_load(&arena->blocks_open))
            continue;
        bhi_page_t *page = bhi_desc_first(bhi_desc_at(arena->descs, p - arena->base));
        uint32_t index;
        bool is_block = bhi_page_index(page, p, &index);
        if (is_block && (index >= bhi_page_capacity(page) || page->start + (uintptr_t)index * page->block_size != p))
            _exit(3);
    }
}

START_TEST(wild_lookups)
{
    bh_free(bh_malloc(1));
    uint64_t seed = unit_seed("wild");
    unit_assert_quiet(wild, &seed);
}
END_TEST

static unit_child_t child;

static void foreign_goes_on(void *arg)
{
    (void)arg;
    int local = 0;
    errno = 77;
    bh_free(&local);
    if (errno != 77 || bh_usable_size(&local) != 0)
        _exit(3);
    if (bh_realloc(&local, 5) != NULL || errno != ENOMEM)
        _exit(4);
    bh_free_sized(&local, 4);
    void *p = bh_malloc(5);
    bh_free(p);
    bh_free(p); /* our own blocks are judged as ever */
}

START_TEST(foreign_by_policy)
{
    unit_exec("foreign", (const char *[]){"BULKHEAD_FOREIGN=report", NULL}, &child);
    ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT, "%#x", (unsigned)child.status);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: foreign-"), 4);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: double-free: "), 1);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: "), 5);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead:   mapping: "), 4);
    unit_exec("foreign", (const char *[]){"BULKHEAD_OPTIONS=foreign=ignore", NULL}, &child);
    ck_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: double-free: "), 1);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: "), 1);
}
END_TEST

/* Places of a page where no block was ever handed out, up to the end of the slot, are
 * looked up before anybody asks how many blocks there are: among many pages, whose
 * control data lie next to each other. */
START_TEST(places_without_a_block)
{
    static bhi_page_t *pages[1024];
    unsigned n = 0;
    for (size_t size = 8; size <= BH_SMALL_MAX; size += 8) {
        for (size_t bytes = 0; bytes < 3 * BH_SLOT_SIZE; bytes += size) {
            uintptr_t p = (uintptr_t)bh_malloc(size);
            bhi_page_t *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, p - bhi_process.block_base));
            if (n == 0 || (pages[n - 1] != page && n < 1024))
                pages[n++] = page;
        }
    }
    ck_assert_uint_gt(n, 100);
    for (unsigned i = 0; i < n; i++) {
        size_t size = pages[i]->block_size, place = bhi_page_capacity(pages[i]) * size;
        for (; place < BH_SLOT_SIZE; place += size)
            ck_assert_msg(!bhi_free_local((void *)(pages[i]->start + place)), "%zu bytes, place %zu", size, place);
    }
}
END_TEST

START_TEST(null_and_errno)
{
    errno = 77;
    bh_free(NULL);
    void *p[3] = {bh_malloc(10), bh_malloc(300000), bh_malloc(10)};
    bh_free(p[0]);
    bh_free(p[1]);
    unit_thread(in_thread, p[2]);
    ck_assert_int_eq(errno, 77);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "foreign") == 0) {
        foreign_goes_on(NULL);
        return 0;
    }
    Suite *s = suite_create("free");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, foreign_pointers);
    if (BH_HARDEN_MAP) {
        tcase_add_test(c, not_the_start_of_a_block);
        tcase_add_test(c, freed_blocks);
        tcase_add_test(c, foreign_by_policy);
    }
    tcase_add_test(c, a_wrong_free_touches_nothing);
    tcase_add_test(c, wild_lookups);
    if (BH_HARDEN_MAP)
        tcase_add_test(c, places_without_a_block);
    tcase_add_test(c, null_and_errno);
    suite_add_tcase(s, c);
    return unit_main(s);
}
