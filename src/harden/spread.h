/* From a set of blocks to entries of a list: what a refill does for each word of the map. */
#ifndef BH_HARDEN_SPREAD_H
#define BH_HARDEN_SPREAD_H

#include "base/bits.h"
#include "base/constants.h"
#include "meta/types.h"

/* Appends first ^ b for each element b of the set, in their order, `first` being the
 * entry of the word's first block: a multiple of 64, encoded. Returns the new end. What is
 * behind it is written to as well, but never more than 64 entries from `end` on. */
bhi_index_t *bhi_spread(bhi_index_t *end, uint64_t set, bhi_index_t first);

/* Of a map, from word `from` on and after the last one from the first again, until there
 * are `enough` entries or all words were looked at: those of its free blocks. Of the
 * last word only what is in `of_last`. Encoded with `key`. */
typedef struct bhi_spread_of {
    const bhi_map_block_t *map;
    uint32_t words, from;
    uint64_t of_last;
    bhi_index_t key;
    uint8_t young[2]; /* marks, for bhi_spread_old */
} bhi_spread_of_t;
bhi_index_t *bhi_spread_free(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of);

/* The same of those whose mark is none of the young, and how many these are, counted from the
 * first word on. */
bhi_index_t *bhi_spread_old(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of);
uint32_t bhi_spread_count_old(uint32_t enough, const bhi_spread_of_t *of);

/* Whether the processor puts chosen elements of a vector side by side (AVX-512 VBMI2), and
 * the kernel keeps its registers. */
bool bhi_spread_knows_compress(void);

#endif
