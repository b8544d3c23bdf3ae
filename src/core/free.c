/* The long way of free, and lookups of blocks. */
#include "core/free.h"

#include "base/bits.h"
#include "core/hardened.h"
#include "core/hazard.h"
#include "core/sampled.h"
#include "core/traced.h"
#include "harden/large.h"
#include "core/zero.h"
#include "meta/huge.h"

#include <errno.h>

/* Rows by bhi_use_t: not ours, not a block's start, not live. */
static const bhi_violation_t violations[][3] = {
    {BHI_FOREIGN_FREE, BHI_INVALID_FREE, BHI_DOUBLE_FREE},
    {BHI_FOREIGN_REALLOC, BHI_INVALID_REALLOC, BHI_REALLOC_AFTER_FREE},
    {BHI_FOREIGN_QUERY, BHI_INVALID_QUERY, BHI_QUERY_AFTER_FREE},
};
enum { FOREIGN, INVALID, FREED };

static void foreign(uintptr_t p, bhi_use_t use)
{
    if (bhi_process.options.foreign == BHI_FOREIGN_ABORT)
        bhi_violation(violations[use][FOREIGN], p);
    if (bhi_process.options.foreign == BHI_FOREIGN_REPORT)
        bhi_violation_report_only(violations[use][FOREIGN], p);
}

/* No page has its blocks here now. If one had, and p was the start of one of
 * them, the block has been freed; its page is gone since. */
_Noreturn static void no_page(const bhi_arena_t *arena, const bhi_page_t *page, uintptr_t p, bhi_use_t use)
{
    /* Of a huge span only the first slot has a page; it may be on its way out. */
    const bhi_segment_t *huge = bhi_huge_find(arena, (uint32_t)((p - arena->base) >> BH_SEGMENT_SHIFT));
    bool inside_huge = huge != NULL && p - bhi_segment_base(huge) >= BH_SLOT_SIZE;
    size_t step = page->block_size != 0 ? page->block_size : BH_SEGMENT_SIZE; /* of a single block only the start counts */
    bool was_block = !inside_huge && p >= page->start && (p - page->start) % step == 0 && (p - page->start) / step < page->reserved;
    bhi_violation(violations[use][was_block ? FREED : INVALID], p);
}

/* The page whose slot p lies in; it may have ended, or begin just now. */
static bhi_page_t *page_at(uintptr_t p, bhi_use_t use, bhi_arena_t **arena)
{
    *arena = bhi_arena_of(p);
    if (*arena == NULL) {
        foreign(p, use);
        return NULL;
    }
    if (p - (*arena)->base >= atomic_load_explicit(&(*arena)->blocks_open, memory_order_relaxed))
        bhi_violation(violations[use][INVALID], p); /* ours, but never used */
    return bhi_desc_first(bhi_desc_at((*arena)->descs, p - (*arena)->base));
}

/* The index of the live block at p, of a page that cannot end meanwhile. */
static uint32_t live_index(const bhi_arena_t *arena, const bhi_page_t *page, uintptr_t p, bhi_use_t use)
{
    uint32_t index;
    if (!bhi_page_index(page, p, &index)) {
        if (bhi_page_capacity(page) == 0)
            no_page(arena, page, p, use);
        bhi_violation(violations[use][INVALID], p);
    }
    if (!bhi_map_is_live(page->map, index))
        bhi_violation(violations[use][FREED], p);
    return index;
}

/* Keeps another's page from ending, or reports that it has ended. Without the map
 * nothing is checked: a correct program's page does not end before its block has
 * been taken back, after the exchange. */
static bhi_hazard_t *keep(const bhi_arena_t *arena, bhi_page_t *page, uintptr_t p, bhi_use_t use)
{
    if (!BH_HARDEN_MAP)
        return NULL;
    if (use == BHI_USE_FREE && bhi_thread_hazard == NULL && page->block_size == 0)
        bhi_hazard_expect_large();
    bhi_hazard_t *hazard = bhi_hazard_set(page);
    /* Sequentially consistent, as are the hazard's store and the owner's store
     * of NULL before it looks at hazards: NULL here, or it sees ours. */
    if (bh_unlikely(atomic_load(&page->heap) == NULL))
        no_page(arena, page, p, use);
    return hazard;
}

bhi_block_t bhi_block_of(uintptr_t p, bhi_use_t use)
{
    bhi_block_t local;
    if (bhi_is_hardened() && bhi_hard_local(p, &local.page, &local.index, &local.bytes))
        return local;
    bhi_arena_t *arena;
    bhi_page_t *page = page_at(p, use, &arena);
    if (page == NULL)
        return (bhi_block_t){NULL, 0, 0};
    bhi_hazard_t *hazard = bhi_page_is_mine(page) ? NULL : keep(arena, page, p, use);
    bhi_block_t block = {page, live_index(arena, page, p, use), bhi_page_bytes(page)};
    if (bhi_page_has_ends(page))
        block.bytes = bhi_hard_requested(page, block.index);
    if (hazard != NULL)
        bhi_hazard_clear(hazard);
    return block;
}

bool bhi_block_with(uintptr_t p, bhi_use_t use, void (*fun)(const bhi_block_t *block, void *arg), void *arg)
{
    bhi_arena_t *arena;
    bhi_page_t *page = page_at(p, use, &arena);
    if (page == NULL)
        return false;
    bhi_hazard_t *hazard = bhi_page_is_mine(page) ? NULL : keep(arena, page, p, use);
    bhi_block_t block = {page, live_index(arena, page, p, use), bhi_page_bytes(page)};
    if (bhi_page_has_ends(page))
        block.bytes = bhi_hard_requested(page, block.index);
    fun(&block, arg);
    if (hazard != NULL)
        bhi_hazard_clear(hazard);
    return true;
}

/* The page whose span contains p, any address of the arena below blocks_open, or
 * NULL. From the headers, under their lock: descriptors may be in the middle of
 * their set-up, and of a huge span only the first leads to its page. */
static bhi_page_t *page_around(const bhi_arena_t *arena, uintptr_t p)
{
    bhi_page_t *page = NULL;
    bhi_state_lock();
    uint32_t index = (uint32_t)((p - arena->base) >> BH_SEGMENT_SHIFT);
    const bhi_segment_t *s = &arena->headers[index];
    if (s->kind == BHI_SEGMENT_SLOTS) {
        unsigned slot = (unsigned)((p & (BH_SEGMENT_SIZE - 1)) >> BH_SLOT_SHIFT);
        uint64_t heads = s->heads & bhi_bit_range(0, slot + 1);
        if (heads != 0)
            page = bhi_segment_desc(s, bhi_bit_last(heads));
    } else {
        const bhi_segment_t *huge = bhi_huge_find(arena, index);
        if (huge != NULL)
            page = bhi_segment_desc(huge, 0);
    }
    bhi_state_unlock();
    return page;
}

bool bhi_block_find(uintptr_t p, bhi_block_t *out)
{
    const bhi_arena_t *arena = bhi_arena_of(p);
    if (arena == NULL || p - arena->base >= atomic_load_explicit(&arena->blocks_open, memory_order_relaxed))
        return false;
    bhi_page_t *page = page_around(arena, p);
    if (page == NULL || !bhi_page_is_mine(page) || p < page->start)
        return false;
    /* Behind the span that starts before p there may be free slots. */
    size_t into = p - page->start;
    if (into >= (size_t)page->span_slots << BH_SLOT_SHIFT)
        return false;
    uint64_t rest, index = page->block_size != 0 ? bhi_mul_wide(into, page->reciprocal, &rest) : into != 0 && into >= bhi_page_bytes(page);
    if (index >= bhi_page_capacity(page) || !bhi_map_is_live(page->map, (uint32_t)index))
        return false;
    if (bhi_page_bytes(page) == 0 && into != index * page->block_size)
        return false; /* of a zero-size block there is nothing but its address */
    *out = (bhi_block_t){page, (uint32_t)index, bhi_page_bytes(page)};
    return true;
}

/* Another thread's live block: marks it held, announces its group, and if the page
 * was not signalled since the owner last looked, signals it. Ends the hazard. */
BH_INLINE void hold(bhi_hazard_t *hazard, bhi_page_t *page, uint32_t index, uintptr_t p, bool wipe)
{
    uint64_t want = BHI_REMOTE_QUEUED | (uint64_t)1 << (BHI_REMOTE_GROUP_BIT + (index >> page->group_shift));
    if (!bhi_map_set_held(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, p);
    if (wipe)
        bhi_hard_wipe_held(page, index);
    /* Not under the lock of the shared hazard, which is taken after state->lock. */
    if (BH_HARDEN_MAP && bh_unlikely(page->block_size == 0) && bhi_large_wants(page->single_bytes) && hazard != &bhi_state->hazard_shared)
        bhi_large_trap(page);
    /* Before the announcement: whoever kept the page for our hazard looks at it
     * again when the announcement arrives. */
    if (BH_HARDEN_MAP)
        bhi_hazard_clear(hazard);
    /* Both accesses sequentially consistent: if our bits are still there, the
     * owner takes them after our block became held. */
    if ((atomic_load(&page->remote) & want) == want)
        return;
    if ((atomic_fetch_or(&page->remote, want) & BHI_REMOTE_QUEUED) == 0)
        bhi_page_signal(page);
}

/* The common case of all this: a block of another thread's page with many blocks.
 * False, and nothing has happened, if it is not that. `hardened`: the profile. */
BH_INLINE bool free_remote(uintptr_t p, bool hardened)
{
    uintptr_t off = p - bhi_process.block_base;
    if (off >= atomic_load_explicit(bhi_process.block_open, memory_order_relaxed))
        return false;
    bhi_page_t *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, off));
    const bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    bhi_hazard_t *hazard = bhi_thread_hazard;
    if (heap == NULL || bhi_heap_owner(heap) == bhi_thread_self() || (BH_HARDEN_MAP && hazard == NULL))
        return false;
    if (BH_HARDEN_MAP)
        atomic_store(&hazard->page, page);
    uint32_t index;
    if (bh_unlikely(atomic_load(&page->heap) == NULL) || bh_unlikely(!bhi_page_divide(page, p, &index)) ||
        (hardened && (page->size_class == BHI_CLASS_ZERO || !bhi_map_is_live(page->map, index)))) {
        if (BH_HARDEN_MAP)
            bhi_hazard_clear(hazard);
        return false;
    }
    if (hardened)
        bhi_hard_check_held(page, index);
    hold(hazard, page, index, p, hardened);
    return true;
}

static void free_owned(bhi_heap_t *heap, bhi_page_t *page, uint32_t index, uintptr_t p)
{
    if (bhi_page_has_ends(page)) {
        if (page->block_size != 0) {
            bhi_hard_free(heap, page, index);
            return;
        }
        bhi_hard_check_end(page, index);
    }
    if (page->state == BHI_PAGE_LARGE) {
        /* The page goes at once, so a second free by another thread at the same
         * moment would find no trace of ours: as between two others, the atomic
         * exchange decides which one is the second. Both stay set; the map's
         * memory keeps `held` until it is used again. */
        if (!bhi_map_set_held(page->map, index))
            bhi_violation(BHI_DOUBLE_FREE, p);
        page->used = 0;
        bhi_heap_after_free(heap, page);
        return;
    }
    if (!bhi_map_clear_live(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, p);
    if (page->size_class == BHI_CLASS_ZERO)
        bhi_zero_taken(page, index >> 6, bhi_map_bit(index));
    else if (!BH_HARDEN_MAP)
        bhi_list_push_local(page, p - page->start);
    page->used--;
    if (page->used == 0 || page->state == BHI_PAGE_FULL)
        bhi_heap_after_free(heap, page);
}

/* Everything else. */
static BH_NOINLINE void free_any(uintptr_t p)
{
    if (bhi_guarded_contains(p)) {
        bhi_sampled_free(p, BHI_KIND_MALLOC);
        return;
    }
    int saved = errno;
    bhi_arena_t *arena;
    bhi_page_t *page = page_at(p, BHI_USE_FREE, &arena);
    if (page != NULL) {
        if (bhi_page_is_mine(page)) {
            free_owned(atomic_load_explicit(&page->heap, memory_order_relaxed), page, live_index(arena, page, p, BHI_USE_FREE), p);
        } else {
            bhi_hazard_t *hazard = keep(arena, page, p, BHI_USE_FREE);
            uint32_t index = live_index(arena, page, p, BHI_USE_FREE);
            bool ends = bhi_page_has_ends(page);
            if (ends)
                bhi_hard_check_end(page, index);
            hold(hazard, page, index, p, ends && page->block_size != 0);
        }
    }
    errno = saved;
}

void bhi_free_slow_hardened(uintptr_t p)
{
    if (p != 0 && !free_remote(p, true))
        free_any(p);
}

static BH_NOINLINE void free_secure(uintptr_t p)
{
    if (p != 0 && !free_remote(p, false))
        free_any(p);
}

void bhi_free_rest(uintptr_t p)
{
    if (!bhi_is_hardened())
        free_secure(p);
    else if (bhi_is_traced())
        bhi_traced_free(p, BHI_KIND_MALLOC);
    else
        bhi_hard_free_any(p);
}
