/* Heaps: queues of pages, ownership, pending remote frees, adoption. */
#ifndef BH_CORE_HEAP_H
#define BH_CORE_HEAP_H

#include "bulkhead.h"
#include "meta/types.h"

/* The heap of a thread that has none yet: read-only, its only page is empty. */
extern BH_HIDDEN const bhi_heap_t bhi_heap_empty;

/* A heap owned by `self`: with kind THREAD an orphan with all its pages if there
 * is one, else a fresh one. NULL: no memory. */
bhi_heap_t *bhi_heap_take(bhi_heap_kind_t kind, bhi_heap_t *home, bhi_owner_t self);

/* The default heap of the new thread `self`, as bhi_heap_take, but first of all
 * the one that an earlier thread of the same identity left without giving it up
 * (its first allocation came when no destructor would run any more). */
bhi_heap_t *bhi_heap_take_for_thread(bhi_owner_t self);

/* Whether a thread allocates from the heap: it is neither ended nor deleted. */
BH_INLINE bool bhi_heap_has_thread(const bhi_heap_t *heap)
{
    uint8_t kind = atomic_load_explicit(&heap->kind, memory_order_relaxed);
    return kind == BHI_HEAP_THREAD || kind == BHI_HEAP_USER;
}

/* Profile hardened: checks all blocks of the heaps that the thread owns or that
 * nobody does, until `deadline` (bhi_os_now_ms). Returns the heaps that were not, or
 * not wholly, looked at: those of other threads. */
size_t bhi_heap_verify(bhi_owner_t self, uint64_t deadline);

/* A heap whose thread ended, owned by `self` until it is returned; NULL: there is none,
 * or others have them right now. */
bhi_heap_t *bhi_heap_borrow_orphan(bhi_owner_t self);
void bhi_heap_return_orphan(bhi_heap_t *orphan);

/* Owner: gives a heap up for good. kind ORPHAN or DELETED; see meta/types.h. */
void bhi_heap_end(bhi_heap_t *heap, bhi_heap_kind_t kind);

/* Owner: a page of class c whose list is not empty; NULL: no memory. */
bhi_page_t *bhi_heap_page(bhi_heap_t *heap, unsigned c);

/* Owner: a new page of zero-size blocks, as bhi_page_new_zero; NULL: no memory. */
bhi_page_t *bhi_heap_page_zero(bhi_heap_t *heap, size_t align);

/* Owner: a block with a span of its own, `shift` bytes (below BH_SLOT_SIZE) behind
 * an address aligned to `align`, which is at most BH_SLOT_SIZE unless shift is 0.
 * One of zero size cannot be accessed. */
void *bhi_heap_large_at(bhi_heap_t *heap, size_t size, size_t align, size_t shift, bool zero);

/* Pages: bounds the time of one allocation. Each is in the caches of those who freed into
 * it, some 100 ns away. */
#define BHI_DRAIN_AT_ONCE 8
#define BHI_DRAIN_LARGE 32 /* before a large block, as each of them may be one */
/* Owner: processes up to `most` pages with remote frees. */
void bhi_heap_drain(bhi_heap_t *heap, size_t most);

/* Owner: the rare work of the generic path; may call back into the allocator. */
void bhi_heap_heartbeat(bhi_heap_t *heap);

/* Owner: see bh_collect. */
void bhi_heap_collect(bhi_heap_t *heap, bool force);

/* Owner: after blocks of the page were freed (owner's or taken back). */
void bhi_heap_after_free(bhi_heap_t *heap, bhi_page_t *page);

/* Any thread: processes the pending stack of a heap that nobody owns. */
void bhi_heap_help(bhi_heap_t *heap);

/* Owner: all blocks gone, all pages back. */
void bhi_heap_destroy_pages(bhi_heap_t *heap);

/* Takes a page out of whatever list of its heap it is in. */
void bhi_heap_unlink(bhi_heap_t *heap, bhi_page_t *page);

/* In a forked child, no other thread exists: parts with the heaps of the
 * parent's other threads and repairs signals that were under way (none if the
 * parent had no other thread at that moment). */
void bhi_heap_after_fork(bhi_owner_t self, bool parent_had_one_thread);

/* Handles of user heaps. bhi_heap_of_handle ends the process when the handle is
 * not that of a live heap of the thread `self`. */
bh_heap_t *bhi_heap_handle(const bhi_heap_t *heap);
bhi_heap_t *bhi_heap_of_handle(const bh_heap_t *handle, bhi_owner_t self);

BH_INLINE bhi_owner_t bhi_heap_owner(const bhi_heap_t *heap)
{
    return atomic_load_explicit(&heap->owner, memory_order_relaxed);
}

#endif
