/* Size classes: 8 B; multiples of 16 B to 128 B; then eight steps to each power
 * of two, to 128 KiB. Pure arithmetic. */
#ifndef BH_META_SIZE_CLASS_H
#define BH_META_SIZE_CLASS_H

#include "base/bits.h"
#include "base/constants.h"
#include "meta/types.h"

/* Class of a request of n bytes, n <= BH_CLASS_MAX_SIZE. */
BH_INLINE unsigned bhi_class_of(size_t n)
{
    if (n <= 8)
        return 0;
    if (n <= 128)
        return (unsigned)((n + 15) >> 4);
    unsigned b = bhi_bit_last(n - 1); /* 2^b < n <= 2^(b+1), b >= 7 */
    return 9 + (b - 7) * 8 + (unsigned)((n - 1) >> (b - 3)) - 8;
}

BH_INLINE size_t bhi_class_size(unsigned c)
{
    if (c == 0)
        return 8;
    if (c <= 8)
        return (size_t)c << 4;
    return (size_t)(9 + (c - 9) % 8) << (4 + (c - 9) / 8);
}

BH_INLINE unsigned bhi_class_span_slots(unsigned c)
{
    size_t size = bhi_class_size(c);
    if (size <= 8 * 1024)
        return BH_SPAN_SLOTS_SMALL;
    return size <= 32 * 1024 ? BH_SPAN_SLOTS_MEDIUM : BH_SPAN_SLOTS_LARGE;
}

/* Blocks that fit between the start of the span and its guard. */
BH_INLINE uint32_t bhi_class_blocks(unsigned c)
{
    return (uint32_t)((bhi_class_span_slots(c) * BH_SLOT_SIZE - BH_OS_PAGE_SIZE) / bhi_class_size(c));
}

/* r = ceil(2^64 / size). For every offset n = k * size + m inside a span the
 * product n * r has k as its high half, and a low half below r exactly if m = 0:
 * with e = r * size - 2^64 < size, n * r = k * 2^64 + k * e + m * r, where
 * k * e < n < 2^24 is below r >= 2^47, and m * r + k * e < 2^64. (D. Lemire,
 * O. Kaser, N. Kurz, "Faster remainder by direct computation", 2019.) */
BH_INLINE uint64_t bhi_class_reciprocal(size_t size)
{
    return UINT64_MAX / size + 1;
}

/* Class for a request with an alignment of up to a slot: the smallest whose
 * size is a multiple of the alignment (blocks start at multiples of their size
 * from a slot boundary). Returns BHI_CLASSES when there is none. */
BH_INLINE unsigned bhi_class_of_aligned(size_t n, size_t align)
{
    if (n > BH_CLASS_MAX_SIZE || align > BH_CLASS_MAX_SIZE)
        return BHI_CLASSES;
    unsigned c = bhi_class_of(n < align ? align : n);
    while (c < BHI_CLASSES && (bhi_class_size(c) & (align - 1)) != 0)
        c++;
    return c;
}

#endif
