/* Whose heaps are: unused ones, those of threads that ended, taking and giving up
 * ownership, fork, handles. */
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/sampled.h"
#include "meta/pool.h"

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
        if (page != NULL && page->listed + page->kept != 0)
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
        heap->direct[w] = bhi_heap_empty.direct[w];
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

bhi_heap_t *bhi_heap_borrow_orphan(bhi_owner_t self)
{
    bhi_state_lock();
    bhi_heap_t *orphan = own_from(bhi_state->orphans, self);
    if (orphan != NULL) { /* to the back, so that the next search looks at another */
        orphans_remove(orphan);
        orphans_append(orphan);
    }
    bhi_state_unlock();
    return orphan;
}

void bhi_heap_return_orphan(bhi_heap_t *orphan)
{
    if (orphan->page_count == 0) {
        bhi_state_lock();
        recycle(orphan);
        bhi_state_unlock();
    }
    disown(orphan);
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
