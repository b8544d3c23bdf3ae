/* Checked and rounding arithmetic. Sizes in bytes, alignments powers of two. */
#ifndef BH_BASE_CHECKED_H
#define BH_BASE_CHECKED_H

#include "base/compiler.h"

/* False when a * b does not fit; *out is then unspecified. */
BH_INLINE bool bhi_mul_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

BH_INLINE bool bhi_is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* The caller guarantees that n + align - 1 does not wrap. */
BH_INLINE size_t bhi_align_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

BH_INLINE size_t bhi_align_down(size_t n, size_t align)
{
    return n & ~(align - 1);
}

/* High and low half of the 128-bit product. (gcc 12 saves registers that it does
 * not use around a product of type __int128.) */
BH_INLINE uint64_t bhi_mul_wide(uint64_t a, uint64_t b, uint64_t *low)
{
#if defined(__x86_64__)
    uint64_t high;
    __asm__("mulq %3" : "=a"(*low), "=d"(high) : "%0"(a), "rm"(b) : "cc");
    return high;
#else
    unsigned __int128 product = (unsigned __int128)a * b;
    *low = (uint64_t)product;
    return (uint64_t)(product >> 64);
#endif
}

/* The same with the second factor in memory, which saves a register. */
BH_INLINE uint64_t bhi_mul_wide_by(uint64_t a, const uint64_t *b, uint64_t *low)
{
#if defined(__x86_64__)
    uint64_t high;
    __asm__("mulq %3" : "=a"(*low), "=d"(high) : "0"(a), "m"(*b) : "cc");
    return high;
#else
    return bhi_mul_wide(a, *b, low);
#endif
}

/* Both halves of that product, XORed. */
BH_INLINE uint64_t bhi_mul_fold(uint64_t a, const uint64_t *b)
{
    uint64_t low, high = bhi_mul_wide_by(a, b, &low);
    return high ^ low;
}

BH_INLINE size_t bhi_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

BH_INLINE size_t bhi_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
