/* core/zero.c: blocks for requests of 0 bytes, by every way of asking. */
#include "core/zero.h"

#include "bulkhead.h"
#include "core/heap.h"
#include "core/thread.h"
#include "invariants.h"
#include "os/os.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define MANY 18000
#define MILLION 1000000

static void *blocks[MILLION];
static uint64_t seed;

/* What every zero-size block must be. */
static void check_block(void *p, size_t align)
{
    ck_assert_ptr_nonnull(p);
    ck_assert_msg((uintptr_t)p % align == 0, "%p is not aligned to %zu", p, align);
    ck_assert_uint_eq(bh_usable_size(p), 0);
    ck_assert_msg(!BH_HARDEN_GUARDS || !unit_readable((uintptr_t)p), "%p can be read", p);
    ck_assert(bh_check_owned(p) && !bh_check_owned((char *)p + 1));
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;
    return (x > y) - (x < y);
}

static void check_unique(void **p, size_t n)
{
    qsort(p, n, sizeof *p, by_address);
    for (size_t i = 1; i < n; i++)
        ck_assert_ptr_ne(p[i - 1], p[i]);
}

static void shuffle(void **p, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t k = unit_below(&seed, (uint32_t)i);
        void *t = p[i - 1];
        p[i - 1] = p[k];
        p[k] = t;
    }
}

/* ----------------------------------------------------------- ways of asking */

static void *ask(int way, bh_heap_t *heap, size_t align)
{
    void *p = NULL;
    switch (way) {
    case 0: return bh_malloc(0);
    case 1: return bh_calloc(0, 100);
    case 2: return bh_calloc(100, 0);
    case 3: return bh_realloc(NULL, 0);
    case 4: return bh_zalloc(0);
    case 5: return bh_heap_malloc(heap, 0);
    case 6: return bh_heap_realloc(heap, NULL, 0);
    case 7: return bh_aligned_alloc(align, 0);
    case 8: return bh_aligned_zalloc(align, 0);
    case 9: return bh_heap_aligned_alloc(heap, align, 0);
    default: ck_assert_int_eq(bh_posix_memalign(&p, align < 8 ? 8 : align, 0), 0); return p;
    }
}
#define WAYS 11

START_TEST(every_way_of_asking)
{
    static const size_t aligns[] = {1, 8, 16, 32, 64, 1024, 2048, 4096, 32768, 65536, 131072, MIB, 4 * MIB, 8 * MIB, 64 * MIB};
    bh_heap_t *heap = bh_heap_new();
    void *p[WAYS * sizeof aligns / sizeof aligns[0] * 3];
    size_t n = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
            for (int way = 0; way < WAYS; way++) {
                p[n] = ask(way, heap, aligns[i]);
                check_block(p[n], way >= 7 && aligns[i] > 16 ? aligns[i] : 16);
                n++;
            }
        }
        ck_assert_invariants();
    }
    check_unique(p, n);
    for (size_t i = 0; i < n; i++)
        bh_free(p[i]);
    bh_heap_delete(heap);
    ck_assert_invariants();
}
END_TEST

START_TEST(aligned_at_an_offset)
{
    static const size_t offsets[] = {1, 8, 16, 100, 4095, 4096, 65535};
    for (size_t align = 32; align <= 65536; align *= 2) {
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
            char *p = bh_aligned_alloc_at(align, 0, offsets[i]);
            ck_assert_uint_eq(((uintptr_t)p + offsets[i]) % align, 0);
            check_block(p, 1);
            bh_free(p);
        }
    }
    ck_assert_invariants();
}
END_TEST

START_TEST(sized_frees)
{
    bh_free_sized(bh_malloc(0), 0);
    bh_free_aligned_sized(bh_aligned_alloc(64, 0), 64, 0);
    bh_free_aligned_sized(bh_aligned_alloc(65536, 0), 65536, 0);
    bh_free_aligned_sized(bh_aligned_alloc(8 * MIB, 0), 8 * MIB, 0);
    ck_assert_uint_eq(bh_good_size(0), 0);
    ck_assert_invariants();
}
END_TEST

START_TEST(resizing_moves)
{
    void *p = bh_malloc(0);
    ck_assert_ptr_null(bh_expand(p, 1));
    ck_assert_ptr_eq(bh_expand(p, 0), p);
    unsigned char *q = bh_realloc(p, 100);
    ck_assert(q != p && bh_usable_size(q) >= 100 && (!BH_HARDEN_MAP || !bh_check_owned(p)));
    memset(q, 1, 100);
    ck_assert_ptr_null(bh_realloc(q, 0)); /* frees */
    q = bh_rezalloc(bh_malloc(0), 50);
    ck_assert(unit_is(q, bh_usable_size(q), 0));
    bh_free(q);
    q = bh_recalloc(bh_malloc(0), 7, 9);
    ck_assert(unit_is(q, bh_usable_size(q), 0));
    bh_free(q);
    q = bh_aligned_realloc(bh_malloc(0), 128, 50);
    ck_assert_uint_eq((uintptr_t)q % 128, 0);
    bh_free(q);
    p = bh_aligned_alloc_at(4096, 0, 1); /* one with a span of its own */
    q = bh_realloc(p, 3 * 65536);
    ck_assert_ptr_ne(q, p);
    memset(q, 1, 3 * 65536);
    bh_free(q);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------------ in bulk */

START_TEST(many_blocks)
{
    seed = unit_seed("many");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++)
            blocks[i] = bh_malloc(0);
        for (int i = 0; i < MANY; i += 97)
            check_block(blocks[i], 16);
        check_unique(blocks, MANY);
        shuffle(blocks, MANY);
        for (int i = 0; i < MANY / 2; i++) {
            bh_free(blocks[i]);
            blocks[i] = bh_malloc(0);
        }
        check_unique(blocks, MANY);
        ck_assert_uint_le(bhi_thread_heap->page_count, MANY / BHI_ZERO_BLOCKS + 4);
        ck_assert_ptr_eq(bhi_thread_heap->direct[0], bhi_heap_empty.direct[0]);
        ck_assert_invariants();
        shuffle(blocks, MANY);
        for (int i = 0; i < MANY; i++)
            bh_free(blocks[i]);
        bh_collect(round == 1);
        ck_assert_invariants();
    }
}
END_TEST

static size_t resident(void)
{
    char text[100];
    long n = bhi_os_read_file("/proc/self/statm", text, sizeof text - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    const char *second = strchr(text, ' ');
    ck_assert_ptr_nonnull(second);
    return strtoul(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

/* 16 bytes of address space and two bytes of map each. */
START_TEST(a_million_blocks)
{
    bh_free(bh_malloc(0));
    memset(blocks, 1, sizeof blocks);
    size_t before = resident();
    for (int i = 0; i < MILLION; i++)
        blocks[i] = bh_malloc(0);
    size_t growth = resident() - before;
#if !BH_SANITIZED
    ck_assert_msg(growth <= 3 * MIB, "%zu bytes for a million blocks", growth);
#endif
    ck_assert_uint_le(unit_mappings(bhi_process.block_base, bhi_process.block_size), 100);
    check_unique(blocks, MILLION);
    for (int i = 0; i < MILLION; i++)
        bh_free(blocks[i]);
    ck_assert_invariants();
    (void)growth;
}
END_TEST

/* Their slots serve pages of all kinds before and after. */
START_TEST(slots_change_their_use)
{
    enum { LIVE = 6000 };
    seed = unit_seed("use");
    memset(blocks, 0, sizeof blocks);
    static const size_t of[] = {0, 0, 0, 24, 500, 9000, 150000};
    for (int round = 0; round < 60; round++) {
        size_t wanted = of[round % 7];
        for (int i = 0; i < (wanted < 9000 ? LIVE : LIVE / 50); i++) {
            size_t k = unit_below(&seed, LIVE), n = unit_below(&seed, 8) == 0 ? of[unit_below(&seed, 7)] : wanted;
            bh_free(blocks[k]);
            blocks[k] = bh_malloc(n);
            memset(blocks[k], 0xdd, bh_usable_size(blocks[k]));
        }
        for (int i = 0; i < LIVE && round % 3 == 2; i++) {
            bh_free(blocks[i]);
            blocks[i] = NULL;
        }
        if (round % 5 == 0)
            bh_collect(round % 2 == 0);
        if (round % 6 == 0)
            ck_assert_invariants();
    }
    ck_assert_invariants();
}
END_TEST

/* Which block comes next cannot be told from the one before. */
START_TEST(order_is_random)
{
    unsigned behind = 0, back = 0;
    uintptr_t last = (uintptr_t)bh_malloc(0);
    for (int i = 0; i < 2000; i++) {
        uintptr_t p = (uintptr_t)bh_malloc(0);
        behind += p == last + BHI_ZERO_STEP;
        last = p;
    }
    for (int i = 0; i < 2000; i++) {
        void *p = bh_malloc(0);
        bh_free(p);
        void *q = bh_malloc(0);
        back += p == q;
        bh_free(q);
    }
    /* Expected: less than one, and one. */
    ck_assert_msg(behind < 30 && back < 30, "%u directly behind, %u come back at once", behind, back);
}
END_TEST

/* -------------------------------------------------------- threads, fork, heaps */

static void *free_them(void *arg)
{
    for (int i = 0; i < MANY; i++)
        bh_free(blocks[i]);
    return arg;
}

static void *allocate_them(void *arg)
{
    for (int i = 0; i < MANY; i++)
        blocks[i] = i % 100 == 0 ? bh_aligned_alloc(4096, 0) : bh_malloc(0);
    return arg;
}

START_TEST(freed_by_another_thread)
{
    for (int round = 0; round < 20; round++) {
        allocate_them(NULL);
        check_unique(blocks, MANY);
        unit_thread(free_them, NULL);
        ck_assert_uint_le(bhi_thread_heap->page_count, 3 * (MANY / BHI_ZERO_BLOCKS + MANY / 100 / 15));
    }
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

START_TEST(their_thread_ends)
{
    for (int round = 0; round < 10; round++) {
        unit_thread(allocate_them, NULL);
        check_unique(blocks, MANY);
        for (int i = 0; i < MANY; i += 2)
            bh_free(blocks[i]);
        void *p[4000]; /* from pages of the ended thread too */
        for (int i = 0; i < 4000; i++)
            check_block(p[i] = bh_malloc(0), 16);
        for (int i = 1; i < MANY; i += 2)
            bh_free(blocks[i]);
        for (int i = 0; i < 4000; i++)
            bh_free(p[i]);
        bh_collect(true);
        ck_assert_invariants();
    }
    bh_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_stats_get(&s));
    ck_assert_uint_lt(s.page_count, 100);
}
END_TEST

static void in_child(void *arg)
{
    free_them(arg);
    allocate_them(arg);
    check_unique(blocks, MANY);
    for (int i = 0; i < MANY; i += 97)
        check_block(blocks[i], 16);
    free_them(arg);
    ck_assert_invariants();
}

START_TEST(across_fork)
{
    allocate_them(NULL);
    unit_assert_quiet(in_child, NULL);
    free_them(NULL);
    ck_assert_invariants();
}
END_TEST

static bool count_block(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg)
{
    (void)heap;
    ck_assert_uint_eq(area->block_size, 0);
    ck_assert_uint_eq(block_size, 0);
    if (block != NULL)
        (*(size_t *)arg)++;
    return true;
}

START_TEST(of_a_heap)
{
    bh_heap_t *heap = bh_heap_new();
    size_t seen = 0;
    for (int i = 0; i < 5000; i++)
        blocks[i] = bh_heap_malloc(heap, 0);
    bh_heap_stats_t s = {.struct_size = sizeof s};
    ck_assert(bh_heap_stats_get(heap, &s));
    ck_assert(s.used_count == 5000 && s.used_bytes == 0);
    if (BH_HARDEN_MAP) {
        ck_assert(bh_heap_visit_blocks(heap, true, count_block, &seen));
        ck_assert_uint_eq(seen, 5000);
    }
    for (int i = 0; i < 2500; i++) {
        ck_assert(bh_heap_contains_block(heap, blocks[i]));
        bh_free(blocks[i]);
    }
    bh_heap_destroy(heap);
    ck_assert_invariants();
    heap = bh_heap_new();
    blocks[0] = bh_heap_malloc(heap, 0);
    bh_heap_delete(heap);
    bh_free(blocks[0]);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------------- misuse */

static void *free_it(void *p)
{
    bh_free(p);
    return NULL;
}

static void free_twice(void *arg)
{
    void *p = bh_malloc(0);
    bh_free(p);
    if (*(int *)arg != 0)
        unit_thread(free_it, p);
    else
        bh_free(p);
}

static void free_remote_then(void *arg)
{
    void *p = bh_malloc(0);
    unit_thread(free_it, p);
    if (*(int *)arg != 0)
        unit_thread(free_it, p);
    else
        bh_free(p);
}

static void free_after_release(void *arg)
{
    (void)arg;
    void *p = bh_malloc(0);
    bh_free(p);
    bh_collect(true);
    bh_free(p);
}

static void free_alone_twice(void *arg)
{
    (void)arg;
    void *p = bh_aligned_alloc_at(64, 0, 1);
    bh_free(p);
    bh_free(p);
}

static void free_inside(void *arg)
{
    bh_free((char *)bh_malloc(0) + *(int *)arg);
}

static void resize_freed(void *arg)
{
    (void)arg;
    void *p = bh_malloc(0);
    bh_free(p);
    p = bh_realloc(p, 10);
}

static void ask_freed(void *arg)
{
    (void)arg;
    void *p = bh_malloc(0);
    bh_free(p);
    bh_usable_size(p);
}

static void wrong_size(void *arg)
{
    (void)arg;
    bh_free_sized(bh_malloc(0), 1);
}

START_TEST(misuse_is_found)
{
    if (!BH_HARDEN_MAP)
        return;
    int no = 0, one = 1, eight = 8;
    unit_assert_violation(free_twice, &no, "double-free");
    unit_assert_violation(free_twice, &one, "double-free");
    unit_assert_violation(free_remote_then, &no, "double-free");
    unit_assert_violation(free_remote_then, &one, "double-free");
    unit_assert_violation(free_after_release, NULL, "double-free");
    unit_assert_violation(free_alone_twice, NULL, "double-free");
    unit_assert_violation(free_inside, &one, "invalid-free");
    unit_assert_violation(free_inside, &eight, "invalid-free");
    unit_assert_violation(resize_freed, NULL, "realloc-after-free");
    unit_assert_violation(ask_freed, NULL, "query-after-free");
    unit_assert_violation(wrong_size, NULL, "size-mismatch");
}
END_TEST

/* -------------------------------------------------- a kernel that refuses */

static int refuse(bhi_os_call_t call)
{
    return call == BHI_OS_GUARD || call == BHI_OS_PROCESS_MADVISE || call == BHI_OS_MPROTECT ? -EPERM : 0;
}

/* Memory that was used before and cannot be closed: counted, and no failure. */
START_TEST(no_guard_is_no_failure)
{
    if (!BH_HARDEN_GUARDS)
        return;
    for (int i = 0; i < MANY; i++) /* so that there is control memory for their pages */
        ck_assert_ptr_nonnull(blocks[i] = bh_malloc(0));
    free_them(NULL);
    bh_collect(false);
    for (int i = 0; i < MANY; i++)
        memset(blocks[i] = bh_malloc(1000), 0xdd, 1000);
    free_them(NULL);
    bh_collect(false);
    size_t missed = atomic_load(&bhi_state->guard_missed);
    bhi_os_fail_hook = refuse;
    for (int i = 0; i < MANY; i++) {
        ck_assert_ptr_nonnull(blocks[i] = bh_malloc(0));
        ck_assert_uint_eq(bh_usable_size(blocks[i]), 0);
    }
    bhi_os_fail_hook = NULL;
    check_unique(blocks, MANY);
    size_t now = atomic_load(&bhi_state->guard_missed);
    ck_assert_msg((now > missed || bhi_process.options.purge_delay == 0) && now <= missed + MANY / BHI_ZERO_BLOCKS + 2, "%zu guards missed", now - missed);
    free_them(NULL);
    bh_collect(true);
    for (int i = 0; i < MANY; i++)
        memset(blocks[i] = bh_malloc(1000), 0xdd, 1000);
    free_them(NULL);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("zero");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, every_way_of_asking);
    tcase_add_test(c, aligned_at_an_offset);
    tcase_add_test(c, sized_frees);
    tcase_add_test(c, resizing_moves);
    tcase_add_test(c, many_blocks);
    tcase_add_test(c, a_million_blocks);
    tcase_add_test(c, slots_change_their_use);
    tcase_add_test(c, order_is_random);
    tcase_add_test(c, freed_by_another_thread);
    tcase_add_test(c, their_thread_ends);
    tcase_add_test(c, across_fork);
    tcase_add_test(c, of_a_heap);
    tcase_add_test(c, misuse_is_found);
    if (!unit_is_hardened())
        tcase_add_test(c, no_guard_is_no_failure);
    suite_add_tcase(s, c);
    return unit_main(s);
}
