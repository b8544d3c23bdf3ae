/* core/hardened.c with several threads: their ends, forks, and correct programs that
 * nobody may accuse. The program runs in profile hardened. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/thread.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Atomic(int) *marked; /* shared with children */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static unsigned char *kept;

static void *fill_quarantine(void *arg)
{
    volatile unsigned char *last = NULL;
    for (int i = 0; i < 3000; i++) {
        void *p = bh_malloc((size_t)(1 + i % 1500));
        memset(p, 1, bh_usable_size(p));
        bh_free(p);
        last = p;
    }
    kept = bh_malloc(77); /* the heap is an orphan, then */
    if (arg != NULL) {
        *last = 1;
        *marked = 1;
    }
    return NULL;
}

static void written_in_thread(void *arg)
{
    unit_thread(fill_quarantine, arg);
}

START_TEST(threads_end_with_a_full_quarantine)
{
    for (int i = 0; i < 5; i++) {
        unit_thread(fill_quarantine, NULL);
        ck_assert_invariants();
        ck_assert_uint_eq(bh_verify(), 0);
        bh_free(kept);
    }
    *marked = 0;
    unit_assert_violation(written_in_thread, &kept, "write-after-free");
    ck_assert_int_eq(*marked, 1);
}
END_TEST

/* Whoever allocates next, a block that was just freed does not come back soon: not to the
 * thread that adopts its page, to the one that takes over the heap, nor in a forked child. */
enum { FREED = 300, SOON = 20 };
static void *freed[FREED];
static size_t freed_size;
static unsigned came_back; /* within so many allocations, 0: none */

static void *allocate_some(void *arg)
{
    for (int i = 0; i < FREED; i++)
        freed[i] = bh_malloc(freed_size);
    return arg;
}

static void *free_some(void *arg)
{
    for (int i = 0; i < FREED - 1; i++) /* one stays, so that there is something to take over */
        bh_free(freed[i]);
    return arg;
}

static void *look_for_them(void *arg)
{
    came_back = 0;
    for (unsigned n = 1; n <= SOON && came_back == 0; n++) {
        void *p = bh_malloc(freed_size);
        for (int i = 0; i < FREED - 1; i++)
            came_back = p == freed[i] ? n : came_back;
    }
    return arg;
}

static void *allocate_and_free(void *arg)
{
    allocate_some(NULL);
    return free_some(arg);
}

/* Right before a list is made, so that another is under way when the process forks. */
static void free_before_list(void)
{
    const bhi_page_t *page;
    allocate_some(NULL);
    do {
        page = bhi_block_of((uintptr_t)bh_malloc(freed_size), BHI_USE_QUERY).page;
    } while (page->listed > 1);
    free_some(NULL);
    for (int i = 0; i < 3; i++)
        (void)!bh_malloc(freed_size);
}

/* So that marks of this heap are others than those of a new one. */
static void *pass_ages(void *arg)
{
    for (int i = 0; i < 500; i++)
        bh_free(bh_malloc(freed_size));
    return arg;
}

static void *pass_ages_and_allocate(void *arg)
{
    pass_ages(arg);
    return allocate_some(arg);
}

/* A thread that has a heap, but no page of the class. */
static void *adopts(void *arg)
{
    bh_free(bh_malloc(3000));
    unit_thread(pass_ages_and_allocate, arg);
    free_some(arg);
    return look_for_them(arg);
}

static void look_in_child(void *arg)
{
    look_for_them(arg);
    _exit((int)came_back);
}

START_TEST(what_was_freed_waits_for_whoever_comes_next)
{
    static unit_child_t child;
    freed_size = (size_t[]){8, 56, 232}[_i / 6];
    for (int round = 0; round < 10; round++) {
        pass_ages(NULL);
        switch (_i % 6) {
        case 0: unit_thread(adopts, NULL); break;
        case 1: unit_thread(allocate_some, NULL), free_some(NULL), unit_thread(look_for_them, NULL); break; /* takes over */
        case 2: unit_thread(allocate_and_free, NULL), look_for_them(NULL); break;
        case 3: unit_thread(allocate_and_free, NULL), unit_thread(look_for_them, NULL); break;
        case 4: allocate_and_free(NULL), look_for_them(NULL); break;
        default:
            free_before_list();
            unit_fork(look_in_child, NULL, &child);
            came_back = (unsigned)WEXITSTATUS(child.status);
        }
        ck_assert_msg(came_back == 0, "%zu bytes: back within %u", freed_size, came_back);
        bh_free(freed[FREED - 1]);
    }
    ck_assert_invariants();
}
END_TEST

/* But it is not lost: pages of an ended thread are adopted, some at a time, before each new
 * one, and used when that one has been. */
#define LEFT 4000u
static void *left[LEFT];

static void *leave_half(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < LEFT; i++)
        left[i] = bh_malloc(200);
    for (unsigned i = 0; i < LEFT; i += 2) {
        bh_free(left[i]);
        left[i] = NULL;
    }
    return NULL;
}

START_TEST(what_a_thread_leaves_is_used)
{
    static void *mine[LEFT / 2];
    bh_free(bh_malloc(200));
    unit_thread(leave_half, NULL);
    for (unsigned i = 1; i < LEFT; i += 4) {
        bh_free(left[i]);
        left[i] = NULL;
    }
    unsigned adopted = 0;
    for (unsigned i = 0; i < LEFT / 2; i++) {
        mine[i] = bh_malloc(200);
        const bhi_page_t *page = bhi_block_of((uintptr_t)mine[i], BHI_USE_QUERY).page;
        for (unsigned k = 3; k < LEFT; k += 4 * 16) {
            if (bhi_block_of((uintptr_t)left[k], BHI_USE_QUERY).page == page) {
                adopted++;
                break;
            }
        }
    }
    unsigned own = bhi_class_blocks(bhi_class_of(200 + BH_CANARY_LEAST)); /* of its first page; where OS pages are larger, enough for all */
    ck_assert_msg(adopted + own > LEFT / 4 + LEFT / 16, "%u of %u blocks lie in pages that the thread left", adopted, LEFT / 2);
    ck_assert_invariants();
    for (unsigned i = 0; i < LEFT / 2; i++)
        bh_free(mine[i]);
    for (unsigned i = 0; i < LEFT; i++)
        bh_free(left[i]);
    ck_assert_invariants();
}
END_TEST

static pthread_barrier_t barrier;

static void *wait_with_a_heap(void *arg)
{
    void *p = bh_malloc(100);
    (void)arg;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    bh_free(p);
    return NULL;
}

START_TEST(verify_counts_what_it_may_not_see)
{
    bh_free(bh_malloc(1));
    ck_assert_uint_eq(bh_verify(), 0);
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, wait_with_a_heap, NULL), 0);
    pthread_barrier_wait(&barrier);
    ck_assert_uint_eq(bh_verify(), 3);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(bh_verify(), 0);
}
END_TEST

/* Correct threads: blocks change hands, are resized, freed, swept and looked at. */
#define BOXES 128
static _Atomic(unsigned char *) box[BOXES];
static _Atomic(bool) stop;

static void *exchange(void *arg)
{
    uint64_t state = (uint64_t)(uintptr_t)arg;
    while (!stop) {
        uint32_t kind = unit_below(&state, 1000);
        size_t size = kind < 900 ? unit_below(&state, 200) : kind < 990 ? unit_below(&state, 20000) : unit_below(&state, 1500000);
        unsigned char *p = kind % 2 != 0 ? bh_malloc(size) : bh_zalloc(size);
        ck_assert_ptr_nonnull(p);
        if (kind % 3 != 0)
            memset(p, 0x66, size < 5000 ? size : 5000);
        p = atomic_exchange(&box[unit_below(&state, BOXES)], p);
        if (p != NULL && unit_below(&state, 4) == 0) {
            size = bh_usable_size(p);
            p = bh_realloc(p, size > 8 ? size - unit_below(&state, 9) : size + 1);
        }
        bh_free(p);
        if (kind == 77)
            (void)bh_verify();
        if (kind == 78)
            bh_collect(false);
    }
    return NULL;
}

static void exchange_for(void *arg)
{
    pthread_t threads[2];
    stop = false;
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)), 0);
    for (double end = now() + *(double *)arg; now() < end;)
        usleep(10000);
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < BOXES; i++)
        bh_free(atomic_exchange(&box[i], NULL));
    const char *text = inv_all(true, false);
    if (text != NULL)
        fprintf(stderr, "%s\n", text);
    exit(bh_verify() == 0 ? 0 : 3);
}

START_TEST(correct_threads_are_not_accused)
{
    double seconds = 10;
    unit_assert_quiet(exchange_for, &seconds);
}
END_TEST

/* Large blocks whose owner looks at them while others free and so trap them. */
static void *free_boxes(void *arg)
{
    (void)arg;
    while (!stop) {
        for (int i = 0; i < BOXES; i++)
            bh_free(atomic_exchange(&box[i], NULL));
    }
    return NULL;
}

static void verify_beside(void *arg)
{
    size_t size = *(size_t *)arg;
    pthread_t thread;
    stop = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, free_boxes, NULL), 0);
    for (double end = now() + 2; now() < end;) {
        for (int i = 0; i < BOXES / 4; i++) {
            unsigned char *p = bh_malloc(size);
            p = bh_realloc(p, size - size / 3); /* in place: an end that takes long to look at */
            bh_free(atomic_exchange(&box[i], p));
        }
        (void)bh_verify();
    }
    stop = true;
    pthread_join(thread, NULL);
}

START_TEST(large_blocks_freed_while_their_owner_looks)
{
    size_t sizes[] = {100, 199999, 4999999};
    for (unsigned i = 0; i < 3; i++)
        unit_assert_quiet(verify_beside, &sizes[i]);
}
END_TEST

static void work_and_exit(void *arg)
{
    uint64_t state = *(uint64_t *)arg;
    inv_forked = true;
    for (int i = 0; i < 300; i++) {
        unsigned char *p = atomic_exchange(&box[unit_below(&state, BOXES)], bh_malloc(unit_below(&state, 3000)));
        bh_free(p);
    }
    const char *text = inv_heap(bhi_thread_heap); /* others' heaps stay as they were at the fork */
    if (text == NULL)
        text = inv_all_open_is_open();
    if (text != NULL)
        fprintf(stderr, "%s\n", text);
    (void)bh_verify();
    exit(0);
}

START_TEST(forks_of_a_busy_process)
{
    pthread_t threads[2];
    stop = false;
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, exchange, (void *)(i + 11)), 0);
    uint64_t seed = unit_seed("fork");
    for (int i = 0; i < 60; i++)
        unit_assert_quiet(work_and_exit, &seed);
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    bhi_canary_without_aes = getenv("WITHOUT_AES") != NULL;
    Suite *s = suite_create("hardened_threads");
    TCase *c = tcase_create("all");
    bh_free(bh_malloc(1));
    if (!bhi_is_hardened() || !BH_HARDEN_CANARIES || !BH_HARDEN_WIPE || !BH_HARDEN_MAP || !BH_HARDEN_QUARANTINE)
        return 0;
    marked = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, threads_end_with_a_full_quarantine);
    tcase_add_loop_test(c, what_was_freed_waits_for_whoever_comes_next, 0, 18);
    tcase_add_test(c, what_a_thread_leaves_is_used);
    tcase_add_test(c, verify_counts_what_it_may_not_see);
    tcase_add_test(c, correct_threads_are_not_accused);
    tcase_add_test(c, large_blocks_freed_while_their_owner_looks);
    if (!BH_SANITIZED)
        tcase_add_test(c, forks_of_a_busy_process);
    suite_add_tcase(s, c);
    return unit_main(s);
}
