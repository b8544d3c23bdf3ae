/* core/thread.c: what happens to a thread's heaps when it ends. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/thread.h"
#include "invariants.h"
#include "os/os.h"
#include "support.h"

#include <pthread.h>
#include <string.h>

static bhi_page_t *page_of(const void *p)
{
    return bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
}

static bhi_heap_t *heap_of(const void *p)
{
    return atomic_load(&page_of(p)->heap);
}

static void nothing_left(void)
{
    bh_collect(true);
    ck_assert_invariants();
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++)
        ck_assert_uint_eq(bhi_state->heap_dir[0][id]->page_count, 0);
}

#define N 400
static unsigned char *left[N];

static void *leave_blocks(void *arg)
{
    for (int i = 0; i < N; i++) {
        left[i] = bh_malloc((size_t)i * 40);
        memset(left[i], i, (size_t)i * 40);
    }
    return arg;
}

static void *free_left(void *arg)
{
    for (int i = 0; i < N; i++) {
        ck_assert(unit_is(left[i], (size_t)i * 40, i));
        bh_free(left[i]);
    }
    return arg;
}

START_TEST(blocks_outlive_their_thread)
{
    unit_thread(leave_blocks, NULL);
    bhi_heap_t *orphan = heap_of(left[0]);
    ck_assert_uint_eq(atomic_load(&orphan->kind), BHI_HEAP_ORPHAN);
    ck_assert_uint_eq(bhi_heap_owner(orphan), BHI_OWNER_NONE);
    ck_assert_uint_eq(atomic_load(&bhi_state->orphan_count), 1);
    ck_assert_invariants();
    free_left(NULL);
    ck_assert_uint_eq(atomic_load(&orphan->kind), BHI_HEAP_UNUSED); /* whoever frees the last block recycles */
    ck_assert_uint_eq(atomic_load(&bhi_state->orphan_count), 0);
    nothing_left();
}
END_TEST

static bhi_heap_t *adopted;
static void *adopt(void *arg)
{
    void *p = bh_malloc(100);
    adopted = bhi_thread_heap;
    bh_free(p);
    return arg;
}

START_TEST(a_new_thread_adopts_the_whole_heap)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    unit_thread(leave_blocks, NULL);
    bhi_heap_t *orphan = heap_of(left[0]);
    size_t pages = orphan->page_count;
    unit_thread(adopt, NULL);
    ck_assert_ptr_eq(adopted, orphan);
    ck_assert_uint_ge(pages + 1, orphan->page_count);
    unit_thread(free_left, NULL); /* adopts again: these frees are local */
    nothing_left();
}
END_TEST

START_TEST(a_living_thread_adopts_pages_it_needs)
{
    bhi_heap_t *mine = bhi_thread_heap_get();
    bh_free(bh_malloc(8));
    unit_thread(leave_blocks, NULL);
    bhi_page_t *page = page_of(left[25]); /* 1000 bytes: few blocks used of many */
    ck_assert_ptr_ne(atomic_load(&page->heap), mine);
    void *p = bh_malloc(1000);
    ck_assert_ptr_eq(heap_of(p), mine);
    ck_assert_ptr_eq(page_of(p), page);
    ck_assert_ptr_eq(atomic_load(&page->local_heap), mine);
    ck_assert_invariants();
    bh_free(p);
    free_left(NULL);
    nothing_left();
}
END_TEST

/* Memory stays bounded when threads come and go and each leaves something. */
START_TEST(generations_of_threads_stay_bounded)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    size_t heaps = 0;
    for (int i = 0; i < 200; i++) {
        unit_thread(leave_blocks, NULL);
        free_left(NULL);
        if (i == 20)
            heaps = atomic_load(&bhi_state->heap_count);
    }
    ck_assert_uint_eq(atomic_load(&bhi_state->heap_count), heaps);
    nothing_left();
}
END_TEST

/* -------------------------------------------------------------- user heaps */

static bh_heap_t *user_handle;
static void *user_block, *large_block;

static void *leave_user_heaps(void *arg)
{
    user_handle = bh_heap_new();
    user_block = bh_heap_malloc(user_handle, 500);
    large_block = bh_heap_malloc(user_handle, (size_t)1 << 20);
    (void)!bh_heap_malloc(bh_heap_new(), 10); /* two, one of them leaked */
    return arg;
}

static void use_old_handle(void *arg)
{
    bh_free(bh_heap_malloc(arg, 1));
}

START_TEST(user_heaps_are_deleted_at_exit)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    unit_thread(leave_user_heaps, NULL);
    bhi_heap_t *heap = heap_of(user_block);
    ck_assert_uint_eq(atomic_load(&heap->kind), BHI_HEAP_DELETED);
    ck_assert_uint_eq(bhi_heap_owner(heap), BHI_OWNER_NONE);
    unit_assert_violation(use_old_handle, user_handle, "heap-misuse");
    ck_assert_invariants();
    bh_free(user_block);
    ck_assert_uint_eq(atomic_load(&heap->kind), BHI_HEAP_DELETED);
    bh_free(large_block);
    ck_assert_uint_eq(atomic_load(&heap->kind), BHI_HEAP_UNUSED);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------- after the destructor */

static pthread_key_t late_key;
static _Atomic(unsigned) late_runs;
static void *late_block;

/* Runs again in every round of destructors; ours is over after the first. */
static void late(void *value)
{
    unsigned run = atomic_fetch_add(&late_runs, 1);
    unsigned char *p = bh_malloc(3000), *q = bh_zalloc(70000);
    ck_assert(p != NULL && q != NULL);
    memset(p, 0x33, 3000);
    ck_assert(unit_is(q, 70000, 0));
    p = bh_realloc(p, 9000);
    ck_assert_uint_eq(p[2999], 0x33);
    bh_free(q);
    bh_free(late_block);
    late_block = p;
    if (bhi_thread_heap == &bhi_heap_empty)
        ck_assert_ptr_null(bh_heap_new()); /* nobody could end it */
    if (run < 2)
        pthread_setspecific(late_key, value);
}

static void *with_late_destructor(void *arg)
{
    late_block = bh_malloc(10);
    pthread_setspecific(late_key, &late_key);
    return arg;
}

START_TEST(allocation_after_the_destructor)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    pthread_key_create(&late_key, late);
    for (int i = 0; i < 20; i++) {
        atomic_store(&late_runs, 0);
        unit_thread(with_late_destructor, NULL);
        ck_assert_uint_eq(atomic_load(&late_runs), 3);
        bh_free(late_block);
        late_block = NULL;
        ck_assert_invariants();
    }
    nothing_left();
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++) {
        const bhi_heap_t *heap = bhi_state->heap_dir[0][id];
        ck_assert(heap == bhi_thread_heap || bhi_heap_owner(heap) == BHI_OWNER_NONE); /* every loan was given back */
    }
}
END_TEST

static void deferred(bool force, unsigned long long heartbeat, void *arg)
{
    (void)force;
    (void)heartbeat;
    (void)arg;
}

static void registers_late(void *value)
{
    if (bhi_thread_heap != &bhi_heap_empty)
        pthread_setspecific(late_key, value); /* once more, after ours */
    else
        bh_register_deferred_free(deferred, NULL);
}

START_TEST(registering_late_gives_the_loan_back)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    pthread_key_create(&late_key, registers_late);
    unit_thread(with_late_destructor, NULL);
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++) {
        const bhi_heap_t *heap = bhi_state->heap_dir[0][id];
        ck_assert(heap == bhi_thread_heap || bhi_heap_owner(heap) == BHI_OWNER_NONE);
    }
}
END_TEST

/* ------------------------------------------------ the last round of destructors */

static void *late_blocks[200];
static bhi_owner_t late_self;
static bhi_heap_t *late_heap;

/* The first call of the allocator comes when no destructor will run any more. */
static void first_in_the_last_round(void *value)
{
    if (atomic_fetch_add(&late_runs, 1) < 3) {
        pthread_setspecific(late_key, value);
        return;
    }
    for (int i = 0; i < 200; i++)
        late_blocks[i] = bh_malloc(1000);
    (void)!bh_heap_malloc(bh_heap_new(), 100);
    late_heap = bhi_thread_heap;
    late_self = bhi_thread_self();
}

static void *only_late(void *arg)
{
    pthread_setspecific(late_key, &late_key);
    return arg;
}

static void *same_identity(void *arg)
{
    if (bhi_thread_self() != late_self)
        return NULL;
    bh_free(bh_malloc(1));
    ck_assert_ptr_eq(bhi_thread_heap, late_heap);
    ck_assert_ptr_nonnull(late_heap->user_heaps);
    return arg;
}

START_TEST(a_heap_left_in_the_last_round_is_the_next_threads)
{
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    pthread_key_create(&late_key, first_in_the_last_round);
    unit_thread(leave_blocks, NULL); /* an orphan, so that there is more to lose */
    atomic_store(&late_runs, 0);
    unit_thread(only_late, NULL);
    ck_assert_uint_eq(atomic_load(&late_runs), 4);
    ck_assert_uint_eq(atomic_load(&late_heap->kind), BHI_HEAP_THREAD);
    ck_assert_uint_eq(bhi_heap_owner(late_heap), late_self); /* nobody's, in truth */
    for (int i = 0; i < 200; i++)
        bh_free(late_blocks[i]);
    free_left(NULL);
    ck_assert_invariants();
    ck_assert_uint_ne(late_heap->page_count, 0);
    bool found = false;
    for (int i = 0; i < 1000 && !found; i++)
        found = unit_thread(same_identity, &late_key) != NULL;
    ck_assert(found);
    ck_assert_uint_ne(atomic_load(&late_heap->kind), BHI_HEAP_THREAD);
    ck_assert_uint_eq(bhi_heap_owner(late_heap), BHI_OWNER_NONE);
    ck_assert_uint_eq(late_heap->page_count, 0);
    for (unsigned i = 0; i < BHI_THREAD_CHAINS; i++)
        ck_assert(bhi_state->thread_heaps[i] == NULL || bhi_state->thread_heaps[i] == bhi_thread_heap);
}
END_TEST

/* ------------------------------------------------------------ many at once */

static void *_Atomic slots[256];

static void *churn(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < 4000; i++) {
        uint32_t at = unit_below(&seed, 256);
        uint32_t kind = unit_below(&seed, 50);
        size_t size = kind == 0 ? (size_t)200 << 10 : kind < 5 ? 9000 : unit_below(&seed, 600);
        unsigned char *p = bh_malloc(size + 1);
        memset(p, (int)at, size + 1);
        unsigned char *old = atomic_exchange(&slots[at], p);
        if (old != NULL) {
            ck_assert_uint_eq(old[0], at);
            bh_free(old);
        }
    }
    return NULL;
}

START_TEST(threads_in_waves)
{
    uint64_t seed = unit_seed("waves");
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    for (int wave = 0; wave < 12; wave++) {
        pthread_t threads[4];
        for (int t = 0; t < 4; t++)
            pthread_create(&threads[t], NULL, churn, (void *)(uintptr_t)unit_random(&seed));
        for (int t = 0; t < 4; t++)
            pthread_join(threads[t], NULL);
        ck_assert_invariants();
    }
    for (int i = 0; i < 256; i++)
        bh_free(slots[i]);
    nothing_left();
}
END_TEST

enum { SECRET = 0xa7, SECRETS = 3000 };
static unsigned char *secrets[SECRETS];
static const size_t secret_sizes[] = {16, 64, 200, 1000, 5000};

static size_t secret_size(unsigned i)
{
    return secret_sizes[i / 8 % (sizeof secret_sizes / sizeof secret_sizes[0])];
}

/* Leaves every eighth block, so that the pages stay, and what it wrote into the others. */
static void *leave_secrets(void *arg)
{
    for (unsigned i = 0; i < SECRETS; i++)
        memset(secrets[i] = bh_malloc(secret_size(i)), SECRET, secret_size(i));
    for (unsigned i = 0; i < SECRETS; i++)
        if (i % 8 != 0)
            bh_free(secrets[i]);
    for (unsigned i = 0; i < SECRETS; i++) /* so that lists name blocks that were freed */
        bh_free(bh_malloc(secret_size(i)));
    return arg;
}

static void *look_for_secrets(void *found)
{
    static unsigned char *blocks[2 * SECRETS];
    for (unsigned i = 0; i < 2 * SECRETS; i++) {
        blocks[i] = bh_malloc(secret_size(i));
        for (size_t k = 0; k < secret_size(i); k++)
            *(size_t *)found += blocks[i][k] == SECRET;
    }
    for (unsigned i = 0; i < 2 * SECRETS; i++)
        bh_free(blocks[i]);
    for (unsigned i = 0; i < SECRETS; i += 8)
        bh_free(secrets[i]);
    return NULL;
}

/* What a thread left in freed blocks shows in no other thread's blocks, neither in
 * those of one that takes its heap over nor of one that takes its pages. */
START_TEST(another_owners_blocks_come_back_clear)
{
    if (!BH_HARDEN_CLEAR || !BH_HARDEN_MAP)
        return;
    size_t found = 0;
    bh_free(bh_malloc(1)); /* this thread's own heap */
    unit_thread(leave_secrets, NULL);
    unit_thread(look_for_secrets, &found);
    ck_assert_uint_eq(found, 0);
    unit_thread(leave_secrets, NULL);
    look_for_secrets(&found);
    ck_assert_uint_eq(found, 0);
    if (!unit_is_hardened())
        nothing_left();
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++) { /* this thread's has a quarantine */
        const bhi_heap_t *heap = bhi_state->heap_dir[0][id];
        ck_assert_msg(heap == bhi_thread_heap || heap->page_count == 0, "heap %u has %zu pages", id, heap->page_count);
    }
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("thread");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, blocks_outlive_their_thread);
    tcase_add_test(c, a_new_thread_adopts_the_whole_heap);
    if (!unit_is_hardened())
        tcase_add_test(c, a_living_thread_adopts_pages_it_needs);
    tcase_add_test(c, generations_of_threads_stay_bounded);
    tcase_add_test(c, user_heaps_are_deleted_at_exit);
    tcase_add_test(c, allocation_after_the_destructor);
    tcase_add_test(c, registering_late_gives_the_loan_back);
    tcase_add_test(c, a_heap_left_in_the_last_round_is_the_next_threads);
    tcase_add_test(c, threads_in_waves);
    tcase_add_test(c, another_owners_blocks_come_back_clear);
    suite_add_tcase(s, c);
    return unit_main(s);
}
