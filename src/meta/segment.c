/* Segments of slots: where spans lie and which free memory is still dirty.
 * Owns S1 and S2; access and guards (S3) belong to harden/guard.c but for
 * opening a fresh segment. */
#include "meta/segment.h"

#include "base/bits.h"
#include "base/checked.h"
#include "meta/arena.h"
#include "os/os.h"

#include <string.h>

BH_THREAD_LOCAL bool bhi_forking;

#define SPAN_TRIES 4 /* segments looked at in a bucket that may or may not fit */
#define ALL_SLOTS (~(uint64_t)0)

/* ------------------------------------------------------------- bucket lists */

static void bucket_remove(bhi_segment_t *s)
{
    if (s->bucket >= BHI_BUCKETS)
        return;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        bhi_state->buckets[s->bucket] = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    s->bucket = BHI_BUCKETS;
}

static void bucket_update(bhi_segment_t *s)
{
    unsigned longest = s->chunk ? 0 : bhi_bit_longest_run(s->free);
    unsigned bucket = longest == 0 ? BHI_BUCKETS : bhi_bit_last(longest);
    if (bucket == s->bucket)
        return;
    bucket_remove(s);
    if (bucket >= BHI_BUCKETS)
        return;
    s->bucket = (uint8_t)bucket;
    s->prev = NULL;
    s->next = bhi_state->buckets[bucket];
    if (s->next != NULL)
        s->next->prev = s;
    bhi_state->buckets[bucket] = s;
}

/* -------------------------------------------------------------- purge queue */

static void purge_publish_next(void)
{
    uint64_t at = bhi_state->purge_first != NULL ? bhi_state->purge_first->purge_at : 0;
    atomic_store_explicit(&bhi_state->purge_next_at, at, memory_order_relaxed);
}

static void purge_unlink(bhi_segment_t *s)
{
    if (s->purge_at == 0)
        return;
    if (s->purge_prev != NULL)
        s->purge_prev->purge_next = s->purge_next;
    else
        bhi_state->purge_first = s->purge_next;
    if (s->purge_next != NULL)
        s->purge_next->purge_prev = s->purge_prev;
    else
        bhi_state->purge_last = s->purge_prev;
    s->purge_at = 0;
    purge_publish_next();
}

static void purge_link(bhi_segment_t *s)
{
    if (s->purge_at != 0)
        return;
    s->purge_at = bhi_os_now_ms() + atomic_load_explicit(&bhi_settings.purge_delay, memory_order_relaxed) + 1; /* never 0 */
    s->purge_next = NULL;
    s->purge_prev = bhi_state->purge_last;
    if (s->purge_prev != NULL)
        s->purge_prev->purge_next = s;
    else
        bhi_state->purge_first = s;
    bhi_state->purge_last = s;
    purge_publish_next();
}

static void set_dirty(bhi_segment_t *s, uint64_t dirty)
{
    bhi_state->dirty_slots += bhi_bit_count(dirty);
    bhi_state->dirty_slots -= bhi_bit_count(s->dirty);
    s->dirty = dirty;
}

/* ------------------------------------------------------------------ opening */

void bhi_segment_note(bhi_segment_t *s, unsigned slot)
{
    const unsigned last = BH_SLOT_OS_PAGES - 1;
    unsigned open_to = s->open_to[slot], regions = s->regions[slot];
    bool ended = open_to <= last || (regions >> last & 1) != 0;
    bhi_bit_put(&s->by_mprotect, slot, open_to < BH_SLOT_OS_PAGES);
    bhi_bit_put(&s->by_region, slot, regions != 0);
    bhi_bit_put(&s->ended, slot, ended);
    bhi_bit_put(&s->ready, slot, ended && open_to >= last && (regions & ((1u << last) - 1)) == 0);
}

/* Opens a fresh segment at once where guard regions work on it; slot by slot
 * where they do not (older kernel, sandbox, locked memory: there every page
 * opened is a page in memory) or where the kernel will not give 4 MiB. */
static void open_segment(bhi_segment_t *s)
{
    uintptr_t base = bhi_segment_base(s);
    uintptr_t last = base + BH_SEGMENT_SIZE - BH_OS_PAGE_SIZE;
    s->by_slot = true;
    if (!BH_HARDEN_GUARDS || bhi_process.options.guard == BHI_GUARD_NONE) {
        s->by_slot = bhi_os_open(base, BH_SEGMENT_SIZE) != 0;
    } else if (bhi_process.guards_by_madvise) {
        if (bhi_os_guard_install(last, BH_OS_PAGE_SIZE) != 0) {
            atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
        } else if (bhi_os_open(base, BH_SEGMENT_SIZE) == 0) {
            s->by_slot = false;
        } else {
            bhi_os_guard_remove(last, BH_OS_PAGE_SIZE);
        }
    }
    memset(s->open_to, s->by_slot ? 0 : (int)BH_SLOT_OS_PAGES, sizeof s->open_to);
    memset(s->regions, 0, sizeof s->regions);
    s->by_mprotect = s->ended = s->by_slot ? ALL_SLOTS : 0;
    if (!s->by_slot && BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE) {
        s->regions[BH_SEGMENT_SLOTS - 1] = (uint16_t)(1u << (BH_SLOT_OS_PAGES - 1));
        bhi_segment_note(s, BH_SEGMENT_SLOTS - 1);
    }
}

static void segment_init(bhi_segment_t *s)
{
    memset(s, 0, offsetof(bhi_segment_t, open_to));
    s->kind = BHI_SEGMENT_SLOTS;
    s->bucket = BHI_BUCKETS;
    s->free = ALL_SLOTS;
}

static bhi_segment_t *new_segment(void)
{
    bhi_segment_t *s = bhi_arena_take_run(1, 1);
    if (s == NULL)
        return NULL;
    segment_init(s);
    open_segment(s);
    bucket_update(s);
    return s;
}

void bhi_segment_adopt_huge(bhi_segment_t *first, uint32_t n, size_t accessible, bool dirty)
{
    for (uint32_t i = 0; i < n; i++) {
        bhi_segment_t *s = first + i;
        segment_init(s);
        s->by_slot = true;
        memset(s->regions, 0, sizeof s->regions);
        for (unsigned slot = 0; slot < BH_SEGMENT_SLOTS; slot++) {
            size_t pages = accessible >> BH_OS_PAGE_SHIFT;
            if (pages > BH_SLOT_OS_PAGES)
                pages = BH_SLOT_OS_PAGES;
            s->open_to[slot] = (uint8_t)pages;
            bhi_segment_note(s, slot);
            accessible -= pages << BH_OS_PAGE_SHIFT;
            if (pages > 0 && dirty)
                set_dirty(s, s->dirty | (uint64_t)1 << slot);
        }
        bhi_mappings_recount(0, bhi_segment_mappings(s, ALL_SLOTS));
        bucket_update(s);
        if (s->dirty != 0)
            purge_link(s);
    }
}

size_t bhi_segment_mappings(const bhi_segment_t *s, uint64_t slots)
{
    size_t cost = s->moved && slots == ALL_SLOTS ? 2 : 0;
    for (slots &= s->by_mprotect; slots != 0; slots &= slots - 1) {
        unsigned from = s->open_to[bhi_bit_first(slots)];
        cost += from > 0 || !s->by_slot ? 2 : 0;
    }
    return cost;
}

void bhi_mappings_recount(size_t before, size_t after)
{
    bhi_state->mappings += after;
    bhi_state->mappings -= bhi_min(before, bhi_state->mappings);
}

/* -------------------------------------------------------------------- spans */

/* Bits of the slots whose address is a multiple of align_slots slots. */
static uint64_t aligned_slots(unsigned align_slots)
{
    uint64_t set = 1;
    for (unsigned i = align_slots; i < BH_SEGMENT_SLOTS; i += align_slots)
        set |= (uint64_t)1 << i;
    return set;
}

static uint64_t span_starts(const bhi_segment_t *s, unsigned n, uint64_t aligned)
{
    return bhi_bit_run_starts(s->free, n) & aligned;
}

/* Those whose memory the process still has: taking them saves a page fault for
 * each of their OS pages. */
static uint64_t warm_starts(const bhi_segment_t *s, unsigned n, uint64_t aligned)
{
    return bhi_bit_run_starts(s->dirty, n) & aligned;
}

/* Those of `starts` whose guards are in place for a page with many blocks, and
 * no others are in the way: taking them saves kernel calls. */
static uint64_t ready_starts(const bhi_segment_t *s, unsigned n, uint64_t starts)
{
    uint64_t whole = n > 1 ? bhi_bit_run_starts(~(s->by_mprotect | s->by_region), n - 1) : ALL_SLOTS;
    return starts & whole & s->ready >> (n - 1) & (s->ended << 1 | 1);
}

static void take_slots(bhi_segment_t *s, uint64_t range)
{
    s->free &= ~range;
    set_dirty(s, s->dirty & ~range);
    s->aged &= ~range;
    if (s->dirty == 0)
        purge_unlink(s);
    bucket_update(s);
}

bool bhi_span_is_free(const bhi_segment_t *s, unsigned slot, unsigned n)
{
    uint64_t range = bhi_bit_range(slot, n);
    return s->kind == BHI_SEGMENT_SLOTS && !s->chunk && (s->free & range) == range;
}

bhi_span_t bhi_span_take_at(bhi_segment_t *s, unsigned slot, unsigned n)
{
    uint64_t range = bhi_bit_range(slot, n);
    bhi_span_t span = {s, slot, (s->dirty & range) == 0, (s->dirty & range) >> slot};
    s->heads |= (uint64_t)1 << slot;
    take_slots(s, range);
    return span;
}

static bhi_span_t take_from(bhi_segment_t *s, unsigned n, uint64_t starts)
{
    unsigned which = bhi_random_below(&bhi_state->random, bhi_bit_count(starts));
    return bhi_span_take_at(s, bhi_bit_nth(starts, which), n);
}

bool bhi_span_grow(bhi_segment_t *s, unsigned slot, unsigned n, unsigned to, uint64_t *dirty)
{
    if (slot + to > BH_SEGMENT_SLOTS)
        return false;
    uint64_t range = bhi_bit_range(slot + n, to - n);
    if ((s->free & range) != range)
        return false;
    *dirty = (s->dirty & range) >> (slot + n);
    take_slots(s, range);
    return true;
}

bhi_span_t bhi_span_take_in_new_segment(unsigned n, unsigned align_slots)
{
    bhi_segment_t *s = new_segment();
    if (s == NULL)
        return (bhi_span_t){NULL, 0, false, 0};
    return take_from(s, n, span_starts(s, n, aligned_slots(align_slots)));
}

bhi_span_t bhi_span_take(unsigned n, unsigned align_slots)
{
    uint64_t aligned = align_slots <= 1 ? ALL_SLOTS : aligned_slots(align_slots);
    bhi_segment_t *warm = NULL, *cold = NULL;
    for (unsigned bucket = bhi_bit_last(n); bucket < BHI_BUCKETS; bucket++) {
        bhi_segment_t *s = bhi_state->buckets[bucket];
        for (int i = 0; s != NULL && i < SPAN_TRIES; i++, s = s->next) {
            uint64_t ready = ready_starts(s, n, warm_starts(s, n, aligned));
            if (ready != 0)
                return take_from(s, n, ready);
            if (warm == NULL && warm_starts(s, n, aligned) != 0)
                warm = s;
            if (cold == NULL && span_starts(s, n, aligned) != 0)
                cold = s;
        }
    }
    if (warm != NULL)
        return take_from(warm, n, warm_starts(warm, n, aligned));
    if (cold != NULL)
        return take_from(cold, n, span_starts(cold, n, aligned));
    return bhi_span_take_in_new_segment(n, align_slots);
}

bhi_span_t bhi_span_take_clean(unsigned n)
{
    for (unsigned bucket = bhi_bit_last(n); bucket < BHI_BUCKETS; bucket++) {
        bhi_segment_t *s = bhi_state->buckets[bucket];
        for (int i = 0; s != NULL && i < SPAN_TRIES; i++, s = s->next) {
            uint64_t starts = bhi_bit_run_starts(s->free & ~s->dirty, n);
            if (starts != 0)
                return take_from(s, n, starts);
        }
    }
    return (bhi_span_t){NULL, 0, false, 0};
}

void bhi_span_quarantine(bhi_segment_t *s, unsigned slot, unsigned n)
{
    s->heads &= ~((uint64_t)1 << slot);
    s->quarantined |= bhi_bit_range(slot, n);
}

void bhi_span_give(bhi_segment_t *s, unsigned slot, unsigned n, bool dirty)
{
    uint64_t range = bhi_bit_range(slot, n);
    s->free |= range;
    s->quarantined &= ~range;
    s->heads &= ~((uint64_t)1 << slot);
    if (dirty)
        set_dirty(s, s->dirty | range);
    bucket_update(s);
    if (s->dirty != 0 || s->free == ALL_SLOTS)
        purge_link(s);
}

/* ------------------------------------------------------------------- chunks */

bhi_segment_t *bhi_chunk_new(bool bare)
{
    bhi_segment_t *s = bhi_arena_take_run(1, 1);
    if (s == NULL)
        return NULL;
    segment_init(s);
    s->chunk = true;
    bhi_state->chunks++;
    if (bare) {
        memset(s->open_to, 0, sizeof s->open_to);
        memset(s->regions, 0, sizeof s->regions);
        s->by_mprotect = s->ended = ALL_SLOTS;
    } else {
        open_segment(s);
    }
    return s;
}

bhi_span_t bhi_chunk_take(bhi_segment_t *s, unsigned slot, unsigned n)
{
    return take_from(s, n, (uint64_t)1 << slot);
}

void bhi_chunk_quarantine(bhi_segment_t *s)
{
    take_slots(s, ALL_SLOTS);
    purge_unlink(s);
    s->heads = 0;
    s->quarantined = ALL_SLOTS;
    bhi_state->chunks -= s->chunk;
    s->chunk = s->moved = false;
}

static void give_segment(bhi_segment_t *s)
{
    bhi_state->chunks -= s->chunk;
    s->chunk = s->moved = false;
    bhi_arena_give_run(s, 1);
}

void bhi_chunk_give(bhi_segment_t *s, bool dirty)
{
    bool shut = !dirty;
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++)
        shut &= s->open_to[i] == 0;
    s->quarantined = 0;
    if (shut)
        bhi_arena_give_run(s, 1);
    else
        bhi_span_give(s, 0, BH_SEGMENT_SLOTS, dirty);
}

void bhi_chunk_soil(bhi_segment_t *s, uint64_t slots)
{
    set_dirty(s, slots);
    purge_link(s);
}

/* ------------------------------------------------------------------ purging */

/* Runs of consecutive slots. */
typedef struct runs {
    uintptr_t at[BH_OS_PURGE_MOST];
    size_t size[BH_OS_PURGE_MOST];
    uint64_t slots[BH_OS_PURGE_MOST];
    unsigned n;
} runs_t;
_Static_assert(BH_OS_PURGE_MOST >= BH_SEGMENT_SLOTS / 2, "every other slot");

static void find_runs(const bhi_segment_t *s, uint64_t slots, runs_t *runs)
{
    runs->n = 0;
    while (slots != 0) {
        unsigned first = bhi_bit_first(slots);
        unsigned n = 1;
        while (first + n < BH_SEGMENT_SLOTS && (slots >> (first + n) & 1) != 0)
            n++;
        runs->at[runs->n] = bhi_segment_base(s) + ((size_t)first << BH_SLOT_SHIFT);
        runs->size[runs->n] = (size_t)n << BH_SLOT_SHIFT;
        runs->slots[runs->n] = bhi_bit_range(first, n);
        slots &= ~runs->slots[runs->n++];
    }
}

/* Purges the accessible parts of `slots`; returns the slots that are now zero. With one
 * call if the kernel lets us: other processors are then interrupted once, which takes
 * the larger part of the time. */
static uint64_t purge_slots(bhi_segment_t *s, uint64_t slots, size_t *bytes)
{
    runs_t runs;
    uint64_t zero = 0;
    find_runs(s, slots, &runs);
    bool many = runs.n > 1 && bhi_process.guards_by_madvise; /* a kernel that knows either */
    unsigned done = many ? (unsigned)bhi_os_purge_many(runs.at, runs.size, runs.n) : 0;
    for (unsigned i = 0; i < runs.n; i++) {
        if (i < done || bhi_os_purge(runs.at[i], runs.size[i]) == 0) {
            zero |= runs.slots[i];
            *bytes += runs.size[i];
        } else {
            atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
        }
    }
    return zero;
}

/* What is due: slots that were free and dirty when this looked at the segment
 * last, and ever since. A slot that the program takes and gives back in between
 * is not: it would only be faulted in again. */
static uint64_t due_slots(bhi_segment_t *s, bool all)
{
    uint64_t due = all ? s->dirty : s->aged;
    s->aged = s->dirty & ~due;
    if (s->free == ALL_SLOTS && due == s->dirty)
        return ALL_SLOTS;
    return due;
}

/* The lock is given up around kernel calls. Meanwhile the slots belong to
 * nobody (`purging`), and purge_busy keeps other purgers away. */
static size_t purge_segment(bhi_segment_t *s, bool all)
{
    size_t bytes = 0;
    s->purging = due_slots(s, all);
    bool whole = s->purging == ALL_SLOTS;
    s->free &= ~s->purging;
    set_dirty(s, s->dirty & ~s->purging);
    purge_unlink(s);
    if (s->dirty != 0)
        purge_link(s);
    if (s->purging == 0)
        return 0;
    bucket_update(s);
    bhi_state->purge_busy = s;
    bhi_state_unlock();
    bool gone = whole && bhi_os_rereserve(bhi_segment_base(s), BH_SEGMENT_SIZE) == 0;
    uint64_t zero = gone ? ALL_SLOTS : purge_slots(s, s->purging, &bytes);
    bhi_state_lock();
    bhi_state->purge_busy = NULL;
    if (gone) {
        s->purging = 0;
        bhi_mappings_recount(bhi_segment_mappings(s, ALL_SLOTS), 0);
        give_segment(s);
        return BH_SEGMENT_SIZE;
    }
    /* What the kernel refused stays dirty; it is tried again with the next span
     * that is given back here. */
    s->free |= s->purging;
    set_dirty(s, s->dirty | (s->purging & ~zero));
    s->purging = 0;
    bucket_update(s);
    return bytes;
}

size_t bhi_purge(uint64_t now, bool all, unsigned most)
{
    size_t bytes = 0;
    while (most-- > 0 && bhi_state->purge_busy == NULL && bhi_state->purge_first != NULL &&
           (all || bhi_state->purge_first->purge_at <= now))
        bytes += purge_segment(bhi_state->purge_first, all);
    return bytes;
}

/* The queue stays in the order of its times: none of those in it is later than
 * that of a segment which joins from now on. */
static void purge_no_later_than(uint64_t latest)
{
    for (bhi_segment_t *s = bhi_state->purge_first; s != NULL; s = s->purge_next) {
        if (s->purge_at > latest)
            s->purge_at = latest;
    }
    purge_publish_next();
}

bool bhi_purge_set_delay(uint32_t delay)
{
    bhi_state_lock();
    bool open = bhi_settings_open();
    if (open) {
        atomic_store_explicit(&bhi_settings.purge_delay, delay, memory_order_relaxed);
        bhi_settings_close();
        purge_no_later_than(bhi_os_now_ms() + delay + 1);
    }
    bhi_state_unlock();
    return open;
}

void bhi_purge_after_fork(void)
{
    bhi_segment_t *s = bhi_state->purge_busy;
    bhi_state->purge_busy = NULL;
    if (s == NULL)
        return;
    /* The parent's thread may have been anywhere in its kernel calls: the range
     * may already be without access, so leave it alone for good. 4 MiB of
     * address space of the child is the price; no memory. */
    s->purging = 0;
}
