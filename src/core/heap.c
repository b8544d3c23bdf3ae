/* Heaps: which page serves the next block. Owns H1..H3 of meta/types.h. */
#include "core/heap.h"

#include "base/checked.h"
#include "core/hardened.h"
#include "core/page.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/segment.h"
#include "meta/size_class.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

#define DRAIN_AT_ONCE 32        /* pages; bounds the time of one allocation */
#define DRAIN_TICKS 8           /* ticks between looks at the pending stack; before new memory it is looked at too */
#define MANY 12                 /* pages of a class, from which on sparse ones serve in turn */
#define ADOPT_MOST 4            /* pages taken from ended threads before a new one is made */
#define TICK 64                 /* heartbeats between looks at the clock */
#define RETIRE_TICKS 4          /* ticks between looks at retired pages */
#define RETIRE_LITTLE ((size_t)32 << 10) /* bytes that its blocks took in an empty page that waits long */
#define RETIRE_LONG 25          /* looks */
#define RETIRE_SHORT 2
#define WAIT_SLOTS 8            /* of a class, of empty pages that wait behind the first; profile hardened */

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
 * for the next one, so a few empty ones wait, right behind the first of their queue. */
static bool waits_behind(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_queue_t *q = &heap->queues[page->size_class];
    size_t slots = page->span_slots;
    for (const bhi_page_t *other = q->first->next; other != NULL && other->retire != 0; other = other->next)
        slots += other->span_slots;
    if (!bhi_is_hardened() || page->size_class == BHI_CLASS_ZERO || slots > WAIT_SLOTS)
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

/* The page that serves a class is worth keeping for a while: a program that frees
 * its last block of a size often asks for one again. */
static void retire(bhi_heap_t *heap, bhi_page_t *page)
{
    unsigned c = page->size_class;
    bhi_queue_t *q = &heap->queues[c];
    if (bhi_heap_has_thread(heap) && (q->first == page || waits_behind(heap, page))) {
        page->retire = BHI_RETIRE_NEW;
        heap->retired[c >> 6] |= (uint64_t)1 << (c & 63);
        return;
    }
    bhi_page_release(heap, page);
}

/* For how many looks an empty page is kept. Where a size is asked for once in some
 * thousand allocations, each of them made a page, in a span that others had and whose
 * OS pages they touched: so one that holds little memory waits long. */
static uint8_t retire_looks(const bhi_page_t *page)
{
    size_t fresh = bhi_is_hardened() ? 0 : bhi_bit_count(page->fresh);
    return (bhi_page_capacity(page) - fresh) * page->block_size <= RETIRE_LITTLE ? RETIRE_LONG : RETIRE_SHORT;
}

/* False if the page does not wait any more. */
static bool page_tick(bhi_heap_t *heap, bhi_page_t *page, bool now)
{
    bool waits = page->used == 0;
    if (page->retire == BHI_RETIRE_NEW)
        page->retire = retire_looks(page);
    if (waits && !now && --page->retire != 0)
        return true;
    page->retire = 0;
    if (waits)
        bhi_page_release(heap, page);
    return false;
}

static void retire_tick(bhi_heap_t *heap, bool now)
{
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t set = heap->retired[i]; set != 0; set &= set - 1) {
            bhi_page_t *page = heap->queues[i * 64 + (unsigned)__builtin_ctzll(set)].first, *next;
            bool more = false;
            if (page != NULL && page->retire == 0)
                page = page->next; /* the first serves; others may wait behind it */
            for (; page != NULL && page->retire != 0; page = next) {
                next = page->next;
                more |= page_tick(heap, page, now);
            }
            if (!more)
                heap->retired[i] &= ~(set & -set);
        }
    }
}

void bhi_heap_after_free(bhi_heap_t *heap, bhi_page_t *page)
{
    if (page->retire != 0) { /* an ACTIVE page that waited, or still does */
        if (page->used == 0)
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
    if (page->used == 0)
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

/* ---------------------------------------------------- unused, orphaned heaps */

static void list_remove(bhi_heap_t **first, bhi_heap_t **last, bhi_heap_t *heap)
{
    if (heap->list_prev != NULL)
        heap->list_prev->list_next = heap->list_next;
    else
        *first = heap->list_next;
    if (heap->list_next != NULL)
        heap->list_next->list_prev = heap->list_prev;
    else
        *last = heap->list_prev;
    heap->in_list = false;
}

static void list_append(bhi_heap_t **first, bhi_heap_t **last, bhi_heap_t *heap)
{
    heap->list_next = NULL;
    heap->list_prev = *last;
    if (*last != NULL)
        (*last)->list_next = heap;
    else
        *first = heap;
    *last = heap;
    heap->in_list = true;
}

static void orphans_remove(bhi_heap_t *heap)
{
    list_remove(&bhi_state->orphans, &bhi_state->orphans_last, heap);
    atomic_fetch_sub_explicit(&bhi_state->orphan_count, 1, memory_order_relaxed);
}

static void orphans_append(bhi_heap_t *heap)
{
    list_append(&bhi_state->orphans, &bhi_state->orphans_last, heap);
    atomic_fetch_add_explicit(&bhi_state->orphan_count, 1, memory_order_relaxed);
}

/* Owner, lock held: an empty heap goes to the unused ones. */
static void recycle(bhi_heap_t *heap)
{
    if (heap->in_list)
        orphans_remove(heap);
    bhi_guarded_detach(heap);
    heap->generation++;
    atomic_store_explicit(&heap->kind, BHI_HEAP_UNUSED, memory_order_relaxed);
    list_append(&bhi_state->heaps_unused, &bhi_state->heaps_unused_last, heap);
}

static bool own(bhi_heap_t *heap, bhi_owner_t self)
{
    bhi_owner_t nobody = BHI_OWNER_NONE;
    return atomic_compare_exchange_strong(&heap->owner, &nobody, self);
}

/* Gives ownership up. A thread that pushed while we owned the heap saw an owner
 * and left the work to us; one that pushes after the store sees none and
 * helps. Both sides are sequentially consistent, so nothing is left behind. */
static void disown(bhi_heap_t *heap)
{
    atomic_store(&heap->owner, BHI_OWNER_NONE);
    if (atomic_load(&heap->pending) != NULL)
        bhi_heap_help(heap);
}

/* Owner, of a heap that nobody allocates from: nor can anybody else see that it is
 * empty. */
static void recycle_if_ended(bhi_heap_t *heap)
{
    uint8_t kind = atomic_load_explicit(&heap->kind, memory_order_relaxed);
    bool ended = kind == BHI_HEAP_ORPHAN || kind == BHI_HEAP_DELETED;
    if (!ended || heap->page_count != 0)
        return;
    bhi_state_lock();
    recycle(heap);
    bhi_state_unlock();
}

void bhi_heap_help(bhi_heap_t *heap)
{
    bhi_owner_t self = bhi_thread_self();
    do {
        if (!own(heap, self))
            return; /* whoever owns it now looks at the stack before or after letting go */
        bhi_heap_drain(heap, SIZE_MAX);
        recycle_if_ended(heap);
        atomic_store(&heap->owner, BHI_OWNER_NONE);
    } while (atomic_load(&heap->pending) != NULL);
}

/* Lock held. Where the default heap of a thread stands, or would stand. */
static bhi_heap_t **thread_chain(bhi_owner_t self)
{
    uint64_t mixed = (uint64_t)(self >> 6) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth, multiplicative hashing */
    return &bhi_state->thread_heaps[(mixed >> 32) % BHI_THREAD_CHAINS];
}

static bhi_heap_t **find_in_chain(bhi_heap_t **at, const bhi_heap_t *heap)
{
    while (*at != NULL && *at != heap)
        at = &(*at)->thread_next;
    return at;
}

void bhi_heap_end(bhi_heap_t *heap, bhi_heap_kind_t kind)
{
    bhi_heap_drain(heap, SIZE_MAX);
    atomic_store_explicit(&heap->kind, kind, memory_order_relaxed); /* from here on nothing retires or waits */
    bhi_hard_let_all_go(heap);
    bhi_heap_collect(heap, false);
    bhi_state_lock();
    bhi_heap_t **at = find_in_chain(thread_chain(bhi_heap_owner(heap)), heap);
    if (*at != NULL)
        *at = heap->thread_next;
    if (heap->page_count == 0)
        recycle(heap);
    else if (kind == BHI_HEAP_ORPHAN)
        orphans_append(heap);
    else
        heap->generation++;
    bhi_state_unlock();
    disown(heap);
}

/* The blocks of a list that was made before a fork would come in the same order in
 * parent and child; those of a list that another owner made hold what that one left.
 * So the new process or owner makes its own from the map. Pages behind the first of
 * their queue have none. */
static void forget_lists(bhi_heap_t *heap)
{
    for (unsigned c = 0; BH_HARDEN_MAP && c < BHI_CLASSES; c++) {
        bhi_page_t *page = heap->queues[c].first;
        if (page != NULL && page->listed != 0)
            bhi_page_drop_list(heap, page);
    }
}

/* ------------------------------------------------------------- taking heaps */

static bhi_heap_t *new_struct(void)
{
    uint32_t id = bhi_state->heap_count;
    uint32_t chunk = id / BHI_HEAP_DIR_CHUNK;
    if (chunk >= BHI_HEAP_DIR)
        return NULL;
    if (bhi_state->heap_dir[chunk] == NULL) {
        bhi_state->heap_dir[chunk] = bhi_pool_take(BHI_HEAP_DIR_CHUNK * sizeof(bhi_heap_t *));
        if (bhi_state->heap_dir[chunk] == NULL)
            return NULL;
    }
    bhi_heap_t *heap = bhi_pool_take(sizeof(bhi_heap_t));
    if (heap == NULL)
        return NULL;
    heap->id = id;
    for (size_t w = 0; w < BH_DIRECT_ENTRIES; w++)
        heap->direct[w] = EMPTY;
    bhi_random_init(&heap->random);
    bhi_state->heap_dir[chunk][id % BHI_HEAP_DIR_CHUNK] = heap;
    bhi_state->heap_count = id + 1;
    return heap;
}

#define TAKE_TRIES 8 /* a heap in a list may be owned by a helper for a moment */

static bhi_heap_t *own_from(bhi_heap_t *first, bhi_owner_t self)
{
    for (int i = 0; first != NULL && i < TAKE_TRIES; i++, first = first->list_next) {
        if (own(first, self))
            return first;
    }
    return NULL;
}

static bhi_heap_t *take(bhi_heap_kind_t kind, bhi_heap_t *home, bhi_owner_t self)
{
    bhi_heap_t *heap = kind == BHI_HEAP_THREAD ? own_from(bhi_state->orphans, self) : NULL;
    if (heap != NULL) {
        orphans_remove(heap);
        heap->generation++; /* another owner */
        forget_lists(heap);
    } else {
        heap = own_from(bhi_state->heaps_unused, self);
        if (heap != NULL)
            list_remove(&bhi_state->heaps_unused, &bhi_state->heaps_unused_last, heap);
        else
            heap = new_struct();
    }
    if (heap != NULL) {
        atomic_store(&heap->owner, self);
        atomic_store_explicit(&heap->kind, kind, memory_order_relaxed);
        heap->home = home != NULL ? home : heap;
        heap->user_heaps = heap->user_next = heap->user_prev = NULL;
        heap->hazard = NULL;
    }
    return heap;
}

bhi_heap_t *bhi_heap_take(bhi_heap_kind_t kind, bhi_heap_t *home, bhi_owner_t self)
{
    bhi_state_lock();
    bhi_heap_t *heap = take(kind, home, self);
    bhi_state_unlock();
    return heap;
}

bhi_heap_t *bhi_heap_take_for_thread(bhi_owner_t self)
{
    bhi_state_lock();
    bhi_heap_t **chain = thread_chain(self), *heap = *chain;
    while (heap != NULL && bhi_heap_owner(heap) != self)
        heap = heap->thread_next;
    if (heap == NULL) {
        heap = take(BHI_HEAP_THREAD, NULL, self);
        if (heap != NULL) {
            heap->thread_next = *chain;
            *chain = heap;
        }
    }
    bhi_state_unlock();
    return heap;
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
        bhi_page_drop_list(from, page); /* what those hold is the former owner's: see take_over in page.c */
    queue_append(to, page);
    return true;
}

/* Takes a page of class c over from a heap whose thread ended. */
static bool adopt_page(bhi_heap_t *heap, unsigned c)
{
    if (atomic_load_explicit(&bhi_state->orphan_count, memory_order_relaxed) == 0 ||
        atomic_load_explicit(&heap->kind, memory_order_relaxed) != BHI_HEAP_THREAD)
        return false;
    bhi_state_lock();
    bhi_heap_t *orphan = own_from(bhi_state->orphans, bhi_heap_owner(heap));
    if (orphan != NULL) { /* to the back, so that the next search looks at another */
        orphans_remove(orphan);
        orphans_append(orphan);
    }
    bhi_state_unlock();
    if (orphan == NULL)
        return false;
    bhi_heap_drain(orphan, SIZE_MAX); /* short: whoever signals an orphan also processes it */
    bhi_page_t *page;
    while ((page = orphan->queues[c].first) != NULL && !bhi_page_refill(page))
        to_full(orphan, page); /* once at most: only the first may have nothing to give */
    bool moved = page != NULL && move_page(orphan, heap, page);
    if (orphan->page_count == 0) {
        bhi_state_lock();
        recycle(orphan);
        bhi_state_unlock();
    }
    disown(orphan);
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
    for (unsigned tries = 0;; tries++) {
        /* Every page behind the first got here with a block to give, so this
         * loop runs twice at most before it succeeds or gives up. */
        while (choose_page(heap, q)) {
            if (bhi_page_refill(q->first))
                return q->first;
            to_full(heap, q->first);
        }
        if (tries == 0) /* blocks that other threads freed before new memory */
            bhi_heap_drain(heap, DRAIN_AT_ONCE);
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
    bhi_heap_drain(heap, DRAIN_AT_ONCE); /* large blocks that other threads freed are worth not to wait */
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

static void purge_due(void)
{
    uint64_t at = atomic_load_explicit(&bhi_state->purge_next_at, memory_order_relaxed);
    if (at == 0)
        return;
    uint64_t now = bhi_os_now_ms();
    if (now < at)
        return;
    bhi_state_lock();
    bhi_purge(now, false, 1);
    bhi_state_unlock();
}

void bhi_heap_heartbeat(bhi_heap_t *heap)
{
    beat(false);
    if (bh_unlikely(heartbeat % TICK == 0)) {
        if (heartbeat % (DRAIN_TICKS * TICK) == 0)
            bhi_heap_drain(heap, DRAIN_AT_ONCE);
        if (heartbeat % (RETIRE_TICKS * TICK) == 0)
            retire_tick(heap, false);
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
            if (page->used == 0)
                bhi_page_release(heap, page);
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
        page->used = 0;
        if (!bhi_page_release(heap, page))
            bhi_page_forget(page);
    }
}

void bhi_heap_destroy_pages(bhi_heap_t *heap)
{
    bhi_heap_drain(heap, SIZE_MAX);
    atomic_store_explicit(&heap->kind, BHI_HEAP_DELETED, memory_order_relaxed); /* what is taken back late does not wait */
    bhi_hard_let_all_go(heap);
    bhi_sampled_destroy(heap);
    for (unsigned c = 0; c < BHI_QUEUES; c++)
        destroy_list(heap, &heap->queues[c]);
    destroy_list(heap, &heap->full);
}

/* --------------------------------------------------------------------- fork */

/* Announcements under way in the parent never arrive here: forget the stacks
 * (their links may be torn, memory was copied while others wrote it) and look
 * at every page. What another thread of the parent had marked held was dead to
 * the program, so it is taken back, announced or not, wherever something was. */
static void repair(bhi_heap_t *heap)
{
    atomic_store_explicit(&heap->pending, NULL, memory_order_relaxed);
    heap->pending_mine = NULL;
    for (unsigned c = 0; c <= BHI_QUEUES; c++) {
        bhi_queue_t *q = c < BHI_QUEUES ? &heap->queues[c] : &heap->full;
        for (bhi_page_t *page = q->first, *next; page != NULL; page = next) {
            next = page->next;
            /* A large block may have been freed and kept for a thread that is
             * not here, without any announcement. */
            if (atomic_load_explicit(&page->remote, memory_order_relaxed) == 0 && page->block_size != 0)
                continue;
            atomic_store_explicit(&page->remote, 0, memory_order_relaxed);
            bhi_page_collect(page, ~(uint32_t)0);
            bhi_heap_after_free(heap, page);
        }
    }
}

void bhi_heap_after_fork(bhi_owner_t self, bool parent_had_one_thread)
{
    uint32_t n = atomic_load_explicit(&bhi_state->heap_count, memory_order_relaxed);
    for (uint32_t id = 0; id < n; id++) {
        bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        if (atomic_load_explicit(&heap->kind, memory_order_relaxed) == BHI_HEAP_UNUSED) {
            /* Empty since a time under the lock; a helper may have looked in. */
            atomic_store_explicit(&heap->pending, NULL, memory_order_relaxed);
            heap->pending_mine = NULL;
            atomic_store_explicit(&heap->owner, BHI_OWNER_NONE, memory_order_relaxed);
        } else if (bhi_heap_owner(heap) != self) {
            atomic_store_explicit(&heap->owner, BHI_OWNER_GONE, memory_order_relaxed);
            heap->in_list = false;
        } else {
            if (!parent_had_one_thread)
                repair(heap);
            if (bhi_is_hardened())
                bhi_hard_after_fork(heap);
            forget_lists(heap);
        }
    }
    bhi_state->orphans = bhi_state->orphans_last = NULL;
    atomic_store_explicit(&bhi_state->orphan_count, 0, memory_order_relaxed);
    bhi_sampled_after_fork(self);
}

/* ------------------------------------------------------------------ handles */

#define HANDLE_ID_BITS 20
_Static_assert(BHI_HEAP_DIR * BHI_HEAP_DIR_CHUNK < (1u << HANDLE_ID_BITS), "an id fits");

/* Never an address, never NULL: no pointer to control data reaches the user. */
bh_heap_t *bhi_heap_handle(const bhi_heap_t *heap)
{
    return (bh_heap_t *)((uintptr_t)heap->generation << HANDLE_ID_BITS | (heap->id + 1));
}

bhi_heap_t *bhi_heap_of_handle(const bh_heap_t *handle, bhi_owner_t self)
{
    uintptr_t h = (uintptr_t)handle;
    uint32_t id = (uint32_t)(h & ((1u << HANDLE_ID_BITS) - 1)) - 1;
    bhi_heap_t *heap = NULL;
    if (bhi_state != NULL && id < bhi_state->heap_count)
        heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
    if (heap == NULL || heap->generation != (uint32_t)(h >> HANDLE_ID_BITS) ||
        atomic_load_explicit(&heap->kind, memory_order_relaxed) != BHI_HEAP_USER || bhi_heap_owner(heap) != self)
        bhi_violation(BHI_HEAP_MISUSE, h);
    return heap;
}

/* ------------------------------------------------------------------- looking */

size_t bhi_heap_verify(bhi_owner_t self, uint64_t deadline)
{
    size_t left_out = 0;
    uint32_t n = atomic_load_explicit(&bhi_state->heap_count, memory_order_acquire);
    for (uint32_t id = 0; id < n; id++) {
        bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        bool mine = bhi_heap_owner(heap) == self, lent = !mine && own(heap, self);
        if (mine || lent) {
            left_out += bhi_hard_verify(heap, deadline) ? 0 : 1;
            bhi_sampled_verify(heap);
        } else {
            left_out++;
        }
        if (lent) {
            recycle_if_ended(heap);
            disown(heap);
        }
    }
    return left_out;
}
