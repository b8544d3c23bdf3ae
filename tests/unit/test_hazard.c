/* core/hazard.c: a page that another thread reads is not released, and the
 * words are reused. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hazard.h"
#include "core/page.h"
#include "invariants.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static bhi_page_t *page_of(const void *p)
{
    return bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
}

/* ----------------------------------------------- a thread that reads a page */

static bhi_page_t *read_page;
static bhi_page_t *gone_on;
static pthread_barrier_t barrier;

static void *reader(void *arg)
{
    bh_free(bh_malloc(1)); /* a thread with a heap gets a word of its own */
    bhi_hazard_t *hazard = bhi_hazard_set(read_page);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    bhi_hazard_clear(hazard);
    pthread_barrier_wait(&barrier);
    return arg;
}

static void with_reader(void (*during)(void *), void (*after)(void *), void *p)
{
    pthread_t t;
    read_page = page_of(p);
    pthread_barrier_init(&barrier, NULL, 2);
    ck_assert_int_eq(pthread_create(&t, NULL, reader, NULL), 0);
    pthread_barrier_wait(&barrier);
    during(p);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    after(p);
    pthread_join(t, NULL);
    pthread_barrier_destroy(&barrier);
}

static void free_it(void *p)
{
    ck_assert(bhi_hazard_on(read_page));
    ck_assert(!bhi_hazard_on(read_page + 1));
    bh_free(p);
    bh_collect(false);
    ck_assert_ptr_nonnull(atomic_load(&read_page->heap)); /* kept */
    ck_assert_invariants();
}

static void collects(void *p)
{
    (void)p;
    ck_assert(!bhi_hazard_on(read_page));
    bh_collect(false);
    ck_assert_ptr_null(atomic_load(&read_page->heap)); /* gone */
    ck_assert_invariants();
}

START_TEST(a_page_that_is_read_stays)
{
    with_reader(free_it, collects, bh_malloc(100));
    with_reader(free_it, collects, bh_malloc(20000));
}
END_TEST

/* A kept page serves its heap on: nothing is lost while it is read. */
static void free_and_take(void *p)
{
    bh_free(p);
    bh_collect(false);
    void *again = bh_malloc(100);
    ck_assert_ptr_eq(page_of(again), read_page);
    ck_assert_invariants();
    bh_free(again);
}

START_TEST(a_kept_page_is_used_on)
{
    with_reader(free_and_take, collects, bh_malloc(100));
}
END_TEST

static void free_large(void *p)
{
    bh_free(p);
    ck_assert_ptr_nonnull(atomic_load(&read_page->heap));
    unit_assert_violation(bh_free, p, "double-free");
}

static void nothing(void *p)
{
    unit_assert_violation(bh_free, p, "double-free");
}

START_TEST(a_large_block_of_a_kept_page_stays_freed)
{
    with_reader(free_large, nothing, bh_malloc(300000));
    with_reader(free_large, nothing, bh_malloc((size_t)6 << 20));
}
END_TEST

/* ------------------------------------------------------------------- words */

static void *remote_free(void *p)
{
    bh_free(bh_malloc(1));
    bh_free(p);
    ck_assert_ptr_nonnull(bhi_thread_hazard);
    return NULL;
}

START_TEST(ended_threads_give_their_words_back)
{
    for (int i = 0; i < 100; i++)
        unit_thread(remote_free, bh_malloc(50));
    ck_assert_uint_eq(atomic_load(&bhi_state->hazard_count), 1);
}
END_TEST

#define MANY 100
static void *many[MANY];

static void *frees_some(void *n)
{
    for (uintptr_t i = 0; i < (uintptr_t)n; i++)
        bh_free(many[i]);
    return bhi_thread_hazard;
}

/* One that frees a few blocks only might be past all its destructors. */
START_TEST(threads_that_never_allocate)
{
    for (int i = 0; i < MANY; i++)
        many[i] = bh_malloc(50);
    ck_assert_ptr_null(unit_thread(frees_some, (void *)(uintptr_t)10));
    ck_assert_uint_eq(atomic_load(&bhi_state->hazard_count), 0);
    for (int i = 0; i < 10; i++)
        many[i] = bh_malloc(50);
    ck_assert_ptr_nonnull(unit_thread(frees_some, (void *)(uintptr_t)MANY));
    ck_assert_uint_eq(atomic_load(&bhi_state->hazard_count), 1);
    bh_collect(false);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------- destructors that run after ours */

static pthread_key_t later_key;
static bhi_hazard_t *at_later[3];
static unsigned later_runs;

static void later(void *value)
{
    bh_free(many[later_runs]);
    at_later[later_runs++] = bhi_thread_hazard;
    if (later_runs < 3)
        pthread_setspecific(later_key, value);
}

static void *with_later(void *arg)
{
    pthread_setspecific(later_key, bh_malloc(1));
    bh_free(many[3]);
    ck_assert_ptr_nonnull(bhi_thread_hazard);
    return arg;
}

START_TEST(destructors_of_the_same_round_have_the_word)
{
    pthread_key_create(&later_key, later);
    for (int i = 0; i < 4; i++)
        many[i] = bh_malloc(50);
    unit_thread(with_later, NULL);
    ck_assert_ptr_nonnull(at_later[0]);
    ck_assert_ptr_null(at_later[1]); /* given back before the second round's */
    ck_assert_ptr_null(at_later[2]);
    ck_assert_ptr_eq(bhi_state->hazards_free, at_later[0]);
}
END_TEST

#define THREADS 64 /* more than a chunk of words */
static bhi_page_t *pages[THREADS];

static void *one_of_many(void *arg)
{
    bh_free(bh_malloc(1));
    bhi_hazard_t *hazard = bhi_hazard_set(*(bhi_page_t **)arg);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    bhi_hazard_clear(hazard);
    return NULL;
}

static void start_all(pthread_t *t, unsigned n)
{
    pthread_barrier_init(&barrier, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        pages[i] = page_of(bh_malloc(200000));
        ck_assert_int_eq(pthread_create(&t[i], NULL, one_of_many, &pages[i]), 0);
    }
    pthread_barrier_wait(&barrier);
}

static void end_all(pthread_t *t, unsigned n)
{
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    pthread_barrier_destroy(&barrier);
}

/* Only the forking thread's own page is still read. */
static void child_sees_none(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < THREADS; i++) {
        if (bhi_hazard_on(pages[i]))
            _exit(3);
    }
    uint32_t words = atomic_load(&bhi_state->hazard_count);
    unit_thread(remote_free, bh_malloc(50));
    if (atomic_load(&bhi_state->hazard_count) != words)
        _exit(4); /* those of the parent's threads are free */
}

START_TEST(every_thread_is_seen)
{
    pthread_t t[THREADS];
    for (int round = 0; round < 3; round++) {
        start_all(t, THREADS);
        ck_assert_uint_eq(atomic_load(&bhi_state->hazard_count), THREADS);
        for (unsigned i = 0; i < THREADS; i++)
            ck_assert(bhi_hazard_on(pages[i]));
        if (round == 1)
            unit_assert_quiet(child_sees_none, NULL);
        end_all(t, THREADS);
        for (unsigned i = 0; i < THREADS; i++)
            ck_assert(!bhi_hazard_on(pages[i]));
    }
}
END_TEST

/* ------------------------------------------------------------ the shared word */

static int no_memory(bhi_os_call_t call)
{
    return call == BHI_OS_MPROTECT || call == BHI_OS_MMAP ? ENOMEM : 0;
}

static void *free_without_a_word(void *p)
{
    bh_free(p);
    gone_on = p;
    return bhi_thread_hazard;
}

static void *set_shared(void *arg)
{
    bhi_hazard_t *hazard = bhi_hazard_set(read_page);
    ck_assert_ptr_eq(hazard, &bhi_state->hazard_shared);
    ck_assert(bhi_hazard_on(read_page));
    bhi_hazard_clear(hazard);
    ck_assert(!bhi_hazard_on(read_page));
    return arg;
}

START_TEST(threads_without_a_word_share_one)
{
    void *p[3];
    for (int i = 0; i < 3; i++)
        p[i] = bh_malloc(50);
    read_page = page_of(p[0]);
    bhi_state->pool.end = bhi_state->pool.at; /* nothing left, and no more to be had */
    bhi_os_fail_hook = no_memory;
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_null(unit_thread(free_without_a_word, p[i]));
        ck_assert_ptr_eq(gone_on, p[i]);
    }
    unit_thread(set_shared, NULL);
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(atomic_load(&bhi_state->hazard_count), 0);
    bh_collect(false);
    ck_assert_ptr_null(atomic_load(&read_page->heap)); /* all three arrived */
}
END_TEST

static _Atomic(bool) stop;

static void *share_on_and_on(void *arg)
{
    while (!atomic_load(&stop))
        bhi_hazard_clear(bhi_hazard_set(read_page));
    return arg;
}

static void child_can_share(void *arg)
{
    (void)arg;
    if (bhi_hazard_on(read_page))
        _exit(3);
    unit_thread(set_shared, NULL); /* would wait for ever on a lock of the parent's threads */
}

START_TEST(the_shared_word_is_free_in_a_forked_child)
{
    read_page = page_of(bh_malloc(50));
    bhi_state->pool.end = bhi_state->pool.at;
    bhi_os_fail_hook = no_memory;
    pthread_t t;
    ck_assert_int_eq(pthread_create(&t, NULL, share_on_and_on, NULL), 0);
    for (int i = 0; i < 200; i++)
        unit_assert_quiet(child_can_share, NULL);
    atomic_store(&stop, true);
    pthread_join(t, NULL);
    bhi_os_fail_hook = NULL;
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hazard");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, a_page_that_is_read_stays);
    tcase_add_test(c, a_kept_page_is_used_on);
    tcase_add_test(c, a_large_block_of_a_kept_page_stays_freed);
    tcase_add_test(c, ended_threads_give_their_words_back);
    tcase_add_test(c, threads_that_never_allocate);
    tcase_add_test(c, destructors_of_the_same_round_have_the_word);
    tcase_add_test(c, every_thread_is_seen);
    tcase_add_test(c, threads_without_a_word_share_one);
    tcase_add_test(c, the_shared_word_is_free_in_a_forked_child);
    suite_add_tcase(s, c);
    return unit_main(s);
}
