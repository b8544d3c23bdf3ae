/* Quarantine: freed blocks of a size class wait before they can be handed out
 * again, for a time that nobody can tell in advance. They wait in three parts.
 * Whoever is put goes to the end of the first, y places long. With the put that
 * fills it there is a turn: y of the o places of the last part, drawn at random
 * and in random order, give their blocks up, the y oldest of the middle part (m
 * places, in order) take these places, and those of the first part the middle's, or
 * where there is none these themselves. So nothing but a
 * store is to be done for most puts, and randomness is drawn for all of a turn at
 * once.
 *
 * A block enters the last part with the turn m / y after the one that follows its put,
 * and is among the y of o that leave with each later one:
 *
 *   least delay      m + y puts after its own, certain
 *   mean delay       (y - 1) / 2 + m + o puts
 *   with each turn   y / o, independently of the turns before
 *
 * Blocks of up to 256 B have y >= 32. Within the next 8 allocations of the class,
 * each followed by a free, there are 8 puts: a just-freed block comes back with
 * probability 0, and so it is as long as fewer than 64 frees of the class (of this
 * heap) happen in between. (Places are empty at first: delays are the same.)
 * Afterwards a released block still has to come up among the page's free ones.
 *
 * Larger blocks wait as the byte budget allows: budget / size of them, and where
 * that is less than one none, and put releases the block itself. It is
 *
 *   blocks = clamp(budget / size, size <= 256 ? 128 : 0, 192)
 *   y      = max(1, blocks / 4),  m = min(blocks < 32 ? 2 y : y, blocks - 1),
 *   o      = blocks + 1 - y - m
 *
 * since one place is empty between two puts. So a class holds at most
 * max(budget, 128 * 256 B).
 *
 * One quarantine belongs to one heap and class; owner only, no locks. The caller
 * hands in the memory, out of line with the other control data, and sees to the
 * map. NULL is a quarantine without slots. */
#ifndef BH_HARDEN_QUARANTINE_H
#define BH_HARDEN_QUARANTINE_H

#include "base/constants.h"
#include "rt/random.h"

#define BH_QUARANTINE_SMALL ((size_t)256)  /* blocks up to here have the least number of places */
#define BH_QUARANTINE_LEAST 128u
#define BH_QUARANTINE_MOST 192u
#define BH_QUARANTINE_FEW 32u
#define BH_QUARANTINE_TURN (BH_QUARANTINE_MOST / 4) /* most blocks that leave at once */

typedef struct bhi_quarantine {
    uint32_t at;    /* the place of the first part that is filled next */
    uint32_t end;   /* const: places of all parts together; 2 at least */
    uint32_t first; /* const: where the first part begins: the middle lies before it, the last one before that */
    uint32_t old;   /* const: places of the last part */
    bool turned;    /* nothing lies in other parts than the first before */
    uintptr_t block[]; /* 0 = empty */
} bhi_quarantine_t;

/* Bytes of memory for a quarantine of blocks of `size` bytes; 0 where it would
 * have no slots. */
size_t bhi_quarantine_bytes(size_t size, size_t budget);

/* q: that much zeroed memory, aligned to 8; not called where it is 0. */
void bhi_quarantine_init(bhi_quarantine_t *q, size_t size, size_t budget);

/* For who looks at all blocks, or takes out all when the heap ends: that of slot
 * i < bhi_quarantine_slots, or 0. Those from bhi_quarantine_from on and before
 * bhi_quarantine_to are enough: in a heap that ends soon few. */
static inline unsigned bhi_quarantine_slots(const bhi_quarantine_t *q)
{
    return q == NULL ? 0 : q->end;
}

static inline unsigned bhi_quarantine_from(const bhi_quarantine_t *q)
{
    return q == NULL || q->turned ? 0 : q->first;
}

static inline unsigned bhi_quarantine_to(const bhi_quarantine_t *q)
{
    return q == NULL ? 0 : q->at;
}

static inline uintptr_t bhi_quarantine_at(const bhi_quarantine_t *q, unsigned i)
{
    return q->block[i];
}

uintptr_t bhi_quarantine_take_at(bhi_quarantine_t *q, unsigned i);

/* Blocks in it. */
unsigned bhi_quarantine_count(const bhi_quarantine_t *q);

/* Takes in a block. True: bhi_quarantine_turn has to be called before the next put. */
BH_INLINE bool bhi_quarantine_put(bhi_quarantine_t *q, uintptr_t block)
{
    uint32_t at = q->at;
    q->block[at++] = block;
    q->at = at;
    return bh_unlikely(at == q->end);
}

/* Releases blocks; how many. */
unsigned bhi_quarantine_turn(bhi_quarantine_t *q, uintptr_t out[BH_QUARANTINE_TURN], bhi_random_t *random);

#endif
