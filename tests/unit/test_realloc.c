/* core/realloc.c: contents, in place or moved, refusals leave the block alone. */
#include "bulkhead.h"
#include "core/realloc.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "os/os.h"
#include "support.h"

#include <errno.h>
#include <string.h>

static void fill(unsigned char *p, size_t n, unsigned tag)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(tag + i * 7 + i / 256);
}

static bool holds(const unsigned char *p, size_t n, unsigned tag)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != (unsigned char)(tag + i * 7 + i / 256))
            return false;
    }
    return true;
}

START_TEST(contents_survive)
{
    uint64_t seed = unit_seed("realloc");
    bh_heap_t *heap = bh_heap_new();
    unsigned char *p = NULL;
    size_t size = 0;
    for (int round = 0; round < 6000; round++) {
        uint32_t kind = unit_below(&seed, 100);
        size_t next = 1 + unit_below(&seed, kind < 60 ? 300 : kind < 90 ? 20000 : kind < 99 ? 300000 : 6000000);
        bool of_heap = unit_below(&seed, 5) == 0;
        errno = 77;
        unsigned char *q = of_heap ? bh_heap_realloc(heap, p, next) : bh_realloc(p, next);
        ck_assert(q != NULL && errno == 77);
        size_t kept = size < next ? size : next;
        ck_assert_msg(holds(q, kept, (unsigned)size), "%zu to %zu", size, next);
        ck_assert_uint_ge(bh_usable_size(q), next);
        fill(q, next, (unsigned)next);
        p = q;
        size = next;
        if (round % 600 == 0)
            ck_assert_invariants();
    }
    bh_free(p);
    bh_heap_delete(heap);
    bh_collect(true);
    ck_assert_invariants();
}
END_TEST

START_TEST(special_cases)
{
    void *p = bh_realloc(NULL, 100);
    ck_assert_ptr_nonnull(p);
    ck_assert_ptr_eq(bh_realloc(p, 100), p);
    size_t usable = bh_usable_size(p);
    ck_assert_ptr_eq(bh_realloc(p, usable), p);
    ck_assert_ptr_eq(bh_realloc(p, usable / 2), p);
    ck_assert_ptr_eq(bh_realloc(p, 0), NULL); /* frees */
    p = bh_realloc(NULL, 0);
    ck_assert_ptr_nonnull(p);
    p = bh_reallocarray(p, 10, 20);
    ck_assert_uint_ge(bh_usable_size(p), 200);
    errno = 0;
    volatile size_t half = SIZE_MAX / 2; /* the compiler would see through it */
    ck_assert_ptr_null(bh_reallocarray(p, half, 3));
    ck_assert_int_eq(errno, ENOMEM);
    bh_free(p);
    ck_assert_invariants();
}
END_TEST

/* A block with a span of its own grows where it stands, its guard moves along,
 * and what is in the way stops it. */
START_TEST(large_blocks_grow_in_place)
{
    uint64_t seed = unit_seed("grow");
    unsigned stayed = 0, moved = 0;
    unsigned char *blocks[6] = {NULL};
    size_t sizes[6] = {0};
    for (int round = 0; round < 400; round++) {
        unsigned i = unit_below(&seed, 6);
        size_t next = BH_CLASS_MAX_SIZE + 1 + unit_below(&seed, unit_below(&seed, 8) == 0 ? 4 << 20 : 1 << 19);
        if (blocks[i] == NULL || next < sizes[i]) {
            bh_free(blocks[i]);
            blocks[i] = unit_below(&seed, 4) == 0 ? bh_aligned_alloc_at(64, next, 8) : bh_malloc(next);
        } else {
            bool may_move = unit_below(&seed, 3) != 0;
            unsigned char *q = may_move ? bh_realloc(blocks[i], next) : bh_expand(blocks[i], next);
            stayed += q == blocks[i] && next > sizes[i];
            moved += q != NULL && q != blocks[i];
            ck_assert(holds(blocks[i] = q != NULL ? q : blocks[i], sizes[i], i));
            if (q == NULL)
                continue;
        }
        ck_assert_uint_ge(bh_usable_size(blocks[i]), next);
        sizes[i] = bh_usable_size(blocks[i]);
        fill(blocks[i], sizes[i], i);
        if (BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE)
            ck_assert(!unit_readable((uintptr_t)blocks[i] + sizes[i]));
        ck_assert_invariants();
    }
    ck_assert_msg(stayed > 20 && moved > 5, "%u stayed, %u moved", stayed, moved);
    for (unsigned i = 0; i < 6; i++) {
        ck_assert(blocks[i] == NULL || holds(blocks[i], sizes[i], i));
        bh_free(blocks[i]);
    }
    ck_assert_invariants();
}
END_TEST

/* Memory behind a block that nobody had used yet, left by pages of a class: growing into
 * it by part of a slot, and then by more of that slot, must show nothing of them. */
START_TEST(what_a_block_grows_by_is_nobody_s)
{
    enum { OTHERS = 600, FIRST = 184 << 10, SECOND = 200 << 10, THIRD = 240 << 10 };
    static unsigned char *others[OTHERS];
    unsigned grown = 0;
    for (int round = 0; round < 10; round++) {
        bh_collect(true);
        unsigned char *p = bh_malloc(FIRST);
        for (unsigned i = 0; i < OTHERS; i++)
            memset(others[i] = bh_malloc(8192), 0xcc, 8192);
        for (unsigned i = 0; i < OTHERS; i++)
            bh_free(others[i]);
        bh_collect(false);
        if (bh_expand(p, SECOND) != NULL && bh_expand(p, THIRD) != NULL) {
            grown++;
            for (size_t i = 0; i < THIRD; i++)
                ck_assert_msg(p[i] != 0xcc, "byte %zu is another block's", i);
        }
        bh_free(p);
    }
    ck_assert_uint_gt(grown, 3);
    ck_assert_invariants();
}
END_TEST

static int no_guards(bhi_os_call_t call)
{
    return call == BHI_OS_GUARD || call == BHI_OS_MPROTECT ? EPERM : 0;
}

/* What refuses to open the memory behind a block must not cost its contents. */
START_TEST(a_refusal_to_grow_moves_the_block)
{
    enum { SIZE = 300000, MORE = 500000 };
    unsigned char *p = bh_malloc(SIZE), *q = bh_malloc(MORE);
    bh_free(q); /* room that needs no call */
    fill(p, SIZE, 5);
    bhi_os_fail_hook = no_guards;
    q = bh_expand(p, MORE);
    bhi_os_fail_hook = NULL;
    ck_assert(holds(p, SIZE, 5));
    ck_assert(q == NULL || q == p);
    if (q == NULL && BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE)
        ck_assert(!unit_readable((uintptr_t)p + bh_usable_size(p)));
    ck_assert_invariants();
    p = bh_realloc(p, MORE);
    ck_assert(holds(p, SIZE, 5));
    bh_free(p);
    ck_assert_invariants();
}
END_TEST

static int no_memory(bhi_os_call_t call)
{
    return call == BHI_OS_MMAP || call == BHI_OS_MPROTECT ? ENOMEM : 0;
}

START_TEST(a_refusal_leaves_the_block_alone)
{
    unsigned char *p = bh_malloc(5000);
    fill(p, 5000, 3);
    bhi_os_fail_hook = no_memory;
    for (int i = 0; i < 10; i++) {
        errno = 0;
        ck_assert_ptr_null(bh_realloc(p, (size_t)600 << 20));
        ck_assert_int_eq(errno, ENOMEM);
    }
    bhi_os_fail_hook = NULL;
    ck_assert(holds(p, 5000, 3));
    bh_free(p);
    ck_assert_invariants();
}
END_TEST

/* The sizes that sized frees accept are those that the block may have had. */
START_TEST(sizes_that_fit)
{
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t usable = bhi_class_size(c), least = c == 0 ? 0 : bhi_class_size(c - 1) + 1;
        for (size_t n = 0; n <= usable + 100; n += n < 3000 || n + 2000 > usable ? 1 : 13) {
            bool fits = n <= usable && (n >= least || n >= usable / 2);
            ck_assert_msg(bhi_size_fits(usable, n) == fits, "%zu in %zu", n, usable);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("realloc");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, contents_survive);
    if (!unit_is_hardened())
        tcase_add_test(c, special_cases);
    if (!unit_is_hardened())
        tcase_add_test(c, large_blocks_grow_in_place);
    if (!unit_is_hardened())
        tcase_add_test(c, a_refusal_to_grow_moves_the_block);
    if (!unit_is_hardened() && BH_HARDEN_CLEAR)
        tcase_add_test(c, what_a_block_grows_by_is_nobody_s);
    tcase_add_test(c, a_refusal_leaves_the_block_alone);
    if (!unit_is_hardened())
        tcase_add_test(c, sizes_that_fit);
    suite_add_tcase(s, c);
    return unit_main(s);
}
