/* Profile hardened: malloc and free of blocks in pages; see hardened.h. Owns E1 to E5.
 * Must not know when anybody looks at blocks that are not freed: hardened_look.c. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/alloc.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"

#include <string.h>

#define BEAT 32u       /* blocks chosen, from which on the next choice comes with a heartbeat */
#define GRANT 192u     /* blocks of a class without a heartbeat, at most; fewer where a page has fewer */
#define EXTEND_BITS 3u /* one time in 2^3 fresh blocks are taken though there are open ones */

_Static_assert(BHI_HARD_AMONG + 64 <= BHI_HARD_NEXT, "what a choice takes finds place");
_Static_assert((BH_SLOT_SIZE - BH_OS_PAGE_SIZE) / (2 * BH_CANARY_LEAST) <= UINT16_MAX, "an index has 16 bits");

size_t bhi_hard_bytes(uint32_t reserved, size_t block_size)
{
    if (block_size == 0)
        return BHI_HARD_SINGLE_BYTES;
    return bhi_hard_words(reserved) * sizeof(bhi_hard_word_t) + sizeof(bhi_hard_page_t) + (size_t)reserved * bhi_hard_width(block_size);
}

/* --------------------------------------------------------------- allocation */

static bhi_hard_t *hard_of(bhi_heap_t *heap)
{
    if (bh_unlikely(heap->hard == NULL)) {
        bhi_state_lock();
        heap->hard = bhi_pool_take(sizeof(bhi_hard_t));
        bhi_state_unlock();
    }
    return heap->hard;
}

/* Fresh blocks become open: those of the next word of the map. */
static uint32_t extend(bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page), left = page->reserved - capacity, more = left < 64 ? left : 64;
    if (page->memory != BHI_MEMORY_ZERO)
        memset((void *)bhi_page_block(page, capacity), 0, (size_t)more * page->block_size); /* NOLINT: block memory is addressed by number */
    bhi_hard_word(page->hard, capacity / 64)->open = bhi_bit_range(0, more);
    atomic_store_explicit(&page->capacity, capacity + more, memory_order_relaxed);
    return capacity / 64;
}

/* Moves open blocks of a word of the map to the end of `index`. */
static uint32_t take_open(bhi_hard_page_t *hard, uint32_t w, bhi_index_t *index, uint32_t n)
{
    bhi_hard_word_t *word = bhi_hard_word(hard, w);
    for (uint64_t set = word->open; set != 0; set &= set - 1)
        index[n++] = (bhi_index_t)(w * 64 + bhi_bit_first(set));
    word->open = 0;
    return n;
}

/* Whether more are looked for when few come next: there are open ones. */
static uint16_t least_of(const bhi_page_t *page)
{
    return page->used + page->hard->count == bhi_page_capacity(page) ? 0 : BHI_HARD_AMONG;
}

/* Chooses more blocks to come next, of those that are open or fresh, and puts all into
 * a random order. False: there is none. */
static BH_NOINLINE bool choose(bhi_page_t *page, bhi_random_t *random)
{
    bhi_hard_page_t *hard = page->hard;
    bhi_index_t index[BHI_HARD_AMONG + 64], chosen[BHI_HARD_AMONG + 64];
    uint32_t n = hard->count;
    for (uint32_t i = 0; i < n; i++)
        index[i] = hard->next[i];
    uint32_t capacity = bhi_page_capacity(page);
    if (capacity < page->reserved && (page->used + n == capacity ? n == 0 : bhi_random_bits(random, EXTEND_BITS) == 0))
        n = take_open(hard, extend(page), index, n);
    capacity = bhi_page_capacity(page);
    uint32_t words = bhi_hard_words(capacity), w = bhi_random_below(random, words);
    for (uint32_t i = 0; i < words && n <= BHI_HARD_AMONG; i++, w = w + 1 == words ? 0 : w + 1)
        n = take_open(hard, w, index, n);
    bhi_random_choose(random, index, n, n, chosen);
    for (uint32_t i = 0; i < n; i++)
        hard->next[i] = (uint16_t)chosen[i];
    hard->count = (uint16_t)n;
    hard->least = least_of(page);
    return n != 0;
}

/* Uniform below n <= BHI_HARD_AMONG: of drawn bits, or where these name none, anew. */
BH_INLINE uint32_t below(bhi_quarantine_t *q, uint32_t n, bhi_random_t *random)
{
    uint32_t mask = (2u << bhi_bit_last((n - 1) | 1)) - 1, place = bhi_quarantine_bits(q, BHI_HARD_AMONG_BITS) & mask;
    return bh_likely(place < n) ? place : bhi_random_below(random, n);
}

/* A block that leaves the ring of the quarantine comes next, at a random one of the
 * first BHI_HARD_AMONG places, or of all where there are fewer. False: no place is
 * left. Who was there is handed out first. */
BH_INLINE bool insert(bhi_hard_page_t *hard, uint32_t index, bhi_quarantine_t *q, bhi_random_t *random)
{
    uint32_t count = hard->count;
    if (bh_unlikely(count == BHI_HARD_NEXT) || bh_unlikely(q == NULL))
        return false;
    uint32_t at = count;
    if (bh_likely(count >= BHI_HARD_AMONG - 1))
        at -= bhi_quarantine_bits(q, BHI_HARD_AMONG_BITS);
    else
        at -= below(q, count + 1, random);
    hard->next[count] = hard->next[at];
    hard->next[at] = (uint16_t)index;
    hard->count = (uint16_t)(count + 1);
    return true;
}

/* A block that was never handed out, in memory of the kernel's: an underflow of the
 * next block is all that can have reached it. Only the OS page of its end is looked at,
 * which is written to in any case; and an exchange of zeros comes first, since one that
 * nobody has touched and that is read first costs two page faults. */
static BH_NOINLINE void check_fresh(const bhi_page_t *page, uint32_t index)
{
    uintptr_t block = bhi_page_block(page, index), end = block + page->block_size;
    uint64_t zero = 0;
    atomic_compare_exchange_strong((_Atomic(uint64_t) *)(end - 8), &zero, 0); /* NOLINT: block memory is addressed by number */
    uintptr_t from = bhi_max(block, bhi_align_down(end - 8, BH_OS_PAGE_SIZE));
    size_t at = bhi_wipe_check(from, end - from);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_hard_written(page, index, from - block + at);
}

/* The last of the page's next blocks, of which there is one. */
BH_INLINE void *hand_out(bhi_page_t *page, bhi_hard_page_t *hard, size_t size)
{
    uint32_t index = hard->next[--hard->count];
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    if (bh_unlikely(bhi_hard_size(hard, bytes, index) == 0 && page->memory == BHI_MEMORY_ZERO)) {
        check_fresh(page, index);
    } else {
        size_t at = bhi_wipe_check(block, bytes);
        if (bh_unlikely(at != BH_WIPE_CLEAN))
            bhi_hard_written(page, index, at);
    }
    bhi_hard_set_size(hard, bytes, index, size);
    bhi_canary_write(block, size, bytes, page->key, index);
    if (bh_unlikely(!bhi_map_set_live(page->map, index)))
        bhi_page_not_free(page, index);
    page->used++;
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size)
{
    bhi_page_t *page = heap->queues[bhi_class_of(size + BH_CANARY_LEAST)].first;
    if (bh_unlikely(page == NULL))
        return NULL;
    bhi_hard_page_t *hard = page->hard;
    return bh_likely(hard->count > hard->least) ? hand_out(page, hard, size) : NULL;
}

void *bhi_hard_malloc(size_t size)
{
    if (bh_likely(size - 1 < BH_CLASS_MAX_SIZE - BH_CANARY_LEAST)) {
        unsigned c = bhi_class_of(size + BH_CANARY_LEAST);
        bhi_page_t *page = bhi_thread_heap->queues[c].first;
        bhi_hard_page_t *hard = bh_likely(page != NULL) ? page->hard : NULL;
        if (bh_likely(hard != NULL) && bh_likely(hard->count > hard->least)) {
            void *p = bhi_process.sampling ? bhi_sampled_one(bhi_thread_heap, c, size) : NULL;
            return bh_likely(p == NULL) ? hand_out(page, hard, size) : p;
        }
    }
    return bhi_alloc_generic(bhi_thread_heap, size, 0, false);
}

/* Whether a heartbeat is due: never later than after as many blocks of a class as a
 * page of it has, and seldom more often. */
static bool beats(const bhi_heap_t *heap, unsigned c)
{
    const bhi_page_t *page = heap->queues[c].first;
    bool asked_for = page != NULL && page->hard->least == UINT16_MAX;
    return asked_for || heap->hard == NULL || heap->hard->chosen >= BEAT || bhi_class_blocks(c) < BEAT + BHI_HARD_NEXT;
}

/* More blocks come next, if they are few; with a heartbeat before this, `beat`, all of
 * them are granted anew. False: there is none. */
static bool look_for_more(bhi_heap_t *heap, bhi_page_t *page, bool beat)
{
    bhi_hard_page_t *hard = page->hard;
    uint32_t had = hard->count;
    hard->least = least_of(page); /* it may have been set for the heartbeat */
    if (had <= hard->least && !choose(page, &heap->random))
        return false;
    uint32_t more = hard->count - had;
    hard->granted = (uint16_t)(beat ? hard->count : hard->granted + more);
    if (heap->hard != NULL)
        heap->hard->chosen = beat ? more : heap->hard->chosen + more;
    return true;
}

void *bhi_hard_alloc(bhi_heap_t *heap, unsigned c, size_t size)
{
    hard_of(heap);
    bool beat = beats(heap, c);
    if (beat)
        bhi_heap_heartbeat(heap); /* may call back, and that allocate */
    bhi_page_t *page = bhi_heap_page(heap, c);
    if (page == NULL)
        return NULL;
    if (page->hard->count <= page->hard->least) {
        if (!look_for_more(heap, page, beat))
            return NULL;
        if (beat)
            bhi_hard_sweep(page, &heap->random);
    }
    return hand_out(page, page->hard, size);
}

void bhi_hard_after_fork(bhi_heap_t *heap)
{
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        if (heap->hard != NULL && heap->hard->quarantine[c] != NULL)
            bhi_quarantine_after_fork(heap->hard->quarantine[c]);
        for (bhi_page_t *page = heap->queues[c].first; page != NULL; page = page->next) {
            bhi_hard_page_t *hard = page->hard;
            while (hard->count > 0) {
                uint32_t index = hard->next[--hard->count];
                bhi_hard_word(hard, index / 64)->open |= bhi_map_bit(index);
            }
        }
    }
}

/* ---------------------------------------------------------------------- free */

/* The block before one that is freed: its own end, or where it is free the bytes that
 * an underflow meets first. A held one is another thread's to wipe. */
BH_INLINE void check_before(const bhi_page_t *page, const bhi_hard_page_t *hard, uint32_t index, size_t bytes)
{
    const bhi_map_word_t *w = bhi_map_word(page->map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    uintptr_t block = page->start + index * bytes;
    if (bh_unlikely(bhi_bit_has(held, index)))
        return;
    if (bhi_bit_has(live, index)) {
        if (bh_unlikely(bhi_canary_check(block, bhi_hard_size(hard, bytes, index), bytes, page->key, index) != BH_CANARY_INTACT))
            bhi_hard_check_live(page, index);
    } else if (BH_HARDEN_WIPE && bh_unlikely(bhi_slack_load_aligned(block + bytes - 8) != 0) &&
               !bhi_wipe_is_fill(bhi_slack_load_aligned(block + bytes - 8))) {
        bhi_hard_written_before(page, index);
    }
}

/* A block leaves the quarantine: it is looked at, and open. */
static BH_NOINLINE void leave(bhi_page_t *page, uint32_t index)
{
    size_t at = bhi_wipe_check(bhi_page_block(page, index), page->block_size);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_hard_written(page, index, at);
    bhi_hard_word(page->hard, index / 64)->open |= bhi_map_bit(index);
    page->hard->least = BHI_HARD_AMONG;
}

/* A block leaves the ring. If it comes next, it leaves the quarantine as it is handed
 * out, where it is looked at. `kept`: a page that the caller is at work on and looks
 * after itself. */
BH_INLINE void let_go(bhi_heap_t *heap, bhi_quarantine_t *q, uintptr_t entry, const bhi_page_t *kept)
{
    bhi_page_t *page = bhi_hard_entry_page(entry);
    uint32_t index = bhi_hard_entry_index(entry);
    if (bh_unlikely(index >= bhi_page_own_capacity(page)))
        bhi_violation(BHI_CORRUPT_CONTROL, bhi_page_block(page, index));
    if (bh_unlikely(!insert(page->hard, index, q, &heap->random)))
        leave(page, index);
    if (bh_unlikely(--page->used == 0 || page->state == BHI_PAGE_FULL) && page != kept)
        bhi_heap_after_free(heap, page);
}

static BH_NOINLINE bhi_quarantine_t *quarantine_new(bhi_heap_t *heap, const bhi_page_t *page)
{
    bhi_hard_t *hard = bhi_heap_has_thread(heap) ? hard_of(heap) : NULL;
    size_t bytes = bhi_quarantine_bytes(page->block_size, bhi_process.options.quarantine_bytes);
    if (hard == NULL || bytes == 0)
        return NULL;
    bhi_state_lock();
    bhi_quarantine_t *q = bhi_pool_take(bytes);
    bhi_state_unlock();
    if (q != NULL)
        bhi_quarantine_init(q, page->block_size, bhi_process.options.quarantine_bytes);
    hard->quarantine[page->size_class] = q;
    return q;
}

BH_INLINE bhi_quarantine_t *quarantine_of(bhi_heap_t *heap, const bhi_page_t *page, bool has_thread)
{
    if (!BH_HARDEN_QUARANTINE)
        return NULL;
    bhi_quarantine_t *q = NULL;
    if (bh_likely(heap->hard != NULL) && (has_thread || bhi_heap_has_thread(heap)))
        q = heap->hard->quarantine[page->size_class];
    return bh_likely(q != NULL) ? q : quarantine_new(heap, page);
}

/* Random bits for some more blocks of the class, which come next then. As they come
 * back no faster than malloc asks for them, it may never look for others: before they
 * are too many it shall, for the heartbeat. */
static BH_NOINLINE void draw(bhi_heap_t *heap, unsigned c, bhi_quarantine_t *q)
{
    uint32_t each = q->array_bits + BHI_HARD_AMONG_BITS;
    bhi_quarantine_draw(q, each, bhi_class_blocks(c), &heap->random);
    const bhi_page_t *first = heap->queues[c].first;
    if (first == NULL || first->hard->least == UINT16_MAX)
        return;
    uint32_t granted = first->hard->granted + q->drawn_bits / each;
    first->hard->granted = (uint16_t)granted;
    if (granted > first->reserved || granted >= GRANT)
        first->hard->least = UINT16_MAX;
}

/* A block that is not live any more, and wiped, waits now; which one is let go for it
 * is chance. `has_thread`: the heap is known to have one. */
BH_INLINE void park(bhi_heap_t *heap, bhi_page_t *page, uint32_t index, const bhi_page_t *kept, bool has_thread)
{
    bhi_quarantine_t *q = quarantine_of(heap, page, has_thread);
    uintptr_t entry = bhi_hard_entry(page, index);
    if (bh_likely(q != NULL)) {
        if (!bhi_quarantine_has_bits(q, q->array_bits + BHI_HARD_AMONG_BITS))
            draw(heap, page->size_class, q);
        entry = bhi_quarantine_put_drawn(q, entry);
        if (bh_unlikely(entry == 0))
            return;
    }
    let_go(heap, q, entry, kept);
}

/* False, and nothing has happened, if the block is not live. */
BH_INLINE bool free_live(bhi_heap_t *heap, bhi_page_t *page, uint32_t index, bool has_thread)
{
    bhi_map_word_t *w = bhi_map_word(page->map, index);
    uint64_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&w->held, memory_order_relaxed);
    if (bh_unlikely(bhi_bit_has(held, index)) || bh_unlikely(!bhi_bit_clear(&live, index)))
        return false;
    const bhi_hard_page_t *hard = page->hard;
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    size_t at = bhi_canary_check(block, bhi_hard_size(hard, bytes, index), bytes, page->key, index);
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_hard_damaged(page, index, at);
    if (bh_likely(index != 0))
        check_before(page, hard, index - 1, bytes);
    atomic_store_explicit(&w->live, live, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* who finds the end wiped finds that it is not live */
    bhi_wipe_freed(block, bytes);
    park(heap, page, index, NULL, has_thread);
    return true;
}

void bhi_hard_free(bhi_heap_t *heap, bhi_page_t *page, uint32_t index)
{
    if (!free_live(heap, page, index, false))
        bhi_violation(BHI_DOUBLE_FREE, bhi_page_block(page, index));
}

/* The page and index of p if it is the start of a block, live or not, in a page of
 * blocks of the calling thread's default heap. */
BH_INLINE bool find_local(uintptr_t p, bhi_page_t **page, uint64_t *index)
{
    uintptr_t off = p - bhi_process.block_base;
    const bhi_heap_t *heap = bhi_thread_heap;
    if (bh_unlikely(off >= heap->open))
        return false;
    *page = bhi_desc_first(bhi_desc_at(bhi_process.descs, off));
    /* Of a single block the reciprocal is 0, so that no place is a block's. */
    return bh_likely(atomic_load_explicit(&(*page)->heap, memory_order_relaxed) == heap) && bh_likely((*page)->size_class != BHI_CLASS_ZERO) &&
           bhi_page_place_index(*page, p - (*page)->start, index);
}

void bhi_hard_free_any(uintptr_t p)
{
    bhi_page_t *page;
    uint64_t index;
    if (bh_unlikely(!find_local(p, &page, &index)) || bh_unlikely(!free_live(bhi_thread_heap, page, (uint32_t)index, true)))
        bhi_free_slow_hardened(p);
}

bool bhi_hard_local(uintptr_t p, bhi_page_t **page, uint32_t *index, size_t *size)
{
    uint64_t i;
    if (!find_local(p, page, &i) || !bhi_map_is_live((*page)->map, i))
        return false;
    *index = (uint32_t)i;
    *size = bhi_hard_size((*page)->hard, (*page)->block_size, *index);
    return true;
}

void bhi_hard_wipe_held(bhi_page_t *page, uint32_t index)
{
    bhi_hard_page_t *hard = bhi_hard_place(page);
    uintptr_t block = bhi_page_block(page, index);
    atomic_thread_fence(memory_order_release);
    if (BH_SANITIZED && !bhi_process.fill) /* a sweep may run beside: no byte of it counts, but the sanitizer does not know */
        bhi_wipe_block(block, bhi_hard_size(hard, page->block_size, index), page->block_size);
    else
        bhi_wipe_freed(block, page->block_size);
    atomic_fetch_or(&bhi_hard_word(hard, index / 64)->ready, bhi_map_bit(index));
}

void bhi_hard_collect(bhi_page_t *page, uint32_t word)
{
    bhi_hard_word_t *hard = bhi_hard_word(page->hard, word);
    if (atomic_load(&hard->ready) == 0)
        return;
    bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    bhi_map_word_t *w = &page->map[word];
    uint64_t taken = atomic_exchange(&hard->ready, 0), live = atomic_load_explicit(&w->live, memory_order_relaxed);
    if (bh_unlikely((taken & ~live) != 0)) /* the owner has freed it at the same time */
        bhi_page_not_free(page, word * 64 + bhi_bit_first(taken & ~live));
    /* Live goes first: who meets the pair in between sees a free block or a held one. */
    atomic_store_explicit(&w->live, live & ~taken, memory_order_relaxed);
    atomic_fetch_and_explicit(&w->held, ~taken, memory_order_acq_rel);
    for (; taken != 0; taken &= taken - 1) {
        uint32_t index = word * 64 + bhi_bit_first(taken);
        if (index != 0) /* what the other thread could not do */
            check_before(page, page->hard, index - 1, page->block_size);
        park(heap, page, index, page, false);
    }
}

void bhi_hard_let_all_go(bhi_heap_t *heap)
{
    for (unsigned c = 0; c < BHI_CLASSES && heap->hard != NULL; c++) {
        bhi_quarantine_t *q = heap->hard->quarantine[c];
        for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
            uintptr_t entry = bhi_quarantine_take_at(q, i);
            if (entry != 0)
                let_go(heap, NULL, entry, NULL);
        }
    }
}
