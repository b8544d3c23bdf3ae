/* Profile hardened: free of blocks in pages; see hardened.h. Owns, with hardened.c, E1 to
 * E4. Must not know when anybody looks at blocks
 * that are not freed: hardened_look.c. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/thread.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"

/* --------------------------------------------------------------------- free */

/* The block before one that is freed: its own end, or where it is free the bytes that
 * an underflow meets first. A held one is another thread's to wipe. */
BH_INLINE void check_before(const bhi_page_t *page, uint32_t index, size_t bytes)
{
    uint16_t pair = bhi_map_pair(page->map, index);
    uintptr_t block = page->start + index * bytes;
    if (pair == BHI_MAP_LIVE) {
        if (bh_unlikely(bhi_canary_check(block, bhi_hard_size(page, bytes, index), bytes, *bhi_hard_key(page), index) != BH_CANARY_INTACT))
            bhi_hard_check_live(page, index);
    } else if (BH_HARDEN_WIPE && (pair & BHI_MAP_NOT_MARK) == 0 && bh_unlikely(bhi_slack_load_aligned(block + bytes - 8) != 0) &&
               !bhi_wipe_is_fill(bhi_slack_load_aligned(block + bytes - 8))) {
        bhi_hard_written_before(page, index);
    }
}

/* Ends a live block: it waits. False, and nothing has happened, if it is not live. */
BH_INLINE bool end_live(const bhi_heap_t *heap, const bhi_page_t *page, uint32_t index)
{
    if (bh_unlikely(!bhi_map_is_live(page->map, index)))
        return false;
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    size_t at = bhi_canary_check(block, bhi_hard_size(page, bytes, index), bytes, *bhi_hard_key(page), index);
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_hard_damaged(page, index, at);
    if (bh_likely(index != 0))
        check_before(page, index - 1, bytes);
    bhi_map_set_mark(page->map, index, heap->age[page->size_class].mark);
    atomic_thread_fence(memory_order_release); /* who finds the end wiped finds that it is not live */
    bhi_wipe_freed(block, bytes);
    return true;
}

/* A block of the page has ended. */
BH_INLINE void count_off(bhi_heap_t *heap, bhi_page_t *page)
{
    if (bh_unlikely(--page->used == 0) || bh_unlikely(page->state == BHI_PAGE_FULL))
        bhi_heap_after_free(heap, page);
}

void bhi_hard_free(bhi_heap_t *heap, bhi_page_t *page, uint32_t index)
{
    if (!end_live(heap, page, index))
        bhi_violation(BHI_DOUBLE_FREE, bhi_page_block(page, index));
    count_off(heap, page);
}

/* The page and index of p if it is the start of a block, live or not, in a page of
 * blocks of the calling thread's default heap. */
BH_INLINE bool find_local(uintptr_t p, bhi_page_t **page, uint64_t *index)
{
    uintptr_t off = p - bhi_process.block_base;
    const bhi_heap_t *heap = bhi_thread_heap;
    if (bh_unlikely(off >= heap->open))
        return false;
    *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, off));
    /* Of a single block the reciprocal is 0, so that no place is a block's. */
    return bh_likely(atomic_load_explicit(&(*page)->heap, memory_order_relaxed) == heap) && bh_likely((*page)->size_class != BHI_CLASS_ZERO) &&
           bhi_page_place_index(*page, p - (*page)->start, index);
}

static BH_NOINLINE void free_any(uintptr_t p, bhi_page_t *page, uint32_t index)
{
    if (bh_likely(end_live(bhi_thread_heap, page, index)))
        count_off(bhi_thread_heap, page);
    else
        bhi_free_slow_hardened(p);
}

BH_NOINLINE void bhi_hard_free_any(uintptr_t p)
{
    bhi_page_t *page;
    uint64_t index;
    if (bh_likely(find_local(p, &page, &index)))
        free_any(p, page, (uint32_t)index);
    else
        bhi_free_slow_hardened(p);
}

BH_INLINE size_t short_size(const bhi_page_t *page, uint32_t index)
{
    return *(bhi_hard_sizes(page) - 1 - index);
}

/* Of a small block, 0 if its slack is whole. */
BH_WIDE BH_INLINE bhi_canary_two_t damage_of(uintptr_t block, const bhi_page_t *page, size_t bytes, size_t size, uint32_t index)
{
    return bhi_canary_damage(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index));
}

#if BH_CANARY_AES
#define MIDDLE_CLASS 32u /* 1024 bytes: up to there slack has at most BH_CANARY_WIDE + 8 of them */

BH_WIDE BH_INLINE bool is_whole_middle(const bhi_page_t *page, uintptr_t block, size_t bytes, uint32_t index)
{
    size_t size = *((const uint16_t *)(const void *)bhi_hard_sizes(page) - 1 - index);
    if (!BH_HARDEN_CANARIES)
        return true;
    return bh_likely(bytes - size <= BH_CANARY_WIDE + 8) &&
           bh_likely(bhi_canary_is_whole_wide(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index)));
}

/* The same as free_soon in a page of the thread's own whose class is above
 * BH_CANARY_SMALL. */
BH_WIDE static BH_NOINLINE void free_middle(uintptr_t p, bhi_page_t *page)
{
    uint64_t place;
    if (!bhi_page_place_index(page, p - page->start, &place)) {
        bhi_hard_free_any(p);
        return;
    }
    uint32_t index = (uint32_t)place;
    size_t bytes = page->block_size;
    bool whole = index != 0 && bhi_map_has(page->map, index, BHI_MAP_LIVE) && is_whole_middle(page, p, bytes, index);
    if (bh_likely(whole)) {
        uint16_t before = bhi_map_pair(page->map, index - 1);
        if (before == BHI_MAP_LIVE)
            whole = is_whole_middle(page, p - bytes, bytes, index - 1);
        else
            whole = (before & BHI_MAP_NOT_MARK) == 0 && (!BH_HARDEN_WIPE || bhi_slack_load_aligned(p - 8) == 0);
    }
    if (bh_unlikely(!whole)) {
        bhi_hard_free_any(p);
        return;
    }
    bhi_heap_t *heap = bhi_thread_heap;
    bhi_map_set_mark(page->map, index, heap->age[page->size_class].mark);
    atomic_thread_fence(memory_order_release); /* who finds the end wiped finds that it is not live */
    bhi_wipe_own_middle(p, bytes);
    count_off(heap, page);
}
#endif

/* The commonest case first, without a call and so with few registers to save: a small
 * block with nothing wrong with it nor with the one before it, which the same word of the
 * map tells of. Nothing has happened where it turns out to be another. */
BH_WIDE static BH_NOINLINE void free_soon(uintptr_t p)
{
    uintptr_t off = p - bhi_process.block_base;
    bhi_heap_t *heap = bhi_thread_heap;
    if (bh_unlikely(off >= heap->open))
        goto other;
    /* Of a span of several slots only the first leads to the page: larger blocks. */
    bhi_page_t *page = bhi_desc_at(bhi_process.descs, off);
    size_t bytes = (size_t)page->size_class << 4;
    uint64_t place;
    if (bh_unlikely(atomic_load_explicit(&page->heap, memory_order_relaxed) != heap))
        goto other;
    if (bh_unlikely(bytes > BH_CANARY_SMALL)) {
#if BH_CANARY_AES
        if (!BH_SANITIZED && page->size_class <= MIDDLE_CLASS) {
            free_middle(p, page);
            return;
        }
#endif
        goto other;
    }
    if (bh_unlikely(!bhi_page_place_index(page, p - page->start, &place)))
        goto other;
    uint32_t index = (uint32_t)place;
    if (bh_unlikely(index == 0) || bh_unlikely(!bhi_map_has(page->map, index, BHI_MAP_LIVE)))
        goto other;
    uint16_t before = bhi_map_pair(page->map, index - 1);
    bhi_forget_loads();
    index = bhi_forget_use(index);
    size_t size = short_size(page, index);
    if (BH_SANITIZED || bh_unlikely(bytes - size > 24)) /* long slack; and what is not slack is not read there */
        goto other;
    bhi_canary_two_t damage = {0, 0};
    if (BH_HARDEN_CANARIES)
        damage = damage_of(p, page, bytes, size, index);
    bhi_forget_loads();
    index = bhi_forget_use(index);
    if (before == BHI_MAP_LIVE) {
        size = short_size(page, index - 1);
        if (bh_unlikely(bytes - size > 24))
            goto other;
        if (BH_HARDEN_CANARIES)
            damage |= damage_of(p - bytes, page, bytes, size, index - 1);
    } else if (bh_unlikely((before & BHI_MAP_NOT_MARK) != 0)) {
        goto other;
    } else if (BH_HARDEN_WIPE) {
        damage[0] |= bhi_slack_load_aligned(p - 8);
    }
    if (bh_unlikely(!bhi_canary_is_whole(damage)))
        goto other;
    bhi_forget_loads();
    index = bhi_forget_use(index);
    bhi_map_set_mark(page->map, index, heap->age[page->size_class].mark);
    atomic_thread_fence(memory_order_release); /* who finds the end wiped finds that it is not live */
    bhi_wipe_own_soon(p, bytes);
    count_off(heap, page);
    return;
other:
    bhi_hard_free_any(p);
}

void bhi_free_slow(void *p)
{
    if (bhi_process.short_ways)
        free_soon((uintptr_t)p);
    else
        bhi_free_rest((uintptr_t)p);
}

bool bhi_hard_local(uintptr_t p, bhi_page_t **page, uint32_t *index, size_t *size)
{
    uint64_t i;
    if (!find_local(p, page, &i) || !bhi_map_is_live((*page)->map, i))
        return false;
    *index = (uint32_t)i;
    *size = bhi_hard_size(*page, (*page)->block_size, *index);
    return true;
}

void bhi_hard_wipe_held(bhi_page_t *page, uint32_t index)
{
    uintptr_t block = bhi_page_block(page, index);
    atomic_thread_fence(memory_order_release);
    if (BH_SANITIZED && !bhi_process.fill) /* a sweep may run beside: no byte of it counts, but the sanitizer does not know */
        bhi_wipe_block(block, bhi_hard_size(page, page->block_size, index), page->block_size);
    else
        bhi_wipe_freed(block, page->block_size);
    atomic_fetch_or(bhi_hard_ready(page, index / 64), bhi_map_bit(index));
}

void bhi_hard_collect(bhi_page_t *page, uint32_t word)
{
    bhi_hard_ready_t *ready = bhi_hard_ready(page, word);
    if (atomic_load(ready) == 0)
        return;
    const bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    uint8_t mark = heap->age[page->size_class].mark;
    uint64_t taken = atomic_exchange(ready, 0);
    bhi_map_sets_t sets = bhi_map_sets(page->map, word); /* whoever says ready has set held before */
    uint64_t twice = taken & ~(sets.live & sets.held);
    if (bh_unlikely(twice != 0)) /* the owner has freed it at the same time, or handed it out since */
        bhi_violation(BHI_DOUBLE_FREE, bhi_page_block(page, word * 64 + bhi_bit_first(twice)));
    for (uint64_t left = taken; left != 0; left &= left - 1)
        bhi_map_release_marked(page->map, word * 64 + bhi_bit_first(left), mark);
    page->used -= bhi_bit_count(taken);
    for (; taken != 0; taken &= taken - 1) {
        uint32_t index = word * 64 + bhi_bit_first(taken);
        if (index != 0) /* what the other thread could not do */
            check_before(page, index - 1, page->block_size);
    }
}
