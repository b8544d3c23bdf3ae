/* Delayed reuse in profile hardened: how long ago a block was freed. Each size class of a
 * heap has *ages*, one after the other; a freed block is marked in the map with the one of
 * its free. Refills take no *young* blocks, which are those of the present age and perhaps
 * of the one before; who is old comes on a list with others at random. So it is first
 * in, first out by ages, and in random order within them.
 *
 * An age ends with the refill by which `length` blocks of the class were listed in it, or
 * more. Behind each list come the next refill's; no block that was free before a list was
 * made comes before that list is used up. So if that list alone has `length` blocks, who
 * was freed before it has waited for long enough when the next one is made, and the new
 * age is the only young one. If it was made of several lists, who was freed just before
 * the last of them has not: the old age stays young for all of the next one. Hence
 *
 *   least delay   `length` allocations of the class, certain (a list that is given up, in
 *                 a forked child or with its page, counts as if it had been used up)
 *   delay         up to two ages and chance among the old ones of its page
 *
 * Blocks of up to BH_AGE_SMALL bytes have ages as long as the shortest list that is made of
 * freed blocks (bhi_page_reuse_least), 24 to 48 of them: of the next 8 allocations
 * none gets a block that was just freed. Larger ones have what the byte
 * budget of an age allows (option quarantine_bytes), BH_AGE_MOST at most, and
 * where that is less than one block none: their mark is 0, and no age is theirs.
 *
 * Marks are the even numbers from 2 on, in a circle: a block that is not taken for 126 ages
 * passes for a young one again, for one or two of them.
 *
 * Owner only, no locks. */
#ifndef BH_HARDEN_AGE_H
#define BH_HARDEN_AGE_H

#include "base/constants.h"
#include "meta/types.h"

#define BH_AGE_SMALL ((size_t)256)
#define BH_AGE_MOST 24u

/* Allocations that an age of blocks of `size` bytes lasts at least; 0: there are none. */
uint32_t bhi_age_length(size_t size, size_t budget);

/* Of a class whose ages have begun, or 0. */
BH_INLINE uint8_t bhi_age_next(uint8_t mark)
{
    return (uint8_t)(mark >= 254 ? 2 : mark + 2);
}

/* Begins with the first one, unless ages have begun, or there are none. */
BH_INLINE void bhi_age_begin(bhi_age_t *age, size_t size, size_t budget)
{
    if (age->mark == 0 && bhi_age_length(size, budget) != 0)
        *age = (bhi_age_t){.mark = 2, .before = 2, .length = (uint16_t)bhi_age_length(size, budget)};
}

BH_INLINE void bhi_age_turn(bhi_age_t *age)
{
    age->before = age->mark;
    age->mark = bhi_age_next(age->mark);
    age->listed = 0;
}

/* n blocks of the class come on a list. */
BH_INLINE void bhi_age_list(bhi_age_t *age, uint32_t n)
{
    if (age->mark == 0)
        return;
    age->listed = (uint16_t)(age->listed + n);
    if (age->listed < age->length)
        return;
    bhi_age_turn(age);
    if (n >= age->length)
        age->before = age->mark;
}

#endif
