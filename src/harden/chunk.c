#include "harden/chunk.h"

#include "base/bits.h"
#include "base/checked.h"
#include "harden/guard.h"
#include "meta/arena.h"
#include "os/os.h"

#include <string.h>

#define ALL_SLOTS (~(uint64_t)0)
/* Those that wait in the quarantine take as much as 256 segments besides. */
#define CHUNKS_MOST 1024u
#define ARENA_LEAST ((size_t)4 * CHUNKS_MOST << BH_SEGMENT_SHIFT)
#define SPAN_TRIES 128    /* segments with memory that are looked at, those freed last first */
#define OFFSET_SLOTS 8u   /* places where the first block of a chunk may start */

static bool work(void)
{
    return BH_HARDEN_CHUNKS && bhi_process.guards_by_madvise && !bhi_state->move_refused &&
           bhi_process.block_size >= ARENA_LEAST && bhi_process.options.large_keep_bytes != 0 &&
           atomic_load_explicit(&bhi_settings.purge_delay, memory_order_relaxed) != 0;
}

/* Whether a free chunk with `have` slots of memory suits n better than the best so
 * far: the fewest that are enough, else the most. */
static bool suits(unsigned n, unsigned have, unsigned best)
{
    return have >= n ? best < n || have < best : have > best;
}

bhi_span_t bhi_chunk_span(unsigned n)
{
    bhi_span_t none = {NULL, 0, false, 0};
    if (!work())
        return none;
    bhi_segment_t *best = NULL, *empty = NULL, *s = bhi_state->purge_last;
    for (int i = 0; s != NULL && i < SPAN_TRIES; i++, s = s->purge_prev) {
        if (!s->chunk || s->free != ALL_SLOTS)
            continue;
        if (s->dirty == 0)
            empty = s;
        else if (bhi_bit_first(s->dirty) + n <= BH_SEGMENT_SLOTS && suits(n, bhi_bit_count(s->dirty), best != NULL ? bhi_bit_count(best->dirty) : 0))
            best = s;
    }
    if (best != NULL)
        return bhi_chunk_take(best, bhi_bit_first(best->dirty), n);
    if (empty == NULL && bhi_state->chunks >= CHUNKS_MOST)
        return none;
    s = empty != NULL ? empty : bhi_chunk_new(false);
    uint32_t places = (uint32_t)bhi_min(BH_SEGMENT_SLOTS - n + 1, OFFSET_SLOTS);
    return s != NULL ? bhi_chunk_take(s, bhi_random_below(&bhi_state->random, places), n) : none;
}

/* Nothing else is in the chunk, or about to be; its last OS page, the guard of what
 * lies behind it, is closed and moves along; and where it is one mapping with its
 * neighbours, nothing is locked, for of all of that mapping the kernel would forget it. */
static bool may_leave(const bhi_segment_t *s, unsigned slot, unsigned n)
{
    return s->chunk && (s->free | bhi_bit_range(slot, n)) == ALL_SLOTS && s->by_mprotect == 0 &&
           s->ended >> (BH_SEGMENT_SLOTS - 1) != 0 && (s->moved || !bhi_os_is_locked(bhi_segment_base(s) + ((size_t)slot << BH_SLOT_SHIFT), BH_OS_PAGE_SIZE));
}

/* A move that failed half-way leaves a hole, where the kernel may place mappings of
 * the program. It is closed unless one is there already; whether that one is ours is
 * not known, so the segment is not used any more, and nothing is moved again. */
static void failed(bhi_segment_t *to, int why)
{
    atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
    bhi_state->move_refused = true;
    bhi_chunk_quarantine(to);
    if (why == -EINVAL || why == -EPERM || why == -ENOSYS)
        bhi_chunk_give(to, false);
    else
        bhi_os_reserve(bhi_segment_base(to), BH_SEGMENT_SIZE);
}

/* The headers and marks, after the memory. */
static void note_move(bhi_segment_t *from, bhi_segment_t *to, uint64_t slots)
{
    memcpy(to->open_to, from->open_to, sizeof to->open_to);
    memcpy(to->regions, from->regions, sizeof to->regions);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++)
        bhi_segment_note(to, i);
    const bhi_page_t *had = bhi_segment_desc(from, 0);
    bhi_page_t *has = bhi_segment_desc(to, 0);
    for (uint64_t set = slots; set != 0; set &= set - 1)
        has[bhi_bit_first(set)].residue = had[bhi_bit_first(set)].residue;
    bhi_mappings_recount(bhi_segment_mappings(from, ALL_SLOTS), 0);
    to->moved = true;
    bhi_mappings_recount(0, bhi_segment_mappings(to, ALL_SLOTS));
    bhi_chunk_soil(to, slots);
}

bool bhi_chunk_leave(bhi_segment_t *s, unsigned slot, unsigned n)
{
    size_t most = bhi_process.options.large_keep_bytes >> BH_SLOT_SHIFT;
    if (!work() || bhi_state->dirty_slots + n > most || !bhi_guard_mappings_left() || !may_leave(s, slot, n))
        return false;
    bhi_segment_t *to = bhi_chunk_new(true);
    if (to == NULL)
        return false;
    int r = bhi_os_move(bhi_segment_base(s), bhi_segment_base(to), BH_SEGMENT_SIZE);
    if (r != 0) {
        failed(to, r);
        return false;
    }
    note_move(s, to, s->dirty | bhi_bit_range(slot, n));
    bhi_chunk_quarantine(s);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        s->regions[i] = 0;
        bhi_segment_note(s, i);
    }
    return true;
}
