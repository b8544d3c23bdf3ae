/* Which allocations are guarded; see choice.h. Pure functions. */
#include "harden/choice.h"

#include "base/bits.h"

void bhi_choice_init(uint64_t bits[BHI_CHOICE_BITS], uint32_t rate)
{
    /* q in parts of 2^64; q^2, q^4 ... by squaring. */
    unsigned __int128 one = (unsigned __int128)1 << 64, q = one - one / rate;
    for (unsigned i = 0; i < BHI_CHOICE_BITS; i++) {
        bits[i] = (uint64_t)((q << 63) / (one + q) << 1);
        q = (q * q) >> 64;
    }
}

uint64_t bhi_choice_seeded(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Digits that are ever 1: the next would need 2^i > 23 * rate, for q^(2^i) to be 2^-32. */
static unsigned digits_of(uint32_t rate)
{
    _Static_assert(31 + 7 < BHI_CHOICE_BITS, "all rates");
    return (bhi_bit_last(rate) + 7) & ~1u;
}

uint32_t bhi_choice_draw(const uint64_t bits[BHI_CHOICE_BITS], uint32_t rate, uint64_t random)
{
    uint64_t n = 0;
    for (unsigned i = digits_of(rate); i > 0; i -= 2) {
        uint64_t next = bhi_choice_seeded(&random);
        n = n << 1 | ((uint32_t)next < (uint32_t)(bits[i - 1] >> 32));
        n = n << 1 | ((uint32_t)(next >> 32) < (uint32_t)(bits[i - 2] >> 32));
    }
    return n < BHI_CHOICE_MOST ? (uint32_t)n : BHI_CHOICE_MOST;
}
