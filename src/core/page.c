/* Pages. Owns I1..I7 of meta/types.h for everything but the two fast paths. */
#include "core/page.h"

#include "base/bits.h"
#include "base/checked.h"
#include "core/hardened.h"
#include "core/hazard.h"
#include "core/heap.h"
#include "core/sampled.h"
#include "core/zero.h"
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

static size_t map_bytes(uint32_t reserved)
{
    return ((size_t)reserved + 63) / 64 * sizeof(bhi_map_word_t);
}

/* Control data of a page: its map and what profile hardened keeps behind it. */
static size_t chunk_bytes(uint32_t reserved, size_t block_size, bool ends)
{
    return map_bytes(reserved) + (ends ? bhi_hard_bytes(reserved, block_size) : 0);
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

/* Mark of slot i of a span that held a large block of the heap as it is now: with
 * every owner that it gets, it is another one. Two heaps may agree by chance, once in
 * 2^25; then one's large block shows what the other's held. */
static uint32_t residue_of(const bhi_heap_t *heap, unsigned i)
{
    uint32_t mixed = heap->generation * 0x9e3779b1u + heap->id + 1; /* golden ratio: Knuth, multiplicative hashing */
    return (mixed << BH_SEGMENT_SLOTS_SHIFT | i) | (uint32_t)1 << 31;
}

/* Whether `bytes` from the first slot on hold nothing but contents of a large block
 * of this heap. Whatever the slots hold from now on is not that. */
static bool claim_residue(bhi_page_t *first, unsigned slots, const bhi_heap_t *heap, size_t bytes)
{
    bool own = true;
    for (unsigned i = 0; i < slots; i++) {
        own &= first[i].residue == residue_of(heap, i);
        first[i].residue = 0;
    }
    /* Then the first slot's descriptor still tells of that block. */
    return own && bytes <= (first->start & (BH_SLOT_SIZE - 1)) + first->single_bytes;
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

static bhi_page_t *new_page(bhi_heap_t *heap, unsigned c, size_t align)
{
    bool none = c == BHI_CLASS_ZERO;
    unsigned slots = none ? 1 : bhi_class_span_slots(c);
    uint32_t reserved = none ? BHI_ZERO_BLOCKS : bhi_class_blocks(c);
    size_t size = none ? BHI_ZERO_STEP : bhi_class_size(c);
    bhi_state_lock();
    size_t chunk = chunk_bytes(reserved, size, bhi_is_hardened() && !none);
    void *map = bhi_pool_take(chunk);
    bhi_span_t span = {NULL, 0, false};
    if (map != NULL) {
        span = none ? take_closed(align) : take_span(slots * BH_SLOT_SIZE - BH_OS_PAGE_SIZE, slots, 1, 0);
        if (span.segment == NULL)
            bhi_pool_give(map, chunk);
    }
    bhi_state_unlock();
    if (span.segment == NULL)
        return NULL;

    bhi_page_t *page = bhi_segment_desc(span.segment, span.slot);
    set_up(page, heap, bhi_segment_base(span.segment) + ((size_t)span.slot << BH_SLOT_SHIFT), slots, map, span.zero);
    page->block_size = (uint32_t)size;
    page->fresh = 0;
    page->reciprocal = bhi_class_reciprocal(size);
    page->size_class = (uint8_t)c;
    page->reserved = reserved;
    uint8_t shift = 6;
    while (((reserved - 1) >> shift) >= GROUPS)
        shift++;
    page->group_shift = shift;
    claim_residue(page, slots, heap, 0);
    if (none)
        atomic_store_explicit(&page->capacity, reserved, memory_order_relaxed);
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
    bool own = huge || (claim_residue(page, (unsigned)slots, heap, bytes) && !bhi_is_hardened());
    set_up(page, heap, start, (unsigned)slots, map, span.zero);
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
    if (BH_HARDEN_CLEAR && !span.zero && !own) {
        memset((void *)start, 0, bytes); /* NOLINT: blocks are numbers here */
        span.zero = true;
    }
    *zero = span.zero;
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
    bool zero = page->memory_zero;
    bhi_state_lock();
    bool grown = slots <= had || bhi_span_grow(segment, slot, had, slots, &zero);
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
    if (slots > had)
        claim_residue(page + had, slots - had, atomic_load_explicit(&page->heap, memory_order_relaxed), 0);
    page->span_slots = (uint32_t)bhi_max(had, slots); /* a random distance shrinks */
    uintptr_t end = page->start + page->single_bytes;
    if (BH_HARDEN_CLEAR && !zero)
        memset((void *)end, 0, page->start - before + bytes - end); /* NOLINT: blocks are numbers here */
    page->single_bytes = bytes - before;
    return true;
}

/* ------------------------------------------------------------------- lists */

#define LIST_MOST 64u /* blocks on a list, from which on no further word of the map is looked at */

static bhi_random_t *random_of(const bhi_page_t *page)
{
    return &atomic_load_explicit(&page->heap, memory_order_relaxed)->random;
}

/* Puts blocks, given by index, on the empty `free`, the last one to come first. */
static void list_blocks(bhi_page_t *page, const uint32_t *index, uint32_t n)
{
    if (bhi_is_sampling()) {
        uint32_t cut = bhi_sampled_cut(atomic_load_explicit(&page->heap, memory_order_relaxed), page->size_class, n);
        index += n - cut; /* what is left out is free in the map */
        n = cut;
    }
    /* Copies: for all the compiler knows, a link may change the descriptor. */
    uint64_t key = page->key + BH_LINK_NEXT_LIST;
    uintptr_t start = page->start;
    uint32_t size = page->block_size, next = BHI_PLACE_NONE;
    for (const uint32_t *end = index + n; index != end; index++) {
        uint32_t place = *index * size;
        bhi_link_write(start + place, bhi_link_encode(key, next, place));
        next = place;
    }
    page->key = key;
    page->free = next;
}

/* First block of the last word of the map below capacity. */
static uint32_t last_word(const bhi_page_t *page)
{
    return (bhi_page_capacity(page) - 1) & ~(uint32_t)63;
}

/* How many of `have` fresh blocks to list: an OS page's worth of small ones, of
 * others as many as are in use, since each may be the first in its OS page. */
static uint32_t extension(const bhi_page_t *page, uint32_t have)
{
    if (page->block_size <= BH_OS_PAGE_SIZE / 64)
        return have;
    uint32_t most = (uint32_t)bhi_max(1, 4 * BH_OS_PAGE_SIZE / page->block_size);
    uint32_t n = (uint32_t)bhi_max(1, bhi_min(page->used, most));
    return 2 * n >= have && n > 1 ? have : n;
}

static uint32_t fresh_in(uint32_t *index, uint64_t set, uint32_t base)
{
    uint32_t *end = index;
    for (; set != 0; set &= set - 1)
        *end++ = base + bhi_bit_first(set);
    return (uint32_t)(end - index);
}

/* Lists some of the fresh blocks of one word of the map, which are 64 but for the
 * page's last ones: so a page of few blocks hands them out in an order that is any
 * with the same probability, a page of many in one that is so for each 64 of them.
 * Bounded work. */
static void extend(bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page);
    if (page->fresh == 0) {
        uint32_t more = page->reserved - capacity < 64 ? page->reserved - capacity : 64;
        page->fresh = bhi_bit_range(0, more);
        atomic_store_explicit(&page->capacity, capacity + more, memory_order_relaxed);
    }
    uint32_t index[64], base = last_word(page), have = bhi_bit_count(page->fresh), n = extension(page, have);
    bhi_random_t *random = random_of(page);
    uint32_t *chosen = index;
    if (n == 1) {
        index[0] = base + bhi_bit_nth(page->fresh, BH_HARDEN_RANDOM ? bhi_random_below(random, have) : 0);
    } else {
        fresh_in(index, page->fresh, base);
        if (BH_HARDEN_RANDOM)
            bhi_random_choose(random, index, have, n);
        chosen = index + (have - n);
    }
    for (uint32_t i = 0; i < n; i++) {
        page->fresh &= ~((uint64_t)1 << (chosen[i] - base));
        if (BH_HARDEN_CLEAR && !page->memory_zero)
            memset((void *)bhi_page_block(page, chosen[i]), 0, page->block_size); /* NOLINT: blocks are numbers here */
    }
    list_blocks(page, chosen, n);
    page->free_zero = BH_HARDEN_CLEAR || page->memory_zero;
}

/* Free blocks that are on no list, while `free` is empty. */
static uint32_t spare_blocks(const bhi_page_t *page)
{
    return bhi_page_capacity(page) - bhi_bit_count(page->fresh) - page->used;
}

static bool has_fresh(const bhi_page_t *page)
{
    return page->fresh != 0 || bhi_page_capacity(page) < page->reserved;
}

/* How many blocks of a page must be free before they are handed out again, so that
 * whoever frees one cannot say when it comes back. */
static uint32_t enough(const bhi_page_t *page)
{
    uint32_t least = bhi_page_reuse_least(page);
    return least == 1 ? 1 : least + bhi_random_below(random_of(page), least * 2 / 3);
}

/* Free blocks of one word of the map. */
static uint64_t free_in_word(const bhi_page_t *page, uint32_t w)
{
    uint64_t used = atomic_load_explicit(&page->map[w].live, memory_order_relaxed) |
                    atomic_load_explicit(&page->map[w].held, memory_order_relaxed);
    uint32_t base = last_word(page);
    if (w != base / 64)
        return ~used;
    return ~used & ~page->fresh & bhi_bit_range(0, bhi_page_capacity(page) - base);
}

/* Lists free blocks, from a random word of the map on. */
static void gather(bhi_page_t *page, uint32_t spare)
{
    uint32_t index[LIST_MOST + 63], *end = index;
    uint32_t words = (bhi_page_capacity(page) + 63) / 64;
    uint32_t w = words > 1 && BH_HARDEN_RANDOM ? bhi_random_below(random_of(page), words) : 0;
    uint32_t *enough_here = index + bhi_min(spare, LIST_MOST);
    for (uint32_t i = 0; i < words && end < enough_here; i++) {
        for (uint64_t set = free_in_word(page, w); set != 0; set &= set - 1)
            *end++ = w * 64 + bhi_bit_first(set);
        w = w + 1 == words ? 0 : w + 1;
    }
    uint32_t n = (uint32_t)(end - index);
    if (BH_HARDEN_RANDOM)
        bhi_random_shuffle(random_of(page), index, n);
    list_blocks(page, index, n);
    page->free_zero = false;
}

/* Without the map: what was freed, as a list. */
static bool take_local(bhi_page_t *page)
{
    if (page->local_free == BHI_PLACE_NONE)
        return false;
    page->free = page->local_free;
    page->local_free = BHI_PLACE_NONE;
    page->key += BH_LINK_NEXT_LIST; /* what was local_free's key is now free's */
    page->free_zero = false;
    return true;
}

bool bhi_page_reuse(bhi_page_t *page)
{
    if (!BH_HARDEN_MAP)
        return take_local(page);
    uint32_t spare = spare_blocks(page);
    if (spare == 0 || spare < enough(page))
        return false;
    gather(page, spare);
    return page->free != BHI_PLACE_NONE;
}

static void collect_announced(bhi_page_t *page)
{
    /* Groups only: the page may be on a pending stack, so QUEUED stays. */
    if ((atomic_load_explicit(&page->remote, memory_order_relaxed) >> 32) != 0)
        bhi_page_collect(page, (uint32_t)(atomic_fetch_and(&page->remote, BHI_REMOTE_QUEUED) >> 32));
}

bool bhi_page_refill(bhi_page_t *page)
{
    uint64_t index;
    if (bhi_page_place_index(page, page->free, &index))
        return true;
    if (bh_unlikely(page->free != BHI_PLACE_NONE))
        bhi_violation(BHI_CORRUPT_LIST, page->start);
    collect_announced(page);
    if (page->size_class == BHI_CLASS_ZERO || bhi_is_hardened())
        return page->used < page->reserved;
    if (bhi_page_reuse(page))
        return true;
    if (has_fresh(page)) {
        extend(page);
        return true;
    }
    uint32_t spare = spare_blocks(page);
    if (BH_HARDEN_MAP && spare != 0)
        gather(page, spare);
    return page->free != BHI_PLACE_NONE;
}

bool bhi_page_is_sparse(bhi_page_t *page, uint32_t *spare)
{
    *spare = 0;
    if (!BH_HARDEN_RANDOM || bhi_is_hardened() || page->size_class == BHI_CLASS_ZERO || page->free != BHI_PLACE_NONE || has_fresh(page))
        return false;
    collect_announced(page);
    *spare = spare_blocks(page);
    return *spare != 0 && *spare < bhi_page_reuse_least(page);
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
            if (bhi_page_has_ends(page)) {
                bhi_hard_collect(page, w);
                continue;
            }
            uint64_t stray;
            uint64_t taken = bhi_map_take_held(&page->map[w], &stray);
            if (bh_unlikely(stray != 0))
                bhi_page_not_free(page, w * 64 + bhi_bit_first(stray));
            page->used -= bhi_bit_count(taken);
            if (page->size_class == BHI_CLASS_ZERO)
                bhi_zero_taken(page, w, taken);
            else
                for (; !BH_HARDEN_MAP && taken != 0; taken &= taken - 1) {
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

/* An empty page has nothing held, but for what another thread freed while the
 * owner did: see README, "Double frees that race". */
void bhi_page_check_nothing_held(const bhi_page_t *page)
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
    if (bhi_page_has_ends(page))
        bhi_hard_forget(page);
    for (size_t w = 0; w < map_bytes(page->reserved) / sizeof(bhi_map_word_t); w++)
        atomic_store_explicit(&page->map[w].live, 0, memory_order_relaxed);
}

/* Notes whose contents the span keeps: a large block of the same heap may show them. */
static void leave_residue(bhi_page_t *page, const bhi_heap_t *heap)
{
    for (uint32_t i = 0; page->state == BHI_PAGE_LARGE && i < page->span_slots && i < BH_SEGMENT_SLOTS; i++)
        page[i].residue = residue_of(heap, i);
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
    uint32_t n = 0, place = page->free;
    uint64_t index;
    while (bhi_is_sampling() && n < LIST_MOST + 63 && bhi_page_place_index(page, place, &index) &&
           bhi_link_decode(page->key, bhi_link_read(page->start + place), place, &place))
        n++;
    if (n != 0)
        bhi_sampled_uncut(heap, page->size_class, n);
    page->free = BHI_PLACE_NONE;
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
    leave_residue(page, heap);
    if (bhi_is_sampling() && page->free != BHI_PLACE_NONE)
        bhi_page_drop_list(heap, page);
    atomic_store_explicit(&page->capacity, 0, memory_order_relaxed);
    page->state = BHI_PAGE_FREE;

    unsigned slot;
    bhi_segment_t *segment = bhi_page_segment(page, &slot);
    if (segment->kind == BHI_SEGMENT_HUGE) {
        bhi_large_huge(page, segment);
        return true;
    }
    bhi_state_lock();
    bhi_pool_give(page->map, chunk_bytes(page->reserved, page->block_size, bhi_page_has_ends(page)));
    if ((page->block_size == 0 || bhi_page_has_ends(page)) && bhi_large_wants(bhi_page_bytes(page)))
        bhi_large_span(segment, slot, page->span_slots, bhi_large_trapped(page));
    else
        bhi_span_give(segment, slot, page->span_slots, page->size_class != BHI_CLASS_ZERO || !page->memory_zero);
    /* Here too, for threads that only free and never reach the generic path. */
    bool at_once = atomic_load_explicit(&bhi_settings.purge_delay, memory_order_relaxed) == 0;
    bhi_purge(at_once ? 0 : bhi_os_now_ms(), at_once, 1);
    bhi_state_unlock();
    return true;
}
