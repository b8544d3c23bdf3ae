/* Residue: marks in descriptors of slots, and a heap's notes of where it left some. A note may be out of date; the marks and the set of free slots tell. */
#include "core/residue.h"

#include "core/hardened.h"
#include "core/page.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "meta/arena.h"
#include "rt/violation.h"

#define TRIES 4 /* notes that turn out to be out of date, for one page */

#define PAGES 31u /* the bits of a large block's mark that count OS pages */

/* Of the heap as it is now: with every owner that it gets, it is another one. Two may
 * agree by chance, once in 2^25; then one heap's block shows what another's held. */
static uint32_t mixed(const bhi_heap_t *heap, unsigned c)
{
    return (heap->generation * 256 + c) * 0x9e3779b1u + heap->id + 1; /* golden ratio: Knuth, multiplicative hashing */
}

/* Mark of slot i of a page of class c. */
static uint32_t mark_of(const bhi_heap_t *heap, unsigned c, unsigned i)
{
    return (mixed(heap, c) << BH_SEGMENT_SLOTS_SHIFT | i) | (uint32_t)1 << 31;
}

/* Mark of a slot whose first so many OS pages hold nothing but contents of large
 * blocks. */
static uint32_t large_mark_of(const bhi_heap_t *heap, unsigned os_pages)
{
    return mixed(heap, BHI_CLASS_NONE) << 5 | os_pages | (uint32_t)1 << 31;
}

/* How many OS pages of slot i the first `bytes` of a span reach. */
static unsigned pages_reached(size_t bytes, unsigned i)
{
    size_t before = (size_t)i << BH_SLOT_SHIFT;
    return bytes <= before ? 0 : (unsigned)bhi_min((bytes - before + BH_OS_PAGE_SIZE - 1) >> BH_OS_PAGE_SHIFT, BH_SLOT_OS_PAGES);
}

/* ---------------------------------------------------------------------- notes */

static void note(bhi_heap_t *heap, const bhi_page_t *page, size_t bytes)
{
    uintptr_t at = (uintptr_t)page - bhi_process.descs;
    if (at >> BH_PAGE_DESC_SHIFT > UINT32_MAX || page->start - bhi_process.block_base >= bhi_process.block_size)
        return; /* not of the first arena */
    bhi_left_t *left = &heap->left;
    uint32_t i = left->count < BHI_LEFT_MOST ? left->count++ : bhi_random_below(&heap->random, BHI_LEFT_MOST);
    left->size_class[i] = page->size_class;
    left->os_pages[i] = (uint8_t)(bytes >> BH_OS_PAGE_SHIFT <= UINT8_MAX ? bytes >> BH_OS_PAGE_SHIFT : 0);
    left->slot[i] = (uint32_t)(at >> BH_PAGE_DESC_SHIFT);
}

static void forget_note(bhi_left_t *left, uint32_t i)
{
    left->count--;
    left->size_class[i] = left->size_class[left->count];
    left->os_pages[i] = left->os_pages[left->count];
    left->slot[i] = left->slot[left->count];
}

static void check_count(const bhi_left_t *left)
{
    if (bh_unlikely(left->count > BHI_LEFT_MOST)) /* or the stack would be written over */
        bhi_violation(BHI_CORRUPT_CONTROL, (uintptr_t)left);
}

static bhi_segment_t *noted_segment(uint32_t at)
{
    return &bhi_state->arenas[0].headers[at >> BH_SEGMENT_SLOTS_SHIFT];
}

#define NO_SLOT UINT32_MAX

/* Takes one of the notes of class c out, at random: its slot. */
static uint32_t noted(bhi_heap_t *heap, unsigned c)
{
    bhi_left_t *left = &heap->left;
    uint32_t match[BHI_LEFT_MOST], n = 0;
    check_count(left);
    for (uint32_t i = 0; i < left->count; i++) {
        match[n] = i;
        n += left->size_class[i] == c;
    }
    if (n == 0)
        return NO_SLOT;
    uint32_t i = match[BH_HARDEN_RANDOM ? bhi_random_below(&heap->random, n) : 0], slot = left->slot[i];
    forget_note(left, i);
    return slot;
}

/* ---------------------------------------------------------------------- marks */

void bhi_residue_own(const bhi_heap_t *heap, bhi_page_t *page)
{
    page->residue = mark_of(heap, page->size_class, 0);
}

bool bhi_residue_is_own(const bhi_heap_t *heap, const bhi_page_t *page)
{
    return page->residue == mark_of(heap, page->size_class, 0);
}

static void leave_large(bhi_heap_t *heap, bhi_page_t *page)
{
    size_t bytes = (page->start & (BH_SLOT_SIZE - 1)) + page->single_bytes; /* see bhi_heap_large_at */
    for (uint32_t i = 0; i < page->span_slots && i < BH_SEGMENT_SLOTS; i++)
        page[i].residue = large_mark_of(heap, (unsigned)bhi_max(pages_reached(bytes, i), page[i].residue & PAGES));
    if (!bhi_large_wants(bhi_page_bytes(page)))
        note(heap, page, bytes);
}

void bhi_residue_leave(bhi_heap_t *heap, bhi_page_t *page)
{
    if (page->size_class == BHI_CLASS_ZERO || bhi_is_hardened())
        return;
    if (page->state == BHI_PAGE_LARGE) {
        leave_large(heap, page);
        return;
    }
    /* Or it has another's still, in blocks that were not taken over. */
    bool own = BH_HARDEN_MAP && bhi_residue_is_own(heap, page);
    for (uint32_t i = 0; i < page->span_slots; i++)
        page[i].residue = own ? mark_of(heap, page->size_class, i) : 0;
    if (own && BH_HARDEN_CLEAR) {
        page->local_free = bhi_page_capacity(page);
        note(heap, page, 0);
    }
}

bhi_left_page_t bhi_residue_resume(const bhi_page_t *page)
{
    return (bhi_left_page_t){page->local_free, page->fresh, (bhi_memory_t)page->memory};
}

static bool holds(const bhi_page_t *first, unsigned slots, const bhi_heap_t *heap, unsigned c)
{
    for (unsigned i = 0; i < slots; i++) {
        if (first[i].residue != mark_of(heap, c, i))
            return false;
    }
    return true;
}

void bhi_residue_forget(bhi_page_t *first, unsigned slots)
{
    for (unsigned i = 0; i < slots; i++)
        first[i].residue = 0;
}

uint64_t bhi_residue_claim(bhi_page_t *first, unsigned slots, const bhi_heap_t *heap, size_t bytes, uint64_t dirty)
{
    uint64_t others = 0;
    uint32_t own = heap != NULL ? large_mark_of(heap, 0) : 1; /* 1: no mark's */
    for (unsigned i = 0; i < slots; i++) {
        unsigned want = pages_reached(bytes, i), marked = first[i].residue & PAGES;
        bool is_dirty = (dirty >> i & 1) != 0, is_own = (first[i].residue & ~PAGES) == own && marked >= want;
        if (want > 0 && is_dirty && !is_own)
            others |= (uint64_t)1 << i;
        first[i].residue = !is_dirty ? BH_SLOT_OS_PAGES : is_own ? marked : want;
    }
    return others;
}

bhi_span_t bhi_residue_take(bhi_heap_t *heap, unsigned c, unsigned slots)
{
    for (unsigned tries = 0; tries < TRIES; tries++) {
        uint32_t at = noted(heap, c);
        if (at == NO_SLOT)
            break;
        bhi_segment_t *segment = noted_segment(at);
        unsigned slot = at % BH_SEGMENT_SLOTS;
        /* Descriptors of slots that are in use are their user's to change. */
        if (!bhi_span_is_free(segment, slot, slots))
            continue;
        const bhi_page_t *first = bhi_segment_desc(segment, slot);
        if (first->size_class == c && holds(first, slots, heap, c))
            return bhi_span_take_at(segment, slot, slots);
    }
    return (bhi_span_t){NULL, 0, false, 0};
}

/* ---------------------------------------------------------------- large blocks */

/* What a place costs, in hundreds of nanoseconds or so: page faults of the program, and
 * a guard on an OS page that is in memory. With other threads the kernel then interrupts
 * their processors. */
#define COST_FAULT 15u
#define COST_GUARD 15u
#define COST_NONE UINT32_MAX
/* So many places that are too long for a block wait for a longer one, rather than that
 * the guard of one of them moves to where it interrupts. */
#define LONG_WAITING 8u

/* What it costs to have a block of `bytes` in n slots from one on. COST_NONE: they are
 * not free, or would have to be cleared. *moves: a guard is placed on memory. */
static uint32_t cost_of(const bhi_segment_t *s, unsigned slot, unsigned n, const bhi_heap_t *heap, size_t bytes, bool *moves)
{
    if (slot + n > BH_SEGMENT_SLOTS || !bhi_span_is_free(s, slot, n))
        return COST_NONE;
    const bhi_page_t *first = bhi_segment_desc(s, slot);
    uint32_t own = large_mark_of(heap, 0), cost = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned want = pages_reached(bytes, i), marked = (first[i].residue & ~PAGES) == own ? first[i].residue & PAGES : 0;
        bool in_memory = (s->dirty >> (slot + i) & 1) != 0;
        if (in_memory && marked < want)
            return COST_NONE;
        cost += COST_FAULT * (in_memory ? bhi_guard_closed(s, slot + i, want) : want);
    }
    unsigned last = slot + n - 1, from = (unsigned)(bytes >> BH_OS_PAGE_SHIFT) & (BH_SLOT_OS_PAGES - 1);
    *moves = (s->dirty >> last & 1) != 0 && !bhi_guard_is_closed(s, last, from);
    return cost;
}

/* Which of the heap's notes suit. */
typedef struct choice {
    uint32_t best, best_long; /* notes, or NO_SLOT; the second interrupts */
    uint32_t cost, cost_long, longs;
    unsigned found;
} choice_t;

/* The note at i goes; the last one takes its place. */
static void forget_stale(bhi_left_t *left, uint32_t i, choice_t *c)
{
    forget_note(left, i);
    if (c->best == left->count)
        c->best = i;
    if (c->best_long == left->count)
        c->best_long = i;
}

static bhi_span_t take_note(bhi_left_t *left, uint32_t i, unsigned slots)
{
    uint32_t at = left->slot[i];
    forget_note(left, i);
    return bhi_span_take_at(noted_segment(at), at % BH_SEGMENT_SLOTS, slots);
}

/* Of the first two places from a random one on that suit, the cheaper one: where there
 * are several, nobody can say which of them the next block takes. */
static choice_t choose_large(bhi_heap_t *heap, unsigned slots, size_t bytes, uint32_t most, bool alone)
{
    bhi_left_t *left = &heap->left;
    choice_t c = {NO_SLOT, NO_SLOT, COST_NONE, COST_NONE, 0, 0};
    uint32_t i = BH_HARDEN_RANDOM && left->count > 1 ? bhi_random_below(&heap->random, left->count) : 0;
    for (uint32_t looks = left->count; looks > 0 && left->count > 0 && c.found < 2; looks--) {
        if (i >= left->count)
            i = 0;
        const bhi_segment_t *s = noted_segment(left->slot[i]);
        unsigned slot = left->slot[i] % BH_SEGMENT_SLOTS;
        bool is_large = left->size_class[i] == BHI_CLASS_NONE, moves = false;
        if (is_large && !bhi_span_is_free(s, slot, 1)) {
            forget_stale(left, i, &c);
            continue;
        }
        uint32_t cost = is_large ? cost_of(s, slot, slots, heap, bytes, &moves) : COST_NONE;
        if (cost != COST_NONE && moves && !alone) {
            c.longs++;
            if (cost < c.cost_long) {
                c.cost_long = cost;
                c.best_long = i;
            }
        } else if (cost != COST_NONE && (cost += moves ? COST_GUARD : 0) < most) {
            c.found++;
            c.best = cost < c.cost ? i : c.best;
            c.cost = cost < c.cost ? cost : c.cost;
        }
        i++;
    }
    return c;
}

/* Of the first two places of so many OS pages from a random one on, the cheaper one, if it
 * costs less than `most`. */
static bhi_span_t take_same(bhi_heap_t *heap, unsigned slots, size_t bytes, uint32_t most)
{
    bhi_left_t *left = &heap->left;
    uint32_t best = NO_SLOT, least = most, found = 0;
    uint32_t i = BH_HARDEN_RANDOM && left->count > 1 ? bhi_random_below(&heap->random, left->count) : 0;
    for (uint32_t looks = left->count; looks > 0 && found < 2; looks--, i++) {
        if (i >= left->count)
            i = 0;
        if (left->os_pages[i] != bytes >> BH_OS_PAGE_SHIFT)
            continue;
        bool moves;
        uint32_t cost = cost_of(noted_segment(left->slot[i]), left->slot[i] % BH_SEGMENT_SLOTS, slots, heap, bytes, &moves);
        if (cost >= most || moves)
            continue;
        found++;
        if (cost < least) {
            best = i;
            least = cost;
        }
    }
    return best != NO_SLOT ? take_note(left, best, slots) : (bhi_span_t){NULL, 0, false, 0};
}

bhi_span_t bhi_residue_take_large(bhi_heap_t *heap, unsigned slots, size_t bytes, bool alone, bool need)
{
    bhi_left_t *left = &heap->left;
    bhi_span_t span = {NULL, 0, false, 0};
    check_count(left);
    uint32_t most = COST_FAULT * BH_SLOT_OS_PAGES * slots / 2;
    if (!alone)
        span = take_same(heap, slots, bytes, most);
    if (span.segment != NULL)
        return span;
    choice_t c = choose_large(heap, slots, bytes, most, alone);
    if (c.best == NO_SLOT && need) {
        if (!alone)
            span = take_same(heap, slots, bytes, COST_NONE); /* its guards are there */
        if (span.segment == NULL && !alone && c.longs < LONG_WAITING)
            span = bhi_span_take_clean(slots);
        if (span.segment == NULL && c.best_long != NO_SLOT && c.longs < LONG_WAITING)
            span = bhi_span_take_in_new_segment(slots, 1);
        c.best = span.segment == NULL ? c.best_long : NO_SLOT;
    }
    return c.best != NO_SLOT ? take_note(left, c.best, slots) : span;
}
