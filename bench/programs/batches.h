/* Batches of blocks, freed in different orders: sh6bench and sh8bench. */
#ifndef BENCH_BATCHES_H
#define BENCH_BATCHES_H

#include "common.h"

enum { BATCH = 600, MIN_SIZE = 4, MAX_SIZE = 1000 };
enum order { FORWARD, BACKWARD, EVERY_SECOND, FROM_THE_MIDDLE, ORDERS };

struct batch {
    unsigned length; /* 0: there are no blocks */
    unsigned char *blocks[BATCH];
};

static inline unsigned char tag_of(unsigned i)
{
    return (unsigned char)(i * 29 + 7);
}

/* Three quarters of the batches have small blocks, and a large size has fewer. Sizes
 * step on from block to block, as in the original. */
static inline void fill_batch(struct batch *batch, struct bench_rng *rng)
{
    uint32_t bound = bench_below(rng, 4) != 0 ? MAX_SIZE / 8 : MAX_SIZE;
    uint32_t size = bench_between(rng, MIN_SIZE, bound), stride = bench_between(rng, 1, 32);
    batch->length = bound < MAX_SIZE ? BATCH : BATCH / 4;
    for (unsigned i = 0; i < batch->length; i++) {
        batch->blocks[i] = bench_block(size, tag_of(i));
        size += stride;
        if (size > bound)
            size -= bound - MIN_SIZE;
    }
}

/* The place of the block that is freed as number i, of an even length. */
static inline unsigned place_of(unsigned i, unsigned length, enum order order)
{
    unsigned half = length / 2;
    switch (order) {
    case BACKWARD: return length - 1 - i;
    case EVERY_SECOND: return i < half ? 2 * i : 2 * (i - half) + 1;
    case FROM_THE_MIDDLE: return i % 2 == 0 ? half + i / 2 : half - 1 - i / 2;
    default: return i;
    }
}

static inline void free_batch(struct batch *batch, enum order order)
{
    for (unsigned i = 0; i < batch->length; i++) {
        unsigned place = place_of(i, batch->length, order);
        bench_free(batch->blocks[place], tag_of(place));
    }
    batch->length = 0;
}

#endif
