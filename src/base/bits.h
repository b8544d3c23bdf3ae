/* Sets of up to 64 small integers in one word. */
#ifndef BH_BASE_BITS_H
#define BH_BASE_BITS_H

#include "base/compiler.h"

BH_INLINE unsigned bhi_bit_first(uint64_t set)
{
    return (unsigned)__builtin_ctzll(set);
}

BH_INLINE unsigned bhi_bit_last(uint64_t set)
{
    return 63u - (unsigned)__builtin_clzll(set);
}

/* Byte i: how many elements are below 8 * (i + 1). No call, which __builtin_popcountll
 * is without a processor's extension. */
BH_INLINE uint64_t bhi_bit_sums(uint64_t set)
{
    uint64_t sums = set - (set >> 1 & 0x5555555555555555u);
    sums = (sums & 0x3333333333333333u) + (sums >> 2 & 0x3333333333333333u);
    return ((sums + (sums >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u;
}

BH_INLINE unsigned bhi_bit_count(uint64_t set)
{
    return (unsigned)(bhi_bit_sums(set) >> 56);
}

/* The set {first, ..., first + n - 1}; first + n <= 64, n >= 1. */
BH_INLINE uint64_t bhi_bit_range(unsigned first, unsigned n)
{
    return (~(uint64_t)0 >> (64 - n)) << first;
}

/* Puts an element in or takes it out; i < 64. */
BH_INLINE void bhi_bit_put(uint64_t *set, unsigned i, bool in)
{
    *set = (*set & ~((uint64_t)1 << i)) | (uint64_t)in << i;
}

/* Every position where a run of n set bits starts; 1 <= n <= 64. Doubling:
 * after a step of width w, bit i says that i .. i+w-1 are all set. */
BH_INLINE uint64_t bhi_bit_run_starts(uint64_t set, unsigned n)
{
    unsigned have = 1;
    while (have < n && set != 0) {
        unsigned step = have < n - have ? have : n - have;
        set &= set >> step;
        have += step;
    }
    return set;
}

/* Length of the longest run of set bits. */
BH_INLINE unsigned bhi_bit_longest_run(uint64_t set)
{
    unsigned n = 0;
    while (set != 0) {
        set &= set << 1;
        n++;
    }
    return n;
}

/* The low six bits of i name an element. Whether it is in the set; the same and
 * puts it in; the same and takes it out. On x86-64 one instruction each, where
 * compilers build a mask. */
BH_INLINE bool bhi_bit_has(uint64_t set, uint64_t i)
{
#if defined(__x86_64__)
    bool had;
    __asm__("btq %2, %1" : "=@ccc"(had) : "r"(set), "r"(i));
    return had;
#else
    return (set >> (i & 63) & 1) != 0;
#endif
}

BH_INLINE bool bhi_bit_set(uint64_t *set, uint64_t i)
{
#if defined(__x86_64__)
    bool had;
    __asm__("btsq %2, %1" : "=@ccc"(had), "+r"(*set) : "r"(i));
    return had;
#else
    bool had = bhi_bit_has(*set, i);
    *set |= (uint64_t)1 << (i & 63);
    return had;
#endif
}

BH_INLINE bool bhi_bit_clear(uint64_t *set, uint64_t i)
{
#if defined(__x86_64__)
    bool had;
    __asm__("btrq %2, %1" : "=@ccc"(had), "+r"(*set) : "r"(i));
    return had;
#else
    bool had = bhi_bit_has(*set, i);
    *set &= ~((uint64_t)1 << (i & 63));
    return had;
#endif
}

/* The k-th set bit, counted from 0; k < bhi_bit_count(set). */
BH_INLINE unsigned bhi_bit_nth(uint64_t set, unsigned k)
{
    uint64_t sums = bhi_bit_sums(set); /* the byte that has it, then the bit */
    unsigned byte = 0;
    while ((sums >> byte & 0xff) <= k)
        byte += 8;
    k -= byte == 0 ? 0 : (unsigned)(sums >> (byte - 8) & 0xff);
    for (set >>= byte; k > 0; k--)
        set &= set - 1;
    return byte + bhi_bit_first(set);
}

#endif
