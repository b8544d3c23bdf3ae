/* core/visit.c and the queries of api/inspect.c against an independent record
 * of what is live, over random operations, heaps and other threads' frees. */
#include "bulkhead.h"
#include "core/stats.h"
#include "core/thread.h"
#include "invariants.h"
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HEAPS 4 /* of them 0: the default heap */
#define MOST 3000

typedef struct record {
    uintptr_t at;
    size_t usable;
    int heap;
    bool seen;
} record_t;

/* Static, so that the record takes nothing from the heaps that it describes. */
static record_t records[MOST];
static size_t record_count;
static bh_heap_t *heaps[HEAPS];

static int by_address(const void *a, const void *b)
{
    const record_t *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static record_t *find(uintptr_t at)
{
    size_t low = 0, high = record_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (records[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < record_count && records[low].at == at ? &records[low] : NULL;
}

typedef struct tally {
    int heap;
    size_t areas, blocks, said; /* said: by the areas' `used` */
    bh_heap_area_t area;
} tally_t;

static bool visitor(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    tally_t *t = arg;
    ck_assert_ptr_eq(heap, heaps[t->heap]);
    ck_assert_uint_eq(block_size, area->block_size);
    ck_assert(area->committed <= area->reserved && area->used * area->block_size <= area->committed);
    if (block == NULL) {
        t->areas++;
        t->said += area->used;
        t->area = *area;
        return true;
    }
    ck_assert(memcmp(&t->area, area, sizeof *area) == 0);
    ck_assert_uint_lt((uintptr_t)block - (uintptr_t)area->blocks, area->committed + (block_size == 0));
    record_t *r = find((uintptr_t)block);
    ck_assert_msg(r != NULL, "heap %d: %p is not live", t->heap, block);
    ck_assert_msg(r->heap == t->heap, "heap %d: %p belongs to heap %d", t->heap, block, r->heap);
    ck_assert_msg(!r->seen, "heap %d: %p twice", t->heap, block);
    ck_assert_uint_eq(r->usable, block_size);
    r->seen = true;
    t->blocks++;
    return true;
}

/* All live blocks and nothing else, in every heap. */
static void check_visits(void)
{
    qsort(records, record_count, sizeof records[0], by_address);
    for (int h = 0; h < HEAPS; h++) {
        size_t count = 0, bytes = 0;
        for (size_t i = 0; i < record_count; i++) {
            records[i].seen = records[i].heap != h;
            count += !records[i].seen;
            bytes += records[i].seen ? 0 : records[i].usable;
        }
        tally_t t = {.heap = h};
        ck_assert(bh_heap_visit_blocks(heaps[h], true, visitor, &t));
        ck_assert_uint_eq(t.blocks, count);
        ck_assert_uint_eq(t.said, count);
        for (size_t i = 0; i < record_count; i++)
            ck_assert_msg(records[i].seen, "heap %d: %#lx was not visited", h, (unsigned long)records[i].at);
        tally_t without = {.heap = h};
        ck_assert(bh_heap_visit_blocks(heaps[h], false, visitor, &without));
        ck_assert(without.areas == t.areas && without.blocks == 0 && without.said == count);
        bh_heap_stats_t s = {.struct_size = sizeof s};
        ck_assert(bh_heap_stats_get(heaps[h], &s));
        ck_assert(s.used_count == count && s.used_bytes == bytes && s.page_count >= t.areas && s.page_bytes >= bytes);
    }
}

static void check_queries(uint64_t *seed)
{
    for (int i = 0; i < 200 && record_count > 0; i++) {
        const record_t *r = &records[unit_below(seed, (uint32_t)record_count)];
        const char *p = (const char *)r->at + (i % 3 == 0 ? 0 : unit_random(seed) % (r->usable > 0 ? r->usable : 1));
        ck_assert(bh_check_owned(p) && bh_is_in_heap_region(p));
        for (int h = 0; h < HEAPS; h++)
            ck_assert(bh_heap_contains_block(heaps[h], p) == (h == r->heap));
    }
}

static void add(uint64_t *seed)
{
    uint32_t kind = unit_below(seed, 1000);
    size_t size = unit_below(seed, kind < 800 ? 500 : kind < 970 ? 20000 : kind < 998 ? 400000 : 9000000);
    int h = (int)unit_below(seed, HEAPS);
    void *p = h == 0 ? bh_malloc(size) : bh_heap_malloc(heaps[h], size);
    if (unit_below(seed, 50) == 0) {
        bh_free(p);
        p = h == 0 ? bh_aligned_alloc_at(64, size, 8) : bh_heap_aligned_alloc_at(heaps[h], 64, size, 8);
    }
    ck_assert_ptr_nonnull(p);
    records[record_count++] = (record_t){(uintptr_t)p, bh_usable_size(p), h, false};
}

static record_t take(uint64_t *seed)
{
    uint32_t i = unit_below(seed, (uint32_t)record_count);
    record_t r = records[i];
    records[i] = records[--record_count];
    return r;
}

static void *gone[MOST];
static size_t gone_count;

static void *free_gone(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < gone_count; i++)
        bh_free(gone[i]);
    return NULL;
}

START_TEST(random_operations)
{
    uint64_t seed = unit_seed("visit");
    for (int h = 1; h < HEAPS; h++)
        heaps[h] = bh_heap_new();
    for (int phase = 0; phase < 60; phase++) {
        uint32_t wanted = unit_below(&seed, MOST);
        while (record_count < wanted)
            add(&seed);
        while (record_count > wanted)
            bh_free((void *)take(&seed).at);
        check_visits();
        /* Freed by another thread: dead at once, drained or not. */
        for (gone_count = 0; gone_count < wanted / 3; gone_count++)
            gone[gone_count] = (void *)take(&seed).at;
        unit_thread(free_gone, NULL);
        for (size_t i = 0; i < gone_count; i++)
            ck_assert(!bh_check_owned(gone[i]));
        check_visits();
        check_queries(&seed);
        if (phase % 20 == 0)
            ck_assert_invariants();
        if (phase % 7 == 0) {
            int h = 1 + (int)unit_below(&seed, HEAPS - 1);
            for (size_t i = record_count; i-- > 0;) {
                if (records[i].heap == h)
                    records[i] = records[--record_count];
            }
            bh_heap_destroy(heaps[h]);
            heaps[h] = bh_heap_new();
            check_visits();
        }
    }
}
END_TEST

/* ------------------------------------------------- while other threads free */

#define SHARED 20000
static _Atomic(void *) shared[SHARED]; /* to be freed by the other threads */
static atomic_bool over;

static void *free_and_ask(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    void *own = bh_malloc(100);
    while (!atomic_load(&over)) {
        bh_free(atomic_exchange(&shared[unit_below(&seed, SHARED)], NULL));
        ck_assert(bh_check_owned(own));
        const char *anywhere = (const char *)(bhi_process.block_base + unit_random(&seed) % ((size_t)256 << 20)); /* NOLINT */
        bh_check_owned(anywhere);
        ck_assert(bh_is_in_heap_region(anywhere));
    }
    bh_free(own);
    return NULL;
}

static bool count_kept(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    (void)heap, (void)area;
    if (block != NULL && block_size >= 64 && memcmp(block, "kept", 4) == 0)
        ++*(size_t *)arg;
    return true;
}

START_TEST(while_others_free)
{
    uint64_t seed = unit_seed("visit-others");
    pthread_t threads[3];
    static void *kept[500];
    for (size_t i = 0; i < 500; i++)
        kept[i] = memcpy(bh_malloc(64 + unit_below(&seed, 3000)), "kept", 4);
    for (uintptr_t i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, free_and_ask, (void *)(seed + i)), 0); /* NOLINT */
    for (int round = 0; round < 150; round++) {
        for (int i = 0; i < 3000; i++) {
            size_t n = unit_below(&seed, i % 500 == 0 ? 600000 : 4000);
            void *p = memset(bh_malloc(n + 4), 1, 4);
            bh_free(atomic_exchange(&shared[unit_below(&seed, SHARED)], p));
        }
        size_t n = 0;
        ck_assert(bh_heap_visit_blocks(NULL, true, count_kept, &n));
        ck_assert_uint_eq(n, 500);
        for (int i = 0; i < 500; i += 7)
            ck_assert(bh_check_owned(kept[i]) && bh_heap_contains_block(NULL, (char *)kept[i] + 60));
    }
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < SHARED; i++)
        bh_free(shared[i]);
    for (size_t i = 0; i < 500; i++)
        bh_free(kept[i]);
    bh_collect(true);
    ck_assert_invariants();
    bh_heap_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_heap_stats_get(NULL, &s) && s.used_count == 0);
}
END_TEST

static bool stop(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    (void)heap, (void)area, (void)block_size, (void)block;
    return --*(int *)arg > 0;
}

START_TEST(the_visitor_can_end_it)
{
    for (int i = 0; i < 100; i++)
        ck_assert_ptr_nonnull(bh_malloc(100));
    for (int calls = 1; calls <= 100; calls++) {
        int left = calls;
        ck_assert(!bh_heap_visit_blocks(NULL, true, stop, &left));
        ck_assert_int_eq(left, 0);
    }
}
END_TEST

static void *visit_nothing(void *arg)
{
    int *left = arg;
    ck_assert(bh_heap_visit_blocks(NULL, true, stop, left)); /* no heap yet */
    ck_assert_int_eq(*left, 100);
    bh_heap_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_heap_stats_get(NULL, &s));
    ck_assert(s.page_count == 0 && s.used_count == 0);
    return NULL;
}

START_TEST(a_thread_without_a_heap)
{
    int left = 100;
    unit_thread(visit_nothing, &left);
}
END_TEST

static bool others(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    (void)heap, (void)area, (void)block_size;
    bh_heap_t *other = arg;
    for (size_t n = 1; block != NULL && n < 5000; n += n)
        bh_free(bh_heap_malloc(other, n));
    return true;
}

START_TEST(the_visitor_may_use_other_heaps)
{
    bh_heap_t *a = bh_heap_new(), *b = bh_heap_new();
    for (int i = 0; i < 500; i++)
        ck_assert_ptr_nonnull(bh_heap_malloc(a, 300));
    ck_assert(bh_heap_visit_blocks(a, true, others, b));
    bh_heap_destroy(a);
    bh_heap_destroy(b);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("visit");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    if (BH_HARDEN_MAP) {
        tcase_add_test(c, random_operations);
        tcase_add_test(c, while_others_free);
        tcase_add_test(c, the_visitor_can_end_it);
        tcase_add_test(c, the_visitor_may_use_other_heaps);
    }
    tcase_add_test(c, a_thread_without_a_heap);
    suite_add_tcase(s, c);
    return unit_main(s);
}
