/* The quarantine of large blocks' addresses. Knows spans and how to close them;
 * knows nothing of heaps. A span that comes in takes the place of a random one of
 * the newer half of the ring, which becomes the newest; those that leave are the
 * oldest. So nobody can tell which address is used again when, and each waits
 * for at least half as many others as were in the ring when it came.
 *
 * The memory is gone already: what waits costs address space, and for guard
 * regions page tables, 4 KiB for each 2 MiB. */
#include "harden/large.h"

#include "base/checked.h"
#include "harden/chunk.h"
#include "harden/guard.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/segment.h"
#include "os/os.h"

#define ARENA_SHARE 8 /* of a small first arena, the part that may wait */
/* Segments of a huge span up to which each gets a header, and the span page tables
 * for a guard region, where the kernel will not take its addresses back. */
#define ADOPT_MOST 64u

static bhi_quarantined_t *entry(bhi_large_quarantine_t *q, uint32_t i)
{
    return &q->ring[(q->first + i) % BHI_QUARANTINE_MOST];
}

static size_t bytes_of(const bhi_quarantined_t *e)
{
    return (size_t)e->slots << BH_SLOT_SHIFT;
}

static void let_go(const bhi_quarantined_t *e)
{
    if (e->huge) {
        e->segment->quarantined = 0;
        bhi_arena_give_run(e->segment, e->slots >> BH_SEGMENT_SLOTS_SHIFT);
    } else if (e->whole) {
        bhi_chunk_give(e->segment, e->dirty);
    } else {
        bhi_span_give(e->segment, e->slot, e->slots, e->dirty);
    }
}

static void drop_oldest(bhi_large_quarantine_t *q)
{
    bhi_quarantined_t oldest = *entry(q, 0);
    q->first = (q->first + 1) % BHI_QUARANTINE_MOST;
    q->count--;
    q->bytes -= bytes_of(&oldest);
    let_go(&oldest);
}

static void put(bhi_quarantined_t e)
{
    bhi_large_quarantine_t *q = &bhi_state->quarantine;
    size_t limit = bhi_min(bhi_process.options.large_quarantine_bytes, bhi_process.block_size / ARENA_SHARE);
    if (bytes_of(&e) > limit) { /* it would drive out all others */
        let_go(&e);
        return;
    }
    while (q->count == BHI_QUARANTINE_MOST || q->bytes + bytes_of(&e) > limit)
        drop_oldest(q);
    uint32_t half = q->count / 2;
    uint32_t at = half + bhi_random_below(&bhi_state->random, q->count - half + 1);
    *entry(q, q->count) = *entry(q, at);
    *entry(q, at) = e;
    q->count++;
    q->bytes += bytes_of(&e);
}

void bhi_large_empty(void)
{
    bhi_large_quarantine_t *q = &bhi_state->quarantine;
    while (q->count > 0)
        drop_oldest(q);
}

void bhi_large_trap(bhi_page_t *page)
{
    unsigned slot;
    bhi_segment_t *s = bhi_page_segment(page, &slot);
    if (s->kind == BHI_SEGMENT_HUGE) {
        bhi_state_lock(); /* its owner may read the block's end while it is not held: see hardened.c */
        page->local_free = BHI_LARGE_TRAPPING;
        bhi_state_unlock();
        uintptr_t base = bhi_align_down(page->start, BH_SEGMENT_SIZE); /* see bhi_heap_large_at */
        bool trapped = bhi_os_rereserve(base, page->start - base + page->single_bytes) == 0;
        page->local_free = trapped ? BHI_LARGE_TRAPPED : BHI_LARGE_OPEN;
        return;
    }
    bhi_state_lock();
    page->local_free = BHI_LARGE_TRAPPING; /* for a child of a fork meanwhile: the lock is given up */
    page->local_free = bhi_guard_trap(s, slot, page->span_slots, false) ? BHI_LARGE_TRAPPED : BHI_LARGE_TRAPPED_DIRTY;
    bhi_state_unlock();
}

void bhi_large_span(bhi_segment_t *s, unsigned slot, unsigned slots, uint32_t trapped)
{
    if (trapped == BHI_LARGE_OPEN && bhi_chunk_leave(s, slot, slots)) {
        bool gone = bhi_guard_trap(s, 0, BH_SEGMENT_SLOTS, true);
        put((bhi_quarantined_t){.segment = s, .slot = (uint8_t)slot, .slots = slots, .dirty = !gone, .whole = true});
        return;
    }
    bhi_span_quarantine(s, slot, slots);
    bool done = trapped == BHI_LARGE_TRAPPED || trapped == BHI_LARGE_TRAPPED_DIRTY;
    /* Of what is partly closed nobody knows how: one mapping over it, whatever it costs. */
    bool zero = done ? trapped == BHI_LARGE_TRAPPED : bhi_guard_trap(s, slot, slots, trapped == BHI_LARGE_TRAPPING);
    put((bhi_quarantined_t){.segment = s, .slot = (uint8_t)slot, .slots = slots, .dirty = !zero});
}

/* A span that the kernel refused earlier: at the mapping limit what is in the
 * middle of a mapping cannot be closed, and that changes with its neighbours. */
static void try_refused_again(void)
{
    bhi_state_lock();
    bhi_segment_t *first = bhi_state->huge_refused;
    if (first != NULL)
        bhi_state->huge_refused = first->next;
    bhi_state_unlock();
    if (first == NULL)
        return;
    bool gone = bhi_os_rereserve(bhi_segment_base(first), (size_t)first->run << BH_SEGMENT_SHIFT) == 0;
    bhi_state_lock();
    if (gone) {
        first->quarantined = 0;
        bhi_arena_give_run(first, first->run);
    } else {
        first->next = bhi_state->huge_refused;
        bhi_state->huge_refused = first;
    }
    bhi_state_unlock();
}

/* Makes segments of slots of a span that is still accessible. */
static void adopt(bhi_segment_t *first, uint32_t n, size_t bytes, bool dirty, bhi_region_t region)
{
    bhi_page_t *slots = bhi_segment_desc(first, 0);
    for (size_t i = 0; i < (size_t)n << BH_SEGMENT_SLOTS_SHIFT; i++)
        slots[i].residue = 0;
    bhi_segment_adopt_huge(first, n, bytes, dirty);
    for (uint32_t i = 0; region != BHI_REGION_NONE && i < n; i++)
        bhi_guard_note_range(first + i, ~(uint64_t)0);
}

void bhi_large_huge(const bhi_page_t *page, bhi_segment_t *first)
{
    uint32_t n = first->run;
    bool wanted = bhi_large_wants(page->single_bytes);
    uintptr_t base = bhi_align_down(page->start, BH_SEGMENT_SIZE); /* see bhi_heap_large_at */
    size_t bytes = page->start - base + page->single_bytes;
    bool gone = bhi_os_rereserve(base, (size_t)n << BH_SEGMENT_SHIFT) == 0;
    uint32_t trapped = bhi_large_trapped(page);
    if (!gone && trapped != BHI_LARGE_OPEN)
        bytes = 0; /* nothing of it is accessible any more, or not all */
    /* At the mapping limit guard regions still work. */
    bool small = n <= ADOPT_MOST && trapped != BHI_LARGE_TRAPPING;
    bhi_region_t region = !gone && wanted && small && bytes != 0 ? bhi_guard_range(base, bytes) : BHI_REGION_NONE;
    bool closed = gone || region == BHI_REGION_ALL;
    bool zero = closed || bhi_os_purge(base, bytes) == 0;
    if (wanted && !closed)
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    bhi_state_lock();
    bhi_pool_give(page->map, BHI_MAP_SINGLE_BYTES);
    if (!gone && small) {
        adopt(first, n, bytes, !zero, region);
    } else if (!gone) {
        first->quarantined = ~(uint64_t)0;
        first->next = bhi_state->huge_refused;
        bhi_state->huge_refused = first;
    } else if (wanted) {
        first->quarantined = ~(uint64_t)0;
        put((bhi_quarantined_t){.segment = first, .huge = true, .slots = n << BH_SEGMENT_SLOTS_SHIFT});
    } else {
        bhi_arena_give_run(first, n);
    }
    bhi_state_unlock();
    if (gone)
        try_refused_again();
}
