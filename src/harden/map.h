/* Allocation map: the single truth about which blocks are live.
 *
 * Why no check here accuses a correct program, and none hands out twice:
 * src/README.md, "Interleavings". Word updates of `live` are plain load, change,
 * store by the owner, the only writer; `held` is changed by atomic operations
 * alone. Callers guarantee index < capacity of the page whose map it is. */
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
    __asm__("cmpw %1, %2" : "=@cce"(same) : "i"(pair), "m"(*(const bhi_map_pair_t *)(const void *)&map[index]));
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

/* Owner: neither live nor held. */
BH_INLINE bool bhi_map_is_free(const bhi_map_block_t *map, uint64_t index)
{
    return bhi_map_has(map, index, BHI_MAP_FREE);
}

/* Non-owner, free: live -> held. False when it was not live or already held.
 * Release: what this thread did with the block happens before its reuse.
 *
 * The test of `live` stands before the exchange only. After it the owner may take
 * the block back at once (another thread's announcement of the same group is
 * enough), so that live = 0 then proves nothing. */
BH_INLINE bool bhi_map_set_held(bhi_map_block_t *map, uint64_t index)
{
    if (BH_HARDEN_MAP && bh_unlikely(atomic_load_explicit(&map[index].live, memory_order_relaxed) == 0))
        return false;
    return atomic_exchange_explicit(&map[index].held, 1, memory_order_seq_cst) == 0;
}

/* Owner: the block is not live but held; see bhi_map_take_held. */
BH_INLINE bool bhi_map_is_stray(const bhi_map_block_t *map, uint64_t index)
{
    return atomic_load_explicit(&map[index].held, memory_order_relaxed) != 0 && atomic_load_explicit(&map[index].live, memory_order_relaxed) == 0;
}

/* ------------------------------------------------------------ groups of 64 */

/* The bits of `word` whose byte is not 0, of the eight: bit i of byte i. */
BH_INLINE uint64_t bhi_map_nonzero(uint64_t bytes)
{
    uint64_t low = (bytes & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu;
    return ((low | bytes) >> 7 & 0x0101010101010101u) * 0x0102040810204080u >> 56;
}

typedef struct bhi_map_sets {
    uint64_t live, held;
} bhi_map_sets_t;

/* Which of the blocks [64 group, 64 group + 64) are live, and which are held. A snapshot
 * of each block, not of all. */
BH_INLINE bhi_map_sets_t bhi_map_sets(const bhi_map_block_t *map, uint32_t group)
{
    const bhi_map_block_t *at = map + (size_t)group * 64;
    bhi_map_sets_t sets = {0, 0};
#if defined(__SSE2__) && !BH_SANITIZED
    typedef char bytes_t __attribute__((vector_size(16)));
    typedef short pairs_t __attribute__((vector_size(16), may_alias));
    const pairs_t low = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        const volatile pairs_t *pairs = (const volatile pairs_t *)(const void *)(at + 16 * i);
        pairs_t a = pairs[0], b = pairs[1];
        bytes_t live = __builtin_ia32_packuswb128(a & low, b & low);
        typedef unsigned short upairs_t __attribute__((vector_size(16)));
        bytes_t held = __builtin_ia32_packuswb128((pairs_t)((upairs_t)a >> 8), (pairs_t)((upairs_t)b >> 8));
        sets.live |= (uint64_t)(0xffff & ~(unsigned)__builtin_ia32_pmovmskb128(live == 0)) << 16 * i;
        sets.held |= (uint64_t)(0xffff & ~(unsigned)__builtin_ia32_pmovmskb128(held == 0)) << 16 * i;
    }
#else
    for (unsigned i = 0; i < 64; i++) {
        sets.live |= (uint64_t)(atomic_load_explicit(&at[i].live, memory_order_relaxed) != 0) << i;
        sets.held |= (uint64_t)(atomic_load_explicit(&at[i].held, memory_order_relaxed) != 0) << i;
    }
#endif
    return sets;
}

/* Those that are neither. */
BH_INLINE uint64_t bhi_map_free(const bhi_map_block_t *map, uint32_t group)
{
#if defined(__SSE2__) && !BH_SANITIZED
    typedef char bytes_t __attribute__((vector_size(16)));
    typedef short pairs_t __attribute__((vector_size(16), may_alias));
    const volatile pairs_t *pairs = (const volatile pairs_t *)(const void *)(map + (size_t)group * 64);
    uint64_t free = 0;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        bytes_t none = __builtin_ia32_packsswb128(pairs[2 * i] == 0, pairs[2 * i + 1] == 0);
        free |= (uint64_t)(unsigned)__builtin_ia32_pmovmskb128(none) << 16 * i;
    }
    return free;
#else
    bhi_map_sets_t sets = bhi_map_sets(map, group);
    return ~(sets.live | sets.held);
#endif
}

/* Live and not held. */
BH_INLINE uint64_t bhi_map_live(const bhi_map_block_t *map, uint32_t group)
{
    bhi_map_sets_t sets = bhi_map_sets(map, group);
    return sets.live & ~sets.held;
}

/* Owner: held -> free, of one block, both at once. */
BH_INLINE void bhi_map_release(bhi_map_block_t *map, uint64_t index)
{
    __atomic_store_n((bhi_map_pair_t *)(void *)&map[index], BHI_MAP_FREE, __ATOMIC_RELEASE);
}

/* Owner: takes every held block of one group back; returns them, who are free
 * afterwards. *stray: blocks that are held but not live. They are the trace
 * of a remote free that raced with the owner's own free of the same block: the
 * owner is the only one to clear live, so to it the pair (0, 1) is no passing
 * state of a correct free. They stay, and bar the block from being handed out. */
BH_INLINE uint64_t bhi_map_take_held(bhi_map_block_t *map, uint32_t group, uint64_t *stray)
{
    bhi_map_sets_t sets = bhi_map_sets(map, group);
    *stray = BH_HARDEN_MAP ? sets.held & ~sets.live : 0;
    uint64_t held = BH_HARDEN_MAP ? sets.held & sets.live : sets.held;
    for (uint64_t left = held; left != 0; left &= left - 1)
        bhi_map_release(map, group * 64 + bhi_bit_first(left));
    atomic_thread_fence(memory_order_acquire);
    return held;
}

#endif
