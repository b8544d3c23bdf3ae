/* Refills: which blocks come next, and in what order. Owns I4 of meta/types.h, and what
 * README says under "Order and reuse". */
#include "base/bits.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/residue.h"
#include "core/sampled.h"
#include "harden/list.h"
#include "harden/spread.h"

#include <string.h>

static bhi_heap_t *heap_of(const bhi_page_t *page)
{
    return atomic_load_explicit(&page->heap, memory_order_relaxed);
}

/* First block of the last word of the map below capacity. */
static uint32_t last_word(const bhi_page_t *page)
{
    return (bhi_page_capacity(page) - 1) & ~(uint32_t)63;
}

/* How many of `have` fresh blocks to list: an OS page's worth of small ones, of
 * others as many as are in use, since each may be the first in its OS page; of those to
 * be cleared first no more than an OS page's worth, for which nobody has to wait long. */
static uint32_t extension(const bhi_page_t *page, uint32_t have)
{
    if (page->block_size <= BH_OS_PAGE_SIZE / 64)
        return have;
    bool cleared = BH_HARDEN_CLEAR && page->memory == BHI_MEMORY_ANY && !bhi_is_hardened();
    uint32_t most = (uint32_t)bhi_max(1, (cleared ? 1 : 4) * BH_OS_PAGE_SIZE / page->block_size);
    if (!BH_HARDEN_RANDOM) /* then they come in the order of their addresses */
        return (uint32_t)bhi_min(have, most);
    uint32_t n = (uint32_t)bhi_max(1, bhi_min(page->used, most));
    return 2 * n >= have && n > 1 ? have : n;
}

/* Of the last word below capacity: blocks that are on the list or were. */
static uint64_t listable(const bhi_page_t *page)
{
    return ~page->fresh & bhi_bit_range(0, bhi_page_capacity(page) - last_word(page));
}

/* Free blocks of one word of the map. */
static uint64_t free_in_word(const bhi_page_t *page, uint32_t w)
{
    uint64_t free = bhi_map_free(page->map, w);
    return w == last_word(page) / 64 ? free & listable(page) : free;
}

/* Clears the blocks of a set, whose first one is block `base`, neighbours together. */
static void clear_blocks(const bhi_page_t *page, uint32_t base, uint64_t set)
{
    while (set != 0) {
        unsigned from = bhi_bit_first(set), n;
        uint64_t rest = ~(set >> from);
        n = rest != 0 ? bhi_bit_first(rest) : 64;
        memset((void *)bhi_page_block(page, base + from), 0, (size_t)n * page->block_size); /* NOLINT: blocks are numbers here */
        set &= ~bhi_bit_range(from, n);
    }
}

/* The page was another owner's: what its free blocks hold goes, before one of them is
 * handed out again. Those that are in use then belong to the program as any other. Not
 * called cold: where threads come and go it is most of their first allocations. */
static BH_NOINLINE void take_over(const bhi_heap_t *heap, bhi_page_t *page)
{
    for (uint32_t w = 0; w < (bhi_page_capacity(page) + 63) / 64; w++)
        clear_blocks(page, w * 64, free_in_word(page, w));
    bhi_residue_own(heap, page);
}

static void ensure_own(const bhi_heap_t *heap, bhi_page_t *page)
{
    if (bhi_is_hardened()) /* free blocks hold nothing */
        return;
    if (BH_HARDEN_CLEAR && BH_HARDEN_MAP && bh_unlikely(!bhi_residue_is_own(heap, page)))
        take_over(heap, page);
}

/* Lists some of the fresh blocks of one word of the map, which are 64 but for the
 * page's last ones: so a page of few blocks hands them out in an order that is any
 * with the same probability, a page of many in one that is so for each 64 of them.
 * Bounded work. */
static void extend(bhi_page_t *page)
{
    bhi_heap_t *heap = heap_of(page);
    ensure_own(heap, page);
    uint32_t capacity = bhi_page_capacity(page);
    if (page->fresh == 0) {
        uint32_t more = page->reserved - capacity < 64 ? page->reserved - capacity : 64;
        page->fresh = bhi_bit_range(0, more);
        if (bhi_is_hardened() && page->memory != BHI_MEMORY_ZERO) /* E2 */
            memset((void *)bhi_page_block(page, capacity), 0, (size_t)more * page->block_size); /* NOLINT: blocks are numbers here */
        atomic_store_explicit(&page->capacity, capacity + more, memory_order_relaxed);
    }
    uint32_t base = last_word(page), have = bhi_bit_count(page->fresh), n = extension(page, have);
    uint32_t cut = (uint32_t)bhi_max(1, bhi_sampled_cut(heap, page->size_class, n));
    if (!BH_HARDEN_MAP)
        n = cut; /* what was freed lies where the others would be kept */
    bhi_random_t *random = &heap->random;
    bhi_index_t entries[64], first = BH_HARDEN_MAP ? bhi_list_code(page, base) : (bhi_index_t)base;
    if (n == 1) {
        entries[0] = (bhi_index_t)(first ^ bhi_bit_nth(page->fresh, BH_HARDEN_RANDOM ? bhi_random_below(random, have) : 0));
        have = 1;
    } else {
        bhi_spread(entries, page->fresh, first);
    }
    for (uint32_t i = 0; !BH_HARDEN_MAP && i < have; i++)
        entries[i] = bhi_list_code(page, entries[i] * page->block_size / 8);
    bhi_list_fill(page, random, entries, have, n);
    uint64_t listed = 0;
    for (uint32_t i = 0; i < n; i++)
        listed |= (uint64_t)1 << (bhi_list_index(page, i) - base);
    page->fresh &= ~listed;
    if (BH_HARDEN_CLEAR && page->memory == BHI_MEMORY_ANY && !bhi_is_hardened())
        clear_blocks(page, base, listed);
    page->free_zero = page->memory == BHI_MEMORY_ZERO || (BH_HARDEN_CLEAR && page->memory == BHI_MEMORY_ANY);
    bhi_age_list(&heap->age[page->size_class], n);
    if (bh_unlikely(cut != n))
        bhi_list_cut(page, cut);
}

/* Free blocks that are not listed. */
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
BH_INLINE uint32_t enough(bhi_heap_t *heap, const bhi_page_t *page)
{
    uint32_t least = bhi_page_reuse_least(page);
    if (least == 1)
        return 1;
    unsigned bits = bhi_bit_last(least); /* at least half of `least`, and less than all of it */
    return least + bhi_random_bits(&heap->random, bits);
}

#define GATHER_MOST (BH_LIST_MOST + 63u)

/* Lists n of `have` entries, which have room for n more behind them: neighbours, from any of
 * them on. The order they come in is the list's, and any. */
static void fill_from(bhi_page_t *page, bhi_index_t *entries, uint32_t have, uint32_t n)
{
    bhi_random_t *random = &heap_of(page)->random;
    if (have > n && BH_HARDEN_RANDOM) {
        memcpy(entries + have, entries, n * sizeof *entries);
        entries += bhi_random_below(random, have);
        have = n;
    }
    bhi_list_fill(page, random, entries, have, n);
}

/* Lists n free blocks, from a random word of the map on. */
static void gather(bhi_heap_t *heap, bhi_page_t *page, uint32_t n)
{
    ensure_own(heap, page);
    bhi_index_t entries[GATHER_MOST + BH_LIST_MOST], *end = entries;
    uint32_t words = (bhi_page_capacity(page) + 63) / 64;
    uint32_t w = words > 1 && BH_HARDEN_RANDOM ? bhi_random_below(&heap->random, words) : 0;
    end = bhi_spread_free(end, n, &(bhi_spread_of_t){page->map, words, w, listable(page), bhi_list_code(page, 0), {0, 0}});
    uint32_t have = (uint32_t)(end - entries);
    fill_from(page, entries, have, (uint32_t)bhi_min(have, n));
    page->free_zero = false;
}

/* Profile hardened: free blocks that have waited, from word w of the map on. */
static bhi_spread_of_t old_of(const bhi_heap_t *heap, const bhi_page_t *page, uint32_t w)
{
    bhi_spread_of_t of = {page->map, bhi_hard_words(bhi_page_capacity(page)), w, listable(page), bhi_list_code(page, 0), {0, 0}};
    bhi_hard_young(heap, page->size_class, of.young);
    return of;
}

/* The same: lists them, `least` or more, from a random word of the map on. */
static bhi_reuse_t list_old(bhi_heap_t *heap, bhi_page_t *page, uint32_t least)
{
    bhi_index_t entries[GATHER_MOST + BH_LIST_MOST], *end = entries;
    uint32_t words = (bhi_page_capacity(page) + 63) / 64;
    bhi_spread_of_t of = old_of(heap, page, words > 1 && BH_HARDEN_RANDOM ? bhi_random_below(&heap->random, words) : 0);
    end = bhi_spread_old(end, BH_LIST_MOST, &of);
    uint32_t have = (uint32_t)(end - entries), n = (uint32_t)bhi_min(have, BH_LIST_MOST);
    if (have < least)
        return BHI_REUSE_NONE;
    uint32_t cut = bhi_sampled_cut(heap, page->size_class, n);
    if (cut == 0)
        return BHI_REUSE_DUE;
    fill_from(page, entries, have, n);
    bhi_age_list(&heap->age[page->size_class], n);
    if (bh_unlikely(cut < n))
        bhi_list_cut(page, cut);
    return BHI_REUSE_DONE;
}

/* Without the map: what was freed. */
static bhi_reuse_t take_local(bhi_page_t *page)
{
    if (page->local_free == 0) /* that of the empty page too, which nobody can write to */
        return BHI_REUSE_NONE;
    if (bhi_sampled_due(heap_of(page), page->size_class))
        return BHI_REUSE_DUE;
    page->free_zero = false;
    bhi_list_take_local(page);
    return BHI_REUSE_DONE;
}

/* Puts what is kept on the empty list, but for what another allocation that is to be
 * guarded cuts off again; or the next one is. */
static bhi_reuse_t resume(bhi_page_t *page)
{
    uint32_t kept = page->kept, n;
    if (kept > BH_LIST_MOST || page->kept_from > BH_LIST_MOST - kept)
        bhi_violation(BHI_CORRUPT_LIST, page->start); /* somebody wrote there: it would end in the map */
    bhi_heap_t *heap = heap_of(page);
    if (bhi_sampled_due(heap, page->size_class) || (n = bhi_sampled_cut(heap, page->size_class, kept)) == 0)
        return BHI_REUSE_DUE;
    bhi_list_resume(page, n);
    return BHI_REUSE_DONE;
}

void bhi_page_go_on(bhi_page_t *page)
{
    if (!BH_HARDEN_MAP || page->kept == 0 || page->listed != 0)
        return;
    if (page->kept > 1)
        bhi_list_skip(page);
    resume(page);
}

/* Lists n free blocks, of which those behind the next guarded allocation are kept. */
BH_INLINE bhi_reuse_t list_some(bhi_heap_t *heap, bhi_page_t *page, uint32_t n)
{
    uint32_t cut = bhi_sampled_cut(heap, page->size_class, n);
    if (cut == 0)
        return BHI_REUSE_DUE;
    gather(heap, page, n);
    if (bh_unlikely(cut < page->listed))
        bhi_list_cut(page, cut);
    return bh_likely(page->listed != 0) ? BHI_REUSE_DONE : BHI_REUSE_NONE;
}

bhi_reuse_t bhi_page_reuse(bhi_page_t *page)
{
    if (!BH_HARDEN_MAP)
        return take_local(page);
    if (bh_unlikely(page->kept != 0))
        return resume(page);
    uint32_t spare = spare_blocks(page);
    bhi_heap_t *heap = heap_of(page);
    uint32_t least = spare != 0 ? enough(heap, page) : 1;
    if (spare < least)
        return BHI_REUSE_NONE;
    return bhi_is_hardened() ? list_old(heap, page, least) : list_some(heap, page, (uint32_t)bhi_min(spare, BH_LIST_MOST));
}

bool bhi_page_waits(const bhi_page_t *page)
{
    return bhi_is_hardened() && page->block_size != 0 && spare_blocks(page) != 0;
}

static void collect_announced(bhi_page_t *page)
{
    /* Groups only: the page may be on a pending stack, so QUEUED stays. */
    if ((atomic_load_explicit(&page->remote, memory_order_relaxed) >> 32) != 0)
        bhi_page_collect(page, (uint32_t)(atomic_fetch_and(&page->remote, BHI_REMOTE_QUEUED) >> 32));
}

bool bhi_page_has_free(bhi_page_t *page)
{
    collect_announced(page);
    if (page->size_class == BHI_CLASS_ZERO || !BH_HARDEN_MAP)
        return page->listed != 0 || page->used < page->reserved;
    return page->listed != 0 || spare_blocks(page) != 0 || has_fresh(page);
}

bool bhi_page_refill(bhi_page_t *page)
{
    if (page->listed != 0)
        return true;
    collect_announced(page);
    if (page->size_class == BHI_CLASS_ZERO)
        return page->used < page->reserved;
    if (bhi_page_reuse(page) == BHI_REUSE_DONE)
        return true;
    if (has_fresh(page)) {
        extend(page);
        return true;
    }
    uint32_t n = (uint32_t)bhi_min(spare_blocks(page), BH_LIST_MOST);
    if (!BH_HARDEN_MAP || n == 0)
        return false;
    return (bhi_is_hardened() ? list_old(heap_of(page), page, 1) : list_some(heap_of(page), page, n)) == BHI_REUSE_DONE;
}

bool bhi_page_is_sparse(bhi_page_t *page, uint32_t *spare)
{
    *spare = 0;
    if (!BH_HARDEN_RANDOM || page->size_class == BHI_CLASS_ZERO || page->listed != 0 ||
        (BH_HARDEN_MAP && page->kept != 0) || has_fresh(page))
        return false;
    collect_announced(page);
    uint32_t free = spare_blocks(page);
    uint32_t least = bhi_page_reuse_least(page);
    *spare = free;
    if (free != 0 && bhi_is_hardened()) {
        bhi_spread_of_t of = old_of(heap_of(page), page, 0);
        *spare = bhi_spread_count_old(least, &of);
    }
    return free != 0 && *spare < least;
}
