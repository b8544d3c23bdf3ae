/* What profile hardened keeps for each page, in its chunk of control data behind the
 * map: for each word of the map a pair of `ready` and `open`, backwards; at page->hard
 * the blocks that come next; then the requested size of each block. Of a single block
 * there is no next one, and all lies in the map's own cache line. See hardened.h for
 * what it means. */
#ifndef BH_CORE_HARDENED_PAGE_H
#define BH_CORE_HARDENED_PAGE_H

#include "core/page.h"
#include "harden/canary.h"

#define BHI_HARD_NEXT 125u /* with their counts four cache lines */
#define BHI_HARD_AMONG_BITS 5u
#define BHI_HARD_AMONG (1u << BHI_HARD_AMONG_BITS) /* whoever comes next is one of so many, where there are */

typedef struct bhi_hard_word {
    _Atomic(uint64_t) ready; /* atomic: freed by other threads and wiped */
    uint64_t open;           /* owner: E5 */
} bhi_hard_word_t;

typedef struct bhi_hard_page {
    uint16_t count;               /* owner */
    uint16_t least;               /* owner: so many are in `next` before more are looked for; 0 where no block is open */
    uint16_t granted;             /* owner: most blocks that can be handed out between the last heartbeat and the next */
    uint16_t next[BHI_HARD_NEXT]; /* owner: the last one of them comes first */
    uint8_t sizes[];              /* who may free the block: width by block size */
} bhi_hard_page_t;

#define BHI_HARD_SINGLE_BYTES (sizeof(bhi_hard_word_t) + sizeof(uint64_t))
_Static_assert(sizeof(bhi_map_word_t) + BHI_HARD_SINGLE_BYTES <= BH_CACHE_LINE, "a single block's is taken as a map alone");

BH_INLINE uint32_t bhi_hard_words(uint32_t blocks)
{
    return (blocks + 63) / 64;
}

/* Where page->hard points. Any thread: that field is in a line that the owner writes. */
BH_INLINE bhi_hard_page_t *bhi_hard_place(const bhi_page_t *page)
{
    return (bhi_hard_page_t *)(void *)((uintptr_t)page->map + (size_t)bhi_hard_words(page->reserved) * (sizeof(bhi_map_word_t) + sizeof(bhi_hard_word_t)));
}

BH_INLINE bhi_hard_word_t *bhi_hard_word(bhi_hard_page_t *hard, uint32_t word)
{
    return (bhi_hard_word_t *)(void *)hard - 1 - word;
}

/* Requested sizes are below that of the block. */
BH_INLINE unsigned bhi_hard_width(size_t block_size)
{
    return block_size <= UINT8_MAX + 1 ? 1 : block_size <= UINT16_MAX + 1 ? 2 : 4;
}

/* Bytes that the program asked for. Any thread that may free the block. */
BH_INLINE size_t bhi_hard_size(const bhi_hard_page_t *hard, size_t block_size, uint32_t index)
{
    switch (bhi_hard_width(block_size)) {
    case 1: return hard->sizes[index];
    case 2: return ((const uint16_t *)(const void *)hard->sizes)[index];
    default: return ((const uint32_t *)(const void *)hard->sizes)[index];
    }
}

BH_INLINE void bhi_hard_set_size(bhi_hard_page_t *hard, size_t block_size, uint32_t index, size_t size)
{
    switch (bhi_hard_width(block_size)) {
    case 1: hard->sizes[index] = (uint8_t)size; break;
    case 2: ((uint16_t *)(void *)hard->sizes)[index] = (uint16_t)size; break;
    default: ((uint32_t *)(void *)hard->sizes)[index] = (uint32_t)size; break;
    }
}

/* The requested size of a block of any page. */
BH_INLINE size_t bhi_hard_requested(const bhi_page_t *page, uint32_t index)
{
    bhi_hard_page_t *hard = bhi_hard_place(page);
    return page->block_size != 0 ? bhi_hard_size(hard, page->block_size, index) : *(const uint64_t *)(const void *)hard;
}

BH_INLINE void bhi_hard_set_requested(const bhi_page_t *page, uint32_t index, size_t size)
{
    bhi_hard_page_t *hard = bhi_hard_place(page);
    if (page->block_size != 0)
        bhi_hard_set_size(hard, page->block_size, index, size);
    else
        *(uint64_t *)(void *)hard = size;
}

/* What a quarantine keeps of a block: its page's descriptor and its index, so that no
 * lookup is needed when it leaves. Addresses have 48 bits at most, indices 16. */
BH_INLINE uintptr_t bhi_hard_entry(const bhi_page_t *page, uint32_t index)
{
    return (uintptr_t)page << 16 | index;
}

BH_INLINE bhi_page_t *bhi_hard_entry_page(uintptr_t entry)
{
    return (bhi_page_t *)(entry >> 16);
}

BH_INLINE uint32_t bhi_hard_entry_index(uintptr_t entry)
{
    return (uint32_t)(entry & UINT16_MAX);
}

/* Offset of the first damaged byte of a block's slack, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_hard_damage(const bhi_page_t *page, uint32_t index)
{
    size_t size = bhi_hard_requested(page, index), bytes = bhi_page_bytes(page);
    return bytes != size ? bhi_canary_check(bhi_page_block(page, index), size, bytes, page->key, index) : BH_CANARY_INTACT;
}

#endif
