/* Wiping: a block is zero from its free until it is handed out again, and is
 * looked at before. So a freed secret is gone, a fresh block holds nothing of its
 * former life, and a write after free shows.
 *
 * Whoever frees wipes, before the block is published as free; the owner checks.
 * The memory of the block is the caller's alone but for its slack (slack.h). */
#ifndef BH_HARDEN_WIPE_H
#define BH_HARDEN_WIPE_H

#include "base/checked.h"
#include "base/constants.h"
#include "harden/slack.h"
#include "rt/process.h"

#include <string.h>

#define BH_WIPE_CLEAN SIZE_MAX

/* Blocks that nobody sweeps: no slack. */
BH_INLINE void bhi_wipe(uintptr_t block, size_t bytes)
{
    if (BH_HARDEN_WIPE)
        memset((void *)block, 0, bytes); /* NOLINT: block memory is addressed by number */
}

/* A vector that both compilers know without being asked to vectorise. */
typedef uint64_t bhi_words2_t __attribute__((vector_size(16), aligned(8), may_alias));

BH_INLINE bhi_words2_t bhi_wipe_two(uintptr_t at)
{
    return *(const bhi_words2_t *)at; /* NOLINT */
}

BH_INLINE void bhi_wipe_two_zero(uintptr_t at)
{
    *(bhi_words2_t *)at = (bhi_words2_t){0, 0}; /* NOLINT */
}

/* The 64 bytes from `at` on. */
BH_INLINE bhi_words2_t bhi_wipe_eight(uintptr_t at)
{
    return (bhi_wipe_two(at) | bhi_wipe_two(at + 16)) | (bhi_wipe_two(at + 32) | bhi_wipe_two(at + 48));
}

BH_INLINE void bhi_wipe_eight_zero(uintptr_t at)
{
    bhi_wipe_two_zero(at);
    bhi_wipe_two_zero(at + 16);
    bhi_wipe_two_zero(at + 32);
    bhi_wipe_two_zero(at + 48);
}

/* size > 256. */
void bhi_wipe_long(uintptr_t block, size_t size);

/* The same for a block that nobody else looks at, slack and all, or whoever does takes
 * nothing for true. From both ends, which may overlap: cheaper than a loop or a call.
 * size: a multiple of 16, not 0. */
BH_INLINE void bhi_wipe_own(uintptr_t block, size_t size)
{
    if (!BH_HARDEN_WIPE)
        return;
    uintptr_t end = block + size;
    if (size > 256) {
        bhi_wipe_long(block, size);
    } else if (size > 64) {
        bhi_wipe_eight_zero(block);
        bhi_wipe_eight_zero(end - 64);
        if (size > 128) {
            bhi_wipe_eight_zero(block + 64);
            bhi_wipe_eight_zero(end - 128);
        }
    } else { /* without a branch for each of the commonest sizes */
        size_t second = bhi_min(size - 16, 16);
        bhi_wipe_two_zero(block);
        bhi_wipe_two_zero(block + second);
        bhi_wipe_two_zero(end - 16 - second);
        bhi_wipe_two_zero(end - 16);
    }
}

#if defined(__x86_64__)
typedef uint64_t bhi_words4_t __attribute__((vector_size(32), aligned(8), may_alias));

/* Any bit of the 64 bytes at `at`, and of the 64 before `end`, into *seen. */
BH_WIDE BH_INLINE void bhi_wipe_see(uintptr_t at, uintptr_t end, bhi_words4_t *seen)
{
    const bhi_words4_t *front = (const bhi_words4_t *)at, *back = (const bhi_words4_t *)end; /* NOLINT: block memory is addressed by number */
    *seen |= (front[0] | front[1]) | (back[-2] | back[-1]);
}

BH_WIDE BH_INLINE void bhi_wipe_zero(uintptr_t at, uintptr_t end)
{
    bhi_words4_t *front = (bhi_words4_t *)at, *back = (bhi_words4_t *)end; /* NOLINT */
    front[0] = front[1] = back[-2] = back[-1] = (bhi_words4_t){0, 0, 0, 0};
}
#endif

/* The two of bhi_wipe_own and bhi_wipe_is_clean that are BH_WIDE. */
BH_WIDE BH_INLINE void bhi_wipe_own_soon(uintptr_t block, size_t size)
{
#if defined(__x86_64__)
    if (BH_HARDEN_WIPE && size > 64) {
        bhi_wipe_zero(block, block + size);
        if (size > 128)
            bhi_wipe_zero(block + 64, block + size - 64);
        return;
    }
#endif
    bhi_wipe_own(block, size);
}

/* With option `fill` a freed block holds BH_FILL_FREED instead: a check finds it not
 * zero, and bhi_wipe_find, which is called for that, takes the pattern for clean. */
#define BH_FILL_FREED_WORD (BH_FILL_FREED * (UINT64_MAX / 0xff))
void bhi_wipe_fill_freed(uintptr_t block, size_t size);

BH_INLINE bool bhi_wipe_is_fill(uint64_t word)
{
    return bhi_process.fill && word == BH_FILL_FREED_WORD;
}

/* bhi_wipe_own of a block that is freed. */
BH_INLINE void bhi_wipe_freed(uintptr_t block, size_t size)
{
    if (bh_unlikely(bhi_process.fill))
        bhi_wipe_fill_freed(block, size);
    else
        bhi_wipe_own(block, size);
}

/* Zeroes [slack, end) beside a sweep; end is a multiple of 8. */
void bhi_wipe_slack_any(uintptr_t slack, uintptr_t end);

BH_INLINE void bhi_wipe_slack(uintptr_t slack, uintptr_t end)
{
    size_t n = end - slack;
    if (n >= 8 && n <= 16) {
        bhi_slack_store64(slack, 0);
        bhi_slack_store_aligned(end - 8, 0);
    } else {
        bhi_wipe_slack_any(slack, end);
    }
}

/* A live block and its slack, which sweeps may read. requested <= size. */
BH_INLINE void bhi_wipe_block(uintptr_t block, size_t requested, size_t size)
{
    if (!BH_HARDEN_WIPE)
        return;
    memset((void *)block, 0, requested); /* NOLINT */
    bhi_wipe_slack(block + requested, block + size);
}

/* Offset of the first byte of [block, block + size) that is not zero (with `fill`: all
 * of them may be BH_FILL_FREED instead), or BH_WIPE_CLEAN. block is aligned to 8, size a multiple of 8. */
size_t bhi_wipe_check_long(uintptr_t block, size_t size);
/* Start-up, for bhi_process.has_avx2. */
bool bhi_wipe_knows_avx2(void);
size_t bhi_wipe_find(uintptr_t block, size_t size);

/* Whether a block still reads zero; without a call. size: a multiple of 16, 16 to 256. */
BH_INLINE bool bhi_wipe_is_clean(uintptr_t block, size_t size)
{
    if (!BH_HARDEN_WIPE)
        return true;
    bhi_words2_t seen;
    uintptr_t end = block + size;
    if (size > 64) {
        seen = bhi_wipe_eight(block) | bhi_wipe_eight(end - 64);
        if (size > 128)
            seen |= bhi_wipe_eight(block + 64) | bhi_wipe_eight(end - 128);
    } else {
        size_t second = bhi_min(size - 16, 16);
        seen = (bhi_wipe_two(block) | bhi_wipe_two(block + second)) | (bhi_wipe_two(end - 16 - second) | bhi_wipe_two(end - 16));
    }
    return (seen[0] | seen[1]) == 0;
}

BH_WIDE BH_INLINE bool bhi_wipe_is_clean_soon(uintptr_t block, size_t size)
{
#if defined(__x86_64__)
    if (BH_HARDEN_WIPE && size > 64) {
        typedef long long test4_t __attribute__((vector_size(32)));
        bhi_words4_t seen = {0, 0, 0, 0};
        bhi_wipe_see(block, block + size, &seen);
        if (size > 128)
            bhi_wipe_see(block + 64, block + size - 64, &seen);
        return __builtin_ia32_ptestz256((test4_t)seen, (test4_t)seen) != 0;
    }
#endif
    return bhi_wipe_is_clean(block, size);
}

#if defined(__x86_64__)
/* The same of more than 256 bytes, at most 1024. */
BH_WIDE BH_INLINE bool bhi_wipe_is_clean_middle(uintptr_t block, size_t size)
{
    typedef long long test4_t __attribute__((vector_size(32)));
    bhi_words4_t seen = {0, 0, 0, 0};
    uintptr_t end = block + size;
    if (!BH_HARDEN_WIPE)
        return true;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 256; i += 64)
        bhi_wipe_see(block + i, end - i, &seen);
    if (size > 512) {
#pragma GCC unroll 4
        for (unsigned i = 256; i < 512; i += 64)
            bhi_wipe_see(block + i, end - i, &seen);
    }
    return __builtin_ia32_ptestz256((test4_t)seen, (test4_t)seen) != 0;
}

BH_WIDE BH_INLINE void bhi_wipe_own_middle(uintptr_t block, size_t size)
{
    uintptr_t end = block + size;
    if (!BH_HARDEN_WIPE)
        return;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 256; i += 64)
        bhi_wipe_zero(block + i, end - i);
    if (size > 512) {
#pragma GCC unroll 4
        for (unsigned i = 256; i < 512; i += 64)
            bhi_wipe_zero(block + i, end - i);
    }
}
#endif

BH_INLINE size_t bhi_wipe_check(uintptr_t block, size_t size)
{
    if (!BH_HARDEN_WIPE)
        return BH_WIPE_CLEAN;
    bhi_words2_t seen = {0, 0}; /* from both ends of the block, which may overlap */
    uintptr_t end = block + size;
    if (size > 128)
        return bhi_wipe_check_long(block, size);
    if (size > 64) {
        seen = bhi_wipe_eight(block) | bhi_wipe_eight(end - 64);
    } else if (size >= 16) {
        size_t second = bhi_min(size - 16, 16);
        seen = (bhi_wipe_two(block) | bhi_wipe_two(block + second)) | (bhi_wipe_two(end - 16 - second) | bhi_wipe_two(end - 16));
    } else if (size == 8) {
        seen[0] = *(const uint64_t *)block; /* NOLINT */
    }
    return bh_likely((seen[0] | seen[1]) == 0) ? BH_WIPE_CLEAN : bhi_wipe_find(block, size);
}

#endif
