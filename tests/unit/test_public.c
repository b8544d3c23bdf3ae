/* api/public.c: what bulkhead.h promises and no other suite covers. */
#include "bulkhead.h"
#include "invariants.h"
#include "os/os.h"
#include "rt/process.h"
#include "support.h"

#include <errno.h>
#include <string.h>

START_TEST(version)
{
    ck_assert_int_eq(bh_version(), BH_VERSION_MAJOR * 10000 + BH_VERSION_MINOR * 100 + BH_VERSION_PATCH);
}
END_TEST

static void expect_no_memory(const void *p)
{
    ck_assert(p == NULL && errno == ENOMEM);
    errno = 0;
}

START_TEST(products_that_overflow)
{
    bh_heap_t *heap = bh_heap_new();
    errno = 0;
    static const size_t pairs[][2] = {{SIZE_MAX, 2}, {2, SIZE_MAX}, {(size_t)1 << 32, (size_t)1 << 32}, {SIZE_MAX / 3 + 1, 3}};
    for (size_t i = 0; i < 4; i++) {
        expect_no_memory(bh_calloc(pairs[i][0], pairs[i][1]));
        expect_no_memory(bh_reallocarray(NULL, pairs[i][0], pairs[i][1]));
        expect_no_memory(bh_heap_calloc(heap, pairs[i][0], pairs[i][1]));
        expect_no_memory(bh_heap_reallocarray(heap, NULL, pairs[i][0], pairs[i][1]));
    }
    void *p = bh_calloc(0, 100), *q = bh_calloc(100, 0);
    ck_assert(p != NULL && q != NULL && p != q);
    bh_free(p);
    bh_free(q);
    bh_heap_delete(heap);
}
END_TEST

START_TEST(alignment_errors)
{
    static const size_t bad[] = {0, 3, 24, 48, SIZE_MAX, ((size_t)1 << 20) + 1};
    bh_heap_t *heap = bh_heap_new();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *keep = &errno, *out = keep;
        errno = 0;
        ck_assert(bh_aligned_alloc(bad[i], 10) == NULL && errno == EINVAL);
        errno = 0;
        ck_assert(bh_aligned_zalloc(bad[i], 10) == NULL && errno == EINVAL);
        errno = 0;
        ck_assert(bh_heap_aligned_alloc(heap, bad[i], 10) == NULL && errno == EINVAL);
        errno = 77;
        ck_assert_int_eq(bh_posix_memalign(&out, bad[i], 10), EINVAL);
        ck_assert(out == keep && errno == 77);
        ck_assert_int_eq(bh_posix_memalign(&out, 4, 10), EINVAL); /* not a multiple of a pointer */
        ck_assert_int_eq(bh_posix_memalign(&out, 64, SIZE_MAX), ENOMEM);
        ck_assert(out == keep && errno == 77);
    }
    void *out = NULL;
    ck_assert_int_eq(bh_posix_memalign(&out, 4096, 10), 0);
    ck_assert(out != NULL && (uintptr_t)out % 4096 == 0);
    bh_free(out);
    bh_heap_delete(heap);
}
END_TEST

/* ------------------------------------------------------------- sized frees */

static size_t sized_with;
static void free_sized(void *p)
{
    bh_free_sized(p, sized_with);
}
static void free_aligned_sized(void *p)
{
    bh_free_aligned_sized(p, 64, sized_with);
}
static size_t aligned_with;
static void free_aligned_as(void *p)
{
    bh_free_aligned_sized(p, aligned_with, sized_with);
}
static void free_aligned_wrong(void *p)
{
    bh_free_aligned_sized(p, aligned_with, 128);
}

START_TEST(sized_frees)
{
    uint64_t seed = unit_seed("sized");
    for (int i = 0; i < 20000; i++) {
        size_t n = unit_below(&seed, i % 50 == 0 ? 600000 : 3000);
        size_t align = (size_t)1 << unit_below(&seed, 14);
        if (i % 2 == 0) {
            bh_free_sized(bh_malloc(n), n);
            bh_free_sized(bh_realloc(bh_malloc(n), n / 3 + 1), n / 3 + 1);
        } else {
            bh_free_aligned_sized(bh_aligned_alloc(align, n), align, n);
        }
    }
    bh_free_sized(NULL, 7);
    bh_free_aligned_sized(NULL, 8, 7);
    static const size_t wrong[][2] = {{100, 10}, {100, 200}, {8, 9}, {5000, 100}, {5000, 9000}, {200000, 10}, {200000, 400000}, {200000, SIZE_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        void *p = bh_malloc(wrong[i][0]), *q = bh_aligned_alloc(64, wrong[i][0]);
        sized_with = wrong[i][1];
        unit_assert_violation(free_sized, p, "size-mismatch");
        if (wrong[i][0] > 64)
            unit_assert_violation(free_aligned_sized, q, "size-mismatch");
        bh_free(p);
        bh_free(q);
    }
    /* Other sizes of the same class: only where requested sizes are known do they differ. */
    static const size_t near[][3] = {{64, 128, 65}, {64, 128, 127}, {4096, 4096, 1}, {64, (size_t)1 << 20, ((size_t)1 << 20) - 1}, {65536, 65536, 3}};
    for (size_t i = 0; unit_is_hardened() && i < sizeof near / sizeof near[0]; i++) {
        void *p = bh_aligned_alloc(aligned_with = near[i][0], near[i][1]);
        sized_with = near[i][2];
        unit_assert_violation(free_aligned_as, p, "size-mismatch");
        bh_free_aligned_sized(p, near[i][0], near[i][1]);
    }
    static const size_t aligns[] = {0, 3, 48, 1024, (size_t)1 << 40, SIZE_MAX};
    char *p = bh_malloc(128);
    while (((uintptr_t)p & 1023) == 0) /* so that 1024 is wrong */
        p = bh_malloc(128);
    for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
        aligned_with = aligns[i];
        unit_assert_violation(free_aligned_wrong, p, "size-mismatch");
    }
    bh_free_aligned_sized(p, 16, 128);
}
END_TEST

/* ------------------------------------------------------------------- heaps */

START_TEST(heap_forms)
{
    for (int round = 0; round < 50; round++) {
        bh_heap_t *heap = bh_heap_new();
        ck_assert_ptr_nonnull(heap);
        unsigned char *p[8];
        p[0] = bh_heap_malloc(heap, 100);
        p[1] = bh_heap_zalloc(heap, 3000);
        p[2] = bh_heap_calloc(heap, 10, 5000);
        p[3] = bh_heap_realloc(heap, NULL, 70);
        p[3] = bh_heap_realloc(heap, p[3], 70000);
        p[4] = bh_heap_reallocarray(heap, NULL, 3, 30);
        p[5] = bh_heap_aligned_alloc(heap, 4096, 100);
        p[6] = bh_heap_aligned_zalloc(heap, (size_t)1 << 20, 200000);
        p[7] = bh_heap_malloc(heap, (size_t)5 << 20);
        for (int i = 0; i < 8; i++)
            ck_assert_ptr_nonnull(p[i]);
        ck_assert(unit_is(p[1], 3000, 0) && unit_is(p[2], 50000, 0) && unit_is(p[6], 200000, 0));
        ck_assert((uintptr_t)p[5] % 4096 == 0 && (uintptr_t)p[6] % ((size_t)1 << 20) == 0);
        for (int i = 0; i < 8; i++)
            memset(p[i], i + 1, bh_usable_size(p[i]));
        if (round % 2 == 0) {
            bh_heap_destroy(heap);
        } else {
            bh_heap_delete(heap);
            for (int i = 0; i < 8; i++) {
                ck_assert(unit_is(p[i], bh_usable_size(p[i]), i + 1));
                bh_free(p[i]);
            }
        }
        ck_assert_ptr_null(inv_all(false, false));
    }
    bh_heap_delete(NULL);
    bh_heap_destroy(NULL);
    bh_collect(true);
    ck_assert_invariants();
    ck_assert_uint_le(atomic_load(&bhi_state->heap_count), 2); /* structures are reused */
}
END_TEST

static void use_destroyed(void *p)
{
    bh_free(p);
}

START_TEST(destroyed_blocks_are_gone)
{
    bh_heap_t *heap = bh_heap_new();
    void *p = bh_heap_malloc(heap, 100), *q = bh_heap_malloc(heap, 300000);
    bh_heap_destroy(heap);
    if (BH_HARDEN_MAP) {
        unit_assert_violation(use_destroyed, p, "double-free");
        unit_assert_violation(use_destroyed, q, "double-free");
    }
    ck_assert_invariants();
}
END_TEST

/* Nothing of the allocator's own is in a block that is handed out: with every
 * block zeroed by the program before it frees it, any other word is ours. */
START_TEST(blocks_carry_no_residue)
{
    uint64_t seed = unit_seed("residue");
    static struct {
        unsigned char *at;
        size_t size;
    } b[800];
    for (int round = 0; round < 60000; round++) {
        uint32_t i = unit_below(&seed, 800);
        if (b[i].at != NULL) {
            memset(b[i].at, 0, b[i].size);
            bh_free(b[i].at);
        }
        b[i].at = bh_malloc(unit_below(&seed, round % 30 == 0 ? 40000 : 600));
        b[i].size = bh_usable_size(b[i].at);
        ck_assert_msg(unit_is(b[i].at, b[i].size, bhi_process.fill ? BH_FILL_FRESH : 0), "round %d: %zu bytes", round, b[i].size);
        memset(b[i].at, 0xee, b[i].size);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("public");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, version);
    tcase_add_test(c, products_that_overflow);
    tcase_add_test(c, alignment_errors);
    if (BH_HARDEN_MAP)
        tcase_add_test(c, sized_frees);
    tcase_add_test(c, heap_forms);
    tcase_add_test(c, destroyed_blocks_are_gone);
    tcase_add_test(c, blocks_carry_no_residue);
    suite_add_tcase(s, c);
    return unit_main(s);
}
