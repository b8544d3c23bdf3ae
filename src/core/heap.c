/* Heaps: which page serves the next block. Owns H1..H3 of meta/types.h. Whose heaps
 * are: owner.c. */
#include "core/heap.h"

#include "core/hardened.h"
#include "core/page.h"
#include "core/sampled.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "meta/size_class.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

#define DRAIN_EVERY 8           /* heartbeats between pages taken from the pending stack; before new memory it is looked at too */
#define MANY 12                 /* pages of a class, from which on sparse ones serve in turn */
#define ADOPT_MOST 4            /* pages taken from ended threads before a new one is made */
#define TICK 64                 /* heartbeats between looks at the clock */
#define RETIRE_TICKS 4          /* ticks between looks at retired pages */
#define RETIRE_LITTLE (8 * BH_OS_PAGE_SIZE) /* bytes that its blocks took in an empty page that waits long */
#define RETIRE_LITTLE_MANY (64 * BH_OS_PAGE_SIZE) /* the same of a page of several slots */
#define RETIRE_LONG 25          /* looks */
#define RETIRE_SHORT 2
#define WAIT_SLOTS 8            /* of a class, of empty pages that wait behind the first */

static const bhi_page_t page_empty = {.state = BHI_PAGE_FREE};

#define EMPTY ((bhi_page_t *)(uintptr_t)&page_empty)

const bhi_heap_t bhi_heap_empty = {
    .direct = {[0 ... BH_DIRECT_ENTRIES - 1] = (bhi_page_t *)&page_empty},
};

/* ------------------------------------------------------------------- queues */

/* Keeps H2 after the first page of class c changed. */
static void direct_update(bhi_heap_t *heap, unsigned c)
{
    size_t size = bhi_class_size(c);
    if (size > BH_SMALL_MAX || c == BHI_CLASS_ZERO || bhi_is_hardened())
        return;
    bhi_page_t *page = heap->queues[c].first != NULL ? heap->queues[c].first : EMPTY;
    size_t first = c == 0 ? 1 : bhi_class_size(c - 1) / 8 + 1; /* 0: see zero.h */
    for (size_t w = first; w <= size / 8; w++)
        heap->direct[w] = page;
}

/* What local_heap of an ACTIVE page is. NULL keeps free's fast path, which only
 * changes the map, from blocks of zero size, and in profile hardened from all. */
static bhi_heap_t *local_of(bhi_heap_t *heap, const bhi_page_t *page)
{
    return page->size_class == BHI_CLASS_ZERO || bhi_is_hardened() ? NULL : heap;
}

static bhi_queue_t *queue_of(bhi_heap_t *heap, const bhi_page_t *page)
{
    return page->state == BHI_PAGE_ACTIVE ? &heap->queues[page->size_class] : &heap->full;
}

static void queue_append(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_queue_t *q = queue_of(heap, page);
    q->length++;
    page->next = NULL;
    page->prev = q->last;
    if (q->last != NULL)
        q->last->next = page;
    else
        q->first = page;
    q->last = page;
    if (page->state == BHI_PAGE_ACTIVE && q->first == page)
        direct_update(heap, page->size_class);
}

static void queue_prepend(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_queue_t *q = &heap->queues[page->size_class];
    q->length++;
    page->prev = NULL;
    page->next = q->first;
    if (q->first != NULL) {
        q->first->prev = page;
        q->first->retire = 0; /* only the first page of a queue waits; the others go when they are empty */
    } else {
        q->last = page;
    }
    q->first = page;
    direct_update(heap, page->size_class);
}

void bhi_heap_unlink(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_queue_t *q = queue_of(heap, page);
    bool first = q->first == page;
    q->length--;
    if (page->prev != NULL)
        page->prev->next = page->next;
    else
        q->first = page->next;
    if (page->next != NULL)
        page->next->prev = page->prev;
    else
        q->last = page->prev;
    page->next = page->prev = NULL;
    if (first && page->state == BHI_PAGE_ACTIVE)
        direct_update(heap, page->size_class);
}

/* A page without blocks to give leaves its queue, so that a search never meets
 * it again. The owner's frees then take the slow path (local_heap), which puts
 * it back; a remote free signals as for any page. */
static void to_full(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_heap_unlink(heap, page);
    atomic_store_explicit(&page->local_heap, NULL, memory_order_relaxed);
    page->state = BHI_PAGE_FULL;
    page->retire = 0;
    queue_append(heap, page);
}

static void to_active(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_heap_unlink(heap, page);
    page->state = BHI_PAGE_ACTIVE;
    atomic_store_explicit(&page->local_heap, local_of(heap, page), memory_order_relaxed);
    queue_append(heap, page);
}

/* ------------------------------------------------------- retire and release */

/* In profile hardened a page that goes is looked through, trapped and faulted in again
 * for the next one; in others what goes of a page with blocks beyond 8 KiB is cleared
 * for the next, a block of up to 128 KiB in one call of malloc, and a page holds so few
 * that one more or less is needed all the time. So a few empty ones wait, right behind
 * the first of their queue. */
static bool waits_behind(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_queue_t *q = &heap->queues[page->size_class];
    size_t slots = page->span_slots;
    for (const bhi_page_t *other = q->first->next; other != NULL && other->retire != 0; other = other->next)
        slots += other->span_slots;
    if ((page->span_slots == 1 && !bhi_is_hardened()) || page->size_class == BHI_CLASS_ZERO || slots > WAIT_SLOTS)
        return false;
    bhi_heap_unlink(heap, page);
    page->prev = q->first;
    page->next = q->first->next;
    if (page->next != NULL)
        page->next->prev = page;
    else
        q->last = page;
    q->first->next = page;
    q->length++;
    return true;
}

static void let_go(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_page_check_nothing_live(page);
    bhi_page_release(heap, page);
}

/* The page that serves a class is worth keeping for a while: a program that frees
 * its last block of a size often asks for one again. */
static void retire(bhi_heap_t *heap, bhi_page_t *page)
{
    if (bhi_heap_has_thread(heap) && (heap->queues[page->size_class].first == page || waits_behind(heap, page)))
        page->retire = BHI_RETIRE_NEW;
    else
        let_go(heap, page);
}

/* For how many looks an empty page is kept. Where a size is asked for once in some
 * thousand allocations, each of them made a page, in a span that others had and whose
 * OS pages they touched: so one that holds little memory waits long. Of large blocks,
 * each would be cleared in the next page, and faulted in: more of them may wait. */
static uint8_t retire_looks(const bhi_page_t *page)
{
    size_t fresh = bhi_bit_count(page->fresh);
    size_t little = page->span_slots > 1 ? RETIRE_LITTLE_MANY : RETIRE_LITTLE;
    return (bhi_page_capacity(page) - fresh) * page->block_size <= little ? RETIRE_LONG : RETIRE_SHORT;
}

static void page_tick(bhi_heap_t *heap, bhi_page_t *page, bool now)
{
    bool waits = bhi_page_live(page) == 0;
    if (page->retire == BHI_RETIRE_NEW || page->listed != page->looked)
        page->retire = retire_looks(page);
    page->looked = page->listed;
    if (waits && !now && --page->retire != 0)
        return;
    page->retire = 0;
    if (waits)
        let_go(heap, page);
}

/* While a page has a list, free does not see that it becomes empty, nor that it was used
 * again: this finds both. Only the first page of a queue has a list. */
static void retire_tick(bhi_heap_t *heap, bool now)
{
    for (unsigned c = 0; c < BHI_QUEUES; c++) {
        bhi_page_t *page = heap->queues[c].first, *next;
        if (page != NULL && page->retire == 0) {
            if (bhi_page_live(page) == 0)
                page->retire = BHI_RETIRE_NEW;
            else
                page = page->next; /* the first serves; others may wait behind it */
        }
        for (; page != NULL && page->retire != 0; page = next) {
            next = page->next;
            page_tick(heap, page, now);
        }
    }
}

void bhi_heap_after_free(bhi_heap_t *heap, bhi_page_t *page)
{
    if (page->retire != 0) { /* an ACTIVE page that waited, or still does */
        if (bhi_page_live(page) == 0)
            page->retire = BHI_RETIRE_NEW;
        return;
    }
    if (page->state == BHI_PAGE_LARGE) {
        if (page->used == 0)
            bhi_page_release(heap, page);
        return;
    }
    if (page->state == BHI_PAGE_FULL && page->used < bhi_page_capacity(page))
        to_active(heap, page);
    if (bhi_page_live(page) == 0)
        retire(heap, page);
}

/* ------------------------------------------------------------ remote frees */

void bhi_heap_drain(bhi_heap_t *heap, size_t most)
{
    for (; most > 0; most--) {
        bhi_page_t *page = heap->pending_mine;
        if (page == NULL) {
            if (atomic_load_explicit(&heap->pending, memory_order_relaxed) == NULL)
                return;
            page = atomic_exchange(&heap->pending, NULL);
            if (page == NULL)
                return;
        }
        heap->pending_mine = atomic_load_explicit(&page->pending_next, memory_order_relaxed);
        if (atomic_load_explicit(&page->heap, memory_order_relaxed) != heap) {
            bhi_page_signal(page); /* moved or released since: on to where it is now */
            continue;
        }
        uint64_t remote = atomic_exchange(&page->remote, 0);
        bhi_page_collect(page, (uint32_t)(remote >> 32));
        bhi_heap_after_free(heap, page);
    }
}

/* ----------------------------------------------------------------- adoption */

/* Moves an ACTIVE page between two heaps that the caller owns. A signal under
 * way to the old heap's stack stops it: that page is left for another time. */
static bool move_page(bhi_heap_t *from, bhi_heap_t *to, bhi_page_t *page)
{
    atomic_store(&page->heap, to);
    if ((atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0) {
        atomic_store(&page->heap, from);
        return false;
    }
    bhi_heap_unlink(from, page);
    from->page_count--;
    bhi_page_enters(to);
    atomic_store_explicit(&page->local_heap, local_of(to, page), memory_order_relaxed);
    page->retire = 0;
    if (BH_HARDEN_MAP)
        bhi_page_drop_list(from, page); /* what those hold is the former owner's: see take_over in refill.c */
    bhi_hard_begin_age(to, page);
    bhi_hard_move_young(from, to, page);
    queue_append(to, page);
    return true;
}

/* Takes a page of class c over from a heap whose thread ended. */
static bool adopt_page(bhi_heap_t *heap, unsigned c)
{
    if (atomic_load_explicit(&bhi_state->orphan_count, memory_order_relaxed) == 0 ||
        atomic_load_explicit(&heap->kind, memory_order_relaxed) != BHI_HEAP_THREAD)
        return false;
    bhi_heap_t *orphan = bhi_heap_borrow_orphan(bhi_heap_owner(heap));
    if (orphan == NULL)
        return false;
    bhi_heap_drain(orphan, SIZE_MAX); /* short: whoever signals an orphan also processes it */
    bhi_page_t *page;
    while ((page = orphan->queues[c].first) != NULL && !bhi_page_has_free(page))
        to_full(orphan, page); /* once at most: only the first may have nothing to give */
    bool moved = page != NULL && move_page(orphan, heap, page);
    bhi_heap_return_orphan(orphan);
    return moved;
}

/* --------------------------------------------------------------- allocation */

/* Makes a page the first of its queue, or the last. */
static void to_front(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_heap_unlink(heap, page);
    queue_prepend(heap, page);
}

static void to_back(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_heap_unlink(heap, page);
    page->retire = 0;
    queue_append(heap, page);
}

/* A page with few free blocks and nothing fresh would hand those out again soon
 * after they were freed. So it waits behind others until enough have gathered in
 * it, or in all of them, or there are many. False: the queue is empty, or only few
 * blocks are free in it. */
static bool choose_page(bhi_heap_t *heap, bhi_queue_t *q)
{
    bhi_page_t *first = q->first;
    uint32_t spare, sum = 0;
    if (first == NULL || !bhi_page_is_sparse(first, &spare))
        return first != NULL;
    if (q->length <= MANY) {
        bhi_page_t *page = first;
        for (; page != NULL && bhi_page_is_sparse(page, &spare); page = page->next)
            sum += spare;
        if (page == NULL && sum < bhi_page_reuse_least(first))
            return false;
        if (page != NULL && page != first->next)
            to_front(heap, page);
    }
    to_back(heap, first);
    return true;
}

bhi_page_t *bhi_heap_page(bhi_heap_t *heap, unsigned c)
{
    bhi_queue_t *q = &heap->queues[c];
    unsigned turns = 0;
    bhi_hard_before_list(heap, c);
    for (unsigned tries = 0;; tries++) {
        /* Every page behind the first got here with a block to give, so this
         * loop runs twice at most before it succeeds or gives up; and once more for each
         * page, up to MANY, whose blocks have not waited long enough. */
        while (choose_page(heap, q)) {
            if (bhi_page_refill(q->first))
                return q->first;
            if (!bhi_page_waits(q->first))
                to_full(heap, q->first);
            else if (turns++ < MANY)
                to_back(heap, q->first);
            else
                break;
        }
        if (tries == 0) /* blocks that other threads freed before new memory */
            bhi_heap_drain(heap, BHI_DRAIN_AT_ONCE);
        else if (tries > ADOPT_MOST || !adopt_page(heap, c))
            break;
    }
    bhi_page_t *page = bhi_page_new(heap, c);
    if (page != NULL)
        queue_prepend(heap, page);
    else
        page = q->first; /* better soon than never */
    return page != NULL && bhi_page_refill(page) ? page : NULL;
}

bhi_page_t *bhi_heap_page_zero(bhi_heap_t *heap, size_t align)
{
    bhi_page_t *page = bhi_page_new_zero(heap, align);
    if (page != NULL)
        queue_append(heap, page);
    return page;
}

void *bhi_heap_large_at(bhi_heap_t *heap, size_t size, size_t align, size_t shift, bool zero)
{
    bool reads_zero = false;
    size_t pad = bhi_is_hardened() ? bhi_hard_pad_large(shift + size) : 0;
    bhi_page_t *page = bhi_page_new_large(heap, size + shift + pad, align, &reads_zero);
    if (page == NULL)
        return NULL;
    /* Nobody has the block's address yet. It stays in the first slot of its
     * span, which is all that lookups rely on. */
    page->start += shift;
    page->single_bytes -= shift;
    if (size == 0)
        bhi_page_close(page);
    queue_append(heap, page);
    void *block = (void *)page->start; /* NOLINT: this is where a number becomes a pointer */
    if (zero && !reads_zero)
        memset(block, 0, page->single_bytes);
    if (bhi_page_has_ends(page))
        bhi_hard_end_large(page, size);
    return block;
}

/* Data of the thread, not of its heap: a thread that has ended borrows another
 * heap for each allocation, also for those of its callback. */
static BH_THREAD_LOCAL bool in_callback;
static BH_THREAD_LOCAL unsigned long long heartbeat;
static BH_THREAD_LOCAL bool purge_waits; /* more was due than one look purges */

static BH_COLD void call_back(uintptr_t fun, bool force)
{
    if (in_callback)
        return;
    int saved = errno; /* the allocation that this is part of may succeed */
    in_callback = true;
    ((bh_deferred_free_fun *)fun)(force, heartbeat,
                                  (void *)atomic_load_explicit(&bhi_settings.deferred_arg, memory_order_relaxed));
    in_callback = false;
    errno = saved;
}

BH_INLINE void beat(bool force)
{
    heartbeat++;
    uintptr_t fun = atomic_load_explicit(&bhi_settings.deferred_fun, memory_order_acquire);
    if (bh_unlikely(fun != 0))
        call_back(fun, force);
}

/* One segment, so that no allocation waits for more. A program that seldom comes here
 * would keep its memory for seconds after many ended at once: while more is due, each
 * heartbeat looks. */
static void purge_due(void)
{
    purge_waits = false;
    uint64_t at = atomic_load_explicit(&bhi_state->purge_next_at, memory_order_relaxed);
    if (at == 0)
        return;
    uint64_t now = bhi_os_now_ms();
    if (now < at)
        return;
    bhi_state_lock();
    bhi_purge(now, false, 1);
    bhi_state_unlock();
    at = atomic_load_explicit(&bhi_state->purge_next_at, memory_order_relaxed);
    purge_waits = at != 0 && at <= now;
}

void bhi_heap_heartbeat(bhi_heap_t *heap)
{
    beat(false);
    if (bh_unlikely(heartbeat % DRAIN_EVERY == 0))
        bhi_heap_drain(heap, 1);
    if (bh_unlikely(heartbeat % TICK == 0)) {
        if (heartbeat % (RETIRE_TICKS * TICK) == 0)
            retire_tick(heap, false);
        purge_due();
    } else if (bh_unlikely(purge_waits)) {
        purge_due();
    }
}

void bhi_heap_collect(bhi_heap_t *heap, bool force)
{
    if (bhi_heap_has_thread(heap) && heap->home == heap)
        beat(force);
    bhi_heap_drain(heap, SIZE_MAX);
    retire_tick(heap, true);
    for (unsigned c = 0; c < BHI_QUEUES; c++) {
        for (bhi_page_t *page = heap->queues[c].first, *next; page != NULL; page = next) {
            next = page->next;
            if (bhi_page_live(page) == 0)
                let_go(heap, page);
        }
    }
    /* Large blocks whose page was kept for a thread that only asked for the
     * size, say: no signal follows such a one. */
    for (bhi_page_t *page = heap->full.first, *next; page != NULL; page = next) {
        next = page->next;
        if (page->state == BHI_PAGE_LARGE && page->used == 0)
            bhi_page_release(heap, page);
    }
}

/* ------------------------------------------------------------------ the end */

static void destroy_list(bhi_heap_t *heap, bhi_queue_t *q)
{
    for (bhi_page_t *page = q->first, *next; page != NULL; page = next) {
        next = page->next;
        bhi_page_collect(page, ~(uint32_t)0); /* a signal that comes later finds nothing */
        bhi_page_drop_list(heap, page);
        page->used = 0;
        if (!bhi_page_release(heap, page))
            bhi_page_forget(page);
    }
}

void bhi_heap_destroy_pages(bhi_heap_t *heap)
{
    bhi_heap_drain(heap, SIZE_MAX);
    atomic_store_explicit(&heap->kind, BHI_HEAP_DELETED, memory_order_relaxed); /* what is taken back late does not wait */
    bhi_sampled_destroy(heap);
    for (unsigned c = 0; c < BHI_QUEUES; c++)
        destroy_list(heap, &heap->queues[c]);
    destroy_list(heap, &heap->full);
}
