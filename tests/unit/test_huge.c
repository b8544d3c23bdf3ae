/* meta/huge.c: who owns a segment, against a simple model, and what it costs. */
#include "base/bits.h"
#include "bulkhead.h"
#include "meta/arena.h"
#include "meta/huge.h"
#include "support.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bhi_arena_t *first;

static void start(void)
{
    void *p = bh_malloc(1);
    ck_assert_ptr_nonnull(p);
    first = &bhi_state->arenas[0];
}

#define WINDOW 512u
#define TAKEN_MAX 48

static bhi_segment_t *owner[WINDOW];

static void spans_match_model(uint32_t base)
{
    for (uint32_t i = base; i < first->top && i < base + WINDOW; i++)
        ck_assert_msg(bhi_huge_find(first, i) == owner[i - base], "segment %u at %p: found %p, model %p", i, (void *)&first->headers[i],
                      (void *)bhi_huge_find(first, i), (void *)owner[i - base]);
}

/* What spans leave behind in headers misleads nobody. */
START_TEST(spans_against_a_model)
{
    start();
    uint64_t seed = unit_seed("spans");
    uint32_t base = first->top;
    bhi_segment_t *taken[TAKEN_MAX];
    unsigned count = 0;
    bhi_state_lock();
    for (int round = 0; round < 20000; round++) {
        if (count == 0 || (count < TAKEN_MAX && unit_below(&seed, 2) != 0)) {
            uint32_t n = 1 + unit_below(&seed, unit_below(&seed, 8) == 0 ? 100 : 12);
            if (first->top + n >= base + WINDOW)
                continue;
            bhi_segment_t *s = bhi_arena_take_run(n, 1);
            ck_assert_ptr_nonnull(s);
            bhi_huge_mark(s, n);
            ck_assert_uint_eq(s->run, n);
            for (uint32_t i = 0; i < n; i++)
                owner[(uint32_t)(s - first->headers) - base + i] = s;
            taken[count++] = s;
        } else {
            unsigned i = unit_below(&seed, count);
            memset(owner + ((uint32_t)(taken[i] - first->headers) - base), 0, taken[i]->run * sizeof owner[0]);
            bhi_arena_give_run(taken[i], taken[i]->run);
            taken[i] = taken[--count];
        }
        if (round % 32 == 0)
            spans_match_model(base);
    }
    ck_assert_uint_gt(first->top, base + 200);
    bhi_state_unlock();
}
END_TEST

/* OS pages of a range that are in memory. */
static size_t resident(const void *at, size_t bytes)
{
    static unsigned char in[1 << 20];
    size_t n = 0, os_page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + os_page - 1) / os_page;
    ck_assert_uint_le(pages, sizeof in);
    ck_assert_int_eq(mincore((void *)(uintptr_t)at, bytes, in), 0);
    for (size_t i = 0; i < pages; i++)
        n += in[i] & 1;
    return n;
}

/* A span of 2^17 segments, 512 GiB, from an odd index on: 18 marks, of which the
 * first few lie in one OS page, and as much at its end when it is given back. */
START_TEST(cost_is_bounded)
{
    start();
    const uint32_t n = (uint32_t)1 << 17;
    if (first->segments < 4 * n)
        return; /* address space is short */
    bhi_state_lock();
    bhi_segment_t *odd = bhi_arena_take_run(first->top % 2 == 0 ? 1 : 2, 1);
    bhi_huge_mark(odd, 1);
    bhi_segment_t *s = bhi_arena_take_run(n, 1);
    ck_assert_ptr_nonnull(s);
    bhi_huge_mark(s, n);
    size_t marks = 0;
    for (uint32_t i = 0; i < n; i++)
        marks += s[i].kind != BHI_SEGMENT_NONE;
    ck_assert_uint_ge(marks, 2);
    ck_assert_uint_le(marks, 19);
    uint32_t index = (uint32_t)(s - first->headers);
    for (uint32_t i = 0; i < n; i++)
        ck_assert_ptr_eq(bhi_huge_find(first, index + i), s);
    ck_assert_ptr_eq(bhi_huge_find(first, index + n), NULL);
    bhi_arena_give_run(s, n);
    for (uint32_t i = 0; i < n; i += 97)
        ck_assert_ptr_null(bhi_huge_find(first, index + i));
    bhi_state_unlock();
}
END_TEST

/* A block of a TiB, by malloc and free: neither descriptors nor headers of all. */
START_TEST(a_block_costs_no_more)
{
    start();
    const size_t size = (size_t)1 << 40;
    if (first->size < 2 * size)
        return; /* as above */
    char *p = bh_malloc(size);
    if (p == NULL)
        return; /* the kernel does not lend that much */
    size_t descs = atomic_load(&first->blocks_open) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT;
    ck_assert_uint_le(resident(first->headers, first->headers_open), 32);
    ck_assert_uint_le(resident((void *)first->descs, descs), 32); /* NOLINT: this is where a number becomes a pointer */
    p[0] = p[size / 2] = p[size - 1] = 1;
    bh_free(p);
    ck_assert_uint_le(resident(first->headers, first->headers_open), 32);
    ck_assert_uint_le(resident((void *)first->descs, descs), 32); /* NOLINT: as above */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("huge");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, spans_against_a_model);
    tcase_add_test(c, cost_is_bounded);
    tcase_add_test(c, a_block_costs_no_more);
    suite_add_tcase(s, c);
    return unit_main(s);
}
