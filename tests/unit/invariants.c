/* See invariants.h. */
#include "invariants.h"

#include "base/bits.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/zero.h"
#include "harden/large.h"
#include "harden/list.h"
#include "meta/arena.h"
#include "meta/huge.h"
#include "meta/segment.h"
#include "meta/size_class.h"
#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static char said[512];
bool inv_forked;

__attribute__((format(printf, 1, 2))) static const char *broken(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    return said;
}

#define CHECK_THAT(what, ...)                                                                                         \
    do {                                                                                                               \
        if (!(what))                                                                                                   \
            return broken(__VA_ARGS__);                                                                                \
    } while (0)

/* -------------------------------------------------------------------- pages */

static bool live(const bhi_page_t *page, uint32_t i)
{
    return (atomic_load(&page->map[i].live) & 1) != 0;
}

static bool held(const bhi_page_t *page, uint32_t i)
{
    return atomic_load(&page->map[i].held) != 0;
}

static bool is_fresh(const bhi_page_t *page, uint32_t i)
{
    uint32_t capacity = bhi_page_capacity(page);
    if (i >= capacity || page->state == BHI_PAGE_LARGE)
        return i >= capacity;
    return i >= (capacity - 1) / 64 * 64 && (page->fresh >> (i % 64) & 1) != 0;
}

/* Marks the blocks of n entries from one on, of the list or without the map what was
 * freed, in `seen`. */
static bool entries_are_free(const bhi_page_t *page, bool list, uint32_t from, uint32_t n, uint8_t *seen)
{
    for (uint32_t i = from; i < from + n; i++) {
        uint32_t index = list ? bhi_list_index(page, i) : 8u * bhi_list_code(page, *bhi_list_local(page, i)) / page->block_size;
        if (index >= bhi_page_capacity(page) || seen[index] != 0)
            return false;
        seen[index] = 1;
        if (is_fresh(page, index) || (BH_HARDEN_MAP && live(page, index)))
            return false;
    }
    return true;
}

static const char *lists(const bhi_page_t *page)
{
    static uint8_t seen[1 << 17];
    const void *p = page;
    memset(seen, 0, page->reserved);
    uint32_t listed = page->listed, freed = page->local_free;
    if (page->size_class == BHI_CLASS_ZERO) {
        CHECK_THAT(listed == 0 && freed == 0 && bhi_page_capacity(page) == page->reserved,
                   "I4: page %p: zero-size blocks on a list", p);
        return NULL;
    }
    uint32_t room = bhi_list_room(page->reserved), others = bhi_page_capacity(page) - page->used - bhi_bit_count(page->fresh);
    CHECK_THAT(listed <= room && entries_are_free(page, true, 0, listed, seen), "I4: page %p: the list of %u is damaged", p, listed);
    if (BH_HARDEN_MAP) {
        uint32_t kept = page->kept;
        CHECK_THAT(kept == 0 || (page->kept_from >= listed && page->kept_from + kept <= room && entries_are_free(page, true, page->kept_from, kept, seen)),
                   "I4: page %p: the %u entries that it kept are damaged", p, kept);
        CHECK_THAT(listed == 0 || (page->top == *bhi_list(page, listed - 1u) && page->top_place == bhi_list_top(page) * page->block_size),
                   "I8: page %p: the top of its list is not the last of its %u entries", p, listed);
        CHECK_THAT(listed <= page->used && others <= page->reserved, "I4: page %p: capacity %u, used %u, %u fresh, %u listed", p, bhi_page_capacity(page),
                   page->used, bhi_bit_count(page->fresh), listed);
        return NULL;
    }
    CHECK_THAT(freed == others && entries_are_free(page, false, 0, freed, seen),
               "I4: page %p: capacity %u, used %u, listed %u, freed %u", p, bhi_page_capacity(page), page->used, listed, freed);
    return NULL;
}

/* ----------------------------------------------- profile hardened: E1 to E4 */

/* Freed by another thread, which has wiped it: waits for the owner. */
static bool ready(const bhi_page_t *page, uint32_t i)
{
    return (atomic_load(bhi_hard_ready(page, i / 64)) >> (i % 64) & 1) != 0;
}

/* E4: 0, or an even number of a block that was live. */
static bool has_mark(const bhi_page_t *page, uint32_t i)
{
    uint8_t mark = atomic_load(&page->map[i].live);
    return mark == 0 || (mark % 2 == 0 && !is_fresh(page, i) && i < bhi_page_capacity(page));
}

static bool zero(uintptr_t from, size_t size);

/* E1, E2 and E4, and of E3 what one page tells. */
static const char *ends(const bhi_page_t *page)
{
    size_t bytes = bhi_page_bytes(page);
    const void *p = page;
    for (uint32_t i = 0; i < bhi_page_capacity(page); i++) {
        uintptr_t block = bhi_page_block(page, i);
        size_t size = bhi_hard_requested(page, i);
        bool wiped = held(page, i) ? page->block_size != 0 : !live(page, i);
        if (live(page, i) && !held(page, i))
            CHECK_THAT(size == bytes || (size + BH_CANARY_LEAST <= bytes &&
                                         bhi_canary_check(block, size, bytes, bhi_hard_canaries(page), i) == BH_CANARY_INTACT),
                       "E1: page %p: block %u of %zu bytes for %zu", p, i, bytes, size);
        CHECK_THAT(!BH_HARDEN_WIPE || !wiped || zero(block, page->block_size) ||
                       (bhi_process.fill && unit_is((const void *)block, page->block_size, BH_FILL_FREED)), "E2, E3: page %p: block %u is not wiped", p, i);
        CHECK_THAT(live(page, i) || page->block_size == 0 || has_mark(page, i), "E4: page %p: block %u has a wrong mark", p, i);
        CHECK_THAT(!ready(page, i) || held(page, i), "E3: page %p: block %u is ready and not held", p, i);
    }
    return NULL;
}

const char *inv_page(const bhi_page_t *page)
{
    const void *p = page;
    uint32_t capacity = bhi_page_capacity(page);
    const bhi_heap_t *heap = atomic_load(&page->heap);
    const bhi_heap_t *local = atomic_load(&page->local_heap);
    CHECK_THAT(page->state != BHI_PAGE_FREE && capacity != 0 && heap != NULL,
               "I6: page %p: state %u, capacity %u, heap %p", p, page->state, capacity, (const void *)heap);
    CHECK_THAT(capacity <= page->reserved, "I2: page %p: capacity %u of %u", p, capacity, page->reserved);
    CHECK_THAT(local == NULL || (local == heap && page->state == BHI_PAGE_ACTIVE && page->size_class != BHI_CLASS_ZERO), "I5: page %p", p);
    if (page->state == BHI_PAGE_LARGE) {
        CHECK_THAT(page->reserved == 1 && page->block_size == 0 && page->reciprocal == 0, "I1: large page %p", p);
        CHECK_THAT(page->single_bytes + BH_OS_PAGE_SIZE <= page->span_slots * BH_SLOT_SIZE, "I1: large page %p", p);
    } else if (page->size_class == BHI_CLASS_ZERO) {
        CHECK_THAT(page->block_size == BHI_ZERO_STEP && bhi_page_bytes(page) == 0 && page->span_slots == 1 && page->fresh == 0 &&
                       page->reserved == BHI_ZERO_BLOCKS && page->reciprocal == bhi_class_reciprocal(page->block_size),
                   "I1: page %p of zero-size blocks: block size %u", p, page->block_size);
    } else {
        CHECK_THAT(page->block_size == bhi_class_size(page->size_class) &&
                       page->reciprocal == bhi_class_reciprocal(page->block_size),
                   "I1: page %p: block size %u of class %u", p, page->block_size, page->size_class);
        CHECK_THAT((size_t)page->reserved * page->block_size + BH_OS_PAGE_SIZE <= page->span_slots * BH_SLOT_SIZE,
                   "I1: page %p: the last block reaches into the guard", p);
    }
    uint32_t n = 0, groups = 0;
    for (uint32_t i = 0; i < (page->block_size != 0 ? (page->reserved + 63) / 64 * 64 : 1); i++) {
        if (i % 64 == 0 && page->block_size != 0 && bhi_map_free(page->map, i / 64) == UINT64_MAX) {
            i += 63;
            continue;
        }
        CHECK_THAT(!is_fresh(page, i) || (!live(page, i) && !held(page, i)), "I2: page %p: fresh block %u is marked", p, i);
        if (live(page, i))
            n++;
        if (held(page, i) && (page->block_size == 0 || !bhi_page_has_ends(page) || ready(page, i)))
            groups |= (uint32_t)1 << (i >> page->group_shift);
    }
    if (page->state == BHI_PAGE_LARGE && page->used == 0)
        return NULL; /* freed and kept for a moment; both stay set */
    if (BH_HARDEN_MAP)
        CHECK_THAT(n == bhi_page_live(page), "I3: page %p: used %u, listed %u, live %u", p, page->used, page->listed, n);
    CHECK_THAT((groups & ~(uint32_t)(atomic_load(&page->remote) >> BHI_REMOTE_GROUP_BIT)) == 0,
               "I7: page %p: a held block whose group is not announced", p);
    if (bhi_page_has_ends(page) && bhi_heap_owner(heap) != BHI_OWNER_GONE) {
        const char *text = ends(page);
        if (text != NULL)
            return text;
    }
    return page->state == BHI_PAGE_LARGE ? NULL : lists(page);
}

/* ----------------------------------------------------------------- segments */

static bool zero(uintptr_t from, size_t size)
{
    const unsigned char *at = (const unsigned char *)from;
    return size == 0 || (at[0] == 0 && memcmp(at, at + 1, size - 1) == 0);
}

static const char *free_slot(const bhi_segment_t *s, unsigned slot, bool read)
{
    const bhi_page_t *page = bhi_segment_desc(s, slot);
    const void *p = s;
    CHECK_THAT(page->state == BHI_PAGE_FREE && bhi_page_capacity(page) == 0 && atomic_load(&page->heap) == NULL &&
                   atomic_load(&page->local_heap) == NULL,
               "I6: segment %p: free slot %u has a page", p, slot);
    if (read && (s->dirty >> slot & 1) == 0)
        for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++)
            CHECK_THAT(!inv_is_open(s, slot, os) ||
                           zero(bhi_segment_base(s) + slot * BH_SLOT_SIZE + ((size_t)os << BH_OS_PAGE_SHIFT), BH_OS_PAGE_SIZE),
                       "S2: segment %p: slot %u is said to be clean and is not zero", p, slot);
    return NULL;
}

static const char *quarantined_slot(const bhi_segment_t *s, unsigned slot)
{
    bool refused = atomic_load(&bhi_state->advice_refused) != 0 || atomic_load(&bhi_state->guard_missed) != 0;
    for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++)
        CHECK_THAT(refused || !inv_is_open(s, slot, os), "S3: segment %p: OS page %u of quarantined slot %u is open", (const void *)s, os, slot);
    return free_slot(s, slot, false);
}

/* Whether the slot is that of a large block which a thread has freed, and traps
 * perhaps at this moment; in a child it never notes that. */
static bool may_be_trapped(const bhi_segment_t *s, unsigned slot)
{
    const bhi_page_t *page = bhi_segment_desc(s, slot);
    page -= page->back >> BH_PAGE_DESC_SHIFT;
    return page->state == BHI_PAGE_LARGE && held(page, 0);
}

bool inv_open_is_open(const bhi_segment_t *s)
{
    uintptr_t base = bhi_segment_base(s);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        if ((s->quarantined >> i & 1) != 0 || may_be_trapped(s, i))
            continue; /* nobody's; a kernel call may be under way */
        for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++) {
            if (inv_is_open(s, i, os) && !unit_readable(base + i * BH_SLOT_SIZE + ((size_t)os << BH_OS_PAGE_SHIFT)))
                return false;
        }
    }
    return true;
}

static const char *probe_access(const bhi_segment_t *s)
{
    uintptr_t base = bhi_segment_base(s);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++) {
            bool open = unit_readable(base + i * BH_SLOT_SIZE + ((size_t)os << BH_OS_PAGE_SHIFT));
            CHECK_THAT(open == inv_is_open(s, i, os), "S3: segment %p: OS page %u of slot %u is %s, open_to %u, regions %x, by_slot %d",
                       (const void *)s, os, i, open ? "open" : "closed", s->open_to[i], s->regions[i], s->by_slot);
        }
    }
    return NULL;
}

const char *inv_segment(const bhi_segment_t *s, bool read, bool probe)
{
    const void *p = s;
    uint64_t used = 0;
    const char *text = probe ? probe_access(s) : NULL;
    if (text != NULL)
        return text;
    CHECK_THAT((s->dirty & ~s->free) == 0, "S2: segment %p: a dirty slot is not free", p);
    CHECK_THAT((s->aged & ~s->dirty) == 0, "S4: segment %p: an aged slot is not dirty", p);
    CHECK_THAT(s->purging == 0, "segment %p: purging at rest", p);
    for (unsigned slot = 0; slot < BH_SEGMENT_SLOTS; slot++) {
        unsigned closed = 0;
        for (unsigned os = 0; os < BH_SLOT_OS_PAGES; os++)
            closed |= inv_is_open(s, slot, os) ? 0 : 1u << os;
        unsigned last = 1u << (BH_SLOT_OS_PAGES - 1);
        CHECK_THAT((s->by_mprotect >> slot & 1) == (s->open_to[slot] < BH_SLOT_OS_PAGES) &&
                       (s->by_region >> slot & 1) == (s->regions[slot] != 0) && (s->ended >> slot & 1) == ((closed & last) != 0) &&
                       (s->ready >> slot & 1) == (closed == last),
                   "S5: segment %p: slot %u", p, slot);
    }
    for (uint64_t heads = s->heads; heads != 0; heads &= heads - 1) {
        unsigned slot = bhi_bit_first(heads);
        const bhi_page_t *page = bhi_segment_desc(s, slot);
        CHECK_THAT(page->span_slots >= 1 && slot + page->span_slots <= BH_SEGMENT_SLOTS, "S1: segment %p, slot %u", p, slot);
        uint64_t range = bhi_bit_range(slot, page->span_slots);
        CHECK_THAT((used & range) == 0, "S1: segment %p: spans overlap at slot %u", p, slot);
        used |= range;
        uintptr_t behind = page->start - (bhi_segment_base(s) + slot * BH_SLOT_SIZE);
        CHECK_THAT(behind == 0 || (page->state == BHI_PAGE_LARGE && behind < BH_SLOT_SIZE), "I1: page of slot %u starts elsewhere", slot);
        for (unsigned i = 0; i < page->span_slots; i++)
            CHECK_THAT(page[i].back == i << BH_PAGE_DESC_SHIFT, "S1: segment %p: slot %u points back %u", p, slot + i, page[i].back);
        bool closed = bhi_page_bytes(page) == 0; /* zero-size blocks */
        for (unsigned os = 0; closed && os < page->span_slots * BH_SLOT_OS_PAGES; os++)
            CHECK_THAT(atomic_load(&bhi_state->guard_missed) != 0 || !inv_is_open(s, slot + os / BH_SLOT_OS_PAGES, os % BH_SLOT_OS_PAGES),
                       "S3: page of slot %u has zero-size blocks and is open", slot);
        size_t bytes = closed ? 0 : page->state == BHI_PAGE_LARGE ? behind + page->single_bytes : page->span_slots * BH_SLOT_SIZE - BH_OS_PAGE_SIZE;
        for (size_t at = 0; at < page->span_slots * BH_SLOT_SIZE; at += BH_OS_PAGE_SIZE) {
            unsigned os = (unsigned)(at >> BH_OS_PAGE_SHIFT) % BH_SLOT_OS_PAGES;
            CHECK_THAT(at >= bytes || bhi_large_trapped(page) != BHI_LARGE_OPEN || inv_is_open(s, slot + (unsigned)(at / BH_SLOT_SIZE), os), "S3: page of slot %u is not all open", slot);
        }
        text = inv_page(page);
        if (text != NULL)
            return text;
    }
    CHECK_THAT((used | s->free | s->quarantined) == ~(uint64_t)0 && (used & (s->free | s->quarantined)) == 0 &&
                   (s->free & s->quarantined) == 0, "S1: segment %p: free, quarantined and spans do not partition", p);
    for (uint64_t set = s->quarantined; set != 0 && text == NULL; set &= set - 1)
        text = quarantined_slot(s, bhi_bit_first(set));
    if (text != NULL)
        return text;
    for (uint64_t set = s->free; set != 0 && text == NULL; set &= set - 1)
        text = free_slot(s, bhi_bit_first(set), read);
    unsigned longest = bhi_bit_longest_run(s->free);
    CHECK_THAT(text != NULL || s->bucket == (longest == 0 || s->chunk ? BHI_BUCKETS : bhi_bit_last(longest)), "segment %p: bucket", p);
    CHECK_THAT(text != NULL || !s->moved || s->chunk, "segment %p: moved, and no chunk", p);
    CHECK_THAT(text != NULL || s->dirty == 0 || s->purge_at != 0 ||
                   atomic_load(&bhi_state->advice_refused) != 0,
               "segment %p: dirty and not waiting for a purge", p);
    return text;
}

/* -------------------------------------------------------------------- heaps */

static const char *queue(const bhi_heap_t *heap, const bhi_queue_t *q, int c, size_t *n)
{
    const bhi_page_t *before = NULL;
    for (const bhi_page_t *page = q->first; page != NULL; before = page, page = page->next) {
        const void *p = page;
        CHECK_THAT(page->prev == before, "H1: page %p: prev", p);
        CHECK_THAT(atomic_load(&page->heap) == heap, "H1: page %p is in the queue of another heap", p);
        CHECK_THAT(c >= 0 ? page->state == BHI_PAGE_ACTIVE && page->size_class == c
                          : page->state == BHI_PAGE_FULL || page->state == BHI_PAGE_LARGE,
                   "H1: page %p: state %u, class %u in queue %d", p, page->state, page->size_class, c);
        (*n)++;
    }
    CHECK_THAT(q->last == before, "H1: the last page of queue %d", c);
    return NULL;
}

const char *inv_heap(const bhi_heap_t *heap)
{
    size_t n = 0;
    const char *text = queue(heap, &heap->full, -1, &n);
    for (int c = 0; c < (int)BHI_QUEUES && text == NULL; c++)
        text = queue(heap, &heap->queues[c], c, &n);
    if (text != NULL)
        return text;
    CHECK_THAT(n == heap->page_count, "H1: heap %u: page_count %zu, in queues %zu", heap->id, heap->page_count, n);
    for (size_t w = 0; w < BH_DIRECT_ENTRIES; w++) {
        const bhi_page_t *first = heap->queues[bhi_class_of(w * 8)].first;
        CHECK_THAT(heap->direct[w] == (first != NULL && w != 0 && !bhi_is_hardened() ? first : bhi_heap_empty.direct[0]), "H2: heap %u: direct[%zu]", heap->id, w);
    }
    bhi_page_t *const stacks[2] = {atomic_load(&heap->pending), heap->pending_mine};
    for (int i = 0; i < 2; i++) {
        for (bhi_page_t *page = stacks[i]; page != NULL; page = atomic_load(&page->pending_next))
            CHECK_THAT((atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0, "H3: page %p", (void *)page);
    }
    return NULL;
}

static size_t times_pending(const bhi_page_t *wanted)
{
    size_t n = 0;
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count); id++) {
        const bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        bhi_page_t *const stacks[2] = {atomic_load(&heap->pending), heap->pending_mine};
        for (int i = 0; i < 2; i++) {
            for (bhi_page_t *page = stacks[i]; page != NULL; page = atomic_load(&page->pending_next))
                n += page == wanted;
        }
    }
    return n;
}

/* ---------------------------------------------------------------- all of it */

static const char *arena_runs(const bhi_arena_t *arena)
{
    for (unsigned bin = 0; bin < BHI_RUN_BINS; bin++) {
        const bhi_segment_t *before = NULL;
        for (const bhi_segment_t *s = arena->runs[bin]; s != NULL; before = s, s = s->next) {
            CHECK_THAT(s->prev == before && s->in_run && s->run >= 1 && s[s->run - 1].in_run && s[s->run - 1].run == s->run,
                       "runs: bin %u", bin);
            CHECK_THAT(bhi_bit_last(s->run) == bin || bin == BHI_RUN_BINS - 1, "runs: a run of %u in bin %u", s->run, bin);
        }
    }
    return NULL;
}

/* I7 and the page's place in a heap, for the first page of a span. */
static const char *placed(const bhi_page_t *page, size_t *pages)
{
    (*pages)++;
    bool queued = (atomic_load(&page->remote) & BHI_REMOTE_QUEUED) != 0;
    CHECK_THAT(times_pending(page) == (queued ? 1 : 0), "I7: page %p: queued %d, on %zu stacks", (const void *)page, queued,
               times_pending(page));
    return NULL;
}

static const char *arena(const bhi_arena_t *a, bool read, bool probe, size_t *pages)
{
    const char *text = arena_runs(a);
    bool run_before = false;
    for (uint32_t i = 0; i < a->top && text == NULL;) {
        const bhi_segment_t *s = &a->headers[i];
        uint32_t n = 1;
        if (s->kind == BHI_SEGMENT_SLOTS) {
            CHECK_THAT(!s->in_run, "segment %u is in use and in a run", i);
            text = inv_segment(s, read, probe);
            for (uint64_t heads = s->heads; heads != 0 && text == NULL; heads &= heads - 1)
                text = placed(bhi_segment_desc(s, bhi_bit_first(heads)), pages);
        } else if (s->kind == BHI_SEGMENT_HUGE) {
            n = s->run;
            CHECK_THAT(s->quarantined == 0 || s->quarantined == ~(uint64_t)0, "S1: huge span %u is quarantined in part", i);
            text = s->quarantined != 0 ? free_slot(s, 0, false) : inv_page(bhi_segment_desc(s, 0));
            if (text == NULL && s->quarantined == 0)
                text = placed(bhi_segment_desc(s, 0), pages);
            for (uint32_t k = 1; k < n; k++)
                CHECK_THAT((s[k].kind == BHI_SEGMENT_HUGE_REST || s[k].kind == BHI_SEGMENT_NONE) && !s[k].in_run && bhi_huge_find(a, i + k) == s,
                           "S7: segment %u of a huge span", i + k);
        } else {
            CHECK_THAT(s->in_run && s->run >= 1 && !run_before, "runs: segment %u, kind %u, not one free run", i, s->kind);
            n = s->run;
        }
        run_before = s->in_run;
        i += n;
    }
    return text;
}

const char *inv_all_open_is_open(void)
{
    for (uint32_t k = 0; bhi_state != NULL && k < atomic_load(&bhi_state->arena_count); k++) {
        const bhi_arena_t *a = &bhi_state->arenas[k];
        for (uint32_t i = 0; i < a->top;) {
            const bhi_segment_t *s = &a->headers[i];
            bool slots = s->kind == BHI_SEGMENT_SLOTS;
            /* In a child: another thread was returning all of it. */
            bool lost = (s->free | s->quarantined | s->heads) == 0;
            CHECK_THAT(!slots || lost || inv_open_is_open(s), "S3: an OS page that the header calls accessible is not");
            i += slots ? 1 : s->run;
        }
    }
    return NULL;
}

/* Q1 and Q2; Q3 at rest and in no child of a fork: nothing is on its way. */
static const char *quarantine(void)
{
    const bhi_large_quarantine_t *q = &bhi_state->quarantine;
    size_t bytes = 0, around = 0, marked = 0;
    CHECK_THAT(q->count <= BHI_QUARANTINE_MOST && q->first < BHI_QUARANTINE_MOST, "Q2: %u entries", q->count);
    for (uint32_t i = 0; i < q->count; i++) {
        const bhi_quarantined_t *e = &q->ring[(q->first + i) % BHI_QUARANTINE_MOST];
        uint64_t range = e->huge ? ~(uint64_t)0 : bhi_bit_range(e->slot, e->slots);
        CHECK_THAT(e->segment->kind == (e->huge ? BHI_SEGMENT_HUGE : BHI_SEGMENT_SLOTS) && (e->segment->quarantined & range) == range &&
                       (!e->huge || e->segment->run == e->slots / BH_SEGMENT_SLOTS), "Q1: entry %u", i);
        CHECK_THAT(!e->whole || (!e->huge && e->segment->quarantined == ~(uint64_t)0), "Q4: entry %u", i);
        bytes += e->slots * BH_SLOT_SIZE;
        around += e->whole ? BH_SEGMENT_SIZE - e->slots * BH_SLOT_SIZE : 0;
    }
    for (uint32_t k = 0; k < atomic_load(&bhi_state->arena_count); k++) {
        const bhi_arena_t *a = &bhi_state->arenas[k];
        for (uint32_t i = 0; i < a->top;) {
            const bhi_segment_t *s = &a->headers[i];
            if (s->kind == BHI_SEGMENT_SLOTS)
                marked += bhi_bit_count(s->quarantined) * BH_SLOT_SIZE;
            else if (s->kind == BHI_SEGMENT_HUGE && s->quarantined != 0)
                marked += s->run * BH_SEGMENT_SIZE;
            i += s->kind == BHI_SEGMENT_SLOTS ? 1 : s->run;
        }
    }
    for (const bhi_segment_t *s = bhi_state->huge_refused; s != NULL; s = s->next) {
        CHECK_THAT(s->kind == BHI_SEGMENT_HUGE && s->quarantined == ~(uint64_t)0, "Q3: segment %p is on the list of refused spans", (const void *)s);
        marked -= s->run * BH_SEGMENT_SIZE;
    }
    CHECK_THAT(q->bytes == bytes && bytes <= bhi_process.options.large_quarantine_bytes, "Q2: bytes %zu, in entries %zu", q->bytes, bytes);
    CHECK_THAT(marked >= bytes + around, "Q1: %zu bytes in entries, %zu quarantined", bytes, marked);
    CHECK_THAT(inv_forked || bhi_state->move_refused || marked == bytes + around, "Q3: %zu bytes in entries, %zu quarantined", bytes, marked);
    return NULL;
}

const char *inv_all(bool read, bool probe)
{
    if (bhi_state == NULL)
        return NULL;
    size_t in_segments = 0, in_heaps = 0;
    const char *text = NULL;
    for (uint32_t i = 0; i < atomic_load(&bhi_state->arena_count) && text == NULL; i++)
        text = arena(&bhi_state->arenas[i], read, probe, &in_segments);
    for (uint32_t id = 0; id < atomic_load(&bhi_state->heap_count) && text == NULL; id++) {
        const bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        text = inv_heap(heap);
        in_heaps += heap->page_count;
    }
    if (text != NULL)
        return text;
    text = quarantine();
    if (text != NULL)
        return text;
    CHECK_THAT(in_segments == in_heaps, "H1: %zu pages in segments, %zu in heaps", in_segments, in_heaps);
    return NULL;
}
