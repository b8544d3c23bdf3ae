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

BH_INLINE bhi_map_word_t *bhi_map_word(bhi_map_word_t *map, uint64_t index)
{
    return &map[index >> 6];
}

BH_INLINE uint64_t bhi_map_bit(uint64_t index)
{
    return (uint64_t)1 << (index & 63);
}

/* Owner, malloc: free -> live. False when the block is not free (live, held or
 * the trace of a racing double free): it must not be handed out. */
BH_INLINE bool bhi_map_set_live(bhi_map_word_t *map, uint64_t index)
{
    if (!BH_HARDEN_MAP)
        return true;
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    if (bh_unlikely(bhi_bit_has(held, index)) || bh_unlikely(bhi_bit_set(&live, index)))
        return false;
    atomic_store_explicit(&w->live, live, memory_order_relaxed);
    return true;
}

/* Owner, free: live -> free. False when the block is not live or is held. */
BH_INLINE bool bhi_map_clear_live(bhi_map_word_t *map, uint64_t index)
{
    if (!BH_HARDEN_MAP)
        return true;
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    if (bh_unlikely(bhi_bit_has(held, index)) || bh_unlikely(!bhi_bit_clear(&live, index)))
        return false;
    atomic_store_explicit(&w->live, live, memory_order_relaxed);
    return true;
}

/* Any thread: live and not held. */
BH_INLINE bool bhi_map_is_live(bhi_map_word_t *map, uint64_t index)
{
    if (!BH_HARDEN_MAP)
        return true;
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    return (live & ~held & bhi_map_bit(index)) != 0;
}

/* Owner: neither live nor held. */
BH_INLINE bool bhi_map_is_free(bhi_map_word_t *map, uint64_t index)
{
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    return !bhi_bit_has(live | held, index);
}

/* Non-owner, free: live -> held. False when it was not live or already held.
 * Release: what this thread did with the block happens before its reuse.
 *
 * The test of `live` stands before the OR only. After it the owner may take
 * the block back at once (another thread's announcement of the same group is
 * enough), so that live = 0 then proves nothing. */
BH_INLINE bool bhi_map_set_held(bhi_map_word_t *map, uint64_t index)
{
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t bit = bhi_map_bit(index);
    if (BH_HARDEN_MAP && bh_unlikely((atomic_load_explicit(&w->live, memory_order_relaxed) & bit) == 0))
        return false;
    return (atomic_fetch_or_explicit(&w->held, bit, memory_order_seq_cst) & bit) == 0;
}

/* Owner: takes every held block of one word back; returns their bits, which are
 * free afterwards. *stray: bits that are held but not live. They are the trace
 * of a remote free that raced with the owner's own free of the same block: the
 * owner is the only one to clear live, so to it the pair (0, 1) is no passing
 * state of a correct free. They stay, and bar the block from being handed out. */
BH_INLINE uint64_t bhi_map_take_held(bhi_map_word_t *w, uint64_t *stray)
{
    *stray = 0;
    uint64_t held = atomic_load_explicit(&w->held, memory_order_seq_cst);
    if (held == 0)
        return 0;
    if (BH_HARDEN_MAP) {
        uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
        *stray = held & ~live;
        held &= live;
        atomic_store_explicit(&w->live, live & ~held, memory_order_relaxed);
    }
    atomic_fetch_and_explicit(&w->held, ~held, memory_order_acq_rel);
    return held;
}

/* Owner: held -> free, of one block. Live goes first: who meets the pair in between
 * sees a free block or a held one. */
BH_INLINE void bhi_map_release(bhi_map_word_t *map, uint64_t index)
{
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    atomic_store_explicit(&w->live, live & ~bhi_map_bit(index), memory_order_relaxed);
    atomic_fetch_and_explicit(&w->held, ~bhi_map_bit(index), memory_order_acq_rel);
}

/* Owner: the block is not live but held; see bhi_map_take_held. */
BH_INLINE bool bhi_map_is_stray(bhi_map_word_t *map, uint64_t index)
{
    bhi_map_word_t *w = bhi_map_word(map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    return (atomic_load_explicit(&w->held, memory_order_relaxed) & ~live & bhi_map_bit(index)) != 0;
}

#endif
