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
 * The list is a stack that only takes: refills (core/page.c) fill it while it is
 * empty, from the map. Where the map is compiled out it has room for all blocks of the
 * page, and what is freed gathers at its other end. */
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

/* First entry; of a page of many blocks. */
BH_INLINE bhi_index_t *bhi_list(const bhi_page_t *page)
{
    return (bhi_index_t *)(void *)page->map - bhi_list_room(page->reserved);
}

BH_INLINE bhi_index_t bhi_list_code(const bhi_page_t *page, uint32_t index)
{
    return (bhi_index_t)(BH_HARDEN_LISTS ? index ^ page->key : index);
}

/* Index of a block on the list, or of none, if somebody has written there. */
BH_INLINE uint32_t bhi_list_at(const bhi_page_t *page, uint32_t n)
{
    return bhi_list_code(page, bhi_list(page)[n]);
}

/* Owner: the list is these entries now, the last one to come first. */
BH_INLINE void bhi_list_fill(bhi_page_t *page, const bhi_index_t *entries, uint32_t n)
{
    memcpy(bhi_list(page), entries, n * sizeof *entries);
    page->listed = n;
}

/* Owner, without the map: a block was freed. */
BH_INLINE void bhi_list_push_local(bhi_page_t *page, uint32_t index)
{
    bhi_list(page)[bhi_list_room(page->reserved) - ++page->local_free] = bhi_list_code(page, index);
}

/* Owner, without the map: what was freed is the list now. */
BH_INLINE void bhi_list_take_local(bhi_page_t *page)
{
    uint32_t n = page->local_free;
    bhi_index_t *list = bhi_list(page), *from = list + bhi_list_room(page->reserved) - n;
    for (uint32_t i = 0; i < n; i++)
        list[i] = from[i];
    page->listed = n;
    page->local_free = 0;
}

#endif
