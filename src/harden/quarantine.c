/* Quarantine of one size class. Must not know what blocks are: to it they are
 * numbers other than 0. */
#include "harden/quarantine.h"

#include "base/checked.h"

#include <string.h>

_Static_assert(BH_QUARANTINE_LEAST / 4 == 32, "the first part of small blocks has 32 places");
_Static_assert(BH_QUARANTINE_MOST + 1 - 2 * BH_QUARANTINE_TURN < 128, "as many as can be chosen from");

static unsigned blocks_for(size_t size, size_t budget)
{
    if (!BH_HARDEN_QUARANTINE)
        return 0;
    size_t least = size <= BH_QUARANTINE_SMALL ? BH_QUARANTINE_LEAST : 0;
    return (unsigned)bhi_min(bhi_max(budget / size, least), BH_QUARANTINE_MOST);
}

size_t bhi_quarantine_bytes(size_t size, size_t budget)
{
    unsigned blocks = blocks_for(size, budget);
    return blocks == 0 ? 0 : sizeof(bhi_quarantine_t) + (blocks + 1) * sizeof(uintptr_t);
}

void bhi_quarantine_init(bhi_quarantine_t *q, size_t size, size_t budget)
{
    unsigned blocks = blocks_for(size, budget), young = (unsigned)bhi_max(1, blocks / 4);
    unsigned middle = (unsigned)bhi_min(blocks < BH_QUARANTINE_FEW ? 2 * young : young, blocks - 1);
    q->end = blocks + 1;
    q->first = blocks + 1 - young;
    q->old = q->first - middle;
    q->at = q->first;
}

uintptr_t bhi_quarantine_take_at(bhi_quarantine_t *q, unsigned i)
{
    uintptr_t block = q->block[i];
    q->block[i] = 0;
    return block;
}

unsigned bhi_quarantine_count(const bhi_quarantine_t *q)
{
    unsigned count = 0;
    for (unsigned i = 0; i < bhi_quarantine_slots(q); i++)
        count += q->block[i] != 0;
    return count;
}

#define FOUR(n) n, n + 1, n + 2, n + 3
#define SIXTEEN(n) FOUR(n), FOUR(n + 4), FOUR(n + 8), FOUR(n + 12)
static const bhi_index_t numbers[] = {SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96)};
_Static_assert(sizeof numbers / sizeof numbers[0] >= BH_QUARANTINE_MOST + 1 - 2 * BH_QUARANTINE_TURN, "one for each place of the last part");

unsigned bhi_quarantine_turn(bhi_quarantine_t *q, uintptr_t out[BH_QUARANTINE_TURN], bhi_random_t *random)
{
    bhi_index_t places[sizeof numbers / sizeof numbers[0]], chosen[BH_QUARANTINE_TURN];
    unsigned n = 0, old = q->old, young = q->end - q->first;
    uintptr_t *next = q->block + old; /* the middle, or where there is none the first part */
    memcpy(places, numbers, sizeof places);
    bhi_random_choose(random, places, old, young, chosen);
    for (unsigned i = 0; i < young; i++) {
        uintptr_t block = q->block[chosen[i]];
        q->block[chosen[i]] = next[i];
        out[n] = block;
        n += block != 0;
    }
    memmove(next, next + young, (size_t)(q->end - young - old) * sizeof *next);
    memset(q->block + q->first, 0, (size_t)young * sizeof *next);
    q->at = q->first;
    q->turned = true;
    return n;
}
