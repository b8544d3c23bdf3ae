/* Zero-size blocks: unique, aligned addresses in memory that nobody can read or
 * write. A page of them is one slot, closed as a whole, with a block every 16
 * bytes; the allocation map alone says which are live. They are on no list, so
 *
 *   - heap->direct[0] is always the empty page: a request of 0 bytes leaves the
 *     fast path by itself, and class 0 serves 1 to 8 bytes;
 *   - local_heap of such a page is NULL: free's fast path never applies;
 *   - the map is kept also in measuring builds that test it nowhere else. */
#ifndef BH_CORE_ZERO_H
#define BH_CORE_ZERO_H

#include "meta/types.h"

#define BHI_ZERO_STEP ((size_t)16)
/* The last OS page of a slot is a guard, here as everywhere. */
#define BHI_ZERO_BLOCKS ((uint32_t)((BH_SLOT_SIZE - BH_OS_PAGE_SIZE) / BHI_ZERO_STEP))
_Static_assert(BHI_ZERO_BLOCKS % 64 == 0, "every place of the map is a block's");

/* Owner: a block from the pages at hand, without further ado, or NULL. `align`: a
 * power of two, or 0. */
void *bhi_zero_at_hand(bhi_heap_t *heap, size_t align);

/* Owner: the same with a new page if need be; `align` at most BH_SEGMENT_SIZE.
 * NULL: no memory. */
void *bhi_zero_alloc(bhi_heap_t *heap, size_t align);

/* Owner: blocks of one map word are free now; of `used` the caller takes care. */
void bhi_zero_taken(bhi_page_t *page, uint32_t word, uint64_t blocks);

#endif
