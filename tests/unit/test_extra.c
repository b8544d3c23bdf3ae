/* api/extra.c: each form against its contract, at random and at its edges. */
#include "bulkhead.h"
#include "invariants.h"
#include "meta/arena.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

static const size_t impossible = (size_t)PTRDIFF_MAX - 4096;

static void expect_no_memory(const void *p)
{
    ck_assert(p == NULL && errno == ENOMEM);
    errno = 0;
}

/* Grown parts are zero however often a block shrinks and grows, with its
 * requested bytes dirty. */
START_TEST(recalloc_zeroes_what_it_adds)
{
    uint64_t seed = unit_seed("recalloc");
    bh_heap_t *heap = bh_heap_new();
    unsigned char *p = NULL;
    size_t size = 0;
    for (int round = 0; round < 8000; round++) {
        uint32_t kind = unit_below(&seed, 100);
        size_t next = 1 + unit_below(&seed, kind < 70 ? 300 : kind < 90 ? 20000 : kind < 99 ? 300000 : 6000000);
        if (unit_below(&seed, 3) == 0)
            next = size / 2 + unit_below(&seed, (uint32_t)size + 1); /* mostly in place */
        next += next == 0;
        unsigned char *q = NULL;
        switch (unit_below(&seed, 4)) {
        case 0: q = bh_recalloc(p, next, 1); break;
        case 1: q = bh_heap_recalloc(heap, p, 1, next); break;
        case 2: q = bh_rezalloc(p, next); break;
        default: q = bh_heap_rezalloc(heap, p, next); break;
        }
        ck_assert_ptr_nonnull(q);
        size_t kept = size < next ? size : next;
        ck_assert(unit_is(q, kept, 0xd5));
        ck_assert_msg(unit_is(q + kept, bh_usable_size(q) - kept, 0), "%zu to %zu", size, next);
        memset(q, 0xd5, next);
        p = q;
        size = next;
    }
    ck_assert_ptr_null(bh_recalloc(p, 0, 10)); /* frees, as realloc */
    bh_heap_delete(heap);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

/* A block that moves is zero already: gigabytes that nobody asked to see stay where
 * they are, which is nowhere. */
START_TEST(recalloc_touches_only_what_it_keeps)
{
    const size_t size = (size_t)8 << 30;
    struct rusage before, after;
    char *p = bh_zalloc(100);
    strcpy(p, "kept");
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &before), 0);
    p = bh_recalloc(p, size / 8, 8);
    ck_assert_ptr_nonnull(p);
    ck_assert_str_eq(p, "kept");
    ck_assert(unit_is(p + 100, 10000, 0) && unit_is(p + size - 10000, 10000, 0));
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &after), 0);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 100 * 1024);
    bh_free(p);
}
END_TEST

START_TEST(failures)
{
    volatile size_t much = impossible, most = SIZE_MAX, half = SIZE_MAX / 2; /* the compiler would see through them */
    bh_heap_t *heap = bh_heap_new();
    char *p = bh_zalloc(100);
    strcpy(p, "stays");
    errno = 0;
    expect_no_memory(bh_recalloc(p, half, 3));
    expect_no_memory(bh_recalloc(p, much, 1));
    expect_no_memory(bh_rezalloc(p, much));
    expect_no_memory(bh_heap_recalloc(heap, p, half, 3));
    expect_no_memory(bh_heap_rezalloc(heap, p, much));
    expect_no_memory(bh_mallocn(half, 3));
    expect_no_memory(bh_heap_mallocn(heap, half, 3));
    expect_no_memory(bh_aligned_realloc(p, 64, much));
    expect_no_memory(bh_heap_aligned_realloc(heap, p, 64, much));
    expect_no_memory(bh_aligned_realloc_at(p, 64, much, 8));
    expect_no_memory(bh_aligned_alloc_at(64, much, 8));
    expect_no_memory(bh_aligned_zalloc_at(64, most, 8));
    expect_no_memory(bh_expand(NULL, 1));
    ck_assert_str_eq(p, "stays");
    static const size_t bad[] = {0, 3, 48, SIZE_MAX};
    for (size_t i = 0; i < 4; i++) {
        errno = 0;
        ck_assert(bh_aligned_realloc(p, bad[i], 10) == NULL && errno == EINVAL);
        errno = 0;
        ck_assert(bh_aligned_realloc_at(p, bad[i], 10, 8) == NULL && errno == EINVAL);
        errno = 0;
        ck_assert(bh_aligned_alloc_at(bad[i], 10, 8) == NULL && errno == EINVAL);
        errno = 0;
        ck_assert(bh_heap_aligned_zalloc_at(heap, bad[i], 10, 8) == NULL && errno == EINVAL);
    }
    ck_assert_str_eq(p, "stays");
    bh_free(p);
    bh_heap_delete(heap);
}
END_TEST

static void free_again(void *p)
{
    bh_free(p);
}

START_TEST(reallocf_frees_on_failure)
{
    volatile size_t much = impossible;
    bh_heap_t *heap = bh_heap_new();
    char *p = bh_reallocf(NULL, 50);
    p = bh_reallocf(p, 5000);
    ck_assert_ptr_nonnull(p);
    p = bh_heap_reallocf(heap, p, 50);
    ck_assert_ptr_nonnull(p);
    char *keep = bh_heap_malloc(heap, 50); /* so that their page stays */
    errno = 0;
    expect_no_memory(bh_heap_reallocf(heap, p, much));
    if (BH_HARDEN_MAP)
        unit_assert_violation(free_again, p, "double-free");
    p = bh_malloc(10);
    ck_assert_ptr_null(bh_reallocf(p, 0)); /* freed once, not twice */
    expect_no_memory(bh_reallocf(NULL, much));
    bh_free(keep);
    bh_heap_delete(heap);
    ck_assert_invariants();
}
END_TEST

START_TEST(expand_agrees_with_sized_frees)
{
    uint64_t seed = unit_seed("expand");
    for (int i = 0; i < 20000; i++) {
        size_t n = unit_below(&seed, i % 50 == 0 ? 600000 : 3000);
        void *p = bh_malloc(n);
        size_t next = unit_below(&seed, (uint32_t)n * 2 + 10);
        void *q = bh_expand(p, next);
        ck_assert(q == NULL || q == p);
        ck_assert(next <= bh_usable_size(p) || q == NULL);
        ck_assert(next < n || next > bh_usable_size(p) || q == p);
        bh_free_sized(p, q != NULL ? next : n);
    }
    void *p = bh_malloc(1000);
    errno = 0;
    expect_no_memory(bh_expand(p, 10));
    expect_no_memory(bh_expand(p, 5000));
    bh_free(p);
}
END_TEST

/* ---------------------------------------------------------------- alignment */

static void free_inside(void *p)
{
    bh_free((char *)p + 16);
}

START_TEST(offsets)
{
    uint64_t seed = unit_seed("offsets");
    bh_heap_t *heap = bh_heap_new();
    static struct {
        unsigned char *at;
        size_t size;
    } b[300];
    for (int round = 0; round < 6000; round++) {
        uint32_t i = unit_below(&seed, 300);
        if (b[i].at != NULL) {
            ck_assert(unit_is(b[i].at, b[i].size, (int)(i & 0xff)));
            bh_free(b[i].at);
        }
        size_t align = (size_t)1 << unit_below(&seed, 17);
        size_t offset = unit_below(&seed, 3) == 0 ? align * unit_below(&seed, 4) : unit_below(&seed, 200000);
        size_t size = unit_below(&seed, round % 100 == 0 ? 9000000 : round % 10 == 0 ? 300000 : 3000);
        bool zero = unit_below(&seed, 2) == 0;
        errno = 77;
        unsigned char *p;
        if (unit_below(&seed, 2) == 0)
            p = zero ? bh_aligned_zalloc_at(align, size, offset) : bh_aligned_alloc_at(align, size, offset);
        else
            p = zero ? bh_heap_aligned_zalloc_at(heap, align, size, offset) : bh_heap_aligned_alloc_at(heap, align, size, offset);
        ck_assert(p != NULL && errno == 77);
        ck_assert_msg(((uintptr_t)p + offset) % align == 0, "align %zu, offset %zu: %p", align, offset, (void *)p);
        b[i].size = bh_usable_size(p);
        ck_assert_uint_ge(b[i].size, size);
        ck_assert(!zero || unit_is(p, b[i].size, 0));
        memset(p, (int)(i & 0xff), b[i].size);
        ck_assert(bh_check_owned(p) && (size == 0 || bh_check_owned(p + b[i].size - 1)));
        b[i].at = p;
        if (round % 1000 == 0)
            ck_assert_invariants();
    }
    for (int i = 0; i < 300; i++)
        bh_free(b[i].at);
    bh_heap_delete(heap);
    bh_collect(true);
    ck_assert_invariants();
    errno = 0;
    expect_no_memory(bh_aligned_alloc_at(BH_SLOT_SIZE * 2, 100, 8));
    void *p = bh_aligned_alloc_at(BH_SLOT_SIZE * 2, 100, BH_SLOT_SIZE * 4);
    ck_assert(p != NULL && (uintptr_t)p % (BH_SLOT_SIZE * 2) == 0);
    bh_free(p);
}
END_TEST

/* What lies before such a block in its span is no block, nor is what follows. */
START_TEST(offset_blocks_are_checked)
{
    unsigned char *p = bh_aligned_alloc_at(64, 100, 8);
    ck_assert((uintptr_t)p % BH_SLOT_SIZE == 56);
    unit_assert_violation(free_inside, p, "invalid-free");
    unit_assert_violation(free_inside, p - 16 - 56, "invalid-free");
    unit_assert_violation(free_inside, p - 32, "invalid-free");
    ck_assert(!bh_check_owned(p - 1) && !bh_check_owned(p + bh_usable_size(p)));
    ck_assert(unit_readable((uintptr_t)p + bh_usable_size(p) - 1));
    if (BH_HARDEN_GUARDS)
        ck_assert(!unit_readable((uintptr_t)p + bh_usable_size(p)));
    bh_free(p);
    if (BH_HARDEN_MAP)
        unit_assert_violation(free_again, p, "double-free");
}
END_TEST

/* In profile hardened a byte before such a block is looked at, as no guard is there. */
static int under;
static bool freed_too;
static size_t under_size;

static void write_before(void *arg)
{
    (void)arg;
    volatile unsigned char *p = bh_aligned_alloc_at(4096, under_size, 4000); /* 96 bytes into an OS page */
    memset((void *)(uintptr_t)p, 1, under_size);
    (void)!bh_expand((void *)(uintptr_t)p, under_size + 1);
    p[-under] ^= 0x10;
    if (freed_too)
        bh_free((void *)(uintptr_t)p);
    else
        (void)bh_verify();
}

START_TEST(a_write_before_an_offset_block_is_found)
{
    if (!unit_is_hardened() || !BH_HARDEN_CANARIES)
        return;
    static const size_t sizes[] = {1000, 130000, 5000000};
    for (unsigned i = 0; i < 3; i++) {
        under_size = sizes[i];
        for (under = 1; under <= 96; under += 19) {
            freed_too = !freed_too;
            unit_assert_violation(write_before, NULL, "underflow");
        }
        under = 0;
        unit_assert_quiet(write_before, NULL);
    }
}
END_TEST

/* Next to the highest number there is, what is added to a size wraps. */
START_TEST(offset_blocks_do_not_grow_beyond_all_bounds)
{
    for (size_t shift = BH_OS_PAGE_SIZE - 16; shift < BH_OS_PAGE_SIZE; shift++) {
        for (size_t size = 1; size <= 8; size++) {
            unsigned char *p = bh_aligned_alloc_at(BH_SLOT_SIZE, size, BH_SLOT_SIZE - shift);
            memset(p, 7, size);
            for (volatile size_t much = SIZE_MAX; much > SIZE_MAX - 20; much--) { /* volatile: the compiler knows better */
                errno = 0;
                ck_assert(bh_realloc(p, much) == NULL && errno == ENOMEM);
            }
            ck_assert(bh_usable_size(p) >= size && unit_is(p, size, 7));
            bh_free(p);
        }
    }
}
END_TEST

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

START_TEST(offset_blocks_freed_by_another_thread)
{
    static const size_t sizes[] = {10, 100000, (size_t)9 << 20};
    for (int i = 0; i < 3; i++) {
        void *p = bh_aligned_alloc_at(4096, sizes[i], 100);
        memset(p, 1, bh_usable_size(p));
        unit_thread(free_there, p);
        bh_collect(true);
        ck_assert_invariants();
        ck_assert(!bh_check_owned(p));
    }
}
END_TEST

static int no_rereserve(bhi_os_call_t call)
{
    return call == BHI_OS_MMAP ? ENOMEM : 0;
}

/* Where the kernel does not take a huge span back, its memory becomes slots. */
START_TEST(huge_offset_block_that_stays)
{
    char *p = bh_aligned_alloc_at(4096, (size_t)9 << 20, 100);
    memset(p, 7, (size_t)9 << 20);
    bhi_os_fail_hook = no_rereserve;
    bh_free(p);
    bhi_os_fail_hook = NULL;
    ck_assert_invariants();
    for (int i = 0; i < 100; i++) {
        char *q = bh_zalloc(60000);
        ck_assert(unit_is(q, 60000, 0));
    }
    ck_assert_invariants();
}
END_TEST

START_TEST(aligned_reallocs)
{
    uint64_t seed = unit_seed("aligned_realloc");
    bh_heap_t *heap = bh_heap_new();
    unsigned char *p = NULL;
    size_t size = 0;
    for (int round = 0; round < 4000; round++) {
        size_t align = (size_t)1 << unit_below(&seed, 15), offset = unit_below(&seed, 2) == 0 ? 0 : unit_below(&seed, 100);
        size_t next = 1 + unit_below(&seed, round % 20 == 0 ? 300000 : 4000);
        unsigned char *q;
        if (offset == 0)
            q = unit_below(&seed, 2) == 0 ? bh_aligned_realloc(p, align, next) : bh_heap_aligned_realloc(heap, p, align, next);
        else
            q = unit_below(&seed, 2) == 0 ? bh_aligned_realloc_at(p, align, next, offset)
                                          : bh_heap_aligned_realloc_at(heap, p, align, next, offset);
        ck_assert(q != NULL && ((uintptr_t)q + offset) % align == 0 && bh_usable_size(q) >= next);
        ck_assert(unit_is(q, size < next ? size : next, 0x3c));
        memset(q, 0x3c, next);
        p = q;
        size = next;
    }
    ck_assert_ptr_null(bh_aligned_realloc(p, 64, 0)); /* frees */
    bh_heap_delete(heap);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

START_TEST(good_sizes)
{
    for (size_t n = 0; n < 300000; n += 1 + n / 97) {
        void *p = bh_malloc(n);
        ck_assert_msg(bh_good_size(n) == bh_usable_size(p), "%zu", n);
        bh_free(p);
    }
    ck_assert_uint_eq(bh_good_size(SIZE_MAX), SIZE_MAX);
    ck_assert_uint_ge(bh_good_size(PTRDIFF_MAX), PTRDIFF_MAX);
}
END_TEST

START_TEST(strings)
{
    bh_heap_t *heap = bh_heap_new();
    static char text[3000];
    for (size_t n = 0; n < sizeof text - 1; n += 1 + n / 9) {
        memset(text, 'a' + (int)(n % 26), n);
        text[n] = '\0';
        char *made[] = {bh_strdup(text), bh_heap_strdup(heap, text), bh_strndup(text, n), bh_strndup(text, n + 100),
                        bh_heap_strndup(heap, text, SIZE_MAX)};
        for (int i = 0; i < 5; i++) {
            ck_assert_str_eq(made[i], text);
            bh_free(made[i]);
        }
    }
    char open_end[3] = {'x', 'y', 'z'}; /* no zero byte to find */
    char *p = bh_strndup(open_end, 3), *q = bh_heap_strndup(heap, open_end, 0);
    ck_assert_str_eq(p, "xyz");
    ck_assert_str_eq(q, "");
    bh_free(p);
    bh_free(q);
    ck_assert(bh_strdup(NULL) == NULL && bh_strndup(NULL, 3) == NULL && bh_heap_strdup(heap, NULL) == NULL &&
              bh_heap_strndup(heap, NULL, 3) == NULL);
    bh_heap_delete(heap);
}
END_TEST

START_TEST(paths)
{
    bh_heap_t *heap = bh_heap_new();
    char resolved[PATH_MAX];
    char *p = bh_realpath("/dev/../dev//null", NULL), *q = bh_heap_realpath(heap, "/dev/./null", NULL);
    ck_assert_str_eq(p, "/dev/null");
    ck_assert_str_eq(q, "/dev/null");
    ck_assert(bh_heap_contains_block(heap, q) && !bh_heap_contains_block(heap, p));
    bh_free(p);
    bh_free(q);
    ck_assert_ptr_eq(bh_realpath("/dev/..", resolved), resolved);
    ck_assert_str_eq(resolved, "/");
    errno = 0;
    ck_assert(bh_realpath("/no/such/thing", NULL) == NULL && errno == ENOENT);
    bh_heap_delete(heap);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("extra");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, recalloc_zeroes_what_it_adds);
    tcase_add_test(c, recalloc_touches_only_what_it_keeps);
    tcase_add_test(c, failures);
    tcase_add_test(c, reallocf_frees_on_failure);
    tcase_add_test(c, expand_agrees_with_sized_frees);
    tcase_add_test(c, offsets);
    if (!unit_is_hardened())
        tcase_add_test(c, offset_blocks_are_checked);
    tcase_add_test(c, a_write_before_an_offset_block_is_found);
    tcase_add_test(c, offset_blocks_do_not_grow_beyond_all_bounds);
    tcase_add_test(c, offset_blocks_freed_by_another_thread);
    tcase_add_test(c, huge_offset_block_that_stays);
    tcase_add_test(c, aligned_reallocs);
    if (!unit_is_hardened())
        tcase_add_test(c, good_sizes);
    tcase_add_test(c, strings);
    tcase_add_test(c, paths);
    suite_add_tcase(s, c);
    return unit_main(s);
}
