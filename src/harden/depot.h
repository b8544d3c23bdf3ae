/* A depot of stacks, each kept once. An entry is a few words behind each other, in
 * control data that are never given back; its number is its place there.
 *
 *   P1  an entry is constant from the store that links it into its bucket on; an
 *       entry's `next` has a smaller number, so that chains end
 *
 * Reading takes no lock: a bucket, then its chain. Adding is an atomic addition for
 * the room and a compare-and-swap of the bucket; two threads that add the same stack
 * at once may leave it there twice. What a fork interrupts is linked nowhere. Full,
 * the depot keeps no further stacks: bounded by BHI_DEPOT_WORDS.
 *
 * A frame is the difference to the one before in 31 bits where that fits, so 4
 * bytes in most, else 8. */
#ifndef BH_HARDEN_DEPOT_H
#define BH_HARDEN_DEPOT_H

#include "base/constants.h"

#include <stdatomic.h>

#define BHI_DEPOT_BUCKETS (1u << 15)
#define BHI_DEPOT_WORDS (1u << 22) /* 16 MiB */

typedef struct bhi_depot {
    _Atomic(uint32_t) used; /* words; 0 is no entry's place */
    _Atomic(uint32_t) bucket[BHI_DEPOT_BUCKETS];
    uint32_t words[BHI_DEPOT_WORDS];
} bhi_depot_t;

/* The number of a stack of n frames, n <= BH_STACK_DEPTH; 0: none, or no room. */
uint32_t bhi_depot_put(bhi_depot_t *depot, const uintptr_t *frames, unsigned n);

/* The frames of an entry, BH_STACK_DEPTH at most; returns how many. Any number is
 * safe: one that is no entry's gives whatever is there, or nothing. */
unsigned bhi_depot_get(const bhi_depot_t *depot, uint32_t id, uintptr_t *frames);
/* The same as a report has them. */
unsigned bhi_depot_frames(const bhi_depot_t *depot, uint32_t id, const void **frames);

#endif
