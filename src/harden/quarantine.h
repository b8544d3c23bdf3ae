/* Quarantine: freed blocks of a size class wait before they can be handed out
 * again, for a time that nobody can tell in advance. As in hardened_malloc, a
 * freed block takes a random slot of an array; who was there goes to the tail of
 * a ring; who comes out at the ring's head is released.
 *
 * A block that was put spends d more puts in an array of a slots, where
 * P(d = k) = (1 - 1/a)^(k-1) / a, k >= 1, and is released r puts after that, when
 * the ring's r slots have been filled anew. So:
 *
 *   least delay      r + 1 puts, certain
 *   mean delay       r + a puts
 *   within m puts    not at all for m <= r, else with 1 - (1 - 1/a)^(m-r)
 *
 * Blocks of up to 256 B have r >= 64 and a >= 32. Within the next 8 allocations
 * of the class, each followed by a free, there are 8 puts: a just-freed block
 * comes back with probability 0, and with at most 1/1000 as long as no more than
 * 64 frees of the class (of this heap) happen in between; at the 65th it is 1/32.
 * (Until the array is full delays are longer: an empty slot sends nobody on.)
 * Afterwards a released block still has to come up among the page's free ones.
 *
 * Larger blocks wait as the byte budget allows: budget / size slots, and where
 * that is less than one none, and put releases the block itself. It is
 *
 *   slots = clamp(budget / size, size <= 256 ? 96 : 0, 192)
 *   a     = the largest power of two in max(1, slots / 3),  r = slots - a
 *
 * so a class holds at most max(budget, 96 * 256 B). a is a power of two so that a
 * few bits choose a slot without bias. They come from a word of the keystream that
 * lasts for some puts; who forks throws it away (bhi_quarantine_after_fork).
 *
 * One quarantine belongs to one heap and class; owner only, no locks. The caller
 * hands in the memory, out of line with the other control data, and sees to the
 * map: blocks in here are held. NULL is a quarantine without slots. */
#ifndef BH_HARDEN_QUARANTINE_H
#define BH_HARDEN_QUARANTINE_H

#include "base/constants.h"
#include "rt/random.h"

#define BH_QUARANTINE_SMALL ((size_t)256)  /* blocks up to here have the least number of slots */
#define BH_QUARANTINE_LEAST 96u
#define BH_QUARANTINE_MOST 192u

typedef struct bhi_quarantine {
    uint8_t array_bits; /* const: the array has 2^array_bits slots */
    uint8_t ring_from;  /* const: first slot of the ring */
    uint8_t slots;      /* const: of array and ring together; 1 at least */
    uint8_t ring_at;    /* slot of the ring's head, whose block is released next */
    uint8_t count;      /* blocks in here */
    uint8_t drawn_bits; /* random bits left in `drawn` */
    uint64_t drawn;     /* secret */
    uintptr_t block[];   /* array, then ring; 0 = empty */
} bhi_quarantine_t;

/* Bytes of memory for a quarantine of blocks of `size` bytes; 0 where it would
 * have no slots. */
size_t bhi_quarantine_bytes(size_t size, size_t budget);

/* q: that much zeroed memory, aligned to 8; not called where it is 0. */
void bhi_quarantine_init(bhi_quarantine_t *q, size_t size, size_t budget);

/* A child must not choose as its parent does. */
void bhi_quarantine_after_fork(bhi_quarantine_t *q);

/* Takes out a block with an address in [from, from + bytes), 0 when there is none:
 * to empty a page. */
uintptr_t bhi_quarantine_take_within(bhi_quarantine_t *q, uintptr_t from, size_t bytes);

/* For who looks at all blocks, or takes out all when the heap ends: that of slot
 * i < bhi_quarantine_slots, or 0. */
static inline unsigned bhi_quarantine_slots(const bhi_quarantine_t *q)
{
    return q == NULL ? 0 : q->slots;
}

static inline uintptr_t bhi_quarantine_at(const bhi_quarantine_t *q, unsigned i)
{
    return q->block[i];
}

uintptr_t bhi_quarantine_take_at(bhi_quarantine_t *q, unsigned i);

/* Puts the block into the slot; returns who was there. */
static inline uintptr_t bhi_quarantine_swap(bhi_quarantine_t *q, unsigned slot, uintptr_t block)
{
    uintptr_t was = q->block[slot];
    q->block[slot] = block;
    return was;
}

/* Whether `most` drawn bits are there for the next ones taken. */
BH_INLINE bool bhi_quarantine_has_bits(const bhi_quarantine_t *q, unsigned most)
{
    return bh_likely(q->drawn_bits >= most);
}

/* Draws as many as serve `times` users of `most` bits, or as fit a word. */
void bhi_quarantine_draw(bhi_quarantine_t *q, unsigned most, size_t times, bhi_random_t *random);

/* Uniform in [0, 2^n); n bits are there. */
BH_INLINE unsigned bhi_quarantine_bits(bhi_quarantine_t *q, unsigned n)
{
    unsigned bits = (unsigned)q->drawn & ((1u << n) - 1);
    q->drawn >>= n;
    q->drawn_bits = (uint8_t)(q->drawn_bits - n);
    return bits;
}

/* Takes in a block, and returns the one to release for it: perhaps none (0). q is not
 * NULL and has q->array_bits bits drawn. */
BH_INLINE uintptr_t bhi_quarantine_put_drawn(bhi_quarantine_t *q, uintptr_t block)
{
    block = bhi_quarantine_swap(q, bhi_quarantine_bits(q, q->array_bits), block);
    unsigned at = q->ring_at;
    if (bh_likely(block != 0) && bh_likely(q->ring_from < q->slots)) {
        block = bhi_quarantine_swap(q, at, block);
        q->ring_at = at + 1u == q->slots ? q->ring_from : (uint8_t)(at + 1u);
    }
    if (bh_unlikely(block == 0))
        q->count++;
    return block;
}

/* The same with bits drawn if need be, and of NULL the block itself. */
BH_INLINE uintptr_t bhi_quarantine_put(bhi_quarantine_t *q, uintptr_t block, bhi_random_t *random)
{
    if (bh_unlikely(q == NULL))
        return block;
    if (!bhi_quarantine_has_bits(q, q->array_bits))
        bhi_quarantine_draw(q, q->array_bits, SIZE_MAX, random);
    return bhi_quarantine_put_drawn(q, block);
}

static inline unsigned bhi_quarantine_count(const bhi_quarantine_t *q)
{
    return q == NULL ? 0 : q->count;
}

#endif
