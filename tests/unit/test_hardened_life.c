/* core/hardened.c, blocks over their life: sizes that change, heaps that end, shortage,
 * figures, the end of the process. The program runs in profile hardened. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct shared {
    _Atomic(int) marked;
    _Atomic(double) at; /* seconds of processor time */
} shared_t;
static shared_t *shared;

static void mark(void)
{
    shared->marked = 1;
}

static void assert_found(unit_body_t *body, void *arg, const char *id)
{
    shared->marked = 0;
    unit_assert_violation(body, arg, id);
    ck_assert_msg(shared->marked == 1, "%s before the last step", id);
}

static bhi_page_t *page_of(const void *p)
{
    return bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
}

static void *free_it(void *p)
{
    bh_free(p);
    return NULL;
}

/* One byte behind the block. */
static void overflow(unsigned char *p)
{
    volatile unsigned char *end = p + bh_usable_size(p);
    *end ^= 0xff;
}

static void overflow_and_free(void *p)
{
    overflow(p);
    mark();
    bh_free(p);
}

/* --------------------------------------------------------------------- realloc */

static void resized(unsigned char *p, size_t had, size_t size)
{
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(bh_usable_size(p), size);
    ck_assert(unit_is(p, had < size ? had : size, 0x66));
    memset(p, 0x66, size);
    if (bhi_page_bytes(page_of(p)) != size)
        assert_found(overflow_and_free, p, "overflow");
    ck_assert_uint_eq(bh_verify(), 0);
}

START_TEST(resized_in_place)
{
    for (unsigned c = 4; c < BHI_CLASSES; c += 3) {
        size_t bytes = bhi_class_size(c), most = bytes - BH_CANARY_LEAST, size = most;
        unsigned char *p = bh_malloc(size);
        memset(p, 0x66, size);
        const size_t to[] = {most - 1, most - 7, most, bytes / 2, bytes / 2 - 3, most, bytes / 2 + 1};
        for (unsigned i = 0; i < sizeof to / sizeof to[0]; i++) {
            ck_assert_ptr_eq(bh_realloc(p, to[i]), p);
            resized(p, size, to[i]);
            size = to[i];
        }
        bh_free(p);
    }
    ck_assert_invariants();
}
END_TEST

START_TEST(large_resized_in_place)
{
    size_t size = (size_t)1 << 20;
    unsigned char *p = bh_malloc(size);
    memset(p, 0x66, size);
    const size_t to[] = {size - 1, size - 3, size - 4, size - 5, size - 4095, size - 4096, size - 100000, size};
    for (unsigned i = 0; i < sizeof to / sizeof to[0]; i++) {
        unsigned char *q = bh_realloc(p, to[i]);
        resized(q, size, to[i]);
        p = q;
        size = to[i];
    }
    bh_free(p);
    ck_assert_invariants();
}
END_TEST

static void *resize(void *p)
{
    return bh_realloc(p, bh_usable_size(p) - 1);
}

START_TEST(another_thread_moves_what_it_resizes)
{
    for (size_t size = 10; size < 4000000; size = size * 3 + 1) {
        unsigned char *p = bh_malloc(size);
        memset(p, 0x66, size);
        unsigned char *q = unit_thread(resize, p);
        ck_assert_ptr_ne(p, q);
        ck_assert(bh_usable_size(q) == size - 1 && unit_is(q, size - 1, 0x66));
        bh_free(q);
        ck_assert_uint_eq(bh_verify(), 0);
    }
    ck_assert_invariants();
}
END_TEST

static void resize_overflown(void *p)
{
    overflow(p);
    mark();
    p = bh_realloc(p, bh_usable_size(p) - 1);
}

/* Whatever is added to a size must not wrap. */
START_TEST(sizes_without_end)
{
    for (unsigned c = 1; c < BHI_CLASSES + 8; c++) {
        size_t bytes = c < BHI_CLASSES ? bhi_class_size(c) : (size_t)200000 << (c - BHI_CLASSES), size = bytes - BH_CANARY_LEAST;
        unsigned char *p = bh_malloc(size);
        memset(p, 0x66, size);
        for (size_t less = 0; less < 20; less++) {
            volatile size_t most[] = {SIZE_MAX, PTRDIFF_MAX}; /* the compiler would warn of them */
            for (unsigned i = 0; i < 2; i++) {
                errno = 0;
                void *q = bh_realloc(p, most[i] - less);
                ck_assert(q == NULL && errno == ENOMEM && !bh_expand(p, most[i] - less));
            }
        }
        ck_assert(bh_usable_size(p) == size && unit_is(p, size, 0x66));
        assert_found(resize_overflown, p, "overflow");
        ck_assert_uint_eq(bh_verify(), 0);
        bh_free(p);
    }
}
END_TEST

START_TEST(sizes_and_zeros)
{
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 400000; size = size < 300 ? size + 1 : size * 9 / 8) {
            unsigned char *p = bh_malloc(size), *q = bh_calloc(1, size);
            ck_assert(p != NULL && q != NULL && p != q);
            ck_assert(bh_usable_size(p) == size && bh_usable_size(q) == size);
            ck_assert_msg(unit_is(q, size, 0), "%zu bytes", size);
            memset(p, 0x77, size);
            memset(q, 0x77, size);
            bh_free_sized(p, size);
            bh_free(q);
        }
    }
    ck_assert_uint_eq(bh_verify(), 0);
    ck_assert_invariants();
}
END_TEST

/* ----------------------------------------------------------------------- heaps */

static unsigned char *kept;

static void of_deleted(void *arg)
{
    bh_heap_t *heap = bh_heap_new();
    kept = bh_heap_malloc(heap, *(size_t *)arg);
    bh_heap_delete(heap);
    overflow(kept);
    mark();
    (void)bh_verify();
}

static void of_deleted_at_exit(void *arg)
{
    bh_heap_t *heap = bh_heap_new();
    kept = bh_heap_malloc(heap, *(size_t *)arg);
    bh_heap_delete(heap);
    overflow(kept);
    mark();
    exit(0);
}

static void of_destroyed(void *arg)
{
    bh_heap_t *heap = bh_heap_new();
    kept = bh_heap_malloc(heap, *(size_t *)arg);
    overflow(kept);
    mark();
    bh_heap_destroy(heap);
}

static void written_in_heap(void *arg)
{
    bh_heap_t *heap = bh_heap_new();
    volatile unsigned char *p = bh_heap_malloc(heap, 64);
    kept = bh_heap_malloc(heap, 64);
    bh_free((void *)(uintptr_t)p);
    p[1] = 1;
    mark();
    if (arg == NULL) {
        bh_heap_delete(heap); /* nobody gets a block of it any more */
        (void)bh_verify();
    } else {
        bh_heap_destroy(heap);
    }
}

START_TEST(heaps_that_end)
{
    size_t sizes[] = {10, 100, 5000, 199999};
    for (unsigned i = 0; i < 4; i++) {
        assert_found(of_deleted, &sizes[i], "overflow");
        assert_found(of_deleted_at_exit, &sizes[i], "overflow");
        assert_found(of_destroyed, &sizes[i], "overflow");
    }
    assert_found(written_in_heap, NULL, "write-after-free");
    assert_found(written_in_heap, sizes, "write-after-free");
    for (int round = 0; round < 20; round++) {
        bh_heap_t *heap = bh_heap_new();
        for (int i = 0; i < 500; i++) {
            void *p = bh_heap_malloc(heap, 50);
            memset(p, 1, 50);
            if (i % 2 == 0)
                bh_free(p);
        }
        ck_assert_ptr_null(inv_all(false, false));
        bh_heap_destroy(heap);
        ck_assert_ptr_null(inv_all(false, false));
    }
    ck_assert_invariants();
}
END_TEST

/* Nobody can access the memory of a page that has ended, or of a freed large block,
 * whoever freed it last. */
START_TEST(what_has_ended_is_inaccessible)
{
    static const size_t sizes[] = {1, 100, 3000, 60000, 200000, 5000000};
    void *keep = bh_malloc(50); /* the segment */
    for (unsigned i = 0; i < 6; i++) {
        for (int other = 0; other < 2; other++) {
            uintptr_t p = (uintptr_t)bh_malloc(sizes[i]), from = bhi_page_block(page_of((void *)p), 0);
            ck_assert(unit_readable(p) && unit_readable(from));
            if (other != 0)
                unit_thread(free_it, (void *)p);
            else
                bh_free((void *)p);
            ck_assert(sizes[i] > BH_CLASS_MAX_SIZE || unit_readable(p));
            bhi_heap_drain(bhi_thread_heap, SIZE_MAX);
            bh_collect(true);
            ck_assert_msg(!unit_readable(p) && !unit_readable(from), "%zu bytes", sizes[i]);
        }
    }
    bh_free(keep);
    ck_assert_invariants();
}
END_TEST

/* A thread announced a block of a deleted heap while somebody else owned it. */
START_TEST(a_deleted_heap_emptied_by_verify_is_used_again)
{
    bh_free(bh_malloc(1));
    bh_heap_t *handle = bh_heap_new();
    void *p = bh_heap_malloc(handle, 100);
    bhi_heap_t *heap = atomic_load(&page_of(p)->heap);
    bh_heap_delete(handle);
    int somebody;
    atomic_store(&heap->owner, (bhi_owner_t)&somebody);
    unit_thread(free_it, p);
    atomic_store(&heap->owner, BHI_OWNER_NONE);
    ck_assert_uint_eq(heap->page_count, 1);
    ck_assert_uint_eq(bh_verify(), 0);
    ck_assert_uint_eq(atomic_load(&heap->kind), BHI_HEAP_UNUSED);
    ck_assert_invariants();
}
END_TEST

/* -------------------------------------------------------------- options, shortage */

/* Whether a block that has just been freed is young. */
static bool waits(size_t size)
{
    void *p = bh_malloc(size);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_QUERY);
    bh_free(p);
    return (bhi_hard_old(bhi_thread_heap, block.page, block.index / 64) & bhi_map_bit(block.index)) == 0;
}

static void without_quarantine(void)
{
    for (int i = 0; i < 50; i++) {
        bh_free(bh_malloc(100));
        bh_free(bh_malloc(4000));
    }
    const char *text = inv_all(false, false);
    if (text != NULL)
        fprintf(stderr, "%s\n", text);
    if (!waits(100) || waits(4000))
        fprintf(stderr, "100 %d 4000 %d\n", waits(100), waits(4000));
}

START_TEST(no_bytes_for_larger_blocks)
{
    static unit_child_t child;
    unit_exec("without", (const char *[]){"BULKHEAD_QUARANTINE_BYTES=0", NULL}, &child);
    ck_assert_msg(child.status == 0 && child.length == 0, "%#x '%s'", (unsigned)child.status, child.err);
}
END_TEST

static bool is_short;
static int no_more(bhi_os_call_t call)
{
    return is_short && (call == BHI_OS_MMAP || call == BHI_OS_MPROTECT) ? ENOMEM : 0;
}

START_TEST(shortage_ends_the_ages)
{
    static void *p[40000];
    size_t n = 0;
    ck_assert(waits(5000));
    is_short = true;
    bhi_os_fail_hook = no_more;
    while (n < 40000 && (p[n] = bh_malloc(5000)) != NULL)
        n++;
    ck_assert(n > 2 && n < 40000);
    void *last = p[--n];
    bh_free(last);
    ck_assert_ptr_eq(p[n] = bh_malloc(5000), last); /* there is no other */
    is_short = false;
    bhi_os_fail_hook = NULL;
    for (n++; n > 0;)
        bh_free(p[--n]);
    ck_assert_invariants();
}
END_TEST

START_TEST(figures_agree)
{
    static void *p[2000];
    size_t bytes = 0, live = 0;
    uint64_t seed = unit_seed("figures");
    for (int i = 0; i < 2000; i++) {
        size_t size = unit_below(&seed, i % 100 == 0 ? 900000 : 2000);
        p[i] = bh_malloc(size);
        if (i % 3 == 0) {
            bh_free(p[i]);
            p[i] = NULL;
        } else if (i % 7 == 0) {
            unit_thread(free_it, p[i]);
            p[i] = NULL;
        } else {
            bytes += size;
            live++;
        }
    }
    bh_heap_stats_t of_heap = {.struct_size = sizeof of_heap};
    bh_stats_t all = {.struct_size = sizeof all};
    ck_assert(bh_heap_stats_get(NULL, &of_heap) && bh_stats_get(&all));
    ck_assert_uint_eq(of_heap.used_bytes, bytes);
    ck_assert_uint_eq(all.used_bytes, bytes);
    ck_assert_uint_eq(of_heap.used_count, live);
    for (int i = 0; i < 2000; i++)
        bh_free(p[i]);
    ck_assert(bh_heap_stats_get(NULL, &of_heap) && bh_stats_get(&all));
    ck_assert(of_heap.used_bytes == 0 && of_heap.used_count == 0 && all.used_bytes == 0);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------------------- exit */

/* Processor time: of this process, and of its children that have ended. Other programs on
 * the machine take what is left of the time by the clock. */
static double spent(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double spent_by_children(void)
{
    struct rusage u;
    ck_assert(getrusage(RUSAGE_CHILDREN, &u) == 0);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void end_with_much(void *arg)
{
    size_t size = *(size_t *)arg;
    for (size_t i = 0; i < ((size_t)1 << 30) / size; i++) {
        if (bh_malloc(size) == NULL)
            _exit(3);
    }
    shared->at = spent();
    exit(0);
}

START_TEST(the_end_comes_in_time)
{
    size_t sizes[] = {60, 1000, 50000};
    for (unsigned i = 0; i < 3; i++) {
        double before = spent_by_children();
        unit_assert_quiet(end_with_much, &sizes[i]);
        double took = spent_by_children() - before - shared->at;
        ck_assert(shared->at > 0 && took > 0);
        ck_assert_msg(took < 3, "%f s with 1 GiB of blocks of %zu bytes", took, sizes[i]);
    }
}
END_TEST

int main(int argc, char **argv)
{
    bh_free(bh_malloc(1));
    if (!bhi_is_hardened() || !BH_HARDEN_CANARIES || !BH_HARDEN_WIPE || !BH_HARDEN_MAP || !BH_HARDEN_QUARANTINE)
        return 0;
    if (argc > 1 && strcmp(argv[1], "without") == 0) {
        without_quarantine();
        return 0;
    }
    shared = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Suite *s = suite_create("hardened_life");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, resized_in_place);
    tcase_add_test(c, large_resized_in_place);
    tcase_add_test(c, another_thread_moves_what_it_resizes);
    tcase_add_test(c, sizes_without_end);
    tcase_add_test(c, sizes_and_zeros);
    tcase_add_test(c, heaps_that_end);
    if (BH_HARDEN_LARGE)
        tcase_add_test(c, what_has_ended_is_inaccessible);
    tcase_add_test(c, a_deleted_heap_emptied_by_verify_is_used_again);
    tcase_add_test(c, no_bytes_for_larger_blocks);
    tcase_add_test(c, shortage_ends_the_ages);
    tcase_add_test(c, figures_agree);
    if (!BH_SANITIZED)
        tcase_add_test(c, the_end_comes_in_time);
    suite_add_tcase(s, c);
    return unit_main(s);
}
