/* Quarantine of one size class. Must not know what blocks are: to it they are
 * numbers other than 0. */
#include "harden/quarantine.h"

#include "base/bits.h"
#include "base/checked.h"

_Static_assert(BH_QUARANTINE_LEAST / 3 == 32, "the array of small blocks has 32 slots, their ring 64");
_Static_assert(BH_QUARANTINE_MOST <= UINT8_MAX, "slots are counted in 8 bits");

static unsigned slots_for(size_t size, size_t budget)
{
    if (!BH_HARDEN_QUARANTINE)
        return 0;
    size_t least = size <= BH_QUARANTINE_SMALL ? BH_QUARANTINE_LEAST : 0;
    return (unsigned)bhi_min(bhi_max(budget / size, least), BH_QUARANTINE_MOST);
}

size_t bhi_quarantine_bytes(size_t size, size_t budget)
{
    unsigned slots = slots_for(size, budget);
    return slots == 0 ? 0 : sizeof(bhi_quarantine_t) + slots * sizeof(uintptr_t);
}

void bhi_quarantine_init(bhi_quarantine_t *q, size_t size, size_t budget)
{
    unsigned slots = slots_for(size, budget);
    unsigned array_bits = slots < 3 ? 0 : bhi_bit_last(slots / 3);
    q->array_bits = (uint8_t)array_bits;
    q->slots = (uint8_t)slots;
    q->ring_from = (uint8_t)(1u << array_bits);
    q->ring_at = q->ring_from;
}

void bhi_quarantine_draw(bhi_quarantine_t *q, unsigned most, size_t times, bhi_random_t *random)
{
    q->drawn = bhi_random_u64(random);
    q->drawn_bits = (uint8_t)(times <= 64 ? bhi_min(64, times * most) : 64);
}

void bhi_quarantine_after_fork(bhi_quarantine_t *q)
{
    q->drawn = 0;
    q->drawn_bits = 0;
}

uintptr_t bhi_quarantine_take_at(bhi_quarantine_t *q, unsigned i)
{
    uintptr_t block = bhi_quarantine_swap(q, i, 0);
    q->count = (uint8_t)(q->count - (block != 0));
    return block;
}

uintptr_t bhi_quarantine_take_within(bhi_quarantine_t *q, uintptr_t from, size_t bytes)
{
    for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
        uintptr_t block = bhi_quarantine_at(q, i);
        if (block != 0 && block - from < bytes)
            return bhi_quarantine_take_at(q, i);
    }
    return 0;
}
