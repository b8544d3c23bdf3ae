/* Freeing, and the trust boundary: the one place where a pointer from the
 * caller becomes (page, index), or the process ends. */
#ifndef BH_CORE_FREE_H
#define BH_CORE_FREE_H

#include "core/page.h"
#include "core/thread.h"
#include "meta/arena.h"

typedef enum bhi_use { BHI_USE_FREE, BHI_USE_REALLOC, BHI_USE_QUERY } bhi_use_t;

typedef struct bhi_block {
    bhi_page_t *page; /* NULL: foreign, and the policy says go on */
    uint32_t index;
    size_t bytes; /* usable */
} bhi_block_t;

/* The live, unheld block at p, whatever thread asks. Anything else ends the
 * process with the violation that fits `use`. */
bhi_block_t bhi_block_of(uintptr_t p, bhi_use_t use);

/* The same, with a call for the block: its page cannot end before that returns. It must
 * not allocate, free or lock. False: foreign, and the policy says go on. */
bool bhi_block_with(uintptr_t p, bhi_use_t use, void (*fun)(const bhi_block_t *block, void *arg), void *arg);

/* The same for a p that may be any address and anywhere in a block: false, and
 * nothing else happens, unless that block is live and of a heap that the calling
 * thread owns. Only such pages stand still without more ado. */
bool bhi_block_find(uintptr_t p, bhi_block_t *out);

/* Frees p by the long way: remote, large, full, user heap, and every violation. Before
 * that the short way of profile hardened (hardened_free.c). */
void bhi_free_slow(void *p);
void bhi_free_rest(uintptr_t p);

/* The same in profile hardened for all that is no block of the thread's own pages. */
void bhi_free_slow_hardened(uintptr_t p);

/* Whether the calling thread owns the page: only it can end such a one. */
BH_INLINE bool bhi_page_is_mine(const bhi_page_t *page)
{
    const bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    return heap != NULL && atomic_load_explicit(&heap->owner, memory_order_relaxed) == bhi_thread_self();
}

/* Bytes of the live block p if it is of a page in the calling thread's class queues
 * (and in its first slot), else 0, also for NULL. As the first half of bhi_free:
 * programs such as Redis ask for each block's size. */
BH_INLINE size_t bhi_local_bytes(uintptr_t p)
{
    uintptr_t off = p - bhi_process.block_base;
    bhi_heap_t *heap = bhi_thread_heap;
    if (bh_likely(off < heap->open)) {
        bhi_page_t *page = bhi_desc_at(bhi_process.descs, off);
        uint64_t index;
        if (bh_likely(bhi_page_is_local(page, heap)) && bhi_page_place_divides(page, p & (BH_SLOT_SIZE - 1), &index) &&
            bh_likely(bhi_map_is_live(page->map, index)))
            return page->block_size;
    }
    return 0;
}

/* Frees p if it is a block of the calling thread in a page that malloc takes from. False:
 * it is not, and nothing has happened. */
BH_INLINE bool bhi_free_local(void *p)
{
    uintptr_t off = (uintptr_t)p - bhi_process.block_base;
    bhi_heap_t *heap = bhi_thread_heap;
    if (bh_likely(off < heap->open)) {
        /* Of a span of several slots only the first leads to the page: blocks above
         * 8 KiB mostly go the long way, all others save two instructions. */
        bhi_page_t *page = bhi_desc_at(bhi_process.descs, off);
        if (bh_likely(bhi_page_is_local(page, heap))) {
            uint64_t place = (uintptr_t)p & (BH_SLOT_SIZE - 1), index = 0;
            bool starts = !BH_HARDEN_MAP || bhi_page_place_divides(page, place, &index);
            if (starts && bh_likely(bhi_map_clear_live(page->map, index))) {
                if (!BH_HARDEN_MAP)
                    bhi_list_push_local(page, place);
                if (bh_unlikely(--page->used == 0)) {
                    if (page->retire == 0)
                        bhi_heap_after_free(heap, page);
                    else /* it waits already: a program that goes on with one block of a size */
                        page->retire = BHI_RETIRE_NEW;
                }
                return true;
            }
        }
    }
    return false;
}

BH_INLINE void bhi_free(void *p)
{
    if (!bhi_free_local(p))
        bhi_free_slow(p);
}

#endif
