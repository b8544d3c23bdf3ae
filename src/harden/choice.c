/* Which allocations are guarded; see choice.h. Pure functions. */
#include "harden/choice.h"

void bhi_choice_init(uint64_t bits[BHI_CHOICE_BITS], uint32_t rate)
{
    /* q in parts of 2^64; q^2, q^4 ... by squaring. */
    unsigned __int128 one = (unsigned __int128)1 << 64, q = one - one / rate;
    for (unsigned i = 0; i < BHI_CHOICE_BITS; i++) {
        bits[i] = (uint64_t)((q << 63) / (one + q) << 1);
        q = (q * q) >> 64;
    }
}

uint32_t bhi_choice_draw(const uint64_t bits[BHI_CHOICE_BITS], uint64_t (*next)(void *), void *arg)
{
    uint64_t n = 0, random = 0;
    for (unsigned i = 0; i < BHI_CHOICE_BITS && bits[i] != 0; i++) {
        random = i % 2 == 0 ? next(arg) : random << 32;
        n |= (uint64_t)((random >> 32) < (bits[i] >> 32)) << i;
    }
    return n < BHI_CHOICE_MOST ? (uint32_t)n : BHI_CHOICE_MOST;
}

uint64_t bhi_choice_seeded(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
