/* Profile hardened: malloc of blocks in pages; see hardened.h. Owns, with
 * hardened_free.c, E1 to E4. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/alloc.h"
#include "core/heap.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "core/traced.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"

#include <string.h>

_Static_assert((BH_SLOT_SIZE - BH_OS_PAGE_SIZE) / (2 * BH_CANARY_LEAST) <= UINT16_MAX, "an index has 16 bits");

bool bhi_hard_has_short_ways(void)
{
    return bhi_is_hardened() && !bhi_is_traced() && (!BH_CANARY_AES || (bhi_process.has_aes && bhi_process.has_avx2));
}

size_t bhi_hard_bytes_before(uint32_t reserved, size_t block_size)
{
    if (block_size == 0)
        return 0;
    return bhi_align_up((size_t)reserved * bhi_hard_width(block_size) + sizeof(uint64_t), BH_CACHE_LINE) + BH_LIST_MOST * sizeof(bhi_index_t);
}

size_t bhi_hard_bytes(uint32_t reserved, size_t block_size)
{
    return block_size == 0 ? BHI_HARD_SINGLE_BYTES : bhi_hard_words(reserved) * sizeof(bhi_hard_ready_t);
}

/* -------------------------------------------------------------- handing out */

/* A block that was never handed out, in memory of the kernel's: an underflow of the next
 * one may have reached it, or a pointer to a block that a page had here before. Nobody may
 * have touched its OS pages, and one that is read first costs two page faults: so an
 * exchange of zeros comes first where the program writes too, which is at both ends. */
static void touch(uintptr_t at)
{
    uint64_t zero = 0;
    atomic_compare_exchange_strong((_Atomic(uint64_t) *)at, &zero, 0); /* NOLINT: block memory is addressed by number */
}

static BH_NOINLINE size_t look_at_fresh(uintptr_t block, size_t bytes)
{
    uintptr_t last = block + bytes - sizeof(uint64_t);
    touch(last);
    if ((block ^ last) >= BH_OS_PAGE_SIZE)
        touch(block);
    return bhi_wipe_check(block, bytes);
}

BH_NOINLINE void *bhi_hard_give(bhi_page_t *page, size_t size)
{
    uint32_t n = page->listed - 1, index = bhi_list_top(page);
    size_t bytes = page->block_size;
    if (bh_unlikely(!bhi_page_leads(page, index)))
        bhi_violation(BHI_CORRUPT_LIST, page->start);
    uintptr_t block = page->start + page->top_place;
    if (bh_unlikely(!bhi_map_is_free_marked(page->map, index)))
        bhi_page_not_free(page, index);
    bool fresh = bh_unlikely(bhi_hard_size(page, bytes, index) == 0 && page->memory == BHI_MEMORY_ZERO);
    size_t at = fresh ? look_at_fresh(block, bytes) : bhi_wipe_check(block, bytes);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_hard_written(page, index, at);
    bhi_map_put(page->map, index, BHI_MAP_LIVE);
    bhi_page_step(page, n);
    bhi_hard_set_size(page, bytes, index, size);
    bhi_canary_write_new(block, size, bytes, *bhi_hard_key(page), index);
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size)
{
    bhi_page_t *page = heap->queues[bhi_class_of(size + BH_CANARY_LEAST)].first;
    return bh_likely(page != NULL) && bh_likely(page->listed != 0) ? bhi_hard_give(page, size) : NULL;
}

BH_NOINLINE void *bhi_hard_malloc(size_t size)
{
    if (bh_likely(size - 1 < BH_CLASS_MAX_SIZE - BH_CANARY_LEAST)) {
        void *p = bhi_hard_at_hand(bhi_thread_heap, size);
        if (bh_likely(p != NULL))
            return p;
    }
    return bhi_alloc_generic(bhi_thread_heap, size, 0, false);
}

#if BH_CANARY_AES
#define MIDDLE ((size_t)1024) /* classes up to here have slack of 8 to 71 bytes */

/* The same as malloc_soon of classes above BH_CANARY_SMALL. */
BH_WIDE static BH_NOINLINE void *malloc_middle(size_t size)
{
    bhi_page_t *page = bhi_thread_heap->queues[bhi_class_of(size + BH_CANARY_LEAST)].first;
    uint64_t n;
    if (bh_unlikely(page == NULL) || bh_unlikely(__builtin_sub_overflow((uint64_t)page->listed, 1, &n)))
        return bhi_hard_malloc(size);
    uint64_t index = bhi_list_top(page);
    size_t bytes = page->block_size;
    uintptr_t block = page->start + page->top_place;
    uint16_t *requested = (uint16_t *)(void *)bhi_hard_sizes(page) - 1 - index;
    if (bh_unlikely(!bhi_page_leads(page, index)) || bh_unlikely(*requested == 0) || bh_unlikely(!bhi_wipe_is_clean_middle(block, bytes)) ||
        bh_unlikely(!bhi_map_set_live_marked(page->map, index)))
        return bhi_hard_malloc(size);
    bhi_page_step(page, n);
    *requested = (uint16_t)size;
    if (BH_HARDEN_CANARIES)
        bhi_canary_write_wide(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index));
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}
#endif

static void *malloc_larger(size_t size)
{
#if BH_CANARY_AES
    if (!BH_SANITIZED && size - 1 < MIDDLE - BH_CANARY_LEAST)
        return malloc_middle(size);
#endif
    return bhi_hard_malloc(size);
}

/* The commonest case first, without a call and so with few registers to save: a small
 * block that was in use before, and nothing wrong with it. Nothing has happened where it
 * turns out to be another. */
BH_WIDE static BH_NOINLINE void *malloc_soon(size_t size)
{
    size_t c = (size + BH_CANARY_LEAST + 15) >> 4, bytes = c << 4; /* small classes are as many times 16 */
    if (bh_unlikely(size - 1 >= BH_CANARY_SMALL - BH_CANARY_LEAST))
        return malloc_larger(size);
    bhi_page_t *page = bhi_thread_heap->queues[c].first;
    uint64_t n;
    if (bh_unlikely(page == NULL) || bh_unlikely(__builtin_sub_overflow((uint64_t)page->listed, 1, &n)))
        return bhi_hard_malloc(size);
    uint64_t index = bhi_list_top(page);
    uintptr_t block = page->start + page->top_place;
    uint8_t *requested = bhi_hard_sizes(page) - 1 - index;
    if (bh_unlikely(!bhi_page_leads(page, index)) || bh_unlikely(*requested == 0) || bh_unlikely(!bhi_wipe_is_clean_soon(block, bytes)) ||
        bh_unlikely(!bhi_map_set_live_marked(page->map, index)))
        return bhi_hard_malloc(size);
    bhi_page_step(page, n);
    *requested = (uint8_t)size;
    if (BH_HARDEN_CANARIES)
        bhi_canary_write_short(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index));
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

void *bhi_malloc_generic(size_t size)
{
    return bhi_process.short_ways ? malloc_soon(size) : bhi_malloc_rest(size);
}

void bhi_hard_move_young(const bhi_heap_t *from, const bhi_heap_t *to, const bhi_page_t *page)
{
    if (!bhi_is_hardened() || page->size_class >= BHI_CLASSES)
        return;
    static const uint8_t none[2] = {BHI_MAP_LIVE, BHI_MAP_LIVE};
    for (uint32_t w = 0; w < bhi_hard_words(bhi_page_capacity(page)); w++) {
        uint64_t old = bhi_hard_old(from, page, w);
        for (uint64_t free = bhi_map_old(page->map, w, none); free != 0; free &= free - 1) {
            bool is_old = (old & free & (0 - free)) != 0;
            bhi_map_set_mark(page->map, w * 64 + bhi_bit_first(free), is_old ? 0 : to->age[page->size_class].mark);
        }
    }
}

void bhi_hard_end_ages(bhi_heap_t *heap)
{
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        if (heap->age[c].mark != 0) {
            bhi_age_turn(&heap->age[c]);
            bhi_age_turn(&heap->age[c]);
        }
    }
}
