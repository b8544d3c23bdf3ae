/* The list of a page: the free blocks that malloc hands out next, in a random order.
 * The one file that knows how an entry is encoded.
 *
 * Threat: the attacker reads and writes all of free blocks, and may write a word or
 * some bytes of control data. The list lies out of line, before the page's map, and
 * free blocks hold nothing of ours: there is no link to overwrite, copy or read. An
 * entry is the block's index XOR a part of the page's key, so that who writes control
 * data without having read it cannot choose the block; and whatever an entry says, a
 * block is handed out only if it goes from free to live in the map (map.h). The entry
 * that malloc takes next is copied to the descriptor, with its block's place (I8).
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
#define BH_LIST_ENTRY (((uint32_t)1 << BH_INDEX_BITS) - 1) /* the bits of an entry */
#define BH_LIST_PLACE (UINT32_MAX >> (2 * BH_INDEX_BITS - 32)) /* and of a place */
_Static_assert(BH_SLOT_SIZE / 8 - 1 <= BH_LIST_ENTRY && BH_SPAN_SLOTS_LARGE * BH_SLOT_SIZE - 1 <= BH_LIST_PLACE, "those of every block");

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

/* What an entry is XORed with: in one register, where malloc needs it twice. */
BH_INLINE uint32_t bhi_list_key(const bhi_page_t *page)
{
    uint32_t key = BH_HARDEN_LISTS ? (uint32_t)page->list_key : 0;
    if (BH_HARDEN_LISTS)
        __asm__("" : "+r"(key));
    return key;
}

/* To an entry and back. */
BH_INLINE bhi_index_t bhi_list_code(const bhi_page_t *page, uint32_t index)
{
    return (bhi_index_t)(index ^ bhi_list_key(page));
}

/* What an entry says, which is anything if somebody has written there. */
BH_INLINE uint32_t bhi_list_at(const bhi_page_t *page, uint64_t n)
{
    return *bhi_list(page, n) ^ bhi_list_key(page);
}

/* What `top` says. */
BH_INLINE uint32_t bhi_list_top(const bhi_page_t *page)
{
    return (uint32_t)page->top ^ bhi_list_key(page);
}

/* Where a block is, in bytes from block 0 on. */
BH_INLINE uint32_t bhi_list_place(const bhi_page_t *page, uint32_t said)
{
    return said * (BH_HARDEN_MAP ? page->block_size : 8);
}

/* What `top` and `top_place` are to be when n blocks are on the list; when none is,
 * anything: what lies beside the list. The pool has something before each chunk. (The thread
 * sanitizer would take it for a race.) */
typedef struct bhi_list_next {
    uint32_t entry;
    uint64_t place;
} bhi_list_next_t;

BH_INLINE bhi_list_next_t bhi_list_next(const bhi_page_t *page, uint64_t n, uint32_t key)
{
    if (BH_SANITIZED && n == 0)
        return (bhi_list_next_t){0, 0};
    bhi_index_t entry = __atomic_load_n(bhi_list(page, n) + (BH_HARDEN_MAP ? -1 : 1), __ATOMIC_RELAXED);
    return (bhi_list_next_t){entry, bhi_list_place(page, entry ^ key)};
}

/* Owner: n blocks are on the list now. */
BH_INLINE void bhi_list_set(bhi_page_t *page, uint64_t n, bhi_list_next_t next)
{
    page->listed = (uint16_t)n;
    page->top = next.entry & BH_LIST_ENTRY;
    page->top_place = next.place & BH_LIST_PLACE;
}

/* Owner: n blocks are on the list, which is as it is to be. */
BH_INLINE void bhi_list_lead(bhi_page_t *page, uint64_t n)
{
    bhi_list_set(page, n, bhi_list_next(page, n, bhi_list_key(page)));
}

/* Owner: the page is new, and its key random. */
BH_INLINE void bhi_list_begin(bhi_page_t *page)
{
    uint64_t random = page->key;
    page->key = 0;
    page->list_key = random & BH_LIST_ENTRY;
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
    page->used += n;
    if (BH_HARDEN_MAP)
        page->kept = 0;
    if (BH_HARDEN_RANDOM && BH_HARDEN_MAP) {
        bhi_random_choose(random, entries, have, n, bhi_list(page, 0));
    } else {
        bhi_index_t chosen[BH_LIST_MOST], *from = entries + (have - n);
        if (BH_HARDEN_RANDOM)
            bhi_random_choose(random, entries, have, n, from = chosen);
        for (uint32_t i = 0; i < n; i++)
            *bhi_list(page, i) = from[i];
    }
    bhi_list_lead(page, n);
}

/* Owner: of a list just filled only the first n entries, at least one, are on it; the
 * others are kept. */
BH_INLINE void bhi_list_cut(bhi_page_t *page, uint32_t n)
{
    page->kept = (uint16_t)(page->listed - n);
    page->kept_from = (uint16_t)n;
    page->used -= page->kept;
    bhi_list_lead(page, n);
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
    page->used += n;
    bhi_list_lead(page, n);
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
    page->used += n;
    page->local_free = 0;
    bhi_list_lead(page, n);
}

#endif
