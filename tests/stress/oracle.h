/* What must be true of live blocks, kept outside the heap and apart from
 * anything that the allocator says.
 *
 * Ownership is a bitmap with one bit for each 8 bytes of address space, in
 * leaves of 4 MiB that appear as they are needed. A block's bits are set after
 * the allocator hands it out and cleared before it is given back, so at every
 * moment a set bit is a live byte; a bit that is set already when a block is
 * handed out is two owners for one byte. All accesses are relaxed: the oracle
 * must not order threads, or it would hide an order that the allocator owes.
 */
#ifndef STRESS_ORACLE_H
#define STRESS_ORACLE_H

#include "stress.h"

void oracle_init(void);

/* Gives the oracle's memory back, once no block is live: for the comparison of
 * memory use at the end. */
void oracle_discard(void);

/* A block that the allocator just handed out: checks address, alignment and
 * usable size (which it fills in), and claims its bytes and slots. */
void oracle_claim(struct block *b);

/* To be called before the block is freed, resized or destroyed. */
void oracle_release(const struct block *b);

/* Writes the fill pattern of `b->seed` to all usable bytes. */
void oracle_fill(const struct block *b);

/* Checks usable size, alignment and pattern of a live block. */
void oracle_check(const struct block *b, const char *when);

/* Checks that the first `bytes` bytes at `p` carry the pattern of `b`, which
 * was filled when the block was at another place perhaps. */
void oracle_check_kept(const struct block *b, const void *p, size_t bytes);

/* Checks that the block is zero to its requested size. */
void oracle_check_zero(const struct block *b);

#endif /* STRESS_ORACLE_H */
