/* Profile hardened; see hardened.h. Owns E1 to E4. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/heap.h"
#include "harden/quarantine.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/size_class.h"
#include "os/os.h"

#include <string.h>

#define BEAT 32u       /* allocations between heartbeats; of larger blocks fewer than a page has */
#define SWEEP 4u       /* live blocks looked at with each */
#define EXTEND_BITS 3u /* one time in 2^3 fresh blocks are taken though there are free ones */
#define NO_WORD UINT32_MAX

/* What a heap has besides; in control data, kept with the heap structure. */
typedef struct bhi_hard {
    bhi_quarantine_t *quarantine[BHI_CLASSES]; /* owner; NULL: none yet, or none at all */
    uint32_t beat;                             /* owner: allocations until the next heartbeat */
} bhi_hard_t;

/* ------------------------------------------------------- control data of pages */

static uint32_t words_of(uint32_t reserved)
{
    return (reserved + 63) / 64;
}

/* Requested sizes are below that of the block. */
static unsigned width_of(size_t block_size)
{
    if (block_size == 0)
        return 8;
    return block_size <= UINT8_MAX + 1 ? 1 : block_size <= UINT16_MAX + 1 ? 2 : 4;
}

size_t bhi_hard_bytes(uint32_t reserved, size_t block_size)
{
    return words_of(reserved) * sizeof(uint64_t) + (size_t)reserved * width_of(block_size);
}

static _Atomic(uint64_t) *ready_of(const bhi_page_t *page)
{
    return (_Atomic(uint64_t) *)(page->map + words_of(page->reserved));
}

static void *sizes_of(const bhi_page_t *page)
{
    return (void *)(ready_of(page) + words_of(page->reserved));
}

size_t bhi_hard_requested(const bhi_page_t *page, uint32_t index)
{
    const void *sizes = sizes_of(page);
    switch (width_of(page->block_size)) {
    case 1: return ((const uint8_t *)sizes)[index];
    case 2: return ((const uint16_t *)sizes)[index];
    case 4: return ((const uint32_t *)sizes)[index];
    default: return *(const uint64_t *)sizes;
    }
}

static void set_requested(const bhi_page_t *page, uint32_t index, size_t size)
{
    void *sizes = sizes_of(page);
    switch (width_of(page->block_size)) {
    case 1: ((uint8_t *)sizes)[index] = (uint8_t)size; break;
    case 2: ((uint16_t *)sizes)[index] = (uint16_t)size; break;
    case 4: ((uint32_t *)sizes)[index] = (uint32_t)size; break;
    default: *(uint64_t *)sizes = size; break;
    }
}

static uintptr_t address_of(const bhi_page_t *page, uint32_t index)
{
    return page->start + (uintptr_t)index * page->block_size;
}

/* ------------------------------------------------------------------ the ends */

static void write_end(const bhi_page_t *page, uint32_t index, size_t size)
{
    size_t bytes = bhi_page_bytes(page);
    set_requested(page, index, size);
    if (bytes != size)
        bhi_canary_write(address_of(page, index), size, bytes, page->key, index);
}

/* Offset of the first damaged byte, or BH_CANARY_INTACT. */
static size_t damage(const bhi_page_t *page, uint32_t index)
{
    size_t size = bhi_hard_requested(page, index), bytes = bhi_page_bytes(page);
    return bytes != size ? bhi_canary_check(address_of(page, index), size, bytes, page->key, index) : BH_CANARY_INTACT;
}

void bhi_hard_check_end(const bhi_page_t *page, uint32_t index)
{
    size_t at = damage(page, index);
    if (bh_likely(at == BH_CANARY_INTACT))
        return;
    /* A second free at the same moment finds the end that the first has wiped. */
    atomic_thread_fence(memory_order_acquire);
    if (!bhi_map_is_live(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, address_of(page, index));
    bhi_violation(BHI_OVERFLOW, address_of(page, index) + at);
}

size_t bhi_hard_pad_large(size_t size)
{
    size_t slack = (0 - size) & (BH_OS_PAGE_SIZE - 1);
    return slack != 0 && slack < BH_CANARY_LEAST ? BH_CANARY_LEAST : 0;
}

void bhi_hard_end_large(bhi_page_t *page, size_t size)
{
    write_end(page, 0, size);
}

/* Owner, of a block of its own page that it does not free: another thread may, at
 * this moment. If the first byte of the slack is whole, it was no overflow of the
 * block but an underflow of the next. */
static void check_live(const bhi_page_t *page, uint32_t index)
{
    size_t at = damage(page, index);
    if (bh_likely(at == BH_CANARY_INTACT))
        return;
    atomic_thread_fence(memory_order_acquire);
    if (bhi_map_is_live(page->map, index))
        bhi_violation(at == bhi_hard_requested(page, index) ? BHI_OVERFLOW : BHI_UNDERFLOW, address_of(page, index) + at);
}

/* The block before one that is freed: its own end, or where it is free the bytes that
 * an underflow meets first. */
static void check_neighbour(const bhi_page_t *page, uint32_t index)
{
    if (bhi_map_is_live(page->map, index)) {
        check_live(page, index);
        return;
    }
    uint64_t last;
    uintptr_t end = address_of(page, index + 1);
    if (!BH_HARDEN_WIPE || !bhi_map_is_free(page->map, index))
        return;
    memcpy(&last, (const void *)(end - sizeof last), sizeof last); /* NOLINT: block memory is addressed by number */
    if (bh_unlikely(last != 0))
        bhi_violation(BHI_UNDERFLOW, end);
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

/* Blocks of a map word that may be handed out. */
static uint64_t open_in_word(const bhi_page_t *page, uint32_t w)
{
    uint64_t live = atomic_load_explicit(&page->map[w].live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&page->map[w].held, memory_order_relaxed);
    if (bh_unlikely((held & ~live) != 0)) /* a double free that raced */
        bhi_page_not_free(page, w * 64 + bhi_bit_first(held & ~live));
    uint32_t left = bhi_page_capacity(page) - w * 64;
    return ~live & (left < 64 ? bhi_bit_range(0, left) : ~(uint64_t)0);
}

/* Uniform below n, at most 64. */
static uint32_t below(bhi_random_t *random, uint32_t n)
{
    unsigned bits = n > 1 ? bhi_bit_last(n - 1) + 1 : 0;
    uint32_t r;
    do {
        r = bhi_random_bits(random, bits);
    } while (r >= n);
    return r;
}

/* Another word of the map with blocks to hand out; there is one, or a fresh one. */
static uint32_t next_word(bhi_page_t *page, bhi_random_t *random)
{
    uint32_t capacity = bhi_page_capacity(page), words = words_of(capacity), left = page->reserved - capacity;
    bool extend = left != 0 && (page->used == capacity || bhi_random_bits(random, EXTEND_BITS) == 0);
    if (!extend) {
        if (page->used == capacity)
            return NO_WORD;
        uint32_t w = bhi_random_below(random, words);
        for (uint32_t i = 0; i < words; i++, w = w + 1 == words ? 0 : w + 1) {
            if (open_in_word(page, w) != 0)
                return w;
        }
        return NO_WORD;
    }
    uint32_t more = left < 64 ? left : 64;
    if (page->memory != BHI_MEMORY_ZERO)
        memset((void *)address_of(page, capacity), 0, (size_t)more * page->block_size); /* NOLINT */
    atomic_store_explicit(&page->capacity, capacity + more, memory_order_relaxed);
    return words;
}

/* A random free block of one word of the map, the same word until it has no more. */
static bool pick(bhi_page_t *page, bhi_random_t *random, uint32_t *index)
{
    uint32_t w = page->local_free;
    uint64_t open = w < words_of(bhi_page_capacity(page)) ? open_in_word(page, w) : 0;
    if (open == 0) {
        w = next_word(page, random);
        if (w == NO_WORD)
            return false;
        page->local_free = w;
        open = open_in_word(page, w);
    }
    *index = w * 64 + bhi_bit_nth(open, below(random, bhi_bit_count(open)));
    return true;
}

/* Looks at a few live blocks of a page, from a random place on in a random word. */
static void sweep(const bhi_page_t *page, bhi_random_t *random)
{
    uint32_t words = words_of(bhi_page_capacity(page)), w = bhi_random_below(random, words);
    uint64_t live = atomic_load_explicit(&page->map[w].live, memory_order_relaxed) &
                    ~atomic_load_explicit(&page->map[w].held, memory_order_relaxed);
    uint32_t from = (uint32_t)bhi_random_bits(random, 6);
    uint64_t behind = live & bhi_bit_range(from, 64 - from);
    if (behind != 0)
        live = behind;
    for (unsigned i = 0; live != 0 && i < SWEEP; i++, live &= live - 1)
        check_live(page, w * 64 + bhi_bit_first(live));
}

static void *hand_out(bhi_page_t *page, uint32_t index, size_t size)
{
    uintptr_t block = address_of(page, index);
    size_t at = bhi_wipe_check(block, page->block_size);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_violation(BHI_WRITE_AFTER_FREE, block + at);
    write_end(page, index, size);
    if (bh_unlikely(!bhi_map_set_live(page->map, index)))
        bhi_page_not_free(page, index);
    page->used++;
    return (void *)block; /* NOLINT: this is where a number becomes a pointer */
}

void *bhi_hard_at_hand(bhi_heap_t *heap, unsigned c, size_t size)
{
    bhi_page_t *page = bhi_class_size(c) <= BH_SMALL_MAX ? heap->queues[c].first : NULL; /* larger ones count more, below */
    uint32_t index;
    if (heap->hard == NULL || heap->hard->beat == 0 || page == NULL || !pick(page, &heap->random, &index))
        return NULL;
    heap->hard->beat--;
    return hand_out(page, index, size);
}

void *bhi_hard_alloc(bhi_heap_t *heap, unsigned c, size_t size)
{
    bhi_hard_t *hard = hard_of(heap);
    uint32_t step = bhi_class_size(c) <= BH_SMALL_MAX ? 1 : BEAT / bhi_class_blocks(c) + 1;
    bool beat = hard == NULL || hard->beat < step;
    if (beat)
        bhi_heap_heartbeat(heap);
    if (hard != NULL)
        hard->beat = beat ? BEAT : hard->beat - step;
    bhi_page_t *page = bhi_heap_page(heap, c);
    uint32_t index;
    if (page == NULL || !pick(page, &heap->random, &index))
        return NULL;
    if (beat)
        sweep(page, &heap->random);
    return hand_out(page, index, size);
}

/* ---------------------------------------------------------------------- free */

/* Held to free. `kept`: a page that the caller is at work on and looks after itself. */
static void let_go(bhi_heap_t *heap, uintptr_t block, const bhi_page_t *kept)
{
    const bhi_arena_t *arena = bhi_arena_of(block);
    bhi_page_t *page = bhi_desc_first(bhi_desc_at(arena->descs, block - arena->base));
    uint32_t index;
    if (bh_unlikely(!bhi_page_index(page, block, &index)))
        bhi_violation(BHI_CORRUPT_CONTROL, block);
    size_t at = bhi_wipe_check(block, page->block_size);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_violation(BHI_WRITE_AFTER_FREE, block + at);
    bhi_map_release(page->map, index);
    page->used--;
    if (page != kept && (page->used == 0 || page->state == BHI_PAGE_FULL))
        bhi_heap_after_free(heap, page);
}

static bhi_quarantine_t *quarantine_of(bhi_heap_t *heap, const bhi_page_t *page)
{
    bhi_hard_t *hard = bhi_heap_has_thread(heap) ? hard_of(heap) : NULL;
    if (!BH_HARDEN_QUARANTINE || hard == NULL)
        return NULL;
    bhi_quarantine_t **q = &hard->quarantine[page->size_class];
    size_t bytes = *q != NULL ? 0 : bhi_quarantine_bytes(page->block_size, bhi_process.options.quarantine_bytes);
    if (bh_unlikely(bytes != 0)) {
        bhi_state_lock();
        *q = bhi_pool_take(bytes);
        bhi_state_unlock();
        if (*q != NULL)
            bhi_quarantine_init(*q, page->block_size, bhi_process.options.quarantine_bytes);
    }
    return *q;
}

/* A held and wiped block waits now; which one is let go for it is chance. */
static void park(bhi_heap_t *heap, bhi_page_t *page, uint32_t index, const bhi_page_t *kept)
{
    uintptr_t gone = bhi_quarantine_put(quarantine_of(heap, page), address_of(page, index), &heap->random);
    if (gone != 0)
        let_go(heap, gone, kept);
}

void bhi_hard_free(bhi_heap_t *heap, bhi_page_t *page, uint32_t index)
{
    bhi_hard_check_end(page, index);
    if (index != 0)
        check_neighbour(page, index - 1);
    if (!bhi_map_set_held(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, address_of(page, index));
    bhi_wipe_block(address_of(page, index), bhi_hard_requested(page, index), page->block_size);
    park(heap, page, index, NULL);
}

void bhi_hard_wipe_held(bhi_page_t *page, uint32_t index)
{
    atomic_thread_fence(memory_order_release);
    bhi_wipe_block(address_of(page, index), bhi_hard_requested(page, index), page->block_size);
    atomic_fetch_or(&ready_of(page)[index >> 6], bhi_map_bit(index));
}

void bhi_hard_collect(bhi_page_t *page, uint32_t word)
{
    if (atomic_load(&ready_of(page)[word]) == 0)
        return;
    bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    for (uint64_t taken = atomic_exchange(&ready_of(page)[word], 0); taken != 0; taken &= taken - 1) {
        uint32_t index = word * 64 + bhi_bit_first(taken);
        if (index != 0) /* what the other thread could not do */
            check_neighbour(page, index - 1);
        park(heap, page, index, page);
    }
}

bool bhi_hard_resize(bhi_page_t *page, uint32_t index, size_t size)
{
    size_t had = bhi_hard_requested(page, index), bytes = bhi_page_bytes(page);
    bool single = page->block_size == 0;
    if (!single && size > bytes) /* any number at all: what is added below must not wrap */
        return false;
    size_t wants = size + (single ? bhi_hard_pad_large(page->start + size) : BH_CANARY_LEAST);
    if (wants < bytes / 2 && (single || wants > BH_CLASS_MAX_SIZE || bhi_class_size(bhi_class_of(wants)) != bytes))
        return false;
    bhi_hard_check_end(page, index);
    if (wants > bytes && (!single || !bhi_page_grow(page, wants)))
        return false;
    size_t shown = bhi_min(size, bytes); /* what lies behind is zero */
    if (shown > had)
        memset((void *)(address_of(page, index) + had), 0, shown - had); /* NOLINT */
    write_end(page, index, size);
    return true;
}

/* -------------------------------------------------------------------- looking */

/* As check_live, of a single block. Who frees it from another thread makes it
 * inaccessible under the lock, after it has set held: what is live now can be read. */
static void check_single(const bhi_page_t *page)
{
    bhi_state_lock();
    size_t at = bhi_map_is_live(page->map, 0) ? damage(page, 0) : BH_CANARY_INTACT;
    bhi_state_unlock();
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_violation(BHI_OVERFLOW, page->start + at);
}

/* Free blocks of a page are still zero, all live ones still end as they should. */
static void verify_page(const bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page);
    if (page->block_size == 0) {
        check_single(page);
        return;
    }
    for (uint32_t i = 0; i < capacity; i++) {
        if (bhi_map_is_live(page->map, i)) {
            check_live(page, i);
        } else if (bhi_map_is_free(page->map, i)) {
            size_t at = bhi_wipe_check(address_of(page, i), page->block_size);
            if (bh_unlikely(at != BH_WIPE_CLEAN))
                bhi_violation(BHI_WRITE_AFTER_FREE, address_of(page, i) + at);
        }
    }
}

void bhi_hard_check_empty(const bhi_page_t *page)
{
    verify_page(page);
}

void bhi_hard_forget(const bhi_page_t *page)
{
    verify_page(page);
    for (uint32_t i = 0; i < bhi_page_capacity(page); i++) {
        if (bhi_map_is_live(page->map, i))
            bhi_wipe_block(address_of(page, i), bhi_hard_requested(page, i), page->block_size);
    }
}

void bhi_hard_figures(const bhi_page_t *page, size_t *count, size_t *bytes)
{
    *count = *bytes = 0;
    for (uint32_t w = 0; w < words_of(page->reserved); w++) {
        uint64_t live = atomic_load_explicit(&page->map[w].live, memory_order_relaxed) &
                        ~atomic_load_explicit(&page->map[w].held, memory_order_relaxed);
        *count += bhi_bit_count(live);
        for (; live != 0; live &= live - 1)
            *bytes += bhi_hard_requested(page, w * 64 + bhi_bit_first(live));
    }
}

static void verify_quarantine(const bhi_quarantine_t *q)
{
    for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
        uintptr_t block = bhi_quarantine_at(q, i);
        if (block == 0)
            continue;
        const bhi_arena_t *arena = bhi_arena_of(block);
        const bhi_page_t *page = bhi_desc_first(bhi_desc_at(arena->descs, block - arena->base));
        size_t at = bhi_wipe_check(block, page->block_size);
        if (bh_unlikely(at != BH_WIPE_CLEAN))
            bhi_violation(BHI_WRITE_AFTER_FREE, block + at);
    }
}

bool bhi_hard_verify(bhi_heap_t *heap, uint64_t deadline)
{
    bhi_heap_drain(heap, SIZE_MAX); /* what others freed is then in the quarantines */
    for (unsigned c = 0; c < BHI_CLASSES && heap->hard != NULL; c++)
        verify_quarantine(heap->hard->quarantine[c]);
    for (unsigned c = 0; c <= BHI_QUEUES; c++) {
        const bhi_queue_t *q = c < BHI_QUEUES ? &heap->queues[c] : &heap->full;
        for (const bhi_page_t *page = q->first; page != NULL; page = page->next) {
            if (bhi_os_now_ms() > deadline)
                return false;
            if (bhi_page_has_ends(page))
                verify_page(page);
        }
    }
    return true;
}

void bhi_hard_let_all_go(bhi_heap_t *heap)
{
    for (unsigned c = 0; c < BHI_CLASSES && heap->hard != NULL; c++) {
        bhi_quarantine_t *q = heap->hard->quarantine[c];
        for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
            uintptr_t block = bhi_quarantine_take_at(q, i);
            if (block != 0)
                let_go(heap, block, NULL);
        }
    }
}
