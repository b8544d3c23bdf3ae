/* Blocks that say so when they are ended twice, or were written to by another. Their last
 * byte is that of their size. */
#ifndef BH_BENCH_ENDED_ONCE_H
#define BH_BENCH_ENDED_ONCE_H

#include "common.h"

struct block {
    uint32_t size;
    unsigned char bytes[];
};

/* Without a size afterwards, so that a block that was handed out twice ends once. */
static inline void end(struct block *block)
{
    if (block == NULL)
        return;
    bench_check(block->size != 0, "a block ends twice");
    bench_check(block->bytes[block->size - sizeof *block - 1] == (unsigned char)block->size, "a block has changed");
    block->size = 0;
    free(block);
}

#endif
