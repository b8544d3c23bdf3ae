/* Pages: set-up, remote frees taken back, release. Owns I1..I7 of meta/types.h for everything but
 * the two fast paths and I4 (refill.c). */
#include "core/page.h"

#include "base/bits.h"
#include "base/checked.h"
#include "core/hardened.h"
#include "core/record.h"
#include "core/hazard.h"
#include "core/heap.h"
#include "core/residue.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "core/zero.h"
#include "harden/chunk.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "meta/arena.h"
#include "meta/huge.h"
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

/* A page's chunk of control memory: the list, the map, and what profile hardened keeps
 * around that. */
typedef struct chunk {
    size_t map, bytes; /* of the whole, and where in it the map begins */
} chunk_t;

static chunk_t chunk_for(uint32_t reserved, size_t block_size, uint8_t size_class)
{
    if (size_class == BHI_CLASS_NONE)
        return (chunk_t){0, BHI_MAP_SINGLE_BYTES};
    if (size_class == BHI_CLASS_ZERO)
        return (chunk_t){0, bhi_map_bytes(reserved)};
    if (bhi_is_hardened()) {
        size_t before = bhi_hard_bytes_before(reserved, block_size);
        return (chunk_t){before, before + bhi_map_bytes(reserved) + bhi_hard_bytes(reserved, block_size) + bhi_record_bytes(reserved)};
    }
    size_t list = bhi_list_room(reserved) * sizeof(bhi_index_t);
    /* A pair for every place of the first slot where a block could start, its guard's too:
     * free asks the map before it knows how many blocks there are. */
    uint32_t places = (uint32_t)((BH_SLOT_SIZE + block_size - 1) / block_size);
    return (chunk_t){list, list + bhi_map_bytes(BH_HARDEN_MAP && places > reserved ? places : reserved)};
}

static chunk_t chunk_of(const bhi_page_t *page)
{
    return chunk_for(page->reserved, page->block_size, page->size_class);
}

/* Lock held. */
static void give_chunk(const bhi_page_t *page)
{
    chunk_t chunk = chunk_of(page);
    bhi_pool_give((char *)page->map - chunk.map, chunk.bytes);
}

static unsigned guard_start(size_t bytes_in_span)
{
    return (unsigned)((bytes_in_span >> BH_OS_PAGE_SHIFT) & (BH_SLOT_OS_PAGES - 1));
}

/* Span for `bytes` usable bytes and the guard behind them, of which the last
 * `distance` slots are closed whole: this one, unless it is none; `chunk`: rather in
 * one. Lock held. */
static bhi_span_t take_span(bhi_span_t span, size_t bytes, unsigned slots, unsigned align_slots, unsigned distance, bool chunk)
{
    if (chunk)
        span = bhi_chunk_span(slots);
    if (span.segment == NULL)
        span = bhi_span_take(slots, align_slots);
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

static unsigned slots_reached(size_t bytes)
{
    return (unsigned)((bytes + BH_SLOT_SIZE - 1) >> BH_SLOT_SHIFT);
}

/* Clears those slots of a span as far as `bytes` reach. */
static void clear_slots(uintptr_t start, uint64_t slots, size_t bytes)
{
    for (; slots != 0; slots &= slots - 1) {
        size_t at = (size_t)bhi_bit_first(slots) << BH_SLOT_SHIFT;
        memset((void *)(start + at), 0, bhi_min(bytes - at, BH_SLOT_SIZE)); /* NOLINT: blocks are numbers here */
    }
}

/* Span of one slot that cannot be accessed. It keeps no memory either, unless the
 * kernel refuses to take it. Lock held. */
static bhi_span_t take_closed(size_t align)
{
    bhi_span_t span = bhi_span_take(1, align > BH_SLOT_SIZE ? (unsigned)(align >> BH_SLOT_SHIFT) : 1);
    if (span.segment == NULL)
        return span;
    uintptr_t at = bhi_segment_base(span.segment) + ((size_t)span.slot << BH_SLOT_SHIFT);
    span.zero = span.zero || bhi_os_purge(at, BH_SLOT_SIZE) == 0;
    bhi_guard_close(span.segment, span.slot);
    return span;
}

static void set_up(bhi_page_t *page, bhi_heap_t *heap, uintptr_t start, unsigned slots, void *map, bhi_memory_t memory)
{
    page->start = start;
    page->map = map;
    page->key = bhi_random_u64(&heap->random);
    page->listed = page->looked = 0;
    page->local_free = 0;
    page->used = 0;
    page->back = 0;
    page->span_slots = slots;
    page->retire = 0;
    page->memory = (uint8_t)memory;
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

static bhi_page_t *new_page(bhi_heap_t *heap, unsigned c, size_t align)
{
    bool none = c == BHI_CLASS_ZERO;
    unsigned slots = none ? 1 : bhi_class_span_slots(c);
    uint32_t reserved = none ? BHI_ZERO_BLOCKS : bhi_class_blocks(c);
    size_t size = none ? BHI_ZERO_STEP : bhi_class_size(c);
    bhi_state_lock();
    chunk_t chunk = chunk_for(reserved, size, (uint8_t)c);
    char *control = bhi_pool_take(chunk.bytes);
    bhi_span_t span = {NULL, 0, false, 0};
    bool left_here = false;
    if (control != NULL && none) {
        span = take_closed(align);
    } else if (control != NULL) {
        bhi_span_t left = bhi_residue_take(heap, c, slots);
        span = take_span(left, slots * BH_SLOT_SIZE - BH_OS_PAGE_SIZE, slots, 1, 0, false);
        left_here = span.segment != NULL && span.segment == left.segment && span.slot == left.slot;
    }
    if (control != NULL) {
        if (span.segment == NULL)
            bhi_pool_give(control, chunk.bytes);
    }
    bhi_state_unlock();
    if (span.segment == NULL)
        return NULL;

    bhi_page_t *page = bhi_segment_desc(span.segment, span.slot);
    bhi_left_page_t left = {0, 0, span.zero ? BHI_MEMORY_ZERO : BHI_MEMORY_ANY};
    if (left_here && !span.zero)
        left = bhi_residue_resume(page);
    set_up(page, heap, bhi_segment_base(span.segment) + ((size_t)span.slot << BH_SLOT_SHIFT), slots, control + chunk.map, left.memory);
    page->block_size = (uint32_t)size;
    page->fresh = left.fresh;
    page->reciprocal = bhi_class_reciprocal(size);
    page->size_class = (uint8_t)c;
    page->reserved = reserved;
    bhi_list_begin(page);
    if (bhi_is_hardened() && !none)
        *bhi_hard_key(page) = bhi_random_u64(&heap->random);
    uint8_t shift = 6;
    while (((reserved - 1) >> shift) >= GROUPS)
        shift++;
    page->group_shift = shift;
    bhi_residue_forget(page, slots);
    bhi_residue_own(heap, page);
    atomic_store_explicit(&page->capacity, none ? reserved : left.capacity, memory_order_relaxed);
    bhi_hard_begin_age(heap, page);
    publish(page, heap, BHI_PAGE_ACTIVE, none || bhi_is_hardened() ? NULL : heap);
    return page;
}

bhi_page_t *bhi_page_new(bhi_heap_t *heap, unsigned c)
{
    return new_page(heap, c, 1);
}

bhi_page_t *bhi_page_new_zero(bhi_heap_t *heap, size_t align)
{
    return new_page(heap, BHI_CLASS_ZERO, align);
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
        bhi_huge_mark(first, (uint32_t)segments);
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

/* A span for a large block, where others were if there is such a place. Blocks that other
 * threads freed are looked at before new memory. Lock held; gives it up. */
static bhi_span_t take_large(bhi_heap_t *heap, unsigned slots, size_t bytes)
{
    bool alone = bhi_thread_is_alone();
    bhi_span_t span = bhi_residue_take_large(heap, slots, bytes, alone, false);
    if (span.segment == NULL) {
        bhi_state_unlock();
        bhi_heap_drain(heap, BHI_DRAIN_LARGE);
        bhi_state_lock();
        span = bhi_residue_take_large(heap, slots, bytes, alone, true);
    }
    if (span.segment == NULL)
        span = bhi_span_take(slots, 1);
    if (span.segment != NULL && !alone)
        bhi_guard_tail(span.segment, span.slot + slots - 1, guard_start(bytes));
    return span;
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

    bool chunk = align <= BH_SLOT_SIZE && bhi_large_wants(bytes);
    bool left = !huge && !chunk && align <= BH_SLOT_SIZE && !bhi_is_hardened();
    if (!left)
        bhi_heap_drain(heap, BHI_DRAIN_LARGE); /* large blocks that other threads freed are worth not to wait */
    bhi_state_lock();
    void *map = bhi_pool_take(BHI_MAP_SINGLE_BYTES);
    bhi_span_t span = {NULL, 0, true, 0};
    if (map != NULL && left)
        span = take_large(heap, (unsigned)slots, bytes);
    if (map != NULL && !huge)
        span = take_span(span, bytes, (unsigned)slots, align > BH_SLOT_SIZE ? (unsigned)(align >> BH_SLOT_SHIFT) : 1, distance, chunk);
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
            bhi_pool_give(map, BHI_MAP_SINGLE_BYTES);
            bhi_state_unlock();
        }
        return NULL;
    }
    uint64_t others = 0, dirty = 0;
    if (!huge) {
        dirty = span.dirty & bhi_bit_range(0, slots_reached(bytes));
        others = bhi_residue_claim(page, (unsigned)slots, bhi_is_hardened() ? NULL : heap, bytes, span.dirty);
    }
    set_up(page, heap, start, (unsigned)slots, map, span.zero ? BHI_MEMORY_ZERO : BHI_MEMORY_ANY);
    page->block_size = 0;
    page->single_bytes = bytes;
    page->reciprocal = 0;
    page->size_class = BHI_CLASS_NONE;
    page->reserved = 1;
    page->group_shift = 6;
    page->used = 1;
    bhi_map_set_live(page->map, 0);
    atomic_store_explicit(&page->capacity, 1, memory_order_relaxed);
    publish(page, heap, BHI_PAGE_LARGE, NULL);
    if (BH_HARDEN_CLEAR)
        clear_slots(start, others, bytes);
    *zero = dirty == (BH_HARDEN_CLEAR ? others : 0);
    return page;
}

void bhi_page_close(bhi_page_t *page)
{
    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (segment->kind == BHI_SEGMENT_HUGE) {
        if (bhi_os_rereserve(page->start, page->single_bytes) != 0) {
            atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
            return;
        }
    } else {
        bhi_state_lock();
        for (unsigned i = 0; i < page->span_slots; i++)
            bhi_guard_close(segment, slot + i);
        bhi_state_unlock();
    }
    page->single_bytes = 0;
}

bool bhi_page_grow(bhi_page_t *page, size_t size)
{
    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (page->state != BHI_PAGE_LARGE || page->single_bytes == 0 || segment->kind != BHI_SEGMENT_SLOTS || size > BH_SEGMENT_SIZE)
        return false;
    size_t before = page->start & (BH_SLOT_SIZE - 1); /* see bhi_heap_large_at */
    size_t bytes = bhi_align_up(before + size, BH_OS_PAGE_SIZE);
    unsigned had = page->span_slots, slots = (unsigned)((bytes + BH_OS_PAGE_SIZE + BH_SLOT_SIZE - 1) >> BH_SLOT_SHIFT);
    uint64_t dirty = 0;
    bhi_state_lock();
    bool grown = slots <= had || bhi_span_grow(segment, slot, had, slots, &dirty);
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
    uintptr_t end = page->start + page->single_bytes, start = page->start - before, added = start + ((size_t)had << BH_SLOT_SHIFT);
    if (slots > had) {
        const bhi_heap_t *heap = bhi_is_hardened() ? NULL : atomic_load_explicit(&page->heap, memory_order_relaxed);
        if (dirty != 0)
            page->memory = BHI_MEMORY_ANY; /* the rest of the last slot, which it may grow into next */
        dirty = bhi_residue_claim(page + had, slots - had, heap, start + bytes - added, dirty);
        if (BH_HARDEN_CLEAR)
            clear_slots(added, dirty, start + bytes - added);
    }
    page->span_slots = (uint32_t)bhi_max(had, slots); /* a random distance shrinks */
    if (BH_HARDEN_CLEAR && page->memory != BHI_MEMORY_ZERO)
        memset((void *)end, 0, bhi_min(start + bytes, added) - end); /* NOLINT: blocks are numbers here */
    page->single_bytes = bytes - before;
    return true;
}

/* ----------------------------------------------------------- remote frees */

void bhi_page_not_free(const bhi_page_t *page, uint32_t index)
{
    bhi_violation(bhi_map_is_stray(page->map, index) ? BHI_DOUBLE_FREE : BHI_CORRUPT_LIST, bhi_page_block(page, index));
}

void bhi_page_check_head(const bhi_page_t *page)
{
    if (!BH_HARDEN_MAP || page->listed == 0)
        return;
    uint32_t index = bhi_list_top(page);
    if (index >= bhi_page_capacity(page) || bhi_list_place(page, index) != page->top_place)
        bhi_violation(BHI_CORRUPT_LIST, page->start);
    if (!(bhi_is_hardened() ? bhi_map_is_free_marked(page->map, index) : bhi_map_is_free(page->map, index)))
        bhi_page_not_free(page, index);
}

void bhi_page_collect(bhi_page_t *page, uint32_t groups)
{
    if (page->block_size == 0) {
        /* A single block is on no list. Its two bytes stay set until the page ends:
         * a thread that reads the page now and frees the block again meets them. */
        if (atomic_load(&page->map->held) != 0)
            page->used = 0;
        return;
    }
    /* Between the exchange of `remote` and looking for what is held. */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t words_per_group = 1u << (page->group_shift - 6);
    uint32_t words = (page->reserved + 63) / 64;
    while (groups != 0) {
        uint32_t group = bhi_bit_first(groups);
        groups &= groups - 1;
        uint32_t end = (group + 1) * words_per_group;
        for (uint32_t w = group * words_per_group; w < end && w < words; w++) {
            if (bhi_page_has_ends(page)) {
                bhi_hard_collect(page, w);
                continue;
            }
            uint64_t stray;
            uint64_t taken = bhi_map_take_held(page->map, w, &stray);
            if (bh_unlikely(stray != 0))
                bhi_page_not_free(page, w * 64 + bhi_bit_first(stray));
            page->used -= bhi_bit_count(taken);
            if (page->size_class == BHI_CLASS_ZERO)
                bhi_zero_taken(page, w, taken);
            else
                for (; !BH_HARDEN_MAP && taken != 0; taken &= taken - 1)
                    bhi_list_push_local(page, (w * 64 + bhi_bit_first(taken)) * (uint64_t)page->block_size);
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

/* An empty page has nothing held, but for what another thread freed while the
 * owner did: see README, "Double frees that race". */
void bhi_page_check_nothing_held(const bhi_page_t *page)
{
    if (!BH_HARDEN_MAP || page->block_size == 0)
        return;
    for (uint32_t w = 0; w < (page->reserved + 63) / 64; w++) {
        bhi_map_sets_t sets = bhi_map_sets(page->map, w);
        uint64_t stray = sets.held & ~sets.live;
        if (bh_unlikely(stray != 0))
            bhi_page_not_free(page, w * 64 + bhi_bit_first(stray));
    }
}

void bhi_page_check_nothing_live(const bhi_page_t *page)
{
    for (uint32_t w = 0; BH_HARDEN_MAP && w < (page->reserved + 63) / 64; w++) {
        uint64_t live = bhi_map_sets(page->map, w).live;
        if (bh_unlikely(live != 0))
            bhi_violation(BHI_CORRUPT_LIST, bhi_page_block(page, w * 64 + bhi_bit_first(live)));
    }
}

void bhi_page_forget(bhi_page_t *page)
{
    if (page->block_size == 0) {
        atomic_store(&page->map->held, 1); /* held and live, as after a free */
        return;
    }
    if (bhi_page_has_ends(page))
        bhi_hard_forget(page);
    for (uint32_t i = 0; i < page->reserved; i++)
        atomic_store_explicit(&page->map[i].live, 0, memory_order_relaxed);
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

void bhi_page_drop_list(bhi_heap_t *heap, bhi_page_t *page)
{
    if (page->listed != 0)
        bhi_sampled_uncut(heap, page->size_class, page->listed);
    bool many = BH_HARDEN_MAP && page->block_size != 0;
    if (many && page->listed + page->kept != 0)
        bhi_age_give_up(&heap->age[page->size_class]);
    page->used -= page->listed;
    page->listed = 0;
    if (many)
        page->kept = 0;
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
    bhi_page_check_nothing_held(page);
    if (bhi_page_has_ends(page))
        bhi_hard_check_empty(page);
    bhi_page_drop_list(heap, page);
    bhi_residue_leave(heap, page);
    atomic_store_explicit(&page->capacity, 0, memory_order_relaxed);
    page->state = BHI_PAGE_FREE;

    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (segment->kind == BHI_SEGMENT_HUGE) {
        bhi_large_huge(page, segment);
        return true;
    }
    bhi_state_lock();
    give_chunk(page);
    if ((page->block_size == 0 || bhi_page_has_ends(page)) && bhi_large_wants(bhi_page_bytes(page)))
        bhi_large_span(segment, slot, page->span_slots, bhi_large_trapped(page));
    else
        bhi_span_give(segment, slot, page->span_slots, page->size_class != BHI_CLASS_ZERO || page->memory != BHI_MEMORY_ZERO);
    /* Here too, for threads that only free and never reach the generic path. */
    bool at_once = atomic_load_explicit(&bhi_settings.purge_delay, memory_order_relaxed) == 0;
    bhi_purge(at_once ? 0 : bhi_os_now_ms(), at_once, 1);
    bhi_state_unlock();
    return true;
}
