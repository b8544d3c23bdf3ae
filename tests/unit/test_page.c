/* core/page.c: growth, lists, remote frees taken back, release. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/page.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "os/os.h"
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

static void *other_frees(void *p)
{
    bh_free(p);
    return NULL;
}

/* Fills one page of every class and empties it again in a random order. */
START_TEST(every_class_fills_and_empties)
{
    start();
    uint64_t seed = unit_seed("page");
    static void *blocks[1 << 17]; /* 8-byte blocks of the largest slot */
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        void *p = bh_malloc(size);
        bhi_page_t *page = page_of(p);
        uint32_t n = 0;
        do {
            blocks[n++] = p;
            memset(p, (int)c + 1, size);
            p = bh_malloc(size);
        } while (page_of(p) == page);
        ck_assert_uint_eq(n, page->reserved);
        ck_assert_uint_eq(bhi_page_live(page), n);
        ck_assert_uint_eq(page->state, BHI_PAGE_FULL);
        for (uint32_t i = n; i > 1; i--) { /* shuffle */
            uint32_t k = unit_below(&seed, i);
            void *swap = blocks[i - 1];
            blocks[i - 1] = blocks[k];
            blocks[k] = swap;
        }
        for (uint32_t i = 0; i < n; i++) {
            ck_assert_uint_eq(((unsigned char *)blocks[i])[size - 1], c + 1);
            bh_free(blocks[i]);
            if (i == n / 2)
                ck_assert_ptr_null(inv_page(page));
        }
        bh_free(p);
    }
    bh_collect(true);
    ck_assert_uint_eq(heap->page_count, 0);
    ck_assert_invariants();
}
END_TEST

/* A program that needs few blocks touches few OS pages. */
START_TEST(pages_grow_with_what_is_used)
{
    start();
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        void *blocks[64];
        uint32_t most = bhi_class_size(c) <= BH_OS_PAGE_SIZE / 64 ? 64 : 0;
        for (uint32_t n = 0; n < 64 && n < bhi_class_blocks(c); n++) {
            blocks[n] = bh_malloc(bhi_class_size(c));
            ck_assert_uint_le(page_of(blocks[n])->listed, most != 0 ? most - 1 : 2 * n); /* twice what is in use */
        }
        for (uint32_t n = 0; n < 64 && n < bhi_class_blocks(c); n++)
            bh_free(blocks[n]);
    }
    ck_assert_invariants();
}
END_TEST

/* How often the next block lies right behind the last one, in the first 64 of a
 * page or in all of it: n - 1 times 1/n on average in a true permutation of n. */
START_TEST(blocks_come_in_random_order)
{
    start();
    enum { ROUNDS = 400 };
    for (unsigned c = 0; BH_HARDEN_RANDOM && c < BHI_CLASSES; c += 11) {
        uint32_t n = bhi_class_blocks(c) < 64 ? bhi_class_blocks(c) : 64;
        unsigned behind = 0, first[64] = {0};
        for (unsigned round = 0; round < ROUNDS; round++) {
            char *blocks[64] = {NULL};
            for (uint32_t i = 0; i < n; i++) {
                blocks[i] = bh_malloc(bhi_class_size(c));
                behind += i > 0 && blocks[i] == blocks[i - 1] + bhi_class_size(c);
            }
            first[((uintptr_t)blocks[0] - page_of(blocks[0])->start) / bhi_class_size(c) % 64]++;
            for (uint32_t i = 0; i < n; i++)
                bh_free(blocks[i]);
            bh_collect(true); /* a new page */
        }
        /* Expected ROUNDS * (n - 1) / n < 400, standard deviation below 20. */
        ck_assert_uint_lt(behind, ROUNDS + 140);
        ck_assert_uint_gt(behind, ROUNDS * (n - 1) / n - 140);
        for (uint32_t i = 0; i < n; i++) /* expected ROUNDS / n; beyond by chance once in 10^9 */
            ck_assert_uint_lt(first[i], ROUNDS / n + 7 * 8 + 10);
    }
    ck_assert_invariants();
}
END_TEST

/* A block that was just freed comes back after as many others as blocks must have
 * gathered: in a new page, behind many live ones, and where only one is free. */
START_TEST(freed_blocks_come_back_late)
{
    start();
    enum { PAIRS = 20000, LAST = 8 };
    static const size_t sizes[] = {8, 16, 64, 128, 256};
    for (unsigned s = 0; BH_HARDEN_RANDOM && s < sizeof sizes / sizeof *sizes; s++) {
        for (unsigned live = 0; live < 3; live++) {
            unsigned class = bhi_class_of(sizes[s]), keep = live == 0 ? 0 : live == 1 ? 1000 : bhi_class_blocks(class);
            static void *kept[1 << 17], *last[LAST];
            ck_assert_uint_le(keep, sizeof kept / sizeof *kept);
            for (unsigned i = 0; i < keep; i++)
                kept[i] = bh_malloc(sizes[s]);
            unsigned soon = 0;
            for (unsigned i = 0; i < PAIRS; i++) {
                void *p = bh_malloc(sizes[s]);
                for (unsigned k = 0; k < LAST; k++)
                    soon += p == last[k];
                last[i % LAST] = p;
                bh_free(p);
            }
            ck_assert_msg(soon < PAIRS / 8, "%zu bytes, %u live: %u of %u", sizes[s], keep, soon, PAIRS);
            for (unsigned i = 0; i < keep; i++)
                bh_free(kept[i]);
            bh_collect(true);
        }
    }
    ck_assert_invariants();
}
END_TEST

START_TEST(remote_frees_are_taken_back)
{
    start();
    enum { N = 500 };
    void *blocks[N];
    for (int i = 0; i < N; i++)
        blocks[i] = bh_malloc(64);
    bhi_page_t *page = page_of(blocks[0]);
    uint32_t used = bhi_page_live(page);
    for (int i = 0; i < N; i += 2)
        unit_thread(other_frees, blocks[i]);
    ck_assert((atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0);
    ck_assert_uint_eq(bhi_page_live(page), used); /* held ones still count */
    ck_assert_invariants();
    bhi_heap_drain(heap, SIZE_MAX);
    ck_assert_uint_lt(bhi_page_live(page), used);
    ck_assert_uint_eq(atomic_load(&page->remote), 0);
    ck_assert_invariants();
    for (int i = 1; i < N; i += 2)
        bh_free(blocks[i]);
    ck_assert_invariants();
}
END_TEST

/* Groups are taken in refill without the stack; QUEUED stays, and the signal
 * on the stack is harmless later. */
START_TEST(refill_takes_remote_frees_itself)
{
    start();
    void *first = bh_malloc(4096);
    bhi_page_t *page = page_of(first);
    void *blocks[64];
    uint32_t n = 1;
    blocks[0] = first;
    while (bhi_page_live(page) < page->reserved)
        blocks[n++] = bh_malloc(4096);
    ck_assert_uint_eq(page->state, BHI_PAGE_ACTIVE);
    unit_thread(other_frees, blocks[3]);
    ck_assert(bhi_page_refill(page));
    ck_assert_uint_eq(atomic_load(&page->remote), BHI_REMOTE_QUEUED);
    ck_assert_invariants();
    void *again = bhi_page_pop(page);
    ck_assert_ptr_eq(again, blocks[3]);
    bhi_heap_drain(heap, SIZE_MAX);
    ck_assert_uint_eq(atomic_load(&page->remote), 0);
    ck_assert_invariants();
    for (uint32_t i = 0; i < n; i++)
        bh_free(blocks[i]);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

/* An empty page is not released while a signal for it is under way. */
START_TEST(release_waits_for_a_signal)
{
    start();
    void *p = bh_malloc((size_t)200 << 10);
    bhi_page_t *page = page_of(p);
    atomic_fetch_or(&page->remote, BHI_REMOTE_QUEUED); /* a thread on its way */
    bh_free(p);
    ck_assert_uint_eq(page->state, BHI_PAGE_LARGE);
    ck_assert_ptr_eq(atomic_load(&page->heap), heap);
    bhi_page_signal(page); /* arrives */
    bhi_heap_drain(heap, SIZE_MAX);
    ck_assert_uint_eq(page->state, BHI_PAGE_FREE);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

/* A signal that arrives after the release takes its own QUEUED bit back. */
START_TEST(a_late_signal_finds_no_page)
{
    start();
    void *p = bh_malloc((size_t)200 << 10);
    bhi_page_t *page = page_of(p);
    bh_free(p);
    ck_assert_uint_eq(page->state, BHI_PAGE_FREE);
    atomic_store(&page->remote, BHI_REMOTE_QUEUED | (uint64_t)5 << BHI_REMOTE_GROUP_BIT);
    bhi_page_signal(page);
    ck_assert_uint_eq(atomic_load(&page->remote), 0);
    ck_assert_ptr_null(atomic_load(&heap->pending));
    ck_assert_invariants();
}
END_TEST

/* Within its usable size a block carries nothing of a former page: neither
 * links nor keys, whatever class the memory served before. */
static void no_residue(size_t before, size_t after)
{
    enum { N = 3000 };
    static void *blocks[N];
    size_t n = before > 1024 ? 200 : N;
    for (size_t i = 0; i < n; i++) {
        blocks[i] = bh_malloc(before);
        memset(blocks[i], 0, before);
    }
    for (size_t i = 0; i < n; i++)
        bh_free(blocks[i]);
    bh_collect(false);
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = bh_malloc(after);
        ck_assert_msg(unit_is(blocks[i], bh_usable_size(blocks[i]), 0), "%zu after %zu: not as the program left it", after, before);
    }
    for (size_t i = 0; i < 200; i++)
        bh_free(blocks[i]);
}

static int refuse_purges(bhi_os_call_t call)
{
    return call == BHI_OS_MADVISE || call == BHI_OS_MMAP ? EINVAL : 0;
}

START_TEST(recycled_pages_carry_no_residue)
{
    static const size_t sizes[] = {8, 16, 48, 1024, 5000, 20000};
    start();
    for (int refused = 0; refused < 2; refused++) {
        bhi_os_fail_hook = refused ? refuse_purges : NULL;
        for (size_t i = 0; i < 6; i++) {
            for (size_t k = 0; k < 6; k++)
                no_residue(sizes[i], sizes[k]);
            no_residue(sizes[i], (size_t)140 << 10);
        }
    }
    bhi_os_fail_hook = NULL;
    ck_assert_invariants();
}
END_TEST

/* A page of 32-byte blocks that were reached in part only leaves behind what 128-byte
 * blocks held there before: the next one of its class must not show that. */
START_TEST(what_was_not_reached_is_another_s)
{
    start();
    enum { wide = 500, narrow = 2000 };
    static unsigned char *blocks[narrow];
    if (!BH_HARDEN_CLEAR)
        return;
    for (unsigned i = 0; i < wide; i++)
        memset(blocks[i] = bh_malloc(128), 0xcc, 128);
    for (unsigned i = 0; i < wide; i++)
        bh_free(blocks[i]);
    bh_collect(false);
    bh_free(bh_malloc(32));
    bh_collect(false);
    for (unsigned i = 0; i < narrow; i++) {
        blocks[i] = bh_malloc(32);
        for (unsigned k = 0; k < 32; k++)
            ck_assert_msg(blocks[i][k] != 0xcc, "block %u shows what a wider one held", i);
    }
    for (unsigned i = 0; i < narrow; i++)
        bh_free(blocks[i]);
}
END_TEST

/* A page that ends and comes again goes on with the blocks that the program had touched,
 * rather than with some that lie in other OS pages. */
START_TEST(a_page_goes_on_where_the_last_one_ended)
{
    start();
    enum { touched = 16 };
    void *blocks[touched];
    bool at_once = atomic_load(&bhi_settings.purge_delay) == 0; /* then nothing is left */
    if (!BH_HARDEN_CLEAR || !BH_HARDEN_MAP || at_once)
        return;
    for (unsigned i = 0; i < touched; i++)
        blocks[i] = bh_malloc(1000);
    const bhi_page_t *page = page_of(blocks[0]);
    for (unsigned i = 0; i < touched; i++)
        bh_free(blocks[i]);
    bh_collect(false);
    ck_assert_uint_eq(page->state, BHI_PAGE_FREE);
    for (unsigned i = 0; i < touched; i++) {
        const void *p = bh_malloc(1000);
        ck_assert_ptr_eq(page_of(p), page);
        unsigned k = 0;
        while (k < touched && blocks[k] != p)
            k++;
        ck_assert_msg(k < touched, "block %u was not touched before", i);
    }
    ck_assert_invariants();
}
END_TEST

/* What an entry says is checked before its block is handed out. */
static void corrupt_free_head(void *arg)
{
    (void)arg;
    void *p = bh_malloc(24);
    bhi_page_t *page = page_of(p);
    bhi_list(page, 0)[page->listed - 1] = bhi_list_code(page, bhi_page_capacity(page));
    bhi_list_lead(page, page->listed);
    for (int i = 0; i < 100000; i++)
        bhi_free(bh_malloc(24));
}

static void live_list_head(void *arg)
{
    (void)arg;
    void *p = bh_malloc(24);
    bhi_page_t *page = page_of(p);
    uint32_t live = (uint32_t)((uintptr_t)p - page->start) / page->block_size;
    bhi_list(page, 0)[page->listed - 1] = bhi_list_code(page, live);
    bhi_list_lead(page, page->listed);
    for (int i = 0; i < 100000; i++)
        p = bh_malloc(24);
}

/* What malloc takes next is written down twice: either alone is of no use. */
static void moved_top(void *arg)
{
    (void)arg;
    bhi_page_t *page = page_of(bh_malloc(24));
    page->top_place = (page->top_place + page->block_size) & BH_LIST_PLACE;
    bh_free(bh_malloc(24));
}

static void other_top(void *arg)
{
    (void)arg;
    bhi_page_t *page = page_of(bh_malloc(24));
    page->top ^= 1;
    bh_free(bh_malloc(24));
}

START_TEST(damaged_lists_end_the_process)
{
    start();
    if (!BH_HARDEN_MAP)
        return;
    unit_assert_violation(corrupt_free_head, NULL, "corrupt-list");
    unit_assert_violation(live_list_head, NULL, "corrupt-list");
    unit_assert_violation(moved_top, NULL, "corrupt-list");
    unit_assert_violation(other_top, NULL, "corrupt-list");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("page");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, every_class_fills_and_empties);
    tcase_add_test(c, pages_grow_with_what_is_used);
    tcase_add_test(c, blocks_come_in_random_order);
    tcase_add_test(c, freed_blocks_come_back_late);
    tcase_add_test(c, remote_frees_are_taken_back);
    tcase_add_test(c, refill_takes_remote_frees_itself);
    tcase_add_test(c, release_waits_for_a_signal);
    tcase_add_test(c, a_late_signal_finds_no_page);
    tcase_add_test(c, recycled_pages_carry_no_residue);
    tcase_add_test(c, what_was_not_reached_is_another_s);
    tcase_add_test(c, a_page_goes_on_where_the_last_one_ended);
    tcase_add_test(c, damaged_lists_end_the_process);
    suite_add_tcase(s, c);
    return unit_main(s);
}
