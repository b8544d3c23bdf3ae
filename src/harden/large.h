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

/* Traps a span in use, whose page has ended, and keeps its addresses out of use.
 * Lock held; gives it up during kernel calls. */
void bhi_large_span(bhi_segment_t *segment, unsigned slot, unsigned slots);

/* The same for a page of whole segments, and gives its map back. Where the kernel
 * will not take its addresses back, it becomes free slots; one of many segments
 * waits until another is freed. Takes the lock itself. */
void bhi_large_huge(const bhi_page_t *page, bhi_segment_t *first);

/* Lets all addresses go. Lock held. */
void bhi_large_empty(void);

#endif
