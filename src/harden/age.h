/* Delayed reuse in profile hardened: how long ago a block was freed. Each size class of a
 * heap has *ages*, one after the other; a freed block is marked in the map with the one of
 * its free. Refills take no *young* blocks, which are those of the present age and perhaps
 * of the one before; who is old comes on a list with others at random. So it is first
 * in, first out by ages, and in random order within them.
 *
 * The blocks of a list count when it is used up, which is as the next one is about to be
 * made. An age ends there if `length` or more have been counted in it; the present age and
 * the one before are young. So who is old has been freed in an age that was over when
 * another began, in which `length` blocks were handed out:
 *
 *   least delay   `length` allocations of the class, certain
 *   delay         up to two ages and a list, and chance among the old ones of its page
 *
 * A list that is given up (its page ends, or gets another owner, or the process is a forked
 * child) does not count. Ages go on while a heap is nobody's, and for its next owner; a
 * page that gets another heap takes its young blocks along, as that one's youngest.
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
    age->used = 0;
}

/* The class's next list is n blocks. */
BH_INLINE void bhi_age_list(bhi_age_t *age, uint32_t n)
{
    age->listed = (uint16_t)n;
}

/* It is given up. */
BH_INLINE void bhi_age_give_up(bhi_age_t *age)
{
    age->listed = 0;
}

/* The class has no list, and is to have one. */
BH_INLINE void bhi_age_used_up(bhi_age_t *age)
{
    age->used = (uint16_t)(age->used + age->listed);
    age->listed = 0;
    if (age->used >= age->length && age->mark != 0)
        bhi_age_turn(age);
}

#endif
