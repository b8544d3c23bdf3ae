/* core/heap.c and owner.c: queues (H1, H2), retiring, moved pages, handles, the end. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "invariants.h"
#include "meta/arena.h"
#include "support.h"

#include <string.h>

static bhi_heap_t *heap;

static void start(void)
{
    heap = bhi_thread_heap_get();
    ck_assert_ptr_nonnull(heap);
}

static bhi_page_t *page_of(const void *p)
{
    return bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
}

/* The same for an address that need not be a live block's. */
static bhi_page_t *page_of_slot(const void *p)
{
    bhi_arena_t *arena = bhi_arena_of((uintptr_t)p);
    return bhi_desc_first(bhi_desc_at(arena->descs, (uintptr_t)p - arena->base));
}

static void *other_frees(void *p)
{
    bh_free(p);
    return NULL;
}

#define LIVE 3000
static struct {
    unsigned char *at;
    size_t size;
    unsigned char tag;
} live[LIVE];

/* Random work in one thread with the invariants checked all along. */
START_TEST(random_work_keeps_the_invariants)
{
    start();
    uint64_t seed = unit_seed("heap");
    unsigned n = 0;
    for (int round = 0; round < 40000; round++) {
        if (n < LIVE && (n == 0 || unit_below(&seed, 100) < 52)) {
            uint32_t kind = unit_below(&seed, 100);
            size_t size = kind < 80 ? unit_below(&seed, 1200) : kind < 97 ? unit_below(&seed, 40000) : unit_below(&seed, 600000);
            bool zero = unit_below(&seed, 4) == 0;
            live[n].at = zero ? bh_zalloc(size) : bh_malloc(size);
            ck_assert_ptr_nonnull(live[n].at);
            ck_assert(!zero || unit_is(live[n].at, size, 0));
            live[n].size = size;
            live[n].tag = (unsigned char)unit_random(&seed);
            memset(live[n].at, live[n].tag, size);
            n++;
        } else {
            unsigned i = unit_below(&seed, n);
            ck_assert(unit_is(live[i].at, live[i].size, live[i].tag));
            if (unit_below(&seed, 200) == 0)
                unit_thread(other_frees, live[i].at);
            else
                bh_free(live[i].at);
            live[i] = live[--n];
        }
        if (round % 2500 == 0)
            ck_assert_invariants();
        if (round % 9000 == 8999)
            bh_collect(round % 2 == 0);
    }
    while (n > 0)
        bh_free(live[--n].at);
    bh_collect(true);
    bh_collect(true);
    ck_assert_invariants();
    ck_assert_uint_eq(heap->page_count, 0);
}
END_TEST

START_TEST(direct_table_follows_the_queues)
{
    start();
    ck_assert_ptr_null(inv_heap(heap));
    void *p[BH_DIRECT_ENTRIES];
    for (size_t w = 0; w < BH_DIRECT_ENTRIES; w++) {
        p[w] = bh_malloc(w * 8);
        ck_assert_ptr_eq(heap->direct[w], w != 0 ? page_of(p[w]) : bhi_heap_empty.direct[0]);
        ck_assert_ptr_null(inv_heap(heap));
    }
    for (size_t w = 0; w < BH_DIRECT_ENTRIES; w++)
        bh_free(p[w]);
    bh_collect(false);
    ck_assert_ptr_null(inv_heap(heap));
    for (size_t w = 0; w < BH_DIRECT_ENTRIES; w++)
        ck_assert_ptr_eq(heap->direct[w], bhi_heap_empty.direct[0]);
}
END_TEST

static int beats_until_it_ends(const bhi_page_t *page)
{
    int n = 0;
    for (; n < 10000 && page->state != BHI_PAGE_FREE; n++)
        bhi_heap_heartbeat(heap);
    return n;
}

/* The last page of a class is kept for a while, then released. */
START_TEST(retire)
{
    start();
    void *p = bh_malloc(100);
    bhi_page_t *page = page_of(p);
    bh_free(p);
    ck_assert_uint_eq(page->state, BHI_PAGE_ACTIVE);
    ck_assert_uint_eq(bhi_page_live(page), 0);
    ck_assert_invariants();
    for (int i = 0; i < 100; i++) { /* a pair of malloc and free keeps the page, unlike its neighbours' heartbeats */
        p = bh_malloc(100);
        ck_assert_ptr_eq(page_of(p), page);
        bh_free(p);
    }
    ck_assert_int_lt(beats_until_it_ends(page), 8000);
    ck_assert_invariants();
}
END_TEST

/* A page that the program touched little of waits for longer than one of which it used
 * all: others that took its span would touch more, and it costs little. */
START_TEST(a_page_with_little_in_it_is_kept_for_longer)
{
    start();
    enum { n = 12 * BH_OS_PAGE_SIZE / 600 };
    static void *many[n];
    void *p = bh_malloc(1000);
    bhi_page_t *little = page_of(p);
    bh_free(p);
    int little_waits = beats_until_it_ends(little);
    p = bh_malloc(600);
    bhi_page_t *much = page_of(p);
    for (int i = 0; i < n; i++)
        many[i] = bh_malloc(600);
    ck_assert_ptr_eq(page_of(many[n - 1]), much);
    for (int i = 0; i < n; i++)
        bh_free(many[i]);
    bh_free(p);
    ck_assert_uint_eq(bhi_page_live(much), 0);
    int much_waits = beats_until_it_ends(much);
    ck_assert_int_gt(much_waits, 256);
    ck_assert_int_lt(much_waits, 1024);
    ck_assert_int_gt(little_waits, 5 * 1024);
    ck_assert_int_lt(little_waits, 8000);
}
END_TEST

/* Of a class whose pages hold few blocks, an empty page waits behind the first: one more
 * or less is needed all the time, and a new one's blocks have to be cleared. */
START_TEST(an_empty_page_of_long_blocks_waits)
{
    start();
    enum { size = 20 * 1024, n = 40 };
    static void *blocks[n];
    for (int i = 0; i < n; i++)
        blocks[i] = bh_malloc(size);
    bhi_page_t *first = page_of(blocks[n - 1]), *other = page_of(blocks[0]);
    ck_assert_ptr_ne(first, other);
    for (int i = 0; i < n; i++) {
        if (page_of(blocks[i]) == other) /* it was full, and is no queue's first */
            bh_free(blocks[i]);
    }
    ck_assert_uint_eq(bhi_page_live(other), 0);
    ck_assert_invariants();
    ck_assert_uint_eq(other->state, BHI_PAGE_ACTIVE);
    int waits = beats_until_it_ends(other);
    ck_assert_int_gt(waits, 256);
    ck_assert_int_lt(waits, 8000);
    ck_assert_invariants();
}
END_TEST

/* One block of a size at a time, other sizes in between: each page is empty most
 * of the time, and none is made twice. */
START_TEST(pages_that_are_used_on_are_not_retired)
{
    start();
    static const size_t sizes[] = {8, 100, 500, 1000};
    bhi_page_t *pages[4];
    for (int i = 0; i < 4; i++) {
        void *p = bh_malloc(sizes[i]);
        pages[i] = page_of(p);
        bh_free(p);
    }
    for (int round = 0; round < 2000; round++) {
        bhi_heap_heartbeat(heap);
        void *p = bh_malloc(sizes[round % 4]);
        ck_assert_ptr_eq(page_of(p), pages[round % 4]);
        bh_free(p);
    }
}
END_TEST

/* The same of a page that has a list, so that free does not see it becoming empty. */
START_TEST(a_page_with_a_list_that_is_used_now_and_then_stays)
{
    start();
    enum { n = 100 };
    void *p[n];
    for (int i = 0; i < n; i++)
        p[i] = bh_malloc(64);
    bhi_page_t *page = page_of(p[0]);
    for (int i = 0; i < n; i++)
        bh_free(p[i]);
    if (!unit_is_hardened()) {
        bhi_page_drop_list(heap, page);
        ck_assert(bhi_page_reuse(page));
    }
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 512; i++)
            bhi_heap_heartbeat(heap);
        ck_assert_uint_eq(page->state, BHI_PAGE_ACTIVE);
        bh_free(bh_malloc(64));
    }
    ck_assert_invariants();
    ck_assert_int_lt(beats_until_it_ends(page), 8000);
}
END_TEST

START_TEST(a_retired_page_that_is_used_again_is_safe)
{
    start();
    uint64_t seed = unit_seed("retire");
    void *p[300];
    size_t n = 0;
    for (int round = 0; round < 20000; round++) {
        if (n < 300 && unit_below(&seed, 2) != 0) {
            p[n++] = bh_malloc(1 + unit_below(&seed, 8) * 900);
        } else if (n > 0) {
            size_t i = unit_below(&seed, (uint32_t)n);
            bh_free(p[i]);
            p[i] = p[--n];
        }
        if (unit_below(&seed, 3) == 0)
            bhi_heap_heartbeat(heap);
        if (round % 1000 == 0)
            ck_assert_invariants();
        if (round % 4000 == 3999) {
            while (n > 0)
                bh_free(p[--n]);
        }
    }
    while (n > 0)
        bh_free(p[--n]);
    for (int i = 0; i < 8000; i++) /* longer than any page waits */
        bhi_heap_heartbeat(heap);
    ck_assert_uint_eq(heap->page_count, 0);
    ck_assert_invariants();
}
END_TEST

/* A page on the stack of a heap that it has left is passed on. */
START_TEST(drain_forwards_moved_pages)
{
    start();
    bh_heap_t *handle = bh_heap_new();
    bhi_heap_t *user = bhi_heap_of_handle(handle, bhi_thread_self());
    void *p = bh_heap_malloc(handle, 64), *q = bh_heap_malloc(handle, 64);
    bhi_page_t *page = page_of(p);
    unit_thread(other_frees, q);
    ck_assert_ptr_eq(atomic_load(&user->pending), page);
    /* As if the signal had been pushed onto the default heap's stack. */
    atomic_store(&user->pending, NULL);
    atomic_store(&heap->pending, page);
    bhi_heap_drain(heap, SIZE_MAX);
    ck_assert_ptr_null(atomic_load(&heap->pending));
    ck_assert_ptr_eq(atomic_load(&user->pending), page);
    ck_assert((atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0);
    ck_assert_uint_eq(bhi_page_live(page), 2);
    ck_assert_invariants();
    bhi_heap_drain(user, SIZE_MAX);
    ck_assert_uint_eq(bhi_page_live(page), 1);
    ck_assert_invariants();
    bh_heap_destroy(handle);
}
END_TEST

START_TEST(drain_is_bounded)
{
    start();
    enum { PAGES = 100 };
    void *p[PAGES];
    for (int i = 0; i < PAGES; i++)
        p[i] = bh_malloc((size_t)129 << 10);
    for (int i = 0; i < PAGES; i++)
        unit_thread(other_frees, p[i]);
    size_t before = heap->page_count;
    bhi_heap_drain(heap, 10);
    ck_assert_uint_eq(before - heap->page_count, 10);
    ck_assert_invariants(); /* pending_mine holds the rest */
    bhi_heap_drain(heap, SIZE_MAX);
    ck_assert_uint_eq(before - heap->page_count, PAGES);
    ck_assert_invariants();
}
END_TEST

/* ---------------------------------------------------------------- handles */

static bh_heap_t *handle;

static void use_handle(void *arg)
{
    bh_free(bh_heap_malloc(arg, 10));
}

static void *use_in_thread(void *arg)
{
    use_handle(arg);
    return NULL;
}

static void use_elsewhere(void *arg)
{
    unit_thread(use_in_thread, arg);
}

static void end_twice(void *arg)
{
    bh_heap_delete(arg);
    bh_heap_delete(arg);
}

static void destroy_after_delete(void *arg)
{
    bh_heap_delete(arg);
    bh_heap_destroy(arg);
}

START_TEST(handles_are_checked)
{
    start();
    handle = bh_heap_new();
    ck_assert_ptr_null(bhi_arena_of((uintptr_t)handle));
    unit_assert_quiet(use_handle, handle);
    unit_assert_violation(use_elsewhere, handle, "heap-misuse");
    unit_assert_violation(end_twice, handle, "heap-misuse");
    unit_assert_violation(destroy_after_delete, handle, "heap-misuse");
    unit_assert_violation(use_handle, (void *)1, "heap-misuse");
    unit_assert_violation(use_handle, (void *)bhi_heap_handle(heap), "heap-misuse"); /* a default heap */
    unit_assert_violation(use_handle, (void *)((uintptr_t)handle + 1), "heap-misuse");
    unit_assert_violation(use_handle, (void *)(uintptr_t)heap, "heap-misuse");
    unit_assert_violation(use_handle, &handle, "heap-misuse");
    uint64_t seed = unit_seed("handles");
    for (int i = 0; i < 20; i++)
        unit_assert_violation(use_handle, (void *)(uintptr_t)unit_random(&seed), "heap-misuse");
    bh_heap_t *old = handle;
    bh_heap_delete(handle);
    handle = bh_heap_new(); /* the same structure, another generation */
    ck_assert_ptr_ne(old, handle);
    unit_assert_violation(use_handle, old, "heap-misuse");
    unit_assert_quiet(use_handle, handle);
    bh_heap_delete(handle);
}
END_TEST

START_TEST(heaps_never_share_a_page)
{
    start();
    uint64_t seed = unit_seed("share");
    bh_heap_t *heaps[6];
    for (int i = 0; i < 6; i++)
        heaps[i] = bh_heap_new();
    static void *blocks[6][400];
    for (int round = 0; round < 400; round++) {
        for (int i = 0; i < 6; i++) {
            size_t size = unit_below(&seed, 3000);
            blocks[i][round] = bh_heap_malloc(heaps[i], size);
            ck_assert_ptr_eq(atomic_load(&page_of(blocks[i][round])->heap), bhi_heap_of_handle(heaps[i], bhi_thread_self()));
            if (unit_below(&seed, 3) == 0) {
                bh_free(blocks[i][round]);
                blocks[i][round] = NULL;
            }
        }
    }
    ck_assert_invariants();
    for (int i = 0; i < 6; i++) {
        if (i % 2 == 0)
            bh_heap_destroy(heaps[i]);
        else
            bh_heap_delete(heaps[i]);
    }
    ck_assert_invariants();
    for (int i = 1; i < 6; i += 2) {
        for (int round = 0; round < 400; round++)
            bh_free(blocks[i][round]);
    }
    ck_assert_invariants();
    bh_collect(true);
    ck_assert_uint_eq(heap->page_count, 0);
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++)
        ck_assert_uint_eq(bhi_state->heap_dir[0][id]->page_count, 0);
}
END_TEST

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

static void free_twice(void *p)
{
    bh_free(p);
}

/* A signaller of the slot's former page has set QUEUED and is late with its
 * push; another thread's free relied on that; then the heap is destroyed. */
static void destroyed_before_the_signal(size_t size)
{
    bh_heap_t *user = bh_heap_new();
    bhi_heap_t *h = bhi_heap_of_handle(user, bhi_thread_self());
    void *p = bh_heap_malloc(user, size), *other = bh_heap_malloc(user, size);
    bhi_page_t *page = page_of(p);
    atomic_fetch_or(&page->remote, BHI_REMOTE_QUEUED);
    unit_thread(free_there, p);
    bh_heap_destroy(user);
    ck_assert_ptr_eq(atomic_load(&page->heap), h); /* kept */
    ck_assert_uint_eq(bhi_page_live(page), 0);
    if (page_of_slot(other) == page)
        unit_assert_violation(free_twice, other, "double-free");
    unit_assert_violation(free_twice, p, "double-free");
    bhi_page_signal(page); /* here it is */
    ck_assert_ptr_null(atomic_load(&page->heap));
    ck_assert_uint_eq(atomic_load(&h->kind), BHI_HEAP_UNUSED);
    ck_assert_invariants();
}

START_TEST(destroy_before_a_late_signal)
{
    start();
    destroyed_before_the_signal(100);
    destroyed_before_the_signal(200000);
}
END_TEST

/* Memory of many segments that becomes due at once is returned a segment for each
 * heartbeat, not one in as many as lie between two looks at the clock. */
START_TEST(what_is_due_is_purged_without_delay)
{
    /* Segments with larger OS pages are larger: so many of them are too much memory. */
    if (BH_OS_PAGE_SHIFT > 12 || atomic_load(&bhi_settings.purge_delay) == 0 || bhi_is_hardened())
        return;
    start();
    enum { BLOCKS = 24 * BH_SEGMENT_SLOTS };
    static void *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++)
        memset(blocks[i] = bh_malloc(40000), 1, 40000);
    for (unsigned i = 0; i < BLOCKS; i++)
        bh_free(blocks[i]);
    unsigned before = 0;
    for (; before < 1000 && bhi_state->dirty_slots < BLOCKS / 2; before++)
        bhi_heap_collect(heap, false); /* pages that wait to be used again */
    size_t dirty = bhi_state->dirty_slots;
    ck_assert_uint_ge(dirty, BLOCKS / 2);
    for (unsigned look = 0; look < 3; look++) { /* due, and due for the second time */
        bhi_os_sleep_us(1000 * (atomic_load(&bhi_settings.purge_delay) + 3));
        for (unsigned i = 0; i < 64 + 2 * BLOCKS / BH_SEGMENT_SLOTS; i++)
            bhi_heap_heartbeat(heap);
    }
    ck_assert_msg(bhi_state->dirty_slots < dirty / 8, "%zu of %zu slots", (size_t)bhi_state->dirty_slots, dirty);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("heap");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, random_work_keeps_the_invariants);
    tcase_add_test(c, drain_is_bounded);
    if (!unit_is_hardened()) {
        tcase_add_test(c, direct_table_follows_the_queues);
        tcase_add_test(c, retire);
        tcase_add_test(c, a_page_with_little_in_it_is_kept_for_longer);
        if (BH_OS_PAGE_SHIFT == 12) /* a larger page holds more of them */
            tcase_add_test(c, an_empty_page_of_long_blocks_waits);
        tcase_add_test(c, pages_that_are_used_on_are_not_retired);
        tcase_add_test(c, a_page_with_a_list_that_is_used_now_and_then_stays);
        tcase_add_test(c, a_retired_page_that_is_used_again_is_safe);
        tcase_add_test(c, drain_forwards_moved_pages);
    }
    tcase_add_test(c, handles_are_checked);
    tcase_add_test(c, what_is_due_is_purged_without_delay);
    tcase_add_test(c, heaps_never_share_a_page);
    tcase_add_test(c, destroy_before_a_late_signal);
    suite_add_tcase(s, c);
    return unit_main(s);
}
