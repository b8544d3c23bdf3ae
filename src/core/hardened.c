/* Profile hardened: malloc of blocks in pages; see hardened.h. Owns, with
 * hardened_free.c, E1 to E5. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/alloc.h"
#include "core/heap.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"

#include <string.h>

#define BEAT 32u       /* blocks chosen, from which on the next choice comes with a heartbeat */
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

bhi_hard_t *bhi_hard_of(bhi_heap_t *heap)
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

/* A block that was one of the page's next. */
static BH_NOINLINE void *give(bhi_page_t *page, uint32_t index, size_t size)
{
    bhi_hard_page_t *hard = page->hard;
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    if (bh_unlikely(bhi_hard_size(hard, bytes, index) == 0 && page->memory == BHI_MEMORY_ZERO)) {
        check_fresh(page, index);
    } else {
        size_t at = bhi_wipe_check(block, bytes);
        if (bh_unlikely(at != BH_WIPE_CLEAN))
            bhi_hard_written(page, index, at);
    }
    if (bh_unlikely(!bhi_map_set_live(page->map, index)))
        bhi_page_not_free(page, index);
    bhi_hard_set_size(hard, bytes, index, size);
    bhi_canary_write_new(block, size, bytes, page->key, index);
    page->used++;
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

/* The last of the page's next blocks, of which there is one. */
BH_INLINE void *hand_out(bhi_page_t *page, bhi_hard_page_t *hard, size_t size)
{
    return give(page, hard->next[--hard->count], size);
}

void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size)
{
    bhi_page_t *page = heap->queues[bhi_class_of(size + BH_CANARY_LEAST)].first;
    if (bh_unlikely(page == NULL))
        return NULL;
    bhi_hard_page_t *hard = page->hard;
    return bh_likely(hard->count > hard->least) ? hand_out(page, hard, size) : NULL;
}

static BH_NOINLINE void *malloc_any(size_t size)
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

/* The commonest case first, without a call and so with few registers to save: a small
 * block that was in use before, and nothing wrong with it. */
void *bhi_hard_malloc(size_t size)
{
    bhi_heap_t *heap = bhi_thread_heap;
    size_t c = (size + BH_CANARY_LEAST + 15) >> 4, bytes = c << 4; /* small classes are as many times 16 */
    if (bh_unlikely(size - 1 >= BH_CANARY_SMALL - BH_CANARY_LEAST) || bh_unlikely(heap->queues[c].first == NULL))
        return malloc_any(size);
    bhi_page_t *page = heap->queues[c].first;
    bhi_hard_page_t *hard = page->hard;
    if (bh_unlikely(hard->count <= hard->least))
        return malloc_any(size);
    if (bhi_process.sampling) {
        if (bh_unlikely(heap->sample[c] <= 1))
            return malloc_any(size);
        heap->sample[c]--;
    }
    uint32_t index = hard->next[--hard->count];
    uintptr_t block = page->start + index * bytes;
    if (bh_unlikely(hard->sizes[index] == 0) || bh_unlikely(!bhi_wipe_is_clean(block, bytes)) || bh_unlikely(!bhi_map_set_live(page->map, index)))
        return give(page, index, size);
    hard->sizes[index] = (uint8_t)size;
    page->used++;
    bhi_canary_write_short(block, size, bytes, page->key, index);
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
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
    bhi_hard_of(heap);
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
        for (bhi_page_t *page = heap->queues[c].first; page != NULL; page = page->next) {
            bhi_hard_page_t *hard = page->hard;
            while (hard->count > 0) {
                uint32_t index = hard->next[--hard->count];
                bhi_hard_word(hard, index / 64)->open |= bhi_map_bit(index);
            }
        }
    }
}
