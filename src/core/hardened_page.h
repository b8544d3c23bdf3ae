/* What profile hardened keeps for each page in its chunk of control data. Around the
 * list and the map, so that what malloc and free want lies together: before the list the key
 * of the page's canaries, and before that the requested size of each block, backwards;
 * behind the map for each of its words who is ready. Of a single block all is behind the
 * map, in its cache line. See hardened.h for what it means. */
#ifndef BH_CORE_HARDENED_PAGE_H
#define BH_CORE_HARDENED_PAGE_H

#include "core/page.h"
#include "harden/canary.h"
#include "harden/list.h"

/* Atomic: blocks of a word of the map that other threads have freed and wiped. */
typedef _Atomic(uint64_t) bhi_hard_ready_t;

#define BHI_HARD_SINGLE_BYTES (sizeof(bhi_hard_ready_t) + sizeof(uint64_t))
_Static_assert(BHI_MAP_SINGLE_BYTES + BHI_HARD_SINGLE_BYTES <= BH_CACHE_LINE, "a single block's is taken as a map alone");

BH_INLINE uint32_t bhi_hard_words(uint32_t blocks)
{
    return (blocks + 63) / 64;
}

BH_INLINE bhi_hard_ready_t *bhi_hard_ready(const bhi_page_t *page, uint32_t word)
{
    size_t map = page->block_size != 0 ? bhi_map_bytes(page->reserved) : BHI_MAP_SINGLE_BYTES;
    return (bhi_hard_ready_t *)((uintptr_t)page->map + map) + word; /* NOLINT: control data is addressed by number */
}

/* Of a page of blocks, whose descriptor has the key of its list. */
BH_INLINE uint64_t *bhi_hard_key(const bhi_page_t *page)
{
    return (uint64_t *)(void *)(page->map - BH_LIST_MOST * sizeof(bhi_index_t) / sizeof(bhi_map_block_t)) - 1;
}

/* The key of the canaries of any page. */
BH_INLINE uint64_t bhi_hard_canaries(const bhi_page_t *page)
{
    return page->block_size != 0 ? *bhi_hard_key(page) : page->key;
}

/* Where the sizes of a page of blocks end. */
BH_INLINE uint8_t *bhi_hard_sizes(const bhi_page_t *page)
{
    return (uint8_t *)(void *)bhi_hard_key(page);
}

/* Requested sizes are below that of the block. */
BH_INLINE unsigned bhi_hard_width(size_t block_size)
{
    return block_size <= UINT8_MAX + 1 ? 1 : block_size <= UINT16_MAX + 1 ? 2 : 4;
}

/* Bytes that the program asked for. Any thread that may free the block, of a page of
 * blocks. */
BH_INLINE size_t bhi_hard_size(const bhi_page_t *page, size_t block_size, uint32_t index)
{
    const uint8_t *end = bhi_hard_sizes(page);
    switch (bhi_hard_width(block_size)) {
    case 1: return *(end - 1 - index);
    case 2: return *((const uint16_t *)(const void *)end - 1 - index);
    default: return *((const uint32_t *)(const void *)end - 1 - index);
    }
}

BH_INLINE void bhi_hard_set_size(const bhi_page_t *page, size_t block_size, uint32_t index, size_t size)
{
    uint8_t *end = bhi_hard_sizes(page);
    switch (bhi_hard_width(block_size)) {
    case 1: *(end - 1 - index) = (uint8_t)size; break;
    case 2: *((uint16_t *)(void *)end - 1 - index) = (uint16_t)size; break;
    default: *((uint32_t *)(void *)end - 1 - index) = (uint32_t)size; break;
    }
}

/* That of a single block. */
BH_INLINE uint64_t *bhi_hard_single(const bhi_page_t *page)
{
    return (uint64_t *)(void *)bhi_hard_ready(page, 1);
}

/* The requested size of a block of any page. */
BH_INLINE size_t bhi_hard_requested(const bhi_page_t *page, uint32_t index)
{
    return page->block_size != 0 ? bhi_hard_size(page, page->block_size, index) : *bhi_hard_single(page);
}

BH_INLINE void bhi_hard_set_requested(const bhi_page_t *page, uint32_t index, size_t size)
{
    if (page->block_size != 0)
        bhi_hard_set_size(page, page->block_size, index, size);
    else
        *bhi_hard_single(page) = size;
}

/* Where in a block the OS page of its end begins, or 0. */
BH_INLINE size_t bhi_hard_fresh_end(const bhi_page_t *page, uint32_t index)
{
    uintptr_t block = bhi_page_block(page, index), last = bhi_align_down(block + page->block_size - 8, BH_OS_PAGE_SIZE);
    return last > block ? last - block : 0;
}

/* Offset of the first damaged byte of a block's slack, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_hard_damage(const bhi_page_t *page, uint32_t index)
{
    size_t size = bhi_hard_requested(page, index), bytes = bhi_page_bytes(page);
    return bytes != size ? bhi_canary_check(bhi_page_block(page, index), size, bytes, bhi_hard_canaries(page), index) : BH_CANARY_INTACT;
}

#endif
