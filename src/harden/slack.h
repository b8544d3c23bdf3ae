/* Access to the slack of a block: the bytes behind its requested size.
 *
 * The owner of a page reads the slack of live blocks (sweeps) while another
 * thread may write it: the one that frees the block. Bytes before the slack are
 * the program's, which may change them at any time, so no byte that is not slack is
 * written, and what an aligned word shows of one that is not is masked out: at the
 * slack's unaligned front, words start where it starts.
 *
 * C has no atomic access that is not aligned. A volatile access is what the
 * compiler makes one instruction of; that another processor may see half of it
 * is no harm, since nobody takes a check that ran beside a write for true
 * (canary.h). Under a sanitizer the same words are put together from atomic
 * bytes, so that the thread sanitizer can follow.
 *
 * Blocks are aligned to 8 and sizes multiples of 8; words are little-endian. */
#ifndef BH_HARDEN_SLACK_H
#define BH_HARDEN_SLACK_H

#include "base/compiler.h"

#include <stdatomic.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is its lowest");

typedef struct __attribute__((packed, may_alias)) bhi_slack32 {
    uint32_t word;
} bhi_slack32_t;

typedef struct __attribute__((packed, may_alias)) bhi_slack64 {
    uint64_t word;
} bhi_slack64_t;

BH_INLINE uint8_t bhi_slack_load8(uintptr_t at)
{
    return atomic_load_explicit((_Atomic(uint8_t) *)at, memory_order_relaxed); /* NOLINT: block memory is addressed by number */
}

BH_INLINE void bhi_slack_store8(uintptr_t at, uint8_t byte)
{
    atomic_store_explicit((_Atomic(uint8_t) *)at, byte, memory_order_relaxed); /* NOLINT */
}

BH_INLINE uint64_t bhi_slack_load_bytes(uintptr_t at, unsigned n)
{
    uint64_t word = 0;
    for (unsigned i = 0; i < n; i++)
        word |= (uint64_t)bhi_slack_load8(at + i) << (8 * i);
    return word;
}

BH_INLINE void bhi_slack_store_bytes(uintptr_t at, uint64_t word, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        bhi_slack_store8(at + i, (uint8_t)(word >> (8 * i)));
}

/* Anywhere. */
BH_INLINE uint32_t bhi_slack_load32(uintptr_t at)
{
    if (BH_SANITIZED)
        return (uint32_t)bhi_slack_load_bytes(at, 4);
    return ((const volatile bhi_slack32_t *)at)->word; /* NOLINT */
}

BH_INLINE uint64_t bhi_slack_load64(uintptr_t at)
{
    if (BH_SANITIZED)
        return bhi_slack_load_bytes(at, 8);
    return ((const volatile bhi_slack64_t *)at)->word; /* NOLINT */
}

BH_INLINE void bhi_slack_store32(uintptr_t at, uint32_t word)
{
    if (BH_SANITIZED)
        bhi_slack_store_bytes(at, word, 4);
    else
        ((volatile bhi_slack32_t *)at)->word = word; /* NOLINT */
}

BH_INLINE void bhi_slack_store64(uintptr_t at, uint64_t word)
{
    if (BH_SANITIZED)
        bhi_slack_store_bytes(at, word, 8);
    else
        ((volatile bhi_slack64_t *)at)->word = word; /* NOLINT */
}

/* At a multiple of 8. */
BH_INLINE uint64_t bhi_slack_load_aligned(uintptr_t at)
{
    return atomic_load_explicit((_Atomic(uint64_t) *)at, memory_order_relaxed); /* NOLINT */
}

BH_INLINE void bhi_slack_store_aligned(uintptr_t at, uint64_t word)
{
    atomic_store_explicit((_Atomic(uint64_t) *)at, word, memory_order_relaxed); /* NOLINT */
}

#endif
