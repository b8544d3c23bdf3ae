/* Profile hardened: malloc of blocks in pages; see hardened.h. Owns, with
 * hardened_free.c, E1 to E5. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/alloc.h"
#include "core/heap.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "core/traced.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"

#include <string.h>

#define BEAT 32u       /* blocks chosen, from which on the next choice comes with a heartbeat */
#define EXTEND_BITS 3u /* one time in 2^3 fresh blocks are taken though there are open ones */
#define GRANT 192u     /* blocks of a class without a heartbeat, at most; fewer where a page has fewer */
#define NEXT_BYTES ((size_t)64 * 1024) /* of blocks that come next; none waits there that is larger than an eighth of it */

_Static_assert((BH_SLOT_SIZE - BH_OS_PAGE_SIZE) / (2 * BH_CANARY_LEAST) <= UINT16_MAX, "an index has 16 bits");
_Static_assert(BHI_HARD_AMONG + 64 <= BHI_HARD_NEXT, "what a choice takes finds place");

bool bhi_hard_has_short_ways(void)
{
    return bhi_is_hardened() && !bhi_is_traced() && (!BH_CANARY_AES || (bhi_process.has_aes && bhi_process.has_avx2));
}

size_t bhi_hard_bytes_before(uint32_t reserved, size_t block_size)
{
    if (block_size == 0)
        return 0;
    return bhi_align_up((size_t)reserved * bhi_hard_width(block_size) + sizeof(uint64_t), BH_CACHE_LINE);
}

size_t bhi_hard_bytes(uint32_t reserved, size_t block_size)
{
    return block_size == 0 ? BHI_HARD_SINGLE_BYTES : bhi_hard_words(reserved) * sizeof(bhi_hard_word_t);
}

/* ---------------------------------------------------------- what comes next */

/* Of a class that has none yet; nobody writes to it, since it has no place. */
static const bhi_hard_next_t no_next;

bhi_hard_t *bhi_hard_of(bhi_heap_t *heap)
{
    if (bh_unlikely(heap->hard == NULL)) {
        bhi_state_lock();
        bhi_hard_t *hard = bhi_pool_take(sizeof(bhi_hard_t));
        bhi_state_unlock();
        for (unsigned c = 0; c < BHI_CLASSES && hard != NULL; c++)
            hard->next[c] = (bhi_hard_next_t *)(uintptr_t)&no_next;
        heap->hard = hard;
    }
    return heap->hard;
}

static BH_COLD bhi_hard_next_t *next_new(bhi_hard_t *hard, unsigned c)
{
    size_t size = bhi_class_size(c), blocks = bhi_class_blocks(c);
    uint32_t most = size > NEXT_BYTES / 8 ? 1 : (uint32_t)bhi_min(bhi_min(NEXT_BYTES / size, BHI_HARD_NEXT), blocks < BHI_HARD_AMONG ? blocks : BHI_HARD_NEXT);
    bhi_state_lock();
    bhi_hard_next_t *next = bhi_pool_take(sizeof *next + most * sizeof next->entry[0]);
    bhi_state_unlock();
    if (next == NULL)
        return NULL;
    next->most = most;
    next->among = (uint32_t)bhi_min(most / 2, BHI_HARD_AMONG);
    next->grant = (uint32_t)bhi_min(GRANT, blocks);
    return hard->next[c] = next;
}

/* Owner; NULL: no memory. */
static bhi_hard_next_t *next_of(bhi_heap_t *heap, unsigned c)
{
    bhi_hard_t *hard = bhi_hard_of(heap);
    if (hard == NULL)
        return NULL;
    return bh_likely(hard->next[c] != &no_next) ? hard->next[c] : next_new(hard, c);
}

/* Fresh blocks become open: those of the next word of the map. */
static uint32_t extend(bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page), left = page->reserved - capacity, more = left < 64 ? left : 64;
    if (page->memory != BHI_MEMORY_ZERO)
        memset((void *)bhi_page_block(page, capacity), 0, (size_t)more * page->block_size); /* NOLINT: block memory is addressed by number */
    bhi_hard_word(page, capacity / 64)->open = bhi_bit_range(0, more);
    atomic_store_explicit(&page->capacity, capacity + more, memory_order_relaxed);
    return capacity / 64;
}

/* Moves open blocks of a word of the map to the end of `index`. */
static uint32_t take_open(const bhi_page_t *page, uint32_t w, bhi_index_t *index, uint32_t n)
{
    bhi_hard_word_t *word = bhi_hard_word(page, w);
    for (uint64_t set = word->open; set != 0; set &= set - 1)
        index[n++] = (bhi_index_t)(w * 64 + bhi_bit_first(set));
    word->open = 0;
    return n;
}

static bool has_open(const bhi_page_t *page)
{
    return page != NULL && page->used < bhi_page_own_capacity(page);
}

#define MIXED (BHI_HARD_AMONG + 64) /* as many as there are after a choice */

/* Puts the blocks that come first into a random order. */
static void mix(bhi_hard_next_t *next, bhi_random_t *random)
{
    bhi_index_t place[MIXED], chosen[MIXED];
    uintptr_t entry[MIXED];
    uint32_t n = (uint32_t)bhi_min(next->count, MIXED), first = next->count - n;
    for (uint32_t i = 0; i < n; i++) {
        place[i] = (bhi_index_t)i;
        entry[i] = next->entry[first + i];
    }
    bhi_random_choose(random, place, n, n, chosen);
    for (uint32_t i = 0; i < n; i++)
        next->entry[first + i] = entry[chosen[i]];
}

/* Chooses more blocks to come next, of those that are open or fresh in a page that has
 * such, and puts all into a random order. */
static BH_NOINLINE void choose(bhi_hard_next_t *next, bhi_page_t *page, bhi_random_t *random)
{
    bhi_index_t index[BHI_HARD_AMONG + 64], chosen[BHI_HARD_AMONG + 64];
    uint32_t n = 0, capacity = bhi_page_capacity(page), wants = next->among + 1;
    wants -= next->count < wants ? next->count : wants - 1;
    if (capacity < page->reserved && (page->used == capacity || bhi_random_bits(random, EXTEND_BITS) == 0))
        n = take_open(page, extend(page), index, n);
    uint32_t words = bhi_hard_words(bhi_page_capacity(page)), w = bhi_random_below(random, words);
    for (uint32_t i = 0; i < words && n < wants; i++, w = w + 1 == words ? 0 : w + 1)
        n = take_open(page, w, index, n);
    uint32_t some = (uint32_t)bhi_min(n, next->most - next->count);
    bhi_random_choose(random, index, n, some, chosen);
    for (uint32_t i = 0; i < some; i++)
        next->entry[next->count++] = bhi_hard_entry(page, chosen[i]);
    for (uint32_t i = 0; i < n - some; i++)
        bhi_hard_word(page, index[i] / 64)->open |= bhi_map_bit(index[i]);
    page->used += some;
    if (next->count != some)
        mix(next, random);
}

/* -------------------------------------------------------------- handing out */

/* A block that was never handed out, in memory of the kernel's: an underflow of the
 * next block is all that can have reached it. Only the OS page of its end is looked at,
 * which is written to in any case; and an exchange of zeros comes first, since one that
 * nobody has touched and that is read first costs two page faults. */
static BH_NOINLINE void check_fresh(const bhi_page_t *page, uint32_t index)
{
    uintptr_t block = bhi_page_block(page, index), end = block + page->block_size;
    uint64_t zero = 0;
    atomic_compare_exchange_strong((_Atomic(uint64_t) *)(end - 8), &zero, 0); /* NOLINT: block memory is addressed by number */
    uintptr_t from = block + bhi_hard_fresh_end(page, index);
    size_t at = bhi_wipe_check(from, end - from);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_hard_written(page, index, from - block + at);
}

/* A block that was the last one of `next`. */
static BH_NOINLINE void *give(uintptr_t entry, size_t size)
{
    bhi_page_t *page = bhi_hard_entry_page(entry);
    uint32_t index = bhi_hard_entry_index(entry);
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    if (bh_unlikely(index >= bhi_page_own_capacity(page)))
        bhi_violation(BHI_CORRUPT_CONTROL, block);
    if (bh_unlikely(bhi_hard_size(page, bytes, index) == 0 && page->memory == BHI_MEMORY_ZERO)) {
        check_fresh(page, index);
    } else {
        size_t at = bhi_wipe_check(block, bytes);
        if (bh_unlikely(at != BH_WIPE_CLEAN))
            bhi_hard_written(page, index, at);
    }
    if (bh_unlikely(!bhi_map_set_live(page->map, index)))
        bhi_page_not_free(page, index);
    bhi_hard_set_size(page, bytes, index, size);
    bhi_canary_write_new(block, size, bytes, page->key, index);
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

/* There is one. */
BH_INLINE void *hand_out(bhi_hard_next_t *next, size_t size)
{
    return give(next->entry[--next->count], size);
}

void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size)
{
    if (bh_unlikely(heap->hard == NULL))
        return NULL;
    bhi_hard_next_t *next = heap->hard->next[bhi_class_of(size + BH_CANARY_LEAST)];
    return bh_likely(next->count > next->least) ? hand_out(next, size) : NULL;
}

/* With what malloc counts down where nobody is chosen: never to the end. */
static void count_anew(bhi_heap_t *heap, unsigned c)
{
    if (!bhi_process.sampling && heap->sample[c] <= 1)
        heap->sample[c] = UINT32_MAX;
}

BH_NOINLINE void *bhi_hard_malloc(size_t size)
{
    bhi_heap_t *heap = bhi_thread_heap;
    if (bh_likely(size - 1 < BH_CLASS_MAX_SIZE - BH_CANARY_LEAST) && bh_likely(heap->hard != NULL)) {
        unsigned c = bhi_class_of(size + BH_CANARY_LEAST);
        bhi_hard_next_t *next = heap->hard->next[c];
        count_anew(heap, c);
        if (bh_likely(next->count > next->least)) {
            void *p = bhi_process.sampling ? bhi_sampled_one(heap, c, size) : NULL;
            return bh_likely(p == NULL) ? hand_out(next, size) : p;
        }
    }
    return bhi_alloc_generic(heap, size, 0, false);
}

#if BH_CANARY_AES
#define MIDDLE ((size_t)1024) /* classes up to here have slack of 8 to 71 bytes */

/* The same as malloc_soon of classes above BH_CANARY_SMALL. */
BH_WIDE static BH_NOINLINE void *malloc_middle(size_t size)
{
    bhi_heap_t *heap = bhi_thread_heap;
    unsigned c = bhi_class_of(size + BH_CANARY_LEAST);
    if (bh_unlikely(heap->hard == NULL) || bh_unlikely(heap->sample[c] <= 1))
        return bhi_hard_malloc(size);
    bhi_hard_next_t *next = heap->hard->next[c];
    if (bh_unlikely(next->count <= next->least))
        return bhi_hard_malloc(size);
    heap->sample[c]--;
    uintptr_t entry = next->entry[--next->count];
    bhi_page_t *page = bhi_hard_entry_page(entry);
    uint32_t index = bhi_hard_entry_index(entry);
    size_t bytes = page->block_size;
    uintptr_t block = page->start + index * bytes;
    uint16_t *requested = (uint16_t *)(void *)bhi_hard_sizes(page) - 1 - index;
    if (bh_unlikely(index >= bhi_page_own_capacity(page)) || bh_unlikely(*requested == 0) || bh_unlikely(!bhi_wipe_is_clean_middle(block, bytes)) ||
        bh_unlikely(!bhi_map_set_live(page->map, index)))
        return give(entry, size);
    *requested = (uint16_t)size;
    if (BH_HARDEN_CANARIES)
        bhi_canary_write_wide(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index));
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}
#endif

static void *malloc_larger(size_t size)
{
#if BH_CANARY_AES
    if (!BH_SANITIZED && size - 1 < MIDDLE - BH_CANARY_LEAST)
        return malloc_middle(size);
#endif
    return bhi_hard_malloc(size);
}

/* The commonest case first, without a call and so with few registers to save: a small
 * block that was in use before, and nothing wrong with it. */
BH_WIDE static BH_NOINLINE void *malloc_soon(size_t size)
{
    bhi_heap_t *heap = bhi_thread_heap;
    size_t c = (size + BH_CANARY_LEAST + 15) >> 4, bytes = c << 4; /* small classes are as many times 16 */
    if (bh_unlikely(size - 1 >= BH_CANARY_SMALL - BH_CANARY_LEAST))
        return malloc_larger(size);
    if (bh_unlikely(heap->hard == NULL) || bh_unlikely(heap->sample[c] <= 1))
        return bhi_hard_malloc(size);
    bhi_hard_next_t *next = heap->hard->next[c];
    if (bh_unlikely(next->count <= next->least))
        return bhi_hard_malloc(size);
    heap->sample[c]--; /* of those that are to be guarded: never one where nobody is chosen */
    uintptr_t entry = next->entry[--next->count];
    bhi_page_t *page = bhi_hard_entry_page(entry);
    uint32_t index = bhi_hard_entry_index(entry);
    uintptr_t block = page->start + index * bytes;
    uint8_t *requested = bhi_hard_sizes(page) - 1 - index;
    if (bh_unlikely(index >= bhi_page_own_capacity(page)) || bh_unlikely(*requested == 0) || bh_unlikely(!bhi_wipe_is_clean_soon(block, bytes)) ||
        bh_unlikely(!bhi_map_set_live(page->map, index)))
        return give(entry, size);
    *requested = (uint8_t)size;
    if (BH_HARDEN_CANARIES)
        bhi_canary_write_short(block, size, bytes, bhi_canary_soon(size, *bhi_hard_key(page), index));
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

void *bhi_malloc_generic(size_t size)
{
    return bhi_process.short_ways ? malloc_soon(size) : bhi_malloc_rest(size);
}

/* Whether a heartbeat is due: never later than after as many blocks of a class as a
 * page of it has, and seldom more often. */
static bool beats(const bhi_hard_t *hard, const bhi_hard_next_t *next)
{
    return next->least == BHI_HARD_BEAT || hard->chosen >= BEAT || next->granted + 64 > next->grant;
}

/* Pages behind the first of a queue have blocks to give. */
static bool any_open(const bhi_heap_t *heap, unsigned c)
{
    const bhi_page_t *first = heap->queues[c].first;
    bool ended = first != NULL && first->used == first->reserved;
    return has_open(ended ? first->next : first);
}

/* More blocks come next, if they are few; with a heartbeat before this, `beat`, all of
 * them are granted anew. False: there is none. */
static bool look_for_more(bhi_heap_t *heap, unsigned c, bhi_hard_next_t *next, bool beat)
{
    uint32_t had = next->count;
    next->least = next->among; /* it may have been set for the heartbeat */
    if (had <= next->least) {
        bhi_page_t *page = had == 0 || any_open(heap, c) ? bhi_heap_page(heap, c) : NULL;
        if (page != NULL)
            choose(next, page, &heap->random);
        if (!any_open(heap, c))
            next->least = 0;
    }
    uint32_t more = next->count - had;
    next->granted = beat ? next->count : next->granted + more;
    heap->hard->chosen = beat ? more : heap->hard->chosen + more;
    return next->count != 0;
}

void *bhi_hard_alloc(bhi_heap_t *heap, unsigned c, size_t size)
{
    bhi_hard_next_t *next = next_of(heap, c);
    if (next == NULL)
        return NULL;
    bool beat = beats(heap->hard, next);
    if (beat)
        bhi_heap_heartbeat(heap); /* may call back, and that allocate */
    if (next->count <= next->least) {
        if (!look_for_more(heap, c, next, beat))
            return NULL;
        if (beat)
            bhi_hard_sweep(bhi_hard_entry_page(next->entry[next->count - 1]), &heap->random);
    }
    return hand_out(next, size);
}

void bhi_hard_after_fork(bhi_heap_t *heap)
{
    for (unsigned c = 0; c < BHI_CLASSES && heap->hard != NULL; c++) {
        bhi_hard_next_t *next = heap->hard->next[c];
        for (uint32_t n = next->count; n > 1; n--) {
            uint32_t i = bhi_random_below(&heap->random, n);
            uintptr_t entry = next->entry[i];
            next->entry[i] = next->entry[n - 1];
            next->entry[n - 1] = entry;
        }
    }
}
