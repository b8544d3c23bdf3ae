/* The long way of free, and lookups of blocks. */
#include "core/free.h"

#include <errno.h>

/* Rows by bhi_use_t: not ours, not a block's start, not live. */
static const bhi_violation_t violations[][3] = {
    {BHI_FOREIGN_FREE, BHI_INVALID_FREE, BHI_DOUBLE_FREE},
    {BHI_FOREIGN_REALLOC, BHI_INVALID_REALLOC, BHI_REALLOC_AFTER_FREE},
    {BHI_FOREIGN_QUERY, BHI_INVALID_QUERY, BHI_QUERY_AFTER_FREE},
};
enum { FOREIGN, INVALID, FREED };

static bhi_block_t foreign(uintptr_t p, bhi_use_t use)
{
    if (bhi_process.options.foreign == BHI_FOREIGN_ABORT)
        bhi_violation(violations[use][FOREIGN], p);
    if (bhi_process.options.foreign == BHI_FOREIGN_REPORT)
        bhi_violation_report_only(violations[use][FOREIGN], p);
    return (bhi_block_t){NULL, 0};
}

/* No page has its blocks here now. If one had, and p was the start of one of
 * them, the block has been freed; its page is gone since. */
_Noreturn static void no_page(const bhi_arena_t *arena, const bhi_page_t *page, uintptr_t p, bhi_use_t use)
{
    /* Of a huge span only the first slot has a page; it may be on its way out. */
    uint8_t kind = arena->headers[(p - arena->base) >> BH_SEGMENT_SHIFT].kind;
    bool first_slot = (p & (BH_SEGMENT_SIZE - 1)) < BH_SLOT_SIZE;
    bool inside_huge = kind == BHI_SEGMENT_HUGE_REST || (kind == BHI_SEGMENT_HUGE && !first_slot);
    bool was_block = !inside_huge && page->block_bytes != 0 && p >= page->start &&
                     (p - page->start) % page->block_bytes == 0 && (p - page->start) / page->block_bytes < page->reserved;
    bhi_violation(violations[use][was_block ? FREED : INVALID], p);
}

bhi_block_t bhi_block_of(uintptr_t p, bhi_use_t use)
{
    bhi_arena_t *arena = bhi_arena_of(p);
    if (arena == NULL)
        return foreign(p, use);
    if (p - arena->base >= atomic_load_explicit(&arena->blocks_open, memory_order_relaxed))
        bhi_violation(violations[use][INVALID], p); /* ours, but never used */
    bhi_page_t *page = bhi_desc_at(arena->descs, p - arena->base);
    page -= page->back;
    uint32_t index = bhi_page_index(page, p);
    if (index >= bhi_page_capacity(page)) {
        if (bhi_page_capacity(page) == 0)
            no_page(arena, page, p, use);
        bhi_violation(violations[use][INVALID], p);
    }
    if (!bhi_map_is_live(page->map, index))
        bhi_violation(violations[use][FREED], p);
    return (bhi_block_t){page, index};
}

/* Another thread's block: mark it held, announce its group, and if the page was
 * not signalled since the owner last looked, signal it. */
static void free_remote(bhi_page_t *page, uint32_t index, uintptr_t p)
{
    uint64_t want = BHI_REMOTE_QUEUED | (uint64_t)1 << (BHI_REMOTE_GROUP_BIT + (index >> page->group_shift));
    if (!bhi_map_set_held(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, p);
    /* Both accesses sequentially consistent: if our bits are still there, the
     * owner takes them after our held bit was set. */
    if ((atomic_load(&page->remote) & want) == want)
        return;
    if ((atomic_fetch_or(&page->remote, want) & BHI_REMOTE_QUEUED) == 0)
        bhi_page_signal(page);
}

static void free_owned(bhi_heap_t *heap, bhi_page_t *page, uint32_t index, uintptr_t p)
{
    if (page->state == BHI_PAGE_LARGE) {
        /* The page goes at once, so a second free by another thread at the same
         * moment would find no trace of ours: as between two others, the atomic
         * OR decides which one is the second. Both bits stay set; the map's
         * memory keeps `held` until it is used again. */
        if (!bhi_map_set_held(page->map, index))
            bhi_violation(BHI_DOUBLE_FREE, p);
        page->used = 0;
        bhi_heap_after_free(heap, page);
        return;
    }
    if (!bhi_map_clear_live(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, p);
    bhi_page_push_local(page, index, p);
    page->used--;
    if (page->used == 0 || page->state == BHI_PAGE_FULL)
        bhi_heap_after_free(heap, page);
}

void bhi_free_slow(void *ptr)
{
    if (ptr == NULL)
        return;
    int saved = errno;
    uintptr_t p = (uintptr_t)ptr;
    bhi_block_t block = bhi_block_of(p, BHI_USE_FREE);
    if (block.page != NULL) {
        bhi_heap_t *heap = atomic_load_explicit(&block.page->heap, memory_order_relaxed);
        if (heap != NULL && bhi_heap_owner(heap) == bhi_thread_self())
            free_owned(heap, block.page, block.index, p);
        else
            free_remote(block.page, block.index, p);
    }
    errno = saved;
}
