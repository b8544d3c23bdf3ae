/* Bad frees of every kind, and bad handles. Each must end in a violation at once, of
 * the id that the address deserves; nothing may come back. */
#include "run.h"

#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS(p) ((void *)(p)) /* NOLINT: blocks are numbers here */
#define FREED ID(DOUBLE_FREE)
#define INVALID ID(INVALID_FREE)
#define FOREIGN ID(FOREIGN_FREE)
#define NEAR ((uintptr_t)1 << 20)

enum { FREE, REALLOC, QUERY, SIZED, FORMS };

/* The same of another call. */
static uint64_t as(uint64_t ids, unsigned form)
{
    if (form != REALLOC && form != QUERY)
        return ids;
    uint64_t out = 0;
    if ((ids & FREED) != 0)
        out |= form == REALLOC ? ID(REALLOC_AFTER_FREE) : ID(QUERY_AFTER_FREE);
    if ((ids & INVALID) != 0)
        out |= form == REALLOC ? ID(INVALID_REALLOC) : ID(INVALID_QUERY);
    if ((ids & FOREIGN) != 0)
        out |= form == REALLOC ? ID(FOREIGN_REALLOC) : ID(FOREIGN_QUERY);
    return out;
}

/* An address as an argument of the printed program: near a block if it is. */
static const char *name_of(uintptr_t p)
{
    static char text[48];
    snprintf(text, sizeof text, "(void *)%#zx", p);
    for (unsigned i = 0; i < PLACES; i++) {
        const block_t *b = &model.block[i];
        if (b->state != BLOCK_NONE && p - b->p + NEAR < 2 * NEAR)
            snprintf(text, sizeof text, "(char *)p[%u] + %ld", i, (long)(p - b->p));
        if (b->state != BLOCK_NONE && p == b->p)
            break;
    }
    return text;
}

static void strike(uintptr_t p, uint64_t ids, unsigned form)
{
    run.must = as(ids, form);
    volatile size_t kept = 0;
    switch (form) {
    case FREE:
        SAY("bh_free(%s); /* must not come back */", name_of(p));
        bh_free(ADDRESS(p));
        break;
    case REALLOC:
        SAY("bh_realloc(%s, 10); /* must not come back */", name_of(p));
        kept = (size_t)bh_realloc(ADDRESS(p), 10);
        break;
    case QUERY:
        SAY("bh_usable_size(%s); /* must not come back */", name_of(p));
        kept = bh_usable_size(ADDRESS(p));
        break;
    default:
        SAY("bh_free_sized(%s, 10); /* must not come back */", name_of(p));
        bh_free_sized(ADDRESS(p), 10);
    }
    (void)kept;
    finding("call %u of the bad address %#zx came back", form, p);
}

/* What an address deserves that is no live block's start. */
static uint64_t deserves(uintptr_t p)
{
    if (!model_inside(p, 1))
        return FOREIGN;
    const block_t *b = model_block_at(p);
    if (b != NULL && b->usable != 0)
        return INVALID; /* inside of a live one */
    return FREED | INVALID;
}

static bool is_start(uintptr_t p)
{
    const block_t *b = model_block_at(p);
    return b != NULL && b->p == p;
}

static void strike_unless_live(uintptr_t p, unsigned form)
{
    if (p != 0 && !is_start(p))
        strike(p, deserves(p), form);
}

/* Frees a live block, then again: nothing has been handed out in between. */
static void twice(unsigned place, unsigned form, unsigned c)
{
    block_t *b = run_live(place);
    if (b == NULL)
        return;
    uintptr_t p = b->p;
    if ((c & 1) != 0)
        run_switch((window_context() + 1) % WINDOW_CONTEXTS);
    run_free(place % PLACES);
    if ((c & 2) != 0)
        run_switch((window_context() + 1) % WINDOW_CONTEXTS);
    if ((c & 8) != 0)
        run_switch((window_context() + 1) % WINDOW_CONTEXTS); /* with both others, the owner again */
    if ((c & 4) != 0)
        bh_collect(true);
    /* Once its page has gone to the kernel, or its span to others, less is known. */
    strike(p, (c & 4) != 0 ? FREED | INVALID : FREED, form);
}

static void mismatch(unsigned place, unsigned c)
{
    const block_t *b = run_live(place);
    if (b == NULL || b->aligned_at)
        return;
    size_t wrong = model.hardened ? b->size + 1 + (c & 0x7f) : b->usable + 1 + (size_t)c * 16;
    if ((c & 0x80) != 0 && !b->irregular && b->usable >= 64)
        wrong = b->usable / 4;
    if (wrong == b->size)
        return;
    run.must = ID(SIZE_MISMATCH);
    if ((c & 1) != 0) {
        SAY("bh_free_sized(p[%u], %zu); /* must not come back */", place % PLACES, wrong);
        bh_free_sized(ADDRESS(b->p), wrong);
    } else {
        size_t alignment = (b->p & (0 - b->p)) * 2;
        SAY("bh_free_aligned_sized(p[%u], %zu, %zu); /* must not come back */", place % PLACES, alignment, b->size);
        bh_free_aligned_sized(ADDRESS(b->p), alignment, b->size);
    }
    finding("block %#zx of %zu bytes was freed with %zu", b->p, b->size, wrong);
}

static const char constant[64];
static char writable[64];

static void bad_free(const step_t *s)
{
    const block_t *b = &model.block[s->a % PLACES];
    bool live = b->state == BLOCK_LIVE;
    char local[32];
    uint64_t c = s->c;
    unsigned form = s->b / 16 % FORMS;
    switch (s->b % 16) {
    case 0:
    case 1: twice(s->a, form, s->c); break;
    case 2:
    case 3:
        if (b->state == BLOCK_FREED)
            strike_unless_live(b->p, form);
        break;
    case 4:
    case 5:
        if (live && b->usable > 1)
            strike(b->p + 1 + c % (b->usable - 1), INVALID, form);
        break;
    case 6:
        if (b->state != BLOCK_NONE)
            strike_unless_live(b->p - 16 * (c + 1), form);
        break;
    case 7:
        if (b->state != BLOCK_NONE)
            strike_unless_live(b->p + b->usable + 16 * c, form);
        break;
    case 8: strike((uintptr_t)&local[c % sizeof local], FOREIGN, form); break;
    case 9: strike((uintptr_t)((c & 1) != 0 ? &constant[c % 64] : &writable[c % 64]), FOREIGN, form); break;
    case 10: strike((uintptr_t)&bh_malloc + c, FOREIGN, form); break;
    case 11: strike((uintptr_t)1 + c, FOREIGN, form); break;
    case 12: strike_unless_live((uintptr_t)(c * 0x9e3779b97f4a7c15u), form); break;
    case 13: strike_unless_live(window_places.blocks + window_places.blocks_size / 256 * c + (s->a & 1) * 8u, form); break;
    case 14: strike((c & 1) != 0 ? window_places.descs + c * 64 : window_places.state + c * 64, FOREIGN, form); break;
    default: mismatch(s->a, s->c); break;
    }
    (void)local;
}

/* ---------------------------------------------------------------------- handles */

static bool never(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t size, void *arg)
{
    (void)heap, (void)area, (void)block, (void)size, (void)arg;
    return true;
}

static void bad_heap(const step_t *s)
{
    unsigned t = window_context(), other = (t + 1) % WINDOW_CONTEXTS;
    bh_heap_t *handle = NULL;
    switch (s->a % 4) {
    case 0: handle = run.stale[t]; break;
    case 1: handle = run.heap[other][s->c % HEAPS]; break;
    case 2: handle = ADDRESS((uintptr_t)(s->c * 0x9e3779b97f4a7c15u)); break;
    default: handle = ADDRESS((uintptr_t)s->c + 1); break;
    }
    for (unsigned i = 0; i < HEAPS; i++) {
        if (handle == NULL || handle == run.heap[t][i])
            return;
    }
    run.must = ID(HEAP_MISUSE);
    SAY("/* bad handle %#zx, call %u */", (uintptr_t)handle, s->b % 6);
    switch (s->b % 6) {
    case 0: bh_free(bh_heap_malloc(handle, 16)); break;
    case 1: bh_heap_delete(handle); break;
    case 2: bh_heap_destroy(handle); break;
    case 3: bh_heap_visit_blocks(handle, false, never, NULL); break;
    case 4: bh_heap_contains_block(handle, &handle); break;
    default: bh_free(bh_heap_realloc(handle, NULL, 16)); break;
    }
    finding("call %u with the bad handle %#zx came back", s->b % 6, (uintptr_t)handle);
}

void run_bad(const step_t *s)
{
    if (s->op == OP_BAD_FREE)
        bad_free(s);
    else
        bad_heap(s);
}
