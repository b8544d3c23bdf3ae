/* The generic path of allocation. */
#include "core/alloc.h"

#include "base/checked.h"
#include "core/hardened.h"
#include "core/init.h"
#include "core/sampled.h"
#include "core/traced.h"
#include "core/zero.h"
#include "harden/large.h"
#include "meta/segment.h"
#include "meta/size_class.h"
#include "rt/violation.h"

#include <errno.h>
#include <string.h>

/* What is asked for: a block, `shift` bytes behind an address with that alignment. */
typedef struct request {
    size_t size, align, shift;
    bool zero;
} request_t;

#define MOST (PTRDIFF_MAX - 2 * BH_SEGMENT_SIZE) /* bytes: room to round up and for a guard */
_Static_assert(BH_ALLOC_CAP_NONE <= MOST, "every cap leaves that room");

static void *in_class(bhi_heap_t *heap, unsigned c, const request_t *r)
{
    void *guarded = bhi_sampled_due(heap, c) ? bhi_sampled_listed(heap, c, r->size, r->align) : NULL;
    if (guarded != NULL)
        return guarded;
    bhi_page_t *page = bhi_heap_page(heap, c);
    if (page == NULL)
        return NULL;
    bool reads_zero = page->free_zero;
    void *p = bhi_page_pop(page);
    if (bh_unlikely(p == NULL))
        bhi_page_check_head(page);
    else if (r->zero && !reads_zero)
        memset(p, 0, page->block_size);
    return p;
}

/* Profile hardened. */
static void *in_class_hard(bhi_heap_t *heap, unsigned c, const request_t *r)
{
    void *p = bhi_sampled_due(heap, c) ? bhi_sampled_listed(heap, c, r->size, r->align) : NULL;
    if (p != NULL)
        return p;
    bhi_page_t *page = bhi_heap_page(heap, c);
    if (page == NULL)
        return NULL;
    bhi_hard_sweep(page, &heap->random);
    p = bhi_hard_give(page, r->size);
    if (!BH_HARDEN_WIPE && r->zero && p != NULL) /* with it, every block is zero */
        memset(p, 0, r->size);
    return p;
}

static void *try_once(bhi_heap_t *heap, const request_t *r)
{
    if (r->size == 0 && r->align <= BH_SEGMENT_SIZE && r->shift == 0)
        return bhi_zero_alloc(heap, r->align);
    if (r->align <= BH_SLOT_SIZE && r->shift == 0) {
        bool hard = bhi_is_hardened();
        unsigned c = bhi_class_of_aligned(r->size + (hard ? BH_CANARY_LEAST : 0), r->align != 0 ? r->align : 1);
        if (c < BHI_CLASSES)
            return hard ? in_class_hard(heap, c, r) : in_class(heap, c, r);
        /* Only with its canary, which a guarded block has no need of, is it too large. */
        void *p = hard && bhi_is_sampling() && r->size <= BH_GUARDED_MOST ? bhi_sampled_single(heap, BHI_CLASSES - 1, r->size, r->align) : NULL;
        if (p != NULL)
            return p;
    }
    return bhi_heap_large_at(heap, r->size, r->align, r->shift, r->zero);
}

/* After a failure: empty pages that were kept for reuse may be what is missing. */
static void give_back(bhi_heap_t *heap)
{
    bhi_hard_end_ages(heap);
    bhi_heap_collect(heap, true);
    bhi_state_lock();
    bhi_large_empty();
    bhi_purge(0, true, 64);
    bhi_state_unlock();
}

/* With the calling thread's heap for the empty one, and a second try. */
static void *serve(bhi_heap_t *heap, const request_t *r)
{
    bool lent = heap == &bhi_heap_empty;
    if (lent)
        heap = bhi_thread_heap_get();
    void *p = NULL;
    if (heap != NULL) {
        bhi_heap_heartbeat(heap);
        p = try_once(heap, r);
        if (bh_unlikely(p == NULL)) {
            give_back(heap);
            p = try_once(heap, r);
        }
        if (lent)
            bhi_thread_heap_done(heap);
    }
    if (bh_unlikely(p == NULL))
        errno = ENOMEM;
    return p;
}

/* Of a size above the cap, which is 0 until start-up. What no address space has is
 * refused in any case, and only that: the program may have computed it from nonsense
 * and be prepared. */
static BH_COLD bool is_refused(size_t size, size_t align)
{
    if (bhi_process.options.alloc_cap == 0)
        bhi_init();
    size_t cap = bhi_process.options.alloc_cap;
    if (size > cap && size <= MOST && bhi_process.options.alloc_cap_abort != 0)
        bhi_violation(BHI_ALLOCATION_CAP, size);
    if (size <= cap && align <= PTRDIFF_MAX / 4)
        return false;
    errno = ENOMEM;
    return true;
}

void *bhi_alloc_hardened(bhi_heap_t *heap, size_t size, size_t align, bool zero)
{
    bool in_class = align == 0 && size <= BH_CLASS_MAX_SIZE - BH_CANARY_LEAST;
    void *p = in_class && (BH_HARDEN_WIPE || !zero) ? bhi_hard_at_hand(heap, size) : NULL;
    return bh_likely(p != NULL) ? p : serve(heap, &(request_t){size, align, 0, zero});
}

void *bhi_alloc_generic(bhi_heap_t *heap, size_t size, size_t align, bool zero)
{
    if (bh_unlikely(size > bhi_process.options.alloc_cap || align > PTRDIFF_MAX / 4) && is_refused(size, align))
        return NULL;
    if (size == 0) {
        void *p = bhi_zero_at_hand(heap, align);
        if (p != NULL)
            return p;
    } else if (bhi_is_hardened()) {
        return bhi_is_traced() ? bhi_traced_alloc(heap, size, align, zero) : bhi_alloc_hardened(heap, size, align, zero);
    } else if (align == 0 && size <= BH_SMALL_MAX) {
        bhi_page_check_head(heap->direct[(size + 7) >> 3]); /* the fast path may have refused it */
    } else if (align == 0 && !zero && size <= BH_CLASS_MAX_SIZE) {
        /* Blocks of 1 KiB to 128 KiB: the first page of the class usually has one. */
        bhi_page_t *page = heap->queues[bhi_class_of(size)].first;
        void *p = page != NULL ? bhi_page_pop(page) : NULL;
        if (bh_likely(p != NULL))
            return p;
        if (page != NULL)
            bhi_page_check_head(page);
    }
    return serve(heap, &(request_t){size, align, 0, zero});
}

/* The next allocation of a small class, which is due. */
BH_INLINE void *guarded(bhi_heap_t *heap, size_t size)
{
    void *p = bhi_sampled_listed(heap, heap->direct[(size + 7) >> 3]->size_class, size, 0);
    if (p != NULL)
        bhi_page_go_on(heap->direct[(size + 7) >> 3]); /* or the next one came here to do it */
    return p;
}

/* The commonest case first: the class's page has blocks that were freed. */
static BH_NOINLINE void *refill_and_pop(size_t size)
{
    bhi_heap_t *heap = bhi_thread_heap;
    if (bh_likely(size <= BH_SMALL_MAX) && heap != &bhi_heap_empty) {
        bhi_page_check_head(heap->direct[(size + 7) >> 3]); /* the fast path may have refused it */
        bhi_heap_heartbeat(heap);
        /* It may be another one now, and a callback may have refilled it. */
        bhi_page_t *page = heap->direct[(size + 7) >> 3];
        bhi_reuse_t reuse = page->listed != 0 ? BHI_REUSE_DONE : bhi_page_reuse(page);
        if (bh_likely(reuse != BHI_REUSE_NONE)) {
            void *p = bh_likely(reuse == BHI_REUSE_DONE) ? bhi_page_pop(page) : guarded(heap, size);
            if (bh_likely(p != NULL))
                return p;
        }
    }
    return bhi_alloc_generic(heap, size, 0, false);
}

void *bhi_malloc_rest(size_t size)
{
    if (!bhi_is_hardened())
        return refill_and_pop(size);
    return bhi_is_traced() ? bhi_alloc_generic(bhi_thread_heap, size, 0, false) : bhi_hard_malloc(size);
}

void *bhi_alloc_aligned(bhi_heap_t *heap, size_t size, size_t align, bool zero)
{
    /* Blocks up to 8 bytes are aligned to 8, all others to 16. */
    if (align <= 8 || (align <= 16 && size > 8))
        return zero ? bhi_alloc_zero(heap, size) : bhi_alloc(heap, size);
    return bhi_alloc_generic(heap, size, align, zero);
}

void *bhi_alloc_at(bhi_heap_t *heap, size_t size, size_t align, size_t offset, bool zero)
{
    size_t shift = (0 - offset) & (align - 1);
    if (shift == 0)
        return bhi_alloc_aligned(heap, size, align, zero);
    if (align > BH_SLOT_SIZE) {
        errno = ENOMEM;
        return NULL;
    }
    if (size > bhi_process.options.alloc_cap && is_refused(size, align))
        return NULL;
    void *p = serve(heap, &(request_t){size, align, shift, zero});
    if (bhi_is_traced() && p != NULL)
        bhi_traced_born(p, size, align, zero);
    return p;
}
