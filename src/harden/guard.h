/* Guards: which OS pages of a segment can be accessed. Caller holds
 * state->lock. Owns S3. */
#ifndef BH_HARDEN_GUARD_H
#define BH_HARDEN_GUARD_H

#include "meta/types.h"

/* Start-up: do guard regions work on this kernel? Fills bhi_process. */
void bhi_guard_init(void);

/* Whether two mappings more are within the budget. */
bool bhi_guard_mappings_left(void);

/* Makes the n slots from `slot`, which hold no block, accessible up to OS page
 * `last_from` of the last one, and sees to it that this OS page, the last one of
 * that slot and the one before the first slot are not accessible. What lies
 * between the first two may be. A guard that cannot be placed is counted, never
 * an error. False when the slots cannot be made accessible. */
bool bhi_guard_fit(bhi_segment_t *segment, unsigned slot, unsigned n, unsigned last_from);

/* The same for a span that has grown and keeps its contents. After false the
 * guards are as they were. */
bool bhi_guard_move(bhi_segment_t *segment, unsigned slot, unsigned n, unsigned last_from);

/* Closes an OS page of a slot and all behind it, without contents, with one call where
 * guard regions work: bhi_guard_fit then has nothing to do there, nor has the next block
 * that is longer, which would have to take memory away that other processors know. */
void bhi_guard_tail(bhi_segment_t *segment, unsigned slot, unsigned from);

BH_INLINE bool bhi_guard_is_closed(const bhi_segment_t *segment, unsigned slot, unsigned os_page)
{
    return os_page >= segment->open_to[slot] || (segment->regions[slot] >> os_page & 1) != 0;
}

/* How many of a slot's first n OS pages are. */
BH_INLINE unsigned bhi_guard_closed(const bhi_segment_t *segment, unsigned slot, unsigned n)
{
    unsigned closed = 0;
    for (unsigned i = 0; i < n; i++)
        closed += bhi_guard_is_closed(segment, slot, i);
    return closed;
}

/* Makes all of a slot that holds no memory of a block inaccessible, and the OS page
 * before it; bhi_guard_fit opens it again. What cannot be closed stays accessible
 * and is counted, once for the slot. */
void bhi_guard_close(bhi_segment_t *segment, unsigned slot);

/* Closes the OS page before a segment's first slot, where that is the last one
 * of the segment before. For spans of whole segments; the others see to it. */
void bhi_guard_before(bhi_segment_t *segment);


/* Makes the n slots from `slot`, all of them quarantined, inaccessible and returns
 * their memory, with one kernel call where that works. Where it is refused the
 * memory is returned alone, and that is counted. `empty`: there is none, and the slots
 * are a whole chunk's. False: it may be non-zero. Gives the lock up during kernel calls. */
bool bhi_guard_trap(bhi_segment_t *segment, unsigned slot, unsigned n, bool empty);

/* Makes n slots behind a block, part of its span and without contents, inaccessible. */
void bhi_guard_distance(bhi_segment_t *segment, unsigned slot, unsigned n);

typedef enum bhi_region { BHI_REGION_NONE, BHI_REGION_PART, BHI_REGION_ALL } bhi_region_t;

/* With the lock or without: makes a range of ours that the caller alone uses
 * inaccessible by a guard region, which returns its memory too. PART: the kernel
 * gave up half-way; only what is noted as a region may be used again. */
bhi_region_t bhi_guard_range(uintptr_t at, size_t size);
/* Of slots of which exactly the accessible OS pages lie in such a range: notes that. */
void bhi_guard_note_range(bhi_segment_t *segment, uint64_t slots);

/* Places the guards of all free slots of a segment with one kernel call. */
void bhi_guard_batch(bhi_segment_t *segment);

#endif
