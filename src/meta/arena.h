/* Arenas: address reservations for blocks and their control data, the lookup
 * from addresses to descriptors, and runs of whole segments. */
#ifndef BH_META_ARENA_H
#define BH_META_ARENA_H

#include "meta/types.h"

/* Start-up: first arena and the state structure in it. Fills bhi_process. */
bool bhi_arena_init(bhi_random_root_t *root);

/* Address space without access for control data; 0 when there is none. */
uintptr_t bhi_arena_reserve_anywhere(size_t size);

/* n consecutive segments, without access and never handed out as they are; NULL
 * when address space is used up. Caller holds state->lock. */
bhi_segment_t *bhi_arena_take_run(uint32_t n, uint32_t align_segments);
/* Gives n segments back; they are without access and zero. Same lock. */
void bhi_arena_give_run(bhi_segment_t *first, uint32_t n);

/* Nearly always the first; the others exist only under an address-space limit. */
BH_INLINE bhi_arena_t *bhi_segment_arena(const bhi_segment_t *segment)
{
    bhi_arena_t *arena = bhi_state->arenas;
    while ((uintptr_t)segment - (uintptr_t)arena->headers >= arena->segments * sizeof(bhi_segment_t))
        arena++;
    return arena;
}

BH_INLINE uintptr_t bhi_segment_base(const bhi_segment_t *segment)
{
    const bhi_arena_t *arena = bhi_segment_arena(segment);
    return arena->base + ((size_t)(segment - arena->headers) << BH_SEGMENT_SHIFT);
}

BH_INLINE bhi_page_t *bhi_segment_desc(const bhi_segment_t *segment, unsigned slot)
{
    const bhi_arena_t *arena = bhi_segment_arena(segment);
    size_t index = ((size_t)(segment - arena->headers) << BH_SEGMENT_SLOTS_SHIFT) + slot;
    return (bhi_page_t *)(arena->descs + (index << BH_PAGE_DESC_SHIFT));
}

/* The arena whose block reservation contains p, or NULL. Touches nothing but
 * control data; any thread, no lock. */
BH_INLINE bhi_arena_t *bhi_arena_of(uintptr_t p)
{
    if (bhi_state == NULL)
        return NULL;
    uint32_t n = atomic_load_explicit(&bhi_state->arena_count, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        bhi_arena_t *arena = &bhi_state->arenas[i];
        if (p - arena->base < arena->size)
            return arena;
    }
    return NULL;
}

/* Descriptor of the slot that contains offset `off` of an arena. */
BH_INLINE bhi_page_t *bhi_desc_at(uintptr_t descs, uintptr_t off)
{
    return (bhi_page_t *)(descs + ((off >> BH_SLOT_SHIFT) << BH_PAGE_DESC_SHIFT));
}

/* The first descriptor of a span, from that of any of its slots. */
BH_INLINE bhi_page_t *bhi_desc_first(bhi_page_t *desc)
{
    return (bhi_page_t *)((uintptr_t)desc - desc->back);
}

/* Header of the segment that a page's span starts in. */
BH_INLINE bhi_segment_t *bhi_page_segment(const bhi_page_t *page, unsigned *slot)
{
    bhi_arena_t *arena = bhi_arena_of(page->start);
    size_t index = (page->start - arena->base) >> BH_SLOT_SHIFT;
    *slot = (unsigned)(index & (BH_SEGMENT_SLOTS - 1));
    return &arena->headers[index >> BH_SEGMENT_SLOTS_SHIFT];
}

#endif
