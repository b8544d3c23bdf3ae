/* meta/arena.c: lookups, and runs of segments against a simple model. */
#include "base/checked.h"
#include "bulkhead.h"
#include "meta/arena.h"
#include "meta/huge.h"
#include "os/os.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static bhi_arena_t *first;

static void start(void)
{
    void *p = bh_malloc(1);
    ck_assert_ptr_nonnull(p);
    first = &bhi_state->arenas[0];
}

START_TEST(lookup)
{
    start();
    uint64_t seed = unit_seed("lookup");
    ck_assert_ptr_eq(bhi_arena_of(first->base), first);
    ck_assert_ptr_eq(bhi_arena_of(first->base + first->size - 1), first);
    ck_assert_ptr_null(bhi_arena_of(first->base - 1));
    ck_assert_ptr_null(bhi_arena_of(first->base + first->size));
    const uintptr_t outside[] = {0, 1, 4096, (uintptr_t)&seed, (uintptr_t)&first, (uintptr_t)start, (uintptr_t)bhi_state,
                                 first->descs, (uintptr_t)first->headers, UINTPTR_MAX, UINTPTR_MAX / 2};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
        ck_assert_ptr_null(bhi_arena_of(outside[i]));
    /* Every address that blocks_open admits finds a descriptor and a header that
     * can be read; the first one behind does not. */
    size_t open = atomic_load(&first->blocks_open);
    ck_assert_uint_gt(open, 0);
    ck_assert(!unit_readable((uintptr_t)bhi_desc_at(first->descs, open)));
    for (int i = 0; i < 5000; i++) {
        uintptr_t off = i == 0 ? open - 1 : unit_random(&seed) % open;
        bhi_page_t *page = bhi_desc_at(first->descs, off);
        ck_assert(unit_readable((uintptr_t)page));
        uint32_t segment = (uint32_t)(off >> BH_SEGMENT_SHIFT);
        unsigned slot = (unsigned)(off >> BH_SLOT_SHIFT) % BH_SEGMENT_SLOTS;
        ck_assert_ptr_eq(page, bhi_segment_desc(&first->headers[segment], slot));
        ck_assert_uint_eq(bhi_segment_base(&first->headers[segment]), first->base + ((uintptr_t)segment << BH_SEGMENT_SHIFT));
        ck_assert_ptr_eq(bhi_segment_arena(&first->headers[segment]), first);
        ck_assert(unit_readable((uintptr_t)&first->headers[segment]));
    }
}
END_TEST

START_TEST(layout_is_behind_guards)
{
    start();
    size_t descs = (size_t)first->segments * BH_SEGMENT_SLOTS * sizeof(bhi_page_t);
    size_t headers = (size_t)first->segments * sizeof(bhi_segment_t);
    ck_assert(!unit_readable(first->descs - BH_OS_PAGE_SIZE));
    ck_assert(!unit_readable(first->descs + bhi_align_up(descs, BH_OS_PAGE_SIZE)));
    ck_assert(!unit_readable((uintptr_t)first->headers - BH_OS_PAGE_SIZE));
    ck_assert(!unit_readable((uintptr_t)first->headers + bhi_align_up(headers, BH_OS_PAGE_SIZE)));
    ck_assert(!unit_readable((uintptr_t)bhi_state - BH_OS_PAGE_SIZE));
    ck_assert(first->base % BH_SEGMENT_SIZE == 0 && first->size % BH_SEGMENT_SIZE == 0);
}
END_TEST

static uintptr_t bases[2][3];

/* The distance between blocks and control data is no constant. */
START_TEST(bases_are_independent)
{
    static unit_child_t child;
    for (int i = 0; i < 2; i++) {
        unit_exec("bases", NULL, &child);
        unsigned long block = 0, control = 0;
        ck_assert_int_eq(sscanf(child.err, "%lx %lx", &block, &control), 2);
        bases[i][0] = block;
        bases[i][1] = control;
        bases[i][2] = control - block;
    }
    for (int k = 0; k < 3; k++)
        ck_assert_uint_ne(bases[0][k], bases[1][k]);
}
END_TEST

/* ------------------------------------------------------------------ model */

#define WINDOW 512 /* segments of the model, from the arena's top on */
#define TAKEN_MAX 64

static uint8_t owner[WINDOW];

static void runs_match_model(uint32_t base)
{
    for (uint32_t i = base; i < first->top && i < base + WINDOW;) {
        uint32_t k = i - base, n = 1;
        if (owner[k] != 0) {
            ck_assert(!first->headers[i].in_run);
        } else {
            while (i + n < first->top && owner[k + n] == 0)
                n++;
            const bhi_segment_t *run = &first->headers[i];
            ck_assert_msg(run->in_run && run->run == n && run[n - 1].in_run && run[n - 1].run == n,
                          "segment %u: model run %u, header run %u", i, n, run->run);
        }
        i += n;
    }
}

START_TEST(runs_against_a_model)
{
    start();
    uint64_t seed = unit_seed("runs");
    /* Fill everything below the top, so that the model starts from a clean edge. */
    uint32_t base = first->top;
    struct {
        bhi_segment_t *at;
        uint32_t n;
    } taken[TAKEN_MAX];
    unsigned count = 0;
    uint32_t highest = base;
    bhi_lock_take(&bhi_state->lock);
    for (int round = 0; round < 60000; round++) {
        bool take = count == 0 || (count < TAKEN_MAX && unit_below(&seed, 2) != 0);
        if (take) {
            uint32_t n = 1 + unit_below(&seed, unit_below(&seed, 4) == 0 ? 20 : 4);
            uint32_t align = 1u << (unit_below(&seed, 3) == 0 ? unit_below(&seed, 5) : 0);
            if (first->top + n + align >= base + WINDOW)
                continue;
            bhi_segment_t *s = bhi_arena_take_run(n, align);
            ck_assert_ptr_nonnull(s);
            ck_assert_uint_eq((bhi_segment_base(s) >> BH_SEGMENT_SHIFT) % align, 0);
            uint32_t at = (uint32_t)(s - first->headers);
            ck_assert(at >= base && at + n <= first->top);
            for (uint32_t i = 0; i < n; i++) {
                ck_assert_uint_eq(owner[at - base + i], 0);
                owner[at - base + i] = 1;
                ck_assert(!s[i].in_run);
            }
            bhi_huge_mark(s, n); /* as a caller would: in use */
            taken[count].at = s;
            taken[count++].n = n;
            highest = first->top > highest ? first->top : highest;
        } else {
            unsigned i = unit_below(&seed, count);
            uint32_t at = (uint32_t)(taken[i].at - first->headers) - base;
            memset(owner + at, 0, taken[i].n);
            bhi_arena_give_run(taken[i].at, taken[i].n);
            taken[i] = taken[--count];
        }
        if (round % 64 == 0)
            runs_match_model(base);
    }
    ck_assert_uint_gt(highest, base + 60);
    while (count > 0) {
        count--;
        memset(owner + ((uint32_t)(taken[count].at - first->headers) - base), 0, taken[count].n);
        bhi_arena_give_run(taken[count].at, taken[count].n);
    }
    runs_match_model(base); /* one run again */
    ck_assert_uint_eq(first->headers[base].run, first->top - base);
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

START_TEST(the_impossible_is_refused)
{
    start();
    bhi_lock_take(&bhi_state->lock);
    uint32_t top = first->top;
    ck_assert_ptr_null(bhi_arena_take_run(UINT32_MAX / 4, 1));
    ck_assert_ptr_null(bhi_arena_take_run(UINT32_MAX / 4, UINT32_MAX / 8 + 1));
    ck_assert_uint_eq(first->top, top);
    bhi_segment_t *s = bhi_arena_take_run(1, 1);
    ck_assert_ptr_nonnull(s);
    bhi_arena_give_run(s, 1);
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

static int fail_open(bhi_os_call_t call)
{
    return call == BHI_OS_MPROTECT ? ENOMEM : 0;
}

/* Control data that cannot be opened costs the run, neither the process nor another arena. */
START_TEST(refused_control_data)
{
    start();
    bhi_lock_take(&bhi_state->lock);
    uint32_t n = (uint32_t)(first->headers_open / sizeof(bhi_segment_t)) + 1, arenas = atomic_load(&bhi_state->arena_count);
    bhi_os_fail_hook = fail_open;
    ck_assert_ptr_null(bhi_arena_take_run(n, 1));
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(atomic_load(&bhi_state->arena_count), arenas);
    bhi_segment_t *s = bhi_arena_take_run(n, 1);
    ck_assert_ptr_nonnull(s);
    memset(&s[n - 1], 0, sizeof *s); /* really writable */
    bhi_segment_desc(&s[n - 1], BH_SEGMENT_SLOTS - 1)->back = 0;
    bhi_lock_give(&bhi_state->lock);
}
END_TEST

START_TEST(further_arenas)
{
    start();
    uint32_t before = atomic_load(&bhi_state->arena_count);
    bhi_lock_take(&bhi_state->lock);
    bhi_segment_t *s = bhi_arena_take_run(first->segments, 1); /* more than the first has left */
    bhi_lock_give(&bhi_state->lock);
    if (s == NULL)
        return; /* address space is short */
    ck_assert_uint_eq(atomic_load(&bhi_state->arena_count), before + 1);
    uintptr_t base = bhi_segment_base(s);
    const bhi_arena_t *arena = bhi_arena_of(base);
    ck_assert_ptr_eq(arena, &bhi_state->arenas[before]);
    ck_assert_ptr_eq(bhi_segment_arena(s), arena);
    ck_assert_ptr_eq(bhi_desc_at(arena->descs, base - arena->base), bhi_segment_desc(s, 0));
    for (uint32_t i = 0; i <= before; i++) {
        for (uint32_t k = 0; k < i; k++) {
            const bhi_arena_t *a = &bhi_state->arenas[i], *b = &bhi_state->arenas[k];
            ck_assert(a->base >= b->base + b->size || b->base >= a->base + a->size);
        }
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bases") == 0) {
        void *p = bh_malloc(1);
        fprintf(stderr, "%lx %lx\n", (unsigned long)bhi_process.block_base, (unsigned long)bhi_state);
        return p != NULL ? 0 : 1;
    }
    Suite *s = suite_create("arena");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, lookup);
    tcase_add_test(c, layout_is_behind_guards);
    if (!BH_SANITIZED) /* there the kernel chooses the bases, side by side */
        tcase_add_test(c, bases_are_independent);
    tcase_add_test(c, runs_against_a_model);
    tcase_add_test(c, the_impossible_is_refused);
    tcase_add_test(c, refused_control_data);
    tcase_add_test(c, further_arenas);
    suite_add_tcase(s, c);
    return unit_main(s);
}
