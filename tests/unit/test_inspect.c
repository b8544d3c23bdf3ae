/* api/inspect.c: questions about pointers that are no blocks, and options by
 * name. What holds for blocks is in test_visit.c. */
#include "bulkhead.h"
#include "core/thread.h"
#include "invariants.h"
#include "meta/arena.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void nowhere(const void *p)
{
    ck_assert_msg(!bh_check_owned(p) && !bh_heap_contains_block(NULL, p), "%p", p);
}

START_TEST(before_the_first_allocation)
{
    int local = 0;
    ck_assert(!bh_is_in_heap_region(&local));
    nowhere(&local);
}
END_TEST

START_TEST(any_address_has_an_answer)
{
    uint64_t seed = unit_seed("inspect");
    bh_heap_t *heap = bh_heap_new();
    static char *p[200];
    for (int i = 0; i < 200; i++)
        p[i] = bh_malloc(unit_below(&seed, i % 20 == 0 ? 9000000 : 50000));
    for (int i = 0; i < 200; i += 2)
        bh_free(p[i]);
    uintptr_t base = bhi_process.block_base;
    size_t open = atomic_load(bhi_process.block_open), hits = 0;
    for (int i = 0; i < 30000; i++) {
        const char *at = (const char *)(base + unit_random(&seed) % open); /* NOLINT */
        bool expected = false;
        for (int k = 1; k < 200; k += 2)
            expected = expected || (size_t)(at - p[k]) < bh_usable_size(p[k]);
        ck_assert(bh_is_in_heap_region(at));
        if (BH_HARDEN_MAP)
            ck_assert_msg(bh_check_owned(at) == expected && bh_heap_contains_block(NULL, at) == expected, "%p", (const void *)at);
        ck_assert(!bh_heap_contains_block(heap, at));
        hits += expected;
    }
    printf("%zu of the addresses were in live blocks\n", hits);
    int local = 0;
    static int global;
    nowhere(NULL);
    nowhere(&local);
    nowhere(&global);
    nowhere((const void *)(uintptr_t)&nowhere);
    nowhere((const void *)UINTPTR_MAX);
    nowhere((const void *)(base - 1)); /* NOLINT */
    nowhere((const void *)(base + bhi_process.block_size)); /* NOLINT */
    nowhere((const void *)(base + bhi_process.block_size - 1)); /* NOLINT */
    nowhere(bhi_state);
    ck_assert(!bh_is_in_heap_region(NULL) && !bh_is_in_heap_region(&local) && !bh_is_in_heap_region(bhi_state));
    bh_heap_delete(heap);
    ck_assert_invariants();
}
END_TEST

static pthread_barrier_t meet;

static void *has_a_block(void *out)
{
    char *p = bh_malloc(100);
    *(char **)out = p;
    pthread_barrier_wait(&meet);
    pthread_barrier_wait(&meet);
    ck_assert(bh_check_owned(p + 50));
    bh_free(p);
    return NULL;
}

START_TEST(another_threads_blocks_are_not_ours)
{
    char *p = NULL, *mine = bh_malloc(100);
    pthread_t thread;
    pthread_barrier_init(&meet, NULL, 2);
    pthread_create(&thread, NULL, has_a_block, &p);
    pthread_barrier_wait(&meet);
    ck_assert(bh_check_owned(mine) && !bh_check_owned(p) && bh_is_in_heap_region(p));
    pthread_barrier_wait(&meet);
    pthread_join(thread, NULL);
    bh_free(mine);
}
END_TEST

static bh_heap_t *some_heap;

static void *misuse_there(void *use)
{
    ((void (*)(void))use)();
    return NULL;
}
static void ask(void)
{
    bh_heap_contains_block(some_heap, NULL);
}
static bool never(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    (void)heap, (void)area, (void)block, (void)block_size, (void)arg;
    return false;
}
static void visit(void)
{
    bh_heap_visit_blocks(some_heap, true, never, NULL);
}
static void stats(void)
{
    bh_heap_stats_json(some_heap, NULL, 0);
}
static void allocate(void)
{
    void *p = bh_heap_aligned_alloc_at(some_heap, 64, 10, 8);
    bh_free(p);
}
static void misuse(void *use)
{
    unit_thread(misuse_there, use);
}

START_TEST(another_threads_heap_is_refused)
{
    some_heap = bh_heap_new();
    void (*const uses[])(void) = {ask, visit, stats, allocate};
    for (size_t i = 0; i < 4; i++)
        unit_assert_violation(misuse, (void *)uses[i], "heap-misuse");
    bh_heap_delete(some_heap); /* and a heap that has ended */
    for (size_t i = 0; i < 4; i++)
        unit_assert_violation((unit_body_t *)uses[i], NULL, "heap-misuse");
}
END_TEST

/* ------------------------------------------------------------------ options */

START_TEST(options_get)
{
    char text[16];
    ck_assert_int_eq(bh_option_get("profile", text, sizeof text), 6);
    ck_assert_str_eq(text, "secure");
    ck_assert_int_eq(bh_option_get("FOREIGN", text, sizeof text), 5);
    ck_assert_str_eq(text, "abort");
    ck_assert_int_eq(bh_option_get("verbose", text, sizeof text), 1);
    ck_assert_str_eq(text, "0");
    ck_assert_int_eq(bh_option_get("profile", text, 4), 6);
    ck_assert_str_eq(text, "sec");
    ck_assert_int_eq(bh_option_get("profile", NULL, 0), 6);
    ck_assert_int_eq(bh_option_get_long("verbose"), 0);
    static const char *const bad[] = {"", "purge", "purge_delayed", "profile=", "nonsense"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        ck_assert(bh_option_get(bad[i], text, sizeof text) == -1 && errno == EINVAL);
        errno = 0;
        ck_assert(bh_option_get_long(bad[i]) == -1 && errno == EINVAL);
        errno = 0;
        ck_assert(bh_option_set(bad[i], "1") == -1 && errno == EINVAL);
    }
    errno = 0;
    ck_assert(bh_option_get_long("guard") == -1 && errno == EINVAL); /* a word */
}
END_TEST

START_TEST(options_set)
{
    static const char *const fixed[][2] = {
        {"profile", "secure"}, {"guard", "auto"}, {"foreign", "ignore"}, {"verbose", "1"}, {"show_stats", "1"}};
    for (size_t i = 0; i < 5; i++) {
        errno = 0;
        ck_assert_msg(bh_option_set(fixed[i][0], fixed[i][1]) == -1 && errno == EPERM, "%s", fixed[i][0]);
    }
    static const char *const bad[] = {"", "-1", "x", "1 ", "4294967296"};
    for (size_t i = 0; i < 5; i++) {
        errno = 0;
        ck_assert(bh_option_set("purge_delay", bad[i]) == -1 && errno == EINVAL);
    }
    ck_assert_int_eq(bh_option_set("purge_delay", "4294967295"), 0);
    ck_assert_int_eq(bh_option_get_long("purge_delay"), 4294967295);
    ck_assert_int_eq(bh_option_set("Purge_Delay", "77"), 0);
    ck_assert_int_eq(bh_option_get_long("purge_delay"), 77);
}
END_TEST

/* What was to wait for ever goes once the delay is short. */
START_TEST(purge_delay_acts)
{
    ck_assert_int_eq(bh_option_set("purge_delay", "4294967295"), 0);
    static void *p[64];
    for (int i = 0; i < 64; i++)
        p[i] = memset(bh_malloc(300000), 1, 300000);
    for (int i = 0; i < 64; i++)
        bh_free(p[i]);
    ck_assert_uint_ge(atomic_load(&bhi_state->purge_next_at), 4000000000u);
    ck_assert_ptr_nonnull(bhi_state->purge_first);
    ck_assert_int_eq(bh_option_set("purge_delay", "5"), 0);
    ck_assert_uint_le(atomic_load(&bhi_state->purge_next_at), bhi_os_now_ms() + 6);
    for (const bhi_segment_t *s = bhi_state->purge_first; s != NULL; s = s->purge_next)
        ck_assert_uint_le(s->purge_at, bhi_os_now_ms() + 6);
    ck_assert_int_eq(bh_option_set("purge_delay", "0"), 0);
    for (int i = 0; i < 64; i++)
        bh_free(bh_malloc(500000));
    ck_assert(bhi_state->purge_first == NULL && atomic_load(&bhi_state->purge_next_at) == 0);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("inspect");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, before_the_first_allocation);
    tcase_add_test(c, any_address_has_an_answer);
    tcase_add_test(c, another_threads_blocks_are_not_ours);
    tcase_add_test(c, another_threads_heap_is_refused);
    tcase_add_test(c, options_get);
    tcase_add_test(c, options_set);
    tcase_add_test(c, purge_delay_acts);
    suite_add_tcase(s, c);
    return unit_main(s);
}
