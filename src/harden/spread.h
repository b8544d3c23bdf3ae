/* From a set of blocks to entries of a list: what a refill does for each word of the map. */
#ifndef BH_HARDEN_SPREAD_H
#define BH_HARDEN_SPREAD_H

#include "base/bits.h"
#include "base/constants.h"

/* Appends first ^ b for each element b of the set, in their order, `first` being the
 * entry of the word's first block: a multiple of 64, encoded. Returns the new end. What is
 * behind it is written to as well, but never more than 64 entries from `end` on. */
bhi_index_t *bhi_spread(bhi_index_t *end, uint64_t set, bhi_index_t first);

/* Whether the processor puts chosen elements of a vector side by side (AVX-512 VBMI2), and
 * the kernel keeps its registers. */
bool bhi_spread_knows_compress(void);

#endif
