/* Freed large blocks: from a threshold on nobody can access them, and their
 * addresses stay out of use for a while. Owns Q1 to Q3 of meta/types.h. */
#ifndef BH_HARDEN_LARGE_H
#define BH_HARDEN_LARGE_H

#include "meta/types.h"

/* Whether a freed block of so many bytes, with a span of its own, is for the
 * quarantine. Any thread. */
BH_INLINE bool bhi_large_wants(size_t bytes)
{
    return BH_HARDEN_LARGE && bytes >= bhi_process.options.trap_from && bhi_process.options.guard != BHI_GUARD_NONE;
}

/* What page->local_free of a single block says of its memory once the thread that
 * freed it has trapped it, beforehand. TRAPPING is seen in a forked child alone, where
 * that thread is not: any part of the memory may be closed, and the header says of none
 * that it is. */
enum { BHI_LARGE_OPEN = 0, BHI_LARGE_TRAPPED = 1, BHI_LARGE_TRAPPED_DIRTY = 2, BHI_LARGE_TRAPPING = 3 };
BH_INLINE uint32_t bhi_large_trapped(const bhi_page_t *page)
{
    return page->block_size == 0 && page->local_free <= BHI_LARGE_TRAPPING ? page->local_free : BHI_LARGE_OPEN;
}

/* By a thread that has set held in the page of a single block, which cannot end
 * meanwhile: makes it inaccessible before its owner comes to it. Takes the lock. */
void bhi_large_trap(bhi_page_t *page);

/* Traps a span in use, whose page has ended, unless it is `trapped`, and keeps its
 * addresses out of use. The memory of a chunk is kept as it is, for others. Lock held;
 * gives it up during kernel calls. */
void bhi_large_span(bhi_segment_t *segment, unsigned slot, unsigned slots, uint32_t trapped);

/* The same for a page of whole segments, and gives its map back. Where the kernel
 * will not take its addresses back, it becomes free slots; one of many segments
 * waits until another is freed. Takes the lock itself. */
void bhi_large_huge(const bhi_page_t *page, bhi_segment_t *first);

/* Lets all addresses go. Lock held. */
void bhi_large_empty(void);

#endif
