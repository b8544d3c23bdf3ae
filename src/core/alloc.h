/* Allocation: the fast path, inline, and what hangs off it. */
#ifndef BH_CORE_ALLOC_H
#define BH_CORE_ALLOC_H

#include "base/constants.h"
#include "core/page.h"
#include "core/thread.h"

/* Everything that the direct table does not serve: start-up, refill, medium,
 * large and aligned blocks. `align` 0: as malloc. NULL with errno ENOMEM. */
void *bhi_alloc_generic(bhi_heap_t *heap, size_t size, size_t align, bool zero);

/* The same in a profile other than secure, as if nothing were traced; size not 0. */
void *bhi_alloc_hardened(bhi_heap_t *heap, size_t size, size_t align, bool zero);

/* The same for the calling thread's default heap, without alignment: the short way of
 * profile hardened (hardened.c), and all else. */
void *bhi_malloc_generic(size_t size);
void *bhi_malloc_rest(size_t size);

/* A block of any size and alignment (a power of two, or 0). */
void *bhi_alloc_aligned(bhi_heap_t *heap, size_t size, size_t align, bool zero);

/* The same where it is p + offset that is aligned, p still being the start of a
 * block. Unless the offset is a multiple of the alignment, such a block takes a
 * span of its own, and the alignment is at most BH_SLOT_SIZE. */
void *bhi_alloc_at(bhi_heap_t *heap, size_t size, size_t align, size_t offset, bool zero);

BH_INLINE void *bhi_alloc(bhi_heap_t *heap, size_t size)
{
    if (bh_likely(size <= BH_SMALL_MAX)) {
        void *p = bhi_page_pop(heap->direct[(size + 7) >> 3]); /* never a NULL page */
        if (bh_likely(p != NULL))
            return p;
    }
    return bhi_alloc_generic(heap, size, 0, false);
}

BH_INLINE void *bhi_alloc_zero(bhi_heap_t *heap, size_t size)
{
    if (bh_likely(size <= BH_SMALL_MAX)) {
        bhi_page_t *page = heap->direct[(size + 7) >> 3];
        bool zero = page->free_zero;
        void *p = bhi_page_pop(page);
        if (bh_likely(p != NULL)) {
            if (!zero)
                __builtin_memset(p, 0, page->block_size);
            return p;
        }
    }
    return bhi_alloc_generic(heap, size, 0, true);
}

/* malloc: bhi_alloc of the thread's default heap, which the generic path looks
 * up again rather than that this one keeps it in a register. */
BH_INLINE void *bhi_malloc(size_t size)
{
    if (bh_likely(size <= BH_SMALL_MAX)) {
        void *p = bhi_page_pop(bhi_thread_heap->direct[(size + 7) >> 3]);
        if (bh_likely(p != NULL))
            return p;
    }
    return bhi_malloc_generic(size);
}

#endif
