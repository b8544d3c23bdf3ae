/* The list of a page: the free blocks that malloc hands out next, in a random order.
 * The one file that knows how an entry is encoded.
 *
 * Threat: the attacker reads and writes all of free blocks, and may write a word or
 * some bytes of control data. The list lies out of line, before the page's map, and
 * free blocks hold nothing of ours: there is no link to overwrite, copy or read. An
 * entry is the block's index XOR a part of the page's key, so that who writes control
 * data without having read it cannot choose the block; and whatever an entry says, a
 * block is handed out only if it goes from free to live in the map (map.h).
 *
 * The list is a stack that only takes: refills (core/refill.c) fill it while it is
 * empty, from the map. Where the map is compiled out it has room for all blocks of the
 * page, its entries are places (bytes from the first block on, by 8) instead of
 * indices, and what is freed gathers at its other end. */
#ifndef BH_HARDEN_LIST_H
#define BH_HARDEN_LIST_H

#include "base/constants.h"
#include "meta/types.h"

#include <string.h>

#define BH_LIST_MOST 64u /* blocks on a list: a word of the map */

/* Entries that a page of `reserved` blocks has room for: whole cache lines. */
BH_INLINE uint32_t bhi_list_room(uint32_t reserved)
{
    return BH_HARDEN_MAP ? BH_LIST_MOST : (reserved + BH_LIST_MOST - 1) / BH_LIST_MOST * BH_LIST_MOST;
}

/* Entry n, counted from the one that goes last; of a page of many blocks. */
BH_INLINE bhi_index_t *bhi_list(const bhi_page_t *page, uint64_t n)
{
    bhi_index_t *end = (bhi_index_t *)(void *)page->map;
    return BH_HARDEN_MAP ? end - BH_LIST_MOST + n : end - 1 - n;
}

/* To an entry and back. */
BH_INLINE bhi_index_t bhi_list_code(const bhi_page_t *page, uint32_t index)
{
    return (bhi_index_t)(BH_HARDEN_LISTS ? index ^ page->key : index);
}

/* What an entry says, which is anything if somebody has written there. */
BH_INLINE uint32_t bhi_list_at(const bhi_page_t *page, uint64_t n)
{
    uint32_t entry = *bhi_list(page, n);
    return BH_HARDEN_LISTS ? entry ^ (uint32_t)page->key : entry;
}

/* Where the block after entry n is, for a guess: of the last entry, what lies before the
 * list. The pool has something before each chunk. */
BH_INLINE uintptr_t bhi_list_guess(const bhi_page_t *page, uint64_t n)
{
    uint32_t entry = __atomic_load_n(bhi_list(page, n) - 1, __ATOMIC_RELAXED);
    return page->start + (BH_HARDEN_LISTS ? entry ^ (uint32_t)page->key : entry) * page->block_size;
}

/* The key of a page that has a list: as wide as an entry, so that nothing of it needs
 * to be cut off where one is read. */
BH_INLINE uint64_t bhi_list_key(uint64_t random)
{
    return (bhi_index_t)random;
}

/* Index of a block on the list. */
BH_INLINE uint32_t bhi_list_index(const bhi_page_t *page, uint32_t n)
{
    return BH_HARDEN_MAP ? bhi_list_at(page, n) : bhi_list_at(page, n) * 8 / page->block_size;
}

/* Owner: the list is `n` of `have` entries now, in a random order. Those in `entries`
 * are of no use then. */
BH_INLINE void bhi_list_fill(bhi_page_t *page, bhi_random_t *random, bhi_index_t *entries, uint32_t have, uint32_t n)
{
    page->listed = (uint16_t)n;
    page->used += n;
    if (BH_HARDEN_MAP)
        page->kept = 0;
    if (BH_HARDEN_RANDOM && BH_HARDEN_MAP) {
        bhi_random_choose(random, entries, have, n, bhi_list(page, 0));
        return;
    }
    bhi_index_t chosen[BH_LIST_MOST], *from = entries + (have - n);
    if (BH_HARDEN_RANDOM)
        bhi_random_choose(random, entries, have, n, from = chosen);
    for (uint32_t i = 0; i < n; i++)
        *bhi_list(page, i) = from[i];
}

/* Owner: of a list just filled only the first n entries, at least one, are on it; the
 * others are kept. */
BH_INLINE void bhi_list_cut(bhi_page_t *page, uint32_t n)
{
    page->kept = (uint16_t)(page->listed - n);
    page->kept_from = (uint16_t)n;
    page->used -= page->kept;
    page->listed = (uint16_t)n;
}

/* Owner: the first of what is kept is free in the map alone. */
BH_INLINE void bhi_list_skip(bhi_page_t *page)
{
    page->kept--;
    page->kept_from++;
}

/* Owner, with an empty list: n > 0 of what was kept are the list now. */
BH_INLINE void bhi_list_resume(bhi_page_t *page, uint32_t n)
{
    memmove(bhi_list(page, 0), bhi_list(page, page->kept_from), n * sizeof(bhi_index_t));
    page->kept_from = (uint16_t)(page->kept_from + n);
    page->kept = (uint16_t)(page->kept - n);
    page->listed = (uint16_t)n;
    page->used += n;
}

/* Without the map: the entry of the n-th block that was freed. */
BH_INLINE bhi_index_t *bhi_list_local(const bhi_page_t *page, uint32_t n)
{
    return (bhi_index_t *)(void *)page->map - page->reserved + n;
}

/* Owner, without the map: a block was freed. */
BH_INLINE void bhi_list_push_local(bhi_page_t *page, uint64_t place)
{
    *bhi_list_local(page, page->local_free++) = bhi_list_code(page, (uint32_t)(place / 8));
}

/* Owner, without the map: what was freed is the list now, the last one to come first. */
BH_INLINE void bhi_list_take_local(bhi_page_t *page)
{
    uint32_t n = page->local_free;
    bhi_index_t *to = bhi_list(page, 0) - n + 1;
    memmove(to, bhi_list_local(page, 0), n * sizeof *to);
    for (uint32_t i = 0; i < n / 2; i++) {
        bhi_index_t one = to[i];
        to[i] = to[n - 1 - i];
        to[n - 1 - i] = one;
    }
    page->listed = (uint16_t)n;
    page->used += n;
    page->local_free = 0;
}

#endif
