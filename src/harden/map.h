/* Allocation map: the single truth about which blocks are live.
 *
 * Why no check here accuses a correct program, and none hands out twice:
 * src/README.md, "Interleavings". `live` is stored by the owner, the only writer; `held` is
 * set by an atomic exchange and cleared by the owner. Callers guarantee index < capacity of the page whose map it is.
 *
 * In profile hardened the first byte of a freed block says when that was: its *mark*, an
 * even number (harden/age.h). Live is 1 and nothing else; elsewhere free is 0. */
#ifndef BH_HARDEN_MAP_H
#define BH_HARDEN_MAP_H

#include "base/bits.h"
#include "base/constants.h"
#include "meta/types.h"

/* A block's place among the 64 of its group, as an element of a set. */
BH_INLINE uint64_t bhi_map_bit(uint64_t index)
{
    return (uint64_t)1 << (index & 63);
}

/* Both bytes of a block at once: live in the lower half. */
#define BHI_MAP_FREE 0u
#define BHI_MAP_LIVE 1u
#define BHI_MAP_NOT_MARK 0xff01u /* what no mark has: neither live nor held where all of it is clear */
typedef uint16_t bhi_map_pair_t __attribute__((may_alias));

BH_INLINE uint16_t bhi_map_pair(const bhi_map_block_t *map, uint64_t index)
{
    return __atomic_load_n((const bhi_map_pair_t *)(const void *)&map[index], __ATOMIC_RELAXED);
}

BH_INLINE void bhi_map_put(bhi_map_block_t *map, uint64_t index, uint16_t pair)
{
    __atomic_store_n((bhi_map_pair_t *)(void *)&map[index], pair, __ATOMIC_RELAXED);
}

/* Whether it is that one. */
BH_INLINE bool bhi_map_has(const bhi_map_block_t *map, uint64_t index, uint16_t pair)
{
#if defined(__x86_64__) && !BH_SANITIZED
    /* The atomic load, in one instruction with the comparison. */
    bool same;
    __asm__("cmpw %1, %2" : "=@cce"(same) : "ri"(pair), "m"(*(const bhi_map_pair_t *)(const void *)&map[index]));
    return same;
#else
    return bhi_map_pair(map, index) == pair;
#endif
}

/* The address is computed for the store anew, as part of it, rather than kept in a
 * register: an instruction less. */
BH_INLINE uint64_t bhi_map_again(uint64_t index)
{
    __asm__("" : "+r"(index));
    return index;
}

/* Owner, malloc: free -> live. False when the block is not free (live, held or
 * the trace of a racing double free): it must not be handed out. */
BH_INLINE bool bhi_map_set_live(bhi_map_block_t *map, uint64_t index)
{
    if (!BH_HARDEN_MAP)
        return true;
    if (bh_unlikely(!bhi_map_has(map, index, BHI_MAP_FREE)))
        return false;
    bhi_map_put(map, bhi_map_again(index), BHI_MAP_LIVE);
    return true;
}

/* Owner, free: live -> free. False when the block is not live or is held. */
BH_INLINE bool bhi_map_clear_live(bhi_map_block_t *map, uint64_t index)
{
    if (!BH_HARDEN_MAP)
        return true;
    if (bh_unlikely(!bhi_map_has(map, index, BHI_MAP_LIVE)))
        return false;
    atomic_store_explicit(&map[bhi_map_again(index)].live, 0, memory_order_relaxed);
    return true;
}

/* Any thread: live and not held. */
BH_INLINE bool bhi_map_is_live(const bhi_map_block_t *map, uint64_t index)
{
    return !BH_HARDEN_MAP || bhi_map_has(map, index, BHI_MAP_LIVE);
}

/* Owner: neither live nor held, and no mark. */
BH_INLINE bool bhi_map_is_free(const bhi_map_block_t *map, uint64_t index)
{
    return bhi_map_has(map, index, BHI_MAP_FREE);
}

/* The same, whatever its mark. */
BH_INLINE bool bhi_map_is_free_marked(const bhi_map_block_t *map, uint64_t index)
{
    return (bhi_map_pair(map, index) & BHI_MAP_NOT_MARK) == 0;
}

/* The same as bhi_map_set_live for a block that may have a mark. */
BH_INLINE bool bhi_map_set_live_marked(bhi_map_block_t *map, uint64_t index)
{
    if (bh_unlikely(!bhi_map_is_free_marked(map, index)))
        return false;
    bhi_map_put(map, bhi_map_again(index), BHI_MAP_LIVE);
    return true;
}

/* Owner: live -> free, of a block that is not held. */
BH_INLINE void bhi_map_set_mark(bhi_map_block_t *map, uint64_t index, uint8_t mark)
{
    atomic_store_explicit(&map[index].live, mark, memory_order_relaxed);
}

/* Non-owner, free: live -> held. False when it was not live or already held.
 * Release: what this thread did with the block happens before its reuse.
 *
 * The test of `live` stands before the exchange only. After it the owner may take
 * the block back at once (another thread's announcement of the same group is
 * enough), so that live = 0 then proves nothing. */
BH_INLINE bool bhi_map_set_held(bhi_map_block_t *map, uint64_t index)
{
    if (BH_HARDEN_MAP && bh_unlikely(atomic_load_explicit(&map[index].live, memory_order_relaxed) != BHI_MAP_LIVE))
        return false;
    return atomic_exchange_explicit(&map[index].held, 1, memory_order_seq_cst) == 0;
}

/* Owner: the block is not live but held; see bhi_map_take_held. */
BH_INLINE bool bhi_map_is_stray(const bhi_map_block_t *map, uint64_t index)
{
    return atomic_load_explicit(&map[index].held, memory_order_relaxed) != 0 && atomic_load_explicit(&map[index].live, memory_order_relaxed) != BHI_MAP_LIVE;
}

/* ------------------------------------------------------------- words of 64
 *
 * On x86-64 vectors of eight blocks, elsewhere four at a time, of which each byte is read as
 * a whole. C knows no such atomic access; volatile, the compiler makes each one instruction.
 * Under a sanitizer byte by byte. */

#if defined(__SSE2__) && !BH_SANITIZED
typedef char bhi_map_bytes_t __attribute__((vector_size(16)));
typedef short bhi_map_eight_t __attribute__((vector_size(16), may_alias));
typedef unsigned short bhi_map_unsigned_t __attribute__((vector_size(16)));

/* As a set, those of 16 bytes that are not 0. */
BH_INLINE uint64_t bhi_map_nonzero(bhi_map_bytes_t bytes)
{
    return 0xffff & ~(unsigned)__builtin_ia32_pmovmskb128(bytes == 0);
}
#else
/* As a set, those of the even bytes of four blocks that are not 0. */
BH_INLINE uint64_t bhi_map_nonzero(uint64_t four)
{
    return (((four & 0x00ff00ff00ff00ff) + 0x00ff00ff00ff00ff) >> 8 & 0x0001000100010001) * 0x0001000200040008 >> 48 & 15;
}

BH_INLINE uint64_t bhi_map_four(const bhi_map_block_t *at)
{
    typedef uint64_t four_t __attribute__((may_alias));
    if (!BH_SANITIZED)
        return __atomic_load_n((const four_t *)(const void *)at, __ATOMIC_RELAXED);
    uint64_t four = 0;
    for (unsigned i = 0; i < 4; i++)
        four |= (uint64_t)bhi_map_pair(at, i) << 16 * i;
    return four;
}
#endif

typedef struct bhi_map_sets {
    uint64_t live, held;
} bhi_map_sets_t;

/* Which of the blocks [64 word, 64 word + 64) are live, and which are held. A snapshot
 * of each block, not of all. */
BH_INLINE bhi_map_sets_t bhi_map_sets(const bhi_map_block_t *map, uint32_t word)
{
    const bhi_map_block_t *at = map + (size_t)word * 64;
    bhi_map_sets_t sets = {0, 0};
#if defined(__SSE2__) && !BH_SANITIZED
    for (unsigned i = 0; i < 64; i += 16) {
        const volatile bhi_map_eight_t *eight = (const volatile bhi_map_eight_t *)(const void *)(at + i);
        bhi_map_eight_t a = eight[0], b = eight[1];
        bhi_map_eight_t held_a = (bhi_map_eight_t)((bhi_map_unsigned_t)a >> 8), held_b = (bhi_map_eight_t)((bhi_map_unsigned_t)b >> 8);
        sets.live |= bhi_map_nonzero(__builtin_ia32_packuswb128(a & 1, b & 1)) << i;
        sets.held |= bhi_map_nonzero(__builtin_ia32_packuswb128(held_a, held_b)) << i;
    }
#else
    for (unsigned i = 0; i < 64; i += 4) {
        uint64_t four = bhi_map_four(at + i);
        sets.live |= bhi_map_nonzero(four & 0x0001000100010001) << i;
        sets.held |= bhi_map_nonzero(four >> 8) << i;
    }
#endif
    return sets;
}

/* Those that are neither, and have no mark. */
BH_INLINE uint64_t bhi_map_free(const bhi_map_block_t *map, uint32_t word)
{
#if defined(__SSE2__) && !BH_SANITIZED
    const volatile bhi_map_eight_t *eight = (const volatile bhi_map_eight_t *)(const void *)(map + (size_t)word * 64);
    uint64_t free = 0;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++)
        free |= (uint64_t)(unsigned)__builtin_ia32_pmovmskb128(__builtin_ia32_packsswb128(eight[2 * i] == 0, eight[2 * i + 1] == 0)) << 16 * i;
    return free;
#else
    const bhi_map_block_t *at = map + (size_t)word * 64;
    uint64_t taken = 0;
    for (unsigned i = 0; i < 64; i += 4) {
        uint64_t four = bhi_map_four(at + i);
        taken |= (bhi_map_nonzero(four) | bhi_map_nonzero(four >> 8)) << i;
    }
    return ~taken;
#endif
}

/* Those that are neither, and whose mark is none of the two `young`. */
BH_INLINE uint64_t bhi_map_old(const bhi_map_block_t *map, uint32_t word, const uint8_t young[2])
{
    uint64_t old = 0;
#if defined(__SSE2__) && !BH_SANITIZED
    const volatile bhi_map_eight_t *eight = (const volatile bhi_map_eight_t *)(const void *)(map + (size_t)word * 64);
    const bhi_map_eight_t none = {0}, not_mark = none + (short)BHI_MAP_NOT_MARK, first = none + young[0], second = none + young[1];
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        bhi_map_eight_t a = eight[2 * i], b = eight[2 * i + 1];
        bhi_map_eight_t of_a = ((a & not_mark) == none) & ~((a == first) | (a == second));
        bhi_map_eight_t of_b = ((b & not_mark) == none) & ~((b == first) | (b == second));
        old |= (uint64_t)(unsigned)__builtin_ia32_pmovmskb128(__builtin_ia32_packsswb128(of_a, of_b)) << 16 * i;
    }
#else
    const bhi_map_block_t *at = map + (size_t)word * 64;
    for (unsigned i = 0; i < 64; i++) {
        uint16_t pair = bhi_map_pair(at, i);
        old |= (uint64_t)((pair & BHI_MAP_NOT_MARK) == 0 && pair != young[0] && pair != young[1]) << i;
    }
#endif
    return old;
}

/* Live and not held. */
BH_INLINE uint64_t bhi_map_live(const bhi_map_block_t *map, uint32_t word)
{
    bhi_map_sets_t sets = bhi_map_sets(map, word);
    return sets.live & ~sets.held;
}

/* Owner: held -> free, of one block, both at once. */
BH_INLINE void bhi_map_release_marked(bhi_map_block_t *map, uint64_t index, uint8_t mark)
{
    __atomic_store_n((bhi_map_pair_t *)(void *)&map[index], mark, __ATOMIC_RELEASE);
}

BH_INLINE void bhi_map_release(bhi_map_block_t *map, uint64_t index)
{
    bhi_map_release_marked(map, index, 0);
}

/* Owner: takes every held block of one word back; returns them, who are free
 * afterwards. *stray: blocks that are held but not live. They are the trace
 * of a remote free that raced with the owner's own free of the same block: the
 * owner is the only one to clear live, so to it the pair (0, 1) is no passing
 * state of a correct free. They stay, and bar the block from being handed out. */
BH_INLINE uint64_t bhi_map_take_held(bhi_map_block_t *map, uint32_t word, uint64_t *stray)
{
    bhi_map_sets_t sets = bhi_map_sets(map, word);
    *stray = BH_HARDEN_MAP ? sets.held & ~sets.live : 0;
    uint64_t held = BH_HARDEN_MAP ? sets.held & sets.live : sets.held;
    for (uint64_t left = held; left != 0; left &= left - 1) {
        uint32_t index = word * 64 + bhi_bit_first(left);
        (void)atomic_load_explicit(&map[index].held, memory_order_acquire); /* what its thread did with the block comes before */
        bhi_map_release(map, index);
    }
    return held;
}

#endif
