/* Which allocations are guarded; see choice.h. Pure functions. */
#include "harden/choice.h"

#include "base/checked.h"

#include <string.h>

void bhi_choice_init(bhi_choice_t *choice, uint32_t rate)
{
    /* q in parts of 2^64; q^2, q^4 ... by squaring. */
    unsigned __int128 one = (unsigned __int128)1 << 64, q = one - one / rate;
    memset(choice, 0, sizeof *choice);
    for (unsigned i = 0; i < 32; i++) {
        uint64_t of = (uint64_t)((q << 63) / (one + q)) >> (63 - BHI_CHOICE_PLANES);
        for (unsigned k = 0; k < BHI_CHOICE_PLANES; k++)
            choice->plane[k] |= (uint32_t)(of >> (BHI_CHOICE_PLANES - 1 - k) & 1) << i;
        choice->digits |= (uint32_t)(of != 0) << i;
        q = (q * q) >> 64;
    }
    choice->beyond = (uint32_t)((uint64_t)q >> (64 - BHI_CHOICE_PLANES));
}

uint64_t bhi_choice_seeded(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The next word of the stream that `state` begins: W. Yi's wyrand. */
BH_INLINE uint64_t next_word(uint64_t *state)
{
    *state += 0xa0761d6478bd642fu;
    uint64_t low, high = bhi_mul_wide(*state, *state ^ 0xe7037ed1a0b428dbu, &low);
    return high ^ low;
}

/* A digit is 1 where the random fraction is below the threshold: there, in the first bit
 * that differs, the random one is 0. */
BH_INLINE void compare(uint32_t of, uint32_t random, uint32_t *n, uint32_t *equal)
{
    uint32_t differ = (random ^ of) & *equal;
    *n |= differ & of;
    *equal ^= differ;
}

/* Rates of more than 10^8 alone. */
static BH_COLD uint32_t unless_beyond(const bhi_choice_t *choice, uint64_t random, uint32_t n)
{
    return (uint32_t)next_word(&random) < choice->beyond || n > BHI_CHOICE_MOST ? BHI_CHOICE_MOST : n;
}

uint32_t bhi_choice_draw(const bhi_choice_t *choice, uint64_t random)
{
    uint32_t n = 0, equal = choice->digits;
    for (const uint32_t *of = choice->plane; equal != 0 && of < choice->plane + BHI_CHOICE_PLANES; of += 2) {
        uint64_t two = next_word(&random);
        compare(of[0], (uint32_t)two, &n, &equal);
        compare(of[1], (uint32_t)(two >> 32), &n, &equal);
    }
    return bh_likely(choice->beyond == 0) ? n : unless_beyond(choice, random, n);
}
