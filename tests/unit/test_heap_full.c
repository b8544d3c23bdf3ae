/* core/heap.c: full pages. They leave the search, come back with the first
 * free, and are signalled once per filling. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/page.h"
#include "invariants.h"
#include "support.h"

#include <pthread.h>
#include <time.h>

static bhi_heap_t *heap;

static bhi_page_t *page_of(const void *p)
{
    return bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
}

/* Blocks of one page that is FULL; the page's first block is out[0]. */
static uint32_t fill_page(size_t size, void **out)
{
    heap = bhi_thread_heap_get();
    void *p;
    uint32_t n = 0;
    bhi_page_t *page;
    do { /* start on a page of its own */
        p = bh_malloc(size);
        page = page_of(p);
    } while (bhi_page_live(page) != 1);
    do {
        out[n++] = p;
        p = bh_malloc(size);
    } while (page_of(p) == page);
    ck_assert_uint_eq(n, page->reserved);
    ck_assert_uint_eq(page->state, BHI_PAGE_FULL);
    ck_assert_ptr_null(atomic_load(&page->local_heap));
    return n;
}

static void *blocks[1 << 15];

START_TEST(a_local_free_brings_the_page_back)
{
    uint32_t n = fill_page(64, blocks);
    bhi_page_t *page = page_of(blocks[0]);
    bh_free(blocks[n / 2]);
    ck_assert_uint_eq(page->state, BHI_PAGE_ACTIVE);
    ck_assert_ptr_eq(atomic_load(&page->local_heap), heap);
    ck_assert_invariants();
}
END_TEST

struct batch {
    void **blocks;
    uint32_t n;
};

static void *free_batch(void *arg)
{
    struct batch *b = arg;
    for (uint32_t i = 0; i < b->n; i++)
        bh_free(b->blocks[i]);
    return NULL;
}

static size_t stack_length(const bhi_page_t *wanted)
{
    size_t n = 0;
    for (bhi_page_t *page = atomic_load(&heap->pending); page != NULL; page = atomic_load(&page->pending_next))
        n += page == wanted;
    return n;
}

/* Four threads free the blocks of one full page at once: one push. */
START_TEST(one_signal_for_each_filling)
{
    for (int round = 0; round < 30; round++) {
        uint32_t n = fill_page(32, blocks);
        bhi_page_t *page = page_of(blocks[0]);
        struct batch batch[4];
        pthread_t threads[4];
        ck_assert_uint_eq(stack_length(page), 0);
        for (uint32_t t = 0; t < 4; t++) {
            batch[t].blocks = blocks + 1 + t * 400;
            batch[t].n = 400;
            ck_assert_uint_lt(1 + (t + 1) * 400, n);
            pthread_create(&threads[t], NULL, free_batch, &batch[t]);
        }
        for (int t = 0; t < 4; t++)
            pthread_join(threads[t], NULL);
        ck_assert_uint_eq(stack_length(page), 1);
        ck_assert_uint_eq(atomic_load(&page->remote) & 0xffffffffu, BHI_REMOTE_QUEUED);
        ck_assert_uint_eq(bhi_page_live(page), n);
        ck_assert_uint_eq(page->state, BHI_PAGE_FULL);
        bhi_heap_drain(heap, SIZE_MAX);
        ck_assert_uint_eq(bhi_page_live(page), n - 1600);
        ck_assert_uint_eq(page->state, BHI_PAGE_ACTIVE);
        ck_assert_uint_eq(stack_length(page), 0);
        ck_assert_invariants();
    }
}
END_TEST

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#define FULL_PAGES 18000
static void *of_full[FULL_PAGES];

/* Time of 200 generic allocations, the least of many tries. */
static double cost(void)
{
    double best = 1e9;
    for (int i = 0; i < 30; i++) {
        void *p[200];
        double before = seconds();
        for (int k = 0; k < 200; k++)
            p[k] = bh_malloc(8192 - (size_t)k);
        double took = seconds() - before;
        best = took < best ? took : best;
        for (int k = 0; k < 200; k++)
            bh_free(p[k]);
    }
    return best;
}

START_TEST(many_full_pages_cost_the_search_nothing)
{
    heap = bhi_thread_heap_get();
    double before = cost();
    const size_t size = 8192; /* seven blocks a page */
    size_t pages = 0;
    bhi_page_t *last = NULL;
    while (pages < FULL_PAGES) {
        void *p = bh_malloc(size);
        ck_assert_ptr_nonnull(p);
        if (page_of(p) != last) {
            last = page_of(p);
            of_full[pages++] = p;
        }
    }
    size_t in_queue = 0, full = 0;
    for (bhi_page_t *page = heap->queues[last->size_class].first; page != NULL; page = page->next)
        in_queue++;
    for (bhi_page_t *page = heap->full.first; page != NULL; page = page->next)
        full++;
    ck_assert_uint_le(in_queue, 1);
    ck_assert_uint_ge(full, FULL_PAGES - 1);
    double after = cost();
    ck_assert_msg(after < before * 3 + 20e-6, "%.1f us before, %.1f us with full pages", before * 1e6, after * 1e6);
    /* Every page comes back with its first free, and is found again. */
    for (size_t i = 0; i < FULL_PAGES; i += 3)
        bh_free(of_full[i]);
    size_t count = heap->page_count;
    for (size_t i = 0; i < FULL_PAGES; i += 3)
        ck_assert_ptr_nonnull(bh_malloc(size));
    ck_assert_uint_le(heap->page_count, count + 1);
    const char *text = inv_heap(heap);
    ck_assert_msg(text == NULL, "%s", text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("heap_full");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, a_local_free_brings_the_page_back);
    tcase_add_test(c, one_signal_for_each_filling);
    tcase_add_test(c, many_full_pages_cost_the_search_nothing);
    suite_add_tcase(s, c);
    return unit_main(s);
}
