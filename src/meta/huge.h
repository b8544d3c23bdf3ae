/* Huge spans, of whole segments: which segments are theirs. Owns S7. */
#ifndef BH_META_HUGE_H
#define BH_META_HUGE_H

#include "meta/types.h"

/* Makes the n segments from `first` on, a run of the caller's, a huge span: writes
 * a number of headers that grows with the logarithm of n. It ends when the run is
 * given back, or its segments become others. Caller holds state->lock. */
void bhi_huge_mark(bhi_segment_t *first, uint32_t n);

/* First header of the huge span, in use or quarantined, that contains segment
 * `index` (below top) of the arena; NULL: there is none. Whoever does not hold the
 * lock may be told either of a span that begins or ends just now. */
bhi_segment_t *bhi_huge_find(const bhi_arena_t *arena, uint32_t index);

#endif
