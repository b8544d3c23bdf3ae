/* Wiping of long slack, and the check of long blocks. */
#include "harden/wipe.h"

#include "base/bits.h"
#include "rt/process.h"

void bhi_wipe_slack_any(uintptr_t slack, uintptr_t end)
{
    uintptr_t at = slack;
    for (; at < end && (at & 7) != 0; at++)
        bhi_slack_store8(at, 0);
    for (; at < end; at += 8)
        bhi_slack_store_aligned(at, 0);
}

/* Whole words, as sweeps beside it read them. */
void bhi_wipe_fill_freed(uintptr_t block, size_t size)
{
    for (uintptr_t at = block; BH_HARDEN_WIPE && at < block + size; at += 8)
        bhi_slack_store_aligned(at, BH_FILL_FREED_WORD);
}

static uint64_t word_at(uintptr_t at)
{
    uint64_t word;
    memcpy(&word, (const void *)at, sizeof word); /* NOLINT */
    return word;
}

/* A free block is filled from its first free on, and zero before. One word of the
 * pattern tells: what writes to a free block seldom writes that. */
static uint64_t filled_with(uintptr_t block, size_t size)
{
    for (size_t at = 0; bhi_process.fill && at < size; at += 8) {
        if (word_at(block + at) == BH_FILL_FREED_WORD)
            return BH_FILL_FREED_WORD;
    }
    return 0;
}

BH_COLD size_t bhi_wipe_find(uintptr_t block, size_t size)
{
    uint64_t clean = filled_with(block, size);
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = word_at(block + at);
        if (word != clean)
            return at + bhi_bit_first(word ^ clean) / 8;
    }
    return BH_WIPE_CLEAN;
}

/* size > 128. The last 128 bytes, then what lies before them from the front; the two
 * may overlap, which is cheaper than a loop over what is left. */
static size_t check_long(uintptr_t block, size_t size)
{
    uintptr_t at = block, last = block + size - 128;
    bhi_words2_t seen = bhi_wipe_eight(last) | bhi_wipe_eight(last + 64);
    for (; at < last; at += 128) {
        seen |= bhi_wipe_eight(at) | bhi_wipe_eight(at + 64);
        if (bh_unlikely((seen[0] | seen[1]) != 0))
            return bhi_wipe_find(block, size);
    }
    return bh_likely((seen[0] | seen[1]) == 0) ? BH_WIPE_CLEAN : bhi_wipe_find(block, size);
}

#if defined(__x86_64__)
/* The same with vectors of twice the length, which most processors know. */
typedef uint64_t words4_t __attribute__((vector_size(32), aligned(8), may_alias));
typedef long long test4_t __attribute__((vector_size(32)));

__attribute__((target("avx2"))) static inline words4_t any_in_128(uintptr_t at)
{
    const words4_t *w = (const words4_t *)at; /* NOLINT: block memory is addressed by number */
    return (w[0] | w[1]) | (w[2] | w[3]);
}

__attribute__((target("avx2"))) static inline size_t result(words4_t seen, uintptr_t block, size_t size)
{
    return bh_likely(__builtin_ia32_ptestz256((test4_t)seen, (test4_t)seen)) ? BH_WIPE_CLEAN : bhi_wipe_find(block, size);
}

#define AHEAD 1024u /* bytes; beyond the block it is a hint that has no effect */

/* Up to 1 KiB as many bytes from both ends, which overlap: sizes differ from one call to
 * the next, and where a loop would end would be guessed wrong. */
__attribute__((target("avx2"))) static size_t check_long_avx2(uintptr_t block, size_t size)
{
    uintptr_t at = block, last = block + size - 128;
    words4_t seen = any_in_128(at) | any_in_128(last);
    if (size <= 256)
        return result(seen, block, size);
    seen |= any_in_128(at + 128) | any_in_128(last - 128);
    if (size <= 512)
        return result(seen, block, size);
    seen |= (any_in_128(at + 256) | any_in_128(last - 256)) | (any_in_128(at + 384) | any_in_128(last - 384));
    if (size <= 1024)
        return result(seen, block, size);
    for (at += 512, last -= 384; at < last; at += 128) {
        /* Processors foresee no further than to the end of an OS page. */
        __builtin_prefetch((const void *)(at + AHEAD)); /* NOLINT */
        __builtin_prefetch((const void *)(at + AHEAD + BH_CACHE_LINE)); /* NOLINT */
        seen |= any_in_128(at);
        if (bh_unlikely(!__builtin_ia32_ptestz256((test4_t)seen, (test4_t)seen)))
            break;
    }
    return result(seen, block, size);
}

__attribute__((target("avx2"))) static inline void zero_128(uintptr_t at)
{
    words4_t *w = (words4_t *)at; /* NOLINT */
    w[0] = w[1] = w[2] = w[3] = (words4_t){0, 0, 0, 0};
}

__attribute__((target("avx2"))) static void wipe_long_avx2(uintptr_t block, size_t size)
{
    uintptr_t last = block + size - 128;
    if (size > 512) {
        for (unsigned i = 256; i < 512; i += 128) {
            zero_128(block + i);
            zero_128(last - i);
        }
    }
    for (unsigned i = 0; i < 256; i += 128) {
        zero_128(block + i);
        zero_128(last - i);
    }
}

/* size > 1024. What is zero is not written to: of a long block programs often use a part, and
 * what nobody has written need not go back to memory once more. */
__attribute__((target("avx2"))) static void wipe_longer_avx2(uintptr_t block, size_t size)
{
    uintptr_t last = block + size - 128;
    for (uintptr_t at = block; at < last; at += 128) {
        words4_t seen = any_in_128(at);
        if (!__builtin_ia32_ptestz256((test4_t)seen, (test4_t)seen))
            zero_128(at);
    }
    zero_128(last);
}
#endif

void bhi_wipe_long(uintptr_t block, size_t size)
{
#if defined(__x86_64__)
    if (bh_likely(bhi_process.has_avx2)) {
        if (bh_likely(size <= 1024))
            wipe_long_avx2(block, size);
        else
            wipe_longer_avx2(block, size);
        return;
    }
#endif
    memset((void *)block, 0, size); /* NOLINT */
}

bool bhi_wipe_knows_avx2(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("popcnt") != 0;
#else
    return false;
#endif
}

size_t bhi_wipe_check_long(uintptr_t block, size_t size)
{
#if defined(__x86_64__)
    if (bh_likely(bhi_process.has_avx2))
        return check_long_avx2(block, size);
#endif
    return check_long(block, size);
}
