/* Pages. Owns I1..I7 of meta/types.h for everything but the two fast paths. */
#include "core/page.h"

#include "base/bits.h"
#include "base/checked.h"
#include "core/hazard.h"
#include "core/heap.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/segment.h"
#include "meta/size_class.h"
#include "os/os.h"

#include <string.h>

#define BATCH_AT 4 /* spans in a segment from which on its guards are placed all at once */
#define GROUPS 32u
#define DISTANCE_MOST ((size_t)1 << 20)
#define STORE_BUFFER_TRIES 200 /* times some ten nanoseconds */

/* ------------------------------------------------------------------ set-up */

static size_t map_bytes(uint32_t reserved)
{
    return ((size_t)reserved + 63) / 64 * sizeof(bhi_map_word_t);
}

static unsigned guard_start(size_t bytes_in_span)
{
    return (unsigned)((bytes_in_span >> BH_OS_PAGE_SHIFT) & (BH_SLOT_OS_PAGES - 1));
}

/* Span for `bytes` usable bytes and the guard behind them, of which the last
 * `distance` slots are closed whole. Lock held. */
static bhi_span_t take_span(size_t bytes, unsigned slots, unsigned align_slots, unsigned distance)
{
    bhi_span_t span = bhi_span_take(slots, align_slots);
    if (span.segment == NULL)
        return span;
    unsigned from = guard_start(bytes);
    if (!bhi_guard_fit(span.segment, span.slot, slots - distance, from)) {
        bhi_span_give(span.segment, span.slot, slots, !span.zero);
        span = bhi_span_take_in_new_segment(slots, align_slots);
        if (span.segment == NULL)
            return span;
        if (!bhi_guard_fit(span.segment, span.slot, slots - distance, from)) {
            bhi_span_give(span.segment, span.slot, slots, !span.zero);
            span.segment = NULL;
            return span;
        }
    }
    if (distance > 0)
        bhi_guard_distance(span.segment, span.slot + slots - distance, distance);
    if (slots == 1 && bhi_bit_count(span.segment->heads) == BATCH_AT)
        bhi_guard_batch(span.segment);
    return span;
}

static void set_up(bhi_page_t *page, bhi_heap_t *heap, uintptr_t start, unsigned slots, void *map, bool zero)
{
    page->start = start;
    page->map = map;
    page->key = bhi_random_u64(&heap->random);
    page->free = page->local_free = BHI_PLACE_NONE;
    page->used = 0;
    page->back = 0;
    page->span_slots = slots;
    page->retire = 0;
    page->memory_zero = zero;
    page->free_zero = false;
    page->next = page->prev = NULL;
    bool huge = bhi_page_segment(page, &(unsigned){0})->kind == BHI_SEGMENT_HUGE;
    for (unsigned i = 1; i < slots && !huge; i++)
        page[i].back = (uint16_t)(i << BH_PAGE_DESC_SHIFT);
}

/* Only now may other threads find the page: its blocks reach them through the
 * program, after this. `remote` keeps its value: a late signal for the slot's
 * former page may be under way, and ends up here harmlessly. */
static void publish(bhi_page_t *page, bhi_heap_t *heap, bhi_page_state_t state, bhi_heap_t *local)
{
    page->state = (uint8_t)state;
    atomic_store_explicit(&page->local_heap, local, memory_order_relaxed);
    atomic_store_explicit(&page->heap, heap, memory_order_seq_cst);
    bhi_page_enters(heap);
}

bhi_page_t *bhi_page_new(bhi_heap_t *heap, unsigned c)
{
    unsigned slots = bhi_class_span_slots(c);
    uint32_t reserved = bhi_class_blocks(c);
    size_t size = bhi_class_size(c);
    bhi_state_lock();
    void *map = bhi_pool_take(map_bytes(reserved));
    bhi_span_t span = {NULL, 0, false};
    if (map != NULL) {
        span = take_span(slots * BH_SLOT_SIZE - BH_OS_PAGE_SIZE, slots, 1, 0);
        if (span.segment == NULL)
            bhi_pool_give(map, map_bytes(reserved));
    }
    bhi_state_unlock();
    if (span.segment == NULL)
        return NULL;

    bhi_page_t *page = bhi_segment_desc(span.segment, span.slot);
    set_up(page, heap, bhi_segment_base(span.segment) + ((size_t)span.slot << BH_SLOT_SHIFT), slots, map, span.zero);
    page->block_size = (uint32_t)size;
    page->block_bytes = size;
    page->reciprocal = bhi_class_reciprocal(size);
    page->size_class = (uint8_t)c;
    page->reserved = reserved;
    uint8_t shift = 6;
    while (((reserved - 1) >> shift) >= GROUPS)
        shift++;
    page->group_shift = shift;
    publish(page, heap, BHI_PAGE_ACTIVE, heap);
    return page;
}

/* A span of whole segments; only the block itself is opened, what follows is
 * its guard. Returns the block's address or 0. */
static uintptr_t take_huge(size_t bytes, size_t align, unsigned distance, bhi_page_t **page)
{
    uint64_t closed = BH_OS_PAGE_SIZE + ((uint64_t)distance << BH_SLOT_SHIFT);
    uint64_t segments = (bytes + closed + BH_SEGMENT_SIZE - 1) >> BH_SEGMENT_SHIFT;
    uint64_t align_segments = align > BH_SEGMENT_SIZE ? align >> BH_SEGMENT_SHIFT : 1;
    if (segments > UINT32_MAX / 4 || align_segments > UINT32_MAX / 4)
        return 0;
    bhi_state_lock();
    bhi_segment_t *first = bhi_arena_take_run((uint32_t)segments, (uint32_t)align_segments);
    if (first != NULL) {
        for (uint32_t i = 0; i < (uint32_t)segments; i++) {
            first[i].kind = i == 0 ? BHI_SEGMENT_HUGE : BHI_SEGMENT_HUGE_REST;
            first[i].run = i;
        }
        first->run = (uint32_t)segments;
        bhi_guard_before(first);
    }
    bhi_state_unlock();
    if (first == NULL)
        return 0;
    uintptr_t base = bhi_segment_base(first);
    /* At the mapping limit the exact range may be refused where whole segments,
     * which merge with their neighbours, are not. */
    if (bhi_os_open(base, bytes) != 0 && bhi_os_open(base, (size_t)segments << BH_SEGMENT_SHIFT) != 0) {
        bhi_state_lock();
        bhi_arena_give_run(first, (uint32_t)segments);
        bhi_state_unlock();
        return 0;
    }
    *page = bhi_segment_desc(first, 0);
    return base;
}

/* Closed slots behind a large block, so that the distance to what follows is not
 * known: up to an eighth of its size, at least one and at most 1 MiB. The
 * `secure` profile has none. */
static unsigned random_distance(bhi_heap_t *heap, size_t bytes)
{
    if (bhi_process.options.profile == BHI_PROFILE_SECURE)
        return 0;
    size_t most = bhi_max(bhi_min(bytes / 8, DISTANCE_MOST) >> BH_SLOT_SHIFT, 1);
    return bhi_random_below(&heap->random, (uint32_t)most + 1);
}

bhi_page_t *bhi_page_new_large(bhi_heap_t *heap, size_t size, size_t align, bool *zero)
{
    size_t bytes = bhi_align_up(size > 0 ? size : 1, BH_OS_PAGE_SIZE);
    uint64_t slots = ((uint64_t)bytes + BH_OS_PAGE_SIZE + BH_SLOT_SIZE - 1) >> BH_SLOT_SHIFT;
    unsigned distance = random_distance(heap, bytes);
    bool huge = slots > BH_SEGMENT_SLOTS || align > BH_SEGMENT_SIZE;
    if (!huge) {
        distance = (unsigned)bhi_min(distance, BH_SEGMENT_SLOTS - slots);
        slots += distance;
    }

    bhi_state_lock();
    void *map = bhi_pool_take(sizeof(bhi_map_word_t));
    bhi_span_t span = {NULL, 0, true};
    if (map != NULL && !huge)
        span = take_span(bytes, (unsigned)slots, align > BH_SLOT_SIZE ? (unsigned)(align >> BH_SLOT_SHIFT) : 1, distance);
    bhi_state_unlock();

    bhi_page_t *page = NULL;
    uintptr_t start = 0;
    if (map != NULL && huge) {
        start = take_huge(bytes, align, distance, &page);
        slots = bhi_align_up(bytes + BH_OS_PAGE_SIZE + ((size_t)distance << BH_SLOT_SHIFT), BH_SEGMENT_SIZE) >> BH_SLOT_SHIFT;
    } else if (span.segment != NULL) {
        page = bhi_segment_desc(span.segment, span.slot);
        start = bhi_segment_base(span.segment) + ((size_t)span.slot << BH_SLOT_SHIFT);
    }
    if (page == NULL) {
        if (map != NULL) {
            bhi_state_lock();
            bhi_pool_give(map, sizeof(bhi_map_word_t));
            bhi_state_unlock();
        }
        return NULL;
    }
    set_up(page, heap, start, (unsigned)slots, map, span.zero);
    page->block_size = 0;
    page->block_bytes = bytes;
    page->reciprocal = 0;
    page->size_class = BHI_CLASSES;
    page->reserved = 1;
    page->group_shift = 6;
    page->used = 1;
    bhi_map_set_live(page->map, 0);
    atomic_store_explicit(&page->capacity, 1, memory_order_relaxed);
    publish(page, heap, BHI_PAGE_LARGE, NULL);
    *zero = span.zero;
    return page;
}

bool bhi_page_grow(bhi_page_t *page, size_t size)
{
    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (page->state != BHI_PAGE_LARGE || segment->kind != BHI_SEGMENT_SLOTS || size > BH_SEGMENT_SIZE)
        return false;
    size_t before = page->start & (BH_SLOT_SIZE - 1); /* see bhi_heap_large_at */
    size_t bytes = bhi_align_up(before + size, BH_OS_PAGE_SIZE);
    unsigned had = page->span_slots, slots = (unsigned)((bytes + BH_OS_PAGE_SIZE + BH_SLOT_SIZE - 1) >> BH_SLOT_SHIFT);
    bhi_state_lock();
    bool grown = slots <= had || bhi_span_grow(segment, slot, had, slots);
    if (grown && !bhi_guard_move(segment, slot, slots, guard_start(bytes))) {
        if (slots > had)
            bhi_span_give(segment, slot + had, slots - had, true);
        grown = false;
    }
    bhi_state_unlock();
    if (!grown)
        return false;
    for (unsigned i = had; i < slots; i++)
        page[i].back = (uint16_t)(i << BH_PAGE_DESC_SHIFT);
    page->span_slots = (uint32_t)bhi_max(had, slots); /* a random distance shrinks */
    page->block_bytes = bytes - before;
    return true;
}

/* ------------------------------------------------------------------- lists */

/* Puts the next blocks on the empty `free` list: one OS page's worth, so that
 * a program that needs few touches few. Bounded work. */
static void extend(bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page);
    uint32_t n = (uint32_t)(BH_OS_PAGE_SIZE / page->block_size);
    if (n == 0)
        n = 1;
    if (n > page->reserved - capacity)
        n = page->reserved - capacity;
    uint32_t next = BHI_PLACE_NONE;
    for (uint32_t index = capacity + n; index-- > capacity;) {
        uint32_t place = index * page->block_size;
        bhi_link_write(page->start + place, bhi_link_encode(page->key, next, place));
        next = place;
    }
    page->free = next;
    page->free_zero = page->memory_zero;
    atomic_store_explicit(&page->capacity, capacity + n, memory_order_relaxed);
}

static bool is_free_block(const bhi_page_t *page, uint32_t place)
{
    uint64_t index;
    return bhi_page_place_index(page, place, &index) && (!BH_HARDEN_MAP || !bhi_map_is_live(page->map, index));
}

bool bhi_page_reuse(bhi_page_t *page)
{
    uint32_t head = page->local_free;
    if (head == BHI_PLACE_NONE)
        return false;
    if (bh_unlikely(!is_free_block(page, head)))
        bhi_violation(BHI_CORRUPT_LIST, page->start);
    page->free = head;
    page->local_free = BHI_PLACE_NONE;
    page->key += BH_LINK_NEXT_LIST; /* what was local_free's key is now free's */
    page->free_zero = false;
    return true;
}

bool bhi_page_refill(bhi_page_t *page)
{
    uint64_t index;
    if (bhi_page_place_index(page, page->free, &index))
        return true;
    if (bh_unlikely(page->free != BHI_PLACE_NONE))
        bhi_violation(BHI_CORRUPT_LIST, page->start);
    /* Groups only: the page may be on a pending stack, so QUEUED stays. */
    if ((atomic_load_explicit(&page->remote, memory_order_relaxed) >> 32) != 0)
        bhi_page_collect(page, (uint32_t)(atomic_fetch_and(&page->remote, BHI_REMOTE_QUEUED) >> 32));
    if (bhi_page_reuse(page))
        return true;
    if (bhi_page_capacity(page) < page->reserved) {
        extend(page);
        return true;
    }
    return false;
}

void bhi_page_not_free(const bhi_page_t *page, uint32_t index)
{
    bhi_violation(bhi_map_is_stray(page->map, index) ? BHI_DOUBLE_FREE : BHI_CORRUPT_LIST, bhi_page_block(page, index));
}

void bhi_page_check_head(const bhi_page_t *page)
{
    uint32_t place = page->free, next;
    uint64_t index;
    if (bh_likely(!bhi_page_place_index(page, place, &index)))
        return;
    uintptr_t block = page->start + place;
    if (!bhi_link_decode(page->key, bhi_link_read(block), place, &next))
        bhi_violation(BHI_CORRUPT_LINK, block);
    if (BH_HARDEN_MAP && !bhi_map_is_free(page->map, index))
        bhi_page_not_free(page, (uint32_t)index);
}

void bhi_page_collect(bhi_page_t *page, uint32_t groups)
{
    if (page->block_size == 0) {
        /* A single block is on no list. Its bits stay set until the page ends:
         * a thread that reads the page now and frees the block again meets them. */
        if (atomic_load(&page->map->held) != 0)
            page->used = 0;
        return;
    }
    uint32_t words_per_group = 1u << (page->group_shift - 6);
    uint32_t words = (uint32_t)(map_bytes(page->reserved) / sizeof(bhi_map_word_t));
    while (groups != 0) {
        uint32_t group = bhi_bit_first(groups);
        groups &= groups - 1;
        uint32_t end = (group + 1) * words_per_group;
        for (uint32_t w = group * words_per_group; w < end && w < words; w++) {
            uint64_t stray;
            uint64_t taken = bhi_map_take_held(&page->map[w], &stray);
            if (bh_unlikely(stray != 0))
                bhi_page_not_free(page, w * 64 + bhi_bit_first(stray));
            page->used -= bhi_bit_count(taken);
            for (; taken != 0; taken &= taken - 1) {
                uint32_t index = w * 64 + bhi_bit_first(taken);
                bhi_page_push_local(page, bhi_page_block(page, index), index * page->block_size);
            }
        }
    }
}

void bhi_page_signal(bhi_page_t *page)
{
    for (;;) {
        bhi_heap_t *heap = atomic_load(&page->heap);
        if (heap != NULL) {
            bhi_page_t *head = atomic_load_explicit(&heap->pending, memory_order_relaxed);
            do {
                atomic_store_explicit(&page->pending_next, head, memory_order_relaxed);
            } while (!atomic_compare_exchange_weak(&heap->pending, &head, page));
            if (atomic_load(&heap->owner) == BHI_OWNER_NONE)
                bhi_heap_help(heap);
            return;
        }
        /* The page was released after our block was taken back. Give the QUEUED
         * bit up; if the slot has a new page meanwhile whose freers relied on
         * our bit, or the owner has kept the page for our bit, announce again. */
        uint64_t groups = atomic_exchange(&page->remote, 0) & ~BHI_REMOTE_QUEUED;
        if (atomic_load(&page->heap) == NULL)
            return;
        if ((atomic_fetch_or(&page->remote, groups | BHI_REMOTE_QUEUED) & BHI_REMOTE_QUEUED) != 0)
            return;
    }
}

/* ------------------------------------------------------------------ release */

/* Free blocks carry links; the next page of this memory must not hand them out
 * inside its blocks. Also where it is to be purged at once: that may be refused. */
static void clear_links(const bhi_page_t *page)
{
    if (page->block_size == 0)
        return;
    uint32_t capacity = bhi_page_capacity(page);
    for (uint32_t i = 0; i < capacity; i++)
        bhi_link_write(bhi_page_block(page, i), 0);
}

/* An empty page has nothing held, but for what another thread freed while the
 * owner did: see README, "Double frees that race". */
static void check_nothing_held(const bhi_page_t *page)
{
    if (!BH_HARDEN_MAP || page->block_size == 0)
        return;
    for (size_t w = 0; w < map_bytes(page->reserved) / sizeof(bhi_map_word_t); w++) {
        uint64_t stray = atomic_load_explicit(&page->map[w].held, memory_order_relaxed) &
                         ~atomic_load_explicit(&page->map[w].live, memory_order_relaxed);
        if (bh_unlikely(stray != 0))
            bhi_page_not_free(page, (uint32_t)w * 64 + bhi_bit_first(stray));
    }
}

void bhi_page_forget(bhi_page_t *page)
{
    if (page->block_size == 0) {
        atomic_fetch_or(&page->map->held, 1); /* held and live, as after a free */
        return;
    }
    for (size_t w = 0; w < map_bytes(page->reserved) / sizeof(bhi_map_word_t); w++)
        atomic_store_explicit(&page->map[w].live, 0, memory_order_relaxed);
}

/* Whether a thread is on its way to our stack, or reads the page. */
static bool is_needed(const bhi_page_t *page)
{
    return (atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0 || bhi_hazard_on(page);
}

/* Takes an empty page out of everybody's reach. False: some thread needs it and
 * sends a signal for it from now on, which finds page->heap as it was. */
static bool part_with(bhi_heap_t *heap, bhi_page_t *page)
{
    for (unsigned tries = 0;; tries++) {
        atomic_store(&page->heap, NULL);
        /* We see the thread's QUEUED bit or hazard, or it sees heap = NULL: both
         * sides are sequentially consistent. */
        if (!is_needed(page))
            return true;
        atomic_store(&page->heap, heap);
        /* Both may have seen the other: it has then dropped its signal, and left
         * no trace now. What is still there looks at page->heap once more. But a
         * hazard may be one that its thread has cleared already, after having
         * found its block announced, and that is in that processor's store
         * buffer still: nothing would follow it, so it gets the time to arrive. */
        bool queued = (atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0;
        if (queued || (tries >= STORE_BUFFER_TRIES && bhi_hazard_on(page)))
            return false;
        bhi_pause();
    }
}

bool bhi_page_release(bhi_heap_t *heap, bhi_page_t *page)
{
    bhi_heap_t *local = atomic_load_explicit(&page->local_heap, memory_order_relaxed);
    atomic_store_explicit(&page->local_heap, NULL, memory_order_relaxed);
    if (!part_with(heap, page)) {
        atomic_store_explicit(&page->local_heap, local, memory_order_relaxed);
        return false;
    }
    bhi_heap_unlink(heap, page);
    heap->page_count--;
    check_nothing_held(page);
    clear_links(page);
    atomic_store_explicit(&page->capacity, 0, memory_order_relaxed);
    page->state = BHI_PAGE_FREE;

    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (segment->kind == BHI_SEGMENT_HUGE) {
        bhi_large_huge(page, segment);
        return true;
    }
    bhi_state_lock();
    bhi_pool_give(page->map, map_bytes(page->reserved));
    if (page->block_size == 0 && bhi_large_wants(page->block_bytes))
        bhi_large_span(segment, slot, page->span_slots);
    else
        bhi_span_give(segment, slot, page->span_slots, true);
    /* Here too, for threads that only free and never reach the generic path. */
    bool at_once = atomic_load_explicit(&bhi_state->purge_delay, memory_order_relaxed) == 0;
    bhi_purge(at_once ? 0 : bhi_os_now_ms(), at_once, 1);
    bhi_state_unlock();
    return true;
}
