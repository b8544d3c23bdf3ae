/* Pages: their lists, growth, taking back of remote frees, release. */
#ifndef BH_CORE_PAGE_H
#define BH_CORE_PAGE_H

#include "base/checked.h"
#include "base/constants.h"
#include "harden/list.h"
#include "harden/map.h"
#include "meta/types.h"
#include "rt/violation.h"

/* A new ACTIVE page of a class for `heap`, in no queue yet; NULL: no memory. */
bhi_page_t *bhi_page_new(bhi_heap_t *heap, unsigned size_class);

/* The same for blocks of zero size, its first one aligned to `align`, at most
 * BH_SEGMENT_SIZE: without access, all blocks free. */
bhi_page_t *bhi_page_new_zero(bhi_heap_t *heap, size_t align);

/* A new LARGE page whose block of at least `size` bytes (at most PTRDIFF_MAX),
 * aligned to `align`, is live; in no queue yet. *zero: its memory reads zero. */
bhi_page_t *bhi_page_new_large(bhi_heap_t *heap, size_t size, size_t align, bool *zero);

/* Owner: makes a new LARGE page's block one of zero size: without access where that
 * is possible. A huge one for which it is not keeps its bytes. */
void bhi_page_close(bhi_page_t *page);

/* Owner: makes a LARGE page's block at least `size` bytes long, more than it is,
 * where it stands. False when what lies behind it is in use. */
bool bhi_page_grow(bhi_page_t *page, size_t size);

/* Owner: puts freed blocks on the empty list if enough of them have gathered, and the
 * next allocation is not to be guarded. */
typedef enum bhi_reuse {
    BHI_REUSE_NONE = 0,
    BHI_REUSE_DONE,
    BHI_REUSE_DUE, /* nothing is listed, as the next one is to be guarded */
} bhi_reuse_t;
bhi_reuse_t bhi_page_reuse(bhi_page_t *page);

/* Owner, after a guarded allocation: what was kept for then comes on the empty list, but
 * for a block whose place the guarded one has: so lists end where they would without it,
 * and not in the middle of what one word of the map has. */
void bhi_page_go_on(bhi_page_t *page);

/* Owner: whether any block is not in use, also of those that other threads freed. */
bool bhi_page_has_free(bhi_page_t *page);

/* Owner: makes the list non-empty if that is possible: from freed blocks, also by
 * other threads, or fresh ones. The class is not due (core/sampled.h). */
bool bhi_page_refill(bhi_page_t *page);

/* Owner: whether refilling would hand blocks out again soon after they were freed:
 * nothing is listed, nothing is fresh, and few are free. *spare: how many. */
bool bhi_page_is_sparse(bhi_page_t *page, uint32_t *spare);

/* Owner: whether blocks of a page that could not be refilled are free, but have not waited
 * (harden/age.h). */
bool bhi_page_waits(const bhi_page_t *page);

/* At least how many free blocks are enough: BH_REUSE_BYTES of constants.h. 1: any. */
BH_INLINE uint32_t bhi_page_reuse_least(const bhi_page_t *page)
{
    uint32_t most = (uint32_t)bhi_min(BH_REUSE_BYTES / page->block_size, BH_REUSE_BLOCKS);
    return BH_HARDEN_RANDOM && most >= 4 ? most * 3 / 4 : 1;
}

/* Owner: takes the held blocks of the named groups back. */
void bhi_page_collect(bhi_page_t *page, uint32_t groups);

/* Owner: gives an empty page (used = 0) back. False when a remote signal for it
 * is still under way, or a thread still reads it that will send one; the page
 * then stays as it is and the signal's arrival tries again. (After one that read
 * for a query only, nobody does until bhi_heap_collect.) The caller has not unlinked it: `unlink` does, on success. */
bool bhi_page_release(bhi_heap_t *heap, bhi_page_t *page);

/* Owner: what is on the list is free in the map alone. */
void bhi_page_drop_list(bhi_heap_t *heap, bhi_page_t *page);

/* Owner: what is left on a page that could not be released is no block of the
 * program any more (bh_heap_destroy): freeing one is a double free. */
void bhi_page_forget(bhi_page_t *page);

/* Any thread: pushes a page whose QUEUED bit the caller has just set onto its
 * heap's pending stack. */
void bhi_page_signal(bhi_page_t *page);

/* A block on the list, or one that is held, is not what it should be. */
_Noreturn BH_COLD void bhi_page_not_free(const bhi_page_t *page, uint32_t index);

/* Owner: no block is held and not live, but what another thread freed while the
 * owner did (README, "Double frees that race"): that ends the process. */
void bhi_page_check_nothing_held(const bhi_page_t *page);

/* Owner, of a page of many blocks that is empty as it counts: ends the process if a block
 * is live. The map is the truth; a list whose length somebody has written makes the
 * count wrong, and a page that ended would hand its blocks out again. */
void bhi_page_check_nothing_live(const bhi_page_t *page);

/* Owner: ends the process if the list is not empty and what comes next is a block
 * that bhi_page_pop refuses. */
void bhi_page_check_head(const bhi_page_t *page);

BH_INLINE uintptr_t bhi_page_block(const bhi_page_t *page, uint32_t index)
{
    return page->start + index * page->block_size; /* within a span, whose bytes 32 bits count */
}

/* Owner: blocks with live = 1. */
BH_INLINE uint32_t bhi_page_live(const bhi_page_t *page)
{
    return page->used - page->listed;
}

/* Usable bytes of a block, of any page, also one that has ended. 0 where nothing was
 * asked for. */
BH_INLINE size_t bhi_page_bytes(const bhi_page_t *page)
{
    if (page->block_size == 0)
        return page->single_bytes;
    return page->size_class != BHI_CLASS_ZERO ? page->block_size : 0;
}

/* Of a word of a page's map, who is live and not held: a snapshot. Of a single block there
 * is nothing behind its pair. */
BH_INLINE uint64_t bhi_page_live_now(const bhi_page_t *page, uint32_t word)
{
    return page->block_size != 0 ? bhi_map_live(page->map, word) : bhi_map_is_live(page->map, 0);
}

BH_INLINE uint32_t bhi_page_capacity(const bhi_page_t *page)
{
    return atomic_load_explicit(&page->capacity, memory_order_relaxed);
}

/* The same for the owner, who alone writes it: one instruction less where it is
 * compared at once. */
BH_INLINE uint32_t bhi_page_own_capacity(const bhi_page_t *page)
{
    return *(const uint32_t *)(const void *)&page->capacity;
}

/* Whether p, any address, is the start of a block that was put on a list of a
 * page with many blocks; then *index is its index. */
BH_INLINE bool bhi_page_divide(const bhi_page_t *page, uintptr_t p, uint32_t *index)
{
    uint64_t rest, quotient = bhi_mul_wide(p - page->start, page->reciprocal, &rest);
    *index = (uint32_t)quotient;
    return bh_likely(rest < page->reciprocal) && bh_likely(quotient < bhi_page_capacity(page));
}

/* The same for the page's owner, and by place, which is below 2^32. */
BH_INLINE bool bhi_page_place_index(const bhi_page_t *page, uint64_t place, uint64_t *index)
{
    uint64_t rest;
    *index = bhi_mul_wide_by(place, &page->reciprocal, &rest);
    return bh_likely(rest < page->reciprocal) && bh_likely((uint32_t)*index < bhi_page_own_capacity(page));
}

/* The same without the bound, for pages in the class queues of a heap that has lists: their
 * map has a pair for every place of the first slot (page.c), and those that no block was
 * ever listed for say that none is live. */
BH_INLINE bool bhi_page_place_divides(const bhi_page_t *page, uint64_t place, uint64_t *index)
{
    uint64_t rest;
    *index = bhi_mul_wide_by(place, &page->reciprocal, &rest);
    return bh_likely(rest < page->reciprocal);
}

/* The same as bhi_page_divide for any page, and one that has ended. */
BH_INLINE bool bhi_page_index(const bhi_page_t *page, uintptr_t p, uint32_t *index)
{
    if (page->block_size != 0)
        return bhi_page_divide(page, p, index);
    *index = 0;
    return p == page->start && bhi_page_capacity(page) != 0;
}

/* What page->retire is when the page has just become empty: the next look at it says
 * for how many more it waits (heap.c). */
#define BHI_RETIRE_NEW UINT8_MAX

/* Owner: counts a page that the heap has now, and lets free find it. */
BH_INLINE void bhi_page_enters(bhi_heap_t *heap)
{
    heap->page_count++;
    heap->open = atomic_load_explicit(bhi_process.block_open, memory_order_relaxed);
}

/* Whether a page is the calling thread's, in its class queue. */
BH_INLINE bool bhi_page_is_local(const bhi_page_t *page, const bhi_heap_t *heap)
{
#if defined(__x86_64__) && !BH_SANITIZED
    /* The atomic load, in one instruction with the comparison. */
    bool same;
    __asm__("cmpq %1, %2" : "=@cce"(same) : "m"(page->local_heap), "r"(heap));
    return same;
#else
    return atomic_load_explicit(&page->local_heap, memory_order_relaxed) == heap;
#endif
}

/* Owner: malloc took the list's last block and n are left; the next one is fetched: blocks
 * come in random order, so nobody but the list knows which one that is, and it has mostly
 * left the first cache. Nothing depends on the prefetch. */
BH_INLINE void bhi_page_step_to(bhi_page_t *page, uint64_t n, bhi_list_next_t next)
{
    if (BH_HARDEN_RANDOM && BH_HARDEN_MAP && !BH_SANITIZED)
        __builtin_prefetch((const void *)(page->start + next.place), 1); /* NOLINT: blocks are numbers here */
    bhi_list_set(page, n, next);
}

BH_INLINE void bhi_page_step(bhi_page_t *page, uint64_t n)
{
    bhi_page_step_to(page, n, bhi_list_next(page, n, bhi_list_key(page)));
}

/* Owner: whether what `top` says is a block, and `top_place` says the same. */
BH_INLINE bool bhi_page_leads(const bhi_page_t *page, uint64_t index)
{
    return bh_likely((uint32_t)index < bhi_page_own_capacity(page)) && bh_likely((uint32_t)index * page->block_size == page->top_place);
}

/* Owner: the list's next block, now live, or NULL when the generic path must look:
 * the list is empty, or that block is not to be handed out. */
BH_INLINE void *bhi_page_pop(bhi_page_t *page)
{
    uint64_t n = page->listed;
    if (bh_unlikely(__builtin_sub_overflow(n, 1, &n)))
        return NULL;
    /* Not from the list: the program is about to write to the block, and until the
     * processor knows where, loads of what was just stored wait, also those of the next
     * malloc. */
    uint32_t key = bhi_list_key(page);
    uint64_t index = (uint32_t)page->top ^ key, place = page->top_place;
    bhi_list_next_t next = bhi_list_next(page, n, key);
    __asm__("" : "+r"(index), "+r"(n), "+r"(next.entry), "+r"(next.place)); /* each in one register from here on */
    if (BH_HARDEN_MAP && bh_unlikely(!bhi_page_leads(page, index)))
        return NULL;
    if (bh_unlikely(!bhi_map_set_live(page->map, index)))
        return NULL;
    bhi_page_step_to(page, n, next);
    uintptr_t block = page->start + place;
    if (block == 0)
        __builtin_unreachable(); /* saves callers a comparison */
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

#endif
